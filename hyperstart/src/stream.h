/* SPDX-License-Identifier: Apache-2.0 */
/* One direction of a process's stdin, stdout or stderr, with its ring buffer. */
#ifndef STREAM_H
#define STREAM_H

#include "loop.h"
#include "wire.h"

struct ring {
	uint8_t *data; /* allocated at first use */
	size_t size;
	uint64_t start, end; /* stream offsets of what it holds */
};

/* stdout or stderr: process -> ring -> host */
struct output {
	struct source source;
	struct ring ring; /* ring.start: acknowledged by the host */
	uint64_t sent, limit;
	bool drain_only; /* the process has ended: an empty pipe is the end */
	bool asked;      /* the host has sent a window over this connection */
	bool eof, eof_sent;
};

/* stdin: host -> ring -> process */
struct input {
	struct source source;
	struct ring ring; /* ring.start: written to the process */
	uint64_t told;    /* the limit that the host knows */
	bool eof, closed;
};

void output_open(struct output *o, int fd);
void output_ended(struct output *o); /* the process has ended: take what is left */
void output_rewind(struct output *o);
int output_window(struct output *o, uint64_t ack, uint64_t limit, struct error *err);
bool output_frame(struct output *o, uint32_t id, uint8_t stream, struct buffer *out);
void output_close(struct output *o);

void input_open(struct input *in, int fd);
int input_data(struct input *in, uint64_t offset, const uint8_t *data, size_t len, bool eof, struct error *err);
void input_rewind(struct input *in);
bool input_window(struct input *in, uint32_t id, struct buffer *out);
void input_close(struct input *in);

#endif

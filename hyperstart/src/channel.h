/* SPDX-License-Identifier: Apache-2.0 */
/* The byte stream to the host: framing, connections, what is sent when. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "wire.h"

struct frame {
	uint16_t type;
	uint32_t id;
	const uint8_t *body;
	uint32_t len;
};

struct channel_user {
	void (*on_frame)(const struct frame *frame);
	void (*on_connect)(void);              /* a new connection: rewind the streams */
	bool (*next_data)(struct buffer *out); /* append one DATA frame, false if none */
	void (*on_end)(void);                  /* the descriptor itself is at its end */
	void (*on_break)(void);                /* a connection broke, and its host may not know; the next can come */
};

enum channel_kind {
	CHANNEL_STREAM,    /* its end is the channel's */
	CHANNEL_PORT,      /* of virtio-serial: it reads as ended while the host is away */
	CHANNEL_LISTENING, /* a socket: each of its connections is the channel, the next when one has ended */
};

void channel_open(int fd, enum channel_kind kind, const struct channel_user *user);
void channel_set_next_token(const uint8_t token[HP_TOKEN_SIZE]);
/* Control frames go to this buffer; they leave before any stream data. */
struct buffer *channel_control(void);
void channel_pump(void);
bool channel_flush(int timeout_ms);

void send_reply(uint32_t id);
void send_error(uint32_t id, const struct error *err);

#endif

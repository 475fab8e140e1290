/* SPDX-License-Identifier: Apache-2.0 */
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* Spans of the ring as one or two pieces; which: free space or contents. */
static int ring_spans(const struct ring *r, bool free_space, struct iovec v[2])
{
	uint64_t from = free_space ? r->end : r->start;
	size_t len = free_space ? r->size - (size_t)(r->end - r->start) : (size_t)(r->end - r->start);
	size_t at = (size_t)(from % r->size);
	size_t first = len < r->size - at ? len : r->size - at;

	v[0] = (struct iovec){r->data + at, first};
	v[1] = (struct iovec){r->data, len - first};
	return len == 0 ? 0 : v[1].iov_len ? 2 : 1;
}

static void ring_need(struct ring *r)
{
	if (!r->data)
		r->data = xmalloc(r->size);
}

static void ring_give_up(struct ring *r)
{
	free(r->data);
	r->data = NULL;
}

static void output_at_end(struct output *o)
{
	o->eof = true;
	loop_remove(&o->source);
}

static void output_read(struct output *o)
{
	while (o->source.fd >= 0) {
		struct iovec v[2];
		ssize_t n;
		int spans;

		ring_need(&o->ring);
		spans = ring_spans(&o->ring, true, v);
		if (spans == 0) {
			loop_change(&o->source, 0);
			return;
		}
		n = readv(o->source.fd, v, spans);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && !o->drain_only)
			return;
		if (n <= 0) { /* 0: closed; EIO: a terminal without user */
			output_at_end(o);
			return;
		}
		o->ring.end += (uint64_t)n;
		/* One piece per round keeps other streams and control alive. */
		if (!o->drain_only)
			return;
	}
}

static void on_output(struct source *s, uint32_t events)
{
	(void)events;
	output_read(s->owner);
}

void output_open(struct output *o, int fd)
{
	*o = (struct output){.ring.size = HP_OUTPUT_RING, .eof = fd < 0};
	o->source = (struct source){.fd = fd, .ready = on_output, .owner = o};
	if (fd < 0)
		return;
	set_flags(fd, true);
	loop_add(&o->source, EPOLLIN);
}

void output_ended(struct output *o)
{
	o->drain_only = true;
	output_read(o);
}

void output_rewind(struct output *o)
{
	o->sent = o->limit = o->ring.start;
	o->eof_sent = o->asked = false;
}

int output_window(struct output *o, uint64_t ack, uint64_t limit, struct error *err)
{
	if (ack > o->ring.end || limit < ack)
		return fail(err, HP_E_MALFORMED, 0, "window beyond the end of the stream");
	if (ack > o->ring.start)
		o->ring.start = ack;
	if (o->sent < o->ring.start)
		o->sent = o->ring.start;
	o->limit = limit;
	o->asked = true;
	if (o->eof && o->ring.start == o->ring.end)
		ring_give_up(&o->ring);
	else if (o->source.fd >= 0 && o->source.events == 0) {
		loop_change(&o->source, EPOLLIN);
		if (o->drain_only)
			output_read(o);
	}
	return 0;
}

bool output_frame(struct output *o, uint32_t id, uint8_t stream, struct buffer *out)
{
	uint64_t end = o->limit < o->ring.end ? o->limit : o->ring.end;
	size_t len = end > o->sent ? (size_t)(end - o->sent) : 0;
	size_t at, first, frame;
	uint8_t head[HP_STREAM_HEADER] = {stream};
	bool last;

	if (len > HP_DATA_MAX)
		len = HP_DATA_MAX;
	last = o->eof && o->sent + len == o->ring.end;
	/* Not even the end is told before the host has asked: after a
	 * reconnection it must take the process up first. */
	if (!o->asked || (len == 0 && (!last || o->eof_sent)))
		return false;
	head[1] = last ? HP_DATA_EOF : 0;
	store64(head + 8, o->sent);
	frame = frame_begin(out, HP_DATA, id);
	buf_append(out, head, sizeof head);
	at = (size_t)(o->sent % o->ring.size);
	first = len < o->ring.size - at ? len : o->ring.size - at;
	if (len) {
		buf_append(out, o->ring.data + at, first);
		buf_append(out, o->ring.data, len - first);
	}
	frame_end(out, frame);
	o->sent += len;
	o->eof_sent = last;
	return true;
}

void output_close(struct output *o)
{
	loop_remove(&o->source);
	ring_give_up(&o->ring);
}

static void input_stop(struct input *in)
{
	in->closed = true;
	in->ring.start = in->ring.end;
	loop_remove(&in->source);
	ring_give_up(&in->ring);
}

static void input_write(struct input *in)
{
	while (in->source.fd >= 0) {
		struct iovec v[2];
		int spans = in->ring.data ? ring_spans(&in->ring, false, v) : 0;
		ssize_t n;

		if (spans == 0) {
			loop_change(&in->source, 0);
			if (in->eof)
				input_stop(in);
			return;
		}
		n = writev(in->source.fd, v, spans);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			loop_change(&in->source, EPOLLOUT);
			return;
		}
		if (n < 0) {
			input_stop(in);
			return;
		}
		in->ring.start += (uint64_t)n;
	}
}

static void on_input(struct source *s, uint32_t events)
{
	(void)events;
	input_write(s->owner);
}

void input_open(struct input *in, int fd)
{
	*in = (struct input){.ring.size = HP_STDIN_RING, .closed = fd < 0};
	in->source = (struct source){.fd = fd, .ready = on_input, .owner = in};
	if (fd < 0)
		return;
	set_flags(fd, true);
	/* Watched only while something waits to be written. */
	loop_add(&in->source, EPOLLOUT);
	loop_change(&in->source, 0);
}

int input_data(struct input *in, uint64_t offset, const uint8_t *data, size_t len, bool eof, struct error *err)
{
	uint64_t skip = in->ring.end - offset;
	size_t at, first;

	if (offset > in->ring.end)
		return fail(err, HP_E_MALFORMED, 0, "stdin has a gap");
	if (skip > len)
		return 0; /* all of it known already */
	data += skip;
	len -= (size_t)skip;
	if (in->closed) {
		in->ring.start = in->ring.end += len;
		return 0;
	}
	if (in->ring.end + len > in->ring.start + in->ring.size)
		return fail(err, HP_E_MALFORMED, 0, "stdin beyond its limit");
	if (len) {
		ring_need(&in->ring);
		at = (size_t)(in->ring.end % in->ring.size);
		first = len < in->ring.size - at ? len : in->ring.size - at;
		memcpy(in->ring.data + at, data, first);
		memcpy(in->ring.data, data + first, len - first);
		in->ring.end += len;
	}
	in->eof |= eof;
	input_write(in);
	return 0;
}

void input_rewind(struct input *in) { in->told = 0; }

bool input_window(struct input *in, uint32_t id, struct buffer *out)
{
	uint64_t limit = in->ring.start + in->ring.size;
	uint8_t body[HP_STREAM_HEADER + 8] = {0};
	size_t frame;

	/* Half a window at a time: fewer frames, and the host never waits. */
	if (in->closed ? in->told == UINT64_MAX : in->told && limit - in->told < in->ring.size / 2)
		return false;
	in->told = in->closed ? UINT64_MAX : limit;
	body[1] = in->closed ? HP_WINDOW_CLOSED : 0;
	store64(body + 8, in->ring.start);
	store64(body + 16, limit);
	frame = frame_begin(out, HP_WINDOW, id);
	buf_append(out, body, sizeof body);
	frame_end(out, frame);
	return true;
}

void input_close(struct input *in)
{
	loop_remove(&in->source);
	ring_give_up(&in->ring);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#include "loop.h"

#define READ_CHUNK (64u << 10)
/* virtio-serial takes at most 32 KiB a write; more in one buffer only delays. */
#define TX_TARGET (64u << 10)
/* A host that asks without reading is not served without end. */
#define CONTROL_MAX (8u << 20)

static struct source source = {.fd = -1};
static struct source listener = {.fd = -1};
static const struct channel_user *user;
static enum channel_kind kind;
static bool connected; /* the token was seen, frames may flow */
static bool opened;    /* the kernel knows by now that the host is there */
static uint8_t token[HP_TOKEN_SIZE];
static struct buffer rx;
static struct buffer control; /* whole frames */
static struct buffer tx;      /* what is being written */
static size_t tx_done;

static void disconnect(void)
{
	connected = opened = false;
	rx.len = control.len = tx.len = tx_done = 0;
}

static void accept_connection(void)
{
	disconnect();
	connected = true;
	buf_append(&control, token, sizeof token);
	user->on_connect();
}

static void drop_rx(size_t n)
{
	memmove(rx.data, rx.data + n, rx.len - n);
	rx.len -= n;
}

/* Looks for the token in the bytes read last (and 15 before them, as it may
 * be cut). A token is random, so it is never met by accident. */
static void find_token(size_t fresh)
{
	size_t from = fresh > HP_TOKEN_SIZE - 1 ? fresh - (HP_TOKEN_SIZE - 1) : 0;
	uint8_t *hit = memmem(rx.data + from, rx.len - from, token, sizeof token);

	if (hit) {
		struct buffer rest = {0};
		size_t after = (size_t)(hit - rx.data) + sizeof token;

		buf_append(&rest, rx.data + after, rx.len - after);
		accept_connection();
		buf_append(&rx, rest.data, rest.len);
		buf_free(&rest);
	} else if (!connected && rx.len > HP_TOKEN_SIZE - 1) {
		drop_rx(rx.len - (HP_TOKEN_SIZE - 1));
	}
}

static void parse_frames(void)
{
	size_t done = 0;

	while (connected && rx.len - done >= HP_FRAME_HEADER) {
		const uint8_t *p = rx.data + done;
		uint32_t size = le32(p);
		struct frame f = {
		        .type = le16(p + 4),
		        .id = le32(p + 8),
		        .body = p + HP_FRAME_HEADER,
		        .len = size - HP_FRAME_HEADER,
		};

		if (size < HP_FRAME_HEADER || size > HP_FRAME_MAX) {
			struct error err;

			fail(&err, HP_E_MALFORMED, 0, "a frame of %u bytes; reconnect", size);
			send_error(f.id, &err);
			channel_flush(1000);
			disconnect(); /* frame borders are lost until the next token */
			return;
		}
		if (rx.len - done < size)
			break;
		user->on_frame(&f);
		done += size;
	}
	if (connected && done)
		drop_rx(done);
}

/* The next waits in the backlog meanwhile. */
static void end_connection(bool broken)
{
	loop_remove(&source);
	loop_change(&listener, EPOLLIN);
	if (broken)
		user->on_break();
}

static void on_channel(struct source *s, uint32_t events)
{
	(void)events;
	for (;;) {
		uint8_t chunk[READ_CHUNK];
		ssize_t n = read(s->fd, chunk, sizeof chunk);
		size_t fresh = rx.len;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			opened = true;
			return;
		}
		/* What the host sends may overtake the word of its coming, and
		 * the port reads as hung up until then. */
		if (n == 0 && kind == CHANNEL_PORT && connected && !opened)
			return;
		if (n <= 0) {
			disconnect();
			if (kind == CHANNEL_STREAM)
				user->on_end();
			else if (kind == CHANNEL_LISTENING)
				end_connection(n < 0);
			return;
		}
		buf_append(&rx, chunk, (size_t)n);
		find_token(fresh);
		parse_frames();
	}
}

static void use(int fd)
{
	set_flags(fd, true);
	source = (struct source){.fd = fd, .ready = on_channel};
	/* Edge-triggered: while the host is away a virtio port is hung up, and
	 * a level-triggered hang-up would spin. */
	loop_add(&source, EPOLLIN | EPOLLOUT | EPOLLET);
	on_channel(&source, 0);
}

/* Whoever is in the guest could connect too, where its kernel has a loopback of vsocks. */
static bool is_host(int fd)
{
	struct sockaddr_vm peer = {0};
	socklen_t size = sizeof peer;

	if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
		return false;
	return peer.svm_family != AF_VSOCK || peer.svm_cid == VMADDR_CID_HOST;
}

static void on_listener(struct source *s, uint32_t events)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0 && !is_host(fd)) {
		close(fd);
	} else if (fd >= 0) {
		loop_change(&listener, 0);
		use(fd);
	}
}

void channel_open(int fd, enum channel_kind of, const struct channel_user *u)
{
	user = u;
	kind = of;
	memcpy(token, HP_FIRST_TOKEN, sizeof token);
	if (kind != CHANNEL_LISTENING) {
		use(fd);
		return;
	}
	set_flags(fd, true);
	listener = (struct source){.fd = fd, .ready = on_listener};
	loop_add(&listener, EPOLLIN);
}

void channel_set_next_token(const uint8_t t[HP_TOKEN_SIZE]) { memcpy(token, t, sizeof token); }

struct buffer *channel_control(void)
{
	if (control.len > CONTROL_MAX)
		disconnect();
	return &control;
}

static void fill_tx(void)
{
	tx.len = tx_done = 0;
	buf_append(&tx, control.data, control.len);
	control.len = 0;
	while (tx.len < TX_TARGET && user->next_data(&tx))
		;
}

void channel_pump(void)
{
	while (connected) {
		ssize_t n;

		if (tx_done == tx.len)
			fill_tx();
		if (tx.len == 0)
			return;
		n = write(source.fd, tx.data + tx_done, tx.len - tx_done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			disconnect();
			return;
		}
		opened = true;
		tx_done += (size_t)n;
	}
}

bool channel_flush(int timeout_ms)
{
	struct pollfd p = {.fd = source.fd, .events = POLLOUT};

	for (;;) {
		channel_pump();
		if (!connected || (tx_done == tx.len && control.len == 0))
			return true;
		if (poll(&p, 1, timeout_ms) <= 0)
			return false;
	}
}

void send_reply(uint32_t id)
{
	struct buffer *b = channel_control();

	frame_end(b, frame_begin(b, HP_REPLY, id));
}

void send_error(uint32_t id, const struct error *err)
{
	struct buffer *b = channel_control();
	size_t start = frame_begin(b, HP_ERROR, id);

	put_u64(b, HP_T_CODE, (uint64_t)err->code);
	put_u64(b, HP_T_ERRNO, (uint64_t)err->errnum);
	put_u64(b, HP_T_EXIT_STATUS, (uint64_t)err->exit_status);
	put_text(b, HP_T_MESSAGE, err->message);
	frame_end(b, start);
}

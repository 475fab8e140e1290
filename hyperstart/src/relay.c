/* SPDX-License-Identifier: Apache-2.0 */
/* One TCP connection within the pod, whose bytes are stdin and stdout: a forwarded port. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"

struct pump {
	int from, to;
	size_t begin, end; /* of what has been read and not written, in `data` */
	bool over;         /* nothing more is read */
	char data[32 << 10];
};

/* Whoever listens on one of the pod's own addresses of the two families; a server may have one alone. */
static int connect_within(const char *port, int timeout_ms)
{
	int fd = tcp_connect("127.0.0.1", port, timeout_ms), error = errno;

	if (fd < 0)
		fd = tcp_connect("::1", port, timeout_ms);
	if (fd < 0)
		fprintf(stderr, "connecting to port %s within the pod: %s\n", port, strerror(error));
	return fd;
}

static bool later(void) { return errno == EAGAIN || errno == EINTR; }

static bool empty(const struct pump *p) { return p->begin == p->end; }

static bool done(const struct pump *p) { return p->over && empty(p); }

/* When one side is gone, what was on its way to it is lost, and nothing more is read for it. */
static void step(struct pump *p)
{
	ssize_t n;

	if (empty(p) && !p->over) {
		n = read(p->from, p->data, sizeof p->data);
		p->begin = 0;
		p->end = n > 0 ? (size_t)n : 0;
		p->over = n == 0 || (n < 0 && !later());
	}
	if (!empty(p)) {
		n = write(p->to, p->data + p->begin, p->end - p->begin);
		if (n < 0 && !later()) {
			p->begin = p->end;
			p->over = true;
		}
		p->begin += n > 0 ? (size_t)n : 0;
	}
}

static struct pollfd wanted(const struct pump *p)
{
	struct pollfd reads = {.fd = p->over ? -1 : p->from, .events = POLLIN};
	struct pollfd writes = {.fd = p->to, .events = POLLOUT};

	return empty(p) ? reads : writes;
}

int relay_main(const struct strings *args)
{
	static struct pump in = {.from = 0}, out = {.to = 1};
	cleanup_close int fd = args->n < 2 ? -1 : connect_within(args->v[0], atoi(args->v[1]));
	bool told = false;

	if (fd < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	set_flags(0, true);
	set_flags(1, true);
	in.to = out.from = fd;
	while (!done(&out)) {
		struct pollfd p[] = {wanted(&in), wanted(&out)};

		if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
			return 1;
		step(&in);
		step(&out);
		if (done(&in) && !told) {
			shutdown(fd, SHUT_WR);
			told = true;
		}
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of the host without a device for them: the kernel's messages of FUSE, as they are, over a byte stream to
 * the host, where a server answers (hyperjail/files). A process of its own carries them; when it ends, each file there
 * answers ENOTCONN.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "container.h"
#include "port.h"
#include "process.h"

/* The kernel reads into nothing smaller than what the server would take; of it no more than 32 pages are used. */
#define ROOM ((1u << 20) + 8192)

struct carrier {
	int from, to;
	size_t have, sent;
	unsigned char *data;
};

/* Says why, for whoever reads the kernel's log; false. */
static bool broken(const char *why)
{
	log_line("directories of the host: %s: %s", why, strerror(errno));
	return false;
}

static bool later(void) { return errno == EAGAIN || errno == EINTR; }

/* Whether the server shall see the message. Without FUSE_MAX_PAGES none has more than 32 pages; an interrupted call
 * waits for its answer. */
static bool is_for_server(unsigned char *message)
{
	struct fuse_in_header *header = (struct fuse_in_header *)message;
	struct fuse_init_in *init = (struct fuse_init_in *)(header + 1);

	if (header->opcode == FUSE_INIT)
		init->flags &= ~(uint32_t)FUSE_MAX_PAGES;
	return header->opcode != FUSE_INTERRUPT;
}

/* The kernel's messages, which come whole; false when there is nothing to carry any more. */
static bool ask(struct carrier *c)
{
	ssize_t n;

	if (c->have == 0) {
		n = read(c->from, c->data, ROOM);
		if (n < 0)
			return later() || errno == ENOENT /* one was taken back */ || broken("reading from the kernel");
		if ((size_t)n < sizeof(struct fuse_in_header))
			return broken("the kernel asks nothing");
		c->have = is_for_server(c->data) ? (size_t)n : 0;
		c->sent = 0;
	}
	if (c->have) {
		n = write(c->to, c->data + c->sent, c->have - c->sent);
		if (n < 0)
			return later() || broken("writing to the host");
		c->sent += (size_t)n;
		if (c->sent == c->have)
			c->have = 0;
	}
	return true;
}

/* The answers, which the kernel takes whole. */
static bool answer(struct carrier *c)
{
	struct fuse_out_header *header = (struct fuse_out_header *)c->data;
	size_t wanted = c->have < sizeof *header ? sizeof *header : header->len;
	ssize_t n = read(c->from, c->data + c->have, wanted - c->have);

	if (n < 0)
		return later() || broken("reading from the host");
	if (n == 0)
		return broken("the host has gone");
	c->have += (size_t)n;
	if (c->have >= sizeof *header && (header->len < sizeof *header || header->len > ROOM))
		return broken("what comes is no answer");
	if (c->have < sizeof *header || c->have < header->len)
		return true;
	n = write(c->to, c->data, c->have);
	c->have = 0;
	if (n < 0 && errno != ENOENT) /* nobody waits for it any more */
		return broken("an answer is refused");
	return true;
}

static _Noreturn void carry(int fuse, int stream)
{
	struct carrier asked = {.from = fuse, .to = stream, .data = xmalloc(ROOM)};
	struct carrier answered = {.from = stream, .to = fuse, .data = xmalloc(ROOM)};

	for (;;) {
		struct pollfd fds[] = {{fuse, asked.have ? 0 : POLLIN, 0},
		                       {stream, (short)(POLLIN | (asked.have ? POLLOUT : 0)), 0}};

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			_exit(1);
		if (fds[0].revents & POLLERR) /* it is mounted no longer */
			_exit(0);
		if (fds[1].revents & (POLLIN | POLLHUP) && !answer(&answered))
			_exit(1);
		if ((fds[0].revents & POLLIN || fds[1].revents & POLLOUT) && !ask(&asked))
			_exit(1);
	}
}

/* Its memory is little, and all of the pod's directories hang on it. */
static _Noreturn void serve(int fuse, int stream)
{
	struct error err;

	setsid();
	prctl(PR_SET_NAME, "files");
	signal(SIGPIPE, SIG_IGN);
	write_file("/proc/self/oom_score_adj", "-1000", 5);
	/* Whoever reads our output waits for its end. */
	for (int fd = 0, log = open("/dev/kmsg", O_RDWR | O_CLOEXEC); fd < 3 && log >= 0; fd++)
		dup2(log, fd);
	if (child_confine(0, &err) < 0)
		_exit(1);
	carry(fuse, stream);
}

static int mount_fuse(int fuse, const char *target)
{
	cleanup_free char *options =
	        xasprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fuse);

	return make_dirs(target, 0700) < 0 ? -1 : mount("share", target, "fuse", 0, options);
}

int share_main(const struct strings *args)
{
	cleanup_free char *target = NULL;
	int fuse, stream;
	pid_t pid;

	if (args->n != 2)
		return 125;
	target = xasprintf(VOLUME_DIR "/%s", args->v[0]);
	umount2(target, MNT_FORCE | MNT_DETACH); /* of one whose host went away: who carries for it ends */
	stream = port_connect(args->v[1]);
	if (stream < 0)
		return 1;
	fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fuse < 0 || mount_fuse(fuse, target) < 0) {
		fprintf(stderr, "mounting the directories of the host failed: %s\n", strerror(errno));
		return 1;
	}
	pid = fork();
	if (pid == 0)
		serve(fuse, stream);
	if (pid < 0)
		perror("fork");
	return pid < 0;
}

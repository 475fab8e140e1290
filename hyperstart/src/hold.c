/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HP_B_HOLD: a volume's file system takes no writes while the host copies the disk beneath it. The kernel does not tie
 * that to a process, so a guardian that nobody knows freezes and thaws: at the end of stdin, when no byte has come
 * there for long, when the limit is over, and when the process that the host knows was killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "container.h"
#include "process.h"

enum said { FROZEN = 'f', RELEASED = 'r', OVERDUE = 'o' };

#define ENDED_EARLY 3

struct guardian {
	int volume, pulse, tell;
	uint64_t beat_ms, limit_ms;
};

/* True: the host has let go, or is no more. False: it is late. */
static bool wait_for_release(const struct guardian *g)
{
	uint64_t end = monotonic_ms() + g->limit_ms;
	char bytes[64];

	for (;;) {
		uint64_t now = monotonic_ms(), left = now < end ? end - now : 0;
		struct pollfd p = {.fd = g->pulse, .events = POLLIN};
		int r = poll(&p, 1, (int)(left < g->beat_ms ? left : g->beat_ms));
		ssize_t n = r > 0 ? read(g->pulse, bytes, sizeof bytes) : -1;

		if (n == 0)
			return true;
		if (r == 0 || (n < 0 && errno != EINTR))
			return false;
	}
}

static void tell(const struct guardian *g, enum said what)
{
	char byte = (char)what;

	if (write(g->tell, &byte, 1) < 0)
		return; /* nobody listens any more */
}

/* Its end closes `tell`: with nothing said it has failed, and said why on stderr. */
static int guard(const struct guardian *g)
{
	bool released;

	/* It alone can let others write again. */
	write_file("/proc/self/oom_score_adj", "-1000", 5);
	if (ioctl(g->volume, FIFREEZE, 0) < 0) {
		fprintf(stderr, "freezing the file system: %s\n", strerror(errno));
		return 1;
	}
	/* What waits for the streams' ends waits for the other process alone. */
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	tell(g, FROZEN);
	released = wait_for_release(g);
	while (ioctl(g->volume, FITHAW, 0) < 0 && errno == EINTR)
		;
	tell(g, released ? RELEASED : OVERDUE);
	return 0;
}

/* What the host says goes to the guardian; its end is the end of the hold. */
static int relay(int pulse, int told)
{
	bool open = true;
	char bytes[64], said;

	for (;;) {
		struct pollfd p[] = {{.fd = told, .events = POLLIN}, {.fd = open ? 0 : -1, .events = POLLIN}};

		if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents) {
			if (read(told, &said, 1) != 1)
				return 1;
			if (said != FROZEN)
				return said == RELEASED ? 0 : ENDED_EARLY;
			if (puts("frozen") < 0 || fflush(stdout) < 0)
				return 1;
		}
		if (open && p[1].revents) {
			ssize_t n = read(0, bytes, sizeof bytes);

			if (n == 0)
				close(pulse);
			open = n != 0;
			if (n > 0 && write(pulse, bytes, 1) < 0)
				open = false; /* it has ended, and said so */
		}
	}
}

int hold_main(const struct strings *args)
{
	cleanup_free char *path = args->n == 3 ? xasprintf(VOLUME_DIR "/%s", args->v[0]) : NULL;
	struct guardian g = {.volume = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1};
	int pulse[2], told[2];
	pid_t pid;

	if (!path)
		return 125;
	g.beat_ms = strtoul(args->v[1], NULL, 10);
	g.limit_ms = strtoul(args->v[2], NULL, 10);
	/* Most is written before anybody has to wait for it. */
	if (g.volume < 0 || syncfs(g.volume) < 0 || pipe2(pulse, O_CLOEXEC) < 0 || pipe2(told, O_CLOEXEC) < 0) {
		perror("the volume");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	g.pulse = pulse[0];
	g.tell = told[1];
	pid = fork();
	if (pid == 0) {
		setsid();
		close(pulse[1]);
		close(told[0]);
		_exit(guard(&g));
	}
	close(pulse[0]);
	close(told[1]);
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	close(g.volume);
	return relay(pulse[1], told[0]);
}

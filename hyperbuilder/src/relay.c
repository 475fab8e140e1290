// SPDX-License-Identifier: Apache-2.0
//
// relay PATH SECONDS: what comes on stdin goes to the unix socket PATH, what the socket says goes to stdout.
//
// It waits up to SECONDS for somebody to listen there. The end of stdin ends what is sent and leaves the other
// direction alone; the end of the socket is the end. Exit status 1: nobody listened, told on stderr.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 20
#define BUFFER  65536

static int dial(const char *path, int seconds)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timespec step = {.tv_nsec = STEP_MS * 1000000L};

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	for (long left = seconds * 1000L;; left -= STEP_MS) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -1;
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		int error = errno;
		close(fd);
		errno = error;
		if (left <= 0 || (errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN))
			return -1;
		nanosleep(&step, NULL);
	}
}

// All that comes, until there is no more of it or nobody takes it.
static void pass(int from, int to)
{
	static char buffer[BUFFER];

	for (;;) {
		ssize_t got = read(from, buffer, sizeof(buffer));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return;
		for (char *at = buffer; got > 0;) {
			ssize_t put = write(to, at, (size_t)got);
			if (put < 0 && errno == EINTR)
				continue;
			if (put < 0)
				return;
			at += put;
			got -= put;
		}
	}
}

// A process for each direction: one that stands still because nobody reads must not hold up the other.
static int carry(int fd)
{
	pid_t sender = fork();

	if (sender < 0) {
		perror("relay: fork");
		return 1;
	}
	if (sender == 0) {
		pass(STDIN_FILENO, fd);
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	pass(fd, STDOUT_FILENO);
	kill(sender, SIGKILL);
	waitpid(sender, NULL, 0); // process 1 there is dockerd, which asks for no child that it has not made
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: relay PATH SECONDS\n");
		return 2;
	}
	int fd = dial(argv[1], atoi(argv[2]));
	if (fd < 0) {
		fprintf(stderr, "relay: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	return carry(fd);
}

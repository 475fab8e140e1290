/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperjail-files STREAM SERVER
 *
 * Directories for a machine that has no device for them: one that goes on from a template, since a server reads the
 * memory of its machine, and a clone's is its own; or one of a hypervisor that has no such device. The guest's messages
 * of FUSE come by STREAM, a byte stream, and are put before SERVER, a socket to virtiofsd, in memory of our own. They
 * are not looked into: of each the length and the kind are read, and of what reads a file, how much of it. It ends with
 * either of them.
 *
 * A message begins with its length: https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/fuse.h
 */
#include "vhost.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define HEADER        40u /* struct fuse_in_header */
#define ANSWER_HEADER 16u /* struct fuse_out_header */
#define FORGET        2u  /* opcodes without an answer */
#define BATCH_FORGET  42u
#define READ          15u
#define READ_SIZE     (HEADER + 16) /* where it says how much: in struct fuse_read_in */

static int slot = -1;          /* of the message that comes in */
static size_t have;            /* bytes of it */
static size_t wanted = HEADER; /* bytes that it may be read up to: its header, then all of it */

_Noreturn void stop(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Of a message whose header is there. It is asked for once: where the message lies, the server writes, too. */
static size_t length_of(const uint8_t *message)
{
	uint32_t length;

	memcpy(&length, message, sizeof length);
	if (length < HEADER || length > MESSAGE_MAX)
		stop("the guest sends what is no message: %u bytes", length);
	return length;
}

/* Bytes that the answer may have; virtiofsd reads of a file as much as there is room for. */
static size_t room(const uint8_t *message)
{
	uint32_t kind, size = 0;

	memcpy(&kind, message + sizeof(uint32_t), sizeof kind);
	if (kind == FORGET || kind == BATCH_FORGET)
		return 0;
	if (kind == READ && have >= READ_SIZE + sizeof size)
		memcpy(&size, message + READ_SIZE, sizeof size);
	return kind == READ && size < MESSAGE_MAX - ANSWER_HEADER ? ANSWER_HEADER + size : MESSAGE_MAX;
}

static void take(int stream)
{
	uint8_t *message = vhost_request(slot);
	ssize_t n = recv(stream, message + have, wanted - have, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) /* the machine has ended */
		exit(0);
	have += (size_t)n;
	if (have == HEADER)
		wanted = length_of(message);
	if (have < wanted)
		return;
	vhost_submit(slot, have, room(message));
	slot = -1;
	have = 0;
	wanted = HEADER;
}

/* A guest that does not read waits for itself. */
static void give(int stream, const uint8_t *answer, size_t size)
{
	uint32_t length;

	memcpy(&length, answer, sizeof length);
	if (length < ANSWER_HEADER || length > size)
		stop("the server of directories sends what is no answer");
	for (size_t sent = 0; sent < length;) {
		ssize_t n = send(stream, answer + sent, length - sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			exit(0);
		sent += n > 0 ? (size_t)n : 0;
	}
}

static void give_all(int stream, int call)
{
	const uint8_t *answer;
	eventfd_t times;
	size_t size;

	eventfd_read(call, &times);
	while ((answer = vhost_answer(&size)))
		if (size)
			give(stream, answer, size);
}

int main(int argc, char **argv)
{
	int stream, server, call;

	if (argc != 3)
		stop("usage: hyperjail-files STREAM SERVER");
	stream = atoi(argv[1]);
	server = atoi(argv[2]);
	call = vhost_start(server);
	for (;;) {
		struct pollfd fds[] = {{call, POLLIN, 0}, {server, POLLIN, 0}, {stream, POLLIN, 0}};

		if (slot < 0)
			slot = vhost_slot();
		if (slot < 0)
			fds[2].events = 0;
		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			stop("poll: %s", strerror(errno));
		if (fds[1].revents) /* it says nothing by itself */
			stop("the server of directories has ended");
		if (fds[0].revents)
			give_all(stream, call);
		if (fds[2].revents & (POLLHUP | POLLERR) && !(fds[2].revents & POLLIN))
			exit(0);
		if (fds[2].revents & POLLIN)
			take(stream);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's nftables. The host sends whole transactions as nfnetlink messages
 * (include/uapi/linux/netfilter/nfnetlink.h); the kernel takes all or nothing.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "net.h"
#include "process.h"

#define BATCH_MAX (1u << 20)

static int first_error(int fd)
{
	static uint8_t reply[64u << 10];
	ssize_t n;

	/* The kernel has queued every answer before send() returned. */
	while ((n = recv(fd, reply, sizeof reply, MSG_DONTWAIT)) > 0)
		for (struct nlmsghdr *h = (struct nlmsghdr *)reply; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n))
			if (h->nlmsg_type == NLMSG_ERROR && ((struct nlmsgerr *)NLMSG_DATA(h))->error)
				return -((struct nlmsgerr *)NLMSG_DATA(h))->error;
	return 0;
}

static int send_batch(const uint8_t *batch, size_t len)
{
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	int size = BATCH_MAX;

	if (fd < 0)
		return errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	return send(fd, batch, len, 0) < 0 ? errno : first_error(fd);
}

int firewall_main(const struct strings *args)
{
	struct interface lo = {.addresses = *args};
	struct buffer batch = {0};
	uint8_t chunk[4096];
	struct error err;
	ssize_t n;
	int error;

	lo.name = xstrndup("lo", 2);
	if (strcmp(args->v[0], "-") != 0 && net_up(&lo, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	while ((n = read(0, chunk, sizeof chunk)) > 0 && batch.len < BATCH_MAX)
		buf_append(&batch, chunk, (size_t)n);
	error = batch.len ? send_batch(batch.data, batch.len) : 0;
	if (error)
		fprintf(stderr, "nftables: %s\n", strerror(error));
	return error != 0;
}

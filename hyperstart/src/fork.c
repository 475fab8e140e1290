/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine that goes on from a saved one is another than that: what the saved one spoke with outside knows nothing
 * of it. So TCP connections that leave the machine are reset, those too that a program has yet to accept. They are
 * found as descriptors of processes; in the kernel there is no other way without CONFIG_INET_DIAG_DESTROY.
 */
#include "fork.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DRIVER "/sys/bus/virtio/drivers/virtio_balloon"
#define NAME   256 /* of a device */

static bool is_loopback(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const void *)a;
	const struct sockaddr_in6 *v6 = (const void *)a;

	if (a->ss_family == AF_INET)
		return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
	if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		return v6->sin6_addr.s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

static int state_of(int fd)
{
	uint8_t info[sizeof(struct tcp_info)] = {0};
	socklen_t len = sizeof info;

	/* The first byte is tcpi_state, in every version of the structure. */
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) < 0 ? -1 : info[0];
}

/* A program would take one for a client, which is another machine's; the listening socket may be one that blocks. */
static void empty_queue(int fd)
{
	const struct linger at_once = {.l_onoff = 1};
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 0) == 1 && p.revents & POLLIN) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

		if (client < 0)
			return;
		setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		close(client);
	}
}

static void sever(int fd)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;
	int domain = option(fd, SOL_SOCKET, SO_DOMAIN);

	if ((domain != AF_INET && domain != AF_INET6) || option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP)
		return;
	if (state_of(fd) == TCP_LISTEN)
		empty_queue(fd);
	else if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && !is_loopback(&peer))
		connect(fd, &nobody, sizeof nobody); /* who has it hears of ECONNRESET */
}

static void sever_all_of(int pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/fd", pid);
	cleanup_close int process = (int)syscall(SYS_pidfd_open, pid, 0);
	DIR *dir = process < 0 ? NULL : opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char target[32] = {0};

		if (entry->d_name[0] == '.' || readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1) < 0 ||
		    strncmp(target, "socket:", strlen("socket:")) != 0)
			continue;
		cleanup_close int fd = (int)syscall(SYS_pidfd_getfd, process, atoi(entry->d_name), 0);

		if (fd >= 0)
			sever(fd);
	}
	if (dir)
		closedir(dir);
}

int fork_sever(struct error *err)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	if (!dir)
		return fail_sys(err, "/proc");
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) > 1)
			sever_all_of(atoi(entry->d_name));
	closedir(dir);
	return 0;
}

/* The device that the driver has, "" for none. */
static void find_balloon(char *name, size_t size)
{
	DIR *dir = opendir(DRIVER);
	struct dirent *entry;

	*name = 0;
	while (dir && (entry = readdir(dir)))
		if (strncmp(entry->d_name, "virtio", strlen("virtio")) == 0)
			snprintf(name, size, "%s", entry->d_name);
	if (dir)
		closedir(dir);
}

int fork_keep_free_pages(struct error *err)
{
	char device[NAME];

	find_balloon(device, sizeof device);
	if (device[0] && write_file(DRIVER "/unbind", device, strlen(device)) < 0)
		return fail_sys(err, "the balloon");
	return 0;
}

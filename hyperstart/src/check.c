/* SPDX-License-Identifier: Apache-2.0 */
/* Health checks over the network, made from inside the pod: TCP and HTTP (RFC 9112). */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "process.h"

int tcp_connect(const char *address, const char *port, int timeout_ms)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	bool is_v6 = strchr(address, ':') != NULL;
	struct pollfd p = {.fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
	                   .events = POLLOUT};
	socklen_t size = sizeof errno;
	int error = EINVAL, r;

	if (is_v6 ? inet_pton(AF_INET6, address, &v6.sin6_addr) != 1 : inet_pton(AF_INET, address, &v4.sin_addr) != 1)
		goto failed;
	r = is_v6 ? connect(p.fd, (struct sockaddr *)&v6, sizeof v6) : connect(p.fd, (struct sockaddr *)&v4, sizeof v4);
	error = r < 0 ? errno : 0;
	if (error == EINPROGRESS) {
		error = ETIMEDOUT;
		if (poll(&p, 1, timeout_ms) == 1 && getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
			error = errno;
	}
	if (error == 0)
		return p.fd;
failed:
	close(p.fd);
	errno = error;
	return -1;
}

static int connect_to(const char *address, const char *port, int timeout_ms)
{
	int fd = tcp_connect(address, port, timeout_ms);

	if (fd < 0)
		printf("connecting to %s port %s: %s\n", address, port, strerror(errno));
	return fd;
}

int tcp_main(const struct strings *args)
{
	cleanup_close int fd = args->n < 3 ? -1 : connect_to(args->v[0], args->v[1], atoi(args->v[2]));

	fflush(stdout);
	return fd < 0;
}

static int request(int fd, const struct strings *args)
{
	cleanup_free char *head =
	        xasprintf("GET %s HTTP/1.1\r\nConnection: close\r\nUser-Agent: hyperstart\r\n", args->v[3]);
	bool has_host = false;

	if (write_all(fd, head, strlen(head)) < 0)
		return -1;
	for (size_t i = 4; i < args->n; i++) {
		cleanup_free char *line = xasprintf("%s\r\n", args->v[i]);

		has_host |= strncasecmp(line, "host:", 5) == 0;
		if (write_all(fd, line, strlen(line)) < 0)
			return -1;
	}
	if (!has_host) {
		cleanup_free char *line = xasprintf("Host: %s:%s\r\n", args->v[0], args->v[1]);

		if (write_all(fd, line, strlen(line)) < 0)
			return -1;
	}
	return write_all(fd, "\r\n", 2);
}

int http_main(const struct strings *args)
{
	int timeout = args->n < 4 ? 0 : atoi(args->v[2]), status = 0;
	cleanup_close int fd = args->n < 4 ? -1 : connect_to(args->v[0], args->v[1], timeout);
	struct timeval limit = {.tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000};
	char answer[512];
	size_t have = 0;
	ssize_t n = 1;

	if (fd >= 0) {
		set_flags(fd, false);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		if (request(fd, args) < 0)
			printf("sending the request: %s\n", strerror(errno));
		while (n > 0 && have < sizeof answer - 1 && !memchr(answer, '\n', have)) {
			n = read(fd, answer + have, sizeof answer - 1 - have);
			have += n > 0 ? (size_t)n : 0;
		}
		answer[have] = 0;
		answer[strcspn(answer, "\r\n")] = 0;
		if (sscanf(answer, "HTTP/%*d.%*d %d", &status) == 1)
			printf("GET %s: %s\n", args->v[3], answer);
		else
			printf("GET %s: no HTTP answer\n", args->v[3]);
	}
	fflush(stdout);
	return status < 200 || status > 399;
}

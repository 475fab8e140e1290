/* SPDX-License-Identifier: Apache-2.0
 *
 * The channel to the host. Which device it is the hypervisor's driver says on the kernel's command line:
 *
 *   hyper.channel=port:NAME   the virtio-serial port of this name; the default is port:sh.hyper.guest.0
 *   hyper.channel=vsock:PORT  a vsock, on which the host connects; it is called at the same port once that can be
 *   hyper.channel=hvc:NUMBER  this console of Xen's; a byte calls the host once what it sends arrives as it is
 */
#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>

#include "loop.h"
#include "util.h"

#define ARGUMENT        "hyper.channel="
#define PORT            "port:"
#define DEFAULT         PORT "sh.hyper.guest.0"
#define VSOCK           "vsock:"
#define HVC             "hvc:"
#define BACKLOG         1
#define PORT_TIMEOUT_MS 30000
#define HOST_TRIES      10000 /* 1 ms apart */
#define CONSOLE_TRIES   6000  /* 5 ms apart */
#define COMMAND_LINE    4096  /* COMMAND_LINE_SIZE of x86 is 2048 */

/* The port's device, once its driver has announced it. */
static int try_port(const char *wanted)
{
	DIR *d = opendir("/sys/class/virtio-ports");
	struct dirent *e;
	int fd = -1;

	while (d && fd < 0 && (e = readdir(d))) {
		char path[300], name[64];

		snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", e->d_name);
		if (e->d_name[0] == '.' || read_file(AT_FDCWD, path, name, sizeof name) < 0)
			continue;
		name[strcspn(name, "\n")] = 0;
		snprintf(path, sizeof path, "/dev/%s", e->d_name);
		if (strcmp(name, wanted) == 0)
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (d)
		closedir(d);
	return fd;
}

/* It appears a moment after the boot. */
static int wait_for_port(const char *name)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	cleanup_close int events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	struct pollfd p = {.fd = events, .events = POLLIN};
	char message[4096];
	int fd;

	if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address) < 0)
		log_line("uevents: %s", strerror(errno));
	while ((fd = try_port(name)) < 0) {
		if (poll(&p, 1, PORT_TIMEOUT_MS) <= 0) {
			log_line("no virtio port %s", name);
			return -1;
		}
		if (recv(events, message, sizeof message, 0) < 0)
			log_line("uevents: %s", strerror(errno));
	}
	return fd;
}

static void call_host(void);

/* The host hangs up when it has heard; a call that breaks is one of a machine that was saved, and goes on as a clone:
 * by then all of its connections are broken, and its host waits for the word that it can connect. */
static void on_call(struct source *s, uint32_t events)
{
	char byte;
	ssize_t n = read(s->fd, &byte, sizeof byte);

	(void)events;
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	loop_remove(s);
	if (n < 0)
		call_host();
}

static struct source call = {.fd = -1, .ready = on_call};
static unsigned call_port;

static int connect_to_host(unsigned port)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof host) < 0) {
		log_line("calling the host: %s", strerror(errno));
		close_fd(&fd);
		return -1;
	}
	set_flags(fd, true);
	return fd;
}

/* Tells the host that it can connect: the call has no other content. */
static void call_host(void)
{
	call.fd = connect_to_host(call_port);
	if (call.fd >= 0)
		loop_add(&call, EPOLLIN);
}

void port_recall(void)
{
	if (call_port && call.fd < 0)
		call_host();
}

static int listen_on_vsock(const char *number)
{
	struct sockaddr_vm here = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
	cleanup_close int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int listening = fd;

	here.svm_port = (unsigned)strtoul(number, NULL, 10);
	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(fd, BACKLOG) < 0) {
		log_line("vsock %s: %s", number, strerror(errno));
		return -1;
	}
	call_port = here.svm_port;
	call_host();
	fd = -1;
	return listening;
}

/* Its node is there from the boot on, and opens once xenbus has brought the console. Until then it is a terminal that
 * gives back what it reads, so that goes; the host waits for the call. */
static int open_console(const char *number)
{
	struct timespec tick = {.tv_nsec = 5000000};
	struct termios raw;
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/dev/hvc%s", number);
	for (int i = 0; (fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)) < 0; i++) {
		if (i >= CONSOLE_TRIES) {
			log_line("%s: %s", path, strerror(errno));
			return -1;
		}
		nanosleep(&tick, NULL);
	}
	if (tcgetattr(fd, &raw) == 0) {
		cfmakeraw(&raw);
		if (tcsetattr(fd, TCSANOW, &raw) == 0 && tcflush(fd, TCIFLUSH) == 0 && write(fd, "", 1) == 1)
			return fd;
	}
	log_line("%s: %s", path, strerror(errno));
	close(fd);
	return -1;
}

int port_open(bool *listens)
{
	char line[COMMAND_LINE] = "", *found;
	const char *channel = DEFAULT;

	if (read_file(AT_FDCWD, "/proc/cmdline", line, sizeof line) > 0 && (found = strstr(line, ARGUMENT))) {
		found += strlen(ARGUMENT);
		found[strcspn(found, " \n")] = 0;
		channel = found;
	}
	*listens = strncmp(channel, VSOCK, strlen(VSOCK)) == 0;
	if (*listens)
		return listen_on_vsock(channel + strlen(VSOCK));
	if (strncmp(channel, HVC, strlen(HVC)) == 0)
		return open_console(channel + strlen(HVC));
	if (strncmp(channel, PORT, strlen(PORT)) != 0) {
		log_line("unknown channel %s", channel);
		return -1;
	}
	return wait_for_port(channel + strlen(PORT));
}

/* Whoever had it may be about to end; and before the hypervisor has told the guest of who is there, a port reads as one
 * that was left. */
static int wait_for_host(const char *name)
{
	struct timespec tick = {.tv_nsec = 1000000};
	struct pollfd p = {.fd = -1};

	for (int i = 0; i < HOST_TRIES; i++) {
		if (p.fd < 0)
			p.fd = try_port(name);
		if (p.fd >= 0 && poll(&p, 1, 0) == 0)
			return p.fd;
		nanosleep(&tick, NULL);
	}
	log_line(p.fd < 0 ? "the port %s is not there, or in use" : "nobody is at the other end of the port %s", name);
	close_fd(&p.fd);
	return -1;
}

int port_connect(const char *channel)
{
	if (strncmp(channel, VSOCK, strlen(VSOCK)) == 0)
		return connect_to_host((unsigned)strtoul(channel + strlen(VSOCK), NULL, 10));
	if (strncmp(channel, PORT, strlen(PORT)) == 0)
		return wait_for_host(channel + strlen(PORT));
	log_line("unknown channel %s", channel);
	return -1;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * The channel to the host. Which device it is the hypervisor's driver says on the kernel's command line:
 *
 *   hyper.channel=port:NAME  the virtio-serial port of this name; the default is port:sh.hyper.guest.0
 */
#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>

#include "util.h"

#define ARGUMENT        "hyper.channel="
#define PORT            "port:"
#define DEFAULT         PORT "sh.hyper.guest.0"
#define PORT_TIMEOUT_MS 30000
#define COMMAND_LINE    4096 /* COMMAND_LINE_SIZE of x86 is 2048 */

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

int port_open(void)
{
	char line[COMMAND_LINE] = "", *found;
	const char *channel = DEFAULT;

	if (read_file(AT_FDCWD, "/proc/cmdline", line, sizeof line) > 0 && (found = strstr(line, ARGUMENT))) {
		found += strlen(ARGUMENT);
		found[strcspn(found, " \n")] = 0;
		channel = found;
	}
	if (strncmp(channel, PORT, strlen(PORT)) != 0) {
		log_line("unknown channel %s", channel);
		return -1;
	}
	return wait_for_port(channel + strlen(PORT));
}

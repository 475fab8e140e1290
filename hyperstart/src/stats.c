/* SPDX-License-Identifier: Apache-2.0 */
/* What `stats` and `top` show, read from control groups and /proc. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "container.h"
#include "pidns.h"

static uint64_t meminfo(const char *buf, const char *key)
{
	const char *p = strstr(buf, key);

	return p ? strtoull(p + strlen(key), NULL, 10) * 1024 : 0;
}

static bool is_up(int fd, const char *name)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	return ioctl(fd, SIOCGIFFLAGS, &r) == 0 && r.ifr_flags & IFF_UP;
}

/* The NIC that waits for a further network is down, and not told. */
static void put_network(struct buffer *b)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t rx = 0, tx = 0;
	char buf[16 << 10];
	char *save = NULL;

	if (fd < 0 || read_file(AT_FDCWD, "/proc/net/dev", buf, sizeof buf) < 0)
		return;
	for (char *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *colon = strchr(line, ':');
		unsigned long long r, t;
		size_t start;

		if (!colon)
			continue;
		*colon = 0;
		line += strspn(line, " ");
		if (!strcmp(line, "lo") || !is_up(fd, line) ||
		    sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &r, &t) != 2)
			continue;
		start = nest_begin(b, HP_T_INTERFACE);
		put_text(b, HP_T_NAME, line);
		put_text(b, HP_T_VALUE, colon + 1);
		nest_end(b, start);
		rx += r;
		tx += t;
	}
	put_u64(b, HP_T_RX_BYTES, rx);
	put_u64(b, HP_T_TX_BYTES, tx);
}

/* A file of the container's control group, as it is. */
static void put_counters(struct buffer *b, uint16_t tag, const struct container *c, const char *file)
{
	char buf[4096];

	if (c->cgroup >= 0 && read_file(c->cgroup, file, buf, sizeof buf) > 0)
		put_text(b, tag, buf);
}

static uint64_t io_sum(const struct container *c, const char *key)
{
	char buf[2048];
	uint64_t sum = 0;

	if (read_file(c->cgroup, "io.stat", buf, sizeof buf) < 0)
		return 0;
	for (char *p = strstr(buf, key); p; p = strstr(p + 1, key))
		sum += strtoull(p + strlen(key), NULL, 10);
	return sum;
}

static void put_container(struct buffer *b, const struct container *c)
{
	size_t start = nest_begin(b, HP_T_STATS);
	uint64_t used = cgroup_number(c, "memory.current", NULL);
	uint64_t cache = cgroup_number(c, "memory.stat", "inactive_file");

	put_text(b, HP_T_CONTAINER, c->id);
	/* As Docker counts: the cache that could be dropped is not use. */
	put_u64(b, HP_T_MEMORY, used > cache ? used - cache : 0);
	put_u64(b, HP_T_CPU_USEC, cgroup_number(c, "cpu.stat", "usage_usec"));
	put_u64(b, HP_T_PIDS, cgroup_number(c, "pids.current", NULL));
	put_u64(b, HP_T_READ_BYTES, io_sum(c, "rbytes="));
	put_u64(b, HP_T_WRITE_BYTES, io_sum(c, "wbytes="));
	put_u64(b, HP_T_OOM, container_oom_kills(c));
	put_counters(b, HP_T_CPU_STAT, c, "cpu.stat");
	put_counters(b, HP_T_MEMORY_STAT, c, "memory.stat");
	put_counters(b, HP_T_IO_STAT, c, "io.stat");
	nest_end(b, start);
}

void stats_answer(uint32_t id)
{
	struct buffer *b = channel_control();
	size_t start = frame_begin(b, HP_REPLY, id);
	char buf[4096];

	if (read_file(AT_FDCWD, "/proc/meminfo", buf, sizeof buf) > 0) {
		put_u64(b, HP_T_MEM_TOTAL, meminfo(buf, "MemTotal:"));
		put_u64(b, HP_T_MEM_FREE, meminfo(buf, "MemAvailable:"));
		put_u64(b, HP_T_KERNEL_USED,
		        meminfo(buf, "Slab:") + meminfo(buf, "KernelStack:") + meminfo(buf, "PageTables:"));
	}
	put_network(b);
	for (const struct container *c = container_first(); c; c = c->next)
		if (c->ready)
			put_container(b, c);
	frame_end(b, start);
}

/* A process's own number is the last of NSpid: the one that it sees itself, in its pod or container. */
static uint64_t pod_pid(const char *status, const char *key)
{
	const char *p = strstr(status, key);
	uint64_t last = 0;

	if (!p)
		return 0;
	for (p += strlen(key); *p && *p != '\n';) {
		char *end;
		unsigned long long v = strtoull(p, &end, 10);

		if (end == p)
			break;
		last = v;
		p = end;
	}
	return last;
}

/* In how many PID namespaces a process has a number. */
static unsigned levels(const char *status)
{
	const char *p = strstr(status, "NSpid:");
	unsigned n = 0;

	for (; p && *p && *p != '\n'; p++)
		n += *p == '\t';
	return n;
}

/* As its child sees it: 0 when it is of another namespace. */
static uint64_t parent_of(const char *child)
{
	unsigned long long pid = pod_pid(child, "PPid:");
	char path[64], status[2048];

	snprintf(path, sizeof path, "/proc/%llu/status", pid);
	if (read_file(AT_FDCWD, path, status, sizeof status) < 0 || levels(status) < levels(child))
		return 0;
	return pod_pid(status, "NSpid:");
}

/* The arguments are cut after `most` bytes. */
static void put_process(struct buffer *b, uint64_t pid, const char *container, size_t most)
{
	char path[64], status[2048], stat_line[1024], cmd[1024], name[64] = "";
	unsigned long long utime = 0, stime = 0, start_ticks = 0;
	const char *after;
	size_t start;
	int n;

	snprintf(path, sizeof path, "/proc/%llu/status", (unsigned long long)pid);
	if (read_file(AT_FDCWD, path, status, sizeof status) < 0)
		return;
	snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
	if (read_file(AT_FDCWD, path, stat_line, sizeof stat_line) < 0)
		return;
	after = strrchr(stat_line, ')');
	if (after)
		sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu",
		       &utime, &stime, &start_ticks);
	snprintf(path, sizeof path, "/proc/%llu/cmdline", (unsigned long long)pid);
	n = read_file(AT_FDCWD, path, cmd, sizeof cmd);
	for (int i = 0; i < n - 1; i++)
		if (!cmd[i])
			cmd[i] = ' ';
	if (n <= 0) {
		sscanf(status, "Name: %63s", name);
		snprintf(cmd, sizeof cmd, "[%s]", name);
	}
	if (most < sizeof cmd)
		cmd[most] = 0;
	start = nest_begin(b, HP_T_PROCESS);
	put_u64(b, HP_T_PID, pod_pid(status, "NSpid:"));
	put_u64(b, HP_T_PPID, parent_of(status));
	put_u64(b, HP_T_UID, pod_pid(status, "Uid:"));
	put_u64(b, HP_T_CPU_MS, (utime + stime) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK));
	put_u64(b, HP_T_START_MS, start_ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK));
	put_text(b, HP_T_CONTAINER, container);
	put_text(b, HP_T_ARG, cmd);
	nest_end(b, start);
}

/* Bytes of a listed process besides its arguments. */
#define PROCESS_SIZE 160

static char *pids_of(const struct container *c)
{
	static char pids[64 << 10];

	return cgroup_pids(c, pids, sizeof pids);
}

/* How long arguments may be so that all processes fit into one frame. */
static size_t argument_size(const struct container *only)
{
	size_t n = 2;

	for (const struct container *c = container_first(); c; c = c->next) {
		const char *p = only && c != only ? NULL : pids_of(c);

		for (; p && *p; p++)
			n += *p == '\n';
	}
	n = (HP_FRAME_MAX - HP_FRAME_HEADER) / n;
	return n > PROCESS_SIZE ? n - PROCESS_SIZE : 0;
}

void process_list_answer(uint32_t id, const struct container *only)
{
	struct buffer *b = channel_control();
	size_t start = frame_begin(b, HP_REPLY, id);
	size_t most = argument_size(only);

	if (!only && pidns_pod_init())
		put_process(b, (uint64_t)pidns_pod_init(), "", most);
	for (const struct container *c = container_first(); c; c = c->next) {
		char *pids = only && c != only ? NULL : pids_of(c), *save = NULL;

		for (char *p = pids ? strtok_r(pids, "\n", &save) : NULL; p; p = strtok_r(NULL, "\n", &save))
			/* Processes that began since they were counted. */
			if (b->len - start < HP_FRAME_MAX - PROCESS_SIZE - most)
				put_process(b, strtoull(p, NULL, 10), c->id, most);
	}
	frame_end(b, start);
}

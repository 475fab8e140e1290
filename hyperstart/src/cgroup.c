/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups, version 2: one directory per container below the root. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "container.h"

/* Holds what hyperstart itself runs in containers: a paused container's own group is frozen. */
static int make_tools(struct error *err)
{
	cleanup_close int fd = -1;

	if (mkdir(CGROUP_TOOLS, 0755) < 0 && errno != EEXIST)
		return fail_sys(err, CGROUP_TOOLS);
	fd = open(CGROUP_TOOLS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? fail_sys(err, CGROUP_TOOLS) : devices_limit(fd, err);
}

int cgroup_setup(void)
{
	struct error err;

	static const char controllers[] = "+cpu +cpuset +io +memory +pids +hugetlb";
	char have[256];
	const char *c = controllers;

	if (read_file(AT_FDCWD, CGROUP_ROOT "/cgroup.controllers", have, sizeof have) < 0)
		return -1;
	if (make_tools(&err) < 0)
		log_line("%s", err.message);
	/* One by one: a kernel of the user's may lack some. */
	while (*c) {
		size_t n = strcspn(c, " ");
		char one[32];

		snprintf(one, sizeof one, "%.*s", (int)n, c);
		write_file(CGROUP_ROOT "/cgroup.subtree_control", one, strlen(one));
		c += n + (c[n] == ' ');
	}
	return 0;
}

static int write_limit(const struct container *c, const char *file, const char *value, struct error *err)
{
	cleanup_close int fd = openat(c->cgroup, file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write_all(fd, value, strlen(value)) < 0)
		return fail_sys(err, "cgroup: cannot set %s to %s", file, value);
	return 0;
}

int cgroup_limit(const struct container *c, const struct container_spec *limits, struct error *err)
{
	char value[64];

	if (limits->memory_max) {
		snprintf(value, sizeof value, "%llu", (unsigned long long)limits->memory_max);
		if (write_limit(c, "memory.max", value, err) < 0)
			return -1;
	}
	if (limits->cpu_max) {
		snprintf(value, sizeof value, "%llu 100000", (unsigned long long)limits->cpu_max);
		if (write_limit(c, "cpu.max", value, err) < 0)
			return -1;
	}
	if (limits->pids_max) {
		snprintf(value, sizeof value, "%llu", (unsigned long long)limits->pids_max);
		if (write_limit(c, "pids.max", value, err) < 0)
			return -1;
	}
	return 0;
}

int cgroup_create(struct container *c, struct error *err)
{
	cleanup_free char *path = xasprintf(CGROUP_ROOT "/%s", c->place);

	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return fail_sys(err, "cgroup %s", path);
	c->cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->cgroup < 0)
		return fail_sys(err, "cgroup %s", path);
	return cgroup_limit(c, &c->spec, err);
}

static bool is_populated(int events)
{
	char text[256];
	ssize_t n = pread(events, text, sizeof text - 1, 0);

	if (n < 0)
		return false; /* the group is gone */
	text[n] = 0;
	return strstr(text, "populated 1") != NULL;
}

bool cgroup_wait_empty(const char *place, int timeout_ms)
{
	cleanup_free char *path = xasprintf(CGROUP_ROOT "/%s/cgroup.events", place);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct pollfd p = {.fd = fd, .events = POLLPRI};
	uint64_t end = monotonic_ms() + (uint64_t)timeout_ms, now;

	while (fd >= 0 && is_populated(fd)) {
		now = monotonic_ms();
		if (now >= end)
			return false;
		poll(&p, 1, (int)(end - now));
	}
	return true;
}

void cgroup_remove(const char *place)
{
	cleanup_free char *path = xasprintf(CGROUP_ROOT "/%s", place);

	if (rmdir(path) < 0 && errno != ENOENT)
		log_line("%s: %s", path, strerror(errno));
}

uint64_t cgroup_number(const struct container *c, const char *file, const char *key)
{
	char buf[2048];
	const char *p = buf;
	size_t n = key ? strlen(key) : 0;

	if (c->cgroup < 0 || read_file(c->cgroup, file, buf, sizeof buf) < 0)
		return 0;
	while (key && p && (strncmp(p, key, n) != 0 || p[n] != ' ')) {
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	return p ? strtoull(key ? p + n + 1 : p, NULL, 10) : 0;
}

uint64_t container_oom_kills(const struct container *c) { return cgroup_number(c, "memory.events", "oom_kill"); }

void cgroup_report_oom(struct container *c)
{
	uint64_t kills = container_oom_kills(c);
	struct buffer *b;
	size_t start;

	if (kills <= c->oom_reported)
		return;
	b = channel_control();
	start = frame_begin(b, HP_OOM, 0);
	put_text(b, HP_T_CONTAINER, c->id);
	put_u64(b, HP_T_OOM, kills - c->oom_reported);
	frame_end(b, start);
	c->oom_reported = kills;
}

static void on_memory_event(struct source *s, uint32_t events)
{
	char text[512];

	(void)events;
	/* Reading by the watched descriptor is what ends the notice. */
	if (pread(s->fd, text, sizeof text, 0) < 0) {
		loop_remove(s);
		return;
	}
	cgroup_report_oom(s->owner);
}

void cgroup_watch(struct container *c)
{
	char text[512];
	int fd = openat(c->cgroup, "memory.events", O_RDONLY | O_CLOEXEC);

	if (fd < 0) /* a kernel without the memory controller */
		return;
	if (pread(fd, text, sizeof text, 0) < 0)
		log_line("memory.events: %s", strerror(errno));
	c->memory_events = (struct source){.fd = fd, .ready = on_memory_event, .owner = c};
	loop_add(&c->memory_events, EPOLLPRI);
}

void container_kill_all(struct container *c)
{
	cleanup_close int fd = c->cgroup < 0 ? -1 : openat(c->cgroup, "cgroup.kill", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "1", 1) < 0)
		log_line("cgroup.kill of %s failed", c->id);
}

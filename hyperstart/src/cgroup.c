/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups, version 2: one directory per container below the root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "container.h"

#define MAX_DEPTH  "16"
#define MAX_GROUPS "4096"

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
	/* It may divide its group, which PID 1 walks through. */
	if (c->spec.devices && (write_limit(c, "cgroup.max.depth", MAX_DEPTH, err) < 0 ||
	                        write_limit(c, "cgroup.max.descendants", MAX_GROUPS, err) < 0))
		return -1;
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

/* Calls `visit` for each group below; `dir` is given away. */
static void each_below(int dir, void (*visit)(int parent, const char *name, void *arg), void *arg)
{
	DIR *d = fdopendir(dir);
	struct dirent *e;

	if (!d) {
		close(dir);
		return;
	}
	while ((e = readdir(d)))
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			visit(dirfd(d), e->d_name, arg);
	closedir(d);
}

static void remove_group(int parent, const char *name, void *arg)
{
	int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0)
		each_below(dir, remove_group, arg);
	unlinkat(parent, name, AT_REMOVEDIR);
}

/* A group that hands out controllers takes no processes. */
void cgroup_flatten(int cgroup)
{
	int dir = openat(cgroup, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int control = openat(cgroup, "cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
	char have[256], *save = NULL;

	if (dir >= 0)
		each_below(dir, remove_group, NULL);
	if (control < 0 || read_file(cgroup, "cgroup.subtree_control", have, sizeof have) < 0)
		return;
	for (char *one = strtok_r(have, " \n", &save); one; one = strtok_r(NULL, " \n", &save))
		if (dprintf(control, "-%s", one) < 0)
			log_line("cgroup.subtree_control: %s", strerror(errno));
}

void cgroup_remove(const char *place)
{
	cleanup_free char *path = xasprintf(CGROUP_ROOT "/%s", place);
	cleanup_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0)
		cgroup_flatten(dir);
	if (rmdir(path) < 0 && errno != ENOENT)
		log_line("%s: %s", path, strerror(errno));
}

struct pid_list {
	char *at;
	size_t room;
};

static void add_pids(int parent, const char *name, void *arg)
{
	struct pid_list *list = arg;
	int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int n = dir < 0 || list->room < 2 ? -1 : read_file(dir, "cgroup.procs", list->at, list->room);

	if (n > 0) {
		list->at += n;
		list->room -= (size_t)n;
	}
	if (dir >= 0)
		each_below(dir, add_pids, list);
}

char *cgroup_pids(const struct container *c, char *pids, size_t size)
{
	struct pid_list list = {pids, size};

	*pids = 0;
	add_pids(c->cgroup, ".", &list);
	return pids;
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

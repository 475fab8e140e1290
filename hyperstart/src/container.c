/* SPDX-License-Identifier: Apache-2.0 */
#include "container.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "process.h"

static struct container *containers;

struct container *container_first(void) { return containers; }

struct container *container_find(const char *id)
{
	struct container *c = containers;

	while (c && strcmp(c->id, id) != 0)
		c = c->next;
	return c;
}

static int parse_mount(const struct attr *a, struct container_spec *s, struct error *err)
{
	struct cursor c = attr_nested(a);
	struct mount_spec m = {0};
	struct attr b;
	int r;

	while ((r = attr_next(&c, &b, err)) > 0 && r >= 0) {
		switch (b.tag) {
		case HP_T_FSTYPE: r = attr_text(&b, &m.type, err); break;
		case HP_T_SOURCE: r = attr_text(&b, &m.source, err); break;
		case HP_T_TARGET: r = attr_text(&b, &m.target, err); break;
		case HP_T_VALUE: r = attr_text(&b, &m.data, err); break;
		case HP_T_FLAGS: r = attr_u64(&b, &m.flags, err); break;
		}
		if (r < 0)
			break;
	}
	s->mounts = xrealloc(s->mounts, (s->mount_count + 1) * sizeof m);
	s->mounts[s->mount_count++] = m;
	if (r == 0 && (!m.type || !m.target))
		return fail(err, HP_E_MALFORMED, 0, "a mount without type or target");
	return r;
}

static int parse_file(const struct attr *a, struct container_spec *s, struct error *err)
{
	struct cursor c = attr_nested(a);
	struct file_spec f = {.mode = 0644};
	struct attr b;
	int r;

	while ((r = attr_next(&c, &b, err)) > 0) {
		switch (b.tag) {
		case HP_T_TARGET: r = attr_text(&b, &f.target, err); break;
		case HP_T_MODE: r = attr_u64(&b, &f.mode, err); break;
		case HP_T_UID: r = attr_u64(&b, &f.uid, err); break;
		case HP_T_GID: r = attr_u64(&b, &f.gid, err); break;
		case HP_T_CONTENT:
			free(f.content);
			f.content = (uint8_t *)xstrndup(b.data, b.len);
			f.len = b.len;
			break;
		}
		if (r < 0)
			break;
	}
	s->files = xrealloc(s->files, (s->file_count + 1) * sizeof f);
	s->files[s->file_count++] = f;
	if (r == 0 && !f.target)
		return fail(err, HP_E_MALFORMED, 0, "a file without target");
	return r;
}

static int parse_attr(const struct attr *a, struct container *c, char **prepared, struct error *err)
{
	struct container_spec *s = &c->spec;

	switch (a->tag) {
	case HP_T_ID: return attr_text(a, &c->id, err);
	case HP_T_PREPARED: return attr_text(a, prepared, err);
	case HP_T_IMAGE_DISK: return attr_text(a, &s->image_disk, err);
	case HP_T_FSTYPE: return attr_text(a, &s->image_fstype, err);
	case HP_T_SCRATCH_DISK: return attr_text(a, &s->scratch_disk, err);
	case HP_T_READONLY: return attr_u64(a, &s->readonly, err);
	case HP_T_MEMORY_MAX: return attr_u64(a, &s->memory_max, err);
	case HP_T_CPU_MAX: return attr_u64(a, &s->cpu_max, err);
	case HP_T_PIDS_MAX: return attr_u64(a, &s->pids_max, err);
	case HP_T_MASKED_PATH: return attr_add_text(a, &s->masked, err);
	case HP_T_READONLY_PATH: return attr_add_text(a, &s->readonly_paths, err);
	case HP_T_MOUNT: return parse_mount(a, s, err);
	case HP_T_FILE: return parse_file(a, s, err);
	case HP_T_SYSCTL:
		s->sysctls = xrealloc(s->sysctls, (s->sysctl_count + 1) * sizeof *s->sysctls);
		s->sysctls[s->sysctl_count] = (struct pair){0};
		return parse_sysctl(a, &s->sysctls[s->sysctl_count++], err);
	}
	return 0;
}

static void spec_free(struct container_spec *s)
{
	for (size_t i = 0; i < s->mount_count; i++) {
		free(s->mounts[i].type);
		free(s->mounts[i].source);
		free(s->mounts[i].target);
		free(s->mounts[i].data);
	}
	for (size_t i = 0; i < s->file_count; i++) {
		free(s->files[i].target);
		free(s->files[i].content);
	}
	for (size_t i = 0; i < s->sysctl_count; i++) {
		free(s->sysctls[i].name);
		free(s->sysctls[i].value);
	}
	free(s->mounts);
	free(s->files);
	free(s->sysctls);
	free(s->image_disk);
	free(s->image_fstype);
	free(s->scratch_disk);
	strings_free(&s->masked);
	strings_free(&s->readonly_paths);
}

static void container_free(struct container *c)
{
	struct container **at = &containers;

	while (*at && *at != c)
		at = &(*at)->next;
	if (*at)
		*at = c->next;
	loop_remove(&c->builder);
	close_fd(&c->mount_ns);
	cgroup_remove(c);
	spec_free(&c->spec);
	free(c->id);
	free(c->place);
	free(c);
}

/* An id becomes a directory's name below RUN_DIR and the cgroup root. */
static bool id_is_safe(const char *id)
{
	for (const char *p = id; *p; p++)
		if (!isalnum((unsigned char)*p) && (p == id || !strchr("_-", *p)))
			return false;
	return *id && strlen(id) <= 128;
}

/* The builder's one message: code 0 when done. It then waits, so that its
 * namespace can be opened, until the socket closes. */
struct built {
	struct error err;
	uint64_t begin_ns, mounted_ns;
};

static void on_builder(struct source *s, uint32_t events)
{
	struct container *c = s->owner;
	struct built built = {.err = {.code = HP_E_SYSTEM, .message = "the builder died"}};
	struct error err;
	struct buffer *b;
	size_t start;
	char path[64];

	(void)events;
	if (recv(s->fd, &built, sizeof built, 0) != sizeof built)
		built.err.code = HP_E_SYSTEM;
	err = built.err;
	if (err.code == 0) {
		snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)c->builder_pid);
		c->mount_ns = open(path, O_RDONLY | O_CLOEXEC);
		if (c->mount_ns < 0)
			fail_sys(&err, "%s", path);
	}
	loop_remove(s);
	if (err.code) {
		send_error(c->request, &err);
		waitpid(c->builder_pid, NULL, 0);
		rootfs_unmount(c);
		container_free(c);
		return;
	}
	c->ready = true;
	b = channel_control();
	start = frame_begin(b, HP_REPLY, c->request);
	put_span(b, "cgroup made, builder forked", c->asked_ns, built.begin_ns);
	put_span(b, "disks mounted", built.begin_ns, built.mounted_ns);
	put_span(b, "namespace, mounts, files", built.mounted_ns, now_ns());
	frame_end(b, start);
}

static void builder_main(const struct container *c, int status)
{
	struct built built = {.begin_ns = now_ns()};
	cleanup_close int procs = openat(c->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	int r = 0;
	char end;

	/* Inside the cgroup, so that the cgroup namespace has its root there. */
	if (procs < 0 || write(procs, "0", 1) < 0)
		r = fail_sys(&built.err, "joining the cgroup");
	if (r == 0)
		r = rootfs_mount(c, &built.err);
	built.mounted_ns = now_ns();
	if (r == 0)
		rootfs_enter(c, &built.err);
	if (send(status, &built, sizeof built, MSG_NOSIGNAL) < 0)
		_exit(1);
	_exit(recv(status, &end, 1, 0) < 0);
}

static int start_builder(struct container *c, struct error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail_sys(err, "socketpair");
	c->builder_pid = fork();
	if (c->builder_pid == 0) {
		close(pair[0]); /* or it would never see the other end close */
		builder_main(c, pair[1]);
	}
	close(pair[1]);
	c->builder = (struct source){.fd = pair[0], .ready = on_builder, .owner = c};
	if (c->builder_pid < 0) {
		close_fd(&c->builder.fd);
		return fail_sys(err, "fork");
	}
	loop_add(&c->builder, EPOLLIN);
	return 0;
}

/* A container that was built ahead takes the new one's id, files and limits. */
static int adopt(struct container *c, const char *prepared, struct error *err)
{
	struct container *from = container_find(prepared);

	if (!from || !from->ready)
		return fail(err, HP_E_NOT_FOUND, 0, "no container %s", prepared);
	if (from->spec.file_count != c->spec.file_count)
		return fail(err, HP_E_MALFORMED, 0, "container %s has other files", prepared);
	for (size_t i = 0; i < c->spec.file_count; i++) {
		if (strcmp(from->spec.files[i].target, c->spec.files[i].target) != 0)
			return fail(err, HP_E_MALFORMED, 0, "container %s has other files", prepared);
		if (rootfs_file(from, i, &c->spec.files[i], err) < 0)
			return -1;
	}
	if (cgroup_limit(from, &c->spec, err) < 0)
		return -1;
	free(from->id);
	from->id = xstrndup(c->id, strlen(c->id));
	return 0;
}

int container_create(const struct frame *f, struct error *err)
{
	struct container *c = xcalloc(1, sizeof *c);
	struct cursor cur = {f->body, f->body + f->len};
	cleanup_free char *prepared = NULL;
	struct attr a;
	int r;

	c->mount_ns = c->cgroup = c->builder.fd = -1;
	c->request = f->id;
	c->asked_ns = now_ns();
	c->id = xstrndup("", 0);
	while ((r = attr_next(&cur, &a, err)) > 0)
		if ((r = parse_attr(&a, c, &prepared, err)) < 0)
			break;
	c->place = xstrndup(c->id, strlen(c->id));
	if (r == 0 && (!id_is_safe(c->id) || !c->spec.image_disk || !c->spec.image_fstype))
		r = fail(err, HP_E_MALFORMED, 0, "a container needs an id and an image disk");
	if (r == 0 && container_find(c->id))
		r = fail(err, HP_E_EXISTS, 0, "container %s exists", c->id);
	if (r == 0 && prepared) {
		r = adopt(c, prepared, err);
		if (r == 0)
			send_reply(f->id);
		container_free(c);
		return r;
	}
	if (r == 0)
		r = cgroup_create(c, err);
	if (r == 0)
		r = start_builder(c, err);
	if (r < 0) {
		container_free(c);
		return -1;
	}
	c->next = containers;
	containers = c;
	return 0;
}

static struct container *named(const struct frame *f, uint64_t *freeze, struct error *err)
{
	struct cursor cur = {f->body, f->body + f->len};
	cleanup_free char *id = xstrndup("", 0);
	struct container *c;
	struct attr a;
	int r;

	while ((r = attr_next(&cur, &a, err)) > 0) {
		r = a.tag == HP_T_ID ? attr_text(&a, &id, err) : a.tag == HP_T_FREEZE ? attr_u64(&a, freeze, err) : 0;
		if (r < 0)
			break;
	}
	if (r < 0)
		return NULL;
	c = container_find(id);
	if (!c || !c->ready) {
		fail(err, HP_E_NOT_FOUND, 0, "no container %s", id);
		return NULL;
	}
	return c;
}

int container_delete(const struct frame *f, struct error *err)
{
	uint64_t unused;
	struct container *c = named(f, &unused, err);
	cleanup_free char *image = NULL, *scratch = NULL;

	if (!c)
		return -1;
	if (process_any_alive(c))
		return fail(err, HP_E_STATE, 0, "container %s has running processes", c->id);
	container_kill_all(c);
	rootfs_unmount(c);
	image = xstrndup(c->spec.image_disk, strlen(c->spec.image_disk));
	scratch = c->spec.scratch_disk ? xstrndup(c->spec.scratch_disk, strlen(c->spec.scratch_disk)) : NULL;
	container_free(c);
	if (disk_settle(image, err) < 0 || (scratch && disk_settle(scratch, err) < 0))
		return -1;
	send_reply(f->id);
	return 0;
}

int container_freeze(const struct frame *f, struct error *err)
{
	uint64_t freeze = 0;
	struct container *c = named(f, &freeze, err);
	cleanup_close int fd = c ? openat(c->cgroup, "cgroup.freeze", O_WRONLY | O_CLOEXEC) : -1;

	if (!c)
		return -1;
	if (fd < 0 || write(fd, freeze ? "1" : "0", 1) < 0)
		return fail_sys(err, "cgroup.freeze");
	send_reply(f->id);
	return 0;
}

void container_sync_all(void)
{
	for (struct container *c = containers; c; c = c->next)
		if (c->ready)
			rootfs_freeze_scratch(c);
	volumes_freeze();
	sync();
}

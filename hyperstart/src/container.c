/* SPDX-License-Identifier: Apache-2.0 */
#include "container.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

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
	case HP_T_DEVICES: return attr_u64(a, &s->devices, err);
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

static void unlink_container(struct container *c)
{
	struct container **at = &containers;

	while (*at && *at != c)
		at = &(*at)->next;
	if (*at)
		*at = c->next;
}

void container_free(struct container *c)
{
	unlink_container(c);
	loop_remove(&c->memory_events);
	container_freeze_forget(c);
	close_fd(&c->mount_ns);
	close_fd(&c->pid_ns);
	close_fd(&c->cgroup);
	spec_free(&c->spec);
	free(c->id);
	free(c->place);
	free(c);
}

/* It reaches no path, but messages. */
static bool id_is_safe(const char *id)
{
	for (const char *p = id; *p; p++)
		if (!isalnum((unsigned char)*p) && (p == id || !strchr("_-", *p)))
			return false;
	return *id && strlen(id) <= 128;
}

static void build(void *arg, struct task_report *report)
{
	const struct container *c = arg;
	cleanup_free char *procs = xasprintf(CGROUP_ROOT "/%s/cgroup.procs", c->place);

	report->mark_ns[0] = now_ns();
	/* Inside the cgroup, so that the cgroup namespace has its root there. */
	if (write_file(procs, "0", 1) < 0) {
		fail_sys(&report->err, "joining the cgroup");
		return;
	}
	if (rootfs_mount(c, &report->err) < 0)
		return;
	report->mark_ns[1] = now_ns();
	rootfs_enter(c, &report->err);
}

static void on_built(void *arg, pid_t pid, const struct task_report *report)
{
	struct container *c = arg;
	struct error err = report->err;
	struct buffer *b;
	size_t start;
	char path[64];

	if (err.code == 0) {
		snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
		c->mount_ns = open(path, O_RDONLY | O_CLOEXEC);
		if (c->mount_ns < 0)
			fail_sys(&err, "%s", path);
	}
	/* Not before: the builder has opened the disks. */
	if (err.code == 0 && !c->spec.devices)
		devices_limit(c->cgroup, &err);
	if (err.code) {
		c->failure = err;
		unlink_container(c);
		container_remove(c);
		return;
	}
	cgroup_watch(c);
	c->ready = true;
	b = channel_control();
	start = frame_begin(b, HP_REPLY, c->request);
	put_span(b, "cgroup made, builder forked", c->asked_ns, report->mark_ns[0]);
	put_span(b, "disks mounted", report->mark_ns[0], report->mark_ns[1]);
	put_span(b, "namespace, mounts, files", report->mark_ns[1], now_ns());
	frame_end(b, start);
}

/* A container that was built ahead takes the new one's id, files and limits. */
static int reuse_prepared(struct container *c, const char *prepared, struct error *err)
{
	struct container *from = container_find(prepared);

	if (!from || !from->ready)
		return fail(err, HP_E_NOT_FOUND, 0, "no container %s", prepared);
	if (!from->spec.devices != !c->spec.devices)
		return fail(err, HP_E_MALFORMED, 0, "container %s has other devices", prepared);
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
	static unsigned created;
	struct attr a;
	int r;

	c->mount_ns = c->pid_ns = c->cgroup = c->memory_events.fd = -1;
	c->freeze_events.fd = c->freeze_limit.fd = -1;
	c->request = f->id;
	c->asked_ns = now_ns();
	c->id = xstrndup("", 0);
	while ((r = attr_next(&cur, &a, err)) > 0)
		if ((r = parse_attr(&a, c, &prepared, err)) < 0)
			break;
	c->place = xasprintf("c%u", ++created);
	if (r == 0 && (!id_is_safe(c->id) || !c->spec.image_disk || !c->spec.image_fstype))
		r = fail(err, HP_E_MALFORMED, 0, "a container needs an id and an image disk");
	if (r == 0 && container_find(c->id))
		r = fail(err, HP_E_EXISTS, 0, "container %s exists", c->id);
	if (r == 0 && prepared) {
		r = reuse_prepared(c, prepared, err);
		if (r == 0)
			send_reply(f->id);
		container_free(c);
		return r;
	}
	if (r == 0)
		r = cgroup_create(c, err);
	if (r == 0)
		r = task_start(build, on_built, c, err);
	if (r < 0) {
		if (c->cgroup >= 0)
			cgroup_remove(c->place);
		container_free(c);
		return -1;
	}
	c->next = containers;
	containers = c;
	return 0;
}

struct container *container_named(const struct frame *f, uint64_t *freeze, struct error *err)
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
	struct container *c = container_named(f, &unused, err);

	if (!c)
		return -1;
	if (process_any_alive(c))
		return fail(err, HP_E_STATE, 0, "container %s has running processes", c->id);
	c->request = f->id;
	unlink_container(c); /* another of this id may be made from now on */
	container_remove(c);
	return 0;
}

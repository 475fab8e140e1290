/* SPDX-License-Identifier: Apache-2.0 */
/* Containers end: their processes, mounts and disks may take their time, in a child of PID 1. */
#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define END_MS  10000 /* for killed processes to be gone */
#define STOP_MS 2000  /* the same at the end of the machine */

/* Files may hold secrets, in memory. */
static void remove_files(const struct container *c)
{
	static const char *const part[] = {"files", "root", "scratch", "lower", "."};

	for (size_t i = 0; i < c->spec.file_count; i++) {
		cleanup_free char *path = xasprintf(RUN_DIR "/%s/files/%zu", c->place, i);

		unlink(path);
	}
	for (size_t i = 0; i < ARRAY_LEN(part); i++) {
		cleanup_free char *path = xasprintf(RUN_DIR "/%s%s%s", c->place, *part[i] == '.' ? "" : "/",
		                                    *part[i] == '.' ? "" : part[i]);

		rmdir(path);
	}
}

static void tear_down(void *arg, struct task_report *report)
{
	const struct container *c = arg;

	if (!cgroup_wait_empty(c->place, END_MS)) {
		fail(&report->err, HP_E_STATE, 0, "a process of container %s does not end", c->id);
		return;
	}
	cgroup_remove(c->place);
	rootfs_unmount(c);
	remove_files(c);
	if (disk_quiesce(c->spec.image_disk, &report->err) == 0 && c->spec.scratch_disk)
		disk_quiesce(c->spec.scratch_disk, &report->err);
}

static void on_torn_down(void *arg, pid_t pid, const struct task_report *report)
{
	struct container *c = arg;

	(void)pid;
	if (c->failure.code)
		send_error(c->request, &c->failure);
	else if (report->err.code)
		send_error(c->request, &report->err);
	else
		send_reply(c->request);
	container_free(c);
}

void container_remove(struct container *c)
{
	struct error err;

	container_kill_all(c);
	loop_remove(&c->memory_events);
	/* The last reference to its mounts: only then do they go. */
	close_fd(&c->mount_ns);
	if (task_start(tear_down, on_torn_down, c, &err) < 0) {
		send_error(c->request, &err);
		container_free(c);
	}
}

/* What was written is safe when no process is left that could write. */
static void quiesce(void *arg, struct task_report *report)
{
	uint64_t end = monotonic_ms() + STOP_MS;

	(void)arg;
	for (struct container *c = container_first(); c; c = c->next) {
		uint64_t now = monotonic_ms();

		if (!cgroup_wait_empty(c->place, now < end ? (int)(end - now) : 0))
			fail(&report->err, HP_E_STATE, 0, "a process of container %s does not end", c->id);
	}
	for (struct container *c = container_first(); c; c = c->next)
		if (c->ready)
			rootfs_freeze_scratch(c);
	volumes_freeze();
	sync();
}

int containers_quiesce(task_done *done, struct error *err) { return task_start(quiesce, done, NULL, err); }

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other limits for a container that runs. A lower one of memory has the kernel reclaim what is above it, which takes
 * its time: a child does it. What cannot be reclaimed would be killed for, so that is refused.
 */
#include "container.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PERIOD_US 100000

struct change {
	uint32_t request;
	char place[32];
	uint64_t anon; /* bytes that the container's processes hold, and that nothing can take from them */
	struct limit {
		const char *file;
		uint64_t value;
		bool given;
	} memory, cpu, pids;
};

static int write_one(const struct change *c, const struct limit *l, struct error *err)
{
	cleanup_free char *path = xasprintf(CGROUP_ROOT "/%s/%s", c->place, l->file);
	char value[64];

	if (!l->given)
		return 0;
	if (l->value == 0)
		snprintf(value, sizeof value, l == &c->cpu ? "max %u" : "max", PERIOD_US);
	else if (l == &c->cpu)
		snprintf(value, sizeof value, "%llu %u", (unsigned long long)l->value, PERIOD_US);
	else
		snprintf(value, sizeof value, "%llu", (unsigned long long)l->value);
	return write_file(path, value, strlen(value)) < 0 ? fail_sys(err, "cgroup: cannot set %s to %s", l->file, value)
	                                                  : 0;
}

static void work(void *arg, struct task_report *report)
{
	const struct change *c = arg;

	if (write_one(c, &c->pids, &report->err) == 0 && write_one(c, &c->cpu, &report->err) == 0)
		write_one(c, &c->memory, &report->err);
}

static void done(void *arg, pid_t pid, const struct task_report *report)
{
	struct change *c = arg;

	(void)pid;
	if (report->err.code)
		send_error(c->request, &report->err);
	else
		send_reply(c->request);
	free(c);
}

static int parse(const struct frame *f, struct change *change, struct error *err)
{
	struct cursor cur = {f->body, f->body + f->len};
	struct attr a;
	int r;

	while ((r = attr_next(&cur, &a, err)) > 0) {
		struct limit *l = a.tag == HP_T_MEMORY_MAX ? &change->memory
		                  : a.tag == HP_T_CPU_MAX  ? &change->cpu
		                  : a.tag == HP_T_PIDS_MAX ? &change->pids
		                                           : NULL;

		if (l && (r = attr_u64(&a, &l->value, err)) < 0)
			break;
		if (l)
			l->given = true;
	}
	return r;
}

int container_limit(const struct frame *f, struct error *err)
{
	struct change change = {
	        .request = f->id, .memory.file = "memory.max", .cpu.file = "cpu.max", .pids.file = "pids.max"};
	uint64_t unused;
	struct container *c = container_named(f, &unused, err);
	struct change *own;

	if (!c || parse(f, &change, err) < 0)
		return -1;
	change.anon = cgroup_number(c, "memory.stat", "anon");
	if (change.memory.given && change.memory.value && change.anon > change.memory.value)
		return fail(err, HP_E_STATE, 0,
		            "the processes of container %s hold %llu bytes of memory, more than %llu", c->id,
		            (unsigned long long)change.anon, (unsigned long long)change.memory.value);
	snprintf(change.place, sizeof change.place, "%s", c->place);
	own = xcalloc(1, sizeof *own);
	*own = change;
	if (task_start(work, done, own, err) < 0) {
		free(own);
		return -1;
	}
	return 0;
}

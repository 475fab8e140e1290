/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that may have to wait, done in a child: PID 1 answers for all containers
 * of the pod and never waits for one of them.
 */
#ifndef TASK_H
#define TASK_H

#include <sys/types.h>

#include "util.h"

struct task_report {
	struct error err;    /* code 0: done */
	uint64_t mark_ns[2]; /* times that the work may note */
};

/* In the child. It has no descriptors but its standard streams: what it needs it opens by name. */
typedef void task_work(void *arg, struct task_report *report);
/* In PID 1, when the report is there; the child lives until this returns. */
typedef void task_done(void *arg, pid_t pid, const struct task_report *report);

int task_start(task_work *work, task_done *done, void *arg, struct error *err);

#endif

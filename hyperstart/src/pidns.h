/* SPDX-License-Identifier: Apache-2.0 */
/* PID namespaces: the pod's, and those of containers that have their own. */
#ifndef PIDNS_H
#define PIDNS_H

#include "container.h"

enum pidns_kind {
	PIDNS_POD,   /* the pod's */
	PIDNS_JOIN,  /* a container's, if that has one of its own */
	PIDNS_OWN,   /* hyperstart's, which no container sees */
	PIDNS_FRESH, /* a new one of the container's, in which the child is process 1 */
};

int pidns_start_pod(struct error *err); /* idempotent; all that is forked from then on is in it */
pid_t pidns_pod_init(void);             /* as hyperstart sees it; 0: there is none */
/* For the container c; `of` is whose is joined. */
pid_t pidns_fork(struct container *c, const struct container *of, enum pidns_kind kind, struct error *err);
void pidns_ended(struct container *c, pid_t pid); /* a process of the container was reaped */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID namespaces. A pod has one, whose first process is `pod-init`; a container that asks for it has
 * one of its own for each run of its main process, which is process 1 there. All of them are children
 * of hyperstart's own namespace: only a process of that one may move between them.
 */
#include "pidns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

static int own_ns = -1, pod_ns = -1;
static pid_t pod_init;

pid_t pidns_pod_init(void) { return pod_init; }

static int open_ns(const char *process, struct error *err)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%s/ns/pid", process);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? fail_sys(err, "%s", path) : fd;
}

static int ns_of(pid_t pid, struct error *err)
{
	char number[24];

	snprintf(number, sizeof number, "%d", (int)pid);
	return open_ns(number, err);
}

/* Adopts and reaps orphans; without it no other process could be started in the pod's namespace. */
static _Noreturn void run_pod_init(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};

	prctl(PR_SET_NAME, "pod-init");
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* as in child.c */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGCHLD, &ignore, NULL);
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	for (;;)
		pause();
}

int pidns_start_pod(struct error *err)
{
	if (pod_init)
		return 0;
	if (own_ns < 0 && (own_ns = open_ns("self", err)) < 0)
		return -1;
	if (unshare(CLONE_NEWPID) < 0)
		return fail_sys(err, "PID namespace");
	pod_init = fork();
	if (pod_init == 0)
		run_pod_init();
	if (pod_init < 0) {
		pod_init = 0;
		return fail_sys(err, "fork");
	}
	pod_ns = ns_of(pod_init, err);
	return pod_ns < 0 ? -1 : 0;
}

static int enter(const struct container *of, enum pidns_kind kind, struct error *err)
{
	if (kind != PIDNS_JOIN && own_ns < 0)
		return fail(err, HP_E_STATE, 0, "the pod is not set up");
	if (setns(kind == PIDNS_JOIN ? of->pid_ns : own_ns, CLONE_NEWPID) < 0)
		return fail_sys(err, "PID namespace");
	/* A namespace can be made in the own one only. */
	if (kind == PIDNS_FRESH && unshare(CLONE_NEWPID) < 0)
		return fail_sys(err, "PID namespace");
	return 0;
}

/* What is forked next is the pod's again. */
static void leave(void)
{
	if (setns(pod_ns, CLONE_NEWPID) < 0)
		log_line("the pod's PID namespace: %s", strerror(errno));
}

pid_t pidns_fork(struct container *c, const struct container *of, enum pidns_kind kind, struct error *err)
{
	bool moves = kind == PIDNS_FRESH || kind == PIDNS_OWN || (kind == PIDNS_JOIN && of->pid_ns >= 0);
	pid_t pid = -1;
	int failed = 0;

	if (!moves || enter(of, kind, err) == 0) {
		pid = fork();
		failed = errno;
		if (pid == 0)
			return 0;
	}
	if (moves && pod_ns >= 0)
		leave();
	if (pid < 0 && failed == ENOMEM && moves && kind == PIDNS_JOIN) /* of a namespace without a first process */
		return fail(err, HP_E_STATE, 0, "container %s has just ended", of->id);
	if (pid < 0)
		return failed ? fail(err, HP_E_SYSTEM, failed, "fork") : -1;
	if (kind == PIDNS_FRESH || (moves && kind == PIDNS_JOIN && of != c)) {
		struct error ignored;

		close_fd(&c->pid_ns);
		c->pid_ns = ns_of(pid, &ignored); /* -1: it is gone already */
	}
	return pid;
}

void pidns_ended(struct container *c, pid_t pid)
{
	if (c->first != pid)
		return;
	c->first = 0;
	close_fd(&c->pid_ns);
}

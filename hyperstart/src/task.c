/* SPDX-License-Identifier: Apache-2.0 */
#include "task.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "hyper_protocol.h"
#include "loop.h"

#define OWN_END 3 /* the child's end of the socket, the first after the standard streams */

struct task {
	struct source source;
	task_done *done;
	void *arg;
	pid_t pid;
};

/* Others wait for the end of pipes that PID 1 holds: a copy here would keep them waiting. */
static _Noreturn void child(int fd, task_work *work, void *arg)
{
	struct task_report report = {.err.code = 0};
	char end;

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* as in child.c */
	if (fd != OWN_END)
		dup2(fd, OWN_END);
	syscall(SYS_close_range, OWN_END + 1u, ~0u, 0u);
	work(arg, &report);
	if (send(OWN_END, &report, sizeof report, MSG_NOSIGNAL) < 0)
		_exit(1);
	_exit(recv(OWN_END, &end, 1, 0) < 0);
}

static void on_report(struct source *s, uint32_t events)
{
	struct task *t = s->owner;
	struct task_report report;

	(void)events;
	if (recv(s->fd, &report, sizeof report, MSG_DONTWAIT) != sizeof report) {
		report = (struct task_report){.err.code = 0};
		fail(&report.err, HP_E_SYSTEM, 0, "hyperstart's helper died");
	}
	t->done(t->arg, t->pid, &report);
	loop_remove(s);
	free(t); /* the child is reaped like any other */
}

int task_start(task_work *work, task_done *done, void *arg, struct error *err)
{
	struct task *t = xcalloc(1, sizeof *t);
	int pair[2];

	*t = (struct task){.source.fd = -1, .done = done, .arg = arg};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		free(t);
		return fail_sys(err, "socketpair");
	}
	t->pid = fork();
	if (t->pid == 0)
		child(pair[1], work, arg);
	close(pair[1]);
	if (t->pid < 0) {
		int r = fail_sys(err, "fork");

		close(pair[0]);
		free(t);
		return r;
	}
	t->source = (struct source){.fd = pair[0], .ready = on_report, .owner = t};
	loop_add(&t->source, EPOLLIN);
	return 0;
}

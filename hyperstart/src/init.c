/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The init that `--init` puts before a container's program: hyperstart's own binary under the name
 * that Docker gives to it. It hands on signals, reaps whoever is left to it, and ends as the program does.
 * Its behaviour is tini's: https://github.com/krallin/tini
 * Before itself it stands alone: a container that is there for what is executed in it later.
 */
#include "init.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Those that tell of a fault of the init itself are not handed on. */
static void handed_on(sigset_t *set)
{
	static const int own[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU};

	sigfillset(set);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(set, own[i]);
}

/* In a process group of its own, which a terminal's keys reach. */
static _Noreturn void run_program(char **args, const sigset_t *mask)
{
	int status;

	setpgid(0, 0);
	tcsetpgrp(STDIN_FILENO, getpgrp()); /* where stdin is no terminal there is nothing to do */
	signal(SIGTTIN, SIG_DFL);
	signal(SIGTTOU, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(args[0], args);
	status = errno == ENOENT ? 127 : 126;
	fprintf(stderr, "exec: \"%s\": %s\n", args[0], strerror(errno));
	_exit(status);
}

/* The program's exit status in a shell's terms once it has ended, else -1. */
static int reap(pid_t program)
{
	int status, code = -1;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == program)
			code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return code;
}

/* No program but what comes later: it reaps, until it is told to end. */
static int stand_alone(void)
{
	static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		sigaddset(&set, ending[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
	for (;;) {
		int sig = sigwaitinfo(&set, NULL);

		reap(0);
		if (sig > 0 && sig != SIGCHLD)
			return 0;
	}
}

int init_main(char **args)
{
	sigset_t set, before;
	pid_t program;

	prctl(PR_SET_NAME, "docker-init");
	if (getpid() != 1) /* in the pod's namespace another one is */
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (strcmp(args[0], INIT_NAME) == 0 && !args[1])
		return stand_alone();
	handed_on(&set);
	sigprocmask(SIG_SETMASK, &set, &before);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	program = fork();
	if (program == 0)
		run_program(args, &before);
	if (program < 0) {
		perror("fork");
		return 126;
	}
	for (;;) {
		int sig = sigwaitinfo(&set, NULL), code;

		if (sig > 0 && sig != SIGCHLD)
			kill(program, sig);
		else if (sig == SIGCHLD && (code = reap(program)) >= 0)
			return code;
	}
}

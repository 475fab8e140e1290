/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks: what a container's creator has run in it before its own program, as runtime-spec's startContainer. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "process.h"

int hook_parse(const struct attr *a, struct process_spec *s, struct error *err)
{
	struct cursor c = attr_nested(a);
	struct hook_spec *h;
	struct attr b;
	int r;

	if (s->hook_count == MAX_HOOKS)
		return fail(err, HP_E_MALFORMED, 0, "more than %d hooks", MAX_HOOKS);
	h = &s->hooks[s->hook_count++]; /* counted before it is read: what there is of it is freed */
	while ((r = attr_next(&c, &b, err)) > 0) {
		switch (b.tag) {
		case HP_T_SOURCE: r = attr_text(&b, &h->path, err); break;
		case HP_T_ARG: r = attr_add_text(&b, &h->args, err); break;
		case HP_T_ENV: r = attr_add_text(&b, &h->env, err); break;
		case HP_T_VALUE: r = attr_text(&b, &h->input, err); break;
		case HP_T_TIMEOUT: r = attr_u64(&b, &h->timeout_ms, err); break;
		}
		if (r < 0)
			return -1;
	}
	if (r == 0 && (!h->path || !h->timeout_ms))
		return fail(err, HP_E_MALFORMED, 0, "a hook needs a path and a time");
	return r;
}

void hooks_free(struct process_spec *s)
{
	for (size_t i = 0; i < s->hook_count; i++) {
		free(s->hooks[i].path);
		free(s->hooks[i].input);
		strings_free(&s->hooks[i].args);
		strings_free(&s->hooks[i].env);
	}
}

/* What it reads, and what it says: files, so that nobody waits for who does not read. */
static int open_streams(const struct hook_spec *h, int *in, int *out, struct error *err)
{
	const char *input = h->input ? h->input : "";
	size_t n = strlen(input);

	*in = memfd_create("hook", MFD_CLOEXEC);
	*out = memfd_create("hook", MFD_CLOEXEC);
	if (*in < 0 || *out < 0 || write(*in, input, n) != (ssize_t)n || lseek(*in, 0, SEEK_SET) < 0)
		return fail_sys(err, "streams of the hook %s", h->path);
	return 0;
}

static _Noreturn void run(const struct hook_spec *h, int in, int out, const sigset_t *mask)
{
	char *only[] = {h->path, NULL}, *nothing[] = {NULL};

	sigprocmask(SIG_SETMASK, mask, NULL);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(126);
	execve(h->path, h->args.n ? h->args.v : only, h->env.n ? h->env.v : nothing);
	dprintf(2, "%s", strerror(errno));
	_exit(127);
}

/* Its status, as wait(2) gives it; -1 when it had to be killed. SIGCHLD is blocked. */
static int await_end(pid_t pid, uint64_t timeout_ms)
{
	uint64_t until = now_ns() + timeout_ms * 1000000;
	sigset_t children;
	int status = 0;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	for (;;) {
		pid_t ended = waitpid(-1, &status, WNOHANG); /* of its own children, too, if we are process 1 */
		uint64_t now = now_ns();

		if (ended == pid)
			return status;
		if (ended > 0)
			continue;
		if (now >= until)
			break;
		sigtimedwait(&children, NULL,
		             &(struct timespec){.tv_sec = (time_t)((until - now) / 1000000000),
		                                .tv_nsec = (long)((until - now) % 1000000000)});
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static int run_one(const struct hook_spec *h, const sigset_t *mask, struct error *err)
{
	cleanup_close int in = -1, out = -1;
	char said[160] = "";
	ssize_t n;
	pid_t pid;
	int status;

	if (open_streams(h, &in, &out, err) < 0)
		return -1;
	pid = fork();
	if (pid < 0)
		return fail_sys(err, "the hook %s", h->path);
	if (pid == 0)
		run(h, in, out, mask);
	status = await_end(pid, h->timeout_ms);
	if (status == 0)
		return 0;
	err->exit_status = 126;
	if (status == -1)
		return fail(err, HP_E_EXEC, 0, "the hook %s has not ended within %llu ms", h->path,
		            (unsigned long long)h->timeout_ms);
	n = pread(out, said, sizeof said - 1, 0);
	while (n > 0 && (said[n - 1] == '\n' || said[n - 1] == ' '))
		said[--n] = 0;
	return fail(err, HP_E_EXEC, 0, "the hook %s failed with status %d: %s", h->path,
	            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), said);
}

int hooks_run(const struct process_spec *s, struct error *err)
{
	sigset_t children, mask;
	int r = 0;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, &mask); /* a blocked one waits for us also where it would be ignored */
	for (size_t i = 0; i < s->hook_count && r == 0; i++)
		r = run_one(&s->hooks[i], &mask, err);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return r;
}

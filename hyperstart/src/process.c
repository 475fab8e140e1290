/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "pidns.h"

#define PIPE_SIZE (1 << 18)

static struct process *processes;
static struct process *next_to_send; /* round robin over what has data */

struct process *process_find(uint32_t id)
{
	struct process *p = processes;

	while (p && p->id != id)
		p = p->next;
	return p;
}

bool process_any_alive(const struct container *c)
{
	for (struct process *p = processes; p; p = p->next)
		if (p->container == c && !p->exited)
			return true;
	return false;
}

void process_free(struct process *p)
{
	struct process **at = &processes;

	while (*at && *at != p)
		at = &(*at)->next;
	if (*at)
		*at = p->next;
	if (next_to_send == p)
		next_to_send = NULL;
	loop_remove(&p->status);
	input_close(&p->in);
	output_close(&p->out);
	output_close(&p->err);
	free(p);
}

/* One report, with the terminal's master as ancillary data where there is one. */
static ssize_t receive_report(int fd, struct child_report *report, int *master)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec v = {report, sizeof *report};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(master, CMSG_DATA(c), sizeof *master);
	return n;
}

static void start_failed(struct process *p, const struct error *err)
{
	send_error(p->request, err);
	loop_remove(&p->status);
	if (p->container)
		pidns_ended(p->container, p->pid);
	/* It is reaped like any other child; nobody waits for its status. */
	process_free(p);
}

static void put_identity(struct buffer *b, const struct identity *id)
{
	put_u64(b, HP_T_UID, id->uid);
	put_u64(b, HP_T_GID, id->gid);
	for (size_t i = 0; i < id->group_count; i++) {
		char number[16];

		snprintf(number, sizeof number, "%u", (unsigned)id->groups[i]);
		put_text(b, HP_T_GROUP, number);
	}
}

static void on_status(struct source *s, uint32_t events)
{
	struct process *p = s->owner;
	struct child_report report;
	int master = -1;
	ssize_t n = receive_report(s->fd, &report, &master);

	(void)events;
	if (n == sizeof report && report.err.code) {
		start_failed(p, &report.err);
	} else if (n == sizeof report) {
		p->pod_pid = report.pod_pid;
		p->identity = report.identity;
		p->ready_ns = now_ns();
		if (master >= 0) {
			output_open(&p->out, master);
			input_open(&p->in, fcntl(master, F_DUPFD_CLOEXEC, 0));
		}
	} else { /* closed by exec: the program runs */
		struct buffer *b = channel_control();
		size_t start = frame_begin(b, HP_REPLY, p->request);

		p->started_ns = now_ns();
		put_u64(b, HP_T_PID, p->pod_pid);
		put_identity(b, &p->identity);
		put_span(b, "forked and moved into the container", p->asked_ns, p->ready_ns);
		put_span(b, "program executed", p->ready_ns, p->started_ns);
		frame_end(b, start);
		p->started = true;
		loop_remove(s);
	}
}

/* Its main process, or the rehearsal of one. */
static bool is_first(const struct process_spec *s) { return s->main || s->own_pids; }

/* A pipe for the child to read (want_read) or to write; ours is the other end. */
static int make_pipe(bool child_reads, int *ours, int *theirs)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -1;
	if (!child_reads) /* fewer turns between the program and us; it is no loss to be refused */
		fcntl(fd[0], F_SETPIPE_SZ, PIPE_SIZE);
	*theirs = fd[child_reads ? 0 : 1];
	*ours = fd[child_reads ? 1 : 0];
	return 0;
}

struct ends {
	int in, out, err, status;
};

static void close_ends(struct ends *e)
{
	close_fd(&e->in);
	close_fd(&e->out);
	close_fd(&e->err);
	close_fd(&e->status);
}

static int make_ends(const struct process_spec *s, struct ends *ours, struct ends *theirs, struct error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail_sys(err, "socketpair");
	ours->status = pair[0];
	theirs->status = pair[1];
	if (s->tty)
		return 0;
	if ((s->want_stdin && make_pipe(true, &ours->in, &theirs->in) < 0) ||
	    make_pipe(false, &ours->out, &theirs->out) < 0 || make_pipe(false, &ours->err, &theirs->err) < 0)
		return fail_sys(err, "pipe");
	return 0;
}

/* What hyperstart runs itself is in the pod's PID namespace, unless a part of it stays. */
static enum pidns_kind pids_of(const struct container *c, const struct process_spec *s)
{
	if (s->own_pids)
		return PIDNS_FRESH;
	if (s->builtin == HP_B_SHARE || s->builtin == HP_B_HOLD) /* no container's processes may end these */
		return PIDNS_OWN;
	return (c && !s->builtin) || s->target ? PIDNS_JOIN : PIDNS_POD;
}

static pid_t fork_for(struct container *c, const struct process_spec *s, struct error *err)
{
	pid_t pid = pidns_fork(c, s->target ? s->target : c, pids_of(c, s), err);

	if (pid > 0 && c && is_first(s)) {
		c->first = pid;
		c->own_pids = s->own_pids || s->target;
	}
	return pid;
}

static int spawn(struct process *p, const struct process_spec *s, struct error *err)
{
	struct ends ours = {-1, -1, -1, -1}, theirs = {-1, -1, -1, -1};

	if (make_ends(s, &ours, &theirs, err) < 0)
		goto failed;
	p->oom_before = p->container ? container_oom_kills(p->container) : 0;
	p->pid = fork_for(p->container, s, err);
	if (p->pid == 0)
		child_main(s, p->container, (struct child_fds){theirs.status, theirs.in, theirs.out, theirs.err});
	if (p->pid < 0)
		goto failed;
	close_ends(&theirs);
	p->status = (struct source){.fd = ours.status, .ready = on_status, .owner = p};
	loop_add(&p->status, EPOLLIN);
	input_open(&p->in, ours.in);
	if (!s->tty) {
		output_open(&p->out, ours.out);
		output_open(&p->err, ours.err);
	}
	return 0;
failed:
	close_ends(&ours);
	close_ends(&theirs);
	return -1;
}

/* That of another container, if that has one of its own; else both are in the pod's. */
static int choose_target(struct process_spec *s, struct error *err)
{
	const struct container *of = container_find(s->pids_of);

	if (!of || !of->ready)
		return fail(err, HP_E_NOT_FOUND, 0, "no container %s", s->pids_of);
	if (of->own_pids && of->pid_ns < 0)
		return fail(err, HP_E_STATE, 0, "container %s, whose processes it is to see, does not run", s->pids_of);
	s->target = of->own_pids ? of : NULL;
	return 0;
}

/* Which PID namespace a run of the container is in is its first process's to say. */
static int choose_pids(struct container *c, struct process_spec *s, struct error *err)
{
	if (!c || s->builtin)
		return s->own_pids ? fail(err, HP_E_MALFORMED, 0, "a PID namespace of no container") : 0;
	if (is_first(s)) {
		if (c->first)
			return fail(err, HP_E_STATE, 0, "container %s has a main process", c->id);
		if (s->pids_of && choose_target(s, err) < 0)
			return -1;
		s->renew_proc = s->own_pids || s->target || c->own_pids;
	} else if (c->own_pids && c->pid_ns < 0) {
		return fail(err, HP_E_STATE, 0, "container %s does not run", c->id);
	}
	return 0;
}

int process_start(const struct frame *f, struct error *err)
{
	struct cursor cur = {f->body, f->body + f->len};
	struct process_spec s = {0};
	struct process *p = NULL;
	struct container *c = NULL;
	int r = process_spec_parse(cur, &s, err);

	if (r == 0 && s.container && (!(c = container_find(s.container)) || !c->ready))
		r = fail(err, HP_E_NOT_FOUND, 0, "no container %s", s.container);
	if (r == 0 && c && c->frozen && !s.builtin) /* it would freeze too, on its way */
		r = fail(err, HP_E_STATE, 0, "container %s is paused", s.container);
	if (r == 0 && process_find(f->id))
		r = fail(err, HP_E_EXISTS, 0, "process %u exists", f->id);
	if (r == 0)
		r = choose_pids(c, &s, err);
	if (r == 0) {
		p = xcalloc(1, sizeof *p);
		p->id = p->request = f->id;
		p->container = c;
		p->asked_ns = now_ns();
		p->tty = s.tty != 0;
		p->main = s.main != 0;
		p->status.fd = p->in.source.fd = p->out.source.fd = p->err.source.fd = -1;
		output_open(&p->out, -1);
		output_open(&p->err, -1);
		p->out.eof = false; /* of a terminal: opened when the child reports */
		r = spawn(p, &s, err);
		if (r < 0)
			free(p);
	}
	if (r == 0) {
		p->next = processes;
		processes = p;
	}
	process_spec_free(&s);
	return r;
}

static void put_exit(struct buffer *b, const struct process *p)
{
	if (WIFSIGNALED(p->wait_status))
		put_u64(b, HP_T_SIGNAL, (uint64_t)WTERMSIG(p->wait_status));
	else
		put_u64(b, HP_T_CODE, (uint64_t)WEXITSTATUS(p->wait_status));
	if (p->oom)
		put_u64(b, HP_T_OOM, 1);
}

void process_reaped(pid_t pid, int wait_status)
{
	struct process *p = processes;
	uint64_t ended = now_ns();
	struct buffer *b;
	size_t start;

	while (p && (p->pid != pid || p->exited))
		p = p->next;
	if (!p)
		return;
	while (p->status.fd >= 0) { /* died at once: its report comes first */
		bool failed = false;
		struct process *self = p;

		on_status(&p->status, 0);
		for (p = processes; p && p != self; p = p->next)
			;
		failed = !p;
		if (failed)
			return;
	}
	p->exited = true;
	p->wait_status = wait_status;
	if (p->container)
		pidns_ended(p->container, p->pid);
	/* The main process may have ended because another of the container was killed. */
	p->oom = p->container && wait_status != 0 &&
	         (p->main || (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL)) &&
	         container_oom_kills(p->container) > p->oom_before;
	if (p->container)
		cgroup_report_oom(p->container); /* before its end, if that is why */
	if (p->main && p->container)
		container_kill_all(p->container);
	output_ended(&p->out);
	output_ended(&p->err);
	input_close(&p->in);
	p->in.closed = true;
	b = channel_control();
	start = frame_begin(b, HP_EXITED, p->id);
	put_exit(b, p);
	put_span(b, "program runs", p->started_ns, ended);
	put_span(b, "its end is settled", ended, now_ns());
	frame_end(b, start);
}

void process_put_all(struct buffer *b)
{
	for (struct process *p = processes; p; p = p->next) {
		size_t start = nest_begin(b, HP_T_PROCESS);

		put_u64(b, HP_T_ID, p->id);
		put_u64(b, HP_T_PID, p->pod_pid);
		put_identity(b, &p->identity);
		put_u64(b, HP_T_STDIN_ACK, p->in.ring.end);
		put_u64(b, HP_T_STDIN_EOF, p->in.eof || p->in.closed);
		put_u64(b, HP_T_STDOUT_BEGIN, p->out.ring.start);
		put_u64(b, HP_T_STDERR_BEGIN, p->err.ring.start);
		if (p->exited)
			put_exit(b, p);
		nest_end(b, start);
	}
}

void process_rewind_all(void)
{
	for (struct process *p = processes; p; p = p->next) {
		input_rewind(&p->in);
		output_rewind(&p->out);
		output_rewind(&p->err);
	}
}

void process_windows(void)
{
	for (struct process *p = processes; p; p = p->next)
		if (p->started && !p->exited)
			input_window(&p->in, p->id, channel_control());
}

bool process_next_data(struct buffer *out)
{
	struct process *p = next_to_send ? next_to_send : processes;
	struct process *first = p;

	while (p) {
		struct process *next = p->next ? p->next : processes;

		if (output_frame(&p->out, p->id, 1, out) || output_frame(&p->err, p->id, 2, out)) {
			next_to_send = next;
			return true;
		}
		p = next == first ? NULL : next;
	}
	return false;
}

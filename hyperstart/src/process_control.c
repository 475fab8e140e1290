/* SPDX-License-Identifier: Apache-2.0 */
/* What the host asks of a process that was started. */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>

static struct process *by_attr(const struct frame *f, uint64_t *signal, uint64_t *all, struct error *err)
{
	struct cursor cur = {f->body, f->body + f->len};
	uint64_t id = 0;
	struct process *p;
	struct attr a;
	int r;

	while ((r = attr_next(&cur, &a, err)) > 0) {
		r = a.tag == HP_T_ID                             ? attr_u64(&a, &id, err)
		    : a.tag == HP_T_SIGNAL || a.tag == HP_T_ROWS ? attr_u64(&a, signal, err)
		    : a.tag == HP_T_ALL || a.tag == HP_T_COLUMNS ? attr_u64(&a, all, err)
		                                                 : 0;
		if (r < 0)
			break;
	}
	if (r < 0)
		return NULL;
	p = id <= UINT32_MAX ? process_find((uint32_t)id) : NULL;
	if (!p)
		fail(err, HP_E_NOT_FOUND, 0, "no process %llu", (unsigned long long)id);
	return p;
}

int process_signal(const struct frame *f, struct error *err)
{
	uint64_t signal = 0, all = 0;
	struct process *p = by_attr(f, &signal, &all, err);

	if (!p)
		return -1;
	if (p->exited)
		return fail(err, HP_E_STATE, 0, "process %u has ended", p->id);
	if (signal > (uint64_t)SIGRTMAX)
		return fail(err, HP_E_MALFORMED, 0, "no signal %llu", (unsigned long long)signal);
	if (all == 1 && p->container && signal == SIGKILL)
		container_kill_all(p->container);
	else if (kill(all ? -p->pid : p->pid, (int)signal) < 0)
		return fail_sys(err, "kill");
	send_reply(f->id);
	return 0;
}

int process_resize(const struct frame *f, struct error *err)
{
	uint64_t rows = 0, columns = 0;
	struct process *p = by_attr(f, &rows, &columns, err);
	struct winsize w = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};

	if (!p)
		return -1;
	if (!p->tty)
		return fail(err, HP_E_STATE, 0, "process %u has no terminal", p->id);
	if (p->out.source.fd >= 0 && ioctl(p->out.source.fd, TIOCSWINSZ, &w) < 0)
		return fail_sys(err, "TIOCSWINSZ");
	send_reply(f->id);
	return 0;
}

int process_release(const struct frame *f, struct error *err)
{
	uint64_t unused = 0;
	struct process *p = by_attr(f, &unused, &unused, err);

	if (!p)
		return -1;
	if (!p->exited)
		return fail(err, HP_E_STATE, 0, "process %u runs", p->id);
	process_free(p);
	send_reply(f->id);
	return 0;
}

static struct process *stream_target(const struct frame *f, struct error *err)
{
	struct process *p = process_find(f->id);

	if (f->len < HP_STREAM_HEADER) {
		fail(err, HP_E_MALFORMED, 0, "stream frame cut short");
		return NULL;
	}
	if (!p)
		fail(err, HP_E_NOT_FOUND, 0, "no process %u", f->id);
	return p;
}

int process_data(const struct frame *f, struct error *err)
{
	struct process *p = stream_target(f, err);

	if (!p)
		return -1;
	if (f->body[0] != 0)
		return fail(err, HP_E_MALFORMED, 0, "data for stream %u", f->body[0]);
	return input_data(&p->in, le64(f->body + 8), f->body + HP_STREAM_HEADER, f->len - HP_STREAM_HEADER,
	                  f->body[1] & HP_DATA_EOF, err);
}

int process_window(const struct frame *f, struct error *err)
{
	struct process *p = stream_target(f, err);

	if (!p)
		return -1;
	if (f->len != HP_STREAM_HEADER + 8 || f->body[0] < 1 || f->body[0] > 2)
		return fail(err, HP_E_MALFORMED, 0, "malformed window");
	return output_window(f->body[0] == 1 ? &p->out : &p->err, le64(f->body + 8), le64(f->body + 16), err);
}

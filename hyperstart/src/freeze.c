/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's processes stand still, and go on. The kernel freezes each when it next leaves the
 * kernel, so the answer comes with `frozen 1` in cgroup.events: a signal that is sent after it finds
 * them frozen, as with Docker. A process that waits in the kernel without end (for a disk, say) keeps
 * that from coming: then they go on, and the answer is an error.
 */
#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/timerfd.h>

#define LIMIT_SECONDS 5

static int write_state(const struct container *c, bool freeze, struct error *err)
{
	cleanup_close int fd = openat(c->cgroup, "cgroup.freeze", O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, freeze ? "1" : "0", 1) < 0 ? fail_sys(err, "cgroup.freeze") : 0;
}

static bool is_frozen(int events)
{
	char text[256];
	ssize_t n = pread(events, text, sizeof text - 1, 0);

	text[n < 0 ? 0 : n] = 0;
	return strstr(text, "frozen 1") != NULL;
}

/* Answers who waits, if anybody does. */
static void finish_freeze(struct container *c, const struct error *err)
{
	loop_remove(&c->freeze_events);
	loop_remove(&c->freeze_limit);
	if (!c->freeze_request)
		return;
	if (err)
		send_error(c->freeze_request, err);
	else
		send_reply(c->freeze_request);
	c->freeze_request = 0;
}

static void on_events(struct source *s, uint32_t events)
{
	(void)events;
	if (is_frozen(s->fd))
		finish_freeze(s->owner, NULL);
}

static void on_limit(struct source *s, uint32_t events)
{
	struct container *c = s->owner;
	struct error err, ignored;

	(void)events;
	c->frozen = false;
	write_state(c, false, &ignored);
	fail(&err, HP_E_STATE, 0,
	     "container %s goes on: one of its processes waits in the kernel, and cannot be frozen", c->id);
	finish_freeze(c, &err);
}

static int wait_for_it(struct container *c, uint32_t request, struct error *err)
{
	struct itimerspec limit = {.it_value.tv_sec = LIMIT_SECONDS};

	c->freeze_events = (struct source){.ready = on_events, .owner = c};
	c->freeze_limit = (struct source){.fd = -1, .ready = on_limit, .owner = c};
	c->freeze_events.fd = openat(c->cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (c->freeze_events.fd < 0)
		return fail_sys(err, "cgroup.events");
	c->freeze_limit.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (c->freeze_limit.fd < 0 || timerfd_settime(c->freeze_limit.fd, 0, &limit, NULL) < 0) {
		fail_sys(err, "timerfd");
		finish_freeze(c, NULL);
		return -1;
	}
	c->freeze_request = request;
	if (is_frozen(c->freeze_events.fd)) { /* to read it is also what lets changes be told */
		finish_freeze(c, NULL);
		return 0;
	}
	loop_add(&c->freeze_events, EPOLLPRI);
	loop_add(&c->freeze_limit, EPOLLIN);
	return 0;
}

int container_freeze(const struct frame *f, struct error *err)
{
	uint64_t freeze = 0;
	struct container *c = container_named(f, &freeze, err);
	struct error other;

	if (!c)
		return -1;
	fail(&other, HP_E_STATE, 0, "container %s was asked for something else meanwhile", c->id);
	finish_freeze(c, &other);
	if (write_state(c, freeze != 0, err) < 0)
		return -1;
	c->frozen = freeze != 0;
	if (!freeze) {
		send_reply(f->id);
		return 0;
	}
	if (wait_for_it(c, f->id, err) == 0)
		return 0;
	c->frozen = false;
	write_state(c, false, &other);
	return -1;
}

void container_freeze_forget(struct container *c)
{
	finish_freeze(c, &(struct error){.code = HP_E_STATE, .message = "it ends"});
}

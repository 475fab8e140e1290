/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

#include "util.h"

#define BATCH 16

static int epoll_fd = -1;
static struct epoll_event batch[BATCH];
static int batch_len;
static bool stopped;

void loop_init(void) { epoll_fd = epoll_create1(EPOLL_CLOEXEC); }

void loop_add(struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	s->events = events;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		log_line("epoll: cannot watch descriptor %d", s->fd);
}

void loop_change(struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	int op = EPOLL_CTL_MOD;

	if (s->fd < 0 || s->events == events)
		return;
	/* epoll reports a hang-up even when asked for nothing: a paused source
	 * must leave the set, or the loop would spin. */
	if (events == 0)
		op = EPOLL_CTL_DEL;
	else if (s->events == 0)
		op = EPOLL_CTL_ADD;
	s->events = events;
	epoll_ctl(epoll_fd, op, s->fd, &ev);
}

void loop_remove(struct source *s)
{
	if (s->fd < 0)
		return;
	if (s->events)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->events = 0;
	close(s->fd);
	s->fd = -1;
	for (int i = 0; i < batch_len; i++)
		if (batch[i].data.ptr == s)
			batch[i].data.ptr = NULL;
}

void loop_stop(void) { stopped = true; }

void loop_run(void (*before_wait)(void))
{
	while (!stopped) {
		before_wait();
		batch_len = epoll_wait(epoll_fd, batch, BATCH, -1);
		if (batch_len < 0 && errno != EINTR)
			return;
		for (int i = 0; i < batch_len; i++) {
			struct source *s = batch[i].data.ptr;

			if (s)
				s->ready(s, batch[i].events);
		}
		batch_len = 0;
	}
}

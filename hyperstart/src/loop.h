/* SPDX-License-Identifier: Apache-2.0 */
/* The one event loop: epoll, a handler per file descriptor, no threads. */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

struct source {
	int fd; /* -1: not watched */
	uint32_t events;
	void (*ready)(struct source *self, uint32_t events);
	void *owner;
};

void loop_init(void);
void loop_add(struct source *s, uint32_t events);
void loop_change(struct source *s, uint32_t events);
/* Stops watching and closes. Safe inside any handler: pending events of the
 * descriptor are dropped. */
void loop_remove(struct source *s);
void loop_run(void (*before_wait)(void));
void loop_stop(void);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of directories that speaks vhost-user, as virtiofsd, asked by a program in a driver's place.
 *
 * The server reads and writes memory of ours, in which the queues are and the messages lie.
 */
#ifndef VHOST_H
#define VHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_MAX (256u << 10) /* bytes: 32 pages of FUSE's, or an extended attribute, and headers */
#define SLOTS       16           /* messages that the server has at a time */

/* Ends the process after a sentence on stderr. */
_Noreturn void stop(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Shares memory with the server, and starts its queues; a descriptor that can be read when it has answered. */
int vhost_start(int server);

/* A place for a message that is free; -1: there is none. */
int vhost_slot(void);

/* Where a message for the server is written. */
uint8_t *vhost_request(int slot);

/* The server gets the message, and may answer with so many bytes; one without an answer goes by the queue of those. */
void vhost_submit(int slot, size_t size, size_t answer);

/* The next message that the server has done with, whose slot is free afterwards; NULL: there is none. `size` is 0 for
 * one without an answer. What is returned stays until the next message is submitted. */
const uint8_t *vhost_answer(size_t *size);

#endif

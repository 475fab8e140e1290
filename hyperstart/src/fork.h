/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine does that is saved while it runs, and what one does that goes on from that. */
#ifndef FORK_H
#define FORK_H

#include <stdbool.h>

#include "channel.h"

/* Reset all TCP connections but those within the machine. */
int fork_sever(struct error *err);
/* The kernel reports free pages no more: the memory of a machine that goes on from a saved one is not to be taken. */
int fork_keep_free_pages(struct error *err);

#endif

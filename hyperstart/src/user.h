/* SPDX-License-Identifier: Apache-2.0 */
/* "user[:group]" looked up in the container's own /etc/passwd and /etc/group. */
#ifndef USER_H
#define USER_H

#include <sys/types.h>

#include "util.h"

#define MAX_GROUPS 64

struct identity {
	uid_t uid;
	gid_t gid;
	gid_t groups[MAX_GROUPS];
	size_t group_count;
	char home[256];
};

int identity_resolve(const char *user, const struct strings *extra_groups, bool only, struct identity *out,
                     struct error *err);

#endif

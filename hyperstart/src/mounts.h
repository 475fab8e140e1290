/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts as descriptors (open_tree(2), move_mount(2)), which musl does not wrap. */
#ifndef MOUNTS_H
#define MOUNTS_H

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_TREE_CLONE_         1
#define MOVE_MOUNT_F_EMPTY_PATH_ 4
#define AT_RECURSIVE_            0x8000

/* A detached copy of the mount at a path, with what is mounted below it. */
static inline int copy_tree(int dir, const char *path)
{
	return (int)syscall(SYS_open_tree, dir, path,
	                    OPEN_TREE_CLONE_ | O_CLOEXEC | AT_RECURSIVE_ | (*path ? 0 : AT_EMPTY_PATH));
}

static inline int attach_tree(int fd, const char *target)
{
	return (int)syscall(SYS_move_mount, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH_);
}

#endif

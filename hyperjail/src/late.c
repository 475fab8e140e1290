/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperjail REPORT add NAMESPACE read|write SOURCE TARGET
 * hyperjail REPORT remove NAMESPACE TARGET
 * hyperjail REPORT cover NAMESPACE read|write SOURCE TARGET
 * hyperjail REPORT uncover NAMESPACE TARGET
 *
 * A file or directory of the host for a program that runs in a jail already, below a directory that it was
 * made with ("late"), and the end of that. NAMESPACE is a descriptor of the program's mount namespace. Linux 5.12 and
 * root's rights.
 *
 * "cover" is for what is mounted on the host, at SOURCE, below a directory that the program has: it is put over
 * TARGET, which is there. "uncover" takes that away. Who writes below that directory may make links at any time, so
 * none is followed, and what is no mount is none of it.
 */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same on all machines; the headers may be older than the kernel. */
#define OPEN_TREE     428
#define MOVE_MOUNT    429
#define MOUNT_SETATTR 442
#define OPENAT2       437
#define MOUNT_ROOT    0x2000 /* STATX_ATTR_MOUNT_ROOT */

static int detached_at(int at, const char *name, unsigned int flags, const char *path)
{
	int tree = (int)syscall(OPEN_TREE, at, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);

	if (tree < 0)
		stop("open %s", path);
	return tree;
}

static int detached(const char *path, unsigned int flags) { return detached_at(AT_FDCWD, path, flags, path); }

/* As root.c does with those that are there from the beginning. */
static void restrict_tree(int tree, const char *source, bool read_only)
{
	struct mount_attr attr = {
	        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : MOUNT_ATTR_NOEXEC),
	        .propagation = 1UL << 18, /* MS_PRIVATE */
	};

	if (syscall(MOUNT_SETATTR, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
		stop("restrict the mount of %s", source);
}

/* A second mount of the jail's root, since the one that the program has is for reading. */
static int writable_root(void)
{
	struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
	int root = detached("/", 0);

	if (syscall(MOUNT_SETATTR, root, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
		stop("write to the root of the jail");
	return root;
}

static void make_late_point(const char *target, bool directory)
{
	int fd, root = writable_root();

	if (directory && mkdirat(root, target + 1, 0755) < 0 && errno != EEXIST)
		stop("make the directory %s", target);
	if (!directory) {
		fd = openat(root, target + 1, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			stop("make the file %s", target);
		close(fd);
	}
	close(root);
}

void add_late(int namespace, bool read_only, const char *source, const char *target)
{
	int tree = detached(source, AT_RECURSIVE);
	struct stat about;

	if (fstat(tree, &about) < 0)
		stop("find %s", source);
	restrict_tree(tree, source, read_only);
	umask(022);
	if (setns(namespace, CLONE_NEWNS) < 0)
		stop("enter the program's mount namespace");
	make_late_point(target, S_ISDIR(about.st_mode));
	if (syscall(MOVE_MOUNT, tree, "", AT_FDCWD, target, 4 /* MOVE_MOUNT_F_EMPTY_PATH */) < 0)
		stop("mount %s", source);
}

/* What the program has open of it stays open; what is not there is no error. */
void remove_late(int namespace, const char *target)
{
	int root;

	if (setns(namespace, CLONE_NEWNS) < 0)
		stop("enter the program's mount namespace");
	if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		stop("unmount %s", target);
	root = writable_root();
	if (unlinkat(root, target + 1, 0) < 0 && errno == EISDIR)
		unlinkat(root, target + 1, AT_REMOVEDIR);
	close(root);
}

/* -1 where there is nothing. */
static int open_without_links(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	int fd = (int)syscall(OPENAT2, AT_FDCWD, path, &how, sizeof how);

	if (fd < 0 && errno != ENOENT)
		stop("open %s", path);
	return fd;
}

static int open_mount(const char *path)
{
	int fd = open_without_links(path);
	struct statx about;

	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, 0, &about) < 0)
		stop("find the mount %s", path);
	errno = EINVAL;
	if (!(about.stx_attributes & MOUNT_ROOT))
		stop("find a mount at %s", path);
	return fd;
}

void cover(int namespace, bool read_only, const char *source, const char *target)
{
	int tree = detached_at(open_mount(source), "", AT_RECURSIVE | AT_EMPTY_PATH, source), place;

	restrict_tree(tree, source, read_only);
	if (setns(namespace, CLONE_NEWNS) < 0)
		stop("enter the program's mount namespace");
	place = open_without_links(target);
	if (place < 0 || syscall(MOVE_MOUNT, tree, "", place, "", 0x44 /* MOVE_MOUNT_{F,T}_EMPTY_PATH */) < 0)
		stop("mount %s", source);
}

/* As with remove_late: what is open stays open, and what is not there is no error. */
void uncover(int namespace, const char *target)
{
	char *above = strdup(target), *name = strdup(target);
	int place;

	if (!above || !name || setns(namespace, CLONE_NEWNS) < 0)
		stop("enter the program's mount namespace");
	place = open_without_links(dirname(above));
	if (place < 0)
		return;
	if (fchdir(place) < 0)
		stop("go to the directory above %s", target);
	if (umount2(basename(name), MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		stop("unmount %s", target);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A root that holds only what the program was handed, in a mount namespace of its own. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442 /* the same on all machines */
#endif
#define SMALL "mode=0755,size=64k,nr_inodes=2048" /* it holds mount points only */

static void below(const struct jail *jail, const char *path, char *out)
{
	if (snprintf(out, PATH_MAX, "%s%s", jail->root, path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		stop("use the path %s", path);
	}
}

/* All directories that lead to a path. */
static void make_parents(char *path, size_t from)
{
	for (char *p = path + from + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			stop("make the directory %s", path);
		*p = '/';
	}
}

/* Something to mount on, of the kind that the source is. */
static void make_point(const struct jail *jail, const struct entry *entry)
{
	char path[PATH_MAX];
	struct stat about;
	int fd;

	below(jail, entry->target, path);
	make_parents(path, strlen(jail->root));
	if (entry->kind == DIRECTORY || entry->kind == LATE) {
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			stop("make the directory %s", path);
		return;
	}
	if (stat(entry->source, &about) < 0)
		stop("find %s", entry->source);
	if (S_ISDIR(about.st_mode)) {
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			stop("make the directory %s", path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		stop("make the file %s", path);
	close(fd);
}

/* The old way to change a mount's flags: Linux before 5.12. In a user namespace those that it has are locked. */
static void remount(const char *path, unsigned long flags)
{
	struct statvfs about;

	if (statvfs(path, &about) < 0)
		stop("look at the mount %s", path);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | flags | about.f_flag, NULL) < 0)
		stop("restrict the mount %s", path);
}

/* Flags of a mount, and of those below it. */
static void restrict_mount(const char *path, unsigned long flags)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};

	attr.attr_set |= flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0;
	attr.attr_set |= flags & MS_NODEV ? MOUNT_ATTR_NODEV : 0;
	attr.attr_set |= flags & MS_NOEXEC ? MOUNT_ATTR_NOEXEC : 0;
	if (!syscall(SYS_mount_setattr, AT_FDCWD, path, AT_RECURSIVE, &attr, sizeof attr))
		return;
	if (errno != ENOSYS)
		stop("restrict the mount %s", path);
	remount(path, flags | MS_NOSUID);
}

static void bind_entry(const struct jail *jail, const struct entry *entry, unsigned long flags)
{
	char path[PATH_MAX];

	below(jail, entry->target, path);
	if (mount(entry->source, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		stop("bind %s", entry->source);
	restrict_mount(path, flags);
}

/* A node of the program's own, so that it may open it whoever owns the host's; that one where none can be made. */
static void make_device(const struct jail *jail, const struct entry *entry)
{
	char path[PATH_MAX];
	struct stat about;

	below(jail, entry->target, path);
	make_parents(path, strlen(jail->root));
	if (stat(entry->source, &about) < 0)
		stop("find the device %s", entry->source);
	if (!mknod(path, S_IFCHR | 0600, about.st_rdev)) {
		if (chown(path, jail->uid, jail->gid) < 0)
			stop("own the device %s", path);
		return;
	}
	if (errno != EPERM)
		stop("make the device %s", path);
	make_point(jail, entry);
	if (mount(entry->source, path, NULL, MS_BIND, NULL) < 0)
		stop("bind %s", entry->source);
}

static void make_devices(const struct jail *jail)
{
	char path[PATH_MAX];

	below(jail, "/dev", path);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		stop("make the directory %s", path);
	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NOEXEC, SMALL) < 0)
		stop("mount %s", path);
	for (size_t i = 0; i < jail->n_entries; i++)
		if (jail->entries[i].kind == DEVICE)
			make_device(jail, &jail->entries[i]);
	restrict_mount(path, MS_RDONLY | MS_NOEXEC);
}

/* All of it is for reading, but the settings of networks: others are the whole host's. */
static void restrict_proc(const struct jail *jail, const char *proc, unsigned long flags)
{
	char net[PATH_MAX];

	below(jail, "/proc/sys/net", net);
	if (jail->write_settings && mount(net, net, NULL, MS_BIND, NULL) < 0)
		stop("bind %s", net);
	if (mount(NULL, proc, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0)
		stop("restrict the mount %s", proc);
}

static void mount_proc(const struct jail *jail)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	const char *shown = jail->settings ? "hidepid=ptraceable" : "hidepid=ptraceable,subset=pid";
	char path[PATH_MAX];

	below(jail, "/proc", path);
	/* Linux before 5.8 has no `subset`; 2 is what `invisible` was called. */
	if (mount("proc", path, "proc", flags, shown) < 0 && mount("proc", path, "proc", flags, "hidepid=2") < 0)
		stop("mount %s", path);
	if (jail->settings)
		restrict_proc(jail, path, flags);
}

/* What was the root is no more to be seen. pivot_root(2), "pivot_root(".", ".")". */
static void change_root(const struct jail *jail)
{
	if (chdir(jail->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		stop("change the root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		stop("leave the old root");
}

void enter_root(const struct jail *jail)
{
	char path[PATH_MAX];

	umask(022); /* the program's user passes through directories that we make */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		stop("part from the host's mounts");
	if (mount("tmpfs", jail->root, "tmpfs", MS_NOSUID | MS_NODEV, SMALL) < 0)
		stop("mount a root on %s", jail->root);
	for (size_t i = 0; i < jail->n_entries; i++)
		if (jail->entries[i].kind != DEVICE)
			make_point(jail, &jail->entries[i]);
	below(jail, "/dev", path);
	mkdir(path, 0755);
	below(jail, "/proc", path);
	mkdir(path, 0755);
	for (size_t i = 0; i < jail->n_entries; i++)
		if (jail->entries[i].kind == READ)
			bind_entry(jail, &jail->entries[i], MS_RDONLY | MS_NODEV);
	for (size_t i = 0; i < jail->n_entries; i++)
		if (jail->entries[i].kind == WRITE)
			bind_entry(jail, &jail->entries[i], MS_NODEV | MS_NOEXEC);
	make_devices(jail);
	if (jail->proc)
		mount_proc(jail);
	if (mount(NULL, jail->root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		stop("make the root read-only");
	change_root(jail);
}

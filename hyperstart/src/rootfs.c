/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's root: read-only image disk below, scratch disk above, joined
 * by overlayfs; or a directory of a volume, as it is. rootfs_mount() mounts it where hyperstart sees it,
 * so that it can make disks clean at the end; rootfs_enter() then builds the
 * container's view in a mount namespace of its own and pivots into it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "container.h"
#include "mounts.h"

#define READ_AHEAD (512 << 10) /* bytes */

/* A request to a disk costs milliseconds under emulation, whatever its size: programs are read in few large ones. */
static void read_ahead(const char *device)
{
	cleanup_close int fd = open(device, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, BLKRASET, (unsigned long)READ_AHEAD / 512) < 0)
		log_line("%s: read-ahead: %s", device, strerror(errno));
}

static int mount_disk(const char *serial, const char *target, const char *type, unsigned long flags, const char *data,
                      struct error *err)
{
	char device[300];

	if (find_disk(serial, device, sizeof device, err) < 0)
		return -1;
	if (flags & MS_RDONLY) /* an image */
		read_ahead(device);
	if (make_dirs(target, 0700) < 0 || mount(device, target, type, flags, data) < 0)
		return fail_sys(err, "mounting the %s disk %s", type, serial);
	return 0;
}

/* hyperd names the directory; a machine has it by virtiofs. */
static int mount_directory(const struct container *c, struct error *err)
{
	cleanup_free char *source = xasprintf(VOLUME_DIR "/%s", c->spec.image_disk);
	cleanup_free char *root = xasprintf(RUN_DIR "/%s/root", c->place);

	if (make_dirs(root, 0700) < 0 || mount(source, root, NULL, MS_BIND, NULL) < 0)
		return fail_sys(err, "the root directory of container %s", c->id);
	return 0;
}

int rootfs_mount(const struct container *c, struct error *err)
{
	cleanup_free char *lower = xasprintf(RUN_DIR "/%s/lower", c->place);
	cleanup_free char *scratch = xasprintf(RUN_DIR "/%s/scratch", c->place);
	cleanup_free char *upper = xasprintf("%s/upper", scratch);
	cleanup_free char *work = xasprintf("%s/work", scratch);
	cleanup_free char *root = xasprintf(RUN_DIR "/%s/root", c->place);
	/* xino: one device number for all files, or `du -x` and `find -xdev` would pass most of them over.
	 * metacopy stays off: an upper layer written by one image must not be
	 * trusted to redirect into another. */
	cleanup_free char *options = xasprintf("xino=on,lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	struct stat st;

	if (strcmp(c->spec.image_fstype, "bind") == 0)
		return mount_directory(c, err);
	if (mount_disk(c->spec.image_disk, lower, c->spec.image_fstype, MS_RDONLY, NULL, err) < 0)
		return -1;
	if (c->spec.scratch_disk) {
		/* Its inode tables are holes, which read as zeros: nothing needs to write them. */
		if (mount_disk(c->spec.scratch_disk, scratch, "ext4", MS_NOATIME, "noinit_itable", err) < 0)
			return -1;
	} else if (make_dirs(scratch, 0700) < 0 || mount("tmpfs", scratch, "tmpfs", 0, "mode=0700") < 0) {
		return fail_sys(err, "mounting the scratch tmpfs");
	}
	/* A disk that was written to as such may hold a link to elsewhere by that name. */
	if ((mkdir(upper, 0755) < 0 && errno != EEXIST) || lstat(upper, &st) < 0)
		return fail_sys(err, "%s", upper);
	if (!S_ISDIR(st.st_mode))
		return fail(err, HP_E_SYSTEM, 0, "the scratch disk of container %s is damaged", c->id);
	/* The root directory's owner and mode come from the image. */
	if (stat(lower, &st) == 0 && (chown(upper, st.st_uid, st.st_gid) < 0 || chmod(upper, st.st_mode) < 0))
		return fail_sys(err, "%s", upper);
	if (make_dirs(work, 0700) < 0 || make_dirs(root, 0700) < 0)
		return fail_sys(err, "%s", root);
	if (mount("overlay", root, "overlay", 0, options) < 0)
		return fail_sys(err, "mounting the overlay");
	return 0;
}

void rootfs_unmount(const struct container *c)
{
	static const char *const part[] = {"root", "scratch", "lower"};

	for (size_t i = 0; i < ARRAY_LEN(part); i++) {
		cleanup_free char *path = xasprintf(RUN_DIR "/%s/%s", c->place, part[i]);

		umount2(path, MNT_DETACH);
	}
}

void rootfs_freeze_scratch(const struct container *c)
{
	cleanup_free char *root = xasprintf(RUN_DIR "/%s/root", c->place);
	cleanup_free char *scratch = xasprintf(RUN_DIR "/%s/scratch", c->place);

	if (strcmp(c->spec.image_fstype, "bind") == 0)
		return; /* its volume's file system is frozen with all volumes */
	if (mount(NULL, root, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		log_line("%s: overlay still busy at shutdown", c->place);
	if (c->spec.scratch_disk && mount(NULL, scratch, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		log_line("%s: scratch disk still busy at shutdown", c->place);
}

static int make_devices(struct error *err)
{
	static const struct {
		const char *path;
		unsigned major, minor;
	} node[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
	            {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
	static const char *const link[][2] = {{"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"},
	                                      {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	                                      {"/proc/kcore", "/dev/core"},       {"pts/ptmx", "/dev/ptmx"}};

	umask(0);
	for (size_t i = 0; i < ARRAY_LEN(node); i++)
		if (mknod(node[i].path, S_IFCHR | 0666, makedev(node[i].major, node[i].minor)) < 0)
			return fail_sys(err, "%s", node[i].path);
	umask(022);
	for (size_t i = 0; i < ARRAY_LEN(link); i++)
		if (symlink(link[i][0], link[i][1]) < 0)
			return fail_sys(err, "%s", link[i][1]);
	return 0;
}

static int mount_at(const struct mount_spec *m, struct error *err)
{
	struct stat st;

	if (stat(m->target, &st) < 0 && make_dirs(m->target, 0755) < 0)
		return fail_sys(err, "mount point %s", m->target);
	if (mount(m->source ? m->source : m->type, m->target, m->type, m->flags, m->data) < 0)
		return fail_sys(err, "mounting %s on %s", m->type, m->target);
	return 0;
}

/* Through a link of the image it would lie where nothing masks its paths. */
static int mount_standard(const struct mount_spec *m, struct error *err)
{
	struct stat st;

	if (lstat(m->target, &st) == 0 && !S_ISDIR(st.st_mode))
		return fail(err, HP_E_SYSTEM, 0, "%s of the image is no directory", m->target);
	return mount_at(m, err);
}

static int mount_proc(struct error *err)
{
	static const struct mount_spec proc = {"proc", "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC};

	return mount_standard(&proc, err);
}

static int mount_all_standard(const struct container *c, struct error *err)
{
	/* What may open any device may write there, too, as with Docker: systemd divides its control group. */
	unsigned long sys = (c->spec.devices ? 0 : MS_RDONLY) | MS_NOSUID | MS_NODEV | MS_NOEXEC;
	const struct mount_spec standard[] = {
	        {"tmpfs", "tmpfs", "/dev", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME},
	        {"devpts", "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC},
	        {"sysfs", "sysfs", "/sys", NULL, sys},
	        {"mqueue", "mqueue", "/dev/mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	        {"cgroup2", "cgroup", "/sys/fs/cgroup", NULL, sys},
	};

	if (mount_proc(err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(standard); i++)
		if (mount_standard(&standard[i], err) < 0)
			return -1;
	return make_devices(err);
}

/* Bind the prepared file over its target, which is resolved inside the container. */
static int bind_file(int tree, const char *target, struct error *err)
{
	cleanup_close int fd = -1;

	if (make_parents(target) < 0)
		return fail_sys(err, "%s", target);
	fd = open(target, O_RDONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd < 0)
		return fail_sys(err, "%s", target);
	close_fd(&fd);
	if (attach_tree(tree, target) < 0)
		return fail_sys(err, "binding %s", target);
	return 0;
}

/* What is bound over the container's i-th file; it may be written anew. */
int rootfs_file(const struct container *c, size_t i, const struct file_spec *f, struct error *err)
{
	cleanup_free char *path = xasprintf(RUN_DIR "/%s/files/%zu", c->place, i);

	if (make_parents(path) < 0 || write_file(path, f->content, f->len) < 0 ||
	    chown(path, (uid_t)f->uid, (gid_t)f->gid) < 0 || chmod(path, (mode_t)f->mode) < 0)
		return fail_sys(err, "%s", path);
	return 0;
}

static int prepare_files(const struct container *c, int *trees, struct error *err)
{
	for (size_t i = 0; i < c->spec.file_count; i++) {
		cleanup_free char *path = xasprintf(RUN_DIR "/%s/files/%zu", c->place, i);

		if (rootfs_file(c, i, &c->spec.files[i], err) < 0)
			return -1;
		trees[i] = copy_tree(AT_FDCWD, path);
		if (trees[i] < 0)
			return fail_sys(err, "copying the mount of %s", path);
	}
	return 0;
}

/* What a kernel does not have needs no hiding. */
static void hide_path(const char *path, bool masked)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	if (!masked) {
		if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0)
			mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			      NULL);
	} else if (S_ISDIR(st.st_mode)) {
		mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0");
	} else {
		mount("/dev/null", path, NULL, MS_BIND, NULL);
	}
}

static void hide_paths(const struct container *c, const char *below)
{
	size_t n = strlen(below);

	for (size_t i = 0; i < c->spec.readonly_paths.n; i++)
		if (strncmp(c->spec.readonly_paths.v[i], below, n) == 0)
			hide_path(c->spec.readonly_paths.v[i], false);
	for (size_t i = 0; i < c->spec.masked.n; i++)
		if (strncmp(c->spec.masked.v[i], below, n) == 0)
			hide_path(c->spec.masked.v[i], true);
}

static int pivot(const char *root, struct error *err)
{
	if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return fail_sys(err, "pivot_root");
	/* The old root now lies on top of the new one. */
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return fail_sys(err, "leaving the old root");
	return 0;
}

static bool is_volume(const struct mount_spec *m)
{
	return strcmp(m->type, "volume") == 0 || strcmp(m->type, "scratch") == 0;
}

/* Copies of the mounts that lie outside of the container's root, while they can be reached. */
static int open_volumes(const struct container *c, int *trees, struct error *err)
{
	for (size_t i = 0; i < c->spec.mount_count; i++)
		if (is_volume(&c->spec.mounts[i]) && (trees[i] = volume_open(c, &c->spec.mounts[i], err)) < 0)
			return -1;
	return 0;
}

static int mount_requested(const struct container *c, const int *trees, struct error *err)
{
	for (size_t i = 0; i < c->spec.mount_count; i++) {
		const struct mount_spec *m = &c->spec.mounts[i];

		if ((is_volume(m) ? volume_attach(m, trees[i], err) : mount_at(m, err)) < 0)
			return -1;
	}
	return 0;
}

int rootfs_enter(const struct container *c, struct error *err)
{
	cleanup_free char *root = xasprintf(RUN_DIR "/%s/root", c->place);
	cleanup_free int *trees = xcalloc(c->spec.file_count, sizeof *trees);
	cleanup_free int *volumes = xcalloc(c->spec.mount_count, sizeof *volumes);
	cleanup_close int shm = copy_tree(AT_FDCWD, SHM_DIR);

	if (shm < 0)
		return fail_sys(err, SHM_DIR);
	if (prepare_files(c, trees, err) < 0 || open_volumes(c, volumes, err) < 0)
		return -1;
	if (unshare(CLONE_NEWNS | CLONE_NEWCGROUP) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail_sys(err, "mount namespace");
	/* pivot_root wants a mount point that is not the overlay's first mount
	 * in the parent; a bind onto itself makes one of our own. */
	if (mount(root, root, NULL, MS_BIND, NULL) < 0)
		return fail_sys(err, "%s", root);
	if (pivot(root, err) < 0 || mount_all_standard(c, err) < 0)
		return -1;
	/* One for all containers of the pod, as their IPC namespace is. */
	if (mkdir("/dev/shm", 0755) < 0 || attach_tree(shm, "/dev/shm") < 0)
		return fail_sys(err, "/dev/shm");
	if (mount_requested(c, volumes, err) < 0)
		return -1;
	for (size_t i = 0; i < c->spec.file_count; i++)
		if (bind_file(trees[i], c->spec.files[i].target, err) < 0)
			return -1;
	for (size_t i = 0; i < c->spec.sysctl_count; i++)
		if (apply_sysctl(&c->spec.sysctls[i], err) < 0)
			return -1;
	hide_paths(c, "/");
	if (c->spec.readonly && mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return fail_sys(err, "read-only root");
	return 0;
}

/* What the container has asked for below /proc, as copies of mounts. */
static int keep_below_proc(const struct container *c, int *trees, struct error *err)
{
	for (size_t i = 0; i < c->spec.mount_count + c->spec.file_count; i++) {
		size_t n = c->spec.mount_count;
		const char *target = i < n ? c->spec.mounts[i].target : c->spec.files[i - n].target;

		trees[i] = strncmp(target, "/proc/", strlen("/proc/")) == 0 ? copy_tree(AT_FDCWD, target) : -1;
		if (trees[i] < 0 && strncmp(target, "/proc/", strlen("/proc/")) == 0)
			return fail_sys(err, "copying the mount of %s", target);
	}
	return 0;
}

/* A /proc that shows the caller's PID namespace, in place of one that shows another's. */
int rootfs_renew_proc(const struct container *c, struct error *err)
{
	size_t mounts = c->spec.mount_count, n = mounts + c->spec.file_count;
	cleanup_free int *trees = xcalloc(n, sizeof *trees);

	if (keep_below_proc(c, trees, err) < 0)
		return -1;
	if (umount2("/proc", MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL)
		return fail_sys(err, "unmounting /proc");
	if (mount_proc(err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char *target = i < mounts ? c->spec.mounts[i].target : c->spec.files[i - mounts].target;

		if (trees[i] >= 0 && attach_tree(trees[i], target) < 0)
			return fail_sys(err, "mounting on %s", target);
		close_fd(&trees[i]);
	}
	hide_paths(c, "/proc/");
	return 0;
}

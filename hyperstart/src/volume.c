/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes: mounted once below VOLUME_DIR, bound into the containers that name
 * them. A path inside a volume is resolved so that it cannot leave the volume.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "container.h"
#include "mounts.h"
#include "process.h"

#define DISK_TIMEOUT_MS 10000
#define QUIESCE_MS      5000
#define DISK_PREFIX     "disk:"
#define DEVICE_PREFIX   "dev:"

/* A disk that takes the place of another one is there when it has its length, in sectors: vda:2048. */
static bool is_device(const char *name, const char *wanted)
{
	size_t length = strcspn(wanted, ":");
	char path[300], sectors[32] = "";

	if (strlen(name) != length || strncmp(name, wanted, length) != 0)
		return false;
	if (wanted[length] == 0)
		return true;
	snprintf(path, sizeof path, "/sys/block/%s/size", name);
	if (read_file(AT_FDCWD, path, sectors, sizeof sectors) < 0)
		return false;
	sectors[strcspn(sectors, "\n")] = 0;
	return strcmp(sectors, wanted + length + 1) == 0;
}

/* virtio-blk shows the serial number as a file, SCSI as vital product data page 0x80. A hypervisor whose disks have
 * none says what the kernel calls them: dev:vda. */
static bool has_serial(const char *name, const char *serial)
{
	char path[300], have[256] = "";
	int n, skip = 0;

	if (strncmp(serial, DEVICE_PREFIX, strlen(DEVICE_PREFIX)) == 0)
		return is_device(name, serial + strlen(DEVICE_PREFIX));
	snprintf(path, sizeof path, "/sys/block/%s/serial", name);
	n = read_file(AT_FDCWD, path, have, sizeof have);
	if (n < 0) {
		snprintf(path, sizeof path, "/sys/block/%s/device/vpd_pg80", name);
		n = read_file(AT_FDCWD, path, have, sizeof have);
		skip = 4; /* the page's header */
	}
	if (n <= skip)
		return false;
	have[skip + (int)strcspn(have + skip, "\n ")] = 0;
	return strcmp(have + skip, serial) == 0;
}

/* The kernel shows a disk before anybody can open it, and tells of it when one can (block/genhd.c, device_add_disk). */
static bool can_be_opened(const char *device)
{
	cleanup_close int fd = open(device, O_RDONLY | O_CLOEXEC);

	return fd >= 0 || (errno != ENXIO && errno != ENOENT);
}

static bool look_for_disk(const char *serial, char *out, size_t size)
{
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d)))
		if (e->d_name[0] != '.' && has_serial(e->d_name, serial)) {
			snprintf(out, size, "/dev/%s", e->d_name);
			found = can_be_opened(out);
		}
	if (d)
		closedir(d);
	return found;
}

/* One that was just plugged in appears a moment later. */
int find_disk(const char *serial, char *out, size_t size, struct error *err)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	cleanup_close int events = -1;
	struct pollfd p = {.events = POLLIN};
	char message[4096];

	if (look_for_disk(serial, out, size))
		return 0;
	events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address) < 0)
		return fail_sys(err, "uevents");
	p.fd = events;
	while (!look_for_disk(serial, out, size)) {
		if (poll(&p, 1, DISK_TIMEOUT_MS) <= 0)
			return fail(err, HP_E_NOT_FOUND, 0, "no disk with serial number %s", serial);
		if (recv(events, message, sizeof message, 0) < 0)
			return fail_sys(err, "uevents");
	}
	return 0;
}

/* A lazy unmount ends when its last user has; what lies behind the device may change only then. */
int disk_quiesce(const char *serial, struct error *err)
{
	struct timespec tick = {.tv_nsec = 1000000};
	cleanup_close int fd = -1;
	char device[300];

	if (!look_for_disk(serial, device, sizeof device))
		return 0;
	for (int i = 0; i < QUIESCE_MS && (fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC)) < 0 && errno == EBUSY; i++)
		nanosleep(&tick, NULL);
	if (fd < 0 || ioctl(fd, BLKFLSBUF, 0) < 0)
		return fail_sys(err, "letting go of disk %s", serial);
	return 0;
}

/* -- mounting ------------------------------------------------------------------ */

static int mount_auto(const char *source, const char *target, unsigned long flags, const char *data)
{
	static const char *const types[] = {"ext4", "xfs", "squashfs", "erofs"};

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (mount(source, target, types[i], flags, data) == 0)
			return 0;
	errno = EINVAL;
	return -1;
}

int volume_mount_main(const struct strings *args)
{
	struct error err;
	char device[300];
	cleanup_free char *target = NULL;
	const char *type, *source, *data;
	unsigned long flags;
	int r;

	if (args->n != 5)
		return 125;
	target = xasprintf(VOLUME_DIR "/%s", args->v[0]);
	type = args->v[1];
	source = args->v[2];
	flags = strtoul(args->v[3], NULL, 0);
	data = *args->v[4] ? args->v[4] : NULL;
	if (strncmp(source, DISK_PREFIX, strlen(DISK_PREFIX)) == 0) {
		if (find_disk(source + strlen(DISK_PREFIX), device, sizeof device, &err) < 0) {
			fprintf(stderr, "%s\n", err.message);
			return 1;
		}
		source = device;
	}
	if (make_dirs(target, 0700) < 0) {
		perror(target);
		return 1;
	}
	r = strcmp(type, "auto") == 0 ? mount_auto(source, target, flags, data)
	                              : mount(source, target, type, flags, data);
	if (r < 0) {
		fprintf(stderr, "mounting it as %s failed: %s\n", strcmp(type, "auto") ? type : "ext4 or xfs",
		        strerror(errno));
		rmdir(target);
	}
	return r < 0;
}

/* What the kernel remembers of files that nobody uses: a server of directories keeps them open for as long. What was
 * used lately is spared the first time. */
static void forget_files(void)
{
	for (int i = 0; i < 2; i++)
		write_file("/proc/sys/vm/drop_caches", "2", 1);
}

/* A directory in the tree of the host's is a mount where the server tells that one lies there (volume_mount_main), and
 * else a directory like others. */
int volume_unmount_main(const struct strings *args)
{
	cleanup_free char *target = xasprintf(VOLUME_DIR "/%s", args->v[0]);
	bool of_the_host = strchr(args->v[0], '/') != NULL;

	sync();
	if (umount2(target, MNT_DETACH) < 0 && !(of_the_host && errno == EINVAL)) {
		perror(target);
		return 1;
	}
	if (of_the_host)
		forget_files();
	else
		rmdir(target);
	return 0;
}

void volumes_freeze(void)
{
	DIR *d = opendir(VOLUME_DIR);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		cleanup_free char *path = xasprintf(VOLUME_DIR "/%s", e->d_name);

		if (e->d_name[0] != '.')
			mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
	if (d)
		closedir(d);
}

/* -- binding ------------------------------------------------------------------- */

static int open_beneath(int root, const char *path, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* A path below the volume's root; directories that are missing are made, but in what is for reading. */
static int open_sub_path(int root, const char *path)
{
	cleanup_free char *prefix = xstrndup(path, strlen(path));
	int fd = -1;

	for (char *end = prefix; *end;) {
		char saved;

		end += strspn(end, "/");
		end += strcspn(end, "/");
		saved = *end;
		*end = 0;
		close_fd(&fd);
		fd = open_beneath(root, prefix, O_PATH);
		if (fd < 0 && errno == ENOENT) {
			char *slash = strrchr(prefix, '/');
			cleanup_close int parent = -1;

			if (slash)
				*slash = 0;
			parent = open_beneath(root, slash ? prefix : ".", O_PATH | O_DIRECTORY);
			if (slash)
				*slash = '/';
			if (parent < 0 || mkdirat(parent, slash ? slash + 1 : prefix, 0755) < 0) {
				errno = errno == EROFS ? ENOENT : errno;
				return -1;
			}
			fd = open_beneath(root, prefix, O_PATH);
		}
		if (fd < 0)
			return -1;
		*end = saved;
	}
	return fd;
}

int volume_open(const struct container *c, const struct mount_spec *m, struct error *err)
{
	bool private = strcmp(m->type, "scratch") == 0;
	cleanup_free char *path = private ? xasprintf(RUN_DIR "/%s/scratch", c->place)
	                                  : xasprintf(VOLUME_DIR "/%s", m->source ? m->source : "");
	cleanup_close int root = open(path, O_PATH | O_CLOEXEC);
	cleanup_close int sub = -1;
	int tree;

	if (root < 0)
		return fail_sys(err, "volume %s", m->source ? m->source : "");
	if (m->data && *m->data) {
		sub = open_sub_path(root, m->data + strspn(m->data, "/"));
		if (sub < 0 && errno == EXDEV)
			return fail(err, HP_E_SYSTEM, 0, "path %s leaves its volume", m->data);
		if (sub < 0)
			return fail_sys(err, "path %s of the volume", m->data);
	}
	tree = copy_tree(sub >= 0 ? sub : root, "");
	return tree < 0 ? fail_sys(err, "copying the mount of volume %s", m->source) : tree;
}

static bool is_empty(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	bool empty = d != NULL;

	while (d && (e = readdir(d)))
		empty &= !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, "lost+found");
	if (d)
		closedir(d);
	return empty;
}

/* What the image has at the mount point goes into an empty volume, owner and mode included. */
static int copy_up(int from, const char *target, struct error *err)
{
	int pipe_fds[2], status[2] = {1, 1};
	pid_t pid[2];

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return fail_sys(err, "pipe");
	for (int writes = 0; writes < 2; writes++) {
		pid[writes] = fork();
		if (pid[writes] != 0)
			continue;
		close(pipe_fds[!writes]);
		if (child_confine(writes ? ARCHIVE_READ_CAPS : ARCHIVE_WRITE_CAPS, err) < 0)
			_exit(1);
		/* What the volume now hides is reached by its descriptor only. */
		_exit(writes ? fchdir(from) < 0 || archive_create(".", false, pipe_fds[1])
		             : archive_extract(target, &(struct extract_options){0}, pipe_fds[0]));
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	for (int i = 0; i < 2; i++)
		if (pid[i] > 0)
			waitpid(pid[i], &status[i], 0);
	return status[0] || status[1]
	               ? fail(err, HP_E_SYSTEM, 0, "filling the volume of %s from the image failed", target)
	               : 0;
}

static int make_mount_point(int tree, const char *target)
{
	struct stat source, st;
	cleanup_close int fd = -1;

	if (fstat(tree, &source) < 0)
		return -1;
	if (stat(target, &st) == 0)
		return 0;
	if (S_ISDIR(source.st_mode))
		return make_dirs(target, 0755);
	if (make_parents(target) < 0)
		return -1;
	fd = open(target, O_RDONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
	return fd < 0 ? -1 : 0;
}

int volume_attach(const struct mount_spec *m, int tree, struct error *err)
{
	cleanup_close int below = -1;

	if (make_mount_point(tree, m->target) < 0)
		return fail_sys(err, "mount point %s", m->target);
	if (m->flags & HP_MOUNT_COPY_UP)
		below = open(m->target, O_PATH | O_CLOEXEC);
	if (attach_tree(tree, m->target) < 0)
		return fail_sys(err, "mounting the volume on %s", m->target);
	if (below >= 0 && is_empty(m->target) && copy_up(below, m->target, err) < 0)
		return -1;
	if ((m->flags & MS_RDONLY) && mount(NULL, m->target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return fail_sys(err, "read-only mount on %s", m->target);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream unpacked below a directory. It runs inside the container's own
 * root, with no more rights than writing files there takes, so the worst that a
 * hostile archive can reach is the container; names with ".." are refused all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "process.h"
#include "tar.h"
#include "user.h"

static int complain(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return -1;
}

static bool escapes(const char *path)
{
	for (const char *p = path; *p; p += strcspn(p, "/"), p += strspn(p, "/"))
		if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == 0))
			return true;
	return false;
}

static int put_file(int in, const struct tar_entry *e, const char *path)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	static char chunk[64u << 10];

	if (fd < 0)
		return complain(path);
	for (uint64_t left = e->size; left;) {
		size_t n = left < sizeof chunk ? (size_t)left : sizeof chunk;

		if (read_all(in, chunk, n) <= 0)
			return tar_malformed("cut short");
		if (write_all(fd, chunk, n) < 0)
			return complain(path);
		left -= n;
	}
	return tar_skip(in, tar_padding(e->size));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

/* What is in the way of an entry of another kind: 0 when it is gone, or was not there. */
static int clear(const char *path, bool want_dir, bool replace)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0;
	if (S_ISDIR(st.st_mode) ? want_dir : !want_dir)
		return 0;
	if (!replace) {
		errno = want_dir ? ENOTDIR : EISDIR;
		return -1;
	}
	return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static int make(int in, const struct tar_entry *e, const char *dir, const char *path, bool replace)
{
	dev_t device = makedev((unsigned)e->major, (unsigned)e->minor);
	cleanup_free char *target = NULL;
	struct stat st;

	if (e->type == '5') {
		if (mkdir(path, 0755) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
			return 0;
		return clear(path, true, replace) < 0 || mkdir(path, 0755) < 0 ? complain(path) : 0;
	}
	if (clear(path, false, replace) < 0)
		return complain(path);
	unlink(path);
	switch (e->type) {
	case '0':
	case '7': return put_file(in, e, path);
	case '1':
		target = xasprintf("%s/%s", dir, e->link);
		return escapes(e->link) || link(target, path) < 0 ? complain(path) : 0;
	case '2': return symlink(e->link, path) < 0 ? complain(path) : 0;
	case '3': return mknod(path, S_IFCHR | 0600, device) < 0 ? complain(path) : 0;
	case '4': return mknod(path, S_IFBLK | 0600, device) < 0 ? complain(path) : 0;
	case '6': return mkfifo(path, 0600) < 0 ? complain(path) : 0;
	}
	return tar_malformed("unknown type of entry");
}

static int finish(const struct tar_entry *e, const char *path, const struct identity *owner)
{
	uid_t uid = owner ? owner->uid : (uid_t)e->uid;
	gid_t gid = owner ? owner->gid : (gid_t)e->gid;
	struct timespec times[2] = {e->mtime, e->mtime};

	if (e->type == '1')
		return 0;
	if (lchown(path, uid, gid) < 0)
		return complain(path);
	if (e->type != '2' && chmod(path, (mode_t)e->mode & 07777) < 0)
		return complain(path);
	for (size_t i = 0; i < e->xattr_count; i++)
		if (lsetxattr(path, e->xattrs[i].name, e->xattrs[i].value.data, e->xattrs[i].value.len, 0) < 0)
			return complain(path);
	utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

int archive_extract(const char *dir, const struct extract_options *options, int in)
{
	struct tar_entry e = {0};
	struct stat st;
	char rest[TAR_BLOCK];
	int r;

	if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		errno = errno ? errno : ENOTDIR;
		complain(dir);
		return 2;
	}
	while ((r = tar_next(in, &e)) > 0) {
		cleanup_free char *path = xasprintf("%s/%s", dir, e.path);
		size_t n = strlen(path);

		if (escapes(e.path)) {
			tar_malformed("a name leaves the target");
			return 1;
		}
		while (n > 1 && path[n - 1] == '/')
			path[--n] = 0;
		if (make_parents(path) < 0) {
			complain(path);
			return 1;
		}
		if (make(in, &e, dir, path, options->replace) < 0 || finish(&e, path, options->owner) < 0)
			return 1;
	}
	tar_reset(&e);
	/* Read to the end, or the sender would see a broken pipe. */
	while (r == 0 && read(in, rest, sizeof rest) > 0)
		;
	return r < 0;
}

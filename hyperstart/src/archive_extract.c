/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream (ustar, pax, GNU long names) unpacked below a directory. It
 * runs inside the container's own root, so the worst that a hostile archive
 * can reach is the container; names with ".." are refused all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "process.h"
#include "tar.h"

#define META_MAX   (1u << 20)
#define MAX_XATTRS 32

struct xattr {
	char *name;
	struct buffer value;
};

struct entry {
	char *path, *link;
	uint64_t size, mode, uid, gid, mtime, major, minor;
	char type;
	struct xattr xattrs[MAX_XATTRS];
	size_t xattr_count;
	bool has_size, has_uid, has_gid;
};

static int complain(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return -1;
}

static int malformed(const char *what)
{
	fprintf(stderr, "malformed archive: %s\n", what);
	return -1;
}

static uint64_t number(const char *field, size_t size)
{
	uint64_t v = 0;

	if ((unsigned char)field[0] == 0x80) {
		for (size_t i = 1; i < size; i++)
			v = v << 8 | (unsigned char)field[i];
		return v;
	}
	for (size_t i = 0; i < size && field[i]; i++)
		if (field[i] >= '0' && field[i] <= '7')
			v = v << 3 | (uint64_t)(field[i] - '0');
	return v;
}

static void entry_reset(struct entry *e)
{
	free(e->path);
	free(e->link);
	for (size_t i = 0; i < e->xattr_count; i++) {
		free(e->xattrs[i].name);
		buf_free(&e->xattrs[i].value);
	}
	*e = (struct entry){0};
}

static void pax_record(struct entry *e, const char *key, const char *value, size_t len)
{
	static const char xattr[] = "SCHILY.xattr.";

	if (strcmp(key, "path") == 0) {
		free(e->path);
		e->path = xstrndup(value, len);
	} else if (strcmp(key, "linkpath") == 0) {
		free(e->link);
		e->link = xstrndup(value, len);
	} else if (strcmp(key, "size") == 0) {
		e->size = strtoull(value, NULL, 10);
		e->has_size = true;
	} else if (strcmp(key, "uid") == 0) {
		e->uid = strtoull(value, NULL, 10);
		e->has_uid = true;
	} else if (strcmp(key, "gid") == 0) {
		e->gid = strtoull(value, NULL, 10);
		e->has_gid = true;
	} else if (strncmp(key, xattr, sizeof xattr - 1) == 0 && e->xattr_count < MAX_XATTRS) {
		struct xattr *x = &e->xattrs[e->xattr_count++];

		x->name = xstrndup(key + sizeof xattr - 1, strlen(key) - (sizeof xattr - 1));
		x->value = (struct buffer){0};
		buf_append(&x->value, value, len);
	}
}

static int pax_parse(struct entry *e, char *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		char *end, *equals;
		size_t record = strtoull(data + at, &end, 10);

		if (*end != ' ' || record < 5 || record > len - at || data[at + record - 1] != '\n')
			return malformed("pax record");
		equals = memchr(end + 1, '=', (size_t)(data + at + record - (end + 1)));
		if (!equals)
			return malformed("pax record");
		*equals = 0;
		data[at + record - 1] = 0;
		pax_record(e, end + 1, equals + 1, (size_t)(data + at + record - 1 - (equals + 1)));
		at += record;
	}
	return 0;
}

static int skip(int in, uint64_t len)
{
	char block[TAR_BLOCK];

	for (; len; len -= len < sizeof block ? len : sizeof block)
		if (read_all(in, block, len < sizeof block ? (size_t)len : sizeof block) <= 0)
			return malformed("cut short");
	return 0;
}

static uint64_t padding(uint64_t size) { return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK; }

static int read_meta(int in, uint64_t size, char **out)
{
	if (size > META_MAX)
		return malformed("oversized header");
	*out = xmalloc((size_t)size + 1);
	(*out)[size] = 0;
	if (size && read_all(in, *out, (size_t)size) <= 0)
		return malformed("cut short");
	return skip(in, padding(size));
}

/* 1: an entry; 0: the end; -1: error */
static int next_entry(int in, struct entry *e)
{
	struct tar_header h;
	int r;

	entry_reset(e);
	for (;;) {
		cleanup_free char *meta = NULL;
		uint64_t size;

		r = read_all(in, &h, sizeof h);
		if (r <= 0)
			return r;
		if (h.name[0] == 0) /* a block of zeros: the end */
			return 0;
		if (memcmp(h.magic, "ustar", 5) != 0)
			return malformed("not a tar header");
		size = number(h.size, sizeof h.size);
		if (!strchr("xgLK", h.type) || !h.type)
			break;
		if (read_meta(in, size, &meta) < 0)
			return -1;
		if (h.type == 'x' && pax_parse(e, meta, (size_t)size) < 0)
			return -1;
		if (h.type == 'L' && !e->path)
			e->path = xstrndup(meta, strlen(meta));
		if (h.type == 'K' && !e->link)
			e->link = xstrndup(meta, strlen(meta));
	}
	if (!e->path && h.prefix[0] && memcmp(h.magic, "ustar\0", 6) == 0)
		e->path = xasprintf("%.155s/%.100s", h.prefix, h.name);
	else if (!e->path)
		e->path = xasprintf("%.100s", h.name);
	if (!e->link)
		e->link = xasprintf("%.100s", h.link);
	e->type = h.type ? h.type : '0';
	if (!e->has_size)
		e->size = number(h.size, sizeof h.size);
	if (!e->has_uid)
		e->uid = number(h.uid, sizeof h.uid);
	if (!e->has_gid)
		e->gid = number(h.gid, sizeof h.gid);
	e->mode = number(h.mode, sizeof h.mode);
	e->mtime = number(h.mtime, sizeof h.mtime);
	e->major = number(h.major, sizeof h.major);
	e->minor = number(h.minor, sizeof h.minor);
	return 1;
}

static bool escapes(const char *path)
{
	for (const char *p = path; *p; p += strcspn(p, "/"), p += strspn(p, "/"))
		if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == 0))
			return true;
	return false;
}

static int put_file(int in, const struct entry *e, const char *path)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	static char chunk[64u << 10];

	if (fd < 0)
		return complain(path);
	for (uint64_t left = e->size; left;) {
		size_t n = left < sizeof chunk ? (size_t)left : sizeof chunk;

		if (read_all(in, chunk, n) <= 0)
			return malformed("cut short");
		if (write_all(fd, chunk, n) < 0)
			return complain(path);
		left -= n;
	}
	return skip(in, padding(e->size));
}

static int make(int in, const struct entry *e, const char *dir, const char *path)
{
	dev_t device = makedev((unsigned)e->major, (unsigned)e->minor);
	cleanup_free char *target = NULL;
	struct stat st;

	if (e->type == '5') {
		if (mkdir(path, 0755) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
			return 0;
		errno = ENOTDIR;
		return complain(path);
	}
	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EISDIR;
		return complain(path);
	}
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
	return malformed("unknown type of entry");
}

static int finish(const struct entry *e, const char *path)
{
	struct timespec times[2] = {{.tv_sec = (time_t)e->mtime}, {.tv_sec = (time_t)e->mtime}};

	if (e->type == '1')
		return 0;
	if (lchown(path, (uid_t)e->uid, (gid_t)e->gid) < 0)
		return complain(path);
	if (e->type != '2' && chmod(path, (mode_t)e->mode & 07777) < 0)
		return complain(path);
	for (size_t i = 0; i < e->xattr_count; i++)
		if (lsetxattr(path, e->xattrs[i].name, e->xattrs[i].value.data, e->xattrs[i].value.len, 0) < 0)
			return complain(path);
	utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

int archive_extract(const char *dir, int in)
{
	struct entry e = {0};
	struct stat st;
	char rest[TAR_BLOCK];
	int r;

	if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		errno = errno ? errno : ENOTDIR;
		complain(dir);
		return 2;
	}
	while ((r = next_entry(in, &e)) > 0) {
		cleanup_free char *path = xasprintf("%s/%s", dir, e.path);
		size_t n = strlen(path);

		if (escapes(e.path)) {
			malformed("a name leaves the target");
			return 1;
		}
		while (n > 1 && path[n - 1] == '/')
			path[--n] = 0;
		if (make_parents(path) < 0) {
			complain(path);
			return 1;
		}
		if (make(in, &e, dir, path) < 0 || finish(&e, path) < 0)
			return 1;
	}
	entry_reset(&e);
	/* Read to the end, or the sender would see a broken pipe. */
	while (r == 0 && read(in, rest, sizeof rest) > 0)
		;
	return r < 0;
}

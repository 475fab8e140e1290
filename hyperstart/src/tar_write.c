/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a tar stream (pax), as they are written. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "tar.h"

#define COPY_CHUNK (64u << 10)

struct tar_hard_link {
	dev_t dev;
	ino_t ino;
	char *name;
};

int tar_complain(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return -1;
}

static void put_number(char *field, size_t size, uint64_t value)
{
	if (value < 1ull << (3 * (size - 1))) {
		snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)value);
		return;
	}
	field[0] = (char)0x80; /* base 256, GNU's extension that every reader knows */
	for (size_t i = size - 1; i > 0; i--, value >>= 8)
		field[i] = (char)(value & 0xff);
}

static int put_padding(struct tar_writer *w, uint64_t size)
{
	static const char zeros[TAR_BLOCK];
	size_t rest = (size_t)(size % TAR_BLOCK);

	return rest ? write_all(w->out, zeros, TAR_BLOCK - rest) : 0;
}

static int put_header(struct tar_writer *w, struct tar_header *h)
{
	unsigned sum = 0;
	const unsigned char *p = (const unsigned char *)h;

	memcpy(h->magic, "ustar\00000", 8);
	memset(h->checksum, ' ', sizeof h->checksum);
	for (size_t i = 0; i < sizeof *h; i++)
		sum += p[i];
	snprintf(h->checksum, sizeof h->checksum, "%06o", sum);
	return write_all(w->out, h, sizeof *h);
}

static void pax_add(struct buffer *b, const char *key, const void *value, size_t len)
{
	size_t body = strlen(key) + len + 3, total = body + 1, digits;
	char head[32];

	do { /* the record's length counts its own digits */
		digits = (size_t)snprintf(head, sizeof head, "%zu", total);
		total = body + digits;
		digits = (size_t)snprintf(head, sizeof head, "%zu", total);
	} while (body + digits != total);
	buf_append(b, head, digits);
	buf_append(b, " ", 1);
	buf_append(b, key, strlen(key));
	buf_append(b, "=", 1);
	buf_append(b, value, len);
	buf_append(b, "\n", 1);
}

static void pax_xattrs(struct buffer *b, const char *path)
{
	char names[4096], value[65536];
	ssize_t n = llistxattr(path, names, sizeof names);

	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(names + i) + 1) {
		ssize_t len = lgetxattr(path, names + i, value, sizeof value);
		cleanup_free char *key = xasprintf("SCHILY.xattr.%s", names + i);

		if (len >= 0 && strncmp(names + i, "trusted.overlay.", 16) != 0)
			pax_add(b, key, value, (size_t)len);
	}
}

/* The header has whole seconds since 1970. */
static void pax_mtime(struct buffer *b, const struct timespec *t)
{
	bool negative = t->tv_sec < 0;
	long long seconds = negative && t->tv_nsec ? -(t->tv_sec + 1) : negative ? -t->tv_sec : t->tv_sec;
	long fraction = negative && t->tv_nsec ? 1000000000 - t->tv_nsec : t->tv_nsec;
	char text[64];
	int n = snprintf(text, sizeof text, "%s%lld.%09ld", negative ? "-" : "", seconds, fraction);

	if (negative || t->tv_nsec)
		pax_add(b, "mtime", text, (size_t)n);
}

static int put_pax(struct tar_writer *w, struct buffer *b)
{
	struct tar_header h = {.type = 'x', .name = "./PaxHeaders/x"};
	int r = 0;

	if (b->len) {
		put_number(h.mode, sizeof h.mode, 0644);
		put_number(h.size, sizeof h.size, b->len);
		r = put_header(w, &h) < 0 || write_all(w->out, b->data, b->len) < 0 ? -1 : put_padding(w, b->len);
	}
	buf_free(b);
	return r;
}

static int put_content(struct tar_writer *w, const char *path, uint64_t size)
{
	/* By now it may be something else, which an open could wait for. */
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	static char chunk[COPY_CHUNK];
	uint64_t left = size;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return tar_complain(path);
	if (!S_ISREG(st.st_mode)) {
		errno = ESTALE;
		return tar_complain(path);
	}
	while (left) {
		size_t want = left < sizeof chunk ? (size_t)left : sizeof chunk;
		ssize_t n = read(fd, chunk, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tar_complain(path);
		if (n == 0) { /* it shrank meanwhile: keep the archive whole */
			memset(chunk, 0, sizeof chunk);
			n = (ssize_t)want;
		}
		if (write_all(w->out, chunk, (size_t)n) < 0)
			return -1;
		left -= (uint64_t)n;
	}
	return put_padding(w, size);
}

static const char *known_link(struct tar_writer *w, const struct stat *st, const char *name)
{
	for (size_t i = 0; i < w->link_count; i++)
		if (w->links[i].dev == st->st_dev && w->links[i].ino == st->st_ino)
			return w->links[i].name;
	w->links = xrealloc(w->links, (w->link_count + 1) * sizeof *w->links);
	w->links[w->link_count++] = (struct tar_hard_link){st->st_dev, st->st_ino, xstrndup(name, strlen(name))};
	return NULL;
}

char tar_type_of(const struct stat *st)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFREG: return '0';
	case S_IFLNK: return '2';
	case S_IFCHR: return '3';
	case S_IFBLK: return '4';
	case S_IFDIR: return '5';
	case S_IFIFO: return '6';
	}
	return 0; /* sockets have no place in an archive */
}

int tar_put_entry(struct tar_writer *w, const char *path, const char *name, const struct stat *st)
{
	struct tar_header h = {.type = tar_type_of(st)};
	struct buffer pax = {0};
	char target[4097] = "";
	const char *link = NULL;
	uint64_t size = h.type == '0' ? (uint64_t)st->st_size : 0;

	if (h.type == '2') {
		ssize_t n = readlink(path, target, sizeof target - 1);

		if (n < 0)
			return tar_complain(path);
		link = target;
	} else if (h.type == '0' && st->st_nlink > 1 && (link = known_link(w, st, name))) {
		h.type = '1';
		size = 0;
	}
	if (strlen(name) >= sizeof h.name)
		pax_add(&pax, "path", name, strlen(name));
	if (link && strlen(link) >= sizeof h.link)
		pax_add(&pax, "linkpath", link, strlen(link));
	pax_mtime(&pax, &st->st_mtim);
	if (h.type != '1' && path)
		pax_xattrs(&pax, path);
	if (put_pax(w, &pax) < 0)
		return -1;
	memcpy(h.name, name, strnlen(name, sizeof h.name - 1));
	if (link)
		memcpy(h.link, link, strnlen(link, sizeof h.link - 1));
	put_number(h.mode, sizeof h.mode, st->st_mode & 07777);
	put_number(h.uid, sizeof h.uid, st->st_uid);
	put_number(h.gid, sizeof h.gid, st->st_gid);
	put_number(h.size, sizeof h.size, size);
	put_number(h.mtime, sizeof h.mtime, st->st_mtime < 0 ? 0 : (uint64_t)st->st_mtime);
	put_number(h.major, sizeof h.major, major(st->st_rdev));
	put_number(h.minor, sizeof h.minor, minor(st->st_rdev));
	if (put_header(w, &h) < 0)
		return -1;
	return size ? put_content(w, path, size) : 0;
}

int tar_put_mark(struct tar_writer *w, const char *name)
{
	const struct stat st = {.st_mode = S_IFREG | 0644};

	return tar_put_entry(w, NULL, name, &st);
}

int tar_put_end(struct tar_writer *w)
{
	static const char end[2 * TAR_BLOCK];

	return write_all(w->out, end, sizeof end);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The headers of a tar stream: ustar, pax (POSIX.1-2001), GNU long names and base-256 numbers. All of it may
 * be hostile. What a pax record says beats the header's own fields.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tar.h"
#include "util.h"

#define META_MAX    (1u << 20)
#define RECORD_MIN  5 /* "5 a=\n" */
#define NANOSECONDS 1000000000

int tar_malformed(const char *what)
{
	fprintf(stderr, "malformed archive: %s\n", what);
	return -1;
}

/* Octal digits, or two's complement in base 256 when the first bit is set. */
static uint64_t number(const char *field, size_t size)
{
	unsigned char first = (unsigned char)field[0];
	uint64_t v = first & 0x80 && first & 0x40 ? ~0ull : 0; /* negative: of times only */

	if (first & 0x80) {
		for (size_t i = 1; i < size; i++)
			v = v << 8 | (unsigned char)field[i];
		return v;
	}
	for (size_t i = 0; i < size && field[i]; i++)
		if (field[i] >= '0' && field[i] <= '7')
			v = v << 3 | (uint64_t)(field[i] - '0');
	return v;
}

void tar_reset(struct tar_entry *e)
{
	free(e->path);
	free(e->link);
	for (size_t i = 0; i < e->xattr_count; i++) {
		free(e->xattrs[i].name);
		buf_free(&e->xattrs[i].value);
	}
	*e = (struct tar_entry){0};
}

/* Seconds with a fraction, before 1970 too: "-1.5" is half a second after -2. */
static struct timespec pax_time(const char *value)
{
	bool negative = *value == '-';
	struct timespec t = {0};
	long unit = NANOSECONDS / 10;

	value += negative;
	for (; isdigit((unsigned char)*value) && t.tv_sec < (time_t)1 << 58; value++)
		t.tv_sec = t.tv_sec * 10 + (*value - '0');
	if (*value == '.')
		for (value++; isdigit((unsigned char)*value) && unit; value++, unit /= 10)
			t.tv_nsec += unit * (*value - '0');
	if (negative) {
		t.tv_sec = -t.tv_sec;
		if (t.tv_nsec) {
			t.tv_sec--;
			t.tv_nsec = NANOSECONDS - t.tv_nsec;
		}
	}
	return t;
}

static void pax_record(struct tar_entry *e, const char *key, const char *value, size_t len)
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
	} else if (strcmp(key, "mtime") == 0) {
		e->mtime = pax_time(value);
		e->has_mtime = true;
	} else if (strncmp(key, xattr, sizeof xattr - 1) == 0 && e->xattr_count < MAX_XATTRS) {
		struct tar_xattr *x = &e->xattrs[e->xattr_count++];

		x->name = xstrndup(key + sizeof xattr - 1, strlen(key) - (sizeof xattr - 1));
		x->value = (struct buffer){0};
		buf_append(&x->value, value, len);
	}
}

/* The length at the beginning of a record, which counts its own digits and the newline; 0: none that fits. */
static size_t record_length(const char *data, size_t left, size_t *digits)
{
	size_t length = 0, n = 0;

	while (n < left && isdigit((unsigned char)data[n]) && length <= left)
		length = length * 10 + (size_t)(data[n++] - '0');
	if (n == 0 || n == left || data[n] != ' ' || length < RECORD_MIN || length > left || length <= n + 1)
		return 0;
	*digits = n;
	return length;
}

/* `data` has a NUL byte behind its `len`. */
static int pax_parse(struct tar_entry *e, char *data, size_t len)
{
	while (len) {
		size_t digits = 0, length = record_length(data, len, &digits);
		char *key = data + digits + 1, *last = data + length - 1, *equals;

		if (!length || *last != '\n')
			return tar_malformed("pax record");
		equals = memchr(key, '=', (size_t)(last - key));
		if (!equals)
			return tar_malformed("pax record");
		*equals = *last = 0;
		pax_record(e, key, equals + 1, (size_t)(last - (equals + 1)));
		data += length;
		len -= length;
	}
	return 0;
}

int tar_skip(int in, uint64_t len)
{
	char block[TAR_BLOCK];

	for (; len; len -= len < sizeof block ? len : sizeof block)
		if (read_all(in, block, len < sizeof block ? (size_t)len : sizeof block) <= 0)
			return tar_malformed("cut short");
	return 0;
}

uint64_t tar_padding(uint64_t size) { return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK; }

static int read_meta(int in, uint64_t size, char **out)
{
	if (size > META_MAX)
		return tar_malformed("oversized header");
	*out = xmalloc((size_t)size + 1);
	(*out)[size] = 0;
	if (size && read_all(in, *out, (size_t)size) <= 0)
		return tar_malformed("cut short");
	return tar_skip(in, tar_padding(size));
}

static void take_fields(struct tar_entry *e, const struct tar_header *h)
{
	if (!e->path && h->prefix[0] && memcmp(h->magic, "ustar\0", 6) == 0)
		e->path = xasprintf("%.155s/%.100s", h->prefix, h->name);
	else if (!e->path)
		e->path = xasprintf("%.100s", h->name);
	if (!e->link)
		e->link = xasprintf("%.100s", h->link);
	e->type = h->type ? h->type : '0';
	if (!e->has_size)
		e->size = number(h->size, sizeof h->size);
	if (!e->has_uid)
		e->uid = number(h->uid, sizeof h->uid);
	if (!e->has_gid)
		e->gid = number(h->gid, sizeof h->gid);
	if (!e->has_mtime)
		e->mtime = (struct timespec){.tv_sec = (time_t)number(h->mtime, sizeof h->mtime)};
	e->mode = number(h->mode, sizeof h->mode);
	e->major = number(h->major, sizeof h->major);
	e->minor = number(h->minor, sizeof h->minor);
}

int tar_next(int in, struct tar_entry *e)
{
	struct tar_header h;
	int r;

	tar_reset(e);
	for (;;) {
		cleanup_free char *meta = NULL;
		uint64_t size;

		r = read_all(in, &h, sizeof h);
		if (r <= 0)
			return r;
		if (h.name[0] == 0) /* a block of zeros: the end */
			return 0;
		if (memcmp(h.magic, "ustar", 5) != 0)
			return tar_malformed("not a tar header");
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
	take_fields(e, &h);
	return 1;
}

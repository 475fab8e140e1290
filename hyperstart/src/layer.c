/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container has made of its image, from overlayfs's upper directory: as a list (diff), and as a layer (commit),
 * https://github.com/opencontainers/image-spec/blob/main/layer.md. Both run with the directory that holds the
 * container's layers as their root.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "process.h"
#include "tar.h"

#define UPPER    "/scratch/upper"
#define LOWER    "/lower"
#define WHITEOUT ".wh."
#define OPAQUE   ".wh..wh..opq"

static bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0); }

static bool is_opaque(const char *path)
{
	char value[2];

	return lgetxattr(path, "trusted.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y';
}

/* -- diff ---------------------------------------------------------------------- */

static void print_change(char kind, const char *path) { printf("%c %s%c", kind, path, 0); }

/* `hidden`: the upper directory replaced the lower one, so all in it was added. */
static int diff_directory(const char *upper, const char *lower, const char *name, bool hidden)
{
	DIR *d = opendir(upper);
	struct dirent *e;
	int r = 0;

	if (!d) {
		perror(upper);
		return 1;
	}
	while (r == 0 && (e = readdir(d))) {
		cleanup_free char *up = xasprintf("%s/%s", upper, e->d_name);
		cleanup_free char *low = xasprintf("%s/%s", lower, e->d_name);
		cleanup_free char *path = xasprintf("%s/%s", name, e->d_name);
		struct stat st, old;
		bool existed;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || lstat(up, &st) < 0)
			continue;
		existed = !hidden && lstat(low, &old) == 0;
		if (is_whiteout(&st)) {
			print_change('D', path);
			continue;
		}
		print_change(existed ? 'C' : 'A', path);
		if (S_ISDIR(st.st_mode))
			r = diff_directory(up, low, path, !existed || is_opaque(up));
	}
	closedir(d);
	return r;
}

int diff_main(const struct strings *args)
{
	int r = diff_directory(UPPER, LOWER, "", false);

	(void)args;
	return fflush(stdout) == 0 ? r : 1;
}

/* -- layer --------------------------------------------------------------------- */

struct layer {
	struct tar_writer tar;
	const struct strings *made; /* from 1 on: paths where something is mounted, which are no change while empty */
};

/* A directory on the way to what is looked at; its entry comes when there is something to say of it. */
struct level {
	struct level *above;
	const char *upper, *lower;
	const char *name; /* in the archive; "" is the root */
	const struct stat *st;
	bool hidden; /* it replaced the lower one, so all in it was added */
	bool opaque; /* and there was a lower one */
	bool written;
};

/* `within`: or something below the path is. */
static bool is_made(const struct layer *l, const char *name, bool within)
{
	size_t n = strlen(name);

	for (size_t i = 1; i < l->made->n; i++) {
		const char *made = l->made->v[i];

		made += *made == '/';
		if (strncmp(made, name, n) == 0 && (made[n] == 0 || (within && (made[n] == '/' || n == 0))))
			return true;
	}
	return false;
}

static int put_mark(struct layer *l, const char *directory, const char *prefix, const char *name)
{
	cleanup_free char *path = xasprintf("%s%s%s%s", directory, *directory ? "/" : "", prefix, name);

	if (strlen(prefix) + strlen(name) > 255) {
		fprintf(stderr, "%s: a layer cannot say that a name as long as this is gone\n", path);
		return -1;
	}
	return tar_put_mark(&l->tar, path);
}

static int put_level(struct layer *l, struct level *at)
{
	cleanup_free char *name = xasprintf("%s/", *at->name ? at->name : ".");

	if (at->written)
		return 0;
	at->written = true;
	if (at->above && put_level(l, at->above) < 0)
		return -1;
	if (tar_put_entry(&l->tar, at->upper, name, at->st) < 0)
		return -1;
	return at->opaque ? put_mark(l, at->name, OPAQUE, "") : 0;
}

static int put_directory(struct layer *l, struct level *at);

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid;
}

static int put_child(struct layer *l, struct level *above, const char *file)
{
	cleanup_free char *up = xasprintf("%s/%s", above->upper, file);
	cleanup_free char *low = xasprintf("%s/%s", above->lower, file);
	cleanup_free char *name = xasprintf("%s%s%s", above->name, *above->name ? "/" : "", file);
	struct stat st, old;
	struct level here = {.above = above, .upper = up, .lower = low, .name = name, .st = &st};
	bool existed, known;

	if (lstat(up, &st) < 0)
		return 0; /* it went meanwhile */
	existed = !above->hidden && lstat(low, &old) == 0;
	if (is_whiteout(&st) || !tar_type_of(&st)) { /* a layer has no sockets */
		if (!existed)
			return 0;
		return put_level(l, above) < 0 ? -1 : put_mark(l, above->name, WHITEOUT, file);
	}
	if (strncmp(file, WHITEOUT, strlen(WHITEOUT)) == 0) {
		fprintf(stderr, "%s: a layer cannot have a file whose name begins with " WHITEOUT "\n", name);
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		if (!existed && st.st_size == 0 && is_made(l, name, false))
			return 0;
		return put_level(l, above) < 0 ? -1 : tar_put_entry(&l->tar, up, name, &st);
	}
	here.opaque = existed && S_ISDIR(old.st_mode) && is_opaque(up);
	here.hidden = !existed || !S_ISDIR(old.st_mode) || here.opaque;
	/* A mount point was made in it; what else has changed in it writes it, too. */
	known = is_made(l, name, true) && (!existed || is_same(&st, &old));
	if (!known && put_level(l, &here) < 0)
		return -1;
	return put_directory(l, &here);
}

static int put_directory(struct layer *l, struct level *at)
{
	DIR *d = opendir(at->upper);
	struct dirent *e;
	int r = 0;

	if (!d)
		return tar_complain(at->upper);
	while (r == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = put_child(l, at, e->d_name);
	closedir(d);
	return r;
}

int layer_main(const struct strings *args)
{
	struct layer l = {.tar = {.out = 1}, .made = args};
	struct stat st, old;
	struct level root = {.upper = UPPER, .lower = LOWER, .name = "", .st = &st};

	if (lstat(UPPER, &st) < 0 || lstat(LOWER, &old) < 0)
		return tar_complain(UPPER) ? 1 : 0;
	if (is_same(&st, &old))
		root.written = true; /* there is nothing to say of it */
	else if (put_level(&l, &root) < 0)
		return 1;
	return put_directory(&l, &root) < 0 || tar_put_end(&l.tar) < 0;
}

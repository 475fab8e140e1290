/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path of the container as a tar stream (pax), for cp and export.
 * Names begin with the path's last component, as Docker's archives do; for
 * "/" or a path that ends in "/." they begin with ".". Of a whole root they
 * are those of the paths in it, as Docker's `export` has them.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "process.h"
#include "tar.h"

/* With the name "" only what is in the directory. */
static int put_tree(struct tar_writer *w, const char *path, const char *name, dev_t device)
{
	struct stat st;
	DIR *d;
	struct dirent *e;
	int r = 0;

	if (lstat(path, &st) < 0)
		return tar_complain(path);
	if (!tar_type_of(&st))
		return 0;
	if (!S_ISDIR(st.st_mode))
		return tar_put_entry(w, path, name, &st);
	if (*name) {
		cleanup_free char *dir_name = xasprintf("%s/", name);

		if (tar_put_entry(w, path, dir_name, &st) < 0)
			return -1;
	}
	/* /proc, /sys and other mounts are not the container's files. */
	if (device && st.st_dev != device)
		return 0;
	d = opendir(path);
	if (!d)
		return tar_complain(path);
	while (r == 0 && (e = readdir(d))) {
		cleanup_free char *child = xasprintf("%s/%s", strcmp(path, "/") ? path : "", e->d_name);
		cleanup_free char *child_name = xasprintf("%s%s%s", name, *name ? "/" : "", e->d_name);

		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = put_tree(w, child, child_name, device);
	}
	closedir(d);
	return r;
}

int archive_create(const char *path, bool follow, int out)
{
	struct tar_writer w = {.out = out};
	cleanup_free char *target = follow ? realpath(path, NULL) : NULL;
	cleanup_free char *clean = xstrndup(target ? target : path, strlen(target ? target : path));
	size_t n = strlen(clean);
	bool contents = n >= 2 && strcmp(clean + n - 2, "/.") == 0;
	struct stat st;
	const char *base;

	if (contents)
		clean[n -= 2] = 0;
	while (n > 1 && clean[n - 1] == '/')
		clean[--n] = 0;
	if (n == 0) /* "/." */
		clean[n++] = '/', clean[n] = 0;
	base = strrchr(clean, '/') ? strrchr(clean, '/') + 1 : clean;
	if (lstat(clean, &st) < 0) {
		tar_complain(clean);
		return 2;
	}
	/* Only below "/" is another file system somebody else's business. */
	if (put_tree(&w, clean, contents || !*base ? "." : base, strcmp(clean, "/") ? 0 : st.st_dev) < 0)
		return 1;
	return tar_put_end(&w) < 0;
}

int archive_export(int out)
{
	struct tar_writer w = {.out = out};
	struct stat st;

	if (lstat("/", &st) < 0)
		return tar_complain("/"), 1;
	return put_tree(&w, "/", "", st.st_dev) < 0 || tar_put_end(&w) < 0;
}

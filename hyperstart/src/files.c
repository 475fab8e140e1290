/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a container, for who has no program in it to ask: HP_B_FILES. Like archives it runs in the container's
 * own root, with the rights that writing files there takes.
 */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "process.h"

enum { DONE = 0, FAILED = 1, MISSING = 2 };

static int complain(const char *path)
{
	int missing = errno == ENOENT || errno == ENOTDIR;

	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return missing ? MISSING : FAILED;
}

static char kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	default: return 'f';
	}
}

/* One entry; what has gone meanwhile is left out. */
static void put_entry(const char *path, const char *name, const struct stat *st)
{
	char target[4096] = "";
	ssize_t n = S_ISLNK(st->st_mode) ? readlink(path, target, sizeof target - 1) : 0;

	target[n > 0 ? n : 0] = 0;
	printf("%c %o %u %u %llu %lld %s%c%s%c", kind_of(st->st_mode), (unsigned)st->st_mode & 07777, st->st_uid,
	       st->st_gid, (unsigned long long)st->st_size, (long long)st->st_mtime, name, 0, target, 0);
}

/* `below` is the directory's name as its entries' names have it, "" for the one that was asked for. */
static int list(const char *path, const char *below, int depth)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return *below ? DONE : complain(path); /* one within it may just have gone */
	while ((entry = readdir(dir))) {
		cleanup_free char *whole = xasprintf("%s/%s", path, entry->d_name);
		cleanup_free char *name = xasprintf("%s%s%s", below, *below ? "/" : "", entry->d_name);
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || lstat(whole, &st) < 0)
			continue;
		put_entry(whole, name, &st);
		if (S_ISDIR(st.st_mode) && depth > 1)
			list(whole, name, depth - 1);
	}
	closedir(dir);
	return DONE;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

static int remove_path(const char *path, bool recursive)
{
	int r = recursive ? nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) : remove(path);

	return r < 0 ? complain(path) : DONE;
}

static int rename_path(const char *from, const char *to)
{
	struct stat st;

	if (lstat(from, &st) < 0 || rename(from, to) < 0)
		return complain(from);
	return DONE;
}

int files_main(const struct strings *args)
{
	const char *verb = args->n > 1 ? args->v[0] : "", *path = args->n > 1 ? args->v[1] : "";
	const char *option = args->n > 2 ? args->v[2] : "";
	int r = FAILED;

	if (strcmp(verb, "list") == 0)
		r = list(path, "", atoi(option));
	else if (strcmp(verb, "remove") == 0)
		r = remove_path(path, strcmp(option, "recursive") == 0);
	else if (strcmp(verb, "rename") == 0)
		r = rename_path(path, option);
	else if (strcmp(verb, "watch") == 0)
		r = watch_files(path, strcmp(option, "recursive") == 0);
	else
		fprintf(stderr, "no verb of files: %s\n", verb);
	return fflush(stdout) < 0 ? FAILED : r;
}

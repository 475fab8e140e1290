/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a container, for who has no program in it to ask: HP_B_FILES. Like archives it runs in the container's
 * own root, with the rights that writing files there takes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

#define PASSES 8

static int remove_at(int parent, const char *name, dev_t device);

static bool remove_entries(DIR *dir, dev_t device, bool *some)
{
	struct dirent *entry;

	*some = false;
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (remove_at(dirfd(dir), entry->d_name, device) < 0)
			return false;
		*some = true;
	}
	return true;
}

/* By descriptors: where a program puts a link in a directory's place meanwhile, it is not gone into. */
static int remove_below(int parent, const char *name, dev_t device)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), failed = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool some = true;
	struct stat st;

	if (!dir)
		return -1;
	if (fstat(fd, &st) < 0 || st.st_dev != device) { /* what is mounted there stays, and is in the way */
		closedir(dir);
		errno = EBUSY;
		return -1;
	}
	/* One that was read while entries went may have left some out; new ones may come for ever. */
	for (int pass = 0; pass < PASSES && some && !failed; pass++) {
		failed = remove_entries(dir, device, &some) ? 0 : errno;
		rewinddir(dir);
	}
	closedir(dir);
	errno = failed;
	return failed ? -1 : 0;
}

static int remove_at(int parent, const char *name, dev_t device)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR || remove_below(parent, name, device) < 0)
		return -1;
	return unlinkat(parent, name, AT_REMOVEDIR);
}

static int remove_path(const char *path, bool recursive)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return complain(path);
	return (recursive ? remove_at(AT_FDCWD, path, st.st_dev) : remove(path)) < 0 ? complain(path) : DONE;
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

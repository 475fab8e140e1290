/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to files below a directory, by inotify(7), as it happens; it ends with the directory. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "process.h"

#define WATCHED                                                                                                        \
	(IN_CREATE | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)

struct watch {
	int wd;
	char *path;
};

static struct watch *watches;
static size_t count;
static int queue = -1, root; /* the watch of what was asked for */

static void put(char kind, const char *path) { printf("%c %s%c", kind, path, 0); }

static void forget(size_t i)
{
	free(watches[i].path);
	watches[i] = watches[--count];
}

static struct watch *find(int wd)
{
	for (size_t i = 0; i < count; i++)
		if (watches[i].wd == wd)
			return &watches[i];
	return NULL;
}

static int watch_one(const char *path)
{
	int wd = inotify_add_watch(queue, path, WATCHED | IN_ONLYDIR | IN_DONT_FOLLOW);
	struct watch *known = wd < 0 ? NULL : find(wd);

	if (wd < 0)
		return -1;
	if (!known) {
		watches = xrealloc(watches, (count + 1) * sizeof *watches);
		known = &watches[count++];
		*known = (struct watch){.wd = wd};
	}
	free(known->path);
	known->path = xstrndup(path, strlen(path));
	return 0;
}

/* All directories of a tree. What is in a `fresh` one before it is watched is told here, and may be told again. */
static void watch_below(const char *path, bool fresh)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		cleanup_free char *whole = xasprintf("%s/%s", path, entry->d_name);
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || lstat(whole, &st) < 0)
			continue;
		if (fresh)
			put('C', whole);
		if (S_ISDIR(st.st_mode) && watch_one(whole) == 0)
			watch_below(whole, fresh);
	}
	if (dir)
		closedir(dir);
}

/* What is watched below a directory that went elsewhere would be told by names that it has no more. */
static void forget_below(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = count; i-- > 0;)
		if (strncmp(watches[i].path, path, n) == 0 && (watches[i].path[n] == '/' || !watches[i].path[n])) {
			inotify_rm_watch(queue, watches[i].wd);
			forget(i);
		}
}

static char kind_of(uint32_t mask)
{
	return mask & (IN_CREATE | IN_MOVED_TO) ? 'C'
	       : mask & IN_MOVED_FROM           ? 'M'
	       : mask & IN_DELETE               ? 'D'
	       : mask & IN_MODIFY               ? 'W'
	                                        : 'A';
}

static void take(const struct inotify_event *e, bool recursive)
{
	struct watch *of = find(e->wd);
	cleanup_free char *path = of && e->len ? xasprintf("%s/%s", of->path, e->name) : NULL;

	if (e->mask & IN_Q_OVERFLOW)
		put('O', "");
	if (of && (e->mask & IN_IGNORED || (e->mask & IN_MOVE_SELF && e->wd == root)))
		forget((size_t)(of - watches));
	if (!path || e->mask & IN_IGNORED)
		return;
	put(kind_of(e->mask), path);
	if (!recursive || !(e->mask & IN_ISDIR))
		return;
	if (e->mask & IN_MOVED_FROM)
		forget_below(path);
	else if (e->mask & (IN_CREATE | IN_MOVED_TO) && watch_one(path) == 0)
		watch_below(path, true);
}

int watch_files(const char *path, bool recursive)
{
	static char events[16 << 10] __attribute__((aligned(__alignof__(struct inotify_event))));

	queue = inotify_init1(IN_CLOEXEC);
	if (queue < 0 || watch_one(path) < 0) {
		int missing = errno == ENOENT;

		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return missing ? 2 : 1;
	}
	root = watches[0].wd;
	if (recursive)
		watch_below(path, false);
	put('R', "");
	while (find(root) && fflush(stdout) == 0) {
		ssize_t n = read(queue, events, sizeof events);

		if (n <= 0)
			return 1;
		for (char *p = events; p < events + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			take(e, recursive);
			p += sizeof *e + e->len;
		}
	}
	put('E', path);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What hyperstart does in a child of its own instead of executing a program. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "process.h"

static int tar_create_main(const struct strings *args) { return archive_create(args->v[0], args->n > 1, 1); }

static int tar_extract_main(const struct strings *args) { return archive_extract(args->v[0], 0); }

/* Its root is the overlay as hyperstart sees it, which has none of the container's own mounts. */
static int export_main(const struct strings *args)
{
	(void)args;
	return archive_create("/.", false, 1);
}

/* -- diff ---------------------------------------------------------------------- */

static void print_change(char kind, const char *path) { printf("%c %s%c", kind, path, 0); }

static bool is_opaque(const char *path)
{
	char value[2];

	return lgetxattr(path, "trusted.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y';
}

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
		if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)) {
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

/* Its root is the directory that holds the container's layers. */
static int diff_main(const struct strings *args)
{
	int r = diff_directory("/scratch/upper", "/lower", "", false);

	(void)args;
	return fflush(stdout) == 0 ? r : 1;
}

const struct builtin *builtin_find(uint64_t number)
{
	static const struct builtin table[] = {
	        [HP_B_TAR_CREATE] = {tar_create_main, ARCHIVE_READ_CAPS, NULL, false},
	        [HP_B_TAR_EXTRACT] = {tar_extract_main, ARCHIVE_WRITE_CAPS, NULL, false},
	        [HP_B_MOUNT] = {volume_mount_main, 0, NULL, true},
	        [HP_B_UNMOUNT] = {volume_unmount_main, 0, NULL, true},
	        [HP_B_DIFF] = {diff_main, ARCHIVE_READ_CAPS | 1ull << CAP_SYS_ADMIN /* for trusted.overlay.* */, ".",
	                       false},
	        [HP_B_EXPORT] = {export_main, ARCHIVE_READ_CAPS, "root", false},
	        [HP_B_TCP] = {tcp_main, 0, NULL, false},
	        [HP_B_HTTP] = {http_main, 0, NULL, false},
	        [HP_B_FIREWALL] = {firewall_main, 1ull << CAP_NET_ADMIN, NULL, false},
	};

	return number < ARRAY_LEN(table) && table[number].main ? &table[number] : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What hyperstart does in a child of its own instead of executing a program. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "process.h"
#include "user.h"

static int tar_create_main(const struct strings *args) { return archive_create(args->v[0], args->n > 1, 1); }

static int tar_extract_main(const struct strings *args)
{
	struct extract_options options = {0};
	struct error err = {0};

	for (size_t i = 1; i < args->n; i++) {
		if (strcmp(args->v[i], "replace") == 0)
			options.replace = true;
		if (strncmp(args->v[i], "owner=", 6) == 0) {
			static struct identity owner;
			static const struct strings none;

			if (identity_resolve(args->v[i] + 6, &none, false, &owner, &err) < 0) {
				fprintf(stderr, "%s\n", err.message);
				return 1;
			}
			options.owner = &owner;
		}
	}
	return archive_extract(args->v[0], &options, 0);
}

/* Its root is the overlay as hyperstart sees it, which has none of the container's own mounts. */
static int export_main(const struct strings *args)
{
	(void)args;
	return archive_export(1);
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
	        [HP_B_RELAY] = {relay_main, 0, NULL, false},
	        [HP_B_LAYER] = {layer_main, ARCHIVE_READ_CAPS | 1ull << CAP_SYS_ADMIN, ".", false},
	        [HP_B_SHARE] = {share_main, 0, NULL, true},
	        [HP_B_HOLD] = {hold_main, 0, NULL, true},
	        [HP_B_FILES] = {files_main, ARCHIVE_WRITE_CAPS, NULL, false},
	        [HP_B_FIREWALL] = {firewall_main, 1ull << CAP_NET_ADMIN, NULL, false},
	};

	return number < ARRAY_LEN(table) && table[number].main ? &table[number] : NULL;
}

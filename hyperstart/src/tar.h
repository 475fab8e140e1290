/* SPDX-License-Identifier: Apache-2.0 */
/* The header block of ustar (POSIX.1-1988) and its numbers. */
#ifndef TAR_H
#define TAR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "wire.h"

#define TAR_BLOCK 512

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8];
	char type, link[100], magic[8], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a tar header is one block");

#define MAX_XATTRS 32

struct tar_xattr {
	char *name;
	struct buffer value;
};

struct tar_entry {
	char *path, *link;
	uint64_t size, mode, uid, gid, major, minor;
	struct timespec mtime;
	char type; /* as in the header; '0' for a file of an old archive */
	struct tar_xattr xattrs[MAX_XATTRS];
	size_t xattr_count;
	bool has_size, has_uid, has_gid, has_mtime;
};

/* tar_read.c: touches nothing but the stream; what is wrong is said on stderr */
int tar_next(int in, struct tar_entry *e); /* 1: an entry, its content follows; 0: the end; -1: error */
int tar_skip(int in, uint64_t len);
int tar_malformed(const char *what); /* -1 */
uint64_t tar_padding(uint64_t size);
void tar_reset(struct tar_entry *e);

struct tar_hard_link;

struct tar_writer {
	int out;
	struct tar_hard_link *links; /* files with several names that are in the stream */
	size_t link_count;
};

/* tar_write.c: -1 is an error, which has been said on stderr where it is a file's */
int tar_put_entry(struct tar_writer *w, const char *path, const char *name, const struct stat *st);
int tar_put_mark(struct tar_writer *w, const char *name); /* an empty file that stands for something */
int tar_put_end(struct tar_writer *w);
char tar_type_of(const struct stat *st); /* as in the header; 0: archives have no place for it */
int tar_complain(const char *path);      /* of errno; -1 */

#endif

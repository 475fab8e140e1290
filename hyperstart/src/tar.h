/* SPDX-License-Identifier: Apache-2.0 */
/* The header block of ustar (POSIX.1-1988) and its numbers. */
#ifndef TAR_H
#define TAR_H

#include <stdint.h>

#define TAR_BLOCK 512

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8];
	char type, link[100], magic[8], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a tar header is one block");

#endif

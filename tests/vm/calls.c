/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes system calls by number ("435,0,0" with its arguments) and prints the errno of each, 0 for none.
 * A path instead of a number: asks for the file's ACL, gives it one, asks again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define ACL "system.posix_acl_access"

static void give_acl(const char *path)
{
	/* linux/posix_acl_xattr.h */
	static const unsigned char acl[] = {
	        2,  0, 0, 0,                     /* version */
	        1,  0, 6, 0, 255, 255, 255, 255, /* user::rw- */
	        2,  0, 4, 0, 232, 3,   0,   0,   /* user:1000:r-- */
	        4,  0, 4, 0, 255, 255, 255, 255, /* group::r-- */
	        16, 0, 4, 0, 255, 255, 255, 255, /* mask::r-- */
	        32, 0, 4, 0, 255, 255, 255, 255, /* other::r-- */
	};
	char got[256];

	errno = 0;
	getxattr(path, ACL, got, sizeof got);
	printf("%d\n", errno);
	errno = 0;
	setxattr(path, ACL, acl, sizeof acl, 0);
	printf("%d\n", errno);
	printf("%d\n", (int)getxattr(path, ACL, got, sizeof got) == (int)sizeof acl ? 0 : errno);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *p = argv[i];
		long a[7] = {0};

		if (*p == '/') {
			give_acl(p);
			continue;
		}
		for (int n = 0; n < 7 && *p; n++, p += *p == ',')
			a[n] = (long)strtoull(p, &p, 0);
		errno = 0;
		syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
		printf("%d\n", errno);
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Makes system calls by number ("435,0,0" with its arguments) and prints the errno of each, 0 for none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *p = argv[i];
		long a[7] = {0};

		for (int n = 0; n < 7 && *p; n++, p += *p == ',')
			a[n] = (long)strtoull(p, &p, 0);
		errno = 0;
		syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
		printf("%d\n", errno);
	}
	return 0;
}

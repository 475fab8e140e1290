/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of a tar stream that is to be unpacked in a container. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "../../hyperstart/src/tar.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	/* What is malformed is said there, thousands of times a second; the report of a finding goes to the descriptor. */
	return freopen("/dev/null", "w", stdout) ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int in = memfd_create("tar", MFD_CLOEXEC);
	struct tar_entry e = {0};

	if (in < 0 || write(in, data, size) != (ssize_t)size || lseek(in, 0, SEEK_SET) < 0)
		abort();
	while (tar_next(in, &e) > 0 && tar_skip(in, e.size + tar_padding(e.size)) == 0)
		tar_reset(&e);
	tar_reset(&e);
	close(in);
	return 0;
}

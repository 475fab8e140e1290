/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds the tar reader with damaged archives: tar_fuzz ROUNDS SEED FILE...
 * Built with sanitizers, which end it at the first access out of bounds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "../src/tar.h"
#include "../src/util.h"

#define ARCHIVE_MAX (64u << 10)

static uint64_t state;

static uint64_t rnd(uint64_t below) /* xorshift64* */
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 2685821657736338717ull % below;
}

/* Digits, separators and extremes are what its fields are made of. */
static size_t damage(uint8_t *data, size_t len)
{
	static const char likely[] = "0123456789 =\n/-.ustarxgLK";

	for (uint64_t n = 1 + rnd(6); n; n--) {
		size_t at = (size_t)rnd(len), span = (size_t)rnd(24);

		switch (rnd(5)) {
		case 0: data[at] = (uint8_t)rnd(256); break;
		case 1: data[at] = (uint8_t)likely[rnd(sizeof likely)]; break;
		case 2: memset(data + at, rnd(2) ? 0xff : '0', at + span < len ? span : len - at); break;
		case 3: memmove(data + at, data + rnd(len - at) + at, 1); break;
		case 4:
			if (len > TAR_BLOCK && rnd(4) == 0)
				len = (size_t)rnd(len) + 1;
			break;
		}
	}
	return len;
}

static void read_through(int fd)
{
	struct tar_entry e = {0};

	while (tar_next(fd, &e) > 0)
		if (tar_skip(fd, e.size) < 0 || tar_skip(fd, tar_padding(e.size)) < 0)
			break;
	tar_reset(&e);
}

int main(int argc, char **argv)
{
	static uint8_t archive[ARCHIVE_MAX], damaged[ARCHIVE_MAX];
	int fd = memfd_create("archive", 0);

	if (argc < 4 || fd < 0 || !freopen("/dev/null", "w", stderr))
		return 2;
	state = strtoull(argv[2], NULL, 10) | 1;
	for (unsigned long round = strtoul(argv[1], NULL, 10); round; round--) {
		int in = open(argv[3 + rnd((uint64_t)argc - 3)], O_RDONLY | O_CLOEXEC);
		ssize_t n = read(in, archive, sizeof archive);

		close(in);
		if (n <= 0)
			return 2;
		memcpy(damaged, archive, (size_t)n);
		n = (ssize_t)damage(damaged, (size_t)n);
		if (ftruncate(fd, 0) < 0 || pwrite(fd, damaged, (size_t)n, 0) != n || lseek(fd, 0, SEEK_SET) != 0)
			return 2;
		read_through(fd);
	}
	return 0;
}

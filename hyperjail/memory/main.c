/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperjail-memory MEM PAGEMAP BASE TARGET ADDRESS BYTES
 *
 * A machine's memory into an empty file, TARGET; pages of zeros stay holes there. MEM and PAGEMAP are /proc/PID/mem and
 * /proc/PID/pagemap of its hypervisor, which stands still; in it the memory has BYTES at ADDRESS. Where that is a
 * private mapping of a file, that is BASE, and what was never written is read from there: to look at it through the
 * process would map it, and fill what is a hole. BASE is -1 where there is none. All but the last two are descriptors.
 *
 * Their formats: https://www.kernel.org/doc/html/v6.1/admin-guide/mm/pagemap.html
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE    4096u
#define ENTRIES 4096u         /* of the page map, that are read at once */
#define CHUNK   (64u * PAGE)  /* bytes of memory that are */
#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define FILED   (1ull << 61) /* a page of a file, or one of memory that is shared */

static int mem, pagemap, base, target;
static off_t address;

static _Noreturn void stop(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void read_all(int fd, void *into, size_t size, off_t at, const char *what)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = pread(fd, (char *)into + done, size - done, at + (off_t)done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			stop("%s cannot be read: %s", what, got ? strerror(errno) : "it ends");
		done += (size_t)got;
	}
}

static void write_all(const void *from, size_t size, off_t at)
{
	for (size_t done = 0; done < size;) {
		ssize_t put = pwrite(target, (const char *)from + done, size - done, at + (off_t)done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			stop("the copy cannot be written: %s", strerror(errno));
		done += (size_t)put;
	}
}

static bool is_zero(const uint64_t *page)
{
	for (unsigned i = 0; i < PAGE / sizeof *page; i++)
		if (page[i])
			return false;
	return true;
}

/* What of a chunk is not zero, to `at` in the target, in as few pieces as there are. */
static void put(const char *chunk, size_t size, off_t at)
{
	size_t begin = 0, end;

	while (begin < size) {
		for (; begin < size && is_zero((const uint64_t *)(chunk + begin)); begin += PAGE)
			;
		for (end = begin; end < size && !is_zero((const uint64_t *)(chunk + end)); end += PAGE)
			;
		if (end > begin)
			write_all(chunk + begin, end - begin, at + (off_t)begin);
		begin = end;
	}
}

/* From `fd`, where it lies `shift` bytes further on than in the target. */
static void copy(int fd, off_t at, off_t end, off_t shift, const char *what)
{
	static _Alignas(PAGE) char chunk[CHUNK];

	for (; at < end; at += CHUNK) {
		size_t size = end - at < (off_t)CHUNK ? (size_t)(end - at) : CHUNK;

		read_all(fd, chunk, size, at + shift, what);
		put(chunk, size, at);
	}
}

/* What was never written: holes of the file are passed over. */
static void copy_base(off_t at, off_t end)
{
	while (base >= 0 && at < end) {
		off_t data = lseek(base, at, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			stop("the memory's file cannot be read: %s", strerror(errno));
		if (data < 0 || data >= end)
			return;
		data &= -(off_t)PAGE;
		hole = lseek(base, data, SEEK_HOLE);
		at = hole < end ? hole : end;
		copy(base, data, at, 0, "the memory's file");
	}
}

static bool is_own(uint64_t entry)
{
	return (entry & (PRESENT | SWAPPED)) && !(entry & FILED);
}

static long long number(const char *text)
{
	char *end;
	long long found = strtoll(text, &end, 0);

	if (!*text || *end)
		stop("%s is no number", text);
	return found;
}

int main(int argc, char **argv)
{
	static uint64_t entries[ENTRIES];
	off_t bytes;

	if (argc != 7)
		stop("usage: hyperjail-memory MEM PAGEMAP BASE TARGET ADDRESS BYTES");
	mem = (int)number(argv[1]);
	pagemap = (int)number(argv[2]);
	base = (int)number(argv[3]);
	target = (int)number(argv[4]);
	address = number(argv[5]);
	bytes = number(argv[6]);
	if (address < 0 || address % PAGE || bytes <= 0 || bytes % PAGE)
		stop("memory consists of pages");
	for (off_t at = 0; at < bytes;) {
		size_t count = bytes - at < (off_t)(ENTRIES * PAGE) ? (size_t)(bytes - at) / PAGE : ENTRIES;

		read_all(pagemap, entries, count * sizeof *entries, (address + at) / PAGE * (off_t)sizeof *entries,
			 "the page map");
		for (size_t i = 0, run; i < count; i += run) {
			bool own = is_own(entries[i]);
			off_t begin = at + (off_t)i * PAGE;

			for (run = 1; i + run < count && is_own(entries[i + run]) == own; run++)
				;
			if (own)
				copy(mem, begin, begin + (off_t)run * PAGE, address, "the machine's memory");
			else
				copy_base(begin, begin + (off_t)run * PAGE);
		}
		at += (off_t)count * PAGE;
	}
	return 0;
}

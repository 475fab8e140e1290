/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads golden frames with hyperstart's own decoder and prints what it found,
 * for tests/guest/test_golden.py to compare. Usage: golden < FRAME
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "../src/wire.h"

/* The attributes that hold others. */
static bool nests(unsigned tag)
{
	switch (tag) {
	case HP_T_PROCESS:
	case HP_T_INTERFACE:
	case HP_T_SYSCTL:
	case HP_T_MOUNT:
	case HP_T_FILE:
	case HP_T_RLIMIT:
	case HP_T_STATS: return true;
	}
	return false;
}

static int print_attrs(struct cursor c, int depth)
{
	struct error err;
	struct attr a;
	int r;

	while ((r = attr_next(&c, &a, &err)) > 0) {
		printf("%*s%u ", depth * 2, "", a.tag);
		if (nests(a.tag)) {
			printf("{\n");
			if (print_attrs(attr_nested(&a), depth + 1) < 0)
				return -1;
			printf("%*s}\n", depth * 2, "");
			continue;
		}
		for (uint32_t i = 0; i < a.len; i++)
			printf("%02x", a.data[i]);
		printf("\n");
	}
	if (r < 0)
		fprintf(stderr, "%s\n", err.message);
	return r;
}

int main(void)
{
	static uint8_t frame[HP_FRAME_MAX];
	size_t n = fread(frame, 1, sizeof frame, stdin);

	if (n < HP_FRAME_HEADER || le32(frame) != n)
		return 2;
	printf("type %u id %u\n", le16(frame + 4), le32(frame + 8));
	if (le16(frame + 4) == HP_DATA || le16(frame + 4) == HP_WINDOW) {
		const uint8_t *body = frame + HP_FRAME_HEADER;

		printf("stream %u flags %u offset %llu", body[0], body[1], (unsigned long long)le64(body + 8));
		if (le16(frame + 4) == HP_WINDOW)
			printf(" limit %llu", (unsigned long long)le64(body + 16));
		else
			printf(" bytes %zu", n - HP_FRAME_HEADER - HP_STREAM_HEADER);
		printf("\n");
		return 0;
	}
	return print_attrs((struct cursor){frame + HP_FRAME_HEADER, frame + n}, 0) < 0;
}

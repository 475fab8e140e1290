/* SPDX-License-Identifier: Apache-2.0 */
/* hyperstart's readers of requests: the first byte chooses which, the rest is a body. */
#include "../../hyperstart/src/container.c"
#include "../../hyperstart/src/net.h"
#include "../../hyperstart/src/process.h"

static void read_container(struct cursor cur)
{
	struct container *c = xcalloc(1, sizeof *c);
	cleanup_free char *prepared = NULL;
	struct error err;
	struct attr a;

	c->mount_ns = c->pid_ns = c->cgroup = c->memory_events.fd = -1;
	while (attr_next(&cur, &a, &err) > 0)
		if (parse_attr(&a, c, &prepared, &err) < 0)
			break;
	if (c->id)
		id_is_safe(c->id);
	container_free(c);
}

static void read_process(struct cursor cur)
{
	struct process_spec s = {0};
	struct error err;

	process_spec_parse(cur, &s, &err);
	process_spec_free(&s);
}

static void read_interface(struct cursor cur)
{
	struct interface i = {0};
	struct error err;

	interface_parse(cur, &i, &err);
	interface_free(&i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor cur = {data + 1, data + size};

	if (size == 0)
		return 0;
	switch (data[0] % 3) {
	case 0: read_container(cur); break;
	case 1: read_process(cur); break;
	case 2: read_interface(cur); break;
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What belongs to the whole machine: entropy, clock, host name, network, sysctls. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>

#include "container.h"
#include "fork.h"
#include "net.h"
#include "pidns.h"

#define MAX_SEED 256

static int add_entropy(const struct attr *a, struct error *err)
{
	cleanup_close int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	cleanup_free struct rand_pool_info *pool = xcalloc(1, sizeof *pool + MAX_SEED);
	uint32_t len = a->len < MAX_SEED ? a->len : MAX_SEED;

	pool->entropy_count = (int)len * 8;
	pool->buf_size = (int)len;
	memcpy(pool->buf, a->data, len);
	/* Credit first, then reseed, so that no reader sees the old state. */
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, pool) < 0 || (ioctl(fd, RNDRESEEDCRNG) < 0 && errno != EINVAL))
		return fail_sys(err, "seeding the random pool");
	return 0;
}

static int set_clock(uint64_t ns, struct error *err)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

	return clock_settime(CLOCK_REALTIME, &t) < 0 ? fail_sys(err, "setting the clock") : 0;
}

int pod_hello(struct cursor c, uint8_t token[HP_TOKEN_SIZE], bool *has_token, struct error *err)
{
	uint64_t clock = 0;
	struct attr a;
	int r;

	while ((r = attr_next(&c, &a, err)) > 0) {
		if (a.tag == HP_T_TOKEN && a.len == HP_TOKEN_SIZE) {
			memcpy(token, a.data, HP_TOKEN_SIZE);
			*has_token = true;
		} else if (a.tag == HP_T_CLOCK) {
			r = attr_u64(&a, &clock, err);
		} else if (a.tag == HP_T_ENTROPY) {
			r = add_entropy(&a, err);
		}
		if (r < 0)
			return -1;
	}
	return r == 0 && clock ? set_clock(clock, err) : r;
}

int parse_sysctl(const struct attr *a, struct pair *out, struct error *err)
{
	struct cursor c = attr_nested(a);
	struct attr b;
	int r;

	while ((r = attr_next(&c, &b, err)) > 0) {
		r = b.tag == HP_T_NAME    ? attr_text(&b, &out->name, err)
		    : b.tag == HP_T_VALUE ? attr_text(&b, &out->value, err)
		                          : 0;
		if (r < 0)
			return -1;
	}
	if (r == 0 && (!out->name || !out->value || strstr(out->name, "..")))
		return fail(err, HP_E_MALFORMED, 0, "a sysctl needs a name and a value");
	return r;
}

int apply_sysctl(const struct pair *p, struct error *err)
{
	cleanup_free char *path = xasprintf("/proc/sys/%s", p->name);
	cleanup_close int fd = -1;

	for (char *s = path + strlen("/proc/sys/"); *s; s++)
		if (*s == '.')
			*s = '/';
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write_all(fd, p->value, strlen(p->value)) < 0)
		return fail_sys(err, "sysctl %s", p->name);
	return 0;
}

/* The memory file system that the containers share as /dev/shm; its size may be said again. */
static int mount_shm(uint64_t size, struct error *err)
{
	static bool mounted;
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (mounted ? MS_REMOUNT : 0);
	char options[64];

	snprintf(options, sizeof options, "mode=1777,size=%llu", (unsigned long long)size);
	if (make_dirs(SHM_DIR, 0700) < 0 || mount("shm", SHM_DIR, "tmpfs", flags, options) < 0)
		return fail_sys(err, "shared memory of %llu bytes", (unsigned long long)size);
	mounted = true;
	return 0;
}

int interface_parse(struct cursor c, struct interface *i, struct error *err)
{
	struct attr b;
	int r;

	while ((r = attr_next(&c, &b, err)) > 0) {
		switch (b.tag) {
		case HP_T_NAME: r = attr_text(&b, &i->name, err); break;
		case HP_T_ADDRESS: r = attr_add_text(&b, &i->addresses, err); break;
		case HP_T_GATEWAY: r = attr_add_text(&b, &i->gateways, err); break;
		case HP_T_MTU: r = attr_u64(&b, &i->mtu, err); break;
		case HP_T_DOWN: r = attr_u64(&b, &i->down, err); break;
		case HP_T_MAC:
			if (b.len != sizeof i->mac) {
				r = fail(err, HP_E_MALFORMED, 0, "a MAC address of %u bytes", b.len);
				break;
			}
			memcpy(i->mac, b.data, sizeof i->mac);
			i->has_mac = true;
			break;
		}
		if (r < 0)
			break;
	}
	return r;
}

static int bring_up(const struct attr *a, struct error *err)
{
	struct interface i = {0};
	int r = interface_parse(attr_nested(a), &i, err);

	if (r == 0)
		r = i.down ? net_down(&i, err) : net_up(&i, err);
	interface_free(&i);
	return r;
}

static int setup_attr(const struct attr *a, struct error *err)
{
	cleanup_free char *text = NULL;
	struct pair sysctl = {0};
	uint64_t number;
	int r = 0;

	switch (a->tag) {
	/* A clone has waited since HELLO, and shares its state of then with others. */
	case HP_T_ENTROPY: r = add_entropy(a, err); break;
	case HP_T_CLOCK:
		r = attr_u64(a, &number, err);
		if (r == 0)
			r = set_clock(number, err);
		break;
	case HP_T_HOSTNAME:
		r = attr_text(a, &text, err);
		if (r == 0 && sethostname(text, strlen(text)) < 0)
			r = fail_sys(err, "host name");
		break;
	case HP_T_INTERFACE: r = bring_up(a, err); break;
	case HP_T_SHM_SIZE:
		r = attr_u64(a, &number, err);
		if (r == 0)
			r = mount_shm(number, err);
		break;
	case HP_T_SEVER:
		r = attr_u64(a, &number, err);
		if (r == 0 && number)
			r = fork_sever(err);
		break;
	case HP_T_BALLOON:
		r = attr_u64(a, &number, err);
		if (r == 0 && !number)
			r = fork_keep_free_pages(err);
		break;
	case HP_T_SYSCTL:
		r = parse_sysctl(a, &sysctl, err);
		if (r == 0)
			r = apply_sysctl(&sysctl, err);
		free(sysctl.name);
		free(sysctl.value);
		break;
	}
	return r;
}

int pod_setup(const struct frame *f, struct error *err)
{
	struct cursor c = {f->body, f->body + f->len};
	struct attr a;
	int r;

	if (pidns_start_pod(err) < 0)
		return -1;
	while ((r = attr_next(&c, &a, err)) > 0)
		if ((r = setup_attr(&a, err)) < 0)
			break;
	if (r == 0)
		send_reply(f->id);
	return r;
}

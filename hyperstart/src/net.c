/* SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "hyper_protocol.h"

struct request {
	struct nlmsghdr head;
	char body[256];
};

struct address {
	int family;
	uint8_t bytes[16];
	size_t len;
	unsigned prefix;
};

static int parse_address(const char *text, struct address *out, struct error *err)
{
	cleanup_free char *copy = xstrndup(text, strlen(text));
	char *slash = strchr(copy, '/');

	if (slash)
		*slash++ = 0;
	out->family = strchr(copy, ':') ? AF_INET6 : AF_INET;
	out->len = out->family == AF_INET6 ? 16 : 4;
	out->prefix = slash ? (unsigned)atoi(slash) : (unsigned)out->len * 8;
	if (inet_pton(out->family, copy, out->bytes) != 1 || out->prefix > out->len * 8)
		return fail(err, HP_E_MALFORMED, 0, "address %s", text);
	return 0;
}

static void *request_begin(struct request *r, uint16_t type, uint16_t flags, size_t header)
{
	memset(r, 0, sizeof *r);
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	r->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(header);
	return NLMSG_DATA(&r->head);
}

static void request_attr(struct request *r, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	r->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static int request_send(int fd, struct request *r, const char *what, struct error *err)
{
	char answer[1024];
	const struct nlmsghdr *h = (const void *)answer;
	ssize_t n;
	int code;

	if (send(fd, r, r->head.nlmsg_len, 0) < 0)
		return fail_sys(err, "%s", what);
	n = recv(fd, answer, sizeof answer, 0);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR)
		return fail(err, HP_E_SYSTEM, EPROTO, "%s", what);
	code = -((const struct nlmsgerr *)NLMSG_DATA(h))->error;
	return code == 0 || code == EEXIST ? 0 : fail(err, HP_E_SYSTEM, code, "%s", what);
}

/* Not each driver lets the address of an interface that is up be set, be it to what it is: xen-netfront does not. */
static bool has_mac(int fd, const struct interface *i)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", i->name);
	return ioctl(fd, SIOCGIFHWADDR, &r) == 0 && memcmp(r.ifr_hwaddr.sa_data, i->mac, sizeof i->mac) == 0;
}

static int set_link(int fd, unsigned index, const struct interface *i, struct error *err)
{
	struct request r;
	struct ifinfomsg *m = request_begin(&r, RTM_NEWLINK, 0, sizeof *m);
	uint32_t mtu = (uint32_t)i->mtu;

	m->ifi_index = (int)index;
	m->ifi_change = IFF_UP;
	m->ifi_flags = i->down ? 0 : IFF_UP;
	if (mtu)
		request_attr(&r, IFLA_MTU, &mtu, sizeof mtu);
	if (i->has_mac && !has_mac(fd, i))
		request_attr(&r, IFLA_ADDRESS, i->mac, sizeof i->mac);
	return request_send(fd, &r, i->name, err);
}

static int change_address(int fd, unsigned index, const char *text, bool remove, struct error *err)
{
	struct request r;
	struct address a;
	struct ifaddrmsg *m = remove ? request_begin(&r, RTM_DELADDR, 0, sizeof *m)
	                             : request_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *m);

	if (parse_address(text, &a, err) < 0)
		return -1;
	m->ifa_family = (uint8_t)a.family;
	m->ifa_prefixlen = (uint8_t)a.prefix;
	m->ifa_index = index;
	/* Addresses come from the host's own table: no need to wait for
	 * duplicate address detection. */
	m->ifa_flags = a.family == AF_INET6 ? IFA_F_NODAD : 0;
	request_attr(&r, IFA_LOCAL, a.bytes, a.len);
	request_attr(&r, IFA_ADDRESS, a.bytes, a.len);
	return request_send(fd, &r, text, err);
}

static int add_default_route(int fd, unsigned index, const char *gateway, struct error *err)
{
	struct request r;
	struct address a;
	uint32_t oif = index;
	struct rtmsg *m = request_begin(&r, RTM_NEWROUTE, NLM_F_CREATE, sizeof *m);

	if (parse_address(gateway, &a, err) < 0)
		return -1;
	m->rtm_family = (uint8_t)a.family;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_BOOT;
	m->rtm_scope = RT_SCOPE_UNIVERSE;
	m->rtm_type = RTN_UNICAST;
	request_attr(&r, RTA_GATEWAY, a.bytes, a.len);
	request_attr(&r, RTA_OIF, &oif, sizeof oif);
	return request_send(fd, &r, gateway, err);
}

int net_down(const struct interface *i, struct error *err)
{
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	unsigned index = i->name ? if_nametoindex(i->name) : 0;

	if (fd < 0 || !index)
		return fail(err, HP_E_NOT_FOUND, 0, "no interface %s", i->name ? i->name : "without name");
	for (size_t n = 0; n < i->addresses.n; n++)
		if (change_address(fd, index, i->addresses.v[n], true, err) < 0)
			return -1;
	return set_link(fd, index, i, err);
}

int net_up(const struct interface *i, struct error *err)
{
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	unsigned index = i->name ? if_nametoindex(i->name) : 0;

	if (fd < 0)
		return fail_sys(err, "rtnetlink");
	if (!index)
		return fail(err, HP_E_NOT_FOUND, 0, "no interface %s", i->name ? i->name : "without name");
	if (set_link(fd, index, i, err) < 0)
		return -1;
	for (size_t n = 0; n < i->addresses.n; n++)
		if (change_address(fd, index, i->addresses.v[n], false, err) < 0)
			return -1;
	for (size_t n = 0; n < i->gateways.n; n++)
		if (add_default_route(fd, index, i->gateways.v[n], err) < 0)
			return -1;
	return 0;
}

void interface_free(struct interface *i)
{
	free(i->name);
	strings_free(&i->addresses);
	strings_free(&i->gateways);
}

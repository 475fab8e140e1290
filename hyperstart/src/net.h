/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces, addresses and routes by rtnetlink. */
#ifndef NET_H
#define NET_H

#include "wire.h"

struct interface {
	char *name;
	struct strings addresses; /* CIDR, IPv4 or IPv6 */
	struct strings gateways;
	uint64_t mtu, down;
	uint8_t mac[6];
	bool has_mac;
};

int net_down(const struct interface *i, struct error *err);
int net_up(const struct interface *i, struct error *err);
int interface_parse(struct cursor c, struct interface *i, struct error *err); /* pod.c; in any case to be freed */
void interface_free(struct interface *i);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>

/* The channel to the host, as the kernel's command line names it; -1 when there is none, which is logged. One that
 * listens is a socket whose connections are the channel, one after another. */
int port_open(bool *listens);

/* The channel's connection broke, as all do in a machine that is saved: where the host is called, it is called again,
 * since it does not hear of that. */
void port_recall(void);

/* A stream to the host of another kind, which does not block, once somebody is there: "port:NAME", or "vsock:PORT", at
 * which the host is called; -1 when there is none, which is logged. */
int port_connect(const char *channel);

#endif

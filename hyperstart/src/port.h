/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PORT_H
#define PORT_H

/* The channel to the host, as the kernel's command line names it; -1 when there is none, which is logged. */
int port_open(void);

#endif

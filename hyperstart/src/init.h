/* SPDX-License-Identifier: Apache-2.0 */
/* A container's own init, in a process that hyperstart's binary was executed for anew. */
#ifndef INIT_H
#define INIT_H

#define INIT_NAME                                                                                                      \
	"/sbin/docker-init" /* the program's name that asks for it, in argv[0]; then "--" and the program's arguments  \
	                     */

int init_main(char **args); /* until the program has ended; its exit status */

#endif

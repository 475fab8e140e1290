/* SPDX-License-Identifier: Apache-2.0 */
/* Docker's default seccomp profile as a filter for one process, and programs that the host brings. */
#ifndef SECCOMP_H
#define SECCOMP_H

#include "util.h"

struct sock_filter;
#define SECCOMP_FILTER_MAX 4096 /* instructions: the kernel's BPF_MAXINSNS */

/* Another program in the profile's place, with flags of seccomp(2). Without no_new_privs it takes CAP_SYS_ADMIN. */
int seccomp_load(const struct sock_filter *filter, size_t len, uint64_t flags, struct error *err);

/* From here on this process may make only the calls that the profile grants to who has these CAP_* bits. */
int seccomp_confine(uint64_t caps, struct error *err);

/* What the generator and its tables share. */
struct granted_call {
	uint16_t number;
	int8_t capability; /* CAP_* that it takes; -1: none */
};

struct call_table {
	uint32_t arch; /* AUDIT_ARCH_* */
	const struct granted_call *calls;
	size_t count;
	/* those of which an argument counts; 0: this architecture does not have it */
	uint16_t clone, clone3, personality, socket;
};

#ifdef __x86_64__
extern const struct call_table seccomp_i386; /* programs of 32 bits */
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Docker's default seccomp profile as a filter for one process. */
#ifndef SECCOMP_H
#define SECCOMP_H

#include "util.h"

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

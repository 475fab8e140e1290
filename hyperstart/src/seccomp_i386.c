/* SPDX-License-Identifier: Apache-2.0 */
/* The profile by the numbers of 32-bit x86, which cannot be included beside the native ones. */
#ifdef __x86_64__
#include <asm/unistd_32.h>
#include <linux/audit.h>
#include <linux/capability.h>

#include "seccomp.h"
#include "seccomp_calls.h"

#define X(name)              {__NR_##name, -1},
#define C(name, cap)         {__NR_##name, CAP_##cap},
#define U(name, number)      {number, -1},
#define V(name, number, cap) {number, CAP_##cap},

static const struct granted_call calls[] = {CALLS_EVERYWHERE CALLS_X86 CALLS_I386 CALLS_EVERYWHERE_BY_CAPABILITY
                                                    CALLS_X86_BY_CAPABILITY CALLS_I386_BY_CAPABILITY CALLS_NEW};

const struct call_table seccomp_i386 = {AUDIT_ARCH_I386,  calls,      ARRAY_LEN(calls), __NR_clone, 435,
                                        __NR_personality, __NR_socket};
#else
typedef int not_empty;
#endif

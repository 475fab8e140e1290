/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Docker's default seccomp profile: an allow-list of system calls, some only
 * with a capability, the rest refused with EPERM, or with ENOSYS if the profile
 * is older than they are (then programs fall back, as on an older kernel).
 *
 * The numbers of an architecture become ranges with one answer each, found by
 * a binary search: the kernel tries the filter once for every number when it is
 * installed (its cache of calls that are always allowed), and a list would make
 * that some 400 * 400 steps.
 */
#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "hyper_protocol.h"
#include "seccomp_calls.h"

#ifdef __x86_64__
#define OWN_ARCH AUDIT_ARCH_X86_64
#else
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

#define NUMBERS     (CALL_LAST + 1)
#define PROGRAM_MAX 1024
#define JUMP_MAX    255 /* a conditional jump's distance is a byte */
#define NAMESPACES                                                                                                     \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define LAST_FAMILY 45 /* AF_MCTP */

#define X(name)              {SYS_##name, -1},
#define C(name, cap)         {SYS_##name, CAP_##cap},
#define U(name, number)      {number, -1},
#define V(name, number, cap) {number, CAP_##cap},

static const struct granted_call own_calls[] = {CALLS_EVERYWHERE CALLS_64 CALLS_EVERYWHERE_BY_CAPABILITY CALLS_NEW
#ifdef __x86_64__
                                                        CALLS_X86 CALLS_X86_BY_CAPABILITY
#endif
};

static const struct call_table own = {OWN_ARCH,        own_calls, ARRAY_LEN(own_calls), SYS_clone, 435,
                                      SYS_personality, SYS_socket};

enum answer { REFUSE, ALLOW, UNKNOWN, CLONE, PERSONALITY, SOCKET };

struct range {
	uint32_t first;
	enum answer answer;
};

struct program {
	struct sock_filter code[PROGRAM_MAX];
	size_t len;
	bool too_long;
};

static size_t emit(struct program *p, struct sock_filter f)
{
	if (p->len == PROGRAM_MAX) {
		p->too_long = true;
		return 0;
	}
	p->code[p->len] = f;
	return p->len++;
}

#define STATEMENT(op, k)     ((struct sock_filter)BPF_STMT(op, k))
#define JUMP(op, k, yes, no) ((struct sock_filter)BPF_JUMP(BPF_JMP | (op) | BPF_K, k, yes, no))
#define LOAD(field)          STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value)        STATEMENT(BPF_RET | BPF_K, value)
#define EPERM_ANSWER         ANSWER(SECCOMP_RET_ERRNO | EPERM)

static bool has(uint64_t caps, int capability) { return capability < 0 || (caps >> capability & 1); }

/* The answers of one architecture as ranges, in order; returns how many. */
static size_t ranges_of(const struct call_table *t, uint64_t caps, struct range *out)
{
	uint8_t answers[NUMBERS] = {REFUSE};
	size_t n = 0;

	for (size_t i = 0; i < t->count; i++)
		if (has(caps, t->calls[i].capability))
			answers[t->calls[i].number] = ALLOW;
	/* clone3's flags lie in memory, where a filter cannot look: libraries take ENOSYS as "use clone". */
	answers[t->clone] = has(caps, CAP_SYS_ADMIN) ? ALLOW : CLONE;
	answers[t->clone3] = has(caps, CAP_SYS_ADMIN) ? ALLOW : UNKNOWN;
	answers[t->personality] = PERSONALITY;
	answers[t->socket] = SOCKET;
	for (uint32_t number = 0; number < NUMBERS; number++)
		if (n == 0 || out[n - 1].answer != answers[number])
			out[n++] = (struct range){number, answers[number]};
	out[n++] = (struct range){NUMBERS, UNKNOWN};
	return n;
}

/* What looks at an argument; only the lower half of one counts for these calls. */
static void answer_by_argument(struct program *p, enum answer answer)
{
	static const uint32_t personalities[] = {0, 0x8, 0x20000, 0x20008, 0xffffffff};

	emit(p, LOAD(args[0]));
	switch (answer) {
	case CLONE:
		emit(p, JUMP(BPF_JSET, NAMESPACES, 0, 1));
		emit(p, EPERM_ANSWER);
		emit(p, ANSWER(SECCOMP_RET_ALLOW));
		return;
	case PERSONALITY:
		for (size_t i = 0; i < ARRAY_LEN(personalities); i++) {
			emit(p, JUMP(BPF_JEQ, personalities[i], 0, 1));
			emit(p, ANSWER(SECCOMP_RET_ALLOW));
		}
		emit(p, EPERM_ANSWER);
		return;
	default: /* socket: the kernel's own crypto, other machines of the host, families that nobody knows */
		emit(p, JUMP(BPF_JEQ, AF_ALG, 2, 0));
		emit(p, JUMP(BPF_JEQ, AF_VSOCK, 1, 0));
		emit(p, JUMP(BPF_JGT, LAST_FAMILY, 0, 1));
		emit(p, EPERM_ANSWER);
		emit(p, ANSWER(SECCOMP_RET_ALLOW));
	}
}

static void search(struct program *p, const struct range *r, size_t n)
{
	size_t jump, half = n / 2;

	if (n == 1) {
		switch (r->answer) {
		case REFUSE: emit(p, EPERM_ANSWER); break;
		case ALLOW: emit(p, ANSWER(SECCOMP_RET_ALLOW)); break;
		case UNKNOWN: emit(p, ANSWER(SECCOMP_RET_ERRNO | ENOSYS)); break;
		default: answer_by_argument(p, r->answer);
		}
		return;
	}
	jump = emit(p, JUMP(BPF_JGE, r[half].first, 0, 0));
	search(p, r, half);
	if (p->len - jump - 1 > JUMP_MAX)
		p->too_long = true;
	p->code[jump].jt = (uint8_t)(p->len - jump - 1);
	search(p, r + half, n - half);
}

/* Falls through to what follows for another architecture. */
static void architecture(struct program *p, const struct call_table *t, uint64_t caps)
{
	struct range ranges[NUMBERS + 1];
	size_t jump;

	emit(p, JUMP(BPF_JEQ, t->arch, 1, 0));
	jump = emit(p, STATEMENT(BPF_JMP | BPF_JA, 0));
	emit(p, LOAD(nr));
	search(p, ranges, ranges_of(t, caps, ranges));
	p->code[jump].k = (uint32_t)(p->len - jump - 1);
}

int seccomp_load(const struct sock_filter *filter, size_t len, uint64_t flags, struct error *err)
{
	struct sock_fprog program = {(unsigned short)len, (struct sock_filter *)(uintptr_t)filter};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)flags, &program) < 0)
		return fail_sys(err, "the kernel refuses the seccomp filter");
	return 0;
}

int seccomp_confine(uint64_t caps, struct error *err)
{
	struct program p = {.len = 0};

	emit(&p, LOAD(arch));
	architecture(&p, &own, caps);
#ifdef __x86_64__
	architecture(&p, &seccomp_i386, caps);
#endif
	emit(&p, ANSWER(SECCOMP_RET_KILL_PROCESS));
	if (p.too_long)
		return fail(err, HP_E_SYSTEM, 0, "the seccomp profile does not fit");
	/* As runc does: a filter is no reason for the processor to run without speculation. */
	return seccomp_load(p.code, p.len, SECCOMP_FILTER_FLAG_SPEC_ALLOW, err);
}

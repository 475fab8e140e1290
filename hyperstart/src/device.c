/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices a container may open: Docker's default list, as a BPF program on
 * its control group. Any node may be made, so images and archives that hold some
 * unpack; opening one is what counts, wherever the node lies (a volume, /dev, the
 * overlay), which `nodev` on single mounts would not cover.
 *
 * Left out of Docker's list: 5:1, which is the machine's console here, and no
 * terminal of the container's.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

#include "container.h"

#define LOAD(dst, field)                                                                                               \
	{                                                                                                              \
		BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, field), 0               \
	}
#define SKIP_IF(op, reg, value, distance)                                                                              \
	{                                                                                                              \
		BPF_JMP | (op) | BPF_K, reg, 0, distance, value                                                        \
	}
#define ANSWER(value)                                                                                                  \
	{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value}, { BPF_JMP | BPF_EXIT, 0, 0, 0, 0 }
#define ACCESS BPF_REG_2
#define TYPE   BPF_REG_3
#define MAJOR  BPF_REG_4
#define MINOR  BPF_REG_5

enum { MEMORY = 1, TERMINAL = 5, PTS_FIRST = 136, PTS_LAST = 143 };

static const struct bpf_insn rules[] = {
        LOAD(ACCESS, access_type),
        LOAD(MAJOR, major),
        LOAD(MINOR, minor),
        {BPF_ALU64 | BPF_MOV | BPF_X, TYPE, ACCESS, 0, 0},
        {BPF_ALU64 | BPF_AND | BPF_K, TYPE, 0, 0, 0xffff},
        {BPF_ALU64 | BPF_RSH | BPF_K, ACCESS, 0, 0, 16},
        SKIP_IF(BPF_JNE, ACCESS, BPF_DEVCG_ACC_MKNOD, 2), /* no more than making it */
        ANSWER(1),
        SKIP_IF(BPF_JNE, TYPE, BPF_DEVCG_DEV_CHAR, 12),
        SKIP_IF(BPF_JNE, MAJOR, MEMORY, 5),
        SKIP_IF(BPF_JEQ, MINOR, 3, 12), /* null */
        SKIP_IF(BPF_JEQ, MINOR, 5, 11), /* zero */
        SKIP_IF(BPF_JEQ, MINOR, 7, 10), /* full */
        SKIP_IF(BPF_JEQ, MINOR, 8, 9),  /* random */
        SKIP_IF(BPF_JEQ, MINOR, 9, 8),  /* urandom */
        SKIP_IF(BPF_JNE, MAJOR, TERMINAL, 2),
        SKIP_IF(BPF_JEQ, MINOR, 0, 6), /* tty */
        SKIP_IF(BPF_JEQ, MINOR, 2, 5), /* ptmx */
        SKIP_IF(BPF_JLT, MAJOR, PTS_FIRST, 2),
        SKIP_IF(BPF_JGT, MAJOR, PTS_LAST, 1),
        {BPF_JMP | BPF_JA, 0, 0, 2, 0},
        ANSWER(0),
        ANSWER(1),
};

static int load(void)
{
	static int program = -1;
	union bpf_attr a;

	if (program >= 0)
		return program;
	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	a.insns = (uintptr_t)rules;
	a.insn_cnt = ARRAY_LEN(rules);
	a.license = (uintptr_t) "Apache-2.0";
	program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a); /* close-on-exec always */
	return program;
}

int devices_limit(int cgroup, struct error *err)
{
	union bpf_attr a;
	int program = load();

	memset(&a, 0, sizeof a);
	a.target_fd = (uint32_t)cgroup;
	a.attach_bpf_fd = (uint32_t)program;
	a.attach_type = BPF_CGROUP_DEVICE;
	if (program < 0 || syscall(SYS_bpf, BPF_PROG_ATTACH, &a, sizeof a) < 0)
		return fail(err, HP_E_SYSTEM, errno,
		            "the kernel cannot limit devices (it needs CONFIG_CGROUP_BPF; a privileged container does "
		            "not)");
	return 0;
}

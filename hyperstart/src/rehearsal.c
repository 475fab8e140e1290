/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rehearsal: a program of a container's image begins, in a world where every
 * file is read-only, there is no network, and output goes nowhere. It is killed
 * at the first system call of another kind that could change anything or reach
 * anybody. What it has read is in the page cache then, and an emulated processor
 * has translated what it ran.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "process.h"

#ifdef __x86_64__
#define OWN_ARCH AUDIT_ARCH_X86_64
#else
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

#define LOAD(field)          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define WHEN(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define ANSWER(value)        BPF_STMT(BPF_RET | BPF_K, (value))
#define LET(name)            WHEN(SYS_##name, 0, 1), ANSWER(SECCOMP_RET_ALLOW)
#define REFUSE(name, errnum) WHEN(SYS_##name, 0, 1), ANSWER(SECCOMP_RET_ERRNO | (errnum))
/* Only to read; `at` is the argument with the flags, of which the lower half counts. */
#define LET_OPEN(name, at)                                                                                             \
	WHEN(SYS_##name, 0, 4), LOAD(args[at]),                                                                        \
	        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_ACCMODE | O_CREAT | O_TRUNC, 0, 1),                             \
	        ANSWER(SECCOMP_RET_ERRNO | EROFS), ANSWER(SECCOMP_RET_ALLOW)

static struct sock_filter rules[] = {
        LOAD(arch),
        WHEN(OWN_ARCH, 1, 0),
        ANSWER(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        LET(execve),
        LET(read),
        LET(write), /* what is open is read-only, or /dev/null */
        LET(writev),
        LET(pread64),
        LET(readv),
        LET(close),
        LET(lseek),
        LET(fstat),
        LET(newfstatat),
        LET(statx),
        LET(fstatfs),
        LET(statfs),
        LET(readlinkat),
        LET(faccessat),
        LET(getdents64),
        LET(getcwd),
        LET(mmap),
        LET(munmap),
        LET(mprotect),
        LET(mremap),
        LET(madvise),
        LET(brk),
        LET(rt_sigaction),
        LET(rt_sigprocmask),
        LET(rt_sigreturn),
        LET(sigaltstack),
        LET(set_tid_address),
        LET(set_robust_list),
        LET(rseq),
        LET(futex),
        LET(getrandom),
        LET(clock_gettime),
        LET(gettimeofday),
        LET(uname),
        LET(sysinfo),
        LET(getpid),
        LET(getppid),
        LET(gettid),
        LET(getuid),
        LET(geteuid),
        LET(getgid),
        LET(getegid),
        LET(getrusage),
        LET(sched_getaffinity),
        LET(exit_group),
        LET(exit),
        LET_OPEN(openat, 2),
        REFUSE(mkdirat, EROFS),
        REFUSE(unlinkat, EROFS),
        REFUSE(fchmodat, EROFS),
        REFUSE(fchownat, EROFS),
        REFUSE(socket, EAFNOSUPPORT),
        REFUSE(ioctl, ENOTTY),
        REFUSE(prlimit64, EPERM),
#ifdef __x86_64__
        LET(arch_prctl),
        LET(stat),
        LET(lstat),
        LET(access),
        LET(readlink),
        LET(getrlimit),
        REFUSE(mkdir, EROFS),
        REFUSE(unlink, EROFS),
        REFUSE(chmod, EROFS),
        REFUSE(chown, EROFS),
        LET_OPEN(open, 1),
#endif
        ANSWER(SECCOMP_RET_KILL_PROCESS),
};

/* Nothing of it shall be seen, and nothing stay open but this. */
static int silence(struct error *err)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			return fail_sys(err, "/dev/null");
	return 0;
}

int rehearsal_begin(struct error *err)
{
	struct sock_fprog program = {sizeof rules / sizeof *rules, rules};

	if (silence(err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return fail_sys(err, "seccomp");
	return 0;
}

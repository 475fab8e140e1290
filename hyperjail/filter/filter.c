/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Installs a seccomp filter in a program that has started: loaded by LD_PRELOAD, without a libc.
 *
 * A hypervisor opens libraries, firmware and its kernel while it starts, and nothing later. QEMU calls
 * g_main_context_prepare() at the begin of each round of its main loop, for the first time while no
 * processor of the guest has run: it holds the lock that they need. There the filter is put on all
 * threads, before the guest's first instruction.
 *
 * HYPERJAIL_FILTER=REPORT,FILTER has two descriptors: "ready" is written to the first when the filter
 * is in force, the second is a file with the program, an array of struct sock_filter.
 */
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#define INSTRUCTIONS 1024
#define FAILED       125
#define NEXT         ((void *)-1L) /* RTLD_NEXT of dlfcn.h */
#define NOW          2             /* RTLD_NOW */
#define EXPORTED     __attribute__((visibility("default")))

extern char **environ;
void *dlsym(void *handle, const char *name);
void *dlopen(const char *name, int flags);
int g_main_context_prepare(void *context, int *priority);

static int (*next)(void *, int *);
static int report_fd = -1;
static int applied;
static struct sock_filter program[INSTRUCTIONS];
static unsigned short length;

static long call(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
	                 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#else
#error "no system calls for this machine"
#endif
}

static _Noreturn void stop(const char *why, size_t size)
{
	call(SYS_write, report_fd, (long)why, (long)size, 0, 0);
	for (;;)
		call(SYS_exit_group, FAILED, 0, 0, 0, 0);
}
#define STOP(why) stop("error " why "\n", sizeof("error " why "\n") - 1)

static const char *variable(const char *name)
{
	for (char **entry = environ; entry && *entry; entry++) {
		size_t i = 0;

		while (name[i] && (*entry)[i] == name[i])
			i++;
		if (!name[i])
			return *entry + i;
	}
	return NULL;
}

static int number(const char **text)
{
	int value = 0;

	while (**text >= '0' && **text <= '9')
		value = value * 10 + *(*text)++ - '0';
	return value;
}

static void load(int fd)
{
	size_t size = 0;
	long n;

	while (size < sizeof program && (n = call(SYS_pread64, fd, (long)((char *)program + size),
	                                          (long)(sizeof program - size), (long)size, 0)) > 0)
		size += (size_t)n;
	call(SYS_close, fd, 0, 0, 0, 0);
	length = (unsigned short)(size / sizeof program[0]);
	if (!length || size % sizeof program[0])
		STOP("cannot read the filter of system calls");
}

__attribute__((constructor)) static void begin(void)
{
	const char *value = variable("HYPERJAIL_FILTER=");

	if (!value)
		return;
	report_fd = number(&value);
	value += *value == ',';
	load(number(&value));
	next = (int (*)(void *, int *))dlsym(NEXT, "g_main_context_prepare");
	/* glibc loads it when a thread is first cancelled or ends by itself. */
	dlopen("libgcc_s.so.1", NOW);
}

static void apply(void)
{
	static const char ready[] = "ready\n";
	struct sock_fprog filter = {.len = length, .filter = program};

	unsigned int (*random)(void) = (unsigned int (*)(void))dlsym(NEXT, "g_random_int");

	applied = 1;
	/* Its first call opens /dev/urandom; QEMU's own may come with a disk that is plugged in much later. */
	if (random)
		random();
	/* A core, /proc/PID/mem and ptrace are root's only; execve() undid it for us. */
	call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, (long)&filter, 0, 0))
		STOP("cannot apply the filter of system calls");
	call(SYS_write, report_fd, (long)ready, sizeof ready - 1, 0, 0);
	call(SYS_close, report_fd, 0, 0, 0, 0);
}

EXPORTED int g_main_context_prepare(void *context, int *priority)
{
	/* The first thread has the process's number; others run loops of their own, perhaps earlier. */
	if (!applied && length && call(SYS_gettid, 0, 0, 0, 0, 0) == call(SYS_getpid, 0, 0, 0, 0, 0))
		apply();
	return next ? next(context, priority) : 0;
}

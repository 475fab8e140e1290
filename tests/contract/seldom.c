// SPDX-License-Identifier: Apache-2.0
//
// What libraries do seldom, under the filter of QEMU's system calls: `seldom CASE` prints "done".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int g_main_context_prepare(void *context, int *priority) __attribute__((weak)); // hyperjail/filter

#define NEWER 600 // no kernel has a call of this number yet

static void *nothing(void *unused) { return unused; }

static void *pauses(void *unused)
{
	for (;;)
		sleep(1000);
	return unused;
}

static void clocks(void) // as vDSO does where the clock takes the kernel
{
	struct timeval now;
	struct timespec fine;

	if (syscall(SYS_gettimeofday, &now, NULL) || syscall(SYS_clock_gettime, CLOCK_REALTIME, &fine))
		exit(3);
#ifdef SYS_time
	if (syscall(SYS_time, NULL) < 0)
		exit(3);
#endif
	clock_getres(CLOCK_MONOTONIC, &fine);
	sched_getcpu();
}

static void limits(void)
{
	struct rlimit limit;

	for (int name = 0; name < 300; name++)
		sysconf(name);
	for (int name = 0; name < 16; name++)
		getrlimit(name, &limit);
	getpriority(PRIO_PROCESS, 0);
}

static void threads(void)
{
	pthread_attr_t about;
	pthread_t thread;
	void *end;

	pthread_getattr_np(pthread_self(), &about);
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, &end))
		exit(3);
	pthread_setname_np(pthread_self(), "named");
	for (int n = 0; n < 200; n++) // more than it may have
		if (pthread_create(&thread, NULL, nothing, NULL) == EAGAIN)
			break;
}

static void cancelled(void)
{
	pthread_t thread;
	void *end;

	if (pthread_create(&thread, NULL, pauses, NULL))
		exit(3);
	pthread_cancel(thread);
	pthread_join(thread, &end);
}

static void texts(void)
{
	time_t now = time(NULL);
	char text[64], *path;

	strftime(text, sizeof text, "%c %Z", localtime(&now));
	for (int n = 0; n < 140; n++)
		strerror(n);
	for (int n = 1; n < 65; n++)
		strsignal(n);
	path = realpath("/usr/../seldom", NULL);
	free(path);
	path = getcwd(NULL, 0);
	free(path);
}

static void files(void)
{
	if (open("/sys/dev/block/8:0/queue/max_segments", O_RDONLY) >= 0 || errno != ENOSYS)
		exit(3);
	if (unlink("/socket") == 0 || access("/socket", R_OK) == 0)
		exit(3);
}

static void newer(void)
{
	if (syscall(NEWER) != -1 || errno != ENOSYS)
		exit(3);
}

static void aborts(void) { abort(); } // process 1 of its namespace gets no SIGABRT: it ends by a fault

static const struct {
	const char *name;
	void (*work)(void);
} cases[] = {
        {"clocks", clocks}, {"limits", limits}, {"threads", threads}, {"cancelled", cancelled},
        {"texts", texts},   {"files", files},   {"newer", newer},     {"aborts", aborts},
};

int main(int argc, char **argv)
{
	if (g_main_context_prepare)
		g_main_context_prepare(NULL, NULL);
	for (size_t n = 0; argc > 1 && n < sizeof cases / sizeof cases[0]; n++)
		if (!strcmp(argv[1], cases[n].name)) {
			cases[n].work();
			puts("done");
			return 0;
		}
	return 2;
}

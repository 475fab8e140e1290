// SPDX-License-Identifier: Apache-2.0
/* Seven kinds of work, each timed, for `python -m bench.user_mode_linux`. As process 1 it is a whole guest: it mounts
 * what it needs and powers off at the end, or with the argument `reboot` does that. It prints lines `RESULT NAME
 * SECONDS`. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void integers(void)
{
	uint64_t h = 1469598103934665603U;
	for (uint64_t i = 0; i < 100000000; i++) {
		h = (h ^ i) * 1099511628211U;
		h ^= h >> 29;
	}
	volatile uint64_t out = h;
	(void)out;
}

static void floats(void)
{
	double x = 1;
	for (long i = 1; i < 10000000; i++)
		x += 1.0 / (x * (double)i);
	volatile double out = x;
	(void)out;
}

static void programs(void)
{
	for (int i = 0; i < 100; i++) {
		if (fork() == 0) {
			execl("/proc/self/exe", "work", "true", (char *)0);
			_exit(1);
		}
		wait(0);
	}
}

static void calls(void)
{
	for (int i = 0; i < 100000; i++)
		syscall(SYS_getppid);
}

static void pages(void)
{
	size_t size = 32 << 20;
	for (int k = 0; k < 2; k++) {
		char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (size_t i = 0; i < size; i += 4096)
			p[i] = 1;
		munmap(p, size);
	}
}

static void files(void)
{
	char block[4096], name[64];
	memset(block, 7, sizeof block);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "/tmp/hyper-bench-%d", i);
		int f = open(name, O_CREAT | O_RDWR, 0600);
		for (int k = 0; k < 4; k++)
			if (write(f, block, sizeof block) < 0)
				perror(name);
		lseek(f, 0, 0);
		while (read(f, block, sizeof block) > 0)
			continue;
		close(f);
		unlink(name);
	}
}

static void switches(void)
{
	int there[2], back[2];
	char c = 0;
	if (pipe(there) || pipe(back))
		return;
	if (fork() == 0) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1)
			if (write(back[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	for (int i = 0; i < 5000; i++)
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			break;
	close(there[1]);
	wait(0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "true"))
		return 0;
	int init = getpid() == 1;
	if (init) {
		mkdir("/proc", 0755);
		mkdir("/tmp", 0755);
		mount("proc", "/proc", "proc", 0, 0);
		mount("tmpfs", "/tmp", "tmpfs", 0, 0);
	}
	struct {
		const char *name;
		void (*work)(void);
	} all[] = {
	        {"integers", integers}, {"floats", floats}, {"fork+exec", programs}, {"calls", calls},
	        {"page faults", pages}, {"files", files},   {"switches", switches},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		double begun = now();
		all[i].work();
		printf("RESULT %.3f %s\n", now() - begun, all[i].name);
		fflush(stdout);
	}
	if (init)
		reboot(argc > 1 && !strcmp(argv[1], "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Rights that a program does not get: users, capabilities, limits, files by Landlock. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Fixed numbers, the same on all machines; the headers may be older than the kernel. */
#define LANDLOCK_CREATE   444
#define LANDLOCK_ADD      445
#define LANDLOCK_RESTRICT 446
#define FS_OF_ABI_1       ((1ULL << 13) - 1)
#define FS_REFER          (1ULL << 13) /* ABI 2 */
#define FS_TRUNCATE       (1ULL << 14) /* ABI 3 */
#define FS_IOCTL_DEV      (1ULL << 15) /* ABI 5 */
#define NET_TCP           3ULL         /* bind and connect, ABI 4 */
#define INSTRUCTIONS      1024
#define SCOPES            3ULL /* abstract sockets and signals, ABI 6 */
#define READING           (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define OF_A_FILE         (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE)

struct ruleset { /* struct landlock_ruleset_attr of ABI 6 */
	uint64_t fs, net, scoped;
};

static uint64_t files_of(long abi)
{
	return FS_OF_ABI_1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0);
}

static void allow(int ruleset, const char *path, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = access,
	                                          .parent_fd = open(path, O_PATH | O_CLOEXEC)};

	if (rule.parent_fd < 0 || syscall(LANDLOCK_ADD, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		stop("allow %s by Landlock", path);
	close(rule.parent_fd);
}

/* What may be written by its path, under the new root. */
static void allow_entry(int ruleset, const struct entry *entry, uint64_t files)
{
	struct stat about;

	if (entry->kind == READ || entry->kind == DIRECTORY) /* what comes late and is for reading is so mounted */
		return;
	if (stat(entry->target, &about) < 0)
		stop("find %s", entry->target);
	if (!S_ISDIR(about.st_mode))
		files &= OF_A_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
	allow(ruleset, entry->target, files);
}

void confine_files(const struct jail *jail)
{
	long abi = syscall(LANDLOCK_CREATE, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct ruleset rules = {.fs = files_of(abi), .scoped = SCOPES};
	size_t size = abi >= 6 ? sizeof rules : abi >= 4 ? 16 : 8;
	int ruleset;

	if (abi < 1)
		return;
	rules.net = jail->host_network ? 0 : NET_TCP;
	ruleset = (int)syscall(LANDLOCK_CREATE, &rules, size, 0);
	if (ruleset < 0)
		stop("make a ruleset of Landlock");
	allow(ruleset, "/", READING);
	for (size_t i = 0; i < jail->n_entries; i++)
		allow_entry(ruleset, &jail->entries[i], rules.fs);
	if (jail->write_settings)
		allow(ruleset, "/proc/sys/net", rules.fs);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(LANDLOCK_RESTRICT, ruleset, 0) < 0)
		stop("apply Landlock");
	close(ruleset);
}

static void set_limits(const struct jail *jail)
{
	for (size_t i = 0; i < jail->n_limits; i++) {
		struct rlimit now, wanted = {jail->limits[i].value, jail->limits[i].value};

		if (getrlimit(jail->limits[i].which, &now) < 0)
			stop("read limit %d", jail->limits[i].which);
		/* Never above what is in force, but for memory that a device of the host reaches. */
		if (wanted.rlim_max > now.rlim_max && jail->limits[i].which != RLIMIT_MEMLOCK)
			wanted.rlim_cur = wanted.rlim_max = now.rlim_max;
		if (setrlimit(jail->limits[i].which, &wanted) < 0)
			stop("set limit %d", jail->limits[i].which);
	}
}

static void drop_bounding_set(unsigned long long kept)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(kept >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			stop("drop capability %d", cap);
}

void become_user(const struct jail *jail)
{
	if (setgroups(jail->n_groups, jail->groups) < 0 || setresgid(jail->gid, jail->gid, jail->gid) < 0)
		stop("become group %u", jail->gid);
	if (setresuid(jail->uid, jail->uid, jail->uid) < 0)
		stop("become user %u", jail->uid);
}

void give_up_rights(const struct jail *jail)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct kept[2] = {0};

	for (int half = 0; half < 2; half++)
		kept[half].effective = kept[half].permitted = kept[half].inheritable =
		        (unsigned)(jail->capabilities >> 32 * half);
	umask(077);
	set_limits(jail);
	drop_bounding_set(jail->capabilities);
	/* The change of the user would empty the permitted set; capset() below takes the rest away. */
	if (jail->capabilities && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		stop("keep capabilities");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		stop("drop ambient capabilities");
	/* A user namespace made without root's rights has one user, and takes no change of groups. */
	if (!jail->user_namespace)
		become_user(jail);
	if (syscall(SYS_capset, &header, kept) < 0)
		stop("drop capabilities");
	for (unsigned long cap = 0; cap < 64; cap++)
		if (jail->capabilities >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			stop("keep capability %lu", cap);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		stop("refuse new privileges");
}

void filter_calls(const struct jail *jail)
{
	static struct sock_filter program[INSTRUCTIONS];
	struct sock_fprog filter = {.filter = program};
	ssize_t size;

	if (jail->filter < 0)
		return;
	size = pread(jail->filter, program, sizeof program, 0);
	if (size <= 0 || (size_t)size % sizeof program[0])
		stop("read the filter of system calls");
	close(jail->filter);
	filter.len = (unsigned short)((size_t)size / sizeof program[0]);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) < 0)
		stop("apply the filter of system calls");
}

static void write_once(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		stop("write %s", path);
	close(fd);
}

void enter_user_namespace(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char map[64];

	if (unshare(CLONE_NEWUSER) < 0)
		stop("make a user namespace");
	write_once("/proc/self/setgroups", "deny");
	/* User 0 there: /proc/PID of a process that is not dumpable is that user's, and so ours outside. */
	snprintf(map, sizeof map, "0 %u 1", uid);
	write_once("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "0 %u 1", gid);
	write_once("/proc/self/gid_map", map);
}

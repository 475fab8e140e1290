/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperjail REPORT WORD... -- PROGRAM [ARGUMENT...]
 *
 * REPORT is the number of a descriptor. It gets "pid N" when there is a process, N as the caller sees
 * it, and "error SENTENCE" when a step fails; it is closed when the program runs. The process is the
 * caller's child, and process 1 of a PID namespace. Words are in option() below.
 *
 * With the word "plain" there is no jail: the program becomes a user, is in control groups and dies with
 * its caller, as asked for. It has hyperjail's own number then, which is not reported. (The caller has
 * threads: what it did itself after a fork would be done in a copy of a process in any state.)
 *
 * With the words "add", "remove", "cover" and "uncover" nothing is started: late.c.
 */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAILED 125

static int report_fd = -1;

static void write_report(const char *text, size_t length)
{
	while (length) {
		ssize_t n = write(report_fd, text, length);

		if (n < 0 && errno != EINTR)
			return;
		if (n > 0) {
			text += n;
			length -= (size_t)n;
		}
	}
}

void report(const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof line - 1, fmt, args);
	va_end(args);
	strcat(line, "\n");
	write_report(line, strlen(line));
}

void stop(const char *fmt, ...)
{
	char what[400];
	int reason = errno;
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	report("error cannot %s: %s", what, strerror(reason));
	_exit(FAILED);
}

static _Noreturn void misused(const char *word)
{
	errno = EINVAL;
	stop("understand %s", word);
}

static unsigned long long number(const char *text)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end)
		misused(text);
	return value;
}

static void add_entry(struct jail *jail, enum entry_kind kind, const char *source, const char *target)
{
	if (jail->n_entries == ENTRIES || target[0] != '/')
		misused(target);
	jail->entries[jail->n_entries++] = (struct entry){kind, source, target};
}

static void flag(struct jail *jail, const char *word)
{
	if (!strcmp(word, "proc"))
		jail->proc = true;
	else if (!strcmp(word, "settings"))
		jail->settings = true;
	else if (!strcmp(word, "write-settings"))
		jail->settings = jail->write_settings = true;
	else if (!strcmp(word, "nested"))
		jail->nested = true;
	else if (!strcmp(word, "user-namespace"))
		jail->user_namespace = true;
	else if (!strcmp(word, "mapped"))
		jail->user_namespace = jail->mapped = true;
	else if (!strcmp(word, "host-network"))
		jail->host_network = true;
	else if (!strcmp(word, "die-with-parent"))
		jail->die_with_parent = true;
	else if (!strcmp(word, "keep-report"))
		jail->keep_report = true;
	else if (!strcmp(word, "plain"))
		jail->plain = true;
	else
		misused(word);
}

/* One word with its values, which `words` begins with; returns how many that were. */
static int option(struct jail *jail, char *const *words)
{
	static const struct {
		const char *name;
		int values;
	} known[] = {{"user", 2},           {"group", 1},        {"root", 1},
	             {"name", 1},           {"read", 2},         {"write", 2},
	             {"device", 2},         {"directory", 1},    {"late", 1},
	             {"limit", 2},          {"cgroup", 1},       {"capability", 1},
	             {"filter", 1},         {"proc", 0},         {"settings", 0},
	             {"write-settings", 0}, {"nested", 0},       {"mapped", 0},
	             {"user-namespace", 0}, {"host-network", 0}, {"die-with-parent", 0},
	             {"keep-report", 0},    {"plain", 0}};
	const char *word = words[0];
	int values = -1;

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (!strcmp(word, known[i].name))
			values = known[i].values;
	for (int i = 1; i <= values; i++)
		if (!words[i])
			misused(word);
	if (!strcmp(word, "user")) {
		jail->uid = (uid_t)number(words[1]);
		jail->gid = (gid_t)number(words[2]);
		jail->another_user = true;
	} else if (!strcmp(word, "group") && jail->n_groups < GROUPS)
		jail->groups[jail->n_groups++] = (gid_t)number(words[1]);
	else if (!strcmp(word, "root"))
		jail->root = words[1];
	else if (!strcmp(word, "name"))
		jail->name = words[1];
	else if (!strcmp(word, "read"))
		add_entry(jail, READ, words[1], words[2]);
	else if (!strcmp(word, "write"))
		add_entry(jail, WRITE, words[1], words[2]);
	else if (!strcmp(word, "device"))
		add_entry(jail, DEVICE, words[1], words[2]);
	else if (!strcmp(word, "directory"))
		add_entry(jail, DIRECTORY, NULL, words[1]);
	else if (!strcmp(word, "late"))
		add_entry(jail, LATE, NULL, words[1]);
	else if (!strcmp(word, "limit") && jail->n_limits < LIMITS)
		jail->limits[jail->n_limits++] = (struct limit){(int)number(words[1]), number(words[2])};
	else if (!strcmp(word, "cgroup") && jail->n_cgroups < LIMITS)
		jail->cgroups[jail->n_cgroups++] = words[1];
	else if (!strcmp(word, "capability"))
		jail->capabilities |= 1ULL << (number(words[1]) & 63);
	else if (!strcmp(word, "filter"))
		jail->filter = (int)number(words[1]);
	else
		flag(jail, word);
	return 1 + values;
}

static void parse(struct jail *jail, char *const *words)
{
	while (*words && strcmp(*words, "--"))
		words += option(jail, words);
	if (!*words || !words[1])
		misused("a command line without a program");
	jail->program = words + 1;
	if (!jail->root && !jail->plain)
		misused("a command line without a root");
}

static void enter_cgroups(const struct jail *jail)
{
	for (size_t i = 0; i < jail->n_cgroups; i++) {
		int fd = open(jail->cgroups[i], O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, "0", 1) != 1)
			stop("enter the control group of %s", jail->cgroups[i]);
		close(fd);
	}
}

/* The user has changed by now, which would undo it. */
static void die_with_parent(void)
{
	struct pollfd caller = {.fd = report_fd};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&caller, 1, 0) == 1 && caller.revents & (POLLERR | POLLHUP))
		_exit(FAILED); /* it has died before that */
}

static _Noreturn void execute(const struct jail *jail)
{
	if (jail->plain)
		execvp(jail->program[0], jail->program); /* nobody has looked the program up */
	else
		execv(jail->program[0], jail->program);
	stop("execute %s", jail->program[0]);
}

/* In the new process: all that is left, then the program. */
static _Noreturn void become(const struct jail *jail)
{
	if (jail->name && sethostname(jail->name, strlen(jail->name)) < 0)
		stop("set the host name");
	enter_root(jail);
	if (!jail->nested)
		confine_files(jail);
	give_up_rights(jail);
	if (jail->die_with_parent)
		die_with_parent();
	filter_calls(jail);
	execute(jail);
}

/* Without a jail: this process is the program. */
static _Noreturn void become_plainly(const struct jail *jail)
{
	if (jail->another_user)
		become_user(jail);
	if (jail->die_with_parent)
		die_with_parent();
	execute(jail);
}

/* What a program that runs is shown; whether that is what was asked for. */
static bool change_later(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[2] : "";

	if (argc == 7 && (!strcmp(verb, "add") || !strcmp(verb, "cover")))
		(*verb == 'a' ? add_late : cover)((int)number(argv[3]), !strcmp(argv[4], "read"), argv[5], argv[6]);
	else if (argc == 5 && (!strcmp(verb, "remove") || !strcmp(verb, "uncover")))
		(*verb == 'r' ? remove_late : uncover)((int)number(argv[3]), argv[4]);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	static struct jail jail = {.filter = -1};
	int spaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	long pid;

	if (argc == 2 && !strcmp(argv[1], "nothing")) /* to see whether a jail works */
		return 0;
	if (argc < 2)
		return FAILED;
	report_fd = (int)number(argv[1]);
	if (change_later(argc, argv))
		return 0;
	parse(&jail, argv + 2);
	fcntl(report_fd, F_SETFD, jail.keep_report ? 0 : FD_CLOEXEC);
	enter_cgroups(&jail); /* first: the cgroup namespace begins where we are */
	if (jail.plain)
		become_plainly(&jail);
	if (jail.user_namespace && !jail.mapped)
		enter_user_namespace();
	if (!jail.host_network)
		spaces |= CLONE_NEWNET;
	if (unshare(spaces) < 0)
		stop("make namespaces");
	/* A brother of ours: the caller waits for it as for its own child. */
	pid = syscall(SYS_clone, CLONE_PARENT | CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		stop("make a PID namespace");
	if (pid == 0)
		become(&jail);
	report("pid %ld", pid);
	return 0;
}

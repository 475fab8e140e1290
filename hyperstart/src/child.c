/* SPDX-License-Identifier: Apache-2.0 */
/* Between fork and exec: everything that makes a process the container's. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "init.h"
#include "process.h"
#include "seccomp.h"
#include "user.h"

#define LAST_CAP 40
#define ALL_CAPS ((1ull << (LAST_CAP + 1)) - 1)

static _Noreturn void give_up(int status, const struct error *err)
{
	struct child_report report = {.err = *err};
	int exit_status = report.err.exit_status ? report.err.exit_status : 126;

	if (send(status, &report, sizeof report, MSG_NOSIGNAL) < 0)
		exit_status = 125;
	syscall(SYS_exit_group, exit_status);
	__builtin_trap(); /* a filter of the container's own refuses even that */
}

static int report_running(int status, int master, const struct identity *id)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct child_report report = {.pod_pid = (uint64_t)getpid(), .identity = *id};
	struct iovec v = {&report, sizeof report};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	if (master >= 0) {
		struct cmsghdr *c;

		m.msg_control = &control;
		m.msg_controllen = sizeof control;
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &master, sizeof master);
	}
	return sendmsg(status, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int join_group(int group)
{
	cleanup_close int procs = openat(group, "cgroup.procs", O_WRONLY | O_CLOEXEC);

	return procs < 0 || write(procs, "0", 1) < 0 ? -1 : 0;
}

/* The group of the container's main process, and its view of groups: systemd divides its own, which takes no processes
 * then. runc does the same. */
static int join_first(const struct container *c)
{
	char path[64], groups[512];
	const char *own;
	cleanup_free char *dir = NULL;
	cleanup_close int ns = -1, group = -1;

	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)c->first);
	if (!c->first || read_file(AT_FDCWD, path, groups, sizeof groups) < 0 || !(own = strstr(groups, "0::/")))
		return -1;
	dir = xasprintf(CGROUP_ROOT "%.*s", (int)strcspn(own + 3, "\n"), own + 3);
	snprintf(path, sizeof path, "/proc/%d/ns/cgroup", (int)c->first);
	group = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	return group < 0 || ns < 0 || join_group(group) < 0 ? -1 : setns(ns, CLONE_NEWCGROUP);
}

static int join_own_group(const struct container *c, bool main)
{
	int r = join_group(c->cgroup);

	if (r < 0 && errno == EBUSY && !main)
		return join_first(c);
	if (r < 0 && errno == EBUSY) { /* an earlier main process has divided it */
		cgroup_flatten(c->cgroup);
		r = join_group(c->cgroup);
	}
	return r < 0 ? -1 : unshare(CLONE_NEWCGROUP);
}

/* What hyperstart runs itself works in a paused container, too. */
static int join(const struct container *c, bool builtin, bool main, struct error *err)
{
	cleanup_close int tools = builtin ? open(CGROUP_TOOLS, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (builtin ? join_group(tools) < 0 : join_own_group(c, main) < 0)
		return fail_sys(err, "joining the cgroup");
	if (setns(c->mount_ns, CLONE_NEWNS) < 0)
		return fail_sys(err, "joining the container");
	return 0;
}

/* A terminal of the container's own devpts; returns its master. */
static int open_terminal(const struct process_spec *s, uid_t uid, struct error *err)
{
	struct winsize w = {.ws_row = (unsigned short)s->rows, .ws_col = (unsigned short)s->columns};
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), zero = 0, slave;

	if (master < 0 || ioctl(master, TIOCSPTLCK, &zero) < 0)
		return fail_sys(err, "/dev/ptmx");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	if (slave < 0)
		return fail_sys(err, "opening the terminal");
	if (s->rows && ioctl(slave, TIOCSWINSZ, &w) < 0)
		return fail_sys(err, "TIOCSWINSZ");
	if (fchown(slave, uid, (gid_t)-1) < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return fail_sys(err, "controlling terminal");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			return fail_sys(err, "dup2");
	if (slave > 2)
		close(slave);
	return master;
}

static int attach_pipes(const struct child_fds *fds, uid_t uid, struct error *err)
{
	int in = fds->in >= 0 ? fds->in : open("/dev/null", O_RDWR | O_CLOEXEC);

	if (in < 0)
		in = open("/dev/zero", O_RDWR | O_CLOEXEC);
	if (dup2(in, 0) < 0 || dup2(fds->out, 1) < 0 || dup2(fds->err, 2) < 0)
		return fail_sys(err, "standard streams");
	/* Programs reopen /proc/self/fd/1 after they have dropped to the user. */
	if (fchown(1, uid, (gid_t)-1) < 0 || fchown(2, uid, (gid_t)-1) < 0 ||
	    (fds->in >= 0 && fchown(0, uid, (gid_t)-1) < 0))
		return fail_sys(err, "owner of the standard streams");
	return 0;
}

static int set_limits(const struct process_spec *s, struct error *err)
{
	for (size_t i = 0; i < s->rlimit_count; i++) {
		const struct rlimit_spec *l = &s->rlimits[i];
		struct rlimit r = {.rlim_cur = l->soft, .rlim_max = l->hard};

		if (setrlimit((int)l->id, &r) < 0)
			return fail_sys(err, "resource limit %d", (int)l->id);
	}
	return 0;
}

static int drop_bounding(uint64_t keep, struct error *err)
{
	for (int cap = 0; cap <= LAST_CAP; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
			return fail_sys(err, "capability %d", cap);
	return 0;
}

static int hold(uint64_t caps, uint64_t inheritable, struct error *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
	        {(uint32_t)caps, (uint32_t)caps, (uint32_t)inheritable},
	        {(uint32_t)(caps >> 32), (uint32_t)(caps >> 32), (uint32_t)(inheritable >> 32)},
	};

	return syscall(SYS_capset, &head, data) < 0 ? fail_sys(err, "capset") : 0;
}

int child_confine(uint64_t caps, struct error *err)
{
	/* Tests run hyperstart as a user who has none. */
	if (geteuid() == 0 && (drop_bounding(caps, err) < 0 || hold(caps, 0, err) < 0))
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_sys(err, "no_new_privs");
	return seccomp_confine(caps, err);
}

static int raise_ambient(uint64_t caps, struct error *err)
{
	for (int cap = 0; cap <= LAST_CAP; cap++)
		if ((caps >> cap & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return fail_sys(err, "ambient capability %d", cap);
	return 0;
}

/* As runc does: root holds the set; another user has it in the bounding set only, but for what is ambient. Both inherit
 * what that is. What is held beyond that for loading a filter ends with the exec, which looks at these sets alone. */
static int become(const struct process_spec *s, const struct identity *id, struct error *err)
{
	uint64_t ambient = s->has_caps ? s->ambient & s->caps : 0;
	uint64_t own = s->has_caps ? s->caps : ALL_CAPS;
	uint64_t for_filter = s->filter && !s->no_new_privs ? 1ull << CAP_SYS_ADMIN : 0;

	/* First, while it may be set without no_new_privs: the profile allows all that follows. */
	if (s->seccomp && !s->filter && seccomp_confine(s->has_caps ? s->caps : ~0ull, err) < 0)
		return -1;
	if (s->has_caps && drop_bounding(s->caps, err) < 0)
		return -1;
	if ((ambient || for_filter) && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return fail_sys(err, "keeping capabilities");
	if (setgroups(id->group_count, id->groups) < 0 || setgid(id->gid) < 0 || setuid(id->uid) < 0)
		return fail_sys(err, "becoming user %u", (unsigned)id->uid);
	if ((s->has_caps || for_filter) && hold((id->uid == 0 ? own : ambient) | for_filter, ambient, err) < 0)
		return -1;
	if (raise_ambient(ambient, err) < 0)
		return -1;
	if (s->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_sys(err, "no_new_privs");
	return 0;
}

static int enter_directory(const struct process_spec *s, struct error *err)
{
	const char *cwd = s->cwd && *s->cwd ? s->cwd : "/";

	err->exit_status = 126;
	if (s->main && make_dirs(cwd, 0755) < 0 && errno != EROFS)
		return fail(err, HP_E_EXEC, errno, "working directory %s", cwd);
	if (chdir(cwd) < 0)
		return fail(err, HP_E_EXEC, errno, "working directory %s", cwd);
	return 0;
}

/* A container's files as its links are meant: none of them leads to another's. */
static int enter_place(const char *id, const char *dir, struct error *err)
{
	const struct container *c = container_find(id);
	cleanup_free char *path = c ? xasprintf(RUN_DIR "/%s/%s", c->place, dir) : NULL;

	if (!c || !c->ready)
		return fail(err, HP_E_NOT_FOUND, 0, "no container %s", id);
	if (chroot(path) < 0 || chdir("/") < 0)
		return fail_sys(err, "entering the files of container %s", id);
	return 0;
}

static _Noreturn void run_builtin(const struct process_spec *s, struct error *err, int status)
{
	const struct builtin *b = builtin_find(s->builtin);

	err->exit_status = 126;
	if (!b) {
		fail(err, HP_E_MALFORMED, 0, "no builtin %llu", (unsigned long long)s->builtin);
		give_up(status, err);
	}
	/* What containers wrote, sent or answered is read with no more rights than that takes. */
	if ((b->root_dir && enter_place(s->args.v[0], b->root_dir, err) < 0) ||
	    (!b->unconfined && child_confine(b->caps, err) < 0))
		give_up(status, err);
	/* Nothing is executed, so nothing is closed by itself: not even our own
	 * end of the pipe that stdin reads. */
	syscall(SYS_close_range, 3u, ~0u, 0u);
	_exit(b->main(&s->args));
}

static int prepare(const struct process_spec *s, const struct container *c, struct child_fds fds, struct identity *id,
                   struct error *err)
{
	int master = -1;

	/* hyperstart itself is never killed for memory; what it starts may be. */
	write_file("/proc/self/oom_score_adj", "0", 1);
	if (c && (join(c, s->builtin != 0, s->main != 0, err) < 0 || (s->renew_proc && rootfs_renew_proc(c, err) < 0)))
		return -1;
	setsid();
	if (s->builtin)
		*id = (struct identity){.uid = 0};
	else if (identity_resolve(s->user, &s->groups, s->only_groups != 0, id, err) < 0)
		return -1;
	if (s->tty && (master = open_terminal(s, id->uid, err)) < 0)
		return -1;
	if (!s->tty && attach_pipes(&fds, id->uid, err) < 0)
		return -1;
	if (report_running(fds.status, master, id) < 0)
		return fail_sys(err, "reporting");
	if (master >= 0)
		close(master);
	return 0;
}

void child_main(const struct process_spec *s, const struct container *c, struct child_fds fds)
{
	struct error err = {0};
	struct identity id;
	struct strings env = s->env; /* this copy owns the list from here on */
	sigset_t none;
	int own = s->init ? open("/proc/self/exe", O_RDONLY | O_CLOEXEC) : -1;

	/* A copy of what PID 1 knows of all containers: nobody whom it meets shall read it. An exec ends that. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (prepare(s, c, fds, &id, &err) < 0)
		give_up(fds.status, &err);
	if (s->builtin)
		run_builtin(s, &err, fds.status);
	if (set_limits(s, &err) < 0 || enter_directory(s, &err) < 0 || become(s, &id, &err) < 0)
		give_up(fds.status, &err);
	if (!environment_value(&env, "HOME"))
		strings_add(&env, xasprintf("HOME=%s", id.home)); /* so it is never empty */
	if (s->rehearsal && rehearsal_begin(&err) < 0)
		give_up(fds.status, &err);
	if (hooks_run(s, &err) < 0)
		give_up(fds.status, &err);
	err.code = 0;
	process_exec(s, own, &env, &err);
	give_up(fds.status, &err);
}

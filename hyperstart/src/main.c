/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperstart: PID 1 of a HyperContainer guest.
 *
 *   /init                   in a VM: mounts what it needs, serves the channel
 *   /sbin/docker-init -- ARG...  in a container: its init (init.c); before itself it stands alone
 *   hyperstart --fd N       on a host: serves descriptor N (tests)
 *   hyperstart --listen N   on a host: serves the connections of descriptor N, one after another (tests)
 *   hyperstart --version
 *   hyperstart --tsc-khz    on a host: the rate of its time stamp counter
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "init.h"
#include "port.h"
#include "process.h"

#ifndef HYPERSTART_VERSION
#define HYPERSTART_VERSION "dev"
#endif

static bool in_vm;

static void hello(const struct frame *f, struct error *err)
{
	struct cursor c = {f->body, f->body + f->len};
	uint8_t token[HP_TOKEN_SIZE];
	bool has_token = false;
	struct utsname u;
	struct buffer *b;
	size_t start;

	if (pod_hello(c, token, &has_token, err) < 0) {
		send_error(f->id, err);
		return;
	}
	if (has_token)
		channel_set_next_token(token);
	uname(&u);
	b = channel_control();
	start = frame_begin(b, HP_REPLY, f->id);
	put_u64(b, HP_T_VERSION, HP_VERSION);
	put_text(b, HP_T_KERNEL, u.release);
	put_text(b, HP_T_VALUE, HYPERSTART_VERSION);
	put_u64(b, HP_T_UPTIME_MS, monotonic_ms());
	put_u64(b, HP_T_CAPABILITIES,
	        HP_C_FREEZE | HP_C_LIMITS | HP_C_LAYER | HP_C_RELAY | HP_C_FILTER | HP_C_HOOKS | HP_C_FORK |
	                HP_C_ONLY_GROUPS | HP_C_FILES | HP_C_PIDS_OF | HP_C_HOLD);
	process_put_all(b);
	frame_end(b, start);
}

static void list_processes(const struct frame *f, struct error *err)
{
	struct cursor c = {f->body, f->body + f->len};
	cleanup_free char *id = NULL;
	struct container *only = NULL;
	struct attr a;
	int r;

	while ((r = attr_next(&c, &a, err)) > 0)
		if (a.tag == HP_T_CONTAINER && (r = attr_text(&a, &id, err)) < 0)
			break;
	if (r == 0 && id && !(only = container_find(id)))
		r = fail(err, HP_E_NOT_FOUND, 0, "no container %s", id);
	if (r < 0)
		send_error(f->id, err);
	else
		process_list_answer(f->id, only);
}

static enum {
	RUNNING,
	ENDING,
	QUIESCED,
	ENDED
} life; /* QUIESCED: all is written, the ends of processes are to be told */
static uint32_t shutdown_request;

static bool any_alive(void)
{
	for (struct container *c = container_first(); c; c = c->next)
		if (process_any_alive(c))
			return true;
	return false;
}

static void end(void)
{
	life = ENDED;
	send_reply(shutdown_request);
	if (!in_vm)
		loop_stop();
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		process_reaped(pid, status);
	if (life == QUIESCED && !any_alive())
		end();
}

static void on_quiesced(void *arg, pid_t pid, const struct task_report *report)
{
	(void)arg;
	(void)pid;
	life = QUIESCED;
	if (report->err.code) { /* the host shall not wait for what does not end */
		log_line("%s", report->err.message);
		end();
	} else {
		reap();
	}
}

/* Everything ends, what was written is safe, and the host may end the VM. */
static int shut_down(const struct frame *f, struct error *err)
{
	shutdown_request = f->id; /* another connection may ask again */
	if (life == ENDED)
		send_reply(f->id);
	if (life != RUNNING)
		return 0;
	for (struct container *c = container_first(); c; c = c->next)
		container_kill_all(c);
	if (containers_quiesce(on_quiesced, err) < 0)
		return -1;
	life = ENDING;
	return 0;
}

/* A machine that ends begins nothing. */
static int start_something(const struct frame *f, struct error *err)
{
	if (life != RUNNING)
		return fail(err, HP_E_STATE, 0, "the machine is being shut down");
	return f->type == HP_CONTAINER_CREATE ? container_create(f, err) : process_start(f, err);
}

static void on_frame(const struct frame *f)
{
	struct error err = {0};
	int r = 0;

	switch (f->type) {
	case HP_HELLO: hello(f, &err); break;
	case HP_POD_SETUP: r = pod_setup(f, &err); break;
	case HP_CONTAINER_CREATE:
	case HP_PROCESS_START: r = start_something(f, &err); break;
	case HP_CONTAINER_DELETE: r = container_delete(f, &err); break;
	case HP_CONTAINER_FREEZE: r = container_freeze(f, &err); break;
	case HP_CONTAINER_LIMIT: r = container_limit(f, &err); break;
	case HP_PROCESS_SIGNAL: r = process_signal(f, &err); break;
	case HP_PROCESS_RESIZE: r = process_resize(f, &err); break;
	case HP_PROCESS_RELEASE: r = process_release(f, &err); break;
	case HP_STATS: stats_answer(f->id); break;
	case HP_PROCESS_LIST: list_processes(f, &err); break;
	case HP_SHUTDOWN: r = shut_down(f, &err); break;
	case HP_DATA: r = process_data(f, &err); break;
	case HP_WINDOW: r = process_window(f, &err); break;
	default: r = fail(&err, HP_E_UNKNOWN, 0, "no request %u", f->type);
	}
	/* A stream frame may cross the end of its process: that is no error. */
	if (r < 0 && !(f->type >= HP_DATA && err.code == HP_E_NOT_FOUND))
		send_error(f->id, &err);
}

static void on_signal(struct source *s, uint32_t events)
{
	struct signalfd_siginfo info;

	(void)events;
	while (read(s->fd, &info, sizeof info) == sizeof info)
		;
	reap();
}

static void before_wait(void)
{
	process_windows();
	channel_pump();
}

static void mount_all(void)
{
	static const struct {
		const char *type, *target, *options;
	} m[] = {{"proc", "/proc", NULL},
	         {"sysfs", "/sys", NULL},
	         {"devtmpfs", "/dev", NULL},
	         {"cgroup2", CGROUP_ROOT, "nsdelegate,favordynmods"},
	         {"tmpfs", "/run", "mode=0755"}};

	/* pivot_root refuses to leave the initial ramfs: move to a tmpfs. */
	mkdir("/root", 0700);
	if (mount("tmpfs", "/root", "tmpfs", 0, "mode=0755") < 0 || chdir("/root") < 0 ||
	    mount("/root", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		log_line("root: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		if (make_dirs(m[i].target, 0755) < 0 || mount(m[i].type, m[i].target, m[i].type, 0, m[i].options) < 0)
			log_line("mounting %s: %s", m[i].target, strerror(errno));
	make_dirs(RUN_DIR, 0700);
}

static int boot(bool *listens)
{
	struct rlimit files = {1048576, 1048576};
	cleanup_close int console = -1;
	struct error err;

	mount_all();
	console = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	for (int fd = 0; fd < 3 && console >= 0; fd++)
		dup2(console, fd);
	setrlimit(RLIMIT_NOFILE, &files);
	write_file("/proc/self/oom_score_adj", "-1000", 5);
	apply_sysctl(&(struct pair){"kernel.pid_max", "4194304"}, &err); /* memory is what limits them */
	apply_sysctl(&(struct pair){"net.ipv4.ip_unprivileged_port_start", "0"}, &err);
	apply_sysctl(&(struct pair){"net.ipv4.ping_group_range", "0 2147483647"}, &err);
	cgroup_setup();
	return port_open(listens);
}

static void start_signals(void)
{
	static struct source signals = {.ready = on_signal};
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
	signals.fd = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
	loop_add(&signals, EPOLLIN);
}

#ifdef __x86_64__
#define TSC_INTERVAL_NS 50000000

static uint64_t time_stamp(uint64_t *ns)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	*ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return __builtin_ia32_rdtsc();
}

/* An emulated processor counts as the host's does, but a guest cannot measure
 * that well: its timer chip is emulated too. */
static int print_tsc_khz(void)
{
	uint64_t begin_ns, end_ns, begin = time_stamp(&begin_ns), end;

	nanosleep(&(struct timespec){.tv_nsec = TSC_INTERVAL_NS}, NULL);
	end = time_stamp(&end_ns);
	printf("%llu\n", (unsigned long long)((end - begin) * 1000000u / (end_ns - begin_ns)));
	return 0;
}
#else
static int print_tsc_khz(void)
{
	puts("0");
	return 0;
}
#endif

int main(int argc, char **argv)
{
	static const struct channel_user user = {on_frame, process_rewind_all, process_next_data, loop_stop,
	                                         port_recall};
	bool listens = argc == 3 && strcmp(argv[1], "--listen") == 0;
	int fd = -1;

	if (argc > 2 && strcmp(argv[0], INIT_NAME) == 0)
		return init_main(argv + 2);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("hyperstart %s, protocol %d\n", HYPERSTART_VERSION, HP_VERSION);
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "--tsc-khz") == 0)
		return print_tsc_khz();
	if (listens || (argc == 3 && strcmp(argv[1], "--fd") == 0))
		fd = atoi(argv[2]);
	in_vm = fd < 0 && getpid() == 1;
	if (!in_vm && fd < 0) {
		fprintf(stderr,
		        "usage: hyperstart --fd N | --listen N | --version | --tsc-khz (PID 1 needs no arguments)\n");
		return 2;
	}
	loop_init();
	start_signals();
	if (in_vm)
		fd = boot(&listens);
	if (fd < 0) {
		reboot(RB_AUTOBOOT);
		return 1;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	channel_open(fd, listens ? CHANNEL_LISTENING : in_vm ? CHANNEL_PORT : CHANNEL_STREAM, &user);
	loop_run(before_wait);
	channel_flush(1000);
	return 0;
}

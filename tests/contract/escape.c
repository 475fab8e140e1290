/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in a hypervisor's place and tries to get out: `escape N VALUE` makes one attempt, with a number
 * or a path that the test knows; without arguments it tells which there are, and what they are told.
 * It prints what came of it: "worked", or why not. It begins its main loop as QEMU does, by which the filter
 * of system calls comes, if there is one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int g_main_context_prepare(void *context, int *priority) __attribute__((weak));

static const char *value;

static int opens(const char *path, int flags) { return open(path, flags | O_CLOEXEC, 0600); }
static int shadow(void) { return opens("/etc/shadow", O_RDONLY); }
static int passwd(void) { return opens("/etc/passwd", O_RDONLY); }
static int home(void) { return opens("/root", O_RDONLY | O_DIRECTORY); }
static int given_path(void) { return opens(value, O_RDONLY); }
static int etc_new(void) { return opens("/etc/new", O_WRONLY | O_CREAT); }
static int root_new(void) { return opens("/new", O_WRONLY | O_CREAT); }
static int tmp_new(void) { return opens("/tmp/new", O_WRONLY | O_CREAT); }
static int dev_mem(void) { return opens("/dev/mem", O_RDONLY); }
static int dev_kmsg(void) { return opens("/dev/kmsg", O_RDONLY); }
static int dev_tun(void) { return opens("/dev/net/tun", O_RDWR); }
static int dev_sda(void) { return opens("/dev/vda", O_RDONLY); }
static int sysrq(void) { return opens("/proc/sysrq-trigger", O_WRONLY); }
static int core_pattern(void) { return opens("/proc/sys/kernel/core_pattern", O_WRONLY); }
static int release_agent(void) { return opens("/sys/fs/cgroup/release_agent", O_WRONLY); }
static int sys_dir(void) { return opens("/sys", O_RDONLY | O_DIRECTORY); }
static int kallsyms(void) { return opens("/proc/kallsyms", O_RDONLY); }

static int binary_write(void) { return opens("/escape", O_WRONLY); }

static int parent_root(void)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%s/root/etc/shadow", value);
	return opens(path, O_RDONLY);
}

static int others_fds(void)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%s/fd", value);
	return opens(path, O_RDONLY | O_DIRECTORY);
}

static int up_and_out(void) { return opens("../../../../../../../../etc/shadow", O_RDONLY); }

static int chroot_out(void) { return mkdir("/x", 0700) < 0 && errno != EEXIST ? -1 : chroot("/x"); }

static int connects(int family, const void *address, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM, 0);

	return fd < 0 ? -1 : connect(fd, address, size);
}

static int unix_socket(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof a.sun_path, "%s", value);
	return connects(AF_UNIX, &a, sizeof a);
}

static int abstract_socket(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "hyper-test-%s", value);
	return connects(AF_UNIX, &a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1)));
}

static int tcp_loopback(void)
{
	struct sockaddr_in a = {
	        .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(value)), .sin_addr = {htonl(0x7f000001)}};
	return connects(AF_INET, &a, sizeof a);
}

static int tcp_away(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(0x01010101)}};

	return connects(AF_INET, &a, sizeof a);
}

static int raw_socket(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int packet_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0); }
static int kill_parent(void) { return kill(atoi(value), SIGUSR1); }
static int kill_all(void) { return kill(-1, SIGUSR1); }
static int trace_parent(void) { return (int)ptrace(PTRACE_ATTACH, atoi(value), NULL, NULL); }
static int read_parent(void)
{
	char here[8];
	struct iovec local = {here, sizeof here}, remote = {(void *)0x400000, sizeof here};

	return (int)syscall(SYS_process_vm_readv, atoi(value), &local, 1UL, &remote, 1UL, 0UL);
}
static int pidfd(void) { return (int)syscall(SYS_pidfd_open, atoi(value), 0); }
static int mount_proc(void) { return mount("proc", "/proc", "proc", 0, NULL); }
static int mount_tmpfs(void) { return mount("tmpfs", "/dev", "tmpfs", 0, NULL); }
static int remount_root(void) { return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL); }
static int unmounts(void) { return umount2("/proc", MNT_DETACH); }
static int join_parent(void)
{
	int fd = (int)syscall(SYS_pidfd_open, atoi(value), 0);

	return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
}
static int node(void) { return mknod("/dev/sda", S_IFBLK | 0600, 8 << 8); }
static int bpf(void)
{
	union bpf_attr a = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof a);
}
static int module(void) { return (int)syscall(SYS_init_module, "", 0UL, ""); }
static int become_root(void) { return setuid(0); }
static int root_groups(void)
{
	gid_t none = 0;

	return (int)syscall(SYS_setgroups, 1UL, &none);
}
static int host_name(void) { return sethostname("x", 1); }
static int clock_set(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t); /* what it is already */
	return clock_settime(CLOCK_REALTIME, &t);
}
static int reboots(void) { return reboot(RB_DISABLE_CAD); }
static int more_files(void)
{
	struct rlimit l = {1 << 20, 1 << 20};

	return setrlimit(RLIMIT_NOFILE, &l);
}
static int nice_up(void) { return setpriority(PRIO_PROCESS, 0, -5); }
static int capability(void) { return prctl(PR_CAPBSET_READ, 21 /* CAP_SYS_ADMIN */) == 1 ? 0 : -1; }

static const struct {
	const char *name;
	const char *value; /* what it is told */
	int (*attempt)(void);
} attempts[] = {
        {"open the host's /etc/shadow", "none", shadow},
        {"open the host's /etc/passwd", "none", passwd},
        {"open root's home", "none", home},
        {"open a file of the host", "path", given_path},
        {"open /etc/shadow above the root", "none", up_and_out},
        {"make a file in /etc", "none", etc_new},
        {"make a file in /", "none", root_new},
        {"make a file in /tmp", "none", tmp_new},
        {"write to its own binary", "none", binary_write},
        {"open /dev/mem", "none", dev_mem},
        {"open /dev/kmsg", "none", dev_kmsg},
        {"open /dev/net/tun", "none", dev_tun},
        {"open a disk of the host", "none", dev_sda},
        {"open /proc/sysrq-trigger", "none", sysrq},
        {"open /proc/sys/kernel/core_pattern", "none", core_pattern},
        {"open release_agent", "none", release_agent},
        {"open /sys", "none", sys_dir},
        {"open /proc/kallsyms", "none", kallsyms},
        {"open a file through its parent's root", "pid", parent_root},
        {"list another's descriptors", "pid", others_fds},
        {"change the root", "none", chroot_out},
        {"connect to a unix socket", "socket", unix_socket},
        {"connect to an abstract socket", "abstract", abstract_socket},
        {"connect to the host's loopback", "port", tcp_loopback},
        {"connect to an address far away", "none", tcp_away},
        {"make a raw socket", "none", raw_socket},
        {"make a packet socket", "none", packet_socket},
        {"signal its parent", "pid", kill_parent},
        {"signal everybody", "none", kill_all},
        {"trace its parent", "pid", trace_parent},
        {"read its parent's memory", "pid", read_parent},
        {"get a pidfd of its parent", "pid", pidfd},
        {"join its parent's namespace", "pid", join_parent},
        {"mount a /proc", "none", mount_proc},
        {"mount over /dev", "none", mount_tmpfs},
        {"make its root writable", "none", remount_root},
        {"unmount /proc", "none", unmounts},
        {"make a node for a disk", "none", node},
        {"make a BPF map", "none", bpf},
        {"load a kernel module", "none", module},
        {"become root", "none", become_root},
        {"take root's group", "none", root_groups},
        {"set the host's name", "none", host_name},
        {"set the clock", "none", clock_set},
        {"change how the host reboots", "none", reboots},
        {"raise a limit", "none", more_files},
        {"run before others", "none", nice_up},
        {"keep a capability in its bounding set", "none", capability},
};

int main(int argc, char **argv)
{
	char line[256];
	int n, result, length;

	if (argc < 3) {
		for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++)
			printf("%s|%s\n", attempts[i].name, attempts[i].value);
		return 0;
	}
	n = atoi(argv[1]);
	value = argv[2];
	if (g_main_context_prepare)
		g_main_context_prepare(NULL, NULL);
	result = attempts[n].attempt();
	length = snprintf(line, sizeof line, "%s\n", result < 0 ? strerror(errno) : "worked");
	return write(1, line, (size_t)length) != length;
}

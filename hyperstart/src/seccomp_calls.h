/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that Docker's default profile lets a container make
 * (github.com/moby/profiles, seccomp/default_linux.go). Those whose arguments
 * count are in seccomp.c. X(name): always; C(name, capability): to who has it;
 * U and V: the same, for those that have one number on every architecture,
 * which this compiler's headers may not know yet.
 */
#ifndef SECCOMP_CALLS_H
#define SECCOMP_CALLS_H

/* clang-format off */
#define CALLS_EVERYWHERE \
	X(accept4) X(adjtimex) X(bind) X(brk) X(capget) X(capset) X(chdir) X(clock_adjtime) X(clock_getres) \
	X(clock_gettime) X(clock_nanosleep) X(close) X(connect) X(copy_file_range) X(dup) X(dup3) X(epoll_create1) \
	X(epoll_ctl) X(epoll_pwait) X(eventfd2) X(execve) X(execveat) X(exit) X(exit_group) X(faccessat) X(fadvise64) \
	X(fallocate) X(fanotify_mark) X(fchdir) X(fchmod) X(fchmodat) X(fchown) X(fchownat) X(fcntl) X(fdatasync) \
	X(fgetxattr) X(flistxattr) X(flock) X(fremovexattr) X(fsetxattr) X(fstat) X(fstatfs) X(fsync) X(ftruncate) \
	X(futex) X(get_robust_list) X(getcpu) X(getcwd) X(getdents64) X(getegid) X(geteuid) X(getgid) X(getgroups) \
	X(getitimer) X(getpeername) X(getpgid) X(getpid) X(getppid) X(getpriority) X(getrandom) X(getresgid) \
	X(getresuid) X(getrlimit) X(getrusage) X(getsid) X(getsockname) X(getsockopt) X(gettid) X(gettimeofday) \
	X(getuid) X(getxattr) X(inotify_add_watch) X(inotify_init1) X(inotify_rm_watch) X(io_cancel) X(io_destroy) \
	X(io_getevents) X(io_pgetevents) X(io_setup) X(io_submit) X(ioctl) X(ioprio_get) X(ioprio_set) X(kill) \
	X(lgetxattr) X(linkat) X(listen) X(listxattr) X(llistxattr) X(lremovexattr) X(lseek) X(lsetxattr) X(madvise) \
	X(membarrier) X(memfd_create) X(mincore) X(mkdirat) X(mknodat) X(mlock) X(mlock2) X(mlockall) X(mmap) \
	X(mprotect) X(mq_getsetattr) X(mq_notify) X(mq_open) X(mq_timedreceive) X(mq_timedsend) X(mq_unlink) X(mremap) \
	X(msgctl) X(msgget) X(msgrcv) X(msgsnd) X(msync) X(munlock) X(munlockall) X(munmap) X(name_to_handle_at) \
	X(nanosleep) X(openat) X(pipe2) X(pkey_alloc) X(pkey_free) X(pkey_mprotect) X(ppoll) X(prctl) X(pread64) \
	X(preadv) X(preadv2) X(prlimit64) X(process_vm_readv) X(process_vm_writev) X(pselect6) X(ptrace) X(pwrite64) \
	X(pwritev) X(pwritev2) X(read) X(readahead) X(readlinkat) X(readv) X(recvfrom) X(recvmmsg) X(recvmsg) \
	X(remap_file_pages) X(removexattr) X(renameat) X(renameat2) X(restart_syscall) X(rseq) X(rt_sigaction) \
	X(rt_sigpending) X(rt_sigprocmask) X(rt_sigqueueinfo) X(rt_sigreturn) X(rt_sigsuspend) X(rt_sigtimedwait) \
	X(rt_tgsigqueueinfo) X(sched_get_priority_max) X(sched_get_priority_min) X(sched_getaffinity) X(sched_getattr) \
	X(sched_getparam) X(sched_getscheduler) X(sched_rr_get_interval) X(sched_setaffinity) X(sched_setattr) \
	X(sched_setparam) X(sched_setscheduler) X(sched_yield) X(seccomp) X(semctl) X(semget) X(sendfile) X(sendmmsg) \
	X(sendmsg) X(sendto) X(set_robust_list) X(set_tid_address) X(setfsgid) X(setfsuid) X(setgid) X(setgroups) \
	X(setitimer) X(setpgid) X(setpriority) X(setregid) X(setresgid) X(setresuid) X(setreuid) X(setrlimit) \
	X(setsid) X(setsockopt) X(setuid) X(setxattr) X(shmat) X(shmctl) X(shmdt) X(shmget) X(shutdown) X(sigaltstack) \
	X(signalfd4) X(socketpair) X(splice) X(statfs) X(statx) X(symlinkat) X(sync) X(sync_file_range) X(syncfs) \
	X(sysinfo) X(tee) X(tgkill) X(timer_create) X(timer_delete) X(timer_getoverrun) X(timer_gettime) \
	X(timer_settime) X(timerfd_create) X(timerfd_gettime) X(timerfd_settime) X(times) X(tkill) X(truncate) \
	X(umask) X(uname) X(unlinkat) X(utimensat) X(vmsplice) X(wait4) X(waitid) X(write) X(writev)

#define CALLS_64 \
	X(accept) X(newfstatat) X(semop) X(semtimedop)

#define CALLS_X86 \
	X(access) X(alarm) X(arch_prctl) X(chmod) X(chown) X(creat) X(dup2) X(epoll_create) X(epoll_wait) X(eventfd) \
	X(fork) X(futimesat) X(get_thread_area) X(getdents) X(getpgrp) X(inotify_init) X(lchown) X(link) X(lstat) \
	X(mkdir) X(mknod) X(modify_ldt) X(open) X(pause) X(pipe) X(poll) X(readlink) X(rename) X(rmdir) X(select) \
	X(set_thread_area) X(signalfd) X(stat) X(symlink) X(time) X(unlink) X(utime) X(utimes) X(vfork)

#define CALLS_I386 \
	X(_llseek) X(_newselect) X(chown32) X(clock_adjtime64) X(clock_getres_time64) X(clock_gettime64) \
	X(clock_nanosleep_time64) X(fadvise64_64) X(fchown32) X(fcntl64) X(fstat64) X(fstatat64) X(fstatfs64) \
	X(ftruncate64) X(futex_time64) X(getegid32) X(geteuid32) X(getgid32) X(getgroups32) X(getresgid32) \
	X(getresuid32) X(getuid32) X(io_pgetevents_time64) X(ipc) X(lchown32) X(lstat64) X(mmap2) \
	X(mq_timedreceive_time64) X(mq_timedsend_time64) X(ppoll_time64) X(pselect6_time64) X(recvmmsg_time64) \
	X(rt_sigtimedwait_time64) X(sched_rr_get_interval_time64) X(semtimedop_time64) X(sendfile64) X(setfsgid32) \
	X(setfsuid32) X(setgid32) X(setgroups32) X(setregid32) X(setresgid32) X(setresuid32) X(setreuid32) X(setuid32) \
	X(sigprocmask) X(sigreturn) X(socketcall) X(stat64) X(statfs64) X(timer_gettime64) X(timer_settime64) \
	X(timerfd_gettime64) X(timerfd_settime64) X(truncate64) X(ugetrlimit) X(utimensat_time64) X(waitpid)

#define CALLS_EVERYWHERE_BY_CAPABILITY \
	C(bpf, BPF) C(bpf, SYS_ADMIN) C(fanotify_init, SYS_ADMIN) C(lookup_dcookie, SYS_ADMIN) C(mount, SYS_ADMIN) \
	C(perf_event_open, PERFMON) C(perf_event_open, SYS_ADMIN) C(quotactl, SYS_ADMIN) C(setdomainname, SYS_ADMIN) \
	C(sethostname, SYS_ADMIN) C(setns, SYS_ADMIN) C(syslog, SYS_ADMIN) C(syslog, SYSLOG) C(umount2, SYS_ADMIN) \
	C(unshare, SYS_ADMIN) C(open_by_handle_at, DAC_READ_SEARCH) C(reboot, SYS_BOOT) C(chroot, SYS_CHROOT) \
	C(delete_module, SYS_MODULE) C(init_module, SYS_MODULE) C(finit_module, SYS_MODULE) C(acct, SYS_PACCT) \
	C(kcmp, SYS_PTRACE) C(settimeofday, SYS_TIME) C(clock_settime, SYS_TIME) C(vhangup, SYS_TTY_CONFIG) \
	C(get_mempolicy, SYS_NICE) C(mbind, SYS_NICE) C(set_mempolicy, SYS_NICE)

#define CALLS_X86_BY_CAPABILITY \
	C(iopl, SYS_RAWIO) C(ioperm, SYS_RAWIO)

#define CALLS_I386_BY_CAPABILITY \
	C(umount, SYS_ADMIN) C(stime, SYS_TIME) C(clock_settime64, SYS_TIME)

#define CALLS_NEW \
	U(pidfd_send_signal, 424) V(open_tree, 428, SYS_ADMIN) V(move_mount, 429, SYS_ADMIN) V(fsopen, 430, SYS_ADMIN) \
	V(fsconfig, 431, SYS_ADMIN) V(fsmount, 432, SYS_ADMIN) V(fspick, 433, SYS_ADMIN) U(pidfd_open, 434) \
	U(close_range, 436) U(openat2, 437) V(pidfd_getfd, 438, SYS_PTRACE) U(faccessat2, 439) \
	V(process_madvise, 440, SYS_PTRACE) U(epoll_pwait2, 441) V(mount_setattr, 442, SYS_ADMIN) \
	V(quotactl_fd, 443, SYS_ADMIN) U(landlock_create_ruleset, 444) U(landlock_add_rule, 445) \
	U(landlock_restrict_self, 446) U(memfd_secret, 447) U(process_mrelease, 448) U(futex_waitv, 449) \
	V(set_mempolicy_home_node, 450, SYS_NICE) U(cachestat, 451) U(fchmodat2, 452) U(map_shadow_stack, 453) \
	U(futex_wake, 454) U(futex_wait, 455) U(futex_requeue, 456) U(statmount, 457) U(listmount, 458) \
	V(lsm_get_self_attr, 459, SYS_ADMIN) V(lsm_set_self_attr, 460, SYS_ADMIN) V(lsm_list_modules, 461, SYS_ADMIN) \
	U(mseal, 462) U(setxattrat, 463) U(getxattrat, 464) U(listxattrat, 465) U(removexattrat, 466)

#define CALL_LAST 466 /* what is newer is answered as by a kernel that lacks it */
/* clang-format on */

#endif

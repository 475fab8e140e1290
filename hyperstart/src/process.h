/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: start, streams, signals, exit; kept until the host releases them. */
#ifndef PROCESS_H
#define PROCESS_H

#include <linux/capability.h>

#include "container.h"
#include "stream.h"
#include "user.h"

#define MAX_RLIMITS 16
#define MAX_HOOKS   16

struct rlimit_spec {
	uint64_t id, soft, hard;
};

struct hook_spec {
	char *path, *input;
	struct strings args, env;
	uint64_t timeout_ms;
};

struct process_spec {
	char *container, *cwd, *user, *pids_of;
	struct strings args, env, groups;
	uint64_t tty, rows, columns, want_stdin, caps, ambient, no_new_privs, main, builtin, rehearsal, seccomp,
	        own_pids, init, only_groups;
	struct sock_filter *filter; /* in the profile's place; NULL: none */
	size_t filter_len;          /* instructions */
	uint64_t filter_flags;
	bool has_caps;
	bool renew_proc;                /* what /proc shows is of another PID namespace */
	const struct container *target; /* in whose PID namespace it is; NULL: in none of another container's */
	struct rlimit_spec rlimits[MAX_RLIMITS];
	size_t rlimit_count;
	struct hook_spec hooks[MAX_HOOKS];
	size_t hook_count;
};

struct process {
	struct process *next;
	uint32_t id;
	uint32_t request;            /* answered when the program runs or could not */
	pid_t pid;                   /* as hyperstart sees it */
	uint64_t pod_pid;            /* as the pod sees it */
	struct identity identity;    /* whose it began as */
	struct container *container; /* NULL: outside of all */
	struct source status;        /* open until exec has happened */
	struct input in;
	struct output out, err;
	bool tty, main, started, exited, oom;
	int wait_status;
	uint64_t oom_before;
	uint64_t asked_ns, ready_ns, started_ns; /* of its request, before its exec, after it */
};

/* What the forked child tells before exec: an error, or its pid with code 0. */
struct child_report {
	struct error err;
	uint64_t pod_pid;
	struct identity identity;
};

struct child_fds {
	int status, in, out, err; /* in, out, err: -1 for a terminal */
};

struct process *process_find(uint32_t id);
void process_free(struct process *p);
int process_start(const struct frame *f, struct error *err);
int process_signal(const struct frame *f, struct error *err);
int process_resize(const struct frame *f, struct error *err);
int process_release(const struct frame *f, struct error *err);
int process_data(const struct frame *f, struct error *err);
int process_window(const struct frame *f, struct error *err);
bool process_any_alive(const struct container *c);
void process_reaped(pid_t pid, int wait_status);
void process_put_all(struct buffer *b); /* for the HELLO reply */
void process_rewind_all(void);
void process_windows(void);
bool process_next_data(struct buffer *out);

/* process_spec.c */
int process_spec_parse(struct cursor cur, struct process_spec *s, struct error *err);
void process_spec_free(struct process_spec *s);

/* hook.c: they are run in turn, by the process that is about to be the program; nothing after one that fails */
int hook_parse(const struct attr *a, struct process_spec *s, struct error *err);
int hooks_run(const struct process_spec *s, struct error *err);
void hooks_free(struct process_spec *s);

/* child.c: in the forked child, does not return */
_Noreturn void child_main(const struct process_spec *s, const struct container *c, struct child_fds fds);

/* exec.c: returns when that has failed. `init` is hyperstart's own binary, for a process below an init. */
void process_exec(const struct process_spec *s, int init, const struct strings *variables, struct error *err);
const char *environment_value(const struct strings *env, const char *name); /* NULL: not there */

/* rehearsal.c */
int rehearsal_begin(struct error *err);

/* Gives up all but these CAP_* bits and the calls that Docker's profile grants with them, for good. */
int child_confine(uint64_t caps, struct error *err);

/* builtin.c: what runs in a child instead of a program; returns an exit status */
typedef int builtin_main(const struct strings *args);
struct builtin {
	builtin_main *main;
	uint64_t caps; /* that it needs */
	const char
	        *root_dir; /* below the directory of the container that ARG[0] names: its root; NULL: none of its own */
	bool unconfined;
};
const struct builtin *builtin_find(uint64_t number);

builtin_main volume_mount_main, volume_unmount_main, tcp_main, http_main, firewall_main, diff_main, layer_main,
        relay_main, share_main, files_main, hold_main;

/* watch.c: until the directory has gone; an exit status */
int watch_files(const char *path, bool recursive);

/* check.c: a descriptor that does not block, or -1 and errno */
int tcp_connect(const char *address, const char *port, int timeout_ms);

/* archive_create.c, archive_extract.c */
int archive_create(const char *path, bool follow, int out);
int archive_export(int out);
struct extract_options {
	const struct identity *owner; /* of all that is unpacked; NULL: whom the archive names */
	bool replace;                 /* a file may take a directory's place, and the reverse */
};
int archive_extract(const char *dir, const struct extract_options *options, int in);
#define ARCHIVE_READ_CAPS (1ull << CAP_DAC_READ_SEARCH)
#define ARCHIVE_WRITE_CAPS                                                                                             \
	(1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID | 1ull << CAP_MKNOD |  \
	 1ull << CAP_SETFCAP)

#endif

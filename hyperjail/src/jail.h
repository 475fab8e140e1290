/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hyperjail: starts one program with only what it is handed.
 *
 * A step that fails ends the process, after one sentence on the report; nothing is undone, since all
 * that was made (namespaces, mounts) ends with it.
 */
#ifndef JAIL_H
#define JAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define ENTRIES                 512
#define GROUPS                  8
#define LIMITS                  16

enum entry_kind { READ, WRITE, DEVICE, DIRECTORY, LATE };

/* A file or directory of the host that the program finds. */
struct entry {
	enum entry_kind kind;
	const char *source; /* of an empty directory, and of one for what comes later: none */
	const char *target; /* in the new root, absolute */
};

struct limit {
	int which;
	unsigned long long value;
};

/* What the words of the command line ask for. */
struct jail {
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS];
	size_t n_groups;
	const char *root; /* an empty directory to mount the new root on */
	const char *name; /* host name in there */
	struct entry entries[ENTRIES];
	size_t n_entries;
	struct limit limits[LIMITS];
	size_t n_limits;
	unsigned long long capabilities; /* that it keeps, by their bits */
	int filter;                      /* descriptor with a filter of system calls, for its start on; -1: none */
	const char *cgroups[LIMITS];     /* files that take the number of a process */
	size_t n_cgroups;
	bool plain;           /* no jail */
	bool another_user;    /* uid and gid are what to become */
	bool user_namespace;  /* without root's rights */
	bool mapped;          /* whoever executed us made it */
	bool host_network;    /* stay in the host's */
	bool die_with_parent; /* be killed when the caller dies */
	bool keep_report;     /* leave the report open for the program */
	bool proc;            /* a /proc of its own */
	bool settings;        /* with /proc/sys in it, and all of /proc read-only */
	bool write_settings;  /* but not /proc/sys/net */
	bool nested;          /* it makes namespaces itself, which Landlock would refuse */
	char *const *program; /* NULL-terminated */
};

/* Ends the process after "cannot ...: reason" on the report; the reason is errno's. */
_Noreturn void stop(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A line for the report. */
void report(const char *fmt, ...) PRINTF_LIKE(1, 2);

void enter_root(const struct jail *jail);
void add_late(int namespace, bool read_only, const char *source, const char *target);
void remove_late(int namespace, const char *target);
void cover(int namespace, bool read_only, const char *source, const char *target);
void uncover(int namespace, const char *target);
void confine_files(const struct jail *jail); /* by Landlock, where the kernel has it */
void become_user(const struct jail *jail);
void give_up_rights(const struct jail *jail);
void filter_calls(const struct jail *jail);
void enter_user_namespace(void);

#endif

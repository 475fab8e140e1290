/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>

#include "seccomp.h"

#define FILTER_FLAGS (SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW)

static int parse_rlimit(const struct attr *a, struct process_spec *s, struct error *err)
{
	struct cursor c = attr_nested(a);
	struct rlimit_spec *l = &s->rlimits[s->rlimit_count];
	struct attr b;
	int r;

	if (s->rlimit_count == MAX_RLIMITS)
		return fail(err, HP_E_MALFORMED, 0, "more than %d resource limits", MAX_RLIMITS);
	while ((r = attr_next(&c, &b, err)) > 0) {
		switch (b.tag) {
		case HP_T_ID: r = attr_u64(&b, &l->id, err); break;
		case HP_T_SOFT: r = attr_u64(&b, &l->soft, err); break;
		case HP_T_HARD: r = attr_u64(&b, &l->hard, err); break;
		}
		if (r < 0)
			return -1;
	}
	s->rlimit_count++;
	return r;
}

/* What it does is for the kernel to check. */
static int parse_filter(const struct attr *a, struct process_spec *s, struct error *err)
{
	if (a->len == 0 || a->len % sizeof *s->filter || a->len / sizeof *s->filter > SECCOMP_FILTER_MAX)
		return fail(err, HP_E_MALFORMED, 0, "a seccomp filter of %u bytes", a->len);
	free(s->filter);
	s->filter = xmalloc(a->len);
	memcpy(s->filter, a->data, a->len);
	s->filter_len = a->len / sizeof *s->filter;
	return 0;
}

static int parse_attr(const struct attr *a, struct process_spec *s, struct error *err)
{
	switch (a->tag) {
	case HP_T_CONTAINER: return attr_text(a, &s->container, err);
	case HP_T_ARG: return attr_add_text(a, &s->args, err);
	case HP_T_ENV: return attr_add_text(a, &s->env, err);
	case HP_T_GROUP: return attr_add_text(a, &s->groups, err);
	case HP_T_CWD: return attr_text(a, &s->cwd, err);
	case HP_T_USER: return attr_text(a, &s->user, err);
	case HP_T_TTY: return attr_u64(a, &s->tty, err);
	case HP_T_ROWS: return attr_u64(a, &s->rows, err);
	case HP_T_COLUMNS: return attr_u64(a, &s->columns, err);
	case HP_T_STDIN: return attr_u64(a, &s->want_stdin, err);
	case HP_T_NO_NEW_PRIVS: return attr_u64(a, &s->no_new_privs, err);
	case HP_T_MAIN: return attr_u64(a, &s->main, err);
	case HP_T_REHEARSAL: return attr_u64(a, &s->rehearsal, err);
	case HP_T_OWN_PIDS: return attr_u64(a, &s->own_pids, err);
	case HP_T_INIT: return attr_u64(a, &s->init, err);
	case HP_T_SECCOMP: return attr_u64(a, &s->seccomp, err);
	case HP_T_BUILTIN: return attr_u64(a, &s->builtin, err);
	case HP_T_RLIMIT: return parse_rlimit(a, s, err);
	case HP_T_HOOK: return hook_parse(a, s, err);
	case HP_T_ONLY_GROUPS: return attr_u64(a, &s->only_groups, err);
	case HP_T_FILTER: return parse_filter(a, s, err);
	case HP_T_FILTER_FLAGS: return attr_u64(a, &s->filter_flags, err);
	case HP_T_AMBIENT: return attr_u64(a, &s->ambient, err);
	case HP_T_PIDS_OF: return attr_text(a, &s->pids_of, err);
	case HP_T_CAPS: s->has_caps = true; return attr_u64(a, &s->caps, err);
	}
	return 0;
}

int process_spec_parse(struct cursor cur, struct process_spec *s, struct error *err)
{
	struct attr a;
	int r;

	while ((r = attr_next(&cur, &a, err)) > 0)
		if (parse_attr(&a, s, err) < 0)
			return -1;
	if (r == 0 && s->seccomp > HP_SECCOMP_DEFAULT)
		return fail(err, HP_E_MALFORMED, 0, "no seccomp profile %llu", (unsigned long long)s->seccomp);
	if (r == 0 && s->filter_flags & ~(uint64_t)FILTER_FLAGS)
		return fail(err, HP_E_MALFORMED, 0, "seccomp flags %llx", (unsigned long long)s->filter_flags);
	if (r == 0 && s->args.n == 0)
		return fail(err, HP_E_MALFORMED, 0, "a process needs at least one argument");
	return r;
}

void process_spec_free(struct process_spec *s)
{
	free(s->container);
	free(s->cwd);
	free(s->user);
	free(s->pids_of);
	free(s->filter);
	strings_free(&s->args);
	strings_free(&s->env);
	strings_free(&s->groups);
	hooks_free(s);
}

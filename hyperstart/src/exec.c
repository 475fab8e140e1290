/* SPDX-License-Identifier: Apache-2.0 */
/* The last step of a child: its filter, and its program. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "init.h"
#include "process.h"
#include "seccomp.h"

const char *environment_value(const struct strings *env, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], name, n) == 0 && env->v[i][n] == '=')
			return env->v[i] + n + 1;
	return NULL;
}

/* The program's path by PATH, while the process may still look; or its name, of which exec_program() has to say. */
static char *find_program(const struct process_spec *s, const struct strings *variables)
{
	const char *name = s->args.v[0], *path = environment_value(variables, "PATH");

	while (path && !strchr(name, '/')) {
		size_t n = strcspn(path, ":");
		cleanup_free char *file = xasprintf("%.*s/%s", (int)n, path, name);
		struct stat st;

		if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, X_OK) == 0)
			return xstrndup(file, strlen(file));
		path = path[n] ? path + n + 1 : NULL;
	}
	return xstrndup(name, strlen(name));
}

/* The last thing before the exec: a filter of the container's own need not allow anything else that happens here. */
static int load_filter(const struct process_spec *s, struct error *err)
{
	return s->filter ? seccomp_load(s->filter, s->filter_len, s->filter_flags, err) : 0;
}

/* execvpe() with the container's PATH, and 126/127 told apart as shells do. */
static void exec_program(const struct process_spec *s, const struct strings *variables, struct error *err)
{
	cleanup_free char *found = s->filter ? find_program(s, variables) : NULL;
	const char *name = found ? found : s->args.v[0], *path = environment_value(variables, "PATH");
	char **env = variables->v;
	int first = ENOENT;

	if (load_filter(s, err) < 0)
		return;
	if (strchr(name, '/')) {
		execve(name, s->args.v, env);
		first = errno;
	}
	for (const char *p = path; p && !strchr(name, '/');) {
		size_t n = strcspn(p, ":");
		cleanup_free char *file = xasprintf("%.*s/%s", (int)n, p, name);
		struct stat st;

		if (stat(file, &st) == 0 && S_ISREG(st.st_mode)) {
			execve(file, s->args.v, env);
			if (errno != ENOENT && first == ENOENT)
				first = errno;
			else if (errno == ENOENT)
				first = ENOEXEC; /* the file is there: its interpreter is not */
		}
		p = p[n] ? p + n + 1 : NULL;
	}
	err->exit_status = first == ENOENT || first == ENOTDIR ? 127 : 126;
	if (first == ENOENT && !strchr(name, '/'))
		fail(err, HP_E_EXEC, 0, "exec: \"%s\": executable file not found in $PATH", name);
	else
		fail(err, HP_E_EXEC, first, "exec: \"%s\"", name);
	err->errnum = first;
}

/* hyperstart's own binary, which the container has not. */
static void exec_init(const struct process_spec *s, int binary, const struct strings *variables, struct error *err)
{
	struct strings args = {0};
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", binary);
	strings_add(&args, xasprintf(INIT_NAME));
	strings_add(&args, xasprintf("--"));
	for (size_t i = 0; i < s->args.n; i++)
		strings_add(&args, xasprintf("%s", s->args.v[i]));
	if (load_filter(s, err) < 0)
		return;
	if (s->filter) /* it allows one of both, as programs need it */
		execve(path, args.v, variables->v);
	syscall(SYS_execveat, binary, "", args.v, variables->v, AT_EMPTY_PATH);
	fail(err, HP_E_EXEC, errno, "exec: " INIT_NAME);
}

void process_exec(const struct process_spec *s, int init, const struct strings *variables, struct error *err)
{
	if (s->init)
		exec_init(s, init, variables, err);
	else
		exec_program(s, variables, err);
}

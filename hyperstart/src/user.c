/* SPDX-License-Identifier: Apache-2.0 */
#include "user.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hyper_protocol.h"

#define MAX_FIELDS 8
#define TABLE_MAX  (1 << 20)

/* Splits a passwd or group line in place. */
static size_t split(char *line, char **field)
{
	size_t n = 0;

	line[strcspn(line, "\r\n")] = 0;
	while (n < MAX_FIELDS) {
		field[n++] = line;
		line = strchr(line, ':');
		if (!line)
			break;
		*line++ = 0;
	}
	return n;
}

static bool parse_id(const char *s, uint32_t *out)
{
	char *end;
	unsigned long long v;

	if (!isdigit((unsigned char)*s))
		return false;
	v = strtoull(s, &end, 10);
	if (*end || v > UINT32_MAX - 1)
		return false;
	*out = (uint32_t)v;
	return true;
}

static void add_group(struct identity *id, gid_t gid)
{
	for (size_t i = 0; i < id->group_count; i++)
		if (id->groups[i] == gid)
			return;
	if (id->group_count < MAX_GROUPS)
		id->groups[id->group_count++] = gid;
}

/* A container's own file, of which no more than this is read, and which is not waited for. */
static FILE *open_table(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	FILE *f;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > TABLE_MAX)
		return NULL;
	f = fdopen(fd, "r");
	if (f)
		fd = -1;
	return f;
}

/* Finds a passwd entry by name, or else by number; numbers need no entry. */
static int find_user(const char *want, struct identity *out, char **name, struct error *err)
{
	FILE *f = open_table("/etc/passwd");
	uint32_t number = 0;
	bool numeric = parse_id(want, &number), found = false;
	cleanup_free char *line = NULL;
	size_t cap = 0;

	while (f && !found && getline(&line, &cap, f) >= 0) {
		char *v[MAX_FIELDS];
		uint32_t uid, gid;

		if (split(line, v) < 6 || !parse_id(v[2], &uid) || !parse_id(v[3], &gid))
			continue;
		if (strcmp(v[0], want) != 0 && !(numeric && uid == number))
			continue;
		found = true;
		out->uid = uid;
		out->gid = gid;
		snprintf(out->home, sizeof out->home, "%s", v[5]);
		free(*name);
		*name = xstrndup(v[0], strlen(v[0]));
	}
	if (f)
		fclose(f);
	if (!found && !numeric)
		return fail(err, HP_E_EXEC, 0, "unable to find user %s: no matching entries in passwd file", want);
	if (!found)
		out->uid = number;
	return 0;
}

static bool is_member(char *members, const char *name)
{
	for (char *save, *m = strtok_r(members, ",", &save); m; m = strtok_r(NULL, ",", &save))
		if (strcmp(m, name) == 0)
			return true;
	return false;
}

/* want: a group's name or number, or NULL to add the groups of member. */
static int find_group(const char *want, const char *member, struct identity *out, gid_t *gid, struct error *err)
{
	FILE *f = open_table("/etc/group");
	uint32_t number = 0;
	bool numeric = want && parse_id(want, &number), found = false;
	cleanup_free char *line = NULL;
	size_t cap = 0;

	while (f && !found && getline(&line, &cap, f) >= 0) {
		char *v[MAX_FIELDS];
		uint32_t id;
		size_t n = split(line, v);

		if (n < 3 || !parse_id(v[2], &id))
			continue;
		if (want && (strcmp(v[0], want) == 0)) {
			found = true;
			*gid = id;
		} else if (!want && n > 3 && is_member(v[3], member)) {
			add_group(out, id);
		}
	}
	if (f)
		fclose(f);
	if (want && !found && numeric)
		*gid = number;
	if (want && !found && !numeric)
		return fail(err, HP_E_EXEC, 0, "unable to find group %s: no matching entries in group file", want);
	return 0;
}

int identity_resolve(const char *user, const struct strings *extra, bool only, struct identity *out, struct error *err)
{
	cleanup_free char *spec = xstrndup(user ? user : "", user ? strlen(user) : 0);
	cleanup_free char *name = xstrndup("", 0);
	char *group = strchr(spec, ':');

	*out = (struct identity){.home = "/"};
	err->exit_status = 126;
	if (group)
		*group++ = 0;
	if (find_user(*spec ? spec : "0", out, &name, err) < 0)
		return -1;
	if (group && *group) {
		if (find_group(group, NULL, out, &out->gid, err) < 0)
			return -1;
	} else if (*name && !only) {
		find_group(NULL, name, out, NULL, err);
	}
	for (size_t i = 0; extra && i < extra->n; i++) {
		gid_t gid = 0;

		if (find_group(extra->v[i], NULL, out, &gid, err) < 0)
			return -1;
		add_group(out, gid);
	}
	add_group(out, out->gid);
	return 0;
}

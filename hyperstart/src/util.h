/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors and small helpers.
 *
 * Error convention: a function that can fail takes `struct error *err` last,
 * returns 0 or a useful non-negative number on success, and -1 on failure
 * after filling err; err is untouched on success. Out of memory is not an
 * error that PID 1 can handle with profit: x*() functions abort.
 */
#ifndef UTIL_H
#define UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define ARRAY_LEN(a)            (sizeof(a) / sizeof((a)[0]))

struct error {
	int code;        /* enum hp_error */
	int errnum;      /* errno or 0 */
	int exit_status; /* for HP_E_EXEC */
	char message[320];
};

int fail(struct error *err, int code, int errnum, const char *fmt, ...) PRINTF_LIKE(4, 5);
#define fail_sys(err, ...) fail(err, HP_E_SYSTEM, errno, __VA_ARGS__)

void log_line(const char *fmt, ...) PRINTF_LIKE(1, 2);

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrndup(const void *p, size_t len);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);

static inline void free_ptr(void *p) { free(*(void **)p); }
static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
#define cleanup_free  __attribute__((cleanup(free_ptr)))
#define cleanup_close __attribute__((cleanup(close_fd)))

/* A NULL-terminated list of owned strings. */
struct strings {
	char **v;
	size_t n;
};
void strings_add(struct strings *s, char *owned);
void strings_free(struct strings *s);

int read_file(int dirfd, const char *path, char *buf, size_t size); /* length or -1 */
int write_file(const char *path, const void *data, size_t len);
int make_dirs(const char *path, int mode); /* mkdir -p */
int make_parents(const char *path);        /* mkdir -p of the dirname */
int write_all(int fd, const void *data, size_t len);
int read_all(int fd, void *data, size_t len); /* 1 all, 0 end, -1 */
int set_flags(int fd, bool nonblock);

uint64_t now_ns(void); /* since the epoch */
uint64_t monotonic_ms(void);

#endif

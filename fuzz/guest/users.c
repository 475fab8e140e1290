/* SPDX-License-Identifier: Apache-2.0 */
/* /etc/passwd and /etc/group, which belong to the container: the input is both,
 * after a line with the user. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const void *table;
static size_t table_size;

static int open_table_in_memory(void) {
  int fd = memfd_create("table", MFD_CLOEXEC);

  if (fd >= 0 && (write(fd, table, table_size) != (ssize_t)table_size ||
                  lseek(fd, 0, SEEK_SET) < 0)) {
    close(fd);
    return -1;
  }
  return fd;
}

#define open(path, flags) open_table_in_memory()
#include "../../hyperstart/src/user.c"
#undef open

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *line = memchr(data, '\n', size);
  cleanup_free char *user = xstrndup(data, line ? (size_t)(line - data) : size);
  struct strings extra = {0};
  struct identity id;
  struct error err;

  table = line ? line + 1 : data;
  table_size = line ? size - (size_t)(line + 1 - data) : 0;
  strings_add(&extra, xstrndup(user, strlen(user)));
  if (identity_resolve(user, &extra, false, &id, &err) == 0 &&
      (id.group_count > MAX_GROUPS || id.uid == (uid_t)-1))
    abort();
  strings_free(&extra);
  return 0;
}

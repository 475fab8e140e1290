/* SPDX-License-Identifier: Apache-2.0 */
/* Containers: a mount namespace, a control group, and the disks beneath. */
#ifndef CONTAINER_H
#define CONTAINER_H

#include "channel.h"
#include "loop.h"
#include "task.h"

#define RUN_DIR      "/run/hyper"
#define CGROUP_ROOT  "/sys/fs/cgroup"
#define CGROUP_TOOLS CGROUP_ROOT "/tools"
#define VOLUME_DIR   RUN_DIR "/volumes"
#define SHM_DIR      RUN_DIR "/shm"

struct mount_spec {
	char *type, *source, *target, *data;
	uint64_t flags;
};

struct file_spec {
	char *target;
	uint8_t *content;
	size_t len;
	uint64_t mode, uid, gid;
};

struct pair {
	char *name, *value;
};

struct container_spec {
	char *image_disk, *image_fstype, *scratch_disk;
	uint64_t readonly, devices, memory_max, cpu_max, pids_max;
	struct mount_spec *mounts;
	size_t mount_count;
	struct file_spec *files;
	size_t file_count;
	struct pair *sysctls;
	size_t sysctl_count;
	struct strings masked, readonly_paths;
};

struct container {
	struct container *next;
	char *id;
	char *place; /* directory below RUN_DIR and the cgroup root; its id may change, this does not */
	struct container_spec spec;
	uint32_t request; /* answered when it is built, or removed */
	uint64_t asked_ns;
	struct source memory_events;
	struct source freeze_events, freeze_limit; /* while it is about to be frozen */
	uint32_t freeze_request;                   /* answered then; 0: none */
	uint64_t oom_reported;                     /* kills for memory that the host knows of */
	int mount_ns, cgroup;
	int pid_ns;    /* of its main process, while that runs in one of its own; -1: the pod's */
	pid_t first;   /* its main process, while that runs; as hyperstart sees it */
	bool own_pids; /* the latest main process had a PID namespace of its own: what /proc shows is that one's */
	bool ready, frozen;
	struct error failure; /* why it could not be built */
};

struct container *container_find(const char *id);
struct container *container_first(void);
int container_create(const struct frame *f, struct error *err);
int container_delete(const struct frame *f, struct error *err);
/* Of a request; its FREEZE, if it has one. */
struct container *container_named(const struct frame *f, uint64_t *freeze, struct error *err);
void container_kill_all(struct container *c);
uint64_t container_oom_kills(const struct container *c);
void container_free(struct container *c);

/* removal.c: what may have to wait for a container's processes and disks, in children */
void container_remove(struct container *c);
int containers_quiesce(task_done *done, struct error *err);

/* freeze.c */
int container_freeze(const struct frame *f, struct error *err);
void container_freeze_forget(struct container *c); /* it goes: who waits for its processes to stand still hears so */

/* limits.c */
int container_limit(const struct frame *f, struct error *err);

/* cgroup.c */
void cgroup_watch(struct container *c);      /* tells the host of kills for memory */
void cgroup_report_oom(struct container *c); /* those that it has not been told of */
int cgroup_setup(void);
int cgroup_create(struct container *c, struct error *err);
int cgroup_limit(const struct container *c, const struct container_spec *limits, struct error *err);
/* Waits until nothing runs in it: never in PID 1. False: it did not come to that. */
bool cgroup_wait_empty(const char *place, int timeout_ms);
void cgroup_remove(const char *place);
/* Takes away what the container has divided its group into, so that it takes processes again. */
void cgroup_flatten(int cgroup);
/* Those in the group and below, a line each, as hyperstart sees them, as many as fit. */
char *cgroup_pids(const struct container *c, char *pids, size_t size);
uint64_t cgroup_number(const struct container *c, const char *file, const char *key);

/* device.c */
int devices_limit(int cgroup, struct error *err);

/* rootfs.c: runs in the builder, ends in the container's root */
int rootfs_mount(const struct container *c, struct error *err);
int rootfs_enter(const struct container *c, struct error *err);
void rootfs_unmount(const struct container *c);
int rootfs_file(const struct container *c, size_t i, const struct file_spec *f, struct error *err);
int rootfs_renew_proc(const struct container *c, struct error *err); /* inside of the container */
void rootfs_freeze_scratch(const struct container *c);

/* pod.c */
int pod_setup(const struct frame *f, struct error *err);
int pod_hello(struct cursor c, uint8_t token[HP_TOKEN_SIZE], bool *has_token, struct error *err);
int parse_sysctl(const struct attr *a, struct pair *out, struct error *err);
int apply_sysctl(const struct pair *p, struct error *err);

/* volume.c */
int find_disk(const char *serial, char *out, size_t size, struct error *err);
int disk_quiesce(const char *serial, struct error *err);
int volume_open(const struct container *c, const struct mount_spec *m,
                struct error *err); /* a copy of the mount, to be attached */
int volume_attach(const struct mount_spec *m, int tree, struct error *err);
void volumes_freeze(void);

/* stats.c */
void stats_answer(uint32_t id);
void process_list_answer(uint32_t id, const struct container *only);

#endif

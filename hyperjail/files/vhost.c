/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user: https://www.qemu.org/docs/master/interop/vhost-user.html
 * The queues are split ones: https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html, 2.7 and 5.11
 */
#include "vhost.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR,
	SET_VRING_BASE,
	SET_VRING_KICK = 12,
	SET_VRING_CALL,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES,
	SET_VRING_ENABLE = 18
};

#define VERSION           1u
#define PROTOCOL_FEATURES (1ull << 30)
#define VIRTIO_1          (1ull << 32)

#define UNANSWERED 0 /* queues: of messages without an answer, and of all others */
#define REQUESTS   1
#define QUEUES     2
#define ENTRIES    (2 * SLOTS) /* of a queue: each message has one for itself and one for its answer */
#define NEXT       1           /* flags of an entry */
#define WRITE      2

struct header {
	uint32_t request, flags, size;
};
struct vring_state {
	uint32_t index, value;
};
struct vring_address {
	uint32_t index, flags;
	uint64_t descriptors, used, available, log;
};
struct region {
	uint32_t count, padding;
	uint64_t guest, size, user, offset;
};

struct entry {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};
struct queue {
	struct entry entries[ENTRIES];
	struct {
		uint16_t flags, index, ring[ENTRIES], event;
	} available;
	struct {
		_Alignas(4) uint16_t flags;
		uint16_t index;
		struct {
			uint32_t id, length;
		} ring[ENTRIES];
		uint16_t event;
	} used;
};

/* What the server shares with us; it counts its addresses from 0. */
static struct memory {
	_Alignas(4096) struct queue queues[QUEUES];
	_Alignas(4096) struct {
		uint8_t request[MESSAGE_MAX], answer[MESSAGE_MAX];
	} slots[SLOTS];
} * memory;

static int kicks[QUEUES];
static uint16_t seen[QUEUES]; /* of the entries that the server has done with */
static bool taken[SLOTS];

static void send_message(int server, uint32_t request, const void *body, size_t size, int fd)
{
	struct header header = {request, VERSION, (uint32_t)size};
	struct iovec parts[] = {{&header, sizeof header}, {(void *)body, size}};
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = size ? 2 : 1};

	if (fd >= 0) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		*c = (struct cmsghdr){
		        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
		message.msg_control = control;
		message.msg_controllen = sizeof control;
	}
	if (sendmsg(server, &message, MSG_NOSIGNAL) != (ssize_t)(sizeof header + size))
		stop("the server of directories takes no messages: %s", strerror(errno));
}

static uint64_t ask(int server, uint32_t request)
{
	struct {
		struct header header;
		uint32_t low, high;
	} answer;

	send_message(server, request, NULL, 0, -1);
	if (recv(server, &answer, sizeof answer, MSG_WAITALL) != sizeof answer || answer.header.request != request)
		stop("the server of directories does not answer");
	return (uint64_t)answer.high << 32 | answer.low;
}

static void set_number(int server, uint32_t request, uint64_t value, int fd)
{
	send_message(server, request, &value, sizeof value, fd);
}

static void set_state(int server, uint32_t request, uint32_t queue, uint32_t value)
{
	struct vring_state state = {queue, value};

	send_message(server, request, &state, sizeof state, -1);
}

static void share_memory(int server)
{
	struct region region = {.count = 1, .size = sizeof *memory};
	int fd = memfd_create("files", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof *memory) < 0)
		stop("no memory for the queues: %s", strerror(errno));
	memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		stop("no memory for the queues: %s", strerror(errno));
	region.user = (uint64_t)(uintptr_t)memory;
	send_message(server, SET_MEM_TABLE, &region, sizeof region, fd);
	close(fd);
}

static void start_queue(int server, uint32_t number, int call)
{
	struct queue *q = &memory->queues[number];
	struct vring_address address = {
	        .index = number,
	        .descriptors = (uint64_t)(uintptr_t)q->entries,
	        .used = (uint64_t)(uintptr_t)&q->used,
	        .available = (uint64_t)(uintptr_t)&q->available,
	};

	kicks[number] = eventfd(0, EFD_CLOEXEC);
	if (kicks[number] < 0)
		stop("eventfd: %s", strerror(errno));
	set_state(server, SET_VRING_NUM, number, ENTRIES);
	set_state(server, SET_VRING_BASE, number, 0);
	send_message(server, SET_VRING_ADDR, &address, sizeof address, -1);
	set_number(server, SET_VRING_CALL, number, call);
	set_number(server, SET_VRING_KICK, number, kicks[number]);
	set_state(server, SET_VRING_ENABLE, number, 1);
}

int vhost_start(int server)
{
	int call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (call < 0)
		stop("eventfd: %s", strerror(errno));
	if ((ask(server, GET_FEATURES) & (PROTOCOL_FEATURES | VIRTIO_1)) != (PROTOCOL_FEATURES | VIRTIO_1))
		stop("the server of directories is too old");
	ask(server, GET_PROTOCOL_FEATURES);
	set_number(server, SET_PROTOCOL_FEATURES, 0, -1);
	send_message(server, SET_OWNER, NULL, 0, -1);
	set_number(server, SET_FEATURES, PROTOCOL_FEATURES | VIRTIO_1, -1);
	share_memory(server);
	for (uint32_t i = 0; i < QUEUES; i++)
		start_queue(server, i, call);
	return call;
}

int vhost_slot(void)
{
	/* The lowest, so that few of their pages are ever used. */
	for (int i = 0; i < SLOTS; i++)
		if (!taken[i])
			return i;
	return -1;
}

uint8_t *vhost_request(int slot) { return memory->slots[slot].request; }

void vhost_submit(int slot, size_t size, size_t answer)
{
	int number = answer ? REQUESTS : UNANSWERED;
	struct queue *q = &memory->queues[number];
	uint16_t first = (uint16_t)(2 * slot), index = q->available.index;

	taken[slot] = true;
	q->entries[first] = (struct entry){
	        .address = (uint64_t)(memory->slots[slot].request - (uint8_t *)memory),
	        .length = (uint32_t)size,
	        .flags = answer ? NEXT : 0,
	        .next = (uint16_t)(first + 1),
	};
	q->entries[first + 1] = (struct entry){
	        .address = (uint64_t)(memory->slots[slot].answer - (uint8_t *)memory),
	        .length = (uint32_t)answer,
	        .flags = WRITE,
	};
	q->available.ring[index % ENTRIES] = first;
	__atomic_store_n(&q->available.index, (uint16_t)(index + 1), __ATOMIC_SEQ_CST);
	if (eventfd_write(kicks[number], 1) < 0)
		stop("eventfd: %s", strerror(errno));
}

const uint8_t *vhost_answer(size_t *size)
{
	for (int number = 0; number < QUEUES; number++) {
		struct queue *q = &memory->queues[number];
		uint32_t id, length;

		if (__atomic_load_n(&q->used.index, __ATOMIC_SEQ_CST) == seen[number])
			continue;
		id = __atomic_load_n(&q->used.ring[seen[number] % ENTRIES].id, __ATOMIC_RELAXED);
		length = __atomic_load_n(&q->used.ring[seen[number] % ENTRIES].length, __ATOMIC_RELAXED);
		seen[number]++;
		if (id % 2 || id / 2 >= SLOTS || !taken[id / 2] || length > MESSAGE_MAX)
			stop("the server of directories answers what nobody asked");
		taken[id / 2] = false;
		*size = number == REQUESTS ? length : 0;
		return memory->slots[id / 2].answer;
	}
	return NULL;
}

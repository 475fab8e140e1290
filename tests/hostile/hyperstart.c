/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as hyperstart does until the moment in which it begins to do this:
 *
 *   0 nothing wrong
 *   1 never says a word
 *   2 sends noise without a token
 *   3 leaves the version out of hello
 *   4 has another version
 *   5 has an attribute longer than its frame
 *   6 has a number of three bytes
 *   7 has a frame of no length
 *   8 has a frame of four gigabytes
 *   9 knows fifty thousand processes
 *  10 knows a process beyond all numbers
 *  11 refuses hello with a long sentence
 *  12 answers hello for ever
 *  13 answers what nobody asked
 *  14 sends frames of no kind
 *  15 begins a frame and never ends it
 *  16 says the token again and again
 *  17 is silent when the pod is set up
 *  18 refuses the pod with an impossible code
 *  19 answers the container with another frame
 *  20 sends output beyond its credit
 *  21 sends output with a gap
 *  22 sends output from the end of all numbers
 *  23 sends output of a process that is not there
 *  24 sends output of a ninth stream
 *  25 grants credit without end
 *  26 acknowledges what was never sent
 *  27 ends a process again and again
 *  28 ends a process with an impossible code
 *  29 ends processes that are not there
 *  30 floods the console
 *  31 tells spans of a megabyte
 *  32 panics
 *  33 kills for memory without end
 *  34 cuts data frames short
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "port.h"
#include "wire.h"

static char mark[] = "hostile-case=00"; /* the host writes the number here */
static int fd;
static uint32_t process;

static void put(const void *data, size_t len)
{
	const uint8_t *p = data;
	struct pollfd out = {.fd = fd, .events = POLLOUT};

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EAGAIN) {
			poll(&out, 1, 1000);
			continue;
		}
		if (n <= 0) /* the host has left: what it says to the next one is the same */
			usleep(10000);
		else
			p += n, len -= (size_t)n;
	}
}

static void put_frame(uint16_t type, uint32_t id, const void *body, size_t len)
{
	struct buffer b = {0};
	size_t start = frame_begin(&b, type, id);

	buf_append(&b, body, len);
	frame_end(&b, start);
	put(b.data, b.len);
	buf_free(&b);
}

/* A frame of one number, and a text if there is one. */
static void put_simple(uint16_t type, uint32_t id, uint16_t tag, uint64_t value, uint16_t text_tag, const char *text)
{
	struct buffer b = {0};

	put_u64(&b, tag, value);
	if (text)
		put_text(&b, text_tag, text);
	put_frame(type, id, b.data, b.len);
	buf_free(&b);
}

static _Noreturn void flood(const void *data, size_t len)
{
	for (;;)
		put(data, len);
}

static _Noreturn void silence(void)
{
	for (;;)
		pause();
}

static void put_data(uint32_t id, uint8_t stream, uint64_t offset, size_t len)
{
	uint8_t *body = xcalloc(1, HP_STREAM_HEADER + len);

	body[0] = stream;
	store64(body + 8, offset);
	put_frame(HP_DATA, id, body, HP_STREAM_HEADER + len);
	free(body);
}

static void put_window(uint32_t id, uint64_t ack, uint64_t limit)
{
	uint8_t body[24] = {0};

	store64(body + 8, ack);
	store64(body + 16, limit);
	put_frame(HP_WINDOW, id, body, sizeof body);
}

static char *long_text(size_t len)
{
	char *text = xmalloc(len + 1);

	memset(text, 'A', len);
	text[len] = 0;
	return text;
}

static void hello_of(struct buffer *b, uint64_t version)
{
	put_u64(b, HP_T_VERSION, version);
	put_text(b, HP_T_KERNEL, "6.1");
	put_text(b, HP_T_VALUE, "hostile");
	put_u64(b, HP_T_UPTIME_MS, 5);
}

static void known_process(struct buffer *b, uint64_t id)
{
	size_t start = nest_begin(b, HP_T_PROCESS);

	put_u64(b, HP_T_ID, id);
	put_u64(b, HP_T_PID, 2);
	put_u64(b, HP_T_STDIN_ACK, 0);
	put_u64(b, HP_T_STDIN_EOF, 0);
	nest_end(b, start);
}

static void on_hello(int hostile, uint32_t id)
{
	struct buffer b = {0};
	uint8_t frame[HP_FRAME_HEADER] = {0};

	if (hostile != 3)
		hello_of(&b, hostile == 4 ? 99 : HP_VERSION);
	switch (hostile) {
	case 5: store32(b.data + 4, 0xffffff); break;
	case 6: store32(b.data + 4, 3); break;
	case 7: flood(frame, sizeof frame);
	case 8: store32(frame, 0xffffffff); flood(frame, sizeof frame);
	case 9:
		for (uint64_t n = 1; n <= 50000 && b.len < HP_FRAME_MAX - 200; n++)
			known_process(&b, n);
		break;
	case 10: known_process(&b, 1ull << 32); break;
	case 11: {
		char *text = long_text(HP_FRAME_MAX - 200);

		put_simple(HP_ERROR, id, HP_T_CODE, 1, HP_T_MESSAGE, text);
		silence();
	}
	case 12:
		for (;;)
			put_frame(HP_REPLY, id, b.data, b.len);
	case 13:
		put_frame(HP_REPLY, id, b.data, b.len);
		for (uint32_t n = 1000;; n++)
			put_frame(HP_REPLY, n, b.data, b.len);
	case 14:
		put_frame(HP_REPLY, id, b.data, b.len);
		for (uint32_t n = 0;; n++)
			put_frame((uint16_t)(200 + n % 1000), n, b.data, b.len);
	case 15:
		put_frame(HP_REPLY, id, b.data, b.len);
		store32(frame, HP_FRAME_MAX);
		put(frame, sizeof frame);
		for (;; usleep(1000))
			put("x", 1);
	case 16: put_frame(HP_REPLY, id, b.data, b.len); flood(HP_FIRST_TOKEN, HP_TOKEN_SIZE);
	}
	put_frame(HP_REPLY, id, b.data, b.len);
	buf_free(&b);
}

static void on_started(int hostile, uint32_t id)
{
	char *text;

	process = id;
	switch (hostile) {
	case 20:
		for (uint64_t at = 0;; at += 32768)
			put_data(id, 1, at, 32768);
	case 21: put_data(id, 1, 4096, 10); break;
	case 22: put_data(id, 1, ~0ull - 5, 10); break;
	case 23:
		for (;;)
			put_data(id + 77, 1, 0, 32768);
	case 24:
		for (;;)
			put_data(id, 9, 0, 32768);
	case 25: put_window(id, 0, 1ull << 62); break;
	case 26: put_window(id, 1ull << 40, 1ull << 41); break;
	case 27:
		for (;;)
			put_simple(HP_EXITED, id, HP_T_CODE, 3, 0, NULL);
	case 28: put_simple(HP_EXITED, id, HP_T_CODE, 1ull << 40, 0, NULL); break;
	case 29:
		for (uint32_t n = id + 1;; n++)
			put_simple(HP_EXITED, n, HP_T_CODE, 0, 0, NULL);
	case 30: {
		int console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);

		text = long_text(65536);
		for (;;)
			if (console < 0 || write(console, text, 65536) < 0)
				usleep(1000);
	}
	case 31:
		text = long_text(HP_FRAME_MAX - 200);
		for (;;)
			put_simple(HP_EXITED, id, HP_T_CODE, 3, HP_T_SPAN, text);
	case 32: _exit(1); /* of process 1 */
	case 33:
		for (;;)
			put_simple(HP_OOM, 0, HP_T_OOM, 1, HP_T_CONTAINER, "nobody");
	case 34:
		for (;;)
			put_frame(HP_DATA, id, "abc", 3);
	}
}

static void on_frame(int hostile, uint16_t type, uint32_t id)
{
	switch (type) {
	case HP_HELLO: on_hello(hostile, id); return;
	case HP_POD_SETUP:
		if (hostile == 17)
			silence();
		if (hostile == 18) {
			put_simple(HP_ERROR, id, HP_T_CODE, ~0ull, HP_T_MESSAGE, "no");
			return;
		}
		break;
	case HP_CONTAINER_CREATE:
		if (hostile == 19) {
			put_data(id, 1, 0, 10);
			return;
		}
		break;
	case HP_PROCESS_START:
		put_simple(HP_REPLY, id, HP_T_PID, 2, 0, NULL);
		on_started(hostile, id);
		return;
	case HP_DATA:
	case HP_WINDOW: return;
	case HP_PROCESS_SIGNAL:
		put_frame(HP_REPLY, id, "", 0);
		put_simple(HP_EXITED, process, HP_T_SIGNAL, 9, 0, NULL);
		return;
	}
	put_frame(HP_REPLY, id, "", 0);
}

static void mount_all(void)
{
	static const char *const what[][2] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

	for (size_t i = 0; i < ARRAY_LEN(what); i++) {
		mkdir(what[i][1], 0755);
		mount(what[i][0], what[i][1], what[i][0], 0, NULL);
	}
}

int main(void)
{
	const volatile char *digit = strchr(mark, '=') + 1;
	int hostile = (digit[0] - '0') * 10 + (digit[1] - '0');
	struct buffer rx = {0};
	bool connected = false, listens;

	mount_all();
	fd = port_open(&listens);
	if (fd < 0 || listens || hostile == 1)
		silence();
	if (hostile == 2) {
		char *noise = long_text(32768);

		flood(noise, 32768);
	}
	for (;;) {
		struct pollfd in = {.fd = fd, .events = POLLIN};
		uint8_t chunk[65536];
		ssize_t n = read(fd, chunk, sizeof chunk);

		if (n <= 0) {
			poll(&in, 1, 100);
			continue;
		}
		buf_append(&rx, chunk, (size_t)n);
		if (!connected && rx.len >= HP_TOKEN_SIZE) {
			put(rx.data, HP_TOKEN_SIZE);
			rx.len -= HP_TOKEN_SIZE;
			memmove(rx.data, rx.data + HP_TOKEN_SIZE, rx.len);
			connected = true;
		}
		while (connected && rx.len >= HP_FRAME_HEADER && rx.len >= le32(rx.data)) {
			uint32_t size = le32(rx.data);
			uint16_t type = le16(rx.data + 4);
			uint32_t id = le32(rx.data + 8);

			rx.len -= size;
			memmove(rx.data, rx.data + size, rx.len);
			on_frame(hostile, type, id);
		}
	}
}

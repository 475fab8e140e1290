/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding of attributes. Bounds are checked here and nowhere else. */
#ifndef WIRE_H
#define WIRE_H

#include "hyper_protocol.h"
#include "util.h"

struct cursor {
	const uint8_t *p, *end;
};

struct attr {
	uint16_t tag;
	const uint8_t *data;
	uint32_t len;
};

/* 1: an attribute was read; 0: the end; -1: malformed. */
int attr_next(struct cursor *c, struct attr *a, struct error *err);
static inline struct cursor attr_nested(const struct attr *a) { return (struct cursor){a->data, a->data + a->len}; }
int attr_u64(const struct attr *a, uint64_t *out, struct error *err);
int attr_text(const struct attr *a, char **out, struct error *err); /* frees what *out held */
int attr_add_text(const struct attr *a, struct strings *out, struct error *err);

/* A growing buffer that frames are built in. */
struct buffer {
	uint8_t *data;
	size_t len, cap;
};
void buf_append(struct buffer *b, const void *data, size_t len);
void buf_free(struct buffer *b);
size_t frame_begin(struct buffer *b, uint16_t type, uint32_t id);
void frame_end(struct buffer *b, size_t start);
void put_u64(struct buffer *b, uint16_t tag, uint64_t value);
void put_text(struct buffer *b, uint16_t tag, const char *text);
void put_span(struct buffer *b, const char *name, uint64_t begin, uint64_t end);
size_t nest_begin(struct buffer *b, uint16_t tag);
void nest_end(struct buffer *b, size_t start);

static inline uint16_t le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t le32(const uint8_t *p) { return le16(p) | (uint32_t)le16(p + 2) << 16; }
static inline uint64_t le64(const uint8_t *p) { return le32(p) | (uint64_t)le32(p + 4) << 32; }
void store16(uint8_t *p, uint16_t v);
void store32(uint8_t *p, uint32_t v);
void store64(uint8_t *p, uint64_t v);

#endif

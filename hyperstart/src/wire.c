/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <string.h>

int attr_next(struct cursor *c, struct attr *a, struct error *err)
{
	size_t left = (size_t)(c->end - c->p);

	if (left == 0)
		return 0;
	if (left < HP_ATTR_HEADER)
		return fail(err, HP_E_MALFORMED, 0, "attribute header cut short");
	a->tag = le16(c->p);
	a->len = le32(c->p + 4);
	if (a->len > left - HP_ATTR_HEADER)
		return fail(err, HP_E_MALFORMED, 0, "attribute %u is longer than its frame", a->tag);
	a->data = c->p + HP_ATTR_HEADER;
	c->p = a->data + a->len;
	return 1;
}

int attr_u64(const struct attr *a, uint64_t *out, struct error *err)
{
	if (a->len != 8)
		return fail(err, HP_E_MALFORMED, 0, "attribute %u is not a number", a->tag);
	*out = le64(a->data);
	return 0;
}

int attr_text(const struct attr *a, char **out, struct error *err)
{
	if (a->len && memchr(a->data, 0, a->len))
		return fail(err, HP_E_MALFORMED, 0, "attribute %u holds a NUL byte", a->tag);
	free(*out);
	*out = xstrndup(a->data, a->len);
	return 0;
}

int attr_add_text(const struct attr *a, struct strings *out, struct error *err)
{
	char *s = NULL;

	if (attr_text(a, &s, err) < 0)
		return -1;
	strings_add(out, s);
	return 0;
}

void store16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

void store32(uint8_t *p, uint32_t v)
{
	store16(p, (uint16_t)v);
	store16(p + 2, (uint16_t)(v >> 16));
}

void store64(uint8_t *p, uint64_t v)
{
	store32(p, (uint32_t)v);
	store32(p + 4, (uint32_t)(v >> 32));
}

static uint8_t *buf_grow(struct buffer *b, size_t len)
{
	if (b->len + len > b->cap) {
		b->cap = (b->len + len) * 2;
		b->data = xrealloc(b->data, b->cap);
	}
	b->len += len;
	return b->data + b->len - len;
}

void buf_append(struct buffer *b, const void *data, size_t len)
{
	if (len)
		memcpy(buf_grow(b, len), data, len);
}

void buf_free(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){0};
}

size_t frame_begin(struct buffer *b, uint16_t type, uint32_t id)
{
	size_t start = b->len;
	uint8_t *p = buf_grow(b, HP_FRAME_HEADER);

	store32(p, 0);
	store16(p + 4, type);
	store16(p + 6, 0);
	store32(p + 8, id);
	return start;
}

void frame_end(struct buffer *b, size_t start) { store32(b->data + start, (uint32_t)(b->len - start)); }

size_t nest_begin(struct buffer *b, uint16_t tag)
{
	size_t start = b->len;
	uint8_t *p = buf_grow(b, HP_ATTR_HEADER);

	store16(p, tag);
	store16(p + 2, 0);
	store32(p + 4, 0);
	return start;
}

void nest_end(struct buffer *b, size_t start)
{
	store32(b->data + start + 4, (uint32_t)(b->len - start - HP_ATTR_HEADER));
}

void put_u64(struct buffer *b, uint16_t tag, uint64_t value)
{
	size_t start = nest_begin(b, tag);

	store64(buf_grow(b, 8), value);
	nest_end(b, start);
}

void put_text(struct buffer *b, uint16_t tag, const char *text)
{
	size_t start = nest_begin(b, tag);

	buf_append(b, text, strlen(text));
	nest_end(b, start);
}

void put_span(struct buffer *b, const char *name, uint64_t begin, uint64_t end)
{
	size_t start = nest_begin(b, HP_T_SPAN);

	put_text(b, HP_T_NAME, name);
	put_u64(b, HP_T_BEGIN, begin);
	put_u64(b, HP_T_END, end);
	nest_end(b, start);
}

/* A byte buffer to put files together by hand, fault by fault. */
#ifndef TEST_BYTES_H
#define TEST_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    unsigned char data[1 << 17];
    size_t n;
};

static inline void put(struct bytes *b, const void *p, size_t n)
{
    if (n > sizeof b->data - b->n)
        abort();
    memcpy(b->data + b->n, p, n);
    b->n += n;
}

static inline void put8(struct bytes *b, unsigned v)
{
    const unsigned char c = (unsigned char)v;
    put(b, &c, 1);
}

static inline void put32(struct bytes *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static inline void put64(struct bytes *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static inline void put_text(struct bytes *b, const char *s)
{
    put(b, s, strlen(s));
}

static inline void put_zeros(struct bytes *b, size_t n)
{
    while (n-- > 0)
        put8(b, 0);
}

static inline void put_pad(struct bytes *b, size_t alignment)
{
    while (b->n % alignment != 0)
        put8(b, 0);
}

#endif

/* State of a cache in memory: what a session file holds, pages and all. */
#ifndef MEMORY_IO_H
#define MEMORY_IO_H

#include "cache/cache.h"
#include "test.h"

#include <string.h>

struct memory {
    struct lsi_cache_io io;
    unsigned char data[16 << 20];
    size_t at;
};

static inline ls_status memory_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *e)
{
    struct memory *m = (struct memory *)io;
    (void)e;
    REQUIRE(m->at + n <= sizeof m->data);
    if (n > 0)
        memcpy(io->reading ? data : m->data + m->at, io->reading ? m->data + m->at : data, n);
    m->at += n;
    return LS_OK;
}

static inline ls_status memory_pages(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *e)
{
    if (io->reading)
        REQUIRE(lsi_kv_pages_grow(t, 1, n));
    for (size_t i = 0; i < n; i++)
        memory_bytes(io, t->page[i], lsi_kv_pages_bytes(t), e);
    return LS_OK;
}

static struct memory memory = { .io = { .name = "memory", .bytes = memory_bytes, .pages = memory_pages } };

/* Bytes of the state, which lies in memory.data. */
static inline size_t write_state(struct lsi_cache *c)
{
    ls_error e = { 0 };
    memory.io.reading = false;
    memory.at = 0;
    REQUIRE_OK(c->policy->state(c, &memory.io, &e), e);
    return memory.at;
}

/* What was written, into a cache that has just been made. */
static inline ls_status read_state(struct lsi_cache *c, ls_error *e)
{
    memory.io.reading = true;
    memory.at = 0;
    return c->policy->state(c, &memory.io, e);
}

/* The same, all of it. */
static inline void copy_by_state(struct lsi_cache *from, struct lsi_cache *to)
{
    ls_error e = { 0 };
    const size_t written = write_state(from);
    REQUIRE_OK(read_state(to, &e), e);
    CHECK_INT(memory.at, written);
}

#endif

/* State of a cache in memory: what a session file holds, pages and all. */
#ifndef MEMORY_IO_H
#define MEMORY_IO_H

#include "cache/cache.h"
#include "test.h"

#include <string.h>

struct memory {
    struct lsi_cache_io io;
    unsigned char *data;
    size_t at, cap;
};

static inline ls_status memory_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *e)
{
    struct memory *m = (struct memory *)io;
    (void)e;
    REQUIRE(m->at + n <= m->cap);
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

#endif

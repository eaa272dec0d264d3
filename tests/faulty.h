/* An allocator whose Nth request fails, and that counts what is held. */
#ifndef LS_FAULTY_H
#define LS_FAULTY_H

#include <longspan/alloc.h>
#include <stdlib.h>

struct faulty {
    size_t n, fail_at;     /* requests so far; the one that fails, from 1; 0: none */
    long long outstanding; /* bytes */
};

static inline void *faulty_alloc(void *user, size_t bytes)
{
    struct faulty *f = user;
    if (++f->n == f->fail_at)
        return NULL;
    f->outstanding += (long long)bytes;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static inline void faulty_free(void *user, void *ptr, size_t bytes)
{
    struct faulty *f = user;
    if (ptr)
        f->outstanding -= (long long)bytes;
    free(ptr);
}

#endif

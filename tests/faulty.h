/* An allocator whose Nth request fails, and that counts what is held. Threads may share it. */
#ifndef LS_FAULTY_H
#define LS_FAULTY_H

#include <longspan/alloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct faulty {
    atomic_size_t n;          /* requests so far */
    size_t fail_at;           /* the one that fails, from 1; 0: none */
    bool persistent;          /* and all that follow it */
    atomic_size_t refused;    /* requests */
    atomic_llong outstanding; /* bytes: taken, without those that were said to be given back */
    atomic_size_t wrong_size; /* blocks given back with another size than they were taken with */
};

#define LS_FAULTY_GUARD 64 /* bytes in front of a block: its size, and the alignment kept */

static inline void *faulty_alloc(void *user, size_t bytes)
{
    struct faulty *f = user;
    const size_t n = atomic_fetch_add(&f->n, 1) + 1;

    if (f->fail_at && (n == f->fail_at || (f->persistent && n > f->fail_at))) {
        atomic_fetch_add(&f->refused, 1);
        return NULL;
    }
    char *p =
        aligned_alloc(LS_FAULTY_GUARD, (bytes + 2 * LS_FAULTY_GUARD - 1) / LS_FAULTY_GUARD * LS_FAULTY_GUARD);
    if (!p)
        return NULL;
    memcpy(p, &bytes, sizeof bytes);
    atomic_fetch_add(&f->outstanding, (long long)bytes);
    return p + LS_FAULTY_GUARD;
}

static inline void faulty_free(void *user, void *ptr, size_t bytes)
{
    struct faulty *f = user;
    if (!ptr)
        return;
    char *p = (char *)ptr - LS_FAULTY_GUARD;
    size_t taken;
    memcpy(&taken, p, sizeof taken);
    if (taken != bytes)
        atomic_fetch_add(&f->wrong_size, 1);
    atomic_fetch_sub(&f->outstanding, (long long)bytes);
    free(p);
}

#endif

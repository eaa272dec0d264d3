/*
 * What the tests of policies that keep a part of the tokens share: which tokens a cache keeps, its state as
 * bytes, and probabilities of attention in double.
 */
#ifndef LS_KEPT_H
#define LS_KEPT_H

enum {
    L = 2,
    H = 4,
    G = 4,
    D = 16,
    N = 900
};

#include "cache/kept.h"
#include "cache_fixture.h"
#include "memory_io.h"

static inline void open_sliding(struct fixture *f, const char *text, size_t n_heads, size_t n_kv_heads,
                                const bool *sliding, size_t window)
{
    struct lsi_cache_shape shape = plain_shape;
    shape.H = n_heads;
    shape.G = n_kv_heads;
    shape.window = window;
    shape.sliding = sliding;
    open_shape(f, text, 2, LSI_COMPUTE_FP32, &shape);
}

static inline void open_heads(struct fixture *f, const char *text, size_t n_heads, size_t n_kv_heads)
{
    open_sliding(f, text, n_heads, n_kv_heads, NULL, 0);
}

/* One token; out [L][H*D]. */
static inline void step(struct fixture *f, size_t row, float *out)
{
    f->cache->n_prompt = 0;
    feed(f, row, 1, out);
}

/* Rows of a prompt of `total` that has not ended. */
static inline void feed_part(struct fixture *f, size_t row, size_t n, size_t total, size_t block, float *out)
{
    f->cache->n_prompt = total;
    feed_blocks(f, row, n, block, out);
}

static inline size_t rig_bytes(const struct fixture *f)
{
    return f->cache->policy->bytes(f->cache);
}

static inline bool rig_keeps(const struct fixture *f, size_t layer, size_t g, int64_t pos)
{
    static int64_t x[N];
    const size_t n = f->cache->policy->kept(f->cache, layer, g, x);
    for (size_t i = 0; i < n; i++)
        if (x[i] == pos)
            return true;
    return false;
}

/* ---- state as bytes ----------------------------------------------------------------------- */

/* Another cache with what the first one has written. */
static inline void rig_copy_by_state(struct fixture *from, struct fixture *to)
{
    struct memory m = { .io = { .bytes = memory_bytes, .pages = memory_pages }, .cap = (size_t)16 << 20 };
    m.data = malloc(m.cap);
    REQUIRE(m.data);
    REQUIRE_OK(from->cache->policy->state(from->cache, &m.io, &err), err);
    const size_t written = m.at;
    m.io.reading = true;
    m.at = 0;
    REQUIRE_OK(to->cache->policy->state(to->cache, &m.io, &err), err);
    CHECK_INT(m.at, written);
    free(m.data);
}

/* ---- attention in double ------------------------------------------------------------------- */

/*
 * Row `row`, query head h of layer l, over n tokens (rows pos[] of the data): probabilities p, out [D] unless
 * NULL.
 */
static inline void rig_dense(size_t l, size_t row, size_t h, size_t g, const size_t *pos, size_t n, double *p,
                             double *out)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) {
        p[i] = 0;
        for (size_t d = 0; d < D; d++)
            p[i] += (double)q[row * Q + h * D + d] * (double)k[l][pos[i] * Q + g * D + d];
        p[i] *= (double)scale;
        most = fmax(most, p[i]);
    }
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp(p[i] - most);
    for (size_t d = 0; out && d < D; d++)
        out[d] = 0;
    for (size_t i = 0; i < n; i++) {
        p[i] /= sum;
        for (size_t d = 0; out && d < D; d++)
            out[d] += p[i] * (double)v[l][pos[i] * Q + g * D + d];
    }
}

#endif

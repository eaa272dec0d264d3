/*
 * What the tests of policies that keep a part of the tokens share: which tokens a cache keeps, what all such
 * policies promise, and probabilities of attention in double.
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

static const size_t rig_heads[][2] = { { 1, 1 }, { 2, 1 }, { 4, 1 }, { 2, 2 }, { 4, 2 }, { 4, 4 } };

static inline void open_heads(struct fixture *f, const char *text, size_t n_heads, size_t n_kv_heads)
{
    struct lsi_cache_shape shape = plain_shape;
    shape.H = n_heads;
    shape.G = n_kv_heads;
    open_shape(f, text, 2, LSI_COMPUTE_FP32, &shape);
}

/* Two caches of four heads over two. */
static inline void open_pair(struct fixture *a, struct fixture *b, const char *text)
{
    open_heads(a, text, 4, 2);
    open_heads(b, text, 4, 2);
}

/* Rows of a prompt of `total` that has not ended. */
static inline void feed_part(struct fixture *f, size_t row, size_t n, size_t total, size_t block, float *out)
{
    f->cache->n_prompt = total;
    feed_blocks(f, row, n, block, out);
    f->cache->n_prompt = 0;
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

/* ---- what all promise ----------------------------------------------------------------------- */

/* Prompts in blocks of any size, and single tokens that are their last block, are one thing. */
static inline void check_blocks_do_not_matter(const char *text)
{
    static const size_t blocks[] = { 1, 7, 64, 300 };
    struct fixture ref;
    open_heads(&ref, text, 4, 2);
    feed_prompt(&ref, 0, 301, 301, NULL);
    for (size_t b = 0; b < LSI_LEN(blocks); b++) {
        struct fixture f;
        open_heads(&f, text, 4, 2);
        feed_prompt(&f, 0, 301, blocks[b], NULL);
        CHECK(same_kept(&ref, &f));
        close_fixture(&f);
    }
    close_fixture(&ref);
}

/* A prompt of 600 takes what was planned while it is read; afterwards what is kept does, and a spare slab. */
static inline void check_prompt_bytes(struct fixture *f, size_t budget)
{
    const struct lsi_cache_policy *p = f->cache->policy;
    CHECK_INT(rig_bytes(f), 0);
    for (size_t t = 0; t < 600; t += 100) {
        feed_part(f, t, 100, 600, 100, NULL);
        CHECK_INT(rig_bytes(f), p->plan(&f->cache->shape, &f->cache->spec, t + 100));
    }
    p->settle(f->cache, &f->ex);
    CHECK(rig_bytes(f) <= p->plan(&f->cache->shape, &f->cache->spec, budget + LSI_KV_PAGE));
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

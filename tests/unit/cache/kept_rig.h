/*
 * What the tests of policies that keep a part of the tokens share: data, a cache that is fed with it, its
 * state as bytes, and probabilities of attention in double.
 */
#ifndef LS_KEPT_RIG_H
#define LS_KEPT_RIG_H

#include "cache/kept.h"
#include "test.h"

enum {
    RIG_L = 2,
    RIG_D = 16,
    RIG_N = 900, /* rows of data */
    RIG_H = 4,   /* most heads */
    RIG_Q = RIG_H * RIG_D
};

static const float rig_scale = 0.25f;

/* The rows of all heads; a cache of fewer uses the first. One set of queries for all layers. */
static float rig_q[RIG_N * RIG_Q], rig_k[RIG_L][RIG_N * RIG_Q], rig_v[RIG_L][RIG_N * RIG_Q];
static ls_error rig_err;

static inline void rig_data(uint64_t seed)
{
    struct lsi_rng r;
    lsi_rng_init(&r, seed);
    for (size_t i = 0; i < LSI_LEN(rig_q); i++)
        rig_q[i] = (float)lsi_rng_normal(&r);
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t i = 0; i < LSI_LEN(rig_k[0]); i++) {
            rig_k[l][i] = (float)lsi_rng_normal(&r);
            rig_v[l][i] = (float)lsi_rng_normal(&r);
        }
}

struct rig {
    struct lsi_exec ex;
    struct lsi_cache *cache;
    size_t H, G;
};

static inline void rig_open_sliding(struct rig *f, const char *text, size_t H, size_t G, const bool *sliding,
                                    size_t window)
{
    const struct lsi_cache_shape shape = { .L = RIG_L,
                                           .H = H,
                                           .G = G,
                                           .D = RIG_D,
                                           .n_ctx = RIG_N,
                                           .n_rows = RIG_N,
                                           .window = window,
                                           .sliding = sliding };
    struct lsi_cache_spec s;
    f->H = H;
    f->G = G;
    REQUIRE_OK(lsi_cache_parse(&s, text, &rig_err), rig_err);
    if (s.policy->check)
        REQUIRE_OK(s.policy->check(&s, &shape, &rig_err), rig_err);
    REQUIRE_OK(lsi_exec_init_cpu(&f->ex, 2, LSI_COMPUTE_FP32, NULL, &rig_err), rig_err);
    const size_t plain = lsi_op_attention_scratch(&f->ex, RIG_N, H, G, RIG_D);
    REQUIRE_OK(lsi_exec_set_scratch(&f->ex, s.policy->scratch ? s.policy->scratch(&f->ex, &shape, &s) : plain,
                                    &rig_err),
               rig_err);
    REQUIRE_OK(s.policy->create(&f->cache, &shape, &s, NULL, &rig_err), rig_err);
}

static inline void rig_open(struct rig *f, const char *text, size_t H, size_t G)
{
    rig_open_sliding(f, text, H, G, NULL, 0);
}

static inline void rig_close(struct rig *f)
{
    f->cache->policy->free(f->cache);
    lsi_exec_fini(&f->ex);
}

/* Rows row .. row + n - 1 of the data through the first `layers` layers; out [layers][n][H*D] over the
 * queries. */
static inline void rig_rows(struct rig *f, size_t row, size_t n, size_t layers, float *out)
{
    const struct lsi_cache_policy *p = f->cache->policy;
    const size_t cols = f->H * RIG_D;
    REQUIRE_OK(p->reserve(f->cache, n, &rig_err), rig_err);
    for (size_t l = 0; l < layers; l++) {
        float *x = out + l * n * cols;
        for (size_t t = 0; t < n; t++)
            memcpy(x + t * cols, rig_q + (row + t) * RIG_Q, cols * sizeof *x);
        p->append(f->cache, &f->ex, l, rig_k[l] + row * RIG_Q, RIG_Q, rig_v[l] + row * RIG_Q, RIG_Q, n);
        const struct lsi_cache_query query = { .q = x,
                                               .out = x, /* as the model asks */
                                               .ldq = cols,
                                               .ldo = cols,
                                               .T = n,
                                               .window = lsi_cache_window(&f->cache->shape, l),
                                               .scale = rig_scale };
        p->attend(f->cache, &f->ex, l, &query);
    }
}

/* One token; out [L][H*D]. */
static inline void rig_step(struct rig *f, size_t row, float *out)
{
    f->cache->n_prompt = 0;
    rig_rows(f, row, 1, RIG_L, out);
    f->cache->policy->commit(f->cache, 1);
}

/* Rows of a prompt of `total`, in blocks; out [L][n][H*D], or NULL. */
static inline void rig_blocks(struct rig *f, size_t row, size_t n, size_t total, size_t block, float *out)
{
    static float part[RIG_L * RIG_N * RIG_Q];
    const size_t cols = f->H * RIG_D;
    f->cache->n_prompt = total;
    for (size_t done = 0, rows; done < n; done += rows) {
        rows = lsi_min_size(block, n - done);
        if (f->cache->policy->block_rows)
            rows = lsi_min_size(rows, f->cache->policy->block_rows(f->cache));
        rig_rows(f, row + done, rows, RIG_L, part);
        f->cache->policy->commit(f->cache, rows);
        for (size_t l = 0; out && l < RIG_L; l++)
            memcpy(out + (l * n + done) * cols, part + l * rows * cols, rows * cols * sizeof *out);
    }
}

static inline void rig_prompt(struct rig *f, size_t row, size_t n, size_t block, float *out)
{
    rig_blocks(f, row, n, n, block, out);
    if (f->cache->policy->settle)
        f->cache->policy->settle(f->cache, &f->ex);
}

static inline double rig_diff(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static inline size_t rig_bytes(const struct rig *f)
{
    return f->cache->policy->bytes(f->cache);
}

/* Both keep the same tokens for every head. */
static inline bool rig_same_kept(const struct rig *a, const struct rig *b)
{
    static int64_t x[RIG_N], y[RIG_N];
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t g = 0; g < a->G; g++) {
            const size_t n = a->cache->policy->kept(a->cache, l, g, x);
            if (b->cache->policy->kept(b->cache, l, g, y) != n || memcmp(x, y, n * sizeof *x) != 0)
                return false;
        }
    return true;
}

static inline bool rig_keeps(const struct rig *f, size_t layer, size_t g, int64_t pos)
{
    static int64_t x[RIG_N];
    const size_t n = f->cache->policy->kept(f->cache, layer, g, x);
    for (size_t i = 0; i < n; i++)
        if (x[i] == pos)
            return true;
    return false;
}

/* ---- state as bytes ----------------------------------------------------------------------- */

struct rig_io {
    struct lsi_cache_io io;
    char *data;
    size_t n, cap;
};

static inline ls_status rig_io_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *err)
{
    struct rig_io *m = (struct rig_io *)io;
    (void)err;
    if (m->n + n > m->cap)
        return LS_E_FORMAT;
    if (io->reading)
        memcpy(data, m->data + m->n, n);
    else if (n > 0)
        memcpy(m->data + m->n, data, n);
    m->n += n;
    return LS_OK;
}

static inline ls_status rig_io_pages(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *err)
{
    if (io->reading && !lsi_kv_pages_grow(t, 1, n))
        return LS_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        LSI_TRY(rig_io_bytes(io, t->page[i], lsi_kv_pages_bytes(t), err));
    return LS_OK;
}

/* Another cache with what the first one has written. */
static inline void rig_copy_by_state(struct rig *from, struct rig *to)
{
    struct rig_io m = { .io = { .bytes = rig_io_bytes, .pages = rig_io_pages }, .cap = (size_t)16 << 20 };
    m.data = malloc(m.cap);
    REQUIRE(m.data);
    REQUIRE_OK(from->cache->policy->state(from->cache, &m.io, &rig_err), rig_err);
    const size_t written = m.n;
    m.io.reading = true;
    m.n = 0;
    REQUIRE_OK(to->cache->policy->state(to->cache, &m.io, &rig_err), rig_err);
    CHECK_INT(m.n, written);
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
        for (size_t d = 0; d < RIG_D; d++)
            p[i] +=
                (double)rig_q[row * RIG_Q + h * RIG_D + d] * (double)rig_k[l][pos[i] * RIG_Q + g * RIG_D + d];
        p[i] *= (double)rig_scale;
        most = fmax(most, p[i]);
    }
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp(p[i] - most);
    for (size_t d = 0; out && d < RIG_D; d++)
        out[d] = 0;
    for (size_t i = 0; i < n; i++) {
        p[i] /= sum;
        for (size_t d = 0; out && d < RIG_D; d++)
            out[d] += p[i] * (double)rig_v[l][pos[i] * RIG_Q + g * RIG_D + d];
    }
}

#endif

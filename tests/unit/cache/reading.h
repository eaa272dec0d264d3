/*
 * For tests of policies that keep everything and read a part: random tokens, a cache to feed them to, and
 * what attention over a set of them is, in double. Keys and values are stored in fp32, so that the
 * simulators see what the policies see.
 */
#ifndef READING_H
#define READING_H

#include "cache/cache.h"
#include "test.h"

enum {
    L = 2,
    H = 4,
    G = 2,
    GROUP = H / G,
    D = 16,
    N = 600,
    Q = H * D,
    KV = G * D
};

static const float scale = 0.25f;
static float q[N * Q], k[L][N * KV], v[L][N * KV];
static float got[L * N * Q], want[L * N * Q];
static ls_error err;

static inline void make_data(uint64_t seed)
{
    struct lsi_rng r;
    lsi_rng_init(&r, seed);
    for (size_t i = 0; i < LSI_LEN(q); i++)
        q[i] = (float)(2 * lsi_rng_normal(&r));
    for (size_t l = 0; l < L; l++)
        for (size_t i = 0; i < LSI_LEN(k[0]); i++) {
            k[l][i] = (float)lsi_rng_normal(&r);
            v[l][i] = (float)lsi_rng_normal(&r);
        }
}

struct fixture {
    struct lsi_exec ex;
    struct lsi_cache *cache;
    struct lsi_cache_shape shape;
};

static inline void open_shape(struct fixture *f, const char *spec, int threads, struct lsi_cache_shape shape)
{
    struct lsi_cache_spec s;
    f->shape = shape;
    REQUIRE_OK(lsi_exec_init_cpu(&f->ex, threads, LSI_COMPUTE_FP32, NULL, &err), err);
    REQUIRE_OK(lsi_cache_parse(&s, spec, &err), err);
    const size_t own = s.policy->scratch ? s.policy->scratch(&f->ex, &shape, &s) : 0;
    const size_t plain = lsi_op_attention_scratch(&f->ex, N, H, G, D);
    REQUIRE_OK(lsi_exec_set_scratch(&f->ex, lsi_max_size(plain, own), &err), err);
    REQUIRE_OK(s.policy->create(&f->cache, &shape, &s, NULL, &err), err);
}

static inline void open_fixture(struct fixture *f, const char *spec, int threads)
{
    const struct lsi_cache_shape shape = { .L = L, .H = H, .G = G, .D = D, .n_ctx = N, .n_rows = N };
    open_shape(f, spec, threads, shape);
}

static inline void close_fixture(struct fixture *f)
{
    f->cache->policy->free(f->cache);
    lsi_exec_fini(&f->ex);
}

/* Rows row .. row + n - 1 of the data as one block, in all layers; out [L][n][Q] unless NULL. */
static inline void feed(struct fixture *f, size_t row, size_t n, float *out)
{
    static float sink[N * Q];
    const struct lsi_cache_policy *p = f->cache->policy;
    REQUIRE_OK(p->reserve(f->cache, n, &err), err);
    for (size_t l = 0; l < L; l++) {
        p->append(f->cache, &f->ex, l, k[l] + row * KV, KV, v[l] + row * KV, KV, n);
        const struct lsi_cache_query query = { .q = q + row * Q,
                                               .out = out ? out + l * n * Q : sink,
                                               .ldq = Q,
                                               .ldo = Q,
                                               .T = n,
                                               .window = lsi_cache_window(&f->shape, l),
                                               .scale = scale };
        p->attend(f->cache, &f->ex, l, &query);
    }
    p->commit(f->cache, n);
}

/* The rows from `row` on as a prompt of n. */
static inline void feed_prompt(struct fixture *f, size_t row, size_t n)
{
    f->cache->n_prompt = n;
    feed(f, row, n, NULL);
    f->cache->n_prompt = 0;
    if (f->cache->policy->settle)
        f->cache->policy->settle(f->cache, &f->ex);
}

static inline double max_diff(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* ---- formulas ------------------------------------------------------------------------------ */

/* Score of query head h of token t with token s. */
static inline double score_of(size_t l, size_t t, size_t h, size_t s)
{
    double z = 0;
    for (size_t d = 0; d < D; d++)
        z += (double)q[t * Q + h * D + d] * (double)k[l][s * KV + h / GROUP * D + d];
    return z * (double)scale;
}

/* Attention of query head h of token t over the tokens s <= t with in[s]; returns the log of the sum of
 * weights. */
static inline double attend_to(size_t l, size_t t, size_t h, const bool *in, double *out)
{
    double sum = 0;
    for (size_t d = 0; d < D; d++)
        out[d] = 0;
    for (size_t s = 0; s <= t; s++) {
        const double w = in[s] ? exp(score_of(l, t, h, s)) : 0;
        sum += w;
        for (size_t d = 0; d < D; d++)
            out[d] += w * (double)v[l][s * KV + h / GROUP * D + d];
    }
    for (size_t d = 0; d < D; d++)
        out[d] /= sum;
    return log(sum);
}

/* The best n of n_all things with these numbers, equal ones: the later. */
static inline void take_best(const double *number, size_t n_all, size_t n, bool *in)
{
    for (size_t i = 0; i < n_all; i++)
        in[i] = false;
    for (; n > 0; n--) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < n_all; i++)
            if (!in[i] && (best == SIZE_MAX || number[i] >= number[best]))
                best = i;
        in[best] = true;
    }
}

#endif

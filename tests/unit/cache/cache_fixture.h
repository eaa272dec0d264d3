/*
 * What the tests of cache policies share: random tokens, a cache that is fed with them as a context does it,
 * and comparisons. Who includes it says the sizes first:
 *
 *     enum {
 *         L = 2,   layers
 *         H = 6,   query heads, or the most of any cache of the test
 *         G = 2,   kv heads, the same
 *         D = 16,  values of a head
 *         N = 700  tokens
 *     };
 *     #include "cache_fixture.h"
 */
#ifndef CACHE_FIXTURE_H
#define CACHE_FIXTURE_H

#include "cache/cache.h"
#include "test.h"

enum {
    Q = H * D,
    KV = G * D
};

static const float scale = 0.25f;
static float q[N * Q], k[L][N * KV], v[L][N * KV]; /* one set of queries for all layers */
static float got[L * N * Q], want[L * N * Q];
static ls_error err;

static inline void make_data(uint64_t seed, double query_size)
{
    struct lsi_rng r;
    lsi_rng_init(&r, seed);
    for (size_t i = 0; i < LSI_LEN(q); i++)
        q[i] = (float)(query_size * lsi_rng_normal(&r));
    for (size_t l = 0; l < L; l++)
        for (size_t i = 0; i < LSI_LEN(k[0]); i++) {
            k[l][i] = (float)lsi_rng_normal(&r);
            v[l][i] = (float)lsi_rng_normal(&r);
        }
}

static inline double max_diff(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        most = isnan(d) ? INFINITY : fmax(most, d);
    }
    return most;
}

/* ---- the cache ------------------------------------------------------------------------- */

struct fixture {
    struct lsi_exec ex;
    struct lsi_cache *cache;
    const struct lsi_rope *rope; /* how queries and keys are rotated; NULL: they are not */
    size_t window;               /* of every query; 0: of the layers that slide */
};

static const struct lsi_cache_shape plain_shape = { .L = L, .H = H, .G = G, .D = D, .n_ctx = N, .n_rows = N };

/* A shape may have fewer heads than there are of data: it uses the first. */
static inline void open_shape(struct fixture *f, const char *text, int threads, enum lsi_compute compute,
                              const struct lsi_cache_shape *shape)
{
    struct lsi_cache_spec s;
    *f = (struct fixture){ 0 };
    REQUIRE_OK(lsi_cache_parse(&s, text, &err), err);
    if (s.policy->check)
        REQUIRE_OK(s.policy->check(&s, shape, &err), err);
    REQUIRE_OK(lsi_exec_init_cpu(&f->ex, threads, compute, NULL, &err), err);
    size_t scratch = lsi_op_attention_scratch(&f->ex, shape->n_rows, shape->H, shape->G, shape->D);
    if (s.policy->scratch)
        scratch = lsi_max_size(scratch, s.policy->scratch(&f->ex, shape, &s));
    REQUIRE_OK(lsi_exec_set_scratch(&f->ex, scratch, &err), err);
    REQUIRE_OK(s.policy->create(&f->cache, shape, &s, NULL, &err), err);
}

/* Layer 1 slides over `window` tokens. */
static inline void open_sliding(struct fixture *f, const char *text, size_t window)
{
    static const bool sliding[L] = { false, true };
    struct lsi_cache_shape shape = plain_shape;
    shape.window = window;
    shape.sliding = sliding;
    open_shape(f, text, 2, LSI_COMPUTE_FP32, &shape);
}

static inline void open_fixture(struct fixture *f, const char *text, int threads)
{
    open_shape(f, text, threads, LSI_COMPUTE_FP32, &plain_shape);
}

static inline void close_fixture(struct fixture *f)
{
    f->cache->policy->free(f->cache);
    lsi_exec_fini(&f->ex);
}

/* ---- feeding it -------------------------------------------------------------------------- */

/* Rows row .. row + n - 1 of the data through the first n_layers layers, not committed; out
 * [n_layers][n][H*D], or NULL. The results take the place of the queries, as in a model. */
static inline void feed_rows(struct fixture *f, size_t row, size_t n, size_t n_layers, float *out)
{
    static float sink[N * Q], keys[N * KV];
    const struct lsi_cache_policy *p = f->cache->policy;
    const struct lsi_cache_shape *s = &f->cache->shape;
    const size_t cols = s->H * D;
    const int64_t pos0 = (int64_t)f->cache->length;
    REQUIRE_OK(p->reserve(f->cache, n, &err), err);
    for (size_t l = 0; l < n_layers; l++) {
        float *x = out ? out + l * n * cols : sink;
        for (size_t t = 0; t < n; t++)
            memcpy(x + t * cols, q + (row + t) * Q, cols * sizeof *x);
        memcpy(keys, k[l] + row * KV, n * KV * sizeof *keys);
        if (f->rope) {
            lsi_op_rope(&f->ex, x, n, s->H, D, cols, f->rope, pos0);
            lsi_op_rope(&f->ex, keys, n, s->G, D, KV, f->rope, pos0);
        }
        p->append(f->cache, &f->ex, l, keys, KV, v[l] + row * KV, KV, n);
        const struct lsi_cache_query query = { .q = x,
                                               .out = x,
                                               .ldq = cols,
                                               .ldo = cols,
                                               .T = n,
                                               .window = f->window ? f->window : lsi_cache_window(s, l),
                                               .scale = scale,
                                               .rope = f->rope };
        p->attend(f->cache, &f->ex, l, &query);
    }
}

/* The same through all layers, committed. */
static inline void feed(struct fixture *f, size_t row, size_t n, float *out)
{
    feed_rows(f, row, n, L, out);
    f->cache->policy->commit(f->cache, n);
}

/* The same in blocks, smaller where the policy wants that. */
static inline void feed_blocks(struct fixture *f, size_t row, size_t n, size_t block, float *out)
{
    static float part[L * N * Q];
    const size_t cols = f->cache->shape.H * D;
    for (size_t done = 0, rows; done < n; done += rows) {
        rows = lsi_min_size(block, n - done);
        if (f->cache->policy->block_rows)
            rows = lsi_min_size(rows, f->cache->policy->block_rows(f->cache));
        feed(f, row + done, rows, part);
        for (size_t l = 0; out && l < L; l++)
            memcpy(out + (l * n + done) * cols, part + l * rows * cols, rows * cols * sizeof *out);
    }
}

/* The same as a prompt of n. */
static inline void feed_prompt(struct fixture *f, size_t row, size_t n, size_t block, float *out)
{
    f->cache->n_prompt = n;
    feed_blocks(f, row, n, block, out);
    f->cache->n_prompt = 0;
    if (f->cache->policy->settle)
        f->cache->policy->settle(f->cache, &f->ex);
}

/* ---- comparisons -------------------------------------------------------------------------- */

/* Both keep the same tokens for every head. */
static inline bool same_kept(const struct fixture *a, const struct fixture *b)
{
    static int64_t x[N], y[N];
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < a->cache->shape.G; g++) {
            const size_t n = a->cache->policy->kept(a->cache, l, g, x);
            if (b->cache->policy->kept(b->cache, l, g, y) != n || memcmp(x, y, n * sizeof *x) != 0)
                return false;
        }
    return true;
}

/* Steps t .. end - 1 of both give the same bits and leave the same tokens. */
static inline void check_same_steps(struct fixture *a, struct fixture *b, size_t t, size_t end)
{
    const size_t n = L * a->cache->shape.H * D;
    for (; t < end; t++) {
        feed(a, t, 1, got);
        feed(b, t, 1, want);
        CHECK(memcmp(got, want, n * sizeof *got) == 0);
        CHECK(same_kept(a, b));
    }
}

/* Steps t .. end - 1 take what was planned for their tokens; with a policy that has dropped some, at most
 * that.
 */
static inline void check_step_bytes(struct fixture *f, size_t t, size_t end, bool drops)
{
    const struct lsi_cache_policy *p = f->cache->policy;
    for (; t < end; t++) {
        feed(f, t, 1, NULL);
        const size_t bytes = p->bytes(f->cache);
        const size_t planned = p->plan(&f->cache->shape, &f->cache->spec, f->cache->length);
        CHECK(drops ? bytes <= planned : bytes == planned);
    }
}

/* A layer that slides is that of another policy, to within what sums in another order come to (0: to the
 * bit), and one that does not is none. */
static inline void check_sliding_layer_is(const char *text, const char *other, double within)
{
    struct fixture a, b;
    open_sliding(&a, text, 100);
    open_sliding(&b, other, 100);
    feed_prompt(&a, 0, N / 2, 200, NULL);
    feed_prompt(&b, 0, N / 2, 200, NULL);
    for (size_t t = N / 2; t < N / 2 + 80; t++) {
        feed(&a, t, 1, got);
        feed(&b, t, 1, want);
        CHECK(max_diff(got + Q, want + Q, Q) <= within);
        CHECK(memcmp(got, want, Q * sizeof *got) != 0);
    }
    close_fixture(&a);
    close_fixture(&b);
}

/* A prompt and a hundred steps are those of the full cache, to the bit, in every precision. */
static inline void check_is_full(const char *spec, size_t n_kv_heads)
{
    static const char *const formats[] = { "fp32", "bf16", "q8" };
    struct lsi_cache_shape shape = plain_shape;
    shape.G = n_kv_heads;
    for (size_t i = 0; i < LSI_LEN(formats); i++) {
        char text[2][80];
        struct fixture f, full;
        snprintf(text[0], sizeof text[0], "%s,%s", spec, formats[i]);
        snprintf(text[1], sizeof text[1], "full:%s", formats[i]);
        open_shape(&f, text[0], 2, LSI_COMPUTE_FP32, &shape);
        open_shape(&full, text[1], 1, LSI_COMPUTE_FP32, &shape);
        feed_prompt(&f, 0, 400, 128, got);
        feed_prompt(&full, 0, 400, 128, want);
        CHECK(max_diff(got, want, (size_t)L * 400 * Q) == 0);
        for (size_t t = 400; t < 500; t++) {
            feed(&f, t, 1, got);
            feed(&full, t, 1, want);
            CHECK(max_diff(got, want, (size_t)L * Q) == 0);
        }
        CHECK(same_kept(&f, &full));
        close_fixture(&f);
        close_fixture(&full);
    }
}

#endif

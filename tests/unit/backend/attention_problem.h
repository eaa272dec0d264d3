/* A problem of attention: random queries over stored keys and values, and what the cache keeps of these. */
#ifndef ATTENTION_PROBLEM_H
#define ATTENTION_PROBLEM_H

#include "test.h"

#include "ops/cache_ops.h"

#include "base/numbers.h"

#include <math.h>

#define MAX_PAGES 12

struct problem {
    enum lsi_kv_format format;
    size_t T, H, G, D;
    size_t slot0, s0, window;
    size_t end; /* 0: none */
    size_t ldq, ldo, ldk;
    float *q, *k, *v;        /* k, v: [slots][ldk] */
    double *kept_k, *kept_v; /* what the cache keeps of them, [slots][G * D] */
    void *pages[MAX_PAGES];
    size_t n_slots;
};

static inline struct problem problem(enum lsi_kv_format format, size_t T, size_t H, size_t G, size_t D,
                                     size_t slot0, size_t s0, size_t window)
{
    const struct problem p = {
        .format = format, .T = T, .H = H, .G = G, .D = D, .slot0 = slot0, .s0 = s0, .window = window
    };
    return p;
}

static inline const ls_alloc *heap(void)
{
    return lsi_alloc_or_default(NULL);
}

static inline float *floats(size_t n)
{
    float *p = lsi_calloc(heap(), n + 1, sizeof *p);
    REQUIRE(p != NULL);
    return p;
}

static inline void free_floats(float *p, size_t n)
{
    lsi_free(heap(), p, (n + 1) * sizeof *p);
}

/* Enough for every operation of attention. */
static inline size_t scratch_of(const struct lsi_exec *ex, size_t T, const struct problem *p)
{
    const size_t attention = lsi_op_attention_scratch(ex, T, p->H, p->G, p->D);
    const size_t sums = lsi_op_attention_sums_scratch(ex, T, p->H, p->G, p->D);
    const size_t slots = lsi_op_attention_slots_scratch(ex, p->H, p->G, p->D);
    return lsi_max_size(attention, lsi_max_size(sums, slots));
}

static inline struct lsi_exec make_exec(int n_threads, enum lsi_compute compute, const struct problem *p,
                                        size_t T)
{
    struct lsi_exec ex;
    ls_error err;
    REQUIRE_OK(lsi_exec_init_cpu(&ex, n_threads, compute, heap(), &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch_of(&ex, T, p), &err), err);
    return ex;
}

static inline struct lsi_kv_view view(const struct problem *p)
{
    const struct lsi_kv_view kv = { .format = p->format, .G = p->G, .D = p->D, .pages = p->pages };
    return kv;
}

static inline float to_bf16(float x)
{
    return lsi_bf16_to_f32(lsi_bf16_from_f32(x));
}

/* What the format keeps of a vector: 8 bits have a scale for each 32 dimensions. */
static inline void keep(enum lsi_kv_format format, double *y, const float *x, size_t D)
{
    for (size_t first = 0; first < D; first += 32) {
        const size_t end = lsi_min_size(first + 32, D);
        float amax = 0.0f;
        for (size_t d = first; d < end; d++)
            amax = fmaxf(amax, fabsf(x[d]));
        const float scale = to_bf16(amax / 127.0f), inv = 1.0f / scale;
        for (size_t d = first; d < end; d++)
            y[d] = format == LSI_KV_F32 ? (double)x[d]
                   : format == LSI_KV_BF16
                       ? (double)to_bf16(x[d])
                       : (double)(fminf(fmaxf(rintf(x[d] * inv), -127.0f), 127.0f) * scale);
    }
}

/* Random queries, keys and values; all slots stored. Scores vary by a few units. */
static inline void make_problem(struct problem *p, uint64_t seed)
{
    struct lsi_rng rng;
    struct lsi_exec ex;
    const size_t bytes = lsi_kv_page_bytes(p->format, p->G, p->D);

    lsi_rng_init(&rng, seed);
    p->n_slots = p->slot0 + p->T;
    p->ldq = p->H * p->D + 3;
    p->ldo = p->H * p->D + 5;
    p->ldk = p->G * p->D + 1;
    REQUIRE(p->n_slots <= MAX_PAGES * LSI_KV_PAGE);
    p->q = floats(p->T * p->ldq);
    p->k = floats(p->n_slots * p->ldk);
    p->v = floats(p->n_slots * p->ldk);
    for (size_t i = 0; i < p->T * p->ldq; i++)
        p->q[i] = (float)lsi_rng_normal(&rng);
    for (size_t i = 0; i < p->n_slots * p->ldk; i++) {
        /* Dimensions of very different sizes. */
        p->k[i] = (float)(lsi_rng_normal(&rng) * (i / 32 % 5 == 1 ? 0.01 : 1.0));
        p->v[i] = (float)(lsi_rng_normal(&rng) * (i / 32 % 3 == 1 ? 0.01 : 1.0));
    }
    p->kept_k = lsi_calloc(heap(), p->n_slots * p->G * p->D, sizeof *p->kept_k);
    p->kept_v = lsi_calloc(heap(), p->n_slots * p->G * p->D, sizeof *p->kept_v);
    REQUIRE(p->kept_k && p->kept_v);
    for (size_t s = 0; s < p->n_slots; s++)
        for (size_t g = 0; g < p->G; g++) {
            keep(p->format, p->kept_k + (s * p->G + g) * p->D, p->k + s * p->ldk + g * p->D, p->D);
            keep(p->format, p->kept_v + (s * p->G + g) * p->D, p->v + s * p->ldk + g * p->D, p->D);
        }
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++) {
        p->pages[i] = lsi_calloc(heap(), 1, bytes);
        REQUIRE(p->pages[i] != NULL);
    }
    ex = make_exec(2, LSI_COMPUTE_FP32, p, 1);
    const struct lsi_kv_view kv = view(p);
    const size_t half = p->n_slots / 2;
    lsi_op_kv_store(&ex, &kv, 0, p->k, p->ldk, p->v, p->ldk, half);
    lsi_op_kv_store(&ex, &kv, half, p->k + half * p->ldk, p->ldk, p->v + half * p->ldk, p->ldk,
                    p->n_slots - half);
    lsi_exec_fini(&ex);
}

static inline void free_problem(struct problem *p)
{
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++)
        lsi_free(heap(), p->pages[i], lsi_kv_page_bytes(p->format, p->G, p->D));
    lsi_free(heap(), p->kept_k, p->n_slots * p->G * p->D * sizeof *p->kept_k);
    lsi_free(heap(), p->kept_v, p->n_slots * p->G * p->D * sizeof *p->kept_v);
    free_floats(p->q, p->T * p->ldq);
    free_floats(p->k, p->n_slots * p->ldk);
    free_floats(p->v, p->n_slots * p->ldk);
}

static inline struct lsi_attention attention(const struct problem *p, float *out, float *lse)
{
    const struct lsi_attention a = {
        .q = p->q,
        .out = out,
        .lse = lse,
        .ldq = p->ldq,
        .ldo = p->ldo,
        .T = p->T,
        .H = p->H,
        .slot0 = p->slot0,
        .s0 = p->s0,
        .window = p->window,
        .end = p->end,
        .scale = 1.0f / sqrtf((float)p->D),
        .kv = view(p),
    };
    return a;
}

#endif

/*
 * The optimizer on the CPU. A tensor is cut into tasks of STEP_TASK elements, and a task into pieces that are
 * brought to fp32 in buffers of the first-level cache, stepped, and stored again. What already is fp32 is
 * stepped where it lies.
 *
 * Moments in 8 bits: the codes of all elements, rounded up to 64 bytes, then the scales of the blocks.
 */
#include "backend/cpu.h"
#include "kernels/optimizer.h"

#include <math.h>

#define STEP_TASK  8192
#define STEP_PIECE 1024

#define SUM_TASKS  64    /* at most: their sums lie on the stack */
#define SUM_WORK   16384 /* elements per task, at least */

_Static_assert(STEP_TASK % STEP_PIECE == 0 && STEP_PIECE % LSK_RANDOM_RUN == 0 &&
                   STEP_PIECE % LSK_DYNAMIC8_BLOCK == 0,
               "pieces begin with a block and a run of random numbers");

/* ---- sum of squares ---------------------------------------------------------------- */

struct squares {
    lsk_sum_squares_fn *kernel;
    const float *x;
    size_t n, chunk;
    double sum[SUM_TASKS];
};

static void squares_task(void *ctx, size_t task, int thread)
{
    struct squares *a = ctx;
    const size_t first = task * a->chunk;

    (void)thread;
    a->sum[task] = a->kernel(a->x + first, lsi_min_size(a->chunk, a->n - first));
}

double lsi_cpu_sum_squares(struct lsi_exec *ex, const float *x, size_t n)
{
    struct squares a = { .kernel = lsi_cpu_kernels(ex)->sum_squares, .x = x, .n = n };
    double sum = 0.0;

    a.chunk = lsi_max_size(SUM_WORK, lsi_div_up(n, SUM_TASKS));
    const size_t n_tasks = lsi_div_up(n, a.chunk);
    lsi_parallel(ex->pool, n_tasks, squares_task, &a);
    for (size_t i = 0; i < n_tasks; i++)
        sum += a.sum[i];
    return sum;
}

/* ---- AdamW ----------------------------------------------------------------------------- */

/* What is rounded stochastically, each with random numbers of its own. */
enum {
    OF_WEIGHT,
    OF_M,
    OF_V,
    N_STREAMS
};

struct step {
    const struct lsk_table *kernels;
    const struct lsi_adamw_tensor *t;
    struct lsk_adamw factors;
    uint64_t key[N_STREAMS];
};

static size_t codes_bytes(size_t n)
{
    return lsi_round_up(n, 64);
}

size_t lsi_moments_bytes(enum lsi_moments format, size_t n)
{
    switch (format) {
    case LSI_MOMENTS_F32:
        return lsi_round_up(n * sizeof(float), 64);
    case LSI_MOMENTS_BF16:
        return lsi_round_up(n * sizeof(lsi_bf16), 64);
    case LSI_MOMENTS_Q8:
        return codes_bytes(n) + lsi_round_up(lsi_div_up(n, LSK_DYNAMIC8_BLOCK) * sizeof(float), 64);
    }
    return 0;
}

static float *moment_scales(const struct lsi_adamw_tensor *t, void *moment, size_t first)
{
    return (float *)((unsigned char *)moment + codes_bytes(t->n)) + first / LSK_DYNAMIC8_BLOCK;
}

/* The moments of elements first .. first + n in fp32: where they lie, or in the buffer. */
static float *load_moment(const struct step *s, void *moment, size_t first, size_t n, bool second,
                          float *buffer)
{
    const struct lsk_table *k = s->kernels;

    switch (s->t->moments) {
    case LSI_MOMENTS_F32:
        return (float *)moment + first;
    case LSI_MOMENTS_BF16:
        k->dequant_bf16(buffer, (const lsi_bf16 *)moment + first, n);
        break;
    case LSI_MOMENTS_Q8:
        (second ? k->dynamic8u_load : k->dynamic8_load)(buffer, (const uint8_t *)moment + first,
                                                        moment_scales(s->t, moment, first), n);
        break;
    }
    return buffer;
}

static void store_moment(const struct step *s, void *moment, size_t first, size_t n, bool second,
                         const float *x)
{
    const struct lsk_table *k = s->kernels;

    switch (s->t->moments) {
    case LSI_MOMENTS_F32:
        break;
    case LSI_MOMENTS_BF16:
        k->round_bf16((lsi_bf16 *)moment + first, x, n, s->key[second ? OF_V : OF_M], first);
        break;
    case LSI_MOMENTS_Q8:
        (second ? k->dynamic8u_store : k->dynamic8_store)((uint8_t *)moment + first,
                                                          moment_scales(s->t, moment, first), x, n);
        break;
    }
}

static float *load_weight(const struct step *s, size_t first, size_t n, float *buffer)
{
    const struct lsi_adamw_tensor *t = s->t;

    if (t->master)
        return t->master + first;
    if (t->dtype == LSI_F32)
        return (float *)t->w + first;
    s->kernels->dequant_bf16(buffer, (const lsi_bf16 *)t->w + first, n);
    return buffer;
}

static void store_weight(const struct step *s, size_t first, size_t n, const float *x)
{
    const struct lsi_adamw_tensor *t = s->t;

    if (t->dtype == LSI_F32)
        return;
    if (t->master)
        s->kernels->dequant_bf16_f32((lsi_bf16 *)t->w + first, x, n);
    else
        s->kernels->round_bf16((lsi_bf16 *)t->w + first, x, n, s->key[OF_WEIGHT], first);
}

static void step_task(void *ctx, size_t task, int thread)
{
    const struct step *s = ctx;
    const struct lsi_adamw_tensor *t = s->t;
    const size_t end = lsi_min_size(t->n, (task + 1) * STEP_TASK);
    _Alignas(LSI_CACHE_LINE) float w_buffer[STEP_PIECE], m_buffer[STEP_PIECE], v_buffer[STEP_PIECE];

    (void)thread;
    for (size_t i = task * STEP_TASK; i < end; i += STEP_PIECE) {
        const size_t n = lsi_min_size(STEP_PIECE, end - i);
        float *w = load_weight(s, i, n, w_buffer);
        float *m = load_moment(s, t->m, i, n, false, m_buffer);
        float *v = load_moment(s, t->v, i, n, true, v_buffer);
        s->kernels->adamw(w, m, v, t->g + i, n, &s->factors);
        store_weight(s, i, n, w);
        store_moment(s, t->m, i, n, false, m);
        store_moment(s, t->v, i, n, true, v);
    }
}

/* Factors are formed in double: 1 - beta^t of the first steps loses most in fp32. */
static struct lsk_adamw make_factors(const struct lsi_adamw *p)
{
    return (struct lsk_adamw){
        .grad_scale = p->grad_scale,
        .beta1 = (float)p->beta1,
        .rest1 = (float)(1.0 - p->beta1),
        .beta2 = (float)p->beta2,
        .rest2 = (float)(1.0 - p->beta2),
        .fade = (float)(p->lr * p->decay),
        .rate = (float)(p->lr / (1.0 - pow(p->beta1, (double)p->step))),
        .root2 = (float)(1.0 / sqrt(1.0 - pow(p->beta2, (double)p->step))),
        .eps = (float)p->eps,
    };
}

void lsi_cpu_adamw(struct lsi_exec *ex, const struct lsi_adamw *p, const struct lsi_adamw_tensor *t)
{
    struct step s = { .kernels = lsi_cpu_kernels(ex), .t = t, .factors = make_factors(p) };

    LSI_ASSERT(t->dtype == LSI_F32 || t->dtype == LSI_BF16);
    LSI_ASSERT(t->dtype == LSI_BF16 || !t->master);
    for (uint64_t i = 0; i < N_STREAMS; i++)
        s.key[i] = lsk_mix64(lsk_mix64(lsk_mix64(p->seed) + p->step) + t->stream * N_STREAMS + i);
    lsi_parallel_split(ex->pool, lsi_div_up(t->n, STEP_TASK), step_task, &s);
}

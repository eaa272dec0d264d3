/*
 * How fast this machine is, from a few calls of the operations that take the time of a step. Shapes are the
 * model's, cut where a call would take long; the fastest of the calls counts, since what else runs on a
 * machine only makes calls slower.
 */
#include <math.h>
#include <string.h>

#include "ops/backward.h"
#include "plan/plan_impl.h"

#define BUDGET_SECONDS 0.25 /* for each rate, and at least three calls */
#define GEMM_ROWS      ((size_t)512)
#define GEMM_MOST      ((size_t)4096) /* rows and columns of a matrix */
#define ATTENTION_ROWS ((size_t)256)
#define ATTENTION_KEYS ((size_t)2048)
#define COPY_BYTES     ((size_t)96 << 20)
#define COPY_PIECE     ((size_t)1 << 20)
#define FILL           0x3c /* 0.0115 in bf16 and fp32: memory that was written, numbers that are finite */

struct bench {
    struct lsi_exec ex;
    const ls_plan_shape *shape;
    enum lsi_dtype dtype;
    enum lsi_kv_format kv;
    unsigned char *memory;
    size_t bytes;
    ls_error *err;
};

typedef void call_fn(void *ctx);

static double fastest(call_fn *fn, void *ctx)
{
    double best = INFINITY, spent = 0;

    fn(ctx); /* makes what is made once */
    for (int i = 0; i < 3 || (spent < BUDGET_SECONDS && i < 1000); i++) {
        const double start = lsi_now();
        fn(ctx);
        const double seconds = lsi_now() - start;
        best = fmin(best, seconds);
        spent += seconds;
    }
    return fmax(best, 1e-9);
}

static ls_status take(struct bench *b, size_t bytes)
{
    b->memory = lsi_exec_alloc(&b->ex, bytes);
    if (!b->memory)
        return lsi_fail(b->err, LS_E_NOMEM, "out of memory for %zu MiB to measure speed with", bytes >> 20);
    b->bytes = bytes;
    memset(b->memory, FILL, bytes);
    return LS_OK;
}

static void give_back(struct bench *b)
{
    lsi_exec_free(&b->ex, b->memory, b->bytes);
    b->memory = NULL;
}

/* ---- products ---------------------------------------------------------------------- */

struct product {
    struct bench *b;
    struct lsi_weight w;
    float *x, *y, *dx, *dw;
};

static void forward_product(void *ctx)
{
    struct product *p = ctx;
    const struct lsi_linear out = { .w = &p->w, .y = p->y, .ldy = p->w.n_out };
    lsi_op_linear(&p->b->ex, &out, 1, p->x, GEMM_ROWS, p->w.n_in);
}

static void backward_product(void *ctx)
{
    struct product *p = ctx;
    const struct lsi_linear_grad grad = { .w = &p->w, .dy = p->y, .lddy = p->w.n_out, .dw = p->dw };
    lsi_op_linear_backward(&p->b->ex, &grad, 1, p->dx, p->w.n_in, false, p->x, p->w.n_in, GEMM_ROWS, 1);
}

static void layout_product(struct product *p, struct lsi_arena *arena)
{
    const size_t n_in = p->w.n_in, n_out = p->w.n_out;
    p->w.data = lsi_arena_take(arena, n_out, p->w.row_bytes);
    p->x = lsi_arena_take(arena, GEMM_ROWS * n_in, sizeof(float));
    p->y = lsi_arena_take(arena, GEMM_ROWS * n_out, sizeof(float));
    p->dx = lsi_arena_take(arena, GEMM_ROWS * n_in, sizeof(float));
    p->dw = lsi_arena_take(arena, n_out * n_in, sizeof(float));
}

static ls_status measure_products(struct bench *b, ls_plan_rates *r)
{
    const size_t n_in = lsi_min_size(b->shape->n_embd, GEMM_MOST);
    const size_t n_out = lsi_min_size(b->shape->n_ff, GEMM_MOST);
    struct product p = { .b = b, .w = { .dtype = b->dtype, .n_out = n_out, .n_in = n_in } };
    struct lsi_arena arena = { 0 };
    const double flops = 2.0 * (double)GEMM_ROWS * (double)n_in * (double)n_out;

    if (!lsi_dtype_row_bytes(b->dtype, n_in, &p.w.row_bytes))
        return lsi_fail(b->err, LS_E_INVAL, "plan: a row of %zu values has no size", n_in);
    const size_t scratch = lsi_max_size(lsi_op_linear_scratch(&b->ex, GEMM_ROWS, n_in, n_out),
                                        lsi_op_linear_backward_scratch(&b->ex, GEMM_ROWS, n_in, n_out));
    LSI_TRY(lsi_exec_set_scratch(&b->ex, scratch, b->err));
    layout_product(&p, &arena);
    LSI_TRY(take(b, arena.used));
    arena = (struct lsi_arena){ .base = b->memory, .cap = b->bytes };
    layout_product(&p, &arena);
    if (r->gemm == 0)
        r->gemm = flops / fastest(forward_product, &p);
    if (r->gemm_backward == 0)
        r->gemm_backward = 2 * flops / fastest(backward_product, &p);
    give_back(b);
    return LS_OK;
}

/* ---- attention ------------------------------------------------------------------------ */

struct attend {
    struct bench *b;
    float *q, *out, *dout, *dq, *lse, *dk, *dv;
    void *pages[ATTENTION_KEYS / LSI_KV_PAGE];
    float scale;
};

static struct lsi_kv_view view_of(const struct attend *a)
{
    const ls_plan_shape *s = a->b->shape;
    return (
        struct lsi_kv_view){ .format = a->b->kv, .G = s->n_kv_heads, .D = s->head_dim, .pages = a->pages };
}

static void forward_attention(void *ctx)
{
    struct attend *a = ctx;
    const ls_plan_shape *s = a->b->shape;
    const size_t ld = s->n_heads * s->head_dim;
    const struct lsi_attention call = { .q = a->q,
                                        .out = a->out,
                                        .lse = a->lse,
                                        .ldq = ld,
                                        .ldo = ld,
                                        .T = ATTENTION_ROWS,
                                        .H = s->n_heads,
                                        .slot0 = ATTENTION_KEYS - ATTENTION_ROWS,
                                        .scale = a->scale,
                                        .kv = view_of(a) };
    lsi_op_attention(&a->b->ex, &call);
}

static void backward_attention(void *ctx)
{
    struct attend *a = ctx;
    const ls_plan_shape *s = a->b->shape;
    const size_t ld = s->n_heads * s->head_dim;
    const struct lsi_attention_backward call = { .q = a->q,
                                                 .out = a->out,
                                                 .dout = a->dout,
                                                 .lse = a->lse,
                                                 .dq = a->dq,
                                                 .dk = a->dk,
                                                 .dv = a->dv,
                                                 .ldq = ld,
                                                 .ldo = ld,
                                                 .lddo = ld,
                                                 .lddq = ld,
                                                 .T = ATTENTION_ROWS,
                                                 .H = s->n_heads,
                                                 .slot0 = ATTENTION_KEYS - ATTENTION_ROWS,
                                                 .scale = a->scale,
                                                 .kv = view_of(a) };
    lsi_op_attention_backward(&a->b->ex, &call);
}

static void layout_attention(struct attend *a, struct lsi_arena *arena)
{
    const ls_plan_shape *s = a->b->shape;
    const size_t q = ATTENTION_ROWS * s->n_heads * s->head_dim,
                 kv = ATTENTION_KEYS * s->n_kv_heads * s->head_dim;
    float **const rows[] = { &a->q, &a->out, &a->dout, &a->dq };

    for (size_t i = 0; i < LSI_LEN(rows); i++)
        *rows[i] = lsi_arena_take(arena, q, sizeof(float));
    a->lse = lsi_arena_take(arena, ATTENTION_ROWS * s->n_heads, sizeof(float));
    a->dk = lsi_arena_take(arena, kv, sizeof(float));
    a->dv = lsi_arena_take(arena, kv, sizeof(float));
    for (size_t i = 0; i < LSI_LEN(a->pages); i++)
        a->pages[i] = lsi_arena_take(arena, 1, lsi_kv_page_bytes(a->b->kv, s->n_kv_heads, s->head_dim));
}

static ls_status measure_attention(struct bench *b, ls_plan_rates *r)
{
    const ls_plan_shape *s = b->shape;
    const size_t T = ATTENTION_ROWS, S = ATTENTION_KEYS, H = s->n_heads, G = s->n_kv_heads, D = s->head_dim;
    struct attend a = { .b = b, .scale = (float)(1 / sqrt((double)D)) };
    struct lsi_arena arena = { 0 };
    /* Every row sees the keys before the block, and half of the block's. */
    const double flops = 4.0 * (double)(H * D) * (double)T * ((double)(S - T) + ((double)T + 1) / 2);

    LSI_TRY(lsi_exec_set_scratch(&b->ex,
                                 lsi_max_size(lsi_op_attention_scratch(&b->ex, T, H, G, D),
                                              lsi_op_attention_backward_scratch(&b->ex, T, H, G, D, S)),
                                 b->err));
    layout_attention(&a, &arena);
    LSI_TRY(take(b, arena.used));
    arena = (struct lsi_arena){ .base = b->memory, .cap = b->bytes };
    layout_attention(&a, &arena);
    const double forward = fastest(forward_attention, &a); /* the backward pass needs what it gives */
    if (r->attention == 0)
        r->attention = flops / forward;
    if (r->attention_backward == 0)
        r->attention_backward = 2.5 * flops / fastest(backward_attention, &a);
    give_back(b);
    return LS_OK;
}

/* ---- copies ------------------------------------------------------------------------------ */

static void copy_piece(void *ctx, size_t task, int thread)
{
    unsigned char *to = ctx;
    (void)thread;
    memcpy(to + task * COPY_PIECE, to + COPY_BYTES + task * COPY_PIECE, COPY_PIECE);
}

static void copy_all(void *ctx)
{
    struct bench *b = ctx;
    lsi_parallel_split(b->ex.pool, COPY_BYTES / COPY_PIECE, copy_piece, b->memory);
}

static ls_status measure_copy(struct bench *b, ls_plan_rates *r)
{
    LSI_TRY(take(b, 2 * COPY_BYTES));
    r->copy = 2.0 * (double)COPY_BYTES / fastest(copy_all, b);
    give_back(b);
    return LS_OK;
}

ls_status ls_planner_measure(const ls_planner *p, const ls_train_options *options, ls_plan_rates *rates,
                             ls_error *err)
{
    const ls_train_options o = lsi_plan_options(options);
    const bool bf16 = o.dtype == LS_TRAIN_BF16;
    struct bench b = { .shape = &p->shape,
                       .dtype = bf16 ? LSI_BF16 : LSI_F32,
                       .kv = bf16 ? LSI_KV_BF16 : LSI_KV_F32,
                       .err = err };
    ls_plan_rates r = { 0 };
    ls_status st;

    memcpy(&r, rates, lsi_min_size(rates->struct_size, sizeof r));
    if (r.gemm > 0 && r.gemm_backward > 0 && r.attention > 0 && r.attention_backward > 0 && r.copy > 0)
        return LS_OK;
    LSI_TRY(lsi_exec_init_cpu(&b.ex, o.n_threads, bf16 ? LSI_COMPUTE_BF16 : LSI_COMPUTE_FP32,
                              lsi_alloc_or_default(o.alloc), err));
    if (r.gemm == 0 || r.gemm_backward == 0)
        LSI_TRY_OR(out, measure_products(&b, &r));
    if (r.attention == 0 || r.attention_backward == 0)
        LSI_TRY_OR(out, measure_attention(&b, &r));
    if (r.copy == 0)
        LSI_TRY_OR(out, measure_copy(&b, &r));
    memcpy(rates, &r, lsi_min_size(r.struct_size, sizeof r));
    st = LS_OK;
out:
    if (b.memory)
        give_back(&b);
    lsi_exec_fini(&b.ex);
    return st;
}

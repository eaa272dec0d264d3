/*
 * Gradients of row operations on the CPU, and rows in storage. Rows are dealt out in groups of about
 * ROWS_WORK elements, as in cpu_rows.c.
 */
#include "backend/cpu.h"

#include <string.h>

#define ROWS_WORK   16384
#define EMBED_COLS  128 /* of a task: what a processor writes in one stretch, 512 bytes */
#define NORM_GROUP  16  /* rows, at least, whose gradient of the gain is one partial sum */
#define NORM_COLUMN 512 /* columns of partial sums added by one task */

static size_t group_rows(size_t row_work)
{
    return lsi_max_size(1, ROWS_WORK / lsi_max_size(1, row_work));
}

/* ---- normalisation ----------------------------------------------------------------- */

struct norm {
    const struct lsk_table *kernels;
    float *dx, *dgain;
    const float *dy, *x, *gain;
    size_t n_rows, n_cols, ld, group;
    float eps;
    bool accumulate;
    float *partial; /* [groups][n_cols], or NULL: dgain not wanted */
};

/* Groups depend on the shape alone, so the sums over rows do not depend on threads. */
static size_t norm_group(size_t n_cols)
{
    return lsi_max_size(NORM_GROUP, group_rows(n_cols));
}

size_t lsi_cpu_rmsnorm_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_cols)
{
    struct lsi_arena plan = { 0 };

    (void)ex;
    lsi_arena_take(&plan, lsi_div_up(n_rows, norm_group(n_cols)) * n_cols, sizeof(float));
    return plan.used;
}

static void norm_task(void *ctx, size_t task, int thread)
{
    const struct norm *a = ctx;
    float *partial = a->partial ? a->partial + task * a->n_cols : NULL;
    const size_t end = lsi_min_size(a->n_rows, (task + 1) * a->group);

    (void)thread;
    if (partial)
        memset(partial, 0, a->n_cols * sizeof *partial);
    for (size_t t = task * a->group; t < end; t++)
        a->kernels->rmsnorm_backward(a->dx + t * a->ld, partial, a->dy + t * a->ld, a->x + t * a->ld, a->gain,
                                     a->n_cols, a->eps, a->accumulate);
}

/* Partial sums of some columns, in the order of their groups. */
static void gain_task(void *ctx, size_t task, int thread)
{
    const struct norm *a = ctx;
    const size_t first = task * NORM_COLUMN, end = lsi_min_size(a->n_cols, first + NORM_COLUMN);
    const size_t n_groups = lsi_div_up(a->n_rows, a->group);

    (void)thread;
    for (size_t g = 0; g < n_groups; g++)
        for (size_t i = first; i < end; i++)
            a->dgain[i] += a->partial[g * a->n_cols + i];
}

void lsi_cpu_rmsnorm_backward(struct lsi_exec *ex, float *dx, float *dgain, const float *dy, const float *x,
                              const float *gain, size_t n_rows, size_t n_cols, size_t ld, float eps,
                              bool accumulate)
{
    struct norm a = { .kernels = lsi_cpu_kernels(ex), .dx = dx, .dgain = dgain, .dy = dy, .x = x };

    a.gain = gain;
    a.n_rows = n_rows;
    a.n_cols = n_cols;
    a.ld = ld;
    a.eps = eps;
    a.accumulate = accumulate;
    a.group = norm_group(n_cols);
    const size_t n_groups = lsi_div_up(n_rows, a.group);
    if (dgain)
        a.partial = lsi_arena_take(&ex->scratch, n_groups * n_cols, sizeof *a.partial);
    lsi_parallel(ex->pool, n_groups, norm_task, &a);
    if (!dgain)
        return;
    const size_t n_tasks = lsi_div_up(n_cols, NORM_COLUMN);
    lsi_parallel(n_groups * n_cols > ROWS_WORK * 4 ? ex->pool : NULL, n_tasks, gain_task, &a);
}

/* ---- rotary embedding --------------------------------------------------------------- */

struct rope_rows {
    const struct lsk_table *kernels;
    const struct lsi_rope *rope;
    float *dx;
    size_t n_rows, n_heads, D, ld, group;
    int64_t pos0;
};

/* Halves back to pairs (x[2i], x[2i + 1]). */
static void interleave(float *x, size_t n)
{
    float halves[2 * LSK_ROPE_MAX];

    memcpy(halves, x, 2 * n * sizeof *halves);
    for (size_t i = 0; i < n; i++) {
        x[2 * i] = halves[i];
        x[2 * i + 1] = halves[n + i];
    }
}

/* The adjoint of a rotation by an angle is that by the negative angle; both carry mscale. */
static void rope_task(void *ctx, size_t task, int thread)
{
    const struct rope_rows *r = ctx;
    const size_t n = r->D / 2, end = lsi_min_size(r->n_rows, (task + 1) * r->group);
    float cosine[LSK_ROPE_MAX], sine[LSK_ROPE_MAX];

    (void)thread;
    for (size_t t = task * r->group; t < end; t++) {
        r->kernels->rope_angles(cosine, sine, r->rope->inv_freq, n, (double)(r->pos0 + (int64_t)t),
                                r->rope->mscale);
        for (size_t i = 0; i < n; i++)
            sine[i] = -sine[i];
        for (size_t h = 0; h < r->n_heads; h++) {
            float *x = r->dx + t * r->ld + h * r->D;
            r->kernels->rope(x, cosine, sine, n, false);
            if (r->rope->interleaved)
                interleave(x, n);
        }
    }
}

void lsi_cpu_rope_backward(struct lsi_exec *ex, float *dx, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                           const struct lsi_rope *rope, int64_t pos0)
{
    struct rope_rows r = { .kernels = lsi_cpu_kernels(ex), .rope = rope, .dx = dx, .n_rows = n_rows };

    LSI_ASSERT(D % 2 == 0 && D / 2 <= LSK_ROPE_MAX);
    r.n_heads = n_heads;
    r.D = D;
    r.ld = ld;
    r.pos0 = pos0;
    r.group = group_rows(2 * n_heads * D);
    lsi_parallel(ex->pool, lsi_div_up(n_rows, r.group), rope_task, &r);
}

/* ---- gated unit ----------------------------------------------------------------------- */

struct glu {
    lsk_glu_backward_fn *kernel;
    float *gate, *up;
    const float *da;
    size_t n_rows, n_cols, ld, group;
};

static void glu_task(void *ctx, size_t task, int thread)
{
    const struct glu *a = ctx;
    const size_t end = lsi_min_size(a->n_rows, (task + 1) * a->group);

    (void)thread;
    for (size_t t = task * a->group; t < end; t++)
        a->kernel(a->gate + t * a->ld, a->up + t * a->ld, a->da + t * a->ld, a->n_cols);
}

void lsi_cpu_glu_backward(struct lsi_exec *ex, float *gate, float *up, const float *da, size_t n_rows,
                          size_t n_cols, size_t ld, enum lsi_act act)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    struct glu a = { .gate = gate, .up = up, .da = da, .n_rows = n_rows, .n_cols = n_cols, .ld = ld };

    a.kernel = act == LSI_ACT_SILU ? kernels->glu_silu_backward : kernels->glu_gelu_backward;
    a.group = group_rows(2 * n_cols);
    lsi_parallel(ex->pool, lsi_div_up(n_rows, a.group), glu_task, &a);
}

/* ---- embedding ------------------------------------------------------------------------ */

struct embed {
    float *dtable;
    const float *dy;
    const int32_t *ids;
    size_t n_rows, n_cols;
    float scale;
};

/* A task owns columns, not rows: tokens that occur twice are added in order without a lock. */
static void embed_task(void *ctx, size_t task, int thread)
{
    const struct embed *a = ctx;
    const size_t first = task * EMBED_COLS, n = lsi_min_size(EMBED_COLS, a->n_cols - first);

    (void)thread;
    for (size_t t = 0; t < a->n_rows; t++) {
        LSI_ASSERT(a->ids[t] >= 0);
        float *restrict to = a->dtable + (size_t)a->ids[t] * a->n_cols + first;
        const float *restrict from = a->dy + t * a->n_cols + first;
        for (size_t i = 0; i < n; i++)
            to[i] += a->scale * from[i];
    }
}

void lsi_cpu_embed_backward(struct lsi_exec *ex, float *dtable, const float *dy, const int32_t *ids,
                            size_t n_rows, size_t n_cols, float scale)
{
    struct embed a = { .dtable = dtable, .dy = dy, .ids = ids, .n_rows = n_rows, .n_cols = n_cols };

    a.scale = scale;
    lsi_parallel(ex->pool, n_rows == 0 ? 0 : lsi_div_up(n_cols, EMBED_COLS), embed_task, &a);
}

/* ---- storage ---------------------------------------------------------------------------- */

struct copy {
    const struct lsk_table *kernels;
    void *to;
    const void *from;
    size_t n;
    enum {
        COPY,
        FROM_BF16,
        TO_BF16
    } how;
};

static void copy_task(void *ctx, size_t task, int thread)
{
    const struct copy *a = ctx;
    const size_t first = task * ROWS_WORK, n = lsi_min_size(ROWS_WORK, a->n - first);

    (void)thread;
    switch (a->how) {
    case COPY:
        memcpy((float *)a->to + first, (const float *)a->from + first, n * sizeof(float));
        break;
    case FROM_BF16:
        a->kernels->dequant_bf16((float *)a->to + first, (const lsi_bf16 *)a->from + first, n);
        break;
    case TO_BF16:
        a->kernels->dequant_bf16_f32((lsi_bf16 *)a->to + first, (const float *)a->from + first, n);
        break;
    }
}

static void copy_rows(struct lsi_exec *ex, struct copy *a)
{
    a->kernels = lsi_cpu_kernels(ex);
    lsi_parallel(ex->pool, lsi_div_up(a->n, ROWS_WORK), copy_task, a);
}

void lsi_cpu_rows_load(struct lsi_exec *ex, float *y, const void *rows, enum lsi_dtype dtype, size_t n_rows,
                       size_t n_cols)
{
    LSI_ASSERT(dtype == LSI_F32 || dtype == LSI_BF16);
    struct copy a = { .to = y, .from = rows, .n = n_rows * n_cols };
    a.how = dtype == LSI_BF16 ? FROM_BF16 : COPY;
    copy_rows(ex, &a);
}

void lsi_cpu_rows_store(struct lsi_exec *ex, void *rows, enum lsi_dtype dtype, const float *x, size_t n_rows,
                        size_t n_cols)
{
    LSI_ASSERT(dtype == LSI_F32 || dtype == LSI_BF16);
    struct copy a = { .to = rows, .from = x, .n = n_rows * n_cols };
    a.how = dtype == LSI_BF16 ? TO_BF16 : COPY;
    copy_rows(ex, &a);
}

/*
 * Row operations on the CPU. Rows are independent, so they are dealt out in groups of
 * about ROWS_WORK elements; what fits one group runs on the calling thread, because
 * opening a parallel region takes longer than such a piece of work.
 */
#include "backend/cpu.h"

#include <math.h>
#include <string.h>

#define ROWS_WORK 16384

/* One operation over rows: what a task needs. Fields that an operation lacks stay zero. */
struct rows {
    const struct lsk_table *kernels;
    size_t n_rows, n_cols, ld;
    size_t group; /* rows per task */
    float *y;
    const float *x, *gain, *up;
    float eps, scale;
    const int32_t *ids;
    const struct lsi_weight *table;
    lsk_dequant_fn *dequant;
    lsk_glu_fn *glu;
    const struct lsi_rope *rope;
    size_t n_heads, D;
    int64_t pos0;
    const int64_t *pos; /* [n_rows], or NULL: rows follow pos0 */
};

/* Run fn over all rows; it takes the rows of its task from `first` and `last`. */
static void over_rows(struct lsi_exec *ex, struct rows *r, size_t row_work, lsi_task_fn *fn)
{
    r->group = lsi_max_size(1, ROWS_WORK / lsi_max_size(1, row_work));
    lsi_parallel(ex->pool, lsi_div_up(r->n_rows, r->group), fn, r);
}

static size_t first(const struct rows *r, size_t task)
{
    return task * r->group;
}

static size_t last(const struct rows *r, size_t task)
{
    return lsi_min_size(r->n_rows, (task + 1) * r->group);
}

/* ---- embedding ------------------------------------------------------------------- */

static void embed_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++) {
        float *y = r->y + t * r->n_cols;
        LSI_ASSERT(r->ids[t] >= 0 && (size_t)r->ids[t] < r->table->n_out);
        r->dequant(y, (const unsigned char *)r->table->data + (size_t)r->ids[t] * r->table->row_bytes,
                   r->n_cols);
        if (r->scale != 1.0f)
            for (size_t i = 0; i < r->n_cols; i++)
                y[i] *= r->scale;
    }
}

void lsi_cpu_embed(struct lsi_exec *ex, float *y, const struct lsi_weight *table, const int32_t *ids,
                   size_t n_rows, float scale)
{
    struct rows r = { .n_rows = n_rows, .n_cols = table->n_in, .y = y, .ids = ids, .scale = scale };

    r.table = table;
    r.dequant = lsk_table_dequant(lsi_cpu_kernels(ex), table->dtype);
    LSI_ASSERT(r.dequant);
    over_rows(ex, &r, r.n_cols, embed_task);
}

/* ---- normalisation ----------------------------------------------------------------- */

static void rmsnorm_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++)
        r->kernels->rmsnorm(r->y + t * r->ld, r->x + t * r->ld, r->gain, r->n_cols, r->eps);
}

void lsi_cpu_rmsnorm(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                     size_t n_cols, size_t ld, float eps)
{
    struct rows r = { .kernels = lsi_cpu_kernels(ex), .n_rows = n_rows, .n_cols = n_cols, .ld = ld };

    r.y = y;
    r.x = x;
    r.gain = gain;
    r.eps = eps;
    over_rows(ex, &r, n_cols, rmsnorm_task);
}

static void rmsnorm_add_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++)
        r->kernels->rmsnorm_add(r->y + t * r->ld, r->x + t * r->ld, r->gain, r->n_cols, r->eps);
}

void lsi_cpu_rmsnorm_add(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                         size_t n_cols, float eps)
{
    struct rows r = { .kernels = lsi_cpu_kernels(ex), .n_rows = n_rows, .n_cols = n_cols, .ld = n_cols };

    r.y = y;
    r.x = x;
    r.gain = gain;
    r.eps = eps;
    over_rows(ex, &r, n_cols, rmsnorm_add_task);
}

/* ---- rotary embedding --------------------------------------------------------------- */

static void rope_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;
    const size_t n = r->D / 2;
    float cosine[LSK_ROPE_MAX], sine[LSK_ROPE_MAX];

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++) {
        const int64_t pos = r->pos ? r->pos[t] : r->pos0 + (int64_t)t;
        r->kernels->rope_angles(cosine, sine, r->rope->inv_freq, n, (double)pos, r->rope->mscale);
        for (size_t h = 0; h < r->n_heads; h++)
            r->kernels->rope(r->y + t * r->ld + h * r->D, cosine, sine, n, r->rope->interleaved);
    }
}

static void rope(struct lsi_exec *ex, struct rows *r, size_t n_heads, size_t D, const struct lsi_rope *rope)
{
    LSI_ASSERT(D % 2 == 0 && D / 2 <= LSK_ROPE_MAX);
    r->n_heads = n_heads;
    r->D = D;
    r->rope = rope;
    over_rows(ex, r, 2 * n_heads * D, rope_task);
}

void lsi_cpu_rope(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                  const struct lsi_rope *how, int64_t pos0)
{
    struct rows r = { .kernels = lsi_cpu_kernels(ex), .n_rows = n_rows, .ld = ld, .y = x, .pos0 = pos0 };
    rope(ex, &r, n_heads, D, how);
}

void lsi_cpu_rope_at(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                     const struct lsi_rope *how, const int64_t *pos)
{
    struct rows r = { .kernels = lsi_cpu_kernels(ex), .n_rows = n_rows, .ld = ld, .y = x, .pos = pos };
    rope(ex, &r, n_heads, D, how);
}

/* ---- gated unit ----------------------------------------------------------------------- */

static void glu_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++)
        r->glu(r->y + t * r->ld, r->x + t * r->ld, r->up + t * r->ld, r->n_cols);
}

void lsi_cpu_glu_to(struct lsi_exec *ex, float *y, const float *gate, const float *up, size_t n_rows,
                    size_t n_cols, size_t ld, enum lsi_act act)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    struct rows r = { .n_rows = n_rows, .n_cols = n_cols, .ld = ld, .y = y, .x = gate, .up = up };

    r.glu = act == LSI_ACT_SILU ? kernels->glu_silu : kernels->glu_gelu;
    over_rows(ex, &r, 2 * n_cols, glu_task);
}

/* ---- zeros -------------------------------------------------------------------------------- */

#define ZERO_BYTES ((size_t)1 << 20)

struct zero {
    unsigned char *x;
    size_t bytes;
};

static void zero_task(void *ctx, size_t task, int thread)
{
    const struct zero *z = ctx;
    const size_t at = task * ZERO_BYTES;

    (void)thread;
    memset(z->x + at, 0, lsi_min_size(ZERO_BYTES, z->bytes - at));
}

void lsi_cpu_zero(struct lsi_exec *ex, void *x, size_t bytes)
{
    struct zero z = { x, bytes };
    lsi_parallel(ex->pool, lsi_div_up(bytes, ZERO_BYTES), zero_task, &z);
}

/* ---- scaling ---------------------------------------------------------------------------- */

static void scale_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t i = first(r, task); i < last(r, task); i++)
        r->y[i] *= r->scale;
}

void lsi_cpu_scale(struct lsi_exec *ex, float *x, size_t n, float scale)
{
    struct rows r = { .n_rows = n, .y = x, .scale = scale };
    over_rows(ex, &r, 1, scale_task);
}

/* ---- loss ------------------------------------------------------------------------------ */

static void nll_task(void *ctx, size_t task, int thread)
{
    const struct rows *r = ctx;

    (void)thread;
    for (size_t t = first(r, task); t < last(r, task); t++) {
        const float *x = r->x + t * r->ld;
        if (r->ids[t] < 0) {
            r->y[t] = NAN;
            continue;
        }
        LSI_ASSERT((size_t)r->ids[t] < r->n_cols);
        r->y[t] = (float)(r->kernels->logsumexp(x, r->n_cols) - (double)x[r->ids[t]]);
    }
}

void lsi_cpu_nll(struct lsi_exec *ex, float *nll, const float *logits, const int32_t *target, size_t n_rows,
                 size_t V, size_t ld)
{
    struct rows r = { .kernels = lsi_cpu_kernels(ex), .n_rows = n_rows, .n_cols = V, .ld = ld };

    r.y = nll;
    r.x = logits;
    r.ids = target;
    over_rows(ex, &r, 2 * V, nll_task);
}

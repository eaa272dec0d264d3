/* Operations of training: each goes to the exec's backend. */
#include "ops/backward.h"

#include "backend/backend.h"

static void reset(struct lsi_exec *ex)
{
    ex->scratch.used = 0;
    ex->scratch.failed = false;
}

void lsi_op_rmsnorm_backward(struct lsi_exec *ex, float *dx, float *dgain, const float *dy, const float *x,
                             const float *gain, size_t n_rows, size_t n_cols, size_t ld, float eps,
                             bool accumulate)
{
    reset(ex);
    ex->backend->rmsnorm_backward(ex, dx, dgain, dy, x, gain, n_rows, n_cols, ld, eps, accumulate);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_rmsnorm_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_cols)
{
    return ex->backend->rmsnorm_backward_scratch(ex, n_rows, n_cols);
}

void lsi_op_rope_backward(struct lsi_exec *ex, float *dx, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                          const struct lsi_rope *rope, int64_t pos0)
{
    ex->backend->rope_backward(ex, dx, n_rows, n_heads, D, ld, rope, pos0);
}

void lsi_op_zero(struct lsi_exec *ex, void *x, size_t bytes)
{
    ex->backend->zero(ex, x, bytes);
}

void lsi_op_scale(struct lsi_exec *ex, float *x, size_t n, float scale)
{
    ex->backend->scale(ex, x, n, scale);
}

void lsi_op_glu_to(struct lsi_exec *ex, float *y, const float *gate, const float *up, size_t n_rows,
                   size_t n_cols, size_t ld, enum lsi_act act)
{
    ex->backend->glu_to(ex, y, gate, up, n_rows, n_cols, ld, act);
}

void lsi_op_glu_backward(struct lsi_exec *ex, float *gate, float *up, const float *da, size_t n_rows,
                         size_t n_cols, size_t ld, enum lsi_act act)
{
    ex->backend->glu_backward(ex, gate, up, da, n_rows, n_cols, ld, act);
}

void lsi_op_embed_backward(struct lsi_exec *ex, float *dtable, const float *dy, const int32_t *ids,
                           size_t n_rows, size_t n_cols, float scale)
{
    ex->backend->embed_backward(ex, dtable, dy, ids, n_rows, n_cols, scale);
}

void lsi_op_rows_load(struct lsi_exec *ex, float *y, const void *rows, enum lsi_dtype dtype, size_t n_rows,
                      size_t n_cols)
{
    ex->backend->rows_load(ex, y, rows, dtype, n_rows, n_cols);
}

void lsi_op_rows_store(struct lsi_exec *ex, void *rows, enum lsi_dtype dtype, const float *x, size_t n_rows,
                       size_t n_cols)
{
    ex->backend->rows_store(ex, rows, dtype, x, n_rows, n_cols);
}

void lsi_op_linear_backward(struct lsi_exec *ex, const struct lsi_linear_grad *grads, size_t n_grads,
                            float *dx, size_t lddx, bool accumulate, const float *x, size_t ldx,
                            size_t n_rows, float scale)
{
    reset(ex);
    ex->backend->linear_backward(ex, grads, n_grads, dx, lddx, accumulate, x, ldx, n_rows, scale);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_linear_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out)
{
    return ex->backend->linear_backward_scratch(ex, n_rows, n_in, n_out);
}

void lsi_op_attention_backward(struct lsi_exec *ex, const struct lsi_attention_backward *a)
{
    reset(ex);
    ex->backend->attention_backward(ex, a);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_attention_backward_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D,
                                         size_t S)
{
    return ex->backend->attention_backward_scratch(ex, T, H, G, D, S);
}

double lsi_op_cross_entropy(struct lsi_exec *ex, float *logits, const int32_t *target, size_t n_rows,
                            size_t V, size_t ld)
{
    reset(ex);
    const double loss = ex->backend->cross_entropy(ex, logits, target, n_rows, V, ld);
    LSI_ASSERT(!ex->scratch.failed);
    return loss;
}

size_t lsi_op_cross_entropy_scratch(const struct lsi_exec *ex, size_t n_rows)
{
    return ex->backend->cross_entropy_scratch(ex, n_rows);
}

double lsi_op_sum_squares(struct lsi_exec *ex, const float *x, size_t n)
{
    return ex->backend->sum_squares(ex, x, n);
}

void lsi_op_adamw(struct lsi_exec *ex, const struct lsi_adamw *p, const struct lsi_adamw_tensor *t)
{
    ex->backend->adamw(ex, p, t);
}

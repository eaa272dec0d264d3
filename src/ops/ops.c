/* Operations: each goes to the exec's backend. */
#include "backend/backend.h"

static void reset(struct lsi_exec *ex)
{
    ex->scratch.used = 0;
    ex->scratch.failed = false;
}

void lsi_op_embed(struct lsi_exec *ex, float *y, const struct lsi_weight *table, const int32_t *ids,
                  size_t n_rows, float scale)
{
    ex->backend->embed(ex, y, table, ids, n_rows, scale);
}

void lsi_op_rmsnorm(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                    size_t n_cols, size_t ld, float eps)
{
    ex->backend->rmsnorm(ex, y, x, gain, n_rows, n_cols, ld, eps);
}

void lsi_op_rmsnorm_add(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                        size_t n_cols, float eps)
{
    ex->backend->rmsnorm_add(ex, y, x, gain, n_rows, n_cols, eps);
}

void lsi_op_rope(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                 const struct lsi_rope *rope, int64_t pos0)
{
    ex->backend->rope(ex, x, n_rows, n_heads, D, ld, rope, pos0);
}

void lsi_op_glu(struct lsi_exec *ex, float *gate, const float *up, size_t n_rows, size_t n_cols, size_t ld,
                enum lsi_act act)
{
    ex->backend->glu_to(ex, gate, gate, up, n_rows, n_cols, ld, act);
}

void lsi_op_linear(struct lsi_exec *ex, const struct lsi_linear *out, size_t n_out, const float *x,
                   size_t n_rows, size_t ldx)
{
    reset(ex);
    ex->backend->linear(ex, out, n_out, x, n_rows, ldx);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_linear_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out)
{
    return ex->backend->linear_scratch(ex, n_rows, n_in, n_out);
}

void lsi_op_kv_store(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, const float *k,
                     size_t ldk, const float *v, size_t ldv, size_t n_rows)
{
    ex->backend->kv_store(ex, kv, slot0, k, ldk, v, ldv, n_rows);
}

void lsi_op_attention(struct lsi_exec *ex, const struct lsi_attention *a)
{
    reset(ex);
    ex->backend->attention(ex, a);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_attention_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D)
{
    return ex->backend->attention_scratch(ex, T, H, G, D);
}

void lsi_op_nll(struct lsi_exec *ex, float *nll, const float *logits, const int32_t *target, size_t n_rows,
                size_t V, size_t ld)
{
    ex->backend->nll(ex, nll, logits, target, n_rows, V, ld);
}

void *lsi_exec_alloc(struct lsi_exec *ex, size_t bytes)
{
    return ex->backend->mem_alloc(ex, bytes);
}

void lsi_exec_free(struct lsi_exec *ex, void *ptr, size_t bytes)
{
    if (ptr)
        ex->backend->mem_free(ex, ptr, bytes);
}

void lsi_exec_read(struct lsi_exec *ex, void *host, const void *ptr, size_t bytes)
{
    ex->backend->mem_read(ex, host, ptr, bytes);
}

ls_status lsi_exec_set_scratch(struct lsi_exec *ex, size_t bytes, ls_error *err)
{
    void *base = lsi_exec_alloc(ex, bytes);
    if (!base)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu bytes of scratch", bytes);
    lsi_exec_free(ex, ex->scratch.base, ex->scratch.cap);
    ex->scratch = (struct lsi_arena){ .base = base, .cap = bytes };
    return LS_OK;
}

void lsi_exec_fini(struct lsi_exec *ex)
{
    if (!ex->backend)
        return;
    lsi_exec_free(ex, ex->scratch.base, ex->scratch.cap);
    ex->backend->fini(ex);
    *ex = (struct lsi_exec){ 0 };
}

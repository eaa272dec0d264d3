/* Operations of cache policies: each goes to the exec's backend. */
#include "ops/cache_ops.h"

#include "backend/backend.h"

static void reset(struct lsi_exec *ex)
{
    ex->scratch.used = 0;
    ex->scratch.failed = false;
}

void lsi_op_attention_sums(struct lsi_exec *ex, const struct lsi_attention *a, float *sums, size_t ld)
{
    reset(ex);
    ex->backend->attention_sums(ex, a, sums, ld);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_attention_sums_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D)
{
    return ex->backend->attention_sums_scratch(ex, T, H, G, D);
}

void lsi_op_attention_scores(struct lsi_exec *ex, const struct lsi_attention *a, float *scores, size_t ld)
{
    reset(ex);
    ex->backend->attention_scores(ex, a, scores, ld);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_attention_scores_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D)
{
    return ex->backend->attention_sums_scratch(ex, T, H, G, D);
}

void lsi_op_attention_slots(struct lsi_exec *ex, const struct lsi_attention_slots *a)
{
    reset(ex);
    ex->backend->attention_slots(ex, a);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_attention_slots_scratch(const struct lsi_exec *ex, size_t H, size_t G, size_t D)
{
    return ex->backend->attention_slots_scratch(ex, H, G, D);
}

void lsi_op_attention_merge(struct lsi_exec *ex, float *out, size_t ldo, float *lse, const float *part,
                            size_t ldp, const float *part_lse, size_t T, size_t H, size_t D)
{
    ex->backend->attention_merge(ex, out, ldo, lse, part, ldp, part_lse, T, H, D);
}

void lsi_op_kv_move(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, const uint32_t *to,
                    const uint32_t *from, size_t n)
{
    ex->backend->kv_move(ex, kv, g, to, from, n);
}

void lsi_op_kv_pack(struct lsi_exec *ex, const struct lsi_kv_pack *p)
{
    reset(ex);
    ex->backend->kv_pack(ex, p);
    LSI_ASSERT(!ex->scratch.failed);
}

void lsi_op_kv_regroup(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, size_t to,
                       const uint32_t *from, size_t n)
{
    ex->scratch.used = 0;
    ex->backend->kv_regroup(ex, kv, g, to, from, n);
}

size_t lsi_op_kv_pack_scratch(const struct lsi_exec *ex, size_t D)
{
    return ex->backend->kv_pack_scratch(ex, D);
}

void lsi_op_kv_load(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, float *k, size_t ldk,
                    float *v, size_t ldv, size_t n_rows)
{
    ex->backend->kv_load(ex, kv, slot0, k, ldk, v, ldv, n_rows);
}

void lsi_op_bounds_store(struct lsi_exec *ex, const struct lsi_bounds *b, const struct lsi_kv_view *kv,
                         size_t first, size_t n_runs)
{
    ex->backend->bounds_store(ex, b, kv, first, n_runs);
}

void lsi_op_bounds_scores(struct lsi_exec *ex, const struct lsi_bounds *b, const float *q, size_t H,
                          float scale, size_t n_runs, enum lsi_bounds_set set, float *scores, size_t ld)
{
    reset(ex);
    ex->backend->bounds_scores(ex, b, q, H, scale, n_runs, set, scores, ld);
    LSI_ASSERT(!ex->scratch.failed);
}

size_t lsi_op_bounds_scores_scratch(const struct lsi_exec *ex, size_t H, size_t D, size_t n_runs)
{
    return ex->backend->bounds_scores_scratch(ex, H, D, n_runs);
}

void lsi_op_choose(struct lsi_exec *ex, uint32_t *best, float *scores, size_t n_rows, size_t n, size_t k)
{
    ex->backend->choose(ex, best, scores, n_rows, n, k);
}

void lsi_op_rope_at(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                    const struct lsi_rope *rope, const int64_t *pos)
{
    ex->backend->rope_at(ex, x, n_rows, n_heads, D, ld, rope, pos);
}

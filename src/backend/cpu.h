/*
 * The CPU backend: its state and the functions that fill its table (backend.h).
 * Contracts are those of ops/ops.h.
 */
#ifndef LSI_CPU_H
#define LSI_CPU_H

#include "backend/backend.h"
#include "backend/gemm.h"
#include "backend/gemm_packed.h"
#include "kernels/kernels.h"

#define LSI_MAX_THREADS 256

struct lsi_cpu {
    struct lsk_table kernels;
    uint64_t features;  /* LSK_CPU_ bits in use */
    bool bf16_products; /* dense products of bf16 operands are faster than those of fp32 */
    bool own_products;  /* ours are faster than the library's */
    struct lsi_gemm *gemm;
    const ls_alloc *alloc;
};

/** The kernels of an exec on this backend. */
static inline const struct lsk_table *lsi_cpu_kernels(const struct lsi_exec *ex)
{
    return &((const struct lsi_cpu *)ex->state)->kernels;
}

/** How a page of LSI_KV_KIVI is packed. */
static inline struct lsk_kivi lsi_cpu_kivi(enum lsi_kv_format format)
{
    const unsigned f = (unsigned)format;
    return (struct lsk_kivi){ (uint8_t)(f >> 4 & 15), (uint8_t)(f >> 8 & 15), (uint16_t)(f >> 12) };
}

/** What the operands of dense products are packed as. */
static inline enum lsi_gemm_kind lsi_cpu_gemm_kind(const struct lsi_exec *ex)
{
    if (ex->compute == LSI_COMPUTE_FP32)
        return LSI_GEMM_F32;
    return ((const struct lsi_cpu *)ex->state)->bf16_products ? LSI_GEMM_BF16 : LSI_GEMM_ROUNDED;
}

/** Whether n rows go a way of their own, which is for `most` rows at most. */
static inline bool lsi_cpu_few(const struct lsi_exec *ex, size_t n, size_t most)
{
    return n <= most && !ex->few_as_many;
}

/** Whether products of packed operands serve the forward pass too. */
static inline bool lsi_cpu_packs(const struct lsi_exec *ex)
{
    return ((const struct lsi_cpu *)ex->state)->own_products;
}

/* cpu_rows.c */
void lsi_cpu_embed(struct lsi_exec *ex, float *y, const struct lsi_weight *table, const int32_t *ids,
                   size_t n_rows, float scale);
void lsi_cpu_rmsnorm(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                     size_t n_cols, size_t ld, float eps);
void lsi_cpu_rmsnorm_add(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                         size_t n_cols, float eps);
void lsi_cpu_rope(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                  const struct lsi_rope *how, int64_t pos0);
void lsi_cpu_rope_at(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                     const struct lsi_rope *how, const int64_t *pos);
void lsi_cpu_zero(struct lsi_exec *ex, void *x, size_t bytes);
void lsi_cpu_scale(struct lsi_exec *ex, float *x, size_t n, float scale);
void lsi_cpu_glu_to(struct lsi_exec *ex, float *y, const float *gate, const float *up, size_t n_rows,
                    size_t n_cols, size_t ld, enum lsi_act act);
void lsi_cpu_nll(struct lsi_exec *ex, float *nll, const float *logits, const int32_t *target, size_t n_rows,
                 size_t V, size_t ld);

/* cpu_rows_backward.c */
void lsi_cpu_rmsnorm_backward(struct lsi_exec *ex, float *dx, float *dgain, const float *dy, const float *x,
                              const float *gain, size_t n_rows, size_t n_cols, size_t ld, float eps,
                              bool accumulate);
size_t lsi_cpu_rmsnorm_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_cols);
void lsi_cpu_rope_backward(struct lsi_exec *ex, float *dx, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                           const struct lsi_rope *rope, int64_t pos0);
void lsi_cpu_glu_backward(struct lsi_exec *ex, float *gate, float *up, const float *da, size_t n_rows,
                          size_t n_cols, size_t ld, enum lsi_act act);
void lsi_cpu_embed_backward(struct lsi_exec *ex, float *dtable, const float *dy, const int32_t *ids,
                            size_t n_rows, size_t n_cols, float scale);
void lsi_cpu_rows_load(struct lsi_exec *ex, float *y, const void *rows, enum lsi_dtype dtype, size_t n_rows,
                       size_t n_cols);
void lsi_cpu_rows_store(struct lsi_exec *ex, void *rows, enum lsi_dtype dtype, const float *x, size_t n_rows,
                        size_t n_cols);

/* cpu_loss.c */
double lsi_cpu_cross_entropy(struct lsi_exec *ex, float *logits, const int32_t *target, size_t n_rows,
                             size_t V, size_t ld);
size_t lsi_cpu_cross_entropy_scratch(const struct lsi_exec *ex, size_t n_rows);

/* cpu_optimizer.c (lsi_moments_bytes of backward.h too: the layout is the same for every backend) */
double lsi_cpu_sum_squares(struct lsi_exec *ex, const float *x, size_t n);
void lsi_cpu_adamw(struct lsi_exec *ex, const struct lsi_adamw *p, const struct lsi_adamw_tensor *t);

/* cpu_linear.c */
void lsi_cpu_linear(struct lsi_exec *ex, const struct lsi_linear *out, size_t n_out, const float *x,
                    size_t n_rows, size_t ldx);
size_t lsi_cpu_linear_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out);

/* cpu_linear_backward.c */
void lsi_cpu_linear_backward(struct lsi_exec *ex, const struct lsi_linear_grad *grads, size_t n_grads,
                             float *dx, size_t lddx, bool accumulate, const float *x, size_t ldx,
                             size_t n_rows, float scale);
size_t lsi_cpu_linear_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out);

/* cpu_attention.c (lsi_kv_page_bytes of ops.h too: the layout is the same for every backend) */
void lsi_cpu_kv_store(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, const float *k,
                      size_t ldk, const float *v, size_t ldv, size_t n_rows);
void lsi_cpu_attention(struct lsi_exec *ex, const struct lsi_attention *a);
size_t lsi_cpu_attention_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D);

/* cpu_attention_sums.c */
void lsi_cpu_attention_sums(struct lsi_exec *ex, const struct lsi_attention *a, float *sums, size_t ld);
size_t lsi_cpu_attention_sums_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D);
void lsi_cpu_attention_scores(struct lsi_exec *ex, const struct lsi_attention *a, float *scores, size_t ld);

/* cpu_attention_slots.c */
void lsi_cpu_attention_slots(struct lsi_exec *ex, const struct lsi_attention_slots *a);
size_t lsi_cpu_attention_slots_scratch(const struct lsi_exec *ex, size_t H, size_t G, size_t D);
void lsi_cpu_attention_merge(struct lsi_exec *ex, float *out, size_t ldo, float *lse, const float *part,
                             size_t ldp, const float *part_lse, size_t T, size_t H, size_t D);

/* cpu_bounds.c (lsi_bounds_page_bytes of cache_ops.h too) */
void lsi_cpu_bounds_store(struct lsi_exec *ex, const struct lsi_bounds *b, const struct lsi_kv_view *kv,
                          size_t first, size_t n_runs);
void lsi_cpu_bounds_scores(struct lsi_exec *ex, const struct lsi_bounds *b, const float *q, size_t H,
                           float scale, size_t n_runs, enum lsi_bounds_set set, float *scores, size_t ld);
size_t lsi_cpu_bounds_scores_scratch(const struct lsi_exec *ex, size_t H, size_t D, size_t n_runs);
void lsi_cpu_choose(struct lsi_exec *ex, uint32_t *best, float *scores, size_t n_rows, size_t n, size_t k);

/* cpu_kv.c */
void lsi_cpu_kv_move(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, const uint32_t *to,
                     const uint32_t *from, size_t n);
void lsi_cpu_kv_load(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, float *k, size_t ldk,
                     float *v, size_t ldv, size_t n_rows);

/* cpu_kv_pack.c */
void lsi_cpu_kv_pack(struct lsi_exec *ex, const struct lsi_kv_pack *p);
size_t lsi_cpu_kv_pack_scratch(const struct lsi_exec *ex, size_t D);
void lsi_cpu_kv_regroup(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, size_t to,
                        const uint32_t *from, size_t n);

/* cpu_attention_backward.c */
void lsi_cpu_attention_backward(struct lsi_exec *ex, const struct lsi_attention_backward *a);
size_t lsi_cpu_attention_backward_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D,
                                          size_t S);

#endif

/*
 * A backend: where ops run. Every slot has the contract of the lsi_op_ function of
 * the same name (ops.h, cache_ops.h, backward.h in ops/) and may be NULL only where marked (optional). The
 * _scratch slots look at n_threads and compute only.
 *
 * To add one (a GPU): fill this table in a new folder and offer an
 * lsi_exec_init_<name>. Nothing in model/, cache/, decode/ changes.
 */
#ifndef LSI_BACKEND_H
#define LSI_BACKEND_H

#include "ops/backward.h"
#include "ops/cache_ops.h"

struct lsi_backend {
    const char *name;

    void *(*mem_alloc)(struct lsi_exec *ex, size_t bytes);
    void (*mem_free)(struct lsi_exec *ex, void *ptr, size_t bytes);
    void (*mem_read)(struct lsi_exec *ex, void *host, const void *ptr, size_t bytes);
    void (*fini)(struct lsi_exec *ex);

    void (*embed)(struct lsi_exec *, float *, const struct lsi_weight *, const int32_t *, size_t, float);
    void (*rmsnorm)(struct lsi_exec *, float *, const float *, const float *, size_t, size_t, size_t, float);
    void (*rmsnorm_add)(struct lsi_exec *, float *, const float *, const float *, size_t, size_t, float);
    void (*rope)(struct lsi_exec *, float *, size_t, size_t, size_t, size_t, const struct lsi_rope *,
                 int64_t);
    void (*glu_to)(struct lsi_exec *, float *, const float *, const float *, size_t, size_t, size_t,
                   enum lsi_act);
    void (*linear)(struct lsi_exec *, const struct lsi_linear *, size_t, const float *, size_t, size_t);
    size_t (*linear_scratch)(const struct lsi_exec *, size_t, size_t, size_t);
    void (*kv_store)(struct lsi_exec *, const struct lsi_kv_view *, size_t, const float *, size_t,
                     const float *, size_t, size_t);
    void (*attention)(struct lsi_exec *, const struct lsi_attention *);
    size_t (*attention_scratch)(const struct lsi_exec *, size_t, size_t, size_t, size_t);
    void (*nll)(struct lsi_exec *, float *, const float *, const int32_t *, size_t, size_t, size_t);

    /* cache policies: ops/cache_ops.h. Scores and sums have one _scratch. */
    void (*attention_sums)(struct lsi_exec *, const struct lsi_attention *, float *, size_t);
    void (*attention_scores)(struct lsi_exec *, const struct lsi_attention *, float *, size_t);
    size_t (*attention_sums_scratch)(const struct lsi_exec *, size_t, size_t, size_t, size_t);
    void (*attention_slots)(struct lsi_exec *, const struct lsi_attention_slots *);
    size_t (*attention_slots_scratch)(const struct lsi_exec *, size_t, size_t, size_t);
    void (*attention_merge)(struct lsi_exec *, float *, size_t, float *, const float *, size_t, const float *,
                            size_t, size_t, size_t);
    void (*kv_move)(struct lsi_exec *, const struct lsi_kv_view *, size_t, const uint32_t *, const uint32_t *,
                    size_t);
    void (*kv_load)(struct lsi_exec *, const struct lsi_kv_view *, size_t, float *, size_t, float *, size_t,
                    size_t);
    void (*bounds_store)(struct lsi_exec *, const struct lsi_bounds *, const struct lsi_kv_view *, size_t,
                         size_t);
    void (*bounds_scores)(struct lsi_exec *, const struct lsi_bounds *, const float *, size_t, float, size_t,
                          enum lsi_bounds_set, float *, size_t);
    size_t (*bounds_scores_scratch)(const struct lsi_exec *, size_t, size_t, size_t);
    void (*choose)(struct lsi_exec *, uint32_t *, float *, size_t, size_t, size_t);
    void (*kv_pack)(struct lsi_exec *, const struct lsi_kv_pack *);
    size_t (*kv_pack_scratch)(const struct lsi_exec *, size_t);
    void (*kv_regroup)(struct lsi_exec *, const struct lsi_kv_view *, size_t, size_t, const uint32_t *,
                       size_t);
    void (*rope_at)(struct lsi_exec *, float *, size_t, size_t, size_t, size_t, const struct lsi_rope *,
                    const int64_t *);

    /* training: ops/backward.h */
    void (*rmsnorm_backward)(struct lsi_exec *, float *, float *, const float *, const float *, const float *,
                             size_t, size_t, size_t, float, bool);
    size_t (*rmsnorm_backward_scratch)(const struct lsi_exec *, size_t, size_t);
    void (*rope_backward)(struct lsi_exec *, float *, size_t, size_t, size_t, size_t, const struct lsi_rope *,
                          int64_t);
    void (*zero)(struct lsi_exec *, void *, size_t);
    void (*scale)(struct lsi_exec *, float *, size_t, float);
    void (*glu_backward)(struct lsi_exec *, float *, float *, const float *, size_t, size_t, size_t,
                         enum lsi_act);
    void (*embed_backward)(struct lsi_exec *, float *, const float *, const int32_t *, size_t, size_t, float);
    void (*rows_load)(struct lsi_exec *, float *, const void *, enum lsi_dtype, size_t, size_t);
    void (*rows_store)(struct lsi_exec *, void *, enum lsi_dtype, const float *, size_t, size_t);
    void (*linear_backward)(struct lsi_exec *, const struct lsi_linear_grad *, size_t, float *, size_t, bool,
                            const float *, size_t, size_t, float);
    size_t (*linear_backward_scratch)(const struct lsi_exec *, size_t, size_t, size_t);
    void (*attention_backward)(struct lsi_exec *, const struct lsi_attention_backward *);
    size_t (*attention_backward_scratch)(const struct lsi_exec *, size_t, size_t, size_t, size_t, size_t);
    double (*cross_entropy)(struct lsi_exec *, float *, const int32_t *, size_t, size_t, size_t);
    size_t (*cross_entropy_scratch)(const struct lsi_exec *, size_t);
    double (*sum_squares)(struct lsi_exec *, const float *, size_t);
    void (*adamw)(struct lsi_exec *, const struct lsi_adamw *, const struct lsi_adamw_tensor *);
};

#endif

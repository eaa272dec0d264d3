/* What the files of attention on the CPU share: rows, their states and what they see. */
#ifndef LSI_CPU_ATTENTION_H
#define LSI_CPU_ATTENTION_H

#include "backend/cpu.h"

#include <math.h>

#define LSI_LOG2_E 1.4426950408889634

/* States of rows, as kernels/attention.h has them. */
struct lsi_cpu_states {
    float *m, *l; /* [n] */
    float *acc;   /* [n][D] */
};

/** Bytes of one head of a page. */
size_t lsi_cpu_head_bytes(enum lsi_kv_format format, size_t D);

/** The kernel that reads a slot of a format. */
static inline lsk_kv_load_fn *lsi_cpu_kv_load_kernel(const struct lsk_table *kernels,
                                                     enum lsi_kv_format format)
{
    return format == LSI_KV_BF16  ? kernels->kv_load_bf16
           : format == LSI_KV_F32 ? kernels->kv_load_f32
                                  : kernels->kv_load_q8;
}

/** First slot that token t sees. */
static inline size_t lsi_cpu_seen_from(const struct lsi_attention *a, size_t t)
{
    const size_t end = a->slot0 + t + 1;
    return a->window > 0 && end > a->window ? lsi_max_size(a->s0, end - a->window) : a->s0;
}

/** The slot after the last that token t sees. */
static inline size_t lsi_cpu_seen_to(const struct lsi_attention *a, size_t t)
{
    const size_t end = a->slot0 + t + 1;
    return a->end > 0 ? lsi_min_size(a->end, end) : end;
}

/** Position of a slot in a page, 0 or LSI_KV_PAGE for slots before or after it. */
static inline uint16_t lsi_cpu_within(size_t slot, size_t page_slot)
{
    return slot <= page_slot ? 0 : (uint16_t)lsi_min_size(slot - page_slot, LSI_KV_PAGE);
}

/** to[t][n] = scale times n numbers of row t of `from`. */
void lsi_cpu_pack_queries(float *to, const float *from, size_t ld, size_t n_tokens, size_t n, double scale);

/** States of rows that have seen nothing. */
void lsi_cpu_states_reset(const struct lsi_cpu_states *s, size_t n_rows, size_t D);

/** State i becomes that of i, i + step .. (n of them) together, in this order. */
void lsi_cpu_states_merge(const struct lsi_cpu_states *s, size_t i, size_t n, size_t step, size_t D);

/** out[D] = acc / l; *lse (unless NULL) = ln(2) (m + log2 l). A row that saw nothing: 0 and -inf. */
void lsi_cpu_states_finish(const struct lsi_cpu_states *s, size_t i, size_t D, float *out, float *lse);

#endif

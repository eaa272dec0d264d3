/*
 * Operations of cache policies beyond plain attention: what keys have been looked at, attention over a part
 * of them, and moving them about. Rules as in ops/ops.h.
 */
#ifndef LSI_CACHE_OPS_H
#define LSI_CACHE_OPS_H

#include "ops/ops.h"

/**
 * Column sums of attention probabilities, without the matrix of them:
 *
 *   sums[g][s] += sum over rows t that see s, over query heads h of kv head g, of exp(scale q[t][h] k[s] -
 * lse[t][h])
 *
 * a     the attention whose lse has been computed (lsi_op_attention with the same a, and q still there); out
 * is not used sums  [G][ld], fp32; slot s in column s
 *
 * Second pass over the scores: one more product of queries and keys. Order of adding is a function of the
 * shape.
 */
void lsi_op_attention_sums(struct lsi_exec *ex, const struct lsi_attention *a, float *sums, size_t ld);
size_t lsi_op_attention_sums_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D);

/** scores[t][h][s] = scale q[t][h] k[s] for slots s < slot0 + T, -inf for those row t does not see;
 * [T][H][ld]. fp32. */
void lsi_op_attention_scores(struct lsi_exec *ex, const struct lsi_attention *a, float *scores, size_t ld);
size_t lsi_op_attention_scores_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D);

struct lsi_slots {
    uint32_t begin, end; /* begin <= s < end */
};

/**
 * Attention of one row over ranges of slots, exact over those: softmax(scale q k) v. Every query head of kv
 * head g (or with per_q each query head for itself) has its own list of ranges, ascending and disjoint. No
 * ranges: out 0, lse -inf.
 */
struct lsi_attention_slots {
    const float *q; /* [H][D] */
    float *out;     /* [H][D], may equal q */
    float *lse;     /* [H] or NULL */
    size_t H;
    float scale;
    bool per_q;
    const struct lsi_slots *slots; /* list i: slots[first[i]] .. slots[first[i + 1] - 1] */
    const size_t *first;           /* [G + 1], with per_q [H + 1] */
    struct lsi_kv_view kv;
};
void lsi_op_attention_slots(struct lsi_exec *ex, const struct lsi_attention_slots *a);
size_t lsi_op_attention_slots_scratch(const struct lsi_exec *ex, size_t H, size_t G, size_t D);

/**
 * Merge partial results of the same rows over disjoint sets of keys (log-sum-exp): out and lse become those
 * over both sets. out [T][H*D] stride ldo, lse [T][H]; the same for the other part. A part that saw nothing
 * has lse -inf.
 */
void lsi_op_attention_merge(struct lsi_exec *ex, float *out, size_t ldo, float *lse, const float *part,
                            size_t ldp, const float *part_lse, size_t T, size_t H, size_t D);

/** Within kv head g: slot to[i] = slot from[i], for ascending i; to[i] <= from[i], both ascending (compaction
 * in place). Packed slots move by whole groups: to and from have the first slots of them. */
void lsi_op_kv_move(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, const uint32_t *to,
                    const uint32_t *from, size_t n);

/**
 * Quantise stored slots: `to` is a view of LSI_KV_KIVI, `from` one of bf16 or fp32, whose slot s is slot
 * base + s of `to`.
 *
 * Keys k_begin .. k_end - 1 (whole groups) and values v_begin .. v_end - 1. Keys of slots from `back` on are
 * replaced in `from` by what their codes stand for. Slots below `skip` are not looked at: their codes are
 * those of slot skip.
 */
struct lsi_kv_pack {
    struct lsi_kv_view from, to;
    size_t base;
    size_t k_begin, k_end, v_begin, v_end;
    size_t back, skip;
};
void lsi_op_kv_pack(struct lsi_exec *ex, const struct lsi_kv_pack *p);
size_t lsi_op_kv_pack_scratch(const struct lsi_exec *ex, size_t D);

/**
 * Within kv head g of packed pages: the group whose first slot is `to` gets what the slots from[0] .. from[n
 * - 1] stand for, quantised anew, 1 <= n <= slots of a group; its other slots are copies of the last of them.
 * All are read before anything is written. Numbers change by at most half a step of the new group. Scratch:
 * that of lsi_op_kv_pack.
 */
void lsi_op_kv_regroup(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, size_t to,
                       const uint32_t *from, size_t n);

/** Values of stored rows slot0 .. slot0 + n_rows - 1: k, v [n_rows][G*D] in fp32 (strides ldk, ldv; either
 * may be NULL). */
void lsi_op_kv_load(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, float *k, size_t ldk,
                    float *v, size_t ldv, size_t n_rows);

/*
 * Bounds of keys: of each run of `run` consecutive slots the least and the greatest value of every dimension
 * of every kv head. Pages hold LSI_KV_PAGE runs each, as bytes with a scale for each run, rounded outwards by
 * less than 1/127 of the greatest, so that the bounds hold for the keys as they are stored.
 */
struct lsi_bounds {
    size_t G, D;
    size_t run;
    void *const *pages;
};

/** Bytes of one page of bounds. A multiple of 64. */
size_t lsi_bounds_page_bytes(size_t G, size_t D);

/** Bounds of runs first .. first + n_runs - 1, all of whose slots are stored in kv. */
void lsi_op_bounds_store(struct lsi_exec *ex, const struct lsi_bounds *b, const struct lsi_kv_view *kv,
                         size_t first, size_t n_runs);

/* What is made of the bounds u_h of the query heads h of a kv head. */
enum lsi_bounds_set {
    LSI_BOUNDS_EACH,   /* u_h: [H] */
    LSI_BOUNDS_PSEUDO, /* sum_h exp(u_h - max over runs of u_h): [G] */
    LSI_BOUNDS_MAX,    /* max_h u_h: [G] */
    LSI_BOUNDS_SUM,    /* sum_h u_h: [G] */
};

/**
 * scores[h or g][i] for runs i < n_runs, row stride ld, from
 *
 *   u_h = scale sum_d max(q[h][d] lo[d], q[h][d] hi[d])  >=  scale q[h] k of every slot of the run
 *
 * up to rounding. q [H][D], scale > 0.
 */
void lsi_op_bounds_scores(struct lsi_exec *ex, const struct lsi_bounds *b, const float *q, size_t H,
                          float scale, size_t n_runs, enum lsi_bounds_set set, float *scores, size_t ld);
size_t lsi_op_bounds_scores_scratch(const struct lsi_exec *ex, size_t H, size_t D, size_t n_runs);

/** best[i][0 .. k - 1] = the places of the k greatest of scores[i][0 .. n - 1], rows i < n_rows; ascending,
 * of equal scores the last. 1 <= k <= n; scores mean nothing afterwards. */
void lsi_op_choose(struct lsi_exec *ex, uint32_t *best, float *scores, size_t n_rows, size_t n, size_t k);

/** lsi_op_rope with a position for each row (negative ones turn back). */
void lsi_op_rope_at(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                    const struct lsi_rope *rope, const int64_t *pos);

#endif

/*
 * Gradient of attention over slots of one page: contract.
 *
 * A row is a query head of a token; the heads that share the kv head lie side by side. With
 * z = scale q k over the slots that the row sees:
 *
 *   P = exp(z - lse);  e = sum_d dout out;  dP = dout v;  dZ = P (dP - e)
 *   dq += scale dZ k;  dk += scale dZ^T q;  dv += P^T dout
 *
 * Slots that no row sees and rows that see no slot are neither read nor written in dq, dk and dv.
 */
#ifndef LSK_ATTENTION_BACKWARD_H
#define LSK_ATTENTION_BACKWARD_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kv_layout.h"

/* Rows and slots that are worked off together: a block of scores. */
#define LSK_BACKWARD_ROWS  96
#define LSK_BACKWARD_SLOTS 64

struct lsk_attn_backward {
    const void *head; /* keys and values of one head: kv_layout.h; 64-byte aligned */
    size_t D;         /* even */
    size_t group;     /* rows of a token */
    size_t n_tokens;
    size_t from, to;             /* slots of the page; from < to */
    const float *q, *out, *dout; /* [n_tokens][group][D], tokens ldq, ldo and lddo apart */
    size_t ldq, ldo, lddo;
    const float *lse; /* [n_tokens][group], tokens ldl apart; -inf: the row sees nothing */
    size_t ldl;
    const uint16_t *lo, *hi; /* [n_tokens]: a token sees slots max(lo, from) <= s < min(hi, to) */
    float scale;
    float *dq;      /* [n_tokens][group][D] */
    float *dk, *dv; /* row s - from belongs to slot s; ldkv apart */
    size_t ldkv;
    void *work; /* lsk_attn_backward_work(D) bytes, 64-byte aligned */
};

/**
 * attn_backward_f32, attn_backward_bf16   products in fp32 of fp32 operands;
 * attn_backward_bf16_round                operands of products may be rounded to bf16, sums in fp32.
 */
typedef void lsk_attn_backward_fn(const struct lsk_attn_backward *a);

/** Memory that a call may use as it likes: packed operands of a page and of a block of rows. */
static inline size_t lsk_attn_backward_work(size_t D)
{
    const size_t page = 3 * LSK_PAGE * D, rows = 4 * LSK_BACKWARD_ROWS * (D + LSK_TILE);
    const size_t scores = 3 * LSK_BACKWARD_ROWS * LSK_BACKWARD_SLOTS;

    return (page + rows + scores + 2 * LSK_BACKWARD_ROWS) * sizeof(float);
}

#endif

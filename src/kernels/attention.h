/*
 * Attention over one page: contracts.
 *
 * A row of queries carries a running state (m, l, acc): the greatest score so far,
 * the sum of weights 2^(score - m), and the weighted sum of values. A call lets a
 * number of rows see one page of one kv head. Scores are in units of log 2: the
 * caller multiplies the queries by scale * log2(e).
 *
 * A row's result depends on that row alone, bit for bit: not on n_rows, nor on its
 * place among them; and slots it does not see change nothing.
 */
#ifndef LSK_ATTENTION_H
#define LSK_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kivi.h"
#include "kernels/kv_layout.h"

/* attn_bf16_round: q and acc have room for n_rows rounded up to this; the rows in excess are finite
 * numbers, and meaningless ones after the call. */
#define LSK_ATTN_ROW_PAD 32

#define LSK_ATTN_TILES   (LSK_PAGE / LSK_TILE) /* of a page, and most of a call */

struct lsk_attn {
    const void *head;        /* keys and values of one head: kv_layout.h; 64-byte aligned */
    const void *next;        /* what will be asked for next, a hint; may be any address or NULL */
    struct lsk_kivi kivi;    /* attn_kivi: how the page is packed */
    size_t D;                /* even */
    size_t n_rows;           /* > 0 */
    const float *q;          /* [n_rows][D] */
    const uint16_t *lo, *hi; /* [n_rows]: a row sees slots lo <= s < hi of the page; lo >= hi: nothing */
    const uint16_t *seen;    /* attn_kivi: [LSK_ATTN_TILES], and of those slots LSK_TILE t + i with bit i of
                              * seen[t]; NULL: all of them */
    float *m;                /* [n_rows], -inf at first */
    float *l;                /* [n_rows], 0 at first */
    float *acc;              /* [n_rows][D], 0 at first */
};

/**
 * attn_f32, attn_bf16, attn_q8,    products in fp32 of the stored values with fp32 queries and weights;
 * attn_kivi                        scales of packed pages may be multiplied with those first
 * attn_bf16_round                  queries and weights may be rounded to bf16, sums in fp32;
 * attn_kivi_round                  products of them with scales to 16 bits below the greatest of a row,
 *                                  with those of 2-bit keys and 2-bit values to 8 bits
 *
 * Accuracy: 1e-5 relative to the largest |value| for the first kind, 2^-6 for bf16_round, 2^-9 for
 * kivi_round, 2^-6 where keys or values have 2 bits.
 */
typedef void lsk_attn_fn(const struct lsk_attn *a);

/* A tile of slots that need not lie next to others. */
struct lsk_attn_tile {
    const void *head; /* of its page; 64-byte aligned */
    uint16_t tile;    /* slots LSK_TILE tile .. of that page */
    uint16_t seen;    /* bit i: slot i of the tile is seen */
};

struct lsk_attn_tiles {
    const struct lsk_attn_tile *tiles; /* [n_tiles]; every row sees the same of them */
    size_t n_tiles;                    /* 1 .. LSK_ATTN_TILES */
    const struct lsk_attn_tile *next;  /* [n_next] what will be asked for next, a hint */
    size_t n_next;
    size_t D, n_rows; /* even; > 0 */
    const float *q;   /* [n_rows][D] */
    float *m, *l;     /* [n_rows] */
    float *acc;       /* [n_rows][D] */
};

/** attn_tiles_f32, attn_tiles_bf16, attn_tiles_q8: like attn_f32 and the others over scattered tiles. */
typedef void lsk_attn_tiles_fn(const struct lsk_attn_tiles *a);

#define LSK_SCORES_STEP 64

struct lsk_attn_scores {
    const void *head;     /* 64-byte aligned */
    const void *next;     /* what will be asked for next, a hint; may be any address or NULL */
    struct lsk_kivi kivi; /* attn_scores_kivi: how the page is packed */
    size_t D, n_rows;     /* even; > 0 */
    const float *q;       /* [n_rows][D] */
    size_t from, to;      /* slots, multiples of LSK_SCORES_STEP */
    float *z;             /* [n_rows][LSK_PAGE] */
};

/**
 * Scores alone: z[r][s] = q[r] . k[s] for from <= s < to; the rest of z is left alone.
 *
 * attn_scores_f32, _bf16, _q8,    products and sums in fp32, 1e-6 of sum |q k|;
 * attn_scores_kivi                of packed keys 1e-6 of sum |q s u| + |q z| (kivi.h)
 * attn_scores_bf16_round          queries may be rounded to bf16 and q and z have room for n_rows rounded
 *                                 up to LSK_ATTN_ROW_PAD (see there); 2^-8 of sum |q k|.
 */
typedef void lsk_attn_scores_fn(const struct lsk_attn_scores *a);

/**
 * The most that a row can score with a key within bounds (kv_layout.h): z[r][i] for runs from <= i < to is
 *
 *     sum_d |q[r][d]| scale[i] (q[r][d] > 0 ? most[i][d] : opposite[i][d])
 *
 * Accuracy: 1e-6 of the sum of the terms' sizes.
 */
typedef void lsk_attn_bounds_fn(const struct lsk_attn_scores *a);

/** Store the key and the value of one head, k[D] and v[D], in slot `slot` of a page. */
typedef void lsk_kv_store_fn(void *head, size_t D, size_t slot, const float *k, const float *v);

/** The values that slot `slot` stands for; k or v may be NULL. */
typedef void lsk_kv_load_fn(const void *head, size_t D, size_t slot, float *k, float *v);

/** The head of a bf16 page from that of a q8 page (values rounded to nearest even). D a multiple of 16. */
typedef void lsk_kv_q8_to_bf16_fn(void *bf16_head, const void *q8_head, size_t D);

#endif

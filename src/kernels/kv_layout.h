/*
 * How a page of a cache lies in memory. A page holds LSK_PAGE consecutive slots of
 * one layer, one kv head after the other:
 *
 *     page   [ head 0: tiles | scales ][ head 1: ... ] ...
 *
 * A head's slots are cut into tiles of LSK_TILE = 16. The keys of a tile and its values lie together, so that
 * who reads a few tiles finds both in one page of the system; two tiles lie in mirror order,
 *
 *     [ K 0 | V 0 | V 1 | K 1 ][ K 2 | V 2 | V 3 | K 3 ] ...
 *
 * so that the values of 32 slots are one operand of a matrix tile.
 *
 * Keys are grouped lane by lane, so that one
 * vector holds the same dimensions of 16 keys: scores need no horizontal sums.
 * Values are grouped by 1, 2 or 4 slots, so that one vector holds the same slots
 * of 16 dimensions. The groups fill 32 bits, which makes the parts operands of the
 * pairwise (bf16) and fourfold (int8) products and of matrix tiles as they are.
 *
 *     bf16   K  [D/2][16 keys][2 dims]
 *
 *                   key 0    key 1         key 15
 *               +--------+--------+-- --+--------+
 *               | d0  d1 | d0  d1 | ... | d0  d1 |   64 bytes
 *               +--------+--------+-- --+--------+
 *               | d2  d3 | d2  d3 | ... | d2  d3 |
 *
 *            V  [8][D][2 slots]
 *
 *                  dim 0    dim 1         dim D-1
 *               +--------+--------+-- --+--------+
 *               | s0  s1 | s0  s1 | ... | s0  s1 |   4 D bytes
 *               +--------+--------+-- --+--------+
 *               | s2  s3 | s2  s3 | ... | s2  s3 |
 *
 *     f32    K  [D][16 keys]            V  [16][D]
 *
 *     q8     K  [Dq/4][16 keys][4 dims] unsigned, value = (byte - 128) * scale
 *            V  [4][Dq][4 slots]            signed, value = byte * scale
 *            behind all tiles the scales of the keys and those of the values, bf16 [runs][page] each:
 *            one for each run of LSK_KV_Q8_RUN = 32 dimensions of a slot, of which the
 *            last may be shorter; Dq = D rounded up to 4
 *
 *                   slot 0   slot 1        slot 255
 *               +--------+--------+-- --+--------+
 *               | d0..31 | d0..31 | ... | d0..31 |   512 bytes
 *               +--------+--------+-- --+--------+
 *               | d32..63| d32..63| ... | d32..63|
 *
 * A page of zero bytes is a page of finite numbers in every format.
 *
 * Bounds of keys, of LSK_PAGE runs of slots: the greatest value of each dimension, and that of its opposite
 * (the least value negated), as signed bytes with a scale for each run. A tile of 16 runs lies together:
 *
 *     [Dq/4][ most [16 runs][4 dims] | opposite [16 runs][4 dims] ], scales [16 runs] fp32
 */
#ifndef LSK_KV_LAYOUT_H
#define LSK_KV_LAYOUT_H

#include <stddef.h>

#define LSK_PAGE      256
#define LSK_TILE      16

#define LSK_KV_Q8_RUN 32 /* dimensions that share a scale */

/* ---- where the keys of a slot's tile begin, and its values, in sizes of a tile's keys ---- */

static inline size_t lsk_kv_k_tile(size_t slot)
{
    return slot / (2 * LSK_TILE) * 4 + slot / LSK_TILE % 2 * 3;
}

static inline size_t lsk_kv_v_tile(size_t slot)
{
    return slot / (2 * LSK_TILE) * 4 + slot / LSK_TILE % 2 + 1;
}

/* ---- bf16: offsets in elements from the start of the head ---------------------- */

static inline size_t lsk_kv_bf16_k(size_t D, size_t slot, size_t d)
{
    return lsk_kv_k_tile(slot) * LSK_TILE * D + d / 2 * (2 * LSK_TILE) + slot % LSK_TILE * 2 + d % 2;
}

static inline size_t lsk_kv_bf16_v(size_t D, size_t slot, size_t d)
{
    return lsk_kv_v_tile(slot) * LSK_TILE * D + slot % LSK_TILE / 2 * 2 * D + 2 * d + slot % 2;
}

static inline size_t lsk_kv_bf16_head_bytes(size_t D)
{
    return (size_t)LSK_PAGE * D * 2 * 2;
}

/* ---- f32: offsets in elements --------------------------------------------------- */

static inline size_t lsk_kv_f32_k(size_t D, size_t slot, size_t d)
{
    return lsk_kv_k_tile(slot) * LSK_TILE * D + d * LSK_TILE + slot % LSK_TILE;
}

static inline size_t lsk_kv_f32_v(size_t D, size_t slot, size_t d)
{
    return lsk_kv_v_tile(slot) * LSK_TILE * D + slot % LSK_TILE * D + d;
}

static inline size_t lsk_kv_f32_head_bytes(size_t D)
{
    return (size_t)LSK_PAGE * D * 2 * 4;
}

/* ---- q8: offsets in bytes ------------------------------------------------------- */

static inline size_t lsk_kv_q8_dims(size_t D)
{
    return (D + 3) / 4 * 4;
}

static inline size_t lsk_kv_q8_k(size_t D, size_t slot, size_t d)
{
    return lsk_kv_k_tile(slot) * LSK_TILE * lsk_kv_q8_dims(D) + d / 4 * (4 * LSK_TILE) + slot % LSK_TILE * 4 +
           d % 4;
}

static inline size_t lsk_kv_q8_v(size_t D, size_t slot, size_t d)
{
    return lsk_kv_v_tile(slot) * LSK_TILE * lsk_kv_q8_dims(D) + slot % LSK_TILE / 4 * 4 * lsk_kv_q8_dims(D) +
           4 * d + slot % 4;
}

static inline size_t lsk_kv_q8_runs(size_t D)
{
    return (D + LSK_KV_Q8_RUN - 1) / LSK_KV_Q8_RUN;
}

/* Where the scales of the keys begin, and those of the values. */
static inline size_t lsk_kv_q8_k_scales(size_t D)
{
    return (size_t)LSK_PAGE * lsk_kv_q8_dims(D) * 2;
}

static inline size_t lsk_kv_q8_v_scales(size_t D)
{
    return lsk_kv_q8_k_scales(D) + lsk_kv_q8_runs(D) * LSK_PAGE * 2;
}

/* Elements from there. */
static inline size_t lsk_kv_q8_scale(size_t slot, size_t d)
{
    return d / LSK_KV_Q8_RUN * LSK_PAGE + slot;
}

static inline size_t lsk_kv_q8_head_bytes(size_t D)
{
    return lsk_kv_q8_v_scales(D) + lsk_kv_q8_runs(D) * LSK_PAGE * 2;
}

/* ---- bounds: offsets in bytes ------------------------------------------------------ */

static inline size_t lsk_bounds_tile_bytes(size_t D)
{
    return LSK_TILE * (2 * lsk_kv_q8_dims(D) + 4);
}

/* The byte for dimension d; that for its opposite stands 4 * LSK_TILE behind. */
static inline size_t lsk_bounds_most(size_t D, size_t run, size_t d)
{
    return run / LSK_TILE * lsk_bounds_tile_bytes(D) + d / 4 * (8 * LSK_TILE) + run % LSK_TILE * 4 + d % 4;
}

static inline size_t lsk_bounds_scale(size_t D, size_t run)
{
    return run / LSK_TILE * lsk_bounds_tile_bytes(D) + 2 * LSK_TILE * lsk_kv_q8_dims(D) + run % LSK_TILE * 4;
}

static inline size_t lsk_bounds_head_bytes(size_t D)
{
    return LSK_PAGE / LSK_TILE * lsk_bounds_tile_bytes(D);
}

#endif

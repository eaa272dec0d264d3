/*
 * Packed keys and values (KIVI): how a head of a page holds them, and the contracts of what packs them.
 *
 * Keys are quantised for each dimension over `group` consecutive slots, values for each slot over runs of
 * `group` consecutive dimensions (the last may be shorter). A group of numbers has a scale s and an offset z,
 * IEEE halves, and codes u of 2, 4 or 8 bits:
 *
 *     number = u s + z        |number - original| <= s / 2
 *
 * which holds because z is rounded down before s is computed, and s up before the codes are. A head is
 * LSK_PAGE / group blocks, one after the other, each with all that `group` slots need:
 *
 *     block  [ K codes | K scales [Dk] | K offsets [Dk] | V codes | V scales [runs][group] | V offsets ]
 *
 * Dk = D rounded up to 16. Codes lie so that bytes with the same shift are operands of fourfold byte
 * products: a vector of 64 bytes has 8 / bits planes, and a plane is what one vector of the q8 format holds
 * (kv_layout.h), 16 keys x 4 dimensions or 16 dimensions x 4 slots.
 *
 *     2 bits   K  [group/16][Dk/16] vectors      V  [group/16][Dk/16] vectors
 *
 *                   key 0            key 1                     dim 0             dim 1
 *               +----------------+----------------+--      +-----------------+-----------------+--
 *     bits 0..1 | d0  d1  d2  d3 | d0  d1  d2  d3 |        | s0  s1  s2  s3  | s0  s1  s2  s3  |
 *     bits 2..3 | d4  d5  d6  d7 | d4  d5  d6  d7 |        | s4  s5  s6  s7  | s4  s5  s6  s7  |
 *     bits 4..5 | d8  d9  d10 d11| d8  d9  d10 d11|        | s8  s9  s10 s11 | s8  s9  s10 s11 |
 *     bits 6..7 | d12 d13 d14 d15| d12 d13 d14 d15|        | s12 s13 s14 s15 | s12 s13 s14 s15 |
 *
 *     4 bits   K  [group/16][Dk/8] vectors       V  [group/8][Dk/16] vectors
 *     8 bits   K  [group/16][Dk/4] vectors       V  [group/4][Dk/16] vectors
 *
 * A page of zero bytes is a page of zeros.
 */
#ifndef LSK_KIVI_H
#define LSK_KIVI_H

#include <stddef.h>
#include <stdint.h>

#include "base/numbers.h"
#include "kernels/kv_layout.h"

#define LSK_KIVI_VECTOR 64       /* bytes */
#define LSK_KIVI_MOST   65504.0f /* numbers beyond this are quantised as this: the greatest half */

/* How a page is packed. */
struct lsk_kivi {
    uint8_t bits_k, bits_v; /* 2, 4, 8 */
    uint16_t group;         /* 32, 64, 128 */
};

/* Where a code is: in this byte of the block, from this bit on. */
struct lsk_kivi_code {
    size_t byte;
    unsigned shift;
};

static inline size_t lsk_kivi_dims(size_t D)
{
    return (D + LSK_TILE - 1) / LSK_TILE * LSK_TILE;
}

static inline size_t lsk_kivi_runs(struct lsk_kivi f, size_t D)
{
    return (D + f.group - 1) / f.group;
}

/* ---- parts of a block: offsets in bytes; scales and offsets are halves from there ---------- */

static inline size_t lsk_kivi_k_scales(struct lsk_kivi f, size_t D)
{
    return f.group * lsk_kivi_dims(D) * f.bits_k / 8;
}

static inline size_t lsk_kivi_k_offsets(struct lsk_kivi f, size_t D)
{
    return lsk_kivi_k_scales(f, D) + 2 * lsk_kivi_dims(D);
}

static inline size_t lsk_kivi_v_codes(struct lsk_kivi f, size_t D)
{
    return lsk_kivi_k_offsets(f, D) + 2 * lsk_kivi_dims(D);
}

static inline size_t lsk_kivi_v_scales(struct lsk_kivi f, size_t D)
{
    return lsk_kivi_v_codes(f, D) + f.group * lsk_kivi_dims(D) * f.bits_v / 8;
}

static inline size_t lsk_kivi_v_offsets(struct lsk_kivi f, size_t D)
{
    return lsk_kivi_v_scales(f, D) + 2 * lsk_kivi_runs(f, D) * f.group;
}

static inline size_t lsk_kivi_block_bytes(struct lsk_kivi f, size_t D)
{
    return lsk_kivi_v_offsets(f, D) + 2 * lsk_kivi_runs(f, D) * f.group;
}

static inline size_t lsk_kivi_head_bytes(struct lsk_kivi f, size_t D)
{
    return LSK_PAGE / f.group * lsk_kivi_block_bytes(f, D);
}

/* Which of a block's scales of values belongs to slot s of the block and dimension d. */
static inline size_t lsk_kivi_v_scale(struct lsk_kivi f, size_t s, size_t d)
{
    return d / f.group * f.group + s;
}

/* ---- codes of slot s of the block ----------------------------------------------------------- */

static inline struct lsk_kivi_code lsk_kivi_k_code(struct lsk_kivi f, size_t D, size_t s, size_t d)
{
    const size_t planes = 8 / f.bits_k, quad = d / 4;
    const size_t vector = s / LSK_TILE * (lsk_kivi_dims(D) / 4 / planes) + quad / planes;
    return (struct lsk_kivi_code){ vector * LSK_KIVI_VECTOR + s % LSK_TILE * 4 + d % 4,
                                   (unsigned)(quad % planes * f.bits_k) };
}

static inline struct lsk_kivi_code lsk_kivi_v_code(struct lsk_kivi f, size_t D, size_t s, size_t d)
{
    const size_t planes = 8 / f.bits_v, slots = 4 * planes;
    const size_t vector = s / slots * (lsk_kivi_dims(D) / LSK_TILE) + d / LSK_TILE;
    return (struct lsk_kivi_code){ lsk_kivi_v_codes(f, D) + vector * LSK_KIVI_VECTOR + d % LSK_TILE * 4 +
                                       s % 4,
                                   (unsigned)(s % slots / 4 * f.bits_v) };
}

/* ---- contracts -------------------------------------------------------------------------------- */

/** Quantise the keys k [group][ldk] of the slots slot .. slot + group - 1, a multiple of group. */
typedef void lsk_kivi_pack_keys_fn(void *head, struct lsk_kivi f, size_t D, size_t slot, const float *k,
                                   size_t ldk);

/** Quantise the value v [D] of a slot. */
typedef void lsk_kivi_pack_value_fn(void *head, struct lsk_kivi f, size_t D, size_t slot, const float *v);

/** What slot `slot` stands for; k or v may be NULL. */
typedef void lsk_kivi_load_fn(const void *head, struct lsk_kivi f, size_t D, size_t slot, float *k, float *v);

/** The head of a bf16 page from that of a packed one (values rounded to nearest even). D a multiple of 16. */
typedef void lsk_kivi_to_bf16_fn(void *bf16_head, const void *head, struct lsk_kivi f, size_t D);

/*
 * The interchange layout, of the slots of one head of a page: codes in words of 32 bits, the first code in
 * the lowest bits; keys along slots, values along dimensions. LSK_PAGE = S.
 */
struct lsk_kivi_plain {
    uint32_t *k_codes;             /* [D][S * bits_k / 32] */
    lsi_f16 *k_scales, *k_offsets; /* [D][S / group] */
    uint32_t *v_codes;             /* [S][D * bits_v / 32, rounded up]; unused bits are 0 */
    lsi_f16 *v_scales, *v_offsets; /* [S][D / group, rounded up] */
};

/** From the working layout to the interchange layout and back; nothing is lost. */
void lsk_kivi_to_plain(const struct lsk_kivi_plain *plain, const void *head, struct lsk_kivi f, size_t D);
void lsk_kivi_from_plain(void *head, const struct lsk_kivi_plain *plain, struct lsk_kivi f, size_t D);

#endif

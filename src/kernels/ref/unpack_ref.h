/*
 * Stored blocks taken apart, for the reference kernels: element i of a block is
 * a[i / 16] * v[i] + b[i / 16], in fp32, product and sum rounded one after the other.
 *
 * Types without an offset have b = -0, which leaves every value as it is (adding +0
 * would turn -0 into +0).
 */
#ifndef LSK_UNPACK_REF_H
#define LSK_UNPACK_REF_H

#include "kernels/impl.h"

#define LSK_REF_BLOCK 256 /* elements of the largest block */

struct lsk_ref_block {
    int8_t v[LSK_REF_BLOCK];
    float a[LSK_REF_BLOCK / 16], b[LSK_REF_BLOCK / 16];
};

typedef void lsk_unpack_fn(struct lsk_ref_block *o, const uint8_t *p);

static inline float lsk_ref_half(const uint8_t *p)
{
    return lsi_f16_to_f32((lsi_f16)(p[0] | p[1] << 8));
}

static inline void lsk_ref_scale(struct lsk_ref_block *o, size_t run32, float a, float b)
{
    o->a[2 * run32] = o->a[2 * run32 + 1] = a;
    o->b[2 * run32] = o->b[2 * run32 + 1] = b;
}

static inline void lsk_unpack_q8_0(struct lsk_ref_block *o, const uint8_t *p)
{
    lsk_ref_scale(o, 0, lsk_ref_half(p), -0.0f);
    memcpy(o->v, p + 2, 32);
}

/* Sixteen bytes of nibbles: the low ones are the first 16 values, the high ones the last. */
static inline void lsk_unpack_nibbles(int8_t *v, const uint8_t *q, uint32_t fifth_bits, int zero)
{
    for (int j = 0; j < 16; j++) {
        const int lo = (int)(fifth_bits >> j & 1u) << 4, hi = (int)(fifth_bits >> (j + 16) & 1u) << 4;
        v[j] = (int8_t)(((q[j] & 15) | lo) - zero);
        v[j + 16] = (int8_t)((q[j] >> 4 | hi) - zero);
    }
}

static inline uint32_t lsk_ref_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void lsk_unpack_q4_0(struct lsk_ref_block *o, const uint8_t *p)
{
    lsk_ref_scale(o, 0, lsk_ref_half(p), -0.0f);
    lsk_unpack_nibbles(o->v, p + 2, 0, 8);
}

static inline void lsk_unpack_q4_1(struct lsk_ref_block *o, const uint8_t *p)
{
    lsk_ref_scale(o, 0, lsk_ref_half(p), lsk_ref_half(p + 2));
    lsk_unpack_nibbles(o->v, p + 4, 0, 0);
}

static inline void lsk_unpack_q5_0(struct lsk_ref_block *o, const uint8_t *p)
{
    lsk_ref_scale(o, 0, lsk_ref_half(p), -0.0f);
    lsk_unpack_nibbles(o->v, p + 6, lsk_ref_u32(p + 2), 16);
}

static inline void lsk_unpack_q5_1(struct lsk_ref_block *o, const uint8_t *p)
{
    lsk_ref_scale(o, 0, lsk_ref_half(p), lsk_ref_half(p + 2));
    lsk_unpack_nibbles(o->v, p + 8, lsk_ref_u32(p + 4), 0);
}

/* The twelve bytes sc of Q4_K and Q5_K: eight scales and eight minima of 6 bits. */
static inline void lsk_unpack_k_scales(struct lsk_ref_block *o, const uint8_t *p)
{
    const float d = lsk_ref_half(p), dmin = lsk_ref_half(p + 2);
    const uint8_t *sc = p + 4;

    for (size_t s = 0; s < 8; s++) {
        const int scale = s < 4 ? sc[s] & 63 : (sc[s + 4] & 15) | sc[s - 4] >> 6 << 4;
        const int min = s < 4 ? sc[s + 4] & 63 : sc[s + 4] >> 4 | sc[s] >> 6 << 4;
        lsk_ref_scale(o, s, d * (float)scale, -(dmin * (float)min));
    }
}

static inline void lsk_unpack_q4_k(struct lsk_ref_block *o, const uint8_t *p)
{
    const uint8_t *q = p + 16;

    lsk_unpack_k_scales(o, p);
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = q[i / 64 * 32 + i % 32];
        o->v[i] = (int8_t)(i % 64 < 32 ? byte & 15 : byte >> 4);
    }
}

static inline void lsk_unpack_q5_k(struct lsk_ref_block *o, const uint8_t *p)
{
    const uint8_t *qh = p + 16, *q = p + 48;

    lsk_unpack_k_scales(o, p);
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = q[i / 64 * 32 + i % 32];
        const int fifth = qh[i % 32] >> (i / 32) & 1;
        o->v[i] = (int8_t)((i % 64 < 32 ? byte & 15 : byte >> 4) | fifth << 4);
    }
}

static inline void lsk_unpack_q6_k(struct lsk_ref_block *o, const uint8_t *p)
{
    const float d = lsk_ref_half(p + 208);

    for (size_t i = 0; i < 256; i++) {
        const size_t half = i / 128, run = i % 128 / 32, l = i % 32;
        const uint8_t low = p[64 * half + 32 * (run & 1) + l];
        const int high = p[128 + 32 * half + l] >> (2 * run) & 3;
        o->v[i] = (int8_t)(((run < 2 ? low & 15 : low >> 4) | high << 4) - 32);
    }
    for (size_t k = 0; k < 16; k++) {
        int8_t scale;
        memcpy(&scale, p + 192 + k, 1);
        o->a[k] = d * (float)scale;
        o->b[k] = -0.0f;
    }
}

#endif

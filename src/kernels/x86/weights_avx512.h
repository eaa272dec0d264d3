/*
 * Stored blocks in AVX-512 registers.
 *
 * All quantised types are brought to one form: a group of four runs of 32 values,
 *
 *     lo  bytes [run 0: values 0..15 | run 1: 0..15 | run 2: 0..15 | run 3: 0..15]
 *     hi  bytes [run 0: values 16..31 | ...                                      ]
 *     a, b  fp32, four lanes per run:  value = a * (code - zero) + b
 *
 * so that an integer product of lo and hi with activations in the same order leaves
 * four 32-bit sums per run, and one multiplication scales four runs. Codes are
 * unsigned; signed types are shifted by `zero`.
 *
 * Types with blocks of 32 may end in a group of fewer than four blocks: `n` counts those present,
 * nothing behind them is read, and the missing lanes are zero.
 */
#ifndef LSK_WEIGHTS_AVX512_H
#define LSK_WEIGHTS_AVX512_H

#include <immintrin.h>
#include <stdbool.h>

#include "kernels/impl.h"

#define LSK_INLINE static inline __attribute__((always_inline))

struct lsk_group {
    __m512i lo, hi;
    __m512 a, b; /* b: only for types with an offset */
    __m512 a_hi; /* Q6_K alone: scale of the runs' last 16 values; a is that of the first */
};

LSK_INLINE uint32_t lsk_load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

LSK_INLINE uint32_t lsk_load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

LSK_INLINE uint64_t lsk_load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Sixteen bytes of each block, `stride` apart. */
LSK_INLINE __m512i lsk_gather16(const uint8_t *p, size_t stride, size_t n)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
    if (n == 4) {
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * stride)), 2);
        return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 3 * stride)), 3);
    }
    v = _mm512_zextsi128_si512(_mm512_castsi512_si128(v));
    if (n > 1)
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
    if (n > 2)
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * stride)), 2);
    return v;
}

/* Four numbers, each in the four lanes of its run. */
LSK_INLINE __m512 lsk_spread4(__m128 v)
{
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(v));
}

/*
 * The half-precision number at p of each block, each in four lanes. With byte
 * permutations two loads and one or two shuffles do it (blocks of up to 24 bytes lie
 * in one register, those of 34 in two); without, four scalar loads.
 */
LSK_INLINE __m512 lsk_gather_half(const uint8_t *p, size_t stride, size_t n)
{
#ifdef __AVX512VBMI__
    if (n == 4) {
        const __m256i word = _mm256_setr_epi16(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        const __m256i at = _mm256_mullo_epi16(word, _mm256_set1_epi16((short)stride));
        const __m256i bytes =
            _mm256_or_si256(at, _mm256_slli_epi16(_mm256_add_epi16(at, _mm256_set1_epi16(1)), 8));
        const bool far = stride > 20; /* the fourth is beyond the first 64 bytes */
        __m512i h = _mm512_permutexvar_epi8(_mm512_castsi256_si512(bytes), _mm512_loadu_si512(p));
        if (far) {
            /* A second register that ends with the fourth number; indices count modulo 64. */
            const uint8_t *q = p + 3 * stride - 62;
            const __m256i back = _mm256_sub_epi8(bytes, _mm256_set1_epi8((char)(3 * stride - 62)));
            const __mmask64 late = stride > 31 ? 0xffff0000u : 0xff000000u;
            h = _mm512_mask_permutexvar_epi8(h, late, _mm512_castsi256_si512(back), _mm512_loadu_si512(q));
        }
        return _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    }
#endif
    uint64_t h = lsk_load_u16(p);
    if (n > 1)
        h |= (uint64_t)lsk_load_u16(p + stride) << 16;
    if (n > 2)
        h |= (uint64_t)lsk_load_u16(p + 2 * stride) << 32;
    if (n > 3)
        h |= (uint64_t)lsk_load_u16(p + 3 * stride) << 48;
    return lsk_spread4(_mm_cvtph_ps(_mm_cvtsi64_si128((long long)h)));
}

LSK_INLINE void lsk_split_nibbles(struct lsk_group *g, __m512i q)
{
    const __m512i low = _mm512_set1_epi8(15);
    g->lo = _mm512_and_si512(q, low);
    g->hi = _mm512_and_si512(_mm512_srli_epi16(q, 4), low);
}

/* Sixteen bits of each block as a mask over a group. */
LSK_INLINE __mmask64 lsk_gather_bits(const uint8_t *p, size_t stride, size_t n)
{
    uint64_t m = lsk_load_u16(p);
    if (n > 1)
        m |= (uint64_t)lsk_load_u16(p + stride) << 16;
    if (n > 2)
        m |= (uint64_t)lsk_load_u16(p + 2 * stride) << 32;
    if (n > 3)
        m |= (uint64_t)lsk_load_u16(p + 3 * stride) << 48;
    return (__mmask64)m;
}

LSK_INLINE void lsk_add_fifth_bits(struct lsk_group *g, const uint8_t *p, size_t stride, size_t n)
{
    const __m512i bit = _mm512_set1_epi8(16);
    g->lo = _mm512_mask_add_epi8(g->lo, lsk_gather_bits(p, stride, n), g->lo, bit);
    g->hi = _mm512_mask_add_epi8(g->hi, lsk_gather_bits(p + 2, stride, n), g->hi, bit);
}

LSK_INLINE struct lsk_group lsk_group_q8_0(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group * (4 * 34);
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    struct lsk_group g = { 0 };
    g.lo = _mm512_xor_si512(lsk_gather16(p + 2, 34, n), flip);
    g.hi = _mm512_xor_si512(lsk_gather16(p + 18, 34, n), flip);
    g.a = lsk_gather_half(p, 34, n);
    return g;
}

LSK_INLINE struct lsk_group lsk_group_q4_0(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group * (4 * 18);
    struct lsk_group g = { 0 };
    lsk_split_nibbles(&g, lsk_gather16(p + 2, 18, n));
    g.a = lsk_gather_half(p, 18, n);
    return g;
}

LSK_INLINE struct lsk_group lsk_group_q4_1(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group * (4 * 20);
    struct lsk_group g = { 0 };
    lsk_split_nibbles(&g, lsk_gather16(p + 4, 20, n));
    g.a = lsk_gather_half(p, 20, n);
    g.b = lsk_gather_half(p + 2, 20, n);
    return g;
}

LSK_INLINE struct lsk_group lsk_group_q5_0(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group * (4 * 22);
    struct lsk_group g = { 0 };
    lsk_split_nibbles(&g, lsk_gather16(p + 6, 22, n));
    lsk_add_fifth_bits(&g, p + 2, 22, n);
    g.a = lsk_gather_half(p, 22, n);
    return g;
}

LSK_INLINE struct lsk_group lsk_group_q5_1(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group * (4 * 24);
    struct lsk_group g = { 0 };
    lsk_split_nibbles(&g, lsk_gather16(p + 8, 24, n));
    lsk_add_fifth_bits(&g, p + 4, 24, n);
    g.a = lsk_gather_half(p, 24, n);
    g.b = lsk_gather_half(p + 2, 24, n);
    return g;
}

/* Four unsigned bytes, each as fp32 in the four lanes of its run. */
LSK_INLINE __m512 lsk_spread_u8(uint32_t bytes)
{
    const __m512i one_of_four =
        _mm512_setr_epi32((int)0x80808000u, (int)0x80808000u, (int)0x80808000u, (int)0x80808000u,
                          (int)0x80808001u, (int)0x80808001u, (int)0x80808001u, (int)0x80808001u,
                          (int)0x80808002u, (int)0x80808002u, (int)0x80808002u, (int)0x80808002u,
                          (int)0x80808003u, (int)0x80808003u, (int)0x80808003u, (int)0x80808003u);
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(_mm512_set1_epi32((int)bytes), one_of_four));
}

/* Scales and minima of the first or second four runs of a Q4_K or Q5_K block. */
LSK_INLINE void lsk_k_scales(struct lsk_group *g, const uint8_t *p, size_t second)
{
    const uint32_t s0 = lsk_load_u32(p + 4), s1 = lsk_load_u32(p + 8), s2 = lsk_load_u32(p + 12);
    const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)lsk_load_u32(p)));
    uint32_t scale = s0 & 0x3f3f3f3fu, min = s1 & 0x3f3f3f3fu;

    if (second) {
        scale = (s2 & 0x0f0f0f0fu) | (s0 >> 2 & 0x30303030u);
        min = (s2 >> 4 & 0x0f0f0f0fu) | (s1 >> 2 & 0x30303030u);
    }
    g->a = _mm512_mul_ps(_mm512_broadcastss_ps(d), lsk_spread_u8(scale));
    const __m512 m = _mm512_mul_ps(_mm512_broadcastss_ps(_mm_movehdup_ps(d)), lsk_spread_u8(min));
    g->b = _mm512_xor_ps(m, _mm512_set1_ps(-0.0f));
}

/*
 * 64 bytes of nibbles are two chunks: the low nibbles of chunk c are run 2c, the high
 * ones run 2c + 1. By quarters, low has [run 0 first, last, run 2 first, last] and
 * high the same of runs 1 and 3.
 */
LSK_INLINE void lsk_k_runs(struct lsk_group *g, __m512i low, __m512i high)
{
    g->lo = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), high);
    g->hi = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), high);
}

LSK_INLINE struct lsk_group lsk_group_q4_k(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group / 2 * 144;
    struct lsk_group g = { 0 }, half;
    (void)n;
    lsk_split_nibbles(&half, _mm512_loadu_si512(p + 16 + group % 2 * 64));
    lsk_k_runs(&g, half.lo, half.hi);
    lsk_k_scales(&g, p, group % 2);
    return g;
}

/* Bit r of byte l of qh is the fifth bit of value l of run r. */
LSK_INLINE struct lsk_group lsk_group_q5_k(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group / 2 * 176;
    const __m256i qh = _mm256_loadu_si256((const __m256i *)(p + 16));
    const __m512i bits =
        _mm512_srl_epi16(_mm512_broadcast_i64x4(qh), _mm_cvtsi32_si128((int)(group % 2 * 4)));
    const __m512i run_0_2 = _mm512_inserti64x4(_mm512_set1_epi8(1), _mm256_set1_epi8(4), 1);
    const __m512i run_1_3 = _mm512_slli_epi16(run_0_2, 1), fifth = _mm512_set1_epi8(16);
    struct lsk_group g = { 0 }, half;
    (void)n;
    lsk_split_nibbles(&half, _mm512_loadu_si512(p + 48 + group % 2 * 64));
    half.lo = _mm512_mask_add_epi8(half.lo, _mm512_test_epi8_mask(bits, run_0_2), half.lo, fifth);
    half.hi = _mm512_mask_add_epi8(half.hi, _mm512_test_epi8_mask(bits, run_1_3), half.hi, fifth);
    lsk_k_runs(&g, half.lo, half.hi);
    lsk_k_scales(&g, p, group % 2);
    return g;
}

/*
 * A group is half a block: low nibbles of ql are runs 0 and 1, high ones runs 2 and 3; bits 2r and
 * 2r + 1 of qh[l] are bits 4 and 5 of value l of run r, brought there by a rotation per quarter.
 */
LSK_INLINE struct lsk_group lsk_group_q6_k(const uint8_t *row, size_t group, size_t n)
{
    const uint8_t *p = row + group / 2 * 210, *qh = p + 128 + group % 2 * 32;
    const __m512i turn = _mm512_setr_epi64(60, 60, 62, 62, 0, 0, 2, 2), two_bits = _mm512_set1_epi8(0x30);
    const __m512i first = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)qh));
    const __m512i last = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(qh + 16)));
    const __m512 d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128((int)lsk_load_u16(p + 208))));
    /* The eight scales alternate: first 16 values of a run, last 16. */
    const __m256i scales =
        _mm256_cvtepi8_epi32(_mm_cvtsi64_si128((long long)lsk_load_u64(p + 192 + group % 2 * 8)));
    const __m512i even = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    const __m512i odd = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
    const __m512 s = _mm512_castps256_ps512(_mm256_cvtepi32_ps(scales));
    struct lsk_group g = { 0 }, half;
    (void)n;

    lsk_split_nibbles(&half, _mm512_loadu_si512(p + group % 2 * 64));
    g.lo = _mm512_shuffle_i64x2(half.lo, half.hi, 0x88);
    g.hi = _mm512_shuffle_i64x2(half.lo, half.hi, 0xdd);
    g.lo = _mm512_or_si512(g.lo, _mm512_and_si512(_mm512_rorv_epi64(first, turn), two_bits));
    g.hi = _mm512_or_si512(g.hi, _mm512_and_si512(_mm512_rorv_epi64(last, turn), two_bits));
    g.a = _mm512_mul_ps(d, _mm512_permutexvar_ps(even, s));
    g.a_hi = _mm512_mul_ps(d, _mm512_permutexvar_ps(odd, s));
    return g;
}

/* The sums of four registers. The order of the additions is the same for each of them. */
LSK_INLINE __m128 lsk_fold(__m512 v)
{
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

LSK_INLINE __m128 lsk_reduce4(__m512 v0, __m512 v1, __m512 v2, __m512 v3)
{
    const __m128 a = lsk_fold(v0), b = lsk_fold(v1), c = lsk_fold(v2), d = lsk_fold(v3);
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

/* X(type, bytes of a group, zero, has an offset b, has a second scale a_hi) */
#define LSK_AVX512_TYPES(X)            \
    X(q8_0, 4 * 34, 128, false, false) \
    X(q4_0, 4 * 18, 8, false, false)   \
    X(q4_1, 4 * 20, 0, true, false)    \
    X(q5_0, 4 * 22, 16, false, false)  \
    X(q5_1, 4 * 24, 0, true, false)    \
    X(q4_k, 144 / 2, 0, true, false)   \
    X(q5_k, 176 / 2, 0, true, false)   \
    X(q6_k, 210 / 2, 32, false, true)

#endif

/*
 * Stored blocks in AVX2 registers: a run of 32 values as one form,
 *
 *     code  bytes [values 0..15 | values 16..31]
 *     a, b  fp32 per half of the register:  value = a * (code - zero) + b
 *
 * Codes are unsigned but for Q8_0, whose bytes are kept signed.
 */
#ifndef LSK_WEIGHTS_AVX2_H
#define LSK_WEIGHTS_AVX2_H

#include <immintrin.h>
#include <stdbool.h>

#include "kernels/impl.h"

#define LSK_INLINE static inline __attribute__((always_inline))

struct lsk_run {
    __m256i code;
    __m256 a, b; /* b: only for types with an offset */
};

/* Run number `run` of a row. */
typedef struct lsk_run lsk_run_fn(const uint8_t *row, size_t run);

LSK_INLINE float lsk_half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

LSK_INLINE __m256 lsk_spread_half(const uint8_t *p)
{
    return _mm256_set1_ps(lsk_half(p));
}

/* Sixteen bytes: low nibbles are the first 16 values, high nibbles the last. */
LSK_INLINE __m256i lsk_nibbles(const uint8_t *p)
{
    const __m128i q = _mm_loadu_si128((const __m128i *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}

/* 16 in the bytes whose bit of the 32 at p is set. */
LSK_INLINE __m256i lsk_fifth_bits(const uint8_t *p)
{
    const __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), which);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

LSK_INLINE struct lsk_run lsk_run_q8_0(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 34 * run;
    return (struct lsk_run){ _mm256_loadu_si256((const __m256i *)(p + 2)), lsk_spread_half(p),
                             _mm256_setzero_ps() };
}

LSK_INLINE struct lsk_run lsk_run_q4_0(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 18 * run;
    return (struct lsk_run){ lsk_nibbles(p + 2), lsk_spread_half(p), _mm256_setzero_ps() };
}

LSK_INLINE struct lsk_run lsk_run_q4_1(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 20 * run;
    return (struct lsk_run){ lsk_nibbles(p + 4), lsk_spread_half(p), lsk_spread_half(p + 2) };
}

LSK_INLINE struct lsk_run lsk_run_q5_0(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 22 * run;
    return (struct lsk_run){ _mm256_or_si256(lsk_nibbles(p + 6), lsk_fifth_bits(p + 2)), lsk_spread_half(p),
                             _mm256_setzero_ps() };
}

LSK_INLINE struct lsk_run lsk_run_q5_1(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 24 * run;
    return (struct lsk_run){ _mm256_or_si256(lsk_nibbles(p + 8), lsk_fifth_bits(p + 4)), lsk_spread_half(p),
                             lsk_spread_half(p + 2) };
}

/* Scale and minimum of run s of a Q4_K or Q5_K block. */
LSK_INLINE void lsk_k_scales(struct lsk_run *r, const uint8_t *p, size_t s)
{
    const uint8_t *sc = p + 4;
    const int scale = s < 4 ? sc[s] & 63 : (sc[s + 4] & 15) | sc[s - 4] >> 6 << 4;
    const int min = s < 4 ? sc[s + 4] & 63 : sc[s + 4] >> 4 | sc[s] >> 6 << 4;

    r->a = _mm256_set1_ps(lsk_half(p) * (float)scale);
    r->b = _mm256_set1_ps(-(lsk_half(p + 2) * (float)min));
}

/* Even runs are the low nibbles of 32 bytes, odd ones the high nibbles. */
LSK_INLINE __m256i lsk_k_nibbles(const uint8_t *q, size_t high)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)q);
    return _mm256_and_si256(_mm256_srli_epi16(v, (int)(4 * high)), _mm256_set1_epi8(15));
}

LSK_INLINE struct lsk_run lsk_run_q4_k(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 144 * (run / 8);
    const size_t s = run % 8;
    struct lsk_run r;
    r.code = lsk_k_nibbles(p + 16 + s / 2 * 32, s % 2);
    lsk_k_scales(&r, p, s);
    return r;
}

/* Bit s of byte l of qh is the fifth bit of value l of run s. */
LSK_INLINE struct lsk_run lsk_run_q5_k(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 176 * (run / 8);
    const size_t s = run % 8;
    const __m256i qh = _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)(p + 16)), (int)s);
    const __m256i fifth = _mm256_slli_epi16(_mm256_and_si256(qh, _mm256_set1_epi8(1)), 4);
    struct lsk_run r;
    r.code = _mm256_or_si256(lsk_k_nibbles(p + 48 + s / 2 * 32, s % 2), fifth);
    lsk_k_scales(&r, p, s);
    return r;
}

/* Of each half of 128 values, runs 0 and 1 are low nibbles, 2 and 3 high ones; two more bits come from qh. */
LSK_INLINE struct lsk_run lsk_run_q6_k(const uint8_t *row, size_t run)
{
    const uint8_t *p = row + 210 * (run / 8);
    const size_t half = run % 8 / 4, s = run % 4;
    const __m256i qh = _mm256_loadu_si256((const __m256i *)(p + 128 + 32 * half));
    const __m256i two = _mm256_and_si256(_mm256_srli_epi16(qh, (int)(2 * s)), _mm256_set1_epi8(3));
    const float d = lsk_half(p + 208);
    int8_t scale[2];
    struct lsk_run r;

    memcpy(scale, p + 192 + 8 * half + 2 * s, 2);
    r.code = _mm256_or_si256(lsk_k_nibbles(p + 64 * half + 32 * (s % 2), s / 2), _mm256_slli_epi16(two, 4));
    r.a = _mm256_set_m128(_mm_set1_ps(d * (float)scale[1]), _mm_set1_ps(d * (float)scale[0]));
    r.b = _mm256_setzero_ps();
    return r;
}

/* Eight of the 32 values, part 0..3, without the offset: exact until the one rounding of the product. */
LSK_INLINE __m256 lsk_run_part(const struct lsk_run *r, int part, int zero, bool is_signed)
{
    const __m128i half = part < 2 ? _mm256_castsi256_si128(r->code) : _mm256_extracti128_si256(r->code, 1);
    const __m128i bytes = part % 2 ? _mm_srli_si128(half, 8) : half;
    const __m256 a =
        part < 2 ? _mm256_permute2f128_ps(r->a, r->a, 0x00) : _mm256_permute2f128_ps(r->a, r->a, 0x11);
    __m256i v = is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);

    if (zero)
        v = _mm256_sub_epi32(v, _mm256_set1_epi32(zero));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(v), a);
}

LSK_INLINE float lsk_reduce(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* X(type, bytes of a run, zero, has an offset b, codes are signed) */
#define LSK_AVX2_TYPES(X)            \
    X(q8_0, 34, 0, false, true)      \
    X(q4_0, 18, 8, false, false)     \
    X(q4_1, 20, 0, true, false)      \
    X(q5_0, 22, 16, false, false)    \
    X(q5_1, 24, 0, true, false)      \
    X(q4_k, 144 / 8, 0, true, false) \
    X(q5_k, 176 / 8, 0, true, false) \
    X(q6_k, 210 / 8, 32, false, false)

#endif

/* Vectors of 16 floats under the names that the shared bodies use. */
#ifndef LSK_VEC_AVX512_H
#define LSK_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_LANES 16
typedef __m512 vec;
typedef __m512i vec_bits;

static inline vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
static inline vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
/* With a NaN the second operand. */
static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec vec_nearest(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline float vec_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}
static inline float vec_greatest(vec a)
{
    return _mm512_reduce_max_ps(a);
}
/* Whether a lane of a is above that of b. */
static inline bool vec_any_above(vec a, vec b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
static inline double vec_sum_double(vec a)
{
    const __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    const __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(lo, hi));
}
/* a * 2^n for whole n; vec_exp2 keeps n within what both instruction sets can do. */
#define VEC_MIN_EXP (-152.0f)
static inline vec vec_scale2(vec a, vec n)
{
    return _mm512_scalef_ps(a, n);
}

static inline vec vec_sqrt(vec a)
{
    return _mm512_sqrt_ps(a);
}
static inline vec vec_abs(vec a)
{
    return _mm512_abs_ps(a);
}

/* Sums in double, of half a vector each. */
typedef __m512d vec_double;
static inline vec_double vec_double_zero(void)
{
    return _mm512_setzero_pd();
}
static inline vec_double vec_double_low(vec a)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(a));
}
static inline vec_double vec_double_high(vec a)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
}
static inline vec_double vec_double_fma(vec_double a, vec_double b, vec_double c)
{
    return _mm512_fmadd_pd(a, b, c);
}
static inline vec_double vec_double_add(vec_double a, vec_double b)
{
    return _mm512_add_pd(a, b);
}
static inline double vec_double_total(vec_double a)
{
    return _mm512_reduce_add_pd(a);
}

/* 32-bit words, and fields of them as floats. */
static inline vec_bits vec_words(const void *p)
{
    return _mm512_loadu_si512(p);
}
static inline vec vec_as_floats(vec_bits w)
{
    return _mm512_castsi512_ps(w);
}
static inline vec vec_bf16_low(vec_bits w)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
static inline vec vec_bf16_high(vec_bits w)
{
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline vec vec_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec vec_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* Words of two bf16 numbers, rounded to nearest even. Not for NaN. */
static inline vec_bits vec_bf16_words(vec low, vec high)
{
    const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
    __m512i a = _mm512_castps_si512(low), b = _mm512_castps_si512(high);
    a = _mm512_add_epi32(a, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(a, 16), one)));
    b = _mm512_add_epi32(b, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(b, 16), one)));
    return _mm512_or_si512(_mm512_srli_epi32(a, 16),
                           _mm512_and_si512(b, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline void vec_store_words(void *p, vec_bits w)
{
    _mm512_storeu_si512(p, w);
}
/* Arithmetic modulo 2^32. */
static inline vec_bits vec_words_set(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}
static inline vec_bits vec_words_count(void) /* 0, 1, 2 ... */
{
    return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
static inline vec_bits vec_words_add(vec_bits a, vec_bits b)
{
    return _mm512_add_epi32(a, b);
}
static inline vec_bits vec_words_mul(vec_bits a, vec_bits b)
{
    return _mm512_mullo_epi32(a, b);
}
static inline vec_bits vec_words_xor(vec_bits a, vec_bits b)
{
    return _mm512_xor_si512(a, b);
}
#define vec_words_right(a, n) _mm512_srli_epi32(a, n)
static inline vec_bits vec_words_of(vec a)
{
    return _mm512_castps_si512(a);
}
/* b where x is a NaN, else a. */
static inline vec_bits vec_words_if_nan(vec x, vec_bits b, vec_bits a)
{
    return _mm512_mask_mov_epi32(a, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), b);
}
static inline vec_bits vec_words_or(vec_bits a, vec_bits b)
{
    return _mm512_or_si512(a, b);
}
static inline vec_bits vec_words_and(vec_bits a, vec_bits b)
{
    return _mm512_and_si512(a, b);
}
static inline vec_bits vec_words_abs(vec_bits a)
{
    return _mm512_abs_epi32(a);
}
/* count + 1 where x > y, else count. */
static inline vec_bits vec_count_above(vec_bits count, vec x, vec y)
{
    return _mm512_mask_add_epi32(count, _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), count, _mm512_set1_epi32(1));
}
/* The same for whole numbers with a sign. */
static inline vec_bits vec_count_words_above(vec_bits count, vec_bits x, vec_bits y)
{
    return _mm512_mask_add_epi32(count, _mm512_cmpgt_epi32_mask(x, y), count, _mm512_set1_epi32(1));
}
static inline uint32_t vec_words_total(vec_bits a)
{
    return (uint32_t)_mm512_reduce_add_epi32(a);
}
/* A bit for each lane where x > y, whole numbers with a sign. */
#define VEC_ALL_LANES 0xffffu
static inline uint32_t vec_lanes_above(vec_bits x, vec_bits y)
{
    return _mm512_cmpgt_epi32_mask(x, y);
}
/* The words of the lanes whose bits are set, one behind another; returns how many. */
static inline size_t vec_put_words(uint32_t *p, vec_bits w, uint32_t lanes)
{
    /* In a register first: what compresses into memory is microcode on Zen 4. */
    const int n = __builtin_popcount(lanes);
    _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), _mm512_maskz_compress_epi32((__mmask16)lanes, w));
    return (size_t)n;
}
/* a where x > y, else 0. */
static inline vec vec_if_above(vec x, vec y, vec a)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), a);
}
/* The size of a with the sign of s. */
static inline vec vec_copy_sign(vec a, vec s)
{
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(s),
                                                         _mm512_castps_si512(a), 0xca));
}
/* Eight floats, to be chosen by the low three bits of each word. */
static inline vec vec_load_table(const float *p)
{
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
}
static inline vec vec_choose(vec table, vec_bits index)
{
    return _mm512_permutexvar_ps(index, table);
}
static inline vec vec_from_words(vec_bits w)
{
    return _mm512_cvtepi32_ps(w);
}
static inline vec_bits vec_truncate(vec a)
{
    return _mm512_cvttps_epi32(a);
}
static inline vec_bits vec_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vec_bits vec_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* The low bytes, or halves, of the words. */
static inline void vec_store_u8(uint8_t *p, vec_bits w)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(w));
}
static inline void vec_store_u16(uint16_t *p, vec_bits w)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(w));
}
static inline vec_bits vec_flip_bytes(vec_bits w)
{
    return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
}
/* Signed byte c of each word, times VEC_BYTE_ONE: moved to the top of the word, over zeros, in one step. */
#define VEC_BYTE_ONE 0x1p24f
static inline vec vec_byte(vec_bits w, int c)
{
    /* Bytes 0..2 of each word become zero (index -1), byte 3 is byte c. */
    const __m128i words = _mm_set_epi32(12, 8, 4, 0);
    const __m128i index =
        _mm_or_si128(_mm_slli_epi32(_mm_add_epi32(words, _mm_set1_epi32(c)), 24), _mm_set1_epi32(0x00ffffff));
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(w, _mm512_broadcast_i32x4(index)));
}

#endif

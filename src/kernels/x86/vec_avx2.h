/* Vectors of 8 floats under the names that the shared bodies use. */
#ifndef LSK_VEC_AVX2_H
#define LSK_VEC_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_LANES 8
typedef __m256 vec;
typedef __m256i vec_bits;

static inline vec vec_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
static inline vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
/* With a NaN the second operand. */
static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec vec_nearest(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline float vec_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vec_greatest(vec a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
/* Whether a lane of a is above that of b. */
static inline bool vec_any_above(vec a, vec b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
static inline double vec_sum_double(vec a)
{
    const __m256d s = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                                    _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
    const __m128d t = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
    return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}
/* a * 2^n for whole n; vec_exp2 keeps n within what both instruction sets can do. -127 gives zero. */
#define VEC_MIN_EXP (-127.0f)
static inline vec vec_scale2(vec a, vec n)
{
    const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(e));
}

static inline vec vec_sqrt(vec a)
{
    return _mm256_sqrt_ps(a);
}
static inline vec vec_abs(vec a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

/* Sums in double, of half a vector each. */
typedef __m256d vec_double;
static inline vec_double vec_double_zero(void)
{
    return _mm256_setzero_pd();
}
static inline vec_double vec_double_low(vec a)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(a));
}
static inline vec_double vec_double_high(vec a)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
}
static inline vec_double vec_double_fma(vec_double a, vec_double b, vec_double c)
{
    return _mm256_fmadd_pd(a, b, c);
}
static inline vec_double vec_double_add(vec_double a, vec_double b)
{
    return _mm256_add_pd(a, b);
}
static inline double vec_double_total(vec_double a)
{
    const __m128d t = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}

/* 32-bit words, and fields of them as floats. */
static inline vec_bits vec_words(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline vec vec_as_floats(vec_bits w)
{
    return _mm256_castsi256_ps(w);
}
static inline vec vec_bf16_low(vec_bits w)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
static inline vec vec_bf16_high(vec_bits w)
{
    return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000u)));
}
static inline vec vec_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec vec_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
/* Words of two bf16 numbers, rounded to nearest even. Not for NaN. */
static inline vec_bits vec_bf16_words(vec low, vec high)
{
    const __m256i half = _mm256_set1_epi32(0x7fff), one = _mm256_set1_epi32(1);
    __m256i a = _mm256_castps_si256(low), b = _mm256_castps_si256(high);
    a = _mm256_add_epi32(a, _mm256_add_epi32(half, _mm256_and_si256(_mm256_srli_epi32(a, 16), one)));
    b = _mm256_add_epi32(b, _mm256_add_epi32(half, _mm256_and_si256(_mm256_srli_epi32(b, 16), one)));
    return _mm256_or_si256(_mm256_srli_epi32(a, 16),
                           _mm256_and_si256(b, _mm256_set1_epi32((int)0xffff0000u)));
}
static inline void vec_store_words(void *p, vec_bits w)
{
    _mm256_storeu_si256((__m256i *)p, w);
}
/* Arithmetic modulo 2^32. */
static inline vec_bits vec_words_set(uint32_t x)
{
    return _mm256_set1_epi32((int)x);
}
static inline vec_bits vec_words_count(void) /* 0, 1, 2 ... */
{
    return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
}
static inline vec_bits vec_words_add(vec_bits a, vec_bits b)
{
    return _mm256_add_epi32(a, b);
}
static inline vec_bits vec_words_mul(vec_bits a, vec_bits b)
{
    return _mm256_mullo_epi32(a, b);
}
static inline vec_bits vec_words_xor(vec_bits a, vec_bits b)
{
    return _mm256_xor_si256(a, b);
}
#define vec_words_right(a, n) _mm256_srli_epi32(a, n)
static inline vec_bits vec_words_of(vec a)
{
    return _mm256_castps_si256(a);
}
/* b where x is a NaN, else a. */
static inline vec_bits vec_words_if_nan(vec x, vec_bits b, vec_bits a)
{
    return _mm256_blendv_epi8(a, b, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
static inline vec_bits vec_words_or(vec_bits a, vec_bits b)
{
    return _mm256_or_si256(a, b);
}
static inline vec_bits vec_words_and(vec_bits a, vec_bits b)
{
    return _mm256_and_si256(a, b);
}
static inline vec_bits vec_words_abs(vec_bits a)
{
    return _mm256_abs_epi32(a);
}
/* count + 1 where x > y, else count. */
static inline vec_bits vec_count_above(vec_bits count, vec x, vec y)
{
    return _mm256_sub_epi32(count, _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_GT_OQ)));
}
/* The same for whole numbers with a sign. */
static inline vec_bits vec_count_words_above(vec_bits count, vec_bits x, vec_bits y)
{
    return _mm256_sub_epi32(count, _mm256_cmpgt_epi32(x, y));
}
static inline uint32_t vec_words_total(vec_bits a)
{
    uint32_t lane[VEC_LANES], total = 0;
    _mm256_storeu_si256((__m256i *)(void *)lane, a);
    for (size_t i = 0; i < VEC_LANES; i++)
        total += lane[i];
    return total;
}
/* A bit for each lane where x > y, whole numbers with a sign. */
#define VEC_ALL_LANES 0xffu
static inline uint32_t vec_lanes_above(vec_bits x, vec_bits y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y)));
}
/* The words of the lanes whose bits are set, one behind another; returns how many. */
static inline size_t vec_put_words(uint32_t *p, vec_bits w, uint32_t lanes)
{
    uint32_t lane[VEC_LANES];
    size_t n = 0;
    _mm256_storeu_si256((__m256i *)(void *)lane, w);
    for (; lanes != 0; lanes &= lanes - 1)
        p[n++] = lane[__builtin_ctz(lanes)];
    return n;
}
/* a where x > y, else 0. */
static inline vec vec_if_above(vec x, vec y, vec a)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, y, _CMP_GT_OQ), a);
}
/* The size of a with the sign of s. */
static inline vec vec_copy_sign(vec a, vec s)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, s));
}
/* Eight floats, to be chosen by the low three bits of each word. */
static inline vec vec_load_table(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline vec vec_choose(vec table, vec_bits index)
{
    return _mm256_permutevar8x32_ps(table, index);
}
static inline vec vec_from_words(vec_bits w)
{
    return _mm256_cvtepi32_ps(w);
}
static inline vec_bits vec_truncate(vec a)
{
    return _mm256_cvttps_epi32(a);
}
static inline vec_bits vec_load_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline vec_bits vec_load_i8(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
/* The low bytes, or halves, of the words. */
static inline __m128i vec_halves(vec_bits w)
{
    const __m256i low = _mm256_and_si256(w, _mm256_set1_epi32(0xffff));
    return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
static inline void vec_store_u8(uint8_t *p, vec_bits w)
{
    const __m128i bytes = _mm_and_si128(vec_halves(w), _mm_set1_epi16(0xff));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(bytes, bytes));
}
static inline void vec_store_u16(uint16_t *p, vec_bits w)
{
    _mm_storeu_si128((__m128i *)(void *)p, vec_halves(w));
}
static inline vec_bits vec_flip_bytes(vec_bits w)
{
    return _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
}
/* Signed byte c of each word, times VEC_BYTE_ONE: moved to the top of the word, over zeros, in one step. */
#define VEC_BYTE_ONE 0x1p24f
static inline vec vec_byte(vec_bits w, int c)
{
    /* Bytes 0..2 of each word become zero (index -1), byte 3 is byte c. */
    const __m128i words = _mm_set_epi32(12, 8, 4, 0);
    const __m128i index =
        _mm_or_si128(_mm_slli_epi32(_mm_add_epi32(words, _mm_set1_epi32(c)), 24), _mm_set1_epi32(0x00ffffff));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(w, _mm256_broadcastsi128_si256(index)));
}

#endif

/* Vectors of 16 floats under the names that the shared bodies use. */
#ifndef LSK_VEC_AVX512_H
#define LSK_VEC_AVX512_H

#include <immintrin.h>
#include <stddef.h>

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

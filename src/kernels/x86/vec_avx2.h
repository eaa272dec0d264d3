/* Vectors of 8 floats under the names that the shared bodies use. */
#ifndef LSK_VEC_AVX2_H
#define LSK_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>

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

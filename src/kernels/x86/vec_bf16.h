/* Words of two bf16 numbers as operands of products (AVX512_BF16), on top of vec_avx512.h. */
#ifndef LSK_VEC_BF16_H
#define LSK_VEC_BF16_H

#include "kernels/x86/vec_avx512.h"

#include <string.h>

/* c + b0 x0 + b1 x1 for the two bf16 numbers of each word. */
static inline vec vec_fma_pairs(vec b, vec x, vec c)
{
    __m512bh b_pairs, x_pairs;

    memcpy(&b_pairs, &b, sizeof b);
    memcpy(&x_pairs, &x, sizeof x);
    return _mm512_dpbf16_ps(c, b_pairs, x_pairs);
}

/* 32 numbers in order, rounded to bf16. */
static inline vec_bits vec_pack_bf16(vec low, vec high)
{
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    vec_bits bits;

    memcpy(&bits, &both, sizeof bits);
    return bits;
}

/* The first 16 of 32 such numbers, and the last 16. */
static inline vec vec_bf16_first(vec_bits a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(a)), 16));
}
static inline vec vec_bf16_last(vec_bits a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a, 1)), 16));
}

/* Words (a_i, b_i) of the numbers 0 .. 15 of two such vectors, and of 16 .. 31. */
static inline vec_bits vec_pairs_low(vec_bits a, vec_bits b)
{
    const vec_bits i = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vec_bits index =
        _mm512_or_si512(i, _mm512_slli_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(32)), 16));
    return _mm512_permutex2var_epi16(a, index, b);
}
static inline vec_bits vec_pairs_high(vec_bits a, vec_bits b)
{
    const vec_bits i = _mm512_setr_epi32(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    const vec_bits index =
        _mm512_or_si512(i, _mm512_slli_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(32)), 16));
    return _mm512_permutex2var_epi16(a, index, b);
}

#endif

/* What attention with fourfold integer products (AVX512_VNNI) has in common: numbers as bytes, weights. */
#ifndef LSK_ATTENTION_DIGITS_H
#define LSK_ATTENTION_DIGITS_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#define ROWS               4        /* of a block */
#define DIGITS             3        /* bytes of a number */
#define Q_MOST             0x7f7f00 /* below the most of three signed bytes: rounding may not pass that */
#define PAGE_WEIGHTS_FETCH 1024     /* bytes asked for while one row's weights are made */

/* sum + u0 x0 + .. + u3 x3 in every lane. The builtin function makes gcc copy each sum twice. */
static inline __m512i add_products(__m512i sum, __m512i u, __m512i x)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(x));
    return sum;
}

/* 2^16 x[2] + 2^8 x[1] + x[0]; |x| < 2^24. */
VEC_INLINE vec join(const __m512i x[DIGITS])
{
    const vec low = vec_fma(_mm512_cvtepi32_ps(x[1]), vec_set(0x1p8f), _mm512_cvtepi32_ps(x[0]));
    return vec_fma(_mm512_cvtepi32_ps(x[2]), vec_set(0x1p16f), low);
}

/* total[r] = sum of the lanes of x[r]. */
VEC_INLINE void add_lanes(float total[ROWS], const vec x[ROWS])
{
    const vec ab = vec_add(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const vec cd = vec_add(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    const __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const vec four = vec_add(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi)); /* in each quarter */
    const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));

    _mm_storeu_ps(total, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
}

/* Scores of a row with what it does not see of the slots from .. to - 1. */
static inline void hide(float *z, size_t lo, size_t hi, size_t from, size_t to)
{
    for (size_t s = from; s < lo && s < to; s++)
        z[s] = -INFINITY;
    for (size_t s = hi > from ? hi : from; s < to; s++)
        z[s] = -INFINITY;
}

/*
 * Scores z of rows r0 .. r0 + n_rows - 1 with the slots from .. to - 1 to weights relative to the greatest of
 * their row, so that a row loses nothing where its weights are small; brings m and l up to date. keep and
 * gain are the factors for what a row has summed so far and for what the weights add. fetch: what to ask for
 * meanwhile, or NULL. brief: weights need 16 bits alone.
 */
VEC_INLINE void page_weights(const struct lsk_attn *a, size_t r0, size_t n_rows, float (*z)[LSK_PAGE],
                             size_t from, size_t to, float *keep, float *gain, const char *fetch, bool brief)
{
    vec top[ROWS], base[ROWS], sum[ROWS];
    float m[ROWS], sums[ROWS], change[VEC_LANES] = { 0 }, factor[VEC_LANES];

    VEC_UNROLL
    for (size_t r = 0; r < ROWS; r++) {
        top[r] = vec_set(-INFINITY);
        sum[r] = vec_zero();
    }
    for (size_t r = 0; r < n_rows; r++)
        hide(z[r], a->lo[r0 + r], a->hi[r0 + r], from, to);
    for (size_t s = from; a->seen && s < to; s += VEC_LANES)
        for (size_t r = 0; r < n_rows; r++)
            vec_store(z[r] + s,
                      _mm512_mask_mov_ps(vec_set(-INFINITY), a->seen[s / LSK_TILE], vec_load(z[r] + s)));
    for (size_t s = from; s < to; s += VEC_LANES)
        VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        top[r] = vec_max(top[r], vec_load(z[r] + s));
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        const float before = a->m[r0 + r];
        const float here = a->lo[r0 + r] < a->hi[r0 + r] ? vec_greatest(top[r]) : -INFINITY;
        m[r] = here > before ? here : before;
        base[r] = vec_set(here == -INFINITY ? 0.0f : here);
        change[2 * r] = m[r] == -INFINITY ? 0.0f : before - m[r];
        change[2 * r + 1] = m[r] == -INFINITY ? 0.0f : here - m[r];
    }
    vec_store(factor, vec_exp2(vec_load(change)));
    for (size_t s = from; s < to; s += VEC_LANES)
        VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        const vec x = vec_sub(vec_load(z[r] + s), base[r]), w = brief ? vec_exp2_short(x) : vec_exp2(x);
        sum[r] = vec_add(sum[r], w);
        vec_store(z[r] + s, w);
        if (fetch)
            _mm_prefetch(fetch + r * PAGE_WEIGHTS_FETCH + s * (PAGE_WEIGHTS_FETCH / LSK_PAGE), _MM_HINT_T1);
    }
    add_lanes(sums, sum);
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        keep[r] = factor[2 * r];
        gain[r] = factor[2 * r + 1];
        a->l[r0 + r] = a->l[r0 + r] * keep[r] + sums[r] * gain[r];
        a->m[r0 + r] = m[r];
    }
}

#endif

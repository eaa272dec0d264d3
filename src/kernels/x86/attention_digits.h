/* What attention with fourfold integer products (AVX512_VNNI) has in common: numbers as bytes, weights. */
#ifndef LSK_ATTENTION_DIGITS_H
#define LSK_ATTENTION_DIGITS_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

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

/*
 * Scores z of a row with the slots from .. to - 1 to weights relative to the greatest of them, so that a row
 * loses nothing where its weights are small; brings m and l up to date. *keep and *gain are the factors for
 * what the row has summed so far and for what the weights add. fetch: what to ask for meanwhile, or NULL.
 */
static void page_weights(const struct lsk_attn *a, size_t row, float *z, size_t from, size_t to, float *keep,
                         float *gain, const char *fetch)
{
    const size_t lo = a->lo[row], hi = a->hi[row];
    const float before = a->m[row];
    float factor[VEC_LANES];
    vec top = vec_set(-INFINITY), sum = vec_zero();

    for (size_t s = from; s < lo && s < to; s++)
        z[s] = -INFINITY;
    for (size_t s = hi > from ? hi : from; s < to; s++)
        z[s] = -INFINITY;
    for (size_t s = from; a->seen && s < to; s += VEC_LANES)
        vec_store(z + s, _mm512_mask_mov_ps(vec_set(-INFINITY), a->seen[s / LSK_TILE], vec_load(z + s)));
    for (size_t s = from; s < to; s += VEC_LANES)
        top = vec_max(top, vec_load(z + s));
    const float here = lo < hi ? vec_greatest(top) : -INFINITY, m = here > before ? here : before;
    const vec base = vec_set(here == -INFINITY ? 0.0f : here);
    for (size_t s = from; s < to; s += VEC_LANES) {
        const vec w = vec_exp2(vec_sub(vec_load(z + s), base));
        sum = vec_add(sum, w);
        vec_store(z + s, w);
        if (fetch)
            _mm_prefetch(fetch + s * (PAGE_WEIGHTS_FETCH / LSK_PAGE), _MM_HINT_T1);
    }
    /* Both factors at once: lane 0 for what was there, lane 1 for what is new. */
    const vec old = vec_set(m == -INFINITY ? 0.0f : before - m);
    const vec new = vec_set(m == -INFINITY ? 0.0f : here - m);
    vec_store(factor, vec_exp2(_mm512_mask_mov_ps(old, 2, new)));
    *keep = factor[0];
    *gain = factor[1];
    a->l[row] = a->l[row] * factor[0] + vec_sum(sum) * factor[1];
    a->m[row] = m;
}

#endif

/* Functions of vectors, on top of vec_avx2.h or vec_avx512.h (the includer takes one of them first). */
#ifndef LSK_VEC_MATH_H
#define LSK_VEC_MATH_H

#include <string.h>

#define VEC_INLINE static inline __attribute__((always_inline))

#define VEC_LOG2_E 1.44269504088896340736f

#if defined(__clang__)
#define VEC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VEC_UNROLL _Pragma("GCC unroll 16")
#endif

/*
 * 2^x for x <= 128, 2 ulp. x = n + f, |f| <= 1/2; 2^f by a polynomial with the least greatest
 * relative error (2e-9) of those that are 1 at 0, so that 2^0 is exactly 1. Far below the least
 * number it is 0, for -inf too; a NaN stays one.
 */
VEC_INLINE vec vec_exp2(vec x)
{
    const vec y = vec_max(vec_set(VEC_MIN_EXP), x);
    const vec n = vec_nearest(y), f = vec_sub(y, n);
    vec p = vec_set(0x1.41fbbcp-13f);

    p = vec_fma(p, f, vec_set(0x1.5f3e52p-10f));
    p = vec_fma(p, f, vec_set(0x1.3b2d4cp-7f));
    p = vec_fma(p, f, vec_set(0x1.c6aee8p-5f));
    p = vec_fma(p, f, vec_set(0x1.ebfbdcp-3f));
    p = vec_fma(p, f, vec_set(0x1.62e430p-1f));
    p = vec_fma(p, f, vec_set(1.0f));
    return vec_scale2(p, n);
}

/* 2^x like vec_exp2, for what is rounded or summed anyway: error 3e-6. */
VEC_INLINE vec vec_exp2_short(vec x)
{
    const vec y = vec_max(vec_set(VEC_MIN_EXP), x);
    const vec n = vec_nearest(y), f = vec_sub(y, n);
    vec p = vec_set(0x1.3a02ccp-7f);

    p = vec_fma(p, f, vec_set(0x1.c9fc46p-5f));
    p = vec_fma(p, f, vec_set(0x1.ec0378p-3f));
    p = vec_fma(p, f, vec_set(0x1.62e12cp-1f));
    p = vec_fma(p, f, vec_set(1.0f));
    return vec_scale2(p, n);
}

/* x / (1 + 2^t). The bound keeps 2^t finite; what it cuts off is below 2^-126 |x|. */
VEC_INLINE vec vec_over_one_plus_exp2(vec x, vec t)
{
    return vec_div(x, vec_add(vec_set(1.0f), vec_exp2(vec_min(vec_set(126.0f), t))));
}

/* The first n < VEC_LANES floats, zeros behind them. */
static inline vec vec_load_part(const float *p, size_t n)
{
    float part[VEC_LANES] = { 0 };
    memcpy(part, p, n * sizeof *p);
    return vec_load(part);
}

static inline void vec_store_part(float *p, vec x, size_t n)
{
    float part[VEC_LANES];
    vec_store(part, x);
    memcpy(p, part, n * sizeof *p);
}

#endif

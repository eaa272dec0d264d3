/* Functions of vectors, on top of vec_avx2.h or vec_avx512.h (the includer takes one of them first). */
#ifndef LSK_VEC_MATH_H
#define LSK_VEC_MATH_H

#define VEC_INLINE static inline __attribute__((always_inline))

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

#endif

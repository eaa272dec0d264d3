/*
 * Values of stored rows, 128 at a time. Product and sum are rounded one after the
 * other, as the reference does, so the bits are equal.
 */
#include "kernels/x86/weights_avx512.h"

typedef struct lsk_group group_fn(const uint8_t *row, size_t group, size_t n);

/* Where 16 values go. */
typedef void put_fn(void *y, size_t at, __m512 v);

LSK_INLINE void put_f32(void *y, size_t at, __m512 v)
{
    _mm512_storeu_ps((float *)y + at, v);
}

/* Round to nearest even; NaN stays NaN. The bf16 instructions would flush subnormal numbers. */
LSK_INLINE __m256i to_bf16(__m512 v)
{
    const __m512i u = _mm512_castps_si512(v), quiet = _mm512_set1_epi32(0x400000);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i r = _mm512_mask_or_epi32(up, nan, u, quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

LSK_INLINE void put_bf16(void *y, size_t at, __m512 v)
{
    _mm256_storeu_si256((__m256i *)((lsi_bf16 *)y + at), to_bf16(v));
}

LSK_INLINE void put_run(void *y, size_t at, __m128i lo, __m128i hi, __m512 a, __m512 a_hi, __m512 b,
                        put_fn *put, int zero, bool offset)
{
    const __m512i z = _mm512_set1_epi32(zero);
    __m512i v0 = _mm512_cvtepu8_epi32(lo), v1 = _mm512_cvtepu8_epi32(hi);

    if (zero) {
        v0 = _mm512_sub_epi32(v0, z);
        v1 = _mm512_sub_epi32(v1, z);
    }
    __m512 y0 = _mm512_mul_ps(_mm512_cvtepi32_ps(v0), a), y1 = _mm512_mul_ps(_mm512_cvtepi32_ps(v1), a_hi);
    if (offset) {
        y0 = _mm512_add_ps(y0, b);
        y1 = _mm512_add_ps(y1, b);
    }
    put(y, at, y0);
    put(y, at + 16, y1);
}

/* All four lanes of run r of a group's scales hold it: make it all sixteen. */
#define RUN(v, r) _mm512_shuffle_f32x4(v, v, (r)*0x55)
#define PUT_RUN(r)                                                                                 \
    if (n > (r))                                                                                   \
    put_run(y, 128 * group + 32 * (r), _mm512_extracti32x4_epi32(g.lo, r),                         \
            _mm512_extracti32x4_epi32(g.hi, r), RUN(g.a, r), split ? RUN(g.a_hi, r) : RUN(g.a, r), \
            RUN(g.b, r), put, zero, offset)

LSK_INLINE void put_group(void *y, const uint8_t *row, size_t group, size_t n, group_fn *load, put_fn *put,
                          int zero, bool offset, bool split)
{
    const struct lsk_group g = load(row, group, n);
    PUT_RUN(0);
    PUT_RUN(1);
    PUT_RUN(2);
    PUT_RUN(3);
}

LSK_INLINE void dequant(void *y, const uint8_t *row, size_t n, group_fn *load, put_fn *put, int zero,
                        bool offset, bool split)
{
    for (size_t group = 0; group < n / 128; group++)
        put_group(y, row, group, 4, load, put, zero, offset, split);
    if (n / 32 % 4)
        put_group(y, row, n / 128, n / 32 % 4, load, put, zero, offset, split);
}

#define DEQUANT(type, group_bytes, zero, offset, split)                           \
    void lsk_dequant_##type##_avx512(float *y, const void *row, size_t n)         \
    {                                                                             \
        dequant(y, row, n, lsk_group_##type, put_f32, zero, offset, split);       \
    }                                                                             \
    void lsk_dequant_bf16_##type##_avx512(lsi_bf16 *y, const void *row, size_t n) \
    {                                                                             \
        dequant(y, row, n, lsk_group_##type, put_bf16, zero, offset, split);      \
    }

LSK_AVX512_TYPES(DEQUANT)

/* ---- floats ---------------------------------------------------------------------- */

LSK_INLINE __mmask16 first_lanes(size_t n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

void lsk_dequant_f16_avx512(float *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = first_lanes(n - i);
        const __m256i h = _mm256_maskz_loadu_epi16(m, (const lsi_f16 *)row + i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_cvtph_ps(h));
    }
}

void lsk_dequant_bf16_avx512(float *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = first_lanes(n - i);
        const __m512i h = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const lsi_bf16 *)row + i));
        _mm512_mask_storeu_epi32(y + i, m, _mm512_slli_epi32(h, 16));
    }
}

void lsk_dequant_bf16_f32_avx512(lsi_bf16 *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = first_lanes(n - i);
        _mm256_mask_storeu_epi16(y + i, m, to_bf16(_mm512_maskz_loadu_ps(m, (const float *)row + i)));
    }
}

void lsk_dequant_bf16_f16_avx512(lsi_bf16 *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = first_lanes(n - i);
        const __m256i h = _mm256_maskz_loadu_epi16(m, (const lsi_f16 *)row + i);
        _mm256_mask_storeu_epi16(y + i, m, to_bf16(_mm512_cvtph_ps(h)));
    }
}

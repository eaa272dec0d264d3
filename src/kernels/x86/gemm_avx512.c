/* Dense products of packed fp32 values, and the packing of pairs of bf16. */
#define STEP(sum, a, b) _mm512_fmadd_ps(a, b, sum)

#include "kernels/x86/gemm_avx512_body.h"

void lsk_gemm_f32_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                         size_t rows, size_t cols, float scale, bool add)
{
    block(C, ldc, A, B, n_units, rows, cols, scale, add);
}

/* Rounded to nearest even in the upper halves; NaN stays NaN, subnormal numbers stay. */
static inline __m512i rounded(__m512 v)
{
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000));
}

static inline __m512i pairs_f32(const void *first, const void *second, size_t c, __mmask16 m)
{
    const __m512i a = rounded(_mm512_maskz_loadu_ps(m, (const float *)first + c));
    const __m512i b =
        second ? rounded(_mm512_maskz_loadu_ps(m, (const float *)second + c)) : _mm512_setzero_si512();
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(a, 16), b);
}

static inline __m512i pairs_bf16(const void *first, const void *second, size_t c, __mmask16 m)
{
    const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const lsi_bf16 *)first + c));
    const __m512i b = second
                          ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const lsi_bf16 *)second + c))
                          : _mm512_setzero_si512();
    return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

void lsk_gemm_pair_f32_avx512(uint32_t *out, size_t panel, size_t width, const float *first,
                              const float *second, size_t n)
{
    put_pairs(out, panel, width, first, second, n, pairs_f32);
}

void lsk_gemm_pair_bf16_avx512(uint32_t *out, size_t panel, size_t width, const lsi_bf16 *first,
                               const lsi_bf16 *second, size_t n)
{
    put_pairs(out, panel, width, first, second, n, pairs_bf16);
}

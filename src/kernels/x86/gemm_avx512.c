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

/* 16 lanes from column c on, to one panel or, where panels have 8 lanes, to two. */
static inline void put_pairs(uint32_t *out, size_t panel, size_t width, size_t c, __m512i v)
{
    if (width % 16 == 0) {
        _mm512_storeu_si512(out + c / width * panel + c % width, v);
        return;
    }
    _mm256_storeu_si256((__m256i *)(out + c / width * panel + c % width), _mm512_castsi512_si256(v));
    c += 8;
    _mm256_storeu_si256((__m256i *)(out + c / width * panel + c % width), _mm512_extracti64x4_epi64(v, 1));
}

/* The last lanes, one by one: pairs 0 .. n - 1, then zeros up to the end of the panel. */
static inline void put_last(uint32_t *out, size_t panel, size_t width, size_t c, __m512i v, size_t n)
{
    uint32_t last[16];
    const size_t end = (n + width - 1) / width * width;
    _mm512_storeu_si512(last, v);
    for (size_t i = c; i < end; i++)
        out[i / width * panel + i % width] = i < n ? last[i - c] : 0;
}

void lsk_gemm_pair_f32_avx512(uint32_t *out, size_t panel, size_t width, const float *first,
                              const float *second, size_t n)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    for (size_t c = 0; c < n; c += 16) {
        const __mmask16 m = lanes(n, c);
        const __m512i a = rounded(_mm512_maskz_loadu_ps(m, first + c));
        const __m512i b = second ? rounded(_mm512_maskz_loadu_ps(m, second + c)) : _mm512_setzero_si512();
        const __m512i v = _mm512_or_si512(_mm512_srli_epi32(a, 16), _mm512_and_si512(b, upper));
        if (c + 16 <= n)
            put_pairs(out, panel, width, c, v);
        else
            put_last(out, panel, width, c, v, n);
    }
    if (n % 16 == 0)
        put_last(out, panel, width, n, _mm512_setzero_si512(), n);
}

void lsk_gemm_pair_bf16_avx512(uint32_t *out, size_t panel, size_t width, const lsi_bf16 *first,
                               const lsi_bf16 *second, size_t n)
{
    for (size_t c = 0; c < n; c += 16) {
        const __mmask16 m = lanes(n, c);
        const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, first + c));
        const __m512i b =
            second ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, second + c)) : _mm512_setzero_si512();
        const __m512i v = _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
        if (c + 16 <= n)
            put_pairs(out, panel, width, c, v);
        else
            put_last(out, panel, width, c, v, n);
    }
    if (n % 16 == 0)
        put_last(out, panel, width, n, _mm512_setzero_si512(), n);
}

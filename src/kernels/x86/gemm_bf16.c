/* Dense products of packed pairs of bf16, and their packing by the processor's own rounding. */
#include <immintrin.h>
#include <string.h>

#define STEP(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))

#include "kernels/x86/gemm_avx512_body.h"
#include "kernels/x86/turn_avx2.h"

void lsk_gemm_bf16_bf16(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                        size_t rows, size_t cols, float scale, bool add)
{
    block(C, ldc, A, B, n_units, rows, cols, scale, add);
}

/* The conversion puts the first row in the lower half of the vector, the second in the upper. */
static inline __m512i pairs_f32(const void *first, const void *second, size_t c, __mmask16 m)
{
    const __m512i interleave =
        _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                         0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    const __m512 zero = _mm512_setzero_ps();
    const __m512 a = _mm512_maskz_loadu_ps(m, (const float *)first + c);
    const __m512 b = second ? _mm512_maskz_loadu_ps(m, (const float *)second + c) : zero;
    return _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

void lsk_gemm_pair_f32_bf16(uint32_t *out, size_t panel, size_t width, const float *first,
                            const float *second, size_t n)
{
    put_pairs(out, panel, width, first, second, n, pairs_f32);
}

/* Pairs of 16 values of row i; rows and values that are not there are zero. */
static inline __m256 pairs_of_row(const float *in, size_t ld, size_t i, size_t n, __mmask16 m)
{
    const __m512 v = i < n ? _mm512_maskz_loadu_ps(m, in + i * ld) : _mm512_setzero_ps();
    return (__m256)_mm512_cvtneps_pbh(v);
}

#define ROW(i) pairs_of_row(in + v, ld, i, n, m)

void lsk_gemm_turn_f32_bf16(uint32_t *out, size_t width, const float *in, size_t ld, size_t n,
                            size_t n_values)
{
    for (size_t v = 0; v < n_values; v += 16, out += 8 * width) {
        const __mmask16 m = lanes(n_values, v);
        if (v + 14 < n_values) {
            turn8(out, width, ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7));
            continue;
        }
        uint32_t last[8 * 8];
        turn8(last, 8, ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7));
        for (size_t u = 0; u < (n_values - v + 1) / 2; u++)
            memcpy(out + u * width, last + 8 * u, 8 * sizeof *last);
    }
}

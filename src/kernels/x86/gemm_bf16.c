/* Dense products of packed pairs of bf16, and their packing by the processor's own rounding. */
#include <immintrin.h>

#define STEP(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))

#include "kernels/x86/gemm_avx512_body.h"

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

/* Dense products of packed pairs of bf16. */
#include <immintrin.h>

#define STEP(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))

#include "kernels/x86/gemm_avx512_body.h"

void lsk_gemm_bf16_bf16(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                        size_t rows, size_t cols, float scale, bool add)
{
    block(C, ldc, A, B, n_units, rows, cols, scale, add);
}

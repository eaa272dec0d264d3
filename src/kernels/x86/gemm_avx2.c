/*
 * Dense products of packed operands. Sixteen registers hold 4 x 24 sums: a block of 8 x 48 is four of them.
 */
#include "kernels/impl.h"
#include "kernels/x86/turn_avx2.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 4
#define COLS 24

static float unit(uint32_t u)
{
    return lsi_f32_from_bits(u);
}

static __m256 eight(const uint32_t *p)
{
    return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* sums[r][c] of 4 rows and 24 columns. */
static void quarter(float *sums, const uint32_t *A, const uint32_t *B, size_t n_units)
{
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s02 = s00, s10 = s00, s11 = s00, s12 = s00;
    __m256 s20 = s00, s21 = s00, s22 = s00, s30 = s00, s31 = s00, s32 = s00;
    for (size_t u = 0; u < n_units; u++, A += LSK_GEMM_M, B += LSK_GEMM_N) {
        const __m256 b0 = eight(B);
        const __m256 b1 = eight(B + 8);
        const __m256 b2 = eight(B + 16);
        __m256 a;
#define ROW(r)                                 \
    a = _mm256_set1_ps(unit(A[r]));            \
    s##r##0 = _mm256_fmadd_ps(a, b0, s##r##0); \
    s##r##1 = _mm256_fmadd_ps(a, b1, s##r##1); \
    s##r##2 = _mm256_fmadd_ps(a, b2, s##r##2)
        ROW(0);
        ROW(1);
        ROW(2);
        ROW(3);
#undef ROW
    }
    const __m256 all[ROWS * COLS / 8] = { s00, s01, s02, s10, s11, s12, s20, s21, s22, s30, s31, s32 };
    memcpy(sums, all, sizeof all);
}

void lsk_gemm_f32_avx2(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                       size_t rows, size_t cols, float scale, bool add)
{
    float sums[ROWS * COLS];
    for (size_t r0 = 0; r0 < rows; r0 += ROWS)
        for (size_t c0 = 0; c0 < cols; c0 += COLS) {
            quarter(sums, A + r0, B + c0, n_units);
            for (size_t r = r0; r < rows && r < r0 + ROWS; r++)
                for (size_t c = c0; c < cols && c < c0 + COLS; c++) {
                    const float v = scale * sums[(r - r0) * COLS + c - c0];
                    C[r * ldc + c] = add ? C[r * ldc + c] + v : v;
                }
        }
}

void lsk_gemm_turn_avx2(uint32_t *out, size_t width, const uint32_t *in, size_t ld, size_t n, size_t n_units)
{
    const size_t whole = n == 8 ? n_units / 8 * 8 : 0;
    for (size_t u = 0; u < whole; u += 8)
        turn8(out + u * width, width, eight(in + u), eight(in + ld + u), eight(in + 2 * ld + u),
              eight(in + 3 * ld + u), eight(in + 4 * ld + u), eight(in + 5 * ld + u), eight(in + 6 * ld + u),
              eight(in + 7 * ld + u));
    for (size_t u = whole; u < n_units; u++)
        for (size_t i = 0; i < 8; i++)
            out[u * width + i] = i < n ? in[i * ld + u] : 0;
}

/*
 * Dense products of packed operands. Sixteen registers hold 4 x 24 sums: a block of 8 x 48 is four of them.
 */
#include "kernels/impl.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 4
#define COLS 24

static float unit(uint32_t u)
{
    return lsi_f32_from_bits(u);
}

/* sums[r][c] of 4 rows and 24 columns. */
static void quarter(float *sums, const uint32_t *A, const uint32_t *B, size_t n_units)
{
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s02 = s00, s10 = s00, s11 = s00, s12 = s00;
    __m256 s20 = s00, s21 = s00, s22 = s00, s30 = s00, s31 = s00, s32 = s00;
    for (size_t u = 0; u < n_units; u++, A += LSK_GEMM_M, B += LSK_GEMM_N) {
        const __m256 b0 = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)B));
        const __m256 b1 = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(B + 8)));
        const __m256 b2 = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(B + 16)));
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

/* out[u][0..8) = column u of 8 rows of 8. */
static void turn8(uint32_t *out, size_t width, const uint32_t *in, size_t ld)
{
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(in + (size_t)i * ld)));
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++)
        _mm256_storeu_ps((float *)(void *)(out + (size_t)i * width), t[i]);
}

void lsk_gemm_turn_avx2(uint32_t *out, size_t width, const uint32_t *in, size_t ld, size_t n, size_t n_units)
{
    const size_t whole = n == 8 ? n_units / 8 * 8 : 0;
    for (size_t u = 0; u < whole; u += 8)
        turn8(out + u * width, width, in + u, ld);
    for (size_t u = whole; u < n_units; u++)
        for (size_t i = 0; i < 8; i++)
            out[u * width + i] = i < n ? in[i * ld + u] : 0;
}

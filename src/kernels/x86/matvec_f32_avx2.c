/*
 * Products of stored weights with fp32 activations: weights become fp32 in registers,
 * once for up to two input rows; four chains per sum, in an order given by n_in alone.
 */
#include "kernels/x86/weights_avx2.h"

#define CHAINS    4
#define TILE_ROWS 2

struct kind {
    lsk_run_fn *load;
    int zero;
    bool offset, is_signed;
};

LSK_INLINE float sum_chains(const __m256 acc[CHAINS])
{
    return lsk_reduce(_mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
}

LSK_INLINE void clear(__m256 acc[TILE_ROWS][CHAINS])
{
#pragma GCC unroll 4
    for (int c = 0; c < CHAINS; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_ps();
}

/* ---- quantised types ------------------------------------------------------------- */

LSK_INLINE void dots(float *y, size_t ldy, const uint8_t *row, const float *x, size_t ldx, size_t n_rows,
                     size_t n_in, struct kind kind)
{
    __m256 acc[TILE_ROWS][CHAINS];

    clear(acc);
    for (size_t run = 0; run < n_in / 32; run++) {
        const struct lsk_run g = kind.load(row, run);
#pragma GCC unroll 4
        for (int c = 0; c < CHAINS; c++) {
            const __m256 av = lsk_run_part(&g, c, kind.zero, kind.is_signed);
            const __m256 v = kind.offset ? _mm256_add_ps(av, g.b) : av;
#pragma GCC unroll 2
            for (size_t r = 0; r < n_rows; r++)
                acc[r][c] =
                    _mm256_fmadd_ps(v, _mm256_loadu_ps(x + r * ldx + 32 * run + 8 * (size_t)c), acc[r][c]);
        }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < n_rows; r++)
        y[r * ldy] = sum_chains(acc[r]);
}

LSK_INLINE void matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out, const float *x,
                       size_t ldx, size_t n_rows, size_t n_in, struct kind kind)
{
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *row = w + o * row_bytes;
        size_t r = 0;
        for (; r + 2 <= n_rows; r += 2)
            dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, 2, n_in, kind);
        if (r < n_rows)
            dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, 1, n_in, kind);
    }
}

#define MATVEC_F32(type, run_bytes, zero, offset, is_signed)                                               \
    void lsk_matvec_f32_##type##_avx2(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                      const float *x, size_t ldx, size_t n_rows, size_t n_in)              \
    {                                                                                                      \
        const struct kind kind = { lsk_run_##type, zero, offset, is_signed };                              \
        matvec(y, ldy, w, row_bytes, n_out, x, ldx, n_rows, n_in, kind);                                   \
    }

LSK_AVX2_TYPES(MATVEC_F32)

/* ---- float types -------------------------------------------------------------------- */

typedef __m256 load_fn(const uint8_t *p);

LSK_INLINE __m256 load_f32(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)p));
}

LSK_INLINE __m256 load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

LSK_INLINE __m256 load_bf16(const uint8_t *p)
{
    const __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(h, 16));
}

LSK_INLINE void float_dots(float *y, size_t ldy, const uint8_t *row, const float *x, size_t ldx,
                           size_t n_rows, size_t n_in, load_fn *load, size_t bytes)
{
    __m256 acc[TILE_ROWS][CHAINS];
    size_t i = 0;

    clear(acc);
    for (; i + 8 * CHAINS <= n_in; i += 8 * CHAINS)
#pragma GCC unroll 4
        for (size_t c = 0; c < CHAINS; c++) {
            const __m256 v = load(row + (i + 8 * c) * bytes);
#pragma GCC unroll 2
            for (size_t r = 0; r < n_rows; r++)
                acc[r][c] = _mm256_fmadd_ps(v, _mm256_loadu_ps(x + r * ldx + i + 8 * c), acc[r][c]);
        }
    for (; i < n_in; i += 8) {
        const size_t left = n_in - i < 8 ? n_in - i : 8;
        uint8_t w8[32] = { 0 };
        memcpy(w8, row + i * bytes, left * bytes);
        const __m256 v = load(w8);
#pragma GCC unroll 2
        for (size_t r = 0; r < n_rows; r++) {
            float x8[8] = { 0 };
            memcpy(x8, x + r * ldx + i, left * sizeof *x8);
            acc[r][0] = _mm256_fmadd_ps(v, _mm256_loadu_ps(x8), acc[r][0]);
        }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < n_rows; r++)
        y[r * ldy] = sum_chains(acc[r]);
}

LSK_INLINE void float_matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                             const float *x, size_t ldx, size_t n_rows, size_t n_in, load_fn *load,
                             size_t bytes)
{
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *row = w + o * row_bytes;
        size_t r = 0;
        for (; r + 2 <= n_rows; r += 2)
            float_dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, 2, n_in, load, bytes);
        if (r < n_rows)
            float_dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, 1, n_in, load, bytes);
    }
}

#define MATVEC_FLOAT(type, bytes)                                                                          \
    void lsk_matvec_f32_##type##_avx2(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                      const float *x, size_t ldx, size_t n_rows, size_t n_in)              \
    {                                                                                                      \
        float_matvec(y, ldy, w, row_bytes, n_out, x, ldx, n_rows, n_in, load_##type, bytes);               \
    }

MATVEC_FLOAT(f32, 4)
MATVEC_FLOAT(f16, 2)
MATVEC_FLOAT(bf16, 2)

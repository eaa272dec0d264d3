/*
 * Products of stored weights with fp32 activations. Weights become fp32 in registers,
 * once for up to two input rows (four for float types); each sum runs in several
 * registers to hide the latency of the multiply-adds, in an order given by n_in alone.
 */
#include "kernels/x86/weights_avx512.h"

typedef struct lsk_group group_fn(const uint8_t *row, size_t group, size_t n);

/* ---- quantised types: tiles of four outputs and two rows --------------------------- */

#define TILE_OUT  4
#define TILE_ROWS 2

struct kind {
    group_fn *load;
    int zero;
    bool offset, split;
};

/* Run r of a group: 32 weights times x, in two chains. */
LSK_INLINE void add_run(__m512 acc[TILE_ROWS][2], __m128i lo, __m128i hi, __m512 a, __m512 a_hi, __m512 b,
                        const float *x, size_t ldx, size_t n_rows, struct kind kind)
{
    const __m512i zero = _mm512_set1_epi32(kind.zero);
    __m512i v0 = _mm512_cvtepu8_epi32(lo), v1 = _mm512_cvtepu8_epi32(hi);

    if (kind.zero) {
        v0 = _mm512_sub_epi32(v0, zero);
        v1 = _mm512_sub_epi32(v1, zero);
    }
    const __m512 f0 = _mm512_cvtepi32_ps(v0), f1 = _mm512_cvtepi32_ps(v1);
    const __m512 w0 = kind.offset ? _mm512_fmadd_ps(f0, a, b) : _mm512_mul_ps(f0, a);
    const __m512 w1 = kind.offset ? _mm512_fmadd_ps(f1, a_hi, b) : _mm512_mul_ps(f1, a_hi);
#pragma GCC unroll 2
    for (size_t r = 0; r < n_rows; r++) {
        acc[r][0] = _mm512_fmadd_ps(w0, _mm512_loadu_ps(x + r * ldx), acc[r][0]);
        acc[r][1] = _mm512_fmadd_ps(w1, _mm512_loadu_ps(x + r * ldx + 16), acc[r][1]);
    }
}

#define RUN(v, r) _mm512_shuffle_f32x4(v, v, (r)*0x55)
#define ADD_RUN(r)                                                                                           \
    if (n > (r))                                                                                             \
    add_run(acc, _mm512_extracti32x4_epi32(g.lo, r), _mm512_extracti32x4_epi32(g.hi, r), RUN(g.a, r),        \
            kind.split ? RUN(g.a_hi, r) : RUN(g.a, r), RUN(g.b, r), x + 128 * group + 32 * (r), ldx, n_rows, \
            kind)

LSK_INLINE void add_group(__m512 acc[TILE_ROWS][2], const uint8_t *row, const float *x, size_t ldx,
                          size_t group, size_t n, size_t n_rows, struct kind kind)
{
    const struct lsk_group g = kind.load(row, group, n);
    ADD_RUN(0);
    ADD_RUN(1);
    ADD_RUN(2);
    ADD_RUN(3);
}

LSK_INLINE void tile(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out, const float *x,
                     size_t ldx, size_t n_rows, size_t n_in, struct kind kind)
{
    __m512 acc[TILE_OUT][TILE_ROWS][2];

#pragma GCC unroll 4
    for (size_t o = 0; o < TILE_OUT; o++)
#pragma GCC unroll 2
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[o][r][0] = acc[o][r][1] = _mm512_setzero_ps();
    for (size_t group = 0; group < n_in / 128; group++)
#pragma GCC unroll 4
        for (size_t o = 0; o < n_out; o++)
            add_group(acc[o], w + o * row_bytes, x, ldx, group, 4, n_rows, kind);
    if (n_in / 32 % 4)
#pragma GCC unroll 4
        for (size_t o = 0; o < n_out; o++)
            add_group(acc[o], w + o * row_bytes, x, ldx, n_in / 128, n_in / 32 % 4, n_rows, kind);
#pragma GCC unroll 2
    for (size_t r = 0; r < n_rows; r++) {
        __m512 sum[TILE_OUT];
#pragma GCC unroll 4
        for (size_t o = 0; o < TILE_OUT; o++)
            sum[o] = _mm512_add_ps(acc[o][r][0], acc[o][r][1]);
        _mm_mask_storeu_ps(y + r * ldy, (__mmask8)((1u << n_out) - 1),
                           lsk_reduce4(sum[0], sum[1], sum[2], sum[3]));
    }
}

LSK_INLINE void rows(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out, const float *x,
                     size_t ldx, size_t n_rows, size_t n_in, struct kind kind)
{
    size_t o = 0;
    for (; o + TILE_OUT <= n_out; o += TILE_OUT)
        tile(y + o, ldy, w + o * row_bytes, row_bytes, TILE_OUT, x, ldx, n_rows, n_in, kind);
    for (; o < n_out; o++)
        tile(y + o, ldy, w + o * row_bytes, row_bytes, 1, x, ldx, n_rows, n_in, kind);
}

LSK_INLINE void matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out, const float *x,
                       size_t ldx, size_t n_rows, size_t n_in, struct kind kind)
{
    size_t r = 0;
    for (; r + 2 <= n_rows; r += 2)
        rows(y + r * ldy, ldy, w, row_bytes, n_out, x + r * ldx, ldx, 2, n_in, kind);
    if (r < n_rows)
        rows(y + r * ldy, ldy, w, row_bytes, n_out, x + r * ldx, ldx, 1, n_in, kind);
}

#define MATVEC_F32(type, group_bytes, zero, offset, split)                                                   \
    void lsk_matvec_f32_##type##_avx512(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                        const float *x, size_t ldx, size_t n_rows, size_t n_in)              \
    {                                                                                                        \
        const struct kind kind = { lsk_group_##type, zero, offset, split };                                  \
        matvec(y, ldy, w, row_bytes, n_out, x, ldx, n_rows, n_in, kind);                                     \
    }

LSK_AVX512_TYPES(MATVEC_F32)

/* ---- float types: one output, up to four rows, four chains per sum ------------------- */

#define CHAINS     4
#define FLOAT_ROWS 4

typedef __m512 load_fn(const uint8_t *row, size_t i, __mmask16 lanes);

LSK_INLINE __m512 load_f32(const uint8_t *row, size_t i, __mmask16 lanes)
{
    return _mm512_maskz_loadu_ps(lanes, row + 4 * i);
}

LSK_INLINE __m512 load_f16(const uint8_t *row, size_t i, __mmask16 lanes)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row + 2 * i));
}

LSK_INLINE __m512 load_bf16(const uint8_t *row, size_t i, __mmask16 lanes)
{
    const __m512i h = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, row + 2 * i));
    return _mm512_castsi512_ps(_mm512_slli_epi32(h, 16));
}

LSK_INLINE void float_dots(float *y, size_t ldy, const uint8_t *row, const float *x, size_t ldx,
                           size_t n_rows, size_t n_in, load_fn *load)
{
    __m512 acc[FLOAT_ROWS][CHAINS];
    size_t i = 0;

#pragma GCC unroll 4
    for (size_t r = 0; r < FLOAT_ROWS; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < CHAINS; c++)
            acc[r][c] = _mm512_setzero_ps();
    for (; i + 16 * CHAINS <= n_in; i += 16 * CHAINS)
#pragma GCC unroll 4
        for (size_t c = 0; c < CHAINS; c++) {
            const __m512 w = load(row, i + 16 * c, 0xffff);
#pragma GCC unroll 4
            for (size_t r = 0; r < n_rows; r++)
                acc[r][c] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + r * ldx + i + 16 * c), acc[r][c]);
        }
#pragma GCC unroll 4
    for (size_t c = 0; c < CHAINS; c++) {
        const size_t at = i + 16 * c, left = at < n_in ? n_in - at : 0;
        const __mmask16 lanes = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
        if (left == 0)
            break;
        const __m512 w = load(row, at, lanes);
#pragma GCC unroll 4
        for (size_t r = 0; r < n_rows; r++)
            acc[r][c] = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(lanes, x + r * ldx + at), acc[r][c]);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < n_rows; r++) {
        const __m512 s =
            _mm512_add_ps(_mm512_add_ps(acc[r][0], acc[r][1]), _mm512_add_ps(acc[r][2], acc[r][3]));
        y[r * ldy] =
            _mm_cvtss_f32(lsk_reduce4(s, _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()));
    }
}

LSK_INLINE void float_matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                             const float *x, size_t ldx, size_t n_rows, size_t n_in, load_fn *load)
{
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *row = w + o * row_bytes;
        size_t r = 0;
        for (; r + FLOAT_ROWS <= n_rows; r += FLOAT_ROWS)
            float_dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, FLOAT_ROWS, n_in, load);
        for (; r < n_rows; r++)
            float_dots(y + r * ldy + o, ldy, row, x + r * ldx, ldx, 1, n_in, load);
    }
}

#define MATVEC_FLOAT(type)                                                                                   \
    void lsk_matvec_f32_##type##_avx512(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                        const float *x, size_t ldx, size_t n_rows, size_t n_in)              \
    {                                                                                                        \
        float_matvec(y, ldy, w, row_bytes, n_out, x, ldx, n_rows, n_in, load_##type);                        \
    }

MATVEC_FLOAT(f32)
MATVEC_FLOAT(f16)
MATVEC_FLOAT(bf16)

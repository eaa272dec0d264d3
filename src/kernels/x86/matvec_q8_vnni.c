/*
 * Products of stored weights with 8-bit activations: the kernels of decoding. What
 * limits them is the stream of weights, so the work per byte of weights is kept small:
 *
 *  - a group of four runs of 32 leaves its integer sums in one register (see
 *    weights_avx512.h), scaled by one multiplication with a * d;
 *  - the zero point of the codes is taken off by starting the integer sum at
 *    -zero * sum(q), which depends on the activations alone;
 *  - four outputs share the loading and arranging of the activations.
 *
 * Up to four input rows use a group of weights while it is in registers. A sum takes
 * the groups in order whatever the tile is, so its bits do not depend on it.
 */
#include "kernels/x86/stream.h"
#include "kernels/x86/weights_avx512.h"

#define TILE_OUT  4
#define TILE_ROWS 4

typedef struct lsk_group group_fn(const uint8_t *row, size_t group, size_t n);

typedef __m512 rest_fn(__m512 acc, const uint8_t *row, const struct lsk_q8 *x, size_t n_in);

/* What is fixed for a type: constants after inlining. */
struct kind {
    group_fn *load;
    rest_fn *rest;
    int zero;
    bool offset, split;
    size_t group_bytes;
};

/* Activations of a group, in the order of the weights. */
struct acts {
    __m512i lo, hi;
    __m512i from, from_hi; /* where the integer sums start */
    __m512 d, s;
};

LSK_INLINE struct acts load_acts(const struct lsk_q8 *x, size_t group, size_t n, struct kind kind)
{
    const int8_t *q = x->q + 128 * group;
    const __m512i zero = _mm512_set1_epi8((char)kind.zero), none = _mm512_setzero_si512();
    __m512i v0, v1;
    __m128 d, s;
    struct acts x4;

    if (n == 4) {
        v0 = _mm512_loadu_si512(q);
        v1 = _mm512_loadu_si512(q + 64);
        d = _mm_loadu_ps(x->d + 4 * group);
        s = _mm_loadu_ps(x->s + 4 * group);
    } else {
        const __mmask64 first = n > 1 ? ~(__mmask64)0 : (__mmask64)0xffffffffu;
        const __mmask64 second = n > 2 ? (__mmask64)0xffffffffu : 0;
        v0 = _mm512_maskz_loadu_epi8(first, q);
        v1 = _mm512_maskz_loadu_epi8(second, q + 64);
        d = _mm_maskz_loadu_ps((__mmask8)((1u << n) - 1), x->d + 4 * group);
        s = _mm_maskz_loadu_ps((__mmask8)((1u << n) - 1), x->s + 4 * group);
    }
    x4.lo = _mm512_shuffle_i64x2(v0, v1, 0x88);
    x4.hi = _mm512_shuffle_i64x2(v0, v1, 0xdd);
    x4.d = lsk_spread4(d);
    /* A quarter in each of the four lanes of a run. */
    x4.s = kind.offset ? _mm512_mul_ps(lsk_spread4(s), _mm512_set1_ps(0.25f)) : _mm512_setzero_ps();
    x4.from = x4.from_hi = none;
    if (kind.zero) {
        const __m512i lo = _mm512_dpbusd_epi32(none, zero, x4.lo);
        if (kind.split)
            x4.from_hi = _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, zero, x4.hi));
        x4.from = _mm512_sub_epi32(none, kind.split ? lo : _mm512_dpbusd_epi32(lo, zero, x4.hi));
    }
    return x4;
}

LSK_INLINE __m512 add_group(__m512 acc, const struct lsk_group *w, const struct acts *x, struct kind kind)
{
    __m512i sum = _mm512_dpbusd_epi32(x->from, w->lo, x->lo);
    if (kind.split) {
        const __m512i sum_hi = _mm512_dpbusd_epi32(x->from_hi, w->hi, x->hi);
        const __m512 lo = _mm512_mul_ps(w->a, _mm512_cvtepi32_ps(sum));
        return _mm512_fmadd_ps(_mm512_fmadd_ps(w->a_hi, _mm512_cvtepi32_ps(sum_hi), lo), x->d, acc);
    }
    sum = _mm512_dpbusd_epi32(sum, w->hi, x->hi);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(w->a, x->d), acc);
    return kind.offset ? _mm512_fmadd_ps(w->b, x->s, acc) : acc;
}

LSK_INLINE void add_tile(__m512 acc[TILE_OUT][TILE_ROWS], const uint8_t *w, size_t row_bytes,
                         const struct lsk_q8 *x, size_t group, size_t n, size_t n_out, size_t n_rows,
                         uintptr_t fetch, struct kind kind)
{
    struct acts xs[TILE_ROWS];

#pragma GCC unroll 4
    for (size_t r = 0; r < n_rows; r++)
        xs[r] = load_acts(&x[r], group, n, kind);
#pragma GCC unroll 4
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *row = w + o * row_bytes;
        const struct lsk_group g = kind.load(row, group, n);
        lsk_stream_fetch(fetch + (group * n_out + o) * kind.group_bytes, kind.group_bytes);
#pragma GCC unroll 4
        for (size_t r = 0; r < n_rows; r++)
            acc[o][r] = add_group(acc[o][r], &g, &xs[r], kind);
    }
}

/* The last one to three runs of a row. */
LSK_INLINE __m512 add_rest(__m512 acc, const uint8_t *row, const struct lsk_q8 *x, size_t n_in,
                           struct kind kind)
{
    const struct lsk_group g = kind.load(row, n_in / 128, n_in / 32 % 4);
    const struct acts xs = load_acts(x, n_in / 128, n_in / 32 % 4, kind);
    return add_group(acc, &g, &xs, kind);
}

LSK_INLINE void tile(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                     const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    const size_t n_groups = n_in / 128;
    const uintptr_t fetch = (uintptr_t)w + lsk_stream_ahead(n_out * row_bytes);
    __m512 acc[TILE_OUT][TILE_ROWS];

#pragma GCC unroll 4
    for (size_t o = 0; o < TILE_OUT; o++)
#pragma GCC unroll 4
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[o][r] = _mm512_setzero_ps();
    for (size_t group = 0; group < n_groups; group++)
        add_tile(acc, w, row_bytes, x, group, 4, n_out, n_rows, fetch, kind);
    if (n_in / 32 % 4)
#pragma GCC unroll 4
        for (size_t o = 0; o < n_out; o++)
#pragma GCC unroll 4
            for (size_t r = 0; r < n_rows; r++)
                acc[o][r] = kind.rest(acc[o][r], w + o * row_bytes, &x[r], n_in);
#pragma GCC unroll 4
    for (size_t r = 0; r < n_rows; r++) {
        const __m128 sums = lsk_reduce4(acc[0][r], acc[1][r], acc[2][r], acc[3][r]);
        _mm_mask_storeu_ps(y + r * ldy, (__mmask8)((1u << n_out) - 1), sums);
    }
}

/* Tiles of outputs for n_rows rows; n_out is a multiple of TILE_OUT. */
LSK_INLINE void rows(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                     const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    for (size_t o = 0; o + TILE_OUT <= n_out; o += TILE_OUT)
        tile(y + o, ldy, w + o * row_bytes, row_bytes, TILE_OUT, x, n_rows, n_in, kind);
}

/* Four rows, then two, then one, over a stretch of outputs whose weights stay in the cache. */
#define STRETCH 16

LSK_INLINE void matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                       const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    const size_t n_tiled = n_out / TILE_OUT * TILE_OUT;
    const size_t step = n_rows > 1 ? STRETCH : n_tiled;

    for (size_t o = 0; o < n_tiled; o += step) {
        const size_t n = n_tiled - o < step ? n_tiled - o : step;
        const uint8_t *wo = w + o * row_bytes;
        size_t r = 0;
        for (; r + 4 <= n_rows; r += 4)
            rows(y + r * ldy + o, ldy, wo, row_bytes, n, x + r, 4, n_in, kind);
        if (r + 2 <= n_rows) {
            rows(y + r * ldy + o, ldy, wo, row_bytes, n, x + r, 2, n_in, kind);
            r += 2;
        }
        if (r < n_rows)
            rows(y + r * ldy + o, ldy, wo, row_bytes, n, x + r, 1, n_in, kind);
    }
    for (size_t o = n_tiled; o < n_out; o++)
        for (size_t r = 0; r < n_rows; r++)
            tile(y + r * ldy + o, ldy, w + o * row_bytes, row_bytes, 1, x + r, 1, n_in, kind);
}

#define MATVEC_Q8(type, group_bytes, zero, offset, split)                                                 \
    static __attribute__((noinline))                                                                      \
    __m512 rest_##type(__m512 acc, const uint8_t *row, const struct lsk_q8 *x, size_t n_in)               \
    {                                                                                                     \
        const struct kind kind = { lsk_group_##type, NULL, zero, offset, split, group_bytes };            \
        return add_rest(acc, row, x, n_in, kind);                                                         \
    }                                                                                                     \
    void lsk_matvec_q8_##type##_vnni(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                     const struct lsk_q8 *x, size_t n_rows, size_t n_in)                  \
    {                                                                                                     \
        const struct kind kind = { lsk_group_##type, rest_##type, zero, offset, split, group_bytes };     \
        matvec(y, ldy, w, row_bytes, n_out, x, n_rows, n_in, kind);                                       \
    }

LSK_AVX512_TYPES(MATVEC_Q8)

/*
 * Products of stored weights with 8-bit activations: byte products are added in pairs
 * (16 bits, which 63 * 127 * 2 does not overflow) and again in pairs to 32 bits. Zero
 * points are taken off by a sum of the activations that four outputs share. Signed
 * codes pass their sign to the activations, because one factor must be unsigned.
 */
#include "kernels/x86/stream.h"
#include "kernels/x86/weights_avx2.h"

#define TILE_OUT  4
#define TILE_ROWS 2

struct kind {
    lsk_run_fn *load;
    int zero;
    bool offset, is_signed;
    size_t run_bytes;
};

/* Activations of a run. */
struct acts {
    __m256i q;
    __m256i from; /* -zero * sum(q), by lane */
    __m256 d, s;
};

LSK_INLINE __m256i dot4(__m256i u, __m256i s)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1));
}

LSK_INLINE struct acts load_acts(const struct lsk_q8 *x, size_t run, struct kind kind)
{
    struct acts a;
    a.q = _mm256_loadu_si256((const __m256i *)(x->q + 32 * run));
    a.d = _mm256_set1_ps(x->d[run]);
    /* An eighth in each lane. */
    a.s = kind.offset ? _mm256_set1_ps(x->s[run] * 0.125f) : _mm256_setzero_ps();
    a.from = kind.zero
                 ? _mm256_sub_epi32(_mm256_setzero_si256(), dot4(_mm256_set1_epi8((char)kind.zero), a.q))
                 : _mm256_setzero_si256();
    return a;
}

LSK_INLINE __m256 add_run(__m256 acc, const struct lsk_run *w, const struct acts *x, struct kind kind)
{
    __m256i sum;
    if (kind.is_signed)
        sum = dot4(_mm256_abs_epi8(w->code), _mm256_sign_epi8(x->q, w->code));
    else
        sum = dot4(w->code, x->q);
    if (kind.zero)
        sum = _mm256_add_epi32(sum, x->from);
    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(w->a, x->d), acc);
    return kind.offset ? _mm256_fmadd_ps(w->b, x->s, acc) : acc;
}

LSK_INLINE void tile(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                     const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    const uintptr_t fetch = (uintptr_t)w + lsk_stream_ahead(n_out * row_bytes);
    __m256 acc[TILE_OUT][TILE_ROWS];

#pragma GCC unroll 4
    for (size_t o = 0; o < TILE_OUT; o++)
        acc[o][0] = acc[o][1] = _mm256_setzero_ps();
    for (size_t run = 0; run < n_in / 32; run++) {
        struct acts xs[TILE_ROWS];
#pragma GCC unroll 2
        for (size_t r = 0; r < n_rows; r++)
            xs[r] = load_acts(&x[r], run, kind);
#pragma GCC unroll 4
        for (size_t o = 0; o < n_out; o++) {
            const struct lsk_run g = kind.load(w + o * row_bytes, run);
#pragma GCC unroll 2
            for (size_t r = 0; r < n_rows; r++)
                acc[o][r] = add_run(acc[o][r], &g, &xs[r], kind);
        }
        lsk_stream_fetch(fetch + run * n_out * kind.run_bytes, n_out * kind.run_bytes);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < n_rows; r++)
#pragma GCC unroll 4
        for (size_t o = 0; o < n_out; o++)
            y[r * ldy + o] = lsk_reduce(acc[o][r]);
}

LSK_INLINE void rows(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                     const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    size_t o = 0;
    for (; o + TILE_OUT <= n_out; o += TILE_OUT)
        tile(y + o, ldy, w + o * row_bytes, row_bytes, TILE_OUT, x, n_rows, n_in, kind);
    for (; o < n_out; o++)
        tile(y + o, ldy, w + o * row_bytes, row_bytes, 1, x, n_rows, n_in, kind);
}

LSK_INLINE void matvec(float *y, size_t ldy, const uint8_t *w, size_t row_bytes, size_t n_out,
                       const struct lsk_q8 *x, size_t n_rows, size_t n_in, struct kind kind)
{
    size_t r = 0;
    for (; r + 2 <= n_rows; r += 2)
        rows(y + r * ldy, ldy, w, row_bytes, n_out, x + r, 2, n_in, kind);
    if (r < n_rows)
        rows(y + r * ldy, ldy, w, row_bytes, n_out, x + r, 1, n_in, kind);
}

#define MATVEC_Q8(type, run_bytes, zero, offset, is_signed)                                               \
    void lsk_matvec_q8_##type##_avx2(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                     const struct lsk_q8 *x, size_t n_rows, size_t n_in)                  \
    {                                                                                                     \
        const struct kind kind = { lsk_run_##type, zero, offset, is_signed, run_bytes };                  \
        matvec(y, ldy, w, row_bytes, n_out, x, n_rows, n_in, kind);                                       \
    }

LSK_AVX2_TYPES(MATVEC_Q8)

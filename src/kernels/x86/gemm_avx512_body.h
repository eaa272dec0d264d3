/*
 * A block of 8 x 48 sums in 24 registers. The file that includes this defines
 *
 *     STEP(sum, a, b)     multiply-add of units: sum + a * b, all __m512
 *
 * The registers have names because gcc 12 keeps arrays of them in memory as well.
 */
#include "kernels/impl.h"

#include <immintrin.h>

#define AHEAD \
    64 /* units of A that are asked for ahead, past its end too: a task's next panel of A lies there */

#define EACH_OF_4(X) X(0) X(1) X(2) X(3)
#define EACH_OF_8(X) EACH_OF_4(X) X(4) X(5) X(6) X(7)

struct target {
    float *C;
    size_t ldc, rows;
    __mmask16 mask[3];
    __m512 scale;
    bool whole, add;
};

static inline void put_row(const struct target *t, size_t r, __m512 s0, __m512 s1, __m512 s2)
{
    if (r >= t->rows)
        return;
    float *c = t->C + r * t->ldc;
    s0 = _mm512_mul_ps(s0, t->scale);
    s1 = _mm512_mul_ps(s1, t->scale);
    s2 = _mm512_mul_ps(s2, t->scale);
    if (t->whole) {
        if (t->add) {
            s0 = _mm512_add_ps(_mm512_loadu_ps(c), s0);
            s1 = _mm512_add_ps(_mm512_loadu_ps(c + 16), s1);
            s2 = _mm512_add_ps(_mm512_loadu_ps(c + 32), s2);
        }
        _mm512_storeu_ps(c, s0);
        _mm512_storeu_ps(c + 16, s1);
        _mm512_storeu_ps(c + 32, s2);
        return;
    }
    const __m512 s[3] = { s0, s1, s2 };
    for (int v = 0; v < 3; v++) {
        const __m512 was = t->add ? _mm512_maskz_loadu_ps(t->mask[v], c + 16 * v) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(c + 16 * v, t->mask[v], t->add ? _mm512_add_ps(was, s[v]) : s[v]);
    }
}

static inline __mmask16 lanes(size_t cols, size_t first)
{
    return cols >= first + 16 ? (__mmask16)0xffff
           : cols <= first    ? 0
                              : (__mmask16)((1u << (cols - first)) - 1);
}

/* C is asked for before the sum begins: it may be far away, and the sum takes a microsecond. */
static inline void fetch(const struct target *t, size_t cols)
{
    for (size_t r = 0; r < t->rows; r++)
        for (size_t c = 0; c < cols; c += 16)
            _mm_prefetch((const char *)(t->C + r * t->ldc + c), _MM_HINT_T0);
}

static inline __m512 units(const uint32_t *p)
{
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
}

static inline __m512 repeated(const uint32_t *p)
{
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)*p));
}

#define ZERO(r) __m512 s##r##0 = zero, s##r##1 = zero, s##r##2 = zero;
#define ROW(r)                      \
    a = repeated(A + (r));          \
    s##r##0 = STEP(s##r##0, a, b0); \
    s##r##1 = STEP(s##r##1, a, b1); \
    s##r##2 = STEP(s##r##2, a, b2);
#define PUT(r) put_row(t, r, s##r##0, s##r##1, s##r##2);

/* The sums of the rows that EACH names; an element's is the same for any number of them. */
#define SUMS(name, EACH)                                                                                  \
    static inline void name(const struct target *t, const uint32_t *A, const uint32_t *B, size_t n_units) \
    {                                                                                                     \
        const __m512 zero = _mm512_setzero_ps();                                                          \
        EACH(ZERO)                                                                                        \
        for (size_t u = 0; u < n_units; u++, A += LSK_GEMM_M, B += LSK_GEMM_N) {                          \
            const __m512 b0 = units(B), b1 = units(B + 16), b2 = units(B + 32);                           \
            __m512 a;                                                                                     \
            _mm_prefetch((const char *)(A + AHEAD * LSK_GEMM_M), _MM_HINT_T0);                            \
            EACH(ROW)                                                                                     \
        }                                                                                                 \
        EACH(PUT)                                                                                         \
    }

SUMS(eight_rows, EACH_OF_8)
SUMS(four_rows, EACH_OF_4)
#undef SUMS
#undef PUT
#undef ROW
#undef ZERO

static inline void block(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                         size_t rows, size_t cols, float scale, bool add)
{
    const struct target t = { C,
                              ldc,
                              rows,
                              { lanes(cols, 0), lanes(cols, 16), lanes(cols, 32) },
                              _mm512_set1_ps(scale),
                              cols == LSK_GEMM_N,
                              add };
    fetch(&t, cols);
    if (rows > 4)
        eight_rows(&t, A, B, n_units);
    else
        four_rows(&t, A, B, n_units);
}

/* 16 pairs of two rows from column c on, zero where the mask is not set. */
typedef __m512i pairs_fn(const void *first, const void *second, size_t c, __mmask16 m);

static inline void put_pairs(uint32_t *out, size_t panel, size_t width, const void *first, const void *second,
                             size_t n, pairs_fn *pairs)
{
    if (width == 8) {
        for (size_t c = 0; c < n; c += 16, out += 2 * panel) {
            const __m512i v = pairs(first, second, c, lanes(n, c));
            _mm256_storeu_si256((__m256i *)out, _mm512_castsi512_si256(v));
            if (n - c > 8)
                _mm256_storeu_si256((__m256i *)(out + panel), _mm512_extracti64x4_epi64(v, 1));
        }
        return;
    }
    for (size_t c = 0; c < n; c += width, out += panel)
        for (size_t i = 0; i < width; i += 16)
            _mm512_storeu_si512(out + i, pairs(first, second, c + i, lanes(n, c + i)));
}

/*
 * Attention over one page of 8-bit keys and values with fourfold integer products (AVX512_VNNI).
 *
 * Queries and weights are written as whole numbers of 24 bits, as precise as floats, and their
 * three bytes go through the products one by one: sums are exact, and put together at the end.
 *
 *     score[s]  = k_scale[s] q_unit  sum_d  (k[s][d] - 128) (2^16 q2[d] + 2^8 q1[d] + q0[d])
 *     acc[d]   += unit               sum_s  v[s][d]         (2^16 w2[s] + 2^8 w1[s] + w0[s])
 *
 * Bytes of queries are signed (keys are not), those of weights are not (values are). A weight is
 * taken relative to the greatest of its row in this page and includes the scale of its value, so
 * that a row loses nothing where its weights are small.
 *
 * D must be a multiple of 16 up to 256; other sizes go to the AVX-512 kernel.
 */
#include "kernels/impl.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#define ROWS   4
#define DIGITS 3 /* bytes of a number */
#define DIMS   2 /* ROWS x DIMS x DIGITS = 24 sums, 2 operands, 1 broadcast of 32 registers */
#define MAX_D  256
#define AHEAD  4096     /* bytes between what is read and what is asked for */
#define MORE   1024     /* bytes asked for while one row's weights are made */
#define Q_MOST 0x7f7f00 /* below the most of three signed bytes: rounding may not pass that */
#define W_MOST 0xffffff /* of three unsigned bytes */

struct block {
    const struct lsk_attn *a;
    size_t r0, from, to; /* slots: multiples of LSK_TILE */
    bool fetch;
    float q_unit[ROWS];
    float keep[ROWS], unit[ROWS]; /* factors for acc so far and for the sums of this page */
    size_t v_lo, v_hi;            /* slots that the next two were made for */
    float v_most;                 /* the greatest scale of their values */
    float v_scale[LSK_PAGE];      /* scales as parts of it, times W_MOST */
    int8_t q[ROWS][DIGITS][MAX_D];
    uint8_t w[ROWS][DIGITS][LSK_PAGE];
    float z[ROWS][LSK_PAGE];
};

static const float *scales_of(const struct lsk_attn *a)
{
    return (const float *)(const void *)((const unsigned char *)a->head + lsk_kv_q8_scales(a->D));
}

/* sum + u0 x0 + .. + u3 x3 in every lane. The builtin function makes gcc copy each sum twice. */
static inline __m512i add_products(__m512i sum, __m512i u, __m512i x)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(x));
    return sum;
}

static __m512i broadcast4(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

/* 2^16 x[2] + 2^8 x[1] + x[0]; |x| < 2^24. */
VEC_INLINE vec join(const __m512i x[DIGITS])
{
    const vec low = vec_fma(_mm512_cvtepi32_ps(x[1]), vec_set(0x1p8f), _mm512_cvtepi32_ps(x[0]));
    return vec_fma(_mm512_cvtepi32_ps(x[2]), vec_set(0x1p16f), low);
}

static void split_query(struct block *b, size_t r)
{
    const size_t D = b->a->D;
    const float *q = b->a->q + (b->r0 + r) * D;
    const __m512i bias = _mm512_set1_epi32(0x808080);
    vec most = vec_zero(), zero = vec_zero();

    for (size_t d = 0; d < D; d += VEC_LANES) {
        most = vec_max(_mm512_abs_ps(vec_load(q + d)), most);
        zero = vec_fma(vec_load(q + d), vec_zero(), zero);
    }
    const float greatest = vec_greatest(most), scale = (float)Q_MOST / greatest;
    /* Queries too small for a scale give scores of 0. */
    const vec by = vec_set(scale <= 0x1p126f ? scale : 0.0f);
    /* Whole numbers have no NaN: the unit carries it. */
    b->q_unit[r] = greatest / (float)Q_MOST + vec_sum(zero);
    for (size_t d = 0; d < D; d += VEC_LANES) {
        const __m512i x = _mm512_cvtps_epi32(vec_mul(vec_load(q + d), by));
        const __m512i bytes = _mm512_xor_si512(_mm512_add_epi32(x, bias), bias);
        for (unsigned c = 0; c < DIGITS; c++)
            _mm_storeu_si128((__m128i *)(void *)&b->q[r][c][d],
                             _mm512_cvtepi32_epi8(_mm512_srli_epi32(bytes, 8 * c)));
    }
}

/* sum[r][c] += products of a tile's keys with the queries' bytes; the tile's rows are `step` apart. */
VEC_INLINE void add_keys(const struct block *b, __m512i sum[ROWS][DIGITS], const unsigned char *k,
                         size_t step, size_t n_rows)
{
    for (size_t i = 0; i < b->a->D / 4; i++) {
        const __m512i x = _mm512_loadu_si512(k + i * step);
        if (b->fetch && step > 0)
            _mm_prefetch((const char *)k + i * step + AHEAD, _MM_HINT_T1);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            sum[r][c] = add_products(sum[r][c], x, broadcast4(&b->q[r][c][4 * i]));
    }
}

VEC_INLINE void scores(struct block *b, size_t n_rows)
{
    static const uint64_t offset[8] = { 0x8080808080808080u, 0x8080808080808080u, 0x8080808080808080u,
                                        0x8080808080808080u, 0x8080808080808080u, 0x8080808080808080u,
                                        0x8080808080808080u, 0x8080808080808080u };
    const unsigned char *k = b->a->head;
    __m512i zero[ROWS][DIGITS], sum[ROWS][DIGITS];

    memset(zero, 0, sizeof zero);
    add_keys(b, zero, (const unsigned char *)offset, 0, n_rows);
    for (size_t s = b->from; s < b->to; s += LSK_TILE) {
        const vec scale = vec_load(scales_of(b->a) + s);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            sum[r][c] = _mm512_sub_epi32(_mm512_setzero_si512(), zero[r][c]);
        add_keys(b, sum, k + s * b->a->D, 64, n_rows);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            vec_store(b->z[r] + s, vec_mul(join(sum[r]), vec_mul(scale, vec_set(b->q_unit[r]))));
    }
}

/* Scales of the values in slots lo .. hi - 1: what a row does not see has no part in its weights. */
static void prepare_scales(struct block *b, size_t lo, size_t hi)
{
    const float *scales = scales_of(b->a) + LSK_PAGE;
    vec most = vec_zero();

    if (b->v_lo == lo && b->v_hi == hi)
        return;
    for (size_t s = lo / VEC_LANES * VEC_LANES; s < hi; s += VEC_LANES) {
        const uint32_t from_lo = s < lo ? 0xffffu << (lo - s) : 0xffffu;
        const uint32_t to_hi = s + VEC_LANES > hi ? 0xffffu >> (s + VEC_LANES - hi) : 0xffffu;
        const vec seen = _mm512_maskz_loadu_ps((__mmask16)(from_lo & to_hi), scales + s);
        most = vec_max(seen, most);
    }
    b->v_lo = lo;
    b->v_hi = hi;
    b->v_most = vec_greatest(most);
    const vec inv = vec_set(b->v_most > 0.0f ? 1.0f / b->v_most : 0.0f);
    for (size_t s = b->from; s < b->to; s += VEC_LANES)
        vec_store(b->v_scale + s, vec_mul(vec_min(vec_set(1.0f), vec_mul(vec_load(scales + s), inv)),
                                          vec_set((float)W_MOST)));
}

/* Bytes of the weights of row r; brings m and l up to date. */
static void weights(struct block *b, size_t r)
{
    const struct lsk_attn *a = b->a;
    const size_t row = b->r0 + r, from = b->from, to = b->to, lo = a->lo[row], hi = a->hi[row];
    const float before = a->m[row];
    float *z = b->z[r], factor[VEC_LANES];
    vec top = vec_set(-INFINITY), sum = vec_zero();

    prepare_scales(b, lo, hi);
    for (size_t s = from; s < lo && s < to; s++)
        z[s] = -INFINITY;
    for (size_t s = hi > from ? hi : from; s < to; s++)
        z[s] = -INFINITY;
    for (size_t s = from; s < to; s += VEC_LANES)
        top = vec_max(top, vec_load(z + s));
    const float here = lo < hi ? vec_greatest(top) : -INFINITY, m = here > before ? here : before;
    const vec base = vec_set(here == -INFINITY ? 0.0f : here);
    for (size_t s = from; s < to; s += VEC_LANES) {
        const vec w = vec_exp2(vec_sub(vec_load(z + s), base));
        const __m512i x = _mm512_cvtps_epi32(vec_mul(w, vec_load(b->v_scale + s)));
        sum = vec_add(sum, w);
        if (b->fetch)
            _mm_prefetch((const char *)a->head + LSK_PAGE * a->D + AHEAD + r * MORE + s * (MORE / LSK_PAGE),
                         _MM_HINT_T1);
        VEC_UNROLL
        for (unsigned c = 0; c < DIGITS; c++)
            _mm_storeu_si128((__m128i *)(void *)&b->w[r][c][s],
                             _mm512_cvtepi32_epi8(_mm512_srli_epi32(x, 8 * c)));
    }
    /* Both factors at once: lane 0 for what was there, lane 1 for what is new. */
    const vec old = vec_set(m == -INFINITY ? 0.0f : before - m);
    const vec new = vec_set(m == -INFINITY ? 0.0f : here - m);
    vec_store(factor, vec_exp2(_mm512_mask_mov_ps(old, 2, new)));
    b->keep[r] = factor[0];
    b->unit[r] = factor[1] * (b->v_most / (float)W_MOST);
    a->l[row] = a->l[row] * factor[0] + vec_sum(sum) * factor[1];
    a->m[row] = m;
}

VEC_INLINE void values(const struct block *b, size_t n_rows, size_t n_dims, size_t d)
{
    const size_t D = b->a->D, part_bytes = LSK_PAGE * D;
    const unsigned char *v = (const unsigned char *)b->a->head + part_bytes;
    const unsigned char *next = b->a->next ? b->a->next : b->a->head;
    float *acc = b->a->acc + b->r0 * D + d;
    __m512i sum[ROWS][DIMS][DIGITS];

    memset(sum, 0, sizeof sum);
    for (size_t s = b->from; s < b->to; s += 4) {
        const size_t at = s * D + 4 * d;
        __m512i x[DIMS];
        VEC_UNROLL
        for (size_t j = 0; j < n_dims; j++)
            x[j] = _mm512_loadu_si512(v + at + j * 64);
        if (b->fetch) {
            /* The last of this page was asked for ahead of time: near its end ask for nothing new. */
            const size_t here = at + AHEAD + n_rows * MORE < part_bytes ? at + AHEAD + n_rows * MORE : at;
            const unsigned char *there =
                at + AHEAD < part_bytes ? v + here : next + (at + AHEAD - part_bytes);
            VEC_UNROLL
            for (size_t j = 0; j < n_dims; j++)
                _mm_prefetch((const char *)there + j * 64, _MM_HINT_T1);
            /* Scales are at the end of the next head and the first that it needs: a line every 8 slots. */
            if (d == 0 && s % 8 == 0)
                _mm_prefetch((const char *)next + 2 * part_bytes + s * 8, _MM_HINT_T1);
        }
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++) {
            const __m512i w = broadcast4(&b->w[r][c][s]);
            VEC_UNROLL
            for (size_t j = 0; j < n_dims; j++)
                sum[r][j][c] = add_products(sum[r][j][c], w, x[j]);
        }
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_dims; j++) {
        float *at = acc + r * D + j * VEC_LANES;
        const vec kept = vec_mul(vec_load(at), vec_set(b->keep[r]));
        vec_store(at, vec_fma(join(sum[r][j]), vec_set(b->unit[r]), kept));
    }
}

VEC_INLINE void passes(struct block *b, size_t n_rows)
{
    size_t d;

    for (size_t r = 0; r < n_rows; r++)
        split_query(b, r);
    scores(b, n_rows);
    for (size_t r = 0; r < n_rows; r++)
        weights(b, r);
    for (d = 0; d + DIMS * VEC_LANES <= b->a->D; d += DIMS * VEC_LANES)
        values(b, n_rows, DIMS, d);
    if (d < b->a->D)
        values(b, n_rows, 1, d);
}

/* The slots that rows r0 .. r0 + n_rows - 1 see. False: none. */
static bool block_extent(struct block *b, size_t n_rows)
{
    size_t lo = LSK_PAGE, hi = 0;

    for (size_t r = b->r0; r < b->r0 + n_rows; r++) {
        const size_t row_lo = b->a->lo[r], row_hi = b->a->hi[r];
        if (row_lo < row_hi) {
            lo = row_lo < lo ? row_lo : lo;
            hi = row_hi > hi ? row_hi : hi;
        }
    }
    b->from = lo / LSK_TILE * LSK_TILE;
    b->to = (hi + LSK_TILE - 1) / LSK_TILE * LSK_TILE;
    return lo < hi;
}

void lsk_attn_q8_vnni(const struct lsk_attn *a)
{
    struct block b;

    if (a->D % LSK_TILE != 0 || a->D > MAX_D) {
        lsk_attn_q8_avx512(a);
        return;
    }
    b.a = a;
    for (b.r0 = 0; b.r0 < a->n_rows; b.r0 += ROWS) {
        const size_t n = a->n_rows - b.r0 < ROWS ? a->n_rows - b.r0 : ROWS;
        if (!block_extent(&b, n))
            continue;
        b.fetch = b.r0 == 0;
        b.v_lo = b.v_hi = LSK_PAGE + 1; /* none */
        switch (n) {
        case 1:
            passes(&b, 1);
            break;
        case 2:
            passes(&b, 2);
            break;
        case 3:
            passes(&b, 3);
            break;
        default:
            passes(&b, ROWS);
            break;
        }
    }
}

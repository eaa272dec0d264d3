/*
 * Attention over one page of 8-bit keys and values with fourfold integer products (AVX512_VNNI).
 *
 * Queries and weights are written as whole numbers of 24 bits, as precise as floats, and their
 * three bytes go through the products one by one: sums are exact, and put together at the end.
 *
 *     score[s]  = q_unit  sum_runs k_scale[run][s]  sum_d  (k[s][d] - 128) (2^16 q2[d] + 2^8 q1[d] + q0[d])
 *     acc[d]   += unit[run]                         sum_s  v[s][d]         (2^16 w2[s] + 2^8 w1[s] + w0[s])
 *
 * Bytes of queries are signed (keys are not), those of weights are not (values are). A weight is
 * taken relative to the greatest of its row in this page and includes the scale of its value, so
 * that a row loses nothing where its weights are small: bytes of weights are made for each run.
 *
 * D must be a multiple of 16 up to 256; other sizes go to the AVX-512 kernel.
 */
#include "kernels/impl.h"

#include "kernels/x86/attention_digits.h"

#define DIMS   2 /* ROWS x DIMS x DIGITS = 24 sums, 2 operands, 1 broadcast of 32 registers */
#define MAX_D  256
#define RUNS   (MAX_D / LSK_KV_Q8_RUN)
#define AHEAD  8192 /* bytes, and half a page, between what is read and what is asked for */
#define MORE   PAGE_WEIGHTS_FETCH
#define W_MOST 0xffffff /* of three unsigned bytes */

_Static_assert(DIMS *VEC_LANES == LSK_KV_Q8_RUN, "a block of dimensions shares the bytes of its weights");

struct block {
    const struct lsk_attn *a;
    size_t r0, from, to; /* slots: multiples of LSK_TILE */
    bool fetch;
    float q_unit[ROWS];
    float keep[ROWS], gain[ROWS];     /* factors for acc so far and for the weights of this page */
    float unit[ROWS];                 /* of the bytes of weights */
    size_t v_lo, v_hi, v_run;         /* slots and run that the next two were made for */
    float v_most;                     /* the greatest scale of their values */
    float v_scale[LSK_PAGE];          /* scales as parts of it, times W_MOST */
    int32_t zero[RUNS][ROWS][DIGITS]; /* what a key of zeros would come to, negated */
    int8_t q[ROWS][DIGITS][MAX_D];
    int32_t w[ROWS][LSK_PAGE]; /* [s + c], s a multiple of 4: bytes c of the weights of slots s .. s + 3 */
    float z[ROWS][LSK_PAGE];   /* scores, then weights */
};

static __m512i broadcast4(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
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

/* sum[r][c] += products of a run of a tile's keys with the queries' bytes; the tile's rows are `step` apart.
 * `ahead`: what to ask for meanwhile, or NULL. */
VEC_INLINE void add_keys(const struct block *b, __m512i sum[ROWS][DIGITS], const unsigned char *k,
                         const unsigned char *ahead, size_t step, size_t run, size_t n_rows)
{
    const size_t most = (run + 1) * LSK_KV_Q8_RUN, end = (most < b->a->D ? most : b->a->D) / 4;

    for (size_t i = run * (LSK_KV_Q8_RUN / 4); i < end; i++) {
        const __m512i x = _mm512_loadu_si512(k + i * step);
        if (ahead)
            _mm_prefetch((const char *)ahead + i * step, _MM_HINT_T1);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            sum[r][c] = add_products(sum[r][c], x, broadcast4(&b->q[r][c][4 * i]));
    }
}

/* What to ask for when so many bytes of the keys, or behind them of the values, were read: all in the order
 * in which it lies (attention_body.h). */
static const unsigned char *later(const struct lsk_attn *a, size_t done)
{
    const size_t part_bytes = LSK_PAGE * a->D, at = part_bytes + done + AHEAD;

    return at < 2 * part_bytes ? (const unsigned char *)a->head + at
                               : (const unsigned char *)(a->next ? a->next : a->head) + (at - 2 * part_bytes);
}

VEC_INLINE void scores(struct block *b, size_t n_rows)
{
    static const uint64_t offset[8] = { 0x8080808080808080u, 0x8080808080808080u, 0x8080808080808080u,
                                        0x8080808080808080u, 0x8080808080808080u, 0x8080808080808080u,
                                        0x8080808080808080u, 0x8080808080808080u };
    const unsigned char *k = b->a->head, *scales = k + lsk_kv_q8_k_scales(b->a->D);
    const size_t runs = lsk_kv_q8_runs(b->a->D);
    __m512i sum[ROWS][DIGITS];

    for (size_t run = 0; run < runs; run++) {
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            sum[r][c] = _mm512_setzero_si512();
        add_keys(b, sum, (const unsigned char *)offset, NULL, 0, run, n_rows);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            b->zero[run][r][c] = -_mm_cvtsi128_si32(_mm512_castsi512_si128(sum[r][c]));
    }
    for (size_t s = b->from; s < b->to; s += LSK_TILE) {
        const unsigned char *tile = k + lsk_kv_q8_k(b->a->D, s, 0);
        const unsigned char *ahead = b->fetch ? later(b->a, s * b->a->D) : NULL;
        vec total[ROWS];
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            total[r] = vec_zero();
        for (size_t run = 0; run < runs; run++) {
            const vec scale = vec_load_bf16(scales + 2 * (run * LSK_PAGE + s));
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (size_t c = 0; c < DIGITS; c++)
                sum[r][c] = _mm512_set1_epi32(b->zero[run][r][c]);
            add_keys(b, sum, tile, ahead, 64, run, n_rows);
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                total[r] = vec_fma(join(sum[r]), scale, total[r]);
        }
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            vec_store(b->z[r] + s, vec_mul(total[r], vec_set(b->q_unit[r])));
    }
}

/* Scales of the values in slots lo .. hi - 1: what a row does not see has no part in its weights. */
static void prepare_scales(struct block *b, size_t run, size_t lo, size_t hi)
{
    const lsi_bf16 *scales =
        (const lsi_bf16 *)(const void *)((const unsigned char *)b->a->head + lsk_kv_q8_v_scales(b->a->D)) +
        run * LSK_PAGE;
    __m512i most = _mm512_setzero_si512();

    if (b->v_lo == lo && b->v_hi == hi && b->v_run == run)
        return;
    /* As whole numbers: positive bf16 numbers have the same order. */
    for (size_t s = lo / 32 * 32; s < hi; s += 32) {
        const uint32_t from_lo = s < lo ? UINT32_MAX << (lo - s) : UINT32_MAX;
        const uint32_t to_hi = s + 32 > hi ? UINT32_MAX >> (s + 32 - hi) : UINT32_MAX;
        most = _mm512_mask_max_epu16(most, from_lo & to_hi, most, _mm512_loadu_si512(scales + s));
    }
    const __m512i low = _mm512_and_si512(most, _mm512_set1_epi32(0xffff));
    const uint32_t bits = _mm512_reduce_max_epu32(_mm512_max_epu32(low, _mm512_srli_epi32(most, 16)));
    b->v_lo = lo;
    b->v_hi = hi;
    b->v_run = run;
    b->v_most = fmaxf(lsi_bf16_to_f32((lsi_bf16)bits), 0x1p-100f); /* so that the next division can be done */
    const vec by = vec_set((float)W_MOST / b->v_most);
    for (size_t s = b->from; s < b->to; s += VEC_LANES)
        vec_store(b->v_scale + s, vec_min(vec_set((float)W_MOST), vec_mul(vec_load_bf16(scales + s), by)));
}

/* Bytes of the weights of row r, for a run of the values. */
static void split_weights(struct block *b, size_t r, size_t run)
{
    const __m512i by_digit =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));

    prepare_scales(b, run, b->a->lo[b->r0 + r], b->a->hi[b->r0 + r]);
    b->unit[r] = b->gain[r] * (b->v_most / (float)W_MOST);
    for (size_t s = b->from; s < b->to; s += VEC_LANES) {
        const __m512i x = _mm512_cvtps_epi32(vec_mul(vec_load(b->z[r] + s), vec_load(b->v_scale + s)));
        _mm512_storeu_si512(b->w[r] + s, _mm512_shuffle_epi8(x, by_digit));
    }
}

VEC_INLINE void values(const struct block *b, size_t n_rows, size_t n_dims, size_t d)
{
    const size_t D = b->a->D, part_bytes = LSK_PAGE * D;
    const unsigned char *next = b->a->next ? b->a->next : b->a->head;
    float *acc = b->a->acc + b->r0 * D + d;
    __m512i sum[ROWS][DIMS][DIGITS];

    memset(sum, 0, sizeof sum);
    for (size_t s = b->from; s < b->to; s += 4) {
        const unsigned char *v = (const unsigned char *)b->a->head + lsk_kv_q8_v(D, s, d);
        __m512i x[DIMS];
        VEC_UNROLL
        for (size_t j = 0; j < n_dims; j++)
            x[j] = _mm512_loadu_si512(v + j * 64);
        if (b->fetch) {
            /* The first of it was asked for with the weights: near the end ask for nothing new. */
            const size_t at = s * D + 4 * d + n_rows * MORE;
            const unsigned char *there = at < part_bytes ? later(b->a, part_bytes + at) : v;
            VEC_UNROLL
            for (size_t j = 0; j < n_dims; j++)
                _mm_prefetch((const char *)there + j * 64, _MM_HINT_T1);
            /* Scales are at the end of the next head and the first that it needs: a line every 16 slots. */
            if (s % 16 == 0)
                _mm_prefetch((const char *)next + 2 * part_bytes + d / LSK_KV_Q8_RUN * 4 * LSK_PAGE + s * 4,
                             _MM_HINT_T1);
        }
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++) {
            const __m512i w = _mm512_set1_epi32(b->w[r][s + c]);
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
    for (size_t r = 0; r < n_rows; r++)
        split_query(b, r);
    scores(b, n_rows);
    page_weights(b->a, b->r0, n_rows, b->z, b->from, b->to, b->keep, b->gain,
                 b->fetch ? (const char *)later(b->a, LSK_PAGE * b->a->D) : NULL, false);
    for (size_t d = 0; d < b->a->D; d += LSK_KV_Q8_RUN) {
        for (size_t r = 0; r < n_rows; r++)
            split_weights(b, r, d / LSK_KV_Q8_RUN);
        if (d + LSK_KV_Q8_RUN <= b->a->D)
            values(b, n_rows, DIMS, d);
        else
            values(b, n_rows, 1, d);
    }
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

/*
 * Attention over one packed page with fourfold integer products (AVX512_VNNI).
 *
 * As in attention_vnni.c, queries and weights are whole numbers of 24 bits whose signed bytes go through the
 * products one by one; the codes are the unsigned operands as they come out of their planes:
 *
 *     score[s] = unit sum_d u[s][d] (2^16 x2[d] + 2^8 x1[d] + x0[d]) + sum_d q[d] offset[d],   x unit = q
 * scale acc[d]  += unit sum_s u[s][d] (2^16 y2[s] + 2^8 y1[s] + y0[s]) + sum_s w[s] offset[s],   y unit = w
 * scale
 *
 * The unit of a row's queries is that of all blocks the row sees of the page, so that one search for the
 * greatest number serves them all; weights have one for each run of the values.
 */
#include "kernels/impl.h"

#include "kernels/x86/attention_digits.h"

#define ROWS  4
#define DIMS  2 /* ROWS x DIMS x DIGITS = 24 sums */
#define TILES 2 /* ROWS x TILES x DIGITS = 24 sums */
#define MAX_D 256

struct block {
    const struct lsk_attn *a;
    size_t r0, from, to; /* slots: multiples of 2 LSK_TILE */
    bool fetch;
    float keep[ROWS], gain[ROWS];     /* factors for acc so far and for the weights of this page */
    float q_unit[ROWS], w_unit[ROWS]; /* of the bytes */
    float offset[ROWS];               /* weights times the offsets of the values */
    size_t k_lo, k_hi;                /* slots that k_most was made for */
    size_t v_lo, v_hi, v_run;         /* slots and run that the values' numbers were made for */
    float k_most[MAX_D];              /* the greatest scale of each dimension */
    float v_most;                     /* the greatest scale of a run */
    float v_scale[LSK_PAGE];          /* scales as parts of it, times Q_MOST */
    float v_offset[LSK_PAGE];
    float q[ROWS][MAX_D];            /* queries in their units */
    int32_t q_bytes[ROWS][MAX_D];    /* [d + c], d a multiple of 4: bytes c of dimensions d .. d + 3 */
    int32_t w_bytes[ROWS][LSK_PAGE]; /* the same of slots */
    float z[ROWS][LSK_PAGE];         /* scores, then weights */
};

static const unsigned char *codes_of(const struct block *b, size_t slot)
{
    const struct lsk_attn *a = b->a;
    return (const unsigned char *)a->head + slot / a->kivi.group * lsk_kivi_block_bytes(a->kivi, a->D);
}

static vec load_halves(const unsigned char *p, size_t i)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i)));
}

/* Signed bytes of 16 whole numbers, as [quad][byte][number of the quad]. */
static __m512i split(vec x)
{
    const __m512i by_byte =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i bias = _mm512_set1_epi32(0x808080);
    const __m512i bytes = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(x), bias), bias);
    return _mm512_shuffle_epi8(bytes, by_byte);
}

/* Plane p of a vector of codes. */
VEC_INLINE __m512i plane(__m512i w, unsigned bits, unsigned p)
{
    const __m512i mask = _mm512_set1_epi8((char)((1u << bits) - 1));
    return bits == 8 ? w : _mm512_and_si512(_mm512_srli_epi16(w, bits * p), mask);
}

/* ---- scores ------------------------------------------------------------------------------------- */

/* The greatest scales of the blocks that hold slots lo .. hi - 1. */
static void prepare_keys(struct block *b, size_t lo, size_t hi)
{
    const size_t group = b->a->kivi.group, scales = lsk_kivi_k_scales(b->a->kivi, b->a->D);

    if (b->k_lo == lo && b->k_hi == hi)
        return;
    b->k_lo = lo;
    b->k_hi = hi;
    for (size_t d = 0; d < b->a->D; d += VEC_LANES) {
        vec most = vec_zero();
        for (size_t s = lo / group * group; s < hi; s += group)
            most = vec_max(most, load_halves(codes_of(b, s) + scales, d));
        vec_store(b->k_most + d, most);
    }
}

/* The unit of row r, and the queries in it. */
static void prepare_query(struct block *b, size_t r)
{
    const size_t D = b->a->D, row = b->r0 + r;
    const float *q = b->a->q + row * D;
    vec most = vec_zero(), zero = vec_zero();

    prepare_keys(b, b->a->lo[row], b->a->hi[row]);
    for (size_t d = 0; d < D; d += VEC_LANES) {
        most = vec_max(vec_mul(_mm512_abs_ps(vec_load(q + d)), vec_load(b->k_most + d)), most);
        zero = vec_fma(vec_load(q + d), vec_zero(), zero);
    }
    const float greatest = vec_greatest(most), by = (float)Q_MOST / greatest;
    /* Products too small for a unit count as 0. Whole numbers have no NaN: the unit carries it. */
    const vec scale = vec_set(by <= 0x1p90f ? by : 0.0f);
    b->q_unit[r] = greatest / (float)Q_MOST + vec_sum(zero);
    for (size_t d = 0; d < D; d += VEC_LANES)
        vec_store(b->q[r] + d, vec_mul(vec_load(q + d), scale));
}

/* Bytes of the queries of row r times the scales of a block; returns the queries times its offsets. */
static float split_query(struct block *b, const unsigned char *block, size_t r)
{
    const size_t D = b->a->D;
    const unsigned char *scales = block + lsk_kivi_k_scales(b->a->kivi, D);
    const unsigned char *offsets = block + lsk_kivi_k_offsets(b->a->kivi, D);
    const float *q = b->a->q + (b->r0 + r) * D;
    vec sum = vec_zero();

    for (size_t d = 0; d < D; d += VEC_LANES) {
        _mm512_storeu_si512(b->q_bytes[r] + d, split(vec_mul(vec_load(b->q[r] + d), load_halves(scales, d))));
        sum = vec_fma(vec_load(q + d), load_halves(offsets, d), sum);
    }
    return vec_sum(sum);
}

/* Scores with the keys of the two tiles that begin at `codes`: both use a query as it is loaded. */
VEC_INLINE void tile_scores(struct block *b, const unsigned char *codes, const float *beta, size_t s,
                            size_t n_rows, unsigned bits)
{
    const unsigned planes = 8 / bits;
    const size_t tile_bytes = LSK_TILE * b->a->D * bits / 8;
    __m512i sum[ROWS][TILES][DIGITS];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t c = 0; c < DIGITS; c++)
        sum[r][0][c] = sum[r][1][c] = _mm512_setzero_si512();
    for (size_t d = 0; d < b->a->D; d += 4 * planes, codes += LSK_KIVI_VECTOR) {
        const __m512i w[TILES] = { _mm512_loadu_si512(codes), _mm512_loadu_si512(codes + tile_bytes) };
        VEC_UNROLL
        for (unsigned p = 0; p < planes; p++) {
            const __m512i x[TILES] = { plane(w[0], bits, p), plane(w[1], bits, p) };
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (size_t c = 0; c < DIGITS; c++) {
                const __m512i y = _mm512_set1_epi32(b->q_bytes[r][d + 4 * p + c]);
                sum[r][0][c] = add_products(sum[r][0][c], x[0], y);
                sum[r][1][c] = add_products(sum[r][1][c], x[1], y);
            }
        }
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t t = 0; t < TILES; t++)
        vec_store(b->z[r] + s + t * LSK_TILE, vec_fma(join(sum[r][t]), vec_set(b->q_unit[r]), vec_set(beta[r])));
}

VEC_INLINE void scores(struct block *b, size_t n_rows)
{
    const struct lsk_attn *a = b->a;
    const size_t group = a->kivi.group, bytes = lsk_kivi_block_bytes(a->kivi, a->D);
    const size_t tile_bytes = LSK_TILE * a->D * a->kivi.bits_k / 8;
    const unsigned char *next = a->next ? a->next : a->head;
    float beta[ROWS];

    for (size_t first = b->from / group * group; first < b->to; first += group) {
        const unsigned char *block = codes_of(b, first);
        const size_t end = first + group < b->to ? first + group : b->to;
        /* The head is read in order, and fits into the first-level cache: what is fetched is the next one. */
        for (size_t at = 0; b->fetch && at < bytes; at += 64)
            _mm_prefetch((const char *)next + first / group * bytes + at, _MM_HINT_T1);
        for (size_t r = 0; r < n_rows; r++)
            beta[r] = split_query(b, block, r);
        for (size_t s = first < b->from ? b->from : first; s < end; s += TILES * LSK_TILE) {
            const unsigned char *codes = block + (s - first) / LSK_TILE * tile_bytes;
            if (a->kivi.bits_k == 2)
                tile_scores(b, codes, beta, s, n_rows, 2);
            else if (a->kivi.bits_k == 4)
                tile_scores(b, codes, beta, s, n_rows, 4);
            else
                tile_scores(b, codes, beta, s, n_rows, 8);
        }
    }
}

/* ---- values --------------------------------------------------------------------------------------- */

/* Scales and offsets of the values of the run at dimension d in slots lo .. hi - 1: what a row does not see
 * has no part in its weights. */
static void prepare_values(struct block *b, size_t d, size_t lo, size_t hi)
{
    const struct lsk_kivi f = b->a->kivi;
    const size_t scales = lsk_kivi_v_scales(f, b->a->D), offsets = lsk_kivi_v_offsets(f, b->a->D);
    vec most = vec_zero();

    if (b->v_lo == lo && b->v_hi == hi && b->v_run == d)
        return;
    b->v_lo = lo;
    b->v_hi = hi;
    b->v_run = d;
    for (size_t s = b->from; s < b->to; s += VEC_LANES) {
        const unsigned char *block = codes_of(b, s);
        const size_t at = lsk_kivi_v_scale(f, s % f.group, d);
        const uint32_t from_lo = s >= lo ? 0xffff : lo - s < 16 ? 0xffffu << (lo - s) : 0;
        const uint32_t to_hi = s + 16 <= hi ? 0xffff : hi > s ? 0xffffu >> (s + 16 - hi) : 0;
        const vec x = load_halves(block + scales, at);
        most = _mm512_mask_max_ps(most, (__mmask16)(from_lo & to_hi), most, x);
        vec_store(b->v_scale + s, x);
        vec_store(b->v_offset + s, load_halves(block + offsets, at));
    }
    b->v_most = fmaxf(vec_greatest(most), 0x1p-100f); /* so that the next division can be done */
    const vec by = vec_set((float)Q_MOST / b->v_most);
    for (size_t s = b->from; s < b->to; s += VEC_LANES)
        vec_store(b->v_scale + s, vec_min(vec_set((float)Q_MOST), vec_mul(vec_load(b->v_scale + s), by)));
}

/* Bytes of the weights of row r, for the run of the values at dimension d. */
static void split_weights(struct block *b, size_t r, size_t d)
{
    vec sum = vec_zero();

    prepare_values(b, d, b->a->lo[b->r0 + r], b->a->hi[b->r0 + r]);
    for (size_t s = b->from; s < b->to; s += VEC_LANES) {
        const vec w = vec_load(b->z[r] + s);
        _mm512_storeu_si512(b->w_bytes[r] + s, split(vec_mul(w, vec_load(b->v_scale + s))));
        sum = vec_fma(w, vec_load(b->v_offset + s), sum);
    }
    b->w_unit[r] = b->gain[r] * (b->v_most / (float)Q_MOST);
    b->offset[r] = b->gain[r] * vec_sum(sum);
}

/* sum[r][j] += the values in slots first .. end - 1 of a block, whose codes of dimension d begin at `codes`.
 */
VEC_INLINE void block_values(const struct block *b, __m512i sum[ROWS][DIMS][DIGITS],
                             const unsigned char *codes, size_t n_rows, size_t n_dims, size_t first,
                             size_t end, unsigned bits)
{
    const unsigned planes = 8 / bits;
    const size_t row_bytes = b->a->D / LSK_TILE * LSK_KIVI_VECTOR;

    for (size_t s = first; s < end; s += 4 * planes, codes += row_bytes) {
        __m512i w[DIMS];
        VEC_UNROLL
        for (size_t j = 0; j < n_dims; j++)
            w[j] = _mm512_loadu_si512(codes + j * LSK_KIVI_VECTOR);
        VEC_UNROLL
        for (unsigned p = 0; p < planes; p++) {
            __m512i x[DIMS];
            VEC_UNROLL
            for (size_t j = 0; j < n_dims; j++)
                x[j] = plane(w[j], bits, p);
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (size_t c = 0; c < DIGITS; c++) {
                const __m512i y = _mm512_set1_epi32(b->w_bytes[r][s + 4 * p + c]);
                VEC_UNROLL
                for (size_t j = 0; j < n_dims; j++)
                    sum[r][j][c] = add_products(sum[r][j][c], x[j], y);
            }
        }
    }
}

VEC_INLINE void values(const struct block *b, size_t n_rows, size_t n_dims, size_t d)
{
    const struct lsk_kivi f = b->a->kivi;
    const size_t D = b->a->D;
    float *acc = b->a->acc + b->r0 * D + d;
    __m512i sum[ROWS][DIMS][DIGITS];

    memset(sum, 0, sizeof sum);
    for (size_t s = b->from, end; s < b->to; s = end) {
        const unsigned char *codes = codes_of(b, s) + lsk_kivi_v_code(f, D, s % f.group, d).byte;
        end = s / f.group * f.group + f.group < b->to ? s / f.group * f.group + f.group : b->to;
        if (f.bits_v == 2)
            block_values(b, sum, codes, n_rows, n_dims, s, end, 2);
        else if (f.bits_v == 4)
            block_values(b, sum, codes, n_rows, n_dims, s, end, 4);
        else
            block_values(b, sum, codes, n_rows, n_dims, s, end, 8);
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_dims; j++) {
        float *at = acc + r * D + j * VEC_LANES;
        const vec kept = vec_fma(vec_load(at), vec_set(b->keep[r]), vec_set(b->offset[r]));
        vec_store(at, vec_fma(join(sum[r][j]), vec_set(b->w_unit[r]), kept));
    }
}

/* ---- rows ------------------------------------------------------------------------------------------- */

VEC_INLINE void passes(struct block *b, size_t n_rows)
{
    for (size_t r = 0; r < n_rows; r++)
        prepare_query(b, r);
    scores(b, n_rows);
    for (size_t r = 0; r < n_rows; r++)
        page_weights(b->a, b->r0 + r, b->z[r], b->from, b->to, &b->keep[r], &b->gain[r], NULL);
    for (size_t d = 0; d < b->a->D; d += DIMS * VEC_LANES) {
        for (size_t r = 0; r < n_rows && d % b->a->kivi.group == 0; r++)
            split_weights(b, r, d);
        if (d + DIMS * VEC_LANES <= b->a->D)
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
    b->from = lo / (TILES * LSK_TILE) * (TILES * LSK_TILE);
    b->to = (hi + TILES * LSK_TILE - 1) / (TILES * LSK_TILE) * (TILES * LSK_TILE);
    return lo < hi;
}

void lsk_attn_kivi_vnni(const struct lsk_attn *a)
{
    struct block b;

    if (a->D % LSK_TILE != 0 || a->D > MAX_D) {
        lsk_attn_kivi_avx512(a);
        return;
    }
    b.a = a;
    for (b.r0 = 0; b.r0 < a->n_rows; b.r0 += ROWS) {
        const size_t n = a->n_rows - b.r0 < ROWS ? a->n_rows - b.r0 : ROWS;
        if (!block_extent(&b, n))
            continue;
        b.fetch = b.r0 == 0;
        b.k_lo = b.k_hi = b.v_lo = b.v_hi = LSK_PAGE + 1; /* none */
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

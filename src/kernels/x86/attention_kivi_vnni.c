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
 * With rounding two bytes do, numbers of 16 bits.
 *
 * The unit of a row's queries is that of all blocks the row sees of the page, so that one search for the
 * greatest number serves them all; weights have one for each run of the values.
 */
#include "kernels/impl.h"

#include "kernels/x86/attention_digits.h"

#define ROWS          4
#define DIMS          2 /* ROWS x DIMS x DIGITS = 24 sums */
#define TILES         2 /* ROWS x TILES x DIGITS = 24 sums */
#define MAX_D         256
#define Q_MOST_OF_TWO 0x7f70 /* as Q_MOST, of two bytes */

struct block {
    const struct lsk_attn *a;
    size_t r0, from, to; /* slots: multiples of TILES * LSK_TILE */
    bool fetch;
    /* What the layout comes to: slots of a block are so many bits, its parts begin there. */
    unsigned group_bits;
    size_t bytes, k_scales, k_offsets, v_codes, v_scales, v_offsets;
    float most;                       /* of the whole numbers */
    float keep[ROWS], gain[ROWS];     /* factors for acc so far and for the weights of this page */
    float q_unit[ROWS], w_unit[ROWS]; /* of the bytes */
    float offset[ROWS];               /* weights times the offsets of the values */
    size_t k_lo, k_hi;                /* slots that k_most was made for */
    float k_most[MAX_D];              /* the greatest scale of each dimension */
    float q[ROWS][MAX_D];             /* queries in their units */
    int32_t q_bytes[ROWS][MAX_D];     /* [d + c], d a multiple of 4: bytes c of dimensions d .. d + 3 */
    int32_t w_bytes[ROWS][LSK_PAGE];  /* the same of slots */
    float z[ROWS][LSK_PAGE];          /* scores, then weights */
};

static void set_layout(struct block *b, const struct lsk_attn *a)
{
    b->a = a;
    b->group_bits = a->kivi.group == 32 ? 5 : a->kivi.group == 64 ? 6 : 7;
    b->bytes = lsk_kivi_block_bytes(a->kivi, a->D);
    b->k_scales = lsk_kivi_k_scales(a->kivi, a->D);
    b->k_offsets = lsk_kivi_k_offsets(a->kivi, a->D);
    b->v_codes = lsk_kivi_v_codes(a->kivi, a->D);
    b->v_scales = lsk_kivi_v_scales(a->kivi, a->D);
    b->v_offsets = lsk_kivi_v_offsets(a->kivi, a->D);
}

static const unsigned char *codes_of(const struct block *b, size_t slot)
{
    return (const unsigned char *)b->a->head + (slot >> b->group_bits) * b->bytes;
}

/* Which of the halves of a run of values, that begins at dimension d, belongs to a slot. */
static size_t half_of(const struct block *b, size_t slot, size_t d)
{
    return d + (slot & (((size_t)1 << b->group_bits) - 1));
}

static vec load_halves(const unsigned char *p, size_t i)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i)));
}

/* Signed bytes of 16 numbers rounded to whole ones, as [quad][byte][number of the quad]. */
static inline __m512i split(vec x)
{
    const __m512i by_byte =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i bias = _mm512_set1_epi32(0x808080);
    const __m512i bytes = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(x), bias), bias);
    return _mm512_shuffle_epi8(bytes, by_byte);
}

/* What the sums of two or three bytes come to. */
VEC_INLINE vec joined(const __m512i x[DIGITS], unsigned digits)
{
    return digits == DIGITS ? join(x)
                            : vec_fma(_mm512_cvtepi32_ps(x[1]), vec_set(0x1p8f), _mm512_cvtepi32_ps(x[0]));
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
    const size_t group = b->a->kivi.group;

    if (b->k_lo == lo && b->k_hi == hi)
        return;
    b->k_lo = lo;
    b->k_hi = hi;
    for (size_t d = 0; d < b->a->D; d += VEC_LANES) {
        vec most = vec_zero();
        for (size_t s = lo / group * group; s < hi; s += group)
            most = vec_max(most, load_halves(codes_of(b, s) + b->k_scales, d));
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
    const float greatest = vec_greatest(most), by = b->most / greatest;
    /* Products too small for a unit count as 0. Whole numbers have no NaN: the unit carries it. */
    const vec scale = vec_set(by <= 0x1p90f ? by : 0.0f);
    b->q_unit[r] = greatest / b->most + vec_sum(zero);
    for (size_t d = 0; d < D; d += VEC_LANES)
        vec_store(b->q[r] + d, vec_mul(vec_load(q + d), scale));
}

/* Bytes of the queries times the scales of a block; beta: queries times its offsets. */
VEC_INLINE void split_queries(struct block *b, const unsigned char *block, float *beta, size_t n_rows)
{
    const size_t D = b->a->D;
    const unsigned char *scales = block + b->k_scales, *offsets = block + b->k_offsets;
    const float *q = b->a->q + b->r0 * D;
    vec sum[ROWS];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        sum[r] = vec_zero();
    for (size_t d = 0; d < D; d += VEC_LANES) {
        const vec scale = load_halves(scales, d), offset = load_halves(offsets, d);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            _mm512_storeu_si512(b->q_bytes[r] + d, split(vec_mul(vec_load(b->q[r] + d), scale)));
            sum[r] = vec_fma(vec_load(q + r * D + d), offset, sum[r]);
        }
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        beta[r] = vec_sum(sum[r]);
}

/* Scores with the keys of the two tiles that begin at `codes`: both use a query as it is loaded. */
VEC_INLINE void tile_scores(struct block *b, const unsigned char *codes, const float *beta, size_t s,
                            size_t n_rows, unsigned bits, unsigned digits)
{
    const unsigned planes = 8 / bits;
    const size_t tile_bytes = LSK_TILE * b->a->D * bits / 8;
    __m512i sum[ROWS][TILES][DIGITS];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t c = 0; c < digits; c++)
        sum[r][0][c] = sum[r][1][c] = _mm512_setzero_si512();
    for (size_t d = 0; d < b->a->D; d += 4 * planes, codes += LSK_KIVI_VECTOR) {
        const __m512i w[TILES] = { _mm512_loadu_si512(codes), _mm512_loadu_si512(codes + tile_bytes) };
        VEC_UNROLL
        for (unsigned p = 0; p < planes; p++) {
            const __m512i x[TILES] = { plane(w[0], bits, p), plane(w[1], bits, p) };
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (size_t c = 0; c < digits; c++) {
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
        vec_store(b->z[r] + s + t * LSK_TILE,
                  vec_fma(joined(sum[r][t], digits), vec_set(b->q_unit[r]), vec_set(beta[r])));
}

VEC_INLINE void scores(struct block *b, size_t n_rows, unsigned digits)
{
    const struct lsk_attn *a = b->a;
    const size_t group = a->kivi.group;
    const size_t tile_bytes = LSK_TILE * a->D * a->kivi.bits_k / 8;
    const unsigned char *next = a->next ? a->next : a->head;
    float beta[ROWS];

    for (size_t first = b->from >> b->group_bits << b->group_bits; first < b->to; first += group) {
        const unsigned char *block = codes_of(b, first);
        const size_t end = first + group < b->to ? first + group : b->to;
        /* The head is read in order, and fits into the first-level cache: what is fetched is the next one. */
        for (size_t at = 0; b->fetch && at < b->bytes; at += 64)
            _mm_prefetch((const char *)next + (first >> b->group_bits) * b->bytes + at, _MM_HINT_T1);
        split_queries(b, block, beta, n_rows);
        for (size_t s = first < b->from ? b->from : first; s < end; s += TILES * LSK_TILE) {
            const unsigned char *codes = block + (s - first) / LSK_TILE * tile_bytes;
            if (a->kivi.bits_k == 2)
                tile_scores(b, codes, beta, s, n_rows, 2, digits);
            else if (a->kivi.bits_k == 4)
                tile_scores(b, codes, beta, s, n_rows, 4, digits);
            else
                tile_scores(b, codes, beta, s, n_rows, 8, digits);
        }
    }
}

/* ---- values --------------------------------------------------------------------------------------- */

/* Slots of s .. s + 15 that are among lo .. hi - 1, as bits. */
static __mmask16 among(size_t s, size_t lo, size_t hi)
{
    const uint32_t from_lo = s >= lo ? 0xffff : lo - s < 16 ? 0xffffu << (lo - s) : 0;
    const uint32_t to_hi = s + 16 <= hi ? 0xffff : hi > s ? 0xffffu >> (s + 16 - hi) : 0;
    return (__mmask16)(from_lo & to_hi);
}

/* The greatest scale of the values of the run at dimension d, of the slots that a row sees: what it does not
 * see has no part in its weights. */
static float most_scale(const struct block *b, size_t row, size_t d)
{
    const size_t lo = b->a->lo[row], hi = b->a->hi[row];
    vec most = vec_zero();

    for (size_t s = b->from; s < b->to; s += VEC_LANES)
        most = _mm512_mask_max_ps(most, among(s, lo, hi), most,
                                  load_halves(codes_of(b, s) + b->v_scales, half_of(b, s, d)));
    return fmaxf(vec_greatest(most), 0x1p-100f); /* so that it can be divided by */
}

/* Bytes of the weights of n_rows rows from r on, which see the same slots, for the run of the values at d. */
VEC_INLINE void split_rows(struct block *b, size_t r0, size_t n_rows, size_t d)
{
    const float most = most_scale(b, b->r0 + r0, d);
    const vec by = vec_set(b->most / most);
    vec sum[ROWS];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        sum[r] = vec_zero();
    for (size_t s = b->from; s < b->to; s += VEC_LANES) {
        const unsigned char *block = codes_of(b, s);
        const size_t at = half_of(b, s, d);
        const vec scale = vec_mul(load_halves(block + b->v_scales, at), by),
                  offset = load_halves(block + b->v_offsets, at);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            const vec w = vec_load(b->z[r0 + r] + s);
            _mm512_storeu_si512(b->w_bytes[r0 + r] + s, split(vec_mul(w, scale)));
            sum[r] = vec_fma(w, offset, sum[r]);
        }
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        b->w_unit[r0 + r] = b->gain[r0 + r] * (most / b->most);
        b->offset[r0 + r] = b->gain[r0 + r] * vec_sum(sum[r]);
    }
}

VEC_INLINE void split_weights(struct block *b, size_t n_rows, size_t d)
{
    const uint16_t *lo = b->a->lo + b->r0, *hi = b->a->hi + b->r0;
    bool same = true;

    for (size_t r = 1; r < n_rows; r++)
        same = same && lo[r] == lo[0] && hi[r] == hi[0];
    if (same)
        split_rows(b, 0, n_rows, d);
    else
        for (size_t r = 0; r < n_rows; r++)
            split_rows(b, r, 1, d);
}

/* sum[r][j] += the values in slots first .. end - 1 of a block, whose codes of dimension d begin at `codes`.
 */
VEC_INLINE void block_values(const struct block *b, __m512i sum[ROWS][DIMS][DIGITS],
                             const unsigned char *codes, size_t n_rows, size_t n_dims, size_t first,
                             size_t end, unsigned bits, unsigned digits)
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
            for (size_t c = 0; c < digits; c++) {
                const __m512i y = _mm512_set1_epi32(b->w_bytes[r][s + 4 * p + c]);
                VEC_UNROLL
                for (size_t j = 0; j < n_dims; j++)
                    sum[r][j][c] = add_products(sum[r][j][c], x[j], y);
            }
        }
    }
}

VEC_INLINE void values(const struct block *b, size_t n_rows, size_t n_dims, size_t d, unsigned digits)
{
    const struct lsk_kivi f = b->a->kivi;
    const size_t D = b->a->D;
    float *acc = b->a->acc + b->r0 * D + d;
    __m512i sum[ROWS][DIMS][DIGITS];

    memset(sum, 0, sizeof sum);
    for (size_t s = b->from, end; s < b->to; s = end) {
        const size_t slots = 32 / f.bits_v, first = s & (f.group - 1u); /* of a vector; of the block */
        const unsigned char *codes =
            codes_of(b, s) + b->v_codes + first / slots * (D / LSK_TILE) * LSK_KIVI_VECTOR + d * 4;
        end = s - first + f.group < b->to ? s - first + f.group : b->to;
        if (f.bits_v == 2)
            block_values(b, sum, codes, n_rows, n_dims, s, end, 2, digits);
        else if (f.bits_v == 4)
            block_values(b, sum, codes, n_rows, n_dims, s, end, 4, digits);
        else
            block_values(b, sum, codes, n_rows, n_dims, s, end, 8, digits);
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_dims; j++) {
        float *at = acc + r * D + j * VEC_LANES;
        const vec kept = vec_fma(vec_load(at), vec_set(b->keep[r]), vec_set(b->offset[r]));
        vec_store(at, vec_fma(joined(sum[r][j], digits), vec_set(b->w_unit[r]), kept));
    }
}

/* ---- rows ------------------------------------------------------------------------------------------- */

VEC_INLINE void passes(struct block *b, size_t n_rows, unsigned digits)
{
    for (size_t r = 0; r < n_rows; r++)
        prepare_query(b, r);
    scores(b, n_rows, digits);
    for (size_t r = 0; r < n_rows; r++)
        page_weights(b->a, b->r0 + r, b->z[r], b->from, b->to, &b->keep[r], &b->gain[r], NULL);
    for (size_t d = 0; d < b->a->D; d += DIMS * VEC_LANES) {
        if (d % b->a->kivi.group == 0)
            split_weights(b, n_rows, d);
        if (d + DIMS * VEC_LANES <= b->a->D)
            values(b, n_rows, DIMS, d, digits);
        else
            values(b, n_rows, 1, d, digits);
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

VEC_INLINE void attend(const struct lsk_attn *a, unsigned digits)
{
    struct block b;

    set_layout(&b, a);
    b.most = digits == DIGITS ? (float)Q_MOST : (float)Q_MOST_OF_TWO;
    for (b.r0 = 0; b.r0 < a->n_rows; b.r0 += ROWS) {
        const size_t n = a->n_rows - b.r0 < ROWS ? a->n_rows - b.r0 : ROWS;
        if (!block_extent(&b, n))
            continue;
        b.fetch = b.r0 == 0;
        b.k_lo = b.k_hi = LSK_PAGE + 1; /* none */
        switch (n) {
        case 1:
            passes(&b, 1, digits);
            break;
        case 2:
            passes(&b, 2, digits);
            break;
        case 3:
            passes(&b, 3, digits);
            break;
        default:
            passes(&b, ROWS, digits);
            break;
        }
    }
}

void lsk_attn_kivi_vnni(const struct lsk_attn *a)
{
    if (a->D % LSK_TILE != 0 || a->D > MAX_D)
        lsk_attn_kivi_avx512(a);
    else
        attend(a, DIGITS);
}

void lsk_attn_kivi_round_vnni(const struct lsk_attn *a)
{
    if (a->D % LSK_TILE != 0 || a->D > MAX_D)
        lsk_attn_kivi_round_avx512(a);
    else
        attend(a, 2);
}

/*
 * Attention over one packed page with fourfold integer products (AVX512_VNNI).
 *
 * As in attention_vnni.c, queries and weights are whole numbers of 24 bits whose signed bytes go through the
 * products one by one; the codes are the unsigned operands as they come out of their planes:
 *
 *     score[s] = unit sum_d u[s][d] (2^16 x2[d] + 2^8 x1[d] + x0[d]) + sum_d q[d] offset[d]
 *                                                                                    x unit = q scale
 *     acc[d]  += unit sum_s u[s][d] (2^16 y2[s] + 2^8 y1[s] + y0[s]) + sum_s w[s] offset[s]
 *                                                                                    y unit = w scale
 *
 * With rounding two bytes do, numbers of 16 bits, and one where codes have 2 bits, whose own rounding is
 * greater by far. A code is off by up to a half, evenly: a key by s q / sqrt(12) in a dimension with scale s.
 * Of the greatest s q a byte is off by a 254th; what codes differ from their mean times that comes to sqrt(D)
 * / 400 over all dimensions, a fourteenth of what the greatest of them is off by already for D = 64, and the
 * mean is made good exactly. Bytes of weights are rounded up or down by turns (split_weighed), with at most
 * sqrt(256 / 4) / 255 of a step of the greatest weight's value in the sum of a page, an eighth of what that
 * value is off by.
 *
 * The unit of a row's queries is that of all blocks the row sees of the page, so that one search for the
 * greatest number serves them all; weights have one for each run of the values. Bytes are made a block ahead
 * of the products that take them, which would wait for them otherwise.
 */
#include "kernels/impl.h"

#include "kernels/x86/attention_digits.h"

#define DIMS          2 /* ROWS x DIMS x DIGITS = 24 sums */
#define TILES         2 /* ROWS x TILES x DIGITS = 24 sums */
#define STEP          (TILES * LSK_TILE)
#define MAX_D         256
#define Q_MOST_OF_TWO 0x7f70 /* as Q_MOST, of two bytes */
#define Q_MOST_OF_ONE 0x7f
#define W_MOST_OF_ONE 0xff

/* Rows that see the same slots of the page. */
struct block {
    const struct lsk_attn *a;
    size_t r0, from, to; /* slots: multiples of STEP */
    bool fetch;
    /* What the layout comes to: slots of a block are so many bits, its parts begin there. */
    unsigned group_bits;
    size_t bytes, k_scales, k_offsets, v_codes, v_scales, v_offsets;
    float most;                   /* of the whole numbers */
    float keep[ROWS], gain[ROWS]; /* factors for acc so far and for the weights of this page */
    float q_unit[ROWS], w_unit;   /* of the bytes */
    float offset[ROWS];           /* weights times the offsets of the values */
    float q[ROWS][MAX_D];         /* queries in their units */
    /* Bytes of quads (quad_at): of queries for two blocks of slots, of weights. */
    int32_t q_bytes[2][ROWS][MAX_D], w_bytes[ROWS][LSK_PAGE];
    float z[ROWS][LSK_PAGE]; /* scores, then weights */
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

/* Where the word with byte c of numbers n .. n + 3 is, n a multiple of 4. */
static inline size_t quad_at(size_t n, unsigned c, unsigned digits)
{
    return (digits == DIGITS ? n : n / 4 * digits) + c;
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

/* The same of two bytes of 32 products. A float around 3 2^22 is whole and ends with two bytes of what is
 * beyond that: one step multiplies, rounds and adds what makes its bytes unsigned. */
static inline __m512i split_pairs(const vec x[2], const vec y[2])
{
    static const uint8_t by_byte[64] = {
        0,  4,  8,  12, 1,  5,   9,   13,  16, 20,  24,  28,  17,  21,  25,  29,  32,  36,  40,  44,  33, 37,
        41, 45, 48, 52, 56, 60,  49,  53,  57, 61,  64,  68,  72,  76,  65,  69,  73,  77,  80,  84,  88, 92,
        81, 85, 89, 93, 96, 100, 104, 108, 97, 101, 105, 109, 112, 116, 120, 124, 113, 117, 121, 125,
    };
    const vec base = vec_set(0x1.8p23f + 0x8080);
    const __m512i low = _mm512_castps_si512(vec_fma(x[0], y[0], base));
    const __m512i high = _mm512_castps_si512(vec_fma(x[1], y[1], base));

    return _mm512_xor_si512(_mm512_permutex2var_epi8(low, _mm512_loadu_si512(by_byte), high),
                            _mm512_set1_epi8((char)0x80));
}

/* The last bytes of whole numbers: 3 2^22 with one added ends with it, signed or not. */
static inline __m256i single_bytes(vec x, vec y)
{
    static const uint8_t first_bytes[64] = { 0,  4,  8,  12,  16,  20,  24,  28,  32,  36, 40,
                                             44, 48, 52, 56,  60,  64,  68,  72,  76,  80, 84,
                                             88, 92, 96, 100, 104, 108, 112, 116, 120, 124 };
    return _mm512_castsi512_si256(_mm512_permutex2var_epi8(
        _mm512_castps_si512(x), _mm512_loadu_si512(first_bytes), _mm512_castps_si512(y)));
}

/* Signed bytes of 32 products. */
static inline __m256i split_singles(const vec x[2], const vec y[2])
{
    const vec base = vec_set(0x1.8p23f);
    return single_bytes(vec_fma(x[0], y[0], base), vec_fma(x[1], y[1], base));
}

/* Unsigned bytes of 32 products that are not negative, with as much added to each before it is rounded that
 * small ones come to what they are in the mean of 32 slots (and none to 0). */
static inline __m256i split_weighed(const vec x[2], const vec y[2])
{
#define AT(i) ((float)((i)*13 % 32) / 32 - 15.5f / 32)
    static const float even[32] = { AT(0),  AT(1),  AT(2),  AT(3),  AT(4),  AT(5),  AT(6),  AT(7),
                                    AT(8),  AT(9),  AT(10), AT(11), AT(12), AT(13), AT(14), AT(15),
                                    AT(16), AT(17), AT(18), AT(19), AT(20), AT(21), AT(22), AT(23),
                                    AT(24), AT(25), AT(26), AT(27), AT(28), AT(29), AT(30), AT(31) };
#undef AT
    const vec base = vec_set(0x1.8p23f);
    return single_bytes(vec_add(vec_fma(x[0], y[0], vec_load(even)), base),
                        vec_add(vec_fma(x[1], y[1], vec_load(even + VEC_LANES)), base));
}

/* Bytes of the products x y of numbers n .. n + 31, n a multiple of 16. */
VEC_INLINE void store_bytes(int32_t *words, size_t n, const vec x[2], const vec y[2], unsigned digits)
{
    if (digits == DIGITS) {
        _mm512_storeu_si512(words + n, split(vec_mul(x[0], y[0])));
        _mm512_storeu_si512(words + n + VEC_LANES, split(vec_mul(x[1], y[1])));
    } else {
        _mm512_storeu_si512(words + n / 2, split_pairs(x, y));
    }
}

/* What the sums of two or three bytes come to; of two, 256 products of 255 and 2^15 at most fit into a word.
 */
VEC_INLINE vec joined(const __m512i x[DIGITS], unsigned digits)
{
    return digits == DIGITS ? join(x)
           : digits == 2    ? _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(x[1], 8), x[0]))
                            : _mm512_cvtepi32_ps(x[0]);
}

/* Plane p of a vector of codes. */
VEC_INLINE __m512i plane(__m512i w, unsigned bits, unsigned p)
{
    const __m512i mask = _mm512_set1_epi8((char)((1u << bits) - 1));
    return bits == 8 ? w : _mm512_and_si512(_mm512_srli_epi16(w, bits * p), mask);
}

/* ---- scores ------------------------------------------------------------------------------------- */

/* Units of the rows, and the queries in them. */
VEC_INLINE void prepare_queries(struct block *b, size_t n_rows, float whole)
{
    const size_t D = b->a->D, group = b->a->kivi.group;
    const float *q = b->a->q + b->r0 * D;
    vec most[ROWS], zero[ROWS], scale[ROWS];
    float zeros[ROWS];

    VEC_UNROLL
    for (size_t r = 0; r < ROWS; r++)
        most[r] = zero[r] = vec_zero();
    for (size_t d = 0; d < D; d += VEC_LANES) {
        vec k_most = vec_zero();
        for (size_t s = b->from / group * group; s < b->to; s += group)
            k_most = vec_max(k_most, load_halves(codes_of(b, s) + b->k_scales, d));
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            const vec x = vec_load(q + r * D + d);
            most[r] = vec_max(vec_mul(vec_abs(x), k_most), most[r]);
            zero[r] = vec_fma(x, vec_zero(), zero[r]);
        }
    }
    add_lanes(zeros, zero);
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        const float greatest = vec_greatest(most[r]), by = whole / greatest;
        /* Products too small for a unit count as 0. Whole numbers have no NaN: the unit carries it. */
        scale[r] = vec_set(by <= 0x1p90f ? by : 0.0f);
        b->q_unit[r] = greatest / whole + zeros[r];
    }
    for (size_t d = 0; d < D; d += VEC_LANES)
        VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        vec_store(b->q[r] + d, vec_mul(vec_load(q + r * D + d), scale[r]));
}

/*
 * Bytes of the queries times the scales of a block; beta: queries times its offsets. Single bytes have lost
 * more than what they are multiplied with may bear: beta makes that good for the mean of all codes, which is
 * what the keys of a block have in common,
 *
 *     beta = sum_d q[d] (offset[d] + mean scale[d]) - mean unit sum_d x[d]
 */
VEC_INLINE void split_queries(struct block *b, int32_t (*bytes)[MAX_D], const unsigned char *block,
                              float beta[ROWS], size_t n_rows, unsigned bits, unsigned digits)
{
    const size_t D = b->a->D;
    const unsigned char *scales = block + b->k_scales, *offsets = block + b->k_offsets;
    const float *q = b->a->q + b->r0 * D, mean = digits == 1 ? 0.5f * (float)((1u << bits) - 1) : 0.0f;
    __m256i whole[ROWS];
    vec sum[ROWS];

    VEC_UNROLL
    for (size_t r = 0; r < ROWS; r++) {
        sum[r] = vec_zero();
        whole[r] = _mm256_setzero_si256();
    }
    for (size_t d = 0; d < D; d += 2 * VEC_LANES) {
        const bool both = d + VEC_LANES < D;
        const size_t high = both ? d + VEC_LANES : d; /* of an odd one: zeros */
        const vec scale[2] = { load_halves(scales, d), both ? load_halves(scales, high) : vec_zero() };
        vec offset[2] = { load_halves(offsets, d), both ? load_halves(offsets, high) : vec_zero() };
        VEC_UNROLL
        for (size_t i = 0; digits == 1 && i < 2; i++)
            offset[i] = vec_fma(vec_set(mean), scale[i], offset[i]);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            const vec x[2] = { vec_load(b->q[r] + d), vec_load(b->q[r] + high) };
            if (digits == 1) {
                const __m256i y = split_singles(x, scale);
                _mm256_storeu_si256((__m256i *)(void *)(bytes[r] + d / 4), y);
                whole[r] = _mm256_dpbusd_epi32(whole[r], _mm256_set1_epi8(1), y);
            } else {
                store_bytes(bytes[r], d, x, scale, digits);
            }
            sum[r] = vec_fma(vec_load(q + r * D + d), offset[0], sum[r]);
            sum[r] = vec_fma(vec_load(q + r * D + high), offset[1], sum[r]);
        }
    }
    VEC_UNROLL
    for (size_t r = 0; digits == 1 && r < n_rows; r++)
        sum[r] = vec_fma(_mm512_cvtepi32_ps(_mm512_zextsi256_si512(whole[r])), vec_set(-mean * b->q_unit[r]),
                         sum[r]);
    add_lanes(beta, sum);
}

/* Scores with the keys of the two tiles that begin at `codes`: both use a query as it is loaded. */
VEC_INLINE void tile_scores(struct block *b, const unsigned char *codes, int32_t (*bytes)[MAX_D],
                            const float *beta, size_t s, size_t n_rows, unsigned bits, unsigned digits)
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
            for (unsigned c = 0; c < digits; c++) {
                const __m512i y = _mm512_set1_epi32(bytes[r][quad_at(d + 4 * p, c, digits)]);
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

VEC_INLINE void scores(struct block *b, size_t n_rows, unsigned bits, unsigned digits)
{
    const struct lsk_attn *a = b->a;
    const size_t group = a->kivi.group, tile_bytes = LSK_TILE * a->D * bits / 8;
    const size_t from = b->from, to = b->to, bytes = b->bytes;
    const unsigned char *block = codes_of(b, from), *next = a->next ? a->next : a->head;
    const bool fetch = b->fetch;
    size_t first = from / group * group, turn = 0;
    float beta[2][ROWS];

    next += block - (const unsigned char *)a->head;
    split_queries(b, b->q_bytes[0], block, beta[0], n_rows, bits, digits);
    for (; first < to; first += group, block += bytes, next += bytes, turn = 1 - turn) {
        const size_t end = first + group < to ? first + group : to;
        /* The head is read in order, and fits into the first-level cache: what is fetched is the next one. */
        for (size_t at = 0; fetch && at < bytes; at += 64)
            _mm_prefetch((const char *)next + at, _MM_HINT_T1);
        if (end < to)
            split_queries(b, b->q_bytes[1 - turn], block + bytes, beta[1 - turn], n_rows, bits, digits);
        for (size_t s = first < from ? from : first; s < end; s += STEP)
            tile_scores(b, block + (s - first) / LSK_TILE * tile_bytes, b->q_bytes[turn], beta[turn], s,
                        n_rows, bits, digits);
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

/* Where slots s .. s + STEP - 1 lie. */
struct place {
    size_t s, at; /* at: of the block */
    const unsigned char *block;
};

static inline void advance(struct place *p, size_t group, size_t bytes)
{
    p->s += STEP;
    p->at += STEP;
    if (p->at < group)
        return;
    p->at = 0;
    p->block += bytes;
}

/* The greatest scale of the values of the run at dimension d, of the slots that rows see: what they do not
 * see has no part in their weights. */
static inline float most_scale(const struct block *b, struct place p, size_t d)
{
    const size_t lo = b->a->lo[b->r0], hi = b->a->hi[b->r0], group = b->a->kivi.group;
    const bool all = lo == b->from && hi == b->to;
    vec most[2] = { vec_zero(), vec_zero() };

    for (; p.s < b->to; advance(&p, group, b->bytes)) {
        const unsigned char *scales = p.block + b->v_scales + 2 * (d + p.at);
        const __mmask16 seen[2] = { all ? 0xffff : among(p.s, lo, hi),
                                    all ? 0xffff : among(p.s + VEC_LANES, lo, hi) };
        most[0] = _mm512_mask_max_ps(most[0], seen[0], most[0], load_halves(scales, 0));
        most[1] = _mm512_mask_max_ps(most[1], seen[1], most[1], load_halves(scales, VEC_LANES));
    }
    const float greatest = vec_greatest(vec_max(most[0], most[1]));
    return greatest > 0x1p-100f ? greatest : 0x1p-100f; /* so that it can be divided by */
}

/* What a run adds to all its dimensions alike. */
struct shift {
    vec sum[ROWS];       /* weights times offsets */
    __m256i whole[ROWS]; /* weights as bytes */
};

/* Bytes of the weights for the run of the values at dimension d, and the shift of single ones as
 * split_queries has it: weights times (offset + mean scale), less mean times the bytes. scales, offsets:
 * where they begin in a block. */
VEC_INLINE void split_weights(struct block *b, struct shift *shift, vec by, size_t n_rows,
                              const struct place *p, size_t d, size_t scales, size_t offsets, float mean,
                              unsigned digits)
{
    const unsigned char *half = p->block + 2 * (d + p->at);
    const vec plain[2] = { load_halves(half + scales, 0), load_halves(half + scales, VEC_LANES) };
    const vec scale[2] = { vec_mul(plain[0], by), vec_mul(plain[1], by) };
    vec offset[2] = { load_halves(half + offsets, 0), load_halves(half + offsets, VEC_LANES) };

    VEC_UNROLL
    for (size_t i = 0; digits == 1 && i < 2; i++)
        offset[i] = vec_fma(vec_set(mean), plain[i], offset[i]);
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        const vec w[2] = { vec_load(b->z[r] + p->s), vec_load(b->z[r] + p->s + VEC_LANES) };
        if (digits == 1) {
            const __m256i y = split_weighed(w, scale);
            _mm256_storeu_si256((__m256i *)(void *)(b->w_bytes[r] + p->s / 4), y);
            shift->whole[r] = _mm256_dpbusd_epi32(shift->whole[r], y, _mm256_set1_epi8(1));
        } else {
            store_bytes(b->w_bytes[r], p->s, w, scale, digits);
        }
        shift->sum[r] = vec_fma(w[0], offset[0], shift->sum[r]);
        shift->sum[r] = vec_fma(w[1], offset[1], shift->sum[r]);
    }
}

/* sum[r][j] += the values, n_dims vectors of dimensions, whose codes in slot 0 of the block are at `codes`.
 */
VEC_INLINE void add_values(const struct block *b, __m512i sum[ROWS][DIMS][DIGITS], size_t n_rows,
                           size_t n_dims, const struct place *p, size_t codes, size_t row_bytes,
                           unsigned bits, unsigned digits)
{
    const unsigned planes = 8 / bits;
    const unsigned char *at = p->block + codes + p->at / (4 * planes) * row_bytes;

    VEC_UNROLL
    for (size_t i = 0; i < STEP; i += 4 * planes, at += row_bytes) {
        __m512i w[DIMS];
        VEC_UNROLL
        for (size_t j = 0; j < n_dims; j++)
            w[j] = _mm512_loadu_si512(at + j * LSK_KIVI_VECTOR);
        VEC_UNROLL
        for (unsigned k = 0; k < planes; k++) {
            __m512i x[DIMS];
            VEC_UNROLL
            for (size_t j = 0; j < n_dims; j++)
                x[j] = plane(w[j], bits, k);
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (unsigned c = 0; c < digits; c++) {
                const __m512i y = _mm512_set1_epi32(b->w_bytes[r][quad_at(p->s + i + 4 * k, c, digits)]);
                VEC_UNROLL
                for (size_t j = 0; j < n_dims; j++)
                    sum[r][j][c] = digits == 1 ? add_products(sum[r][j][c], y, x[j])
                                               : add_products(sum[r][j][c], x[j], y);
            }
        }
    }
}

/* A block of dimensions; the first of a run makes the bytes of its weights on the way. */
VEC_INLINE void values(struct block *b, size_t n_rows, size_t n_dims, size_t d, unsigned bits,
                       unsigned digits)
{
    /* Copies: stores of vectors could change what the compiler would read from b again. */
    const size_t D = b->a->D, group = b->a->kivi.group, bytes = b->bytes, to = b->to;
    const size_t codes = b->v_codes + d * 4, scales = b->v_scales, offsets = b->v_offsets;
    const size_t row_bytes = D / LSK_TILE * LSK_KIVI_VECTOR;
    const float whole = digits == 1 ? (float)W_MOST_OF_ONE : b->most;
    const float mean = digits == 1 ? 0.5f * (float)((1u << bits) - 1) : 0.0f;
    const bool first = d % group == 0;
    float *acc = b->a->acc + b->r0 * D + d;
    struct place here = { b->from, half_of(b, b->from, 0), codes_of(b, b->from) }, ahead = here;
    __m512i sum[ROWS][DIMS][DIGITS];
    struct shift shift;
    vec by = vec_zero();

    memset(sum, 0, sizeof sum);
    VEC_UNROLL
    for (size_t r = 0; r < ROWS; r++) {
        shift.sum[r] = vec_zero();
        shift.whole[r] = _mm256_setzero_si256();
    }
    if (first) {
        const float most = most_scale(b, here, d);
        by = vec_set(whole / most);
        b->w_unit = most / whole;
        split_weights(b, &shift, by, n_rows, &here, d, scales, offsets, mean, digits);
    }
    while (here.s < to) {
        advance(&ahead, group, bytes);
        if (first && ahead.s < to)
            split_weights(b, &shift, by, n_rows, &ahead, d, scales, offsets, mean, digits);
        add_values(b, sum, n_rows, n_dims, &here, codes, row_bytes, bits, digits);
        here = ahead;
    }
    VEC_UNROLL
    for (size_t r = 0; digits == 1 && r < n_rows; r++)
        shift.sum[r] = vec_fma(_mm512_cvtepi32_ps(_mm512_zextsi256_si512(shift.whole[r])),
                               vec_set(-mean * b->w_unit), shift.sum[r]);
    if (first)
        add_lanes(b->offset, shift.sum);
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++) {
        const vec gain = vec_set(b->gain[r] * b->w_unit), kept = vec_set(b->keep[r]),
                  level = vec_set(b->gain[r] * b->offset[r]);
        VEC_UNROLL
        for (size_t j = 0; j < n_dims; j++) {
            float *at = acc + r * D + j * VEC_LANES;
            vec_store(at, vec_fma(joined(sum[r][j], digits), gain, vec_fma(vec_load(at), kept, level)));
        }
    }
}

VEC_INLINE void all_values(struct block *b, size_t n_rows, unsigned bits, unsigned digits)
{
    for (size_t d = 0; d < b->a->D; d += DIMS * VEC_LANES) {
        if (d + DIMS * VEC_LANES <= b->a->D)
            values(b, n_rows, DIMS, d, bits, digits);
        else
            values(b, n_rows, 1, d, bits, digits);
    }
}

/* ---- rows ------------------------------------------------------------------------------------------- */

VEC_INLINE void passes(struct block *b, size_t n_rows, unsigned digits)
{
    const unsigned few = digits == DIGITS ? DIGITS : 1;

    prepare_queries(b, n_rows, b->a->kivi.bits_k == 2 && few == 1 ? (float)Q_MOST_OF_ONE : b->most);
    if (b->a->kivi.bits_k == 2)
        scores(b, n_rows, 2, few);
    else if (b->a->kivi.bits_k == 4)
        scores(b, n_rows, 4, digits);
    else
        scores(b, n_rows, 8, digits);
    page_weights(b->a, b->r0, n_rows, b->z, b->from, b->to, b->keep, b->gain, NULL, digits < DIGITS);
    if (b->a->kivi.bits_v == 2)
        all_values(b, n_rows, 2, few);
    else if (b->a->kivi.bits_v == 4)
        all_values(b, n_rows, 4, digits);
    else
        all_values(b, n_rows, 8, digits);
}

/* How many of the rows from r0 on, ROWS at most, see the same slots. */
static size_t alike(const struct lsk_attn *a, size_t r0)
{
    size_t n = 1;

    while (n < ROWS && r0 + n < a->n_rows && a->lo[r0 + n] == a->lo[r0] && a->hi[r0 + n] == a->hi[r0])
        n++;
    return n;
}

VEC_INLINE void attend(const struct lsk_attn *a, unsigned digits)
{
    struct block b;

    set_layout(&b, a);
    b.most = digits == DIGITS ? (float)Q_MOST : (float)Q_MOST_OF_TWO;
    b.r0 = 0;
    for (size_t n; b.r0 < a->n_rows; b.r0 += n) {
        const size_t lo = a->lo[b.r0], hi = a->hi[b.r0];
        n = alike(a, b.r0);
        if (lo >= hi)
            continue;
        b.from = lo / STEP * STEP;
        b.to = (hi + STEP - 1) / STEP * STEP;
        b.fetch = b.r0 == 0;
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

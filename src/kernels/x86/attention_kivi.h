/*
 * Attention over one packed page in fp32, for any width of vectors; included behind attention_formats.h.
 *
 * Queries are multiplied with the scales of a block's keys once, weights with the scales of the values of a
 * run, and the codes are multiplied as whole numbers. A block of rows shares the unpacking. Every sum runs
 * over its terms in an order that the number of rows has no part in.
 */
#define KIVI_MAX_D 256
#define KIVI_ROWS  4
#define KIVI_STEP  64 /* slots are taken in groups, as by f32_weights */

static const float kivi_low_bits[8] = { 0, 1, 2, 3, 0, 1, 2, 3 };

#define NAME(x) kivi2_##x
#define BITS    2
#include "kernels/x86/attention_kivi_codes.h"

#define NAME(x) kivi4_##x
#define BITS    4
#include "kernels/x86/attention_kivi_codes.h"

#define NAME(x) kivi8_##x
#define BITS    8
#include "kernels/x86/attention_kivi_codes.h"

static const unsigned char *kivi_block(const struct lsk_attn *a, size_t slot)
{
    return (const unsigned char *)a->head + slot / a->kivi.group * lsk_kivi_block_bytes(a->kivi, a->D);
}

/* Queries times the scales of a block's keys, and times their offsets, summed up. */
static void kivi_scale_queries(const struct lsk_attn *a, const unsigned char *block, size_t r0, size_t n_rows,
                               float (*q)[KIVI_MAX_D], float *beta)
{
    const unsigned char *scales = block + lsk_kivi_k_scales(a->kivi, a->D);
    const unsigned char *offsets = block + lsk_kivi_k_offsets(a->kivi, a->D);

    for (size_t r = 0; r < n_rows; r++) {
        const float *from = a->q + (r0 + r) * a->D;
        vec sum = vec_zero();
        for (size_t d = 0; d < a->D; d += VEC_LANES) {
            const vec x = vec_load(from + d);
            vec_store(q[r] + d, vec_mul(x, vec_load_f16(scales + 2 * d)));
            sum = vec_fma(x, vec_load_f16(offsets + 2 * d), sum);
        }
        beta[r] = vec_sum(sum);
    }
}

VEC_INLINE void kivi_scores(const struct lsk_attn *a, float (*z)[LSK_PAGE], size_t r0, size_t n_rows,
                            size_t from, size_t to)
{
    const size_t group = a->kivi.group, bytes = lsk_kivi_block_bytes(a->kivi, a->D);
    const unsigned char *next = a->next ? a->next : a->head;
    float q[KIVI_ROWS][KIVI_MAX_D], beta[KIVI_ROWS];

    for (size_t s = from / group * group; s < to; s += group) {
        const unsigned char *block = kivi_block(a, s);
        const size_t first = s < from ? from - s : 0, end = s + group < to ? group : to - s;
        /* The head is read in order, and fits into the first-level cache: what is fetched is the next one. */
        for (size_t at = 0; r0 == 0 && at < bytes; at += 64)
            _mm_prefetch((const char *)next + s / group * bytes + at, _MM_HINT_T1);
        kivi_scale_queries(a, block, r0, n_rows, q, beta);
        if (a->kivi.bits_k == 2)
            kivi2_scores(block, a->D, q, beta, z, s, n_rows, first, end);
        else if (a->kivi.bits_k == 4)
            kivi4_scores(block, a->D, q, beta, z, s, n_rows, first, end);
        else
            kivi8_scores(block, a->D, q, beta, z, s, n_rows, first, end);
    }
}

/* Weights times the scales of the values' run at dimension d; returns the sum of weights times offsets. */
static float kivi_scale_weights(const struct lsk_attn *a, float *scaled, const float *w, size_t d,
                                size_t from, size_t to)
{
    const size_t scales = lsk_kivi_v_scales(a->kivi, a->D), offsets = lsk_kivi_v_offsets(a->kivi, a->D);
    vec sum = vec_zero();

    for (size_t s = from; s < to; s += VEC_LANES) {
        const unsigned char *block = kivi_block(a, s);
        const size_t at = 2 * lsk_kivi_v_scale(a->kivi, s % a->kivi.group, d);
        const vec x = vec_load(w + s);
        vec_store(scaled + s, vec_mul(x, vec_load_f16(block + scales + at)));
        sum = vec_fma(x, vec_load_f16(block + offsets + at), sum);
    }
    return vec_sum(sum);
}

/* acc[r][d ..) = decay acc + offsets + sum over slots of w u, n_vectors vectors of dimensions. */
VEC_INLINE void kivi_values(const struct lsk_attn *a, float (*w)[LSK_PAGE], const float *decay,
                            const float *offset, size_t r0, size_t n_rows, size_t n_vectors, size_t d,
                            size_t from, size_t to)
{
    const size_t group = a->kivi.group, D = a->D;
    vec sum[KIVI_ROWS][2];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_vectors; j++)
        sum[r][j] = vec_fma(vec_set(decay[r]), vec_load(a->acc + (r0 + r) * D + d + j * VEC_LANES),
                            vec_set(offset[r]));
    for (size_t s = from / group * group; s < to; s += group) {
        const unsigned char *codes = kivi_block(a, s) + lsk_kivi_v_codes(a->kivi, D);
        const size_t first = s < from ? from - s : 0, end = s + group < to ? group : to - s;
        if (a->kivi.bits_v == 2)
            kivi2_values(codes, D, w, s, sum, n_rows, n_vectors, d, first, end);
        else if (a->kivi.bits_v == 4)
            kivi4_values(codes, D, w, s, sum, n_rows, n_vectors, d, first, end);
        else
            kivi8_values(codes, D, w, s, sum, n_rows, n_vectors, d, first, end);
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_vectors; j++)
        vec_store(a->acc + (r0 + r) * D + d + j * VEC_LANES, sum[r][j]);
}

/* Scores of slots that nobody sees. */
static void kivi_hide(const struct lsk_attn *a, float *z, size_t from, size_t to)
{
    for (size_t s = from; s < to; s++)
        if (!(a->seen[s / LSK_TILE] >> s % LSK_TILE & 1))
            z[s] = -INFINITY;
}

/* Rows r0 .. r0 + n_rows - 1; n_rows is a constant at every call. */
VEC_INLINE void kivi_rows(const struct lsk_attn *a, size_t r0, size_t n_rows, size_t from, size_t to)
{
    float z[KIVI_ROWS][LSK_PAGE], w[KIVI_ROWS][LSK_PAGE], decay[KIVI_ROWS], offset[KIVI_ROWS] = { 0 };

    kivi_scores(a, z, r0, n_rows, from, to);
    for (size_t r = 0; r < n_rows; r++) {
        f32_hide(a, z[r], r0 + r, from, to);
        if (a->seen)
            kivi_hide(a, z[r], from, to);
        decay[r] = f32_weights(a, z[r], r0 + r, from, to);
    }
    for (size_t d = 0, n; d < a->D; d += n * VEC_LANES) {
        for (size_t r = 0; r < n_rows && d % a->kivi.group == 0; r++)
            offset[r] = kivi_scale_weights(a, w[r], z[r], d, from, to);
        n = d + 2 * VEC_LANES <= a->D ? 2 : 1;
        if (n == 2)
            kivi_values(a, w, decay, offset, r0, n_rows, 2, d, from, to);
        else
            kivi_values(a, w, decay, offset, r0, n_rows, 1, d, from, to);
    }
}

static void kivi_attend(const struct lsk_attn *a)
{
    for (size_t r = 0, n; r < a->n_rows; r += n) {
        size_t lo = LSK_PAGE, hi = 0;
        n = a->n_rows - r < KIVI_ROWS ? a->n_rows - r : KIVI_ROWS;
        for (size_t i = r; i < r + n; i++) {
            lo = a->lo[i] < a->hi[i] && a->lo[i] < lo ? a->lo[i] : lo;
            hi = a->lo[i] < a->hi[i] && a->hi[i] > hi ? a->hi[i] : hi;
        }
        lo = lo / KIVI_STEP * KIVI_STEP;
        hi = (hi + KIVI_STEP - 1) / KIVI_STEP * KIVI_STEP;
        if (lo >= hi)
            continue;
        switch (n) {
        case 1:
            kivi_rows(a, r, 1, lo, hi);
            break;
        case 2:
            kivi_rows(a, r, 2, lo, hi);
            break;
        case 3:
            kivi_rows(a, r, 3, lo, hi);
            break;
        default:
            kivi_rows(a, r, KIVI_ROWS, lo, hi);
            break;
        }
    }
}

static void kivi_attention(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 && a->D <= KIVI_MAX_D ? kivi_attend(a) : lsk_attn_kivi_ref(a);
}

/* ---- scores alone --------------------------------------------------------------------------- */

static void kivi_score(const struct lsk_attn_scores *a)
{
    const struct lsk_attn page = { .head = a->head, .next = a->next, .kivi = a->kivi, .D = a->D, .q = a->q };

    if (a->D % LSK_TILE != 0 || a->D > KIVI_MAX_D) {
        lsk_attn_scores_kivi_ref(a);
        return;
    }
    for (size_t r = 0, n; r < a->n_rows; r += n) {
        float(*z)[LSK_PAGE] = (float(*)[LSK_PAGE])(a->z + r * LSK_PAGE);
        n = a->n_rows - r < KIVI_ROWS ? a->n_rows - r : KIVI_ROWS;
        switch (n) {
        case 1:
            kivi_scores(&page, z, r, 1, a->from, a->to);
            break;
        case 2:
            kivi_scores(&page, z, r, 2, a->from, a->to);
            break;
        case 3:
            kivi_scores(&page, z, r, 3, a->from, a->to);
            break;
        default:
            kivi_scores(&page, z, r, KIVI_ROWS, a->from, a->to);
            break;
        }
    }
}

/* ---- to bf16 ------------------------------------------------------------------------------- */

static void kivi_numbers(vec x[16], const unsigned char *words, unsigned bits, const float *scale,
                         const float *offset)
{
    if (bits == 2)
        kivi2_numbers(x, words, scale, offset);
    else if (bits == 4)
        kivi4_numbers(x, words, scale, offset);
    else
        kivi8_numbers(x, words, scale, offset);
}

/* n halves, a multiple of VEC_LANES, as floats. */
static void kivi_halves(float *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store(to + i, vec_load_f16(from + 2 * i));
}

/* Keys of the block whose first slot in the page is slot0. */
static void kivi_keys_to_bf16(unsigned char *to, const unsigned char *block, struct lsk_kivi f, size_t D,
                              size_t slot0)
{
    const size_t dims = 4 * 8 / f.bits_k; /* of a vector */
    float scale[KIVI_MAX_D], offset[KIVI_MAX_D];
    vec x[16];

    kivi_halves(scale, block + lsk_kivi_k_scales(f, D), D);
    kivi_halves(offset, block + lsk_kivi_k_offsets(f, D), D);
    for (size_t s = 0; s < f.group; s += VEC_LANES)
        for (size_t d = 0; d < D; d += dims) {
            kivi_numbers(x, block + lsk_kivi_k_code(f, D, s, d).byte, f.bits_k, scale + d, offset + d);
            for (size_t i = 0; i < dims; i += 2)
                vec_store_words(to + 2 * lsk_kv_bf16_k(D, slot0 + s, d + i), vec_bf16_words(x[i], x[i + 1]));
        }
}

static void kivi_values_to_bf16(unsigned char *to, const unsigned char *block, struct lsk_kivi f, size_t D,
                                size_t slot0)
{
    const size_t slots = 4 * 8 / f.bits_v;
    float scale[LSK_PAGE], offset[LSK_PAGE];
    vec x[16];

    for (size_t d = 0; d < D; d += VEC_LANES) {
        if (d % f.group == 0) {
            kivi_halves(scale, block + lsk_kivi_v_scales(f, D) + 2 * d, f.group);
            kivi_halves(offset, block + lsk_kivi_v_offsets(f, D) + 2 * d, f.group);
        }
        for (size_t s = 0; s < f.group; s += slots) {
            kivi_numbers(x, block + lsk_kivi_v_code(f, D, s, d).byte, f.bits_v, scale + s, offset + s);
            for (size_t i = 0; i < slots; i += 2)
                vec_store_words(to + 2 * lsk_kv_bf16_v(D, slot0 + s + i, d), vec_bf16_words(x[i], x[i + 1]));
        }
    }
}

static void kivi_to_bf16(void *bf16_head, const void *head, struct lsk_kivi f, size_t D)
{
    if (D % LSK_TILE != 0 || D > KIVI_MAX_D) {
        lsk_kivi_to_bf16_ref(bf16_head, head, f, D);
        return;
    }
    for (size_t s = 0; s < LSK_PAGE; s += f.group) {
        const unsigned char *block = (const unsigned char *)head + s / f.group * lsk_kivi_block_bytes(f, D);
        kivi_keys_to_bf16(bf16_head, block, f, D, s);
        kivi_values_to_bf16(bf16_head, block, f, D, s);
    }
}

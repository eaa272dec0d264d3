/* Packed keys and values by the formulas: quantising, reading, attention. Layout: kernels/kivi.h. */
#include "kernels/impl.h"

#include <math.h>
#include <string.h>

/* ---- a group of numbers ----------------------------------------------------------------- */

struct grid {
    lsi_f16 scale, offset;
    double inv, z; /* 1 / scale, or 0; offset */
};

/* Halves in the order of what they stand for: neighbours are one apart. */
static lsi_f16 next_down(lsi_f16 h)
{
    return h == 0 ? 0x8001u : h & 0x8000u ? (lsi_f16)(h + 1) : (lsi_f16)(h - 1);
}

static lsi_f16 half_below(double x)
{
    const lsi_f16 h = lsi_f16_from_f32((float)x);
    return (double)lsi_f16_to_f32(h) > x ? next_down(h) : h;
}

/* Of x >= 0. */
static lsi_f16 half_above(double x)
{
    const lsi_f16 h = lsi_f16_from_f32((float)x);
    return (double)lsi_f16_to_f32(h) < x ? (lsi_f16)(h + 1) : h;
}

static float within_halves(float x)
{
    return x < LSK_KIVI_MOST ? x > -LSK_KIVI_MOST ? x : -LSK_KIVI_MOST : LSK_KIVI_MOST; /* so is a NaN */
}

/* The grid that covers n numbers, step apart. */
static struct grid make_grid(const float *x, size_t n, size_t step, unsigned bits)
{
    float low = within_halves(x[0]), high = low;
    struct grid g;

    for (size_t i = 1; i < n; i++) {
        const float v = within_halves(x[i * step]);
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    g.offset = half_below((double)low);
    g.z = (double)lsi_f16_to_f32(g.offset);
    g.scale = half_above(((double)high - g.z) / ((1u << bits) - 1));
    g.inv = g.scale > 0 ? 1.0 / (double)lsi_f16_to_f32(g.scale) : 0.0;
    return g;
}

/* The nearest code, of two the even one: numbers above 2^52 have no fractions. */
static unsigned code_of(const struct grid *g, float x, unsigned bits)
{
    const double u = ((double)within_halves(x) - g->z) * g->inv + 0x1p52 - 0x1p52, most = (1u << bits) - 1;
    return (unsigned)(u < most ? u : most);
}

/* ---- parts of a head ------------------------------------------------------------------------ */

static unsigned char *block_of(const void *head, struct lsk_kivi f, size_t D, size_t slot)
{
    return (unsigned char *)head + slot / f.group * lsk_kivi_block_bytes(f, D);
}

static lsi_f16 *halves(const unsigned char *block, size_t at)
{
    return (lsi_f16 *)(void *)(block + at);
}

static void put_code(unsigned char *block, struct lsk_kivi_code at, unsigned bits, unsigned code)
{
    const unsigned mask = ((1u << bits) - 1) << at.shift;
    block[at.byte] = (unsigned char)((block[at.byte] & ~mask) | code << at.shift);
}

static unsigned get_code(const unsigned char *block, struct lsk_kivi_code at, unsigned bits)
{
    return block[at.byte] >> at.shift & ((1u << bits) - 1);
}

void lsk_kivi_pack_keys_ref(void *head, struct lsk_kivi f, size_t D, size_t slot, const float *k, size_t ldk)
{
    unsigned char *block = block_of(head, f, D, slot);

    for (size_t d = 0; d < D; d++) {
        const struct grid g = make_grid(k + d, f.group, ldk, f.bits_k);
        halves(block, lsk_kivi_k_scales(f, D))[d] = g.scale;
        halves(block, lsk_kivi_k_offsets(f, D))[d] = g.offset;
        for (size_t s = 0; s < f.group; s++)
            put_code(block, lsk_kivi_k_code(f, D, s, d), f.bits_k, code_of(&g, k[s * ldk + d], f.bits_k));
    }
}

void lsk_kivi_pack_value_ref(void *head, struct lsk_kivi f, size_t D, size_t slot, const float *v)
{
    unsigned char *block = block_of(head, f, D, slot);
    const size_t s = slot % f.group;

    for (size_t d0 = 0; d0 < D; d0 += f.group) {
        const size_t n = D - d0 < f.group ? D - d0 : f.group, at = lsk_kivi_v_scale(f, s, d0);
        const struct grid g = make_grid(v + d0, n, 1, f.bits_v);
        halves(block, lsk_kivi_v_scales(f, D))[at] = g.scale;
        halves(block, lsk_kivi_v_offsets(f, D))[at] = g.offset;
        for (size_t d = d0; d < d0 + n; d++)
            put_code(block, lsk_kivi_v_code(f, D, s, d), f.bits_v, code_of(&g, v[d], f.bits_v));
    }
}

static float key(const unsigned char *block, struct lsk_kivi f, size_t D, size_t s, size_t d)
{
    const float scale = lsi_f16_to_f32(halves(block, lsk_kivi_k_scales(f, D))[d]);
    const float offset = lsi_f16_to_f32(halves(block, lsk_kivi_k_offsets(f, D))[d]);
    return (float)get_code(block, lsk_kivi_k_code(f, D, s, d), f.bits_k) * scale + offset;
}

static float value(const unsigned char *block, struct lsk_kivi f, size_t D, size_t s, size_t d)
{
    const size_t at = lsk_kivi_v_scale(f, s, d);
    const float scale = lsi_f16_to_f32(halves(block, lsk_kivi_v_scales(f, D))[at]);
    const float offset = lsi_f16_to_f32(halves(block, lsk_kivi_v_offsets(f, D))[at]);
    return (float)get_code(block, lsk_kivi_v_code(f, D, s, d), f.bits_v) * scale + offset;
}

void lsk_kivi_load_ref(const void *head, struct lsk_kivi f, size_t D, size_t slot, float *k, float *v)
{
    const unsigned char *block = block_of(head, f, D, slot);

    for (size_t d = 0; k && d < D; d++)
        k[d] = key(block, f, D, slot % f.group, d);
    for (size_t d = 0; v && d < D; d++)
        v[d] = value(block, f, D, slot % f.group, d);
}

void lsk_kivi_to_bf16_ref(void *bf16_head, const void *head, struct lsk_kivi f, size_t D)
{
    lsi_bf16 *out = bf16_head;

    for (size_t s = 0; s < LSK_PAGE; s++) {
        const unsigned char *block = block_of(head, f, D, s);
        for (size_t d = 0; d < D; d++) {
            out[lsk_kv_bf16_k(D, s, d)] = lsi_bf16_from_f32(key(block, f, D, s % f.group, d));
            out[lsk_kv_bf16_v(D, s, d)] = lsi_bf16_from_f32(value(block, f, D, s % f.group, d));
        }
    }
}

/* ---- attention ---------------------------------------------------------------------------------
 *
 * From the codes, with nothing unpacked in between:
 *
 *     score[s] = sum_d (q[d] scale[d]) u[s][d] + sum_d q[d] offset[d]
 *     acc[d]  += sum_s (w[s] scale[s]) u[s][d] + sum_s w[s] offset[s]
 */

static float score(const struct lsk_attn *a, const float *q, size_t slot)
{
    const struct lsk_kivi f = a->kivi;
    const unsigned char *block = block_of(a->head, f, a->D, slot);
    const lsi_f16 *scales = halves(block, lsk_kivi_k_scales(f, a->D));
    const lsi_f16 *offsets = halves(block, lsk_kivi_k_offsets(f, a->D));
    double z = 0.0;

    for (size_t d = 0; d < a->D; d++) {
        const unsigned u = get_code(block, lsk_kivi_k_code(f, a->D, slot % f.group, d), f.bits_k);
        z += (double)q[d] * (double)lsi_f16_to_f32(scales[d]) * u;
        z += (double)q[d] * (double)lsi_f16_to_f32(offsets[d]);
    }
    return (float)z;
}

/* What the slots lo .. hi - 1 with weights w add to dimension d. */
static double weigh(const struct lsk_attn *a, const float *w, size_t lo, size_t hi, size_t d)
{
    const struct lsk_kivi f = a->kivi;
    double sum = 0.0;

    for (size_t slot = lo; slot < hi; slot++) {
        const unsigned char *block = block_of(a->head, f, a->D, slot);
        const size_t s = slot % f.group, at = lsk_kivi_v_scale(f, s, d);
        const unsigned u = get_code(block, lsk_kivi_v_code(f, a->D, s, d), f.bits_v);
        sum += (double)w[slot] * (double)lsi_f16_to_f32(halves(block, lsk_kivi_v_scales(f, a->D))[at]) * u;
        sum += (double)w[slot] * (double)lsi_f16_to_f32(halves(block, lsk_kivi_v_offsets(f, a->D))[at]);
    }
    return sum;
}

static bool is_seen(const struct lsk_attn *a, size_t slot)
{
    return !a->seen || (a->seen[slot / LSK_TILE] >> slot % LSK_TILE & 1);
}

static void attend_row(const struct lsk_attn *a, size_t r)
{
    const size_t D = a->D, lo = a->lo[r], hi = a->hi[r];
    float w[LSK_PAGE], m = a->m[r];
    double sum = 0.0;

    for (size_t s = lo; s < hi; s++) {
        w[s] = is_seen(a, s) ? score(a, a->q + r * D, s) : -INFINITY;
        m = w[s] > m ? w[s] : m;
    }
    if (m == -INFINITY)
        return;
    const double decay = exp2((double)a->m[r] - (double)m);
    for (size_t s = lo; s < hi; s++) {
        w[s] = (float)exp2((double)w[s] - (double)m);
        sum += (double)w[s];
    }
    for (size_t d = 0; d < D; d++)
        a->acc[r * D + d] = (float)(decay * (double)a->acc[r * D + d] + weigh(a, w, lo, hi, d));
    a->l[r] = (float)(decay * (double)a->l[r] + sum);
    a->m[r] = m;
}

void lsk_attn_kivi_ref(const struct lsk_attn *a)
{
    for (size_t r = 0; r < a->n_rows; r++)
        if (a->lo[r] < a->hi[r])
            attend_row(a, r);
}

void lsk_attn_kivi_round_ref(const struct lsk_attn *a)
{
    lsk_attn_kivi_ref(a);
}

void lsk_attn_scores_kivi_ref(const struct lsk_attn_scores *a)
{
    const struct lsk_attn page = { .head = a->head, .kivi = a->kivi, .D = a->D };

    for (size_t r = 0; r < a->n_rows; r++)
        for (size_t s = a->from; s < a->to; s++)
            a->z[r * LSK_PAGE + s] = score(&page, a->q + r * a->D, s);
}

/* ---- the interchange layout ------------------------------------------------------------------ */

/* Code i of a row of words. */
static unsigned get_word_code(const uint32_t *row, size_t i, unsigned bits)
{
    const size_t per = 32 / bits;
    return row[i / per] >> (i % per * bits) & ((1u << bits) - 1);
}

static void put_word_code(uint32_t *row, size_t i, unsigned bits, unsigned code)
{
    const size_t per = 32 / bits;
    const uint32_t shift = (uint32_t)(i % per * bits), mask = ((1u << bits) - 1) << shift;
    row[i / per] = (row[i / per] & ~mask) | code << shift;
}

static size_t row_words(size_t n, unsigned bits)
{
    return (n * bits + 31) / 32;
}

void lsk_kivi_to_plain(const struct lsk_kivi_plain *plain, const void *head, struct lsk_kivi f, size_t D)
{
    const size_t k_words = row_words(LSK_PAGE, f.bits_k), v_words = row_words(D, f.bits_v);
    const size_t groups = LSK_PAGE / f.group, runs = lsk_kivi_runs(f, D);

    memset(plain->v_codes, 0, LSK_PAGE * v_words * sizeof *plain->v_codes);
    for (size_t slot = 0; slot < LSK_PAGE; slot++) {
        const unsigned char *block = block_of(head, f, D, slot);
        const size_t s = slot % f.group;
        for (size_t d = 0; d < D; d++) {
            const size_t group = d * groups + slot / f.group, run = slot * runs + d / f.group;
            const size_t at = lsk_kivi_v_scale(f, s, d);
            put_word_code(plain->k_codes + d * k_words, slot, f.bits_k,
                          get_code(block, lsk_kivi_k_code(f, D, s, d), f.bits_k));
            put_word_code(plain->v_codes + slot * v_words, d, f.bits_v,
                          get_code(block, lsk_kivi_v_code(f, D, s, d), f.bits_v));
            plain->k_scales[group] = halves(block, lsk_kivi_k_scales(f, D))[d];
            plain->k_offsets[group] = halves(block, lsk_kivi_k_offsets(f, D))[d];
            plain->v_scales[run] = halves(block, lsk_kivi_v_scales(f, D))[at];
            plain->v_offsets[run] = halves(block, lsk_kivi_v_offsets(f, D))[at];
        }
    }
}

void lsk_kivi_from_plain(void *head, const struct lsk_kivi_plain *plain, struct lsk_kivi f, size_t D)
{
    const size_t k_words = row_words(LSK_PAGE, f.bits_k), v_words = row_words(D, f.bits_v);
    const size_t groups = LSK_PAGE / f.group, runs = lsk_kivi_runs(f, D);

    memset(head, 0, lsk_kivi_head_bytes(f, D));
    for (size_t slot = 0; slot < LSK_PAGE; slot++) {
        unsigned char *block = block_of(head, f, D, slot);
        const size_t s = slot % f.group;
        for (size_t d = 0; d < D; d++) {
            const size_t group = d * groups + slot / f.group, run = slot * runs + d / f.group;
            const size_t at = lsk_kivi_v_scale(f, s, d);
            put_code(block, lsk_kivi_k_code(f, D, s, d), f.bits_k,
                     get_word_code(plain->k_codes + d * k_words, slot, f.bits_k));
            put_code(block, lsk_kivi_v_code(f, D, s, d), f.bits_v,
                     get_word_code(plain->v_codes + slot * v_words, d, f.bits_v));
            halves(block, lsk_kivi_k_scales(f, D))[d] = plain->k_scales[group];
            halves(block, lsk_kivi_k_offsets(f, D))[d] = plain->k_offsets[group];
            halves(block, lsk_kivi_v_scales(f, D))[at] = plain->v_scales[run];
            halves(block, lsk_kivi_v_offsets(f, D))[at] = plain->v_offsets[run];
        }
    }
}

/* Packed pages: the bound of quantising, exactness on a grid, both layouts, pages as bf16. */
#include "kt.h"

#include <math.h>
#include <string.h>

static const struct lsk_kivi ways[] = {
    { 2, 2, 32 }, { 4, 4, 32 }, { 8, 8, 32 }, { 2, 4, 64 }, { 4, 2, 128 }, { 8, 2, 64 }, { 2, 8, 128 },
};
static const size_t dims[] = { 2, 6, 16, 30, 64, 80, 96, 128, 256 };

/* Numbers that are hard to quantise; n of them, `step` apart. */
static void nasty(struct kt *k, float *x, size_t n, size_t step, size_t kind)
{
    for (size_t i = 0; i < n; i++) {
        float *v = x + i * step;
        switch (kind % 8) {
        case 0: /* ordinary */
            *v = (float)kt_normal(k);
            break;
        case 1: /* constant, and no half */
            *v = 0.1f;
            break;
        case 2: /* one outlier */
            *v = i == n / 2 ? 1000.0f : (float)kt_normal(k) * 0.01f;
            break;
        case 3: /* smaller than the least half */
            *v = (float)kt_normal(k) * 1e-30f;
            break;
        case 4: /* the ends of the range */
            *v = i % 2 ? 65504.0f : -65504.0f;
            break;
        case 5: /* far from zero */
            *v = 300.0f + (float)kt_normal(k) * 1e-3f;
            break;
        case 6: /* subnormal halves */
            *v = (float)kt_normal(k) * 1e-6f;
            break;
        default: /* zeros of both signs */
            *v = i % 2 ? 0.0f : -0.0f;
        }
    }
}

struct head {
    unsigned char *bytes;
    struct lsk_kivi f;
    size_t D;
};

static struct head new_head(struct kt *k, struct lsk_kivi f, size_t D)
{
    const size_t bytes = lsk_kivi_head_bytes(f, D);
    unsigned char *raw = kt_bytes(k, bytes + 64);
    const struct head h = { raw + (64 - (uintptr_t)raw % 64) % 64, f, D };

    memset(h.bytes, 0, bytes);
    return h;
}

static float half_at(const struct head *h, size_t slot, size_t part, size_t i)
{
    lsi_f16 x;

    memcpy(&x, h->bytes + slot / h->f.group * lsk_kivi_block_bytes(h->f, h->D) + part + 2 * i, sizeof x);
    return lsi_f16_to_f32(x);
}

/* |what is stored - x| <= s / 2, but for the rounding of the sum to a float. */
static void within_half_step(struct kt *k, float got, float x, float scale, size_t index)
{
    kt_within(k, (double)got, (double)x, (double)scale / 2 * (1 + 1e-12) + fabs((double)x) * 0x1p-23,
              "number", index);
}

static void check_keys(struct kt *k, lsk_kivi_pack_keys_fn *pack, struct lsk_kivi f, size_t D, size_t kind)
{
    const struct head h = new_head(k, f, D);
    float *keys = kt_f32(k, f.group * D, KT_ZERO), *got = kt_f32(k, D, KT_FILL);
    const size_t slot0 = kt_below(k, LSK_PAGE / f.group) * f.group;

    for (size_t d = 0; d < D; d++)
        nasty(k, keys + d, f.group, D, kind + d);
    pack(h.bytes, f, D, slot0, keys, D);
    for (size_t s = 0; s < f.group; s++) {
        lsk_kivi_load_ref(h.bytes, f, D, slot0 + s, got, NULL);
        for (size_t d = 0; d < D; d++)
            within_half_step(k, got[d], keys[s * D + d], half_at(&h, slot0, lsk_kivi_k_scales(f, D), d), d);
    }
    /* Numbers on the grid come back as they are. */
    float *again = kt_f32(k, f.group * D, KT_ZERO);
    for (size_t s = 0; s < f.group; s++)
        for (size_t d = 0; d < D; d++)
            again[s * D + d] = (float)((s * 7 + d) % (1u << f.bits_k)) * 0.25f - 3.0f;
    for (size_t d = 0; d < D; d++) {
        again[d] = -3.0f;
        again[D + d] = (float)((1u << f.bits_k) - 1) * 0.25f - 3.0f;
    }
    pack(h.bytes, f, D, slot0, again, D);
    for (size_t s = 0; s < f.group; s++) {
        lsk_kivi_load_ref(h.bytes, f, D, slot0 + s, got, NULL);
        kt_equal(k, got, again + s * D, D * sizeof *got, "key on the grid");
    }
}

void check_kivi_pack_keys(struct kt *k)
{
    lsk_kivi_pack_keys_fn *fn;

    while ((fn = (lsk_kivi_pack_keys_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 8 * KT_LEN(dims); i++) {
            check_keys(k, fn, ways[i % KT_LEN(ways)], dims[i % KT_LEN(dims)], i);
            kt_reset(k);
        }
        const struct head h = new_head(k, ways[0], 64);
        const float *keys = kt_f32(k, 32 * 64, KT_NORMAL);
        KT_BENCH(k, "32 keys, D 64", 32 * 64 * 4.0, fn(h.bytes, ways[0], 64, 0, keys, 64));
        kt_reset(k);
    }
}

static void check_value(struct kt *k, lsk_kivi_pack_value_fn *pack, struct lsk_kivi f, size_t D, size_t kind)
{
    const struct head h = new_head(k, f, D);
    float *value = kt_f32(k, D, KT_ZERO), *got = kt_f32(k, D, KT_FILL), *before = kt_f32(k, D, KT_FILL);
    const size_t slot = kt_below(k, LSK_PAGE), other = slot ^ 1;

    for (size_t d = 0; d < D; d += f.group)
        nasty(k, value + d, D - d < f.group ? D - d : f.group, 1, kind + d / f.group);
    pack(h.bytes, f, D, other, value);
    lsk_kivi_load_ref(h.bytes, f, D, other, NULL, before);
    pack(h.bytes, f, D, slot, value);
    lsk_kivi_load_ref(h.bytes, f, D, slot, NULL, got);
    for (size_t d = 0; d < D; d++)
        within_half_step(k, got[d], value[d],
                         half_at(&h, slot, lsk_kivi_v_scales(f, D), lsk_kivi_v_scale(f, slot % f.group, d)),
                         d);
    for (size_t d = 0; d < D; d++)
        value[d] = -value[d];
    pack(h.bytes, f, D, slot, value); /* a slot is written again, its neighbour stays */
    lsk_kivi_load_ref(h.bytes, f, D, other, NULL, got);
    kt_equal(k, got, before, D * sizeof *got, "value next to one that was written");
}

void check_kivi_pack_value(struct kt *k)
{
    lsk_kivi_pack_value_fn *fn;

    while ((fn = (lsk_kivi_pack_value_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 8 * KT_LEN(dims); i++) {
            check_value(k, fn, ways[i % KT_LEN(ways)], dims[i % KT_LEN(dims)], i);
            kt_reset(k);
        }
        const struct head h = new_head(k, ways[0], 64);
        const float *value = kt_f32(k, 64, KT_NORMAL);
        KT_BENCH(k, "D 64", 64 * 4.0, fn(h.bytes, ways[0], 64, 7, value));
        kt_reset(k);
    }
}

static struct head random_packed(struct kt *k, struct lsk_kivi f, size_t D)
{
    const struct head h = new_head(k, f, D);

    for (size_t slot = 0; slot < LSK_PAGE; slot += f.group)
        lsk_kivi_pack_keys_ref(h.bytes, f, D, slot, kt_f32(k, f.group * D, KT_NORMAL), D);
    for (size_t slot = 0; slot < LSK_PAGE; slot++)
        lsk_kivi_pack_value_ref(h.bytes, f, D, slot, kt_f32(k, D, KT_NORMAL));
    return h;
}

static struct lsk_kivi_plain new_plain(struct kt *k, struct lsk_kivi f, size_t D)
{
    const size_t groups = D * (LSK_PAGE / f.group) * 2, runs = LSK_PAGE * lsk_kivi_runs(f, D) * 2;

    return (struct lsk_kivi_plain){
        .k_codes = kt_bytes(k, D * (LSK_PAGE * f.bits_k / 32) * 4),
        .k_scales = kt_bytes(k, groups),
        .k_offsets = kt_bytes(k, groups),
        .v_codes = kt_bytes(k, LSK_PAGE * ((D * f.bits_v + 31) / 32) * 4),
        .v_scales = kt_bytes(k, runs),
        .v_offsets = kt_bytes(k, runs),
    };
}

/* What the interchange layout says, read by its definition, is what the page says; and back. */
static void check_plain(struct kt *k, const struct head *h)
{
    const struct lsk_kivi f = h->f;
    const size_t D = h->D, groups = LSK_PAGE / f.group, runs = lsk_kivi_runs(f, D);
    const struct lsk_kivi_plain p = new_plain(k, f, D);
    const size_t k_words = LSK_PAGE * f.bits_k / 32, v_words = (D * f.bits_v + 31) / 32;
    float *key = kt_f32(k, D, KT_FILL), *value = kt_f32(k, D, KT_FILL);

    lsk_kivi_to_plain(&p, h->bytes, f, D);
    for (size_t s = 0; s < LSK_PAGE; s++) {
        lsk_kivi_load_ref(h->bytes, f, D, s, key, value);
        for (size_t d = 0; d < D; d++) {
            const size_t per_k = 32 / f.bits_k, per_v = 32 / f.bits_v;
            const uint32_t u =
                p.k_codes[d * k_words + s / per_k] >> (f.bits_k * (s % per_k)) & ((1u << f.bits_k) - 1);
            const uint32_t w =
                p.v_codes[s * v_words + d / per_v] >> (f.bits_v * (d % per_v)) & ((1u << f.bits_v) - 1);
            const size_t group = d * groups + s / f.group, run = s * runs + d / f.group;
            const float x = (float)u * lsi_f16_to_f32(p.k_scales[group]) + lsi_f16_to_f32(p.k_offsets[group]);
            const float y = (float)w * lsi_f16_to_f32(p.v_scales[run]) + lsi_f16_to_f32(p.v_offsets[run]);
            kt_within(k, (double)x, (double)key[d], 1e-6, "key of the interchange layout", d);
            kt_within(k, (double)y, (double)value[d], 1e-6, "value of the interchange layout", d);
        }
    }
    const struct head back = new_head(k, f, D);
    lsk_kivi_from_plain(back.bytes, &p, f, D);
    kt_equal(k, back.bytes, h->bytes, lsk_kivi_head_bytes(f, D), "page from the interchange layout");
}

void check_kivi_load(struct kt *k)
{
    lsk_kivi_load_fn *ref = (lsk_kivi_load_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_kivi_load_fn *)kt_next(k)) != NULL)
        for (size_t i = 0; i < KT_LEN(dims) * KT_LEN(ways); i++) {
            const size_t D = dims[i % KT_LEN(dims)], slot = kt_below(k, LSK_PAGE);
            /* Fewer buffers than the harness has: keys of a page in one. */
            const struct lsk_kivi f = ways[i / KT_LEN(dims)];
            const struct head h = random_packed(k, f, D);
            float *a = kt_f32(k, D, KT_FILL), *b = kt_f32(k, D, KT_FILL), *c = kt_f32(k, D, KT_FILL);

            ref(h.bytes, f, D, slot, a, b);
            fn(h.bytes, f, D, slot, c, NULL);
            kt_equal(k, c, a, D * sizeof *a, "key");
            fn(h.bytes, f, D, slot, NULL, c);
            kt_equal(k, c, b, D * sizeof *a, "value");
            check_plain(k, &h);
            kt_reset(k);
        }
}

void check_kivi_to_bf16(struct kt *k)
{
    static const size_t whole[] = { 16, 64, 80, 128, 256 };
    lsk_kivi_to_bf16_fn *ref = (lsk_kivi_to_bf16_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_kivi_to_bf16_fn *)kt_next(k)) != NULL)
        for (size_t i = 0; i < KT_LEN(whole) * KT_LEN(ways); i++) {
            const size_t D = whole[i % KT_LEN(whole)], bytes = lsk_kv_bf16_head_bytes(D);
            const struct lsk_kivi f = ways[i / KT_LEN(whole)];
            const struct head h = random_packed(k, f, D);
            void *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);

            ref(want, h.bytes, f, D);
            fn(got, h.bytes, f, D);
            kt_equal(k, got, want, bytes, "bf16 head");
            if (D == 64 && f.group == 32)
                KT_BENCH(k, "D 64", (double)(bytes + lsk_kivi_head_bytes(f, D)), fn(got, h.bytes, f, D));
            kt_reset(k);
        }
}

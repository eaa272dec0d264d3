/* Attention kernels: one page, every format, rows of all kinds; storing and converting pages. */
#include "kt.h"

#include <math.h>
#include <string.h>

struct shape {
    size_t head_bytes;
    double tol;             /* of sums of weights times values around 1 */
    double sum_tol;         /* of the logs of sums of weights */
    lsk_kv_store_fn *store; /* NULL: the page is packed */
    lsk_kv_load_fn *load;
    struct lsk_kivi kivi;
};

static struct shape shape_of(const char *op, size_t D)
{
    struct shape s = { .head_bytes = lsk_kv_q8_head_bytes(D),
                       .tol = 3e-5,
                       .store = lsk_kv_store_q8_ref,
                       .load = lsk_kv_load_q8_ref };

    if (strstr(op, "bf16")) {
        s.head_bytes = lsk_kv_bf16_head_bytes(D);
        s.store = lsk_kv_store_bf16_ref;
        s.load = lsk_kv_load_bf16_ref;
    } else if (strstr(op, "f32")) {
        s.head_bytes = lsk_kv_f32_head_bytes(D);
        s.store = lsk_kv_store_f32_ref;
        s.load = lsk_kv_load_f32_ref;
    }
    if (strstr(op, "round"))
        s.tol = strstr(op, "kivi") ? 1.0 / 512 : 1.0 / 64;
    s.sum_tol = 4.0 * s.tol;
    return s;
}

/* The same with the i-th way to pack, where pages are. */
static struct shape packed_shape(const char *op, size_t D, size_t i)
{
    static const struct lsk_kivi ways[] = { { 2, 2, 32 },  { 4, 4, 32 }, { 8, 8, 32 },  { 2, 4, 64 },
                                            { 4, 2, 128 }, { 2, 8, 64 }, { 8, 2, 128 }, { 2, 2, 64 } };
    struct shape s = shape_of(op, D);

    if (strstr(op, "kivi")) {
        s.kivi = ways[i % KT_LEN(ways)];
        s.head_bytes = lsk_kivi_head_bytes(s.kivi, D);
        s.store = NULL;
        if (strstr(op, "round") && s.kivi.bits_v == 2)
            s.tol = 1.0 / 64;
        if (strstr(op, "round") && s.kivi.bits_k == 2) {
            s.tol = 1.0 / 16; /* values go beyond 2 */
            s.sum_tol = 1.0 / 16;
        }
    }
    return s;
}

static void *random_head(struct kt *k, const struct shape *s, size_t D)
{
    /* The contract aligns pages to 64 bytes; kt_bytes does not. */
    unsigned char *raw = kt_bytes(k, s->head_bytes + 64);
    void *head = raw + (64 - (uintptr_t)raw % 64) % 64;
    float *keys = kt_f32(k, LSK_PAGE * D, KT_ZERO), *value = kt_f32(k, D, KT_ZERO);

    memset(head, 0, s->head_bytes);
    for (size_t slot = 0; slot < LSK_PAGE; slot++) {
        float *key = keys + slot * D;
        for (size_t d = 0; d < D; d++) {
            /* Runs of dimensions differ in size, so that their scales do. */
            key[d] = (float)kt_normal(k) / (float)(1 + d / LSK_KV_Q8_RUN % 3);
            value[d] = (float)kt_normal(k) / (float)(1 + (d / LSK_KV_Q8_RUN + slot) % 3);
        }
        if (s->store)
            s->store(head, D, slot, key, value);
        else
            lsk_kivi_pack_value_ref(head, s->kivi, D, slot, value);
    }
    for (size_t slot = 0; !s->store && slot < LSK_PAGE; slot += s->kivi.group)
        lsk_kivi_pack_keys_ref(head, s->kivi, D, slot, keys + slot * D, D);
    return head;
}

struct rows {
    float *m, *l, *acc;
};

static struct rows fresh_rows(struct kt *k, size_t n, size_t D)
{
    const struct rows r = { kt_f32(k, n, KT_ZERO), kt_f32(k, n, KT_ZERO), kt_f32(k, n * D, KT_ZERO) };

    for (size_t i = 0; i < n; i++)
        r.m[i] = -INFINITY;
    return r;
}

static void see(lsk_attn_fn *fn, const struct lsk_attn *a, const struct rows *r)
{
    struct lsk_attn b = *a;
    b.m = r->m;
    b.l = r->l;
    b.acc = r->acc;
    fn(&b);
}

/* Compare what states mean: acc / l and m + log2 l. The greatest score itself may be any bound. */
static void same_rows(struct kt *k, const struct rows *got, const struct rows *want, size_t n, size_t D,
                      double tol, double sum_tol)
{
    for (size_t r = 0; r < n; r++) {
        if (want->l[r] == 0.0f) {
            kt_within(k, (double)got->l[r], 0.0, 0.0, "l of a row that saw nothing", r);
            continue;
        }
        kt_within(k, (double)got->m[r] + log2((double)got->l[r]),
                  (double)want->m[r] + log2((double)want->l[r]), sum_tol, "log2 of the sum of weights", r);
        for (size_t d = 0; d < D; d++)
            kt_within(k, (double)got->acc[r * D + d] / (double)got->l[r],
                      (double)want->acc[r * D + d] / (double)want->l[r], tol, "output", r * D + d);
    }
}

static void check_attn(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 64, 80, 96, 128, 256 };
    static const size_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 16, 31, 33, 70 };
    lsk_attn_fn *ref = (lsk_attn_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_attn_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 3 * KT_LEN(counts); i++) {
            const size_t D = dims[i % KT_LEN(dims)], n = counts[i % KT_LEN(counts)];
            const size_t room = (n + LSK_ATTN_ROW_PAD - 1) / LSK_ATTN_ROW_PAD * LSK_ATTN_ROW_PAD;
            struct shape shape = packed_shape(kt_op(k), D, i);
            const void *first = random_head(k, &shape, D), *second = random_head(k, &shape, D);
            float *q = kt_f32(k, room * D, KT_NORMAL);
            uint16_t *lo = kt_bytes(k, room * sizeof *lo), *hi = kt_bytes(k, room * sizeof *hi);
            struct lsk_attn a = { .head = first, .next = second, .D = D, .n_rows = n, .q = q, .lo = lo };
            const struct rows want = fresh_rows(k, room, D), got = fresh_rows(k, room, D);

            /* Noise of many scores leaves little in their sum. */
            if (shape.kivi.bits_k == 2 && i < KT_LEN(counts))
                shape.sum_tol = fmin(shape.sum_tol, 1.0 / 64);
            a.hi = hi;
            a.kivi = shape.kivi;
            uint16_t *seen = kt_bytes(k, LSK_ATTN_TILES * sizeof *seen);
            for (size_t j = 0; j < LSK_ATTN_TILES; j++) /* all of a tile, none, some */
                seen[j] = (uint16_t)(kt_below(k, 3) == 0   ? 0xffff
                                     : kt_below(k, 3) == 0 ? 0
                                                           : kt_below(k, 0xffff));
            a.seen = !shape.store && i % 2 ? seen : NULL;
            for (size_t j = 0; j < n * D; j++)
                q[j] *= 1.5f / sqrtf((float)D);
            for (size_t r = 0; r < room; r++) {
                /* All, a part, the last slot, nothing. */
                const size_t kind = i < KT_LEN(counts) ? 0 : kt_below(k, 4);
                const size_t at = kt_below(k, LSK_PAGE);
                lo[r] = (uint16_t)(kind == 1 ? at : kind == 2 ? LSK_PAGE - 1 : 0);
                hi[r] = (uint16_t)(kind == 1 ? at + kt_below(k, LSK_PAGE - at) : kind == 3 ? 0 : LSK_PAGE);
            }
            see(ref, &a, &want);
            see(fn, &a, &got);
            same_rows(k, &got, &want, n, D, shape.tol, shape.sum_tol);
            a.head = second;
            a.next = NULL;
            see(ref, &a, &want);
            see(fn, &a, &got);
            same_rows(k, &got, &want, n, D, shape.tol, shape.sum_tol);

            /* A row alone has the same bits. */
            const size_t r = kt_below(k, n);
            const struct rows alone = fresh_rows(k, LSK_ATTN_ROW_PAD, D);
            float *one = kt_f32(k, LSK_ATTN_ROW_PAD * D, KT_ZERO);
            memcpy(one, q + r * D, D * sizeof *q);
            a.n_rows = 1;
            a.q = one;
            a.lo = lo + r;
            a.hi = hi + r;
            a.head = first;
            see(fn, &a, &alone);
            a.head = second;
            see(fn, &a, &alone);
            kt_equal(k, alone.acc, got.acc + r * D, D * sizeof *q, "row alone");
            kt_equal(k, alone.l, got.l + r, sizeof *q, "sum alone");
            kt_reset(k);
        }

        const struct shape shape = packed_shape(kt_op(k), 64, 0);
        const size_t n = strstr(kt_op(k), "bf16_round") ? 192 : 3;
        struct lsk_attn a = { .head = random_head(k, &shape, 64), .D = 64, .n_rows = n };
        const struct rows r = fresh_rows(k, 192, 64);
        uint16_t *lo = kt_bytes(k, 192 * sizeof *lo), *hi = kt_bytes(k, 192 * sizeof *hi);
        for (size_t j = 0; j < 192; j++) {
            lo[j] = 0;
            hi[j] = LSK_PAGE;
        }
        a.q = kt_f32(k, 192 * 64, KT_NORMAL);
        a.lo = lo;
        a.hi = hi;
        a.kivi = shape.kivi;
        KT_BENCH_FLOPS(k, n == 3 ? "3 rows, D 64, in cache" : "192 rows, D 64", (double)shape.head_bytes,
                       4.0 * 64 * LSK_PAGE * (double)n, see(fn, &a, &r));
        kt_reset(k);
    }
}

/* ---- scattered tiles ---------------------------------------------------------------------- */

static void see_tiles(lsk_attn_tiles_fn *fn, const struct lsk_attn_tiles *a, const struct rows *r)
{
    struct lsk_attn_tiles b = *a;
    b.m = r->m;
    b.l = r->l;
    b.acc = r->acc;
    fn(&b);
}

static void check_attn_tiles(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 64, 80, 96, 128, 256 };
    static const size_t counts[] = { 1, 3, 2, 4, 5, 8, 7, 13 };
    lsk_attn_tiles_fn *ref = (lsk_attn_tiles_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_attn_tiles_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 40; i++) {
            const size_t D = dims[i % KT_LEN(dims)], n = counts[i / 2 % KT_LEN(counts)];
            const struct shape shape = shape_of(kt_op(k), D);
            const void *heads[2] = { random_head(k, &shape, D), random_head(k, &shape, D) };
            float *q = kt_f32(k, n * D, KT_NORMAL);
            struct lsk_attn_tile tiles[LSK_ATTN_TILES];
            struct lsk_attn_tiles a = { .tiles = tiles, .D = D, .n_rows = n, .q = q };
            const struct rows want = fresh_rows(k, n, D), got = fresh_rows(k, n, D),
                              alone = fresh_rows(k, 1, D);

            for (size_t j = 0; j < n * D; j++)
                q[j] *= 1.5f / sqrtf((float)D);
            for (int call = 0; call < 3; call++) {
                a.n_tiles = 1 + (i + 5 * (size_t)call) % LSK_ATTN_TILES;
                a.next = call == 1 ? tiles : NULL;
                a.n_next = call == 1 ? a.n_tiles : 0;
                for (size_t j = 0; j < a.n_tiles; j++) {
                    const uint16_t some = (uint16_t)(1 + kt_below(k, 0xffff));
                    tiles[j] = (struct lsk_attn_tile){ .head = heads[kt_below(k, 2)],
                                                       .tile = (uint16_t)kt_below(k, LSK_PAGE / LSK_TILE),
                                                       .seen = kt_below(k, 2) ? 0xffff : some };
                }
                a.n_rows = n;
                a.q = q;
                see_tiles(ref, &a, &want);
                see_tiles(fn, &a, &got);
                a.n_rows = 1;
                a.q = q + (n - 1) * D;
                see_tiles(fn, &a, &alone);
            }
            same_rows(k, &got, &want, n, D, shape.tol, shape.sum_tol);
            kt_equal(k, alone.acc, got.acc + (n - 1) * D, D * sizeof *q, "row alone");
            kt_equal(k, alone.l, got.l + n - 1, sizeof *q, "sum alone");
            kt_reset(k);
        }
        const struct shape shape = shape_of(kt_op(k), 64);
        const void *head = random_head(k, &shape, 64);
        struct lsk_attn_tile tiles[LSK_ATTN_TILES];
        struct lsk_attn_tiles a = { .tiles = tiles, .n_tiles = LSK_ATTN_TILES, .D = 64, .n_rows = 3 };
        const struct rows r = fresh_rows(k, 3, 64);
        for (size_t j = 0; j < LSK_ATTN_TILES; j++)
            tiles[j] = (struct lsk_attn_tile){ .head = head, .tile = (uint16_t)(j * 7 % 16), .seen = 0xffff };
        a.q = kt_f32(k, 3 * 64, KT_NORMAL);
        KT_BENCH_FLOPS(k, "3 rows, D 64, in cache", (double)shape.head_bytes, 4.0 * 64 * LSK_PAGE * 3,
                       see_tiles(fn, &a, &r));
        kt_reset(k);
    }
}

void check_attn_tiles_f32(struct kt *k)
{
    check_attn_tiles(k);
}

void check_attn_tiles_bf16(struct kt *k)
{
    check_attn_tiles(k);
}

void check_attn_tiles_q8(struct kt *k)
{
    check_attn_tiles(k);
}

/* ---- scores alone --------------------------------------------------------------------------- */

/* offset [D]: what a key's numbers are counted from, or NULL. */
static double size_of_terms(const float *q, const float *key, const float *offset, size_t D)
{
    double size = 0.0;

    for (size_t d = 0; d < D; d++) {
        const double z = offset ? (double)offset[d] : 0.0;
        size += fabs((double)q[d]) * (fabs((double)key[d] - z) + fabs(z));
    }
    return size;
}

/* The key of a slot, and offsets of packed ones. */
static void key_of(const struct shape *s, const void *head, size_t D, size_t slot, float *key, float *offset)
{
    if (s->store) {
        s->load(head, D, slot, key, NULL);
        return;
    }
    const unsigned char *block =
        (const unsigned char *)head + slot / s->kivi.group * lsk_kivi_block_bytes(s->kivi, D);
    lsk_kivi_load_ref(head, s->kivi, D, slot, key, NULL);
    for (size_t d = 0; d < D; d++) {
        lsi_f16 x;
        memcpy(&x, block + lsk_kivi_k_offsets(s->kivi, D) + 2 * d, sizeof x);
        offset[d] = lsi_f16_to_f32(x);
    }
}

static void check_attn_scores(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 64, 80, 96, 128, 256, 512 };
    static const size_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 16, 31, 33, 70 };
    lsk_attn_scores_fn *ref = (lsk_attn_scores_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_attn_scores_fn *)kt_next(k)) != NULL) {
        const double tol = strstr(kt_op(k), "round") ? 1.0 / 256 : 1e-6;
        for (size_t i = 0; i < 2 * KT_LEN(counts) + KT_LEN(dims); i++) {
            const size_t D = dims[i % KT_LEN(dims)], n = counts[i % KT_LEN(counts)];
            const size_t room = (n + LSK_ATTN_ROW_PAD - 1) / LSK_ATTN_ROW_PAD * LSK_ATTN_ROW_PAD;
            const struct shape shape = packed_shape(kt_op(k), D, i);
            const float *q = kt_f32(k, room * D, KT_NORMAL);
            float *key = kt_f32(k, D, KT_FILL), *offset = kt_f32(k, D, KT_ZERO);
            float *want = kt_f32(k, room * LSK_PAGE, KT_ZERO), *got = kt_f32(k, room * LSK_PAGE, KT_ZERO);
            struct lsk_attn_scores a = { .head = random_head(k, &shape, D), .D = D, .n_rows = n, .q = q };

            a.kivi = shape.kivi;
            a.from = kt_below(k, 4) * LSK_SCORES_STEP;
            a.to = a.from + (1 + kt_below(k, (LSK_PAGE - a.from) / LSK_SCORES_STEP)) * LSK_SCORES_STEP;
            a.z = want;
            ref(&a);
            a.z = got;
            fn(&a);
            for (size_t s = 0; s < LSK_PAGE; s++) {
                const bool seen = s >= a.from && s < a.to;
                key_of(&shape, a.head, D, s, key, offset);
                for (size_t r = 0; r < n; r++)
                    kt_within(k, (double)got[r * LSK_PAGE + s], (double)want[r * LSK_PAGE + s],
                              seen ? tol * size_of_terms(q + r * D, key, shape.store ? NULL : offset, D)
                                   : 0.0,
                              "score", r * LSK_PAGE + s);
            }
            float *alone = kt_f32(k, LSK_ATTN_ROW_PAD * LSK_PAGE, KT_ZERO);
            float *one = kt_f32(k, LSK_ATTN_ROW_PAD * D, KT_ZERO);
            memcpy(one, q + (n - 1) * D, D * sizeof *q);
            a.n_rows = 1;
            a.q = one;
            a.z = alone;
            fn(&a);
            kt_equal(k, alone + a.from, got + (n - 1) * LSK_PAGE + a.from, (a.to - a.from) * sizeof *q,
                     "row alone");
            kt_reset(k);
        }
        const struct shape shape = packed_shape(kt_op(k), 64, 0);
        struct lsk_attn_scores a = { .head = random_head(k, &shape, 64), .D = 64, .to = LSK_PAGE };
        a.kivi = shape.kivi;
        a.q = kt_f32(k, 32 * 64, KT_NORMAL);
        a.z = kt_f32(k, 32 * LSK_PAGE, KT_ZERO);
        for (a.n_rows = 3; a.n_rows <= 24; a.n_rows += 21)
            KT_BENCH_FLOPS(k, a.n_rows == 3 ? "3 rows, D 64" : "24 rows, D 64", (double)shape.head_bytes / 2,
                           2.0 * 64 * LSK_PAGE * (double)a.n_rows, fn(&a));
        kt_reset(k);
    }
}

void check_attn_scores_f32(struct kt *k)
{
    check_attn_scores(k);
}

void check_attn_scores_bf16(struct kt *k)
{
    check_attn_scores(k);
}

void check_attn_scores_bf16_round(struct kt *k)
{
    check_attn_scores(k);
}

void check_attn_scores_q8(struct kt *k)
{
    check_attn_scores(k);
}

void check_attn_scores_kivi(struct kt *k)
{
    check_attn_scores(k);
}

/* Bounds of all bytes, with scales of many sizes. */
static unsigned char *random_bounds(struct kt *k, size_t D)
{
    unsigned char *raw = kt_bytes(k, lsk_bounds_head_bytes(D) + 64);
    unsigned char *head = raw + (64 - (uintptr_t)raw % 64) % 64;

    for (size_t i = 0; i < lsk_bounds_head_bytes(D); i++)
        head[i] = (unsigned char)(kt_below(k, 255) + 129);
    for (size_t run = 0; run < LSK_PAGE; run++) {
        const float scale = exp2f((float)kt_normal(k) * 4.0f);
        memcpy(head + lsk_bounds_scale(D, run), &scale, sizeof scale);
    }
    return head;
}

/* Sum of the sizes of the terms of a score. */
static double size_of_bounds(const unsigned char *head, const float *q, size_t D, size_t run)
{
    double size = 0.0;
    float scale;

    memcpy(&scale, head + lsk_bounds_scale(D, run), sizeof scale);
    for (size_t d = 0; d < D; d++)
        size += fabs((double)q[d]) * 127.0 * (double)scale;
    return size;
}

void check_attn_bounds(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 64, 80, 96, 128, 256, 512, 20 };
    static const size_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 16, 31 };
    lsk_attn_bounds_fn *ref = (lsk_attn_bounds_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_attn_bounds_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 30; i++) {
            const size_t D = dims[i % KT_LEN(dims)], n = counts[i % KT_LEN(counts)];
            const unsigned char *head = random_bounds(k, D);
            float *q = kt_f32(k, n * D, KT_NORMAL);
            float *want = kt_f32(k, n * LSK_PAGE, KT_ZERO), *got = kt_f32(k, n * LSK_PAGE, KT_ZERO);
            float *alone = kt_f32(k, LSK_PAGE, KT_ZERO);
            struct lsk_attn_scores a = { .head = head, .D = D, .n_rows = n, .q = q, .z = want };

            for (size_t d = 0; d < n * D && i % 5 == 0; d++)
                q[d] = i % 2 ? 0.0f : -fabsf(q[d]);
            a.next = i % 3 ? head : NULL;
            a.from = kt_below(k, 4) * LSK_SCORES_STEP;
            a.to = a.from + (1 + kt_below(k, (LSK_PAGE - a.from) / LSK_SCORES_STEP)) * LSK_SCORES_STEP;
            ref(&a);
            a.z = got;
            fn(&a);
            for (size_t r = 0; r < n; r++)
                for (size_t s = 0; s < LSK_PAGE; s++)
                    kt_within(k, (double)got[r * LSK_PAGE + s], (double)want[r * LSK_PAGE + s],
                              s >= a.from && s < a.to ? 1e-6 * size_of_bounds(head, q + r * D, D, s) : 0.0,
                              "bound", r * LSK_PAGE + s);
            a.n_rows = 1;
            a.q = q + (n - 1) * D;
            a.z = alone;
            fn(&a);
            kt_equal(k, alone, got + (n - 1) * LSK_PAGE, LSK_PAGE * sizeof *q, "row alone");
            kt_reset(k);
        }
        struct lsk_attn_scores a = { .head = random_bounds(k, 64), .D = 64, .n_rows = 3, .to = LSK_PAGE };
        a.q = kt_f32(k, 3 * 64, KT_NORMAL);
        a.z = kt_f32(k, 3 * LSK_PAGE, KT_ZERO);
        KT_BENCH_FLOPS(k, "3 rows, D 64", (double)lsk_bounds_head_bytes(64), 2.0 * 64 * LSK_PAGE * 3, fn(&a));
        kt_reset(k);
    }
}

void check_attn_f32(struct kt *k)
{
    check_attn(k);
}

void check_attn_bf16(struct kt *k)
{
    check_attn(k);
}

void check_attn_bf16_round(struct kt *k)
{
    check_attn(k);
}

void check_attn_q8(struct kt *k)
{
    check_attn(k);
}

void check_attn_kivi(struct kt *k)
{
    check_attn(k);
}

void check_attn_kivi_round(struct kt *k)
{
    check_attn(k);
}

static void check_kv_store(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 30, 64, 80, 128, 256 };
    lsk_kv_store_fn *ref = (lsk_kv_store_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_kv_store_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(dims) * KT_N_FILLS; i++) {
            const size_t D = dims[i % KT_LEN(dims)];
            const struct shape s = shape_of(kt_op(k), D);
            const float *key = kt_f32(k, D, (enum kt_fill)(i / KT_LEN(dims)));
            const float *value = kt_f32(k, D, (enum kt_fill)(i / KT_LEN(dims)));
            void *want = kt_bytes(k, s.head_bytes), *got = kt_copy(k, want, s.head_bytes);
            const size_t slot = kt_below(k, LSK_PAGE);

            ref(want, D, slot, key, value);
            fn(got, D, slot, key, value);
            kt_equal(k, got, want, s.head_bytes, "head");
            kt_reset(k);
        }
        const struct shape s = shape_of(kt_op(k), 64);
        const float *row = kt_f32(k, 64, KT_NORMAL);
        void *head = kt_bytes(k, s.head_bytes);
        KT_BENCH(k, "64 slots, D 64", 64 * 64 * 8.0,
                 for (size_t slot = 0; slot < 64; slot++) fn(head, 64, slot, row, row));
        kt_reset(k);
    }
}

void check_kv_store_f32(struct kt *k)
{
    check_kv_store(k);
}

void check_kv_store_bf16(struct kt *k)
{
    check_kv_store(k);
}

void check_kv_store_q8(struct kt *k)
{
    check_kv_store(k);
}

/* What is stored is read: a second storing of what was loaded changes nothing. */
static void check_kv_load(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 30, 64, 80, 128, 256 };
    lsk_kv_load_fn *ref = (lsk_kv_load_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_kv_load_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 2 * KT_LEN(dims); i++) {
            const size_t D = dims[i % KT_LEN(dims)], slot = kt_below(k, LSK_PAGE);
            const struct shape s = shape_of(kt_op(k), D);
            const void *head = random_head(k, &s, D);
            float *key = kt_f32(k, D, KT_FILL), *value = kt_f32(k, D, KT_FILL);
            float *want_k = kt_f32(k, D, KT_FILL), *want_v = kt_f32(k, D, KT_FILL);
            void *again = kt_copy(k, head, s.head_bytes);

            ref(head, D, slot, want_k, want_v);
            fn(head, D, slot, key, NULL);
            fn(head, D, slot, NULL, value);
            kt_equal(k, key, want_k, D * sizeof *key, "key");
            kt_equal(k, value, want_v, D * sizeof *value, "value");
            if (!strstr(kt_op(k), "q8")) { /* the scale of 8 bits is rounded anew */
                s.store(again, D, slot, key, value);
                kt_equal(k, again, head, s.head_bytes, "head");
            }
            kt_reset(k);
        }
    }
}

void check_kv_load_f32(struct kt *k)
{
    check_kv_load(k);
}

void check_kv_load_bf16(struct kt *k)
{
    check_kv_load(k);
}

void check_kv_load_q8(struct kt *k)
{
    check_kv_load(k);
}

void check_kv_q8_to_bf16(struct kt *k)
{
    static const size_t dims[] = { 16, 64, 80, 128, 256 };
    lsk_kv_q8_to_bf16_fn *ref = (lsk_kv_q8_to_bf16_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_kv_q8_to_bf16_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(dims); i++) {
            const struct shape s = shape_of("q8", dims[i]);
            const void *head = random_head(k, &s, dims[i]);
            const size_t bytes = lsk_kv_bf16_head_bytes(dims[i]);
            void *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);

            ref(want, head, dims[i]);
            fn(got, head, dims[i]);
            kt_equal(k, got, want, bytes, "bf16 head");
            KT_BENCH(k, dims[i] == 64 ? "D 64" : "D other", (double)(bytes + s.head_bytes),
                     fn(got, head, dims[i]));
            kt_reset(k);
        }
    }
}

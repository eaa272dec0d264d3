/* Weight kernels: dequantise, quantise, products with stored types. */
#include "kernels/ref/unpack_ref.h"
#include "kt.h"

#include <math.h>
#include <string.h>

struct type {
    const char *name;
    size_t block, bytes;
    lsk_unpack_fn *unpack; /* NULL: a float type */
    lsk_dequant_fn *dequant;
    size_t halves[2]; /* where the scales of a block are; both the same if there is one */
};

static const struct type types[] = {
    { "f32", 1, 4, NULL, lsk_dequant_f32_ref, { 0, 0 } },
    { "f16", 1, 2, NULL, lsk_dequant_f16_ref, { 0, 0 } },
    { "bf16", 1, 2, NULL, lsk_dequant_bf16_ref, { 0, 0 } },
    { "q8_0", 32, 34, lsk_unpack_q8_0, lsk_dequant_q8_0_ref, { 0, 0 } },
    { "q4_0", 32, 18, lsk_unpack_q4_0, lsk_dequant_q4_0_ref, { 0, 0 } },
    { "q4_1", 32, 20, lsk_unpack_q4_1, lsk_dequant_q4_1_ref, { 0, 2 } },
    { "q5_0", 32, 22, lsk_unpack_q5_0, lsk_dequant_q5_0_ref, { 0, 0 } },
    { "q5_1", 32, 24, lsk_unpack_q5_1, lsk_dequant_q5_1_ref, { 0, 2 } },
    { "q4_k", 256, 144, lsk_unpack_q4_k, lsk_dequant_q4_k_ref, { 0, 2 } },
    { "q5_k", 256, 176, lsk_unpack_q5_k, lsk_dequant_q5_k_ref, { 0, 2 } },
    { "q6_k", 256, 210, lsk_unpack_q6_k, lsk_dequant_q6_k_ref, { 208, 208 } },
};

/* The type an operation is for: what its name ends in. */
static const struct type *type_of_op(const struct kt *k)
{
    const char *suffix = strrchr(kt_op(k), '_') + 1;
    const size_t len = strlen(suffix) == 1 ? 4 : strlen(suffix);
    const char *name = kt_op(k) + strlen(kt_op(k)) - len;

    for (size_t i = 0; i < KT_LEN(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

/* Random bytes as codes; scales of all sizes, some of them zero or subnormal. */
static void fill_row(struct kt *k, const struct type *t, unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n / t->block; i++, p += t->bytes) {
        for (size_t j = 0; j < t->bytes; j++)
            p[j] = (unsigned char)kt_rand(k);
        if (strcmp(t->name, "f32") == 0) {
            const float v = (float)kt_normal(k);
            memcpy(p, &v, sizeof v);
        } else if (strcmp(t->name, "bf16") == 0) {
            const lsi_bf16 v = lsi_bf16_from_f32((float)kt_normal(k));
            memcpy(p, &v, sizeof v);
        } else {
            for (size_t h = 0; h < 2; h++) {
                const double size = (double[]){ 0.02, 1.0, 1e-5, 0.0, 0.1 }[kt_below(k, 5)];
                const lsi_f16 v = lsi_f16_from_f32((float)(kt_normal(k) * size));
                memcpy(p + t->halves[h], &v, sizeof v);
            }
        }
    }
}

static unsigned char *make_rows(struct kt *k, const struct type *t, size_t n_rows, size_t n, size_t row_bytes)
{
    const size_t used = n / t->block * t->bytes;
    unsigned char *w = kt_bytes(k, n_rows == 0 ? 0 : (n_rows - 1) * row_bytes + used);
    for (size_t r = 0; r < n_rows; r++)
        fill_row(k, t, w + r * row_bytes, n);
    return w;
}

/* ---- values of rows ------------------------------------------------------------- */

static size_t pick_size(const struct type *t, size_t i)
{
    static const size_t floats[] = { 0, 1, 7, 15, 16, 17, 31, 33, 64, 576 };
    static const size_t blocks[] = { 0, 1, 2, 3, 4, 5, 7, 8, 18, 20 };
    return t->block == 1 ? floats[i] : blocks[i] * t->block;
}
#define N_SIZES 10

static void check_dequant(struct kt *k)
{
    const struct type *t = type_of_op(k);
    lsk_dequant_fn *ref = (lsk_dequant_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_dequant_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 3 * N_SIZES; i++) {
            const size_t n = pick_size(t, i % N_SIZES);
            const unsigned char *row = make_rows(k, t, 1, n, 0);
            float *want = kt_f32(k, n, KT_FILL), *got = kt_f32(k, n, KT_FILL);

            ref(want, row, n);
            fn(got, row, n);
            kt_near(k, got, want, n, 0.0, 0.0, "y");
            kt_equal(k, got, want, n * sizeof *got, "y");
            kt_reset(k);
        }
        const size_t n = 16384;
        const unsigned char *row = make_rows(k, t, 1, n, 0);
        float *y = kt_f32(k, n, KT_FILL);
        KT_BENCH_FLOPS(k, "16384 (weights as flop)", 4.0 * (double)n, (double)n, fn(y, row, n));
    }
}

static void check_dequant_to_bf16(struct kt *k)
{
    const struct type *t = type_of_op(k);
    lsk_dequant_bf16_fn *ref = (lsk_dequant_bf16_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_dequant_bf16_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 3 * N_SIZES; i++) {
            const size_t n = pick_size(t, i % N_SIZES);
            const unsigned char *row = make_rows(k, t, 1, n, 0);
            lsi_bf16 *want = kt_bf16(k, n, KT_FILL), *got = kt_bf16(k, n, KT_FILL);

            ref(want, row, n);
            fn(got, row, n);
            kt_equal(k, got, want, n * sizeof *got, "y");
            kt_reset(k);
        }
        const size_t n = 16384;
        const unsigned char *row = make_rows(k, t, 1, n, 0);
        lsi_bf16 *y = kt_bf16(k, n, KT_FILL);
        KT_BENCH_FLOPS(k, "16384 (weights as flop)", 2.0 * (double)n, (double)n, fn(y, row, n));
    }
}

/* The largest error a stored value may have, from the scale of its block. */
static double step_of(const struct type *t, const unsigned char *row, size_t i, double x)
{
    if (strcmp(t->name, "f32") == 0)
        return 0.0;
    if (strcmp(t->name, "f16") == 0)
        return fabs(x) * 0x1p-11 + 0x1p-25;
    if (strcmp(t->name, "bf16") == 0)
        return fabs(x) * 0x1p-8;
    const unsigned char *block = row + i / 32 * t->bytes;
    const double d = fabs((double)lsk_ref_half(block));
    const double min = t->halves[1] ? fabs((double)lsk_ref_half(block + t->halves[1])) : 0;
    /* Half a step and the rounding of scale and minimum to half; Q4_0 and Q5_0 cut their largest positive
     * value by a step. */
    return (strcmp(t->name, "q4_0") == 0 ? 1.0 : 0.5) * d * 1.04 + (fabs(x) + min) * 0x1p-9 + 1e-6;
}

static void check_quantize(struct kt *k)
{
    const struct type *t = type_of_op(k);
    lsk_quantize_fn *ref = (lsk_quantize_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_quantize_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 4 * N_SIZES; i++) {
            const enum kt_fill fills[] = { KT_NORMAL, KT_UNIFORM, KT_SPARSE, KT_ZERO };
            const size_t n = pick_size(t, i % N_SIZES), bytes = n / t->block * t->bytes;
            const float *x = kt_f32(k, n, fills[i / N_SIZES]);
            unsigned char *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);
            float *back = kt_f32(k, n, KT_FILL);

            ref(want, x, n);
            fn(got, x, n);
            kt_equal(k, got, want, bytes, "row");
            t->dequant(back, got, n);
            for (size_t j = 0; j < n; j++)
                kt_within(k, (double)back[j], (double)x[j], step_of(t, got, j, (double)x[j]), "value stored",
                          j);
            kt_reset(k);
        }
    }
}

/* ---- fitted types --------------------------------------------------------------------- */

/* Values that are hard to fit, of size `size`. */
enum odd {
    ODD_NORMAL,
    ODD_UNIFORM,
    ODD_SPARSE,
    ODD_CONSTANT, /* one value for each run of 32, of either sign */
    ODD_POSITIVE, /* a narrow range far from 0 */
    ODD_OUTLIER,  /* one value in a run is a thousand times the others */
    ODD_SIZES,    /* runs of very different sizes */
    N_ODD
};

static void fill_odd(struct kt *k, float *x, size_t n, enum odd what, float size)
{
    float run = 0;
    for (size_t i = 0; i < n; i++) {
        const float z = (float)kt_normal(k);
        if (i % 32 == 0)
            run = what == ODD_SIZES ? powf(10.0f, z) : z;
        switch (what) {
        case ODD_UNIFORM:
            x[i] = (float)kt_below(k, 2001) / 1000.0f - 1.0f;
            break;
        case ODD_SPARSE:
            x[i] = kt_below(k, 10) > 0 ? 0.0f : z;
            break;
        case ODD_CONSTANT:
            x[i] = run;
            break;
        case ODD_POSITIVE:
            x[i] = 10.0f + 0.1f * z;
            break;
        case ODD_OUTLIER:
            x[i] = i % 32 == 7 ? 1000.0f * z : z;
            break;
        case ODD_SIZES:
            x[i] = run * z;
            break;
        default:
            x[i] = z;
        }
        x[i] *= size;
    }
}

/* Of values that are normally distributed, the root mean square of what is lost, of that of the values. */
static double normal_error(const struct type *t)
{
    return strcmp(t->name, "q6_k") == 0 ? 0.021 : strcmp(t->name, "q4_k") == 0 ? 0.08 : 0.045;
}

/*
 * A value lies within a step of its run: its own number, but at least 1, of the block's scale (and as much of
 * the block's minima). Q6_K may cut one value of a small run for the good of the others. Values beyond the
 * numbers that halves can be are cut, and are numbers.
 */
static void check_block(struct kt *k, const struct type *t, const unsigned char *p, const float *x,
                        const float *back, bool huge)
{
    struct lsk_ref_block o;
    const bool six = strcmp(t->name, "q6_k") == 0;
    const bool two = t->block == 256; /* scales of scales */
    const double d = two ? (double)lsk_ref_half(p + t->halves[0]) : 0;
    const double dmin = two && !six ? (double)lsk_ref_half(p + 2) : 0;

    t->unpack(&o, p);
    for (size_t i = 0; i < t->block; i++) {
        const double step = fmax(fabs((double)o.a[i / 16]), d) + dmin, want = (double)x[i];
        kt_within(k, isfinite(back[i]) ? 0 : 1, 0, 0, "a value that is no number", i);
        if (!huge)
            kt_within(k, (double)back[i], want,
                      (six ? 2.5 : 1.02) * step + (two ? 1e-6 : 0x1p-11) * fabs(want) + 0x1p-24,
                      "value stored", i);
    }
}

static double rms_error(const float *x, const float *back, size_t n)
{
    double squares = 0, errors = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        errors += ((double)back[i] - (double)x[i]) * ((double)back[i] - (double)x[i]);
    }
    return sqrt(errors / squares);
}

static void check_quantize_fit(struct kt *k)
{
    static const float sizes[] = { 1, 0.02f, 1e-4f, 1e-7f, 1e-30f, 1e-42f, 0, 1e12f, 1e30f };
    const struct type *t = type_of_op(k);
    lsk_quantize_fn *ref = (lsk_quantize_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_quantize_fn *)kt_next(k)) != NULL)
        for (size_t i = 0; i < N_ODD * KT_LEN(sizes); i++) {
            const enum odd what = (enum odd)(i % N_ODD);
            const size_t n = pick_size(t, i % N_SIZES), bytes = n / t->block * t->bytes;
            float *x = kt_f32(k, n, KT_FILL), *back = kt_f32(k, n, KT_FILL);
            unsigned char *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);

            fill_odd(k, x, n, what, sizes[i / N_ODD]);
            ref(want, x, n);
            fn(got, x, n);
            kt_equal(k, got, want, bytes, "row");
            t->dequant(back, got, n);
            for (size_t b = 0; b < n / t->block; b++)
                check_block(k, t, got + b * t->bytes, x + b * t->block, back + b * t->block,
                            sizes[i / N_ODD] > 1e9f);
            if (what == ODD_NORMAL && i / N_ODD < 2 && n > 0)
                kt_within(k, rms_error(x, back, n), 0, normal_error(t), "error of normal values", n);
            kt_reset(k);
        }
}

void check_quantize_act(struct kt *k)
{
    static const size_t sizes[] = { 0, 32, 64, 96, 576, 640 };
    lsk_quantize_act_fn *ref = (lsk_quantize_act_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_quantize_act_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)], nb = n / 32;
            float *x = kt_f32(k, n, (enum kt_fill)(i / KT_LEN(sizes)));
            int8_t *q = kt_bytes(k, n), *want_q = kt_bytes(k, n);
            float *d = kt_f32(k, nb, KT_FILL), *want_d = kt_f32(k, nb, KT_FILL);
            float *s = kt_f32(k, nb, KT_FILL), *want_s = kt_f32(k, nb, KT_FILL);

            if (n > 64) { /* an infinity, and a run too small to have a scale */
                x[5] = INFINITY;
                for (size_t j = 32; j < 64; j++)
                    x[j] = 1e-39f;
            }
            ref(want_q, want_d, want_s, x, n);
            fn(q, d, s, x, n);
            kt_equal(k, q, want_q, n, "q");
            kt_near(k, d, want_d, nb, 0.0, 0.0, "d");
            kt_near(k, s, want_s, nb, 0.0, 0.0, "s");
            kt_reset(k);
        }
        const size_t n = 2048;
        const float *x = kt_f32(k, n, KT_NORMAL);
        int8_t *q = kt_bytes(k, n);
        float *d = kt_f32(k, n / 32, KT_FILL), *s = kt_f32(k, n / 32, KT_FILL);
        KT_BENCH(k, "2048", 5.0 * (double)n, fn(q, d, s, x, n));
    }
}

/* ---- products ---------------------------------------------------------------------- */

/* Of fp32: rounding of each of the up to 2048 / 32 sums of one lane, seen at random. */
#define SUM_EPS 2e-6

/* One product to test: shapes, strides, and what is expected within what. */
struct product {
    size_t n_in, n_out, n_rows, ldy, row_bytes;
    const unsigned char *w;
    double *sum, *abs; /* [n_rows][n_out] */
};

static void make_product(struct kt *k, const struct type *t, struct product *p)
{
    static const size_t floats[] = { 0, 1, 15, 16, 33, 64, 100, 576 };
    static const size_t blocks[] = { 0, 1, 2, 3, 4, 5, 18, 20 };
    static const size_t outs[] = { 0, 1, 2, 3, 4, 5, 7, 9, 13 };
    const size_t i = kt_below(k, KT_LEN(floats));

    p->n_in = t->block == 1 ? floats[i] : t->block == 32 ? 32 * blocks[i] : 256 * (i % 4);
    p->n_out = outs[kt_below(k, KT_LEN(outs))];
    p->n_rows = 1 + kt_below(k, LSK_MATVEC_ROWS);
    p->ldy = p->n_out + kt_below(k, 3);
    p->row_bytes = p->n_in / t->block * t->bytes + 2 * kt_below(k, 3);
    p->w = make_rows(k, t, p->n_out, p->n_in, p->row_bytes);
    p->sum = kt_bytes(k, p->n_rows * p->n_out * sizeof(double));
    p->abs = kt_bytes(k, p->n_rows * p->n_out * sizeof(double));
}

/* Values within their bounds, and nothing written between the rows. */
static void judge(struct kt *k, const struct product *p, const float *y)
{
    for (size_t r = 0; r < p->n_rows; r++)
        for (size_t o = 0; o < p->ldy && r * p->ldy + o < (p->n_rows - 1) * p->ldy + p->n_out; o++) {
            const float v = y[r * p->ldy + o];
            const size_t at = r * p->n_out + o;
            if (o < p->n_out)
                kt_within(k, (double)v, p->sum[at], SUM_EPS * p->abs[at] + 1e-30, "y", at);
            else if (!isnan(v))
                kt_fail(k, "wrote %g behind row %zu of y", (double)v, r);
        }
}

static size_t y_size(const struct product *p)
{
    return (p->n_rows - 1) * p->ldy + p->n_out;
}

static void expect_f32(struct kt *k, const struct type *t, struct product *p, const float *x, size_t ldx)
{
    float *row = kt_f32(k, p->n_in, KT_FILL);

    for (size_t o = 0; o < p->n_out; o++) {
        t->dequant(row, p->w + o * p->row_bytes, p->n_in);
        for (size_t r = 0; r < p->n_rows; r++) {
            double sum = 0.0, abs = 0.0;
            for (size_t i = 0; i < p->n_in; i++) {
                const double term = (double)row[i] * (double)x[r * ldx + i];
                sum += term;
                abs += fabs(term);
            }
            p->sum[r * p->n_out + o] = sum;
            p->abs[r * p->n_out + o] = abs;
        }
    }
    if (t->unpack) /* value = a v + b, and both parts are rounded */
        for (size_t i = 0; i < p->n_rows * p->n_out; i++)
            p->abs[i] *= 4.0;
}

static void bench_f32(struct kt *k, const struct type *t, lsk_matvec_f32_fn *fn)
{
    const size_t n_in = 1536, row_bytes = n_in / t->block * t->bytes, n_out = ((size_t)512 << 10) / row_bytes;
    if (!kt_bench_wanted(k))
        return;
    const unsigned char *w = make_rows(k, t, n_out, n_in, row_bytes);
    const float *x = kt_f32(k, 8 * n_in, KT_NORMAL);
    float *y = kt_f32(k, 8 * n_out, KT_FILL);
    const double bytes = (double)(n_out * row_bytes);

    KT_BENCH(k, "1 row, 512 KiB of weights", bytes, fn(y, n_out, w, row_bytes, n_out, x, n_in, 1, n_in));
    KT_BENCH(k, "4 rows, 512 KiB of weights", bytes, fn(y, n_out, w, row_bytes, n_out, x, n_in, 4, n_in));
}

static void check_matvec_f32(struct kt *k)
{
    const struct type *t = type_of_op(k);
    lsk_matvec_f32_fn *fn;

    while ((fn = (lsk_matvec_f32_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 60; i++) {
            struct product p;
            make_product(k, t, &p);
            const size_t ldx = p.n_in + kt_below(k, 4);
            const float *x = kt_f32(k, (p.n_rows - 1) * ldx + p.n_in, KT_NORMAL);
            float *y = kt_f32(k, y_size(&p), KT_FILL), *alone = kt_f32(k, 1, KT_FILL);

            expect_f32(k, t, &p, x, ldx);
            fn(y, p.ldy, p.w, p.row_bytes, p.n_out, x, ldx, p.n_rows, p.n_in);
            judge(k, &p, y);
            for (size_t r = 0; r < p.n_rows; r++)
                for (size_t o = 0; o < p.n_out; o++) {
                    fn(alone, 1, p.w + o * p.row_bytes, p.row_bytes, 1, x + r * ldx, ldx, 1, p.n_in);
                    kt_equal(k, &y[r * p.ldy + o], alone, sizeof *y, "value computed alone");
                }
            kt_reset(k);
        }
        bench_f32(k, t, fn);
    }
}

/* Rows of 8-bit activations, as quantize_act makes them. */
static void make_q8(struct kt *k, struct lsk_q8 *x, size_t n_rows, size_t n_in, enum kt_fill fill)
{
    for (size_t r = 0; r < n_rows; r++) {
        const float *v = kt_f32(k, n_in, fill);
        x[r].q = kt_bytes(k, n_in);
        x[r].d = kt_f32(k, n_in / 32, KT_FILL);
        x[r].s = kt_f32(k, n_in / 32, KT_FILL);
        lsk_quantize_act_ref(x[r].q, x[r].d, x[r].s, v, n_in);
    }
}

static void expect_q8(const struct type *t, struct product *p, const struct lsk_q8 *x)
{
    for (size_t at = 0; at < p->n_rows * p->n_out; at++) {
        const struct lsk_q8 *xr = &x[at / p->n_out];
        const unsigned char *row = p->w + at % p->n_out * p->row_bytes;
        double sum = 0.0, abs = 0.0;

        for (size_t i = 0; i < p->n_in; i++) {
            static struct lsk_ref_block u;
            const size_t j = i % t->block;
            if (j == 0)
                t->unpack(&u, row + i / t->block * t->bytes);
            const double xi = (double)xr->d[i / 32] * xr->q[i];
            const double av = (double)u.a[j / 16] * u.v[j] * xi, b = (double)u.b[j / 16] * xi;
            sum += av + b;
            abs += fabs(av) + fabs(b);
        }
        p->sum[at] = sum;
        p->abs[at] = abs;
    }
}

static void bench_q8(struct kt *k, const struct type *t, lsk_matvec_q8_fn *fn)
{
    const size_t n_in = 1536, row_bytes = n_in / t->block * t->bytes, n_out = ((size_t)512 << 10) / row_bytes;
    const size_t n_far = ((size_t)256 << 20) / row_bytes;
    if (!kt_bench_wanted(k))
        return;
    const unsigned char *w = make_rows(k, t, n_out, n_in, row_bytes);
    unsigned char *far = kt_bytes(k, n_far * row_bytes);
    float *y = kt_f32(k, n_far, KT_FILL);
    const double bytes = (double)(n_out * row_bytes), far_bytes = (double)(n_far * row_bytes);
    struct lsk_q8 x[8];

    make_q8(k, x, 8, n_in, KT_NORMAL);
    for (size_t o = 0; o < n_far; o += n_out)
        memcpy(far + o * row_bytes, w, (n_far - o < n_out ? n_far - o : n_out) * row_bytes);
    KT_BENCH(k, "1 row, 512 KiB of weights", bytes, fn(y, n_out, w, row_bytes, n_out, x, 1, n_in));
    KT_BENCH(k, "1 row, 256 MiB of weights", far_bytes, fn(y, n_far, far, row_bytes, n_far, x, 1, n_in));
    KT_BENCH(k, "4 rows, 512 KiB of weights", bytes, fn(y, n_out, w, row_bytes, n_out, x, 4, n_in));
    KT_BENCH(k, "8 rows, 512 KiB of weights", bytes, fn(y, n_out, w, row_bytes, n_out, x, 8, n_in));
}

static void check_matvec_q8(struct kt *k)
{
    const struct type *t = type_of_op(k);
    lsk_matvec_q8_fn *fn;

    while ((fn = (lsk_matvec_q8_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 60; i++) {
            struct product p;
            struct lsk_q8 x[LSK_MATVEC_ROWS];
            make_product(k, t, &p);
            make_q8(k, x, p.n_rows, p.n_in, (enum kt_fill)(KT_ZERO + i % (KT_N_FILLS - KT_ZERO)));
            float *y = kt_f32(k, y_size(&p), KT_FILL), *alone = kt_f32(k, 1, KT_FILL);

            expect_q8(t, &p, x);
            fn(y, p.ldy, p.w, p.row_bytes, p.n_out, x, p.n_rows, p.n_in);
            judge(k, &p, y);
            for (size_t r = 0; r < p.n_rows; r++)
                for (size_t o = 0; o < p.n_out; o++) {
                    fn(alone, 1, p.w + o * p.row_bytes, p.row_bytes, 1, &x[r], 1, p.n_in);
                    kt_equal(k, &y[r * p.ldy + o], alone, sizeof *y, "value computed alone");
                }
            kt_reset(k);
        }
        bench_q8(k, t, fn);
    }
}

#define CHECK_OP(op, check)       \
    void check_##op(struct kt *k) \
    {                             \
        check(k);                 \
    }
#define CHECK_FLOAT(type)                                \
    CHECK_OP(dequant_##type, check_dequant)              \
    CHECK_OP(dequant_bf16_##type, check_dequant_to_bf16) \
    CHECK_OP(matvec_f32_##type, check_matvec_f32)
#define CHECK_QUANTISED(type) \
    CHECK_FLOAT(type)         \
    CHECK_OP(matvec_q8_##type, check_matvec_q8)

CHECK_FLOAT(f32)
CHECK_FLOAT(f16)
CHECK_FLOAT(bf16)
CHECK_QUANTISED(q8_0)
CHECK_QUANTISED(q4_0)
CHECK_QUANTISED(q4_1)
CHECK_QUANTISED(q5_0)
CHECK_QUANTISED(q5_1)
CHECK_QUANTISED(q4_k)
CHECK_QUANTISED(q5_k)
CHECK_QUANTISED(q6_k)
CHECK_OP(quantize_f32, check_quantize)
CHECK_OP(quantize_f16, check_quantize)
CHECK_OP(quantize_bf16, check_quantize)
CHECK_OP(quantize_q8_0, check_quantize)
CHECK_OP(quantize_q4_0, check_quantize)
CHECK_OP(quantize_q4_1, check_quantize)
CHECK_OP(quantize_q5_0, check_quantize_fit)
CHECK_OP(quantize_q5_1, check_quantize_fit)
CHECK_OP(quantize_q4_k, check_quantize_fit)
CHECK_OP(quantize_q5_k, check_quantize_fit)
CHECK_OP(quantize_q6_k, check_quantize_fit)

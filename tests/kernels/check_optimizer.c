/* Kernels of the optimizer. */
#include "kt.h"

#include <math.h>
#include <string.h>

static const size_t sizes[] = { 0, 1, 7, 8, 9, 16, 17, 33, 255, 256, 257, 511, 512, 1000, 1024, 2049 };

void check_sum_squares(struct kt *k)
{
    lsk_sum_squares_fn *ref = (lsk_sum_squares_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_sum_squares_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *x = kt_f32(k, n, fill);
            const double want = ref(x, n);
            kt_within(k, fn(x, n), want, 1e-14 * want, "sum", 0);
            if (n > 0) {
                x[n / 2] = INFINITY;
                if (!isinf(fn(x, n)))
                    kt_fail(k, "an infinity among %zu is lost", n);
                x[kt_below(k, n)] = NAN;
                if (!isnan(fn(x, n)))
                    kt_fail(k, "a NaN among %zu is lost", n);
            }
            kt_reset(k);
        }
        float *x = kt_f32(k, 16384, KT_NORMAL);
        volatile double sink;
        KT_BENCH(k, "16384", 16384 * 4.0, sink = fn(x, 16384));
        (void)sink;
        kt_reset(k);
    }
}

static void check_adamw_case(struct kt *k, size_t n, enum kt_fill fill, lsk_adamw_fn *fn)
{
    lsk_adamw_fn *ref = (lsk_adamw_fn *)kt_ref(k);
    const struct lsk_adamw p = { 0.25f, 0.9f, 0.1f, 0.999f, 0.001f, 0.01f, 0.01f, 3.0f, 1e-8f };
    float *g = kt_f32(k, n, fill), *w = kt_f32(k, n, KT_NORMAL), *m = kt_f32(k, n, KT_UNIFORM);
    float *v = kt_f32(k, n, KT_UNIFORM);

    for (size_t i = 0; i < n; i++)
        v[i] = i % 7 == 0 ? 0.0f : v[i] * v[i];
    const size_t bytes = n * sizeof *w;
    float *want_w = kt_copy(k, w, bytes), *want_m = kt_copy(k, m, bytes), *want_v = kt_copy(k, v, bytes);
    float *got_w = kt_copy(k, w, bytes), *got_m = kt_copy(k, m, bytes), *got_v = kt_copy(k, v, bytes);
    ref(want_w, want_m, want_v, g, n, &p);
    fn(got_w, got_m, got_v, g, n, &p);
    for (size_t i = 0; i < n; i++) {
        const double h = 0.25 * fabs((double)g[i]);
        const double size_m = 0.9 * fabs((double)m[i]) + 0.1 * h;
        const double below = 3.0 * sqrt((double)want_v[i]) + 1e-8;
        kt_within(k, (double)got_m[i], (double)want_m[i], 5e-7 * size_m, "m", i);
        kt_within(k, (double)got_v[i], (double)want_v[i], 5e-7 * fabs((double)want_v[i]) + 1e-38, "v", i);
        kt_within(k, (double)got_w[i], (double)want_w[i], 5e-7 * (fabs((double)w[i]) + 0.01 * size_m / below),
                  "w", i);
    }
}

void check_adamw(struct kt *k)
{
    lsk_adamw_fn *fn;

    while ((fn = (lsk_adamw_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            check_adamw_case(k, sizes[i % KT_LEN(sizes)], fill, fn);
            kt_reset(k);
        }
        const struct lsk_adamw p = { 1.0f, 0.9f, 0.1f, 0.999f, 0.001f, 0.0f, 1e-3f, 3.0f, 1e-8f };
        float *w = kt_f32(k, 8192, KT_NORMAL), *m = kt_f32(k, 8192, KT_NORMAL), *v = kt_f32(k, 8192, KT_ZERO);
        float *g = kt_f32(k, 8192, KT_NORMAL);
        KT_BENCH(k, "8192", 8192 * 28.0, fn(w, m, v, g, 8192, &p));
        kt_reset(k);
    }
}

void check_round_bf16(struct kt *k)
{
    lsk_round_bf16_fn *ref = (lsk_round_bf16_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_round_bf16_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const uint64_t key = kt_rand(k), first = kt_rand(k) / 256 * 256;
            float *x = kt_f32(k, n, (enum kt_fill)(i / KT_LEN(sizes)));
            uint16_t *want = kt_bf16(k, n, KT_FILL), *got = kt_bf16(k, n, KT_FILL);

            if (n > 8) {
                x[n / 2] = INFINITY;
                x[n / 3] = lsi_f32_from_bits(0x7f800001u); /* a NaN in the bits that are cut off */
            }
            ref(want, x, n, key, first);
            fn(got, x, n, key, first);
            kt_equal(k, got, want, n * sizeof *got, "y");
            for (size_t j = 0; j < n; j++)
                if (isnan(x[j]) != isnan(lsi_bf16_to_f32(got[j])))
                    kt_fail(k, "element %zu: %g became %g", j, (double)x[j], (double)lsi_bf16_to_f32(got[j]));
            /* A call may begin at any run. */
            if (n > 256) {
                fn(got, x + 256, n - 256, key, first + 256);
                kt_equal(k, got, want + 256, (n - 256) * sizeof *got, "y in two calls");
            }
            kt_reset(k);
        }
        float *x = kt_f32(k, 8192, KT_NORMAL);
        uint16_t *y = kt_bf16(k, 8192, KT_FILL);
        KT_BENCH(k, "8192", 8192 * 6.0, fn(y, x, 8192, 1, 0));
        kt_reset(k);
    }
}

/* ---- moments in 8 bits ----------------------------------------------------------- */

/* u of optimizer.h, in double. */
static double u_of(int code, int E)
{
    const int t = code < 0 ? -code : code;
    int e = 0;

    if (t == 0)
        return 0.0;
    while (t >> (e + 1))
        e++;
    const double part = ldexp(1.0, e), u = pow(10.0, e - E) * (0.1 + 0.9 * (t - part + 0.5) / part);
    return code < 0 ? -u : u;
}

/* The second moments of gradients x, or x. */
static float *moments(struct kt *k, size_t n, enum kt_fill fill, bool second)
{
    float *x = kt_f32(k, n, fill);
    for (size_t i = 0; i < n && second; i++)
        x[i] *= x[i];
    return x;
}

static void check_load(struct kt *k, bool second)
{
    lsk_dynamic8_load_fn *ref = (lsk_dynamic8_load_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_dynamic8_load_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes); i++) {
            const size_t n = sizes[i];
            uint8_t *codes = kt_bytes(k, n);
            float *scales = kt_f32(k, (n + 255) / 256, KT_NORMAL);
            float *want = kt_f32(k, n, KT_FILL), *got = kt_f32(k, n, KT_FILL);

            for (size_t j = 0; j < n; j++)
                codes[j] = (uint8_t)(second || (j & 255) != 128 ? j : 0); /* -128 is no code */
            ref(want, codes, scales, n);
            fn(got, codes, scales, n);
            kt_equal(k, got, want, n * sizeof *got, "x");
            for (size_t j = 0; j < n; j++) {
                const double u = second ? u_of(codes[j], 7) : u_of((int8_t)codes[j], 6);
                const double x = u * (double)scales[j / 256];
                kt_within(k, (double)got[j], x, 1e-6 * fabs(x), "x by the formula", j);
            }
            kt_reset(k);
        }
        uint8_t *codes = kt_bytes(k, 8192);
        float *scales = kt_f32(k, 32, KT_NORMAL), *x = kt_f32(k, 8192, KT_FILL);
        KT_BENCH(k, "8192", 8192 * 5.0, fn(x, codes, scales, 8192));
        kt_reset(k);
    }
}

/* |x - scale u(code)| against the nearest of all codes. */
static void check_nearest(struct kt *k, const float *x, const uint8_t *codes, const float *scales, size_t n,
                          bool second)
{
    double map[256];
    int n_map = 0;

    for (int c = second ? 1 : -127; c <= (second ? 255 : 127); c++)
        map[n_map++] = second ? u_of(c, 7) : u_of(c, 6);
    for (size_t i = 0; i < n; i++) {
        const double scale = (double)scales[i / 256], v = (double)x[i];
        const double got = scale * (second ? u_of(codes[i], 7) : u_of((int8_t)codes[i], 6));
        double best = second && v == 0.0 ? 0.0 : INFINITY;
        for (int c = 0; c < n_map; c++)
            best = fmin(best, fabs(v - scale * map[c]));
        kt_within(k, fabs(v - got), best, 2e-6 * fabs(v) + (scale == 0.0 ? 0x1p-120 : 0.0), "distance", i);
        if (second && scale != 0.0 && (codes[i] == 0) != (v == 0.0))
            kt_fail(k, "element %zu: %g has code %d", i, v, codes[i]);
    }
}

static void check_store(struct kt *k, bool second)
{
    lsk_dynamic8_store_fn *ref = (lsk_dynamic8_store_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_dynamic8_store_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)], n_blocks = (n + 255) / 256;
            float *x = moments(k, n, (enum kt_fill)(i / KT_LEN(sizes)), second);
            uint8_t *want = kt_bytes(k, n), *got = kt_bytes(k, n);
            float *want_scales = kt_f32(k, n_blocks, KT_FILL), *got_scales = kt_f32(k, n_blocks, KT_FILL);

            if (i % 5 == 4 && n > 300) /* blocks that are no numbers, and tiny ones */
                x[299] = i % 2 ? INFINITY : NAN;
            for (size_t j = 0; j < n && j < 256 && i % 5 == 3; j++)
                x[j] *= 0x1p-125f;
            ref(want, want_scales, x, n);
            fn(got, got_scales, x, n);
            kt_equal(k, got_scales, want_scales, n_blocks * sizeof *got_scales, "scales");
            kt_equal(k, got, want, n, "codes");
            for (size_t b = 0; b < n_blocks; b++)
                if (!isnan(got_scales[b]))
                    check_nearest(k, x + b * 256, got + b * 256, got_scales + b,
                                  n - b * 256 < 256 ? n - b * 256 : 256, second);
            kt_reset(k);
        }
        float *x = moments(k, 8192, KT_NORMAL, second), *scales = kt_f32(k, 32, KT_FILL);
        uint8_t *codes = kt_bytes(k, 8192);
        KT_BENCH(k, "8192", 8192 * 5.0, fn(codes, scales, x, 8192));
        kt_reset(k);
    }
}

void check_dynamic8_load(struct kt *k)
{
    check_load(k, false);
}

void check_dynamic8u_load(struct kt *k)
{
    check_load(k, true);
}

void check_dynamic8_store(struct kt *k)
{
    check_store(k, false);
}

void check_dynamic8u_store(struct kt *k)
{
    check_store(k, true);
}

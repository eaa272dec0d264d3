/* Row kernels: normalisation, gated units, rotary embedding, sums of exponentials. */
#include "kt.h"

#include <math.h>
#include <string.h>

static const size_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 576, 1023, 4096 };

static void check_norm(struct kt *k, bool add)
{
    lsk_rmsnorm_fn *ref = (lsk_rmsnorm_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_rmsnorm_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *x = kt_f32(k, n, fill), *gain = kt_f32(k, n, KT_NORMAL);
            float *want = kt_f32(k, n, KT_UNIFORM), *got = kt_copy(k, want, n * sizeof *want);

            ref(want, x, gain, n, 1e-5f);
            fn(got, x, gain, n, 1e-5f);
            kt_near(k, got, want, n, add ? 4e-6 : 1e-30, 4e-6, "y");
            if (!add) {
                fn(x, x, gain, n, 1e-5f);
                kt_near(k, x, want, n, 1e-30, 4e-6, "y == x");
            }
            kt_reset(k);
        }
        float *x = kt_f32(k, 576, KT_NORMAL), *gain = kt_f32(k, 576, KT_NORMAL), *y = kt_f32(k, 576, KT_ZERO);
        KT_BENCH(k, "576", 576 * 12.0, fn(y, x, gain, 576, 1e-5f));
        kt_reset(k);
    }
}

void check_rmsnorm(struct kt *k)
{
    check_norm(k, false);
}

void check_rmsnorm_add(struct kt *k)
{
    check_norm(k, true);
}

static void check_glu(struct kt *k)
{
    lsk_glu_fn *ref = (lsk_glu_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_glu_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *gate = kt_f32(k, n, fill), *up = kt_f32(k, n, KT_NORMAL);
            float *want = kt_f32(k, n, KT_FILL), *got = kt_f32(k, n, KT_FILL);
            /* Where the curve bends, and far into both tails. */
            for (size_t j = 0; j < n && fill == KT_NORMAL; j++)
                gate[j] *= j % 2 ? 3.0f : 30.0f;

            ref(want, gate, up, n);
            fn(got, gate, up, n);
            kt_near(k, got, want, n, 1e-30, 1e-5, "y");
            fn(gate, gate, up, n);
            kt_near(k, gate, want, n, 1e-30, 1e-5, "y == gate");
            kt_reset(k);
        }
        float *gate = kt_f32(k, 1536, KT_NORMAL), *up = kt_f32(k, 1536, KT_ZERO);
        KT_BENCH(k, "1536", 1536 * 12.0, fn(gate, gate, up, 1536));
        kt_reset(k);
    }
}

void check_glu_silu(struct kt *k)
{
    check_glu(k);
}

void check_glu_gelu(struct kt *k)
{
    check_glu(k);
}

void check_rope_angles(struct kt *k)
{
    static const double positions[] = { 0, 1, 2, 100, 4095, 131072, 1048575, 1073741824 };
    lsk_rope_angles_fn *ref = (lsk_rope_angles_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_rope_angles_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(positions) * 5; i++) {
            const size_t n = (size_t[]){ 1, 5, 32, 40, 128 }[i % 5];
            const double pos = positions[i / 5];
            double *inv_freq = kt_bytes(k, n * sizeof *inv_freq);
            float *c = kt_f32(k, n, KT_FILL), *s = kt_f32(k, n, KT_FILL);
            float *want_c = kt_f32(k, n, KT_FILL), *want_s = kt_f32(k, n, KT_FILL);

            for (size_t j = 0; j < n; j++)
                inv_freq[j] = pow(10000.0, -(double)j / (double)n);
            ref(want_c, want_s, inv_freq, n, pos, 1.25);
            fn(c, s, inv_freq, n, pos, 1.25);
            kt_near(k, c, want_c, n, 2e-7, 0.0, "cosine");
            kt_near(k, s, want_s, n, 2e-7, 0.0, "sine");
            kt_reset(k);
        }
        double *inv_freq = kt_bytes(k, 32 * sizeof *inv_freq);
        float *c = kt_f32(k, 32, KT_FILL), *s = kt_f32(k, 32, KT_FILL);
        for (size_t j = 0; j < 32; j++)
            inv_freq[j] = 1.0 / (double)(j + 1);
        KT_BENCH(k, "32", 32 * 16.0, fn(c, s, inv_freq, 32, 4095.0, 1.0));
        kt_reset(k);
    }
}

void check_rope(struct kt *k)
{
    static const size_t halves[] = { 1, 3, 8, 16, 20, 32, 40, 48, 64, 128 };
    lsk_rope_fn *ref = (lsk_rope_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_rope_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(halves) * 2; i++) {
            const size_t n = halves[i / 2];
            float *want = kt_f32(k, 2 * n, KT_NORMAL), *got = kt_copy(k, want, 2 * n * sizeof *want);
            float *c = kt_f32(k, n, KT_UNIFORM), *s = kt_f32(k, n, KT_UNIFORM);

            ref(want, c, s, n, i % 2);
            fn(got, c, s, n, i % 2);
            kt_near(k, got, want, 2 * n, 1e-6, 1e-6, "x");
            kt_reset(k);
        }
    }
}

void check_logsumexp(struct kt *k)
{
    lsk_logsumexp_fn *ref = (lsk_logsumexp_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_logsumexp_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *x = kt_f32(k, n, fill);
            const double want = ref(x, n);
            kt_within(k, fn(x, n), want, 1e-6 + 1e-12 * fabs(want), "lse", 0);
            x[n / 2] = -INFINITY;
            const double cut = ref(x, n);
            if (n > 1)
                kt_within(k, fn(x, n), cut, 1e-6 + 1e-12 * fabs(cut), "lse with -inf", 0);
            else if (fn(x, n) != cut)
                kt_fail(k, "the sum of nothing is %g", fn(x, n));
            x[n / 2] = NAN;
            if (n > 1 && !isnan(fn(x, n)))
                kt_fail(k, "a NaN among %zu is lost", n);
            kt_reset(k);
        }
        float *x = kt_f32(k, 49152, KT_NORMAL);
        volatile double sink;
        KT_BENCH(k, "49152", 49152 * 4.0, sink = fn(x, 49152));
        (void)sink;
        kt_reset(k);
    }
}

void check_exp2_columns(struct kt *k)
{
    static const size_t counts[] = { 1, 2, 3, 8, 24, 33 };
    lsk_exp2_columns_fn *ref = (lsk_exp2_columns_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_exp2_columns_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * 2; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)], rows = counts[i % KT_LEN(counts)], ld = n + i % 3;
            float *z = kt_f32(k, rows * ld, KT_NORMAL), *base = kt_f32(k, rows, KT_NORMAL);
            float *want = kt_f32(k, n, KT_UNIFORM), *got = kt_copy(k, want, n * sizeof *want);
            for (size_t j = 0; j < rows * ld; j++)
                z[j] = i % 2 && j % 5 == 0 ? -INFINITY : 8.0f * z[j];
            base[rows / 2] = i % 2 ? INFINITY : 100.0f;
            ref(want, z, ld, base, rows, n);
            fn(got, z, ld, base, rows, n);
            for (size_t c = 0; c < n; c++) {
                double size = 1.0;
                for (size_t r = 0; r < rows; r++)
                    size += exp2((double)z[r * ld + c] - (double)base[r]);
                kt_within(k, (double)got[c], (double)want[c], 1e-5 * size, "sum", c);
            }
            kt_reset(k);
        }
        float *z = kt_f32(k, 24 * 256, KT_UNIFORM), *base = kt_f32(k, 24, KT_ZERO),
              *sums = kt_f32(k, 256, KT_ZERO);
        KT_BENCH(k, "24x256", 24 * 256 * 4.0, fn(sums, z, 256, base, 24, 256));
        kt_reset(k);
    }
}

/* The order of the contract, in numbers of which no two are equal without being the same. */
static double order_of(float x)
{
    const double size = isnan(x) ? 1e300 : isinf(x) ? 1e299 : fabs((double)x);
    return !signbit(x) ? size : size == 0.0 ? -1e-300 : -size;
}

static bool is_before(const float *x, size_t i, size_t j)
{
    const double a = order_of(x[i]), b = order_of(x[j]);
    return a > b || (a >= b && i > j);
}

void check_choose(struct kt *k)
{
    lsk_choose_fn *fn;

    while ((fn = (lsk_choose_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * 6; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const size_t m = (size_t[]){ 1, n, 1 + n / 10, 1 + kt_below(k, n) }[i / 2 % 4];
            float *x = kt_f32(k, n, (enum kt_fill)(KT_ZERO + i % (KT_N_FILLS - 1)));
            uint32_t *at = kt_bytes(k, m * sizeof *at);
            for (size_t j = 0; i % 3 == 1 && j < n; j++) /* many equal ones */
                x[j] = truncf(4.0f * x[j]) / 4.0f;
            for (size_t j = 0; i % 5 == 2 && j < n; j += 3)
                x[j] = (float[]){ NAN, -NAN, INFINITY, -INFINITY, -0.0f }[kt_below(k, 5)];
            const float *was = kt_copy(k, x, n * sizeof *x);
            fn(at, x, n, m);
            for (size_t j = 0; j < m; j++)
                if (at[j] >= n || (j > 0 && at[j] <= at[j - 1]))
                    kt_fail(k, "place %zu of %zu is %u of %zu", j, m, at[j], n);
            /* The last of those chosen comes before every other. */
            size_t last = at[0];
            for (size_t j = 1; j < m; j++)
                last = is_before(was, last, at[j]) ? at[j] : last;
            for (size_t j = 0, next = 0; j < n; j++)
                if (next < m && at[next] == j)
                    next++;
                else if (is_before(was, j, last))
                    kt_fail(k, "%zu of %zu: place %zu (%g) was left for place %zu (%g)", m, n, j,
                            (double)was[j], last, (double)was[last]);
            kt_reset(k);
        }
        float *x = kt_f32(k, 2047, KT_UNIFORM), *y = kt_f32(k, 2047, KT_ZERO);
        uint32_t at[204];
        for (size_t j = 0; j < 2047; j++)
            x[j] = exp2f(8.0f * x[j]);
        KT_BENCH(k, "204 of 2047", 2047 * 4.0, (memcpy(y, x, 2047 * sizeof *x), fn(at, y, 2047, 204)));
        kt_reset(k);
    }
}

/* Gradients of row kernels. */
#include "kt.h"

#include <math.h>
#include <string.h>

static const size_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 576, 1023, 4096 };

/* Bound of dx: what rounding may do to the terms of both sums, taken one by one. */
static void check_norm_case(struct kt *k, size_t n, enum kt_fill fill, lsk_rmsnorm_backward_fn *fn)
{
    lsk_rmsnorm_backward_fn *ref = (lsk_rmsnorm_backward_fn *)kt_ref(k);
    float *x = kt_f32(k, n, fill), *gain = kt_f32(k, n, KT_NORMAL), *dy = kt_f32(k, n, KT_NORMAL);
    float *start = kt_f32(k, n, KT_UNIFORM), *dgain = kt_f32(k, n, KT_UNIFORM);
    double square = 0.0, terms = 0.0;

    for (size_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        terms += fabs((double)dy[i] * (double)gain[i] * (double)x[i]);
    }
    const double r = 1.0 / sqrt(square / (double)n + 1e-5), along = r * r * r * terms / (double)n;
    for (int accumulate = 0; accumulate <= 1; accumulate++) {
        float *want = kt_copy(k, start, n * sizeof *start), *got = kt_copy(k, start, n * sizeof *start);
        float *want_gain = kt_copy(k, dgain, n * sizeof *dgain);
        float *got_gain = kt_copy(k, dgain, n * sizeof *dgain), *in_place = kt_copy(k, dy, n * sizeof *dy);

        ref(want, want_gain, dy, x, gain, n, 1e-5f, accumulate);
        fn(got, got_gain, dy, x, gain, n, 1e-5f, accumulate);
        for (size_t i = 0; i < n; i++) {
            const double side = r * fabs((double)gain[i] * (double)dy[i]);
            const double bound = 4e-6 * (side + along * fabs((double)x[i])) + 1e-6;
            kt_within(k, (double)got[i], (double)want[i], bound, "dx", i);
            kt_within(k, (double)got_gain[i], (double)want_gain[i],
                      4e-6 * (1.0 + r * fabs((double)dy[i] * (double)x[i])), "dgain", i);
        }
        if (!accumulate) {
            fn(in_place, NULL, in_place, x, gain, n, 1e-5f, false);
            kt_equal(k, in_place, got, n * sizeof *got, "dx == dy, no dgain");
        }
    }
}

void check_rmsnorm_backward(struct kt *k)
{
    lsk_rmsnorm_backward_fn *fn;

    while ((fn = (lsk_rmsnorm_backward_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            check_norm_case(k, sizes[i % KT_LEN(sizes)], fill, fn);
            kt_reset(k);
        }
        float *x = kt_f32(k, 576, KT_NORMAL), *gain = kt_f32(k, 576, KT_NORMAL);
        float *dx = kt_f32(k, 576, KT_ZERO), *dgain = kt_f32(k, 576, KT_ZERO);
        KT_BENCH(k, "576", 576 * 24.0, fn(dx, dgain, x, x, gain, 576, 1e-5f, false));
        kt_reset(k);
    }
}

static void check_glu_backward(struct kt *k)
{
    lsk_glu_backward_fn *ref = (lsk_glu_backward_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_glu_backward_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)];
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *gate = kt_f32(k, n, fill), *up = kt_f32(k, n, KT_NORMAL), *da = kt_f32(k, n, KT_NORMAL);
            /* Where the curve bends, and far into both tails. */
            for (size_t j = 0; j < n && fill == KT_NORMAL; j++)
                gate[j] *= j % 2 ? 3.0f : 30.0f;
            float *got_gate = kt_copy(k, gate, n * sizeof *gate), *got_up = kt_copy(k, up, n * sizeof *up);
            float *want_gate = kt_copy(k, gate, n * sizeof *gate), *want_up = kt_copy(k, up, n * sizeof *up);

            ref(want_gate, want_up, da, n);
            fn(got_gate, got_up, da, n);
            for (size_t j = 0; j < n; j++) {
                const double size = fabs((double)da[j]);
                kt_within(k, (double)got_gate[j], (double)want_gate[j],
                          1e-5 * size * fabs((double)up[j]) * fmin(1.0 + fabs((double)gate[j]), 8.0), "gate",
                          j);
                kt_within(k, (double)got_up[j], (double)want_up[j],
                          1e-5 * size * fabs((double)gate[j]) + 1e-30, "up", j);
            }
            kt_reset(k);
        }
        float *gate = kt_f32(k, 1536, KT_ZERO), *up = kt_f32(k, 1536, KT_ZERO);
        float *da = kt_f32(k, 1536, KT_NORMAL);
        KT_BENCH(k, "1536", 1536 * 20.0, fn(gate, up, da, 1536));
        kt_reset(k);
    }
}

void check_glu_silu_backward(struct kt *k)
{
    check_glu_backward(k);
}

void check_glu_gelu_backward(struct kt *k)
{
    check_glu_backward(k);
}

void check_cross_entropy(struct kt *k)
{
    lsk_cross_entropy_fn *ref = (lsk_cross_entropy_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_cross_entropy_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)], target = kt_below(k, n);
            const enum kt_fill fill = (enum kt_fill)(i / KT_LEN(sizes));
            if (fill == KT_FILL)
                continue;
            float *x = kt_f32(k, n, fill);
            /* A sure prediction, right and wrong. */
            if (fill == KT_UNIFORM)
                x[i % 2 ? target : n - 1] = 40.0f;
            float *want = kt_copy(k, x, n * sizeof *x), *got = kt_copy(k, x, n * sizeof *x);
            const double loss = ref(want, n, target);
            kt_within(k, fn(got, n, target), loss, 1e-6 + 1e-12 * fabs(loss), "loss", target);
            kt_near(k, got, want, n, 2e-7, 1e-6, "gradient");
            x[n / 2] = NAN;
            if (!isnan(fn(x, n, target)))
                kt_fail(k, "a NaN among %zu is lost", n);
            kt_reset(k);
        }
        float *x = kt_f32(k, 49152, KT_NORMAL);
        volatile double sink;
        KT_BENCH(k, "49152", 49152 * 8.0, sink = fn(x, 49152, 7));
        (void)sink;
        kt_reset(k);
    }
}

/* Dense products of packed operands, and the packing. */
#include "kt.h"

#include <math.h>
#include <string.h>

static const size_t unit_counts[] = { 0, 1, 2, 7, 8, 9, 31, 64, 288, 512 };

static uint32_t *random_units(struct kt *k, size_t n, bool pairs)
{
    uint32_t *u = kt_bytes(k, n * sizeof *u);
    for (size_t i = 0; i < n; i++) {
        const float a = (float)kt_normal(k), b = (float)kt_normal(k);
        u[i] = pairs ? (uint32_t)lsi_bf16_from_f32(a) << 16 | lsi_bf16_from_f32(b) : lsi_f32_bits(a);
    }
    return u;
}

static float unit_value(uint32_t u, bool pairs, bool second)
{
    return pairs ? lsi_f32_from_bits(second ? u & 0xffff0000u : u << 16) : second ? 0 : lsi_f32_from_bits(u);
}

/* sum_u |A[u][r] B[u][c]|: what rounding is measured by. */
static double magnitude(const uint32_t *A, const uint32_t *B, size_t n_units, size_t r, size_t c, bool pairs)
{
    double sum = 0;
    for (size_t u = 0; u < n_units; u++)
        for (int half = 0; half < 2; half++)
            sum += fabs((double)unit_value(A[u * LSK_GEMM_M + r], pairs, half) *
                        unit_value(B[u * LSK_GEMM_N + c], pairs, half));
    return sum;
}

static void check_block(struct kt *k, bool pairs)
{
    lsk_gemm_fn *ref = (lsk_gemm_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_gemm_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 6 * KT_LEN(unit_counts); i++) {
            const size_t units = unit_counts[i / 6];
            const size_t rows = i % 6 < 2 ? LSK_GEMM_M : 1 + kt_below(k, LSK_GEMM_M);
            const size_t cols = i % 6 < 2 ? LSK_GEMM_N : 1 + kt_below(k, LSK_GEMM_N);
            const size_t ldc = cols + kt_below(k, 20), n = (rows - 1) * ldc + cols;
            const bool add = i % 2;
            const float scale = i % 3 ? 1 : 0.37f;
            const uint32_t *A = random_units(k, units * LSK_GEMM_M, pairs);
            const uint32_t *B = random_units(k, units * LSK_GEMM_N, pairs);
            float *want = kt_f32(k, n, add ? KT_NORMAL : KT_FILL), *got = kt_copy(k, want, n * sizeof *want);
            const float *was = kt_copy(k, want, n * sizeof *want);

            ref(want, ldc, A, B, units, rows, cols, scale, add);
            fn(got, ldc, A, B, units, rows, cols, scale, add);
            for (size_t e = 0; e < n; e++) {
                const size_t r = e / ldc, c = e % ldc;
                if (c >= cols) {
                    kt_equal(k, &got[e], &was[e], sizeof *got, "between rows");
                    continue;
                }
                const double size = magnitude(A, B, units, r, c, pairs) + (add ? fabs((double)was[e]) : 0);
                kt_within(k, got[e], want[e], 2e-6 * size, "C", e);
            }
            kt_reset(k);
        }
        const uint32_t *A = random_units(k, 288 * LSK_GEMM_M, pairs);
        const uint32_t *B = random_units(k, 288 * LSK_GEMM_N, pairs);
        float *C = kt_f32(k, LSK_GEMM_M * LSK_GEMM_N, KT_ZERO);
        KT_BENCH(k, "8x48x288", 288.0 * 4 * (LSK_GEMM_M + LSK_GEMM_N),
                 fn(C, LSK_GEMM_N, A, B, 288, LSK_GEMM_M, LSK_GEMM_N, 1, true));
        kt_reset(k);
    }
}

void check_gemm_f32(struct kt *k)
{
    check_block(k, false);
}

void check_gemm_bf16(struct kt *k)
{
    check_block(k, true);
}

void check_gemm_turn(struct kt *k)
{
    lsk_gemm_turn_fn *ref = (lsk_gemm_turn_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_gemm_turn_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 9 * KT_LEN(unit_counts); i++) {
            const size_t units = unit_counts[i / 9], n = i % 9, width = i % 2 ? LSK_GEMM_N : LSK_GEMM_M;
            const size_t ld = units + kt_below(k, 5);
            const uint32_t *in = random_units(k, n && units ? (n - 1) * ld + units : 0, true);
            const size_t bytes = units ? ((units - 1) * width + 8) * sizeof *in : 0;
            uint32_t *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);

            ref(want, width, in, ld, n, units);
            fn(got, width, in, ld, n, units);
            kt_equal(k, got, want, bytes, "out");
            kt_reset(k);
        }
        const uint32_t *in = random_units(k, 8 * 256, true);
        uint32_t *out = kt_bytes(k, 8 * 256 * sizeof *in);
        KT_BENCH(k, "8x256", 8 * 256 * 8.0, fn(out, 8, in, 256, 8, 256));
        kt_reset(k);
    }
}

void check_gemm_turn_f32(struct kt *k)
{
    lsk_gemm_turn_f32_fn *ref = (lsk_gemm_turn_f32_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_gemm_turn_f32_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 9 * 70; i++) {
            const size_t values = i / 9, n = i % 9, width = i % 2 ? LSK_GEMM_N : LSK_GEMM_M;
            const size_t ld = values + kt_below(k, 5), units = (values + 1) / 2;
            const float *in =
                kt_f32(k, n && values ? (n - 1) * ld + values : 0, (enum kt_fill)(i % KT_N_FILLS));
            const size_t bytes = units ? ((units - 1) * width + 8) * sizeof(uint32_t) : 0;
            uint32_t *want = kt_bytes(k, bytes), *got = kt_bytes(k, bytes);

            ref(want, width, in, ld, n, values);
            fn(got, width, in, ld, n, values);
            kt_equal(k, got, want, bytes, "out");
            kt_reset(k);
        }
        const float *in = kt_f32(k, 8 * 512, KT_NORMAL);
        uint32_t *out = kt_bytes(k, 8 * 256 * sizeof *out);
        KT_BENCH(k, "8x512", 8 * 512 * 6.0, fn(out, 8, in, 512, 8, 512));
        kt_reset(k);
    }
}

static const size_t column_counts[] = { 0, 1, 7, 8, 9, 15, 16, 17, 40, 47, 48, 49, 95, 96, 97, 145 };

/* Units that two rows of n columns are packed to, with a gap between panels. */
static uint32_t *panels(struct kt *k, size_t n, size_t width, size_t panel)
{
    const size_t count = (n + width - 1) / width;
    return kt_bytes(k, (count ? (count - 1) * panel + width : 0) * sizeof(uint32_t));
}

void check_gemm_pair_f32(struct kt *k)
{
    lsk_gemm_pair_f32_fn *ref = (lsk_gemm_pair_f32_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_gemm_pair_f32_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 4 * KT_LEN(column_counts) * KT_N_FILLS; i++) {
            const size_t n = column_counts[i / 4 % KT_LEN(column_counts)];
            const size_t width = i % 2 ? LSK_GEMM_N : LSK_GEMM_M, panel = width + kt_below(k, 9);
            const enum kt_fill fill = (enum kt_fill)(i / (4 * KT_LEN(column_counts)));
            const float *first = kt_f32(k, n, fill), *second = kt_f32(k, n, fill);
            uint32_t *want = panels(k, n, width, panel), *got = panels(k, n, width, panel);

            ref(want, panel, width, first, i / 2 % 2 ? second : NULL, n);
            fn(got, panel, width, first, i / 2 % 2 ? second : NULL, n);
            kt_equal(k, got, want, n ? (((n - 1) / width) * panel + width) * sizeof *got : 0, "out");
            kt_reset(k);
        }
        const float *x = kt_f32(k, 576, KT_NORMAL);
        uint32_t *out = kt_bytes(k, 576 * sizeof *out);
        KT_BENCH(k, "2x576", 576 * 12.0, fn(out, LSK_GEMM_N, LSK_GEMM_N, x, x, 576));
        kt_reset(k);
    }
}

void check_gemm_pair_bf16(struct kt *k)
{
    lsk_gemm_pair_bf16_fn *ref = (lsk_gemm_pair_bf16_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_gemm_pair_bf16_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 4 * KT_LEN(column_counts); i++) {
            const size_t n = column_counts[i / 4];
            const size_t width = i % 2 ? LSK_GEMM_N : LSK_GEMM_M, panel = width + kt_below(k, 9);
            const uint16_t *first = kt_bf16(k, n, KT_NORMAL), *second = kt_bf16(k, n, KT_WIDE);
            uint32_t *want = panels(k, n, width, panel), *got = panels(k, n, width, panel);

            ref(want, panel, width, first, i / 2 % 2 ? second : NULL, n);
            fn(got, panel, width, first, i / 2 % 2 ? second : NULL, n);
            kt_equal(k, got, want, n ? (((n - 1) / width) * panel + width) * sizeof *got : 0, "out");
            kt_reset(k);
        }
        const uint16_t *w = kt_bf16(k, 576, KT_NORMAL);
        uint32_t *out = kt_bytes(k, 576 * sizeof *out);
        KT_BENCH(k, "2x576", 576 * 8.0, fn(out, LSK_GEMM_N, LSK_GEMM_N, w, w, 576));
        kt_reset(k);
    }
}

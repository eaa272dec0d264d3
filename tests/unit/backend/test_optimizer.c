/* The optimizer: AdamW in every storage against sums in double, rounding that is fair and repeats. */
#include "op_case.h"

#include "kernels/kernels.h"
#include "ops/backward.h"

#include <math.h>

#define N 20000 /* some tasks, and a tail that is no multiple of anything */

static const struct lsi_adamw step_one = { .lr = 1e-3,
                                           .beta1 = 0.9,
                                           .beta2 = 0.999,
                                           .eps = 1e-8,
                                           .decay = 0.01,
                                           .grad_scale = 1.0f,
                                           .step = 1,
                                           .seed = 5 };

static void test_sum_squares(void)
{
    static float x[300000];
    const size_t sizes[] = { 0, 1, 16384, 16385, 300000 };

    fill(x, LSI_LEN(x), 1);
    for (size_t i = 0; i < LSI_LEN(sizes); i++) {
        double want = 0.0, first = 0.0;
        for (size_t j = 0; j < sizes[i]; j++)
            want += (double)x[j] * (double)x[j];
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, 0);
            const double got = lsi_op_sum_squares(&ex, x, sizes[i]);
            if (threads == 1)
                first = got;
            CHECK(got == first);
            CHECK_NEAR(got, want, 1e-12 * want);
            lsi_exec_fini(&ex);
        }
    }
    struct lsi_exec ex = make_exec(2, 0);
    x[250000] = NAN;
    CHECK(isnan(lsi_op_sum_squares(&ex, x, LSI_LEN(x))));
    lsi_exec_fini(&ex);
}

static void test_sizes(void)
{
    CHECK_INT(lsi_moments_bytes(LSI_MOMENTS_F32, 1000), 4032);
    CHECK_INT(lsi_moments_bytes(LSI_MOMENTS_BF16, 1000), 2048);
    CHECK_INT(lsi_moments_bytes(LSI_MOMENTS_Q8, 1000), 1024 + 64);
    CHECK_INT(lsi_moments_bytes(LSI_MOMENTS_Q8, 1 << 20), (1 << 20) + (1 << 14));
}

/* ---- fp32 --------------------------------------------------------------------------- */

/* Ten steps, gradients anew in each; the state in double follows the formulas of backward.h. */
static void test_fp32(void)
{
    static float w[N], m[N], v[N], g[N], first[N];
    static double w64[N], m64[N], v64[N];

    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, 0);
        struct lsi_adamw p = step_one;
        const struct lsi_adamw_tensor t = { .w = w, .dtype = LSI_F32, .g = g, .m = m, .v = v, .n = N };
        fill(w, N, 2);
        memset(m, 0, sizeof m);
        memset(v, 0, sizeof v);
        for (size_t i = 0; i < N; i++)
            w64[i] = (double)w[i], m64[i] = v64[i] = 0.0;
        p.grad_scale = 0.5f;
        for (p.step = 1; p.step <= 10; p.step++) {
            fill(g, N, 100 + p.step);
            for (size_t i = 0; i < N; i++) {
                const double h = 0.5 * (double)g[i];
                m64[i] = 0.9 * m64[i] + 0.1 * h;
                v64[i] = 0.999 * v64[i] + 0.001 * h * h;
                const double m_hat = m64[i] / (1.0 - pow(0.9, (double)p.step));
                const double v_hat = v64[i] / (1.0 - pow(0.999, (double)p.step));
                w64[i] -= 1e-3 * 0.01 * w64[i];
                w64[i] -= 1e-3 * m_hat / (sqrt(v_hat) + 1e-8);
            }
            lsi_op_adamw(&ex, &p, &t);
        }
        lsi_exec_fini(&ex);
        if (threads == 1)
            memcpy(first, w, sizeof w);
        CHECK(memcmp(first, w, sizeof w) == 0);
    }
    for (size_t i = 0; i < N; i++) {
        CHECK_NEAR(w[i], w64[i], 5e-7 * fabs(w64[i]) + 1e-8);
        CHECK_NEAR(m[i], m64[i], 1e-7);
        CHECK_NEAR(v[i], v64[i], 1e-6 * v64[i]);
    }
}

/* ---- bf16 ------------------------------------------------------------------------------ */

/* With a master copy the weight is its nearest, and the master steps as an fp32 weight does. */
static void test_master(void)
{
    static float master[N], w32[N], m[2][N], v[2][N], g[N];
    static lsi_bf16 w[N];
    struct lsi_exec ex = make_exec(2, 0);
    struct lsi_adamw p = step_one;
    const struct lsi_adamw_tensor with = {
        .w = w, .dtype = LSI_BF16, .master = master, .g = g, .m = m[0], .v = v[0], .n = N
    };
    const struct lsi_adamw_tensor plain = {
        .w = w32, .dtype = LSI_F32, .g = g, .m = m[1], .v = v[1], .n = N
    };

    fill(master, N, 3);
    memcpy(w32, master, sizeof w32);
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    for (p.step = 1; p.step <= 3; p.step++) {
        fill(g, N, p.step);
        lsi_op_adamw(&ex, &p, &with);
        lsi_op_adamw(&ex, &p, &plain);
    }
    CHECK(memcmp(master, w32, sizeof w32) == 0);
    for (size_t i = 0; i < N; i++)
        CHECK_INT(w[i], lsi_bf16_from_f32(master[i]));
    lsi_exec_fini(&ex);
}

/* Without a master copy: steps far below the spacing of bf16 near 1 (2^-7) arrive in the mean. */
static void test_stochastic_weight(void)
{
    static lsi_bf16 w[N];
    static float m[N], v[N], g[N];
    struct lsi_exec ex = make_exec(2, 0);
    struct lsi_adamw p = step_one;
    const struct lsi_adamw_tensor t = { .w = w, .dtype = LSI_BF16, .g = g, .m = m, .v = v, .n = N };
    double mean = 0.0;

    p.lr = 1e-4;
    p.decay = 0.0;
    for (size_t i = 0; i < N; i++) {
        w[i] = lsi_bf16_from_f32(1.5f);
        g[i] = 1.0f; /* each step is lr, whatever the step: m and v have no noise */
        m[i] = v[i] = 0.0f;
    }
    for (p.step = 1; p.step <= 20; p.step++)
        lsi_op_adamw(&ex, &p, &t);
    for (size_t i = 0; i < N; i++)
        mean += (double)lsi_bf16_to_f32(w[i]) / N;
    /* Twenty roundings of variance p (1 - p) 2^-14, p = 1e-4 2^7: five deviations of the mean of N. */
    CHECK_NEAR(mean, 1.5 - 20 * 1e-4, 5.0 * sqrt(20 * 0.0128 / N) * 0x1p-7);
    lsi_exec_fini(&ex);
}

/* The probability of rounding up is what is cut off; neighbours, streams and steps are independent. */
static void test_stochastic_rounding(void)
{
    static float x[65536];
    static lsi_bf16 y[65536], z[65536];
    struct lsk_table k;
    lsk_table_init(&k, lsk_cpu_features());

    for (int eighth = 0; eighth < 8; eighth++) {
        for (int sign = 0; sign <= 1; sign++) {
            const float value = (sign ? -1.0f : 1.0f) * (1.0f + (float)eighth / 8 * 0x1p-7f);
            size_t up = 0, both = 0, equal = 0;
            for (size_t i = 0; i < LSI_LEN(x); i++)
                x[i] = value;
            k.round_bf16(y, x, LSI_LEN(x), 1, 0);
            k.round_bf16(z, x, LSI_LEN(x), 2, 0);
            for (size_t i = 0; i < LSI_LEN(x); i++) {
                const bool is_up = (y[i] & 1) != 0;
                CHECK(fabsf(lsi_bf16_to_f32(y[i])) == (is_up ? 1.0f + 0x1p-7f : 1.0f));
                up += is_up;
                both += is_up && i > 0 && (y[i - 1] & 1);
                equal += y[i] == z[i];
            }
            const double p = eighth / 8.0, n = (double)LSI_LEN(x), q = p * p + (1 - p) * (1 - p);
            CHECK_NEAR((double)up / n, p, 4.5 * sqrt(p * (1 - p) / n));
            CHECK_NEAR((double)both / n, p * p, 6.0 * sqrt(p * (1 - p) / n));
            CHECK_NEAR((double)equal / n, q, 4.5 * sqrt(q * (1 - q) / n));
        }
    }
}

/* ---- every storage: repeatable, and near to fp32 ------------------------------------------- */

struct run {
    lsi_bf16 w[N];
    unsigned char m[4 * N + 64], v[4 * N + 64];
};

/* Some steps with bf16 weights; what is left after `resume` steps is continued by another exec. */
static void steps(struct run *r, enum lsi_moments moments, int threads, uint64_t seed, uint64_t stream,
                  uint64_t resume)
{
    static float g[N];
    struct lsi_exec ex = make_exec(threads, 0);
    struct lsi_adamw p = step_one;
    const struct lsi_adamw_tensor t = { .w = r->w,
                                        .dtype = LSI_BF16,
                                        .g = g,
                                        .m = r->m,
                                        .v = r->v,
                                        .moments = moments,
                                        .n = N,
                                        .stream = stream };

    memset(r, 0, sizeof *r);
    REQUIRE(lsi_moments_bytes(moments, N) <= sizeof r->m);
    fill(g, N, 4);
    for (size_t i = 0; i < N; i++)
        r->w[i] = lsi_bf16_from_f32(g[i]);
    p.seed = seed;
    for (p.step = 1; p.step <= 5; p.step++) {
        fill(g, N, 10 + p.step);
        lsi_op_adamw(&ex, &p, &t);
        if (p.step == resume) {
            lsi_exec_fini(&ex);
            ex = make_exec(threads + 1, 0);
        }
    }
    lsi_exec_fini(&ex);
}

static void test_repeats(void)
{
    static struct run first, other;

    for (int moments = LSI_MOMENTS_F32; moments <= LSI_MOMENTS_Q8; moments++) {
        steps(&first, (enum lsi_moments)moments, 1, 7, 1, 0);
        for (int threads = 1; threads <= 3; threads++) {
            steps(&other, (enum lsi_moments)moments, threads, 7, 1, (uint64_t)threads);
            CHECK(memcmp(&first, &other, sizeof first) == 0);
        }
        steps(&other, (enum lsi_moments)moments, 1, 8, 1, 0);
        CHECK(memcmp(first.w, other.w, sizeof first.w) != 0);
        steps(&other, (enum lsi_moments)moments, 1, 7, 2, 0);
        CHECK(memcmp(first.w, other.w, sizeof first.w) != 0);
    }
}

/*
 * A quadratic, sum a_i (w_i - c_i)^2 / 2 with a_i over three decades in each block, and noise in the
 * gradients. Moments in 16 and in 8 bits lead as far down as those in fp32 do.
 */
static double descend(enum lsi_moments moments)
{
    enum {
        D = 4096
    };
    static float w[D], g[D], c[D];
    static unsigned char m[4 * D], v[4 * D];
    struct lsi_exec ex = make_exec(2, 0);
    struct lsi_adamw p = step_one;
    const struct lsi_adamw_tensor t = {
        .w = w, .dtype = LSI_F32, .g = g, .m = m, .v = v, .moments = moments, .n = D
    };
    double loss = 0.0;

    memset(w, 0, sizeof w);
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    fill(c, D, 20);
    p.decay = 0.0;
    for (p.step = 1; p.step <= 1000; p.step++) {
        p.lr = 0.02 * (1.0 - (double)(p.step - 1) / 1000);
        fill(g, D, 1000 + p.step);
        for (size_t i = 0; i < D; i++) {
            const double a = pow(10.0, -(double)(i % 4));
            g[i] = (float)(a * ((double)w[i] - (double)c[i] + 0.1 * (double)g[i]));
        }
        lsi_op_adamw(&ex, &p, &t);
    }
    for (size_t i = 0; i < D; i++)
        loss += ((double)w[i] - (double)c[i]) * ((double)w[i] - (double)c[i]) / D;
    lsi_exec_fini(&ex);
    return loss;
}

static void test_converges(void)
{
    const double fp32 = descend(LSI_MOMENTS_F32), bf16 = descend(LSI_MOMENTS_BF16),
                 q8 = descend(LSI_MOMENTS_Q8);

    fprintf(stderr, "  mean square distance: fp32 %.3g, bf16 %.3g, q8 %.3g\n", fp32, bf16, q8);
    CHECK(fp32 < 1e-3); /* of 1 at the start */
    CHECK(bf16 < 1.2 * fp32);
    CHECK(q8 < 1.5 * fp32);
}

/* Half the width of a part, 0.45 / 2^e of 10^(e - E), where e is the decade of the element; below the first
 * u, all of it. */
static void test_q8_error(void)
{
    static float x[1024], y[1024];
    static uint8_t codes[1024];
    float scales[4];
    struct lsk_table k;
    lsk_table_init(&k, lsk_cpu_features());

    fill(x, LSI_LEN(x), 30);
    for (size_t i = 0; i < LSI_LEN(x); i++)
        x[i] *= powf(10.0f, -(float)(i % 6));
    for (int second = 0; second <= 1; second++) {
        for (size_t i = 0; i < LSI_LEN(x) && second; i++)
            x[i] *= x[i];
        (second ? k.dynamic8u_store : k.dynamic8_store)(codes, scales, x, LSI_LEN(x));
        (second ? k.dynamic8u_load : k.dynamic8_load)(y, codes, scales, LSI_LEN(x));
        for (size_t b = 0; b < LSI_LEN(x); b += 256) {
            float max = 0.0f;
            for (size_t i = b; i < b + 256; i++)
                max = fmaxf(max, fabsf(x[i]));
            for (size_t i = b; i < b + 256; i++) {
                const int top = second ? 7 : 6;
                const double u = fabs((double)x[i] / (double)max);
                const int e = u < pow(10.0, -top - 1) ? 0 : (int)fmin(top, top + 1 + floor(log10(u)));
                /* Between decades the nearest code is up to 0.18 / 2^e of P away, on the side of the lower
                 * one. */
                const double bound = pow(10.0, e - top) * (e == 0 ? 0.56 : 0.46 / exp2(e));
                CHECK_NEAR(y[i], x[i], bound * (double)max);
                if (fabsf(x[i]) == max)
                    CHECK_NEAR(y[i], x[i], 3e-7 * (double)max);
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_sum_squares),
        TEST(test_sizes),
        TEST(test_fp32),
        TEST(test_master),
        TEST(test_stochastic_weight),
        TEST(test_stochastic_rounding),
        TEST(test_repeats),
        TEST(test_converges),
        TEST(test_q8_error),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

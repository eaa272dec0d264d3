/*
 * The attention op against a softmax written out in double on the values that the cache
 * holds: formats, head sizes, groups, blocks, windows, and sameness for every number of threads.
 */
#include "attention_problem.h"

static void naive_row(const struct problem *p, float scale, size_t t, size_t h, double *out, double *lse)
{
    const size_t D = p->D, g = h / (p->H / p->G), at = p->slot0 + t;
    const float *q = p->q + t * p->ldq + h * D;
    double w[MAX_PAGES * LSI_KV_PAGE], max = -INFINITY, sum = 0.0;

    for (size_t d = 0; d < D; d++)
        out[d] = 0.0;
    for (size_t s = 0; s <= at; s++) {
        w[s] = -INFINITY;
        if (s < p->s0 || (p->window > 0 && s + p->window <= at) || (p->end > 0 && s >= p->end))
            continue;
        w[s] = 0.0;
        for (size_t d = 0; d < D; d++)
            w[s] += (double)q[d] * p->kept_k[(s * p->G + g) * D + d];
        w[s] *= (double)scale;
        max = fmax(max, w[s]);
    }
    for (size_t s = 0; s <= at; s++) {
        if (w[s] == -INFINITY)
            continue;
        const double e = exp(w[s] - max);
        sum += e;
        for (size_t d = 0; d < D; d++)
            out[d] += e * p->kept_v[(s * p->G + g) * D + d];
    }
    for (size_t d = 0; d < D && sum > 0.0; d++)
        out[d] /= sum;
    *lse = sum > 0.0 ? max + log(sum) : -INFINITY;
}

/* What arithmetic may cost, for outputs of about 1 (sums of normal values). */
static double tolerance(enum lsi_compute compute, const struct problem *p)
{
    if (compute == LSI_COMPUTE_FP32)
        return p->format == LSI_KV_Q8 ? 3e-5 : 1e-5;
    return p->format == LSI_KV_F32 ? 1e-5 : 3e-2;
}

static void check_against_naive(const struct problem *p, enum lsi_compute compute, const float *out,
                                const float *lse)
{
    const double tol = tolerance(compute, p);
    double want[512], want_lse;
    const int before = test_failures;

    for (size_t t = 0; t < p->T; t++) {
        for (size_t h = 0; h < p->H; h++) {
            naive_row(p, 1.0f / sqrtf((float)p->D), t, h, want, &want_lse);
            for (size_t d = 0; d < p->D; d++)
                CHECK_NEAR(out[t * p->ldo + h * p->D + d], want[d], tol);
            if (want_lse == -INFINITY)
                CHECK(lse[t * p->H + h] == -INFINITY);
            else
                CHECK_NEAR(lse[t * p->H + h], want_lse, tol);
            if (test_failures > before + 3) {
                fprintf(stderr,
                        "  format %d T %zu H %zu G %zu D %zu slot0 %zu s0 %zu window %zu: t %zu h %zu\n",
                        (int)p->format, p->T, p->H, p->G, p->D, p->slot0, p->s0, p->window, t, h);
                REQUIRE(false);
            }
        }
    }
}

static void run_problem(struct problem p, uint64_t seed)
{
    make_problem(&p, seed);
    const size_t n_out = p.T * p.ldo, n_lse = p.T * p.H;
    for (int compute = LSI_COMPUTE_AUTO; compute <= LSI_COMPUTE_FP32; compute++) {
        float *first = NULL, *first_lse = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            float *out = floats(n_out), *lse = floats(n_lse);
            struct lsi_exec ex = make_exec(threads, (enum lsi_compute)compute, &p, p.T);
            const struct lsi_attention a = attention(&p, out, lse);
            lsi_op_attention(&ex, &a);
            lsi_exec_fini(&ex);
            if (threads == 1) {
                check_against_naive(&p, (enum lsi_compute)compute, out, lse);
                first = out;
                first_lse = lse;
                continue;
            }
            CHECK(memcmp(out, first, n_out * sizeof *out) == 0);
            CHECK(memcmp(lse, first_lse, n_lse * sizeof *lse) == 0);
            free_floats(out, n_out);
            free_floats(lse, n_lse);
        }
        free_floats(first, n_out);
        free_floats(first_lse, n_lse);
    }
    free_problem(&p);
}

static void test_shapes(void)
{
    static const size_t dims[] = { 16, 64, 80, 128, 256 }, groups[] = { 1, 2, 3, 4, 8 };
    static const size_t tokens[] = { 1, 2, 7, 16, 33 };

    for (size_t i = 0; i < 25; i++) {
        for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
            const size_t group = groups[(i + (size_t)format) % 5], T = tokens[i / 5];
            const size_t G = i % 2 + 1;
            const struct problem p =
                problem((enum lsi_kv_format)format, T, group * G, G, dims[i % 5], i % 3 * 157 + i, 0, 0);
            run_problem(p, 1000 + i);
        }
    }
}

static void test_windows(void)
{
    static const size_t windows[] = { 1, 5, 64, 255, 256, 300, 600 };

    for (size_t i = 0; i < LSI_LEN(windows) * 3; i++) {
        const size_t T = (size_t[]){ 1, 7, 33 }[i % 3];
        const struct problem p =
            problem((enum lsi_kv_format)(i / 3 % 3), T, 6, 2, 64, 533, i % 2 * 7, windows[i / 3]);
        run_problem(p, 2000 + i);
    }
}

/* The first slots alone: all that some rows see, a part of it, and nothing behind a page. */
static void test_ends(void)
{
    static const size_t ends[] = { 1, 4, 250, 256, 300, 560 };

    for (size_t i = 0; i < LSI_LEN(ends) * 3; i++) {
        const size_t T = (size_t[]){ 1, 7, 33 }[i % 3], slot0 = (size_t[]){ 533, 0, 290 }[i / 3 % 3];
        struct problem p = problem((enum lsi_kv_format)(i % 3), T, 6, 2, 64, slot0, 0, i % 4 == 3 ? 20 : 0);
        p.end = ends[i / 3];
        run_problem(p, 2500 + i);
    }
}

static void test_rows_that_see_nothing(void)
{
    static const size_t tokens[] = { 1, 4, 33 };

    for (size_t i = 0; i < 9; i++) {
        /* Rows before s0 see nothing; with i / 3 == 2 none sees anything. */
        const size_t T = tokens[i % 3], slot0 = 250;
        const size_t s0 = i / 3 == 0 ? slot0 + T - 1 : i / 3 == 1 ? slot0 + T / 2 : slot0 + T + 300;
        const struct problem p = problem((enum lsi_kv_format)(i / 3 % 3), T, 3, 1, 64, slot0, s0, 0);
        run_problem(p, 3000 + i);
    }
}

/* Positions that move from page to page, odd head sizes: the plain paths. */
static void test_odd_sizes(void)
{
    static const size_t dims[] = { 2, 6, 18, 24, 66, 96, 112, 160, 288 };

    for (size_t i = 0; i < LSI_LEN(dims) * 3; i++) {
        const struct problem p =
            problem((enum lsi_kv_format)(i % 3), i % 2 ? 11 : 3, 4, 2, dims[i / 3], 255 + i, 0, 0);
        run_problem(p, 4000 + i);
    }
}

/* More slots than chunks of one page, out over q, and a second range of pages. */
static void test_deep_and_in_place(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        struct problem p = problem((enum lsi_kv_format)format, 2, 6, 2, 64, 11 * LSI_KV_PAGE + 3, 0, 0);
        make_problem(&p, 77);
        p.ldo = p.ldq;
        float *lse = floats(p.T * p.H), *separate = floats(p.T * p.ldo), *q = p.q;
        struct lsi_exec ex = make_exec(2, LSI_COMPUTE_AUTO, &p, p.T);
        struct lsi_attention a = attention(&p, separate, lse);
        lsi_op_attention(&ex, &a);
        check_against_naive(&p, LSI_COMPUTE_AUTO, separate, lse);
        a.out = q;
        a.lse = NULL;
        lsi_op_attention(&ex, &a);
        for (size_t t = 0; t < p.T; t++)
            CHECK(memcmp(q + t * p.ldq, separate + t * p.ldo, p.H * p.D * sizeof *q) == 0);
        lsi_exec_fini(&ex);
        free_floats(lse, p.T * p.H);
        free_floats(separate, p.T * p.ldo);
        free_problem(&p);
    }
}

/* Rows one by one give what a block gives. */
static void test_decode_equals_block(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        for (size_t T = 5; T <= 40; T += 35) {
            struct problem p = problem((enum lsi_kv_format)format, T, 6, 2, 64, 500, 0, 0);
            make_problem(&p, 99);
            float *block = floats(T * p.ldo), *one = floats(p.ldo);
            struct lsi_exec ex = make_exec(2, LSI_COMPUTE_FP32, &p, T);
            struct lsi_attention a = attention(&p, block, NULL);
            lsi_op_attention(&ex, &a);
            for (size_t t = 0; t < T; t++) {
                a.q = p.q + t * p.ldq;
                a.out = one;
                a.T = 1;
                a.slot0 = p.slot0 + t;
                lsi_op_attention(&ex, &a);
                for (size_t i = 0; i < p.H * p.D; i++)
                    CHECK_NEAR(one[i], block[t * p.ldo + i], 2e-6);
                /* Blocks of a few tokens are cut like single ones: the same bits. */
                if (T == 5)
                    CHECK(memcmp(one, block + t * p.ldo, p.H * p.D * sizeof *one) == 0);
            }
            lsi_exec_fini(&ex);
            free_floats(block, T * p.ldo);
            free_floats(one, p.ldo);
            free_problem(&p);
        }
    }
}

/* Where few rows go the ways of many, a block of any length rounds a row alike. */
static void test_few_as_many(void)
{
    enum {
        T = 40
    };
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        struct problem p = problem((enum lsi_kv_format)format, T, 6, 2, 64, 500, 0, 0);
        make_problem(&p, 7);
        float *block = floats(T * p.ldo), *part = floats(T * p.ldo);
        struct lsi_exec ex = make_exec(2, LSI_COMPUTE_BF16, &p, T);
        struct lsi_attention a = attention(&p, block, NULL);
        lsi_op_attention(&ex, &a);
        lsi_exec_fini(&ex);
        for (size_t n = 1; n <= 9; n++) {
            lsi_exec_plan_cpu(&ex, 2, LSI_COMPUTE_BF16);
            ex.few_as_many = true;
            const size_t scratch = lsi_op_attention_scratch(&ex, n, p.H, p.G, p.D);
            ls_error err;
            REQUIRE_OK(lsi_exec_init_cpu(&ex, 2, LSI_COMPUTE_BF16, heap(), &err), err);
            REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch, &err), err);
            ex.few_as_many = true;
            a.q = p.q;
            a.out = part;
            a.T = n;
            lsi_op_attention(&ex, &a);
            lsi_exec_fini(&ex);
            for (size_t t = 0; t < n; t++)
                for (size_t i = 0; i < p.H * p.D; i++)
                    CHECK_NEAR(part[t * p.ldo + i], block[t * p.ldo + i], 1e-5);
        }
        free_floats(block, T * p.ldo);
        free_floats(part, T * p.ldo);
        free_problem(&p);
    }
}

/* Two bytes of scale for 32 of a key's or value's. */
static void test_page_bytes(void)
{
    for (size_t D = 32; D <= 256; D += 32) {
        const size_t bf16 = lsi_kv_page_bytes(LSI_KV_BF16, 3, D);
        CHECK_INT(bf16, 2 * 3 * D * LSI_KV_PAGE * 2);
        CHECK_INT(lsi_kv_page_bytes(LSI_KV_Q8, 3, D) * 32, bf16 * 17);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_shapes),      TEST(test_windows),           TEST(test_rows_that_see_nothing),
        TEST(test_odd_sizes),   TEST(test_deep_and_in_place), TEST(test_decode_equals_block),
        TEST(test_few_as_many), TEST(test_page_bytes),        TEST(test_ends),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

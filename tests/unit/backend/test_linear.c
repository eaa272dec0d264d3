/* Products of the CPU backend against sums in double, for every weight type, rows few and many. */
#include "backend/cpu.h"
#include "test.h"

static const enum lsi_dtype types[] = { LSI_F32,  LSI_F16,  LSI_BF16, LSI_Q8_0, LSI_Q4_0, LSI_Q4_1,
                                        LSI_Q5_0, LSI_Q5_1, LSI_Q4_K, LSI_Q5_K, LSI_Q6_K };

enum {
    MAX_IN = 768,
    MAX_OUT = 1200,
    MAX_ROWS = 70
};

static float x[MAX_ROWS * MAX_IN], w_values[(size_t)MAX_OUT * MAX_IN], bias[MAX_OUT];
static float y[MAX_ROWS * MAX_OUT], y2[MAX_ROWS * MAX_OUT];
static unsigned char stored[(size_t)MAX_OUT * MAX_IN * 4];
static struct lsi_rng rng;

static float small(void)
{
    return (float)(lsi_rng_normal(&rng) * 0.1);
}

/* A random matrix of a type; its values in w_values. Types without a quantiser get random blocks. */
static struct lsi_weight make_weight(enum lsi_dtype type, size_t n_out, size_t n_in)
{
    struct lsk_table t;
    lsk_table_init(&t, 0);
    struct lsi_weight w = { .dtype = type, .n_out = n_out, .n_in = n_in, .data = stored };
    REQUIRE(lsi_dtype_row_bytes(type, n_in, &w.row_bytes));
    for (size_t r = 0; r < n_out; r++) {
        unsigned char *row = stored + r * w.row_bytes;
        if (lsk_table_quantize(&t, type)) {
            float values[MAX_IN];
            for (size_t i = 0; i < n_in; i++)
                values[i] = small();
            lsk_table_quantize(&t, type)(row, values, n_in);
        } else {
            const size_t block = lsi_dtype_block_bytes(type);
            for (size_t b = 0; b < w.row_bytes; b += block) {
                for (size_t i = 0; i < block; i++)
                    row[b + i] = (unsigned char)lsi_rng_u64(&rng);
                const lsi_f16 d = lsi_f16_from_f32(0.002f), m = lsi_f16_from_f32(0.003f);
                memcpy(row + b + (type == LSI_Q6_K ? 208 : 0), &d, 2);
                if (type != LSI_Q5_0 && type != LSI_Q6_K)
                    memcpy(row + b + 2, &m, 2);
            }
        }
        lsk_table_dequant(&t, type)(w_values + r * n_in, row, n_in);
    }
    return w;
}

static void open_exec(struct lsi_exec *ex, int threads, enum lsi_compute compute)
{
    ls_error err = { 0 };
    REQUIRE_OK(lsi_exec_init_cpu(ex, threads, compute, NULL, &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(ex, lsi_op_linear_scratch(ex, MAX_ROWS, MAX_IN, MAX_OUT), &err), err);
}

static void check(const struct lsi_weight *w, enum lsi_compute compute, size_t rows, size_t ldx,
                  bool accumulate, bool with_bias)
{
    struct lsi_exec ex;
    open_exec(&ex, 2, compute);
    for (size_t i = 0; i < rows * w->n_out; i++)
        y[i] = (float)(i % 7);
    const struct lsi_linear out = {
        .w = w, .bias = with_bias ? bias : NULL, .y = y, .ldy = w->n_out, .accumulate = accumulate
    };
    lsi_op_linear(&ex, &out, 1, x, rows, ldx);
    lsi_exec_fini(&ex);

    /* Error against the sum of magnitudes: survives cancellation. */
    const double bound = compute == LSI_COMPUTE_FP32 ? 2e-6 : compute == LSI_COMPUTE_BF16 ? 8e-3 : 1.2e-2;
    double worst = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < w->n_out; o++) {
            double sum = accumulate ? (double)((r * w->n_out + o) % 7) : 0, size = fabs(sum);
            if (with_bias)
                sum += bias[o], size += fabs(bias[o]);
            for (size_t i = 0; i < w->n_in; i++) {
                const double p = (double)w_values[o * w->n_in + i] * x[r * ldx + i];
                sum += p;
                size += fabs(p);
            }
            worst = fmax(worst, fabs(y[r * w->n_out + o] - sum) / (size + 1e-30));
        }
    if (!(worst <= bound))
        fprintf(stderr, "  %s compute %d rows %zu: %.3g of %.3g\n", lsi_dtype_name(w->dtype), (int)compute,
                rows, worst, bound);
    CHECK(worst <= bound);
}

static void test_every_type_and_mode(void)
{
    static const size_t rows[] = { 1, 2, 7, 8, 9, 24, 25, 33, 70 };
    for (size_t t = 0; t < LSI_LEN(types); t++) {
        const struct lsi_weight w = make_weight(types[t], 101, 512);
        for (int c = LSI_COMPUTE_AUTO; c <= LSI_COMPUTE_FP32; c++)
            for (size_t i = 0; i < LSI_LEN(rows); i++)
                check(&w, (enum lsi_compute)c, rows[i], 512, i % 2, i % 3 == 1);
    }
}

static void test_odd_shapes(void)
{
    static const size_t outs[] = { 1, 16, 95, 96, 97, 192, 1025 };
    for (size_t i = 0; i < LSI_LEN(outs); i++) {
        const struct lsi_weight f = make_weight(LSI_F32, outs[i], 33 + i);
        check(&f, LSI_COMPUTE_FP32, 1, MAX_IN, false, true);
        check(&f, LSI_COMPUTE_FP32, 37, MAX_IN, true, false);
        check(&f, LSI_COMPUTE_BF16, 37, 80, false, true);
        const struct lsi_weight q = make_weight(LSI_Q4_1, outs[i], 96);
        check(&q, LSI_COMPUTE_AUTO, 1, MAX_IN, true, true);
        check(&q, LSI_COMPUTE_AUTO, 37, 96, true, false);
    }
}

/* Of the products that are summed. */
static double magnitude(const struct lsi_weight *w, size_t r, size_t o)
{
    double size = 1e-30;
    for (size_t i = 0; i < w->n_in; i++)
        size += fabs((double)w_values[o * w->n_in + i] * x[r * MAX_IN + i]);
    return size;
}

/* Where few rows go the ways of many, the number of rows changes the order of sums at most. */
static void test_few_as_many(void)
{
    for (size_t t = 0; t < LSI_LEN(types); t++) {
        const struct lsi_weight w = make_weight(types[t], 101, 512);
        for (int c = LSI_COMPUTE_AUTO; c <= LSI_COMPUTE_FP32; c++) {
            struct lsi_exec ex;
            open_exec(&ex, 2, (enum lsi_compute)c);
            ex.few_as_many = true;
            struct lsi_linear out = { .w = &w, .y = y, .ldy = w.n_out };
            lsi_op_linear(&ex, &out, 1, x, MAX_ROWS, MAX_IN);
            out.y = y2;
            for (size_t rows = 1; rows <= 17; rows++) {
                lsi_op_linear(&ex, &out, 1, x, rows, MAX_IN);
                for (size_t i = 0; i < rows * w.n_out; i++)
                    CHECK_NEAR(y2[i], y[i], 2e-6 * magnitude(&w, i / w.n_out, i % w.n_out));
            }
            lsi_exec_fini(&ex);
        }
    }
}

/* A group of products at once, and any number of threads: the same bits. */
static void test_threads_and_groups_give_the_same_bits(void)
{
    static const size_t rows[] = { 1, 5, 24, 64 };
    for (size_t t = 0; t < LSI_LEN(types); t++) {
        const struct lsi_weight w = make_weight(types[t], 1200, 256);
        struct lsi_weight parts[3] = { w, w, w };
        parts[0].n_out = 700;
        parts[1].n_out = 300;
        parts[1].data = stored + 700 * w.row_bytes;
        parts[2].n_out = 200;
        parts[2].data = stored + 1000 * w.row_bytes;
        for (int c = LSI_COMPUTE_AUTO; c <= LSI_COMPUTE_FP32; c++)
            for (size_t i = 0; i < LSI_LEN(rows); i++) {
                for (int threads = 1; threads <= 3; threads++) {
                    struct lsi_exec ex;
                    open_exec(&ex, threads, (enum lsi_compute)c);
                    float *out = threads == 1 ? y : y2;
                    const struct lsi_linear group[3] = {
                        { .w = &parts[0], .y = out, .ldy = 1200 },
                        { .w = &parts[1], .y = out + 700, .ldy = 1200 },
                        { .w = &parts[2], .y = out + 1000, .ldy = 1200 },
                    };
                    lsi_op_linear(&ex, group, 3, x, rows[i], MAX_IN);
                    lsi_exec_fini(&ex);
                    if (threads > 1)
                        CHECK(memcmp(y, y2, rows[i] * 1200 * sizeof *y) == 0);
                }
            }
    }
}

static void test_builtin_product_agrees_with_the_library(void)
{
    static const size_t sizes[][3] = { { 1, 1, 1 }, { 5, 7, 19 }, { 37, 96, 576 }, { 64, 33, 100 } };
    struct lsi_gemm *g = NULL;
    REQUIRE(lsi_gemm_create(&g, 1, NULL) == LS_OK);
    for (size_t i = 0; i < LSI_LEN(sizes); i++) {
        const struct lsi_gemm_shape s = {
            .M = sizes[i][0], .N = sizes[i][1], .K = sizes[i][2], .lda = MAX_IN, .ldb = sizes[i][2]
        };
        for (size_t k = 0; k < s.M * s.N + 1; k++)
            y[k] = y2[k] = 1;
        const int h = lsi_gemm_prepare(g, &s);
        lsi_gemm_run(g, h, 0, &s, y, x, w_values);
        lsi_gemm_builtin(&s, y2, x, w_values);
        double worst = 0, size = 0;
        for (size_t k = 0; k < s.M * s.N; k++) {
            worst = fmax(worst, fabs((double)y[k] - y2[k]));
            size = fmax(size, fabs((double)y2[k]));
        }
        CHECK_NEAR(worst / size, 0, 1e-5);
        CHECK(y[s.M * s.N] == 1 && y2[s.M * s.N] == 1);
    }
    lsi_gemm_free(g);
}

/* More shapes than are kept: the handles of a group stay good together, dropped shapes are made again. */
static void test_more_shapes_than_are_kept(void)
{
    enum {
        GROUP = 16,
        SHAPES = LSI_GEMM_KEPT + 2 * GROUP
    };
    struct lsi_gemm *g = NULL;
    REQUIRE(lsi_gemm_create(&g, 1, NULL) == LS_OK);
    for (int round = 0; round < 2; round++)
        for (size_t first = 0; first < SHAPES; first += GROUP) {
            struct lsi_gemm_shape s[GROUP];
            int h[GROUP];
            for (size_t i = 0; i < GROUP; i++) {
                s[i] = (struct lsi_gemm_shape){ .M = 3, .N = first + i + 1, .K = 32 };
                s[i].lda = s[i].ldb = 32;
                h[i] = lsi_gemm_prepare(g, &s[i]);
            }
            for (size_t i = 0; i < GROUP; i++) {
                lsi_gemm_run(g, h[i], 0, &s[i], y, x, w_values);
                lsi_gemm_builtin(&s[i], y2, x, w_values);
                for (size_t k = 0; k < s[i].M * s[i].N; k++)
                    CHECK_NEAR(y[k], y2[k], 1e-4);
            }
        }
    lsi_gemm_free(g);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_every_type_and_mode),
        TEST(test_odd_shapes),
        TEST(test_few_as_many),
        TEST(test_threads_and_groups_give_the_same_bits),
        TEST(test_builtin_product_agrees_with_the_library),
        TEST(test_more_shapes_than_are_kept),
    };
    lsi_rng_init(&rng, 3);
    for (size_t i = 0; i < LSI_LEN(x); i++)
        x[i] = (float)lsi_rng_normal(&rng);
    for (size_t i = 0; i < LSI_LEN(bias); i++)
        bias[i] = small();
    for (size_t i = 0; i < LSI_LEN(w_values); i++)
        w_values[i] = small();
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

/* Gradients of products against sums in double: odd shapes, strides, groups, what may be absent. */
#include "backend/cpu.h"
#include "test.h"

enum {
    MAX_ROWS = 1100,
    MAX_IN = 1100,
    MAX_OUT = 1300,
    MAX_GRADS = 3,
    WIDEST = 8300, /* outputs of shapes with few columns */
    PAD = 5        /* strides are larger than rows by this at most */
};

static float x[(size_t)MAX_ROWS * (MAX_IN + PAD)];
static float dy[MAX_GRADS][(size_t)MAX_ROWS * (MAX_OUT + PAD)];
static float w_values[MAX_GRADS][(size_t)MAX_OUT * MAX_IN];
static lsi_bf16 w_bf16[MAX_GRADS][(size_t)MAX_OUT * MAX_IN];
static float dx[(size_t)MAX_ROWS * (MAX_IN + PAD)], dx2[(size_t)MAX_ROWS * (MAX_IN + PAD)];
static float dw[MAX_GRADS][(size_t)MAX_OUT * MAX_IN], dw2[MAX_GRADS][(size_t)MAX_OUT * MAX_IN];
static float db[MAX_GRADS][WIDEST], db2[MAX_GRADS][WIDEST];
static struct lsi_rng rng;

struct shape {
    size_t rows, n_in, n_grads, n_out[MAX_GRADS];
    size_t pad; /* added to every stride */
    float scale;
    bool accumulate, no_dx, no_dw, no_db, dw_of_last_only;
};

static void fill(float *p, size_t n, double size)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(lsi_rng_normal(&rng) * size);
}

/* Weights, stored as a type; w_values is what was stored. */
static void make_weights(struct lsi_weight *w, const struct shape *s, enum lsi_dtype dtype)
{
    for (size_t g = 0; g < s->n_grads; g++) {
        const size_t n = s->n_out[g] * s->n_in;
        fill(w_values[g], n, 0.1);
        for (size_t i = 0; dtype == LSI_BF16 && i < n; i++) {
            w_bf16[g][i] = lsi_bf16_from_f32(w_values[g][i]);
            w_values[g][i] = lsi_bf16_to_f32(w_bf16[g][i]);
        }
        w[g] = (struct lsi_weight){ .dtype = dtype, .n_out = s->n_out[g], .n_in = s->n_in };
        w[g].data = dtype == LSI_BF16 ? (const void *)w_bf16[g] : w_values[g];
        REQUIRE(lsi_dtype_row_bytes(dtype, s->n_in, &w[g].row_bytes));
    }
}

static float start(size_t i)
{
    return (float)(i % 7) - 3;
}

static void run(const struct shape *s, const struct lsi_weight *w, int threads, enum lsi_compute compute,
                size_t block, float *out_dx, float (*out_dw)[(size_t)MAX_OUT * MAX_IN],
                float (*out_db)[WIDEST])
{
    struct lsi_exec ex;
    ls_error err = { 0 };
    const size_t ldx = s->n_in + s->pad;
    size_t n_out = 0;
    for (size_t g = 0; g < s->n_grads; g++)
        n_out += s->n_out[g];
    REQUIRE_OK(lsi_exec_init_cpu(&ex, threads, compute, NULL, &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(&ex, lsi_op_linear_backward_scratch(&ex, block, s->n_in, n_out), &err),
               err);
    for (size_t i = 0; i < s->rows * ldx; i++)
        out_dx[i] = start(i);
    for (size_t g = 0; g < s->n_grads; g++) {
        for (size_t i = 0; i < s->n_out[g] * s->n_in; i++)
            out_dw[g][i] = start(i);
        for (size_t i = 0; i < s->n_out[g]; i++)
            out_db[g][i] = start(i);
    }
    for (size_t r0 = 0; r0 < s->rows; r0 += block) {
        struct lsi_linear_grad grads[MAX_GRADS];
        for (size_t g = 0; g < s->n_grads; g++) {
            const bool want = !s->no_dw && (!s->dw_of_last_only || g + 1 == s->n_grads);
            const size_t lddy = s->n_out[g] + s->pad;
            grads[g] = (struct lsi_linear_grad){ .w = &w[g],
                                                 .dy = dy[g] + r0 * lddy,
                                                 .lddy = lddy,
                                                 .dw = want ? out_dw[g] : NULL,
                                                 .dbias = s->no_db ? NULL : out_db[g] };
        }
        lsi_op_linear_backward(&ex, grads, s->n_grads, s->no_dx ? NULL : out_dx + r0 * ldx, ldx,
                               s->accumulate, x + r0 * ldx, ldx, lsi_min_size(block, s->rows - r0), s->scale);
    }
    lsi_exec_fini(&ex);
}

static double rounded(double v, enum lsi_compute compute)
{
    return compute == LSI_COMPUTE_FP32 ? v : lsi_bf16_to_f32(lsi_bf16_from_f32((float)v));
}

/* Error against the sum of magnitudes: operands are rounded here too, so only the order of fp32 sums is left.
 */
#define BOUND 2e-6

static double worst_dx(const struct shape *s, enum lsi_compute compute)
{
    const size_t ld = s->n_in + s->pad;
    double worst = 0;
    for (size_t r = 0; r<s->rows; r += s->rows> 100 ? 37 : 1)
        for (size_t i = 0; i < ld; i++) {
            double sum = 0, size = 1e-30, was = start(r * ld + i);
            for (size_t g = 0; i < s->n_in && g < s->n_grads; g++)
                for (size_t o = 0; o < s->n_out[g]; o++) {
                    const double p = rounded(dy[g][r * (s->n_out[g] + s->pad) + o], compute) *
                                     rounded(w_values[g][o * s->n_in + i], compute);
                    sum += p * s->scale;
                    size += fabs(p * s->scale);
                }
            if (i >= s->n_in || s->no_dx)
                sum = was; /* untouched */
            else if (s->accumulate)
                sum += was, size += fabs(was);
            worst = fmax(worst, fabs(dx[r * ld + i] - sum) / size);
        }
    return worst;
}

static double worst_dw(const struct shape *s, size_t g, enum lsi_compute compute)
{
    const size_t lddy = s->n_out[g] + s->pad, ldx = s->n_in + s->pad;
    const bool want = !s->no_dw && (!s->dw_of_last_only || g + 1 == s->n_grads);
    double worst = 0;
    for (size_t o = 0; o<s->n_out[g]; o += s->rows> 100 ? 41 : 1)
        for (size_t i = 0; i < s->n_in; i++) {
            double sum = start(o * s->n_in + i), size = fabs(sum) + 1e-30;
            for (size_t r = 0; want && r < s->rows; r++) {
                const double p = rounded(dy[g][r * lddy + o], compute) * rounded(x[r * ldx + i], compute);
                sum += p * s->scale;
                size += fabs(p * s->scale);
            }
            worst = fmax(worst, fabs(dw[g][o * s->n_in + i] - sum) / size);
        }
    return worst;
}

static double worst_db(const struct shape *s, size_t g)
{
    double worst = 0;
    for (size_t o = 0; o < s->n_out[g]; o++) {
        double sum = start(o), size = fabs(sum) + 1e-30;
        for (size_t r = 0; !s->no_db && r < s->rows; r++) {
            const double p = (double)dy[g][r * (s->n_out[g] + s->pad) + o] * s->scale;
            sum += p;
            size += fabs(p);
        }
        worst = fmax(worst, fabs(db[g][o] - sum) / size);
    }
    return worst;
}

static void check(const struct shape *s, enum lsi_dtype dtype, enum lsi_compute compute)
{
    struct lsi_weight w[MAX_GRADS];
    make_weights(w, s, dtype);
    run(s, w, 2, compute, s->rows, dx, dw, db);
    double worst = worst_dx(s, compute);
    for (size_t g = 0; g < s->n_grads; g++)
        worst = fmax(worst, fmax(worst_dw(s, g, compute), worst_db(s, g)));
    if (!(worst <= BOUND))
        fprintf(stderr, "  %s compute %d rows %zu in %zu out %zu: %.3g\n", lsi_dtype_name(dtype),
                (int)compute, s->rows, s->n_in, s->n_out[0], worst);
    CHECK(worst <= BOUND);
}

static void check_all_modes(const struct shape *s)
{
    for (int c = LSI_COMPUTE_AUTO; c <= LSI_COMPUTE_FP32; c++) {
        check(s, LSI_F32, (enum lsi_compute)c);
        check(s, LSI_BF16, (enum lsi_compute)c);
    }
}

static void test_odd_shapes(void)
{
    static const struct shape shapes[] = {
        { .rows = 1, .n_in = 1, .n_grads = 1, .n_out = { 1 }, .scale = 1 },
        { .rows = 2, .n_in = 3, .n_grads = 1, .n_out = { 5 }, .scale = 0.5f, .pad = 1 },
        { .rows = 7, .n_in = 47, .n_grads = 2, .n_out = { 9, 1 }, .scale = 1, .accumulate = true },
        { .rows = 8, .n_in = 48, .n_grads = 1, .n_out = { 8 }, .scale = -2, .pad = 3, .accumulate = true },
        { .rows = 9, .n_in = 49, .n_grads = 3, .n_out = { 7, 33, 97 }, .scale = 1, .pad = 5 },
        { .rows = 17, .n_in = 97, .n_grads = 3, .n_out = { 96, 31, 2 }, .scale = 0.1f, .pad = 2 },
        { .rows = 65, .n_in = 95, .n_grads = 1, .n_out = { 191 }, .scale = 1, .pad = 1 },
        { .rows = 64, .n_in = 145, .n_grads = 2, .n_out = { 193, 100 }, .scale = 1, .accumulate = true },
    };
    for (size_t i = 0; i < LSI_LEN(shapes); i++)
        check_all_modes(&shapes[i]);
}

/* Longer than a chunk of a sum, wider than a tile, more rows than a task of dx or a piece has, more outputs
 * than a piece. */
static void test_several_chunks_and_tiles(void)
{
    static const struct shape shapes[] = {
        { .rows = 33,
          .n_in = 1031,
          .n_grads = 1,
          .n_out = { 1283 },
          .scale = 1,
          .pad = 1,
          .accumulate = true },
        { .rows = 1037, .n_in = 99, .n_grads = 2, .n_out = { 103, 27 }, .scale = 0.25f, .pad = 4 },
        { .rows = 4101, .n_in = 30, .n_grads = 2, .n_out = { 33, 20 }, .scale = 1, .pad = 1 },
        { .rows = 19, .n_in = 31, .n_grads = 2, .n_out = { 8300, 40 }, .scale = 1, .pad = 2 },
        { .rows = 3, .n_in = 50, .n_grads = 1, .n_out = { 8193 }, .scale = 2, .accumulate = true },
    };
    for (size_t i = 0; i < LSI_LEN(shapes); i++) {
        check(&shapes[i], LSI_BF16, LSI_COMPUTE_BF16);
        check(&shapes[i], LSI_F32, LSI_COMPUTE_FP32);
    }
}

static void test_what_is_not_wanted_is_not_touched(void)
{
    const struct shape base = {
        .rows = 19, .n_in = 51, .n_grads = 2, .n_out = { 13, 21 }, .scale = 1, .pad = 2
    };
    for (int i = 0; i < 16; i++) {
        struct shape s = base;
        s.no_dx = i & 1;
        s.no_dw = i & 2;
        s.no_db = i & 4;
        s.dw_of_last_only = i & 8;
        check(&s, LSI_BF16, LSI_COMPUTE_BF16);
        check(&s, LSI_F32, LSI_COMPUTE_FP32);
    }
}

static const struct shape medium = { .rows = 300,
                                     .n_in = 230,
                                     .n_grads = 3,
                                     .n_out = { 1030, 96, 210 },
                                     .scale = 1,
                                     .pad = 3,
                                     .accumulate = true };

/* Neither many rows nor a large vocabulary make scratch grow. */
static void test_scratch_has_a_limit(void)
{
    struct lsi_exec ex;
    lsi_exec_plan_cpu(&ex, 2, LSI_COMPUTE_BF16);
    const size_t large = lsi_op_linear_backward_scratch(&ex, 4096, 576, 49152);
    CHECK_INT(lsi_op_linear_backward_scratch(&ex, 1 << 20, 576, 49152), large);
    CHECK_INT(lsi_op_linear_backward_scratch(&ex, 4096, 576, 256000), large);
    CHECK(lsi_op_linear_backward_scratch(&ex, 100, 576, 1000) < large / 50);
}

static void test_threads_give_the_same_bits(void)
{
    struct lsi_weight w[MAX_GRADS];
    make_weights(w, &medium, LSI_BF16);
    for (int c = LSI_COMPUTE_BF16; c <= LSI_COMPUTE_FP32; c++) {
        run(&medium, w, 1, (enum lsi_compute)c, medium.rows, dx, dw, db);
        for (int threads = 2; threads <= 3; threads++) {
            run(&medium, w, threads, (enum lsi_compute)c, medium.rows, dx2, dw2, db2);
            CHECK(memcmp(dx, dx2, medium.rows * (medium.n_in + medium.pad) * sizeof *dx) == 0);
            for (size_t g = 0; g < medium.n_grads; g++) {
                CHECK(memcmp(dw[g], dw2[g], medium.n_out[g] * medium.n_in * sizeof **dw) == 0);
                CHECK(memcmp(db[g], db2[g], medium.n_out[g] * sizeof **db) == 0);
            }
        }
    }
}

/* Rows in one call or in blocks: dx has the same bits, sums over rows differ by rounding. */
static void test_blocks_of_rows(void)
{
    struct lsi_weight w[MAX_GRADS];
    make_weights(w, &medium, LSI_F32);
    run(&medium, w, 2, LSI_COMPUTE_BF16, medium.rows, dx, dw, db);
    run(&medium, w, 2, LSI_COMPUTE_BF16, 77, dx2, dw2, db2);
    CHECK(memcmp(dx, dx2, medium.rows * (medium.n_in + medium.pad) * sizeof *dx) == 0);
    for (size_t g = 0; g < medium.n_grads; g++) {
        double worst = 0;
        for (size_t i = 0; i < medium.n_out[g] * medium.n_in; i++)
            worst = fmax(worst, fabs((double)dw[g][i] - dw2[g][i]));
        for (size_t i = 0; i < medium.n_out[g]; i++)
            worst = fmax(worst, fabs((double)db[g][i] - db2[g][i]));
        CHECK_NEAR(worst, 0, 3e-4);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_odd_shapes),
        TEST(test_several_chunks_and_tiles),
        TEST(test_what_is_not_wanted_is_not_touched),
        TEST(test_scratch_has_a_limit),
        TEST(test_threads_give_the_same_bits),
        TEST(test_blocks_of_rows),
    };
    lsi_rng_init(&rng, 5);
    fill(x, LSI_LEN(x), 1);
    for (size_t g = 0; g < MAX_GRADS; g++)
        fill(dy[g], LSI_LEN(dy[g]), 1);
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

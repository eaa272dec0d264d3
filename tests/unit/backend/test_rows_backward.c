/*
 * Gradients of the row ops against central differences of their formulas in double; strides respected, the
 * same bits for every number of threads.
 */
#include "op_case.h"

#include "base/numbers.h"
#include "ops/backward.h"

#include <math.h>

#define ROWS 300
#define COLS 150 /* used of LD */
#define LD   152

#define H    1e-5 /* of central differences: their error is some 1e-9 for what is tested here */

/* ---- normalisation ----------------------------------------------------------------- */

/* sum dy y of one row, y = x gain / rms(x), with h added to x[at]. */
static double norm_product(const float *dy, const float *x, const float *gain, size_t at, double h)
{
    double square = 0.0, sum = 0.0;

    for (size_t i = 0; i < COLS; i++) {
        const double v = (double)x[i] + (i == at ? h : 0.0);
        square += v * v;
        sum += (double)dy[i] * v * (double)gain[i];
    }
    return sum / sqrt(square / COLS + 1e-5);
}

static void test_rmsnorm(void)
{
    static float x[ROWS * LD], dy[ROWS * LD], dx[ROWS * LD], start[ROWS * LD], first[ROWS * LD];
    static float gain[COLS], dgain[COLS], first_gain[COLS];

    fill(x, ROWS * LD, 1);
    fill(dy, ROWS * LD, 2);
    fill(start, ROWS * LD, 3);
    fill(gain, COLS, 4);
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, 0), plan;
        ls_error err;
        lsi_exec_plan_cpu(&plan, threads, LSI_COMPUTE_FP32);
        REQUIRE_OK(lsi_exec_set_scratch(&ex, lsi_op_rmsnorm_backward_scratch(&plan, ROWS, COLS), &err), err);
        memcpy(dx, start, sizeof dx);
        memset(dgain, 0, sizeof dgain);
        lsi_op_rmsnorm_backward(&ex, dx, dgain, dy, x, gain, ROWS, COLS, LD, 1e-5f, true);
        CHECK(!ex.scratch.failed);
        same(first, dx, ROWS * LD, threads);
        same(first_gain, dgain, COLS, threads);
        /* Without the gain, over dy. */
        memcpy(dx, dy, sizeof dx);
        lsi_op_rmsnorm_backward(&ex, dx, NULL, dx, x, gain, ROWS, COLS, LD, 1e-5f, false);
        lsi_exec_fini(&ex);
    }
    for (size_t t = 0; t < ROWS; t++) {
        const float *row = x + t * LD, *d = dy + t * LD;
        for (size_t i = 0; i < LD; i++) {
            const size_t at = t * LD + i;
            if (i >= COLS) {
                CHECK(first[at] == start[at] && dx[at] == dy[at]);
                continue;
            }
            const double want =
                (norm_product(d, row, gain, i, H) - norm_product(d, row, gain, i, -H)) / (2.0 * H);
            CHECK_NEAR(dx[at], want, 2e-6 * (1.0 + fabs(want)));
            CHECK_NEAR(first[at], want + (double)start[at], 2e-6 * (1.0 + fabs(want)));
        }
    }
    for (size_t i = 0; i < COLS; i++) {
        double want = 0.0;
        for (size_t t = 0; t < ROWS; t++) {
            double square = 0.0;
            for (size_t j = 0; j < COLS; j++)
                square += (double)x[t * LD + j] * (double)x[t * LD + j];
            want += (double)dy[t * LD + i] * (double)x[t * LD + i] / sqrt(square / COLS + 1e-5);
        }
        CHECK_NEAR(first_gain[i], want, 3e-5);
    }
}

/* A gradient that is added to: two halves of the rows give what all rows give. */
static void test_gain_accumulates(void)
{
    static float x[ROWS * COLS], dy[ROWS * COLS], dx[ROWS * COLS];
    float gain[COLS], whole[COLS] = { 0 }, halves[COLS] = { 0 };
    struct lsi_exec ex = make_exec(2, (size_t)1 << 20);

    fill(x, ROWS * COLS, 5);
    fill(dy, ROWS * COLS, 6);
    fill(gain, COLS, 7);
    lsi_op_rmsnorm_backward(&ex, dx, whole, dy, x, gain, ROWS, COLS, COLS, 1e-5f, false);
    for (size_t half = 0; half < 2; half++) {
        const size_t at = half * ROWS / 2 * COLS;
        lsi_op_rmsnorm_backward(&ex, dx + at, halves, dy + at, x + at, gain, ROWS / 2, COLS, COLS, 1e-5f,
                                false);
    }
    for (size_t i = 0; i < COLS; i++)
        CHECK_NEAR(halves[i], whole[i], 3e-5);
    lsi_exec_fini(&ex);
}

/* ---- rotary embedding --------------------------------------------------------------- */

/* <dy, rope(x)> = <rope_backward(dy), x> for all x: what an adjoint is. rope is linear, so basis vectors do.
 */
static void test_rope(void)
{
    enum {
        D = 12,
        HEADS = 3,
        T = 40,
        N = T * HEADS * D
    };
    const double inv_freq[D / 2] = { 1.0, 0.3, 0.1, 0.03, 0.01, 0.001 };
    static float dy[N], dx[N], first[N], basis[N];

    for (int interleaved = 0; interleaved <= 1; interleaved++) {
        const struct lsi_rope rope = { inv_freq, 1.5, interleaved };
        fill(dy, N, 8);
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, 0);
            memcpy(dx, dy, sizeof dx);
            lsi_op_rope_backward(&ex, dx, T, HEADS, D, HEADS * D, &rope, 131000);
            same(first, dx, N, threads);
            lsi_exec_fini(&ex);
        }
        struct lsi_exec ex = make_exec(1, 0);
        for (size_t i = 0; i < HEADS * D; i++) { /* the same element of every row at once */
            memset(basis, 0, sizeof basis);
            for (size_t t = 0; t < T; t++)
                basis[t * HEADS * D + i] = 1.0f;
            lsi_op_rope(&ex, basis, T, HEADS, D, HEADS * D, &rope, 131000);
            for (size_t t = 0; t < T; t++) {
                double want = 0.0;
                for (size_t j = 0; j < HEADS * D; j++)
                    want += (double)dy[t * HEADS * D + j] * (double)basis[t * HEADS * D + j];
                CHECK_NEAR(dx[t * HEADS * D + i], want, 1e-6 * (1.0 + fabs(want)));
            }
        }
        lsi_exec_fini(&ex);
    }
}

/* ---- gated unit ----------------------------------------------------------------------- */

static double act_of(double v, int act)
{
    const double root = sqrt(2.0 / acos(-1.0));
    if (act == LSI_ACT_SILU)
        return v / (1.0 + exp(-v));
    return 0.5 * v * (1.0 + tanh(root * (v + 0.044715 * v * v * v)));
}

static void test_glu(void)
{
    static float x[ROWS * LD], u[ROWS * LD], da[ROWS * LD], y[ROWS * LD];
    static float gate[ROWS * LD], up[ROWS * LD], first[ROWS * LD], first_up[ROWS * LD];

    fill(x, ROWS * LD, 9);
    fill(u, ROWS * LD, 10);
    fill(da, ROWS * LD, 11);
    for (size_t i = 0; i < ROWS * LD; i++)
        x[i] *= 3.0f;
    for (int act = LSI_ACT_SILU; act <= LSI_ACT_GELU_TANH; act++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, 0);
            memcpy(gate, x, sizeof gate);
            memcpy(up, u, sizeof up);
            memset(y, 0, sizeof y);
            lsi_op_glu_to(&ex, y, gate, up, ROWS, COLS, LD, (enum lsi_act)act);
            CHECK(memcmp(gate, x, sizeof x) == 0);
            lsi_op_glu_backward(&ex, gate, up, da, ROWS, COLS, LD, (enum lsi_act)act);
            same(first, gate, ROWS * LD, threads);
            same(first_up, up, ROWS * LD, threads);
            lsi_exec_fini(&ex);
        }
        for (size_t i = 0; i < ROWS * LD; i++) {
            const double v = (double)x[i], d = (double)da[i], a = act_of(v, act);
            if (i % LD >= COLS) {
                CHECK(gate[i] == x[i] && up[i] == u[i] && y[i] == 0.0f);
                continue;
            }
            const double slope = (act_of(v + H, act) - act_of(v - H, act)) / (2.0 * H);
            CHECK_NEAR(y[i], a * (double)u[i], 2e-6 * (1.0 + fabs(a * (double)u[i])));
            CHECK_NEAR(gate[i], d * (double)u[i] * slope, 3e-6 * (1.0 + fabs(d * (double)u[i])));
            CHECK_NEAR(up[i], d * a, 2e-6 * (1.0 + fabs(d * a)));
        }
    }
}

/* ---- embedding ------------------------------------------------------------------------ */

static void test_embed(void)
{
    enum {
        V = 11,
        C = 300
    };
    static float dtable[V * C], first[V * C], dy[ROWS * C];
    int32_t ids[ROWS];

    fill(dy, ROWS * C, 12);
    for (size_t t = 0; t < ROWS; t++)
        ids[t] = (int32_t)(t * t % (V - 1)); /* the last one never */
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, 0);
        for (size_t i = 0; i < V * C; i++)
            dtable[i] = 1.0f;
        lsi_op_embed_backward(&ex, dtable, dy, ids, ROWS, C, 2.0f);
        same(first, dtable, V * C, threads);
        lsi_exec_fini(&ex);
    }
    for (size_t id = 0; id < V; id++) {
        for (size_t i = 0; i < C; i++) {
            float want = 1.0f; /* the very same sum: rows in ascending order; times 2 is exact */
            for (size_t t = 0; t < ROWS; t++)
                if ((size_t)ids[t] == id)
                    want += 2.0f * dy[t * C + i];
            CHECK(dtable[id * C + i] == want);
        }
    }
}

/* ---- storage ---------------------------------------------------------------------------- */

static void test_rows_storage(void)
{
    static float x[ROWS * COLS], y[ROWS * COLS], copy[ROWS * COLS];
    static lsi_bf16 stored[ROWS * COLS];
    struct lsi_exec ex = make_exec(2, 0);

    fill(x, ROWS * COLS, 13);
    lsi_op_rows_store(&ex, stored, LSI_BF16, x, ROWS, COLS);
    lsi_op_rows_load(&ex, y, stored, LSI_BF16, ROWS, COLS);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        CHECK_INT(stored[i], lsi_bf16_from_f32(x[i]));
        CHECK(y[i] == lsi_bf16_to_f32(stored[i]));
    }
    lsi_op_rows_store(&ex, copy, LSI_F32, x, ROWS, COLS);
    CHECK(memcmp(copy, x, sizeof x) == 0);
    memset(y, 0, sizeof y);
    lsi_op_rows_load(&ex, y, copy, LSI_F32, ROWS, COLS);
    CHECK(memcmp(y, x, sizeof x) == 0);
    lsi_exec_fini(&ex);
}

/* ---- loss ---------------------------------------------------------------------------------- */

static double nll_of(const float *x, size_t target, size_t at, double h)
{
    double sum = 0.0;

    for (size_t i = 0; i < COLS; i++)
        sum += exp((double)x[i] + (i == at ? h : 0.0));
    return log(sum) - (double)x[target] - (at == target ? h : 0.0);
}

static void test_cross_entropy(void)
{
    static float logits[ROWS * LD], x[ROWS * LD], first[ROWS * LD];
    int32_t target[ROWS];
    double loss = 0.0, first_loss = 0.0, want = 0.0;

    fill(x, ROWS * LD, 14);
    for (size_t t = 0; t < ROWS; t++)
        target[t] = (int32_t)(t * 11 % COLS);
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, 0);
        ls_error err;
        REQUIRE_OK(lsi_exec_set_scratch(&ex, lsi_op_cross_entropy_scratch(&ex, ROWS), &err), err);
        memcpy(logits, x, sizeof x);
        loss = lsi_op_cross_entropy(&ex, logits, target, ROWS, COLS, LD);
        CHECK(!ex.scratch.failed);
        if (threads == 1)
            first_loss = loss;
        CHECK(loss == first_loss);
        same(first, logits, ROWS * LD, threads);
        lsi_exec_fini(&ex);
    }
    for (size_t t = 0; t < ROWS; t++) {
        const float *row = x + t * LD;
        const size_t y = (size_t)target[t];
        want += nll_of(row, y, COLS, 0.0);
        for (size_t i = 0; i < LD; i++) {
            if (i >= COLS)
                CHECK(logits[t * LD + i] == row[i]);
            else
                CHECK_NEAR(logits[t * LD + i], (nll_of(row, y, i, H) - nll_of(row, y, i, -H)) / (2.0 * H),
                           3e-7);
        }
    }
    CHECK_NEAR(loss, want, 1e-6 * ROWS);
}

/* Logits as far apart as a confident model's: nothing overflows, sure rows cost nothing. */
static void test_cross_entropy_extremes(void)
{
    float x[4] = { 1e4f, -1e4f, 0.0f, 9990.0f };
    const int32_t right = 0, wrong = 1;
    struct lsi_exec ex = make_exec(1, 4096);
    float logits[4];

    memcpy(logits, x, sizeof x);
    CHECK_NEAR(lsi_op_cross_entropy(&ex, logits, &right, 1, 4, 4), log1p(exp(-10.0)), 1e-7);
    CHECK_NEAR(logits[0], -exp(-10.0) / (1.0 + exp(-10.0)), 1e-7);
    memcpy(logits, x, sizeof x);
    CHECK_NEAR(lsi_op_cross_entropy(&ex, logits, &wrong, 1, 4, 4), 2e4 + log1p(exp(-10.0)), 1e-6);
    CHECK(logits[1] == -1.0f && logits[2] == 0.0f);
    CHECK(lsi_op_cross_entropy(&ex, logits, &wrong, 0, 4, 4) == 0.0);
    lsi_exec_fini(&ex);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_rmsnorm),       TEST(test_gain_accumulates),
        TEST(test_rope),          TEST(test_glu),
        TEST(test_embed),         TEST(test_rows_storage),
        TEST(test_cross_entropy), TEST(test_cross_entropy_extremes),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

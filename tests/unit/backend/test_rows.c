/* The row ops by their formulas, strides respected, the same bits for every number of threads. */
#include "op_case.h"

#include <math.h>

#define ROWS 70
#define COLS 300 /* used of LD */
#define LD   304

static void test_norms(void)
{
    static float x[ROWS * LD], y[ROWS * LD], first[ROWS * LD], gain[COLS], sum[ROWS * COLS];

    fill(x, ROWS * LD, 1);
    fill(gain, COLS, 2);
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, 0);
        memset(y, 0, sizeof y);
        lsi_op_rmsnorm(&ex, y, x, gain, ROWS, COLS, LD, 1e-5f);
        same(first, y, LSI_LEN(y), threads);
        lsi_exec_fini(&ex);
    }
    for (size_t t = 0; t < ROWS; t++) {
        double mean = 0.0;
        for (size_t i = 0; i < COLS; i++)
            mean += (double)x[t * LD + i] * (double)x[t * LD + i] / COLS;
        for (size_t i = 0; i < COLS; i++)
            CHECK_NEAR(y[t * LD + i], (double)x[t * LD + i] * (double)gain[i] / sqrt(mean + 1e-5), 2e-5);
        for (size_t i = COLS; i < LD; i++)
            CHECK(y[t * LD + i] == 0.0f);
    }

    struct lsi_exec ex = make_exec(2, 0);
    static float dense[ROWS * COLS], normed[ROWS * COLS];
    fill(dense, ROWS * COLS, 3);
    fill(sum, ROWS * COLS, 4);
    lsi_op_rmsnorm(&ex, normed, dense, gain, ROWS, COLS, COLS, 1e-6f);
    for (size_t i = 0; i < ROWS * COLS; i++)
        normed[i] += sum[i];
    lsi_op_rmsnorm_add(&ex, sum, dense, gain, ROWS, COLS, 1e-6f);
    for (size_t i = 0; i < ROWS * COLS; i++)
        CHECK_NEAR(sum[i], normed[i], 2e-6);
    lsi_exec_fini(&ex);
}

static void test_rope(void)
{
    enum {
        D = 8,
        HEADS = 2,
        T = 5
    };
    const double inv_freq[D / 2] = { 1.0, 0.1, 0.01, 0.001 };
    const int64_t pos0 = 131000;

    for (int interleaved = 0; interleaved <= 1; interleaved++) {
        const struct lsi_rope rope = { inv_freq, 1.5, interleaved };
        float x[T * HEADS * D], y[T * HEADS * D];
        struct lsi_exec ex = make_exec(2, 0);
        fill(x, T * HEADS * D, 5);
        memcpy(y, x, sizeof x);
        lsi_op_rope(&ex, y, T, HEADS, D, HEADS * D, &rope, pos0);
        for (size_t v = 0; v < T * HEADS; v++) {
            for (size_t i = 0; i < D / 2; i++) {
                const double angle = (double)(pos0 + (int64_t)(v / HEADS)) * inv_freq[i];
                const double a = (double)x[v * D + (interleaved ? 2 * i : i)];
                const double b = (double)x[v * D + (interleaved ? 2 * i + 1 : i + D / 2)];
                CHECK_NEAR(y[v * D + i], 1.5 * (a * cos(angle) - b * sin(angle)), 2e-6);
                CHECK_NEAR(y[v * D + i + D / 2], 1.5 * (b * cos(angle) + a * sin(angle)), 2e-6);
            }
        }
        lsi_exec_fini(&ex);
    }
}

static void test_glu(void)
{
    static float gate[ROWS * LD], x[ROWS * LD], up[ROWS * LD];

    fill(x, ROWS * LD, 6);
    fill(up, ROWS * LD, 7);
    for (int act = LSI_ACT_SILU; act <= LSI_ACT_GELU_TANH; act++) {
        struct lsi_exec ex = make_exec(3, 0);
        memcpy(gate, x, sizeof x);
        lsi_op_glu(&ex, gate, up, ROWS, COLS, LD, (enum lsi_act)act);
        for (size_t i = 0; i < ROWS * LD; i++) {
            const double v = (double)x[i];
            const double silu = v / (1.0 + exp(-v));
            const double gelu = 0.5 * v * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
            const double want = (act == LSI_ACT_SILU ? silu : gelu) * (double)up[i];
            CHECK_NEAR(gate[i], i % LD < COLS ? want : v, 1e-5 * (1.0 + fabs(want)));
        }
        lsi_exec_fini(&ex);
    }
}

static void test_embed(void)
{
    static float table[10 * COLS], y[ROWS * COLS];
    int32_t ids[ROWS];
    const struct lsi_weight w = { LSI_F32, 10, COLS, COLS * sizeof(float), table };
    struct lsi_exec ex = make_exec(2, 0);

    fill(table, 10 * COLS, 8);
    for (size_t t = 0; t < ROWS; t++)
        ids[t] = (int32_t)(t * 7 % 10);
    lsi_op_embed(&ex, y, &w, ids, ROWS, 4.0f);
    for (size_t t = 0; t < ROWS; t++)
        for (size_t i = 0; i < COLS; i++)
            CHECK(y[t * COLS + i] == 4.0f * table[(size_t)ids[t] * COLS + i]);
    lsi_exec_fini(&ex);
}

static void test_nll(void)
{
    static float logits[ROWS * LD];
    float nll[ROWS];
    int32_t target[ROWS];
    struct lsi_exec ex = make_exec(2, 0);

    fill(logits, ROWS * LD, 9);
    for (size_t t = 0; t < ROWS; t++)
        target[t] = t == 3 ? -1 : (int32_t)(t * 11 % COLS);
    lsi_op_nll(&ex, nll, logits, target, ROWS, COLS, LD);
    for (size_t t = 0; t < ROWS; t++) {
        double sum = 0.0;
        for (size_t i = 0; i < COLS; i++)
            sum += exp((double)logits[t * LD + i]);
        if (t == 3)
            CHECK(isnan(nll[t]));
        else
            CHECK_NEAR(nll[t], log(sum) - (double)logits[t * LD + (size_t)target[t]], 2e-6);
    }
    lsi_exec_fini(&ex);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_norms), TEST(test_rope), TEST(test_glu), TEST(test_embed), TEST(test_nll),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

/* The sampler against exact probabilities, and at the edges of each cut. */
#include <longspan/sample.h>

#include "base/base.h"
#include "test.h"

static ls_error err;

static ls_sampler_options plain(void)
{
    ls_sampler_options o;

    ls_sampler_options_defaults(&o);
    o.temperature = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    return o;
}

static ls_sampler *make(ls_sampler_options o, size_t n_vocab)
{
    ls_sampler *s = NULL;

    REQUIRE_OK(ls_sampler_create(&o, n_vocab, NULL, &s, &err), err);
    return s;
}

/*
 * Draw often and compare counts with `p` by chi-square. Tokens with p 0 must never come. With fewer
 * than 64 degrees of freedom, 64 + 8 * sqrt(128) is passed by chance less than once in 10^9 runs,
 * and the seed is fixed.
 */
static void check_distribution(ls_sampler_options o, const float *logits, const double *p, size_t n)
{
    enum {
        DRAWS = 200000
    };
    size_t count[64] = { 0 };
    double chi = 0;
    size_t free_cells = 0;
    o.seed = 42;
    ls_sampler *s = make(o, n);

    REQUIRE(n <= 64);
    for (int i = 0; i < DRAWS; i++) {
        const int32_t id = ls_sampler_choose(s, logits);
        REQUIRE(id >= 0 && (size_t)id < n);
        count[id]++;
    }
    for (size_t i = 0; i < n; i++) {
        const double want = p[i] * DRAWS;
        if (p[i] == 0) {
            CHECK_INT(count[i], 0);
        } else {
            chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
            free_cells++;
        }
    }
    CHECK(chi < (double)free_cells + 8 * sqrt(2 * (double)free_cells));
    ls_sampler_free(s);
}

static void softmax(const float *logits, double *p, size_t n, double temperature, const bool *kept)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p[i] = !kept || kept[i] ? exp((double)logits[i] / temperature) : 0;
    for (size_t i = 0; i < n; i++)
        p[i] /= sum;
}

static void test_full_softmax(void)
{
    float logits[32];
    double p[32];

    for (int i = 0; i < 32; i++)
        logits[i] = (float)((i * 7) % 32) * 0.11f - 2;
    softmax(logits, p, 32, 1, NULL);
    check_distribution(plain(), logits, p, 32);
    for (int t = 0; t < 2; t++) {
        ls_sampler_options o = plain();
        o.temperature = t ? 0.5f : 2.0f;
        softmax(logits, p, 32, (double)o.temperature, NULL);
        check_distribution(o, logits, p, 32);
    }
}

static void test_top_k(void)
{
    const float logits[8] = { 0.1f, 2.0f, 1.0f, 1.5f, -1.0f, 1.0f, 0.9f, 1.0f };
    const bool kept[8] = {
        false, true, true, true, false, true, false, false
    }; /* of three 1.0 the first two */
    ls_sampler_options o = plain();
    double p[8];

    o.top_k = 4;
    softmax(logits, p, 8, 1, kept);
    check_distribution(o, logits, p, 8);
    o.top_k = 8;
    softmax(logits, p, 8, 1, NULL);
    check_distribution(o, logits, p, 8);
    o.top_k = 1000;
    check_distribution(o, logits, p, 8);
}

static void test_top_p(void)
{
    /* Probabilities 0.4, 0.3, 0.2, 0.1 at ids 2, 0, 3, 1. */
    const float logits[4] = { logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f) };
    const struct {
        float top_p;
        double p[4];
    } rows[] = {
        { 0.0f, { 0, 0, 1, 0 } },
        { 0.39f, { 0, 0, 1, 0 } },
        { 0.5f, { 3.0 / 7, 0, 4.0 / 7, 0 } },
        { 0.75f, { 3.0 / 9, 0, 4.0 / 9, 2.0 / 9 } },
        { 0.95f, { 0.3, 0.1, 0.4, 0.2 } },
        { 1.0f, { 0.3, 0.1, 0.4, 0.2 } },
    };

    for (size_t i = 0; i < LSI_LEN(rows); i++) {
        ls_sampler_options o = plain();
        o.top_p = rows[i].top_p;
        check_distribution(o, logits, rows[i].p, 4);
        o.top_k = 4; /* the same through the other path */
        check_distribution(o, logits, rows[i].p, 4);
    }
}

static void test_top_p_after_top_k(void)
{
    const float logits[4] = { logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f) };
    const double p[4] = { 3.0 / 7, 0, 4.0 / 7, 0 };
    ls_sampler_options o = plain();

    o.top_k = 3; /* 0.4, 0.3, 0.2 of 0.9: the first two are 0.78 of it */
    o.top_p = 0.75f;
    check_distribution(o, logits, p, 4);
}

static void test_min_p(void)
{
    const float logits[4] = { logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f) };
    const double half[4] = { 3.0 / 9, 0, 4.0 / 9, 2.0 / 9 };
    const double all[4] = { 0, 0, 1, 0 };
    ls_sampler_options o = plain();

    o.min_p = 0.45f;
    check_distribution(o, logits, half, 4);
    o.top_k = 4;
    check_distribution(o, logits, half, 4);
    o.top_p = 0.99f;
    check_distribution(o, logits, half, 4);
    o.top_k = 0;
    check_distribution(o, logits, half, 4);
    o.min_p = 1;
    check_distribution(o, logits, all, 4);
}

/* Temperature comes after the cuts: it does not change who stays. */
static void test_temperature_last(void)
{
    const float logits[4] = { logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f) };
    const bool kept[4] = { true, false, true, false };
    ls_sampler_options o = plain();
    double p[4];

    o.top_p = 0.6f;
    o.temperature = 4;
    softmax(logits, p, 4, 4, kept);
    check_distribution(o, logits, p, 4);
}

/* A flat distribution makes top-p without top-k widen its thresholds to the end. */
static void test_top_p_wide(void)
{
    enum {
        V = 5000
    };
    float *logits = malloc(V * sizeof *logits);
    ls_sampler_options o = plain();

    REQUIRE(logits);
    for (int i = 0; i < V; i++)
        logits[i] = i == 4321 ? 0.0f : -9.0f - (float)(i % 50) * 0.01f;
    o.top_p = 0.999f;
    ls_sampler *s = make(o, V);
    bool other = false;
    for (int i = 0; i < 200; i++) {
        const int32_t id = ls_sampler_choose(s, logits);
        CHECK(id >= 0 && id < V);
        other |= id != 4321;
    }
    CHECK(other);
    ls_sampler_free(s);
    free(logits);
}

static void test_greedy(void)
{
    const float logits[6] = { 1, 3, 2, 3, -1, 3 };
    ls_sampler_options o = plain();

    o.temperature = 0;
    ls_sampler *s = make(o, 6);
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    ls_sampler_free(s);
    o.temperature = 1;
    o.top_k = 1;
    s = make(o, 6);
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    ls_sampler_free(s);
}

static void test_not_numbers(void)
{
    const float some[5] = { NAN, -INFINITY, 1, NAN, 1 };
    const float none[3] = { -INFINITY, -INFINITY, -INFINITY };
    const float nan[3] = { NAN, NAN, NAN };
    const float inf[4] = { 5, INFINITY, NAN, INFINITY };
    const double p[5] = { 0, 0, 0.5, 0, 0.5 };

    for (int top_k = 0; top_k <= 5; top_k += 5) {
        for (int cut = 0; cut < 2; cut++) {
            ls_sampler_options o = plain();
            o.top_k = top_k;
            o.top_p = cut ? 0.95f : 1.0f;
            o.min_p = cut ? 0.05f : 0.0f;
            check_distribution(o, some, p, 5);
            ls_sampler *s = make(o, 3);
            CHECK_INT(ls_sampler_choose(s, none), 0);
            CHECK_INT(ls_sampler_choose(s, nan), 0);
            ls_sampler_free(s);
            s = make(o, 4);
            CHECK_INT(ls_sampler_choose(s, inf), 1);
            ls_sampler_free(s);
        }
    }
    ls_sampler_options o = plain();
    o.temperature = 0;
    ls_sampler *s = make(o, 5);
    CHECK_INT(ls_sampler_choose(s, some), 2);
    ls_sampler_free(s);
}

static void test_penalty(void)
{
    const float logits[4] = { 2, 3, -1, 0.5f };
    ls_sampler_options o = plain();

    o.temperature = 0;
    o.repeat_penalty = 2;
    o.repeat_last = 2;
    ls_sampler *s = make(o, 4);
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    ls_sampler_accept(s, 1);
    ls_sampler_accept(s, 1); /* twice in the window, penalised once: 1.5 */
    CHECK_INT(ls_sampler_choose(s, logits), 0);
    ls_sampler_accept(s, 0); /* 1.0 against 1.5 */
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    ls_sampler_accept(s, 2);
    ls_sampler_accept(s, 2); /* 1 has left the window */
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    CHECK_NEAR(logits[1], 3, 0);
    ls_sampler_accept(s, -1); /* not of the vocabulary: ignored */
    ls_sampler_accept(s, 4);
    ls_sampler_free(s);

    o.repeat_last = -1;
    s = make(o, 4);
    ls_sampler_accept(s, 1);
    for (int i = 0; i < 100; i++)
        ls_sampler_accept(s, 2);
    CHECK_INT(ls_sampler_choose(s, logits), 0);
    ls_sampler_free(s);

    o.repeat_last = 0; /* off */
    s = make(o, 4);
    ls_sampler_accept(s, 1);
    CHECK_INT(ls_sampler_choose(s, logits), 1);
    ls_sampler_free(s);
}

/* Many logits of any shape: the heap finds the same set as sorting does. */
static void test_large_top_k(void)
{
    enum {
        V = 50000,
        K = 40
    };
    float *logits = malloc(V * sizeof *logits);
    struct lsi_rng r;
    ls_sampler_options o = plain();

    REQUIRE(logits);
    lsi_rng_init(&r, 1);
    for (int i = 0; i < V; i++)
        logits[i] = floorf((float)lsi_rng_normal(&r) * 100) / 100; /* many ties */
    o.top_k = K;
    o.temperature = 50; /* nearly flat: every one of the K comes up */
    ls_sampler *s = make(o, V);
    bool came[V] = { false };
    int n_came = 0;
    for (int i = 0; i < 2000; i++) {
        const int32_t id = ls_sampler_choose(s, logits);
        n_came += !came[id];
        came[id] = true;
    }
    CHECK_INT(n_came, K);
    for (int a = 0; a < V; a++) {
        if (!came[a])
            continue;
        int better = 0;
        for (int b = 0; b < V; b++)
            better += logits[b] > logits[a] || (logits[b] == logits[a] && b < a);
        CHECK(better < K);
    }
    ls_sampler_free(s);
    free(logits);
}

static void test_seed(void)
{
    float logits[64];
    int32_t first[50];
    bool differs = false;
    ls_sampler_options o;

    ls_sampler_options_defaults(&o);
    for (int i = 0; i < 64; i++)
        logits[i] = (float)(i % 5) * 0.1f;
    for (int run = 0; run < 3; run++) {
        o.seed = run < 2 ? 7 : 8;
        ls_sampler *s = make(o, 64);
        for (int i = 0; i < 50; i++) {
            const int32_t id = ls_sampler_choose(s, logits);
            if (run == 0)
                first[i] = id;
            else if (run == 1)
                CHECK_INT(id, first[i]);
            else
                differs |= id != first[i];
        }
        ls_sampler_free(s);
    }
    CHECK(differs);
}

static void check_refused(ls_sampler_options o, size_t n_vocab, const char *word)
{
    ls_sampler *s = NULL;

    CHECK_INT(ls_sampler_create(&o, n_vocab, NULL, &s, &err), LS_E_INVAL);
    CHECK(s == NULL);
    CHECK(strstr(err.text, word));
}

static void test_bad_options(void)
{
    ls_sampler_options o = plain();

    check_refused(o, 0, "vocabulary");
    o.temperature = -1;
    check_refused(o, 4, "temperature");
    o.temperature = NAN;
    check_refused(o, 4, "temperature");
    o = plain();
    o.top_k = -1;
    check_refused(o, 4, "top_k");
    o = plain();
    o.top_p = 1.5f;
    check_refused(o, 4, "top_p");
    o = plain();
    o.min_p = -0.1f;
    check_refused(o, 4, "min_p");
    o = plain();
    o.repeat_penalty = 0;
    check_refused(o, 4, "repeat_penalty");
    o = plain();
    o.repeat_last = -2;
    check_refused(o, 4, "repeat_last");
    o.repeat_last = INT32_MAX; /* would take 8 GB */
    check_refused(o, 4, "repeat_last");

    ls_sampler *s = NULL;
    REQUIRE_OK(ls_sampler_create(NULL, 4, NULL, &s, &err), err);
    ls_sampler_free(s);
    ls_sampler_free(NULL);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_full_softmax),      TEST(test_top_k),       TEST(test_top_p),
        TEST(test_top_p_after_top_k), TEST(test_min_p),       TEST(test_temperature_last),
        TEST(test_top_p_wide),        TEST(test_greedy),      TEST(test_not_numbers),
        TEST(test_penalty),           TEST(test_large_top_k), TEST(test_seed),
        TEST(test_bad_options),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

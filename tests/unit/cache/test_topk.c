/* The oracle top-k against its definition in double, and what the definition implies. */
#include "reading.h"

struct rule {
    const char *spec;
    size_t k, sinks, recent; /* k 0: a tenth of the tokens, rounded up */
    bool per_group, full_weights;
};

static const struct rule rules[] = {
    { "topk:k=7,fp32", 7, 0, 1, false, false },
    { "topk:k=12,sinks=2,recent=3,fp32", 12, 2, 3, false, false },
    { "topk:k=9,sets=per_group,fp32", 9, 0, 1, true, false },
    { "topk:k=9,renorm=no,fp32", 9, 0, 1, false, true },
    { "topk:k=11,sets=per_group,sinks=1,renorm=no,fp32", 11, 1, 1, true, true },
    { "topk:k=10%,fp32", 0, 0, 1, false, false },
    { "topk:k=1,fp32", 1, 0, 1, false, false },
};

/* What query head h of token t chooses. */
static void choose(const struct rule *r, size_t l, size_t t, size_t h, bool *in)
{
    static double number[N];
    static bool all[N];
    double unused[D], lse[H];
    const size_t n = t + 1, g = h / GROUP;
    const size_t size = lsi_min_size(n, lsi_max_size(r->k ? r->k : (n + 9) / 10, r->sinks + r->recent));
    for (size_t s = 0; s < n; s++)
        all[s] = true;
    for (size_t j = g * GROUP; j < (g + 1) * GROUP; j++)
        lse[j] = attend_to(l, t, j, all, unused);
    for (size_t s = 0; s < n; s++) {
        number[s] = r->per_group ? 0 : score_of(l, t, h, s);
        for (size_t j = g * GROUP; r->per_group && j < (g + 1) * GROUP; j++)
            number[s] += exp(score_of(l, t, j, s) - lse[j]);
        if (s < r->sinks || s + r->recent >= n)
            number[s] = INFINITY;
    }
    take_best(number, n, size, in);
}

static void expect_row(const struct rule *r, size_t t, size_t l, const float *out)
{
    static bool in[N], all[N];
    double o[D], unused[D];
    for (size_t s = 0; s <= t; s++)
        all[s] = true;
    for (size_t h = 0; h < H; h++) {
        choose(r, l, t, h, in);
        const double lse = attend_to(l, t, h, in, o);
        const double mass = r->full_weights ? exp(lse - attend_to(l, t, h, all, unused)) : 1;
        for (size_t d = 0; d < D; d++)
            CHECK_NEAR(out[h * D + d], mass * o[d], 2e-5);
    }
}

static void test_against_the_definition(void)
{
    for (size_t i = 0; i < LSI_LEN(rules); i++) {
        struct fixture f;
        open_fixture(&f, rules[i].spec, 2);
        feed_prompt(&f, 0, 250 + i, N, NULL);
        for (size_t t = 250 + i; t < 270; t++) {
            feed(&f, t, 1, got);
            for (size_t l = 0; l < L; l++)
                expect_row(&rules[i], t, l, got + l * Q);
        }
        close_fixture(&f);
        open_fixture(&f, rules[i].spec, 1);
        for (size_t t = 0; t < 40; t++) { /* from nothing, where sets are everything at first */
            feed(&f, t, 1, got);
            for (size_t l = 0; l < L; l++)
                expect_row(&rules[i], t, l, got + l * Q);
        }
        close_fixture(&f);
    }
}

/* Prompts by the same rule, row by row. */
static void test_prompts_by_rows(void)
{
    const struct rule r = { "", 6, 1, 2, false, false };
    struct fixture f;
    open_fixture(&f, "topk:k=6,sinks=1,recent=2,prompt=rows,fp32", 2);
    feed(&f, 0, 33, got);
    for (size_t t = 0; t < 33; t++)
        for (size_t l = 0; l < L; l++)
            expect_row(&r, t, l, got + (l * 33 + t) * Q);
    close_fixture(&f);
}

static void test_enough_is_full(void)
{
    check_is_full("topk:k=500", G);
}

/* No other set of its size holds more probability, and the output is as far from that of full attention as
 * the mass allows at most. */
static void test_the_best_of_its_size(void)
{
    enum {
        T = 120,
        SIZE = 8
    };
    static bool best[N], in[N], all[N];
    struct lsi_rng rng;
    lsi_rng_init(&rng, 3);
    double o[D], full[D], most = 0;
    for (size_t s = 0; s <= T; s++)
        all[s] = true;
    for (size_t s = 0; s <= T; s++) {
        double norm = 0;
        for (size_t d = 0; d < D; d++)
            norm += (double)v[0][s * KV + d] * (double)v[0][s * KV + d];
        most = fmax(most, sqrt(norm));
    }
    struct fixture f;
    open_fixture(&f, "topk:k=8,fp32", 2);
    feed_prompt(&f, 0, T, N, NULL);
    feed(&f, T, 1, got);
    close_fixture(&f);
    choose(&rules[0], 0, T, 0, best);
    const struct rule eight = { "", SIZE, 0, 1, false, false };
    choose(&eight, 0, T, 0, best);
    const double whole = attend_to(0, T, 0, all, full), mass = exp(attend_to(0, T, 0, best, o) - whole);
    double apart = 0;
    for (size_t d = 0; d < D; d++)
        apart += ((double)got[d] - full[d]) * ((double)got[d] - full[d]);
    CHECK(sqrt(apart) <= 2 * (1 - mass) * most + 1e-5);
    for (int trial = 0; trial < 10000; trial++) {
        memset(in, 0, sizeof in);
        in[T] = true; /* the latest token is in every set */
        for (size_t n = 1; n < SIZE;) {
            const size_t s = lsi_rng_below(&rng, T);
            n += in[s] ? 0 : 1;
            in[s] = true;
        }
        CHECK(exp(attend_to(0, T, 0, in, o) - whole) <= mass + 1e-12);
    }
}

/* Equal keys: the latest tokens. */
static void test_ties(void)
{
    static float keys[KV], values[40 * KV];
    struct fixture f;
    open_fixture(&f, "topk:k=5,fp32", 1);
    for (size_t i = 0; i < KV; i++)
        keys[i] = 0.5f;
    for (size_t i = 0; i < LSI_LEN(values); i++)
        values[i] = (float)(i / KV);
    for (size_t t = 0; t < 40; t++) {
        const struct lsi_cache_policy *p = f.cache->policy;
        REQUIRE_OK(p->reserve(f.cache, 1, &err), err);
        for (size_t l = 0; l < L; l++) {
            p->append(f.cache, &f.ex, l, keys, KV, values + t * KV, KV, 1);
            const struct lsi_cache_query query = {
                .q = q, .out = got, .ldq = Q, .ldo = Q, .T = 1, .scale = scale
            };
            p->attend(f.cache, &f.ex, l, &query);
            CHECK_NEAR(got[0], t < 5 ? (double)t / 2 : (double)t - 2, 1e-5);
        }
        p->commit(f.cache, 1);
    }
    close_fixture(&f);
}

static void test_threads_do_not_matter(void)
{
    for (size_t i = 0; i < LSI_LEN(rules); i++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct fixture f;
            open_fixture(&f, rules[i].spec, threads);
            feed_prompt(&f, 0, 500, N, NULL);
            feed(&f, 500, 1, threads == 1 ? want : got);
            CHECK(threads == 1 || max_diff(got, want, L * Q) == 0);
            close_fixture(&f);
        }
    }
}

static void test_what_does_not_fit_together(void)
{
    struct lsi_cache_spec s;
    const struct lsi_cache_shape shape = { .L = L, .H = H, .G = G, .D = D, .n_ctx = N };
    REQUIRE_OK(lsi_cache_parse(&s, "topk:k=4,sinks=3,recent=2", &err), err);
    CHECK_INT(s.policy->check(&s, &shape, &err), LS_E_INVAL);
    CHECK(strstr(err.text, "sinks=3") != NULL);
}

/* Fewer bytes than all of it, and more than the sets. */
static void test_bytes_read(void)
{
    struct fixture a, b;
    open_fixture(&a, "topk:k=10,sets=per_group,fp32", 1);
    open_fixture(&b, "full:fp32", 1);
    feed_prompt(&a, 0, 499, N, NULL);
    const size_t slot = (size_t)L * G * D * 2 * sizeof(float);
    CHECK_INT(a.cache->policy->bytes_read(a.cache), 500 * slot / 2 + 10 * slot / 2);
    close_fixture(&a);
    close_fixture(&b);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_against_the_definition),
        TEST(test_prompts_by_rows),
        TEST(test_enough_is_full),
        TEST(test_the_best_of_its_size),
        TEST(test_ties),
        TEST(test_threads_do_not_matter),
        TEST(test_what_does_not_fit_together),
        TEST(test_bytes_read),
    };
    make_data(1, 2);
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

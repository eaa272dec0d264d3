/* Quest against its definition in double: which pages are read, and that nothing else changes. */
#include "reading.h"

struct rule {
    const char *spec;
    size_t run, runs; /* tokens of a page, pages of a step */
    size_t skip;
    int combine; /* 0 pseudo, 1 max, 2 sum, 3: each query head for itself */
};

static const struct rule rules[] = {
    { "quest:page=16,budget=64,skip=0,fp32", 16, 4, 0, 0 },
    { "quest:page=4,budget=20,skip=1,fp32", 4, 5, 1, 0 },
    { "quest:page=16,budget=64,skip=0,combine=max,fp32", 16, 4, 0, 1 },
    { "quest:page=7,budget=10,skip=0,combine=sum,fp32", 7, 3, 0, 2 },
    { "quest:page=8,budget=48,skip=0,sets=per_q,fp32", 8, 6, 0, 3 },
    { "quest:page=256,budget=1,skip=0,fp32", 256, 3, 0, 0 },
};

static double together(const struct rule *r, size_t l, size_t t, size_t h, size_t run, const double *most)
{
    double u = r->combine == 1 ? -INFINITY : 0;
    if (r->combine == 3)
        return bound_of(l, t, h, run * r->run, r->run);
    for (size_t j = h / GROUP * GROUP; j < (h / GROUP + 1) * GROUP; j++) {
        const double b = bound_of(l, t, j, run * r->run, r->run);
        u = r->combine == 0 ? u + exp(b - most[j]) : r->combine == 1 ? fmax(u, b) : u + b;
    }
    return u;
}

static void expect_row(const struct rule *r, size_t t, size_t l, const float *out)
{
    static double number[N], most[H];
    static bool runs[N], in[N];
    const size_t full = lsi_div_up(t + 1, r->run) - 1; /* all but the last */
    double o[D];
    for (size_t h = 0; h < H; h++) {
        most[h] = -INFINITY;
        for (size_t i = 0; i < full; i++)
            most[h] = fmax(most[h], bound_of(l, t, h, i * r->run, r->run));
    }
    for (size_t h = 0; h < H; h++) {
        for (size_t i = 0; i < full; i++)
            number[i] = together(r, l, t, h, i, most);
        take_best(number, full, l < r->skip ? full : lsi_min_size(full, r->runs - 1), runs);
        runs[full] = true;
        for (size_t s = 0; s <= t; s++)
            in[s] = runs[s / r->run];
        attend_to(l, t, h, in, o);
        for (size_t d = 0; d < D; d++)
            CHECK_NEAR(out[h * D + d], o[d], 2e-5);
    }
}

static void test_against_the_definition(void)
{
    for (size_t i = 0; i < LSI_LEN(rules); i++) {
        for (size_t n = 0; n < 3; n++) {
            const size_t from = (size_t[]){ 0, 250, 540 }[n];
            struct fixture f;
            open_fixture(&f, rules[i].spec, 2);
            if (from > 0)
                feed_prompt(&f, 0, from, N, NULL);
            for (size_t t = from; t < from + 35; t++) { /* partial and full last pages, a single one */
                feed(&f, t, 1, got);
                for (size_t l = 0; l < L; l++)
                    expect_row(&rules[i], t, l, got + l * Q);
            }
            close_fixture(&f);
        }
    }
}

static void test_enough_is_full(void)
{
    check_is_full("quest:budget=600,skip=0", G);
}

/* A key far better than every bound is read, wherever it is. */
static void test_needles_are_found(void)
{
    static float keys[N * KV];
    for (size_t at = 0; at < 480; at += 37) {
        struct fixture f;
        open_fixture(&f, "quest:budget=48,skip=0,fp32", 1);
        memcpy(keys, k[0], sizeof keys);
        for (size_t i = 0; i < KV; i++)
            keys[at * KV + i] = 20 * q[500 * Q + (i / D * GROUP) * D + i % D];
        const struct lsi_cache_policy *p = f.cache->policy;
        REQUIRE_OK(p->reserve(f.cache, 500, &err), err);
        for (size_t l = 0; l < L; l++)
            p->append(f.cache, &f.ex, l, keys, KV, v[l], KV, 500);
        p->commit(f.cache, 500);
        feed(&f, 500, 1, got);
        for (size_t g = 0; g < G;
             g++) /* the first query head of each group is the one that was planted for */
            for (size_t d = 0; d < D; d++)
                CHECK_NEAR(got[g * GROUP * D + d], v[0][at * KV + g * D + d], 1e-4);
        close_fixture(&f);
    }
}

/* Whatever has happened before, tokens are read as in a cache that has only had them. */
static void test_history_does_not_matter(void)
{
    for (size_t i = 0; i < LSI_LEN(rules); i++) {
        struct lsi_rng rng;
        struct fixture a, plain;
        lsi_rng_init(&rng, i);
        open_fixture(&a, rules[i].spec, 1);
        for (int step = 0; step < 20; step++) {
            const size_t n = a.cache->length;
            if (lsi_rng_below(&rng, 3) == 0 && n > 0) {
                REQUIRE_OK(a.cache->policy->rewind(a.cache, lsi_rng_below(&rng, n + 1), &err), err);
            } else if (lsi_rng_below(&rng, 3) == 0) { /* rows of others, which never are committed */
                const size_t rows = lsi_min_size(N - n, 1 + lsi_rng_below(&rng, 60));
                REQUIRE_OK(a.cache->policy->reserve(a.cache, rows, &err), err);
                for (size_t l = 0; l < L; l++)
                    a.cache->policy->append(a.cache, &a.ex, l, k[1 - l], KV, v[l], KV, rows);
            } else if (lsi_rng_below(&rng, 3) ==
                       0) { /* go on with a copy, while the first one goes elsewhere */
                struct lsi_cache *copy;
                REQUIRE_OK(a.cache->policy->fork(a.cache, &copy, &err), err);
                feed(&a, 0, lsi_min_size(N - n, 40), NULL);
                a.cache->policy->free(a.cache);
                a.cache = copy;
            } else if (n < 500) {
                feed(&a, n, 1 + lsi_rng_below(&rng, 90), NULL);
            }
        }
        const size_t n = a.cache->length;
        if (n < 400)
            feed(&a, n, 400 - n, NULL);
        else
            REQUIRE_OK(a.cache->policy->rewind(a.cache, lsi_min_size(n, 550), &err), err);
        const size_t t = a.cache->length;
        open_fixture(&plain, rules[i].spec, 1);
        feed(&plain, 0, t, NULL);
        feed(&a, t, 1, got);
        feed(&plain, t, 1, want);
        CHECK(max_diff(got, want, L * Q) == 0);
        close_fixture(&a);
        close_fixture(&plain);
    }
}

/* Pages of its own for each query head are those of as many models with one head each. */
static void test_per_q_is_many_single_heads(void)
{
    const struct lsi_cache_shape one = { .L = L, .H = 1, .G = 1, .D = D, .n_ctx = N, .n_rows = N };
    struct fixture all;
    open_fixture(&all, "quest:budget=64,skip=0,sets=per_q,fp32", 2);
    feed(&all, 0, 400, NULL);
    feed(&all, 400, 1, want);
    for (size_t h = 0; h < H; h++) {
        struct fixture f;
        open_shape(&f, "quest:budget=64,skip=0,fp32", 1, LSI_COMPUTE_FP32, &one);
        const struct lsi_cache_policy *p = f.cache->policy;
        for (size_t part = 0; part < 2; part++) {
            const size_t row = part * 400, n = part ? 1 : 400, g = h / GROUP;
            REQUIRE_OK(p->reserve(f.cache, n, &err), err);
            for (size_t l = 0; l < L; l++) {
                p->append(f.cache, &f.ex, l, k[l] + row * KV + g * D, KV, v[l] + row * KV + g * D, KV, n);
                const struct lsi_cache_query query = {
                    .q = q + row * Q + h * D, .out = got, .ldq = Q, .ldo = D, .T = n, .scale = scale
                };
                p->attend(f.cache, &f.ex, l, &query);
                if (part == 1)
                    CHECK(max_diff(got, want + l * Q + h * D, D) < 2e-6);
            }
            p->commit(f.cache, n);
        }
        close_fixture(&f);
    }
    close_fixture(&all);
}

static void test_threads_and_formats(void)
{
    static const char *const formats[] = { "fp32", "bf16", "q8" };
    for (size_t i = 0; i < LSI_LEN(formats); i++)
        for (int threads = 1; threads <= 3; threads++) {
            char spec[64];
            struct fixture f;
            snprintf(spec, sizeof spec, "quest:budget=10%%,skip=0,%s", formats[i]);
            open_fixture(&f, spec, threads);
            feed_prompt(&f, 0, 560, N, NULL);
            feed(&f, 560, 1, threads == 1 ? want : got);
            CHECK(threads == 1 || max_diff(got, want, L * Q) == 0);
            close_fixture(&f);
        }
}

/* A tenth of the first prompt, later prompts change nothing; before there is one everything is read. */
static void test_percentages(void)
{
    struct fixture a, b;
    open_fixture(&a, "quest:budget=10%,skip=0,fp32", 1);
    open_fixture(&b, "quest:budget=50,skip=0,fp32", 1);
    feed_prompt(&a, 0, 500, N, NULL);
    feed_prompt(&b, 0, 500, N, NULL);
    feed_prompt(&a, 500, 40, N, NULL);
    feed_prompt(&b, 500, 40, N, NULL);
    feed(&a, 540, 1, got);
    feed(&b, 540, 1, want);
    CHECK(max_diff(got, want, L * Q) == 0);
    CHECK_INT(a.cache->policy->bytes_read(a.cache), b.cache->policy->bytes_read(b.cache));
    /* 3 pages of 16 of the 542 tokens, and the bounds of 33 pages: a byte each, and a scale. */
    CHECK_INT(a.cache->policy->bytes_read(a.cache),
              (3 * 16 * D * 2 * sizeof(float) + 33 * (D * 2 + sizeof(float))) * L * G);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_sliding_layers_are_plain(void)
{
    check_sliding_layer_is("quest:budget=48,skip=0,fp32", "full:fp32", 0);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_against_the_definition),
        TEST(test_enough_is_full),
        TEST(test_needles_are_found),
        TEST(test_history_does_not_matter),
        TEST(test_per_q_is_many_single_heads),
        TEST(test_threads_and_formats),
        TEST(test_percentages),
        TEST(test_sliding_layers_are_plain),
    };
    make_data(2, 2);
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

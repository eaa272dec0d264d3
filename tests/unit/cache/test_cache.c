/* Properties that every cache policy has, run on each of them in each precision. */
static const char *const specs[] = {
    "full:fp32",
    "full:bf16",
    "full:q8",
    "topk:k=40,fp32",
    "topk:k=9,sets=per_group,bf16",
    "quest:budget=64,skip=1,fp32",
    "quest:budget=48,page=8,skip=0,sets=per_q,bf16",
    "quest:budget=80,skip=0,q8",
};

enum {
    L = 2,
    H = 6,
    G = 2,
    D = 16,
    N = 700
};

#include "cache_fixture.h"

static void test_blocks_do_not_matter(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a, b;
        open_fixture(&a, specs[s], 2);
        open_fixture(&b, specs[s], 1);
        feed(&a, 0, 600, NULL);
        feed(&a, 600, 1, want);
        for (size_t i = 0; i < 600; i += 24)
            feed(&b, i, 24, NULL);
        feed(&b, 600, 1, got);
        CHECK(max_diff(got, want, L * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_rewind_is_never_having_been(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a, b;
        open_fixture(&a, specs[s], 1);
        open_fixture(&b, specs[s], 1);
        feed(&a, 0, 300, NULL);
        feed(&a, 300, 400, NULL);
        REQUIRE_OK(a.cache->policy->rewind(a.cache, 300, &err), err);
        CHECK_INT(a.cache->length, 300);
        feed(&b, 0, 300, NULL);
        feed(&a, 300, 100, got);
        feed(&b, 300, 100, want);
        CHECK(max_diff(got, want, (size_t)L * 100 * Q) == 0);
        CHECK_INT(a.cache->policy->rewind(a.cache, 401, &err), LS_E_INVAL);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_reserve_without_commit_changes_nothing(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a, b;
        open_fixture(&a, specs[s], 1);
        open_fixture(&b, specs[s], 1);
        feed(&a, 0, 50, NULL);
        feed(&b, 0, 50, NULL);
        REQUIRE_OK(a.cache->policy->reserve(a.cache, 30, &err), err);
        a.cache->policy->append(a.cache, &a.ex, 0, k[1], KV, v[1], KV, 30); /* a block cut short in layer 0 */
        feed(&a, 50, 20, got);
        feed(&b, 50, 20, want);
        CHECK(max_diff(got, want, (size_t)L * 20 * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_bytes_are_planned(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a;
        open_fixture(&a, specs[s], 1);
        CHECK_INT(a.cache->policy->bytes(a.cache), 0);
        for (size_t n = 0; n < 600; n += 100) {
            feed(&a, n, 100, NULL);
            CHECK_INT(a.cache->policy->bytes(a.cache),
                      a.cache->policy->plan(&plain_shape, &a.cache->spec, a.cache->length));
        }
        CHECK_INT(a.cache->policy->reserve(a.cache, N - 600 + 1, &err), LS_E_LIMIT);
        CHECK_INT(a.cache->length, 600);
        close_fixture(&a);
    }
}

static void test_tiling_repeats_pages(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a, b;
        open_fixture(&a, specs[s], 1);
        open_fixture(&b, specs[s], 1);
        feed(&a, 0, 255, NULL);
        CHECK_INT(a.cache->policy->tile(a.cache, 600, &err), LS_E_INVAL);
        feed(&a, 255, 1, NULL);
        REQUIRE_OK(a.cache->policy->tile(a.cache, 512, &err), err);
        feed(&b, 0, 256, NULL);
        feed(&b, 0, 256, NULL);
        feed(&a, 300, 10, got);
        feed(&b, 300, 10, want);
        CHECK(max_diff(got, want, (size_t)L * 10 * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_precisions_are_close_to_fp32(void)
{
    static const double bound[] = { 0, 0.03, 0.05 };
    struct fixture ref;
    open_fixture(&ref, specs[0], 1);
    feed(&ref, 0, N, want);
    for (size_t s = 1; s < LSI_LEN(bound); s++) {
        struct fixture a;
        open_fixture(&a, specs[s], 1);
        feed(&a, 0, N, got);
        CHECK_NEAR(max_diff(got, want, (size_t)L * N * Q), 0, bound[s]);
        close_fixture(&a);
    }
    close_fixture(&ref);
}

static void test_forks_share_until_written(void)
{
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        struct fixture a, b, plain;
        open_fixture(&a, specs[s], 1);
        open_fixture(&b, specs[s], 1);
        open_fixture(&plain, specs[s], 1);
        feed(&a, 0, 300, NULL);
        const size_t before = a.cache->policy->bytes(a.cache);
        b.cache->policy->free(b.cache);
        REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &err), err);
        CHECK_INT(a.cache->policy->bytes(a.cache), before); /* nothing has been copied */
        feed(&b, 400, 50, NULL);                            /* other tokens: a must not see them */
        feed(&a, 300, 50, got);
        feed(&plain, 0, 300, NULL);
        feed(&plain, 300, 50, want);
        CHECK(max_diff(got, want, (size_t)L * 50 * Q) == 0);
        close_fixture(&a); /* the copy lives on */
        REQUIRE_OK(b.cache->policy->rewind(b.cache, 300, &err), err);
        feed(&b, 300, 50, got);
        CHECK(max_diff(got, want, (size_t)L * 50 * Q) == 0);
        close_fixture(&b);
        close_fixture(&plain);
    }
}

static void test_spec_texts(void)
{
    struct lsi_cache_spec s;
    char name[32];
    CHECK_INT(lsi_cache_parse(&s, NULL, &err), LS_OK);
    lsi_cache_spec_name(&s, name, sizeof name);
    CHECK_STR(name, "full:bf16");
    CHECK_INT(lsi_cache_parse(&s, "full:q8", &err), LS_OK);
    lsi_cache_spec_name(&s, name, sizeof name);
    CHECK_STR(name, "full:q8");
    CHECK_INT(lsi_cache_parse(&s, "full:q9", &err), LS_E_INVAL);
    CHECK(strstr(err.text, "q9") != NULL);
    CHECK_INT(lsi_cache_parse(&s, "fully", &err), LS_E_INVAL);
}

/* What strtoll and strtod would read and nobody means, and what is said twice. */
static void test_spec_texts_that_cannot_be(void)
{
    static const struct {
        const char *kv, *sentence; /* part of it */
    } cases[] = {
        { "h2o:heavy= 5", "heavy is ' 5'" },
        { "", "unknown KV cache ''" },
        { "h2o:heavy=0x10", "heavy is '0x10'" },
        { "h2o:heavy=-5", "heavy is '-5'" },
        { "h2o:heavy= 5%", "heavy is ' 5%'" },
        { "h2o:heavy=0x10%", "heavy is '0x10%'" },
        { "h2o:heavy=nan%", "heavy is 'nan%'" },
        { "h2o:heavy=5,heavy=5", "heavy is given twice" },
        { "full:q8,bf16", "a precision is given twice" },
        { "quest:fp32+kivi:bf16", "a precision is given twice" },
        { "full:", "does not know ''" },
        { "full:q8,", "does not know ''" },
        { "h2o:,heavy=5", "does not know ''" },
    };
    struct lsi_cache_spec s;
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        CHECK_INT(lsi_cache_parse(&s, cases[i].kv, &err), LS_E_INVAL);
        CHECK(strstr(err.text, cases[i].sentence) != NULL);
    }
    CHECK_INT(lsi_cache_parse(&s, "quest:budget=1e-05%,fp32+kivi", &err), LS_OK); /* as names are written */
    CHECK_INT(lsi_cache_parse(&s, "h2o:heavy=007,recent=2.5%", &err), LS_OK);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_blocks_do_not_matter),
        TEST(test_rewind_is_never_having_been),
        TEST(test_reserve_without_commit_changes_nothing),
        TEST(test_bytes_are_planned),
        TEST(test_forks_share_until_written),
        TEST(test_tiling_repeats_pages),
        TEST(test_precisions_are_close_to_fp32),
        TEST(test_spec_texts),
        TEST(test_spec_texts_that_cannot_be),
    };
    make_data(1, 1);
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

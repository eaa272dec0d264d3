/* The kivi policy against a list of numbers that is quantised as the method says, and its limits. */
enum {
    L = 2,
    H = 6,
    G = 2,
    D = 48, /* a run of 32 dimensions and a shorter one */
    N = 900,
    GROUP = 32
};

#include "cache_fixture.h"
#include "memory_io.h"
#include "packing.h"

/* A channel with outliers, and one that hardly changes. */
static void shape_keys(void)
{
    for (size_t l = 0; l < L; l++)
        for (size_t t = 0; t < N; t++) {
            k[l][t * KV + 5] *= 8;
            k[l][t * KV + 9] = 3 + 0.01f * k[l][t * KV + 9];
        }
}

/* A prompt of n tokens in one block, or with n = 1 a step of decoding. */
static void feed_turn(struct fixture *f, size_t row, size_t n, float *out)
{
    if (n > 1)
        feed_prompt(f, row, n, n, out);
    else
        feed(f, row, n, out);
}

/* ---- the method as lists -------------------------------------------------------------------- */

struct model {
    size_t R, sinks, n, nk, nv;
    unsigned bits_k, bits_v;
    float k[L][N * KV], v[L][N * KV]; /* as they are stored */
};

static void model_quantise(struct model *m)
{
    const size_t nk = m->n - m->n % m->R, nv = m->n > m->R ? m->n - m->R : 0;
    for (size_t l = 0; l < L; l++) {
        for (size_t t = m->nk; t < nk; t += GROUP)
            for (size_t c = 0; c < KV; c++) {
                /* Sinks are no part of their group. */
                const size_t first = lsi_max_size(t, m->sinks);
                quantise(&m->k[l][first * KV + c], t + GROUP - first, KV, m->bits_k);
            }
        for (size_t t = lsi_max_size(m->nv, m->sinks); t < nv; t++)
            for (size_t g = 0; g < G; g++)
                for (size_t d = 0; d < D; d += GROUP)
                    quantise(&m->v[l][t * KV + g * D + d], lsi_min_size(GROUP, D - d), 1, m->bits_v);
    }
    m->nk = nk;
    m->nv = nv;
}

static void model_attend(const struct model *m, size_t l, size_t t, size_t h, size_t window,
                         const float *query, float *out)
{
    const size_t g = h / (H / G), first = window > 0 && t + 1 > window ? t + 1 - window : 0;
    double w[N], most = -INFINITY, sum = 0;
    for (size_t s = first; s <= t; s++) {
        w[s] = 0;
        for (size_t d = 0; d < D; d++)
            w[s] += (double)scale * (double)query[d] * (double)m->k[l][s * KV + g * D + d];
        most = fmax(most, w[s]);
    }
    for (size_t s = first; s <= t; s++)
        sum += w[s] = exp(w[s] - most);
    for (size_t d = 0; d < D; d++) {
        double o = 0;
        for (size_t s = first; s <= t; s++)
            o += w[s] * (double)m->v[l][s * KV + g * D + d];
        out[d] = (float)(o / sum);
    }
}

static void model_feed(struct model *m, size_t i0, size_t n, size_t window, float *out)
{
    for (size_t l = 0; l < L; l++) {
        memcpy(m->k[l] + m->n * KV, k[l] + i0 * KV, n * KV * sizeof(float));
        memcpy(m->v[l] + m->n * KV, v[l] + i0 * KV, n * KV * sizeof(float));
        for (size_t t = 0; t < n; t++)
            for (size_t h = 0; h < H; h++)
                model_attend(m, l, m->n + t, h, window, q + (i0 + t) * Q + h * D,
                             out + (l * n + t) * Q + h * D);
    }
    m->n += n;
    model_quantise(m);
}

static struct model model;

static const struct way {
    const char *spec;
    size_t R, sinks;
    unsigned bits_k, bits_v;
} ways[] = {
    { "kivi:bits=2,residual=32,fp32", 32, 0, 2, 2 },
    { "kivi:bits=4,residual=64,fp32", 64, 0, 4, 4 },
    { "kivi:bits=4,bits_v=2,residual=32,sinks=3,fp32", 32, 3, 4, 2 },
    { "kivi:bits=8,residual=96,sinks=32,fp32", 96, 32, 8, 8 },
};

static void start_model(const struct way *w)
{
    model = (struct model){ .R = w->R, .sinks = w->sinks, .bits_k = w->bits_k, .bits_v = w->bits_v };
}

/* ---- tests ------------------------------------------------------------------------------------ */

/* Prompts of n tokens, steps between them; each output is that of the lists. */
static void compare_with_model(const struct way *w, const size_t *prompts, size_t n_prompts, size_t steps,
                               size_t window)
{
    struct fixture f;
    size_t at = 0;
    open_fixture(&f, w->spec, 2);
    f.window = window;
    start_model(w);
    for (size_t i = 0; i < n_prompts; i++)
        for (size_t j = 0; j <= steps; j++) {
            const size_t n = j == 0 ? prompts[i] : 1;
            if (n == 0 || at + n > N)
                continue;
            feed_turn(&f, at, n, got);
            model_feed(&model, at, n, window, want);
            at += n;
            CHECK_NEAR(max_diff(got, want, L * n * Q), 0, 2e-5);
        }
    close_fixture(&f);
}

static void test_state_machine(void)
{
    for (size_t i = 0; i < LSI_LEN(ways); i++) {
        const size_t R = ways[i].R;
        const size_t lengths[] = { 0, R - 1, R, R + 1, 3 * R, 3 * R - 1, 3 * R + 1 };
        for (size_t j = 0; j < LSI_LEN(lengths); j++)
            compare_with_model(&ways[i], &lengths[j], 1, 2 * R + 3, 0);
        const size_t turns[] = { 70, 2, 150, 33 };
        compare_with_model(&ways[i], turns, LSI_LEN(turns), 41, 0);
        compare_with_model(&ways[i], turns, LSI_LEN(turns), 41, 50); /* a layer that slides */
    }
}

/* Long enough for the tail to move within its page several times. */
static void test_many_steps(void)
{
    const size_t one[] = { 40 };
    compare_with_model(&ways[0], one, 1, 700, 0);
    compare_with_model(&ways[2], one, 1, 500, 0);
}

static void test_short_is_full(void)
{
    static const char *const formats[] = { "fp32", "bf16" };
    for (size_t i = 0; i < LSI_LEN(formats); i++) {
        char spec[64];
        struct fixture a, b;
        snprintf(spec, sizeof spec, "kivi:bits=2,%s", formats[i]);
        open_shape(&a, spec, 2, LSI_COMPUTE_AUTO, &plain_shape);
        snprintf(spec, sizeof spec, "full:%s", formats[i]);
        open_shape(&b, spec, 1, LSI_COMPUTE_AUTO, &plain_shape);
        feed_prompt(&a, 0, 100, 100, got);
        feed_prompt(&b, 0, 100, 100, want);
        CHECK(max_diff(got, want, (size_t)L * 100 * Q) == 0);
        check_same_steps(&a, &b, 100, 128);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_prompts_are_exact(void)
{
    static const size_t lengths[] = { 2, 9, 127, 128, 129, 256, 511, 600 };
    for (size_t i = 0; i < LSI_LEN(lengths); i++) {
        struct fixture a, b;
        const size_t n = lengths[i], first = n / 3 + 1;
        open_shape(&a, "kivi:bits=2", 1, LSI_COMPUTE_AUTO, &plain_shape);
        open_shape(&b, "full:bf16", 1, LSI_COMPUTE_AUTO, &plain_shape);
        feed(&a, 0, first, got);
        feed(&b, 0, first, want);
        CHECK(max_diff(got, want, L * first * Q) == 0);
        feed(&a, first, n - first, got);
        feed(&b, first, n - first, want);
        CHECK(max_diff(got, want, L * (n - first) * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_blocks_and_threads_do_not_matter(void)
{
    struct fixture a, b;
    open_shape(&a, "kivi:bits=2", 2, LSI_COMPUTE_AUTO, &plain_shape);
    open_shape(&b, "kivi:bits=2", 1, LSI_COMPUTE_AUTO, &plain_shape);
    feed_prompt(&a, 0, 600, 600, NULL);
    for (size_t i = 0; i < 600; i += 24)
        feed(&b, i, 24, NULL);
    b.cache->policy->settle(b.cache, &b.ex);
    check_same_steps(&a, &b, 600, 640);
    feed_prompt(&a, 640, 100, 100, got);
    feed_prompt(&b, 640, 100, 100, want);
    CHECK(max_diff(got, want, (size_t)L * 100 * Q) == 0);
    close_fixture(&a);
    close_fixture(&b);
}

/* Rows of a second prompt read packed pages by way of bf16. */
static void test_many_rows_over_packed_pages(void)
{
    struct fixture a, b;
    open_shape(&a, "kivi:bits=2", 2, LSI_COMPUTE_AUTO, &plain_shape);
    open_fixture(&b, "kivi:bits=2", 2);
    feed_prompt(&a, 0, 500, 500, NULL);
    feed_prompt(&b, 0, 500, 500, NULL);
    feed_prompt(&a, 500, 60, 60, got);
    feed_prompt(&b, 500, 60, 60, want);
    CHECK_NEAR(max_diff(got, want, (size_t)L * 60 * Q), 0, 0.05);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_eight_bits_are_close_to_full(void)
{
    struct fixture a, b;
    open_fixture(&a, "kivi:bits=8,fp32", 2);
    open_fixture(&b, "full:fp32", 2);
    feed_prompt(&a, 0, 700, 700, NULL);
    feed_prompt(&b, 0, 700, 700, NULL);
    feed(&a, 700, 1, got);
    feed(&b, 700, 1, want);
    CHECK(max_diff(got, want, L * Q) > 0);
    CHECK_NEAR(max_diff(got, want, L * Q), 0, 0.02);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_rewind_is_never_having_been(void)
{
    struct fixture a, b;
    open_fixture(&a, "kivi:bits=2", 1);
    open_fixture(&b, "kivi:bits=2", 1);
    feed_prompt(&a, 0, 400, 400, NULL);
    feed_prompt(&b, 0, 400, 400, NULL);
    for (size_t t = 400; t < 430; t++)
        feed(&a, t, 1, NULL);
    const struct lsi_cache_policy *p = a.cache->policy;
    CHECK_INT(p->rewind(a.cache, 431, &err), LS_E_INVAL);
    CHECK_INT(p->rewind(a.cache, 300, &err), LS_E_UNSUPPORTED);
    CHECK(strstr(err.text, "384") != NULL); /* how far back it goes */
    CHECK_INT(a.cache->length, 430);
    REQUIRE_OK(p->rewind(a.cache, 400, &err), err);
    check_same_steps(&a, &b, 500, 530);
    REQUIRE_OK(p->rewind(a.cache, 390, &err), err); /* into the prompt */
    feed_prompt(&a, 600, 50, 50, got);
    REQUIRE_OK(p->rewind(a.cache, 0, &err), err);
    REQUIRE_OK(p->rewind(b.cache, 0, &err), err);
    feed_prompt(&a, 0, 300, 300, NULL);
    feed_prompt(&b, 0, 300, 300, NULL);
    feed(&a, 300, 1, got);
    feed(&b, 300, 1, want);
    CHECK(max_diff(got, want, L * Q) == 0);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_reserve_without_commit_changes_nothing(void)
{
    struct fixture a, b;
    open_fixture(&a, "kivi:bits=2", 1);
    open_fixture(&b, "kivi:bits=2", 1);
    feed_prompt(&a, 0, 255, 255, NULL);
    feed_prompt(&b, 0, 255, 255, NULL);
    const struct lsi_cache_policy *p = a.cache->policy;
    feed(&a, 255, 1, NULL); /* fills the tail of the keys */
    feed(&b, 255, 1, NULL);
    REQUIRE_OK(p->reserve(a.cache, 30, &err), err);
    p->append(a.cache, &a.ex, 0, k[1], KV, v[1], KV, 30); /* a block cut short in layer 0 */
    for (size_t t = 256; t < 300; t++) {
        feed(&a, t, 1, got);
        feed(&b, t, 1, want);
        CHECK_NEAR(max_diff(got, want, L * Q), 0, 2e-6); /* the tail may lie elsewhere in its pages */
    }
    close_fixture(&a);
    close_fixture(&b);
}

/* A step that ends after layer 0, which may have moved its tail alone, then a prompt in blocks. */
static void test_a_prompt_after_a_step_cut_short(void)
{
    struct fixture a;
    open_fixture(&a, "kivi:bits=2,residual=64", 2);
    const struct lsi_cache_policy *p = a.cache->policy;
    feed_prompt(&a, 0, 400, 400, NULL);
    for (size_t t = 400; t < 520; t++) {
        struct fixture b = a, c = a;
        feed(&a, t, 1, NULL);
        REQUIRE_OK(p->fork(a.cache, &b.cache, &err), err);
        REQUIRE_OK(p->fork(a.cache, &c.cache, &err), err);
        REQUIRE_OK(p->reserve(b.cache, 1, &err), err);
        p->append(b.cache, &a.ex, 0, k[0], KV, v[0], KV, 1);
        REQUIRE_OK(p->rewind(b.cache, t + 1, &err), err); /* as a context does it */
        feed(&b, t + 1, 256, got);
        feed(&c, t + 1, 256, want);
        CHECK_NEAR(max_diff(got, want, (size_t)L * 256 * Q), 0, 2e-6);
        feed(&b, t + 257, 90, got);
        feed(&c, t + 257, 90, want);
        CHECK_NEAR(max_diff(got, want, (size_t)L * 90 * Q), 0, 2e-6);
        p->free(b.cache);
        p->free(c.cache);
    }
    close_fixture(&a);
}

static void test_bytes_are_planned(void)
{
    struct fixture a;
    open_fixture(&a, "kivi:bits=2,residual=64", 1);
    const struct lsi_cache_policy *p = a.cache->policy;
    CHECK_INT(p->bytes(a.cache), 0);
    for (size_t n = 0; n < 500; n += 100) {
        feed_prompt(&a, n, 100, 100, NULL);
        CHECK_INT(p->bytes(a.cache), p->plan(&plain_shape, &a.cache->spec, a.cache->length));
    }
    check_step_bytes(&a, 500, 800, false);
    /* While a prompt is being read its tokens are exact. */
    REQUIRE_OK(p->rewind(a.cache, 0, &err), err);
    feed(&a, 0, 600, NULL);
    CHECK_INT(p->bytes(a.cache), p->plan_prompt(&plain_shape, &a.cache->spec, 600, 600));
    p->settle(a.cache, &a.ex);
    CHECK_INT(p->bytes(a.cache), p->plan(&plain_shape, &a.cache->spec, 600));
    CHECK_INT(p->reserve(a.cache, N - 600 + 1, &err), LS_E_LIMIT);
    close_fixture(&a);
}

static void test_forks_share_until_written(void)
{
    struct fixture a, b, plain;
    open_fixture(&a, "kivi:bits=2", 1);
    open_fixture(&b, "kivi:bits=2", 1);
    open_fixture(&plain, "kivi:bits=2", 1);
    feed_prompt(&a, 0, 500, 500, NULL);
    feed_prompt(&plain, 0, 500, 500, NULL);
    const size_t before = a.cache->policy->bytes(a.cache);
    b.cache->policy->free(b.cache);
    REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &err), err);
    CHECK_INT(a.cache->policy->bytes(a.cache), before); /* nothing has been copied */
    for (size_t t = 700; t < 720; t++)
        feed(&b, t, 1, NULL); /* other tokens: a must not see them */
    check_same_steps(&a, &plain, 500, 520);
    close_fixture(&a); /* the copy lives on */
    feed(&b, 720, 1, NULL);
    close_fixture(&b);
    close_fixture(&plain);
}

static void test_tiling_repeats_pages(void)
{
    struct fixture a, b;
    open_fixture(&a, "kivi:bits=2", 1);
    open_fixture(&b, "kivi:bits=2", 1);
    feed_prompt(&a, 0, 300, 300, NULL);
    CHECK_INT(a.cache->policy->tile(a.cache, 600, &err), LS_E_INVAL);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 0, &err), err);
    feed_prompt(&a, 0, 384, 384, NULL);
    REQUIRE_OK(a.cache->policy->tile(a.cache, 640, &err), err);
    CHECK_INT(a.cache->length, 640);
    CHECK_INT(a.cache->policy->bytes(a.cache), a.cache->policy->plan(&plain_shape, &a.cache->spec, 640));
    /* The same tokens as a prompt: 0 .. 255 twice, then 256 .. 383. */
    feed(&b, 0, 256, NULL);
    feed(&b, 0, 384, NULL);
    b.cache->policy->settle(b.cache, &b.ex);
    feed(&a, 400, 1, got);
    feed(&b, 400, 1, want);
    CHECK(max_diff(got, want, L * Q) == 0);
    close_fixture(&a);
    close_fixture(&b);
}

/* ---- state as bytes ---------------------------------------------------------------------------- */

static void test_state_can_be_stored(void)
{
    static const size_t steps[] = { 0, 20, 112 }; /* after the last a tail of keys waits to be quantised */
    for (size_t i = 0; i < LSI_LEN(steps); i++) {
        struct fixture a, b;
        open_fixture(&a, "kivi:bits=2,sinks=4", 1);
        open_fixture(&b, "kivi:bits=2,sinks=4", 1);
        feed_prompt(&a, 0, 400, 400, NULL);
        for (size_t t = 400; t < 400 + steps[i]; t++)
            feed(&a, t, 1, NULL);
        copy_by_state(a.cache, b.cache);
        CHECK_INT(b.cache->length, 400 + steps[i]);
        check_same_steps(&a, &b, 600, 620);
        /* Damaged counts are refused. */
        struct fixture c;
        open_fixture(&c, "kivi:bits=2,sinks=4", 1);
        memory.data[sizeof(size_t)] ^= 1;
        CHECK_INT(read_state(c.cache, &err), LS_E_FORMAT);
        c.cache->length = 0;
        close_fixture(&a);
        close_fixture(&b);
        close_fixture(&c);
    }
}

static void test_specs_that_cannot_be(void)
{
    struct lsi_cache_spec s;
    REQUIRE_OK(lsi_cache_parse(&s, "kivi:group=128,residual=64", &err), err);
    CHECK_INT(s.policy->check(&s, &plain_shape, &err), LS_E_INVAL);
    CHECK(strstr(err.text, "residual=128") != NULL);
    REQUIRE_OK(lsi_cache_parse(&s, "kivi:q8", &err), err);
    CHECK_INT(s.policy->check(&s, &plain_shape, &err), LS_E_INVAL);
    CHECK_INT(lsi_cache_parse(&s, "kivi:bits=3", &err), LS_E_INVAL);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_state_machine),
        TEST(test_many_steps),
        TEST(test_short_is_full),
        TEST(test_prompts_are_exact),
        TEST(test_blocks_and_threads_do_not_matter),
        TEST(test_many_rows_over_packed_pages),
        TEST(test_eight_bits_are_close_to_full),
        TEST(test_rewind_is_never_having_been),
        TEST(test_reserve_without_commit_changes_nothing),
        TEST(test_a_prompt_after_a_step_cut_short),
        TEST(test_bytes_are_planned),
        TEST(test_forks_share_until_written),
        TEST(test_tiling_repeats_pages),
        TEST(test_state_can_be_stored),
        TEST(test_specs_that_cannot_be),
    };
    make_data(7, 1);
    shape_keys();
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

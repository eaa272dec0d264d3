/*
 * The streaming policy against a simulator in double that keeps keys as they are before the rotary embedding,
 * builds the set that a token sees, numbers it anew and rotates everything.
 */
enum {
    L = 2, /* layer 1 slides */
    H = 4,
    G = 2,
    D = 16,
    N = 1500
};

#include "cache_fixture.h"

static const bool sliding[L] = { false, true };
static double inv_freq[D / 2];
static const struct lsi_rope rope = { .inv_freq = inv_freq, .mscale = 1 };

static struct lsi_cache_shape shape_of(size_t n_rows, size_t window)
{
    struct lsi_cache_shape shape = plain_shape;
    shape.n_rows = n_rows;
    shape.window = window;
    shape.sliding = window ? sliding : NULL;
    return shape;
}

static void open_window(struct fixture *f, const char *spec, size_t n_rows, size_t window)
{
    const struct lsi_cache_shape shape = shape_of(n_rows, window);
    open_shape(f, spec, 2, LSI_COMPUTE_FP32, &shape);
    f->rope = &rope;
}

/* ---- the simulator --------------------------------------------------------------------------- */

struct sim {
    size_t S, R;      /* recent tokens besides the newest */
    size_t window;    /* of the layer, which then sees nothing else; 0: none */
    size_t dense;     /* tokens of a first prompt that is read at once */
    bool old_numbers; /* positions of the text instead of the cache */
};

/* Tokens that token t sees, in the order of the cache, itself last. */
static size_t seen(const struct sim *s, size_t t, size_t *tokens)
{
    size_t n = 0;
    for (size_t j = 0; j <= t; j++)
        if (s->window > 0 ? j + s->window > t : t < s->dense || j < s->S || j + s->R >= t)
            tokens[n++] = j;
    return n;
}

static void rotate(double out[D], const float *x, double pos)
{
    for (size_t i = 0; i < D / 2; i++) {
        const double c = cos(pos * inv_freq[i]), s = sin(pos * inv_freq[i]);
        out[i] = (double)x[i] * c - (double)x[i + D / 2] * s;
        out[i + D / 2] = (double)x[i + D / 2] * c + (double)x[i] * s;
    }
}

static void simulate(const struct sim *s, size_t layer, size_t t, float *out)
{
    static size_t tokens[N];
    static double p[N];
    const size_t n = seen(s, t, tokens);
    const bool old_numbers = s->old_numbers || s->window > 0;
    for (size_t h = 0; h < H; h++) {
        const size_t g = h / (H / G);
        double rq[D], rk[D], most = -INFINITY, sum = 0, o[D] = { 0 };
        rotate(rq, q + t * Q + h * D, old_numbers ? (double)t : (double)(n - 1));
        for (size_t i = 0; i < n; i++) {
            rotate(rk, k[layer] + tokens[i] * KV + g * D, old_numbers ? (double)tokens[i] : (double)i);
            p[i] = 0;
            for (size_t d = 0; d < D; d++)
                p[i] += (double)scale * rq[d] * rk[d];
            most = fmax(most, p[i]);
        }
        for (size_t i = 0; i < n; i++) {
            const double w = exp(p[i] - most);
            sum += w;
            for (size_t d = 0; d < D; d++)
                o[d] += w * (double)v[layer][tokens[i] * KV + g * D + d];
        }
        for (size_t d = 0; d < D; d++)
            out[h * D + d] = (float)(o[d] / sum);
    }
}

/* Every fifth row, and those around the first that loses something, of what a run of n tokens gave. */
static double worst(const struct sim *plain, const struct sim *slide, size_t n, const float *run)
{
    double most = 0;
    float row[Q];
    for (size_t l = 0; l < L; l++)
        for (size_t t = 0; t < n; t++) {
            const struct sim *s = l == 1 ? slide : plain;
            if (t % 5 && (t < s->S + s->R || t > s->S + s->R + 3))
                continue;
            simulate(s, l, t, row);
            most = fmax(most, max_diff(run + (l * n + t) * Q, row, Q));
        }
    return most;
}

/* ---- tests -------------------------------------------------------------------------------------- */

static void test_equals_the_simulator(void)
{
    static const struct {
        const char *spec;
        size_t S, R, window; /* of layer 1: shorter and longer than what is cached */
    } cases[] = {
        { "streaming:sink=4,recent=60,fp32", 4, 60, 20 },
        { "streaming:sink=4,recent=60,fp32", 4, 60, 200 },
        { "streaming:sink=1,recent=1,fp32", 1, 1, 1 },
        { "streaming:sink=7,recent=129,fp32", 7, 129, 130 },
        { "streaming:sink=0,recent=50,fp32", 0, 50, 51 },
        { "streaming:sink=4,recent=61,self=yes,fp32", 4, 60, 20 },
        { "streaming:sink=300,recent=33,fp32", 300, 33, 0 },
        { "streaming:sink=256,recent=300,fp32", 256, 300, 557 },
    };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        const struct sim plain = { .S = cases[i].S, .R = cases[i].R };
        const struct sim slide = { .S = cases[i].S, .R = cases[i].R, .window = cases[i].window };
        for (size_t block = 1; block <= 64; block += 63) {
            struct fixture f;
            open_window(&f, cases[i].spec, block, cases[i].window);
            feed_blocks(&f, 0, N, block, got);
            CHECK_NEAR(worst(&plain, &slide, N, got), 0, 1e-5);
            close_fixture(&f);
        }
    }
}

static void test_precisions_are_close(void)
{
    static const struct {
        const char *spec;
        double bound;
    } cases[] = { { "streaming:sink=4,recent=300,bf16", 0.03 }, { "streaming:sink=4,recent=300,q8", 0.05 } };
    const struct sim s = { .S = 4, .R = 300 };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        struct fixture f;
        open_window(&f, cases[i].spec, 64, 0);
        feed_blocks(&f, 0, N, 64, got);
        CHECK_NEAR(worst(&s, &s, N, got), 0, cases[i].bound);
        close_fixture(&f);
    }
}

/* Packed keys are rotated as they were in the text, and queries as they are for exact ones. */
static void test_packed_windows_are_close(void)
{
    const struct sim s = { .S = 4, .R = 320 };
    struct fixture f;
    float row[Q];
    open_window(&f, "streaming:sink=4,recent=300,fp32+kivi:bits=8,residual=32", 64, 0);
    feed_prompt(&f, 0, 700, 64, NULL);
    feed_blocks(&f, 700, 400, 1, got);
    for (size_t t = 700; t < 1100; t += 7)
        for (size_t l = 0; l < L; l++) {
            simulate(&s, l, t, row);
            CHECK_NEAR(max_diff(got + (l * 400 + t - 700) * Q, row, Q), 0, 0.03);
        }
    close_fixture(&f);
}

/* Positions far beyond those that single precision would tell apart. */
static void test_a_million_tokens_on(void)
{
    enum {
        FAR = 1000000,
        S = 4,
        R = 100
    };
    struct fixture f;
    open_window(&f, "streaming:sink=4,recent=100,fp32", 64, 0);
    feed_blocks(&f, 0, 300, 60, NULL);
    REQUIRE_OK(f.cache->policy->tile(f.cache, FAR, &err), err);
    CHECK_INT(f.cache->length, FAR);
    feed_blocks(&f, 300, 600, 60, got);
    /* Once the window holds only what was read there, the set is that of a text of 900 tokens. */
    const struct sim s = { .S = S, .R = R };
    float row[Q];
    for (size_t t = 300 + R; t < 900; t += 3)
        for (size_t l = 0; l < L; l++) {
            simulate(&s, l, t, row);
            CHECK_NEAR(max_diff(got + (l * 600 + t - 300) * Q, row, Q), 0, 1e-5);
        }
    close_fixture(&f);
}

static void test_blocks_do_not_matter(void)
{
    static const size_t blocks[] = { 1, 7, 64, 1000 };
    for (size_t i = 0; i < LSI_LEN(blocks); i++) {
        struct fixture f;
        open_window(&f, "streaming:sink=4,recent=300,fp32", blocks[i], 40);
        feed_blocks(&f, 0, 1000, blocks[i], NULL);
        feed_blocks(&f, 1000, 1, 1, i == 0 ? want : got);
        if (i > 0)
            CHECK(max_diff(got, want, L * Q) == 0);
        close_fixture(&f);
    }
}

static void test_a_window_over_everything_is_full(void)
{
    struct fixture a, b;
    open_window(&a, "streaming:sink=4,recent=1495,fp32", 64, 30);
    open_window(&b, "full:fp32", 64, 30);
    feed_blocks(&a, 0, N, 64, got);
    feed_blocks(&b, 0, N, 64, want);
    CHECK(max_diff(got, want, LSI_LEN(got)) == 0);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_no_sinks_is_a_sliding_window(void)
{
    const struct sim s = { .S = 0, .R = 70, .old_numbers = true };
    struct fixture f;
    open_window(&f, "streaming:sink=0,recent=70,fp32", 64, 0);
    feed_blocks(&f, 0, N, 64, got);
    CHECK_NEAR(worst(&s, &s, N, got), 0, 1e-5);
    close_fixture(&f);
}

static void test_turns_are_one_stream(void)
{
    struct fixture a, b;
    open_window(&a, "streaming:sink=4,recent=90,fp32", 64, 0);
    open_window(&b, "streaming:sink=4,recent=90,fp32", 64, 0);
    feed_prompt(&a, 0, 500, 64, NULL);
    feed_blocks(&a, 500, 20, 1, NULL);
    feed_prompt(&a, 520, 600, 50, NULL);
    feed_blocks(&a, 1120, 1, 1, got);
    feed_prompt(&b, 0, 1120, 64, NULL);
    feed_blocks(&b, 1120, 1, 1, want);
    CHECK(max_diff(got, want, L * Q) == 0);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_dense_prompts(void)
{
    struct fixture f;
    const struct sim s = { .S = 4, .R = 60, .dense = 700 };
    open_window(&f, "streaming:sink=4,recent=60,prompt=dense,fp32", 64, 0);
    f.cache->n_prompt = 700;
    feed_blocks(&f, 0, 699, 64, NULL);
    feed_blocks(&f, 699, 1, 1, NULL); /* a block of one row is a part of the prompt as well */
    CHECK_INT(f.cache->policy->bytes(f.cache), 3 * L * lsi_kv_page_bytes(LSI_KV_F32, G, D));
    f.cache->policy->settle(f.cache, &f.ex);
    f.cache->n_prompt = 0;
    close_fixture(&f);

    open_window(&f, "streaming:sink=4,recent=60,prompt=dense,fp32", 64, 0);
    feed_prompt(&f, 0, 700, 64, got);
    const size_t most = f.cache->policy->plan(&f.cache->shape, &f.cache->spec, 256 * 3);
    CHECK(f.cache->policy->bytes(f.cache) <= most);
    for (size_t l = 0; l < L; l++)
        memmove(want + l * N * Q, got + l * 700 * Q, (size_t)700 * Q * sizeof *got);
    feed_blocks(&f, 700, N - 700, 1, got);
    for (size_t l = 0; l < L; l++)
        memcpy(want + (l * N + 700) * Q, got + l * (N - 700) * Q, (size_t)(N - 700) * Q * sizeof *got);
    CHECK_NEAR(worst(&s, &s, N, want), 0, 1e-5);

    /* A second prompt has S + R + 600 positions: too many. */
    f.cache->n_prompt = N;
    CHECK_INT(f.cache->policy->reserve(f.cache, 64, &err), LS_E_LIMIT);
    CHECK(strstr(err.text, "prompt=windowed") != NULL);
    close_fixture(&f);
}

/* A second prompt sees what was cached when it came, whole, and the sinks at positions that grow. */
static void test_a_second_dense_prompt(void)
{
    enum {
        S = 4,
        R = 60,
        FIRST = 400,
        SECOND = 500
    };
    struct fixture f;
    open_window(&f, "streaming:sink=4,recent=60,prompt=dense,fp32", 64, 0);
    feed_prompt(&f, 0, FIRST, 64, NULL);
    feed_prompt(&f, FIRST, SECOND, 64, got);
    float row[Q];
    for (size_t t = FIRST; t < FIRST + SECOND; t += 7) {
        const struct sim s = { .S = S, .R = R + t - FIRST }; /* the window has grown by the prompt */
        for (size_t l = 0; l < L; l++) {
            simulate(&s, l, t, row);
            CHECK_NEAR(max_diff(got + (l * SECOND + t - FIRST) * Q, row, Q), 0, 1e-5);
        }
    }
    close_fixture(&f);
}

static void test_rewind(void)
{
    static const size_t back[] = { 1, 40, 63, 1000, 1100 }; /* to the sinks' page, to the first tokens */
    for (size_t i = 0; i < LSI_LEN(back); i++) {
        const size_t n = 1100 - back[i];
        struct fixture a, b;
        open_window(&a, "streaming:sink=4,recent=90,fp32", 64, 30);
        open_window(&b, "streaming:sink=4,recent=90,fp32", 64, 30);
        feed_blocks(&a, 0, 1100, 64, NULL);
        REQUIRE_OK(a.cache->policy->rewind(a.cache, n, &err), err);
        CHECK_INT(a.cache->length, n);
        if (n > 0)
            feed_blocks(&b, 0, n, 64, NULL);
        feed_blocks(&a, n, 200, 50, got);
        feed_blocks(&b, n, 200, 50, want);
        CHECK(max_diff(got, want, (size_t)L * 200 * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_rewind_refuses_what_is_gone(void)
{
    struct fixture a, b;
    open_window(&a, "streaming:sink=4,recent=90,fp32", 64, 0);
    open_window(&b, "streaming:sink=4,recent=90,fp32", 64, 0);
    feed_blocks(&a, 0, 1100, 64, NULL);
    feed_blocks(&b, 0, 1100, 64, NULL);
    CHECK_INT(a.cache->policy->rewind(a.cache, 1101, &err), LS_E_INVAL);
    CHECK_INT(a.cache->policy->rewind(a.cache, 600, &err), LS_E_UNSUPPORTED);
    CHECK(strstr(err.text, "window has moved on") != NULL);
    feed_blocks(&a, 1100, 20, 1, got);
    feed_blocks(&b, 1100, 20, 1, want);
    CHECK(max_diff(got, want, (size_t)L * 20 * Q) == 0);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 0, &err), err);
    CHECK_INT(a.cache->length, 0);
    CHECK_INT(a.cache->policy->kept(a.cache, 0, 0, NULL), 0);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_reserve_without_commit_changes_nothing(void)
{
    struct fixture a, b;
    open_window(&a, "streaming:sink=4,recent=90,fp32", 64, 0);
    open_window(&b, "streaming:sink=4,recent=90,fp32", 64, 0);
    for (size_t row = 0; row < 1000; row += 50) {
        REQUIRE_OK(a.cache->policy->reserve(a.cache, 64, &err), err);
        a.cache->policy->append(a.cache, &a.ex, 0, k[1], KV, v[1], KV, 64); /* cut short in layer 0 */
        feed_blocks(&a, row, 50, 50, got);
        feed_blocks(&b, row, 50, 50, want);
        CHECK(max_diff(got, want, (size_t)L * 50 * Q) == 0);
    }
    close_fixture(&a);
    close_fixture(&b);
}

static void test_bytes_are_planned_and_end(void)
{
    struct fixture f;
    size_t most = 0;
    open_window(&f, "streaming:sink=4,recent=300,bf16", 64, 0);
    CHECK_INT(f.cache->policy->bytes(f.cache), 0);
    for (size_t n = 0; n < 40 * N; n += 60) {
        feed_blocks(&f, n % (N - 60), 60, 60, NULL);
        const size_t bytes = f.cache->policy->bytes(f.cache);
        CHECK_INT(bytes, f.cache->policy->plan(&f.cache->shape, &f.cache->spec, f.cache->length));
        most = lsi_max_size(most, bytes);
    }
    /* A page of sinks, and what 363 tokens can touch. */
    CHECK_INT(most, 4 * L * lsi_kv_page_bytes(LSI_KV_BF16, G, D));
    CHECK_INT(f.cache->policy->bytes_read(f.cache),
              305 * L * lsi_kv_page_bytes(LSI_KV_BF16, G, D) / LSI_KV_PAGE);
    close_fixture(&f);
}

static void test_kept(void)
{
    static int64_t pos[N];
    static size_t tokens[N];
    struct fixture f;
    open_window(&f, "streaming:sink=4,recent=90,fp32", 64, 30);
    for (size_t t = 0; t < 500; t++) {
        for (size_t l = 0; l < L; l++) {
            const struct sim s = { .S = 4, .R = 90, .window = l == 1 ? 30 : 0 };
            const size_t n = seen(&s, t, tokens) - 1; /* without itself */
            CHECK_INT(f.cache->policy->kept(f.cache, l, 1, NULL), n);
            CHECK_INT(f.cache->policy->kept(f.cache, l, 1, pos), n);
            for (size_t i = 0; i < n; i++)
                CHECK_INT(pos[i], tokens[i]);
        }
        feed_blocks(&f, t, 1, 1, NULL);
    }
    close_fixture(&f);
}

static void test_forks_share_until_written(void)
{
    struct fixture a, b, plain;
    open_window(&a, "streaming:sink=4,recent=300,fp32", 64, 0);
    open_window(&b, "streaming:sink=4,recent=300,fp32", 64, 0);
    open_window(&plain, "streaming:sink=4,recent=300,fp32", 64, 0);
    feed_blocks(&a, 0, 1000, 64, NULL);
    feed_blocks(&plain, 0, 1000, 64, NULL);
    const size_t before = a.cache->policy->bytes(a.cache);
    b.cache->policy->free(b.cache);
    REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &err), err);
    CHECK_INT(a.cache->policy->bytes(a.cache), before);
    feed_blocks(&b, 0, 600, 64, NULL); /* other tokens, over a whole ring: a must not see them */
    feed_blocks(&a, 1000, 50, 50, got);
    feed_blocks(&plain, 1000, 50, 50, want);
    CHECK(max_diff(got, want, (size_t)L * 50 * Q) == 0);
    close_fixture(&a); /* the copy lives on */
    feed_blocks(&b, 600, 50, 50, NULL);
    close_fixture(&b);
    close_fixture(&plain);
}

static ls_status check_spec(const char *text, size_t n_ctx, size_t n_trained)
{
    struct lsi_cache_spec s;
    struct lsi_cache_shape shape = shape_of(64, 0);
    shape.n_ctx = n_ctx;
    shape.n_trained = n_trained;
    const ls_status st = lsi_cache_parse(&s, text, &err);
    return st == LS_OK ? s.policy->check(&s, &shape, &err) : st;
}

static void test_windows_beyond_the_training_are_refused(void)
{
    CHECK_INT(check_spec("streaming", 100, 1025), LS_OK);
    CHECK_INT(check_spec("streaming", 100, 1024), LS_E_INVAL);
    CHECK(strstr(err.text, "recent=1019 or less") != NULL);
    CHECK_INT(check_spec("streaming", 1025, 1024), LS_OK); /* -c says that more is wanted */
    CHECK_INT(check_spec("streaming:recent=1021,self=yes", 100, 1025), LS_OK);
    CHECK_INT(check_spec("streaming:sink=1024,recent=1", 1024, 0), LS_E_INVAL);
    CHECK(strstr(err.text, "sink=") != NULL);
    CHECK_INT(check_spec("streaming:recent=0", 100, 1025), LS_E_INVAL);
    CHECK_INT(check_spec("streaming:prompt=sparse", 100, 1025), LS_E_INVAL);
}

static void test_a_share_of_the_prompt(void)
{
    struct fixture f;
    open_window(&f, "streaming:sink=4,recent=10%,fp32", 64, 0);
    feed_prompt(&f, 0, 905, 64, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 94);
    feed_prompt(&f, 905, 100, 64, NULL); /* of the first prompt, still */
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 94);
    REQUIRE_OK(f.cache->policy->rewind(f.cache, 0, &err), err);
    feed_prompt(&f, 0, 500, 64, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 54);
    close_fixture(&f);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_equals_the_simulator),
        TEST(test_precisions_are_close),
        TEST(test_packed_windows_are_close),
        TEST(test_a_million_tokens_on),
        TEST(test_blocks_do_not_matter),
        TEST(test_a_window_over_everything_is_full),
        TEST(test_no_sinks_is_a_sliding_window),
        TEST(test_turns_are_one_stream),
        TEST(test_dense_prompts),
        TEST(test_a_second_dense_prompt),
        TEST(test_rewind),
        TEST(test_rewind_refuses_what_is_gone),
        TEST(test_reserve_without_commit_changes_nothing),
        TEST(test_bytes_are_planned_and_end),
        TEST(test_kept),
        TEST(test_forks_share_until_written),
        TEST(test_windows_beyond_the_training_are_refused),
        TEST(test_a_share_of_the_prompt),
    };
    for (size_t i = 0; i < D / 2; i++)
        inv_freq[i] = pow(1e4, -2.0 * (double)i / D);
    make_data(1, 1);
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

/* SnapKV against a simulator in double, and what the policy promises beyond it. */
#include "kept_rig.h"

/* ---- the simulator -------------------------------------------------------------------------- */

struct sim {
    size_t H, G, budget, window, kernel;
    bool max, pyramid;
    size_t pos[L][H][N], n[L][H];
    double margin; /* least gap between a kept and a dropped score, of the largest score */
};

/* Row `row` sees the set and joins it; out [H*D] of the group's heads. */
static void sim_row(struct sim *m, size_t l, size_t g, size_t row, float *out)
{
    static double p[N];
    double o[D];
    const size_t group = m->H / m->G;
    m->pos[l][g][m->n[l][g]++] = row;
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        rig_dense(l, row, h, g, m->pos[l][g], m->n[l][g], p, o);
        for (size_t d = 0; d < D; d++)
            out[h * D + d] = (float)o[d];
    }
}

static size_t layer_budget(const struct sim *m, size_t l, size_t n)
{
    if (!m->pyramid)
        return m->budget;
    size_t lo = (m->budget - m->window) / 20, hi = 2 * (m->budget - m->window) - lo;
    if (hi > n - m->window) {
        hi = n - m->window;
        lo = 2 * (m->budget - m->window) - hi;
    }
    return m->window + lsi_max_size(1, hi - l * (hi - lo) / (L - 1));
}

/* Scores of the tokens before the window: softmax of each row of the window, summed, pooled, summed. */
static void sim_scores(struct sim *m, size_t l, size_t g, size_t n, double *score)
{
    static double p[N], s[N];
    const size_t group = m->H / m->G, before = n - m->window, half = m->kernel / 2;
    memset(score, 0, before * sizeof *score);
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        memset(s, 0, before * sizeof *s);
        for (size_t t = before; t < n; t++) {
            rig_dense(l, m->pos[l][g][t], h, g, m->pos[l][g], t + 1, p, NULL);
            for (size_t j = 0; j < before; j++)
                s[j] += p[j];
        }
        for (size_t j = 0; j < before; j++) {
            double pooled = 0;
            for (size_t i = j >= half ? j - half : 0; i <= j + half && i < before; i++)
                pooled = m->max ? fmax(pooled, s[i]) : pooled + s[i] / (double)m->kernel;
            score[j] += pooled;
        }
    }
}

static void sim_compress(struct sim *m, size_t l, size_t g)
{
    static double score[N];
    static bool keep[N];
    size_t *pos = m->pos[l][g], kept = 0;
    const size_t n = m->n[l][g], budget = layer_budget(m, l, n), before = n - m->window;
    if (n <= m->budget || n <= budget)
        return;
    sim_scores(m, l, g, n, score);
    for (size_t i = 0; i < n; i++)
        keep[i] = i >= before;
    double last = INFINITY, most = 0;
    for (size_t taken = 0; taken <= budget - m->window; taken++) {
        size_t at = SIZE_MAX;
        for (size_t i = 0; i < before; i++)
            if (!keep[i] && (at == SIZE_MAX || score[i] >= score[at]))
                at = i;
        if (at == SIZE_MAX)
            break;
        most = fmax(most, score[at]);
        if (taken == budget - m->window)
            m->margin = fmin(m->margin, (last - score[at]) / most);
        else
            keep[at] = true;
        last = score[at];
    }
    for (size_t i = 0; i < n; i++)
        if (keep[i])
            pos[kept++] = pos[i];
    m->n[l][g] = kept;
}

static void sim_rows(struct sim *m, size_t row, size_t n, bool compress, float *out)
{
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < m->G; g++) {
            for (size_t t = 0; t < n; t++)
                sim_row(m, l, g, row + t, out + (l * n + t) * m->H * D);
            if (compress)
                sim_compress(m, l, g);
        }
}

static bool sim_agrees(const struct sim *m, const struct fixture *f)
{
    static int64_t pos[N];
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < m->G; g++) {
            if (f->cache->policy->kept(f->cache, l, g, pos) != m->n[l][g])
                return false;
            for (size_t i = 0; i < m->n[l][g]; i++)
                if ((size_t)pos[i] != m->pos[l][g][i])
                    return false;
        }
    return true;
}

static void test_simulator(void)
{
    static struct sim m;
    struct lsi_rng r;
    size_t clear = 0, runs = 0;
    lsi_rng_init(&r, 7);
    for (size_t i = 0; i < 36; i++, runs++) {
        struct fixture f;
        char text[160];
        const size_t n = 60 + lsi_rng_below(&r, 150), cols = rig_heads[i % 6][0] * D;
        make_data(200 + i, 1);
        m = (struct sim){ .H = rig_heads[i % 6][0], .G = rig_heads[i % 6][1], .margin = INFINITY };
        m.window = 1 + lsi_rng_below(&r, 24);
        m.budget = m.window + 2 + lsi_rng_below(&r, 60);
        m.kernel = 1 + 2 * lsi_rng_below(&r, 16);
        m.max = i % 4 == 1;
        m.pyramid = i % 3 == 2;
        snprintf(text, sizeof text, "snapkv:budget=%zu,window=%zu,kernel=%zu,pool=%s,layers=%s,fp32",
                 m.budget, m.window, m.kernel, m.max ? "max" : "avg", m.pyramid ? "pyramid" : "equal");
        open_heads(&f, text, m.H, m.G);
        feed_prompt(&f, 0, n, 1 + lsi_rng_below(&r, 80), got);
        sim_rows(&m, 0, n, true, want);
        CHECK_NEAR(max_diff(got, want, L * n * cols), 0, 2e-5);
        if (m.margin > 1e-5) {
            clear++;
            CHECK(sim_agrees(&m, &f));
            for (size_t t = n; t < n + 10; t++) { /* answers drop nothing */
                feed(&f, t, 1, got);
                sim_rows(&m, t, 1, false, want);
                CHECK_NEAR(max_diff(got, want, L * cols), 0, 2e-5);
            }
            CHECK(sim_agrees(&m, &f));
            feed_prompt(&f, n + 10, 40, 16, got); /* nor do later prompts, unless the first one was short */
            sim_rows(&m, n + 10, 40, n <= m.budget, want);
            CHECK_NEAR(max_diff(got, want, L * 40 * cols), 0, 2e-5);
            CHECK(m.margin <= 1e-5 || sim_agrees(&m, &f));
        }
        close_fixture(&f);
    }
    CHECK(clear * 10 >= runs * 8);
}

static void test_large_budget_is_the_full_cache(void)
{
    make_data(5, 1);
    check_is_full("snapkv:budget=600", 2);
}

static void test_short_prompts(void)
{
    static const size_t lengths[] = { 1, 2, 5, 31, 32, 33, 34, 40 };
    static const struct {
        const char *text;
        size_t budget;
    } cases[] = {
        { "snapkv:budget=33,fp32", 33 },
        { "snapkv:budget=10%,fp32", 33 }, /* a window and one more at least */
        { "snapkv:budget=34,pool=max,kernel=7,fp32", 34 },
    };
    for (size_t i = 0; i < LSI_LEN(cases); i++)
        for (size_t j = 0; j < LSI_LEN(lengths); j++) {
            struct fixture f;
            make_data(6, 1);
            open_heads(&f, cases[i].text, 4, 2);
            feed_prompt(&f, 0, lengths[j], 7, NULL);
            CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), lsi_min_size(lengths[j], cases[i].budget));
            feed(&f, 100, 1, got);
            close_fixture(&f);
        }
}

/* A first prompt that fits is kept; the first one that does not is compressed. */
static void test_the_first_long_prompt(void)
{
    struct fixture f;
    make_data(7, 1);
    open_heads(&f, "snapkv:budget=100,window=8,fp32", 4, 2);
    feed_prompt(&f, 0, 60, 64, NULL);
    feed(&f, 60, 1, got);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 61);
    feed_prompt(&f, 61, 200, 64, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 100);
    for (int64_t i = 0; i < 8; i++)
        CHECK(rig_keeps(&f, 1, 1, 260 - i));
    feed_prompt(&f, 261, 200, 64, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 300);
    close_fixture(&f);
}

/* What the last queries look at survives, with its neighbours when scores are pooled. */
static void test_needle(void)
{
    struct fixture f;
    make_data(8, 1);
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < H; g++)
            for (size_t d = 0; d < D; d++) {
                float sum = 0;
                for (size_t t = 480; t < 500; t++)
                    sum += q[t * Q + g * D + d];
                k[l][123 * Q + g * D + d] = 2 * sum;
            }
    open_heads(&f, "snapkv:budget=40,window=20,kernel=5,fp32", 4, 4);
    feed_prompt(&f, 0, 500, 128, NULL);
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < 4; g++)
            for (int64_t i = -2; i <= 2; i++)
                CHECK(rig_keeps(&f, l, g, 123 + i));
    close_fixture(&f);
}

/* ---- what every policy promises ----------------------------------------------------------------- */

static const char usual[] = "snapkv:budget=60,window=16,fp32";

static void test_blocks_do_not_matter(void)
{
    make_data(9, 1);
    check_blocks_do_not_matter("snapkv:budget=20%,pool=max,fp32");
}

static void test_cancelled_rows_never_were(void)
{
    struct fixture a, b;
    make_data(10, 1);
    open_pair(&a, &b, usual);
    feed_part(&b, 0, 100, 200, 40, NULL);
    feed_part(&a, 0, 100, 200, 40, NULL);
    a.cache->n_prompt = 200;
    feed_rows(&a, 400, 50, 1, got); /* no commit */
    feed_prompt(&a, 100, 100, 40, got);
    feed_prompt(&b, 100, 100, 40, want);
    CHECK(same_kept(&a, &b));
    feed_rows(&a, 450, 50, L, got);
    check_same_steps(&a, &b, 200, 220);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_rewind(void)
{
    struct fixture a, b;
    make_data(11, 1);
    open_pair(&a, &b, usual);
    feed_prompt(&a, 0, 50, 50, NULL); /* fits */
    feed_prompt(&b, 0, 30, 30, NULL);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 30, &err), err);
    check_same_steps(&a, &b, 30, 35);
    feed_part(&a, 35, 200, 300, 100, NULL);
    CHECK_INT(a.cache->policy->rewind(a.cache, 200, &err), LS_E_UNSUPPORTED);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 135, &err), err); /* the last block */
    feed_part(&b, 35, 100, 300, 100, NULL);
    feed_prompt(&a, 135, 200, 64, NULL);
    feed_prompt(&b, 135, 200, 64, NULL);
    check_same_steps(&a, &b, 335, 340);
    feed_prompt(&a, 500, 100, 64, NULL);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 340, &err), err); /* what came after the prompt */
    check_same_steps(&a, &b, 340, 350);
    CHECK_INT(a.cache->policy->rewind(a.cache, 334, &err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->policy->rewind(a.cache, 351, &err), LS_E_INVAL);
    check_same_steps(&a, &b, 350, 360);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 0, &err), err);
    CHECK(rig_bytes(&a) <= (size_t)L * 4 * LSI_KV_PAGE * D * 2 * sizeof(float));
    close_fixture(&b);
    open_heads(&b, usual, 4, 2);
    feed_prompt(&a, 0, 200, 64, NULL);
    feed_prompt(&b, 0, 200, 64, NULL);
    check_same_steps(&a, &b, 200, 220);
    close_fixture(&a);
    close_fixture(&b);
}

static void test_fork_and_state(void)
{
    struct fixture a, b, plain;
    make_data(12, 1);
    open_pair(&a, &plain, usual);
    open_heads(&b, usual, 4, 2);
    feed_part(&a, 0, 150, 300, 64, NULL);
    copy_by_state(a.cache, b.cache); /* inside a prompt */
    feed_prompt(&a, 150, 150, 64, NULL);
    feed_prompt(&b, 150, 150, 64, NULL);
    feed_prompt(&plain, 0, 300, 64, NULL);
    CHECK(same_kept(&a, &b));
    CHECK(same_kept(&a, &plain));
    check_same_steps(&a, &plain, 300, 310);
    close_fixture(&b);
    const size_t before = rig_bytes(&a);
    REQUIRE_OK(lsi_exec_init_cpu(&b.ex, 1, LSI_COMPUTE_FP32, NULL, &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(&b.ex, a.ex.scratch.cap, &err), err);
    REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &err), err);
    CHECK_INT(rig_bytes(&a), before);
    for (size_t t = 500; t < 560; t++)
        feed(&b, t, 1, got);
    check_same_steps(&a, &plain, 310, 330);
    close_fixture(&b);
    open_heads(&b, usual, 4, 2);
    copy_by_state(a.cache, b.cache);
    check_same_steps(&b, &plain, 330, 350);
    close_fixture(&a);
    close_fixture(&b);
    close_fixture(&plain);
}

static void test_memory(void)
{
    struct fixture f;
    make_data(13, 1);
    open_heads(&f, usual, 4, 2);
    check_prompt_bytes(&f, 60);
    CHECK_INT(f.cache->policy->reserve(f.cache, N - 600 + 1, &err), LS_E_LIMIT);
    close_fixture(&f);
}

static void test_sliding_layers(void)
{
    make_data(14, 1);
    check_sliding_layer_is(usual, "full:fp32", 0);
}

static void test_budgets(void)
{
    struct lsi_cache_spec s;
    struct fixture f;
    char name[160];
    make_data(15, 1);
    open_heads(&f, "snapkv:budget=20%", 4, 2);
    feed_prompt(&f, 0, 400, 400, NULL);
    lsi_cache_spec_name(&f.cache->spec, name, sizeof name);
    CHECK_STR(name, "snapkv:budget=80,window=32,kernel=21,pool=avg,layers=equal,bf16");
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 80);
    REQUIRE_OK(f.cache->policy->tile(f.cache, 800, &err), err);
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 160);
    feed(&f, 0, 1, got);
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 161);
    close_fixture(&f);
    static const char *const wrong[] = { "snapkv:budget=32", "snapkv:kernel=4" };
    for (size_t i = 0; i < LSI_LEN(wrong); i++) {
        REQUIRE_OK(lsi_cache_parse(&s, wrong[i], &err), err);
        CHECK_INT(s.policy->check(&s, NULL, &err), LS_E_INVAL);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_simulator),
        TEST(test_large_budget_is_the_full_cache),
        TEST(test_short_prompts),
        TEST(test_the_first_long_prompt),
        TEST(test_needle),
        TEST(test_blocks_do_not_matter),
        TEST(test_cancelled_rows_never_were),
        TEST(test_rewind),
        TEST(test_fork_and_state),
        TEST(test_memory),
        TEST(test_sliding_layers),
        TEST(test_budgets),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

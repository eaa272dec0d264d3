/* H2O against a simulator in double with explicit sets of tokens, and what the policy promises beyond it. */
#include "kept_rig.h"

enum {
    ACC = 0
};

/* ---- the simulator -------------------------------------------------------------------------- */

struct entry {
    size_t pos;
    double acc;
};

struct set {
    struct entry e[N]; /* ascending */
    size_t n;
};

struct sim {
    size_t H, G, heavy, recent, sinks, chunk;
    bool age, weigh;
    size_t length;
    struct set set[L][H];
    double margin; /* least gap between a kept and a dropped score, of the largest score */
};

static double value_length(size_t l, size_t g, size_t pos)
{
    double sum = 0;
    for (size_t d = 0; d < D; d++)
        sum += pow((double)v[l][pos * Q + g * D + d], 2);
    return sqrt(sum);
}

/* Row `row` sees the set; sums and output [H*D] of the group's heads. */
static void sim_row(struct sim *m, size_t l, size_t g, size_t row, float *out)
{
    static size_t pos[N];
    static double p[N];
    double o[D];
    struct set *s = &m->set[l][g];
    const size_t group = m->H / m->G;
    s->e[s->n++] = (struct entry){ .pos = row };
    for (size_t i = 0; i < s->n; i++)
        pos[i] = s->e[i].pos;
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        rig_dense(l, row, h, g, pos, s->n, p, o);
        for (size_t i = 0; i < s->n; i++)
            s->e[i].acc += p[i];
        for (size_t d = 0; d < D; d++)
            out[h * D + d] = (float)o[d];
    }
}

static double sim_score(const struct sim *m, size_t l, size_t g, const struct entry *e)
{
    double score = e->acc;
    if (m->age)
        score /= (double)(m->length - e->pos);
    return m->weigh ? score * value_length(l, g, e->pos) : score;
}

/* Drop the lowest score until the budget holds; of equal ones the earlier token. */
static void sim_cut(struct sim *m, size_t l, size_t g)
{
    struct set *s = &m->set[l][g];
    while (s->n > m->heavy + m->recent) {
        size_t at = SIZE_MAX;
        double low = INFINITY, next = INFINITY, most = 0;
        for (size_t i = 0; i < s->n; i++) {
            if (s->e[i].pos < m->sinks || s->e[i].pos + m->recent >= m->length)
                continue;
            const double score = sim_score(m, l, g, &s->e[i]);
            most = fmax(most, score);
            if (score < low) {
                next = low;
                low = score;
                at = i;
            } else {
                next = fmin(next, score);
            }
        }
        /* In one cut of many only the last one dropped borders on a kept one. */
        if (s->n == m->heavy + m->recent + 1 && next < INFINITY)
            m->margin = fmin(m->margin, (next - low) / most);
        memmove(s->e + at, s->e + at + 1, (s->n - at - 1) * sizeof s->e[0]);
        s->n--;
    }
}

/* n rows; decoding cuts after each. out [L][n][H*D]. */
static void sim_rows(struct sim *m, size_t row, size_t n, bool prompt, float *out)
{
    for (size_t t = 0; t < n; t++) {
        m->length = row + t + 1;
        const bool cut = !prompt || t + 1 == n || (m->chunk > 0 && (t + 1) % m->chunk == 0);
        for (size_t l = 0; l < L; l++)
            for (size_t g = 0; g < m->G; g++) {
                sim_row(m, l, g, row + t, out + (l * n + t) * m->H * D);
                if (cut)
                    sim_cut(m, l, g);
            }
    }
}

static bool sim_agrees(const struct sim *m, const struct fixture *f)
{
    static int64_t pos[N];
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < m->G; g++) {
            const struct set *s = &m->set[l][g];
            if (f->cache->policy->kept(f->cache, l, g, pos) != s->n)
                return false;
            for (size_t i = 0; i < s->n; i++)
                if ((size_t)pos[i] != s->e[i].pos)
                    return false;
        }
    return true;
}

/* ---- against it -------------------------------------------------------------------------------- */

/* A prompt, some steps, another prompt, more steps. True when no choice was too close to call. */
static bool compare_run(struct sim *m, const char *text, const size_t *rows, size_t block)
{
    struct fixture f;
    size_t row = 0;
    bool clear = true;
    open_heads(&f, text, m->H, m->G);
    for (size_t part = 0; part < 4 && clear; part++) {
        const size_t n = rows[part], cols = m->H * D;
        if (part % 2 == 0) {
            feed_prompt(&f, row, n, block, got);
            sim_rows(m, row, n, true, want);
            CHECK_NEAR(max_diff(got, want, L * n * cols), 0, 2e-5);
            clear = m->margin > 1e-5;
            CHECK(!clear || sim_agrees(m, &f));
        }
        for (size_t t = 0; part % 2 == 1 && t < n && clear; t++) {
            feed(&f, row + t, 1, got);
            sim_rows(m, row + t, 1, false, want);
            CHECK_NEAR(max_diff(got, want, L * cols), 0, 2e-5);
            clear = m->margin > 1e-5;
            CHECK(!clear || sim_agrees(m, &f));
        }
        row += n;
    }
    close_fixture(&f);
    return clear;
}

static void test_simulator(void)
{
    static struct sim m;
    struct lsi_rng r;
    size_t clear = 0, runs = 0;
    lsi_rng_init(&r, 7);
    for (size_t i = 0; i < 36; i++, runs++) {
        make_data(100 + i, 1);
        m = (struct sim){ .H = rig_heads[i % 6][0], .G = rig_heads[i % 6][1], .margin = INFINITY };
        m.recent = lsi_rng_below(&r, 20);
        m.heavy = lsi_rng_below(&r, 24) + (m.recent == 0);
        m.sinks = m.heavy > 4 && i % 3 == 1 ? 4 : 0;
        m.chunk = i % 4 == 2 ? 1 + lsi_rng_below(&r, 60) : 0;
        m.age = i % 5 == 3;
        m.weigh = i % 7 == 4;
        const size_t rows[] = { 20 + lsi_rng_below(&r, 100), 1 + lsi_rng_below(&r, 30),
                                2 + lsi_rng_below(&r, 40), 1 + lsi_rng_below(&r, 30) };
        char text[160];
        snprintf(text, sizeof text,
                 "h2o:heavy=%zu,recent=%zu,sinks=%zu,chunk=%zu,normalise=%s,values=%s,fp32", m.heavy,
                 m.recent, m.sinks, m.chunk, m.age ? "age" : "none", m.weigh ? "weigh" : "plain");
        clear += compare_run(&m, text, rows, 1 + lsi_rng_below(&r, 70));
    }
    CHECK(clear * 10 >= runs * 8);
}

static void test_blocks_do_not_matter(void)
{
    make_data(3, 1);
    check_blocks_do_not_matter("h2o:heavy=20,recent=20,fp32");
    check_blocks_do_not_matter("h2o:heavy=10%,recent=5%,fp32");
    check_blocks_do_not_matter("h2o:heavy=20,recent=20,chunk=50,fp32");
}

static void test_large_budget_is_the_full_cache(void)
{
    make_data(5, 1);
    check_is_full("h2o:heavy=500,recent=200", 2);
}

/* Without heavy hitters: the recent ones and the token itself. */
static void test_no_heavy_is_a_window(void)
{
    struct fixture f, window;
    make_data(6, 1);
    open_heads(&f, "h2o:heavy=0,recent=31,fp32", 4, 2);
    open_heads(&window, "full:fp32", 4, 2);
    window.window = 32;
    feed_prompt(&f, 0, 100, 100, NULL);
    feed_prompt(&window, 0, 100, 100, NULL);
    for (size_t t = 100; t < 300; t++) {
        feed(&f, t, 1, got);
        feed(&window, t, 1, want);
        CHECK_NEAR(max_diff(got, want, L * Q), 0, 1e-5);
    }
    close_fixture(&f);
    close_fixture(&window);
}

/* Sums in two passes, over blocks, are the sums of the matrix; without dropping they are the number of
 * queries. */
static void test_column_sums(void)
{
    static struct sim m;
    const size_t n = 300;
    struct fixture f;
    make_data(8, 1);
    m = (struct sim){ .H = 4, .G = 2, .heavy = 400, .recent = 400, .margin = INFINITY };
    open_heads(&f, "h2o:heavy=400,recent=400,fp32", 4, 2);
    feed_prompt(&f, 0, n, 77, NULL);
    sim_rows(&m, 0, n, true, want);
    const struct lsi_kept *c = (const struct lsi_kept *)f.cache;
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < 2; g++) {
            const float *acc = lsi_kept_col(c, &c->layers[l], ACC, g);
            double sum = 0;
            for (size_t s = 0; s < n; s++) {
                CHECK_NEAR(acc[s], m.set[l][g].e[s].acc, 1e-5 * m.set[l][g].e[s].acc);
                sum += (double)acc[s];
            }
            CHECK_NEAR(sum, 2 * n, 1e-3);
        }
    close_fixture(&f);
}

/* A key that every query likes stays; one that none likes goes first. */
static void test_planted_keys(void)
{
    struct fixture f;
    make_data(9, 1);
    for (size_t t = 0; t < N; t++)
        for (size_t h = 0; h < H; h++)
            q[t * Q + h * D] = 6; /* a direction that all queries have */
    for (size_t l = 0; l < L; l++)
        for (size_t h = 0; h < H; h++) {
            for (size_t t = 0; t < N; t++)
                k[l][t * Q + h * D] = 0;
            k[l][50 * Q + h * D] = 4;
            k[l][20 * Q + h * D] = -8;
        }
    open_heads(&f, "h2o:heavy=80,recent=20,fp32", 4, 2);
    feed_prompt(&f, 0, 101, 101, NULL);
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < 2; g++)
            CHECK(!rig_keeps(&f, l, g, 20));
    for (size_t t = 101; t < 700; t++)
        feed(&f, t, 1, got);
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < 2; g++)
            CHECK(rig_keeps(&f, l, g, 50));
    close_fixture(&f);
}

/* Larger scores first, later tokens of equal ones. */
static void test_threshold(void)
{
    struct lsi_rng r;
    lsi_rng_init(&r, 10);
    for (size_t run = 0; run < 300; run++) {
        uint64_t keys[200], sorted[200];
        const size_t n = 1 + lsi_rng_below(&r, 200), best = 1 + lsi_rng_below(&r, n);
        for (size_t i = 0; i < n; i++)
            keys[i] = lsi_kept_key((float)lsi_rng_below(&r, 1 + run % 9) - 3, (uint32_t)i);
        memcpy(sorted, keys, sizeof sorted);
        for (size_t i = 0; i < n; i++)
            for (size_t j = i + 1; j < n; j++)
                if (sorted[j] > sorted[i]) {
                    const uint64_t t = sorted[i];
                    sorted[i] = sorted[j];
                    sorted[j] = t;
                }
        CHECK(lsi_kept_threshold(keys, n, best) == sorted[best - 1]);
    }
    CHECK(lsi_kept_key(-1, 9) < lsi_kept_key(0, 1));
    CHECK(lsi_kept_key(1, 9) > lsi_kept_key(1, 8));
    CHECK(lsi_kept_key(1, 9) < lsi_kept_key(1.5f, 8));
}

/* ---- what every policy promises ----------------------------------------------------------------- */

static const char usual[] = "h2o:heavy=30,recent=30,fp32";

static void test_cancelled_rows_never_were(void)
{
    struct fixture a, b;
    make_data(11, 1);
    open_pair(&a, &b, usual);
    feed_prompt(&a, 0, 200, 64, NULL);
    feed_prompt(&b, 0, 200, 64, NULL);
    for (size_t t = 200; t < 230; t++) {
        a.cache->n_prompt = t % 3 == 0 ? 5 : 0;
        feed_rows(&a, 400 + t, t % 3 == 0 ? 5 : 1, 1 + t % L, got); /* no commit */
        a.cache->n_prompt = 0;
        check_same_steps(&a, &b, t, t + 1);
    }
    close_fixture(&a);
    close_fixture(&b);
}

static void test_rewind(void)
{
    struct fixture a, b;
    make_data(12, 1);
    open_pair(&a, &b, usual);
    feed_prompt(&a, 0, 50, 50, NULL);
    feed_prompt(&b, 0, 50, 50, NULL);
    feed_part(&a, 300, 40, 60, 20, NULL); /* a prompt cut short after two of three blocks */
    CHECK_INT(a.cache->policy->rewind(a.cache, 65, &err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->length, 90);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 50, &err), err); /* to the end of the one before */
    check_same_steps(&a, &b, 50, 100);
    feed(&a, 500, 1, got); /* drops something, which comes back */
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 100, &err), err);
    check_same_steps(&a, &b, 100, 120);
    CHECK_INT(a.cache->policy->rewind(a.cache, 118, &err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->policy->rewind(a.cache, 50, &err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->policy->rewind(a.cache, 121, &err), LS_E_INVAL);
    check_same_steps(&a, &b, 120, 140);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 0, &err), err);
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
    static const char spec[] = "h2o:heavy=10%,recent=10%,values=weigh,fp32";
    struct fixture a, b, plain;
    make_data(13, 1);
    open_pair(&a, &plain, spec);
    open_heads(&b, spec, 4, 2);
    feed_prompt(&a, 0, 300, 64, NULL);
    feed_prompt(&plain, 0, 300, 64, NULL);
    check_same_steps(&a, &plain, 300, 320);
    const size_t before = rig_bytes(&a);
    b.cache->policy->free(b.cache);
    REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &err), err);
    CHECK_INT(rig_bytes(&a), before);
    for (size_t t = 500; t < 560; t++) /* other tokens: the first must not see them */
        feed(&b, t, 1, got);
    check_same_steps(&a, &plain, 320, 340);
    close_fixture(&b);
    open_heads(&b, spec, 4, 2);
    copy_by_state(a.cache, b.cache);
    CHECK(same_kept(&a, &b));
    check_same_steps(&b, &plain, 340, 380);
    close_fixture(&a);
    close_fixture(&b);
    close_fixture(&plain);
}

static void test_heads_do_not_matter_to_each_other(void)
{
    static int64_t x[N], y[N];
    struct fixture a, b;
    make_data(14, 1);
    open_heads(&a, usual, 4, 2);
    feed_prompt(&a, 0, 300, 64, NULL);
    for (size_t l = 0; l < L; l++)
        for (size_t t = 0; t < N; t++)
            for (size_t d = 0; d < D; d++)
                k[l][t * Q + D + d] *= -2; /* of kv head 1 */
    open_heads(&b, usual, 4, 2);
    feed_prompt(&b, 0, 300, 64, NULL);
    for (size_t l = 0; l < L; l++) {
        const size_t n = a.cache->policy->kept(a.cache, l, 0, x);
        CHECK_INT(b.cache->policy->kept(b.cache, l, 0, y), n);
        CHECK(memcmp(x, y, n * sizeof *x) == 0);
    }
    close_fixture(&a);
    close_fixture(&b);
}

/* Three sequences in turn are three sequences one after the other. */
static void test_sequences_do_not_matter_to_each_other(void)
{
    struct fixture f[3], alone;
    make_data(15, 1);
    for (size_t i = 0; i < 3; i++) {
        open_heads(&f[i], usual, 4, 1);
        feed_prompt(&f[i], 100 * i, 100 + 50 * i, 64, NULL);
    }
    for (size_t t = 0; t < 40; t++)
        for (size_t i = 0; i < 3; i++)
            feed(&f[i], 600 + t + 7 * i, 1, got);
    for (size_t i = 0; i < 3; i++) {
        open_heads(&alone, usual, 4, 1);
        feed_prompt(&alone, 100 * i, 100 + 50 * i, 64, NULL);
        for (size_t t = 0; t < 40; t++)
            feed(&alone, 600 + t + 7 * i, 1, got);
        CHECK(same_kept(&f[i], &alone));
        close_fixture(&alone);
        close_fixture(&f[i]);
    }
}

static void test_memory(void)
{
    struct fixture f;
    make_data(16, 1);
    open_heads(&f, usual, 4, 2);
    const struct lsi_cache_policy *p = f.cache->policy;
    check_prompt_bytes(&f, 60);
    const size_t settled = rig_bytes(&f);
    for (size_t t = 600; t < 800; t++) {
        feed(&f, t, 1, got);
        CHECK_INT(rig_bytes(&f), settled);
        for (size_t g = 0; g < 2; g++)
            CHECK_INT(p->kept(f.cache, 0, g, NULL), 60);
    }
    CHECK_INT(p->reserve(f.cache, N - 800 + 1, &err), LS_E_LIMIT);
    close_fixture(&f);
}

/* |o_full - o_kept| <= 2 (1 - mass) max |v|, and every output lies between the values. */
static void test_bounds(void)
{
    static size_t pos[N];
    static int64_t at[N];
    static double p[N];
    struct fixture f;
    make_data(17, 1);
    open_heads(&f, usual, 4, 2);
    feed_prompt(&f, 0, 250, 250, NULL);
    for (size_t t = 250; t < 300; t++) {
        size_t kept[L][2];
        static bool in[L][2][N];
        memset(in, 0, sizeof in);
        for (size_t l = 0; l < L; l++)
            for (size_t g = 0; g < 2; g++) {
                kept[l][g] = f.cache->policy->kept(f.cache, l, g, at);
                for (size_t i = 0; i < kept[l][g]; i++)
                    in[l][g][at[i]] = true;
                in[l][g][t] = true;
            }
        feed(&f, t, 1, got);
        for (size_t j = 0; j <= t; j++)
            pos[j] = j;
        for (size_t l = 0; l < L; l++)
            for (size_t h = 0; h < 4; h++) {
                double full[D], mass = 0, longest = 0, off = 0;
                rig_dense(l, t, h, h / 2, pos, t + 1, p, full);
                for (size_t j = 0; j <= t; j++) {
                    mass += in[l][h / 2][j] ? p[j] : 0;
                    longest = fmax(longest, value_length(l, h / 2, j));
                }
                for (size_t d = 0; d < D; d++) {
                    const float o = got[l * Q + h * D + d];
                    float lo = INFINITY, hi = -INFINITY;
                    off += pow(full[d] - (double)o, 2);
                    for (size_t j = 0; j <= t; j++) {
                        lo = fminf(lo, v[l][j * Q + h / 2 * D + d]);
                        hi = fmaxf(hi, v[l][j * Q + h / 2 * D + d]);
                    }
                    CHECK(o >= lo - 1e-5f && o <= hi + 1e-5f);
                }
                CHECK(sqrt(off) <= 2 * (1 - mass) * longest + 1e-5);
            }
    }
    close_fixture(&f);
}

/* Layers that slide are as in the full cache, and give back what no row sees. */
static void test_sliding_layers(void)
{
    struct fixture f;
    make_data(18, 1);
    check_sliding_layer_is(usual, "full:fp32", 0);
    open_sliding(&f, usual, 100);
    feed_prompt(&f, 0, 700, 200, NULL);
    CHECK(rig_bytes(&f) < f.cache->policy->plan(&f.cache->shape, &f.cache->spec, 700) * 3 / 4);
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 0, NULL), 99);
    close_fixture(&f);
}

static void test_budgets(void)
{
    struct lsi_cache_spec s;
    struct fixture f;
    char name[160];
    make_data(19, 1);
    open_heads(&f, "h2o", 4, 2);
    feed_prompt(&f, 0, 333, 333, NULL);
    lsi_cache_spec_name(&f.cache->spec, name, sizeof name);
    CHECK_STR(name, "h2o:heavy=33,recent=33,sinks=0,chunk=0,normalise=none,values=plain,bf16");
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 66);
    feed_prompt(&f, 333, 100, 50, NULL); /* the first prompt has said what per cent are of */
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 66);
    REQUIRE_OK(f.cache->policy->rewind(f.cache, 0, &err), err);
    feed_prompt(&f, 0, 200, 200, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 40);
    REQUIRE_OK(f.cache->policy->tile(f.cache, 800, &err), err);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 160);
    CHECK(rig_keeps(&f, 0, 0, 799) && rig_keeps(&f, 0, 0, 720));
    feed(&f, 0, 1, got);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 160);
    close_fixture(&f);
    static const char *const wrong[] = { "h2o:heavy=0,recent=0", "h2o:heavy=3,recent=9,sinks=4",
                                         "h2o:heavy=60%,recent=60%" };
    for (size_t i = 0; i < LSI_LEN(wrong); i++) {
        REQUIRE_OK(lsi_cache_parse(&s, wrong[i], &err), err);
        CHECK_INT(s.policy->check(&s, NULL, &err), LS_E_INVAL);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_simulator),
        TEST(test_blocks_do_not_matter),
        TEST(test_large_budget_is_the_full_cache),
        TEST(test_no_heavy_is_a_window),
        TEST(test_column_sums),
        TEST(test_planted_keys),
        TEST(test_threshold),
        TEST(test_cancelled_rows_never_were),
        TEST(test_rewind),
        TEST(test_fork_and_state),
        TEST(test_heads_do_not_matter_to_each_other),
        TEST(test_sequences_do_not_matter_to_each_other),
        TEST(test_memory),
        TEST(test_bounds),
        TEST(test_sliding_layers),
        TEST(test_budgets),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

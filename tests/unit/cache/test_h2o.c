/* H2O against a simulator in double with explicit sets of tokens, and what the policy promises beyond it. */
#include "kept_rig.h"

enum {
    ACC = 0,
    COLS = RIG_Q
};

static float got[RIG_L * RIG_N * RIG_Q], want[RIG_L * RIG_N * RIG_Q];

/* ---- the simulator -------------------------------------------------------------------------- */

struct entry {
    size_t pos;
    double acc;
};

struct set {
    struct entry e[RIG_N]; /* ascending */
    size_t n;
};

struct sim {
    size_t H, G, heavy, recent, sinks, chunk;
    bool age, weigh;
    size_t length;
    struct set set[RIG_L][RIG_H];
    double margin; /* least gap between a kept and a dropped score, of the largest score */
};

static double value_length(size_t l, size_t g, size_t pos)
{
    double sum = 0;
    for (size_t d = 0; d < RIG_D; d++)
        sum += pow((double)rig_v[l][pos * RIG_Q + g * RIG_D + d], 2);
    return sqrt(sum);
}

/* Row `row` sees the set; sums and output [H*D] of the group's heads. */
static void sim_row(struct sim *m, size_t l, size_t g, size_t row, float *out)
{
    static size_t pos[RIG_N];
    static double p[RIG_N];
    double o[RIG_D];
    struct set *s = &m->set[l][g];
    const size_t group = m->H / m->G;
    s->e[s->n++] = (struct entry){ .pos = row };
    for (size_t i = 0; i < s->n; i++)
        pos[i] = s->e[i].pos;
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        rig_dense(l, row, h, g, pos, s->n, p, o);
        for (size_t i = 0; i < s->n; i++)
            s->e[i].acc += p[i];
        for (size_t d = 0; d < RIG_D; d++)
            out[h * RIG_D + d] = (float)o[d];
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
        for (size_t l = 0; l < RIG_L; l++)
            for (size_t g = 0; g < m->G; g++) {
                sim_row(m, l, g, row + t, out + (l * n + t) * m->H * RIG_D);
                if (cut)
                    sim_cut(m, l, g);
            }
    }
}

static bool sim_agrees(const struct sim *m, const struct rig *f)
{
    static int64_t pos[RIG_N];
    for (size_t l = 0; l < RIG_L; l++)
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
    struct rig f;
    size_t row = 0;
    bool clear = true;
    rig_open(&f, text, m->H, m->G);
    for (size_t part = 0; part < 4 && clear; part++) {
        const size_t n = rows[part], cols = m->H * RIG_D;
        if (part % 2 == 0) {
            rig_prompt(&f, row, n, block, got);
            sim_rows(m, row, n, true, want);
            CHECK_NEAR(rig_diff(got, want, RIG_L * n * cols), 0, 2e-5);
            clear = m->margin > 1e-5;
            CHECK(!clear || sim_agrees(m, &f));
        }
        for (size_t t = 0; part % 2 == 1 && t < n && clear; t++) {
            rig_step(&f, row + t, got);
            sim_rows(m, row + t, 1, false, want);
            CHECK_NEAR(rig_diff(got, want, RIG_L * cols), 0, 2e-5);
            clear = m->margin > 1e-5;
            CHECK(!clear || sim_agrees(m, &f));
        }
        row += n;
    }
    rig_close(&f);
    return clear;
}

static void test_simulator(void)
{
    static const size_t heads[][2] = { { 1, 1 }, { 2, 1 }, { 4, 1 }, { 2, 2 }, { 4, 2 }, { 4, 4 } };
    static struct sim m;
    struct lsi_rng r;
    size_t clear = 0, runs = 0;
    lsi_rng_init(&r, 7);
    for (size_t i = 0; i < 36; i++, runs++) {
        rig_data(100 + i);
        m = (struct sim){ .H = heads[i % 6][0], .G = heads[i % 6][1], .margin = INFINITY };
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

/* Prompts in blocks of any size, and single tokens that are their last block, are one thing. */
static void test_blocks_do_not_matter(void)
{
    static const size_t blocks[] = { 1, 7, 64, 300 };
    static const char *const texts[] = { "h2o:heavy=20,recent=20,fp32", "h2o:heavy=10%,recent=5%,fp32",
                                         "h2o:heavy=20,recent=20,chunk=50,fp32" };
    for (size_t i = 0; i < LSI_LEN(texts); i++) {
        struct rig ref;
        rig_data(3);
        rig_open(&ref, texts[i], 4, 2);
        rig_prompt(&ref, 0, 301, 301, NULL);
        for (size_t b = 0; b < LSI_LEN(blocks); b++) {
            struct rig f;
            rig_open(&f, texts[i], 4, 2);
            rig_prompt(&f, 0, 301, blocks[b], NULL);
            CHECK(rig_same_kept(&ref, &f));
            rig_close(&f);
        }
        rig_close(&ref);
    }
}

static void test_large_budget_is_the_full_cache(void)
{
    static const char *const formats[] = { "fp32", "bf16", "q8" };
    for (size_t i = 0; i < LSI_LEN(formats); i++) {
        char a[64], b[64];
        struct rig f, full;
        snprintf(a, sizeof a, "h2o:heavy=500,recent=200,%s", formats[i]);
        snprintf(b, sizeof b, "full:%s", formats[i]);
        rig_data(5);
        rig_open(&f, a, 4, 2);
        rig_open(&full, b, 4, 2);
        rig_prompt(&f, 0, 600, 128, got);
        rig_prompt(&full, 0, 600, 128, want);
        CHECK(memcmp(got, want, RIG_L * 600 * COLS * sizeof *got) == 0);
        for (size_t t = 600; t < 700; t++) {
            rig_step(&f, t, got);
            rig_step(&full, t, want);
            CHECK(memcmp(got, want, RIG_L * COLS * sizeof *got) == 0);
        }
        CHECK(rig_same_kept(&f, &full));
        rig_close(&f);
        rig_close(&full);
    }
}

/* Without heavy hitters: the recent ones and the token itself. */
static void test_no_heavy_is_a_window(void)
{
    static const bool sliding[RIG_L] = { true, true };
    struct rig f, window;
    rig_data(6);
    rig_open(&f, "h2o:heavy=0,recent=31,fp32", 4, 2);
    rig_open_sliding(&window, "full:fp32", 4, 2, sliding, 32);
    rig_prompt(&f, 0, 100, 100, NULL);
    rig_prompt(&window, 0, 100, 100, NULL);
    for (size_t t = 100; t < 300; t++) {
        rig_step(&f, t, got);
        rig_step(&window, t, want);
        CHECK_NEAR(rig_diff(got, want, RIG_L * COLS), 0, 1e-5);
    }
    rig_close(&f);
    rig_close(&window);
}

/* Sums in two passes, over blocks, are the sums of the matrix; without dropping they are the number of
 * queries. */
static void test_column_sums(void)
{
    static struct sim m;
    const size_t n = 300;
    struct rig f;
    rig_data(8);
    m = (struct sim){ .H = 4, .G = 2, .heavy = 400, .recent = 400, .margin = INFINITY };
    rig_open(&f, "h2o:heavy=400,recent=400,fp32", 4, 2);
    rig_prompt(&f, 0, n, 77, NULL);
    sim_rows(&m, 0, n, true, want);
    const struct lsi_kept *k = (const struct lsi_kept *)f.cache;
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t g = 0; g < 2; g++) {
            const float *acc = lsi_kept_col(k, &k->layers[l], ACC, g);
            double sum = 0;
            for (size_t s = 0; s < n; s++) {
                CHECK_NEAR(acc[s], m.set[l][g].e[s].acc, 1e-5 * m.set[l][g].e[s].acc);
                sum += (double)acc[s];
            }
            CHECK_NEAR(sum, 2 * n, 1e-3);
        }
    rig_close(&f);
}

/* A key that every query likes stays; one that none likes goes first. */
static void test_planted_keys(void)
{
    struct rig f;
    rig_data(9);
    for (size_t t = 0; t < RIG_N; t++)
        for (size_t h = 0; h < RIG_H; h++)
            rig_q[t * RIG_Q + h * RIG_D] = 6; /* a direction that all queries have */
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t h = 0; h < RIG_H; h++) {
            for (size_t t = 0; t < RIG_N; t++)
                rig_k[l][t * RIG_Q + h * RIG_D] = 0;
            rig_k[l][50 * RIG_Q + h * RIG_D] = 4;
            rig_k[l][20 * RIG_Q + h * RIG_D] = -8;
        }
    rig_open(&f, "h2o:heavy=80,recent=20,fp32", 4, 2);
    rig_prompt(&f, 0, 101, 101, NULL);
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t g = 0; g < 2; g++)
            CHECK(!rig_keeps(&f, l, g, 20));
    for (size_t t = 101; t < 700; t++)
        rig_step(&f, t, got);
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t g = 0; g < 2; g++)
            CHECK(rig_keeps(&f, l, g, 50));
    rig_close(&f);
}

/* Larger scores first, later tokens of equal ones. */
static void test_threshold(void)
{
    struct lsi_rng r;
    lsi_rng_init(&r, 10);
    for (size_t run = 0; run < 300; run++) {
        uint64_t keys[200], sorted[200];
        const size_t n = 1 + lsi_rng_below(&r, 200), k = 1 + lsi_rng_below(&r, n);
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
        CHECK(lsi_kept_threshold(keys, n, k) == sorted[k - 1]);
    }
    CHECK(lsi_kept_key(-1, 9) < lsi_kept_key(0, 1));
    CHECK(lsi_kept_key(1, 9) > lsi_kept_key(1, 8));
    CHECK(lsi_kept_key(1, 9) < lsi_kept_key(1.5f, 8));
}

/* ---- what every policy promises ----------------------------------------------------------------- */

static const char usual[] = "h2o:heavy=30,recent=30,fp32";

/* Steps t .. end - 1 of both give the same bits. */
static void check_same_steps(struct rig *a, struct rig *b, size_t t, size_t end)
{
    for (; t < end; t++) {
        rig_step(a, t, got);
        rig_step(b, t, want);
        CHECK(memcmp(got, want, RIG_L * COLS * sizeof *got) == 0);
        CHECK(rig_same_kept(a, b));
    }
}

static void test_cancelled_rows_never_were(void)
{
    struct rig a, b;
    rig_data(11);
    rig_open(&a, usual, 4, 2);
    rig_open(&b, usual, 4, 2);
    rig_prompt(&a, 0, 200, 64, NULL);
    rig_prompt(&b, 0, 200, 64, NULL);
    for (size_t t = 200; t < 230; t++) {
        a.cache->n_prompt = t % 3 == 0 ? 5 : 0;
        rig_rows(&a, 400 + t, t % 3 == 0 ? 5 : 1, 1 + t % RIG_L, got); /* no commit */
        check_same_steps(&a, &b, t, t + 1);
    }
    rig_close(&a);
    rig_close(&b);
}

static void test_rewind(void)
{
    struct rig a, b;
    rig_data(12);
    rig_open(&a, usual, 4, 2);
    rig_open(&b, usual, 4, 2);
    rig_prompt(&a, 0, 50, 50, NULL);
    rig_prompt(&b, 0, 50, 50, NULL);
    rig_blocks(&a, 300, 40, 60, 20, NULL); /* a prompt cut short after two of three blocks */
    CHECK_INT(a.cache->policy->rewind(a.cache, 65, &rig_err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->length, 90);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 50, &rig_err), rig_err); /* to the end of the one before */
    check_same_steps(&a, &b, 50, 100);
    rig_step(&a, 500, got); /* drops something, which comes back */
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 100, &rig_err), rig_err);
    check_same_steps(&a, &b, 100, 120);
    CHECK_INT(a.cache->policy->rewind(a.cache, 118, &rig_err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->policy->rewind(a.cache, 50, &rig_err), LS_E_UNSUPPORTED);
    CHECK_INT(a.cache->policy->rewind(a.cache, 121, &rig_err), LS_E_INVAL);
    check_same_steps(&a, &b, 120, 140);
    REQUIRE_OK(a.cache->policy->rewind(a.cache, 0, &rig_err), rig_err);
    rig_close(&b);
    rig_open(&b, usual, 4, 2);
    rig_prompt(&a, 0, 200, 64, NULL);
    rig_prompt(&b, 0, 200, 64, NULL);
    check_same_steps(&a, &b, 200, 220);
    rig_close(&a);
    rig_close(&b);
}

static void test_fork_and_state(void)
{
    struct rig a, b, plain;
    rig_data(13);
    rig_open(&a, "h2o:heavy=10%,recent=10%,values=weigh,fp32", 4, 2);
    rig_open(&b, "h2o:heavy=10%,recent=10%,values=weigh,fp32", 4, 2);
    rig_open(&plain, "h2o:heavy=10%,recent=10%,values=weigh,fp32", 4, 2);
    rig_prompt(&a, 0, 300, 64, NULL);
    rig_prompt(&plain, 0, 300, 64, NULL);
    check_same_steps(&a, &plain, 300, 320);
    const size_t before = rig_bytes(&a);
    b.cache->policy->free(b.cache);
    REQUIRE_OK(a.cache->policy->fork(a.cache, &b.cache, &rig_err), rig_err);
    CHECK_INT(rig_bytes(&a), before);
    for (size_t t = 500; t < 560; t++) /* other tokens: the first must not see them */
        rig_step(&b, t, got);
    check_same_steps(&a, &plain, 320, 340);
    rig_close(&b);
    rig_open(&b, "h2o:heavy=10%,recent=10%,values=weigh,fp32", 4, 2);
    rig_copy_by_state(&a, &b);
    CHECK(rig_same_kept(&a, &b));
    check_same_steps(&b, &plain, 340, 380);
    rig_close(&a);
    rig_close(&b);
    rig_close(&plain);
}

static void test_heads_do_not_matter_to_each_other(void)
{
    static int64_t x[RIG_N], y[RIG_N];
    struct rig a, b;
    rig_data(14);
    rig_open(&a, usual, 4, 2);
    rig_prompt(&a, 0, 300, 64, NULL);
    for (size_t l = 0; l < RIG_L; l++)
        for (size_t t = 0; t < RIG_N; t++)
            for (size_t d = 0; d < RIG_D; d++)
                rig_k[l][t * RIG_Q + RIG_D + d] *= -2; /* of kv head 1 */
    rig_open(&b, usual, 4, 2);
    rig_prompt(&b, 0, 300, 64, NULL);
    for (size_t l = 0; l < RIG_L; l++) {
        const size_t n = a.cache->policy->kept(a.cache, l, 0, x);
        CHECK_INT(b.cache->policy->kept(b.cache, l, 0, y), n);
        CHECK(memcmp(x, y, n * sizeof *x) == 0);
    }
    rig_close(&a);
    rig_close(&b);
}

/* Three sequences in turn are three sequences one after the other. */
static void test_sequences_do_not_matter_to_each_other(void)
{
    struct rig f[3], alone;
    rig_data(15);
    for (size_t i = 0; i < 3; i++) {
        rig_open(&f[i], usual, 4, 1);
        rig_prompt(&f[i], 100 * i, 100 + 50 * i, 64, NULL);
    }
    for (size_t t = 0; t < 40; t++)
        for (size_t i = 0; i < 3; i++)
            rig_step(&f[i], 600 + t + 7 * i, got);
    for (size_t i = 0; i < 3; i++) {
        rig_open(&alone, usual, 4, 1);
        rig_prompt(&alone, 100 * i, 100 + 50 * i, 64, NULL);
        for (size_t t = 0; t < 40; t++)
            rig_step(&alone, 600 + t + 7 * i, got);
        CHECK(rig_same_kept(&f[i], &alone));
        rig_close(&alone);
        rig_close(&f[i]);
    }
}

static void test_memory(void)
{
    struct rig f;
    rig_data(16);
    rig_open(&f, usual, 4, 2);
    const struct lsi_cache_policy *p = f.cache->policy;
    CHECK_INT(rig_bytes(&f), 0);
    for (size_t t = 0; t < 600; t += 100) {
        rig_blocks(&f, t, 100, 600, 100, NULL);
        CHECK_INT(rig_bytes(&f), p->plan(&f.cache->shape, &f.cache->spec, t + 100));
    }
    p->settle(f.cache, &f.ex);
    const size_t settled = rig_bytes(&f);
    CHECK(settled <=
          p->plan(&f.cache->shape, &f.cache->spec, 60 + LSI_KV_PAGE)); /* a pool keeps a spare slab */
    for (size_t t = 600; t < 800; t++) {
        rig_step(&f, t, got);
        CHECK_INT(rig_bytes(&f), settled);
        for (size_t g = 0; g < 2; g++)
            CHECK_INT(p->kept(f.cache, 0, g, NULL), 60);
    }
    CHECK_INT(p->reserve(f.cache, RIG_N - 800 + 1, &rig_err), LS_E_LIMIT);
    rig_close(&f);
}

/* |o_full - o_kept| <= 2 (1 - mass) max |v|, and every output lies between the values. */
static void test_bounds(void)
{
    static size_t pos[RIG_N];
    static int64_t at[RIG_N];
    static double p[RIG_N];
    struct rig f;
    rig_data(17);
    rig_open(&f, usual, 4, 2);
    rig_prompt(&f, 0, 250, 250, NULL);
    for (size_t t = 250; t < 300; t++) {
        size_t kept[RIG_L][2];
        static bool in[RIG_L][2][RIG_N];
        memset(in, 0, sizeof in);
        for (size_t l = 0; l < RIG_L; l++)
            for (size_t g = 0; g < 2; g++) {
                kept[l][g] = f.cache->policy->kept(f.cache, l, g, at);
                for (size_t i = 0; i < kept[l][g]; i++)
                    in[l][g][at[i]] = true;
                in[l][g][t] = true;
            }
        rig_step(&f, t, got);
        for (size_t j = 0; j <= t; j++)
            pos[j] = j;
        for (size_t l = 0; l < RIG_L; l++)
            for (size_t h = 0; h < 4; h++) {
                double full[RIG_D], mass = 0, longest = 0, off = 0;
                rig_dense(l, t, h, h / 2, pos, t + 1, p, full);
                for (size_t j = 0; j <= t; j++) {
                    mass += in[l][h / 2][j] ? p[j] : 0;
                    longest = fmax(longest, value_length(l, h / 2, j));
                }
                for (size_t d = 0; d < RIG_D; d++) {
                    const float o = got[l * COLS + h * RIG_D + d];
                    float lo = INFINITY, hi = -INFINITY;
                    off += pow(full[d] - (double)o, 2);
                    for (size_t j = 0; j <= t; j++) {
                        lo = fminf(lo, rig_v[l][j * RIG_Q + h / 2 * RIG_D + d]);
                        hi = fmaxf(hi, rig_v[l][j * RIG_Q + h / 2 * RIG_D + d]);
                    }
                    CHECK(o >= lo - 1e-5f && o <= hi + 1e-5f);
                }
                CHECK(sqrt(off) <= 2 * (1 - mass) * longest + 1e-5);
            }
    }
    rig_close(&f);
}

/* Layers that slide are as in the full cache, and give back what no row sees. */
static void test_sliding_layers(void)
{
    static const bool sliding[RIG_L] = { false, true };
    struct rig f, full;
    rig_data(18);
    rig_open_sliding(&f, usual, 4, 2, sliding, 100);
    rig_open_sliding(&full, "full:fp32", 4, 2, sliding, 100);
    rig_prompt(&f, 0, 700, 200, got);
    rig_prompt(&full, 0, 700, 200, want);
    CHECK(memcmp(got, want, RIG_L * 700 * COLS * sizeof *got) == 0);
    CHECK(rig_bytes(&f) < rig_bytes(&full) * 3 / 4);
    for (size_t t = 700; t < 800; t++) {
        rig_step(&f, t, got);
        rig_step(&full, t, want);
        CHECK(memcmp(got + COLS, want + COLS, COLS * sizeof *got) == 0);
        CHECK(memcmp(got, want, COLS * sizeof *got) != 0);
    }
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 0, NULL), 99);
    rig_close(&f);
    rig_close(&full);
}

static void test_budgets(void)
{
    struct lsi_cache_spec s;
    struct rig f;
    char name[160];
    rig_data(19);
    rig_open(&f, "h2o", 4, 2);
    rig_prompt(&f, 0, 333, 333, NULL);
    lsi_cache_spec_name(&f.cache->spec, name, sizeof name);
    CHECK_STR(name, "h2o:heavy=33,recent=33,sinks=0,chunk=0,normalise=none,values=plain,bf16");
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 66);
    rig_prompt(&f, 333, 100, 50, NULL); /* the first prompt has said what per cent are of */
    CHECK_INT(f.cache->policy->kept(f.cache, 1, 1, NULL), 66);
    REQUIRE_OK(f.cache->policy->rewind(f.cache, 0, &rig_err), rig_err);
    rig_prompt(&f, 0, 200, 200, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 40);
    REQUIRE_OK(f.cache->policy->tile(f.cache, 800, &rig_err), rig_err);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 160);
    CHECK(rig_keeps(&f, 0, 0, 799) && rig_keeps(&f, 0, 0, 720));
    rig_step(&f, 0, got);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 160);
    rig_close(&f);
    static const char *const wrong[] = { "h2o:heavy=0,recent=0", "h2o:heavy=3,recent=9,sinks=4",
                                         "h2o:heavy=60%,recent=60%" };
    for (size_t i = 0; i < LSI_LEN(wrong); i++) {
        REQUIRE_OK(lsi_cache_parse(&s, wrong[i], &rig_err), rig_err);
        CHECK_INT(s.policy->check(&s, NULL, &rig_err), LS_E_INVAL);
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

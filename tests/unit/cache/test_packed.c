/*
 * Policies over packed storage, "NAME+kivi", against their definition in double with keys and values
 * quantised and dequantised as KIVI says. The lists of reading.h are what the caches are given; a token that
 * the storage packs becomes what its codes stand for in them.
 */
#include "memory_io.h"
#include "packing.h"
#include "reading.h"

#include "cache/kept.h"

enum {
    PACK = 32 /* numbers that share a scale */
};

/* What is packed of the n tokens that are stored. */
struct packed {
    size_t R, sinks;
    unsigned bits_k, bits_v;
    size_t window; /* 0: none */
    size_t n, nk, nv;
};

/* n tokens more are stored, and were attended to as they are. */
static void store(struct packed *p, size_t n)
{
    p->n += n;
    /* What the window has passed is not packed any more. */
    const size_t from = p->window > 0 && p->n > p->window ? (p->n - p->window) / PACK * PACK : 0;
    p->nk = lsi_max_size(p->nk, from);
    p->nv = lsi_max_size(p->nv, from);
    const size_t nk = p->nk + (p->n - p->nk) / p->R * p->R, nv = p->n > p->R ? p->n - p->R : 0;
    for (size_t l = 0; l < L; l++) {
        for (size_t t = p->nk; t < nk; t += PACK)
            for (size_t c = 0; c < KV; c++) {
                const size_t first = lsi_max_size(t, p->sinks); /* sinks are no part of their group */
                quantise(&k[l][first * KV + c], t + PACK - first, KV, p->bits_k);
            }
        for (size_t t = lsi_max_size(p->nv, p->sinks); t < nv; t++)
            for (size_t c = 0; c < KV; c += D)
                quantise(&v[l][t * KV + c], D, 1, p->bits_v);
    }
    p->nk = nk;
    p->nv = lsi_max_size(p->nv, nv);
}

/* Output of one row of layer l against attention over the tokens of in[g]. */
static void expect_about(size_t l, size_t t, bool (*in)[N], const float *out, double tol)
{
    double o[D];
    for (size_t h = 0; h < H; h++) {
        attend_to(l, t, h, in[h / GROUP], o);
        for (size_t d = 0; d < D; d++)
            CHECK_NEAR(out[h * D + d], o[d], tol);
    }
}

static void expect(size_t l, size_t t, bool (*in)[N], const float *out)
{
    expect_about(l, t, in, out, 3e-5);
}

/* Two prompts and the steps after each, the same to the bit. */
static void expect_same(const char *spec, const char *other)
{
    struct fixture a, b;
    open_fixture(&a, spec, 2);
    open_fixture(&b, other, 1);
    for (size_t t = 0; t < 500; t += 250) {
        feed_prompt(&a, t, 200, 64, got);
        feed_prompt(&b, t, 200, 64, want);
        CHECK(max_diff(got, want, (size_t)L * 200 * Q) == 0);
        check_same_steps(&a, &b, t + 200, t + 250);
    }
    close_fixture(&a);
    close_fixture(&b);
}

/* ---- quest --------------------------------------------------------------------------------------- */

struct rule {
    const char *spec;
    size_t run, budget, skip; /* tokens of a page, of a step */
    struct packed as;
};

static const struct rule rules[] = {
    { "quest:page=16,budget=160,skip=0,fp32+kivi:bits=4,residual=64",
      16,
      160,
      0,
      { 64, 0, 4, 4, 0, 0, 0, 0 } },
    { "quest:page=32,budget=100,skip=1,fp32+kivi:bits=2,residual=32",
      32,
      100,
      1,
      { 32, 0, 2, 2, 0, 0, 0, 0 } },
    { "quest:page=7,budget=20,skip=0,fp32+kivi:bits=8,bits_v=2,residual=32,sinks=9",
      7,
      20,
      0,
      { 32, 9, 8, 2, 0, 0, 0, 0 } },
    { "quest:page=64,budget=1,skip=0,fp32+kivi:bits=4,residual=96", 64, 1, 0, { 96, 0, 4, 4, 0, 0, 0, 0 } },
};

/* What a step at t reads of layer l: the tail, the sinks, and of the runs of packed tokens the last and the
 * best. */
static void quest_reads(const struct rule *r, const struct packed *p, size_t l, size_t t, bool (*in)[N])
{
    static double number[N];
    static bool runs[N];
    const size_t n_runs = lsi_div_up(p->nv, r->run), full = n_runs > 0 ? n_runs - 1 : 0, tail = t + 1 - p->nv;
    const size_t some = lsi_max_size(3, (r->budget - lsi_min_size(r->budget, tail)) / r->run);
    for (size_t g = 0; g < G; g++) {
        for (size_t i = 0; i < full; i++)
            number[i] = 0;
        for (size_t h = g * GROUP; h < (g + 1) * GROUP; h++) {
            double most = -INFINITY;
            for (size_t i = 0; i < full; i++)
                most = fmax(most, bound_of(l, t, h, i * r->run, r->run));
            for (size_t i = 0; i < full; i++)
                number[i] += exp(bound_of(l, t, h, i * r->run, r->run) - most);
        }
        take_best(number, full, l < r->skip ? full : lsi_min_size(full, some - 1), runs);
        runs[full] = true;
        for (size_t s = 0; s <= t; s++)
            in[g][s] = s >= p->nv || s < p->sinks || runs[s / r->run];
    }
}

/* The bound of a run is that of its codes: those of sinks are copies, which the lists do not have. */
static void copy_sinks(const struct packed *p, float (*kept)[LSI_PACKED_SINKS * KV], bool back)
{
    for (size_t l = 0; l < L; l++)
        for (size_t s = 0; s < p->sinks && p->nk > 0; s++)
            for (size_t c = 0; c < KV; c++) {
                if (!back)
                    kept[l][s * KV + c] = k[l][s * KV + c];
                k[l][s * KV + c] = back ? kept[l][s * KV + c] : k[l][p->sinks * KV + c];
            }
}

static void test_quest_against_the_definition(void)
{
    static bool in[G][N];
    static float sinks[L][LSI_PACKED_SINKS * KV];
    for (size_t i = 0; i < LSI_LEN(rules); i++)
        for (size_t n = 0; n < 3; n++) {
            const size_t from = (size_t[]){ 2, 250, 500 }[n];
            struct packed p = rules[i].as;
            struct fixture f;
            make_data(2 + n, 2);
            open_fixture(&f, rules[i].spec, 2);
            feed_prompt(&f, 0, from, from, NULL);
            store(&p, from);
            for (size_t t = from; t < from + 70; t++) {
                feed(&f, t, 1, got);
                for (size_t l = 0; l < L; l++) {
                    copy_sinks(&p, sinks, false);
                    quest_reads(&rules[i], &p, l, t, in);
                    copy_sinks(&p, sinks, true);
                    expect(l, t, in, got + l * Q);
                }
                store(&p, 1);
            }
            close_fixture(&f);
        }
}

static void test_quest_with_enough_is_kivi(void)
{
    struct fixture a, b;
    make_data(2, 2);
    open_fixture(&a, "quest:budget=600,skip=0+kivi:bits=2,residual=32", 2);
    open_fixture(&b, "kivi:bits=2,residual=32", 1);
    feed_prompt(&a, 0, 300, 300, NULL);
    feed_prompt(&b, 0, 300, 300, NULL);
    check_same_steps(&a, &b, 300, 400);
    feed_prompt(&a, 400, 50, 50, NULL);
    feed_prompt(&b, 400, 50, 50, NULL);
    check_same_steps(&a, &b, 450, 451);
    close_fixture(&a);
    close_fixture(&b);
}

/* ---- streaming ------------------------------------------------------------------------------------ */

static void expect_stream(size_t S, size_t R, size_t l, size_t t, const float *out)
{
    static bool in[G][N];
    for (size_t g = 0; g < G; g++)
        for (size_t s = 0; s <= t; s++)
            in[g][s] = s < S || s + R >= t;
    expect(l, t, in, out);
}

/* Without a rotary embedding, so that positions make no difference (test_streaming.c has them). */
static void test_streaming_against_the_definition(void)
{
    static const struct {
        const char *spec;
        size_t S, R, block;
        struct packed as;
    } cases[] = {
        { "streaming:sink=4,recent=96,fp32+kivi:bits=4,residual=32",
          4,
          96,
          20,
          { 32, 4, 4, 4, 96, 0, 0, 0 } },
        { "streaming:sink=0,recent=150,fp32+kivi:bits=2,residual=64",
          0,
          160,
          64,
          { 64, 0, 2, 2, 160, 0, 0, 0 } },
        { "streaming:sink=32,recent=65,self=yes,fp32+kivi:bits=8,residual=32",
          32,
          64,
          7,
          { 32, 32, 8, 8, 64, 0, 0, 0 } },
        { "streaming:sink=9,recent=320,fp32+kivi:bits=4,bits_v=2,residual=96",
          9,
          320,
          200,
          { 96, 9, 4, 2, 320, 0, 0, 0 } },
    };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        static const size_t prompts[] = { 200, 80, 31 };
        struct packed p = cases[i].as;
        struct fixture f;
        make_data(20 + i, 2);
        open_fixture(&f, cases[i].spec, 2);
        for (size_t j = 0, t = 0; j < LSI_LEN(prompts); j++) {
            const size_t n = prompts[j];
            feed_prompt(&f, t, n, cases[i].block, got);
            for (size_t l = 0; l < L; l++)
                for (size_t r = 0; r < n; r++)
                    expect_stream(cases[i].S, cases[i].R, l, t + r, got + (l * n + r) * Q);
            store(&p, n);
            for (t += n; t % 90 != 0; t++) {
                feed(&f, t, 1, got);
                for (size_t l = 0; l < L; l++)
                    expect_stream(cases[i].S, cases[i].R, l, t, got + l * Q);
                store(&p, 1);
            }
        }
        close_fixture(&f);
    }
}

/* A prompt that is read at once sees all of itself. */
static void test_streaming_dense_prompts(void)
{
    static bool in[G][N];
    struct packed p = { 32, 4, 4, 4, 96, 0, 0, 0 };
    struct fixture f;
    make_data(30, 2);
    open_fixture(&f, "streaming:sink=4,recent=96,prompt=dense,fp32+kivi:bits=4,residual=32", 2);
    for (size_t t = 0; t < 500; t = p.n) {
        const size_t n = t == 0 ? 300 : 150;
        feed_prompt(&f, t, n, 40, got);
        for (size_t l = 0; l < L; l++)
            for (size_t r = 0; r < n; r++) {
                for (size_t g = 0; g < G; g++)
                    for (size_t s = 0; s <= t + r; s++)
                        in[g][s] = s < 4 || s + 96 >= t;
                expect(l, t + r, in, got + (l * n + r) * Q);
            }
        store(&p, n);
        for (size_t step = 0; step < 40; step++) {
            feed(&f, p.n, 1, got);
            for (size_t l = 0; l < L; l++)
                expect_stream(4, 96, l, p.n, got + l * Q);
            store(&p, 1);
        }
    }
    close_fixture(&f);
}

static void test_a_window_over_everything_is_kivi(void)
{
    make_data(3, 2);
    expect_same("streaming:sink=4,recent=576+kivi:bits=2,residual=32", "kivi:bits=2,residual=32,sinks=4");
}

/* Memory and results do not depend on how much has gone by. */
static void test_streaming_goes_on_without_end(void)
{
    struct fixture a, b;
    make_data(4, 2);
    open_fixture(&a, "streaming:sink=4,recent=96+kivi:bits=8,residual=32", 1);
    open_fixture(&b, "streaming:sink=4,recent=96+kivi:bits=8,residual=32", 1);
    const struct lsi_cache_policy *p = a.cache->policy;
    feed_prompt(&a, 0, 400, 64, NULL);
    feed_prompt(&b, 0, 400, 64, NULL);
    REQUIRE_OK(p->tile(a.cache, 1000000, &err), err);
    const size_t bytes = p->bytes(a.cache);
    for (size_t t = 400; t < 600; t++) {
        feed(&a, t, 1, got);
        feed(&b, t, 1, want);
        CHECK_INT(p->bytes(a.cache), bytes);
        if (t >= 500) /* by now the windows hold the same tokens; in other groups */
            CHECK_NEAR(max_diff(got, want, L * Q), 0, 0.05);
    }
    CHECK_INT(bytes, p->plan(&a.cache->shape, &a.cache->spec, a.cache->length));
    close_fixture(&a);
    close_fixture(&b);
}

/* ---- h2o, snapkv --------------------------------------------------------------------------------- */

static double sums[L][G][N]; /* attention that tokens have got of the queries of a group */

/* The tokens that every kv head of a layer sees with the row at t. */
static void ask_kept(const struct fixture *f, size_t l, size_t t, bool (*in)[N])
{
    static int64_t pos[N];
    for (size_t g = 0; g < G; g++) {
        const size_t n = f->cache->policy->kept(f->cache, l, g, pos);
        memset(in[g], 0, N * sizeof(bool));
        for (size_t i = 0; i < n; i++)
            in[g][pos[i]] = true;
        in[g][t] = true;
    }
}

static void add_sums(size_t l, size_t t, bool (*in)[N])
{
    double o[D];
    for (size_t h = 0; h < H; h++) {
        const double lse = attend_to(l, t, h, in[h / GROUP], o);
        for (size_t s = 0; s <= t; s++)
            sums[l][h / GROUP][s] += in[h / GROUP][s] ? exp(score_of(l, t, h, s) - lse) : 0;
    }
}

/* Of the n tokens of `had` the best are in `has`: but for near ties no dropped one has a larger sum. */
static void check_choice(size_t l, size_t g, const bool *had, const bool *has, size_t n, size_t recent,
                         size_t budget)
{
    double worst_kept = INFINITY, best_dropped = 0;
    size_t kept = 0;
    for (size_t s = 0; s < n; s++) {
        kept += has[s] ? 1 : 0;
        CHECK(had[s] || !has[s]);
        CHECK(has[s] || s + recent < n);
        if (had[s] && s + recent < n && has[s])
            worst_kept = fmin(worst_kept, sums[l][g][s]);
        if (had[s] && !has[s])
            best_dropped = fmax(best_dropped, sums[l][g][s]);
    }
    CHECK_INT(kept, lsi_min_size(n, budget));
    CHECK(best_dropped <= worst_kept * 1.02 + 1e-3);
}

/*
 * Eight bits are near enough to the exact numbers for the sums of the simulator: which tokens stay, prompts
 * and steps, and that attention is over those that are said to stay, whatever has moved.
 */
static void test_h2o_keeps_what_it_should(void)
{
    static bool had[L][G][N], has[L][G][N];
    enum {
        HEAVY_TOKENS = 70,
        RECENT_TOKENS = 50
    };
    struct fixture f;
    make_data(40, 2);
    memset(sums, 0, sizeof sums);
    open_fixture(&f, "h2o:heavy=70,recent=50,fp32+kivi:bits=8,residual=32", 2);
    size_t t = 0;
    for (size_t turn = 0; turn < 2; turn++) {
        const size_t n = turn == 0 ? 200 : 110;
        feed_prompt(&f, t, n, 64, got);
        for (size_t l = 0; l < L; l++) {
            for (size_t i = 0; i < n; i++) { /* rows see what was held and all rows before them */
                for (size_t g = 0; g < G; g++)
                    had[l][g][t + i] = true;
                expect_about(l, t + i, had[l], got + (l * n + i) * Q, 0.05);
                add_sums(l, t + i, had[l]);
            }
            ask_kept(&f, l, t + n, has[l]);
            for (size_t g = 0; g < G; g++)
                check_choice(l, g, had[l][g], has[l][g], t + n, RECENT_TOKENS, HEAVY_TOKENS + RECENT_TOKENS);
            memcpy(had[l], has[l], sizeof had[l]);
        }
        for (t += n; t % 290 != 0 && t < 590; t++) {
            feed(&f, t, 1, got);
            for (size_t l = 0; l < L; l++) {
                for (size_t g = 0; g < G; g++)
                    had[l][g][t] = true;
                expect_about(l, t, had[l], got + l * Q, 0.05);
                add_sums(l, t, had[l]);
                ask_kept(&f, l, t + 1, has[l]);
                for (size_t g = 0; g < G; g++) {
                    has[l][g][t + 1] = false;
                    check_choice(l, g, had[l][g], has[l][g], t + 1, RECENT_TOKENS,
                                 HEAVY_TOKENS + RECENT_TOKENS);
                }
                memcpy(had[l], has[l], sizeof had[l]);
            }
        }
    }
    close_fixture(&f);
}

/* Holes do not pile up: a cache that has dropped hundreds takes what twice the budget takes, at most. */
static void test_h2o_compacts(void)
{
    struct fixture f;
    make_data(41, 2);
    open_fixture(&f, "h2o:heavy=64,recent=64+kivi:bits=4,residual=32", 1);
    const struct lsi_cache_policy *p = f.cache->policy;
    feed_prompt(&f, 0, 150, 150, NULL);
    for (size_t t = 150; t < N; t++)
        feed(&f, t, 1, NULL);
    CHECK_INT(p->kept(f.cache, 0, 0, NULL), 128);
    for (size_t l = 0; l < L; l++)
        CHECK(((const struct lsi_kept *)f.cache)->layers[l].n <= 2 * 128 + 32);
    close_fixture(&f);
}

static void test_enough_room_is_kivi(void)
{
    static const char *const all[] = {
        "h2o:heavy=500,recent=100+kivi:bits=2,residual=32",
        "snapkv:budget=600,window=8+kivi:bits=2,residual=32",
    };
    for (size_t i = 0; i < LSI_LEN(all); i++) {
        make_data(42, 2);
        expect_same(all[i], "kivi:bits=2,residual=32");
    }
}

/* What snapkv says that it keeps of a prompt, after tokens that came before, is what it attends to. */
static void test_snapkv_attends_to_what_it_keeps(void)
{
    static bool in[G][N];
    struct fixture f;
    make_data(43, 2);
    open_fixture(&f, "snapkv:budget=100,window=16,fp32+kivi:bits=8,residual=32", 2);
    for (size_t t = 0; t < 70; t++)
        feed(&f, t, 1, NULL);
    feed_prompt(&f, 70, 300, 64, NULL);
    CHECK_INT(f.cache->policy->kept(f.cache, 0, 0, NULL), 100);
    for (size_t t = 370; t < 450; t++) {
        feed(&f, t, 1, got);
        for (size_t l = 0; l < L; l++) {
            ask_kept(&f, l, t, in);
            expect_about(l, t, in, got + l * Q, 0.05);
        }
    }
    close_fixture(&f);
}

/* Layers with a window are those of kivi, whatever the policy. Streaming forgets blocks before the window, so
 * that its sums begin elsewhere. */
static void test_sliding_layers_are_plain(void)
{
    static const char *const same[] = {
        "quest:budget=48,skip=0+kivi:bits=4,residual=32",
        "h2o:heavy=40,recent=40+kivi:bits=4,residual=32",
        "snapkv:budget=60,window=8+kivi:bits=4,residual=32",
    };
    make_data(44, 2);
    for (size_t i = 0; i < LSI_LEN(same); i++)
        check_sliding_layer_is(same[i], "kivi:bits=4,residual=32", 0);
    check_sliding_layer_is("streaming:sink=0,recent=40+kivi:bits=4,residual=32", "kivi:bits=4,residual=32",
                           1e-6);
    check_sliding_layer_is("streaming:sink=4,recent=40+kivi:bits=4,residual=32",
                           "kivi:bits=4,residual=32,sinks=4", 1e-6);
}

/* ---- what all have ---------------------------------------------------------------------------------- */

static const char *const specs[] = {
    "quest:budget=80,skip=0+kivi:bits=2,residual=32",
    "quest:budget=10%,page=8,sets=per_q,skip=1+kivi:bits=4,residual=64,sinks=5",
    "streaming:sink=4,recent=96+kivi:bits=2,residual=32",
    "streaming:sink=2,recent=50%,prompt=dense+kivi:bits=4,group=64,residual=64",
    "h2o:heavy=20%,recent=20%+kivi:bits=2,residual=32",
    "h2o:heavy=60,recent=64,sinks=3,chunk=100+kivi:bits=4,residual=64,sinks=3",
    "snapkv:budget=100,window=16+kivi:bits=4,residual=32",
};

static void feed_all(struct fixture *f, size_t block, float *out)
{
    feed_prompt(f, 0, 300, block, NULL);
    for (size_t t = 300; t < 370; t++)
        feed(f, t, 1, NULL);
    feed_prompt(f, 370, 100, block, NULL);
    for (size_t t = 470; t < 510; t++)
        feed(f, t, 1, out + (t - 470) * L * Q);
}

static void test_blocks_and_threads_do_not_matter(void)
{
    make_data(5, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct fixture a, b, c;
        open_fixture(&a, specs[i], 2);
        open_fixture(&b, specs[i], 1);
        open_fixture(&c, specs[i], 1);
        feed_all(&a, 300, got);
        feed_all(&b, 300, want);
        CHECK(max_diff(got, want, (size_t)L * 40 * Q) == 0);
        feed_all(&c, 33, got);
        CHECK_NEAR(max_diff(got, want, (size_t)L * 40 * Q), 0,
                   5e-6); /* the tail may lie elsewhere in its pages */
        close_fixture(&a);
        close_fixture(&b);
        close_fixture(&c);
    }
}

static void test_forks_share_until_written(void)
{
    make_data(6, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct fixture a, plain;
        struct lsi_cache *copy;
        open_fixture(&a, specs[i], 1);
        open_fixture(&plain, specs[i], 1);
        feed_prompt(&a, 0, 300, 300, NULL);
        feed_prompt(&plain, 0, 300, 300, NULL);
        const size_t before = a.cache->policy->bytes(a.cache);
        REQUIRE_OK(a.cache->policy->fork(a.cache, &copy, &err), err);
        CHECK_INT(a.cache->policy->bytes(a.cache), before);
        struct fixture other = a;
        other.cache = copy;
        for (size_t t = 500; t < 550; t++)
            feed(&other, t, 1, NULL); /* other tokens: a must not see them */
        check_same_steps(&a, &plain, 300, 380);
        copy->policy->free(copy);
        close_fixture(&a);
        close_fixture(&plain);
    }
}

static void test_going_back_is_never_having_been(void)
{
    make_data(7, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct fixture a, b;
        open_fixture(&a, specs[i], 1);
        open_fixture(&b, specs[i], 1);
        const struct lsi_cache_policy *p = a.cache->policy;
        feed_prompt(&a, 0, 300, 300, NULL);
        feed_prompt(&b, 0, 300, 300, NULL);
        feed(&a, 400, 1, NULL);
        CHECK_INT(p->rewind(a.cache, 302, &err), LS_E_INVAL);
        REQUIRE_OK(p->rewind(a.cache, 300, &err), err);
        check_same_steps(&a, &b, 300, 400);
        CHECK_INT(p->rewind(a.cache, 200, &err), LS_E_UNSUPPORTED);
        CHECK_INT(a.cache->length, 400);
        REQUIRE_OK(p->rewind(a.cache, 0, &err), err);
        REQUIRE_OK(p->rewind(b.cache, 0, &err), err);
        feed_all(&a, 300, got);
        feed_all(&b, 300, want);
        CHECK(max_diff(got, want, (size_t)L * 40 * Q) == 0);
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_rows_that_are_not_committed_never_were(void)
{
    make_data(8, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct fixture a, b;
        open_fixture(&a, specs[i], 1);
        open_fixture(&b, specs[i], 1);
        feed_prompt(&a, 0, 300, 300, NULL);
        feed_prompt(&b, 0, 300, 300, NULL);
        const struct lsi_cache_policy *p = a.cache->policy;
        REQUIRE_OK(p->reserve(a.cache, 30, &err), err);
        p->append(a.cache, &a.ex, 0, k[1], KV, v[1], KV, 30); /* a block cut short in layer 0 */
        for (size_t t = 300; t < 350; t++) {
            feed(&a, t, 1, got);
            feed(&b, t, 1, want);
            CHECK_NEAR(max_diff(got, want, L * Q), 0, 2e-6); /* the tail may lie elsewhere in its pages */
        }
        close_fixture(&a);
        close_fixture(&b);
    }
}

static void test_bytes_are_planned(void)
{
    make_data(9, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct fixture f;
        open_fixture(&f, specs[i], 1);
        const struct lsi_cache_policy *p = f.cache->policy;
        CHECK_INT(p->bytes(f.cache), 0);
        f.cache->n_prompt = 560;
        feed(&f, 0, 300, NULL);
        feed(&f, 300, 260, NULL);
        CHECK(p->bytes(f.cache) <= (p->plan_prompt ? p->plan_prompt(&f.cache->shape, &f.cache->spec, 560, 560)
                                                   : p->plan(&f.cache->shape, &f.cache->spec, 560)));
        f.cache->n_prompt = 0;
        p->settle(f.cache, &f.ex);
        check_step_bytes(&f, 560, N, !p->plan_prompt);
        close_fixture(&f);
    }
}

/* ---- state as bytes ---------------------------------------------------------------------------- */

static void test_state_can_be_stored(void)
{
    make_data(10, 2);
    for (size_t i = 0; i < LSI_LEN(specs); i++)
        for (size_t steps = 0; steps < 70; steps += 23) {
            struct fixture a, b;
            open_fixture(&a, specs[i], 1);
            open_fixture(&b, specs[i], 1);
            feed_prompt(&a, 0, 400, 100, NULL);
            for (size_t t = 400; t < 400 + steps; t++)
                feed(&a, t, 1, NULL);
            copy_by_state(a.cache, b.cache);
            CHECK_INT(b.cache->length, 400 + steps);
            check_same_steps(&a, &b, 500, 580);
            close_fixture(&a);
            close_fixture(&b);
        }
}

/* A file cannot say that a prompt is being read at once whose tokens have been packed. */
static void test_an_open_prompt_is_not_read(void)
{
    /* Behind the length, the values, the window, the place of the pages and the begin of the prompt. */
    const size_t at_open = LSI_CACHE_KEYS * sizeof(struct lsi_cache_value) + 4 * sizeof(size_t);
    struct fixture a, b;
    make_data(11, 2);
    open_fixture(&a, "streaming:sink=4,recent=96,prompt=dense+kivi:bits=2,residual=32", 1);
    feed_prompt(&a, 0, 300, 300, NULL);
    write_state(a.cache);
    for (unsigned char open = 0; open < 2; open++) {
        open_fixture(&b, "streaming:sink=4,recent=96,prompt=dense+kivi:bits=2,residual=32", 1);
        memory.data[at_open] = open;
        CHECK_INT(read_state(b.cache, &err), open ? LS_E_FORMAT : LS_OK);
        close_fixture(&b);
    }
    close_fixture(&a);
}

/* ---- texts ----------------------------------------------------------------------------------------- */

static void test_spellings(void)
{
    static const struct {
        const char *text, *says; /* part of the error; NULL: none */
    } cases[] = {
        { "quest:budget=10%+kivi:bits=4", NULL },
        { "quest+kivi", NULL },
        { "streaming:sink=4,recent=1020+kivi:bits=2,group=32", NULL },
        { "full+kivi", "say that" },
        { "kivi:bits=4+kivi", "say that" },
        { "topk+kivi", "quest" },
        { "quest+q8", "behind '+'" },
        { "quest+", "behind '+'" },
        { "quest+kivi:budget=3", "does not know" },
        { "quest:bits=2+kivi", "does not know" },
        { "quest+kivi:bits=3", "2|4|8" },
        { "quest:q8+kivi", "bf16 or fp32" },
        { "quest+kivi:group=128,residual=64", "residual=128" },
        { "streaming:sink=33,recent=400+kivi", "32 or less" },
        { "streaming+kivi:sinks=4", "sink=4" },
        { "streaming:sink=4,recent=100+kivi", "recent=129" },
        { "h2o:heavy=64,recent=128+kivi:bits=2", NULL },
        { "h2o:heavy=64,recent=64+kivi", "recent=128" },
        { "h2o:heavy=64,recent=128+kivi:sinks=4", "sinks=4" },
        { "snapkv:budget=20%,kernel=15+kivi:bits=4", NULL },
        { "snapkv+kivi:sinks=4", "sinks" },
    };
    const struct lsi_cache_shape shape = { .L = L, .H = H, .G = G, .D = D, .n_ctx = 4096, .n_rows = N };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        struct lsi_cache_spec s, again;
        char name[192], second[192];
        ls_status st = lsi_cache_parse(&s, cases[i].text, &err);
        st = st == LS_OK ? lsi_cache_check(&s, &shape, &err) : st;
        CHECK_INT(st, cases[i].says ? LS_E_INVAL : LS_OK);
        if (cases[i].says) {
            CHECK(strstr(err.text, cases[i].says) != NULL);
            continue;
        }
        lsi_cache_spec_name(&s, name, sizeof name);
        REQUIRE_OK(lsi_cache_parse(&again, name, &err), err);
        lsi_cache_spec_name(&again, second, sizeof second);
        CHECK_STR(second, name);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_quest_against_the_definition),
        TEST(test_quest_with_enough_is_kivi),
        TEST(test_streaming_against_the_definition),
        TEST(test_streaming_dense_prompts),
        TEST(test_a_window_over_everything_is_kivi),
        TEST(test_streaming_goes_on_without_end),
        TEST(test_h2o_keeps_what_it_should),
        TEST(test_h2o_compacts),
        TEST(test_enough_room_is_kivi),
        TEST(test_snapkv_attends_to_what_it_keeps),
        TEST(test_sliding_layers_are_plain),
        TEST(test_blocks_and_threads_do_not_matter),
        TEST(test_forks_share_until_written),
        TEST(test_going_back_is_never_having_been),
        TEST(test_rows_that_are_not_committed_never_were),
        TEST(test_bytes_are_planned),
        TEST(test_state_can_be_stored),
        TEST(test_an_open_prompt_is_not_read),
        TEST(test_spellings),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

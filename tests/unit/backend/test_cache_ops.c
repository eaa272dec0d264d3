/*
 * Operations of cache policies against formulas written out in double on the values that the cache holds:
 * column sums, scores, attention over chosen slots, merging, moving, reading, bounds; every format, odd
 * sizes, and sameness for every number of threads.
 */
#include "attention_problem.h"

#define SENTINEL 7.25f /* what must not be written */

static const size_t dims[] = { 16, 64, 6, 128, 80, 256, 18 };
static const size_t groups[] = { 3, 1, 4, 2, 8 };

static double naive_score(const struct problem *p, size_t t, size_t h, size_t s)
{
    const size_t D = p->D, g = h / (p->H / p->G);
    double z = 0.0;

    for (size_t d = 0; d < D; d++)
        z += (double)p->q[t * p->ldq + h * D + d] * p->kept_k[(s * p->G + g) * D + d];
    return z * (double)(1.0f / sqrtf((float)D));
}

static bool sees(const struct problem *p, size_t t, size_t s)
{
    const size_t at = p->slot0 + t;
    return s >= p->s0 && s <= at && (p->window == 0 || s + p->window > at) && (p->end == 0 || s < p->end);
}

/* ---- sums and scores -------------------------------------------------------------------- */

static double naive_sum(const struct problem *p, const double *lse, size_t g, size_t s)
{
    const size_t group = p->H / p->G;
    double sum = 0.0;

    for (size_t t = 0; t < p->T; t++)
        for (size_t h = g * group; sees(p, t, s) && h < (g + 1) * group; h++)
            sum += exp(naive_score(p, t, h, s) - lse[t * p->H + h]);
    return sum;
}

static void fill_lse(const struct problem *p, double *lse)
{
    for (size_t t = 0; t < p->T; t++)
        for (size_t h = 0; h < p->H; h++) {
            double sum = 0.0;
            for (size_t s = 0; s < p->n_slots; s++)
                sum += sees(p, t, s) ? exp(naive_score(p, t, h, s)) : 0.0;
            lse[t * p->H + h] = log(sum);
        }
}

static void check_sums(const struct problem *p, enum lsi_compute compute, const float *sums, size_t ld)
{
    double *lse = lsi_calloc(heap(), p->T * p->H, sizeof *lse);
    const bool exact = compute == LSI_COMPUTE_FP32 || p->T <= 8 || p->format == LSI_KV_F32;
    const int before = test_failures;

    REQUIRE(lse != NULL);
    fill_lse(p, lse);
    for (size_t g = 0; g < p->G; g++) {
        for (size_t s = 0; s < ld; s++) {
            const float got = sums[g * ld + s];
            if (s >= p->n_slots || s < p->s0) {
                CHECK(got == SENTINEL);
                continue;
            }
            const double want = naive_sum(p, lse, g, s);
            CHECK_NEAR(got - SENTINEL, want, want * (exact ? 1e-4 : 4e-2) + 3e-6);
        }
        if (test_failures > before) {
            fprintf(stderr, "  format %d compute %d T %zu H %zu G %zu D %zu slot0 %zu s0 %zu window %zu\n",
                    (int)p->format, (int)compute, p->T, p->H, p->G, p->D, p->slot0, p->s0, p->window);
            REQUIRE(false);
        }
    }
    lsi_free(heap(), lse, p->T * p->H * sizeof *lse);
}

static void run_sums(struct problem p, uint64_t seed)
{
    make_problem(&p, seed);
    const size_t ld = p.n_slots + 3, n = p.G * ld, n_out = p.T * p.ldo, n_lse = p.T * p.H;
    float *out = floats(n_out), *lse = floats(n_lse), *first = floats(n), *sums = floats(n);
    for (int compute = LSI_COMPUTE_AUTO; compute <= LSI_COMPUTE_FP32; compute += LSI_COMPUTE_FP32) {
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, (enum lsi_compute)compute, &p, p.T);
            const struct lsi_attention a = attention(&p, out, lse);
            for (size_t i = 0; i < n; i++)
                sums[i] = SENTINEL;
            lsi_op_attention(&ex, &a);
            lsi_op_attention_sums(&ex, &a, sums, ld);
            lsi_exec_fini(&ex);
            if (threads == 1) {
                check_sums(&p, (enum lsi_compute)compute, sums, ld);
                memcpy(first, sums, n * sizeof *sums);
            }
            CHECK(memcmp(first, sums, n * sizeof *sums) == 0);
        }
    }
    free_floats(out, n_out);
    free_floats(lse, n_lse);
    free_floats(first, n);
    free_floats(sums, n);
    free_problem(&p);
}

static void check_scores(const struct problem *p, const float *scores, size_t ld)
{
    const int before = test_failures;

    for (size_t t = 0; t < p->T; t++)
        for (size_t h = 0; h < p->H; h++)
            for (size_t s = 0; s < ld; s++) {
                const float got = scores[(t * p->H + h) * ld + s];
                if (s >= p->n_slots)
                    CHECK(got == SENTINEL);
                else if (!sees(p, t, s))
                    CHECK(got == -INFINITY);
                else
                    CHECK_NEAR(got, naive_score(p, t, h, s), 2e-5);
                REQUIRE(test_failures == before);
            }
}

static void run_scores(struct problem p, uint64_t seed)
{
    make_problem(&p, seed);
    const size_t ld = p.n_slots + 1, n = p.T * p.H * ld;
    float *first = floats(n), *scores = floats(n);
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, LSI_COMPUTE_AUTO, &p, p.T);
        const struct lsi_attention a = attention(&p, NULL, NULL);
        for (size_t i = 0; i < n; i++)
            scores[i] = SENTINEL;
        lsi_op_attention_scores(&ex, &a, scores, ld);
        lsi_exec_fini(&ex);
        if (threads == 1) {
            check_scores(&p, scores, ld);
            memcpy(first, scores, n * sizeof *scores);
        }
        CHECK(memcmp(first, scores, n * sizeof *scores) == 0);
    }
    free_floats(first, n);
    free_floats(scores, n);
    free_problem(&p);
}

typedef void run_fn(struct problem p, uint64_t seed);

static void over_shapes(run_fn *run)
{
    static const size_t tokens[] = { 1, 9, 2, 40, 17 };

    for (size_t i = 0; i < 21; i++) {
        const size_t G = i % 2 + 1, H = G * groups[i % 5], D = dims[i % 7], T = tokens[i * 2 % 5];
        const size_t slot0 = i * 53 % 600, s0 = i % 3 == 1 ? lsi_min_size(slot0, 70) : 0;
        const size_t window = i % 4 == 3 ? 100 + i : 0;
        struct problem p = problem((enum lsi_kv_format)(i % 3), T, H, G, D, slot0, s0, window);
        p.end = i % 5 == 4 ? slot0 + T / 2 : 0;
        run(p, 100 + i);
    }
    for (size_t i = 0; i < 6; i++) /* whole pages, and one slot more or less */
        run(problem((enum lsi_kv_format)(i % 3), i % 2 ? 33 : 1, 6, 2, 64, 512 + i - 34, 0, 0), 200 + i);
}

static void test_sums(void)
{
    over_shapes(run_sums);
}

static void test_scores(void)
{
    over_shapes(run_scores);
}

/* ---- chosen slots -------------------------------------------------------------------------- */

#define MAX_RANGES 4096

struct lists {
    struct lsi_slots slots[MAX_RANGES];
    size_t first[33], n;
};

/* Ascending ranges of `kind`: nothing, one slot, all, single slots, whole tiles, anything. */
static void make_list(struct lists *l, size_t list, int kind, size_t n_slots, struct lsi_rng *rng)
{
    l->first[list] = l->n;
    for (size_t s = kind == 1 ? n_slots - 1 : 0; kind > 0 && s < n_slots;) {
        const size_t tile = s % LSI_KV_PAGE % 16 == 0 ? 16 : 16 - s % 16;
        const size_t length = kind == 1 || kind == 3 ? 1
                              : kind == 2            ? n_slots
                              : kind == 4            ? tile
                                                     : 1 + lsi_rng_below(rng, 300);
        const size_t end = lsi_min_size(s + length, n_slots);
        REQUIRE(l->n < MAX_RANGES);
        if (kind < 3 || lsi_rng_below(rng, 3) == 0)
            l->slots[l->n++] = (struct lsi_slots){ (uint32_t)s, (uint32_t)end };
        s = end;
    }
    l->first[list + 1] = l->n;
}

static void naive_slots(const struct problem *p, const struct lists *l, size_t list, size_t h, double *out,
                        double *lse)
{
    const size_t D = p->D, g = h / (p->H / p->G);
    double sum = 0.0;

    for (size_t d = 0; d < D; d++)
        out[d] = 0.0;
    for (size_t i = l->first[list]; i < l->first[list + 1]; i++)
        for (size_t s = l->slots[i].begin; s < l->slots[i].end; s++) {
            const double w = exp(naive_score(p, 0, h, s));
            sum += w;
            for (size_t d = 0; d < D; d++)
                out[d] += w * p->kept_v[(s * p->G + g) * D + d];
        }
    for (size_t d = 0; d < D && sum > 0.0; d++)
        out[d] /= sum;
    *lse = log(sum);
}

static void check_slots(const struct problem *p, const struct lists *l, bool per_q, const float *out,
                        const float *lse)
{
    double want[256], want_lse;
    const int before = test_failures;

    for (size_t h = 0; h < p->H; h++) {
        naive_slots(p, l, per_q ? h : h / (p->H / p->G), h, want, &want_lse);
        for (size_t d = 0; d < p->D; d++)
            CHECK_NEAR(out[h * p->D + d], want[d], 3e-5);
        if (want_lse == -INFINITY)
            CHECK(lse[h] == -INFINITY);
        else
            CHECK_NEAR(lse[h], want_lse, 3e-5);
        REQUIRE(test_failures == before);
    }
}

static void run_slots(struct problem p, bool per_q, int kind, uint64_t seed)
{
    static struct lists l;
    struct lsi_rng rng;

    make_problem(&p, seed);
    lsi_rng_init(&rng, seed);
    l.n = 0;
    for (size_t i = 0; i < (per_q ? p.H : p.G); i++)
        make_list(&l, i, (kind + (int)i) % 6, p.n_slots, &rng);
    const size_t n = p.H * p.D;
    float *out = floats(n), *lse = floats(p.H), *first = floats(n);
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_exec ex = make_exec(threads, LSI_COMPUTE_AUTO, &p, 1);
        struct lsi_attention_slots a = { .q = p.q, .out = out, .lse = lse, .H = p.H, .per_q = per_q };
        a.scale = 1.0f / sqrtf((float)p.D);
        a.slots = l.slots;
        a.first = l.first;
        a.kv = view(&p);
        lsi_op_attention_slots(&ex, &a);
        if (threads == 1) {
            check_slots(&p, &l, per_q, out, lse);
            memcpy(first, out, n * sizeof *out);
        }
        CHECK(memcmp(first, out, n * sizeof *out) == 0);
        if (threads == 3) { /* over q, without lse */
            a.out = p.q;
            a.lse = NULL;
            lsi_op_attention_slots(&ex, &a);
            CHECK(memcmp(first, p.q, n * sizeof *out) == 0);
        }
        lsi_exec_fini(&ex);
    }
    free_floats(out, n);
    free_floats(lse, p.H);
    free_floats(first, n);
    free_problem(&p);
}

static void test_slots(void)
{
    for (size_t i = 0; i < 42; i++) {
        const size_t G = i % 2 + 1, H = G * groups[i % 5];
        const size_t slot0 = i % 6 == 5 ? 2600 : i * 97 % 700;
        run_slots(problem((enum lsi_kv_format)(i % 3), 1, H, G, dims[i % 7], slot0, 0, 0), i / 3 % 2 == 1,
                  (int)(i % 6), 300 + i);
    }
}

/* ---- merging ---------------------------------------------------------------------------------- */

/* Attention to the slots before s0 and to those from there on, merged, is attention to all. */
static void test_merge(void)
{
    for (size_t i = 0; i < 9; i++) {
        const size_t T = (size_t[]){ 1, 7, 40 }[i % 3], cut = (size_t[]){ 100, 0, 400 }[i / 3];
        struct problem p = problem(LSI_KV_F32, T, 6, 2, 64, 390, 0, 0), before;
        make_problem(&p, 400 + i);
        const size_t n = T * p.ldo;
        float *all = floats(n), *out = floats(n), *part = floats(n), *lse[3];
        for (size_t k = 0; k < 3; k++)
            lse[k] = floats(T * p.H);
        struct lsi_exec ex = make_exec(2, LSI_COMPUTE_FP32, &p, T);
        struct lsi_attention a = attention(&p, all, lse[0]);
        lsi_op_attention(&ex, &a);
        a.out = out;
        a.lse = lse[1];
        a.s0 = cut; /* with 400 some rows see nothing here */
        lsi_op_attention(&ex, &a);
        /* The slots before the cut, row by row as ranges. */
        for (size_t t = 0; t < T; t++) {
            const uint32_t end = (uint32_t)lsi_min_size(cut, p.slot0 + t + 1);
            const struct lsi_slots range[2] = { { 0, end }, { 0, end } };
            const size_t first[3] = { 0, 1, 2 }, none[3] = { 0 };
            const struct lsi_attention_slots s = { .q = p.q + t * p.ldq,
                                                   .out = part + t * p.ldo,
                                                   .lse = lse[2] + t * p.H,
                                                   .H = p.H,
                                                   .scale = a.scale,
                                                   .slots = range,
                                                   .first = end > 0 ? first : none,
                                                   .kv = view(&p) };
            lsi_op_attention_slots(&ex, &s);
        }
        lsi_op_attention_merge(&ex, out, p.ldo, lse[1], part, p.ldo, lse[2], T, p.H, p.D);
        for (size_t t = 0; t < T; t++) {
            for (size_t j = 0; j < p.H * p.D; j++)
                CHECK_NEAR(out[t * p.ldo + j], all[t * p.ldo + j], 3e-6);
            for (size_t h = 0; h < p.H; h++)
                CHECK_NEAR(lse[1][t * p.H + h], lse[0][t * p.H + h], 1e-5);
        }
        /* Two empty parts stay one. */
        out[0] = 0.0f;
        lse[1][0] = lse[2][0] = -INFINITY;
        lsi_op_attention_merge(&ex, out, p.ldo, lse[1], part, p.ldo, lse[2], 1, 1, 1);
        CHECK(out[0] == 0.0f && lse[1][0] == -INFINITY);
        before = p;
        lsi_exec_fini(&ex);
        free_floats(all, n);
        free_floats(out, n);
        free_floats(part, n);
        for (size_t k = 0; k < 3; k++)
            free_floats(lse[k], T * p.H);
        free_problem(&before);
    }
}

/* ---- moving and reading -------------------------------------------------------------------------- */

static void load_all(const struct problem *p, float *k, float *v)
{
    struct lsi_exec ex = make_exec(2, LSI_COMPUTE_AUTO, p, 1);
    const struct lsi_kv_view kv = view(p);
    const size_t ld = p->G * p->D, half = p->n_slots / 3;

    lsi_op_kv_load(&ex, &kv, 0, k, ld, NULL, 0, half);
    lsi_op_kv_load(&ex, &kv, 0, NULL, 0, v, ld, half);
    lsi_op_kv_load(&ex, &kv, half, k + half * ld, ld, v + half * ld, ld, p->n_slots - half);
    lsi_exec_fini(&ex);
}

static void test_load(void)
{
    for (size_t i = 0; i < 3 * LSI_LEN(dims); i++) {
        struct problem p = problem((enum lsi_kv_format)(i % 3), 1, 2, 2, dims[i / 3], 40 * i, 0, 0);
        make_problem(&p, 500 + i);
        const size_t n = p.n_slots * p.G * p.D;
        float *k = floats(n), *v = floats(n);
        load_all(&p, k, v);
        for (size_t j = 0; j < n; j++) {
            CHECK(k[j] == (float)p.kept_k[j]);
            CHECK(v[j] == (float)p.kept_v[j]);
        }
        free_floats(k, n);
        free_floats(v, n);
        free_problem(&p);
    }
}

/* Compaction of one head: what is moved arrives, the other head is as before. */
static void test_move(void)
{
    for (size_t i = 0; i < 3 * LSI_LEN(dims); i++) {
        struct problem p = problem((enum lsi_kv_format)(i % 3), 1, 2, 2, dims[i / 3], 600, 0, 0);
        struct lsi_rng rng;
        uint32_t to[601], from[601];
        size_t n_moved = 0;
        make_problem(&p, 600 + i);
        lsi_rng_init(&rng, i);
        for (uint32_t s = 0; s < p.n_slots; s++)
            if (lsi_rng_below(&rng, 3) > 0 || s < 5) {
                to[n_moved] = (uint32_t)n_moved + (n_moved > 20 && s > 30 ? 1 : 0);
                from[n_moved++] = s;
            }
        const size_t D = p.D, ld = p.G * D, n = p.n_slots * ld;
        float *k = floats(n), *v = floats(n);
        struct lsi_exec ex = make_exec(1, LSI_COMPUTE_AUTO, &p, 1);
        const struct lsi_kv_view kv = view(&p);
        lsi_op_kv_move(&ex, &kv, 1, to, from, n_moved);
        lsi_exec_fini(&ex);
        load_all(&p, k, v);
        for (size_t j = 0; j < n_moved; j++)
            for (size_t d = 0; d < D; d++) {
                CHECK(k[to[j] * ld + D + d] == (float)p.kept_k[from[j] * ld + D + d]);
                CHECK(v[to[j] * ld + D + d] == (float)p.kept_v[from[j] * ld + D + d]);
            }
        for (size_t s = 0; s < p.n_slots; s++)
            for (size_t d = 0; d < D; d++)
                CHECK(k[s * ld + d] == (float)p.kept_k[s * ld + d] &&
                      v[s * ld + d] == (float)p.kept_v[s * ld + d]);
        free_floats(k, n);
        free_floats(v, n);
        free_problem(&p);
    }
}

/* ---- bounds ------------------------------------------------------------------------------------------- */

static double naive_bound(const struct problem *p, size_t h, size_t first, size_t run)
{
    const size_t D = p->D, g = h / (p->H / p->G);
    double u = 0.0;

    for (size_t d = 0; d < D; d++) {
        double lo = INFINITY, hi = -INFINITY;
        for (size_t s = first; s < first + run; s++) {
            lo = fmin(lo, p->kept_k[(s * p->G + g) * D + d]);
            hi = fmax(hi, p->kept_k[(s * p->G + g) * D + d]);
        }
        u += fmax((double)p->q[h * D + d] * lo, (double)p->q[h * D + d] * hi);
    }
    return u * (double)(1.0f / sqrtf((float)D));
}

/* Bounds are rounded outwards: by 1/127 of the greatest at most. */
static void check_bounds(const struct problem *p, size_t run, const float *scores, size_t n_runs)
{
    for (size_t h = 0; h < p->H; h++)
        for (size_t i = 0; i < n_runs; i++) {
            const double u = (double)scores[h * n_runs + i], want = naive_bound(p, h, i * run, run);
            double size = 0.0, most = -INFINITY;
            for (size_t d = 0; d < p->D; d++)
                size += fabs((double)p->q[h * p->D + d]) * 4.0;
            CHECK_NEAR(u, want, size / 128 + 2e-5);
            for (size_t s = i * run; s < (i + 1) * run; s++)
                most = fmax(most, naive_score(p, 0, h, s));
            CHECK(u >= most - 2e-5);
        }
}

static void check_together(const struct problem *p, const float *each, const float *set, size_t n,
                           enum lsi_bounds_set how)
{
    const size_t group = p->H / p->G;

    for (size_t g = 0; g < p->G; g++)
        for (size_t i = 0; i < n; i++) {
            double want = how == LSI_BOUNDS_MAX ? -INFINITY : 0.0;
            for (size_t h = g * group; h < (g + 1) * group; h++) {
                double u = (double)each[h * n + i], most = -INFINITY;
                for (size_t j = 0; j < n; j++)
                    most = fmax(most, (double)each[h * n + j]);
                want = how == LSI_BOUNDS_PSEUDO ? want + exp(u - most)
                       : how == LSI_BOUNDS_MAX  ? fmax(want, u)
                                                : want + u;
            }
            CHECK_NEAR(set[g * n + i], want, 3e-5);
        }
}

static void test_bounds(void)
{
    static const size_t runs[] = { 16, 1, 5, 64, 7 };

    for (size_t i = 0; i < 21; i++) {
        const size_t G = i % 2 + 1, H = G * groups[i % 5], run = runs[i % 5];
        struct problem p = problem((enum lsi_kv_format)(i % 3), 1, H, G, dims[i / 3], 600 + i * 31, 0, 0);
        make_problem(&p, 700 + i);
        for (size_t d = 0; i == 20 && d < H * p.D; d++) /* queries of one sign see one side alone */
            p.q[d] = -fabsf(p.q[d]);
        const size_t n = p.n_slots / run, bytes = lsi_bounds_page_bytes(G, p.D);
        void *pages[MAX_PAGES] = { NULL };
        for (size_t j = 0; j < lsi_div_up(n, LSI_KV_PAGE); j++) {
            pages[j] = lsi_calloc(heap(), 1, bytes);
            REQUIRE(pages[j] != NULL);
        }
        float *each = floats(H * n), *set = floats(H * n), *first = floats(H * n);
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, LSI_COMPUTE_AUTO, &p, 1);
            const struct lsi_bounds b = { .G = G, .D = p.D, .run = run, .pages = pages };
            const struct lsi_kv_view kv = view(&p);
            ls_error err;
            REQUIRE_OK(lsi_exec_set_scratch(&ex, lsi_op_bounds_scores_scratch(&ex, H, p.D, n), &err), err);
            lsi_op_bounds_store(&ex, &b, &kv, 0, n / 3);
            lsi_op_bounds_store(&ex, &b, &kv, n / 3, n - n / 3);
            for (int how = LSI_BOUNDS_EACH; how <= LSI_BOUNDS_SUM; how++) {
                float *to = how == LSI_BOUNDS_EACH ? each : set;
                lsi_op_bounds_scores(&ex, &b, p.q, H, 1.0f / sqrtf((float)p.D), n, (enum lsi_bounds_set)how,
                                     to, n);
                if (how != LSI_BOUNDS_EACH)
                    check_together(&p, each, set, n, (enum lsi_bounds_set)how);
            }
            lsi_exec_fini(&ex);
            if (threads == 1) {
                check_bounds(&p, run, each, n);
                memcpy(first, each, H * n * sizeof *each);
            }
            CHECK(memcmp(first, each, H * n * sizeof *each) == 0);
        }
        free_floats(each, H * n);
        free_floats(set, H * n);
        free_floats(first, H * n);
        for (size_t j = 0; j < lsi_div_up(n, LSI_KV_PAGE); j++)
            lsi_free(heap(), pages[j], bytes);
        free_problem(&p);
    }
}

/* Of every row those that fewer than k others come before. */
static void test_choose(void)
{
    static const size_t sizes[][3] = { { 3, 40, 7 }, { 1, 9, 9 }, { 5, 2100, 205 }, { 2, 4500, 1 } };

    for (size_t i = 0; i < LSI_LEN(sizes); i++) {
        const size_t rows = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
        const struct problem p = problem(LSI_KV_F32, 1, 1, 1, 16, 0, 0, 0);
        float *given = floats(rows * n), *scores = floats(rows * n);
        uint32_t *best = lsi_calloc(heap(), rows * k, sizeof *best);
        struct lsi_rng rng;
        REQUIRE(best != NULL);
        lsi_rng_init(&rng, i);
        for (size_t j = 0; j < rows * n; j++)
            given[j] = (float)lsi_rng_below(&rng, n / 2 + 1) - 10.0f;
        for (int threads = 1; threads <= 3; threads++) {
            struct lsi_exec ex = make_exec(threads, LSI_COMPUTE_AUTO, &p, 1);
            memcpy(scores, given, rows * n * sizeof *given);
            lsi_op_choose(&ex, best, scores, rows, n, k);
            for (size_t r = 0; r < rows; r++)
                for (size_t j = 0, next = 0; j < n; j++) {
                    const float *row = given + r * n;
                    size_t before = 0;
                    for (size_t other = 0; other < n; other++)
                        before += row[other] > row[j] || (row[other] >= row[j] && other > j) ? 1 : 0;
                    const bool in = next < k && best[r * k + next] == j;
                    CHECK(in == (before < k));
                    next += in ? 1 : 0;
                }
            lsi_exec_fini(&ex);
        }
        lsi_free(heap(), best, rows * k * sizeof *best);
        free_floats(given, rows * n);
        free_floats(scores, rows * n);
    }
}

/* Row by row what lsi_op_rope gives; and back again. */
static void test_rope_at(void)
{
    enum {
        D = 16,
        HEADS = 3,
        ROWS = 41,
        LD = HEADS * D + 1
    };
    double inv_freq[D / 2];
    float x[ROWS * LD], y[ROWS * LD];
    int64_t pos[ROWS];
    const struct lsi_rope rope = { .inv_freq = inv_freq, .mscale = 1.0 };
    const struct problem p = problem(LSI_KV_F32, 1, 1, 1, D, 0, 0, 0);
    struct lsi_exec ex = make_exec(2, LSI_COMPUTE_AUTO, &p, 1);
    struct lsi_rng rng;

    lsi_rng_init(&rng, 9);
    for (size_t i = 0; i < D / 2; i++)
        inv_freq[i] = pow(10000.0, -2.0 * (double)i / D);
    for (size_t i = 0; i < LSI_LEN(x); i++)
        x[i] = y[i] = (float)lsi_rng_normal(&rng);
    for (size_t t = 0; t < ROWS; t++)
        pos[t] = (int64_t)lsi_rng_below(&rng, 1000000) - 500000;
    const float corner = x[HEADS * D];
    lsi_op_rope_at(&ex, x, ROWS, HEADS, D, LD, &rope, pos);
    CHECK(x[HEADS * D] == corner);
    for (size_t t = 0; t < ROWS; t++) {
        float row[LD];
        memcpy(row, y + t * LD, sizeof row);
        lsi_op_rope(&ex, row, 1, HEADS, D, LD, &rope, pos[t]);
        CHECK(memcmp(row, x + t * LD, sizeof row) == 0);
        pos[t] = -pos[t];
    }
    lsi_op_rope_at(&ex, x, ROWS, HEADS, D, LD, &rope, pos);
    for (size_t i = 0; i < LSI_LEN(x); i++)
        CHECK_NEAR(x[i], y[i], 1e-6);
    lsi_exec_fini(&ex);
}

/* ---- packed pages ------------------------------------------------------------------------------ */

/* A problem of fp32 pages, what they hold packed, and in the fp32 pages what the codes stand for. */
struct packed {
    struct problem p;
    struct lsi_exec ex;
    struct lsi_kv_view kv;
    void *pages[8];
    size_t n_pages;
};

static void make_packed(struct packed *t, struct problem p, enum lsi_kv_format format, int threads,
                        uint64_t seed)
{
    const size_t n = p.G * p.D;
    t->p = p;
    make_problem(&t->p, seed);
    t->n_pages = lsi_div_up(t->p.n_slots, LSI_KV_PAGE);
    for (size_t i = 0; i < t->n_pages; i++) {
        t->pages[i] = lsi_calloc(heap(), 1, lsi_kv_page_bytes(format, p.G, p.D));
        REQUIRE(t->pages[i] != NULL);
    }
    t->kv = (struct lsi_kv_view){ .format = format, .G = p.G, .D = p.D, .pages = t->pages };
    t->ex = make_exec(threads, LSI_COMPUTE_FP32, &t->p, p.T);
    ls_error err;
    REQUIRE_OK(
        lsi_exec_set_scratch(
            &t->ex, lsi_max_size(scratch_of(&t->ex, p.T, &t->p), lsi_op_kv_pack_scratch(&t->ex, p.D)), &err),
        err);
    const struct lsi_kv_view exact = view(&t->p);
    const struct lsi_kv_pack pack = {
        .from = exact, .to = t->kv, .k_end = t->p.n_slots, .v_end = t->p.n_slots, .back = SIZE_MAX
    };
    lsi_op_kv_pack(&t->ex, &pack);
    float *k = floats(t->p.n_slots * n), *v = floats(t->p.n_slots * n);
    lsi_op_kv_load(&t->ex, &t->kv, 0, k, n, v, n, t->p.n_slots);
    lsi_op_kv_store(&t->ex, &exact, 0, k, n, v, n, t->p.n_slots);
    free_floats(k, t->p.n_slots * n);
    free_floats(v, t->p.n_slots * n);
}

static void free_packed(struct packed *t)
{
    for (size_t i = 0; i < t->n_pages; i++)
        lsi_free(heap(), t->pages[i], lsi_kv_page_bytes(t->kv.format, t->kv.G, t->kv.D));
    lsi_exec_fini(&t->ex);
    free_problem(&t->p);
}

static void same_floats(const float *got, const float *want, size_t n, double tol)
{
    for (size_t i = 0; i < n; i++)
        CHECK_NEAR(got[i], want[i], tol);
}

static const unsigned packings[][3] = { { 2, 2, 32 }, { 4, 4, 32 }, { 8, 2, 64 }, { 4, 8, 128 } };

/* Chosen slots, and all but those that a mask hides, of packed pages are those of fp32 pages that hold the
 * same. */
static void test_packed_slots(void)
{
    static struct lists l;
    static uint16_t seen[8][64];
    for (size_t i = 0; i < 40; i++) {
        const unsigned *w = packings[i % 4];
        const size_t G = i % 2 + 1, H = G * groups[i % 5];
        struct packed t;
        struct lsi_rng rng;
        make_packed(&t, problem(LSI_KV_F32, 1, H, G, dims[i % 7], 639, 0, 0), lsi_kv_kivi(w[0], w[1], w[2]),
                    1 + (int)(i % 3), 500 + i);
        lsi_rng_init(&rng, i);
        l.n = 0;
        memset(seen, 0, sizeof seen);
        for (size_t g = 0; g < G; g++) {
            make_list(&l, g, (int)(i + g) % 6, t.p.n_slots, &rng);
            for (size_t r = l.first[g]; r < l.first[g + 1]; r++)
                for (size_t s = l.slots[r].begin; s < l.slots[r].end; s++)
                    seen[g][s / 16] = (uint16_t)(seen[g][s / 16] | 1u << s % 16);
        }
        const size_t n = H * t.p.D;
        float *out[2] = { floats(n), floats(n) }, *lse[2] = { floats(H), floats(H) };
        struct lsi_attention_slots a = { .q = t.p.q, .out = out[0], .lse = lse[0], .H = H, .slots = l.slots };
        a.first = l.first;
        a.scale = 1.0f / sqrtf((float)t.p.D);
        a.kv = view(&t.p);
        lsi_op_attention_slots(&t.ex, &a);
        a.out = out[1];
        a.lse = lse[1];
        a.kv = t.kv;
        lsi_op_attention_slots(&t.ex, &a);
        same_floats(out[1], out[0], n, 3e-5);
        struct lsi_attention all = attention(&t.p, out[1], lse[1]);
        all.kv = t.kv;
        all.seen = seen[0];
        all.ld_seen = LSI_LEN(seen[0]);
        lsi_op_attention(&t.ex, &all);
        same_floats(out[1], out[0], n, 3e-5);
        for (size_t h = 0; h < H; h++)
            CHECK(lse[0][h] == lse[1][h] || fabsf(lse[0][h] - lse[1][h]) < 3e-5f);
        for (size_t j = 0; j < 2; j++) {
            free_floats(out[j], n);
            free_floats(lse[j], H);
        }
        free_packed(&t);
    }
}

static void test_packed_sums_and_bounds(void)
{
    for (size_t i = 0; i < 24; i++) {
        const unsigned *w = packings[i % 4];
        const size_t T = (size_t[]){ 1, 5, 40 }[i % 3], G = i % 2 + 1, H = G * groups[i % 5];
        struct packed t;
        make_packed(&t, problem(LSI_KV_F32, T, H, G, dims[i % 7], 640 - T, i % 5 == 0 ? 100 : 0, 0),
                    lsi_kv_kivi(w[0], w[1], w[2]), 1 + (int)(i % 2), 600 + i);
        const size_t n = T * t.p.ldo, n_sums = G * t.p.n_slots;
        float *out = floats(n), *lse = floats(T * H), *sums[2] = { floats(n_sums), floats(n_sums) };
        struct lsi_attention a = attention(&t.p, out, lse);
        lsi_op_attention(&t.ex, &a);
        for (size_t j = 0; j < 2; j++) {
            a.kv = j == 0 ? view(&t.p) : t.kv;
            a.end = i % 4 == 3 ? 300 : 0; /* rows beyond the end */
            lsi_op_attention_sums(&t.ex, &a, sums[j], t.p.n_slots);
        }
        same_floats(sums[1], sums[0], n_sums, 1e-4);

        const size_t run = 16, n_runs = t.p.n_slots / run, bytes = lsi_bounds_page_bytes(G, t.p.D);
        void *page[2] = { lsi_calloc(heap(), 1, bytes), lsi_calloc(heap(), 1, bytes) };
        REQUIRE(page[0] && page[1]);
        for (size_t j = 0; j < 2; j++) {
            const struct lsi_kv_view kv = j == 0 ? view(&t.p) : t.kv;
            const struct lsi_bounds b = { .G = G, .D = t.p.D, .run = run, .pages = &page[j] };
            lsi_op_bounds_store(&t.ex, &b, &kv, 0, n_runs);
        }
        CHECK(memcmp(page[0], page[1], bytes) == 0);
        for (size_t j = 0; j < 2; j++) {
            lsi_free(heap(), page[j], bytes);
            free_floats(sums[j], n_sums);
        }
        free_floats(out, n);
        free_floats(lse, T * H);
        free_packed(&t);
    }
}

/* Slots that are quantised anew stay within half a step of the new group; groups move as they are. */
static void test_packed_groups(void)
{
    for (size_t i = 0; i < 16; i++) {
        const unsigned *w = packings[i % 4];
        const size_t G = 2, D = dims[i % 7], n = G * D, g = i / 4 % 2, group = w[2];
        struct packed t;
        make_packed(&t, problem(LSI_KV_F32, 1, 2, G, D, 639, 0, 0), lsi_kv_kivi(w[0], w[1], w[2]), 1,
                    700 + i);
        float *k[2] = { floats(640 * n), floats(640 * n) }, *v[2] = { floats(640 * n), floats(640 * n) };
        lsi_op_kv_load(&t.ex, &t.kv, 0, k[0], n, v[0], n, 640);
        uint32_t from[128];
        const size_t some = group - i % 3 * 5;
        for (size_t j = 0; j < some; j++)
            from[j] = (uint32_t)(group + 2 * j + j % 2); /* its own slots and those behind */
        lsi_op_kv_regroup(&t.ex, &t.kv, g, group, from, some);
        lsi_op_kv_load(&t.ex, &t.kv, 0, k[1], n, v[1], n, 640);
        for (size_t d = 0; d < D; d++) {
            float lo = INFINITY, hi = -INFINITY;
            for (size_t j = 0; j < some; j++) {
                lo = fminf(lo, k[0][from[j] * n + g * D + d]);
                hi = fmaxf(hi, k[0][from[j] * n + g * D + d]);
            }
            const double step = (double)(hi - lo) / ((1u << w[0]) - 1);
            for (size_t j = 0; j < some; j++)
                CHECK_NEAR(k[1][(group + j) * n + g * D + d], k[0][from[j] * n + g * D + d],
                           step * 0.51 + 2e-3);
        }
        for (size_t j = 0; j < some; j++) /* values were on their grid */
            for (size_t d = 0; d < D; d++)
                CHECK_NEAR(v[1][(group + j) * n + g * D + d], v[0][from[j] * n + g * D + d], 5e-3);
        for (size_t j = 0; j < group; j++) /* other heads and slots are as they were */
            CHECK(memcmp(k[1] + j * n, k[0] + j * n, n * sizeof(float)) == 0 &&
                  memcmp(k[1] + (group + j) * n + (1 - g) * D, k[0] + (group + j) * n + (1 - g) * D,
                         D * sizeof(float)) == 0);
        const uint32_t to = (uint32_t)group, last = (uint32_t)(640 - group);
        lsi_op_kv_move(&t.ex, &t.kv, g, &to, &last, 1);
        lsi_op_kv_load(&t.ex, &t.kv, 0, k[0], n, v[0], n, 640);
        for (size_t j = 0; j < group; j++)
            CHECK(memcmp(k[0] + (to + j) * n + g * D, k[1] + (last + j) * n + g * D, D * sizeof(float)) ==
                      0 &&
                  memcmp(v[0] + (to + j) * n + g * D, v[1] + (last + j) * n + g * D, D * sizeof(float)) == 0);
        for (size_t j = 0; j < 2; j++) {
            free_floats(k[j], 640 * n);
            free_floats(v[j], 640 * n);
        }
        free_packed(&t);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_sums),
        TEST(test_scores),
        TEST(test_slots),
        TEST(test_merge),
        TEST(test_load),
        TEST(test_move),
        TEST(test_rope_at),
        TEST(test_bounds),
        TEST(test_choose),
        TEST(test_packed_slots),
        TEST(test_packed_sums_and_bounds),
        TEST(test_packed_groups),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

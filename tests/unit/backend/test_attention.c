/*
 * The attention op against a softmax written out in double on the values that the cache
 * holds: formats, head sizes, groups, blocks, windows, and sameness for every number of threads.
 */
#include "test.h"

#include "ops/ops.h"

#include "base/numbers.h"

#include <math.h>

#define MAX_PAGES 12

struct problem {
    enum lsi_kv_format format;
    size_t T, H, G, D;
    size_t slot0, s0, window;
    size_t ldq, ldo, ldk;
    float *q, *k, *v;        /* k, v: [slots][ldk] */
    double *kept_k, *kept_v; /* what the cache keeps of them, [slots][G * D] */
    void *pages[MAX_PAGES];
    size_t n_slots;
};

static struct problem problem(enum lsi_kv_format format, size_t T, size_t H, size_t G, size_t D, size_t slot0,
                              size_t s0, size_t window)
{
    const struct problem p = {
        .format = format, .T = T, .H = H, .G = G, .D = D, .slot0 = slot0, .s0 = s0, .window = window
    };
    return p;
}

static const ls_alloc *heap(void)
{
    return lsi_alloc_or_default(NULL);
}

static float *floats(size_t n)
{
    float *p = lsi_calloc(heap(), n + 1, sizeof *p);
    REQUIRE(p != NULL);
    return p;
}

static void free_floats(float *p, size_t n)
{
    lsi_free(heap(), p, (n + 1) * sizeof *p);
}

static struct lsi_exec make_exec(int n_threads, enum lsi_compute compute, const struct problem *p, size_t T)
{
    struct lsi_exec ex;
    ls_error err;
    REQUIRE_OK(lsi_exec_init_cpu(&ex, n_threads, compute, heap(), &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(&ex, lsi_op_attention_scratch(&ex, T, p->H, p->G, p->D), &err), err);
    return ex;
}

static struct lsi_kv_view view(const struct problem *p)
{
    const struct lsi_kv_view kv = { .format = p->format, .G = p->G, .D = p->D, .pages = p->pages };
    return kv;
}

static float to_bf16(float x)
{
    return lsi_bf16_to_f32(lsi_bf16_from_f32(x));
}

/* What the format keeps of a vector: 8 bits have a scale for each 32 dimensions. */
static void keep(enum lsi_kv_format format, double *y, const float *x, size_t D)
{
    for (size_t first = 0; first < D; first += 32) {
        const size_t end = lsi_min_size(first + 32, D);
        float amax = 0.0f;
        for (size_t d = first; d < end; d++)
            amax = fmaxf(amax, fabsf(x[d]));
        const float scale = to_bf16(amax / 127.0f), inv = 1.0f / scale;
        for (size_t d = first; d < end; d++)
            y[d] = format == LSI_KV_F32 ? (double)x[d]
                   : format == LSI_KV_BF16
                       ? (double)to_bf16(x[d])
                       : (double)(fminf(fmaxf(rintf(x[d] * inv), -127.0f), 127.0f) * scale);
    }
}

/* Random queries, keys and values; all slots stored. Scores vary by a few units. */
static void make_problem(struct problem *p, uint64_t seed)
{
    struct lsi_rng rng;
    struct lsi_exec ex;
    const size_t bytes = lsi_kv_page_bytes(p->format, p->G, p->D);

    lsi_rng_init(&rng, seed);
    p->n_slots = p->slot0 + p->T;
    p->ldq = p->H * p->D + 3;
    p->ldo = p->H * p->D + 5;
    p->ldk = p->G * p->D + 1;
    REQUIRE(p->n_slots <= MAX_PAGES * LSI_KV_PAGE);
    p->q = floats(p->T * p->ldq);
    p->k = floats(p->n_slots * p->ldk);
    p->v = floats(p->n_slots * p->ldk);
    for (size_t i = 0; i < p->T * p->ldq; i++)
        p->q[i] = (float)lsi_rng_normal(&rng);
    for (size_t i = 0; i < p->n_slots * p->ldk; i++) {
        /* Dimensions of very different sizes. */
        p->k[i] = (float)(lsi_rng_normal(&rng) * (i / 32 % 5 == 1 ? 0.01 : 1.0));
        p->v[i] = (float)(lsi_rng_normal(&rng) * (i / 32 % 3 == 1 ? 0.01 : 1.0));
    }
    p->kept_k = lsi_calloc(heap(), p->n_slots * p->G * p->D, sizeof *p->kept_k);
    p->kept_v = lsi_calloc(heap(), p->n_slots * p->G * p->D, sizeof *p->kept_v);
    REQUIRE(p->kept_k && p->kept_v);
    for (size_t s = 0; s < p->n_slots; s++)
        for (size_t g = 0; g < p->G; g++) {
            keep(p->format, p->kept_k + (s * p->G + g) * p->D, p->k + s * p->ldk + g * p->D, p->D);
            keep(p->format, p->kept_v + (s * p->G + g) * p->D, p->v + s * p->ldk + g * p->D, p->D);
        }
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++) {
        p->pages[i] = lsi_calloc(heap(), 1, bytes);
        REQUIRE(p->pages[i] != NULL);
    }
    ex = make_exec(2, LSI_COMPUTE_FP32, p, 1);
    const struct lsi_kv_view kv = view(p);
    const size_t half = p->n_slots / 2;
    lsi_op_kv_store(&ex, &kv, 0, p->k, p->ldk, p->v, p->ldk, half);
    lsi_op_kv_store(&ex, &kv, half, p->k + half * p->ldk, p->ldk, p->v + half * p->ldk, p->ldk,
                    p->n_slots - half);
    lsi_exec_fini(&ex);
}

static void free_problem(struct problem *p)
{
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++)
        lsi_free(heap(), p->pages[i], lsi_kv_page_bytes(p->format, p->G, p->D));
    lsi_free(heap(), p->kept_k, p->n_slots * p->G * p->D * sizeof *p->kept_k);
    lsi_free(heap(), p->kept_v, p->n_slots * p->G * p->D * sizeof *p->kept_v);
    free_floats(p->q, p->T * p->ldq);
    free_floats(p->k, p->n_slots * p->ldk);
    free_floats(p->v, p->n_slots * p->ldk);
}

static void naive_row(const struct problem *p, float scale, size_t t, size_t h, double *out, double *lse)
{
    const size_t D = p->D, g = h / (p->H / p->G), at = p->slot0 + t;
    const float *q = p->q + t * p->ldq + h * D;
    double w[MAX_PAGES * LSI_KV_PAGE], max = -INFINITY, sum = 0.0;

    for (size_t d = 0; d < D; d++)
        out[d] = 0.0;
    for (size_t s = 0; s <= at; s++) {
        w[s] = -INFINITY;
        if (s < p->s0 || (p->window > 0 && s + p->window <= at))
            continue;
        w[s] = 0.0;
        for (size_t d = 0; d < D; d++)
            w[s] += (double)q[d] * p->kept_k[(s * p->G + g) * D + d];
        w[s] *= (double)scale;
        max = fmax(max, w[s]);
    }
    for (size_t s = 0; s <= at; s++) {
        if (w[s] == -INFINITY)
            continue;
        const double e = exp(w[s] - max);
        sum += e;
        for (size_t d = 0; d < D; d++)
            out[d] += e * p->kept_v[(s * p->G + g) * D + d];
    }
    for (size_t d = 0; d < D && sum > 0.0; d++)
        out[d] /= sum;
    *lse = sum > 0.0 ? max + log(sum) : -INFINITY;
}

static struct lsi_attention attention(const struct problem *p, float *out, float *lse)
{
    const struct lsi_attention a = {
        .q = p->q,
        .out = out,
        .lse = lse,
        .ldq = p->ldq,
        .ldo = p->ldo,
        .T = p->T,
        .H = p->H,
        .slot0 = p->slot0,
        .s0 = p->s0,
        .window = p->window,
        .scale = 1.0f / sqrtf((float)p->D),
        .kv = view(p),
    };
    return a;
}

/* What arithmetic may cost, for outputs of about 1 (sums of normal values). */
static double tolerance(enum lsi_compute compute, const struct problem *p)
{
    if (compute == LSI_COMPUTE_FP32)
        return p->format == LSI_KV_Q8 ? 3e-5 : 1e-5;
    return p->format == LSI_KV_F32 ? 1e-5 : 3e-2;
}

static void check_against_naive(const struct problem *p, enum lsi_compute compute, const float *out,
                                const float *lse)
{
    const double tol = tolerance(compute, p);
    double want[512], want_lse;
    const int before = test_failures;

    for (size_t t = 0; t < p->T; t++) {
        for (size_t h = 0; h < p->H; h++) {
            naive_row(p, 1.0f / sqrtf((float)p->D), t, h, want, &want_lse);
            for (size_t d = 0; d < p->D; d++)
                CHECK_NEAR(out[t * p->ldo + h * p->D + d], want[d], tol);
            if (want_lse == -INFINITY)
                CHECK(lse[t * p->H + h] == -INFINITY);
            else
                CHECK_NEAR(lse[t * p->H + h], want_lse, tol);
            if (test_failures > before + 3) {
                fprintf(stderr,
                        "  format %d T %zu H %zu G %zu D %zu slot0 %zu s0 %zu window %zu: t %zu h %zu\n",
                        (int)p->format, p->T, p->H, p->G, p->D, p->slot0, p->s0, p->window, t, h);
                REQUIRE(false);
            }
        }
    }
}

static void run_problem(struct problem p, uint64_t seed)
{
    make_problem(&p, seed);
    const size_t n_out = p.T * p.ldo, n_lse = p.T * p.H;
    for (int compute = LSI_COMPUTE_AUTO; compute <= LSI_COMPUTE_FP32; compute++) {
        float *first = NULL, *first_lse = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            float *out = floats(n_out), *lse = floats(n_lse);
            struct lsi_exec ex = make_exec(threads, (enum lsi_compute)compute, &p, p.T);
            const struct lsi_attention a = attention(&p, out, lse);
            lsi_op_attention(&ex, &a);
            lsi_exec_fini(&ex);
            if (threads == 1) {
                check_against_naive(&p, (enum lsi_compute)compute, out, lse);
                first = out;
                first_lse = lse;
                continue;
            }
            CHECK(memcmp(out, first, n_out * sizeof *out) == 0);
            CHECK(memcmp(lse, first_lse, n_lse * sizeof *lse) == 0);
            free_floats(out, n_out);
            free_floats(lse, n_lse);
        }
        free_floats(first, n_out);
        free_floats(first_lse, n_lse);
    }
    free_problem(&p);
}

static void test_shapes(void)
{
    static const size_t dims[] = { 16, 64, 80, 128, 256 }, groups[] = { 1, 2, 3, 4, 8 };
    static const size_t tokens[] = { 1, 2, 7, 16, 33 };

    for (size_t i = 0; i < 25; i++) {
        for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
            const size_t group = groups[(i + (size_t)format) % 5], T = tokens[i / 5];
            const size_t G = i % 2 + 1;
            const struct problem p =
                problem((enum lsi_kv_format)format, T, group * G, G, dims[i % 5], i % 3 * 157 + i, 0, 0);
            run_problem(p, 1000 + i);
        }
    }
}

static void test_windows(void)
{
    static const size_t windows[] = { 1, 5, 64, 255, 256, 300, 600 };

    for (size_t i = 0; i < LSI_LEN(windows) * 3; i++) {
        const size_t T = (size_t[]){ 1, 7, 33 }[i % 3];
        const struct problem p =
            problem((enum lsi_kv_format)(i / 3 % 3), T, 6, 2, 64, 533, i % 2 * 7, windows[i / 3]);
        run_problem(p, 2000 + i);
    }
}

static void test_rows_that_see_nothing(void)
{
    static const size_t tokens[] = { 1, 4, 33 };

    for (size_t i = 0; i < 9; i++) {
        /* Rows before s0 see nothing; with i / 3 == 2 none sees anything. */
        const size_t T = tokens[i % 3], slot0 = 250;
        const size_t s0 = i / 3 == 0 ? slot0 + T - 1 : i / 3 == 1 ? slot0 + T / 2 : slot0 + T + 300;
        const struct problem p = problem((enum lsi_kv_format)(i / 3 % 3), T, 3, 1, 64, slot0, s0, 0);
        run_problem(p, 3000 + i);
    }
}

/* Positions that move from page to page, odd head sizes: the plain paths. */
static void test_odd_sizes(void)
{
    static const size_t dims[] = { 2, 6, 18, 24, 66, 96, 112, 160, 288 };

    for (size_t i = 0; i < LSI_LEN(dims) * 3; i++) {
        const struct problem p =
            problem((enum lsi_kv_format)(i % 3), i % 2 ? 11 : 3, 4, 2, dims[i / 3], 255 + i, 0, 0);
        run_problem(p, 4000 + i);
    }
}

/* More slots than chunks of one page, out over q, and a second range of pages. */
static void test_deep_and_in_place(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        struct problem p = problem((enum lsi_kv_format)format, 2, 6, 2, 64, 11 * LSI_KV_PAGE + 3, 0, 0);
        make_problem(&p, 77);
        p.ldo = p.ldq;
        float *lse = floats(p.T * p.H), *separate = floats(p.T * p.ldo), *q = p.q;
        struct lsi_exec ex = make_exec(2, LSI_COMPUTE_AUTO, &p, p.T);
        struct lsi_attention a = attention(&p, separate, lse);
        lsi_op_attention(&ex, &a);
        check_against_naive(&p, LSI_COMPUTE_AUTO, separate, lse);
        a.out = q;
        a.lse = NULL;
        lsi_op_attention(&ex, &a);
        for (size_t t = 0; t < p.T; t++)
            CHECK(memcmp(q + t * p.ldq, separate + t * p.ldo, p.H * p.D * sizeof *q) == 0);
        lsi_exec_fini(&ex);
        free_floats(lse, p.T * p.H);
        free_floats(separate, p.T * p.ldo);
        free_problem(&p);
    }
}

/* Rows one by one give what a block gives. */
static void test_decode_equals_block(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        for (size_t T = 5; T <= 40; T += 35) {
            struct problem p = problem((enum lsi_kv_format)format, T, 6, 2, 64, 500, 0, 0);
            make_problem(&p, 99);
            float *block = floats(T * p.ldo), *one = floats(p.ldo);
            struct lsi_exec ex = make_exec(2, LSI_COMPUTE_FP32, &p, T);
            struct lsi_attention a = attention(&p, block, NULL);
            lsi_op_attention(&ex, &a);
            for (size_t t = 0; t < T; t++) {
                a.q = p.q + t * p.ldq;
                a.out = one;
                a.T = 1;
                a.slot0 = p.slot0 + t;
                lsi_op_attention(&ex, &a);
                for (size_t i = 0; i < p.H * p.D; i++)
                    CHECK_NEAR(one[i], block[t * p.ldo + i], 2e-6);
                /* Blocks of a few tokens are cut like single ones: the same bits. */
                if (T == 5)
                    CHECK(memcmp(one, block + t * p.ldo, p.H * p.D * sizeof *one) == 0);
            }
            lsi_exec_fini(&ex);
            free_floats(block, T * p.ldo);
            free_floats(one, p.ldo);
            free_problem(&p);
        }
    }
}

/* Where few rows go the ways of many, a block of any length rounds a row alike. */
static void test_few_as_many(void)
{
    enum {
        T = 40
    };
    for (int format = LSI_KV_BF16; format <= LSI_KV_Q8; format++) {
        struct problem p = problem((enum lsi_kv_format)format, T, 6, 2, 64, 500, 0, 0);
        make_problem(&p, 7);
        float *block = floats(T * p.ldo), *part = floats(T * p.ldo);
        struct lsi_exec ex = make_exec(2, LSI_COMPUTE_BF16, &p, T);
        struct lsi_attention a = attention(&p, block, NULL);
        lsi_op_attention(&ex, &a);
        lsi_exec_fini(&ex);
        for (size_t n = 1; n <= 9; n++) {
            lsi_exec_plan_cpu(&ex, 2, LSI_COMPUTE_BF16);
            ex.few_as_many = true;
            const size_t scratch = lsi_op_attention_scratch(&ex, n, p.H, p.G, p.D);
            ls_error err;
            REQUIRE_OK(lsi_exec_init_cpu(&ex, 2, LSI_COMPUTE_BF16, heap(), &err), err);
            REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch, &err), err);
            ex.few_as_many = true;
            a.q = p.q;
            a.out = part;
            a.T = n;
            lsi_op_attention(&ex, &a);
            lsi_exec_fini(&ex);
            for (size_t t = 0; t < n; t++)
                for (size_t i = 0; i < p.H * p.D; i++)
                    CHECK_NEAR(part[t * p.ldo + i], block[t * p.ldo + i], 1e-5);
        }
        free_floats(block, T * p.ldo);
        free_floats(part, T * p.ldo);
        free_problem(&p);
    }
}

/* Two bytes of scale for 32 of a key's or value's. */
static void test_page_bytes(void)
{
    for (size_t D = 32; D <= 256; D += 32) {
        const size_t bf16 = lsi_kv_page_bytes(LSI_KV_BF16, 3, D);
        CHECK_INT(bf16, 2 * 3 * D * LSI_KV_PAGE * 2);
        CHECK_INT(lsi_kv_page_bytes(LSI_KV_Q8, 3, D) * 32, bf16 * 17);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_shapes),      TEST(test_windows),           TEST(test_rows_that_see_nothing),
        TEST(test_odd_sizes),   TEST(test_deep_and_in_place), TEST(test_decode_equals_block),
        TEST(test_few_as_many), TEST(test_page_bytes),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

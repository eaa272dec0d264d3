/*
 * Gradients of attention against the formula in double, finite differences of a softmax in double and of
 * the forward op; blocks of rows, windows, documents, and sameness for every number of threads.
 */
#include "test.h"

#include "ops/backward.h"

#include "base/numbers.h"

#include <math.h>

#define MAX_PAGES 20

struct problem {
    enum lsi_kv_format format;
    size_t T, H, G, D;
    size_t slot0, s0, window;
    size_t n_slots, ld; /* ld: row stride of q, dout, out */
    float *q, *dout;    /* [T][ld] */
    double *k, *v;      /* what the cache holds, [n_slots][G * D] */
    void *pages[MAX_PAGES];
};

/* Gradients; row 0 of dk and dv is slot s0. */
struct gradients {
    float *dq, *dk, *dv; /* [T][ld], [n_slots - s0][G * D] */
};

static const ls_alloc *heap(void)
{
    return lsi_alloc_or_default(NULL);
}

static void *zeros(size_t n, size_t size)
{
    void *p = lsi_calloc(heap(), n + 1, size);
    REQUIRE(p != NULL);
    return p;
}

static void release(void *p, size_t n, size_t size)
{
    lsi_free(heap(), p, (n + 1) * size);
}

static struct lsi_exec make_exec(int n_threads, enum lsi_compute compute, size_t scratch)
{
    struct lsi_exec ex;
    ls_error err;
    REQUIRE_OK(lsi_exec_init_cpu(&ex, n_threads, compute, heap(), &err), err);
    REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch, &err), err);
    return ex;
}

static size_t kv_numbers(const struct problem *p)
{
    return p->n_slots * p->G * p->D;
}

static float scale_of(const struct problem *p)
{
    return 1.0f / sqrtf((float)p->D);
}

static struct lsi_kv_view view(const struct problem *p)
{
    const struct lsi_kv_view kv = { .format = p->format, .G = p->G, .D = p->D, .pages = (void **)p->pages };
    return kv;
}

/* Store p->k and p->v, which then become what the cache keeps of them. */
static void store(struct problem *p)
{
    const size_t n = kv_numbers(p);
    float *k = zeros(n, sizeof *k), *v = zeros(n, sizeof *v);
    struct lsi_exec ex = make_exec(1, LSI_COMPUTE_FP32, 0);
    const struct lsi_kv_view kv = view(p);

    for (size_t i = 0; i < n; i++) {
        k[i] = (float)p->k[i];
        v[i] = (float)p->v[i];
        const bool bf16 = p->format == LSI_KV_BF16;
        p->k[i] = (double)(bf16 ? lsi_bf16_to_f32(lsi_bf16_from_f32(k[i])) : k[i]);
        p->v[i] = (double)(bf16 ? lsi_bf16_to_f32(lsi_bf16_from_f32(v[i])) : v[i]);
    }
    lsi_op_kv_store(&ex, &kv, 0, k, p->G * p->D, v, p->G * p->D, p->n_slots);
    lsi_exec_fini(&ex);
    release(k, n, sizeof *k);
    release(v, n, sizeof *v);
}

static void make_problem(struct problem *p, uint64_t seed)
{
    struct lsi_rng rng;

    lsi_rng_init(&rng, seed);
    p->n_slots = p->slot0 + p->T;
    p->ld = p->H * p->D + 3;
    REQUIRE(p->n_slots <= MAX_PAGES * LSI_KV_PAGE);
    p->q = zeros(p->T * p->ld, sizeof *p->q);
    p->dout = zeros(p->T * p->ld, sizeof *p->dout);
    p->k = zeros(kv_numbers(p), sizeof *p->k);
    p->v = zeros(kv_numbers(p), sizeof *p->v);
    for (size_t i = 0; i < p->T * p->ld; i++) {
        p->q[i] = (float)lsi_rng_normal(&rng);
        p->dout[i] = (float)lsi_rng_normal(&rng);
    }
    for (size_t i = 0; i < kv_numbers(p); i++) {
        p->k[i] = lsi_rng_normal(&rng);
        p->v[i] = lsi_rng_normal(&rng);
    }
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++) {
        p->pages[i] = lsi_calloc(heap(), 1, lsi_kv_page_bytes(p->format, p->G, p->D));
        REQUIRE(p->pages[i] != NULL);
    }
    store(p);
}

static void free_problem(struct problem *p)
{
    for (size_t i = 0; i < lsi_div_up(p->n_slots, LSI_KV_PAGE); i++)
        lsi_free(heap(), p->pages[i], lsi_kv_page_bytes(p->format, p->G, p->D));
    release(p->q, p->T * p->ld, sizeof *p->q);
    release(p->dout, p->T * p->ld, sizeof *p->dout);
    release(p->k, kv_numbers(p), sizeof *p->k);
    release(p->v, kv_numbers(p), sizeof *p->v);
}

static struct gradients make_gradients(const struct problem *p)
{
    const struct gradients g = {
        .dq = zeros(p->T * p->ld, sizeof *g.dq),
        .dk = zeros(kv_numbers(p), sizeof *g.dk),
        .dv = zeros(kv_numbers(p), sizeof *g.dv),
    };
    return g;
}

static void free_gradients(const struct problem *p, struct gradients *g)
{
    release(g->dq, p->T * p->ld, sizeof *g->dq);
    release(g->dk, kv_numbers(p), sizeof *g->dk);
    release(g->dv, kv_numbers(p), sizeof *g->dv);
}

/* ---- the formula -------------------------------------------------------------------------- */

static size_t seen_from(const struct problem *p, size_t t)
{
    const size_t end = p->slot0 + t + 1;
    return p->window > 0 && end > p->window ? lsi_max_size(p->s0, end - p->window) : p->s0;
}

/* Weights and output of one row; returns the loss, sum of dout out. */
static double naive_row(const struct problem *p, const double *q, const double *k, const double *v, size_t t,
                        size_t h, double *w, double *out)
{
    const size_t D = p->D, g = h / (p->H / p->G), at = p->slot0 + t;
    double max = -INFINITY, sum = 0.0, loss = 0.0;

    for (size_t d = 0; d < D; d++)
        out[d] = 0.0;
    for (size_t s = seen_from(p, t); s <= at; s++) {
        w[s] = 0.0;
        for (size_t d = 0; d < D; d++)
            w[s] += q[t * p->ld + h * D + d] * k[(s * p->G + g) * D + d];
        w[s] *= (double)scale_of(p);
        max = fmax(max, w[s]);
    }
    for (size_t s = seen_from(p, t); s <= at; s++)
        sum += w[s] = exp(w[s] - max);
    for (size_t s = seen_from(p, t); s <= at; s++) {
        w[s] /= sum;
        for (size_t d = 0; d < D; d++)
            out[d] += w[s] * v[(s * p->G + g) * D + d];
    }
    for (size_t d = 0; d < D; d++)
        loss += (double)p->dout[t * p->ld + h * D + d] * out[d];
    return loss;
}

static double *doubles(const float *x, size_t n)
{
    double *y = zeros(n, sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

static double naive_loss(const struct problem *p, const double *q, const double *k, const double *v)
{
    double w[MAX_PAGES * LSI_KV_PAGE], out[256], loss = 0.0;

    for (size_t t = 0; t < p->T; t++)
        for (size_t h = 0; h < p->H; h++)
            loss += naive_row(p, q, k, v, t, h, w, out);
    return loss;
}

struct exact {
    double *dq, *dk, *dv;
};

static struct exact naive_backward(const struct problem *p)
{
    const size_t D = p->D, n_q = p->T * p->ld;
    const double scale = (double)scale_of(p);
    double w[MAX_PAGES * LSI_KV_PAGE], out[256], *q = doubles(p->q, n_q);
    const struct exact x = { zeros(n_q, sizeof *x.dq), zeros(kv_numbers(p), sizeof *x.dk),
                             zeros(kv_numbers(p), sizeof *x.dv) };

    for (size_t t = 0; t < p->T; t++)
        for (size_t h = 0; h < p->H; h++) {
            const size_t row = t * p->ld + h * D, g = h / (p->H / p->G);
            const double e = naive_row(p, q, p->k, p->v, t, h, w, out);
            for (size_t s = seen_from(p, t); s <= p->slot0 + t; s++) {
                const size_t at = (s * p->G + g) * D, to = ((s - p->s0) * p->G + g) * D;
                double dp = 0.0;
                for (size_t d = 0; d < D; d++)
                    dp += (double)p->dout[row + d] * p->v[at + d];
                for (size_t d = 0; d < D; d++) {
                    x.dq[row + d] += scale * w[s] * (dp - e) * p->k[at + d];
                    x.dk[to + d] += scale * w[s] * (dp - e) * q[row + d];
                    x.dv[to + d] += w[s] * (double)p->dout[row + d];
                }
            }
        }
    release(q, n_q, sizeof *q);
    return x;
}

static void free_exact(const struct problem *p, struct exact *x)
{
    release(x->dq, p->T * p->ld, sizeof *x->dq);
    release(x->dk, kv_numbers(p), sizeof *x->dk);
    release(x->dv, kv_numbers(p), sizeof *x->dv);
}

/* ---- the op --------------------------------------------------------------------------------- */

/* Forward of all rows, then backward in blocks of rows, the last first. */
static void run(const struct problem *p, int n_threads, enum lsi_compute compute, size_t block,
                struct gradients *g)
{
    const size_t n_q = p->T * p->ld, n_lse = p->T * p->H, largest = lsi_min_size(block, p->T);
    float *out = zeros(n_q, sizeof *out), *lse = zeros(n_lse, sizeof *lse);
    struct lsi_exec ex = make_exec(n_threads, compute, 0);
    const size_t forward = lsi_op_attention_scratch(&ex, p->T, p->H, p->G, p->D);
    const size_t backward =
        lsi_op_attention_backward_scratch(&ex, largest, p->H, p->G, p->D, p->n_slots - p->s0);
    const struct lsi_attention f = { .q = p->q,
                                     .out = out,
                                     .lse = lse,
                                     .ldq = p->ld,
                                     .ldo = p->ld,
                                     .T = p->T,
                                     .H = p->H,
                                     .slot0 = p->slot0,
                                     .s0 = p->s0,
                                     .window = p->window,
                                     .scale = scale_of(p),
                                     .kv = view(p) };
    ls_error err;

    lsi_exec_fini(&ex);
    ex = make_exec(n_threads, compute, forward);
    lsi_op_attention(&ex, &f);
    lsi_exec_fini(&ex);
    ex = make_exec(n_threads, compute, 0);
    REQUIRE_OK(lsi_exec_set_scratch(&ex, backward, &err), err);
    for (size_t end = p->T, t; end > 0; end = t) {
        t = (end - 1) / block * block;
        float *dq = g->dq + t * p->ld;
        /* dq takes the place of dout. */
        memcpy(dq, p->dout + t * p->ld, (end - t) * p->ld * sizeof *dq);
        const struct lsi_attention_backward a = { .q = p->q + t * p->ld,
                                                  .out = out + t * p->ld,
                                                  .dout = dq,
                                                  .lse = lse + t * p->H,
                                                  .dq = dq,
                                                  .dk = g->dk,
                                                  .dv = g->dv,
                                                  .ldq = p->ld,
                                                  .ldo = p->ld,
                                                  .lddo = p->ld,
                                                  .lddq = p->ld,
                                                  .T = end - t,
                                                  .H = p->H,
                                                  .slot0 = p->slot0 + t,
                                                  .s0 = p->s0,
                                                  .slot_base = p->s0,
                                                  .window = p->window,
                                                  .scale = scale_of(p),
                                                  .kv = view(p) };
        lsi_op_attention_backward(&ex, &a);
    }
    lsi_exec_fini(&ex);
    release(out, n_q, sizeof *out);
    release(lse, n_lse, sizeof *lse);
}

/* Rounded operands leave errors of the size of the tensor in every element. Terms are around 1, though their
 * sum may be small, or zero for rows that see a single slot. */
static void check_tensor(const float *got, const double *want, size_t n, size_t n_cols, size_t ld, double tol,
                         double tol_norm, const char *what)
{
    double most = 1.0, error = 0.0, norm = 0.04 * (double)n, difference = 0.0;

    for (size_t r = 0; r * ld < n; r++)
        for (size_t i = r * ld; i < r * ld + n_cols; i++) {
            const double d = (double)got[i] - want[i];
            most = fmax(most, fabs(want[i]));
            error = fmax(error, fabs(d));
            norm += want[i] * want[i];
            difference += d * d;
        }
    if (!(error <= tol * most) || !(sqrt(difference) <= tol_norm * sqrt(norm))) {
        test_fail_(__FILE__, __LINE__);
        fprintf(stderr, "%s: error %.3g of %.3g, norm of error %.3g of %.3g\n", what, error, most,
                sqrt(difference), sqrt(norm));
    }
}

static void check_gradients(const struct problem *p, const struct gradients *g, const struct exact *x,
                            enum lsi_compute compute)
{
    const bool rounded = compute != LSI_COMPUTE_FP32 && p->format == LSI_KV_BF16;
    const double tol = rounded ? 1.0 / 64 : 3e-6, tol_norm = rounded ? 6e-3 : 2e-6;
    const size_t width = p->G * p->D, n_kv = (p->n_slots - p->s0) * width;

    check_tensor(g->dq, x->dq, p->T * p->ld, p->H * p->D, p->ld, tol, tol_norm, "dq");
    check_tensor(g->dk, x->dk, n_kv, width, width, tol, tol_norm, "dk");
    check_tensor(g->dv, x->dv, n_kv, width, width, tol, tol_norm, "dv");
}

static void run_problem(struct problem p, uint64_t seed)
{
    make_problem(&p, seed);
    struct exact x = naive_backward(&p);
    for (int compute = LSI_COMPUTE_AUTO; compute <= LSI_COMPUTE_FP32; compute++) {
        struct gradients first = make_gradients(&p);
        run(&p, 1, (enum lsi_compute)compute, p.T, &first);
        check_gradients(&p, &first, &x, (enum lsi_compute)compute);
        for (int threads = 2; threads <= 3; threads++) {
            struct gradients g = make_gradients(&p);
            run(&p, threads, (enum lsi_compute)compute, p.T, &g);
            CHECK(memcmp(g.dq, first.dq, p.T * p.ld * sizeof *g.dq) == 0);
            CHECK(memcmp(g.dk, first.dk, kv_numbers(&p) * sizeof *g.dk) == 0);
            CHECK(memcmp(g.dv, first.dv, kv_numbers(&p) * sizeof *g.dv) == 0);
            free_gradients(&p, &g);
        }
        struct gradients blocks = make_gradients(&p);
        run(&p, 2, (enum lsi_compute)compute, 1 + p.T / 3, &blocks);
        check_gradients(&p, &blocks, &x, (enum lsi_compute)compute);
        free_gradients(&p, &blocks);
        free_gradients(&p, &first);
    }
    if (test_failures > 0)
        fprintf(stderr, "  format %d T %zu H %zu G %zu D %zu slot0 %zu s0 %zu window %zu\n", (int)p.format,
                p.T, p.H, p.G, p.D, p.slot0, p.s0, p.window);
    REQUIRE(test_failures == 0);
    free_exact(&p, &x);
    free_problem(&p);
}

static struct problem problem(enum lsi_kv_format format, size_t T, size_t H, size_t G, size_t D, size_t slot0,
                              size_t s0, size_t window)
{
    const struct problem p = {
        .format = format, .T = T, .H = H, .G = G, .D = D, .slot0 = slot0, .s0 = s0, .window = window
    };
    return p;
}

static void test_whole_sequences(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_F32; format++) {
        run_problem(problem((enum lsi_kv_format)format, 1, 2, 1, 8, 0, 0, 0), 1);
        run_problem(problem((enum lsi_kv_format)format, 33, 3, 3, 10, 0, 0, 0), 2);
        run_problem(problem((enum lsi_kv_format)format, 300, 6, 2, 16, 0, 0, 0), 3);
        run_problem(problem((enum lsi_kv_format)format, 129, 4, 1, 80, 0, 0, 0), 4);
    }
}

static void test_blocks_of_a_long_sequence(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_F32; format++) {
        run_problem(problem((enum lsi_kv_format)format, 64, 9, 3, 64, 700, 0, 0), 5);
        run_problem(problem((enum lsi_kv_format)format, 5, 4, 2, 32, 4000, 0, 0), 6);
        run_problem(problem((enum lsi_kv_format)format, 1, 2, 1, 256, 511, 0, 0), 7);
        run_problem(problem((enum lsi_kv_format)format, 600, 2, 1, 16, 50, 0, 0), 8);
    }
}

static void test_documents(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_F32; format++) {
        run_problem(problem((enum lsi_kv_format)format, 70, 6, 3, 16, 317, 317, 0), 9);
        run_problem(problem((enum lsi_kv_format)format, 40, 4, 2, 48, 600, 251, 0), 10);
        run_problem(problem((enum lsi_kv_format)format, 1, 4, 2, 64, 300, 300, 0), 11);
    }
}

static void test_windows(void)
{
    for (int format = LSI_KV_BF16; format <= LSI_KV_F32; format++) {
        run_problem(problem((enum lsi_kv_format)format, 100, 4, 1, 32, 450, 0, 1), 12);
        run_problem(problem((enum lsi_kv_format)format, 130, 6, 2, 16, 500, 0, 37), 13);
        run_problem(problem((enum lsi_kv_format)format, 400, 3, 1, 16, 0, 0, 256), 14);
        run_problem(problem((enum lsi_kv_format)format, 90, 4, 2, 16, 800, 700, 128), 15);
    }
}

/* ---- finite differences -------------------------------------------------------------------- */

static double difference(const struct problem *p, double *q, double *k, double *v, double *x)
{
    const double h = 1e-5, before = *x;
    *x = before + h;
    const double up = naive_loss(p, q, k, v);
    *x = before - h;
    const double down = naive_loss(p, q, k, v);
    *x = before;
    return (up - down) / (2.0 * h);
}

static void test_finite_differences(void)
{
    struct problem p = problem(LSI_KV_F32, 9, 4, 2, 16, 11, 2, 12);
    struct lsi_rng rng;

    make_problem(&p, 20);
    lsi_rng_init(&rng, 21);
    struct gradients g = make_gradients(&p);
    run(&p, 2, LSI_COMPUTE_FP32, 4, &g);
    double *q = doubles(p.q, p.T * p.ld);
    for (int i = 0; i < 200; i++) {
        const size_t row = lsi_rng_below(&rng, p.T), col = lsi_rng_below(&rng, p.H * p.D);
        CHECK_NEAR(g.dq[row * p.ld + col], difference(&p, q, p.k, p.v, q + row * p.ld + col), 2e-5);
        const size_t at = lsi_rng_below(&rng, (p.n_slots - p.s0) * p.G * p.D), shift = p.s0 * p.G * p.D;
        CHECK_NEAR(g.dk[at], difference(&p, q, p.k, p.v, p.k + at + shift), 2e-5);
        CHECK_NEAR(g.dv[at], difference(&p, q, p.k, p.v, p.v + at + shift), 2e-5);
    }
    release(q, p.T * p.ld, sizeof *q);
    free_gradients(&p, &g);
    free_problem(&p);
}

/* The loss that the forward op gives. */
static double op_loss(const struct problem *p)
{
    const size_t n_q = p->T * p->ld;
    float *out = zeros(n_q, sizeof *out);
    struct lsi_exec ex = make_exec(1, LSI_COMPUTE_FP32, 0);
    const size_t scratch = lsi_op_attention_scratch(&ex, p->T, p->H, p->G, p->D);
    const struct lsi_attention f = { .q = p->q,
                                     .out = out,
                                     .ldq = p->ld,
                                     .ldo = p->ld,
                                     .T = p->T,
                                     .H = p->H,
                                     .slot0 = p->slot0,
                                     .scale = scale_of(p),
                                     .kv = view(p) };
    ls_error err;
    double loss = 0.0;

    REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch, &err), err);
    lsi_op_attention(&ex, &f);
    lsi_exec_fini(&ex);
    for (size_t t = 0; t < p->T; t++)
        for (size_t i = t * p->ld; i < t * p->ld + p->H * p->D; i++)
            loss += (double)p->dout[i] * (double)out[i];
    release(out, n_q, sizeof *out);
    return loss;
}

/* The forward op along a random direction of queries, keys and values at once. */
static void test_direction_of_forward(void)
{
    struct problem p = problem(LSI_KV_F32, 40, 6, 2, 32, 290, 0, 0);
    struct lsi_rng rng;
    const float h = 0x1p-7f;
    double along = 0.0, loss[2];

    make_problem(&p, 22);
    struct gradients g = make_gradients(&p);
    run(&p, 2, LSI_COMPUTE_FP32, p.T, &g);
    for (int side = 0; side < 2; side++) {
        struct problem moved = p;
        make_problem(&moved, 22);
        lsi_rng_init(&rng, 23);
        along = 0.0;
        for (size_t t = 0; t < p.T; t++)
            for (size_t i = t * p.ld; i < t * p.ld + p.H * p.D; i++) {
                const float u = (float)lsi_rng_normal(&rng);
                moved.q[i] += side ? h * u : -h * u;
                along += (double)u * (double)g.dq[i];
            }
        for (size_t i = 0; i < kv_numbers(&p); i++) {
            const double u = lsi_rng_normal(&rng), w = lsi_rng_normal(&rng);
            moved.k[i] += side ? (double)h * u : (double)-h * u;
            moved.v[i] += side ? (double)h * w : (double)-h * w;
            along += u * (double)g.dk[i] + w * (double)g.dv[i];
        }
        store(&moved);
        loss[side] = op_loss(&moved);
        free_problem(&moved);
    }
    /* The third derivative is a few times the first, h^2 is 6e-5. */
    CHECK_NEAR((loss[1] - loss[0]) / (2.0 * (double)h), along, 2e-3 * fabs(along) + 0.05);
    free_gradients(&p, &g);
    free_problem(&p);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_whole_sequences), TEST(test_blocks_of_a_long_sequence), TEST(test_documents),
        TEST(test_windows),         TEST(test_finite_differences),        TEST(test_direction_of_forward),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

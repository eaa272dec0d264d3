/*
 * Rate of attention of a block of rows at the end of a sequence, forward and backward, as training calls it:
 *
 *     cc -O2 -Isrc -Iinclude bench/attention_rate.c build/release/src/liblongspan.a -fopenmp -ldnnl -lm \
 *         -o attention_rate
 *     ./attention_rate [ROWS [SLOTS [HEADS [KV_HEADS [D [THREADS]]]]]]
 *
 * Default: 512 rows of 8192 slots, 9 and 3 heads of 64. Prints one line for each format of the cache:
 * milliseconds (least of several runs) and GFLOP/s, 4 and 10 FLOP for each row, slot that it sees, head
 * and dimension.
 */
#include "ops/backward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define RUNS    7
#define SECONDS 3.0 /* no more runs after */

struct bench {
    size_t T, S, H, G, D;
    int n_threads;
    struct lsi_exec ex;
    void **pages;
    struct lsi_kv_view kv; /* of pages */
    float *q, *out, *dout, *lse, *dq, *dk, *dv;
};

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "attention_rate: out of memory\n");
        exit(1);
    }
    return p;
}

static void must_ok(ls_status st, const ls_error *err)
{
    if (st != LS_OK) {
        fprintf(stderr, "attention_rate: %s\n", err->text);
        exit(1);
    }
}

static float *normals(struct lsi_rng *rng, size_t n)
{
    float *x = must(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = (float)lsi_rng_normal(rng);
    return x;
}

static void forward(struct bench *b)
{
    const struct lsi_attention a = {
        .q = b->q,
        .out = b->out,
        .lse = b->lse,
        .ldq = b->H * b->D,
        .ldo = b->H * b->D,
        .T = b->T,
        .H = b->H,
        .slot0 = b->S - b->T,
        .scale = 1.0f / sqrtf((float)b->D),
        .kv = b->kv,
    };
    lsi_op_attention(&b->ex, &a);
}

static void backward(struct bench *b)
{
    const struct lsi_attention_backward a = {
        .q = b->q,
        .out = b->out,
        .dout = b->dout,
        .lse = b->lse,
        .dq = b->dq,
        .dk = b->dk,
        .dv = b->dv,
        .ldq = b->H * b->D,
        .ldo = b->H * b->D,
        .lddo = b->H * b->D,
        .lddq = b->H * b->D,
        .T = b->T,
        .H = b->H,
        .slot0 = b->S - b->T,
        .scale = 1.0f / sqrtf((float)b->D),
        .kv = b->kv,
    };
    lsi_op_attention_backward(&b->ex, &a);
}

static double least_seconds(struct bench *b, void (*call)(struct bench *))
{
    const double start = lsi_now();
    double least = 1e9;

    for (int i = 0; i < RUNS && (i < 2 || lsi_now() - start < SECONDS); i++) {
        const double before = lsi_now();
        call(b);
        least = fmin(least, lsi_now() - before);
    }
    return least;
}

static void fill(struct bench *b, enum lsi_kv_format format)
{
    const size_t n_pages = lsi_div_up(b->S, LSI_KV_PAGE), n_kv = b->S * b->G * b->D, n = b->T * b->H * b->D;
    struct lsi_rng rng;

    lsi_rng_init(&rng, 1);
    b->pages = must(calloc(n_pages, sizeof *b->pages));
    b->kv = (struct lsi_kv_view){ .format = format, .G = b->G, .D = b->D, .pages = b->pages };
    for (size_t i = 0; i < n_pages; i++)
        b->pages[i] = must(lsi_pages_alloc(lsi_kv_page_bytes(format, b->G, b->D)));
    float *kv = normals(&rng, n_kv);
    lsi_op_kv_store(&b->ex, &b->kv, 0, kv, b->G * b->D, kv, b->G * b->D, b->S);
    free(kv);
    b->q = normals(&rng, n);
    b->dout = normals(&rng, n);
    b->out = must(calloc(n, sizeof(float)));
    b->dq = must(calloc(n, sizeof(float)));
    b->lse = must(calloc(b->T * b->H, sizeof(float)));
    b->dk = must(calloc(n_kv, sizeof(float)));
    b->dv = must(calloc(n_kv, sizeof(float)));
}

static void empty(struct bench *b)
{
    for (size_t i = 0; i < lsi_div_up(b->S, LSI_KV_PAGE); i++)
        lsi_pages_free(b->pages[i], lsi_kv_page_bytes(b->kv.format, b->G, b->D));
    free(b->pages);
    free(b->q);
    free(b->dout);
    free(b->out);
    free(b->dq);
    free(b->lse);
    free(b->dk);
    free(b->dv);
}

static void measure(struct bench *b, enum lsi_kv_format format, const char *name)
{
    const double seen = (double)b->T * ((double)(b->S - b->T) + ((double)b->T + 1.0) / 2.0);
    const double products = seen * (double)(b->H * b->D) * 1e-9;
    ls_error err;

    must_ok(lsi_exec_init_cpu(&b->ex, b->n_threads, LSI_COMPUTE_AUTO, lsi_alloc_or_default(NULL), &err),
            &err);
    const size_t scratch =
        lsi_max_size(lsi_op_attention_scratch(&b->ex, b->T, b->H, b->G, b->D),
                     lsi_op_attention_backward_scratch(&b->ex, b->T, b->H, b->G, b->D, b->S));
    must_ok(lsi_exec_set_scratch(&b->ex, scratch, &err), &err);
    fill(b, format);
    const double f = least_seconds(b, forward), r = least_seconds(b, backward);
    printf("%s: %zu rows of %zu slots, H %zu G %zu D %zu, %d threads: forward %.2f ms %.1f GFLOP/s, "
           "backward %.2f ms %.1f GFLOP/s, scratch %.1f MB\n",
           name, b->T, b->S, b->H, b->G, b->D, b->ex.n_threads, 1e3 * f, 4.0 * products / f, 1e3 * r,
           10.0 * products / r, (double)scratch * 1e-6);
    empty(b);
    lsi_exec_fini(&b->ex);
}

static size_t argument(int argc, char **argv, int i, size_t otherwise)
{
    return argc > i ? strtoul(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    struct bench b = { .T = argument(argc, argv, 1, 512) };

    b.S = lsi_max_size(argument(argc, argv, 2, 8192), b.T);
    b.H = argument(argc, argv, 3, 9);
    b.G = argument(argc, argv, 4, 3);
    b.D = argument(argc, argv, 5, 64);
    b.n_threads = (int)argument(argc, argv, 6, 0);
    measure(&b, LSI_KV_BF16, "bf16");
    measure(&b, LSI_KV_F32, "f32");
    return 0;
}

/* The runner of the kernel tests; see kt.h. */
#include "kt.h"

#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_BUFFERS 512
#define CANARY      0xa5
#define FILL_BYTE   0xff /* four of them are a NaN */

struct buffer {
    unsigned char *map; /* [guard page | slack, data, slack | guard page] */
    size_t map_bytes;
    unsigned char *data;
    size_t bytes;
};

struct op {
    const char *name;
    void (*check)(struct kt *);
};

struct impl {
    const char *op, *isa;
    uint64_t bits;
    kt_any_fn *fn;
};

struct kt {
    const struct op *op;
    const struct impl *impl; /* what kt_next returned */
    size_t next;             /* index in impls of the first not yet looked at */
    uint64_t cpu, seed, rng;
    struct buffer buffers[MAX_BUFFERS];
    size_t n_buffers;
    bool bench;
    double bench_start, bench_best, bench_total;
    size_t bench_runs;
};

static const struct op ops[] = {
#define LSK_OP(name, type) { #name, check_##name },
#include "kernels/ops.def"
#undef LSK_OP
};

static const struct impl impls[] = {
#define LSK_IMPL(name, isa, bits) { #name, #isa, (uint64_t)(bits), (kt_any_fn *)lsk_##name##_##isa },
#include "kernels/kernels.def"
#undef LSK_IMPL
};

void kt_fail(struct kt *k, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "FAIL %s %s (--seed %llu): ", k->op->name, k->impl ? k->impl->isa : "-",
            (unsigned long long)k->seed);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* ---- implementations ----------------------------------------------------- */

const char *kt_op(const struct kt *k)
{
    return k->op->name;
}
const char *kt_isa(const struct kt *k)
{
    return k->impl->isa;
}

kt_any_fn *kt_ref(struct kt *k)
{
    for (size_t i = 0; i < KT_LEN(impls); i++)
        if (strcmp(impls[i].op, k->op->name) == 0)
            return impls[i].fn;
    kt_fail(k, "has no row in kernels.def");
}

/* splitmix64: every implementation starts from the same point. */
static void seed_for_op(struct kt *k)
{
    k->rng = k->seed;
    for (const char *s = k->op->name; *s; s++)
        k->rng = k->rng * 31 + (unsigned char)*s;
}

kt_any_fn *kt_next(struct kt *k)
{
    kt_reset(k);
    seed_for_op(k);
    while (k->next < KT_LEN(impls)) {
        const struct impl *im = &impls[k->next++];
        if (strcmp(im->op, k->op->name) == 0 && (k->cpu & im->bits) == im->bits) {
            k->impl = im;
            return im->fn;
        }
    }
    return NULL;
}

/* ---- numbers ---------------------------------------------------------------- */

uint64_t kt_rand(struct kt *k)
{
    uint64_t z = k->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t kt_below(struct kt *k, size_t n)
{
    return (size_t)(kt_rand(k) % n);
}

static double uniform(struct kt *k)
{
    return (double)(kt_rand(k) >> 11) * 0x1p-53;
}

double kt_normal(struct kt *k)
{
    const double u = 1.0 - uniform(k), v = uniform(k);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static float draw(struct kt *k, enum kt_fill fill)
{
    switch (fill) {
    case KT_NORMAL:
        return (float)kt_normal(k);
    case KT_UNIFORM:
        return (float)(2.0 * uniform(k) - 1.0);
    case KT_WIDE:
        return (float)((2.0 * uniform(k) - 1.0) * exp2(40.0 * uniform(k) - 20.0));
    case KT_SPARSE:
        return kt_below(k, 10) == 0 ? (float)kt_normal(k) : 0.0f;
    default:
        return 0.0f;
    }
}

/* ---- buffers ------------------------------------------------------------------- */

/*
 * The data ends at the upper guard page (two of three times) or begins after the
 * lower one; the slack on the other side holds canaries.
 */
void *kt_bytes(struct kt *k, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t body = (bytes + page - 1) / page * page + page;
    struct buffer *b = &k->buffers[k->n_buffers];

    if (k->n_buffers == MAX_BUFFERS)
        kt_fail(k, "more than %d buffers: call kt_reset", MAX_BUFFERS);
    b->map_bytes = body + 2 * page;
    b->map = mmap(NULL, b->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED || mprotect(b->map + page, body, PROT_READ | PROT_WRITE) != 0)
        kt_fail(k, "no memory for a buffer of %zu bytes", bytes);
    k->n_buffers++;
    b->bytes = bytes;
    b->data = b->map + page + (kt_below(k, 3) == 0 ? 0 : body - bytes);
    memset(b->map + page, CANARY, body);
    memset(b->data, FILL_BYTE, bytes);
    return b->data;
}

void kt_reset(struct kt *k)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < k->n_buffers; i++) {
        const struct buffer *b = &k->buffers[i];
        const unsigned char *end = b->map + b->map_bytes - page;

        for (const unsigned char *p = b->map + page; p < end; p++) {
            if (p == b->data) {
                p += b->bytes;
                if (p == end)
                    break;
            }
            if (*p != CANARY)
                kt_fail(k, "wrote outside of a buffer of %zu bytes, at offset %td", b->bytes, p - b->data);
        }
        munmap(b->map, b->map_bytes);
    }
    k->n_buffers = 0;
}

float *kt_f32(struct kt *k, size_t n, enum kt_fill fill)
{
    float *x = kt_bytes(k, n * sizeof *x);
    if (fill != KT_FILL)
        for (size_t i = 0; i < n; i++)
            x[i] = draw(k, fill);
    return x;
}

uint16_t *kt_bf16(struct kt *k, size_t n, enum kt_fill fill)
{
    uint16_t *x = kt_bytes(k, n * sizeof *x);
    if (fill != KT_FILL)
        for (size_t i = 0; i < n; i++)
            x[i] = lsi_bf16_from_f32(draw(k, fill));
    return x;
}

int8_t *kt_i8(struct kt *k, size_t n)
{
    int8_t *x = kt_bytes(k, n);
    for (size_t i = 0; i < n; i++)
        x[i] = (int8_t)((int)kt_below(k, 255) - 127);
    return x;
}

void *kt_copy(struct kt *k, const void *src, size_t bytes)
{
    void *p = kt_bytes(k, bytes);
    if (bytes)
        memcpy(p, src, bytes);
    return p;
}

/* ---- comparisons ------------------------------------------------------------------ */

void kt_equal(struct kt *k, const void *got, const void *want, size_t bytes, const char *what)
{
    const unsigned char *g = got, *w = want;
    for (size_t i = 0; i < bytes; i++)
        if (g[i] != w[i])
            kt_fail(k, "%s: byte %zu of %zu is %02x, expected %02x", what, i, bytes, g[i], w[i]);
}

static bool near_enough(double g, double w, double bound)
{
    if (isnan(g) || isnan(w))
        return isnan(g) && isnan(w);
    if (isinf(g) || isinf(w))
        return g == w;
    return fabs(g - w) <= bound;
}

void kt_near(struct kt *k, const float *got, const float *want, size_t n, double abs, double rel,
             const char *what)
{
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i], w = (double)want[i];
        if (!near_enough(g, w, abs + rel * fabs(w)))
            kt_fail(k, "%s[%zu of %zu] is %.9g, expected %.9g (differs by %.3g)", what, i, n, g, w, g - w);
    }
}

void kt_within(struct kt *k, double got, double want, double bound, const char *what, size_t index)
{
    if (!near_enough(got, want, bound))
        kt_fail(k, "%s[%zu] is %.9g, expected %.9g +- %.3g (differs by %.3g)", what, index, got, want, bound,
                got - want);
}

/* ---- timing -------------------------------------------------------------------------- */

/* Time of this thread alone: other programs on the machine take theirs out of the wall clock's. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool kt_bench_wanted(const struct kt *k)
{
    return k->bench;
}

/* Called before every run and once after the last. */
bool kt_bench_more(struct kt *k)
{
    const double t = now();
    if (k->bench_runs > 0) {
        const double took = t - k->bench_start;
        k->bench_best = k->bench_runs == 1 || took < k->bench_best ? took : k->bench_best;
        k->bench_total += took;
    }
    if (k->bench_runs >= 5 && (k->bench_total > 0.05 || k->bench_runs >= 20000))
        return false;
    k->bench_runs++;
    k->bench_start = now();
    return true;
}

void kt_bench_report(struct kt *k, const char *label, double bytes, double flops)
{
    printf("%-24s %-8s %-28s %10.2f us %8.2f GB/s", k->op->name, k->impl->isa, label, 1e6 * k->bench_best,
           1e-9 * bytes / k->bench_best);
    if (flops > 0.0)
        printf(" %8.2f GFLOP/s", 1e-9 * flops / k->bench_best);
    putchar('\n');
    fflush(stdout);
    k->bench_runs = 0;
    k->bench_total = 0.0;
}

/* ---- main ------------------------------------------------------------------------------- */

static int usage(void)
{
    fputs("usage: kernel_tests [--seed N] [--kernel PATTERN] [--cpu ref|avx2|avx512|native] [--list] "
          "[--bench]\n",
          stderr);
    return 2;
}

static void list(const struct kt *k, const char *pattern)
{
    for (size_t i = 0; i < KT_LEN(impls); i++) {
        const bool usable = (k->cpu & impls[i].bits) == impls[i].bits;
        if (fnmatch(pattern, impls[i].op, 0) == 0)
            printf("%-24s %-8s %s\n", impls[i].op, impls[i].isa, usable ? "usable" : "not on this processor");
    }
}

/* Every row of kernels.def names an operation of ops.def (else it does not compile); each needs a check. */
static int run(struct kt *k, const char *pattern)
{
    size_t n_run = 0, n_missing = 0;
    for (size_t i = 0; i < KT_LEN(ops); i++) {
        if (fnmatch(pattern, ops[i].name, 0) != 0)
            continue;
        if (!ops[i].check) {
            fprintf(stderr, "FAIL %s: no function check_%s\n", ops[i].name, ops[i].name);
            n_missing++;
            continue;
        }
        k->op = &ops[i];
        k->impl = NULL;
        k->next = 0;
        ops[i].check(k);
        kt_reset(k);
        n_run++;
    }
    fprintf(stderr, "%zu operations checked, %zu without a check\n", n_run, n_missing);
    return n_missing > 0 || n_run == 0;
}

int main(int argc, char **argv)
{
    static struct kt k;
    const char *pattern = "*";
    bool want_list = false;

    k.seed = 1;
    k.cpu = lsk_cpu_features();
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        uint64_t mask;

        if (strcmp(argv[i], "--list") == 0) {
            want_list = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            k.bench = true;
        } else if (value && strcmp(argv[i], "--seed") == 0) {
            k.seed = strtoull(argv[++i], NULL, 10);
        } else if (value && strcmp(argv[i], "--kernel") == 0) {
            pattern = argv[++i];
        } else if (value && strcmp(argv[i], "--cpu") == 0 && lsk_cpu_mask_from_name(value, &mask)) {
            k.cpu = lsk_cpu_detect() & mask;
            i++;
        } else {
            return usage();
        }
    }
    if (want_list) {
        list(&k, pattern);
        return 0;
    }
    fprintf(stderr, "seed %llu, processor features %#llx\n", (unsigned long long)k.seed,
            (unsigned long long)k.cpu);
    return run(&k, pattern);
}

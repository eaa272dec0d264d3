/*
 * Bounds of keys on the CPU: bytes rounded outwards (lsk_bounds_most of kernels/kv_layout.h), because a step
 * of decoding reads them all.
 */
#include "backend/cpu_attention.h"

#include <string.h>

#define ALONE_ELEMENTS 65536 /* numbers that one thread goes through faster than two wake up */
#define ALONE_CHOICES  4096  /* the same of numbers that are chosen from */

size_t lsi_bounds_page_bytes(size_t G, size_t D)
{
    return G * lsk_bounds_head_bytes(D);
}

/* ---- storing ------------------------------------------------------------------------- */

struct store {
    const struct lsi_bounds *b;
    const struct lsi_kv_view *kv;
    lsk_kv_load_fn *load;
    lsk_kivi_load_fn *unpack; /* NULL: load does it */
    size_t first, n_runs;
};

/* The least whole number n with n scale >= x, |x| <= 127 scale. What is no number has the largest. */
static int8_t steps_up(float x, float scale)
{
    const float n = ceilf(x / scale), up = n * scale < x ? n + 1.0f : n;
    return !(up < 127.0f) ? 127 : up > -127.0f ? (int8_t)up : -127;
}

static void put_bytes(unsigned char *head, size_t D, size_t run, const float *lo, const float *hi)
{
    unsigned char *most = head + lsk_bounds_most(D, run, 0);
    float greatest = 0.0f;

    for (size_t d = 0; d < D; d++)
        greatest = fmaxf(greatest, fmaxf(-lo[d], hi[d]));
    /* The number after the quotient: 127 of it are not below the greatest. Of zeros a scale is not 0. */
    const float scale = nextafterf(fmaxf(greatest / 127.0f, 0x1p-120f), INFINITY);
    memcpy(head + lsk_bounds_scale(D, run), &scale, sizeof scale);
    for (size_t d = 0; d < D; d++) {
        unsigned char *at = most + lsk_bounds_most(D, 0, d);
        at[0] = (unsigned char)steps_up(hi[d], scale);
        at[4 * LSK_TILE] = (unsigned char)steps_up(-lo[d], scale);
    }
}

static void store_run(const struct store *s, size_t g, size_t run)
{
    const size_t D = s->kv->D, begin = run * s->b->run, end = begin + s->b->run;
    unsigned char *bounds = (unsigned char *)s->b->pages[run / LSI_KV_PAGE] + g * lsk_bounds_head_bytes(D);
    float key[LSK_ROPE_MAX * 2], lo[LSK_ROPE_MAX * 2], hi[LSK_ROPE_MAX * 2];

    for (size_t slot = begin; slot < end; slot++) {
        const unsigned char *head = (const unsigned char *)s->kv->pages[slot / LSI_KV_PAGE] +
                                    g * lsi_cpu_head_bytes(s->kv->format, D);
        if (s->unpack)
            s->unpack(head, lsi_cpu_kivi(s->kv->format), D, slot % LSI_KV_PAGE, key, NULL);
        else
            s->load(head, D, slot % LSI_KV_PAGE, key, NULL);
        for (size_t d = 0; d < D; d++) {
            lo[d] = slot == begin || key[d] < lo[d] ? key[d] : lo[d];
            hi[d] = slot == begin || key[d] > hi[d] ? key[d] : hi[d];
        }
    }
    put_bytes(bounds, D, run % LSI_KV_PAGE, lo, hi);
}

/* The runs of one tile, which share cache lines. */
static void store_task(void *ctx, size_t task, int thread)
{
    const struct store *s = ctx;
    const size_t tile = s->first / LSK_TILE + task;
    const size_t begin = lsi_max_size(s->first, tile * LSK_TILE);
    const size_t end = lsi_min_size(s->first + s->n_runs, (tile + 1) * LSK_TILE);

    (void)thread;
    for (size_t run = begin; run < end; run++)
        for (size_t g = 0; g < s->kv->G; g++)
            store_run(s, g, run);
}

void lsi_cpu_bounds_store(struct lsi_exec *ex, const struct lsi_bounds *b, const struct lsi_kv_view *kv,
                          size_t first, size_t n_runs)
{
    struct store s = { .b = b, .kv = kv, .first = first, .n_runs = n_runs };
    const bool alone = n_runs * b->run * b->G * b->D <= ALONE_ELEMENTS;

    const bool packed = lsi_kv_kind(kv->format) == LSI_KV_KIVI;
    LSI_ASSERT(b->D <= 2 * LSK_ROPE_MAX);
    if (n_runs == 0)
        return;
    s.load = lsi_cpu_kv_load_kernel(lsi_cpu_kernels(ex), kv->format);
    s.unpack = packed ? lsi_cpu_kernels(ex)->kivi_load : NULL;
    lsi_parallel(alone ? NULL : ex->pool, (first + n_runs - 1) / LSK_TILE - first / LSK_TILE + 1, store_task,
                 &s);
}

/* ---- scores ----------------------------------------------------------------------------- */

struct scores {
    const struct lsi_bounds *b;
    lsk_attn_bounds_fn *kernel;
    lsk_exp2_columns_fn *exp2_columns;
    size_t H, group, n_runs;
    float *q;     /* [H][D] */
    float *block; /* [pages][G][group][LSI_KV_PAGE] */
    float *most;  /* [pages][H]: the greatest score of a head in a page */
    float *base;  /* [H]: and of all */
    float *sums;  /* [G][ld]: where scores of heads together go */
    size_t ld;
};

static void layout(struct lsi_arena *s, struct scores *c, size_t H, size_t D, size_t n_runs)
{
    c->q = lsi_arena_take(s, H * D, sizeof(float));
    c->block = lsi_arena_take(s, lsi_div_up(n_runs, LSI_KV_PAGE) * H, LSI_KV_PAGE * sizeof(float));
    c->most = lsi_arena_take(s, lsi_div_up(n_runs, LSI_KV_PAGE) * H, sizeof(float));
    c->base = lsi_arena_take(s, H, sizeof(float));
}

size_t lsi_cpu_bounds_scores_scratch(const struct lsi_exec *ex, size_t H, size_t D, size_t n_runs)
{
    struct lsi_arena count = { 0 };
    struct scores c;

    (void)ex;
    layout(&count, &c, H, D, n_runs);
    return count.used;
}

/* Scores of the page's runs with the query heads of kv head g: [group][LSI_KV_PAGE]. */
static float *block_of(const struct scores *c, size_t page, size_t g)
{
    return c->block + (page * c->H + g * c->group) * LSI_KV_PAGE;
}

/* Runs of a page that are meant. */
static size_t runs_of(const struct scores *c, size_t page)
{
    return lsi_min_size(LSI_KV_PAGE, c->n_runs - page * LSI_KV_PAGE);
}

static float greatest(const float *x, size_t n)
{
    float lane[16];
    size_t i = 0;

    for (size_t j = 0; j < LSI_LEN(lane); j++)
        lane[j] = -INFINITY;
    for (; i + LSI_LEN(lane) <= n; i += LSI_LEN(lane)) /* lanes do not wait for each other */
        for (size_t j = 0; j < LSI_LEN(lane); j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++)
        lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    for (size_t j = 1; j < LSI_LEN(lane); j++)
        lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

/* Tasks are heads in the order in which they lie in memory. */
static const unsigned char *head_of(const struct scores *c, size_t task)
{
    const struct lsi_bounds *b = c->b;
    return (const unsigned char *)b->pages[task / b->G] + task % b->G * lsk_bounds_head_bytes(b->D);
}

static void score_task(void *ctx, size_t task, int thread)
{
    const struct scores *c = ctx;
    const size_t G = c->b->G, page = task / G, g = task % G;
    const bool last = task + 1 == lsi_div_up(c->n_runs, LSI_KV_PAGE) * G;
    const struct lsk_attn_scores k = {
        .head = head_of(c, task),
        .next = last ? NULL : head_of(c, task + 1),
        .D = c->b->D,
        .n_rows = c->group,
        .q = c->q + g * c->group * c->b->D,
        .to = lsi_round_up(runs_of(c, page), LSK_SCORES_STEP),
        .z = block_of(c, page, g),
    };

    (void)thread;
    c->kernel(&k);
    for (size_t j = 0; j < c->group; j++)
        c->most[page * c->H + g * c->group + j] = greatest(k.z + j * LSI_KV_PAGE, runs_of(c, page));
}

static void copy_row(const struct scores *c, float *to, size_t h)
{
    for (size_t page = 0; page * LSI_KV_PAGE < c->n_runs; page++)
        memcpy(to + page * LSI_KV_PAGE, block_of(c, page, h / c->group) + h % c->group * LSI_KV_PAGE,
               runs_of(c, page) * sizeof *to);
}

/* sum over heads of 2^(u - max u), of the runs of a page. */
static void pseudo_task(void *ctx, size_t task, int thread)
{
    const struct scores *c = ctx;
    const size_t page = task / c->b->G, g = task % c->b->G;
    float *to = c->sums + g * c->ld + page * LSI_KV_PAGE;

    (void)thread;
    memset(to, 0, runs_of(c, page) * sizeof *to);
    c->exp2_columns(to, block_of(c, page, g), LSI_KV_PAGE, c->base + g * c->group, c->group,
                    runs_of(c, page));
}

/* The greatest score of each head. */
static void set_base(const struct scores *c)
{
    for (size_t h = 0; h < c->H; h++) {
        c->base[h] = c->most[h];
        for (size_t page = 1; page * LSI_KV_PAGE < c->n_runs; page++)
            c->base[h] = fmaxf(c->base[h], c->most[page * c->H + h]);
    }
}

static void combine(const struct scores *c, float *to, size_t g, enum lsi_bounds_set set)
{
    for (size_t i = 0; i < c->n_runs; i++) {
        const float *z = block_of(c, i / LSI_KV_PAGE, g) + i % LSI_KV_PAGE;
        to[i] = z[0];
        for (size_t j = 1; j < c->group; j++) {
            const float u = z[j * LSI_KV_PAGE];
            to[i] = set == LSI_BOUNDS_SUM ? to[i] + u : u > to[i] ? u : to[i];
        }
    }
}

void lsi_cpu_bounds_scores(struct lsi_exec *ex, const struct lsi_bounds *b, const float *q, size_t H,
                           float scale, size_t n_runs, enum lsi_bounds_set set, float *scores, size_t ld)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const double unit = set == LSI_BOUNDS_PSEUDO ? LSI_LOG2_E : 1.0;
    struct scores c = { .b = b, .H = H, .group = H / b->G, .n_runs = n_runs };

    c.exp2_columns = kernels->exp2_columns;
    c.sums = scores;
    c.ld = ld;

    if (n_runs == 0)
        return;
    layout(&ex->scratch, &c, H, b->D, n_runs);
    LSI_ASSERT(!ex->scratch.failed);
    c.kernel = kernels->attn_bounds;
    for (size_t i = 0; i < H * b->D; i++)
        c.q[i] = (float)((double)scale * unit) * q[i];
    struct lsi_pool *pool = n_runs * 2 * b->D * b->G <= ALONE_ELEMENTS ? NULL : ex->pool;
    const size_t n_tasks = lsi_div_up(n_runs, LSI_KV_PAGE) * b->G;
    lsi_parallel_split(pool, n_tasks, score_task, &c);
    switch (set) {
    case LSI_BOUNDS_EACH:
        for (size_t h = 0; h < H; h++)
            copy_row(&c, scores + h * ld, h);
        break;
    case LSI_BOUNDS_PSEUDO:
        set_base(&c);
        lsi_parallel_split(pool, n_tasks, pseudo_task, &c);
        break;
    default:
        for (size_t g = 0; g < b->G; g++)
            combine(&c, scores + g * ld, g, set);
        break;
    }
}

/* ---- choosing ---------------------------------------------------------------------------- */

struct choices {
    lsk_choose_fn *kernel;
    uint32_t *best; /* [rows][k] */
    float *scores;  /* [rows][n] */
    size_t n, k;
};

static void choose_task(void *ctx, size_t row, int thread)
{
    const struct choices *c = ctx;

    (void)thread;
    c->kernel(c->best + row * c->k, c->scores + row * c->n, c->n, c->k);
}

void lsi_cpu_choose(struct lsi_exec *ex, uint32_t *best, float *scores, size_t n_rows, size_t n, size_t k)
{
    struct choices c = {
        .kernel = lsi_cpu_kernels(ex)->choose, .best = best, .scores = scores, .n = n, .k = k
    };

    LSI_ASSERT(k >= 1 && k <= n && n <= UINT32_MAX);
    lsi_parallel(n_rows * n <= ALONE_CHOICES ? NULL : ex->pool, n_rows, choose_task, &c);
}

/*
 * Bounds of keys on the CPU. The bounds of a run lie in memory like a key of 2 D dimensions,
 *
 *     lo[0] hi[0] lo[1] hi[1] ...
 *
 * in the tiles of kernels/kv_layout.h, because the best that a run can reach is then the product of such a
 * key with the query of 2 D dimensions
 *
 *     min(q[0], 0) max(q[0], 0) min(q[1], 0) max(q[1], 0) ...
 *
 * so that scores of runs are scores of keys, and the same kernels serve.
 */
#include "backend/cpu_attention.h"

#include <string.h>

#define ALONE_ELEMENTS 65536 /* numbers that one thread goes through faster than two wake up */

static bool is_f32(const struct lsi_bounds *b)
{
    return b->format == LSI_KV_F32;
}

static size_t head_bytes(enum lsi_kv_format format, size_t D)
{
    return LSI_KV_PAGE * 2 * D * (format == LSI_KV_F32 ? sizeof(float) : sizeof(lsi_bf16));
}

size_t lsi_bounds_page_bytes(enum lsi_kv_format format, size_t G, size_t D)
{
    return G * head_bytes(format, D);
}

/* ---- storing ------------------------------------------------------------------------- */

struct store {
    const struct lsi_bounds *b;
    const struct lsi_kv_view *kv;
    lsk_kv_load_fn *load;
    lsk_kivi_load_fn *unpack; /* NULL: load does it */
    size_t first, n_runs;
};

/* The next bf16 number that is not above x, or not below. */
static lsi_bf16 round_outwards(float x, bool up)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const bool negative = bits >> 31, exact = (bits & 0xffff) == 0;
    return (lsi_bf16)((bits >> 16) + (!exact && negative != up ? 1 : 0));
}

static void put(const struct store *s, size_t g, size_t run, size_t d, float lo, float hi)
{
    const size_t D = s->b->D, at = run % LSI_KV_PAGE;
    unsigned char *head = (unsigned char *)s->b->pages[run / LSI_KV_PAGE] + g * head_bytes(s->b->format, D);
    if (is_f32(s->b)) {
        ((float *)(void *)head)[lsk_kv_f32_k(2 * D, at, 2 * d)] = lo;
        ((float *)(void *)head)[lsk_kv_f32_k(2 * D, at, 2 * d + 1)] = hi;
    } else {
        ((lsi_bf16 *)(void *)head)[lsk_kv_bf16_k(2 * D, at, 2 * d)] = round_outwards(lo, false);
        ((lsi_bf16 *)(void *)head)[lsk_kv_bf16_k(2 * D, at, 2 * d + 1)] = round_outwards(hi, true);
    }
}

static void store_run(const struct store *s, size_t g, size_t run)
{
    const size_t D = s->kv->D, begin = run * s->b->run, end = begin + s->b->run;
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
    for (size_t d = 0; d < D; d++)
        put(s, g, run, d, lo[d], hi[d]);
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
    LSI_ASSERT((packed || b->format == kv->format) && b->D <= 2 * LSK_ROPE_MAX);
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
    lsk_attn_scores_fn *kernel;
    size_t H, group, n_runs;
    float *q;     /* [H][2 D] */
    float *block; /* [pages][G][group][LSI_KV_PAGE] */
    float *base;  /* [H]: the greatest score of a head */
};

static void layout(struct lsi_arena *s, struct scores *c, size_t H, size_t D, size_t n_runs)
{
    c->q = lsi_arena_take(s, H * 2 * D, sizeof(float));
    c->block = lsi_arena_take(s, lsi_div_up(n_runs, LSI_KV_PAGE) * H, LSI_KV_PAGE * sizeof(float));
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

static void score_task(void *ctx, size_t task, int thread)
{
    const struct scores *c = ctx;
    const struct lsi_bounds *b = c->b;
    const size_t page = task / b->G, g = task % b->G;
    const struct lsk_attn_scores k = {
        .head = (const unsigned char *)b->pages[page] + g * head_bytes(b->format, b->D),
        .D = 2 * b->D,
        .n_rows = c->group,
        .q = c->q + g * c->group * 2 * b->D,
        .to = lsi_round_up(runs_of(c, page), LSK_SCORES_STEP),
        .z = block_of(c, page, g),
    };

    (void)thread;
    c->kernel(&k);
}

static void copy_row(const struct scores *c, float *to, size_t h)
{
    for (size_t page = 0; page * LSI_KV_PAGE < c->n_runs; page++)
        memcpy(to + page * LSI_KV_PAGE, block_of(c, page, h / c->group) + h % c->group * LSI_KV_PAGE,
               runs_of(c, page) * sizeof *to);
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

/* sum over heads of 2^(u - max u). */
static void add_pseudo(const struct lsk_table *kernels, const struct scores *c, float *to, size_t g)
{
    float *base = c->base + g * c->group;

    for (size_t j = 0; j < c->group; j++) {
        base[j] = -INFINITY;
        for (size_t page = 0; page * LSI_KV_PAGE < c->n_runs; page++)
            base[j] = fmaxf(base[j], greatest(block_of(c, page, g) + j * LSI_KV_PAGE, runs_of(c, page)));
    }
    memset(to, 0, c->n_runs * sizeof *to);
    for (size_t page = 0; page * LSI_KV_PAGE < c->n_runs; page++)
        kernels->exp2_columns(to + page * LSI_KV_PAGE, block_of(c, page, g), LSI_KV_PAGE, base, c->group,
                              runs_of(c, page));
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

    if (n_runs == 0)
        return;
    layout(&ex->scratch, &c, H, b->D, n_runs);
    LSI_ASSERT(!ex->scratch.failed);
    c.kernel = is_f32(b) ? kernels->attn_scores_f32 : kernels->attn_scores_bf16;
    for (size_t i = 0; i < H * b->D; i++) {
        const float x = (float)((double)scale * unit) * q[i];
        c.q[2 * i] = x < 0.0f ? x : 0.0f;
        c.q[2 * i + 1] = x > 0.0f ? x : 0.0f;
    }
    lsi_parallel(n_runs * 2 * b->D * b->G <= ALONE_ELEMENTS ? NULL : ex->pool,
                 lsi_div_up(n_runs, LSI_KV_PAGE) * b->G, score_task, &c);
    if (set == LSI_BOUNDS_EACH) {
        for (size_t h = 0; h < H; h++)
            copy_row(&c, scores + h * ld, h);
        return;
    }
    for (size_t g = 0; g < b->G; g++) {
        if (set == LSI_BOUNDS_PSEUDO)
            add_pseudo(kernels, &c, scores + g * ld, g);
        else
            combine(&c, scores + g * ld, g, set);
    }
}

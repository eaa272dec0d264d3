/*
 * Scores of attention once more, on the CPU: as they are, or as column sums of probabilities.
 *
 * A task is a page of a kv head, which it goes through with all rows that see it, tile by tile of rows in
 * ascending order: no two tasks write to one place, and the order of every sum is a function of the
 * shape.
 *
 *     rows   t0 ..  | z = q k | -> scores, or 2^(z - lse) summed down the columns
 */
#include "backend/cpu_attention.h"

#include <string.h>

#define TILE_ROWS      32    /* of scores that stay in the first-level cache */
#define MANY_TOKENS    9     /* from here on operands may be rounded, as attention rounds them */
#define ALONE_ELEMENTS 65536 /* key elements that one thread goes through faster than two wake up */

struct workspace {
    float *q, *z, *base;
    void *page; /* a head of a page in bf16, for kernels that do not read the stored format */
};

struct call {
    const struct lsi_attention *a;
    float *to; /* sums [G][ld] or scores [T][H][ld] */
    size_t ld;
    double unit; /* of scores */
    bool sum;
    const struct lsk_table *kernels;
    lsk_attn_scores_fn *scores;
    lsk_kv_q8_to_bf16_fn *convert; /* NULL: the kernel reads pages as they are stored */
    struct lsk_kivi kivi;
    size_t group, head_bytes, tile_tokens, first_page;
    struct workspace *spaces; /* [n_threads] */
};

/* Rows t0 .. t0 + n_tokens - 1 and the part of a page that some of them see. */
struct tile {
    size_t g, slot, t0, n_tokens; /* slot: the page's first */
    size_t from, to;              /* multiples of LSK_SCORES_STEP */
};

static size_t tokens_per_tile(size_t group)
{
    return lsi_max_size(1, TILE_ROWS / group);
}

static void layout(struct lsi_arena *s, struct call *c, int n_threads, size_t group, size_t D)
{
    const size_t rows = lsi_round_up(tokens_per_tile(group) * group, LSK_ATTN_ROW_PAD);

    c->spaces = lsi_arena_take(s, (size_t)n_threads, sizeof *c->spaces);
    for (int i = 0; i < n_threads; i++) {
        const struct workspace w = {
            .q = lsi_arena_take(s, rows * D, sizeof(float)),
            .z = lsi_arena_take(s, rows * LSI_KV_PAGE, sizeof(float)),
            .base = lsi_arena_take(s, rows, sizeof(float)),
            .page = lsi_arena_take(s, 1, lsk_kv_bf16_head_bytes(D)),
        };
        if (c->spaces)
            c->spaces[i] = w;
    }
}

size_t lsi_cpu_attention_sums_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D)
{
    struct lsi_arena count = { 0 };
    struct call c = { 0 };

    (void)T;
    layout(&count, &c, ex->n_threads, H / G, D);
    return count.used;
}

/* What row t sees of the page: lo <= slot < hi, from its start. */
static void limits(const struct call *c, const struct tile *tile, size_t t, size_t *lo, size_t *hi)
{
    *lo = lsi_cpu_within(lsi_cpu_seen_from(c->a, t), tile->slot);
    *hi = lsi_max_size(*lo, lsi_cpu_within(lsi_cpu_seen_to(c->a, t), tile->slot));
}

/* False when no row of the tile sees anything of the page. */
static bool set_extent(const struct call *c, struct tile *tile)
{
    size_t lo, hi, last_lo, last_hi;

    limits(c, tile, tile->t0, &lo, &hi);
    limits(c, tile, tile->t0 + tile->n_tokens - 1, &last_lo, &last_hi);
    tile->from = lo / LSK_SCORES_STEP * LSK_SCORES_STEP;
    tile->to = lsi_round_up(last_hi, LSK_SCORES_STEP);
    return lo < last_hi;
}

static void compute_scores(const struct call *c, const struct tile *tile, const struct workspace *w,
                           const void *head)
{
    const struct lsi_attention *a = c->a;
    const size_t n = c->group * a->kv.D, n_rows = tile->n_tokens * c->group;
    const size_t padded = lsi_round_up(n_rows, LSK_ATTN_ROW_PAD);
    const struct lsk_attn_scores k = {
        .head = head,
        .D = a->kv.D,
        .n_rows = n_rows,
        .q = w->q,
        .from = tile->from,
        .to = tile->to,
        .z = w->z,
        .kivi = c->kivi,
    };

    lsi_cpu_pack_queries(w->q, a->q + tile->t0 * a->ldq + tile->g * n, a->ldq, tile->n_tokens, n,
                         (double)a->scale * c->unit);
    memset(w->q + n_rows * a->kv.D, 0, (padded - n_rows) * a->kv.D * sizeof(float));
    c->scores(&k);
}

static void hide(float *z, size_t from, size_t to)
{
    for (size_t s = from; s < to; s++)
        z[s] = -INFINITY;
}

/* sums[s] of the page += probabilities of the tile's rows. */
static void add_probabilities(const struct call *c, const struct tile *tile, const struct workspace *w,
                              float *sums)
{
    const struct lsi_attention *a = c->a;
    const size_t n_rows = tile->n_tokens * c->group;

    for (size_t r = 0; r < n_rows; r++) {
        const size_t t = tile->t0 + r / c->group;
        const float lse = a->lse[t * a->H + tile->g * c->group + r % c->group];
        float *z = w->z + r * LSI_KV_PAGE;
        size_t lo, hi;
        limits(c, tile, t, &lo, &hi);
        hide(z, tile->from, lsi_min_size(lo, tile->to));
        hide(z, lsi_max_size(hi, tile->from), tile->to);
        w->base[r] = lse == -INFINITY ? INFINITY : (float)((double)lse * LSI_LOG2_E);
    }
    c->kernels->exp2_columns(sums + tile->from, w->z + tile->from, LSI_KV_PAGE, w->base, n_rows,
                             tile->to - tile->from);
}

/* Scores of the tile's rows to where they belong; slots that a row does not see are -inf already. */
static void write_scores(const struct call *c, const struct tile *tile, const struct workspace *w)
{
    const struct lsi_attention *a = c->a;

    for (size_t r = 0; r < tile->n_tokens * c->group; r++) {
        const size_t t = tile->t0 + r / c->group, h = tile->g * c->group + r % c->group;
        size_t lo, hi;
        limits(c, tile, t, &lo, &hi);
        memcpy(c->to + (t * a->H + h) * c->ld + tile->slot + lo, w->z + r * LSI_KV_PAGE + lo,
               (hi - lo) * sizeof(float));
    }
}

static void page_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct lsi_attention *a = c->a;
    const struct workspace *w = &c->spaces[thread];
    const size_t page = c->first_page + task / a->kv.G;
    struct tile tile = { .g = task % a->kv.G, .slot = page * LSI_KV_PAGE };
    const void *head = (const unsigned char *)a->kv.pages[page] + tile.g * c->head_bytes;
    float sums[LSI_KV_PAGE] = { 0 };

    if (c->convert) {
        c->convert(w->page, head, a->kv.D);
        head = w->page;
    }
    for (tile.t0 = 0; tile.t0 < a->T; tile.t0 += tile.n_tokens) {
        tile.n_tokens = lsi_min_size(c->tile_tokens, a->T - tile.t0);
        if (!set_extent(c, &tile))
            continue;
        compute_scores(c, &tile, w, head);
        if (c->sum)
            add_probabilities(c, &tile, w, sums);
        else
            write_scores(c, &tile, w);
    }
    if (c->sum)
        for (size_t s = 0; s < lsi_min_size(LSI_KV_PAGE, a->slot0 + a->T - tile.slot); s++)
            c->to[tile.g * c->ld + tile.slot + s] += sums[s];
}

/* As attention does: rounded operands for many rows, unless everything is to be fp32. */
static void choose_kernel(const struct lsi_exec *ex, struct call *c)
{
    const bool round = c->sum && ex->compute != LSI_COMPUTE_FP32 && c->a->T >= MANY_TOKENS;

    switch (lsi_kv_kind(c->a->kv.format)) {
    case LSI_KV_F32:
        c->scores = c->kernels->attn_scores_f32;
        break;
    case LSI_KV_BF16:
        c->scores = round ? c->kernels->attn_scores_bf16_round : c->kernels->attn_scores_bf16;
        break;
    case LSI_KV_Q8:
        c->scores = c->kernels->attn_scores_q8;
        if (round && c->a->kv.D % LSK_TILE == 0) {
            c->convert = c->kernels->kv_q8_to_bf16;
            c->scores = c->kernels->attn_scores_bf16_round;
        }
        break;
    case LSI_KV_KIVI:
        c->kivi = lsi_cpu_kivi(c->a->kv.format);
        c->scores = c->kernels->attn_scores_kivi;
        break;
    }
}

static void run(struct lsi_exec *ex, struct call *c)
{
    const struct lsi_attention *a = c->a;
    const size_t begin = lsi_cpu_seen_from(a, 0), end = lsi_cpu_seen_to(a, a->T - 1);

    LSI_ASSERT(a->kv.G > 0 && a->H % a->kv.G == 0 && a->kv.D % 2 == 0);
    c->kernels = lsi_cpu_kernels(ex);
    c->group = a->H / a->kv.G;
    c->head_bytes = lsi_cpu_head_bytes(a->kv.format, a->kv.D);
    c->tile_tokens = tokens_per_tile(c->group);
    choose_kernel(ex, c);
    layout(&ex->scratch, c, ex->n_threads, c->group, a->kv.D);
    LSI_ASSERT(!ex->scratch.failed);
    if (begin >= end)
        return;
    c->first_page = begin / LSI_KV_PAGE;
    const size_t n_pages = lsi_div_up(end, LSI_KV_PAGE) - c->first_page;
    const bool alone = (end - begin) * a->kv.G * a->kv.D * a->T <= ALONE_ELEMENTS;
    lsi_parallel(alone ? NULL : ex->pool, n_pages * a->kv.G, page_task, c);
}

void lsi_cpu_attention_sums(struct lsi_exec *ex, const struct lsi_attention *a, float *sums, size_t ld)
{
    struct call c = { .a = a, .to = sums, .ld = ld, .unit = LSI_LOG2_E, .sum = true };

    LSI_ASSERT(a->lse && ld >= a->slot0 + a->T);
    if (a->T > 0)
        run(ex, &c);
}

void lsi_cpu_attention_scores(struct lsi_exec *ex, const struct lsi_attention *a, float *scores, size_t ld)
{
    struct call c = { .a = a, .to = scores, .ld = ld, .unit = 1.0 };

    LSI_ASSERT(ld >= a->slot0 + a->T);
    for (size_t r = 0; r < a->T * a->H; r++)
        hide(scores + r * ld, 0, a->slot0 + a->T);
    if (a->T > 0)
        run(ex, &c);
}

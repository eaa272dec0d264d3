/*
 * Attention on the CPU. A kv head is read by the H/G query heads of its group, so the rows
 * of one kernel call are (token, head of the group) pairs: row t * (H/G) + j. Kernels
 * (kernels/attention.h) let such rows see one page; this file decides which rows, which
 * pages, and who does it.
 *
 * Few tokens (decoding): the slots are cut at fixed places, multiples of a chunk,
 *
 *     slots      | chunk 0 | chunk 1 | chunk 2 | ...
 *     kv head 0    state     state     state         a state (m, l, acc) per row,
 *     kv head 1    state     state     state         kept in scratch
 *
 * and the states of a row are merged in ascending order:
 *
 *     M = max m_c;  l = sum 2^(m_c - M) l_c;  acc = sum 2^(m_c - M) acc_c;  out = acc / l.
 *
 * Many tokens (prompts): a task is a kv head and a tile of tokens, and goes through all
 * pages that its rows see, in ascending order.
 *
 * States are a function of the problem alone, so that results are equal for every number of
 * threads.
 */
#include "backend/cpu_attention.h"

#include <string.h>

#define FEW_TOKENS       8     /* up to this many tokens slots are split between tasks */
#define MAX_CHUNKS       64    /* and into no more pieces than this */
#define TASKS_PER_THREAD 8     /* at least, when threads are to end together */
#define TILE_ELEMENTS    32768 /* rows x D of a tile: its queries and sums stay in the second-level cache */
#define TILE_ROWS        256
#define ALONE_ELEMENTS   65536 /* key elements that one thread goes through faster than two wake up */

_Static_assert(LSK_PAGE == LSI_KV_PAGE, "kernels and caches agree on the page");

size_t lsi_cpu_head_bytes(enum lsi_kv_format format, size_t D)
{
    switch (lsi_kv_kind(format)) {
    case LSI_KV_BF16:
        return lsk_kv_bf16_head_bytes(D);
    case LSI_KV_F32:
        return lsk_kv_f32_head_bytes(D);
    case LSI_KV_Q8:
        return lsk_kv_q8_head_bytes(D);
    case LSI_KV_KIVI:
        return lsk_kivi_head_bytes(lsi_cpu_kivi(format), D);
    }
    return 0;
}

size_t lsi_kv_page_bytes(enum lsi_kv_format format, size_t G, size_t D)
{
    return G * lsi_cpu_head_bytes(format, D);
}

/* ---- storing ------------------------------------------------------------------------ */

struct store {
    const struct lsi_kv_view *kv;
    lsk_kv_store_fn *store;
    const float *k, *v;
    size_t ldk, ldv;
    size_t slot0, n_rows;
};

/* The rows of one page: tasks never share a cache line. */
static void store_task(void *ctx, size_t task, int thread)
{
    const struct store *s = ctx;
    const size_t page = s->slot0 / LSI_KV_PAGE + task;
    const size_t begin = lsi_max_size(s->slot0, page * LSI_KV_PAGE);
    const size_t end = lsi_min_size(s->slot0 + s->n_rows, (page + 1) * LSI_KV_PAGE);
    const size_t D = s->kv->D, stride = lsi_cpu_head_bytes(s->kv->format, D);

    (void)thread;
    for (size_t slot = begin; slot < end; slot++) {
        const size_t t = slot - s->slot0;
        unsigned char *head = s->kv->pages[page];
        for (size_t g = 0; g < s->kv->G; g++, head += stride)
            s->store(head, D, slot % LSI_KV_PAGE, s->k + t * s->ldk + g * D, s->v + t * s->ldv + g * D);
    }
}

void lsi_cpu_kv_store(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, const float *k,
                      size_t ldk, const float *v, size_t ldv, size_t n_rows)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    struct store s = { .kv = kv, .k = k, .v = v, .ldk = ldk, .ldv = ldv, .slot0 = slot0, .n_rows = n_rows };

    LSI_ASSERT(lsi_kv_kind(kv->format) != LSI_KV_KIVI);
    if (n_rows == 0)
        return;
    s.store = kv->format == LSI_KV_BF16  ? kernels->kv_store_bf16
              : kv->format == LSI_KV_F32 ? kernels->kv_store_f32
                                         : kernels->kv_store_q8;
    lsi_parallel(n_rows <= FEW_TOKENS ? NULL : ex->pool,
                 (slot0 + n_rows - 1) / LSI_KV_PAGE - slot0 / LSI_KV_PAGE + 1, store_task, &s);
}

/* ---- what both ways share --------------------------------------------------------------- */

/* Rows of one tile on their way through the pages; arrays live in scratch. */
struct tile {
    float *q;
    struct lsi_cpu_states states;
    uint16_t *lo, *hi;
    void *page; /* a head of a page in bf16, for kernels that do not read the stored format */
};

struct call {
    const struct lsi_attention *a;
    lsk_attn_fn *attn;
    lsk_kv_q8_to_bf16_fn *convert; /* NULL: the kernel reads pages as they are stored */
    lsk_kivi_to_bf16_fn *unpack;   /* the same for packed pages */
    struct lsk_kivi kivi;
    size_t group; /* query heads per kv head */
    size_t head_bytes;
    /* few tokens */
    size_t chunk, chunk0; /* slots per chunk; number of the first chunk */
    size_t task_heads;    /* kv heads per task */
    float *q;
    struct lsi_cpu_states states;
    /* many tokens */
    size_t tile_tokens, n_tiles;
    struct tile *tiles; /* [n_threads] */
};

/* q[t][j] = queries of the group's heads, in the kernels' units. */
static void pack_queries(const struct call *c, float *q, size_t g, size_t t0, size_t n_tokens)
{
    const struct lsi_attention *a = c->a;
    const size_t n = c->group * a->kv.D;

    lsi_cpu_pack_queries(q, a->q + t0 * a->ldq + g * n, a->ldq, n_tokens, n, (double)a->scale * LSI_LOG2_E);
}

/* What the rows see of the page at `slot`, and before slot `end`. */
static void set_limits(const struct call *c, const struct tile *tile, size_t t0, size_t n_tokens, size_t slot,
                       size_t end)
{
    for (size_t t = 0; t < n_tokens; t++) {
        const uint16_t lo = lsi_cpu_within(lsi_cpu_seen_from(c->a, t0 + t), slot);
        const uint16_t hi = lsi_cpu_within(lsi_min_size(end, lsi_cpu_seen_to(c->a, t0 + t)), slot);
        for (size_t r = t * c->group; r < (t + 1) * c->group; r++) {
            tile->lo[r] = lo;
            tile->hi[r] = hi;
        }
    }
}

/* Let the tokens t0 .. t0 + n_tokens - 1 see slots first .. end - 1 of kv head g. `after`: what will be
 * read then, or NULL. */
static void see_slots(const struct call *c, const struct tile *tile, size_t g, size_t t0, size_t n_tokens,
                      size_t first, size_t end, const void *after)
{
    const struct lsi_attention *a = c->a;
    struct lsk_attn k = { .D = a->kv.D, .n_rows = n_tokens * c->group, .q = tile->q };

    k.kivi = c->kivi;
    k.m = tile->states.m;
    k.l = tile->states.l;
    k.acc = tile->states.acc;
    k.lo = tile->lo;
    k.hi = tile->hi;
    bool all_before = false;
    for (size_t page = first / LSI_KV_PAGE; page * LSI_KV_PAGE < end; page++) {
        const size_t slot = page * LSI_KV_PAGE;
        const bool more = slot + LSI_KV_PAGE < end;
        /* Between the edges every row sees every slot of every page. */
        const bool all = slot + LSI_KV_PAGE <= lsi_min_size(end, lsi_cpu_seen_to(a, t0)) &&
                         lsi_cpu_seen_from(a, t0 + n_tokens - 1) <= slot;
        if (!all || !all_before)
            set_limits(c, tile, t0, n_tokens, slot, end);
        all_before = all;
        k.head = (const unsigned char *)a->kv.pages[page] + g * c->head_bytes;
        k.seen = a->seen ? a->seen + g * a->ld_seen + page * LSK_ATTN_TILES : NULL;
        k.next = more ? (const unsigned char *)a->kv.pages[page + 1] + g * c->head_bytes : after;
        if (c->convert)
            c->convert(tile->page, k.head, a->kv.D);
        else if (c->unpack)
            c->unpack(tile->page, k.head, c->kivi, a->kv.D);
        if (c->convert || c->unpack)
            k.head = tile->page;
        c->attn(&k);
    }
}

/* The result of a row of kv head g from state number i. */
static void finish_row(const struct call *c, const struct lsi_cpu_states *states, size_t i, size_t t,
                       size_t h)
{
    const struct lsi_attention *a = c->a;

    lsi_cpu_states_finish(states, i, a->kv.D, a->out + t * a->ldo + h * a->kv.D,
                          a->lse ? a->lse + t * a->H + h : NULL);
}

/* ---- few tokens -------------------------------------------------------------------------- */

static void layout_few(struct lsi_arena *s, struct call *c, int n_threads, size_t T, size_t H, size_t D)
{
    const size_t states = (size_t)MAX_CHUNKS * T * H;

    c->q = lsi_arena_take(s, T * H * D, sizeof(float));
    c->states.m = lsi_arena_take(s, states, sizeof(float));
    c->states.l = lsi_arena_take(s, states, sizeof(float));
    c->states.acc = lsi_arena_take(s, states * D, sizeof(float));
    c->tiles = lsi_arena_take(s, (size_t)n_threads, sizeof *c->tiles);
    for (int i = 0; i < n_threads; i++) {
        const struct tile tile = {
            .lo = lsi_arena_take(s, T * H, sizeof(uint16_t)),
            .hi = lsi_arena_take(s, T * H, sizeof(uint16_t)),
        };
        if (c->tiles)
            c->tiles[i] = tile;
    }
}

/* First slot of chunk number i (from 0) that is looked at. */
static size_t chunk_begin(const struct call *c, size_t i)
{
    return lsi_max_size((c->chunk0 + i) * c->chunk, lsi_cpu_seen_from(c->a, 0));
}

/* Where chunk number i, kv head g leaves its states: row (i * G + g) * R of the arrays, R rows. */
static struct tile chunk_state(const struct call *c, size_t i, size_t g, int thread)
{
    const struct lsi_attention *a = c->a;
    const size_t D = a->kv.D, R = a->T * c->group, first = (i * a->kv.G + g) * R;
    struct tile tile = c->tiles[thread];

    tile.q = c->q + g * R * D;
    tile.states.m = c->states.m + first;
    tile.states.l = c->states.l + first;
    tile.states.acc = c->states.acc + first * D;
    return tile;
}

static const void *head_of(const struct call *c, size_t slot, size_t g)
{
    return (const unsigned char *)c->a->kv.pages[slot / LSI_KV_PAGE] + g * c->head_bytes;
}

/*
 * A task is c->task_heads kv heads of one chunk, page by page and in a page head by head, as they lie
 * in memory. A thread's next task is nearly always the one that follows.
 */
static void chunk_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct lsi_attention *a = c->a;
    const size_t per_chunk = a->kv.G / c->task_heads, i = task / per_chunk, R = a->T * c->group;
    const size_t first = task % per_chunk * c->task_heads, last = first + c->task_heads - 1;
    const size_t end = lsi_min_size((c->chunk0 + i + 1) * c->chunk, lsi_cpu_seen_to(a, a->T - 1));
    const size_t then = chunk_begin(c, (task + 1) / per_chunk);
    const void *after =
        then < lsi_cpu_seen_to(a, a->T - 1) ? head_of(c, then, (task + 1) % per_chunk * c->task_heads) : NULL;

    for (size_t g = first; g <= last; g++) {
        const struct tile tile = chunk_state(c, i, g, thread);
        lsi_cpu_states_reset(&tile.states, R, a->kv.D);
    }
    for (size_t slot = chunk_begin(c, i); slot < end;) {
        const size_t page_end = lsi_min_size(end, (slot / LSI_KV_PAGE + 1) * LSI_KV_PAGE);
        for (size_t g = first; g <= last; g++) {
            const struct tile tile = chunk_state(c, i, g, thread);
            const void *next = g < last         ? head_of(c, slot, g + 1)
                               : page_end < end ? head_of(c, page_end, first)
                                                : after;
            see_slots(c, &tile, g, 0, a->T, slot, page_end, next);
        }
        slot = page_end;
    }
}

static void attend_few(struct lsi_exec *ex, struct call *c)
{
    const struct lsi_attention *a = c->a;
    const size_t R = a->T * c->group, G = a->kv.G;
    const size_t begin = lsi_cpu_seen_from(a, 0), end = lsi_max_size(lsi_cpu_seen_to(a, a->T - 1), begin + 1);

    layout_few(&ex->scratch, c, ex->n_threads, a->T, a->H, a->kv.D);
    LSI_ASSERT(!ex->scratch.failed);
    /* A power of two, so that a growing cache is nearly always cut in the same places. */
    c->chunk = LSI_KV_PAGE;
    while ((end - 1) / c->chunk - begin / c->chunk >= MAX_CHUNKS)
        c->chunk *= 2;
    c->chunk0 = begin / c->chunk;
    const size_t n_chunks = (end - 1) / c->chunk - c->chunk0 + 1;

    for (size_t g = 0; g < G; g++)
        pack_queries(c, c->q + g * R * a->kv.D, g, 0, a->T);
    /* Who computes a state does not change it: tasks may depend on the number of threads here. */
    c->task_heads = n_chunks >= TASKS_PER_THREAD * (size_t)ex->n_threads ? G : 1;
    lsi_parallel_split((end - begin) * G * a->kv.D <= ALONE_ELEMENTS ? NULL : ex->pool,
                       n_chunks * (G / c->task_heads), chunk_task, c);
    for (size_t i = 0; i < G * R; i++) {
        lsi_cpu_states_merge(&c->states, i, n_chunks, G * R, a->kv.D);
        finish_row(c, &c->states, i, i % R / c->group, i / R * c->group + i % c->group);
    }
}

/* ---- many tokens --------------------------------------------------------------------------- */

/* Tokens per tile: equal tiles of at most so many rows. */
static size_t tile_tokens(size_t T, size_t group, size_t D)
{
    const size_t rows = lsi_min_size(TILE_ROWS, lsi_max_size(LSK_ATTN_ROW_PAD, TILE_ELEMENTS / D));
    const size_t most = lsi_max_size(1, rows / group);
    return lsi_div_up(T, lsi_div_up(T, most));
}

static void layout_many(struct lsi_arena *s, struct call *c, int n_threads, size_t tokens, size_t group,
                        size_t D)
{
    const size_t rows = lsi_round_up(tokens * group, LSK_ATTN_ROW_PAD);

    c->tiles = lsi_arena_take(s, (size_t)n_threads, sizeof *c->tiles);
    for (int i = 0; i < n_threads; i++) {
        const struct tile tile = {
            .q = lsi_arena_take(s, rows * D, sizeof(float)),
            .states.acc = lsi_arena_take(s, rows * D, sizeof(float)),
            .states.m = lsi_arena_take(s, rows, sizeof(float)),
            .states.l = lsi_arena_take(s, rows, sizeof(float)),
            .lo = lsi_arena_take(s, rows, sizeof(uint16_t)),
            .hi = lsi_arena_take(s, rows, sizeof(uint16_t)),
            .page = lsi_arena_take(s, 1, lsk_kv_bf16_head_bytes(D)),
        };
        if (c->tiles)
            c->tiles[i] = tile;
    }
}

static void tile_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct lsi_attention *a = c->a;
    const struct tile *tile = &c->tiles[thread];
    /* Last tiles see most: they go first, so that threads end together. */
    const size_t D = a->kv.D, g = task % a->kv.G, t0 = (c->n_tiles - 1 - task / a->kv.G) * c->tile_tokens;
    const size_t n_tokens = lsi_min_size(c->tile_tokens, a->T - t0), n_rows = n_tokens * c->group;
    const size_t padded = lsi_round_up(n_rows, LSK_ATTN_ROW_PAD);

    pack_queries(c, tile->q, g, t0, n_tokens);
    memset(tile->q + n_rows * D, 0, (padded - n_rows) * D * sizeof(float));
    lsi_cpu_states_reset(&tile->states, padded, D);
    see_slots(c, tile, g, t0, n_tokens, lsi_cpu_seen_from(a, t0), lsi_cpu_seen_to(a, t0 + n_tokens - 1),
              NULL);
    for (size_t r = 0; r < n_rows; r++)
        finish_row(c, &tile->states, r, t0 + r / c->group, g * c->group + r % c->group);
}

static void attend_many(struct lsi_exec *ex, struct call *c)
{
    const struct lsi_attention *a = c->a;

    c->tile_tokens = tile_tokens(a->T, c->group, a->kv.D);
    c->n_tiles = lsi_div_up(a->T, c->tile_tokens);
    layout_many(&ex->scratch, c, ex->n_threads, c->tile_tokens, c->group, a->kv.D);
    LSI_ASSERT(!ex->scratch.failed);
    lsi_parallel(ex->pool, c->n_tiles * a->kv.G, tile_task, c);
}

/* ---- the operation ---------------------------------------------------------------------------- */

/* Few rows wait for memory, not for arithmetic: bf16 pages get exact products there for nothing. */
static void choose_kernel(const struct lsi_exec *ex, struct call *c)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const bool round = ex->compute != LSI_COMPUTE_FP32, many = !lsi_cpu_few(ex, c->a->T, FEW_TOKENS);

    switch (lsi_kv_kind(c->a->kv.format)) {
    case LSI_KV_F32:
        c->attn = kernels->attn_f32;
        break;
    case LSI_KV_BF16:
        c->attn = round && many ? kernels->attn_bf16_round : kernels->attn_bf16;
        break;
    case LSI_KV_Q8:
        if (round && many && c->a->kv.D % LSK_TILE == 0) {
            c->convert = kernels->kv_q8_to_bf16;
            c->attn = kernels->attn_bf16_round;
        } else {
            c->attn = kernels->attn_q8;
        }
        break;
    case LSI_KV_KIVI:
        c->kivi = lsi_cpu_kivi(c->a->kv.format);
        c->attn = round ? kernels->attn_kivi_round : kernels->attn_kivi;
        if (round && many && c->a->kv.D % LSK_TILE == 0 && !c->a->seen) {
            c->unpack = kernels->kivi_to_bf16;
            c->attn = kernels->attn_bf16_round;
        }
        break;
    }
}

void lsi_cpu_attention(struct lsi_exec *ex, const struct lsi_attention *a)
{
    struct call c = { .a = a };

    LSI_ASSERT(a->kv.G > 0 && a->H % a->kv.G == 0 && a->kv.D % 2 == 0);
    LSI_ASSERT(!a->seen || lsi_kv_kind(a->kv.format) == LSI_KV_KIVI);
    if (a->T == 0)
        return;
    ex->scratch.used = 0;
    c.group = a->H / a->kv.G;
    c.head_bytes = lsi_cpu_head_bytes(a->kv.format, a->kv.D);
    choose_kernel(ex, &c);
    if (lsi_cpu_few(ex, a->T, FEW_TOKENS))
        attend_few(ex, &c);
    else
        attend_many(ex, &c);
}

size_t lsi_cpu_attention_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D)
{
    struct lsi_arena few = { 0 }, many = { 0 };
    struct call c = { 0 };

    layout_few(&few, &c, ex->n_threads, lsi_min_size(T, FEW_TOKENS), H, D);
    if (!lsi_cpu_few(ex, T, FEW_TOKENS)) {
        /* Fewer tokens may make larger tiles, but never more than the limit. */
        const size_t rows = lsi_min_size(TILE_ROWS, lsi_max_size(LSK_ATTN_ROW_PAD, TILE_ELEMENTS / D));
        layout_many(&many, &c, ex->n_threads, lsi_min_size(T, lsi_max_size(1, rows / (H / G))), H / G, D);
    }
    return lsi_max_size(few.used, many.used);
}

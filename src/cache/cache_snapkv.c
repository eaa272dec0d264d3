/*
 * SnapKV (Li et al. 2024): a prompt is compressed once, at its end, to the tokens that its last queries look
 * at.
 *
 * Prompts are attended exactly. The queries of the last `window` rows and their log-sum-exp are kept, and
 * when the prompt has ended
 *
 *     s[h][j] = sum of exp(scale q[h][i] k[j] - lse[h][i]) over the rows i of the window,
 *
 * pooled along the tokens j, summed over the query heads of a kv head, ranks the tokens before the window.
 * The best budget - window of them stay, and the window. That happens to the first prompt that leaves more
 * than the budget; what comes after it, prompts and answers, is kept whole.
 *
 * layers=pyramid (PyramidKV, Cai et al. 2024) gives lower layers more of the same total: of L layers, layer l
 *
 *     hi - l (hi - lo) / (L - 1) + window,   lo = (budget - window) / 20,  hi = 2 (budget - window) - lo.
 */
#include "cache/kept.h"

#include <math.h>
#include <string.h>

#define PYRAMID_STEEPNESS 20

enum {
    BUDGET,
    WINDOW,
    KERNEL,
    POOL,
    LAYERS
};

struct cache_snapkv {
    struct lsi_kept kept;
    bool compressed;
    float scale;    /* of the window's scores */
    size_t side;    /* of the buffers below: the window up to the last commit */
    float *rows[2]; /* [full layers][window][H*D + H] queries and lse of the prompt's last rows; NULL: not
                       wanted */
};

static struct cache_snapkv *snapkv(struct lsi_cache *c)
{
    return (struct cache_snapkv *)c;
}

static const struct lsi_cache_key keys[] = {
    { "budget", "tokens kept of a prompt, the window included", "2048", 2, 1 << 30, true, NULL },
    { "window", "last tokens of the prompt, whose queries choose", "32", 1, 4096, false, NULL },
    { "kernel", "neighbours whose scores are pooled, an odd number; 1: none; the paper's is 5", "21", 1, 255,
      false, NULL },
    { "pool", "how they are pooled", "avg", 0, 0, false, "avg|max" },
    { "layers", "pyramid: lower layers get more of the same total (PyramidKV)", "equal", 0, 0, false,
      "equal|pyramid" },
};

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    const struct lsi_cache_value *v = spec->value;
    (void)shape;
    if (v[BUDGET].percent < 0 && v[BUDGET].n <= v[WINDOW].n)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv snapkv: budget is %lld and window %lld: the budget holds the window and more",
                        (long long)v[BUDGET].n, (long long)v[WINDOW].n);
    if (spec->storage && lsi_packing_of(spec).sinks > 0)
        return lsi_fail(
            err, LS_E_INVAL,
            "--kv snapkv+kivi: first tokens may be dropped, so that none of them can be sinks: leave "
            "sinks=%zu out",
            lsi_packing_of(spec).sinks);
    if (v[KERNEL].n % 2 == 0)
        return lsi_fail(err, LS_E_INVAL, "--kv snapkv: kernel is %lld: take an odd number",
                        (long long)v[KERNEL].n);
    return LS_OK;
}

/* ---- the window ------------------------------------------------------------------------------ */

static size_t row_floats(const struct lsi_cache_shape *s)
{
    return s->H * (s->D + 1);
}

/* Layers without a sliding window, of the first n. */
static size_t full_layers(const struct lsi_cache_shape *s, size_t n)
{
    size_t full = 0;
    for (size_t l = 0; l < n; l++)
        full += lsi_cache_window(s, l) == 0;
    return full;
}

static size_t window_floats(const struct lsi_cache_shape *s, const struct lsi_cache_spec *spec)
{
    return full_layers(s, s->L) * (size_t)spec->value[WINDOW].n * row_floats(s);
}

static void free_window(struct cache_snapkv *c)
{
    const struct lsi_cache *base = &c->kept.base;
    for (size_t i = 0; i < 2; i++) {
        lsi_free(base->alloc, c->rows[i], window_floats(&base->shape, &base->spec) * sizeof(float));
        c->rows[i] = NULL;
    }
}

static bool want_window(struct cache_snapkv *c)
{
    const struct lsi_cache *base = &c->kept.base;
    for (size_t i = 0; i < 2; i++) {
        if (!c->rows[i])
            c->rows[i] = lsi_calloc(base->alloc, window_floats(&base->shape, &base->spec), sizeof(float));
        if (!c->rows[i]) {
            free_window(c);
            return false;
        }
    }
    return true;
}

static float *window_row(const struct cache_snapkv *c, size_t side, size_t layer, size_t row)
{
    const struct lsi_cache *base = &c->kept.base;
    const size_t window = lsi_kept_value(&c->kept, WINDOW);
    return c->rows[side] + (full_layers(&base->shape, layer) * window + row) * row_floats(&base->shape);
}

/* Rows of the window with n more rows of the prompt. */
static size_t window_rows(const struct cache_snapkv *c, size_t n)
{
    return lsi_min_size(lsi_kept_value(&c->kept, WINDOW), lsi_kept_prompt_rows(&c->kept) + n);
}

/* The window with the rows of a block: older ones move up, the queries of the last ones join. */
static void note_queries(struct cache_snapkv *c, size_t layer, const struct lsi_cache_query *q)
{
    const struct lsi_cache_shape *s = &c->kept.base.shape;
    const size_t had = window_rows(c, 0), has = window_rows(c, q->T), added = lsi_min_size(q->T, has);
    const size_t stay = has - added;
    if (stay > 0)
        memcpy(window_row(c, !c->side, layer, 0), window_row(c, c->side, layer, had - stay),
               stay * row_floats(s) * sizeof(float));
    for (size_t i = 0; i < added; i++)
        memcpy(window_row(c, !c->side, layer, stay + i), q->q + (q->T - added + i) * q->ldq,
               s->H * s->D * sizeof(float));
}

static void note_lse(struct cache_snapkv *c, size_t layer, const float *lse, size_t T)
{
    const struct lsi_cache_shape *s = &c->kept.base.shape;
    const size_t has = window_rows(c, T), added = lsi_min_size(T, has);
    for (size_t i = 0; i < added; i++)
        memcpy(window_row(c, !c->side, layer, has - added + i) + s->H * s->D, lse + (T - added + i) * s->H,
               s->H * sizeof(float));
}

/* ---- life --------------------------------------------------------------------------------------- */

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    const size_t kept = lsi_kept_plan(shape, spec, 0, n_tokens);
    size_t total;
    return lsi_add_size(kept, n_tokens > 0 ? 2 * window_floats(shape, spec) * sizeof(float) : 0, &total)
               ? total
               : SIZE_MAX;
}

static void free_snapkv(struct lsi_cache *cache)
{
    if (!cache)
        return;
    free_window(snapkv(cache));
    lsi_kept_free(&snapkv(cache)->kept);
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_kept *k;
    LSI_TRY(lsi_kept_create(&k, sizeof(struct cache_snapkv), 0, &lsi_cache_snapkv, shape, spec, alloc, err));
    *cache = &k->base;
    return LS_OK;
}

static ls_status fork_snapkv(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_snapkv *from = (const struct cache_snapkv *)cache;
    struct lsi_kept *k = lsi_kept_fork(&from->kept);
    struct cache_snapkv *c = (struct cache_snapkv *)k;
    if (k) {
        c->rows[0] = c->rows[1] = NULL;
        if (!from->rows[0] || want_window(c)) {
            for (size_t i = 0; i < 2 && from->rows[i]; i++)
                memcpy(c->rows[i], from->rows[i], window_floats(&cache->shape, &cache->spec) * sizeof(float));
            *copy = &k->base;
            return LS_OK;
        }
        free_snapkv(&k->base);
    }
    return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_snapkv *c = snapkv(cache);
    LSI_TRY(lsi_kept_reserve(&c->kept, n_rows, false, err));
    if (!c->compressed && !want_window(c))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the last queries of a prompt");
    return LS_OK;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_snapkv *c = snapkv(cache);
    c->kept.block = 0; /* the window before the last block is about to be overwritten */
    lsi_kept_append(&c->kept, ex, layer, k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    struct cache_snapkv *c = snapkv(cache);
    const size_t bytes = q->T * cache->shape.H * sizeof(float);
    if (c->compressed || !c->kept.reading || lsi_kept_slides(&c->kept, layer)) {
        lsi_kept_attend(&c->kept, ex, layer, q, q->lse);
        return;
    }
    float *held = lsi_kept_hold(ex, bytes), *lse = q->lse ? q->lse : held;
    c->scale = q->scale;
    note_queries(c, layer, q);
    lsi_kept_attend(&c->kept, ex, layer, q, lse);
    note_lse(c, layer, lse, q->T);
    lsi_kept_release(ex, bytes);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    struct cache_snapkv *c = snapkv(cache);
    lsi_kept_commit(&c->kept, n_rows);
    c->side = !c->side;
}

/* ---- compressing ------------------------------------------------------------------------------------ */

/* Slots that a layer keeps of a prompt of n, the window included. */
static size_t budget(const struct cache_snapkv *c, size_t layer, size_t n)
{
    const struct lsi_kept *k = &c->kept;
    const size_t window = lsi_kept_value(k, WINDOW), L = full_layers(&k->base.shape, k->base.shape.L);
    const size_t chosen = lsi_kept_value(k, BUDGET) - window;
    if (k->base.spec.value[LAYERS].n == 0 || L < 2 || n <= chosen + window)
        return chosen + window;
    size_t lo = chosen / PYRAMID_STEEPNESS, hi = 2 * chosen - lo;
    if (hi > n - window) {
        hi = n - window;
        lo = 2 * chosen - hi;
    }
    return window + lsi_max_size(1, hi - full_layers(&k->base.shape, layer) * (hi - lo) / (L - 1));
}

/* sum[j] += x pooled around j, over the n tokens; beyond the ends there are zeros (avg) or nothing (max). */
static void add_pooled(float *sum, const float *x, size_t n, size_t kernel, bool max)
{
    const size_t half = kernel / 2;
    for (size_t j = 0; j < n; j++) {
        const size_t first = j > half ? j - half : 0, end = lsi_min_size(n, j + half + 1);
        float total = 0, most = x[first];
        for (size_t i = first; i < end; i++) {
            total += x[i];
            most = fmaxf(most, x[i]);
        }
        sum[j] += max ? most : total / (float)kernel;
    }
}

/* What compressing one layer works with; laid out in memory of the exec. */
struct choice {
    float *q, *lse;   /* [window][G][D], [window][G]: one query head of each group */
    float *raw, *sum; /* [G][n] */
    uint64_t *keys;   /* [n] */
    uint32_t *slots;  /* [n] */
};

static void layout_choice(struct choice *w, struct lsi_arena *a, const struct lsi_cache_shape *s,
                          size_t window, size_t n)
{
    w->q = lsi_arena_take(a, window * s->G * s->D, sizeof(float));
    w->lse = lsi_arena_take(a, window * s->G, sizeof(float));
    w->raw = lsi_arena_take(a, s->G * n, sizeof(float));
    w->sum = lsi_arena_take(a, s->G * n, sizeof(float));
    w->keys = lsi_arena_take(a, n, sizeof(uint64_t));
    w->slots = lsi_arena_take(a, n, sizeof(uint32_t));
}

static size_t choice_bytes(const struct lsi_cache_shape *s, size_t window, size_t n)
{
    struct choice w;
    struct lsi_arena count = { 0 };
    layout_choice(&w, &count, s, window, n);
    return count.used;
}

/* Slots of a layer that are packed, keys at least: they are from before the prompt, and stay. */
static size_t packed_slots(const struct lsi_kept *k, size_t layer)
{
    return lsi_kept_packs(k) ? k->packed.layers[layer].nk : 0;
}

/* Scores of the slots before the window of `rows` rows, for every kv head: w->sum. */
static void score(const struct cache_snapkv *c, struct lsi_exec *ex, size_t layer, size_t rows,
                  struct choice *w)
{
    const struct lsi_kept *k = &c->kept;
    const struct lsi_cache_shape *s = &k->base.shape;
    const size_t n = k->layers[layer].n, group = s->H / s->G;
    const struct lsi_cache_query q = {
        .q = w->q, .ldq = s->G * s->D, .lse = w->lse, .T = rows, .scale = c->scale
    };
    struct lsi_attention a = lsi_kept_attention(k, layer, &q);
    const size_t base = lsi_kept_packs(k) ? k->packed.layers[layer].base : 0;
    a.H = s->G;
    a.slot0 = n - base - rows;
    a.s0 = packed_slots(k, layer) - lsi_min_size(packed_slots(k, layer), base);
    memset(w->sum, 0, s->G * n * sizeof *w->sum);
    for (size_t j = 0; j < group; j++) {
        for (size_t t = 0; t < rows; t++)
            for (size_t g = 0; g < s->G; g++) {
                const float *row = window_row(c, c->side, layer, t);
                memcpy(w->q + (t * s->G + g) * s->D, row + (g * group + j) * s->D, s->D * sizeof *w->q);
                w->lse[t * s->G + g] = row[s->H * s->D + g * group + j];
            }
        memset(w->raw, 0, s->G * n * sizeof *w->raw);
        lsi_op_attention_sums(ex, &a, w->raw + base, n);
        for (size_t g = 0; g < s->G; g++)
            add_pooled(w->sum + g * n, w->raw + g * n, n - rows, lsi_kept_value(k, KERNEL),
                       k->base.spec.value[POOL].n == 1);
    }
}

static void compress(struct cache_snapkv *c, struct lsi_exec *ex, size_t layer)
{
    struct lsi_kept *k = &c->kept;
    const struct lsi_cache_shape *s = &k->base.shape;
    struct lsi_kept_layer *l = &k->layers[layer];
    const size_t n = l->n, rows = window_rows(c, 0), before = n - rows, first = packed_slots(k, layer);
    const size_t keep = lsi_max_size(budget(c, layer, n), first + rows), chosen = keep - rows - first;
    if (n <= keep || !lsi_kept_own(k, layer)) /* no memory for copies of shared pages: all stay */
        return;
    const size_t bytes = choice_bytes(s, rows, n);
    struct choice w;
    struct lsi_arena held = { .base = lsi_kept_hold(ex, bytes), .cap = bytes };
    layout_choice(&w, &held, s, rows, n);
    score(c, ex, layer, rows, &w);
    for (size_t g = 0; g < s->G; g++) {
        const uint32_t *pos = lsi_kept_pos(l, g);
        const float *sum = w.sum + g * n;
        size_t kept = 0;
        for (size_t i = first; i < before; i++)
            w.keys[i - first] = lsi_kept_key(sum[i], pos[i]);
        const uint64_t least = chosen > 0 ? lsi_kept_threshold(w.keys, before - first, chosen) : UINT64_MAX;
        for (size_t i = 0; i < n; i++)
            if (i < first || i >= before || lsi_kept_key(sum[i], pos[i]) >= least)
                w.slots[kept++] = (uint32_t)i;
        lsi_kept_retain(k, ex, layer, g, w.slots, kept);
    }
    lsi_kept_release(ex, bytes);
    lsi_kept_dropped(k, ex, layer, n - keep);
}

static void end_prompt(struct lsi_cache *cache, struct lsi_exec *ex)
{
    struct cache_snapkv *c = snapkv(cache);
    struct lsi_kept *k = &c->kept;
    const size_t window = lsi_kept_value(k, WINDOW);
    k->prompt = k->prompt && !c->compressed;
    if (!k->prompt)
        return;
    if (!k->resolved)
        lsi_kept_resolve(k, lsi_kept_prompt_rows(k));
    k->base.spec.value[BUDGET].n = (int64_t)lsi_max_size(lsi_kept_value(k, BUDGET), window + 1);
    if (cache->length > lsi_kept_value(k, BUDGET)) {
        for (size_t l = 0; l < cache->shape.L; l++)
            if (lsi_kept_slides(k, l))
                lsi_kept_slide(k, l);
            else
                compress(c, ex, l);
        lsi_kept_end_turn(k);
        c->compressed = true;
        free_window(c);
    }
    k->prompt = false;
    k->block = 0;
}

static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    end_prompt(cache, ex);
    lsi_kept_settle(&snapkv(cache)->kept, ex);
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *s,
                      const struct lsi_cache_spec *spec)
{
    const size_t window = (size_t)spec->value[WINDOW].n, rows = lsi_max_size(s->n_rows, window);
    const size_t pack = spec->storage ? lsi_packed_scratch(ex, s) : 0;
    const size_t ops = lsi_max_size(lsi_op_attention_scratch(ex, rows, s->H, s->G, s->D),
                                    lsi_op_attention_sums_scratch(ex, window, s->G, s->G, s->D));
    return lsi_round_up(lsi_max_size(ops, pack), LSI_CACHE_LINE) +
           lsi_round_up(lsi_max_size(rows * s->H * sizeof(float), choice_bytes(s, window, s->n_ctx)),
                        LSI_CACHE_LINE) +
           lsi_kept_hold_bytes(s, spec);
}

/* ---- the rest of the seam ------------------------------------------------------------------------------ */

static ls_status rewind_snapkv(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_snapkv *c = snapkv(cache);
    struct lsi_kept *k = &c->kept;
    const size_t length = cache->length;
    LSI_TRY(lsi_cache_check_rewind(cache, n_tokens, err));
    if (n_tokens == length)
        return LS_OK;
    if (n_tokens == 0) {
        lsi_kept_clear(k);
        free_window(c);
        c->compressed = false;
        return LS_OK;
    }
    if (n_tokens < k->turn)
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "snapkv cannot go back to %zu tokens: it has dropped tokens of the prompt, which ended at "
            "%zu; go back to there, or begin anew, from 0",
            n_tokens, k->turn);
    const bool inside = k->prompt && !c->compressed && n_tokens > k->begin; /* there the window is wanted */
    if (inside && n_tokens != length - k->block)
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "snapkv cannot go back to %zu tokens, inside a prompt that has not ended: go back to its "
            "begin at %zu",
            n_tokens, k->begin);
    if (!lsi_kept_can_cut(k, length - n_tokens))
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "snapkv cannot go back to %zu tokens: those before them are packed since; begin anew, from 0",
            n_tokens);
    c->side = inside ? !c->side : c->side;
    lsi_kept_cut(k, length - n_tokens);
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_snapkv *c = (const struct cache_snapkv *)cache;
    const size_t window = window_floats(&cache->shape, &cache->spec) * sizeof(float);
    return lsi_kept_bytes(&c->kept) + (c->rows[0] ? 2 * window : 0);
}

static size_t bytes_read(const struct lsi_cache *cache)
{
    return lsi_kept_bytes_read(&((const struct cache_snapkv *)cache)->kept);
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_snapkv *c = snapkv(cache);
    struct lsi_kept *k = &c->kept;
    const size_t window = lsi_kept_value(k, WINDOW);
    lsi_kept_resolve(k, n_tokens);
    k->base.spec.value[BUDGET].n = (int64_t)lsi_max_size(lsi_kept_value(k, BUDGET), window + 1);
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(lsi_kept_tile(k, l, n_tokens, budget(c, l, n_tokens), window, err));
    cache->length = n_tokens;
    lsi_kept_end_turn(k);
    c->compressed = true;
    free_window(c);
    return LS_OK;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_snapkv *c = snapkv(cache);
    bool window = c->rows[0] != NULL;
    LSI_TRY(lsi_cache_io_flag(io, &c->compressed, err));
    LSI_TRY(io->bytes(io, &c->scale, sizeof c->scale, err));
    LSI_TRY(lsi_cache_io_flag(io, &window, err));
    if (c->compressed && window)
        return lsi_cache_damaged(io, err);
    if (window && !want_window(c))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the last queries of a prompt");
    if (window)
        LSI_TRY(
            io->bytes(io, c->rows[c->side], window_floats(&cache->shape, &cache->spec) * sizeof(float), err));
    LSI_TRY(lsi_kept_state(&c->kept, io, err));
    if (!io->reading)
        return LS_OK;
    const struct lsi_kept *k = &c->kept;
    if (!lsi_kept_whole_since_turn(k) || (!c->compressed && (k->turn > 0 || (k->prompt && !window))))
        return lsi_cache_damaged(io, err);
    c->kept.block = 0; /* the window before the last block is not stored */
    return LS_OK;
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    return lsi_kept_tokens(&((const struct cache_snapkv *)cache)->kept, layer, g, SIZE_MAX, pos);
}

const struct lsi_cache_policy lsi_cache_snapkv = {
    .name = "snapkv",
    .example =
        "snapkv:budget=1024,window=32  the 1,024 tokens of a prompt that its end, the question, looks at",
    .summary =
        "of the first long prompt the tokens its end looks at, and all that follows (SnapKV, PyramidKV)",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .packs = true,
    .check = check,
    .plan = plan,
    .create = create,
    .free = free_snapkv,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .settle = settle,
    .scratch = scratch,
    .rewind = rewind_snapkv,
    .bytes = bytes,
    .bytes_read = bytes_read,
    .tile = tile,
    .fork = fork_snapkv,
    .state = state,
    .kept = kept,
};

/*
 * Quest: everything is kept, and a step of decoding reads the runs of tokens that can hold the best scores.
 *
 * A run (the paper's page) is `page` consecutive tokens; beside the keys lies, for each run and dimension,
 * the least and the greatest value, which bound what a query can score there (lsi_op_bounds_scores). The
 * best runs and always the last one, budget / page of them, are attended exactly. The first `skip` layers,
 * layers with a sliding window and prompts see everything.
 *
 *     keys     | run 0 | run 1 | run 2 | ru      the last run may be partial: it is attended anyway
 *     bounds   | lo hi | lo hi | lo hi |         made when a run is full
 *
 * Bounds are a function of the keys: forgetting tokens forgets whole runs, and what is missing is made
 * anew from the keys.
 */
#include "cache/cache_full.h"
#include "cache/kept.h"

#include <string.h>

enum {
    RUN,
    BUDGET,
    SKIP,
    SETS,
    COMBINE
};

enum {
    LEAST_RUNS = 3
};

static const struct lsi_cache_key keys[] = {
    [RUN] = { "page", "tokens of a run, which is read whole or not at all", "16", 1, LSI_KV_PAGE, false,
              NULL },
    [BUDGET] = { "budget", "tokens read in a step, or per cent of the first prompt; at least 3 pages", "10%",
                 1, INT32_MAX, .percent = true },
    [SKIP] = { "skip", "first layers, which read everything", "2", 0, INT32_MAX, false, NULL },
    [SETS] = { "sets", "pages chosen for the query heads of a kv head together, or for each", "group",
               .choices = "group|per_q" },
    [COMBINE] = { "combine", "bounds of query heads to one: sum of exp(bound - greatest), greatest, sum",
                  "pseudo", .choices = "pseudo|max|sum" },
};

struct cache_quest {
    struct lsi_full full;
    struct lsi_page_pool *pool;  /* NULL: no layer has bounds */
    struct lsi_kv_pages *bounds; /* [n_bounded], of equal length */
    size_t *n_runs;              /* [n_bounded]: runs that have their bounds */
    size_t n_bounded;
    size_t n_prompt; /* tokens of the first prompt; 0: there was none */
};

static struct cache_quest *quest(struct lsi_cache *c)
{
    return (struct cache_quest *)c;
}

/* ---- which layers, how many runs ---------------------------------------------------------- */

static bool is_bounded(const struct lsi_cache_shape *s, const struct lsi_cache_spec *spec, size_t layer)
{
    return layer >= (size_t)spec->value[SKIP].n && lsi_cache_window(s, layer) == 0;
}

/* Bounded layers before `layer`: its place among them. */
static size_t place_of(const struct lsi_cache_shape *s, const struct lsi_cache_spec *spec, size_t layer)
{
    size_t n = 0;
    for (size_t l = 0; l < layer; l++)
        n += is_bounded(s, spec, l) ? 1 : 0;
    return n;
}

static size_t run_tokens(const struct lsi_cache *cache)
{
    return (size_t)cache->spec.value[RUN].n;
}

/* Runs that a step reads of n tokens, all of them included when there are no more. */
static size_t runs_read(const struct lsi_cache *cache, size_t n)
{
    const struct lsi_cache_value *budget = &cache->spec.value[BUDGET];
    const size_t first = ((const struct cache_quest *)cache)->n_prompt;
    const size_t runs = lsi_div_up(n, run_tokens(cache));
    if (budget->percent >= 0 && first == 0)
        return runs;
    return lsi_min_size(runs, lsi_max_size(LEAST_RUNS, lsi_cache_tokens(budget, first) / run_tokens(cache)));
}

/* Pages of bounds for n tokens. */
static size_t bounds_pages(const struct lsi_cache_spec *spec, size_t n)
{
    return lsi_div_up(n / (size_t)spec->value[RUN].n, LSI_KV_PAGE);
}

/* ---- life -------------------------------------------------------------------------------------- */

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    const size_t full = lsi_full_plan(shape, spec, n_tokens);
    size_t bounds, total;
    if (full == SIZE_MAX ||
        !lsi_mul_size(place_of(shape, spec, shape->L) * bounds_pages(spec, n_tokens),
                      lsi_bounds_page_bytes(spec->format, shape->G, shape->D), &bounds) ||
        !lsi_add_size(full, bounds, &total))
        return SIZE_MAX;
    return total;
}

static void free_quest(struct lsi_cache *cache)
{
    struct cache_quest *c = quest(cache);
    if (!c)
        return;
    for (size_t i = 0; c->bounds && i < c->n_bounded; i++)
        lsi_kv_pages_cut(&c->bounds[i], 0);
    lsi_free(cache->alloc, c->bounds, c->n_bounded * sizeof *c->bounds);
    lsi_free(cache->alloc, c->n_runs, c->n_bounded * sizeof *c->n_runs);
    lsi_page_pool_unref(c->pool);
    lsi_full_free(cache);
}

/* Empty tables over a pool, a reference of which becomes the cache's; false: no memory. */
static bool make_tables(struct cache_quest *c, struct lsi_page_pool *pool, size_t n_bounded)
{
    const ls_alloc *alloc = c->full.base.alloc;
    c->pool = pool;
    c->n_bounded = n_bounded;
    c->bounds = lsi_calloc(alloc, n_bounded, sizeof *c->bounds);
    c->n_runs = lsi_calloc(alloc, n_bounded, sizeof *c->n_runs);
    for (size_t i = 0; c->bounds && i < n_bounded; i++)
        lsi_kv_pages_init(&c->bounds[i], pool);
    return c->bounds && c->n_runs;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    const size_t n_bounded = place_of(shape, spec, shape->L);
    struct lsi_page_pool *pool;
    struct lsi_full *f;
    LSI_TRY(lsi_full_create(&f, sizeof(struct cache_quest), &lsi_cache_quest, shape, spec, alloc, err));
    struct cache_quest *c = quest(&f->base);
    ls_status st = LS_OK;
    if (n_bounded > 0) {
        st = lsi_page_pool_create(&pool, lsi_bounds_page_bytes(spec->format, shape->G, shape->D), n_bounded,
                                  alloc, err);
        if (st == LS_OK && !make_tables(c, pool, n_bounded))
            st = lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    }
    if (st != LS_OK)
        free_quest(&f->base);
    else
        *cache = &f->base;
    return st;
}

static ls_status fork_quest(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_quest *from = (const struct cache_quest *)cache;
    struct lsi_full *f;
    LSI_TRY(lsi_full_copy(&from->full, &f, err));
    struct cache_quest *c = quest(&f->base);
    c->n_prompt = from->n_prompt;
    bool ok = !from->pool || make_tables(c, lsi_page_pool_ref(from->pool), from->n_bounded);
    for (size_t i = 0; ok && i < from->n_bounded; i++) {
        ok = lsi_kv_pages_share(&c->bounds[i], &from->bounds[i]);
        c->n_runs[i] = from->n_runs[i];
    }
    if (!ok) {
        free_quest(&f->base);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    }
    *copy = &f->base;
    return LS_OK;
}

/* ---- bounds --------------------------------------------------------------------------------------- */

/* Bounds of runs that are not made of the first n_tokens are forgotten. */
static void forget(struct cache_quest *c, size_t n_tokens)
{
    const size_t runs = n_tokens / run_tokens(&c->full.base);
    for (size_t i = 0; i < c->n_bounded; i++) {
        c->n_runs[i] = lsi_min_size(c->n_runs[i], runs);
        lsi_kv_pages_cut(&c->bounds[i],
                         lsi_min_size(c->bounds[i].n, bounds_pages(&c->full.base.spec, n_tokens)));
    }
}

/* Memory for the bounds of n_tokens, this cache's alone where something will be written. */
static ls_status make_room(struct cache_quest *c, size_t n_tokens, ls_error *err)
{
    const size_t pages = bounds_pages(&c->full.base.spec, n_tokens);
    bool ok = c->n_bounded == 0 || lsi_kv_pages_grow(c->bounds, c->n_bounded, pages);
    for (size_t i = 0; ok && i < c->n_bounded; i++)
        ok = lsi_kv_pages_own(&c->bounds[i], c->n_runs[i] / LSI_KV_PAGE, c->bounds[i].n);
    return ok ? LS_OK
              : lsi_fail(err, LS_E_NOMEM, "out of memory for the bounds of the keys of %zu tokens", n_tokens);
}

static struct lsi_bounds bounds_of(const struct cache_quest *c, size_t place)
{
    const struct lsi_cache *base = &c->full.base;
    return (struct lsi_bounds){ .format = base->spec.format,
                                .G = base->shape.G,
                                .D = base->shape.D,
                                .run = run_tokens(base),
                                .pages = c->bounds[place].page };
}

/* Make what is missing of the bounds of the layer's full runs, of n stored tokens. */
static void complete(struct cache_quest *c, struct lsi_exec *ex, size_t layer, size_t place, size_t n)
{
    const size_t had = c->n_runs[place], runs = n / run_tokens(&c->full.base);
    if (runs <= had)
        return;
    const struct lsi_bounds b = bounds_of(c, place);
    const struct lsi_kv_view kv = lsi_full_view(&c->full.base, layer);
    lsi_op_bounds_store(ex, &b, &kv, had, runs - had);
    c->n_runs[place] = runs;
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    LSI_TRY(lsi_full_reserve(cache, n_rows, err));
    LSI_TRY(make_room(c, cache->length + n_rows, err));
    if (c->n_prompt == 0)
        c->n_prompt = cache->n_prompt;
    return LS_OK;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_quest *c = quest(cache);
    lsi_full_append(cache, ex, layer, k, ldk, v, ldv, n_rows);
    if (!is_bounded(&cache->shape, &cache->spec, layer))
        return;
    const size_t place = place_of(&cache->shape, &cache->spec, layer);
    /* Rows that were appended and never committed may have left bounds. */
    c->n_runs[place] = lsi_min_size(c->n_runs[place], cache->length / run_tokens(cache));
    complete(c, ex, layer, place, cache->length + n_rows);
}

/* The rows since the last settle were the first prompt, if nobody has said so before. */
static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    (void)ex;
    if (quest(cache)->n_prompt == 0)
        quest(cache)->n_prompt = cache->length;
}

/* ---- attending --------------------------------------------------------------------------------------------
 */

static bool per_q(const struct lsi_cache_spec *spec)
{
    return spec->value[SETS].n == 1;
}

static size_t n_sets(const struct lsi_cache_shape *s, const struct lsi_cache_spec *spec)
{
    return per_q(spec) ? s->H : s->G;
}

/* Memory while a row is attended: of n runs, `read` of which are chosen. */
struct workspace {
    float *scores;           /* [n_sets][n] */
    uint64_t *order;         /* [n_sets][n] */
    uint32_t *best;          /* [n_sets][n] */
    struct lsi_slots *slots; /* [n_sets][read] */
    size_t *n_slots;         /* [n_sets] */
    size_t *first;           /* [n_sets + 1] */
};

static size_t layout(struct workspace *w, unsigned char *base, size_t sets, size_t n, size_t read)
{
    struct lsi_arena a = { .base = base, .cap = base ? SIZE_MAX / 2 : 0 };
    w->scores = lsi_arena_take(&a, sets * n, sizeof *w->scores);
    w->order = lsi_arena_take(&a, sets * n, sizeof *w->order);
    w->best = lsi_arena_take(&a, sets * n, sizeof *w->best);
    w->slots = lsi_arena_take(&a, sets * read, sizeof *w->slots);
    w->n_slots = lsi_arena_take(&a, sets, sizeof *w->n_slots);
    w->first = lsi_arena_take(&a, sets + 1, sizeof *w->first);
    return a.used;
}

struct choice {
    struct workspace w;
    size_t n;        /* runs with bounds: all but the last */
    size_t read;     /* runs of a set, with the last */
    size_t run;      /* tokens */
    size_t n_tokens; /* in all */
};

enum {
    BINS = 4096,
    BIN_SHIFT = 52
};

static size_t bin_of(float score)
{
    return lsi_kept_key(score, 0) >> BIN_SHIFT;
}

/* The places of the k best of n scores, ascending. A histogram tells in which bin the last of them is, so
 * that few must be ordered; places are written always and counted when they are good, which no branch
 * foresees.
 */
static void choose_best(const float *score, size_t n, size_t k, uint32_t *best, uint64_t *order)
{
    uint32_t count[BINS] = { 0 };
    size_t above = 0, bin = BINS, some = 0, few = 0, chosen = 0;

    for (size_t i = 0; i < n; i++)
        count[bin_of(score[i])]++;
    do
        above += count[--bin];
    while (above < k);
    for (size_t i = 0; i < n; i++) {
        best[some] = (uint32_t)i;
        some += bin_of(score[i]) >= bin ? 1 : 0;
    }
    for (size_t i = 0; i < some; i++) {
        order[few] = lsi_kept_key(score[best[i]], best[i]);
        few += order[few] >> BIN_SHIFT == bin ? 1 : 0;
    }
    const uint64_t least = lsi_kept_threshold(order, few, k - (above - count[bin]));
    for (size_t i = 0; i < some; i++) {
        best[chosen] = best[i];
        chosen += lsi_kept_key(score[best[i]], best[i]) >= least ? 1 : 0;
    }
}

/* The best runs of a set and the last one, as ranges of tokens. */
static void choose_task(void *ctx, size_t set, int thread)
{
    const struct choice *c = ctx;
    uint32_t *best = c->w.best + set * c->n;
    struct lsi_slots *slots = c->w.slots + set * c->read;
    size_t n_slots = 0;

    (void)thread;
    choose_best(c->w.scores + set * c->n, c->n, c->read - 1, best, c->w.order + set * c->n);
    for (size_t i = 0; i < c->read; i++) {
        const size_t run = i < c->read - 1 ? best[i] : c->n;
        const uint32_t begin = (uint32_t)(run * c->run);
        const uint32_t end = (uint32_t)lsi_min_size(c->n_tokens, (run + 1) * c->run);
        if (n_slots > 0 && slots[n_slots - 1].end == begin)
            slots[n_slots - 1].end = end;
        else
            slots[n_slots++] = (struct lsi_slots){ begin, end };
    }
    c->w.n_slots[set] = n_slots;
}

/* Move the ranges of all sets together. */
static void gather_slots(const struct choice *c, size_t sets)
{
    size_t n = 0;
    for (size_t i = 0; i < sets; i++) {
        c->w.first[i] = n;
        memmove(c->w.slots + n, c->w.slots + i * c->read, c->w.n_slots[i] * sizeof *c->w.slots);
        n += c->w.n_slots[i];
    }
    c->w.first[sets] = n;
}

static void attend_chosen(struct cache_quest *c, struct lsi_exec *ex, size_t layer,
                          const struct lsi_cache_query *q, size_t read)
{
    const struct lsi_cache *cache = &c->full.base;
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t n_tokens = cache->length + 1, sets = n_sets(s, &cache->spec);
    const size_t place = place_of(s, &cache->spec, layer);
    struct choice choice = { .read = read, .run = run_tokens(cache), .n_tokens = n_tokens };
    choice.n = lsi_div_up(n_tokens, choice.run) - 1;
    const size_t bytes = layout(&choice.w, NULL, sets, choice.n, read);
    layout(&choice.w, lsi_kept_hold(ex, bytes), sets, choice.n, read);

    complete(c, ex, layer, place, n_tokens); /* after reading a file or repeating pages there are none */
    const struct lsi_bounds b = bounds_of(c, place);
    const enum lsi_bounds_set how[] = { LSI_BOUNDS_PSEUDO, LSI_BOUNDS_MAX, LSI_BOUNDS_SUM };
    lsi_op_bounds_scores(ex, &b, q->q, s->H, q->scale, choice.n,
                         per_q(&cache->spec) ? LSI_BOUNDS_EACH : how[cache->spec.value[COMBINE].n],
                         choice.w.scores, choice.n);
    lsi_parallel(ex->pool, sets, choose_task, &choice);
    gather_slots(&choice, sets);
    const struct lsi_attention_slots chosen = { .q = q->q,
                                                .out = q->out,
                                                .lse = q->lse,
                                                .H = s->H,
                                                .scale = q->scale,
                                                .per_q = per_q(&cache->spec),
                                                .slots = choice.w.slots,
                                                .first = choice.w.first,
                                                .kv = lsi_full_view(cache, layer) };
    lsi_op_attention_slots(ex, &chosen);
    lsi_kept_release(ex, bytes);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const size_t n = cache->length + 1, read = runs_read(cache, n);
    const bool prompt = cache->n_prompt > 0 || q->T > 1;
    if (prompt || !is_bounded(&cache->shape, &cache->spec, layer) || read >= lsi_div_up(n, run_tokens(cache)))
        lsi_full_attend(cache, ex, layer, q);
    else
        attend_chosen(quest(cache), ex, layer, q, read);
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *s,
                      const struct lsi_cache_spec *spec)
{
    struct workspace w;
    const size_t runs = lsi_div_up(s->n_ctx, (size_t)spec->value[RUN].n);
    const size_t scores = lsi_op_bounds_scores_scratch(ex, s->H, s->D, runs);
    const size_t slots = lsi_op_attention_slots_scratch(ex, s->H, s->G, s->D);
    const size_t attention = lsi_op_attention_scratch(ex, s->n_rows, s->H, s->G, s->D);
    return lsi_round_up(lsi_max_size(attention, lsi_max_size(scores, slots)), LSI_CACHE_LINE) +
           lsi_round_up(layout(&w, NULL, n_sets(s, spec), runs, runs), LSI_CACHE_LINE);
}

/* ---- the rest of the seam ---------------------------------------------------------------------------------
 */

static ls_status rewind_quest(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    LSI_TRY(lsi_full_rewind(cache, n_tokens, err));
    forget(quest(cache), n_tokens);
    if (n_tokens == 0)
        quest(cache)->n_prompt = 0;
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_quest *c = (const struct cache_quest *)cache;
    return lsi_full_bytes(cache) + (c->pool ? lsi_page_pool_bytes(c->pool) : 0);
}

/* Query heads with pages of their own may read as many times more. */
static size_t bytes_read(const struct lsi_cache *cache)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t n = cache->length + 1, read = runs_read(cache, n),
                 sets = per_q(&cache->spec) ? s->H / s->G : 1;
    const size_t run_bytes = lsi_bounds_page_bytes(cache->spec.format, s->G, s->D) / LSI_KV_PAGE;
    size_t total = 0;
    for (size_t l = 0; l < s->L; l++) {
        const bool chosen = is_bounded(s, &cache->spec, l) && read < lsi_div_up(n, run_tokens(cache));
        total += lsi_full_bytes_seen(cache, l, chosen ? read * sets * run_tokens(cache) : n);
        total += chosen ? n / run_tokens(cache) * run_bytes : 0;
    }
    return total;
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    const size_t length = cache->length;
    LSI_TRY(lsi_full_tile(cache, n_tokens, err));
    forget(c, lsi_min_size(length, n_tokens));
    if (make_room(c, n_tokens, err) != LS_OK) {
        (void)rewind_quest(cache, lsi_min_size(length, n_tokens), NULL);
        return LS_E_NOMEM;
    }
    c->n_prompt = n_tokens;
    return LS_OK;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    LSI_TRY(io->bytes(io, &c->n_prompt, sizeof c->n_prompt, err));
    LSI_TRY(lsi_full_state(cache, io, err));
    return io->reading ? make_room(c, cache->length, err) : LS_OK;
}

const struct lsi_cache_policy lsi_cache_quest = {
    .name = "quest",
    .example = "quest:budget=1024  keeps all, reads 1,024 tokens a step",
    .summary = "everything kept, the pages that can hold the best scores attended (Quest)",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .plan = plan,
    .create = create,
    .free = free_quest,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = lsi_full_commit,
    .settle = settle,
    .scratch = scratch,
    .rewind = rewind_quest,
    .bytes = bytes,
    .bytes_read = bytes_read,
    .tile = tile,
    .fork = fork_quest,
    .state = state,
    .kept = lsi_full_kept,
};

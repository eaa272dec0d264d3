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
 *
 * Over packed storage (packed.h) runs are of packed tokens, and bounds of what their codes stand for. The
 * exact tail is always read: it is part of the budget, of which at least LEAST_RUNS are left for packed runs.
 */
#include "cache/cache_full.h"
#include "cache/cache_kivi.h"
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
    [RUN] = { "page", "tokens of a page, which is read whole or not at all", "16", 1, LSI_KV_PAGE, false,
              NULL },
    [BUDGET] = { "budget", "tokens read in a step, or per cent of the first prompt; at least 3 pages", "10%",
                 1, INT32_MAX, .percent = true },
    [SKIP] = { "skip", "first layers, which read everything", "2", 0, INT32_MAX, false, NULL },
    [SETS] = { "sets", "pages chosen for the query heads of a kv head together, or for each", "group",
               .choices = "group|per_q" },
    [COMBINE] = { "combine",
                  "how query heads rate a page together: sum of exp(bound - greatest), greatest, sum",
                  "pseudo", .choices = "pseudo|max|sum" },
};

struct cache_quest {
    union { /* who keeps the tokens: tokens_of */
        struct lsi_cache base;
        struct lsi_full full;
        struct lsi_kivi kivi;
    };
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

/* The policy that keeps every token. */
static const struct lsi_cache_policy *tokens_of(const struct lsi_cache_spec *spec)
{
    return spec->storage ? spec->storage : &lsi_cache_full;
}

/* Tokens of n that runs are made of: with packed storage those in codes, and the others are read anyway. */
static size_t in_runs(const struct cache_quest *c, size_t layer, size_t n)
{
    return c->base.spec.storage ? lsi_min_size(n, c->kivi.packed.layers[layer].nv) : n;
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
static size_t runs_read(const struct lsi_cache *cache, size_t layer, size_t n)
{
    const struct lsi_cache_value *budget = &cache->spec.value[BUDGET];
    const struct cache_quest *c = (const struct cache_quest *)cache;
    const size_t some = in_runs(c, layer, n), runs = lsi_div_up(some, run_tokens(cache));
    if (budget->percent >= 0 && c->n_prompt == 0)
        return runs;
    const size_t tokens = lsi_cache_tokens(budget, c->n_prompt);
    const size_t left = tokens - lsi_min_size(tokens, n - some);
    return lsi_min_size(runs, lsi_max_size(LEAST_RUNS, left / run_tokens(cache)));
}

/* Pages of bounds for n tokens. */
static size_t bounds_pages(const struct lsi_cache_spec *spec, size_t n)
{
    return lsi_div_up(n / (size_t)spec->value[RUN].n, LSI_KV_PAGE);
}

/* ---- life -------------------------------------------------------------------------------------- */

static size_t with_bounds(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t tokens, size_t n_tokens)
{
    size_t bounds, total;
    if (tokens == SIZE_MAX ||
        !lsi_mul_size(place_of(shape, spec, shape->L) * bounds_pages(spec, n_tokens),
                      lsi_bounds_page_bytes(shape->G, shape->D), &bounds) ||
        !lsi_add_size(tokens, bounds, &total))
        return SIZE_MAX;
    return total;
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    return with_bounds(shape, spec, tokens_of(spec)->plan(shape, spec, n_tokens), n_tokens);
}

static size_t plan_prompt(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt)
{
    const struct lsi_cache_policy *p = tokens_of(spec);
    const size_t tokens =
        p->plan_prompt ? p->plan_prompt(shape, spec, n_tokens, n_prompt) : p->plan(shape, spec, n_tokens);
    return with_bounds(shape, spec, tokens, n_tokens);
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
    tokens_of(&cache->spec)->free(cache);
}

/* Empty tables over a pool, a reference of which becomes the cache's; false: no memory. */
static bool make_tables(struct cache_quest *c, struct lsi_page_pool *pool, size_t n_bounded)
{
    const ls_alloc *alloc = c->base.alloc;
    c->pool = pool;
    c->n_bounded = n_bounded;
    c->bounds = lsi_calloc(alloc, n_bounded, sizeof *c->bounds);
    c->n_runs = lsi_calloc(alloc, n_bounded, sizeof *c->n_runs);
    for (size_t i = 0; c->bounds && i < n_bounded; i++)
        lsi_kv_pages_init(&c->bounds[i], pool);
    return c->bounds && c->n_runs;
}

/* The tokens' part of a cache: an empty one, or with `from` a copy. */
static ls_status make(struct cache_quest **out, const struct lsi_cache_shape *shape,
                      const struct lsi_cache_spec *spec, const struct cache_quest *from,
                      const ls_alloc *alloc, ls_error *err)
{
    const size_t size = sizeof(struct cache_quest);
    struct lsi_kivi *k;
    struct lsi_full *f;
    if (spec->storage) {
        LSI_TRY(from ? lsi_kivi_copy(&from->kivi, &k, err)
                     : lsi_kivi_create(&k, size, &lsi_cache_quest, shape, spec, alloc, err));
        *out = quest(&k->base);
    } else {
        LSI_TRY(from ? lsi_full_copy(&from->full, &f, err)
                     : lsi_full_create(&f, size, &lsi_cache_quest, shape, spec, alloc, err));
        *out = quest(&f->base);
    }
    return LS_OK;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    const size_t n_bounded = place_of(shape, spec, shape->L);
    struct lsi_page_pool *pool;
    struct cache_quest *c;
    LSI_TRY(make(&c, shape, spec, NULL, alloc, err));
    ls_status st = LS_OK;
    if (n_bounded > 0) {
        st = lsi_page_pool_create(&pool, lsi_bounds_page_bytes(shape->G, shape->D), n_bounded, alloc, err);
        if (st == LS_OK && !make_tables(c, pool, n_bounded))
            st = lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    }
    if (st != LS_OK)
        free_quest(&c->base);
    else
        *cache = &c->base;
    return st;
}

static ls_status fork_quest(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_quest *from = (const struct cache_quest *)cache;
    struct cache_quest *c;
    LSI_TRY(make(&c, &cache->shape, &cache->spec, from, cache->alloc, err));
    c->n_prompt = from->n_prompt;
    bool ok = !from->pool || make_tables(c, lsi_page_pool_ref(from->pool), from->n_bounded);
    for (size_t i = 0; ok && i < from->n_bounded; i++) {
        ok = lsi_kv_pages_share(&c->bounds[i], &from->bounds[i]);
        c->n_runs[i] = from->n_runs[i];
    }
    if (!ok) {
        free_quest(&c->base);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    }
    *copy = &c->base;
    return LS_OK;
}

/* ---- bounds --------------------------------------------------------------------------------------- */

/* Bounds of runs that are not made of the first n_tokens are forgotten. */
static void forget(struct cache_quest *c, size_t n_tokens)
{
    const size_t runs = in_runs(c, 0, n_tokens) / run_tokens(&c->base);
    for (size_t i = 0; i < c->n_bounded; i++) {
        c->n_runs[i] = lsi_min_size(c->n_runs[i], runs);
        lsi_kv_pages_cut(&c->bounds[i], lsi_min_size(c->bounds[i].n, bounds_pages(&c->base.spec, n_tokens)));
    }
}

/* Memory for the bounds of n_tokens, this cache's alone where something will be written. */
static ls_status make_room(struct cache_quest *c, size_t n_tokens, ls_error *err)
{
    const size_t pages = bounds_pages(&c->base.spec, n_tokens);
    bool ok = c->n_bounded == 0 || lsi_kv_pages_grow(c->bounds, c->n_bounded, pages);
    for (size_t i = 0; ok && i < c->n_bounded; i++)
        ok = lsi_kv_pages_own(&c->bounds[i], c->n_runs[i] / LSI_KV_PAGE, c->bounds[i].n);
    return ok ? LS_OK
              : lsi_fail(err, LS_E_NOMEM, "out of memory for the bounds of the keys of %zu tokens", n_tokens);
}

static struct lsi_bounds bounds_of(const struct cache_quest *c, size_t place)
{
    const struct lsi_cache *base = &c->base;
    return (struct lsi_bounds){
        .G = base->shape.G, .D = base->shape.D, .run = run_tokens(base), .pages = c->bounds[place].page
    };
}

static struct lsi_kv_view view(const struct cache_quest *c, size_t layer)
{
    return c->base.spec.storage ? lsi_packed_codes(&c->kivi.packed, layer) : lsi_full_view(&c->base, layer);
}

/* Make what is missing of the bounds of the layer's full runs, of n stored tokens. */
static void complete(struct cache_quest *c, struct lsi_exec *ex, size_t layer, size_t place, size_t n)
{
    const size_t had = c->n_runs[place], runs = in_runs(c, layer, n) / run_tokens(&c->base);
    if (runs <= had)
        return;
    const struct lsi_bounds b = bounds_of(c, place);
    const struct lsi_kv_view kv = view(c, layer);
    lsi_op_bounds_store(ex, &b, &kv, had, runs - had);
    c->n_runs[place] = runs;
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    LSI_TRY(tokens_of(&cache->spec)->reserve(cache, n_rows, err));
    LSI_TRY(make_room(c, cache->length + n_rows, err));
    if (c->n_prompt == 0)
        c->n_prompt = cache->n_prompt;
    return LS_OK;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_quest *c = quest(cache);
    tokens_of(&cache->spec)->append(cache, ex, layer, k, ldk, v, ldv, n_rows);
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
    const struct lsi_cache_policy *p = tokens_of(&cache->spec);
    if (p->settle)
        p->settle(cache, ex);
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
    uint32_t *best;          /* [n_sets][read - 1] */
    struct lsi_slots *slots; /* of all sets: [n_sets read] at most */
    size_t *first;           /* [n_sets + 1]: the slots of a set */
};

static size_t layout(struct workspace *w, unsigned char *base, size_t sets, size_t n, size_t read)
{
    struct lsi_arena a = { .base = base, .cap = base ? SIZE_MAX / 2 : 0 };
    w->scores = lsi_arena_take(&a, sets * n, sizeof *w->scores);
    w->best = lsi_arena_take(&a, sets * read, sizeof *w->best);
    w->slots = lsi_arena_take(&a, sets * read, sizeof *w->slots);
    w->first = lsi_arena_take(&a, sets + 1, sizeof *w->first);
    return a.used;
}

struct choice {
    struct workspace w;
    size_t n;        /* runs with bounds: all but the last */
    size_t read;     /* runs of a set, with the last */
    size_t run;      /* tokens */
    size_t begin;    /* the first token that is in a run */
    size_t n_tokens; /* in all */
};

/* The best runs of a set and the last one, as ranges of tokens; returns how many. */
static size_t put_ranges(const struct choice *c, const uint32_t *best, struct lsi_slots *slots)
{
    size_t n_slots = 0;

    for (size_t i = 0; i < c->read; i++) {
        const size_t run = i < c->read - 1 ? best[i] : c->n;
        const uint32_t begin = (uint32_t)lsi_max_size(c->begin, run * c->run);
        const uint32_t end = (uint32_t)lsi_min_size(c->n_tokens, (run + 1) * c->run);
        if (begin >= end)
            continue;
        if (n_slots > 0 && slots[n_slots - 1].end == begin)
            slots[n_slots - 1].end = end;
        else
            slots[n_slots++] = (struct lsi_slots){ begin, end };
    }
    return n_slots;
}

/* The ranges of tokens that the row reads: *w, which holds bytes until lsi_kept_release, their number. */
static size_t choose_runs(struct cache_quest *c, struct lsi_exec *ex, size_t layer,
                          const struct lsi_cache_query *q, size_t read, struct workspace *w)
{
    const struct lsi_cache *cache = &c->base;
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t n_tokens = in_runs(c, layer, cache->length + 1), sets = n_sets(s, &cache->spec);
    const size_t place = place_of(s, &cache->spec, layer);
    struct choice choice = { .read = read, .run = run_tokens(cache), .n_tokens = n_tokens };
    choice.begin = cache->spec.storage ? c->kivi.packed.how.sinks : 0;
    choice.n = lsi_div_up(n_tokens, choice.run) - 1;
    const size_t bytes = layout(&choice.w, NULL, sets, choice.n, read);
    layout(&choice.w, lsi_kept_hold(ex, bytes), sets, choice.n, read);

    complete(c, ex, layer, place, n_tokens); /* after reading a file or repeating pages there are none */
    const struct lsi_bounds b = bounds_of(c, place);
    const enum lsi_bounds_set how[] = { LSI_BOUNDS_PSEUDO, LSI_BOUNDS_MAX, LSI_BOUNDS_SUM };
    lsi_op_bounds_scores(ex, &b, q->q, s->H, q->scale, choice.n,
                         per_q(&cache->spec) ? LSI_BOUNDS_EACH : how[cache->spec.value[COMBINE].n],
                         choice.w.scores, choice.n);
    lsi_op_choose(ex, choice.w.best, choice.w.scores, sets, choice.n, read - 1);
    choice.w.first[0] = 0;
    for (size_t i = 0; i < sets; i++)
        choice.w.first[i + 1] = choice.w.first[i] + put_ranges(&choice, choice.w.best + i * (read - 1),
                                                               choice.w.slots + choice.w.first[i]);
    *w = choice.w;
    return bytes;
}

static void attend_chosen(struct cache_quest *c, struct lsi_exec *ex, size_t layer,
                          const struct lsi_cache_query *q, size_t read)
{
    const struct lsi_cache *cache = &c->full.base;
    const struct lsi_cache_shape *s = &cache->shape;
    struct workspace w;
    const size_t bytes = choose_runs(c, ex, layer, q, read, &w);
    const struct lsi_attention_slots chosen = { .q = q->q,
                                                .out = q->out,
                                                .lse = q->lse,
                                                .H = s->H,
                                                .scale = q->scale,
                                                .per_q = per_q(&cache->spec),
                                                .slots = w.slots,
                                                .first = w.first,
                                                .kv = view(c, layer) };
    const struct lsi_packed_sight sight = { .n_rows = 1, .sinks = true, .chosen = &chosen };
    if (cache->spec.storage)
        lsi_packed_attend(&c->kivi.packed, ex, layer, q, &sight, q->lse);
    else
        lsi_op_attention_slots(ex, &chosen);
    lsi_kept_release(ex, bytes);
}

/* Whether a step reads a part of what the layer holds. */
static bool chooses(const struct lsi_cache *cache, size_t layer)
{
    const size_t n = cache->length + 1, all = in_runs((const struct cache_quest *)cache, layer, n);
    return is_bounded(&cache->shape, &cache->spec, layer) &&
           runs_read(cache, layer, n) < lsi_div_up(all, run_tokens(cache));
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const bool prompt = cache->n_prompt > 0 || q->T > 1;
    if (prompt || !chooses(cache, layer))
        tokens_of(&cache->spec)->attend(cache, ex, layer, q);
    else
        attend_chosen(quest(cache), ex, layer, q, runs_read(cache, layer, cache->length + 1));
}

static void reads(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                  struct lsi_cache_reads *to)
{
    const struct lsi_cache_shape *s = &cache->shape;
    struct cache_quest *c = quest(cache);
    struct workspace w;
    if (!chooses(cache, layer)) {
        lsi_cache_read_all(to, s->H, lsi_cache_window(s, layer));
        return;
    }
    const size_t n = cache->length + 1;
    const size_t bytes = choose_runs(c, ex, layer, q, runs_read(cache, layer, n), &w);
    const struct lsi_cache_read_always always = { .begin = cache->spec.storage ? c->kivi.packed.how.sinks : 0,
                                                  .end = in_runs(c, layer, n) };
    lsi_cache_read_slots(to, s->H, w.slots, w.first, n_sets(s, &cache->spec), &always);
    lsi_kept_release(ex, bytes);
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *s,
                      const struct lsi_cache_spec *spec)
{
    struct workspace w;
    const size_t runs = lsi_div_up(s->n_ctx, (size_t)spec->value[RUN].n);
    const size_t scores = lsi_op_bounds_scores_scratch(ex, s->H, s->D, runs);
    const size_t slots = lsi_op_attention_slots_scratch(ex, s->H, s->G, s->D);
    const size_t attention = lsi_op_attention_scratch(ex, s->n_rows, s->H, s->G, s->D);
    const size_t pack = spec->storage ? spec->storage->scratch(ex, s, spec) : 0;
    return lsi_round_up(lsi_max_size(lsi_max_size(attention, pack), lsi_max_size(scores, slots)),
                        LSI_CACHE_LINE) +
           lsi_round_up(layout(&w, NULL, n_sets(s, spec), runs, runs), LSI_CACHE_LINE);
}

/* ---- the rest of the seam ---------------------------------------------------------------------------------
 */

static ls_status rewind_quest(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    LSI_TRY(tokens_of(&cache->spec)->rewind(cache, n_tokens, err));
    forget(quest(cache), n_tokens);
    if (n_tokens == 0)
        quest(cache)->n_prompt = 0;
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_quest *c = (const struct cache_quest *)cache;
    return tokens_of(&cache->spec)->bytes(cache) + (c->pool ? lsi_page_pool_bytes(c->pool) : 0);
}

/* Query heads with pages of their own may read as many times more. */
static size_t bytes_read(const struct lsi_cache *cache)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const struct cache_quest *c = (const struct cache_quest *)cache;
    const size_t n = cache->length + 1, sets = per_q(&cache->spec) ? s->H / s->G : 1;
    const size_t run_bytes = lsi_bounds_page_bytes(s->G, s->D) / LSI_KV_PAGE;
    size_t total = 0;
    for (size_t l = 0; l < s->L; l++) {
        const size_t some = in_runs(c, l, n), runs = runs_read(cache, l, n) * sets * run_tokens(cache);
        const size_t most = chooses(cache, l) ? runs + n - some : n;
        total +=
            cache->spec.storage ? lsi_kivi_bytes_seen(cache, l, most) : lsi_full_bytes_seen(cache, l, most);
        total += chooses(cache, l) ? some / run_tokens(cache) * run_bytes : 0;
    }
    return total;
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    const size_t length = cache->length, whole = in_runs(c, 0, length) / LSI_KV_PAGE * LSI_KV_PAGE;
    LSI_TRY(tokens_of(&cache->spec)->tile(cache, n_tokens, err));
    forget(c, lsi_min_size(whole, n_tokens)); /* pages in part are replaced by others */
    if (make_room(c, n_tokens, err) != LS_OK) {
        (void)rewind_quest(cache, lsi_min_size(length, n_tokens), NULL);
        return LS_E_NOMEM;
    }
    c->n_prompt = n_tokens;
    return LS_OK;
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    tokens_of(&cache->spec)->commit(cache, n_rows);
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_quest *c = quest(cache);
    LSI_TRY(io->bytes(io, &c->n_prompt, sizeof c->n_prompt, err));
    if (c->n_prompt > UINT32_MAX)
        return lsi_cache_damaged(io, err);
    LSI_TRY(tokens_of(&cache->spec)->state(cache, io, err));
    return io->reading ? make_room(c, cache->length, err) : LS_OK;
}

const struct lsi_cache_policy lsi_cache_quest = {
    .name = "quest",
    .example = "quest:budget=1024  keeps all, reads 1,024 tokens a step",
    .summary = "everything kept, the pages that can hold the best scores attended (Quest)",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .packs = true,
    .plan = plan,
    .plan_prompt = plan_prompt,
    .create = create,
    .free = free_quest,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .reads = reads,
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

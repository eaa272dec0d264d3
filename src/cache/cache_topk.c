/*
 * Oracle top-k: everything is kept, and a step of decoding attends to the k tokens with the largest exact
 * scores. It saves nothing; it is what choosing tokens can reach at best.
 *
 * The set of a query head has the k largest q.k, or (per_group) that of a kv head the k largest sums of
 * probabilities over its query heads. The latest token is always in it, as are `sinks` first and `recent`
 * latest tokens; equal scores: the later token. Layers with a sliding window are attended plainly.
 */
#include "cache/cache_full.h"
#include "cache/kept.h"

#include <math.h>
#include <string.h>

enum {
    K,
    SINKS,
    RECENT,
    SETS,
    RENORM,
    PROMPT
};

static const struct lsi_cache_key keys[] = {
    [K] = { "k", "tokens attended to, or per cent of the tokens so far, rounded up", "10%", 1, INT32_MAX,
            .percent = true },
    [SINKS] = { "sinks", "first tokens that are always among them", "0", 0, INT32_MAX, false, NULL },
    [RECENT] = { "recent", "latest tokens that are always among them, with the current one", "1", 1,
                 INT32_MAX, false, NULL },
    [SETS] = { "sets", "a set for each query head, or one for the query heads of a kv head", "per_q",
               .choices = "per_q|per_group" },
    [RENORM] = { "renorm", "weights of the set sum to 1; no: they stay those of full attention", "yes",
                 .choices = "yes|no" },
    [PROMPT] = { "prompt", "prompts are attended to fully, or each row by the same rule", "dense",
                 .choices = "dense|rows" },
};

/* Memory while one row of a layer is attended; arrays of n tokens for each set. */
struct workspace {
    float *out, *lse;        /* of full attention, [H][D] and [H] */
    float *q;                /* [H][D]: the row, which its output may replace */
    float *scores;           /* [n_sets][n] */
    uint64_t *order;         /* [n] */
    struct lsi_slots *slots; /* [n_sets][n / 2 + 1] */
    size_t *first;           /* [n_sets + 1] */
    float *set_lse;          /* [H] */
};

static bool per_q(const struct lsi_cache_spec *spec)
{
    return spec->value[SETS].n == 0;
}

static size_t n_sets(const struct lsi_cache_shape *s, const struct lsi_cache_spec *spec)
{
    return per_q(spec) ? s->H : s->G;
}

static size_t layout(struct workspace *w, unsigned char *base, const struct lsi_cache_shape *s,
                     const struct lsi_cache_spec *spec, size_t n)
{
    const size_t sets = n_sets(s, spec), cap = SIZE_MAX / 2;
    struct lsi_arena a = { .base = base, .cap = base ? cap : 0 };
    w->out = lsi_arena_take(&a, s->H * s->D, sizeof *w->out);
    w->lse = lsi_arena_take(&a, s->H, sizeof *w->lse);
    w->q = lsi_arena_take(&a, s->H * s->D, sizeof *w->q);
    w->scores = lsi_arena_take(&a, sets * n, sizeof *w->scores);
    w->order = lsi_arena_take(&a, n, sizeof *w->order);
    w->slots = lsi_arena_take(&a, sets * (n / 2 + 1), sizeof *w->slots);
    w->first = lsi_arena_take(&a, sets + 1, sizeof *w->first);
    w->set_lse = lsi_arena_take(&a, s->H, sizeof *w->set_lse);
    return a.used;
}

/* ---- choosing ------------------------------------------------------------------------------- */

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    const struct lsi_cache_value *v = spec->value;
    (void)shape;
    if (v[K].percent < 0 && v[SINKS].n + v[RECENT].n > v[K].n)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv topk: sinks=%lld and recent=%lld are more than k=%lld: make k larger or them "
                        "smaller",
                        (long long)v[SINKS].n, (long long)v[RECENT].n, (long long)v[K].n);
    return LS_OK;
}

/* Tokens of a set, of n; with a percentage those that must be in it may be more than it says. */
static size_t set_size(const struct lsi_cache_spec *spec, size_t n)
{
    const struct lsi_cache_value *v = spec->value;
    const size_t k = v[K].percent < 0 ? (size_t)v[K].n : (size_t)ceil(v[K].percent / 100.0 * (double)n);
    return lsi_min_size(n, lsi_max_size(k, (size_t)(v[SINKS].n + v[RECENT].n)));
}

static bool must(const struct lsi_cache_spec *spec, size_t slot, size_t n)
{
    return slot < (size_t)spec->value[SINKS].n || slot + (size_t)spec->value[RECENT].n >= n;
}

/* Append the set of tokens with the best of n scores as ranges. */
static void choose(const struct lsi_cache_spec *spec, struct workspace *w, const float *score, size_t n,
                   size_t *n_slots)
{
    size_t wanted = set_size(spec, n), candidates = 0, from = n;
    for (size_t s = 0; s < n; s++) {
        if (must(spec, s, n))
            wanted--;
        else
            w->order[candidates++] = lsi_kept_key(score[s], (uint32_t)s);
    }
    const uint64_t least = wanted > 0 ? lsi_kept_threshold(w->order, candidates, wanted) : UINT64_MAX;
    for (size_t s = 0; s <= n; s++) {
        const bool in = s < n && (must(spec, s, n) || lsi_kept_key(score[s], (uint32_t)s) >= least);
        if (in && from == n)
            from = s;
        if (in || from == n)
            continue;
        w->slots[(*n_slots)++] = (struct lsi_slots){ (uint32_t)from, (uint32_t)s };
        from = n;
    }
}

/* ---- attending --------------------------------------------------------------------------------- */

/* The sets of one row of full attention a, which finds its query and its result in the workspace. */
static void choose_sets(const struct lsi_cache *cache, struct lsi_exec *ex, struct workspace *w,
                        struct lsi_attention *a)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const struct lsi_cache_spec *spec = &cache->spec;
    const size_t n = a->slot0 + 1, sets = n_sets(s, spec);
    size_t n_slots = 0;

    memcpy(w->q, a->q, s->H * s->D * sizeof *w->q);
    a->q = w->q;
    a->out = w->out;
    a->lse = w->lse;
    if (spec->value[RENORM].n != 0 || !per_q(spec))
        lsi_op_attention(ex, a);
    if (per_q(spec)) {
        lsi_op_attention_scores(ex, a, w->scores, n);
    } else {
        memset(w->scores, 0, sets * n * sizeof *w->scores);
        lsi_op_attention_sums(ex, a, w->scores, n);
    }
    for (size_t i = 0; i < sets; i++) {
        w->first[i] = n_slots;
        choose(spec, w, w->scores + i * n, n, &n_slots);
    }
    w->first[sets] = n_slots;
}

/* a: full attention of one row. out, lse: where the result goes. */
static void attend_row(const struct lsi_cache *cache, struct lsi_exec *ex, struct workspace *w,
                       struct lsi_attention *a)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const struct lsi_cache_spec *spec = &cache->spec;
    const bool renorm = spec->value[RENORM].n == 0;
    float *out = a->out, *lse = a->lse;

    choose_sets(cache, ex, w, a);
    const struct lsi_attention_slots chosen = { .q = w->q,
                                                .out = out,
                                                .lse = w->set_lse,
                                                .H = s->H,
                                                .scale = a->scale,
                                                .per_q = per_q(spec),
                                                .slots = w->slots,
                                                .first = w->first,
                                                .kv = a->kv };
    lsi_op_attention_slots(ex, &chosen);
    for (size_t h = 0; !renorm && h < s->H; h++) {
        const float mass = expf(w->set_lse[h] - w->lse[h]);
        for (size_t d = 0; d < s->D; d++)
            out[h * s->D + d] *= mass;
    }
    if (lse)
        memcpy(lse, renorm ? w->set_lse : w->lse, s->H * sizeof *lse);
}

/* Whether a row that is token n - 1 has nothing to choose. */
static bool sees_all(const struct lsi_cache *cache, size_t layer, size_t n)
{
    return lsi_cache_window(&cache->shape, layer) > 0 || set_size(&cache->spec, n) >= n;
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const bool prompt = cache->n_prompt > 0 || q->T > 1;
    const size_t n = cache->length + q->T;
    if (sees_all(cache, layer, n) || (prompt && cache->spec.value[PROMPT].n == 0)) {
        lsi_full_attend(cache, ex, layer, q);
        return;
    }
    struct workspace w;
    const size_t bytes = layout(&w, NULL, s, &cache->spec, n);
    layout(&w, lsi_kept_hold(ex, bytes), s, &cache->spec, n);
    for (size_t t = 0; t < q->T; t++) {
        struct lsi_attention a = lsi_full_attention(cache, layer, q);
        a.T = 1;
        a.slot0 += t;
        a.q += t * q->ldq;
        a.out += t * q->ldo;
        a.lse = q->lse ? q->lse + t * s->H : NULL;
        attend_row(cache, ex, &w, &a);
    }
    lsi_kept_release(ex, bytes);
}

static void reads(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                  struct lsi_cache_reads *to)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t n = cache->length + 1;
    if (sees_all(cache, layer, n)) {
        lsi_cache_read_all(to, s->H, lsi_cache_window(s, layer));
        return;
    }
    struct workspace w;
    struct lsi_attention a = lsi_full_attention(cache, layer, q);
    const size_t bytes = layout(&w, NULL, s, &cache->spec, n);
    layout(&w, lsi_kept_hold(ex, bytes), s, &cache->spec, n);
    choose_sets(cache, ex, &w, &a);
    const struct lsi_cache_read_always none = { .end = n };
    lsi_cache_read_slots(to, s->H, w.slots, w.first, n_sets(s, &cache->spec), &none);
    lsi_kept_release(ex, bytes);
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *s,
                      const struct lsi_cache_spec *spec)
{
    struct workspace w;
    const size_t sums = lsi_op_attention_sums_scratch(ex, 1, s->H, s->G, s->D);
    const size_t slots = lsi_op_attention_slots_scratch(ex, s->H, s->G, s->D);
    const size_t attention = lsi_op_attention_scratch(ex, s->n_rows, s->H, s->G, s->D);
    return lsi_round_up(lsi_max_size(attention, lsi_max_size(sums, slots)), LSI_CACHE_LINE) +
           lsi_round_up(layout(&w, NULL, s, spec, s->n_ctx), LSI_CACHE_LINE);
}

/* ---- the rest of the seam -------------------------------------------------------------------------- */

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_full *c;
    LSI_TRY(lsi_full_create(&c, sizeof *c, &lsi_cache_topk, shape, spec, alloc, err));
    *cache = &c->base;
    return LS_OK;
}

static ls_status fork_topk(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    struct lsi_full *c;
    LSI_TRY(lsi_full_copy((const struct lsi_full *)cache, &c, err));
    *copy = &c->base;
    return LS_OK;
}

/* Every key, and the values of the sets. */
static size_t bytes_read(const struct lsi_cache *cache)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t n = cache->length + 1, sets = per_q(&cache->spec) ? s->H / s->G : 1;
    const size_t read = lsi_min_size(n, set_size(&cache->spec, n) * sets);
    size_t bytes = 0;
    for (size_t l = 0; l < s->L; l++) {
        const bool all = lsi_cache_window(s, l) > 0;
        const size_t everything = lsi_full_bytes_seen(cache, l, n);
        bytes += all ? everything : everything / 2 + lsi_full_bytes_seen(cache, l, read) / 2;
    }
    return bytes;
}

const struct lsi_cache_policy lsi_cache_topk = {
    .name = "topk",
    .example = "topk:k=256  how good any choice of 256 tokens could be",
    .summary = "everything kept, the k tokens with the largest scores attended: the ceiling of choosing",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .check = check,
    .plan = lsi_full_plan,
    .create = create,
    .free = lsi_full_free,
    .reserve = lsi_full_reserve,
    .append = lsi_full_append,
    .attend = attend,
    .commit = lsi_full_commit,
    .reads = reads,
    .scratch = scratch,
    .rewind = lsi_full_rewind,
    .bytes = lsi_full_bytes,
    .bytes_read = bytes_read,
    .tile = lsi_full_tile,
    .fork = fork_topk,
    .state = lsi_full_state,
    .kept = lsi_full_kept,
};

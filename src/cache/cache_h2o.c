/*
 * H2O (Zhang et al. 2023): the tokens that attention has looked at most, and the latest.
 *
 * Each slot of a kv head carries the sum of the probabilities it has received from all queries of the head's
 * group,
 *
 *     acc[j] = sum_h sum_{i >= j} p[h][i][j],
 *
 * summed block by block, in a second pass over the scores, once the log-sum-exp of each row is known. At most
 * heavy + recent tokens stay: the `recent` latest, and of the others those with the largest sums (of equal
 * ones the later). The excess is dropped at the end of a prompt, or after every `chunk` of its tokens, and
 * after each step of decoding, where the latest token takes the place of the dropped one: slots are not in
 * order.
 *
 * Over packed storage dropped tokens leave holes (kept.h). `recent` is at least `residual`, so that the exact
 * tail that a step sees has none; a piece of a prompt that is cut (chunk) is packed as a prompt is at its
 * end.
 *
 * The sums of a block are kept apart until the next one begins, and what they cause to be dropped is dropped
 * then: a block that was cancelled or is taken back leaves nothing behind.
 */
#include "cache/kept.h"

#include <math.h>
#include <string.h>

enum {
    HEAVY,
    RECENT,
    SINKS,
    CHUNK,
    NORMALISE,
    VALUES
};

enum {
    ACC,  /* sums of all blocks but the last */
    ADD,  /* of the last block; meaningful while the layer is fresh */
    TURN, /* ACC at the end of the last prompt */
    NORM, /* length of the value vector */
    N_COLS
};

struct cache_h2o {
    struct lsi_kept kept;
    bool *fresh;  /* [L] the last block's sums wait in ADD */
    bool due;     /* with the last block tokens are to be dropped */
    bool dropped; /* tokens have been, since the end of the last prompt */
};

static struct cache_h2o *h2o(struct lsi_cache *c)
{
    return (struct cache_h2o *)c;
}

static const struct lsi_cache_key keys[] = {
    { "heavy", "tokens kept for the attention they have got", "10%", 0, 1 << 30, true, NULL },
    { "recent", "latest tokens, always kept", "10%", 0, 1 << 30, true, NULL },
    { "sinks", "first tokens, never dropped; they count as heavy", "0", 0, 1 << 20, false, NULL },
    { "chunk", "tokens of a prompt after which it is cut to the budget; 0: at its end only", "0", 0, 1 << 30,
      false, NULL },
    { "normalise", "age: attention per query that could have paid it, so that old tokens have no advantage",
      "none", 0, 0, false, "none|age" },
    { "values", "weigh: attention times the length of the value vector", "plain", 0, 0, false,
      "plain|weigh" },
};

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    const struct lsi_cache_value *v = spec->value;
    const struct lsi_packing how = lsi_packing_of(spec);
    (void)shape;
    if (spec->storage && v[RECENT].percent < 0 && (size_t)v[RECENT].n < how.R)
        return lsi_fail(
            err, LS_E_INVAL,
            "--kv h2o+kivi: recent=%lld is less than residual=%zu, the tokens that stay exact: take "
            "recent=%zu or more, or a smaller residual",
            (long long)v[RECENT].n, how.R, how.R);
    if (spec->storage && how.sinks > (size_t)v[SINKS].n)
        return lsi_fail(
            err, LS_E_INVAL,
            "--kv h2o+kivi: %zu sinks that stay exact must not be dropped: say sinks=%zu before the "
            "'+' too",
            how.sinks, how.sinks);
    if (v[HEAVY].percent < 0 && v[RECENT].percent < 0 && v[HEAVY].n + v[RECENT].n == 0)
        return lsi_fail(err, LS_E_INVAL, "--kv h2o: heavy and recent are both 0: keep at least one token");
    if (v[HEAVY].percent < 0 && v[SINKS].n > v[HEAVY].n)
        return lsi_fail(err, LS_E_INVAL, "--kv h2o: sinks is %lld and heavy %lld: sinks are part of heavy",
                        (long long)v[SINKS].n, (long long)v[HEAVY].n);
    if (v[HEAVY].percent >= 0 && v[RECENT].percent >= 0 && v[HEAVY].percent + v[RECENT].percent > 100)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv h2o: heavy and recent are more than the whole prompt: take less");
    return LS_OK;
}

/* ---- whom to keep -------------------------------------------------------------------------- */

/* The latest tokens that are never dropped. */
static size_t recent_of(const struct lsi_kept *k)
{
    return lsi_max_size(lsi_kept_value(k, RECENT), lsi_kept_packs(k) ? k->packed.how.R : 0);
}

/* Tokens that a layer may keep; budgets are resolved. */
static size_t budget_of(const struct lsi_kept *k)
{
    return lsi_max_size(lsi_kept_value(k, HEAVY), lsi_kept_value(k, SINKS)) + recent_of(k);
}

/* Tokens of a layer that are to go, now that the budget is known and may be enforced. */
static size_t excess(const struct cache_h2o *c, const struct lsi_kept_layer *l)
{
    const size_t budget = budget_of(&c->kept), held = lsi_kept_held(l);
    return held > budget ? held - budget : 0;
}

/* The columns of a kv head, and which of its tokens may go: sinks <= pos < recent. */
struct head {
    const uint32_t *pos;
    const float *acc, *add, *norm; /* add, norm: NULL when they do not count */
    uint32_t sinks, recent, length;
    bool age;
};

static struct head head(const struct cache_h2o *c, size_t layer, size_t g)
{
    const struct lsi_kept *k = &c->kept;
    const struct lsi_kept_layer *l = &k->layers[layer];
    const size_t length = k->base.length;
    return (struct head){
        .pos = lsi_kept_pos(l, g),
        .acc = lsi_kept_col(k, l, ACC, g),
        .add = c->fresh[layer] ? lsi_kept_col(k, l, ADD, g) : NULL,
        .norm = k->base.spec.value[VALUES].n == 1 ? lsi_kept_col(k, l, NORM, g) : NULL,
        .sinks = (uint32_t)lsi_kept_value(k, SINKS),
        .recent = (uint32_t)(length - lsi_min_size(length, recent_of(k))),
        .length = (uint32_t)length,
        .age = k->base.spec.value[NORMALISE].n == 1,
    };
}

/* Holes are beyond every place of a token, and are left alone. */
static bool protected(const struct head *h, size_t s)
{
    return (h->pos[s] < h->sinks) | (h->pos[s] >= h->recent);
}

/* Scores of slots s .. s + n - 1. */
static void scores(const struct head *h, size_t s, size_t n, float *x)
{
    memcpy(x, h->acc + s, n * sizeof *x);
    for (size_t i = 0; h->add && i < n; i++)
        x[i] += h->add[s + i];
    for (size_t i = 0; h->age && i < n; i++)
        x[i] /= (float)(h->length - h->pos[s + i]);
    for (size_t i = 0; h->norm && i < n; i++)
        x[i] *= h->norm[s + i];
}

static uint64_t key(const struct head *h, size_t s)
{
    float score;
    scores(h, s, 1, &score);
    return lsi_kept_key(score, h->pos[s]);
}

/*
 * The slot of the lowest key. Every head of every layer is asked at each step: the inner loop is one that
 * compilers make vectors of. Scores are not negative, so their bits are in the order of the scores.
 */
static size_t weakest(const struct cache_h2o *c, size_t layer, size_t g)
{
    enum {
        RUN = 256
    };
    const struct head h = head(c, layer, g);
    const size_t n = c->kept.layers[layer].n;
    uint64_t low = UINT64_MAX;
    size_t at = SIZE_MAX;
    for (size_t s = 0; s < n; s += RUN) {
        const size_t run = lsi_min_size(RUN, n - s);
        union {
            float score[RUN];
            int32_t bits[RUN];
        } x;
        int32_t least = INT32_MAX;
        scores(&h, s, run, x.score);
        for (size_t i = 0; i < run; i++) {
            x.bits[i] = protected(&h, s + i) ? INT32_MAX : x.bits[i];
            least = x.bits[i] < least ? x.bits[i] : least;
        }
        for (size_t i = 0; (uint64_t)least << 32 < low && i < run; i++)
            if (x.bits[i] == least && least < INT32_MAX) {
                const uint64_t lowest = (uint64_t)least << 32 | h.pos[s + i];
                if (lowest < low) {
                    low = lowest;
                    at = s + i;
                }
            }
    }
    return at;
}

/* Keep all but the weakest `drop` of a kv head. order, slots: [n]. */
static void select_slots(struct cache_h2o *c, struct lsi_exec *ex, size_t layer, size_t g, size_t drop,
                         uint64_t *order, uint32_t *slots)
{
    const size_t n = c->kept.layers[layer].n;
    const struct head h = head(c, layer, g);
    size_t candidates = 0, kept = 0;
    for (size_t s = 0; s < n; s++)
        if (!protected(&h, s))
            order[candidates++] = key(&h, s);
    LSI_ASSERT(candidates >= drop);
    const uint64_t least =
        candidates > drop ? lsi_kept_threshold(order, candidates, candidates - drop) : UINT64_MAX;
    for (size_t s = 0; s < n; s++)
        if (h.pos[s] != LSI_KEPT_HOLE && (protected(&h, s) || key(&h, s) >= least))
            slots[kept++] = (uint32_t)s;
    lsi_kept_retain(&c->kept, ex, layer, g, slots, kept);
}

static void drop_slots(struct cache_h2o *c, struct lsi_exec *ex, size_t layer, size_t drop)
{
    struct lsi_kept_layer *l = &c->kept.layers[layer];
    const size_t bytes = l->n * (sizeof(uint64_t) + sizeof(uint32_t));
    if (!lsi_kept_own(&c->kept, layer))
        return; /* no memory for copies of shared pages: what is too much stays until the next time */
    if (drop == 1) {
        for (size_t g = 0; g < c->kept.base.shape.G; g++)
            lsi_kept_drop(&c->kept, ex, layer, g, weakest(c, layer, g));
    } else {
        uint64_t *order = lsi_kept_hold(ex, bytes);
        for (size_t g = 0; g < c->kept.base.shape.G; g++)
            select_slots(c, ex, layer, g, drop, order, (uint32_t *)(order + l->n));
        lsi_kept_release(ex, bytes);
    }
    lsi_kept_dropped(&c->kept, ex, layer, drop);
    if (lsi_kept_packs(&c->kept) && l->holes > 0 && l->n % c->kept.packed.how.group == 0)
        lsi_kept_compact(&c->kept, ex, layer);
    c->dropped = true;
}

/* Add the sums of the last block to those before it, and drop what is due. It cannot be taken back then. */
static void finish_block(struct cache_h2o *c, struct lsi_exec *ex, size_t layer)
{
    struct lsi_kept *k = &c->kept;
    struct lsi_kept_layer *l = &k->layers[layer];
    k->block = 0;
    if (!c->fresh[layer])
        return;
    for (size_t g = 0; g < k->base.shape.G; g++) {
        float *acc = lsi_kept_col(k, l, ACC, g);
        const float *add = lsi_kept_col(k, l, ADD, g);
        for (size_t s = 0; s < l->n; s++)
            acc[s] += add[s];
    }
    c->fresh[layer] = false;
    const size_t drop = c->due ? excess(c, l) : 0;
    if (drop > 0)
        drop_slots(c, ex, layer, drop);
}

/* ---- life --------------------------------------------------------------------------------------- */

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    return lsi_kept_plan(shape, spec, N_COLS, n_tokens);
}

static void free_h2o(struct lsi_cache *cache)
{
    if (!cache)
        return;
    lsi_free(cache->alloc, h2o(cache)->fresh, cache->shape.L * sizeof(bool));
    lsi_kept_free(&h2o(cache)->kept);
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_kept *k;
    LSI_TRY(lsi_kept_create(&k, sizeof(struct cache_h2o), N_COLS, &lsi_cache_h2o, shape, spec, alloc, err));
    struct cache_h2o *c = h2o(&k->base);
    c->fresh = lsi_calloc(alloc, shape->L, sizeof *c->fresh);
    if (!c->fresh) {
        free_h2o(&k->base);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    }
    *cache = &k->base;
    return LS_OK;
}

static ls_status fork_h2o(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_h2o *from = (const struct cache_h2o *)cache;
    struct lsi_kept *k = lsi_kept_fork(&from->kept);
    if (k) {
        struct cache_h2o *c = h2o(&k->base);
        c->fresh = lsi_calloc(cache->alloc, cache->shape.L, sizeof *c->fresh);
        if (c->fresh) {
            memcpy(c->fresh, from->fresh, cache->shape.L * sizeof *c->fresh);
            *copy = &k->base;
            return LS_OK;
        }
        free_h2o(&k->base);
    }
    return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct lsi_kept *k = &h2o(cache)->kept;
    size_t most = 0;
    for (size_t l = 0; l < cache->shape.L; l++)
        if (!lsi_kept_slides(k, l))
            most = lsi_max_size(most, k->layers[l].n);
    const size_t budget = k->resolved ? budget_of(k) : 0;
    if (lsi_kept_packs(k) && k->resolved)
        k->packed.limit = budget;
    LSI_TRY(lsi_kept_reserve(k, n_rows, most + n_rows > budget, err));
    if (cache->n_prompt > 0 && !k->resolved)
        lsi_kept_resolve(k, cache->n_prompt);
    return LS_OK;
}

static size_t block_rows(const struct lsi_cache *cache)
{
    const struct lsi_kept *k = &((const struct cache_h2o *)cache)->kept;
    const size_t chunk = (size_t)cache->spec.value[CHUNK].n;
    return chunk > 0 ? chunk - lsi_kept_prompt_rows(k) % chunk : SIZE_MAX;
}

static float length_of(const float *v, size_t D)
{
    float sum = 0;
    for (size_t d = 0; d < D; d++)
        sum += v[d] * v[d];
    return sqrtf(sum);
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_h2o *c = h2o(cache);
    const struct lsi_kept_layer *l = &c->kept.layers[layer];
    const size_t D = cache->shape.D;
    finish_block(c, ex, layer);
    lsi_kept_append(&c->kept, ex, layer, k, ldk, v, ldv, n_rows);
    for (size_t g = 0; cache->spec.value[VALUES].n == 1 && g < cache->shape.G; g++)
        for (size_t t = 0; t < n_rows; t++)
            lsi_kept_col(&c->kept, l, NORM, g)[l->n + t] = length_of(v + t * ldv + g * D, D);
}

/* Bytes held while rows are attended: queries, which the output may replace, and their log-sum-exp. */
static size_t row_bytes(const struct lsi_cache_shape *s)
{
    return s->H * (s->D + 1) * sizeof(float);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const struct lsi_cache_shape *s = &cache->shape;
    struct cache_h2o *c = h2o(cache);
    if (lsi_kept_slides(&c->kept, layer)) {
        lsi_kept_attend(&c->kept, ex, layer, q, q->lse);
        return;
    }
    const struct lsi_kept_layer *l = &c->kept.layers[layer];
    const size_t n_cols = s->H * s->D, bytes = q->T * row_bytes(s);
    float *held = lsi_kept_hold(ex, bytes);
    for (size_t t = 0; t < q->T; t++)
        memcpy(held + t * n_cols, q->q + t * q->ldq, n_cols * sizeof *held);
    struct lsi_cache_query copy = *q;
    copy.q = held;
    copy.ldq = n_cols;
    float *lse = q->lse ? q->lse : held + q->T * n_cols;
    lsi_kept_attend(&c->kept, ex, layer, &copy, lse);
    for (size_t g = 0; g < s->G; g++)
        memset(lsi_kept_col(&c->kept, l, ADD, g), 0, (l->n + q->T) * sizeof(float));
    lsi_kept_sums(&c->kept, ex, layer, &copy, lse, lsi_kept_col(&c->kept, l, ADD, 0), l->cap);
    lsi_kept_release(ex, bytes);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    struct cache_h2o *c = h2o(cache);
    struct lsi_kept *k = &c->kept;
    for (size_t i = 0; i < cache->shape.L; i++) {
        const struct lsi_kept_layer *l = &k->layers[i];
        for (size_t g = 0; g < cache->shape.G; g++)
            memset(lsi_kept_col(k, l, ACC, g) + l->n, 0, n_rows * sizeof(float));
        c->fresh[i] = !lsi_kept_slides(k, i);
    }
    lsi_kept_commit(k, n_rows);
    const size_t chunk = (size_t)cache->spec.value[CHUNK].n;
    c->due = k->resolved && (!k->prompt || (chunk > 0 && lsi_kept_prompt_rows(k) % chunk == 0));
    k->piece = k->prompt && c->due;
}

static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    struct cache_h2o *c = h2o(cache);
    struct lsi_kept *k = &c->kept;
    if (!k->resolved)
        lsi_kept_resolve(k, lsi_kept_prompt_rows(k));
    c->due = true;
    for (size_t i = 0; i < cache->shape.L; i++) {
        const struct lsi_kept_layer *l = &k->layers[i];
        finish_block(c, ex, i);
        if (lsi_kept_slides(k, i))
            lsi_kept_slide(k, i);
        for (size_t g = 0; g < cache->shape.G; g++)
            memcpy(lsi_kept_col(k, l, TURN, g), lsi_kept_col(k, l, ACC, g), l->n * sizeof(float));
    }
    lsi_kept_settle(k, ex);
    lsi_kept_end_turn(k);
    c->dropped = false;
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *s,
                      const struct lsi_cache_spec *spec)
{
    const size_t rows = s->n_rows, choose = s->n_ctx * (sizeof(uint64_t) + sizeof(uint32_t));
    const size_t pack = spec->storage ? lsi_packed_scratch(ex, s) : 0;
    const size_t ops = lsi_max_size(lsi_op_attention_scratch(ex, rows, s->H, s->G, s->D),
                                    lsi_op_attention_sums_scratch(ex, rows, s->H, s->G, s->D));
    return lsi_round_up(lsi_max_size(ops, pack), LSI_CACHE_LINE) +
           lsi_round_up(lsi_max_size(rows * row_bytes(s), choose), LSI_CACHE_LINE) +
           lsi_kept_hold_bytes(s, spec);
}

/* ---- the rest of the seam ------------------------------------------------------------------------------ */

static ls_status rewind_h2o(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_h2o *c = h2o(cache);
    struct lsi_kept *k = &c->kept;
    const size_t length = cache->length;
    LSI_TRY(lsi_cache_check_rewind(cache, n_tokens, err));
    if (n_tokens == length && length > 0)
        return LS_OK;
    if (n_tokens == 0) {
        lsi_kept_clear(k); /* of a prompt that was cancelled in its first block, the shares may be known */
    } else if (k->block > 0 && n_tokens == length - k->block && lsi_kept_can_cut(k, k->block)) {
        lsi_kept_cut(k, k->block);
    } else if (n_tokens == k->turn && !c->dropped && lsi_kept_can_cut_to_turn(k)) {
        lsi_kept_cut_to_turn(k);
        for (size_t i = 0; i < cache->shape.L; i++)
            for (size_t g = 0; g < cache->shape.G; g++)
                memcpy(lsi_kept_col(k, &k->layers[i], ACC, g), lsi_kept_col(k, &k->layers[i], TURN, g),
                       k->layers[i].n * sizeof(float));
    } else {
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "h2o cannot go back from %zu tokens to %zu: it has counted the attention of those after; "
            "begin anew, from 0",
            length, n_tokens);
    }
    memset(c->fresh, 0, cache->shape.L * sizeof *c->fresh);
    c->dropped = c->dropped && n_tokens > k->turn;
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    return lsi_kept_bytes(&((const struct cache_h2o *)cache)->kept);
}

static size_t bytes_read(const struct lsi_cache *cache)
{
    return lsi_kept_bytes_read(&((const struct cache_h2o *)cache)->kept);
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct lsi_kept *k = &h2o(cache)->kept;
    lsi_kept_resolve(k, n_tokens);
    const size_t recent = recent_of(k), keep = lsi_kept_value(k, HEAVY) + recent;
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(lsi_kept_tile(k, l, n_tokens, keep, recent, err));
    cache->length = n_tokens;
    memset(h2o(cache)->fresh, 0, cache->shape.L * sizeof(bool));
    h2o(cache)->dropped = true; /* there is nothing to go back to but the beginning */
    lsi_kept_end_turn(k);
    return LS_OK;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_h2o *c = h2o(cache);
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(lsi_cache_io_flag(io, &c->fresh[l], err));
    LSI_TRY(lsi_cache_io_flag(io, &c->due, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->dropped, err));
    LSI_TRY(lsi_kept_state(&c->kept, io, err));
    if (!io->reading)
        return LS_OK;
    bool ok = (c->kept.resolved || !c->due) && (c->dropped || lsi_kept_whole_since_turn(&c->kept));
    for (size_t l = 0; l < cache->shape.L; l++)
        ok = ok && !(c->fresh[l] && lsi_kept_slides(&c->kept, l));
    return ok ? LS_OK : lsi_cache_damaged(io, err);
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    const struct cache_h2o *c = (const struct cache_h2o *)cache;
    const struct lsi_kept_layer *l = &c->kept.layers[layer];
    const bool one = c->fresh[layer] && c->due && excess(c, l) == 1;
    return lsi_kept_tokens(&c->kept, layer, g, one ? weakest(c, layer, g) : SIZE_MAX, pos);
}

const struct lsi_cache_policy lsi_cache_h2o = {
    .name = "h2o",
    .summary = "the tokens that have got most attention, and the latest (H2O)",
    .example = "h2o:heavy=10%,recent=10%  a fifth of the prompt, chosen by the attention it has got",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .packs = true,
    .check = check,
    .plan = plan,
    .create = create,
    .free = free_h2o,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .settle = settle,
    .block_rows = block_rows,
    .scratch = scratch,
    .rewind = rewind_h2o,
    .bytes = bytes,
    .bytes_read = bytes_read,
    .tile = tile,
    .fork = fork_h2o,
    .state = state,
    .kept = kept,
};

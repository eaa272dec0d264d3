/*
 * StreamingLLM (arXiv 2309.17453): the first tokens of the sequence, which attract attention whatever they
 * say, and the most recent ones; what lies between is forgotten.
 *
 * Token t sees the S sinks, the R tokens before it and itself, at positions that count what is cached: sinks
 * 0 .. S-1, recent tokens S .. m-1 and itself m = min(t, S + R). Recent tokens are as far from t as they were
 * in the text, so only the sinks look different: they are stored as they were rotated at their own index,
 * recent keys at theirs in the text, and a query is rotated twice,
 *
 *     at t for recent keys and its own        at m for the sinks
 *
 * whose two results are merged by their log-sum-exp. Up to t = S + R the two positions are the same, and the
 * row is attended as in a full cache. Layers with a sliding window keep it, at the positions of the text,
 * whatever S and R are.
 *
 * Where the tokens lie is a storage's business (cache_streaming.h). Over packed storage `recent` is rounded
 * up to a block of tokens that share their scales; a prompt sees its window exactly.
 */
#include "cache/cache_streaming.h"

#include <string.h>

enum key {
    SINK,
    RECENT,
    PROMPT,
    SELF,
};
enum {
    PROMPT_WINDOWED,
    PROMPT_DENSE,
};

static const struct lsi_cache_key keys[] = {
    [SINK] = { "sink", "tokens kept from the beginning", "4", 0, 1 << 20, false, NULL },
    [RECENT] = { "recent", "tokens kept before the newest", "1020", 1, 1 << 30, true, NULL },
    [PROMPT] = { "prompt",
                 "how a prompt is read: every token through the window, or all of it at once and cut "
                 "afterwards",
                 "windowed", 0, 0, false, "windowed|dense" },
    [SELF] = { "self", "the newest token is one of the recent ones, as in some other programs", "no", 0, 0,
               false, "no|yes" },
};

static struct lsi_streaming *streaming(struct lsi_cache *c)
{
    return (struct lsi_streaming *)c;
}

static const struct lsi_streaming *streaming_const(const struct lsi_cache *c)
{
    return (const struct lsi_streaming *)c;
}

static const struct lsi_streaming_storage *storage_of(const struct lsi_cache_spec *spec)
{
    return spec->storage ? &lsi_streaming_packed : &lsi_streaming_ring;
}

/* ---- sizes ------------------------------------------------------------------------------ */

static size_t recent_tokens(const struct lsi_cache_spec *spec, size_t n_prompt)
{
    const size_t all = lsi_cache_tokens(&spec->value[RECENT], n_prompt),
                 n = spec->value[SELF].n ? all - 1 : all;
    return spec->storage ? lsi_round_up(n, lsi_packing_of(spec).group) : n;
}

size_t lsi_streaming_reach(const struct lsi_cache_shape *shape, size_t R)
{
    size_t most = R;
    for (size_t l = 0; l < shape->L; l++) /* a window counts the newest token */
        most = lsi_max_size(most, lsi_max_size(lsi_cache_window(shape, l), 1) - 1);
    return most;
}

/* What the storage is told: sinks and window are the policy's. */
static struct lsi_packing packing(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                                  size_t R)
{
    struct lsi_packing how = lsi_packing_of(spec);
    how.sinks = (size_t)spec->value[SINK].n;
    how.window = lsi_streaming_reach(shape, R);
    how.at_once = spec->value[PROMPT].n == PROMPT_DENSE;
    return how;
}

static ls_status check_window(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                              size_t S, size_t R, ls_error *err)
{
    const size_t limit = lsi_streaming_positions(shape),
                 residual = spec->storage ? lsi_packing_of(spec).R : 0;
    if (spec->storage && R <= residual)
        return lsi_fail(
            err, LS_E_INVAL,
            "--kv streaming+kivi: all of recent=%zu would stay exact with residual=%zu: take recent=%zu "
            "or more, or a smaller residual",
            R, residual, residual + 1);
    if (S + R + 1 <= limit)
        return LS_OK;
    if (S + 2 > limit)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv streaming: %zu sinks leave no room in the %zu tokens that the "
                        "model was trained for: take a smaller sink=",
                        S, limit);
    return lsi_fail(
        err, LS_E_INVAL,
        "--kv streaming: a token would see %zu (sink + recent + itself) and the model was trained for "
        "%zu: take recent=%zu or less",
        S + R + 1, limit, limit - S - 1);
}

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    const size_t S = (size_t)spec->value[SINK].n;
    if (spec->storage && lsi_packing_of(spec).sinks > 0)
        return lsi_fail(
            err, LS_E_INVAL,
            "--kv streaming+kivi: the exact sinks are those of streaming: say sink=%zu there, and "
            "no sinks= behind kivi",
            lsi_packing_of(spec).sinks);
    if (spec->storage && S > LSI_PACKED_SINKS)
        return lsi_fail(err, LS_E_INVAL, "--kv streaming+kivi: sink=%zu is too many: take %d or less", S,
                        LSI_PACKED_SINKS);
    if (spec->value[RECENT].percent >= 0) /* known with the first prompt */
        return LS_OK;
    return check_window(shape, spec, S, recent_tokens(spec, 0), err);
}

static size_t plan_prompt(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt)
{
    const size_t prompt = lsi_min_size(n_prompt > 0 ? n_prompt : n_tokens, shape->n_ctx);
    const struct lsi_packing how = packing(shape, spec, recent_tokens(spec, prompt));
    return storage_of(spec)->plan(shape, &how, n_tokens, n_prompt);
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    return plan_prompt(shape, spec, n_tokens, 0);
}

/* ---- life --------------------------------------------------------------------------------- */

static void free_streaming(struct lsi_cache *cache)
{
    if (cache)
        streaming(cache)->storage->owner->free(cache);
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    const size_t R = recent_tokens(spec, 1);
    const struct lsi_packing how = packing(shape, spec, R);
    struct lsi_streaming *c;
    LSI_TRY(storage_of(spec)->create(&c, shape, spec, &how, alloc, err));
    c->storage = storage_of(spec);
    c->recent = spec->value[RECENT];
    c->S = how.sinks;
    c->R = R;
    c->first = lsi_streaming_sink_pages(c->S);
    *cache = &c->base;
    return LS_OK;
}

static ls_status fork_streaming(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct lsi_streaming *from = streaming_const(cache);
    struct lsi_streaming *c;
    LSI_TRY(from->storage->copy(from, &c, err));
    c->storage = from->storage;
    c->recent = from->recent;
    c->S = from->S;
    c->R = from->R;
    c->first = from->first;
    c->start = from->start;
    c->open = from->open;
    *copy = &c->base;
    return LS_OK;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Sizes that are shares of the first prompt are known when it comes. */
static ls_status begin(struct lsi_streaming *c, ls_error *err)
{
    const size_t n = lsi_cache_tokens(&c->recent, lsi_max_size(c->base.n_prompt, 1));
    c->base.spec.value[RECENT] = (struct lsi_cache_value){ .n = (int64_t)n, .percent = -1 };
    c->R = recent_tokens(&c->base.spec, 0);
    return check_window(&c->base.shape, &c->base.spec, c->S, c->R, err);
}

/* A prompt that is read at once has a position for each of its tokens. */
static ls_status open_prompt(struct lsi_streaming *c, ls_error *err)
{
    const size_t cached = lsi_min_size(c->base.length, c->S + c->R),
                 limit = lsi_streaming_positions(&c->base.shape);
    if (c->base.n_prompt > limit - lsi_min_size(limit, cached))
        return lsi_fail(
            err, LS_E_LIMIT,
            "a prompt of %zu tokens after %zu cached ones does not fit the %zu that the model was "
            "trained for: --kv streaming:prompt=windowed reads prompts of any length",
            c->base.n_prompt, cached, limit);
    c->open = true;
    c->start = c->base.length;
    return LS_OK;
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct lsi_streaming *c = streaming(cache);
    if (cache->length == 0)
        LSI_TRY(begin(c, err));
    if (cache->n_prompt > 0 && !c->open && cache->spec.value[PROMPT].n == PROMPT_DENSE)
        LSI_TRY(open_prompt(c, err));
    if (!c->storage->reserve(c, n_rows))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu recent tokens", c->R);
    return LS_OK;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct lsi_streaming *c = streaming(cache);
    c->storage->append(c, ex, layer, k, ldk, v, ldv, n_rows);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    streaming(cache)->storage->owner->commit(cache, n_rows);
}

static void close_prompt(struct lsi_streaming *c)
{
    c->open = false;
    c->start = 0;
}

static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    struct lsi_streaming *c = streaming(cache);
    close_prompt(c);
    c->storage->settle(c, ex);
}

/* ---- attention -------------------------------------------------------------------------------- */

/* Rows row .. row + n - 1 of a query see tokens from `from` on, at most `window` of them (0: all). */
static void attend_recent(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                          const struct lsi_cache_query *q, size_t row, size_t n, size_t from, size_t window,
                          float *lse)
{
    const struct lsi_packed_sight sight = {
        .row = row, .n_rows = n, .from = from, .window = window, .sinks = from == 0
    };
    c->storage->attend(c, ex, layer, q, &sight, lse);
}

/* What attention to the sinks takes besides the scratch of the operations, which lies before it. */
struct sink_rows {
    float *q;        /* [n][H*D] queries at the position of the cache; then what they found */
    float *lse;      /* [n][H] */
    float *all_lse;  /* [n][H] of the recent tokens, where the caller wants none */
    int64_t *offset; /* [n] from the position in the text to that in the cache */
};

static void layout_sink_rows(struct lsi_arena *a, struct sink_rows *s, const struct lsi_cache_shape *shape,
                             size_t n)
{
    s->q = lsi_arena_take(a, n * shape->H * shape->D, sizeof(float));
    s->lse = lsi_arena_take(a, n * shape->H, sizeof(float));
    s->all_lse = lsi_arena_take(a, n * shape->H, sizeof(float));
    s->offset = lsi_arena_take(a, n, sizeof(int64_t));
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *shape,
                      const struct lsi_cache_spec *spec)
{
    struct lsi_arena count = { 0 };
    struct sink_rows s;
    const size_t pack = spec->storage ? lsi_packed_scratch(ex, shape) : 0;
    layout_sink_rows(&count, &s, shape, shape->n_rows);
    return lsi_max_size(pack, lsi_op_attention_scratch(ex, shape->n_rows, shape->H, shape->G, shape->D) +
                                  count.used + 64);
}

/* At the end of the scratch: operations use it from the beginning. */
static struct sink_rows take_sink_rows(const struct lsi_exec *ex, const struct lsi_cache_shape *shape,
                                       size_t n)
{
    struct lsi_arena count = { 0 };
    struct sink_rows s;
    layout_sink_rows(&count, &s, shape, n);
    LSI_ASSERT(count.used <= ex->scratch.cap);
    struct lsi_arena tail = { .base = ex->scratch.base + (ex->scratch.cap - count.used) / 64 * 64,
                              .cap = count.used };
    layout_sink_rows(&tail, &s, shape, n);
    return s;
}

/* The rows' queries at their positions in the cache. */
static void turn_queries(const struct lsi_streaming *c, struct lsi_exec *ex, const struct lsi_cache_query *q,
                         size_t row, size_t n, const struct sink_rows *s)
{
    const struct lsi_cache_shape *shape = &c->base.shape;
    const size_t n_cols = shape->H * shape->D;

    for (size_t i = 0; i < n; i++) {
        const size_t t = c->base.length + row + i, m = c->S + c->R + (c->open ? t - c->start : 0);
        memcpy(s->q + i * n_cols, q->q + (row + i) * q->ldq, n_cols * sizeof *s->q);
        s->offset[i] = (int64_t)m - (int64_t)t;
    }
    if (!q->rope)
        return;
    /* What was scaled once is not scaled again; stored vectors have the half layout. */
    const struct lsi_rope rope = { .inv_freq = q->rope->inv_freq, .mscale = 1 };
    lsi_op_rope_at(ex, s->q, n, shape->H, shape->D, n_cols, &rope, s->offset);
}

static void attend_sinks(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                         const struct lsi_cache_query *q, size_t n, const struct sink_rows *s)
{
    const struct lsi_cache_shape *shape = &c->base.shape;
    const struct lsi_attention a = {
        .q = s->q,
        .out = s->q,
        .lse = s->lse,
        .ldq = shape->H * shape->D,
        .ldo = shape->H * shape->D,
        .T = n,
        .H = shape->H,
        .slot0 = c->S - 1,
        .end = c->S,
        .scale = q->scale,
        .kv = c->storage->sinks(c, layer),
    };
    lsi_op_attention(ex, &a);
}

/* Rows from `row` on, between whose sinks and recent tokens something has been dropped. */
static void attend_parts(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                         const struct lsi_cache_query *q, size_t row)
{
    const struct lsi_cache_shape *shape = &c->base.shape;
    const size_t n = q->T - row, window = c->open ? 0 : c->R + 1;
    const size_t from = c->open ? c->start - c->R : c->S;
    float *lse = q->lse ? q->lse + row * shape->H : NULL;

    if (c->S == 0) {
        attend_recent(c, ex, layer, q, row, n, from, window, lse);
        return;
    }
    const struct sink_rows s = take_sink_rows(ex, shape, n);
    if (!lse)
        lse = s.all_lse;
    turn_queries(c, ex, q, row, n, &s); /* before the output, which may take the queries' place */
    attend_recent(c, ex, layer, q, row, n, from, window, lse);
    attend_sinks(c, ex, layer, q, n, &s);
    lsi_op_attention_merge(ex, q->out + row * q->ldo, q->ldo, lse, s.q, shape->H * shape->D, s.lse, n,
                           shape->H, shape->D);
}

/* How many of the T rows see everything before them. */
static size_t whole_rows(const struct lsi_streaming *c, size_t T)
{
    const size_t most = c->S + c->R;
    if (c->open)
        return c->start <= most ? T : 0;
    return c->base.length > most ? 0 : lsi_min_size(T, most + 1 - c->base.length);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    struct lsi_streaming *c = streaming(cache);
    const size_t whole = q->window > 0 ? q->T : whole_rows(c, q->T);
    if (whole > 0)
        attend_recent(c, ex, layer, q, 0, whole, 0, q->window, q->lse);
    if (whole < q->T)
        attend_parts(c, ex, layer, q, whole);
}

/* ---- going back --------------------------------------------------------------------------------- */

static ls_status rewind_streaming(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct lsi_streaming *c = streaming(cache);
    LSI_TRY(lsi_cache_check_rewind(cache, n_tokens, err));
    LSI_TRY(c->storage->cut(c, n_tokens, err));
    cache->length = n_tokens;
    close_prompt(c);
    return LS_OK;
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct lsi_streaming *c = streaming(cache);
    if (cache->length < LSI_KV_PAGE)
        return lsi_fail(err, LS_E_INVAL, "repeating a cache takes at least %d tokens in it, it holds %zu",
                        LSI_KV_PAGE, cache->length);
    if (n_tokens <= cache->length)
        return rewind_streaming(cache, n_tokens, err);
    LSI_TRY(c->storage->tile(c, n_tokens, err));
    cache->length = n_tokens;
    return LS_OK;
}

/* ---- the rest ------------------------------------------------------------------------------------- */

static size_t bytes(const struct lsi_cache *cache)
{
    return streaming_const(cache)->storage->owner->bytes(cache);
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    const struct lsi_streaming *c = streaming_const(cache);
    const size_t t = cache->length, window = lsi_cache_window(&cache->shape, layer);
    const bool whole = window > 0 || t <= c->S + c->R;
    const size_t n = window > 0 ? lsi_min_size(window - 1, t) : whole ? t : c->R;
    const size_t sinks = whole ? 0 : c->S;
    (void)g;
    for (size_t i = 0; pos && i < sinks; i++)
        pos[i] = (int64_t)i;
    for (size_t i = 0; pos && i < n; i++)
        pos[sinks + i] = (int64_t)(t - n + i);
    return sinks + n;
}

static size_t bytes_read(const struct lsi_cache *cache)
{
    const struct lsi_streaming *c = streaming_const(cache);
    size_t total = 0;
    for (size_t l = 0; l < cache->shape.L; l++)
        total += c->storage->bytes_read(c, l, kept(cache, l, 0, NULL) + 1);
    return total;
}

static bool plausible(const struct lsi_streaming *c)
{
    const struct lsi_cache *base = &c->base;
    return base->length <= SIZE_MAX / 2 && c->start <= base->length &&
           c->R == recent_tokens(&base->spec, 1) && (!c->open || base->spec.value[PROMPT].n == PROMPT_DENSE);
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct lsi_streaming *c = streaming(cache);
    struct lsi_cache_value asked[LSI_CACHE_KEYS];
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    memcpy(asked, cache->spec.value, sizeof asked);
    asked[RECENT] = c->recent;
    LSI_TRY(lsi_cache_io_values(io, cache->policy, asked, cache->spec.value, err));
    LSI_TRY(io->bytes(io, &c->R, sizeof c->R, err));
    LSI_TRY(io->bytes(io, &c->first, sizeof c->first, err));
    LSI_TRY(io->bytes(io, &c->start, sizeof c->start, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->open, err));
    if (io->reading && !plausible(c))
        return lsi_cache_damaged(io, err);
    if (io->reading && check_window(&cache->shape, &cache->spec, c->S, c->R, NULL) != LS_OK)
        return lsi_fail(err, LS_E_LIMIT, "the session's window of %zu tokens does not fit the context of %zu",
                        c->S + c->R + 1, lsi_streaming_positions(&cache->shape));
    return c->storage->state(c, io, err);
}

const struct lsi_cache_policy lsi_cache_streaming = {
    .name = "streaming",
    .summary = "the first and the most recent tokens, for texts without end (StreamingLLM)",
    .example = "streaming:sink=4,recent=1020  generate for as long as you like from 1,024 tokens",
    .keys = keys,
    .n_keys = LSI_LEN(keys),
    .endless = true,
    .packs = true,
    .check = check,
    .plan = plan,
    .plan_prompt = plan_prompt,
    .create = create,
    .free = free_streaming,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .settle = settle,
    .scratch = scratch,
    .rewind = rewind_streaming,
    .bytes = bytes,
    .bytes_read = bytes_read,
    .tile = tile,
    .fork = fork_streaming,
    .state = state,
    .kept = kept,
};

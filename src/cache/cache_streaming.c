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
 * Tokens lie in pages by their place in the text. Pages with sinks stay; of the others as many are kept as
 * the window and a block of rows touch, and the oldest becomes the newest:
 *
 *     table      [ sinks | p | p + 1 | ... | p + n ]       p = `first`
 *     next page  [ sinks | p + 1 | ... | p + n | p + n + 1 ]
 *
 * so that slots which follow each other hold tokens which do.
 *
 * Over packed storage (packed.h) the sinks stay exact, the recent tokens are packed but for the last ones,
 * and blocks of them expire whole: `recent` is rounded up to a block. A prompt sees its window exactly.
 */
#include "cache/cache.h"
#include "cache/packed.h"

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

struct cache_streaming {
    struct lsi_cache base;
    struct lsi_page_pool *pool;    /* NULL: storage is packed */
    struct lsi_kv_pages *layers;   /* [L], of equal length: pages with sinks, then the ring */
    struct lsi_packed packed;      /* instead of these */
    size_t settled;                /* packed: tokens before the prompt that is being appended */
    struct lsi_cache_value recent; /* as it was asked for; base.spec has the number */
    size_t S, R;                   /* sinks; recent tokens besides the newest */
    size_t first;                  /* place in the text of the ring's first page */
    size_t start;                  /* of the open prompt */
    bool open;                     /* a prompt is being read at once */
};

static struct cache_streaming *streaming(struct lsi_cache *c)
{
    return (struct cache_streaming *)c;
}

static const struct cache_streaming *streaming_const(const struct lsi_cache *c)
{
    return (const struct cache_streaming *)c;
}

/* ---- sizes ------------------------------------------------------------------------------ */

static bool is_packed(const struct cache_streaming *c)
{
    return c->base.spec.storage != NULL;
}

static size_t recent_tokens(const struct lsi_cache_spec *spec, size_t n_prompt)
{
    const size_t all = lsi_cache_tokens(&spec->value[RECENT], n_prompt),
                 n = spec->value[SELF].n ? all - 1 : all;
    return spec->storage ? lsi_round_up(n, lsi_packing_of(spec).group) : n;
}

/* Tokens before the newest that some layer sees besides the sinks. */
static size_t reach(const struct lsi_cache_shape *shape, size_t R)
{
    size_t most = R;
    for (size_t l = 0; l < shape->L; l++) /* a window counts the newest token */
        most = lsi_max_size(most, lsi_max_size(lsi_cache_window(shape, l), 1) - 1);
    return most;
}

/* How the storage is packed: sinks and window are the policy's. */
static struct lsi_packing packing(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                                  size_t R)
{
    struct lsi_packing how = lsi_packing_of(spec);
    how.sinks = (size_t)spec->value[SINK].n;
    how.window = reach(shape, R);
    how.at_once = spec->value[PROMPT].n == PROMPT_DENSE;
    return how;
}

/* The most positions that the model can tell apart. */
static size_t position_limit(const struct lsi_cache_shape *shape)
{
    return lsi_max_size(shape->n_ctx, shape->n_trained);
}

static ls_status check_window(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                              size_t S, size_t R, ls_error *err)
{
    const size_t limit = position_limit(shape), residual = spec->storage ? lsi_packing_of(spec).R : 0;
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

static size_t sink_pages(size_t S)
{
    return lsi_div_up(S, LSI_KV_PAGE);
}

/* Pages that n consecutive tokens touch at most. */
static size_t pages_of(size_t n)
{
    return lsi_div_up(n - 1, LSI_KV_PAGE) + 1;
}

/* Pages of a layer when the window slides. */
static size_t most_pages(const struct lsi_cache_shape *shape, size_t S, size_t R)
{
    return sink_pages(S) + pages_of(reach(shape, R) + lsi_max_size(shape->n_rows, 1));
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    const size_t S = (size_t)spec->value[SINK].n;
    const size_t R = recent_tokens(spec, lsi_min_size(n_tokens, shape->n_ctx));
    const struct lsi_packing how = packing(shape, spec, R);
    if (spec->storage)
        return lsi_packed_plan(shape, &how, n_tokens, 0);
    size_t most = most_pages(shape, S, R), total;
    if (spec->value[PROMPT].n == PROMPT_DENSE)
        most = lsi_max_size(most, sink_pages(S) + pages_of(reach(shape, R) + position_limit(shape)));
    const size_t pages = lsi_min_size(lsi_div_up(n_tokens, LSI_KV_PAGE), most);
    if (!lsi_mul_size(pages * shape->L, lsi_kv_page_bytes(spec->format, shape->G, shape->D), &total))
        return SIZE_MAX;
    return total;
}

static size_t plan_prompt(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt)
{
    const size_t R = recent_tokens(spec, lsi_min_size(n_prompt, shape->n_ctx));
    const struct lsi_packing how = packing(shape, spec, R);
    return spec->storage ? lsi_packed_plan(shape, &how, n_tokens, n_prompt) : plan(shape, spec, n_tokens);
}

/* ---- creation ----------------------------------------------------------------------------- */

static void free_streaming(struct lsi_cache *cache)
{
    struct cache_streaming *c = streaming(cache);
    if (!c)
        return;
    for (size_t l = 0; c->layers && l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], 0);
    lsi_free(cache->alloc, c->layers, cache->shape.L * sizeof *c->layers);
    lsi_page_pool_unref(c->pool);
    if (c->packed.layers)
        lsi_packed_free(&c->packed);
    lsi_free(cache->alloc, c, sizeof *c);
}

/* An empty cache over a pool (a reference of it becomes the cache's), or NULL. */
static struct cache_streaming *make(const struct lsi_cache *like, struct lsi_page_pool *pool)
{
    struct cache_streaming *c = lsi_calloc(like->alloc, 1, sizeof *c);
    if (!c) {
        lsi_page_pool_unref(pool);
        return NULL;
    }
    c->base = *like;
    c->base.length = 0;
    c->pool = pool;
    c->recent = like->spec.value[RECENT];
    c->S = (size_t)like->spec.value[SINK].n;
    c->R = recent_tokens(&like->spec, 1);
    c->first = sink_pages(c->S);
    if (!pool)
        return c;
    c->layers = lsi_calloc(like->alloc, like->shape.L, sizeof *c->layers);
    if (!c->layers) {
        free_streaming(&c->base);
        return NULL;
    }
    for (size_t l = 0; l < like->shape.L; l++)
        lsi_kv_pages_init(&c->layers[l], pool);
    return c;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    const struct lsi_cache like = {
        .policy = &lsi_cache_streaming, .shape = *shape, .spec = *spec, .alloc = alloc
    };
    struct lsi_page_pool *pool = NULL;
    if (!spec->storage)
        LSI_TRY(lsi_page_pool_create(&pool, lsi_kv_page_bytes(spec->format, shape->G, shape->D), shape->L,
                                     alloc, err));
    struct cache_streaming *c = make(&like, pool);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    const struct lsi_packing how = packing(shape, spec, c->R);
    const ls_status st = spec->storage ? lsi_packed_create(&c->packed, shape, &how, alloc, err) : LS_OK;
    if (st != LS_OK)
        free_streaming(&c->base);
    else
        *cache = &c->base;
    return st;
}

/* ---- the ring ------------------------------------------------------------------------------- */

/* The ring's pages follow those of the sinks in the text as well: nothing has been dropped. */
static bool contiguous(const struct cache_streaming *c)
{
    return c->first == sink_pages(c->S);
}

/* Index in the tables of a page of the text. */
static size_t index_of(const struct cache_streaming *c, size_t page)
{
    return contiguous(c) ? page : sink_pages(c->S) + page - c->first;
}

/* The oldest token besides the sinks that rows to come may see. */
static size_t oldest_seen(const struct cache_streaming *c)
{
    const size_t from = c->open ? c->start : c->base.length, most = reach(&c->base.shape, c->R);
    return from > most ? from - most : 0;
}

/* Pages at the beginning of the ring that nobody will see. */
static size_t spent_pages(const struct cache_streaming *c)
{
    const size_t page = oldest_seen(c) / LSI_KV_PAGE;
    return page > c->first ? lsi_min_size(page - c->first, c->layers[0].n - sink_pages(c->S)) : 0;
}

/* The oldest n pages of the ring become the newest. */
static void turn(struct cache_streaming *c, size_t n)
{
    for (size_t l = 0; l < c->base.shape.L; l++) {
        void **ring = c->layers[l].page + sink_pages(c->S);
        const size_t last = c->layers[l].n - sink_pages(c->S) - 1;
        for (size_t i = 0; i < n; i++) {
            void *oldest = ring[0];
            memmove(ring, ring + 1, last * sizeof *ring);
            ring[last] = oldest;
        }
    }
    c->first += n;
}

/* Sizes that are shares of the first prompt are known when it comes. */
static ls_status begin(struct cache_streaming *c, ls_error *err)
{
    const size_t n = lsi_cache_tokens(&c->recent, lsi_max_size(c->base.n_prompt, 1));
    c->base.spec.value[RECENT] = (struct lsi_cache_value){ .n = (int64_t)n, .percent = -1 };
    c->R = recent_tokens(&c->base.spec, 0);
    c->packed.how.window = reach(&c->base.shape, c->R);
    return check_window(&c->base.shape, &c->base.spec, c->S, c->R, err);
}

/* A prompt that is read at once has a position for each of its tokens. */
static ls_status open_prompt(struct cache_streaming *c, ls_error *err)
{
    const size_t cached = lsi_min_size(c->base.length, c->S + c->R), limit = position_limit(&c->base.shape);
    if (c->base.n_prompt > limit - lsi_min_size(limit, cached))
        return lsi_fail(
            err, LS_E_LIMIT,
            "a prompt of %zu tokens after %zu cached ones does not fit the %zu that the model was "
            "trained for: --kv streaming:prompt=windowed reads prompts of any length",
            c->base.n_prompt, cached, limit);
    c->open = true;
    c->start = c->base.length;
    c->packed.start = c->start;
    return LS_OK;
}

static enum lsi_packed_rows kind_of(const struct cache_streaming *c, size_t n_rows)
{
    return lsi_packed_kind(c->settled < c->base.length, c->base.n_prompt, n_rows);
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_streaming *c = streaming(cache);
    if (cache->length == 0)
        LSI_TRY(begin(c, err));
    if (cache->n_prompt > 0 && !c->open && cache->spec.value[PROMPT].n == PROMPT_DENSE)
        LSI_TRY(open_prompt(c, err));
    if (is_packed(c))
        return lsi_packed_reserve(&c->packed, kind_of(c, n_rows), n_rows)
                   ? LS_OK
                   : lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu recent tokens", c->R);

    const size_t L = cache->shape.L, n = c->layers[0].n;
    const size_t end = lsi_div_up(cache->length + n_rows, LSI_KV_PAGE);
    const size_t held = c->first + n - sink_pages(c->S), more = end > held ? end - held : 0;
    const size_t most = most_pages(&cache->shape, c->S, c->R);
    const size_t reused = n + more > most ? lsi_min_size(n + more - most, spent_pages(c)) : 0;
    bool ok = lsi_kv_pages_grow(c->layers, L, n + more - reused);
    if (ok && reused > 0)
        turn(c, reused);
    for (size_t l = 0; ok && l < L; l++)
        ok = lsi_kv_pages_own(&c->layers[l], index_of(c, cache->length / LSI_KV_PAGE), index_of(c, end));
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu recent tokens", c->R);
    return LS_OK;
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    struct cache_streaming *c = streaming(cache);
    if (is_packed(c)) {
        c->settled += kind_of(c, n_rows) == LSI_PACKED_STEP ? 1 : 0;
        lsi_packed_commit(&c->packed, n_rows);
    }
    cache->length += n_rows;
}

/* Pages that only a prompt read at once has needed go. */
static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    struct cache_streaming *c = streaming(cache);
    const bool open = c->open;
    c->open = false;
    c->start = 0;
    if (is_packed(c)) {
        lsi_packed_settle(&c->packed, ex);
        c->settled = cache->length;
    }
    if (!open || is_packed(c))
        return;
    const size_t n = c->layers[0].n, most = most_pages(&cache->shape, c->S, c->R);
    const size_t spent = n > most ? lsi_min_size(n - most, spent_pages(c)) : 0;
    turn(c, spent);
    for (size_t l = 0; l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], n - spent);
}

/* ---- attention -------------------------------------------------------------------------------- */

static struct lsi_kv_view view(const struct cache_streaming *c, size_t layer, size_t first_page)
{
    return (struct lsi_kv_view){
        .format = c->base.spec.format,
        .G = c->base.shape.G,
        .D = c->base.shape.D,
        .pages = c->layers[layer].page + first_page,
    };
}

/* The pages whose tokens follow each other up to the newest; *token0 is the first of them. */
static struct lsi_kv_view recent_view(const struct cache_streaming *c, size_t layer, size_t *token0)
{
    *token0 = contiguous(c) ? 0 : c->first * LSI_KV_PAGE;
    return view(c, layer, contiguous(c) ? 0 : sink_pages(c->S));
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_streaming *c = streaming(cache);
    size_t token0;
    if (is_packed(c)) {
        lsi_packed_append(&c->packed, ex, layer, kind_of(c, n_rows), k, ldk, v, ldv, n_rows);
        return;
    }
    const struct lsi_kv_view kv = recent_view(c, layer, &token0);
    lsi_op_kv_store(ex, &kv, cache->length - token0, k, ldk, v, ldv, n_rows);
}

/* Rows row .. row + n - 1 of a query see tokens from `from` on, at most `window` of them (0: all). */
static void attend_recent(struct cache_streaming *c, struct lsi_exec *ex, size_t layer,
                          const struct lsi_cache_query *q, size_t row, size_t n, size_t from, size_t window,
                          float *lse)
{
    const struct lsi_packed_sight sight = {
        .row = row, .n_rows = n, .from = from, .window = window, .sinks = from == 0
    };
    size_t token0;
    if (is_packed(c)) {
        lsi_packed_attend(&c->packed, ex, layer, q, &sight, lse);
        return;
    }
    const struct lsi_kv_view kv = recent_view(c, layer, &token0);
    const struct lsi_attention a = {
        .q = q->q + row * q->ldq,
        .out = q->out + row * q->ldo,
        .lse = lse,
        .ldq = q->ldq,
        .ldo = q->ldo,
        .T = n,
        .H = c->base.shape.H,
        .slot0 = c->base.length + row - token0,
        .s0 = from > token0 ? from - token0 : 0,
        .window = window,
        .scale = q->scale,
        .kv = kv,
    };
    lsi_op_attention(ex, &a);
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
static void turn_queries(const struct cache_streaming *c, struct lsi_exec *ex,
                         const struct lsi_cache_query *q, size_t row, size_t n, const struct sink_rows *s)
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

static void attend_sinks(struct cache_streaming *c, struct lsi_exec *ex, size_t layer,
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
        .kv = is_packed(c) ? lsi_packed_tail(&c->packed, layer) : view(c, layer, 0),
    };
    lsi_op_attention(ex, &a);
}

/* Rows from `row` on, between whose sinks and recent tokens something has been dropped. */
static void attend_parts(struct cache_streaming *c, struct lsi_exec *ex, size_t layer,
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
static size_t whole_rows(const struct cache_streaming *c, size_t T)
{
    const size_t most = c->S + c->R;
    if (c->open)
        return c->start <= most ? T : 0;
    return c->base.length > most ? 0 : lsi_min_size(T, most + 1 - c->base.length);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    struct cache_streaming *c = streaming(cache);
    const size_t whole = q->window > 0 ? q->T : whole_rows(c, q->T);
    if (whole > 0)
        attend_recent(c, ex, layer, q, 0, whole, 0, q->window, q->lse);
    if (whole < q->T)
        attend_parts(c, ex, layer, q, whole);
}

/* ---- going back --------------------------------------------------------------------------------- */

static void cut(struct cache_streaming *c, size_t n_pages)
{
    for (size_t l = 0; l < c->base.shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], lsi_min_size(n_pages, c->layers[l].n));
}

static ls_status rewind_packed(struct cache_streaming *c, size_t n_tokens, ls_error *err)
{
    const size_t least = lsi_packed_least(&c->packed);
    if (n_tokens > 0 && n_tokens < least)
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "cannot rewind to %zu tokens: what they see has been packed or the window has moved on; to "
            "%zu or more, or to 0",
            n_tokens, least);
    lsi_packed_cut(&c->packed, n_tokens);
    c->settled = lsi_min_size(c->settled, n_tokens);
    return LS_OK;
}

static ls_status rewind_streaming(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_streaming *c = streaming(cache);
    const size_t sinks = sink_pages(c->S), most = reach(&cache->shape, c->R);
    const size_t from = n_tokens > most ? n_tokens - most : 0;
    if (n_tokens > cache->length)
        return lsi_fail(err, LS_E_INVAL, "cannot rewind to %zu tokens: the cache holds %zu", n_tokens,
                        cache->length);
    const bool in_sinks = n_tokens <= sinks * LSI_KV_PAGE;
    if (is_packed(c))
        LSI_TRY(rewind_packed(c, n_tokens, err));
    else if (!contiguous(c) && !in_sinks && from < c->first * LSI_KV_PAGE)
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "cannot rewind to %zu tokens: the window has moved on and keeps, besides the sinks, what "
            "follows token %zu; rewind to 0 and read the text again",
            n_tokens, c->first * LSI_KV_PAGE);
    if (!contiguous(c) && in_sinks) {
        cut(c, sinks);
        c->first = sinks;
    }
    if (contiguous(c) && !is_packed(c))
        cut(c, lsi_div_up(n_tokens, LSI_KV_PAGE));
    cache->length = n_tokens;
    c->open = false;
    c->start = 0;
    return LS_OK;
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_streaming *c = streaming(cache);
    if (cache->length < LSI_KV_PAGE)
        return lsi_fail(err, LS_E_INVAL, "repeating a cache takes at least %d tokens in it, it holds %zu",
                        LSI_KV_PAGE, cache->length);
    if (n_tokens <= cache->length)
        return rewind_streaming(cache, n_tokens, err);
    if (is_packed(c)) {
        LSI_TRY(lsi_packed_tile(&c->packed, n_tokens, err));
        cache->length = c->settled = n_tokens;
        return LS_OK;
    }
    const size_t L = cache->shape.L, end = lsi_div_up(n_tokens, LSI_KV_PAGE);
    const size_t whole = contiguous(c) ? cache->length / LSI_KV_PAGE : c->layers[0].n - 1;
    const size_t n = lsi_max_size(c->layers[0].n, lsi_min_size(end, most_pages(&cache->shape, c->S, c->R)));
    bool ok = lsi_kv_pages_grow(c->layers, L, n);
    for (size_t l = 0; ok && l < L; l++) {
        ok = lsi_kv_pages_own(&c->layers[l], whole, n);
        for (size_t i = whole; ok && i < n; i++)
            memcpy(c->layers[l].page[i], c->layers[l].page[i % whole], lsi_kv_pages_bytes(&c->layers[l]));
    }
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu recent tokens", c->R);
    c->first = sink_pages(c->S) + end - n;
    cache->length = n_tokens;
    return LS_OK;
}

/* ---- the rest ------------------------------------------------------------------------------------- */

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_streaming *c = streaming_const(cache);
    return is_packed(c) ? lsi_packed_bytes(&c->packed) : lsi_page_pool_bytes(c->pool);
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    const struct cache_streaming *c = streaming_const(cache);
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
    const struct lsi_cache_shape *s = &cache->shape;
    const struct cache_streaming *c = streaming_const(cache);
    const size_t exact = lsi_kv_page_bytes(cache->spec.format, s->G, s->D) / LSI_KV_PAGE;
    size_t total = 0;
    for (size_t l = 0; l < s->L; l++) {
        const size_t slots = kept(cache, l, 0, NULL) + 1;
        const size_t last = is_packed(c) ? c->S + cache->length + 1 - c->packed.layers[l].nv : slots;
        const size_t old = slots - lsi_min_size(slots, last);
        total += (slots - old) * exact + (old > 0 ? old * lsi_packed_slot_bytes(&c->packed, false) : 0);
    }
    return total;
}

static ls_status fork_streaming(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_streaming *from = streaming_const(cache);
    struct cache_streaming *c = make(cache, is_packed(from) ? NULL : lsi_page_pool_ref(from->pool));
    if (c && is_packed(from) && lsi_packed_fork(&c->packed, &from->packed, err) != LS_OK) {
        free_streaming(&c->base);
        c = NULL;
    }
    for (size_t l = 0; c && !is_packed(from) && l < cache->shape.L; l++)
        if (!lsi_kv_pages_share(&c->layers[l], &from->layers[l])) {
            free_streaming(&c->base);
            c = NULL;
        }
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    c->base.length = cache->length;
    c->recent = from->recent;
    c->R = from->R;
    c->first = from->first;
    c->start = from->start;
    c->open = from->open;
    c->settled = from->settled;
    *copy = &c->base;
    return LS_OK;
}

/* What was read is a window with all of its pages, whose first has tokens that are still seen. */
static bool plausible(const struct cache_streaming *c, size_t n_pages)
{
    const struct lsi_cache *base = &c->base;
    const size_t sinks = sink_pages(c->S), end = lsi_div_up(base->length, LSI_KV_PAGE);
    if (base->length > SIZE_MAX / 2 || c->start > base->length || c->R != recent_tokens(&base->spec, 1) ||
        (c->open && base->spec.value[PROMPT].n != PROMPT_DENSE))
        return false;
    if (is_packed(c)) /* the storage has pages of its own */
        return n_pages == 0 && c->first == sinks;
    return c->first >= sinks && (contiguous(c) ? n_pages >= end
                                               : c->first <= oldest_seen(c) / LSI_KV_PAGE &&
                                                     n_pages >= sinks && n_pages - sinks >= end - c->first);
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_streaming *c = streaming(cache);
    struct lsi_cache_value asked[LSI_CACHE_KEYS];
    size_t n_pages = is_packed(c) ? 0 : c->layers[0].n;
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    memcpy(asked, cache->spec.value, sizeof asked);
    asked[RECENT] = c->recent;
    LSI_TRY(lsi_cache_io_values(io, cache->policy, asked, cache->spec.value, err));
    LSI_TRY(io->bytes(io, &c->R, sizeof c->R, err));
    LSI_TRY(io->bytes(io, &c->first, sizeof c->first, err));
    LSI_TRY(io->bytes(io, &c->start, sizeof c->start, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->open, err));
    LSI_TRY(io->bytes(io, &n_pages, sizeof n_pages, err));
    if (io->reading && !plausible(c, n_pages))
        return lsi_cache_damaged(io, err);
    if (io->reading && check_window(&cache->shape, &cache->spec, c->S, c->R, NULL) != LS_OK)
        return lsi_fail(err, LS_E_LIMIT, "the session's window of %zu tokens does not fit the context of %zu",
                        c->S + c->R + 1, position_limit(&cache->shape));
    if (is_packed(c)) {
        c->packed.how.window = reach(&c->base.shape, c->R);
        c->settled = cache->length;
        LSI_TRY(lsi_packed_state(&c->packed, cache->length, io, err));
        for (size_t l = 0; l < cache->shape.L; l++)
            if (c->packed.layers[l].n != cache->length)
                return lsi_cache_damaged(io, err);
        return LS_OK;
    }
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(io->pages(io, &c->layers[l], n_pages, err));
    return LS_OK;
}

const struct lsi_cache_policy lsi_cache_streaming = {
    .name = "streaming",
    .summary = "the first and the most recent tokens, for texts without end (StreamingLLM)",
    .example = "streaming:sink=4,recent=1020  generate for as long as you like in the memory of 1,024 tokens",
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

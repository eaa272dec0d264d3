/*
 * The full cache: every key and value, attended exactly.
 *
 * Tokens lie in pages of LSI_KV_PAGE tokens, one table of pages for each layer (kv_pages.h; layout of a
 * page: kernels/kv_layout.h). Growing adds pages and never moves one.
 */
#include "cache/cache.h"

#include <string.h>

struct cache_full {
    struct lsi_cache base;
    size_t page_bytes; /* of one layer */
    struct lsi_page_pool *pool;
    struct lsi_kv_pages *layers; /* [L], of equal length */
};

static struct cache_full *full(struct lsi_cache *c)
{
    return (struct cache_full *)c;
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    size_t pages, total;
    if (!lsi_mul_size(lsi_div_up(n_tokens, LSI_KV_PAGE), shape->L, &pages) ||
        !lsi_mul_size(pages, lsi_kv_page_bytes(spec->format, shape->G, shape->D), &total))
        return SIZE_MAX;
    return total;
}

static void free_full(struct lsi_cache *cache)
{
    struct cache_full *c = full(cache);
    if (!c)
        return;
    for (size_t l = 0; c->layers && l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], 0);
    lsi_free(cache->alloc, c->layers, cache->shape.L * sizeof *c->layers);
    lsi_page_pool_unref(c->pool);
    lsi_free(cache->alloc, c, sizeof *c);
}

/* An empty cache over a pool (a reference of it becomes the cache's), or NULL. */
static struct cache_full *make(const struct lsi_cache *like, struct lsi_page_pool *pool)
{
    struct cache_full *c = lsi_calloc(like->alloc, 1, sizeof *c);
    if (!c) {
        lsi_page_pool_unref(pool);
        return NULL;
    }
    c->base = *like;
    c->base.length = 0;
    c->page_bytes = lsi_kv_page_bytes(like->spec.format, like->shape.G, like->shape.D);
    c->pool = pool;
    c->layers = lsi_calloc(like->alloc, like->shape.L, sizeof *c->layers);
    if (!c->layers) {
        free_full(&c->base);
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
        .policy = &lsi_cache_full, .shape = *shape, .spec = *spec, .alloc = alloc
    };
    struct lsi_page_pool *pool;
    LSI_TRY(lsi_page_pool_create(&pool, lsi_kv_page_bytes(spec->format, shape->G, shape->D), shape->L, alloc,
                                 err));
    struct cache_full *c = make(&like, pool);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    *cache = &c->base;
    return LS_OK;
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_full *c = full(cache);
    size_t n_tokens;
    if (!lsi_add_size(cache->length, n_rows, &n_tokens) || n_tokens > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", cache->length + n_rows,
                        cache->shape.n_ctx);
    const size_t need = lsi_div_up(n_tokens, LSI_KV_PAGE), L = cache->shape.L;
    bool ok = lsi_kv_pages_grow(c->layers, L, need);
    for (size_t l = 0; ok && l < L; l++)
        ok = lsi_kv_pages_own(&c->layers[l], cache->length / LSI_KV_PAGE, need);
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens (%zu MiB)", n_tokens,
                        need * L * c->page_bytes >> 20);
    return LS_OK;
}

static struct lsi_kv_view view(const struct cache_full *c, size_t layer)
{
    return (struct lsi_kv_view){
        .format = c->base.spec.format,
        .G = c->base.shape.G,
        .D = c->base.shape.D,
        .pages = c->layers[layer].page,
    };
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    const struct lsi_kv_view kv = view(full(cache), layer);
    lsi_op_kv_store(ex, &kv, cache->length, k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const struct lsi_attention a = {
        .q = q->q,
        .out = q->out,
        .lse = q->lse,
        .ldq = q->ldq,
        .ldo = q->ldo,
        .T = q->T,
        .H = cache->shape.H,
        .slot0 = cache->length,
        .s0 = 0,
        .window = q->window,
        .scale = q->scale,
        .kv = view(full(cache), layer),
    };
    lsi_op_attention(ex, &a);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    cache->length += n_rows;
}

static ls_status rewind_full(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_full *c = full(cache);
    if (n_tokens > cache->length)
        return lsi_fail(err, LS_E_INVAL, "cannot rewind to %zu tokens: the cache holds %zu", n_tokens,
                        cache->length);
    cache->length = n_tokens;
    const size_t keep = lsi_div_up(n_tokens, LSI_KV_PAGE);
    for (size_t l = 0; l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], lsi_min_size(keep, c->layers[l].n));
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    return lsi_page_pool_bytes(((const struct cache_full *)cache)->pool);
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_full *c = full(cache);
    if (cache->length < LSI_KV_PAGE)
        return lsi_fail(err, LS_E_INVAL, "repeating a cache takes at least %d tokens in it, it holds %zu",
                        LSI_KV_PAGE, cache->length);
    if (n_tokens <= cache->length)
        return rewind_full(cache, n_tokens, err);
    const size_t whole = cache->length / LSI_KV_PAGE; /* pages to repeat */
    LSI_TRY(reserve(cache, n_tokens - cache->length, err));
    for (size_t l = 0; l < cache->shape.L; l++)
        for (size_t i = whole; i < c->layers[l].n; i++)
            memcpy(c->layers[l].page[i], c->layers[l].page[i % whole], c->page_bytes);
    cache->length = n_tokens;
    return LS_OK;
}

static ls_status fork_full(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_full *from = (const struct cache_full *)cache;
    struct cache_full *c = make(cache, lsi_page_pool_ref(from->pool));
    for (size_t l = 0; c && l < cache->shape.L; l++)
        if (!lsi_kv_pages_share(&c->layers[l], &from->layers[l])) {
            free_full(&c->base);
            c = NULL;
        }
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    c->base.length = cache->length;
    *copy = &c->base;
    return LS_OK;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_full *c = full(cache);
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    if (cache->length > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT,
                        "the session holds %zu tokens, the context at most %zu: make it longer",
                        cache->length, cache->shape.n_ctx);
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(io->pages(io, &c->layers[l], lsi_div_up(cache->length, LSI_KV_PAGE), err));
    return LS_OK;
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    (void)layer;
    (void)g;
    for (size_t i = 0; pos && i < cache->length; i++)
        pos[i] = (int64_t)i;
    return cache->length;
}

const struct lsi_cache_policy lsi_cache_full = {
    .name = "full",
    .summary = "every key and value, attended exactly",
    .example = "full:q8  every token in about half the memory",
    .plan = plan,
    .create = create,
    .free = free_full,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .rewind = rewind_full,
    .bytes = bytes,
    .tile = tile,
    .fork = fork_full,
    .state = state,
    .kept = kept,
};

/*
 * The full cache: every key and value, attended exactly.
 *
 * Tokens lie in pages of LSI_KV_PAGE tokens, one table of pages for each layer (kv_pages.h; layout of a
 * page: kernels/kv_layout.h). Growing adds pages and never moves one.
 */
#include "cache/cache_full.h"

#include <string.h>

static struct lsi_full *full(struct lsi_cache *c)
{
    return (struct lsi_full *)c;
}

size_t lsi_full_plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    size_t pages, total;
    if (!lsi_mul_size(lsi_div_up(n_tokens, LSI_KV_PAGE), shape->L, &pages) ||
        !lsi_mul_size(pages, lsi_kv_page_bytes(spec->format, shape->G, shape->D), &total))
        return SIZE_MAX;
    return total;
}

void lsi_full_free(struct lsi_cache *cache)
{
    struct lsi_full *c = full(cache);
    if (!c)
        return;
    for (size_t l = 0; c->layers && l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], 0);
    lsi_free(cache->alloc, c->layers, cache->shape.L * sizeof *c->layers);
    lsi_page_pool_unref(c->pool);
    lsi_free(cache->alloc, c, c->bytes);
}

/* An empty cache over a pool (a reference of it becomes the cache's), or NULL. */
static struct lsi_full *make(const struct lsi_cache *like, size_t bytes, struct lsi_page_pool *pool)
{
    struct lsi_full *c = lsi_calloc(like->alloc, 1, bytes);
    if (!c) {
        lsi_page_pool_unref(pool);
        return NULL;
    }
    c->base = *like;
    c->base.length = 0;
    c->bytes = bytes;
    c->pool = pool;
    c->layers = lsi_calloc(like->alloc, like->shape.L, sizeof *c->layers);
    if (!c->layers) {
        lsi_full_free(&c->base);
        return NULL;
    }
    for (size_t l = 0; l < like->shape.L; l++)
        lsi_kv_pages_init(&c->layers[l], pool);
    return c;
}

ls_status lsi_full_create(struct lsi_full **out, size_t bytes, const struct lsi_cache_policy *policy,
                          const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          const ls_alloc *alloc, ls_error *err)
{
    const struct lsi_cache like = { .policy = policy, .shape = *shape, .spec = *spec, .alloc = alloc };
    struct lsi_page_pool *pool;
    LSI_TRY(lsi_page_pool_create(&pool, lsi_kv_page_bytes(spec->format, shape->G, shape->D), shape->L, alloc,
                                 err));
    struct lsi_full *c = make(&like, bytes, pool);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    *out = c;
    return LS_OK;
}

ls_status lsi_full_copy(const struct lsi_full *from, struct lsi_full **copy, ls_error *err)
{
    struct lsi_full *c = make(&from->base, from->bytes, lsi_page_pool_ref(from->pool));
    for (size_t l = 0; c && l < from->base.shape.L; l++)
        if (!lsi_kv_pages_share(&c->layers[l], &from->layers[l])) {
            lsi_full_free(&c->base);
            c = NULL;
        }
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    c->base.length = from->base.length;
    *copy = c;
    return LS_OK;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_full *c;
    LSI_TRY(lsi_full_create(&c, sizeof *c, &lsi_cache_full, shape, spec, alloc, err));
    *cache = &c->base;
    return LS_OK;
}

static ls_status fork_full(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    struct lsi_full *c;
    LSI_TRY(lsi_full_copy((const struct lsi_full *)cache, &c, err));
    *copy = &c->base;
    return LS_OK;
}

ls_status lsi_full_reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct lsi_full *c = full(cache);
    LSI_TRY(lsi_cache_check_room(cache, n_rows, err));
    const size_t n_tokens = cache->length + n_rows, L = cache->shape.L;
    const size_t need = lsi_div_up(n_tokens, LSI_KV_PAGE);
    bool ok = lsi_kv_pages_grow(c->layers, L, need);
    for (size_t l = 0; ok && l < L; l++)
        ok = lsi_kv_pages_own(&c->layers[l], cache->length / LSI_KV_PAGE, need);
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens (%zu MiB)", n_tokens,
                        need * L * lsi_kv_pages_bytes(c->layers) >> 20);
    return LS_OK;
}

struct lsi_kv_view lsi_full_view(const struct lsi_cache *cache, size_t layer)
{
    return (struct lsi_kv_view){
        .format = cache->spec.format,
        .G = cache->shape.G,
        .D = cache->shape.D,
        .pages = ((const struct lsi_full *)cache)->layers[layer].page,
    };
}

void lsi_full_append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                     const float *v, size_t ldv, size_t n_rows)
{
    const struct lsi_kv_view kv = lsi_full_view(cache, layer);
    lsi_op_kv_store(ex, &kv, cache->length, k, ldk, v, ldv, n_rows);
}

struct lsi_attention lsi_full_attention(const struct lsi_cache *cache, size_t layer,
                                        const struct lsi_cache_query *q)
{
    const struct lsi_kv_view kv = lsi_full_view(cache, layer);
    return lsi_cache_attention(cache, q, &kv, cache->length);
}

void lsi_full_attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                     const struct lsi_cache_query *q)
{
    const struct lsi_attention a = lsi_full_attention(cache, layer, q);
    lsi_op_attention(ex, &a);
}

static void scores(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q, size_t row0, size_t n_rows, float *to, size_t ld)
{
    struct lsi_attention a = lsi_full_attention(cache, layer, q);
    a.q += row0 * q->ldq;
    a.slot0 += row0;
    a.T = n_rows;
    lsi_op_attention_scores(ex, &a, to, ld);
}

void lsi_full_commit(struct lsi_cache *cache, size_t n_rows)
{
    cache->length += n_rows;
}

ls_status lsi_full_rewind(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct lsi_full *c = full(cache);
    LSI_TRY(lsi_cache_check_rewind(cache, n_tokens, err));
    cache->length = n_tokens;
    const size_t keep = lsi_div_up(n_tokens, LSI_KV_PAGE);
    for (size_t l = 0; l < cache->shape.L; l++)
        lsi_kv_pages_cut(&c->layers[l], lsi_min_size(keep, c->layers[l].n));
    return LS_OK;
}

size_t lsi_full_bytes(const struct lsi_cache *cache)
{
    return lsi_page_pool_bytes(((const struct lsi_full *)cache)->pool);
}

ls_status lsi_full_tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct lsi_full *c = full(cache);
    if (cache->length < LSI_KV_PAGE)
        return lsi_fail(err, LS_E_INVAL, "repeating a cache takes at least %d tokens in it, it holds %zu",
                        LSI_KV_PAGE, cache->length);
    if (n_tokens <= cache->length)
        return lsi_full_rewind(cache, n_tokens, err);
    const size_t whole = cache->length / LSI_KV_PAGE; /* pages to repeat */
    LSI_TRY(lsi_full_reserve(cache, n_tokens - cache->length, err));
    for (size_t l = 0; l < cache->shape.L; l++)
        for (size_t i = whole; i < c->layers[l].n; i++)
            memcpy(c->layers[l].page[i], c->layers[l].page[i % whole], lsi_kv_pages_bytes(c->layers));
    cache->length = n_tokens;
    return LS_OK;
}

ls_status lsi_full_state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct lsi_full *c = full(cache);
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    LSI_TRY(lsi_cache_check_stored(cache, err));
    for (size_t l = 0; l < cache->shape.L; l++)
        LSI_TRY(io->pages(io, &c->layers[l], lsi_div_up(cache->length, LSI_KV_PAGE), err));
    return LS_OK;
}

size_t lsi_full_kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    (void)layer;
    (void)g;
    for (size_t i = 0; pos && i < cache->length; i++)
        pos[i] = (int64_t)i;
    return cache->length;
}

size_t lsi_full_bytes_seen(const struct lsi_cache *cache, size_t layer, size_t n)
{
    const struct lsi_cache_shape *s = &cache->shape;
    const size_t window = lsi_cache_window(s, layer), most = window > 0 ? window : n;
    return lsi_min_size(cache->length + 1, most) *
           (lsi_kv_page_bytes(cache->spec.format, s->G, s->D) / LSI_KV_PAGE);
}

const struct lsi_cache_policy lsi_cache_full = {
    .name = "full",
    .summary = "every key and value, attended exactly",
    .example = "full:q8  every token in about half the memory",
    .plan = lsi_full_plan,
    .create = create,
    .free = lsi_full_free,
    .reserve = lsi_full_reserve,
    .append = lsi_full_append,
    .attend = lsi_full_attend,
    .commit = lsi_full_commit,
    .scores = scores,
    .rewind = lsi_full_rewind,
    .bytes = lsi_full_bytes,
    .tile = lsi_full_tile,
    .fork = fork_full,
    .state = lsi_full_state,
    .kept = lsi_full_kept,
};

/*
 * The full cache: every key and value, attended exactly.
 *
 * Tokens lie in slabs of LSI_KV_PAGE tokens; a slab holds one page of each layer
 * (layout: kernels/kv_layout.h). Growing adds slabs and never moves one:
 *
 *     slab 0                slab 1               …
 *     [layer 0 | 1 | … ]    [layer 0 | 1 | … ]
 *
 * pages[layer][i] points into slab i, so that attention walks one layer's column.
 */
#include "cache/cache.h"

#include <string.h>

struct cache_full {
    struct lsi_cache base;
    size_t page_bytes; /* of one layer */
    size_t n_slabs;
    size_t cap_slabs; /* columns of `pages` */
    void **pages;     /* [L][cap_slabs] */
};

static struct cache_full *full(struct lsi_cache *c)
{
    return (struct cache_full *)c;
}

static size_t slab_bytes(const struct cache_full *c)
{
    return c->page_bytes * c->base.shape.L;
}

/* Slabs come straight from the system (large pages, touched when used) unless the caller brought an
 * allocator. */
static void *slab_alloc(const struct cache_full *c)
{
    return c->base.alloc ? lsi_calloc(c->base.alloc, slab_bytes(c), 1) : lsi_pages_alloc(slab_bytes(c));
}

static void slab_free(const struct cache_full *c, void *slab)
{
    if (c->base.alloc)
        lsi_free(c->base.alloc, slab, slab_bytes(c));
    else
        lsi_pages_free(slab, slab_bytes(c));
}

static size_t plan(const struct lsi_cache_shape *shape, enum lsi_kv_format format, size_t n_tokens)
{
    size_t pages, total;
    if (!lsi_mul_size(lsi_div_up(n_tokens, LSI_KV_PAGE), shape->L, &pages) ||
        !lsi_mul_size(pages, lsi_kv_page_bytes(format, shape->G, shape->D), &total))
        return SIZE_MAX;
    return total;
}

static void free_full(struct lsi_cache *cache)
{
    struct cache_full *c = full(cache);
    if (!c)
        return;
    for (size_t i = 0; i < c->n_slabs; i++)
        slab_free(c, c->pages[i]); /* layer 0 starts its slab */
    lsi_free(cache->alloc, c->pages, cache->shape.L * c->cap_slabs * sizeof *c->pages);
    lsi_free(cache->alloc, c, sizeof *c);
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        enum lsi_kv_format format, const ls_alloc *alloc, ls_error *err)
{
    struct cache_full *c = lsi_calloc(alloc, 1, sizeof *c);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    c->base =
        (struct lsi_cache){ .policy = &lsi_cache_full, .shape = *shape, .format = format, .alloc = alloc };
    c->page_bytes = lsi_kv_page_bytes(format, shape->G, shape->D);
    *cache = &c->base;
    return LS_OK;
}

/* Room for n slabs in the page table. */
static bool grow_table(struct cache_full *c, size_t n)
{
    if (n <= c->cap_slabs)
        return true;
    const size_t L = c->base.shape.L, cap = lsi_max_size(n, lsi_max_size(16, 2 * c->cap_slabs));
    size_t cells;
    if (!lsi_mul_size(L, cap, &cells))
        return false;
    void **pages = lsi_calloc(c->base.alloc, cells, sizeof *pages);
    if (!pages)
        return false;
    for (size_t l = 0; c->n_slabs > 0 && l < L; l++)
        memcpy(pages + l * cap, c->pages + l * c->cap_slabs, c->n_slabs * sizeof *pages);
    lsi_free(c->base.alloc, c->pages, L * c->cap_slabs * sizeof *pages);
    c->pages = pages;
    c->cap_slabs = cap;
    return true;
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_full *c = full(cache);
    size_t n_tokens;
    if (!lsi_add_size(cache->length, n_rows, &n_tokens) || n_tokens > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", cache->length + n_rows,
                        cache->shape.n_ctx);
    const size_t need = lsi_div_up(n_tokens, LSI_KV_PAGE), had = c->n_slabs;
    if (!grow_table(c, need))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens", n_tokens);
    while (c->n_slabs < need) {
        char *slab = slab_alloc(c);
        if (!slab) {
            while (c->n_slabs > had)
                slab_free(c, c->pages[--c->n_slabs]);
            return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens (%zu MiB)",
                            n_tokens, need * slab_bytes(c) >> 20);
        }
        for (size_t l = 0; l < cache->shape.L; l++)
            c->pages[l * c->cap_slabs + c->n_slabs] = slab + l * c->page_bytes;
        c->n_slabs++;
    }
    return LS_OK;
}

static struct lsi_kv_view view(const struct cache_full *c, size_t layer)
{
    return (struct lsi_kv_view){
        .format = c->base.format,
        .G = c->base.shape.G,
        .D = c->base.shape.D,
        .pages = c->pages + layer * c->cap_slabs,
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
    /* One slab beyond the need stays, so that stepping to and fro over its border costs nothing. */
    const size_t keep = lsi_div_up(n_tokens, LSI_KV_PAGE) + 1;
    while (c->n_slabs > keep)
        slab_free(c, c->pages[--c->n_slabs]);
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_full *c = (const struct cache_full *)cache;
    return c->n_slabs * slab_bytes(c);
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
    for (size_t i = whole; i < c->n_slabs; i++)
        memcpy(c->pages[i], c->pages[i % whole], slab_bytes(c));
    cache->length = n_tokens;
    return LS_OK;
}

const struct lsi_cache_policy lsi_cache_full = {
    .name = "full",
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
};

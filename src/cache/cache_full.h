/*
 * What the full cache is made of, for policies that keep every key and value and differ in what a query
 * reads. Such a policy embeds struct lsi_full as its first member; the functions that take a struct lsi_cache
 * are what the slots of the vtable (cache.h) want.
 */
#ifndef LSI_CACHE_FULL_H
#define LSI_CACHE_FULL_H

#include "cache/cache.h"

struct lsi_full {
    struct lsi_cache base;
    size_t bytes; /* of this struct and what embeds it */
    struct lsi_page_pool *pool;
    struct lsi_kv_pages *layers; /* [L], of equal length */
};

/** An empty cache in a zeroed struct of `bytes` that begins with struct lsi_full. */
ls_status lsi_full_create(struct lsi_full **c, size_t bytes, const struct lsi_cache_policy *policy,
                          const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          const ls_alloc *alloc, ls_error *err);
/** A copy with shared pages; what embeds it is zero. */
ls_status lsi_full_copy(const struct lsi_full *from, struct lsi_full **copy, ls_error *err);
struct lsi_kv_view lsi_full_view(const struct lsi_cache *cache, size_t layer);
/** Attention of the query's rows over everything before them. */
struct lsi_attention lsi_full_attention(const struct lsi_cache *cache, size_t layer,
                                        const struct lsi_cache_query *q);

size_t lsi_full_plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens);
void lsi_full_free(struct lsi_cache *cache);
ls_status lsi_full_reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err);
void lsi_full_append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                     const float *v, size_t ldv, size_t n_rows);
void lsi_full_attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                     const struct lsi_cache_query *q);
void lsi_full_commit(struct lsi_cache *cache, size_t n_rows);
ls_status lsi_full_rewind(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
size_t lsi_full_bytes(const struct lsi_cache *cache);
ls_status lsi_full_tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
ls_status lsi_full_state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err);
size_t lsi_full_kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos);

/** Bytes of keys and values that a row sees in a layer, if it reads at most n of the tokens. */
size_t lsi_full_bytes_seen(const struct lsi_cache *cache, size_t layer, size_t n);

#endif

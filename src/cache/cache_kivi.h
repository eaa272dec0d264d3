/*
 * What the kivi cache is made of, for policies that keep every token packed and differ in what a step reads.
 * Such a policy embeds struct lsi_kivi as its first member; the functions of lsi_cache_kivi work on it.
 */
#ifndef LSI_CACHE_KIVI_H
#define LSI_CACHE_KIVI_H

#include "cache/packed.h"

struct lsi_kivi {
    struct lsi_cache base;
    size_t bytes; /* of this struct and what embeds it */
    struct lsi_packed packed;
    size_t settled; /* tokens before the prompt that is being appended; == length: none is */
};

struct lsi_kivi *lsi_kivi(struct lsi_cache *cache);
/** An empty cache in a zeroed struct of `bytes` that begins with struct lsi_kivi. */
ls_status lsi_kivi_create(struct lsi_kivi **c, size_t bytes, const struct lsi_cache_policy *policy,
                          const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          const ls_alloc *alloc, ls_error *err);
/** A copy with shared pages; what embeds it is zero. */
ls_status lsi_kivi_copy(const struct lsi_kivi *from, struct lsi_kivi **copy, ls_error *err);
/** What n_rows more rows are to the storage. */
enum lsi_packed_rows lsi_kivi_rows(const struct lsi_kivi *c, size_t n_rows);
/** The first n_tokens (<= length) of what is stored stay; an error says `why` not, and from where on. */
ls_status lsi_kivi_cut(struct lsi_kivi *c, size_t n_tokens, const char *why, ls_error *err);
/** State of the storage of `length` tokens. */
ls_status lsi_kivi_tokens_state(struct lsi_kivi *c, struct lsi_cache_io *io, ls_error *err);
/** Bytes of keys and values that a row sees in a layer, if it reads at most n of the tokens. */
size_t lsi_kivi_bytes_seen(const struct lsi_cache *cache, size_t layer, size_t n);

#endif

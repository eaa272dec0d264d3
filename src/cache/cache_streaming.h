/*
 * What the streaming policy is made of. Which tokens a row sees, and at which positions, is in
 * cache_streaming.c; where they lie is a storage of two: a ring of exact pages (streaming_ring.c), and packed
 * pages (streaming_packed.c). Slots of both are tokens: the sinks, and from the oldest on that rows to come
 * may see all that follow.
 */
#ifndef LSI_CACHE_STREAMING_H
#define LSI_CACHE_STREAMING_H

#include "cache/cache_full.h"
#include "cache/cache_kivi.h"

struct lsi_streaming {
    union { /* whose memory the storage uses: storage->owner */
        struct lsi_cache base;
        struct lsi_full full;
        struct lsi_kivi kivi;
    };
    const struct lsi_streaming_storage *storage;
    struct lsi_cache_value recent; /* as it was asked for; base.spec has the number */
    size_t S, R;                   /* sinks; recent tokens besides the newest */
    size_t first;                  /* place in the text of the page behind those of the sinks, in a ring */
    size_t start;                  /* of the open prompt */
    bool open;                     /* a prompt is being read at once */
};

struct lsi_streaming_storage {
    const struct lsi_cache_policy *owner; /* whose free, commit and bytes are those of the cache */

    /** Bytes with n tokens; with n_prompt > 0 the most while a prompt of so many makes them n. */
    size_t (*plan)(const struct lsi_cache_shape *shape, const struct lsi_packing *how, size_t n,
                   size_t n_prompt);
    /** An empty cache, what is not the owner's zero; or a copy that shares pages. */
    ls_status (*create)(struct lsi_streaming **c, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const struct lsi_packing *how,
                        const ls_alloc *alloc, ls_error *err);
    ls_status (*copy)(const struct lsi_streaming *from, struct lsi_streaming **c, ls_error *err);
    /** Room for n_rows more; false: no memory, and the tokens are as before. */
    bool (*reserve)(struct lsi_streaming *c, size_t n_rows);
    void (*append)(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows);
    /** Attention of rows of the last append over what `sight` says; lse [sight->n_rows][H] or NULL. */
    void (*attend)(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q, const struct lsi_packed_sight *sight, float *lse);
    /** Slots 0 .. S - 1 are the sinks. */
    struct lsi_kv_view (*sinks)(const struct lsi_streaming *c, size_t layer);
    /** A prompt is complete: memory that was for it goes back. */
    void (*settle)(struct lsi_streaming *c, struct lsi_exec *ex);
    /** The first n_tokens (<= length) stay, or an error says why they cannot and nothing has changed. */
    ls_status (*cut)(struct lsi_streaming *c, size_t n_tokens, ls_error *err);
    /** Benchmarks: pages are repeated until there are n_tokens, more than the length. */
    ls_status (*tile)(struct lsi_streaming *c, size_t n_tokens, ls_error *err);
    /** Bytes that a row reads of a layer when it sees the sinks, or not, and the last of n_slots in all. */
    size_t (*bytes_read)(const struct lsi_streaming *c, size_t layer, size_t n_slots);
    /** What is not in the members of struct lsi_streaming, which have been read and can be. */
    ls_status (*state)(struct lsi_streaming *c, struct lsi_cache_io *io, ls_error *err);
};

extern const struct lsi_streaming_storage lsi_streaming_ring, lsi_streaming_packed;

/** Pages of a text that have sinks. */
static inline size_t lsi_streaming_sink_pages(size_t S)
{
    return lsi_div_up(S, LSI_KV_PAGE);
}

/** Tokens before the newest that some layer sees besides the sinks. */
size_t lsi_streaming_reach(const struct lsi_cache_shape *shape, size_t R);

/** The most positions that the model can tell apart. */
static inline size_t lsi_streaming_positions(const struct lsi_cache_shape *shape)
{
    return lsi_max_size(shape->n_ctx, shape->n_trained);
}

#endif

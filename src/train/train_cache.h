/*
 * Keys and values of a sequence that is trained on: of one layer at a time, or of every layer where all
 * activations are kept. Behind the cache's policy interface, so that the block does not know; with the
 * borders of packed documents, across which nothing is seen.
 */
#ifndef LSI_TRAIN_CACHE_H
#define LSI_TRAIN_CACHE_H

#include <longspan/train.h>

#include "cache/cache.h"

struct lsi_train_cache {
    struct lsi_cache base;
    void **pages;    /* [n_layers][n_pages] */
    size_t n_layers; /* 1: layers share the memory, one after the other */
    size_t n_pages;
    const size_t *doc_start; /* [n_docs + 1], or NULL: one document */
    size_t n_docs;
};

/** Take the pages of sequences of up to n tokens from an arena (or count them). shape->L: layers kept. */
void lsi_train_cache_layout(struct lsi_train_cache *c, struct lsi_arena *arena,
                            const struct lsi_cache_shape *shape, enum lsi_kv_format format);
/** Begin with the rows of a sequence; its borders stay the caller's. */
void lsi_train_cache_begin(struct lsi_train_cache *c, const ls_train_sequence *seq);

#endif

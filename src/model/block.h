/*
 * The block: forward of one layer on one block of rows, given the keys and values
 * before them. Prompt processing, decoding (one row) and training call this same function;
 * nothing else computes a layer.
 */
#ifndef LSI_BLOCK_H
#define LSI_BLOCK_H

#include "cache/cache.h"
#include "model/model_impl.h"

/* Activations of a block of up to `rows` rows, in backend memory. */
struct lsi_activations {
    size_t rows;
    float *x;    /* [rows][C] residual stream */
    float *n;    /* [rows][C] normalised input; output of attention and MLP before a post-norm */
    float *q;    /* [rows][H*D] queries, then the attention's output */
    float *k;    /* [rows][G*D] */
    float *v;    /* [rows][G*D] */
    float *gate; /* [rows][F] */
    float *up;   /* [rows][F] */
};

/** Lay out the activations of `rows` rows; with an arena that counts, only its size is found. */
void lsi_activations_layout(struct lsi_activations *a, struct lsi_arena *arena, const struct lsi_config *c,
                            size_t rows);

/** Scratch that the ops of a block of `rows` rows need. */
size_t lsi_block_scratch(const struct lsi_exec *ex, const struct lsi_config *c, size_t rows);

/**
 * a->x [n_rows][C]: input of layer `layer`, replaced by its output. The rows stand at positions
 * cache->length and following; room must have been reserved, and the caller commits after the last layer.
 */
void lsi_block_forward(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                       size_t n_rows, struct lsi_cache *cache);

#endif

/*
 * The block: forward of one layer on one block of rows, given the keys and values
 * before them, and its backward. Prompt processing, decoding (one row), training's forward and
 * training's replay all run this same forward; nothing else computes a layer.
 */
#ifndef LSI_BLOCK_H
#define LSI_BLOCK_H

#include "cache/cache.h"
#include "model/model_impl.h"
#include "ops/backward.h"

/*
 * Activations of a block of up to `rows` rows, in backend memory. What only the backward pass needs to find
 * as it was may share memory with what replaces it (inference): "may be x" below.
 */
struct lsi_activations {
    size_t rows;
    size_t mlp_rows; /* rows that the MLP takes at a time */
    float *x;        /* [rows][C] residual stream: input of the layer, replaced by its output */
    float *n;        /* [rows][C] normalised input of attention */
    float *q_in;     /* [rows][H*D] queries before their norm; may be q */
    float *k_in;     /* [rows][G*D] keys before their norm; may be k */
    float *q;        /* [rows][H*D] queries, rotated */
    float *k;        /* [rows][G*D] keys, rotated */
    float *v;        /* [rows][G*D] */
    float *o;        /* [rows][H*D] output of attention; may be q */
    float *lse;      /* [rows][H] or NULL */
    float *o_out;    /* [rows][C] output of attention's half before a post-norm; may be n */
    float *h;        /* [rows][C] residual stream between the halves; may be x */
    float *mlp_n;    /* [mlp_rows][C] normalised input of the MLP; may be n when mlp_rows is rows */
    float *gate;     /* [mlp_rows][F] */
    float *up;       /* [mlp_rows][F] */
    float *act;      /* [mlp_rows][F] act(gate) * up; may be gate */
    float *mlp_out;  /* [mlp_rows][C] output of the MLP before a post-norm; may be mlp_n */
    float *low;      /* [rows][low_cols] inner values of adapters, or NULL without them */
    size_t low_cols;
};

/** Lay out the activations of `rows` rows for a forward pass alone; with an arena that counts, only its size
 * is found. */
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

/* ---- the stages of the forward, for replay ------------------------------------------- */

/** Keys and values of the rows alone, appended to the cache. */
void lsi_block_keys(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                    size_t n_rows, struct lsi_cache *cache);
/** a->h from a->x. append false: the cache holds the rows' keys and values already. */
void lsi_block_attention(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                         struct lsi_activations *a, size_t n_rows, struct lsi_cache *cache, bool append);
/** a->mlp_n, gate, up, act of n_rows <= mlp_rows rows of the residual stream. */
void lsi_block_gates(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                     const float *h, size_t n_rows);
/** a->mlp_out from a->act: the output of the MLP before a post-norm. */
void lsi_block_down(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                    size_t n_rows);

/* ---- backward -------------------------------------------------------------------------- */

/* Where the gradients of a layer's parameters go (added to); NULL: not wanted. Shapes as in struct lsi_layer.
 */
struct lsi_layer_grads {
    float *q, *k, *v, *o, *gate, *up, *down;
    float *attn_norm, *ffn_norm, *q_norm, *k_norm, *post_attn_norm, *post_ffn_norm;
    float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
    float *lora_a[LSI_N_PROJ], *lora_b[LSI_N_PROJ];
};

/* What the backward of a block works in, besides activations in which nothing is shared. */
struct lsi_block_gradients {
    float *dx;      /* [rows][C] gradient of the layer's output, replaced by that of its input */
    float *dn;      /* [rows][C] */
    float *dt;      /* [rows][C] gradient before a post-norm, or NULL without post-norms */
    float *dq;      /* [rows][H*D] */
    float *dact;    /* [mlp_rows][F] */
    float *dlow;    /* [rows][low_cols], or NULL without adapters */
    float *dk, *dv; /* [slots][G*D] gradients of keys and values of the whole sequence; slot s in row s */
};

/** Activations of a backward pass, nothing shared. lora_rank: greatest rank of an adapter, 0: none. */
void lsi_activations_layout_backward(struct lsi_activations *a, struct lsi_arena *arena,
                                     const struct lsi_config *c, size_t rows, size_t mlp_rows,
                                     size_t lora_rank);
void lsi_block_gradients_layout(struct lsi_block_gradients *g, struct lsi_arena *arena,
                                const struct lsi_config *c, size_t rows, size_t mlp_rows, size_t lora_rank);
/** Scratch of the backward of `rows` rows in a sequence of n_slots. */
size_t lsi_block_backward_scratch(const struct lsi_exec *ex, const struct lsi_config *c, size_t rows,
                                  size_t mlp_rows, size_t n_slots);

/**
 * Backward of one layer on the rows at cache->length and following, in descending order of blocks: when a
 * block's turn comes every later row has added to its rows of dk and dv (docs/training.md, "The sweep").
 *
 * a->x holds the layer's input; the cache its keys and values. kept: `a` holds everything else as the
 * forward left it; else it is computed again from a->x. g->dx is replaced in place.
 */
void lsi_block_backward(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                        struct lsi_activations *a, bool kept, struct lsi_block_gradients *g,
                        const struct lsi_layer_grads *grads, size_t n_rows, struct lsi_cache *cache);

#endif

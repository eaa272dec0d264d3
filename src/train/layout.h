/*
 * What a step computes with and how large it is. The function that lays everything out in an arena is
 * the planner's: with an arena that counts it runs dry.
 */
#ifndef LSI_TRAIN_LAYOUT_H
#define LSI_TRAIN_LAYOUT_H

#include <longspan/train.h>

#include "train/params.h"
#include "train/tier.h"
#include "train/train_cache.h"

/* What options and a model come to. */
struct lsi_train_settings {
    size_t seq;               /* most rows of a sequence */
    size_t block;             /* rows of a block */
    size_t mlp_rows;          /* rows that the MLP takes at a time */
    size_t head_rows;         /* rows that the head takes at a time */
    bool keep;                /* activations of every layer stay for the backward pass */
    size_t every;             /* layers from one activation checkpoint to the next */
    bool spill;               /* layer inputs in a file */
    enum lsi_dtype row_dtype; /* of layer inputs and row gradients */
    enum lsi_kv_format kv_format;
    enum lsi_compute compute;
    int n_threads;
    struct lsi_params_options params;
};

/* Memory of a trainer. */
struct lsi_train_memory {
    struct lsi_tier tier; /* [ceil(L / every)] inputs of layers 0, every, 2 every … */
    unsigned char *inner; /* [every - 1][seq][C] of row_dtype: inputs of the layers between two of them */
    unsigned char *rows;  /* [seq][C] of row_dtype: output of the last layer, then row gradients */
    struct lsi_train_cache cache;
    struct lsi_activations *kept;   /* [L] where everything is kept, else NULL */
    struct lsi_activations act;     /* of one block, for the backward pass */
    struct lsi_activations forward; /* the same memory for the forward pass alone */
    struct lsi_block_gradients grads;
    float *head_x, *head_n, *head_dn; /* [head_rows][C] */
    float *logits;                    /* [head_rows][V] */
    int32_t *head_labels;             /* [head_rows] */
};

/** Settings of options (o->seq rows) for a model; refuses what does not go together. */
ls_status lsi_train_settle(struct lsi_train_settings *s, const struct lsi_config *c,
                           const ls_train_options *o, ls_error *err);
/** Lay out all but the parameters. plan (may be NULL): the fields that grow with rows and blocks are set. */
void lsi_train_layout(struct lsi_train_memory *m, struct lsi_arena *arena, const struct lsi_config *c,
                      const struct lsi_train_settings *s, ls_train_plan *plan);
/** Of n_layers layers with a checkpoint at every N-th: how many the backward pass takes forward once more to
 * have the inputs between two checkpoints. Those behind the last one are there. */
static inline size_t lsi_train_replayed(size_t n_layers, size_t every)
{
    return (lsi_div_up(n_layers, every) - 1) * (every - 1);
}
/** What the head of a row costs, logits and both gradients, counted in forward passes of a layer (products
 * with weights): what progress counts in. At least 1. */
size_t lsi_train_head_work(const struct lsi_config *c);
/** Scratch of every op of a step. */
size_t lsi_train_scratch(const struct lsi_train_settings *s, const struct lsi_config *c);
/** The whole plan of a configuration; within o->memory, or what the system could give, where that is a
 * choice. */
ls_status lsi_train_plan(const struct lsi_config *c, const ls_train_options *o, ls_train_plan *plan,
                         ls_error *err);

/** Pieces of at most `rows` that n rows fall into: piece i is [i * rows, min((i + 1) * rows, n)). One
 * partition for every direction (training.md 3.6). */
static inline size_t lsi_n_pieces(size_t n, size_t rows)
{
    return lsi_div_up(n, rows);
}

#endif

/*
 * The parameters of a model that is trained: one list of tensors in a fixed order, their
 * weights, master weights, gradients and moments in arenas, and a view of them as an
 * ls_model, so that the block computes on them like on any model.
 *
 * Rows of q and k are in the order of Hugging Face files (half pairing), gains are what
 * the norm multiplies by; the export takes care of what files store instead.
 */
#ifndef LSI_PARAMS_H
#define LSI_PARAMS_H

#include "model/model_impl.h"
#include "ops/backward.h"

struct lsi_param {
    char name[LSI_TENSOR_NAME]; /* in a Hugging Face file: "model.layers.3.mlp.up_proj.weight" */
    enum lsi_role role;
    size_t layer;         /* 0 outside the layers */
    size_t rank;          /* 2: [rows][cols], 1: [cols] */
    size_t rows, cols;    /* rows 1 for rank 1 */
    size_t n;             /* rows * cols */
    bool decay;           /* matrices */
    bool trained;         /* false: frozen (LoRA) */
    enum lsi_dtype dtype; /* of w: F32, or BF16 for matrices */
    void *w;              /* [n] */
    float *master;        /* [n] fp32, or NULL */
    float *grad;          /* [n] fp32, or NULL while it has none */
    void *m, *v;
    enum lsi_moments moments;
};

/* One adapter of a projection: y += scale * B (A x). A and B are params too, of rank 2. */
struct lsi_params {
    struct lsi_param *list; /* [n] embedding, layers ascending, output norm, output */
    size_t n;
    const ls_alloc *alloc;
};

#endif

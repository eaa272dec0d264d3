/*
 * The parameters of a model that is trained: one list of tensors in a fixed order, their
 * weights, master weights, gradients and moments in an arena, and a view of them as an
 * ls_model, so that the block computes on them like on any model.
 *
 * Rows of q and k are in the order of Hugging Face files (half pairing), gains are what
 * the norm multiplies by; the export takes care of what files store instead.
 */
#ifndef LSI_PARAMS_H
#define LSI_PARAMS_H

#include "model/block.h"

enum lsi_param_kind {
    LSI_PARAM_BASE,
    LSI_PARAM_LORA_A, /* [rank][n_in] of the role's matrix */
    LSI_PARAM_LORA_B, /* [n_out][rank] */
};

struct lsi_param {
    char name[LSI_TENSOR_NAME]; /* in a Hugging Face file: "model.layers.3.mlp.up_proj.weight"; of an adapter
                                   "model.layers.3.mlp.up_proj.lora_A.weight" */
    enum lsi_param_kind kind;
    enum lsi_role role;
    size_t layer;         /* 0 outside the layers */
    size_t rank;          /* 2: [rows][cols], 1: [cols] */
    size_t rows, cols;    /* rows 1 for rank 1 */
    size_t n;             /* rows * cols */
    bool decay;           /* matrices */
    bool trained;         /* false: frozen (LoRA) */
    enum lsi_dtype dtype; /* of w: F32, or BF16 for matrices */
    void *w;              /* [n] */
    bool has_master;
    float *master; /* [n] fp32, or NULL */
    float *grad;   /* [n] fp32, or NULL while it has none */
    void *m, *v;
    enum lsi_moments moments;
};

/* What decides the list and the memory of parameters. */
struct lsi_params_options {
    enum lsi_dtype dtype; /* of matrices */
    bool master;          /* fp32 master weights beside BF16 ones */
    enum lsi_moments moments;
    bool resident;         /* gradients of all parameters at once; else of a layer at a time */
    size_t lora_rank;      /* 0: all parameters are trained */
    float lora_scale;      /* alpha / rank */
    unsigned lora_targets; /* bit of each enum lsi_proj */
};

struct lsi_params {
    struct lsi_param *list; /* [n] embedding, layers ascending, output norm, output, adapters by layer */
    size_t n;
    size_t n_outside;    /* parameters outside the layers that stand before them: the embedding */
    uint64_t n_elements; /* of all */
    uint64_t n_trained;  /* elements that are trained */
    struct lsi_params_options options;
    struct lsi_lora *lora; /* [L][LSI_N_PROJ] or NULL */
    size_t L;
    const ls_alloc *alloc;
};

/** Make the list; no memory of tensors yet. */
ls_status lsi_params_create(struct lsi_params *p, const struct lsi_config *c,
                            const struct lsi_params_options *o, const ls_alloc *alloc, ls_error *err);
void lsi_params_free(struct lsi_params *p);

/* Bytes by purpose. */
struct lsi_params_bytes {
    uint64_t weights, master, moments, gradients;
};
/** Take the tensors' memory from an arena, or count it. */
void lsi_params_layout(struct lsi_params *p, struct lsi_arena *arena, struct lsi_params_bytes *bytes);

/** "q_proj,down_proj", "all" or NULL: bits of enum lsi_proj. */
ls_status lsi_params_targets(const char *text, unsigned *targets, ls_error *err);

/** Values from the files of an open model (any stored type). */
ls_status lsi_params_load(struct lsi_params *p, struct lsi_exec *ex, const ls_model *m, ls_error *err);
/** Random weights: matrices normal with deviation std, gains 1, biases 0. */
void lsi_params_random(struct lsi_params *p, double std, uint64_t seed);
/** Adapters as PEFT begins: A uniform within 1/sqrt(n_in), B zero. */
void lsi_params_random_adapters(struct lsi_params *p, uint64_t seed);
/** Set the values of one parameter, in fp32 (master and working weight). */
void lsi_param_set(struct lsi_param *p, size_t first, const float *values, size_t n);
/** The first parameter that holds a value that is not finite, or NULL. */
const struct lsi_param *lsi_params_not_finite(const struct lsi_params *p);
/** Values [first, first + n) of a parameter in fp32: the master's where there is one. */
void lsi_param_get(const struct lsi_param *p, size_t first, float *values, size_t n);

/**
 * A model over the parameters: m->config is set by the caller; layers, matrices, vectors and rotary
 * frequencies are filled. lsi_params_unbind releases what this took.
 */
ls_status lsi_params_bind(struct lsi_params *p, struct ls_model *m, ls_error *err);
void lsi_params_unbind(struct ls_model *m);

/** Where a layer's gradients go: NULL for what is not trained. */
void lsi_params_layer_grads(const struct lsi_params *p, size_t layer, struct lsi_layer_grads *g);
/** The parameter of a role, or NULL. */
struct lsi_param *lsi_params_find(const struct lsi_params *p, enum lsi_role role, size_t layer);
/** Parameters of a layer, adapters included: calls fn for each. */
typedef void lsi_param_fn(void *user, struct lsi_param *p);
void lsi_params_each_of_layer(const struct lsi_params *p, size_t layer, lsi_param_fn *fn, void *user);

#endif

/*
 * The model behind ls_model: configuration, weights bound to their files, rotary
 * frequencies. Immutable once open; shared by contexts through a reference count.
 *
 * Matrices stay where the file was mapped, in the type they are stored in, aligned
 * to nothing in particular. Vectors (gains, biases) are copied to fp32; gains hold
 * what the norm multiplies by, whatever offset the file stores them with.
 */
#ifndef LSI_MODEL_IMPL_H
#define LSI_MODEL_IMPL_H

#include <stdatomic.h>

#include <longspan/model.h>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/families.h"
#include "ops/ops.h"

struct lsi_layer {
    struct lsi_weight q, k, v, o;                 /* [H*D][C], [G*D][C], [G*D][C], [C][H*D] */
    struct lsi_weight gate, up, down;             /* [F][C], [F][C], [C][F] */
    const float *attn_norm;                       /* [C] */
    const float *ffn_norm;                        /* [C] before the MLP */
    const float *q_norm, *k_norm;                 /* [D] or NULL */
    const float *post_attn_norm;                  /* [C] or NULL */
    const float *post_ffn_norm;                   /* [C] or NULL */
    const float *q_bias, *k_bias, *v_bias;        /* [H*D], [G*D], [G*D] or NULL; rows as in q, k, v */
    const float *o_bias;                          /* [C] or NULL */
    const float *gate_bias, *up_bias, *down_bias; /* [F], [F], [C] or NULL */
    const struct lsi_rope *rope;                  /* of this layer's kind */
    size_t window;                                /* 0: sees everything before it */
};

/* A tensor of either format. Text is not NUL-terminated. */
struct lsi_tensor {
    struct lsi_str name;
    enum lsi_dtype dtype;
    char dtype_name[16];
    size_t rank;
    uint64_t shape[LSI_ST_MAX_RANK]; /* slowest axis first */
    const unsigned char *data;
    size_t bytes;
};

/* Where the tensors come from. */
struct lsi_source {
    bool is_gguf;
    struct lsi_gguf gguf;
    struct lsi_safetensors st;
    const char *prefix; /* Hugging Face: what stands before "layers.0.…", "model." or longer; static */
};

struct ls_model {
    struct lsi_config config;
    struct lsi_layer *layers; /* [L] */
    struct lsi_weight embed;  /* [V][C] */
    struct lsi_weight output; /* [V][C]; the embedding when tied */
    const float *output_norm; /* [C] */
    struct lsi_rope rope[2];  /* full attention layers; sliding layers */
    const char *path;

    /* owned by model.c and load.c */
    struct lsi_source source;
    struct lsi_arena vectors; /* gains, biases, frequencies, layers, names */
    ls_tensor_info *tensors;  /* [n_tensors] */
    size_t n_tensors;
    uint64_t n_parameters, weight_bytes;
    enum lsi_dtype main_dtype;
    const ls_alloc *alloc;
    atomic_int refs;
};

/** Returns the model. */
ls_model *lsi_model_ref(ls_model *m);
/** The last reference closes the files. NULL allowed. */
void lsi_model_unref(ls_model *m);

/** Open the files of a path: a .gguf file, a directory with config.json or one .gguf, a .safetensors file. */
ls_status lsi_source_open(struct lsi_source *s, struct lsi_config *c, const char *path, const ls_alloc *alloc,
                          ls_error *err);
void lsi_source_close(struct lsi_source *s);
size_t lsi_source_n_tensors(const struct lsi_source *s);
void lsi_source_tensor(const struct lsi_source *s, size_t i, struct lsi_tensor *t);
/** False when the file has no tensor for the role. layer is ignored for roles outside the layers. */
bool lsi_source_find(const struct lsi_source *s, const struct lsi_config *c, enum lsi_role role, size_t layer,
                     struct lsi_tensor *t);

#endif

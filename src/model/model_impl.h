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
#include "formats/model_path.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/families.h"
#include "ops/ops.h"

/* The matrices of a layer that an adapter may be added to. */
enum lsi_proj {
    LSI_PROJ_Q,
    LSI_PROJ_K,
    LSI_PROJ_V,
    LSI_PROJ_O,
    LSI_PROJ_GATE,
    LSI_PROJ_UP,
    LSI_PROJ_DOWN,
    LSI_N_PROJ
};

/* A low-rank addition to a matrix (LoRA, arXiv 2106.09685): y += scale * B (A x). */
struct lsi_lora {
    struct lsi_weight a, b; /* [rank][n_in], [n_out][rank]; a.data NULL: none */
    float scale;            /* alpha / rank */
};

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
    const struct lsi_lora *lora;                  /* [LSI_N_PROJ] or NULL */
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
    const char *prefix;       /* Hugging Face: what stands before "layers.", "model." or longer; static */
    const char *head_prefix;  /* before "lm_head."; static */
    char dir[LSI_MODEL_PATH]; /* Hugging Face: the directory */
};

#define LSI_TENSOR_NAME 160 /* bytes that hold any name lsi_source_name makes */

struct ls_model {
    struct lsi_config config;
    struct lsi_layer *layers; /* [L] */
    struct lsi_weight embed;  /* [V][C] */
    struct lsi_weight output; /* [V][C]; the embedding when tied */
    const float *output_norm; /* [C] */
    struct lsi_rope rope[2];  /* full attention layers; sliding layers */
    const char *path;

    /* owned by model.c and bind.c */
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
/** A zeroed source is fine. */
void lsi_source_close(struct lsi_source *s);
size_t lsi_source_n_tensors(const struct lsi_source *s);
void lsi_source_tensor(const struct lsi_source *s, size_t i, struct lsi_tensor *t);
/** Value i of a tensor of type F32, F16 or BF16, as stored. */
float lsi_tensor_value(const struct lsi_tensor *t, size_t i);
/** Name of a role in this source; false when its format has none. layer is ignored outside the layers. */
bool lsi_source_name(const struct lsi_source *s, const struct lsi_family *f, enum lsi_role role, size_t layer,
                     char *out, size_t cap);
/** False when the file has no such tensor. */
bool lsi_source_find(const struct lsi_source *s, const struct lsi_family *f, enum lsi_role role, size_t layer,
                     struct lsi_tensor *t);
/** Split "blk.7.attn_q.weight" in 7 and "attn_q.weight"; false for tensors outside the layers. */
bool lsi_source_layer_name(const struct lsi_source *s, struct lsi_str name, size_t *layer,
                           struct lsi_str *rest);

/** Role of a tensor by its name; false for tensors that no role has. */
bool lsi_source_role(const struct lsi_source *s, const struct lsi_family *f, struct lsi_str name,
                     enum lsi_role *role, size_t *layer);

/* Shape of a role: rank 2 (rows, columns), rank 1 (columns), or 0 when this model has no such tensor. */
struct lsi_shape {
    size_t rank;
    size_t rows, cols;
};
struct lsi_shape lsi_role_shape(const struct lsi_config *c, enum lsi_role role);
/** Whether Hugging Face files store the gain less 1 for families with gain_offset. */
bool lsi_role_is_gain(enum lsi_role role);

/** The rotary embedding of the layers that slide (1) or do not (0); inv_freq [D/2] is filled and kept. */
void lsi_model_rope(struct lsi_rope *rope, const struct lsi_config *c, int sliding, double *inv_freq);

/** Bind every tensor of the model (config and source are set). Checks names, types and shapes. */
ls_status lsi_model_bind(struct ls_model *m, ls_error *err);

#endif

/*
 * The families of models that are known, and the names their tensors have in
 * files. A Llama-like family is one row of the table in families.c and, when its
 * names differ, a name map.
 */
#ifndef LSI_FAMILIES_H
#define LSI_FAMILIES_H

#include "base/base.h"

/* What a tensor is for, independent of the file format. */
enum lsi_role {
    LSI_ROLE_TOKEN_EMBD,
    LSI_ROLE_OUTPUT_NORM,
    LSI_ROLE_OUTPUT,
    LSI_ROLE_ROPE_FREQS, /* GGUF only: divisors of the rotary frequencies */
    LSI_ROLE_ATTN_NORM,  /* the first role of a layer */
    LSI_ROLE_Q,
    LSI_ROLE_K,
    LSI_ROLE_V,
    LSI_ROLE_O,
    LSI_ROLE_Q_BIAS,
    LSI_ROLE_K_BIAS,
    LSI_ROLE_V_BIAS,
    LSI_ROLE_O_BIAS,
    LSI_ROLE_Q_NORM,
    LSI_ROLE_K_NORM,
    LSI_ROLE_POST_ATTN_NORM,
    LSI_ROLE_FFN_NORM,
    LSI_ROLE_GATE,
    LSI_ROLE_UP,
    LSI_ROLE_DOWN,
    LSI_ROLE_GATE_BIAS,
    LSI_ROLE_UP_BIAS,
    LSI_ROLE_DOWN_BIAS,
    LSI_ROLE_POST_FFN_NORM,
    LSI_N_ROLES
};

static inline bool lsi_role_in_layer(enum lsi_role role)
{
    return role >= LSI_ROLE_ATTN_NORM;
}

/* A name of a role in one format; NULL when the format has none. */
struct lsi_role_name {
    const char *hf;   /* after "model." (or its longer prefix); in a layer after "layers.N." */
    const char *gguf; /* in a layer after "blk.N." */
};

/* What absent fields of config.json mean; 0: the field is required. */
struct lsi_family_defaults {
    size_t n_heads;    /* num_attention_heads */
    size_t n_kv_heads; /* num_key_value_heads; 0: as many as heads */
    size_t head_dim;   /* 0: hidden_size / heads */
    size_t n_vocab;
    size_t n_ctx;  /* max_position_embeddings */
    size_t window; /* sliding_window */
    double rope_base;
    double rope_base_local; /* 0: sliding layers use rope_base */
    size_t sliding_pattern; /* every n-th layer is full attention; 0: no pattern */
    bool tied;
};

struct lsi_family {
    const char *name;           /* what ls_model_info reports */
    const char *model_types[3]; /* config.json */
    const char *architectures[3];
    const char *gguf_arch;
    bool interleaved_gguf; /* q and k rows are permuted in GGUF files */
    bool qkv_bias;         /* always has biases on q, k, v */
    bool qk_norm;
    bool post_norms;
    bool gain_offset;      /* Hugging Face files store gains less 1 */
    bool scaled_embedding; /* by sqrt(C) */
    bool gelu;             /* tanh-approximated GELU instead of SiLU */
    struct lsi_family_defaults defaults;
    const struct lsi_role_name *names; /* [LSI_N_ROLES] */
};

/** By config.json's model_type or, without one, by architectures[0]; NULL when unknown. */
const struct lsi_family *lsi_family_from_hf(const char *model_type, const char *architecture);
/** By general.architecture; NULL when unknown. Mistral files say "llama". */
const struct lsi_family *lsi_family_from_gguf(const char *arch, size_t len);
/** The family of the same GGUF architecture whose attention slides (Mistral for Llama), else f. */
const struct lsi_family *lsi_family_windowed(const struct lsi_family *f);
/** "llama, mistral, ..." for messages. */
const char *lsi_family_list(void);

#endif

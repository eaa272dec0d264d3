/*
 * What a model is, in numbers: one declarative description for every family and
 * both file formats. Reading it touches no weights; every limit is checked here,
 * before anything large is allocated.
 */
#ifndef LSI_CONFIG_H
#define LSI_CONFIG_H

#include "base/base.h"
#include "formats/gguf.h"
#include "ops/ops.h"

#define LSI_MAX_LAYERS 1024
#define LSI_MAX_WIDTH  ((size_t)1 << 20) /* C, F, H * D */
#define LSI_MAX_HEADS  4096
#define LSI_MAX_HEAD   1024 /* D */
#define LSI_MAX_VOCAB  ((size_t)1 << 24)
#define LSI_MAX_EOS    16

struct lsi_family; /* families.h */

enum lsi_rope_scaling {
    LSI_ROPE_NONE,
    LSI_ROPE_LINEAR,
    LSI_ROPE_LLAMA3,
    LSI_ROPE_YARN,
    LSI_N_ROPE_SCALINGS
};

/* "none", "linear", "llama3", "yarn". */
const char *lsi_rope_scaling_name(enum lsi_rope_scaling s);

/* One setting of the rotary embedding, as files state it. */
struct lsi_rope_config {
    double base;
    enum lsi_rope_scaling scaling;
    double factor;               /* linear, llama3, yarn; 1 without scaling */
    double original_ctx;         /* llama3, yarn: context before stretching */
    double low_freq_factor;      /* llama3 */
    double high_freq_factor;     /* llama3 */
    double attention_factor;     /* yarn: multiplies cos and sin; 1 otherwise */
    double beta_fast, beta_slow; /* yarn */
    bool truncate;               /* yarn: round the limits of the ramp to whole dimensions */
};

struct lsi_config {
    const struct lsi_family *family;
    char name[128]; /* as the file says; may be "" */
    size_t L;       /* layers */
    size_t C;       /* width of the residual stream */
    size_t H, G, D; /* query heads, key/value heads, values per head */
    size_t F;       /* width of the MLP */
    size_t V;       /* rows of the output matrix */
    size_t n_ctx_train;
    float eps;
    enum lsi_act act;
    bool qkv_bias;     /* q, k, v have biases */
    bool o_bias;       /* the attention output has one */
    bool mlp_bias;     /* gate, up, down have biases */
    bool qk_norm;      /* RMSNorm over each head of q and k, before the rotary embedding */
    bool post_norms;   /* Gemma 3: x += norm(attn(norm(x))), x += norm(mlp(norm(x))) */
    bool tied;         /* the output matrix is the embedding */
    bool interleaved;  /* q and k rows are stored for interleaved pairing (GGUF llama) */
    float embed_scale; /* multiplies the embedding: sqrt(C) for Gemma, else 1 */
    float attn_scale;  /* multiplies q.k */
    size_t window;     /* of sliding layers: key j is seen by query i iff i - window < j <= i; 0: none */
    size_t n_window_layers;
    struct lsi_rope_config rope[2]; /* full attention layers; sliding layers */
    int32_t bos;                    /* -1: none */
    int32_t eos[LSI_MAX_EOS];
    size_t n_eos;

    /* owned */
    bool *sliding;         /* [L] */
    double *freq_divisors; /* [D/2] of GGUF's rope_freqs.weight, or NULL: divides rope[0] frequencies */
    const ls_alloc *alloc;
};

/**
 * Read config.json. Tied, H, G and V may be absent there with defaults of the family.
 * @param name  the path, for messages
 * On failure *c is zeroed and nothing is held. Unknown or unimplemented features are refused by name.
 */
ls_status lsi_config_from_json(struct lsi_config *c, const void *data, size_t bytes, const char *name,
                               const ls_alloc *alloc, ls_error *err);

/** Add the stop ids of generation_config.json. */
ls_status lsi_config_add_generation(struct lsi_config *c, const void *data, size_t bytes, const char *name,
                                    ls_error *err);

/** Read the metadata of a GGUF file (V and tied need its tensor list, rope_freqs its data). */
ls_status lsi_config_from_gguf(struct lsi_config *c, const struct lsi_gguf *g, const char *name,
                               const ls_alloc *alloc, ls_error *err);

/** The limits on sizes, to be passed before anything is allocated by them. */
ls_status lsi_config_check_sizes(const struct lsi_config *c, const char *name, ls_error *err);
/** What both readers end with: sizes, scalings, windows. */
ls_status lsi_config_check(const struct lsi_config *c, const char *name, ls_error *err);

/** inv_freq[D/2] of a setting; divisors may be NULL. Returns the multiplier of cos and sin. */
double lsi_rope_frequencies(const struct lsi_rope_config *r, const double *divisors, size_t D,
                            double *inv_freq);

/** YaRN's multiplier of cos and sin when none is given. */
double lsi_yarn_attention_factor(double factor);
/** Add a stop id unless it is there already, out of range, or one too many. */
void lsi_config_add_eos(struct lsi_config *c, int64_t id);
/** Fill the sliding flags from a window and the family's pattern (pattern 0: all layers slide). */
void lsi_config_set_pattern(struct lsi_config *c, size_t pattern);

/** A copy that owns its arrays. */
ls_status lsi_config_copy(struct lsi_config *c, const struct lsi_config *from, const ls_alloc *alloc,
                          ls_error *err);
void lsi_config_fini(struct lsi_config *c);

#endif

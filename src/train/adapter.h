/*
 * LoRA adapters in files, as PEFT reads and writes them: a directory with
 *
 *   adapter_config.json        rank r, alpha, target_modules
 *   adapter_model.safetensors  of every matrix W [n_out][n_in] that has one
 *       base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight  [r][n_in]
 *       base_model.model.model.layers.N.self_attn.q_proj.lora_B.weight  [n_out][r]
 *   longspan.json              what else was changed of the model (extend.h); PEFT does not look at it
 *
 * The matrix becomes W + (alpha / r) B A. Parameters of kinds LSI_PARAM_LORA_A and _B have the same names
 * without "base_model.model.".
 */
#ifndef LSI_ADAPTER_H
#define LSI_ADAPTER_H

#include "train/extend.h"
#include "train/params.h"

#define LSI_PEFT_PREFIX "base_model.model." /* of names in PEFT's files */

/* What an adapter adds to one matrix. */
struct lsi_adapter_target {
    enum lsi_role role;
    size_t layer;
    size_t n_out, n_in;
    float *a; /* [rank][n_in] */
    float *b; /* [n_out][rank] */
};

struct lsi_adapter {
    size_t rank;
    double alpha;
    struct lsi_extension extension;
    struct lsi_adapter_target *targets; /* [n] */
    size_t n;
    /* owned by adapter.c */
    size_t cap;
    const ls_alloc *alloc;
};

/** Read an adapter for models of a configuration. LS_E_UNSUPPORTED for what is not plain LoRA. */
ls_status lsi_adapter_open(struct lsi_adapter *a, const char *dir, const struct lsi_config *c,
                           const ls_alloc *alloc, ls_error *err);
/** A zeroed adapter is fine. */
void lsi_adapter_close(struct lsi_adapter *a);
/** The addition to a matrix, or NULL. */
const struct lsi_adapter_target *lsi_adapter_find(const struct lsi_adapter *a, enum lsi_role role,
                                                  size_t layer);

/**
 * Write the adapters among parameters, in fp32, into the directory `dir`, or replace what is there.
 * @param alpha  as for training: the scale is alpha / rank
 * @param base   name or path of the model they belong to, for whoever loads them
 * @param e      what was changed of that model beside its matrices
 */
ls_status lsi_adapter_save(const struct lsi_params *p, double alpha, const char *base,
                           const struct lsi_extension *e, const char *dir, ls_error *err);

#endif

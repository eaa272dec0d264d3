/*
 * What a run gives: its parameters as a Hugging Face directory that transformers loads unchanged.
 * A GGUF file is ls_convert of that directory.
 */
#ifndef LSI_EXPORT_H
#define LSI_EXPORT_H

#include "train/params.h"

struct lsi_export {
    const struct lsi_params *params;
    const struct lsi_config *config; /* of the result: rotary embedding and context as trained */
    enum lsi_dtype dtype;            /* of the tensors, F32 or BF16. Vectors that bf16 does not hold exactly
                                        stay F32 */
    /* where everything but the tensors comes from */
    const ls_model *source; /* the model that was trained on, or NULL */
    const char *init;       /* without source: the config.json that the run began from, or NULL */
    const char *tokenizer;  /* GGUF file or directory to take the tokenizer from; NULL: from source, or the
                               folder of init */
    const ls_alloc *alloc;
    const volatile int *cancel;
};

/**
 * Write the directory `out`, or replace the model that is there; what is no part of a model is refused. The
 * weights are the masters where there are some; adapters are left out (adapter.h).
 */
ls_status lsi_export_hf(const struct lsi_export *e, const char *out, ls_error *err);
/** The same with another limit for shards (tests). */
ls_status lsi_export_sharded(const struct lsi_export *e, const char *out, uint64_t shard_bytes,
                             ls_error *err);

#endif

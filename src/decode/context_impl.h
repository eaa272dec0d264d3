/* A context as context.c and session_file.c share it. */
#ifndef LSI_CONTEXT_IMPL_H
#define LSI_CONTEXT_IMPL_H

#include <longspan/context.h>

#include "model/block.h"

struct ls_context {
    ls_model *model;
    struct lsi_exec exec;
    struct lsi_cache *cache;
    struct lsi_arena arena; /* activations and one row of logits, backend memory */
    struct lsi_activations act;
    float *logits; /* [V] */
    size_t block;
    size_t last_rows;           /* of the last block */
    char kv[192];               /* as it was asked for */
    char kv_now[192];           /* percentages resolved */
    ls_context_options options; /* as it was made; kv is the text above */

    /* made when all rows' logits are first wanted */
    size_t logits_rows;
    float *all_logits;  /* [logits_rows][V], backend memory */
    float *host_logits; /* the same on the host, for the caller's function */
    float *nll;         /* [logits_rows], backend memory */
};

/** What the cache is called now: a prompt makes numbers of tokens of the percentages of budgets. */
void lsi_context_name_cache(ls_context *ctx);

/** Tokens through all layers in blocks; the work of every append. */
ls_status lsi_context_run(ls_context *ctx, const int32_t *tokens, size_t n_tokens, ls_error *err);

/** What a session file says of the model that it was made with. */
uint64_t lsi_session_fingerprint(const ls_model *m);

#endif

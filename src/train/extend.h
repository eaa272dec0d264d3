/*
 * What a run changes of a model so that it reads longer texts: the rotary embedding and the length of its
 * context. An exported model has it in its config.json; beside an adapter, whose own file has no place for
 * it, stands longspan.json, which PEFT leaves alone:
 *
 *     { "context_length": 16384, "rope_base": 500000.0, "rope_scaling": "yarn:4" }
 */
#ifndef LSI_EXTEND_H
#define LSI_EXTEND_H

#include "model/model_impl.h"

#define LSI_EXTENSION_FILE "longspan.json"

struct lsi_extension {
    double rope_base;      /* 0: the model's */
    char rope_scaling[64]; /* as in ls_train_options; empty: the model's */
    size_t n_ctx;          /* 0: the model's */
};

ls_status lsi_config_extend(struct lsi_config *c, const struct lsi_extension *e, ls_error *err);

/** The text of the file. */
void lsi_extension_write(const struct lsi_extension *e, struct lsi_buf *b);
/** Read it from a directory; without it nothing changes. */
ls_status lsi_extension_read(struct lsi_extension *e, const char *dir, const ls_alloc *alloc, ls_error *err);

#endif

/*
 * The parameters of a small model with values of their own, without a trainer: for tests of
 * the files that hold them.
 */
#ifndef SMALL_PARAMS_H
#define SMALL_PARAMS_H

#include "train/params.h"

struct small_spec {
    enum lsi_dtype dtype; /* of matrices: F32 or BF16 */
    bool master;          /* beside BF16 */
    enum lsi_moments moments;
    size_t lora_rank; /* 0: all is trained */
    uint64_t seed;
};

/* Every parameter of the configuration with weights, masters and moments. Aborts the test on failure. */
void small_params(struct lsi_params *p, const struct lsi_config *c, const struct small_spec *spec,
                  const ls_alloc *alloc);
void small_params_free(struct lsi_params *p);
/* Whether everything that training changes is the same, bit by bit. */
bool small_params_equal(const struct lsi_params *a, const struct lsi_params *b);

/* The configuration of a config.json text. */
void small_config(struct lsi_config *c, const char *text);

#endif

/*
 * Reference logits, and the comparison with what this library computes.
 * scripts/make-golden/golden.py says what the files hold.
 */
#ifndef LS_GOLDEN_H
#define LS_GOLDEN_H

#include <longspan/longspan.h>

#include "formats/safetensors.h"

struct golden {
    struct lsi_safetensors file;
    size_t n_tokens; /* N */
    size_t n_probe;  /* P */
    size_t n_full;   /* M */
    size_t n_vocab;  /* V, 0 when no position is there in full */
    const int32_t *ids;
    const float *nll;
    const int32_t *top;
    const float *margin;
    const float *lse;
    const int32_t *probe_ids;
    const float *probe;     /* [N][P] */
    const int32_t *full_at; /* [M] ascending */
    const float *full;      /* [M][V] */
    const char *text;       /* NULL when the ids were not made of a text */
    size_t text_len;
};

ls_status golden_open(struct golden *g, const char *name, ls_error *err);
void golden_close(struct golden *g);

/** How a run is done. */
struct golden_run {
    const char *kv;
    ls_compute compute;
    int n_threads;
    size_t block;
};

/** How far a run is from the reference. */
struct golden_diff {
    size_t n_rows;
    double max;       /* largest |difference| of a logit */
    double rms;       /* of all compared logits */
    double top;       /* share of rows with the same top-1 */
    double top_clear; /* the same among rows whose reference margin is at least 0.25 */
    double nll_abs;   /* mean |difference| of the negative log likelihood */
    double nll_net;   /* mean difference */
    double nll_error; /* standard error of that mean */
    uint64_t bits;    /* hash of every logit's bits: equal for equal results */
};

/**
 * Give the golden ids to a model and compare every row.
 * @param keep  [N][V] all logits of the run, or NULL.
 */
ls_status golden_compare(const struct golden *g, ls_model *model, const struct golden_run *run,
                         struct golden_diff *diff, float *keep, ls_error *err);

void golden_print(const char *what, const struct golden_diff *d);

/** The file of a real model, from the environment or the cache folder; NULL when it is not there. */
const char *golden_model_path(const char *variable, const char *file);

#endif

/*
 * Trainers of small models of every family with weights of their own, sequences to train them on, and
 * comparisons of what comes out.
 */
#ifndef SMALL_TRAINER_H
#define SMALL_TRAINER_H

#include "../model/tiny.h"
#include "test.h"
#include "train/trainer.h"

#define SMALL_ROWS 160 /* most tokens of a sequence here */

/* A config.json for each family and what can differ within one: grouped heads, tied and untied, biases,
 * norms of heads, windows. No dimension is a multiple of what kernels work in. */
struct small_model {
    const char *name;
    const char *config;
};
extern const struct small_model small_models[];
extern const size_t small_n_models;
const char *small_find(const char *name); /* the config.json of a name */

/* Write a config.json into a directory; its path stays until the next call. */
const char *small_config_path(const char *dir, const char *config);
/* The defaults with fp32 and one thread. */
ls_train_options small_options(const char *config_path, size_t seq);
/* A trainer whose weights make activations of about one, from a seed; matrices are exact in bf16. */
ls_trainer *small_trainer(const ls_train_options *o, uint64_t seed);

/* A sequence that owns what it is made of. */
struct small_batch {
    int32_t tokens[SMALL_ROWS], labels[SMALL_ROWS];
    size_t doc_start[SMALL_ROWS + 1];
    ls_train_sequence s;
};
/* Random tokens; each label is what follows, the last of a document is ignored. ignored: share of the other
 * labels that are, too. n_docs 0: one document, without borders. */
void small_sequence(struct small_batch *b, size_t n, size_t V, size_t n_docs, double ignored, uint64_t seed);

/* Gradients of all trained parameters, one after the other, and the loss. */
struct small_result {
    float *values;
    size_t n;
    double loss;
};
struct small_result small_gradients(ls_trainer *t, const ls_train_sequence *seqs, size_t n);
struct small_result small_weights(const ls_trainer *t); /* working and master weights */
void small_free(struct small_result *r);

/* The worst of the parameters, relative to b. */
struct small_difference {
    double loss;
    double distance;    /* norm of the difference over the norm */
    double norm;        /* difference of norms */
    double whole;       /* difference of the norms of all tensors together */
    double element;     /* greatest of an element, over the greatest element of its tensor */
    const char *tensor; /* where the norm differs most */
};
struct small_difference small_compare(const ls_trainer *t, const struct small_result *a,
                                      const struct small_result *b);

#endif

/*
 * Training data: files to sequences of at most N tokens with labels and document
 * borders. Every sequence can be had by its number alone (epochs included), in an order
 * that a seed fixes: a run is resumed by going on with the next number.
 */
#ifndef LSI_DATA_H
#define LSI_DATA_H

#include <longspan/tokenizer.h>
#include <longspan/train.h>

#include "base/base.h"
#include "formats/model_path.h"

struct lsi_data; /* heap object */

struct lsi_data_options {
    const char *const *paths;
    size_t n_paths;
    ls_train_format format;
    const ls_tokenizer *tok;
    const char *tokenizer_path; /* where tok came from: part of the token cache's key; chat template */
    const char *chat_template;  /* NULL: recognised */
    size_t seq;
    bool shuffle, pack;
    uint64_t seed;
    const char *cache_dir;    /* NULL: no token cache on disk */
    size_t n_vocab;           /* ids must be below */
    int n_slots;              /* sequences held at once, 0: LSI_DATA_SLOTS */
    ls_progress_fn *progress; /* tokenising: bytes done, of total */
    void *progress_user;
    const volatile int *cancel;
    const ls_alloc *alloc;
};

/** Reads, tokenises (or maps the token cache) and cuts. */
ls_status lsi_data_open(struct lsi_data **d, const struct lsi_data_options *o, ls_error *err);
void lsi_data_close(struct lsi_data *d);

/** Sequences of one epoch, > 0. */
uint64_t lsi_data_n_sequences(const struct lsi_data *d);
/** Tokens in all sequences of an epoch, and those that are dropped. */
uint64_t lsi_data_n_tokens(const struct lsi_data *d);
uint64_t lsi_data_n_dropped(const struct lsi_data *d);

/** Digest of what the files hold and of the tokenizer; 0 without a token cache. */
uint64_t lsi_data_key(const struct lsi_data *d);

/**
 * Sequence number i (any i: epoch i / n_sequences). Pointers in *s are good until the next call for the same
 * slot (0 .. n_slots - 1).
 */
#define LSI_DATA_SLOTS 2
ls_status lsi_data_get(struct lsi_data *d, uint64_t i, int slot, ls_train_sequence *s, ls_error *err);
/** Labels of sequence i that are not ignored. */
ls_status lsi_data_n_valid(struct lsi_data *d, uint64_t i, uint64_t *n_valid, ls_error *err);

/* ---- of a run (data_run.c) ---- */

/** Where the tokenizer of a run is: tokenizer, else model, else the folder of init. */
ls_status lsi_data_tokenizer_path(const ls_train_options *o, char path[LSI_MODEL_PATH], ls_error *err);
/**
 * What o says about the data that are trained on, or with eval about o->eval_data, which are read in order.
 * They point into *o; tok and its path are the caller's. The token cache is o->token_cache.
 */
void lsi_data_run_options(struct lsi_data_options *d, const ls_train_options *o, bool eval,
                          const ls_tokenizer *tok, const char *tokenizer_path, size_t n_vocab);

#endif

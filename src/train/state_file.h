/*
 * Checkpoints of a run, RUN/checkpoints/step-00000123.safetensors: everything that the steps after
 * step 123 depend on. Of every trained parameter NAME
 *
 *   NAME      its weight: the fp32 master where there is one (the bf16 weight is its nearest), else the
 * weight NAME.m    first and second moment, F32 or BF16 [n], or U8 [bytes] of the 8-bit form NAME.v
 *
 * the metadata of struct lsi_state and the settings of the run as strings, and last of all "~checksums", U8:
 * little-endian 64-bit sums of the metadata and of every tensor in the order of the file. A file is written
 * beside its place, synced and renamed: whenever the process ends, the files that have their names are whole.
 */
#ifndef LSI_STATE_FILE_H
#define LSI_STATE_FILE_H

#include "train/params.h"

/* Where a run is. */
struct lsi_state {
    uint64_t step;          /* steps that are done */
    uint64_t next_sequence; /* number of the sequence to go on with */
    uint64_t tokens;        /* of all steps so far */
    double seconds;         /* and their time */
    double loss_mean;       /* the running mean of the progress line; NAN: none */
    uint64_t data;          /* digest of the data and their tokenizer, 0: not known */
};

/* A setting that must be the same for a run to be continued. */
struct lsi_setting {
    const char *name;
    char value[120];
};

/** RUN/checkpoints/step-N.safetensors, the folders made where they are missing. */
ls_status lsi_state_path(char out[LSI_MODEL_PATH], const char *run, uint64_t step, ls_error *err);

ls_status lsi_state_save(const char *path, const struct lsi_params *p, const struct lsi_state *s,
                         const struct lsi_setting *settings, size_t n_settings, ls_error *err);

/**
 * Read a file back into parameters of the same shape. Everything is checked before anything is changed.
 * LS_E_FORMAT: damaged. LS_E_INVAL: made with other settings or for another model; the sentence names the
 * difference.
 */
ls_status lsi_state_load(const char *path, struct lsi_params *p, struct lsi_state *s,
                         const struct lsi_setting *settings, size_t n_settings, ls_error *err);

typedef void lsi_note_fn(void *user, const char *sentence);

/**
 * Load the newest checkpoint of a run that is whole. A damaged one is passed over with a note. *s is
 * zeroed (step 0) when the run has no checkpoint at all; LS_E_FORMAT when it has but all are damaged.
 */
ls_status lsi_state_latest(const char *run, struct lsi_params *p, struct lsi_state *s,
                           const struct lsi_setting *settings, size_t n_settings, lsi_note_fn *note,
                           void *user, ls_error *err);

/** Remove all but the newest `keep` (at least 1) checkpoints, and what interrupted writers left. */
void lsi_state_prune(const char *run, size_t keep);

#endif

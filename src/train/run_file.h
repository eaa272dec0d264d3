/*
 * RUN/run.json: what a run was asked for, for people and for programs, and those of its settings that
 * have to be the same for it to be continued.
 */
#ifndef LSI_RUN_FILE_H
#define LSI_RUN_FILE_H

#include "train/state_file.h"

#include <longspan/train.h>

/** Write RUN/run.json: version, time, the model's numbers, every option. c may be NULL. */
ls_status lsi_run_file_write(const char *run, const ls_train_options *o, const struct lsi_config *c,
                             const ls_alloc *alloc, ls_error *err);

#define LSI_RUN_SETTINGS 40 /* room that is always enough */

/**
 * The settings that decide which data come in which order and what numbers are kept, as texts. Everything
 * else (learning rate, steps, mode, memory, threads) may change when a run is continued. Lists longer than a
 * value are shortened to a checksum.
 */
ls_status lsi_run_settings(const ls_train_options *o, struct lsi_setting out[LSI_RUN_SETTINGS], size_t *n,
                           ls_error *err);

#endif

/* What train, verify-training and plan share. */
#ifndef LONGSPAN_CLI_TRAIN_H
#define LONGSPAN_CLI_TRAIN_H

#include "cli_options.h"

/**
 * The library's options from those of the command line, whose texts they point to; *model is the path that
 * was found, to be released with free. EXIT_OK, or EXIT_USAGE after a sentence on stderr.
 */
int train_options(const struct cli_options *o, ls_train_options *t, char **model);

/** Report a failure. Where a step takes more memory than there is, the sentence goes on with what would fit.
 */
int train_fails(const ls_train_options *t, ls_status st, const ls_error *err);

/** Of these, what decides the memory of a step: mode, numbers, adapters, clipping, accumulation, pieces. */
void train_options_how(const struct cli_options *o, ls_train_options *t);

#endif

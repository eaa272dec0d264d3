/* What train and verify-training share. */
#ifndef LONGSPAN_CLI_TRAIN_H
#define LONGSPAN_CLI_TRAIN_H

#include "cli_options.h"

/**
 * The library's options from those of the command line, whose texts they point to; *model is the path that
 * was found, to be released with free. EXIT_OK, or EXIT_USAGE after a sentence on stderr.
 */
int train_options(const struct cli_options *o, ls_train_options *t, char **model);

#endif

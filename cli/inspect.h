/* What attention of a text looks like: collected row by row, told as numbers and as a picture. */
#ifndef LONGSPAN_INSPECT_H
#define LONGSPAN_INSPECT_H

#include "cli.h"

/** A map of queries (down) and keys (across), both in bins of equal numbers of tokens; the last may have
 * less. */
struct attention_map {
    size_t n_tokens, n_bins;
    size_t per_bin; /* tokens */
    double *mass;   /* [n_bins][n_bins] probability, of all rows and heads added */
    double *rows;   /* [n_bins] how many rows and heads were added */
};

void map_init(struct attention_map *m, size_t n_tokens);
void map_free(struct attention_map *m);
/** Probabilities that a row gives to tokens 0 .. row. */
void map_add(struct attention_map *m, size_t row, const float *p);
/** Write the picture; title is a line above it. EXIT_OK, or EXIT_ERROR after a message. */
int map_write(const struct attention_map *m, const char *path, const char *title);

/** The sum of the k greatest of n values; x is reordered. */
double largest_sum(float *x, size_t n, size_t k);

#endif

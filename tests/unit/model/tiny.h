/*
 * Small models with random weights, written by the library's own writers, and
 * directories to write them in.
 */
#ifndef TINY_H
#define TINY_H

#include "model/model_impl.h"

/* A directory of its own below $TMPDIR; everything in it (two levels) is removed by tiny_remove. */
void tiny_dir(char *out, size_t cap);
void tiny_remove(const char *dir);
/* dir/name; the text stays until the fourth call after this one. */
const char *tiny_path(const char *dir, const char *name);
void tiny_write(const char *dir, const char *name, const void *data, size_t bytes);
/* What dir/name holds, as text, until the next call. */
const char *tiny_read(const char *dir, const char *name);
extern char tiny_content[1 << 16];
/* Entries of a directory whose names begin with no dot; 0 when there is none. */
size_t tiny_count(const char *dir);

/* What differs from a whole model of the family. */
struct tiny_spec {
    const char *config;       /* config.json */
    enum lsi_dtype dtype;     /* of the tensors: F32 or BF16 */
    const char *skip;         /* leave this tensor out */
    const char *reshape;      /* give this tensor one row (or value) more */
    const char *extra;        /* add a vector of 8 values of this name */
    enum lsi_dtype odd_dtype; /* give `odd` this type */
    const char *odd;
    bool head; /* write lm_head.weight although the model is tied */
};

/* Write config.json and model.safetensors into an existing directory. Aborts the case on failure. */
void tiny_model(const char *dir, const struct tiny_spec *spec);

/* A config.json for each family. */
extern const char *const tiny_configs[];
extern const size_t tiny_n_configs;

#endif

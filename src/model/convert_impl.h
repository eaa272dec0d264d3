/*
 * Conversion: a plan (which tensor of the source becomes which tensor of the output, in which
 * type), written by one of two writers that stream the tensors row by row.
 *
 *   convert.c       options, the plan
 *   convert_rows.c  rows: permutation, gains, types
 *   convert_gguf.c  GGUF files: metadata, tensors
 *   convert_hf.c    Hugging Face directories, with hf_dir.h
 */
#ifndef LSI_CONVERT_IMPL_H
#define LSI_CONVERT_IMPL_H

#include <longspan/convert.h>

#include "kernels/kernels.h"
#include "model/model_impl.h"

/* Order of the rows of q and k within a head. */
enum lsi_row_order {
    LSI_ROWS_SAME,
    LSI_ROWS_INTERLEAVE, /* halves to pairs: out[2i + s] = in[s * D/2 + i] */
    LSI_ROWS_SPLIT,      /* pairs to halves */
};

/* Something that changes the rows of matrices on their way, in fp32, and perhaps the configuration. */
struct lsi_convert_edit {
    /* *changed: whether something of the configuration is to be written that the source does not say. */
    ls_status (*configure)(void *user, struct lsi_config *c, bool *changed, ls_error *err);
    bool (*wanted)(void *user, enum lsi_role role, size_t layer);
    /* row: as Hugging Face files have them. Called by several threads at once. */
    void (*apply)(void *user, enum lsi_role role, size_t layer, size_t row, float *values);
    void *user;
};

struct lsi_convert_tensor {
    char name[LSI_TENSOR_NAME]; /* in the output */
    struct lsi_tensor src;
    enum lsi_dtype dtype; /* in the output */
    float add;            /* to each value: Gemma's gains are stored less 1 in one of the formats */
    enum lsi_row_order order;
    size_t rows, cols;                   /* of one row; a vector that is reordered has rows of one value */
    const struct lsi_convert_edit *edit; /* NULL: none */
    enum lsi_role role;
    size_t layer;
    bool pairs;     /* the source has its rows in interleaved order */
    uint64_t bytes; /* in the output */
};

struct lsi_convert {
    ls_convert_options o;
    const ls_alloc *alloc;
    ls_error *err;
    ls_model *m;
    const char *out;
    const struct lsi_convert_edit *edit; /* NULL: none */
    bool reconfigured;                   /* the model's configuration is no longer the source's */
    bool to_gguf;
    enum lsi_dtype dtype; /* asked for; LSI_N_DTYPES: keep */
    uint64_t shard_bytes;
    struct lsi_convert_tensor *tensors;
    size_t n_tensors, n_done;
    struct lsk_table kernels;
    int n_threads;
    struct lsi_pool *pool; /* NULL with one thread */
};

/** ls_convert with another limit for shards (tests), and with an edit (NULL: none). */
ls_status lsi_convert_edited(const char *in, const char *out, const ls_convert_options *o,
                             uint64_t shard_bytes, const struct lsi_convert_edit *edit, ls_error *err);

/** The type that the matrices of a Hugging Face directory get, or would get when kept. */
enum lsi_dtype lsi_convert_float_dtype(const struct lsi_convert *cv);

/** LS_E_CANCELED when the caller asked for it. */
ls_status lsi_convert_check_cancel(const struct lsi_convert *cv);
/** Count a finished tensor. */
void lsi_convert_progress(struct lsi_convert *cv);

typedef void lsi_write_fn(void *to, const void *data, size_t bytes);
/** Convert a tensor and hand its bytes on in pieces. */
ls_status lsi_convert_rows(struct lsi_convert *cv, const struct lsi_convert_tensor *t, lsi_write_fn *write,
                           void *to);

ls_status lsi_convert_to_gguf(struct lsi_convert *cv);
ls_status lsi_convert_to_hf(struct lsi_convert *cv);

#endif

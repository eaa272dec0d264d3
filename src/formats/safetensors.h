/*
 * safetensors: one file, or shards with model.safetensors.index.json.
 *
 *   u64 N | JSON header of N bytes | tensor bytes
 *   header: {"name": {"dtype": "F16", "shape": [..], "data_offsets": [BEGIN, END]}, ...,
 *            "__metadata__": {string: string}}
 *
 * Validation follows the reference reader: contiguous, sorted, exact file size.
 */
#ifndef LSI_SAFETENSORS_H
#define LSI_SAFETENSORS_H

#include "base/base.h"
#include "base/dtype.h"

#define LSI_ST_MAX_RANK 8

struct lsi_st_tensor {
    char *name;
    enum lsi_dtype dtype; /* LSI_OTHER when listed but not loadable */
    char dtype_name[16];  /* as written */
    uint32_t rank;
    uint64_t shape[LSI_ST_MAX_RANK];
    const unsigned char *data; /* not necessarily aligned */
    size_t bytes;
    uint32_t shard;
};

struct lsi_safetensors {
    size_t n_tensors;
    struct lsi_st_tensor *tensors; /* sorted by name */
    size_t n_unlisted; /* tensors in the shards that the index does not name: left out, worth a warning */
    /* owned by safetensors.c */
    size_t cap_tensors;
    struct lsi_map *maps; /* one for each shard */
    size_t n_maps;
    const ls_alloc *alloc;
};

/** One .safetensors file. */
ls_status lsi_st_open(struct lsi_safetensors *s, const char *path, const ls_alloc *alloc, ls_error *err);
/** model.safetensors or, without it, the shards named by model.safetensors.index.json in a directory. */
ls_status lsi_st_open_dir(struct lsi_safetensors *s, const char *dir, const ls_alloc *alloc, ls_error *err);
/** Bytes that the caller keeps alive (fuzzing, tests). */
ls_status lsi_st_parse(struct lsi_safetensors *s, const void *data, size_t bytes, const char *name,
                       const ls_alloc *alloc, ls_error *err);
void lsi_st_close(struct lsi_safetensors *s);
const struct lsi_st_tensor *lsi_st_find(const struct lsi_safetensors *s, const char *name);

struct lsi_st_writer;

/**
 * Describe all tensors first (lsi_st_put_…), fix the order (_begin), then write their data in the order
 * that lsi_st_writer_order gives, in pieces of any size.
 */
ls_status lsi_st_writer_create(struct lsi_st_writer **w, const char *path, const ls_alloc *alloc,
                               ls_error *err);
/** Returns the tensor's number. */
size_t lsi_st_put_tensor(struct lsi_st_writer *w, const char *name, enum lsi_dtype dtype, uint32_t rank,
                         const uint64_t *shape);
void lsi_st_put_metadata(struct lsi_st_writer *w, const char *key, const char *value);
/** Fixes the order (dtype width descending, then name), writes the header ({"format": "pt"} always). */
ls_status lsi_st_writer_begin(struct lsi_st_writer *w, ls_error *err);
/** Number of the i-th tensor to be written. */
size_t lsi_st_writer_order(const struct lsi_st_writer *w, size_t i);
void lsi_st_write_data(struct lsi_st_writer *w, const void *data, size_t bytes);
/** Finish and give the file its name. Reports the first failure of any call before. Frees w. */
ls_status lsi_st_writer_commit(struct lsi_st_writer *w, ls_error *err);
/** Drop everything. NULL allowed. */
void lsi_st_writer_free(struct lsi_st_writer *w);

#endif

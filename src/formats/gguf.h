/*
 * GGUF version 2 and 3, little-endian.
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv
 *   kv:      string key | u32 type | value
 *   tensor:  string name | u32 n_dims | u64 dims[n_dims] | u32 type | u64 offset
 *   zeros to general.alignment, then the data; offsets count from there
 *   string = u64 length + bytes;  array = u32 element type + u64 count + elements
 *
 * dims[0] is the fastest axis: a matrix [n_out][n_in] has dims {n_in, n_out}.
 */
#ifndef LSI_GGUF_H
#define LSI_GGUF_H

#include "base/base.h"
#include "base/dtype.h"
#include "formats/name_index.h"

enum lsi_gguf_type {
    LSI_GGUF_U8,
    LSI_GGUF_I8,
    LSI_GGUF_U16,
    LSI_GGUF_I16,
    LSI_GGUF_U32,
    LSI_GGUF_I32,
    LSI_GGUF_F32,
    LSI_GGUF_BOOL,
    LSI_GGUF_STRING,
    LSI_GGUF_ARRAY,
    LSI_GGUF_U64,
    LSI_GGUF_I64,
    LSI_GGUF_F64,
    LSI_GGUF_N_TYPES
};

/* Texts (struct lsi_str) point into the mapped file. */

struct lsi_gguf_kv {
    struct lsi_str key;
    enum lsi_gguf_type type;      /* of the value; LSI_GGUF_ARRAY for arrays */
    enum lsi_gguf_type elem_type; /* of an array's elements */
    uint64_t count;               /* elements of an array, else 1 */
    const unsigned char *data;    /* first byte of the value (of the first element); maybe unaligned */
    size_t bytes;                 /* of the value, strings with their lengths */
};

struct lsi_gguf_tensor {
    struct lsi_str name;
    enum lsi_dtype dtype; /* LSI_OTHER: known to the format, not loadable */
    uint32_t type_id;     /* as in the file */
    uint32_t n_dims;
    uint64_t dims[4]; /* unused ones 1 */
    uint64_t offset;  /* as in the file */
    const unsigned char *data;
    size_t bytes;
};

struct lsi_gguf {
    uint32_t version;
    uint32_t alignment;
    size_t n_kv, n_tensors;
    struct lsi_gguf_kv *kv;
    struct lsi_gguf_tensor *tensors;
    /* owned by gguf.c */
    struct lsi_name_index kv_index, tensor_index;
    struct lsi_map *maps; /* one for each part of a split file */
    size_t n_maps;
    const ls_alloc *alloc;
};

/**
 * Map and validate a file. Of a split one (name-00001-of-00003.gguf) give the first part: the tensors of
 * all parts are there, the metadata is that of the first. On failure *g is zeroed and nothing is held.
 */
ls_status lsi_gguf_open(struct lsi_gguf *g, const char *path, const ls_alloc *alloc, ls_error *err);
/** The same on bytes that the caller keeps alive (fuzzing, tests). */
ls_status lsi_gguf_parse(struct lsi_gguf *g, const void *data, size_t bytes, const char *name,
                         const ls_alloc *alloc, ls_error *err);
void lsi_gguf_close(struct lsi_gguf *g);

/** Name of a tensor type as in the file, "unknown" for ids that are not (or no longer) defined. */
const char *lsi_gguf_type_name(uint32_t type_id);

/** NULL when absent. */
const struct lsi_gguf_kv *lsi_gguf_find(const struct lsi_gguf *g, const char *key);
const struct lsi_gguf_tensor *lsi_gguf_find_tensor(const struct lsi_gguf *g, const char *name);

/* Typed reads. False when absent or of another kind; *out untouched. Integers of any width convert
 * when they fit; a one-element array counts as its element. */
bool lsi_gguf_get_u64(const struct lsi_gguf *g, const char *key, uint64_t *out);
bool lsi_gguf_get_f64(const struct lsi_gguf *g, const char *key, double *out);
bool lsi_gguf_get_bool(const struct lsi_gguf *g, const char *key, bool *out);
bool lsi_gguf_get_str(const struct lsi_gguf *g, const char *key, struct lsi_str *out);
/** Element i of an integer/float array. */
bool lsi_gguf_elem_i64(const struct lsi_gguf_kv *kv, uint64_t i, int64_t *out);
bool lsi_gguf_elem_f64(const struct lsi_gguf_kv *kv, uint64_t i, double *out);
/** Walk an array of strings (a string alone is one of length 1): *cursor starts at 0. False at the end. */
bool lsi_gguf_next_str(const struct lsi_gguf_kv *kv, size_t *cursor, struct lsi_str *out);

/* Writing: all metadata, then all tensor descriptions, then the data in the same order. */
struct lsi_gguf_writer; /* heap object */

ls_status lsi_gguf_writer_create(struct lsi_gguf_writer **w, const char *path, const ls_alloc *alloc,
                                 ls_error *err);
void lsi_gguf_put_u32(struct lsi_gguf_writer *w, const char *key, uint32_t v);
void lsi_gguf_put_u64(struct lsi_gguf_writer *w, const char *key, uint64_t v);
void lsi_gguf_put_f32(struct lsi_gguf_writer *w, const char *key, float v);
void lsi_gguf_put_bool(struct lsi_gguf_writer *w, const char *key, bool v);
void lsi_gguf_put_str(struct lsi_gguf_writer *w, const char *key, const char *s, size_t len);
/** Start an array; then exactly n elements by the _elem functions of its type. */
void lsi_gguf_put_array(struct lsi_gguf_writer *w, const char *key, enum lsi_gguf_type elem, uint64_t n);
void lsi_gguf_elem_put_str(struct lsi_gguf_writer *w, const char *s, size_t len);
void lsi_gguf_elem_put_f32(struct lsi_gguf_writer *w, float v);
void lsi_gguf_elem_put_i32(struct lsi_gguf_writer *w, int32_t v);
/** Copy a pair from another file as it is. */
void lsi_gguf_put_kv(struct lsi_gguf_writer *w, const struct lsi_gguf_kv *kv);
void lsi_gguf_put_tensor(struct lsi_gguf_writer *w, const char *name, enum lsi_dtype dtype, uint32_t n_dims,
                         const uint64_t *dims);
/** Bytes of the tensors in order, in pieces of any size; padding is added. */
void lsi_gguf_write_data(struct lsi_gguf_writer *w, const void *data, size_t bytes);
/** Finish and give the file its name. Reports the first failure of any call before. Frees w. */
ls_status lsi_gguf_writer_commit(struct lsi_gguf_writer *w, ls_error *err);
/** Drop everything. NULL allowed. */
void lsi_gguf_writer_free(struct lsi_gguf_writer *w);

#endif

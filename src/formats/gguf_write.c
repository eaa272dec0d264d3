#include "formats/gguf_internal.h"

#include <stdlib.h>
#include <string.h>

/* A ceiling for the buffered metadata; the largest real one (a Gemma vocabulary) has 20 MB. */
#define MAX_HEADER_BYTES ((size_t)1 << 30)

struct tensor {
    size_t bytes;
    size_t name_at, name_len; /* in `infos` */
    size_t offset_at;         /* of its offset, filled in when the data begins */
};

struct key {
    size_t at, len; /* in `meta` */
};

struct lsi_gguf_writer {
    struct lsi_out out;
    struct lsi_buf meta, infos;
    struct tensor *tensors;
    size_t n_tensors, cap_tensors;
    struct key *keys;
    size_t n_keys, cap_keys;
    uint32_t alignment;

    /* the array being filled */
    enum lsi_gguf_type elem_type;
    uint64_t elems_left;

    /* the data being written */
    bool in_data;
    size_t current; /* tensor */
    size_t done;    /* bytes of it */

    ls_error failure; /* the first one; LS_OK when there is none */
    const ls_alloc *alloc;
};

/* True while nothing has failed; every call below begins with it. */
static bool healthy(const struct lsi_gguf_writer *w)
{
    return w->failure.status == LS_OK;
}

static void fail_memory(struct lsi_gguf_writer *w)
{
    lsi_fail(&w->failure, LS_E_NOMEM, "%s: no memory for its header", w->out.path);
}

ls_status lsi_gguf_writer_create(struct lsi_gguf_writer **out, const char *path, const ls_alloc *alloc,
                                 ls_error *err)
{
    struct lsi_gguf_writer *w = lsi_calloc(alloc, 1, sizeof *w);
    *out = NULL;
    if (!w)
        return lsi_fail(err, LS_E_NOMEM, "no memory to write %s", path);
    w->alloc = alloc;
    w->alignment = GGUF_DEFAULT_ALIGNMENT;
    lsi_buf_init(&w->meta, alloc, MAX_HEADER_BYTES);
    lsi_buf_init(&w->infos, alloc, MAX_HEADER_BYTES);
    const ls_status st = lsi_out_open(&w->out, path, err);
    if (st != LS_OK) {
        lsi_gguf_writer_free(w);
        return st;
    }
    *out = w;
    return LS_OK;
}

void lsi_gguf_writer_free(struct lsi_gguf_writer *w)
{
    if (!w)
        return;
    lsi_out_abort(&w->out);
    lsi_buf_fini(&w->meta);
    lsi_buf_fini(&w->infos);
    lsi_free(w->alloc, w->tensors, w->cap_tensors * sizeof *w->tensors);
    lsi_free(w->alloc, w->keys, w->cap_keys * sizeof *w->keys);
    lsi_free(w->alloc, w, sizeof *w);
}

/* ---- metadata ----------------------------------------------------------- */

static void put_bytes(struct lsi_gguf_writer *w, const void *data, size_t n)
{
    if (n && !lsi_buf_append(&w->meta, data, n))
        fail_memory(w);
}

static void put_u32(struct lsi_gguf_writer *w, uint32_t v)
{
    put_bytes(w, &v, sizeof v);
}

static void put_u64(struct lsi_gguf_writer *w, uint64_t v)
{
    put_bytes(w, &v, sizeof v);
}

static void put_key(struct lsi_gguf_writer *w, const char *key, size_t len)
{
    if (!healthy(w))
        return;
    if (w->in_data || w->elems_left > 0) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: metadata '%s' is put %s", w->out.path, lsi_show(key, len).text,
                 w->in_data ? "after the data began" : "before the array before it is full");
        return;
    }
    if (len == 0 || len > GGUF_MAX_KEY) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: a metadata key must have 1 to %d bytes, not %zu", w->out.path,
                 GGUF_MAX_KEY, len);
        return;
    }
    struct key *keys = lsi_grow(w->alloc, w->keys, w->n_keys, &w->cap_keys, 64, sizeof *keys);
    if (!keys) {
        fail_memory(w);
        return;
    }
    w->keys = keys;
    put_u64(w, len);
    keys[w->n_keys++] = (struct key){ w->meta.len, len };
    put_bytes(w, key, len);
}

static void put_scalar(struct lsi_gguf_writer *w, const char *key, enum lsi_gguf_type type, const void *v)
{
    put_key(w, key, strlen(key));
    if (!healthy(w))
        return;
    put_u32(w, type);
    put_bytes(w, v, lsi_gguf_value_bytes(type));
}

/* The tensors must be laid out as the file says it. */
static void note_alignment(struct lsi_gguf_writer *w, uint32_t v)
{
    if (!healthy(w))
        return;
    if (v == 0 || (v & (v - 1)) != 0)
        lsi_fail(&w->failure, LS_E_INVAL, "%s: general.alignment %u is no power of two", w->out.path,
                 (unsigned)v);
    else
        w->alignment = v;
}

void lsi_gguf_put_u32(struct lsi_gguf_writer *w, const char *key, uint32_t v)
{
    put_scalar(w, key, LSI_GGUF_U32, &v);
    if (strcmp(key, "general.alignment") == 0)
        note_alignment(w, v);
}

void lsi_gguf_put_u64(struct lsi_gguf_writer *w, const char *key, uint64_t v)
{
    put_scalar(w, key, LSI_GGUF_U64, &v);
}

void lsi_gguf_put_f32(struct lsi_gguf_writer *w, const char *key, float v)
{
    put_scalar(w, key, LSI_GGUF_F32, &v);
}

void lsi_gguf_put_bool(struct lsi_gguf_writer *w, const char *key, bool v)
{
    const unsigned char byte = v;
    put_scalar(w, key, LSI_GGUF_BOOL, &byte);
}

void lsi_gguf_put_str(struct lsi_gguf_writer *w, const char *key, const char *s, size_t len)
{
    put_key(w, key, strlen(key));
    if (!healthy(w))
        return;
    put_u32(w, LSI_GGUF_STRING);
    put_u64(w, len);
    put_bytes(w, s, len);
}

void lsi_gguf_put_array(struct lsi_gguf_writer *w, const char *key, enum lsi_gguf_type elem, uint64_t n)
{
    put_key(w, key, strlen(key));
    if (!healthy(w))
        return;
    put_u32(w, LSI_GGUF_ARRAY);
    put_u32(w, elem);
    put_u64(w, n);
    w->elem_type = elem;
    w->elems_left = n;
}

static bool begin_elem(struct lsi_gguf_writer *w, enum lsi_gguf_type type)
{
    if (!healthy(w))
        return false;
    if (w->elems_left == 0 || w->elem_type != type) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: an array element %s", w->out.path,
                 w->elems_left == 0 ? "is one too many" : "has another type than its array");
        return false;
    }
    w->elems_left--;
    return true;
}

void lsi_gguf_elem_put_str(struct lsi_gguf_writer *w, const char *s, size_t len)
{
    if (!begin_elem(w, LSI_GGUF_STRING))
        return;
    put_u64(w, len);
    put_bytes(w, s, len);
}

void lsi_gguf_elem_put_f32(struct lsi_gguf_writer *w, float v)
{
    if (begin_elem(w, LSI_GGUF_F32))
        put_bytes(w, &v, sizeof v);
}

void lsi_gguf_elem_put_i32(struct lsi_gguf_writer *w, int32_t v)
{
    if (begin_elem(w, LSI_GGUF_I32))
        put_bytes(w, &v, sizeof v);
}

void lsi_gguf_put_kv(struct lsi_gguf_writer *w, const struct lsi_gguf_kv *kv)
{
    put_key(w, kv->key.s, kv->key.len);
    if (!healthy(w))
        return;
    put_u32(w, kv->type);
    if (kv->type == LSI_GGUF_ARRAY) {
        put_u32(w, kv->elem_type);
        put_u64(w, kv->count);
    }
    put_bytes(w, kv->data, kv->bytes);
    if (kv->type == LSI_GGUF_U32 && lsi_str_is(kv->key, "general.alignment")) {
        uint32_t v;
        memcpy(&v, kv->data, sizeof v);
        note_alignment(w, v);
    }
}

/* ---- tensors ------------------------------------------------------------ */

/* Bytes of a tensor; false (and the failure noted) when it cannot be stored. */
static bool tensor_bytes(struct lsi_gguf_writer *w, const char *name, enum lsi_dtype dtype, uint32_t n_dims,
                         const uint64_t *dims, size_t *bytes)
{
    if (n_dims < 1 || n_dims > 4 || !lsi_dtype_row_bytes(dtype, (size_t)dims[0], bytes)) {
        lsi_fail(&w->failure, LS_E_INVAL,
                 "%s: tensor '%s' of type %s must have 1 to 4 dimensions and rows of a "
                 "multiple of %zu elements",
                 w->out.path, name, lsi_dtype_name(dtype), lsi_dtype_block(dtype));
        return false;
    }
    for (uint32_t d = 1; d < n_dims; d++) {
        if (!lsi_mul_size(*bytes, (size_t)dims[d], bytes)) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: the size of tensor '%s' overflows", w->out.path, name);
            return false;
        }
    }
    return true;
}

void lsi_gguf_put_tensor(struct lsi_gguf_writer *w, const char *name, enum lsi_dtype dtype, uint32_t n_dims,
                         const uint64_t *dims)
{
    const size_t len = strlen(name);
    uint32_t type_id;
    size_t bytes;
    if (!healthy(w))
        return;
    const char *why = w->in_data                               ? "the data has begun"
                      : len == 0 || len > GGUF_MAX_TENSOR_NAME ? "its name must have 1 to 63 bytes"
                      : !lsi_gguf_type_id(dtype, &type_id)     ? "GGUF has no such element type"
                                                               : NULL;
    if (why) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: tensor '%s' cannot be stored: %s", w->out.path, name, why);
        return;
    }
    if (!tensor_bytes(w, name, dtype, n_dims, dims, &bytes))
        return;
    struct tensor *tensors =
        lsi_grow(w->alloc, w->tensors, w->n_tensors, &w->cap_tensors, 64, sizeof *tensors);
    if (!tensors) {
        fail_memory(w);
        return;
    }
    w->tensors = tensors;
    const uint64_t len64 = len, no_offset = 0;
    struct tensor *t = &tensors[w->n_tensors++];
    lsi_buf_append(&w->infos, &len64, sizeof len64);
    *t = (struct tensor){ .bytes = bytes, .name_at = w->infos.len, .name_len = len };
    lsi_buf_append(&w->infos, name, len);
    lsi_buf_append(&w->infos, &n_dims, sizeof n_dims);
    lsi_buf_append(&w->infos, dims, n_dims * sizeof *dims);
    lsi_buf_append(&w->infos, &type_id, sizeof type_id);
    t->offset_at = w->infos.len;
    lsi_buf_append(&w->infos, &no_offset, sizeof no_offset);
    if (w->infos.failed)
        fail_memory(w);
}

/* ---- data --------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    const struct lsi_str *x = a, *y = b;
    const int c = memcmp(x->s, y->s, lsi_min_size(x->len, y->len));
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Fails when two of the names are equal. Sorts them. */
static void check_unique(struct lsi_gguf_writer *w, struct lsi_str *names, size_t n, const char *what)
{
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++) {
        if (compare_names(&names[i - 1], &names[i]) == 0) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: %s '%s' is put twice", w->out.path, what,
                     lsi_show(names[i].s, names[i].len).text);
            return;
        }
    }
}

static void check_names(struct lsi_gguf_writer *w)
{
    const size_t n = lsi_max_size(w->n_keys, w->n_tensors);
    struct lsi_str *names = lsi_calloc(w->alloc, n, sizeof *names);
    if (!names) {
        fail_memory(w);
        return;
    }
    for (size_t i = 0; i < w->n_keys; i++)
        names[i] = (struct lsi_str){ w->meta.data + w->keys[i].at, w->keys[i].len };
    check_unique(w, names, w->n_keys, "metadata key");
    for (size_t i = 0; i < w->n_tensors; i++)
        names[i] = (struct lsi_str){ w->infos.data + w->tensors[i].name_at, w->tensors[i].name_len };
    if (healthy(w))
        check_unique(w, names, w->n_tensors, "tensor");
    lsi_free(w->alloc, names, n * sizeof *names);
}

static void pad(struct lsi_gguf_writer *w)
{
    lsi_out_zeros(&w->out, (size_t)(lsi_round_up(w->out.bytes, w->alignment) - w->out.bytes));
}

/* Everything before the data, once. */
static void begin_data(struct lsi_gguf_writer *w)
{
    if (w->in_data || !healthy(w))
        return;
    if (w->elems_left > 0) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: %llu elements of its last array are missing", w->out.path,
                 (unsigned long long)w->elems_left);
        return;
    }
    check_names(w);
    if (!healthy(w))
        return;
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        memcpy(w->infos.data + w->tensors[i].offset_at, &offset, sizeof offset);
        offset = lsi_round_up(offset + w->tensors[i].bytes, w->alignment);
    }
    const uint32_t version = GGUF_VERSION;
    const uint64_t counts[2] = { w->n_tensors, w->n_keys };
    lsi_out_write(&w->out, "GGUF", 4);
    lsi_out_write(&w->out, &version, sizeof version);
    lsi_out_write(&w->out, counts, sizeof counts);
    lsi_out_write(&w->out, w->meta.data, w->meta.len);
    lsi_out_write(&w->out, w->infos.data, w->infos.len);
    pad(w);
    w->in_data = true;
}

/* Finish tensors that are complete, those of no bytes included. */
static void next_tensor(struct lsi_gguf_writer *w)
{
    while (w->current < w->n_tensors && w->done == w->tensors[w->current].bytes) {
        pad(w);
        w->current++;
        w->done = 0;
    }
}

void lsi_gguf_write_data(struct lsi_gguf_writer *w, const void *data, size_t bytes)
{
    begin_data(w);
    const unsigned char *p = data;
    while (healthy(w) && bytes > 0) {
        next_tensor(w);
        if (w->current == w->n_tensors) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: more data than its tensors hold", w->out.path);
            return;
        }
        const size_t n = lsi_min_size(bytes, w->tensors[w->current].bytes - w->done);
        lsi_out_write(&w->out, p, n);
        w->done += n;
        p += n;
        bytes -= n;
    }
}

ls_status lsi_gguf_writer_commit(struct lsi_gguf_writer *w, ls_error *err)
{
    begin_data(w);
    if (healthy(w)) {
        next_tensor(w);
        if (w->current < w->n_tensors)
            lsi_fail(&w->failure, LS_E_INVAL, "%s: the data of tensor '%s' is not complete", w->out.path,
                     lsi_show(w->infos.data + w->tensors[w->current].name_at, w->tensors[w->current].name_len)
                         .text);
    }
    ls_status st;
    if (healthy(w))
        st = lsi_out_commit(&w->out, err);
    else
        st = lsi_fail(err, w->failure.status, "%s", w->failure.text);
    lsi_gguf_writer_free(w);
    return st;
}

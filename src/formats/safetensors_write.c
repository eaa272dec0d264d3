#include "formats/safetensors_internal.h"

#include <stdlib.h>
#include <string.h>

struct tensor {
    char *name;
    enum lsi_dtype dtype;
    unsigned bits;
    uint32_t rank;
    uint64_t shape[LSI_ST_MAX_RANK];
    size_t bytes;
    size_t number; /* as put */
};

struct lsi_st_writer {
    struct lsi_out out;
    struct lsi_buf metadata; /* members of __metadata__, each with a comma before it */
    struct tensor *tensors;  /* after begin in the order of the file */
    size_t n, cap;

    bool begun;
    size_t current; /* tensor being written */
    size_t done;    /* bytes of it */

    ls_error failure; /* the first one; LS_OK when there is none */
    const ls_alloc *alloc;
};

static bool healthy(const struct lsi_st_writer *w)
{
    return w->failure.status == LS_OK;
}

static void fail_memory(struct lsi_st_writer *w)
{
    lsi_fail(&w->failure, LS_E_NOMEM, "%s: no memory for its header", w->out.path);
}

static const char *dtype_name(enum lsi_dtype t, unsigned *bits)
{
#define ST_DTYPE_CASE(name, width, type)  \
    if (type != LSI_OTHER && type == t) { \
        *bits = width;                    \
        return #name;                     \
    }
    ST_DTYPE_LIST(ST_DTYPE_CASE)
#undef ST_DTYPE_CASE
    return NULL;
}

ls_status lsi_st_writer_create(struct lsi_st_writer **out, const char *path, const ls_alloc *alloc,
                               ls_error *err)
{
    struct lsi_st_writer *w = lsi_calloc(alloc, 1, sizeof *w);
    *out = NULL;
    if (!w)
        return lsi_fail(err, LS_E_NOMEM, "no memory to write %s", path);
    w->alloc = alloc;
    lsi_buf_init(&w->metadata, alloc, ST_MAX_HEADER);
    const ls_status st = lsi_out_open(&w->out, path, err);
    if (st != LS_OK) {
        lsi_st_writer_free(w);
        return st;
    }
    *out = w;
    return LS_OK;
}

void lsi_st_writer_free(struct lsi_st_writer *w)
{
    if (!w)
        return;
    lsi_out_abort(&w->out);
    lsi_buf_fini(&w->metadata);
    for (size_t i = 0; i < w->n; i++)
        lsi_free(w->alloc, w->tensors[i].name, strlen(w->tensors[i].name) + 1);
    lsi_free(w->alloc, w->tensors, w->cap * sizeof *w->tensors);
    lsi_free(w->alloc, w, sizeof *w);
}

/* Checks a description and computes its size; false with the failure noted. */
static bool describe(struct lsi_st_writer *w, struct tensor *t, const char *name, const uint64_t *shape)
{
    const char *why = w->begun                                 ? "the header is written already"
                      : t->rank > LSI_ST_MAX_RANK              ? "it has more than 8 dimensions"
                      : strcmp(name, "__metadata__") == 0      ? "its name is reserved"
                      : dtype_name(t->dtype, &t->bits) == NULL ? "safetensors has no such element type"
                                                               : NULL;
    if (why) {
        lsi_fail(&w->failure, LS_E_INVAL, "%s: tensor '%s' cannot be stored: %s", w->out.path, name, why);
        return false;
    }
    t->bytes = t->bits / 8;
    for (uint32_t d = 0; d < t->rank; d++) {
        t->shape[d] = shape[d];
        if (!lsi_mul_size(t->bytes, (size_t)shape[d], &t->bytes)) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: the size of tensor '%s' overflows", w->out.path, name);
            return false;
        }
    }
    return true;
}

size_t lsi_st_put_tensor(struct lsi_st_writer *w, const char *name, enum lsi_dtype dtype, uint32_t rank,
                         const uint64_t *shape)
{
    struct tensor t = { .dtype = dtype, .rank = rank, .number = w->n };
    if (!healthy(w) || !describe(w, &t, name, shape))
        return 0;
    struct tensor *p = lsi_grow(w->alloc, w->tensors, w->n, &w->cap, 64, sizeof *p);
    if (!p) {
        fail_memory(w);
        return 0;
    }
    w->tensors = p;
    t.name = lsi_strndup(w->alloc, name, strlen(name));
    if (!t.name) {
        fail_memory(w);
        return 0;
    }
    w->tensors[w->n] = t;
    return w->n++;
}

void lsi_st_put_metadata(struct lsi_st_writer *w, const char *key, const char *value)
{
    if (!healthy(w))
        return;
    lsi_buf_append(&w->metadata, ",", 1);
    lsi_buf_json_string(&w->metadata, key, strlen(key));
    lsi_buf_append(&w->metadata, ":", 1);
    lsi_buf_json_string(&w->metadata, value, strlen(value));
    if (w->metadata.failed)
        fail_memory(w);
}

/* ---- the header --------------------------------------------------------- */

static int compare_tensors(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->bits != y->bits)
        return x->bits > y->bits ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void append_tensor(struct lsi_buf *b, const struct tensor *t, size_t begin)
{
    unsigned bits;
    lsi_buf_append(b, ",", 1);
    lsi_buf_json_string(b, t->name, strlen(t->name));
    lsi_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype, &bits));
    for (uint32_t d = 0; d < t->rank; d++)
        lsi_buf_printf(b, "%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
    lsi_buf_printf(b, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->bytes);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* By name first, to find what is put twice: in the file's order such a pair may lie apart. */
static void sort_tensors(struct lsi_st_writer *w)
{
    if (w->n == 0)
        return;
    qsort(w->tensors, w->n, sizeof *w->tensors, compare_names);
    for (size_t i = 1; i < w->n; i++) {
        if (strcmp(w->tensors[i - 1].name, w->tensors[i].name) == 0) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: tensor '%s' is put twice", w->out.path,
                     w->tensors[i].name);
            return;
        }
    }
    qsort(w->tensors, w->n, sizeof *w->tensors, compare_tensors);
}

static void write_header(struct lsi_st_writer *w)
{
    struct lsi_buf b;
    lsi_buf_init(&b, w->alloc, ST_MAX_HEADER);
    lsi_buf_printf(&b, "{\"__metadata__\":{\"format\":\"pt\"");
    if (w->metadata.len)
        lsi_buf_append(&b, w->metadata.data, w->metadata.len);
    lsi_buf_append(&b, "}", 1);
    size_t begin = 0;
    for (size_t i = 0; i < w->n; i++) {
        append_tensor(&b, &w->tensors[i], begin);
        begin += w->tensors[i].bytes;
    }
    lsi_buf_append(&b, "}", 1);
    while (!b.failed && b.len % 8 != 0)
        lsi_buf_append(&b, " ", 1);
    if (b.failed) {
        if (b.len < ST_MAX_HEADER / 2)
            fail_memory(w);
        else
            lsi_fail(&w->failure, LS_E_LIMIT, "%s: its header needs more than %d bytes", w->out.path,
                     ST_MAX_HEADER);
    } else {
        const uint64_t n = b.len;
        lsi_out_write(&w->out, &n, sizeof n);
        lsi_out_write(&w->out, b.data, b.len);
    }
    lsi_buf_fini(&b);
}

ls_status lsi_st_writer_begin(struct lsi_st_writer *w, ls_error *err)
{
    size_t total = 0;
    for (size_t i = 0; healthy(w) && i < w->n; i++) {
        if (!lsi_add_size(total, w->tensors[i].bytes, &total))
            lsi_fail(&w->failure, LS_E_INVAL, "%s: the size of its tensors overflows", w->out.path);
    }
    if (healthy(w) && w->begun)
        lsi_fail(&w->failure, LS_E_INVAL, "%s: its header is written already", w->out.path);
    if (healthy(w))
        sort_tensors(w);
    if (healthy(w))
        write_header(w);
    w->begun = true;
    if (!healthy(w))
        return lsi_fail(err, w->failure.status, "%s", w->failure.text);
    return LS_OK;
}

size_t lsi_st_writer_order(const struct lsi_st_writer *w, size_t i)
{
    return w->tensors[i].number;
}

/* Leave tensors that have all their bytes, those of no bytes included. */
static void skip_complete(struct lsi_st_writer *w)
{
    while (w->current < w->n && w->done == w->tensors[w->current].bytes) {
        w->current++;
        w->done = 0;
    }
}

void lsi_st_write_data(struct lsi_st_writer *w, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    while (healthy(w) && bytes > 0) {
        if (!w->begun || w->current == w->n) {
            lsi_fail(&w->failure, LS_E_INVAL, "%s: %s", w->out.path,
                     w->begun ? "more data than its tensors hold" : "data before its header");
            return;
        }
        const size_t n = lsi_min_size(bytes, w->tensors[w->current].bytes - w->done);
        lsi_out_write(&w->out, p, n);
        w->done += n;
        p += n;
        bytes -= n;
        skip_complete(w);
    }
}

ls_status lsi_st_writer_commit(struct lsi_st_writer *w, ls_error *err)
{
    skip_complete(w);
    if (healthy(w) && (!w->begun || w->current < w->n))
        lsi_fail(&w->failure, LS_E_INVAL, "%s: %s%s%s", w->out.path,
                 w->begun ? "the data of tensor '" : "it has no ",
                 w->begun ? w->tensors[w->current].name : "header", w->begun ? "' is not complete" : "");
    ls_status st;
    if (healthy(w))
        st = lsi_out_commit(&w->out, err);
    else
        st = lsi_fail(err, w->failure.status, "%s", w->failure.text);
    lsi_st_writer_free(w);
    return st;
}

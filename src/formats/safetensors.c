#include "formats/safetensors_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* An index names every tensor with its shard: 100 bytes each, and the largest models have 100,000. */
#define MAX_INDEX_BYTES ((size_t)64 << 20)

#define SHOW(name)      lsi_show(name, strlen(name)).text

static const struct {
    const char *name;
    unsigned bits;
    enum lsi_dtype dtype;
} dtypes[] = {
#define ST_DTYPE_ROW(name, bits, type) { #name, bits, type },
    ST_DTYPE_LIST(ST_DTYPE_ROW)
#undef ST_DTYPE_ROW
};

/* A tensor as its header describes it. */
struct entry {
    struct lsi_st_tensor t;
    unsigned bits;
    uint64_t begin, end; /* from the first byte of data */
};

/* One file while its header is read. */
struct reader {
    struct lsi_json json;
    const char *name; /* for messages */
    const ls_alloc *alloc;
    ls_error *err;
    struct entry *entries;
    size_t n, cap;
};

/* ---- the header --------------------------------------------------------- */

static void free_name(const ls_alloc *alloc, char *name)
{
    if (name)
        lsi_free(alloc, name, strlen(name) + 1);
}

static ls_status copy_key(struct reader *r, const struct lsi_json_str *key, char **out)
{
    const ls_status st = lsi_json_strdup(key, r->alloc, out);
    if (st == LS_E_FORMAT)
        return lsi_json_error(&r->json, "a name contains a NUL");
    return st == LS_OK ? st : lsi_fail(r->err, st, "%s: no memory for its header", r->name);
}

/* A whole non-negative number without point or exponent. */
static ls_status read_count(struct lsi_json *j, uint64_t *v)
{
    if (lsi_json_peek(j) != LSI_JSON_NUMBER)
        return lsi_json_error(j, "expected a number");
    const char *begin = j->p;
    int64_t x;
    LSI_TRY(lsi_json_int(j, &x));
    for (const char *p = begin; p < j->p; p++) {
        if (*p < '0' || *p > '9')
            return lsi_json_error(j, "expected a whole number that is not negative");
    }
    *v = (uint64_t)x;
    return LS_OK;
}

static ls_status read_dtype(struct reader *r, struct entry *e)
{
    struct lsi_json_str s;
    LSI_TRY(lsi_json_string(&r->json, &s));
    for (size_t i = 0; i < LSI_LEN(dtypes); i++) {
        if (lsi_json_str_is(&s, dtypes[i].name)) {
            e->t.dtype = dtypes[i].dtype;
            e->bits = dtypes[i].bits;
            snprintf(e->t.dtype_name, sizeof e->t.dtype_name, "%s", dtypes[i].name);
            return LS_OK;
        }
    }
    return lsi_json_error(&r->json, "tensor '%s' has the unknown dtype '%s'", SHOW(e->t.name),
                          lsi_show(s.raw, s.len).text);
}

static ls_status read_shape(struct reader *r, struct entry *e)
{
    LSI_TRY(lsi_json_array(&r->json));
    while (lsi_json_next_elem(&r->json)) {
        if (e->t.rank == LSI_ST_MAX_RANK)
            return lsi_json_error(&r->json, "tensor '%s' has more than %d dimensions", SHOW(e->t.name),
                                  LSI_ST_MAX_RANK);
        LSI_TRY(read_count(&r->json, &e->t.shape[e->t.rank++]));
    }
    return r->json.status;
}

static ls_status read_offsets(struct reader *r, struct entry *e)
{
    uint64_t v[2];
    size_t n = 0;
    LSI_TRY(lsi_json_array(&r->json));
    while (lsi_json_next_elem(&r->json)) {
        if (n < 2)
            LSI_TRY(read_count(&r->json, &v[n]));
        else
            LSI_TRY(lsi_json_skip(&r->json));
        n++;
    }
    LSI_TRY(r->json.status);
    if (n != 2)
        return lsi_json_error(&r->json, "data_offsets of tensor '%s' must be two numbers", SHOW(e->t.name));
    e->begin = v[0];
    e->end = v[1];
    return LS_OK;
}

static ls_status read_entry(struct reader *r, struct entry *e)
{
    enum {
        DTYPE = 1,
        SHAPE = 2,
        OFFSETS = 4
    };
    unsigned seen = 0;
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(&r->json));
    while (lsi_json_next_key(&r->json, &key)) {
        const unsigned field = lsi_json_str_is(&key, "dtype")          ? DTYPE
                               : lsi_json_str_is(&key, "shape")        ? SHAPE
                               : lsi_json_str_is(&key, "data_offsets") ? OFFSETS
                                                                       : 0;
        if (field == 0 || (seen & field))
            return lsi_json_error(&r->json, "tensor '%s': the key '%s' is %s", SHOW(e->t.name),
                                  lsi_show(key.raw, key.len).text, field ? "there twice" : "not known");
        seen |= field;
        LSI_TRY(field == DTYPE ? read_dtype(r, e) : field == SHAPE ? read_shape(r, e) : read_offsets(r, e));
    }
    LSI_TRY(r->json.status);
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return lsi_json_error(&r->json, "tensor '%s' has no %s", SHOW(e->t.name),
                              !(seen & DTYPE)   ? "dtype"
                              : !(seen & SHAPE) ? "shape"
                                                : "data_offsets");
    return LS_OK;
}

static ls_status add_entry(struct reader *r, const struct lsi_json_str *key)
{
    struct entry *p = lsi_grow(r->alloc, r->entries, r->n, &r->cap, 64, sizeof *p);
    if (!p)
        return lsi_fail(r->err, LS_E_NOMEM, "%s: no memory for its header", r->name);
    r->entries = p;
    struct entry *e = &r->entries[r->n];
    *e = (struct entry){ 0 };
    LSI_TRY(copy_key(r, key, &e->t.name));
    r->n++;
    return read_entry(r, e);
}

static ls_status skip_metadata(struct lsi_json *j)
{
    struct lsi_json_str s;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &s))
        LSI_TRY(lsi_json_string(j, &s));
    return j->status;
}

static ls_status read_header(struct reader *r)
{
    struct lsi_json_str key;
    bool metadata = false;
    LSI_TRY(lsi_json_object(&r->json));
    while (lsi_json_next_key(&r->json, &key)) {
        if (!lsi_json_str_is(&key, "__metadata__")) {
            LSI_TRY(add_entry(r, &key));
            continue;
        }
        if (metadata)
            return lsi_json_error(&r->json, "__metadata__ is there twice");
        metadata = true;
        LSI_TRY(skip_metadata(&r->json));
    }
    return lsi_json_end(&r->json);
}

/* ---- checks ------------------------------------------------------------- */

static int compare_offsets(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

/* Exactly the bytes that shape and type need. */
static ls_status check_size(const struct reader *r, struct entry *e)
{
    uint64_t bits = e->bits;
    bool zero = false;
    for (uint32_t d = 0; d < e->t.rank; d++) {
        zero = zero || e->t.shape[d] == 0;
        /* A zero must not hide an overflow. */
        if (__builtin_mul_overflow(bits, e->t.shape[d] ? e->t.shape[d] : 1, &bits))
            return lsi_fail(r->err, LS_E_FORMAT, "%s: the size of tensor '%s' overflows", r->name,
                            SHOW(e->t.name));
    }
    if (zero)
        bits = 0;
    if (bits % 8 != 0)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor '%s' does not fill whole bytes", r->name,
                        SHOW(e->t.name));
    if (bits / 8 != e->end - e->begin)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: tensor '%s' needs %llu bytes for its shape, but its offsets hold %llu", r->name,
                        SHOW(e->t.name), (unsigned long long)(bits / 8),
                        (unsigned long long)(e->end - e->begin));
    e->t.bytes = (size_t)(bits / 8);
    return LS_OK;
}

/* Sorts by place. The tensors must fill the data without hole, overlap or rest. */
static ls_status check_layout(struct reader *r, const unsigned char *data, size_t data_bytes)
{
    uint64_t next = 0;
    if (r->n > 0)
        qsort(r->entries, r->n, sizeof *r->entries, compare_offsets);
    for (size_t i = 0; i < r->n; i++) {
        struct entry *e = &r->entries[i];
        if (e->begin != next)
            return lsi_fail(r->err, LS_E_FORMAT,
                            "%s: tensor '%s' begins at %llu, but the one before it ends at %llu: %s", r->name,
                            SHOW(e->t.name), (unsigned long long)e->begin, (unsigned long long)next,
                            e->begin < next ? "they overlap" : "there is a gap");
        if (e->end < e->begin)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor '%s' ends at %llu, before it begins at %llu",
                            r->name, SHOW(e->t.name), (unsigned long long)e->end,
                            (unsigned long long)e->begin);
        LSI_TRY(check_size(r, e));
        next = e->end;
    }
    if (next != data_bytes)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s has %zu bytes of data, but its tensors need %llu; the file is %s", r->name,
                        data_bytes, (unsigned long long)next,
                        next > data_bytes ? "truncated" : "longer than it should be");
    for (size_t i = 0; i < r->n; i++)
        r->entries[i].t.data = data + r->entries[i].begin;
    return LS_OK;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp(((const struct lsi_st_tensor *)a)->name, ((const struct lsi_st_tensor *)b)->name);
}

/* Hand the tensors over, sorted by name; each name may occur once. */
static ls_status deliver(struct reader *r, struct lsi_safetensors *s)
{
    s->tensors = lsi_calloc(r->alloc, r->n, sizeof *s->tensors);
    if (!s->tensors)
        return lsi_fail(r->err, LS_E_NOMEM, "%s: no memory for its header", r->name);
    s->cap_tensors = r->n;
    s->n_tensors = r->n;
    for (size_t i = 0; i < r->n; i++)
        s->tensors[i] = r->entries[i].t;
    r->n = 0; /* the names have a new owner */
    if (s->n_tensors > 0)
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, compare_tensors);
    for (size_t i = 1; i < s->n_tensors; i++) {
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor '%s' is there twice", r->name,
                            SHOW(s->tensors[i].name));
    }
    return LS_OK;
}

static ls_status parse(struct reader *r, struct lsi_safetensors *s, const unsigned char *data, size_t bytes)
{
    uint64_t n;
    if (bytes < sizeof n)
        return lsi_fail(r->err, LS_E_FORMAT, "%s is too small for a safetensors file (%zu bytes)", r->name,
                        bytes);
    memcpy(&n, data, sizeof n);
    if (n > ST_MAX_HEADER)
        return lsi_fail(
            r->err, LS_E_FORMAT,
            "%s is no safetensors file: its header would have %llu bytes, more than the allowed %d", r->name,
            (unsigned long long)n, ST_MAX_HEADER);
    if (n > bytes - sizeof n)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: its header claims %llu bytes, but the file has %zu; it may be truncated",
                        r->name, (unsigned long long)n, bytes);
    lsi_json_init(&r->json, data + sizeof n, (size_t)n, r->name, r->err);
    LSI_TRY(read_header(r));
    LSI_TRY(check_layout(r, data + sizeof n + n, bytes - sizeof n - (size_t)n));
    return deliver(r, s);
}

ls_status lsi_st_parse(struct lsi_safetensors *s, const void *data, size_t bytes, const char *name,
                       const ls_alloc *alloc, ls_error *err)
{
    struct reader r = { .name = name, .alloc = alloc, .err = err };
    *s = (struct lsi_safetensors){ .alloc = alloc };
    const ls_status st = parse(&r, s, data, bytes);
    for (size_t i = 0; i < r.n; i++)
        free_name(alloc, r.entries[i].t.name);
    lsi_free(alloc, r.entries, r.cap * sizeof *r.entries);
    if (st != LS_OK)
        lsi_st_close(s);
    return st;
}

/* ---- files -------------------------------------------------------------- */

ls_status lsi_st_open(struct lsi_safetensors *s, const char *path, const ls_alloc *alloc, ls_error *err)
{
    *s = (struct lsi_safetensors){ 0 };
    struct lsi_map map;
    LSI_TRY(lsi_map_open(&map, path, err));
    ls_status st = lsi_st_parse(s, map.data, map.bytes, path, alloc, err);
    if (st != LS_OK) {
        lsi_map_close(&map);
        return st;
    }
    s->maps = lsi_calloc(alloc, 1, sizeof *s->maps);
    if (!s->maps) {
        lsi_map_close(&map);
        lsi_st_close(s);
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory to open it", path);
    }
    s->maps[0] = map;
    s->n_maps = 1;
    return LS_OK;
}

void lsi_st_close(struct lsi_safetensors *s)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        free_name(s->alloc, s->tensors[i].name);
    lsi_free(s->alloc, s->tensors, s->cap_tensors * sizeof *s->tensors);
    for (size_t i = 0; i < s->n_maps; i++)
        lsi_map_close(&s->maps[i]);
    lsi_free(s->alloc, s->maps, s->n_maps * sizeof *s->maps);
    *s = (struct lsi_safetensors){ 0 };
}

const struct lsi_st_tensor *lsi_st_find(const struct lsi_safetensors *s, const char *name)
{
    size_t lo = 0, hi = s->n_tensors;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int c = strcmp(s->tensors[mid].name, name);
        if (c == 0)
            return &s->tensors[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- shards ------------------------------------------------------------- */

/* One line of the index's weight_map. */
struct mapping {
    char *tensor, *shard;
};

struct index {
    struct mapping *maps;
    size_t n, cap;
    const char *path;
    const ls_alloc *alloc;
    ls_error *err;
};

static int compare_mappings(const void *a, const void *b)
{
    const struct mapping *x = a, *y = b;
    const int c = strcmp(x->shard, y->shard);
    return c ? c : strcmp(x->tensor, y->tensor);
}

static bool shard_name_ok(const char *s)
{
    return *s != '\0' && !strchr(s, '/') && !strchr(s, '\\') && !strstr(s, "..");
}

static ls_status index_strdup(struct index *ix, struct lsi_json *j, const struct lsi_json_str *s, char **out)
{
    const ls_status st = lsi_json_strdup(s, ix->alloc, out);
    if (st == LS_E_FORMAT)
        return lsi_json_error(j, "a name contains a NUL");
    return st == LS_OK ? st : lsi_fail(ix->err, st, "%s: no memory to read it", ix->path);
}

static ls_status read_weight_map(struct index *ix, struct lsi_json *j)
{
    struct lsi_json_str s;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &s)) {
        struct mapping *p = lsi_grow(ix->alloc, ix->maps, ix->n, &ix->cap, 256, sizeof *p);
        if (!p)
            return lsi_fail(ix->err, LS_E_NOMEM, "%s: no memory to read it", ix->path);
        ix->maps = p;
        struct mapping *m = &ix->maps[ix->n++];
        *m = (struct mapping){ 0 };
        LSI_TRY(index_strdup(ix, j, &s, &m->tensor));
        LSI_TRY(lsi_json_string(j, &s));
        LSI_TRY(index_strdup(ix, j, &s, &m->shard));
        if (!shard_name_ok(m->shard))
            return lsi_json_error(j, "'%s' is not allowed as the name of a shard", SHOW(m->shard));
    }
    return j->status;
}

static ls_status read_index(struct index *ix)
{
    struct lsi_map file;
    LSI_TRY(lsi_map_read(&file, ix->path, MAX_INDEX_BYTES, ix->alloc, ix->err));
    struct lsi_json j;
    struct lsi_json_str key;
    bool seen = false;
    lsi_json_init(&j, file.data, file.bytes, ix->path, ix->err);
    ls_status st;
    LSI_TRY_OR(done, lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (!lsi_json_str_is(&key, "weight_map")) {
            LSI_TRY_OR(done, lsi_json_skip(&j));
            continue;
        }
        if (seen) {
            st = lsi_json_error(&j, "weight_map is there twice");
            goto done;
        }
        seen = true;
        LSI_TRY_OR(done, read_weight_map(ix, &j));
    }
    LSI_TRY_OR(done, lsi_json_end(&j));
    if (ix->n == 0)
        st = lsi_fail(ix->err, LS_E_FORMAT, "%s names no tensors: it needs a \"weight_map\"", ix->path);
done:
    lsi_map_close(&file);
    return st;
}

/* Take the tensors that lines [begin, end) of the index place in one shard, and its map. */
static ls_status adopt_shard(struct lsi_safetensors *s, struct lsi_safetensors *part, const struct index *ix,
                             size_t begin, size_t end, const char *path)
{
    for (size_t i = begin; i < end; i++) {
        if (i > begin && strcmp(ix->maps[i].tensor, ix->maps[i - 1].tensor) == 0)
            return lsi_fail(ix->err, LS_E_FORMAT, "%s names tensor '%s' twice", ix->path,
                            SHOW(ix->maps[i].tensor));
        const struct lsi_st_tensor *t = lsi_st_find(part, ix->maps[i].tensor);
        if (!t)
            return lsi_fail(ix->err, LS_E_FORMAT, "%s has no tensor '%s', which %s places there", path,
                            SHOW(ix->maps[i].tensor), ix->path);
        struct lsi_st_tensor *own = &s->tensors[s->n_tensors];
        *own = *t;
        own->shard = (uint32_t)s->n_maps;
        own->name = lsi_strndup(s->alloc, t->name, strlen(t->name));
        if (!own->name)
            return lsi_fail(ix->err, LS_E_NOMEM, "%s: no memory for its header", path);
        s->n_tensors++;
    }
    s->n_unlisted += part->n_tensors - (end - begin);
    s->maps[s->n_maps++] = part->maps[0];
    part->maps[0] = (struct lsi_map){ 0 };
    return LS_OK;
}

static ls_status open_shard(struct lsi_safetensors *s, const char *dir, const struct index *ix, size_t begin,
                            size_t end)
{
    char path[4096];
    if (!lsi_path_join(path, sizeof path, dir, ix->maps[begin].shard))
        return lsi_fail(ix->err, LS_E_INVAL, "the path of shard '%s' is too long",
                        SHOW(ix->maps[begin].shard));
    struct lsi_safetensors part;
    LSI_TRY(lsi_st_open(&part, path, s->alloc, ix->err));
    const ls_status st = adopt_shard(s, &part, ix, begin, end, path);
    lsi_st_close(&part);
    return st;
}

/* The lines of ix are sorted by shard. */
static ls_status open_shards(struct lsi_safetensors *s, const char *dir, struct index *ix)
{
    size_t n_shards = 0;
    for (size_t i = 0; i < ix->n; i++)
        n_shards += i == 0 || strcmp(ix->maps[i].shard, ix->maps[i - 1].shard) != 0;
    s->tensors = lsi_calloc(s->alloc, ix->n, sizeof *s->tensors);
    s->cap_tensors = s->tensors ? ix->n : 0;
    struct lsi_map *maps = lsi_calloc(s->alloc, n_shards, sizeof *maps);
    if (!s->tensors || !maps) {
        lsi_free(s->alloc, maps, n_shards * sizeof *maps);
        return lsi_fail(ix->err, LS_E_NOMEM, "%s: no memory for its tensors", ix->path);
    }
    s->maps = maps;

    ls_status st = LS_OK;
    for (size_t i = 0, end; st == LS_OK && i < ix->n; i = end) {
        for (end = i + 1; end < ix->n && strcmp(ix->maps[end].shard, ix->maps[i].shard) == 0; end++)
            ;
        st = open_shard(s, dir, ix, i, end);
    }
    if (st != LS_OK) {
        /* n_maps counts the open ones; the block has room for all. */
        for (size_t i = 0; i < s->n_maps; i++)
            lsi_map_close(&s->maps[i]);
        lsi_free(s->alloc, s->maps, n_shards * sizeof *s->maps);
        s->maps = NULL;
        s->n_maps = 0;
        return st;
    }
    qsort(s->tensors, s->n_tensors, sizeof *s->tensors, compare_tensors);
    for (size_t i = 1; i < s->n_tensors; i++) {
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return lsi_fail(ix->err, LS_E_FORMAT, "%s names tensor '%s' twice", ix->path,
                            SHOW(s->tensors[i].name));
    }
    return LS_OK;
}

ls_status lsi_st_open_dir(struct lsi_safetensors *s, const char *dir, const ls_alloc *alloc, ls_error *err)
{
    char path[4096];
    *s = (struct lsi_safetensors){ 0 };
    if (!lsi_path_join(path, sizeof path, dir, "model.safetensors"))
        return lsi_fail(err, LS_E_INVAL, "the path %s is too long", dir);
    if (lsi_path_exists(path))
        return lsi_st_open(s, path, alloc, err);
    if (!lsi_path_join(path, sizeof path, dir, "model.safetensors.index.json"))
        return lsi_fail(err, LS_E_INVAL, "the path %s is too long", dir);
    if (!lsi_path_exists(path))
        return lsi_fail(err, LS_E_IO, "%s has neither model.safetensors nor model.safetensors.index.json",
                        dir);

    struct index ix = { .path = path, .alloc = alloc, .err = err };
    s->alloc = alloc;
    ls_status st = read_index(&ix);
    if (st == LS_OK) {
        qsort(ix.maps, ix.n, sizeof *ix.maps, compare_mappings);
        st = open_shards(s, dir, &ix);
    }
    for (size_t i = 0; i < ix.n; i++) {
        free_name(alloc, ix.maps[i].tensor);
        free_name(alloc, ix.maps[i].shard);
    }
    lsi_free(alloc, ix.maps, ix.cap * sizeof *ix.maps);
    if (st != LS_OK)
        lsi_st_close(s);
    return st;
}

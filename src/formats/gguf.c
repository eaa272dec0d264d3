#include "formats/gguf_internal.h"

#include <string.h>

/* The smallest records that a file can hold: what its counts are checked against before memory is taken. */
#define MIN_KV_BYTES     (8 + 1 + 4 + 1)
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 8 + 4 + 8)

#define SHOW(str)        lsi_show((str).s, (str).len).text

struct reader {
    const unsigned char *begin, *p, *end;
    const char *name; /* for messages */
    ls_error *err;
};

/* ---- pieces ------------------------------------------------------------- */

static size_t left(const struct reader *r)
{
    return (size_t)(r->end - r->p);
}

static ls_status take(struct reader *r, void *out, size_t n, const char *what)
{
    if (left(r) < n)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: the file ends inside %s; it may be truncated", r->name,
                        what);
    memcpy(out, r->p, n);
    r->p += n;
    return LS_OK;
}

static ls_status take_str(struct reader *r, struct lsi_str *s, const char *what)
{
    uint64_t len = 0;
    LSI_TRY(take(r, &len, sizeof len, what));
    if (len > left(r))
        return lsi_fail(r->err, LS_E_FORMAT, "%s: %s claims %llu bytes, but only %zu are left in the file",
                        r->name, what, (unsigned long long)len, left(r));
    s->s = (const char *)r->p;
    s->len = (size_t)len;
    r->p += len;
    return LS_OK;
}

/* ---- metadata ----------------------------------------------------------- */

static ls_status check_bools(const struct reader *r, const struct lsi_gguf_kv *kv)
{
    for (size_t i = 0; i < kv->bytes; i++) {
        if (kv->data[i] > 1)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: metadata '%s': %d is no truth value (0 or 1)", r->name,
                            SHOW(kv->key), kv->data[i]);
    }
    return LS_OK;
}

/* r->p at the first element; kv->count is known but not yet trusted. */
static ls_status parse_elements(struct reader *r, struct lsi_gguf_kv *kv, enum lsi_gguf_type type)
{
    const bool strings = type == LSI_GGUF_STRING;
    const size_t min_bytes = strings ? 8 : lsi_gguf_value_bytes(type);
    if (kv->count > left(r) / min_bytes)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: metadata '%s' claims %llu elements, but only %zu bytes are left in the file",
                        r->name, SHOW(kv->key), (unsigned long long)kv->count, left(r));
    kv->data = r->p;
    if (strings) {
        for (uint64_t i = 0; i < kv->count; i++) {
            struct lsi_str s;
            LSI_TRY(take_str(r, &s, "a metadata string"));
        }
    } else {
        r->p += kv->count * min_bytes;
    }
    kv->bytes = (size_t)(r->p - kv->data);
    return type == LSI_GGUF_BOOL ? check_bools(r, kv) : LS_OK;
}

static ls_status take_type(struct reader *r, const struct lsi_gguf_kv *kv, enum lsi_gguf_type *type)
{
    uint32_t id = 0;
    LSI_TRY(take(r, &id, sizeof id, "a metadata type"));
    if (id >= LSI_GGUF_N_TYPES)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: metadata '%s' has the unknown type %u", r->name,
                        SHOW(kv->key), (unsigned)id);
    *type = (enum lsi_gguf_type)id;
    return LS_OK;
}

static ls_status parse_kv(struct reader *r, struct lsi_gguf_kv *kv)
{
    LSI_TRY(take_str(r, &kv->key, "a metadata key"));
    if (kv->key.len == 0)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: a metadata key is empty", r->name);
    if (kv->key.len > GGUF_MAX_KEY)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: metadata key '%s' has %zu bytes, more than the allowed %d",
                        r->name, SHOW(kv->key), kv->key.len, GGUF_MAX_KEY);
    LSI_TRY(take_type(r, kv, &kv->type));
    kv->count = 1;
    if (kv->type != LSI_GGUF_ARRAY)
        return parse_elements(r, kv, kv->type);
    LSI_TRY(take_type(r, kv, &kv->elem_type));
    if (kv->elem_type == LSI_GGUF_ARRAY)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: metadata '%s' is an array of arrays, which GGUF forbids",
                        r->name, SHOW(kv->key));
    LSI_TRY(take(r, &kv->count, sizeof kv->count, "the length of a metadata array"));
    return parse_elements(r, kv, kv->elem_type);
}

static ls_status parse_metadata(struct reader *r, struct lsi_gguf *g, uint64_t n_kv)
{
    g->kv = lsi_calloc(g->alloc, (size_t)n_kv, sizeof *g->kv);
    if (!g->kv)
        return lsi_fail(r->err, LS_E_NOMEM, "%s: no memory for %llu metadata pairs", r->name,
                        (unsigned long long)n_kv);
    g->n_kv = (size_t)n_kv;
    if (lsi_name_index_init(&g->kv_index, g->n_kv, g->alloc) != LS_OK)
        return lsi_fail(r->err, LS_E_NOMEM, "%s: no memory to index the metadata", r->name);
    for (size_t i = 0; i < g->n_kv; i++) {
        LSI_TRY(parse_kv(r, &g->kv[i]));
        if (!lsi_name_index_add(&g->kv_index, g->kv, sizeof *g->kv, i))
            return lsi_fail(r->err, LS_E_FORMAT, "%s: metadata key '%s' occurs twice", r->name,
                            SHOW(g->kv[i].key));
    }

    const struct lsi_gguf_kv *kv = lsi_gguf_find(g, "general.alignment");
    g->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (kv) {
        if (kv->type == LSI_GGUF_U32)
            memcpy(&g->alignment, kv->data, sizeof g->alignment);
        if (kv->type != LSI_GGUF_U32 || g->alignment == 0 || (g->alignment & (g->alignment - 1)) != 0)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: general.alignment must be a u32 power of two", r->name);
    }
    return LS_OK;
}

/* ---- tensors ------------------------------------------------------------ */

static ls_status tensor_error(const struct reader *r, const struct lsi_gguf_tensor *t, const char *what)
{
    return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor '%s': %s", r->name, SHOW(t->name), what);
}

static ls_status parse_dims(struct reader *r, struct lsi_gguf_tensor *t)
{
    LSI_TRY(take(r, &t->n_dims, sizeof t->n_dims, "a tensor description"));
    if (t->n_dims < 1 || t->n_dims > 4)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor '%s' has %u dimensions (1 to 4 are possible)",
                        r->name, SHOW(t->name), (unsigned)t->n_dims);
    uint64_t n = 1;
    for (uint32_t d = 0; d < 4; d++)
        t->dims[d] = 1;
    for (uint32_t d = 0; d < t->n_dims; d++)
        LSI_TRY(take(r, &t->dims[d], sizeof t->dims[d], "a tensor description"));
    /* A zero must not hide an overflow: the others are multiplied as if it were 1. */
    for (uint32_t d = 0; d < t->n_dims; d++) {
        const uint64_t dim = t->dims[d] ? t->dims[d] : 1;
        if (dim > INT64_MAX || __builtin_mul_overflow(n, dim, &n) || n > INT64_MAX)
            return tensor_error(r, t, "the product of its dimensions overflows");
    }
    return LS_OK;
}

static ls_status parse_type(struct reader *r, struct lsi_gguf_tensor *t)
{
    LSI_TRY(take(r, &t->type_id, sizeof t->type_id, "a tensor description"));
    const struct lsi_gguf_type_info *info = lsi_gguf_type_info(t->type_id);
    if (!info)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: tensor '%s' has the type %u, which is not defined (any more)", r->name,
                        SHOW(t->name), (unsigned)t->type_id);
    t->dtype = info->dtype;
    if (t->dims[0] % info->block != 0)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: tensor '%s' has rows of %llu elements, but %s is stored in blocks of %u",
                        r->name, SHOW(t->name), (unsigned long long)t->dims[0], info->name,
                        (unsigned)info->block);
    const uint64_t n = t->dims[0] / info->block * t->dims[1] * t->dims[2] * t->dims[3];
    uint64_t bytes;
    if (__builtin_mul_overflow(n, (uint64_t)info->bytes, &bytes) || bytes > INT64_MAX)
        return tensor_error(r, t, "its size in bytes overflows");
    t->bytes = (size_t)bytes;
    return LS_OK;
}

static ls_status parse_tensor(struct reader *r, struct lsi_gguf_tensor *t)
{
    LSI_TRY(take_str(r, &t->name, "a tensor name"));
    if (t->name.len > GGUF_MAX_TENSOR_NAME)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor name '%s' has %zu bytes, more than the allowed %d",
                        r->name, SHOW(t->name), t->name.len, GGUF_MAX_TENSOR_NAME);
    if (memchr(t->name.s, '\0', t->name.len))
        return tensor_error(r, t, "its name contains a NUL");
    LSI_TRY(parse_dims(r, t));
    LSI_TRY(parse_type(r, t));
    return take(r, &t->offset, sizeof t->offset, "a tensor description");
}

/* Tensors must lie one after the other, in file order: that excludes overlaps and forgotten bytes. */
static ls_status place_tensors(struct reader *r, struct lsi_gguf *g)
{
    const size_t bytes = (size_t)(r->end - r->begin);
    const size_t start = lsi_min_size(lsi_round_up((size_t)(r->p - r->begin), g->alignment), bytes);
    const size_t data_bytes = bytes - start;
    uint64_t next = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct lsi_gguf_tensor *t = &g->tensors[i];
        if (t->offset % g->alignment != 0)
            return lsi_fail(r->err, LS_E_FORMAT,
                            "%s: tensor '%s' begins at offset %llu, which is no multiple of the alignment %u",
                            r->name, SHOW(t->name), (unsigned long long)t->offset, (unsigned)g->alignment);
        if (t->offset > data_bytes || t->bytes > data_bytes - t->offset)
            return lsi_fail(
                r->err, LS_E_FORMAT,
                "%s: tensor '%s' (%zu bytes at offset %llu) goes past the file's %zu bytes of data; "
                "the file may be truncated",
                r->name, SHOW(t->name), t->bytes, (unsigned long long)t->offset, data_bytes);
        if (t->offset != next)
            return lsi_fail(r->err, LS_E_FORMAT,
                            "%s: tensor '%s' begins at offset %llu, but the one before it ends at %llu: %s",
                            r->name, SHOW(t->name), (unsigned long long)t->offset, (unsigned long long)next,
                            t->offset < next ? "they overlap" : "there is a gap");
        t->data = r->begin + start + t->offset;
        next = lsi_round_up(t->offset + t->bytes, g->alignment);
    }
    return LS_OK;
}

/* Enter the names of all tensors; each may occur once. */
static ls_status index_tensors(struct lsi_gguf *g, const char *name, ls_error *err)
{
    if (lsi_name_index_init(&g->tensor_index, g->n_tensors, g->alloc) != LS_OK)
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory to index the tensors", name);
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (!lsi_name_index_add(&g->tensor_index, g->tensors, sizeof *g->tensors, i))
            return lsi_fail(err, LS_E_FORMAT, "%s: tensor '%s' occurs twice", name, SHOW(g->tensors[i].name));
    }
    return LS_OK;
}

static ls_status parse_tensors(struct reader *r, struct lsi_gguf *g, uint64_t n_tensors)
{
    g->tensors = lsi_calloc(g->alloc, (size_t)n_tensors, sizeof *g->tensors);
    if (!g->tensors)
        return lsi_fail(r->err, LS_E_NOMEM, "%s: no memory for %llu tensor descriptions", r->name,
                        (unsigned long long)n_tensors);
    g->n_tensors = (size_t)n_tensors;
    for (size_t i = 0; i < g->n_tensors; i++)
        LSI_TRY(parse_tensor(r, &g->tensors[i]));
    LSI_TRY(index_tensors(g, r->name, r->err));
    return place_tensors(r, g);
}

/* ---- one file ----------------------------------------------------------- */

static ls_status parse_version(struct reader *r, struct lsi_gguf *g)
{
    if (left(r) < 4 || memcmp(r->p, "GGUF", 4) != 0)
        return lsi_fail(r->err, LS_E_FORMAT, "%s is not a GGUF file: it does not begin with \"GGUF\"",
                        r->name);
    r->p += 4;
    LSI_TRY(take(r, &g->version, sizeof g->version, "its header"));
    if (g->version != 0 && (g->version & 0xffff) == 0)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s is a big-endian GGUF file; only little-endian ones are read", r->name);
    if (g->version != 2 && g->version != 3)
        return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s has GGUF version %u; versions 2 and 3 are read",
                        r->name, (unsigned)g->version);
    return LS_OK;
}

static ls_status parse_file(struct reader *r, struct lsi_gguf *g)
{
    uint64_t n_tensors = 0, n_kv = 0;
    LSI_TRY(parse_version(r, g));
    LSI_TRY(take(r, &n_tensors, sizeof n_tensors, "its header"));
    LSI_TRY(take(r, &n_kv, sizeof n_kv, "its header"));
    if (n_kv > lsi_min_size(left(r) / MIN_KV_BYTES, 1u << 30))
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s claims %llu metadata pairs, more than its %zu bytes can hold", r->name,
                        (unsigned long long)n_kv, left(r));
    if (n_tensors > lsi_min_size((left(r) - n_kv * MIN_KV_BYTES) / MIN_TENSOR_BYTES, 1u << 30))
        return lsi_fail(r->err, LS_E_FORMAT, "%s claims %llu tensors, more than its %zu bytes can hold",
                        r->name, (unsigned long long)n_tensors, left(r));
    LSI_TRY(parse_metadata(r, g, n_kv));
    return parse_tensors(r, g, n_tensors);
}

ls_status lsi_gguf_parse(struct lsi_gguf *g, const void *data, size_t bytes, const char *name,
                         const ls_alloc *alloc, ls_error *err)
{
    const unsigned char *begin = bytes ? data : (const unsigned char *)"";
    struct reader r = { begin, begin, begin + bytes, name, err };
    *g = (struct lsi_gguf){ .alloc = alloc };
    const ls_status st = parse_file(&r, g);
    if (st != LS_OK)
        lsi_gguf_close(g);
    return st;
}

static void free_tensors(struct lsi_gguf *g)
{
    lsi_free(g->alloc, g->tensors, g->n_tensors * sizeof *g->tensors);
    lsi_name_index_fini(&g->tensor_index, g->alloc);
    g->tensors = NULL;
    g->n_tensors = 0;
}

void lsi_gguf_close(struct lsi_gguf *g)
{
    free_tensors(g);
    lsi_free(g->alloc, g->kv, g->n_kv * sizeof *g->kv);
    lsi_name_index_fini(&g->kv_index, g->alloc);
    for (size_t i = 0; i < g->n_maps; i++)
        lsi_map_close(&g->maps[i]);
    lsi_free(g->alloc, g->maps, g->n_maps * sizeof *g->maps);
    *g = (struct lsi_gguf){ 0 };
}

/* ---- split files -------------------------------------------------------- */

/* Map and parse one file; g holds the map. */
static ls_status open_one(struct lsi_gguf *g, const char *path, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_map map;
    LSI_TRY(lsi_map_open(&map, path, err));
    ls_status st = lsi_gguf_parse(g, map.data, map.bytes, path, alloc, err);
    if (st != LS_OK) {
        lsi_map_close(&map);
        return st;
    }
    g->maps = lsi_calloc(alloc, 1, sizeof *g->maps);
    if (!g->maps) {
        lsi_map_close(&map);
        lsi_gguf_close(g);
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory to open it", path);
    }
    g->maps[0] = map;
    g->n_maps = 1;
    return LS_OK;
}

/* Path of part `no` (from 0), given that of another part. */
static ls_status part_path(char *out, size_t cap, const char *path, uint64_t no, uint64_t count,
                           ls_error *err)
{
    static const char shape[] = "-00000-of-00000.gguf";
    const size_t n = strlen(path), n_shape = sizeof shape - 1;
    bool ok = n > n_shape && n < cap;
    for (size_t i = 0; ok && i < n_shape; i++) {
        const char c = path[n - n_shape + i];
        ok = shape[i] == '0' ? c >= '0' && c <= '9' : c == shape[i];
    }
    if (!ok)
        return lsi_fail(
            err, LS_E_FORMAT,
            "%s is one of %llu parts of a model, but its name does not end in -00001-of-%05llu.gguf", path,
            (unsigned long long)count, (unsigned long long)count);
    snprintf(out, cap, "%.*s-%05llu-of-%05llu.gguf", (int)(n - n_shape), path, (unsigned long long)no + 1,
             (unsigned long long)count);
    return LS_OK;
}

/* Move the tensors and the map of one part into g, which has room for the map. */
static ls_status adopt_part(struct lsi_gguf *g, struct lsi_gguf *part, const char *path, ls_error *err)
{
    const size_t n = g->n_tensors + part->n_tensors;
    struct lsi_gguf_tensor *all = lsi_calloc(g->alloc, n, sizeof *all);
    if (!all)
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory for %zu tensor descriptions", path, n);
    if (g->n_tensors)
        memcpy(all, g->tensors, g->n_tensors * sizeof *all);
    if (part->n_tensors)
        memcpy(all + g->n_tensors, part->tensors, part->n_tensors * sizeof *all);
    free_tensors(g);
    g->tensors = all;
    g->n_tensors = n;
    LSI_TRY(index_tensors(g, path, err));

    struct lsi_map *maps = lsi_calloc(g->alloc, g->n_maps + 1, sizeof *maps);
    if (!maps)
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory to open it", path);
    memcpy(maps, g->maps, g->n_maps * sizeof *maps);
    lsi_free(g->alloc, g->maps, g->n_maps * sizeof *maps);
    g->maps = maps;
    maps[g->n_maps++] = part->maps[0];
    part->maps[0] = (struct lsi_map){ 0 };
    return LS_OK;
}

static ls_status open_part(struct lsi_gguf *g, const char *first, uint64_t no, uint64_t count, ls_error *err)
{
    char path[4096];
    LSI_TRY(part_path(path, sizeof path, first, no, count, err));
    struct lsi_gguf part;
    LSI_TRY(open_one(&part, path, g->alloc, err));
    uint64_t part_no, part_count;
    ls_status st;
    if (!lsi_gguf_get_u64(&part, "split.no", &part_no) || part_no != no ||
        !lsi_gguf_get_u64(&part, "split.count", &part_count) || part_count != count)
        st = lsi_fail(err, LS_E_FORMAT, "%s does not say that it is part %llu of %llu", path,
                      (unsigned long long)no + 1, (unsigned long long)count);
    else
        st = adopt_part(g, &part, path, err);
    lsi_gguf_close(&part);
    return st;
}

static ls_status open_parts(struct lsi_gguf *g, const char *path, uint64_t count, ls_error *err)
{
    uint64_t no = 0, n_tensors = 0;
    char first[4096];
    LSI_TRY(part_path(first, sizeof first, path, 0, count, err));
    if (!lsi_gguf_get_u64(g, "split.no", &no) || no != 0)
        return lsi_fail(err, LS_E_INVAL, "%s is not the first part of the model; open %s", path, first);
    for (uint64_t i = 1; i < count; i++)
        LSI_TRY(open_part(g, path, i, count, err));
    if (lsi_gguf_get_u64(g, "split.tensors.count", &n_tensors) && n_tensors != g->n_tensors)
        return lsi_fail(err, LS_E_FORMAT, "%s says that its parts hold %llu tensors, but they hold %zu", path,
                        (unsigned long long)n_tensors, g->n_tensors);
    return LS_OK;
}

ls_status lsi_gguf_open(struct lsi_gguf *g, const char *path, const ls_alloc *alloc, ls_error *err)
{
    *g = (struct lsi_gguf){ 0 };
    LSI_TRY(open_one(g, path, alloc, err));
    uint64_t count;
    if (!lsi_gguf_get_u64(g, "split.count", &count) || count <= 1)
        return LS_OK;
    const ls_status st = open_parts(g, path, count, err);
    if (st != LS_OK)
        lsi_gguf_close(g);
    return st;
}

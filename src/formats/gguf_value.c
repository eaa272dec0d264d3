#include "formats/gguf_internal.h"

#include <string.h>

/* Indexed by id. Types that we do not compute with keep their layout, so that files that hold them open
 * and are checked, and only the use of such a tensor fails. */
static const struct lsi_gguf_type_info types[] = {
    [0] = { "F32", LSI_F32, 1, 4 },
    [1] = { "F16", LSI_F16, 1, 2 },
    [2] = { "Q4_0", LSI_Q4_0, 32, 18 },
    [3] = { "Q4_1", LSI_Q4_1, 32, 20 },
    [6] = { "Q5_0", LSI_Q5_0, 32, 22 },
    [7] = { "Q5_1", LSI_Q5_1, 32, 24 },
    [8] = { "Q8_0", LSI_Q8_0, 32, 34 },
    [9] = { "Q8_1", LSI_OTHER, 32, 36 },
    [10] = { "Q2_K", LSI_OTHER, 256, 84 },
    [11] = { "Q3_K", LSI_OTHER, 256, 110 },
    [12] = { "Q4_K", LSI_Q4_K, 256, 144 },
    [13] = { "Q5_K", LSI_Q5_K, 256, 176 },
    [14] = { "Q6_K", LSI_Q6_K, 256, 210 },
    [15] = { "Q8_K", LSI_OTHER, 256, 292 },
    [16] = { "IQ2_XXS", LSI_OTHER, 256, 66 },
    [17] = { "IQ2_XS", LSI_OTHER, 256, 74 },
    [18] = { "IQ3_XXS", LSI_OTHER, 256, 98 },
    [19] = { "IQ1_S", LSI_OTHER, 256, 50 },
    [20] = { "IQ4_NL", LSI_OTHER, 32, 18 },
    [21] = { "IQ3_S", LSI_OTHER, 256, 110 },
    [22] = { "IQ2_S", LSI_OTHER, 256, 82 },
    [23] = { "IQ4_XS", LSI_OTHER, 256, 136 },
    [24] = { "I8", LSI_I8, 1, 1 },
    [25] = { "I16", LSI_I16, 1, 2 },
    [26] = { "I32", LSI_I32, 1, 4 },
    [27] = { "I64", LSI_I64, 1, 8 },
    [28] = { "F64", LSI_F64, 1, 8 },
    [29] = { "IQ1_M", LSI_OTHER, 256, 56 },
    [30] = { "BF16", LSI_BF16, 1, 2 },
    [34] = { "TQ1_0", LSI_OTHER, 256, 54 },
    [35] = { "TQ2_0", LSI_OTHER, 256, 66 },
    [39] = { "MXFP4", LSI_OTHER, 32, 17 },
    [40] = { "NVFP4", LSI_OTHER, 64, 36 },
    [41] = { "Q1_0", LSI_OTHER, 128, 18 },
    [42] = { "Q2_0", LSI_OTHER, 64, 18 },
};

const struct lsi_gguf_type_info *lsi_gguf_type_info(uint32_t type_id)
{
    return type_id < LSI_LEN(types) && types[type_id].name ? &types[type_id] : NULL;
}

const char *lsi_gguf_type_name(uint32_t type_id)
{
    const struct lsi_gguf_type_info *info = lsi_gguf_type_info(type_id);
    return info ? info->name : "unknown";
}

bool lsi_gguf_type_id(enum lsi_dtype t, uint32_t *type_id)
{
    for (uint32_t i = 0; i < LSI_LEN(types); i++) {
        if (types[i].name && types[i].dtype == t && t != LSI_OTHER) {
            *type_id = i;
            return true;
        }
    }
    return false;
}

size_t lsi_gguf_value_bytes(enum lsi_gguf_type t)
{
    static const unsigned char bytes[LSI_GGUF_N_TYPES] = {
        [LSI_GGUF_U8] = 1,  [LSI_GGUF_I8] = 1,  [LSI_GGUF_U16] = 2, [LSI_GGUF_I16] = 2,
        [LSI_GGUF_U32] = 4, [LSI_GGUF_I32] = 4, [LSI_GGUF_F32] = 4, [LSI_GGUF_BOOL] = 1,
        [LSI_GGUF_U64] = 8, [LSI_GGUF_I64] = 8, [LSI_GGUF_F64] = 8,
    };
    return bytes[t];
}

/* ---- lookup ------------------------------------------------------------- */

const struct lsi_gguf_kv *lsi_gguf_find(const struct lsi_gguf *g, const char *key)
{
    const size_t i = lsi_name_index_find(&g->kv_index, g->kv, sizeof *g->kv, key, strlen(key));
    return i == LSI_NAME_NONE ? NULL : &g->kv[i];
}

const struct lsi_gguf_tensor *lsi_gguf_find_tensor(const struct lsi_gguf *g, const char *name)
{
    const size_t i =
        lsi_name_index_find(&g->tensor_index, g->tensors, sizeof *g->tensors, name, strlen(name));
    return i == LSI_NAME_NONE ? NULL : &g->tensors[i];
}

/* ---- typed reads -------------------------------------------------------- */

/* Type of the elements: the value's own when it is no array. */
static enum lsi_gguf_type elem_type(const struct lsi_gguf_kv *kv)
{
    return kv->type == LSI_GGUF_ARRAY ? kv->elem_type : kv->type;
}

/* An integer as its magnitude and sign, so that u64 and i64 both fit. */
static bool read_integer(enum lsi_gguf_type type, const unsigned char *p, uint64_t *bits, bool *negative)
{
    const size_t n = lsi_gguf_value_bytes(type);
    uint64_t v = 0;
    switch (type) {
    case LSI_GGUF_U8:
    case LSI_GGUF_U16:
    case LSI_GGUF_U32:
    case LSI_GGUF_U64:
        memcpy(&v, p, n);
        *negative = false;
        break;
    case LSI_GGUF_I8:
    case LSI_GGUF_I16:
    case LSI_GGUF_I32:
    case LSI_GGUF_I64:
        *negative = p[n - 1] & 0x80;
        memset(&v, *negative ? 0xff : 0, sizeof v);
        memcpy(&v, p, n);
        break;
    default:
        return false;
    }
    *bits = v;
    return true;
}

bool lsi_gguf_elem_i64(const struct lsi_gguf_kv *kv, uint64_t i, int64_t *out)
{
    const enum lsi_gguf_type type = elem_type(kv);
    uint64_t bits;
    bool negative;
    if (i >= kv->count || !read_integer(type, kv->data + i * lsi_gguf_value_bytes(type), &bits, &negative) ||
        (!negative && bits > INT64_MAX))
        return false;
    *out = (int64_t)bits;
    return true;
}

bool lsi_gguf_elem_f64(const struct lsi_gguf_kv *kv, uint64_t i, double *out)
{
    const enum lsi_gguf_type type = elem_type(kv);
    if (i >= kv->count)
        return false;
    const unsigned char *p = kv->data + i * lsi_gguf_value_bytes(type);
    if (type == LSI_GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == LSI_GGUF_F64) {
        memcpy(out, p, sizeof *out);
        return true;
    }
    uint64_t bits;
    bool negative;
    if (!read_integer(type, p, &bits, &negative))
        return false;
    *out = negative ? (double)(int64_t)bits : (double)bits;
    return true;
}

bool lsi_gguf_next_str(const struct lsi_gguf_kv *kv, size_t *cursor, struct lsi_str *out)
{
    if (elem_type(kv) != LSI_GGUF_STRING || *cursor >= kv->bytes)
        return false;
    uint64_t len;
    memcpy(&len, kv->data + *cursor, sizeof len);
    out->s = (const char *)kv->data + *cursor + sizeof len;
    out->len = (size_t)len;
    *cursor += sizeof len + (size_t)len;
    return true;
}

/* The pair of a key that has exactly one element. */
static const struct lsi_gguf_kv *find_single(const struct lsi_gguf *g, const char *key)
{
    const struct lsi_gguf_kv *kv = lsi_gguf_find(g, key);
    return kv && kv->count == 1 ? kv : NULL;
}

bool lsi_gguf_get_u64(const struct lsi_gguf *g, const char *key, uint64_t *out)
{
    const struct lsi_gguf_kv *kv = find_single(g, key);
    uint64_t bits;
    bool negative;
    if (!kv || !read_integer(elem_type(kv), kv->data, &bits, &negative) || negative)
        return false;
    *out = bits;
    return true;
}

bool lsi_gguf_get_f64(const struct lsi_gguf *g, const char *key, double *out)
{
    const struct lsi_gguf_kv *kv = find_single(g, key);
    return kv && lsi_gguf_elem_f64(kv, 0, out);
}

bool lsi_gguf_get_bool(const struct lsi_gguf *g, const char *key, bool *out)
{
    const struct lsi_gguf_kv *kv = find_single(g, key);
    if (!kv || elem_type(kv) != LSI_GGUF_BOOL)
        return false;
    *out = kv->data[0] != 0;
    return true;
}

bool lsi_gguf_get_str(const struct lsi_gguf *g, const char *key, struct lsi_str *out)
{
    const struct lsi_gguf_kv *kv = find_single(g, key);
    size_t cursor = 0;
    return kv && lsi_gguf_next_str(kv, &cursor, out);
}

#include "base/dtype.h"

#include <strings.h>

static const struct {
    const char *name;
    size_t block, bytes;
} types[LSI_N_DTYPES] = {
#define LSI_DTYPE_ROW(name, block, bytes) { #name, block, bytes },
    LSI_DTYPE_LIST(LSI_DTYPE_ROW)
#undef LSI_DTYPE_ROW
};

const char *lsi_dtype_name(enum lsi_dtype t)
{
    return types[t].name;
}

size_t lsi_dtype_block(enum lsi_dtype t)
{
    return types[t].block;
}

size_t lsi_dtype_block_bytes(enum lsi_dtype t)
{
    return types[t].bytes;
}

enum lsi_dtype lsi_dtype_from_name(const char *name)
{
    for (int t = 0; t < LSI_N_DTYPES; t++) {
        if (t != LSI_OTHER && strcasecmp(name, types[t].name) == 0)
            return (enum lsi_dtype)t;
    }
    return LSI_N_DTYPES;
}

bool lsi_dtype_is_quantized(enum lsi_dtype t)
{
    return types[t].block > 1;
}

bool lsi_dtype_is_weight(enum lsi_dtype t)
{
    return t == LSI_F32 || t == LSI_F16 || t == LSI_BF16 || lsi_dtype_is_quantized(t);
}

bool lsi_dtype_row_bytes(enum lsi_dtype t, size_t n, size_t *bytes)
{
    if (n % types[t].block != 0)
        return false;
    return !__builtin_mul_overflow(n / types[t].block, types[t].bytes, bytes);
}

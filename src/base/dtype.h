/* Element types of stored tensors. A type with blocks packs `block` elements in `bytes` bytes. */
#ifndef LSI_DTYPE_H
#define LSI_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* X(name, elements per block, bytes per block). Names are those of GGUF and safetensors. */
#define LSI_DTYPE_LIST(X) \
    X(F32, 1, 4)          \
    X(F16, 1, 2)          \
    X(BF16, 1, 2)         \
    X(F64, 1, 8)          \
    X(Q8_0, 32, 34)       \
    X(Q4_0, 32, 18)       \
    X(Q4_1, 32, 20)       \
    X(Q5_0, 32, 22)       \
    X(Q5_1, 32, 24)       \
    X(Q4_K, 256, 144)     \
    X(Q5_K, 256, 176)     \
    X(Q6_K, 256, 210)     \
    X(I8, 1, 1)           \
    X(I16, 1, 2)          \
    X(I32, 1, 4)          \
    X(I64, 1, 8)          \
    X(U8, 1, 1)           \
    X(BOOL, 1, 1)         \
    X(OTHER, 1, 0) /* known to the format, listed, never loaded */

enum lsi_dtype {
#define LSI_DTYPE_ENUM(name, block, bytes) LSI_##name,
    LSI_DTYPE_LIST(LSI_DTYPE_ENUM)
#undef LSI_DTYPE_ENUM
    LSI_N_DTYPES
};

const char *lsi_dtype_name(enum lsi_dtype t);
size_t lsi_dtype_block(enum lsi_dtype t);
size_t lsi_dtype_block_bytes(enum lsi_dtype t);
/** By name, case-insensitive; LSI_N_DTYPES when unknown. */
enum lsi_dtype lsi_dtype_from_name(const char *name);
/** True for the types a weight matrix may have: F32, F16, BF16 and the quantised ones. */
bool lsi_dtype_is_weight(enum lsi_dtype t);
bool lsi_dtype_is_quantized(enum lsi_dtype t);
/** Bytes of n elements in one row; false when n is no multiple of the block or it overflows. */
bool lsi_dtype_row_bytes(enum lsi_dtype t, size_t n, size_t *bytes);

#endif

/* What the safetensors reader and writer share. */
#ifndef LSI_SAFETENSORS_INTERNAL_H
#define LSI_SAFETENSORS_INTERNAL_H

#include "formats/name_index.h"
#include "formats/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "model files are read and written as they lie in memory");

#define ST_MAX_HEADER 100000000

/* X(name, bits, type): every element type of the format; OTHER is listed but never loaded. */
#define ST_DTYPE_LIST(X)         \
    X(BOOL, 8, LSI_BOOL)         \
    X(U8, 8, LSI_U8)             \
    X(I8, 8, LSI_I8)             \
    X(F8_E5M2, 8, LSI_OTHER)     \
    X(F8_E4M3, 8, LSI_OTHER)     \
    X(F8_E8M0, 8, LSI_OTHER)     \
    X(F8_E4M3FNUZ, 8, LSI_OTHER) \
    X(F8_E5M2FNUZ, 8, LSI_OTHER) \
    X(I16, 16, LSI_I16)          \
    X(U16, 16, LSI_OTHER)        \
    X(F16, 16, LSI_F16)          \
    X(BF16, 16, LSI_BF16)        \
    X(I32, 32, LSI_I32)          \
    X(U32, 32, LSI_OTHER)        \
    X(F32, 32, LSI_F32)          \
    X(C64, 64, LSI_OTHER)        \
    X(F64, 64, LSI_F64)          \
    X(I64, 64, LSI_I64)          \
    X(U64, 64, LSI_OTHER)        \
    X(F4, 4, LSI_OTHER)          \
    X(F6_E2M3, 6, LSI_OTHER)     \
    X(F6_E3M2, 6, LSI_OTHER)

#endif

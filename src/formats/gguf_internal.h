/* What the files of the GGUF reader and writer share. */
#ifndef LSI_GGUF_INTERNAL_H
#define LSI_GGUF_INTERNAL_H

#include "formats/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "model files are read and written as they lie in memory");

#define GGUF_VERSION           3
#define GGUF_DEFAULT_ALIGNMENT 32
#define GGUF_MAX_KEY           65535
#define GGUF_MAX_TENSOR_NAME   63

/* A tensor type of the file format. */
struct lsi_gguf_type_info {
    const char *name; /* NULL: the id was removed or never given */
    enum lsi_dtype dtype;
    uint32_t block, bytes;
};

/** NULL when the id is not defined. */
const struct lsi_gguf_type_info *lsi_gguf_type_info(uint32_t type_id);
/** The id under which a type is stored; false when the format has none for it. */
bool lsi_gguf_type_id(enum lsi_dtype t, uint32_t *type_id);
/** Bytes of a metadata value of a fixed size; 0 for strings and arrays. */
size_t lsi_gguf_value_bytes(enum lsi_gguf_type t);

#endif

/*
 * A hash index from names to positions in an array whose elements begin with
 * their name. It holds no names itself: 4 bytes a slot, at most half of them used.
 */
#ifndef LSI_NAME_INDEX_H
#define LSI_NAME_INDEX_H

#include "base/base.h"

/* A length-delimited text that lies elsewhere. Not NUL-terminated. */
struct lsi_str {
    const char *s;
    size_t len;
};

bool lsi_str_is(struct lsi_str s, const char *text);

/* The beginning of a name from a file, made safe to print. */
struct lsi_shown {
    char text[68];
};

struct lsi_shown lsi_show(const char *s, size_t len);

struct lsi_name_index {
    uint32_t *slots; /* position + 1; 0: free */
    size_t cap;      /* a power of two */
};

#define LSI_NAME_NONE SIZE_MAX

/** Room for n names (n < 2^30). */
ls_status lsi_name_index_init(struct lsi_name_index *ix, size_t n, const ls_alloc *alloc);
void lsi_name_index_fini(struct lsi_name_index *ix, const ls_alloc *alloc);

/** Position of a name, or LSI_NAME_NONE. Element i begins at items + i * stride with its struct lsi_str. */
size_t lsi_name_index_find(const struct lsi_name_index *ix, const void *items, size_t stride,
                           const char *name, size_t len);
/** Enter element i; false when its name is there already. */
bool lsi_name_index_add(struct lsi_name_index *ix, const void *items, size_t stride, size_t i);

#endif

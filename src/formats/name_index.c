#include "formats/name_index.h"

#include <string.h>

bool lsi_str_is(struct lsi_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.s, text, s.len) == 0;
}

struct lsi_shown lsi_show(const char *s, size_t len)
{
    struct lsi_shown out;
    const size_t n = lsi_min_size(len, 64);
    for (size_t i = 0; i < n; i++)
        out.text[i] = s[i] < 0x20 || s[i] > 0x7e ? '?' : s[i];
    memcpy(out.text + n, len > n ? "..." : "", len > n ? 4 : 1);
    return out;
}

ls_status lsi_name_index_init(struct lsi_name_index *ix, size_t n, const ls_alloc *alloc)
{
    size_t cap = 8;
    while (cap < n * 2)
        cap *= 2;
    ix->slots = lsi_calloc(alloc, cap, sizeof *ix->slots);
    ix->cap = ix->slots ? cap : 0;
    return ix->slots ? LS_OK : LS_E_NOMEM;
}

void lsi_name_index_fini(struct lsi_name_index *ix, const ls_alloc *alloc)
{
    lsi_free(alloc, ix->slots, ix->cap * sizeof *ix->slots);
    *ix = (struct lsi_name_index){ 0 };
}

/* FNV-1a with a final mix, so that the low bits depend on every byte. */
static uint64_t hash(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 32);
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t probe(const struct lsi_name_index *ix, const void *items, size_t stride, const char *name,
                    size_t len)
{
    size_t slot = hash(name, len) & (ix->cap - 1);
    while (ix->slots[slot] != 0) {
        struct lsi_str s;
        memcpy(&s, (const char *)items + (ix->slots[slot] - 1) * stride, sizeof s);
        if (s.len == len && memcmp(s.s, name, len) == 0)
            break;
        slot = (slot + 1) & (ix->cap - 1);
    }
    return slot;
}

size_t lsi_name_index_find(const struct lsi_name_index *ix, const void *items, size_t stride,
                           const char *name, size_t len)
{
    if (ix->cap == 0)
        return LSI_NAME_NONE;
    const uint32_t v = ix->slots[probe(ix, items, stride, name, len)];
    return v ? v - 1 : LSI_NAME_NONE;
}

bool lsi_name_index_add(struct lsi_name_index *ix, const void *items, size_t stride, size_t i)
{
    struct lsi_str s;
    memcpy(&s, (const char *)items + i * stride, sizeof s);
    const size_t slot = probe(ix, items, stride, s.s, s.len);
    if (ix->slots[slot] != 0)
        return false;
    ix->slots[slot] = (uint32_t)(i + 1);
    return true;
}

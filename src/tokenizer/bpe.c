/*
 * Merging: a piece of text becomes symbols (bytes or characters), and the neighbouring pair with the lowest
 * key is joined until no pair has one. Keys are ranks of merges, or scores of the joined text with the
 * highest first; ties go to the left.
 *
 * Short pieces keep the key of each pair in an array and look for the least. Long ones use a heap of keys
 * and places; an entry whose place has another key by the time it comes up is dropped. That is O(n log n)
 * for a megabyte without a space, and four children to a node keep it within few cache lines.
 */
#include "tokenizer/tokenizer.h"

#include <string.h>

#define NO_KEY        UINT32_MAX
#define NONE          UINT32_MAX
#define SHORT_MAX     48
#define CACHE_KEY_MAX 64

struct symbol {
    uint32_t off, len; /* in the piece */
    int32_t id;        /* -1: not in the vocabulary */
    uint32_t prev, next;
    uint32_t key; /* of joining it to the next; NO_KEY also when it was joined to its left neighbour */
    int32_t joined;
};

struct cached {
    const char *key;
    uint32_t len, n;
    size_t at; /* first id in ids[] */
};

struct lsi_bpe {
    const ls_tokenizer *t;
    int32_t *ids;
    size_t n_ids, cap_ids;
    struct symbol *symbols;
    size_t cap_symbols;
    uint64_t *heap; /* key << 32 | index of the left symbol */
    size_t n_heap, cap_heap;
    struct cached *cache;
    size_t cache_size; /* power of two, 0: none */
    size_t dropped;
    bool last_unk;
};

struct lsi_bpe *lsi_bpe_new(const ls_tokenizer *t, size_t text_len)
{
    struct lsi_bpe *b = lsi_calloc(t->alloc, 1, sizeof *b);
    if (!b)
        return NULL;
    b->t = t;
    b->cap_ids = text_len / 3 + 16;
    b->ids = lsi_alloc(t->alloc, b->cap_ids * sizeof *b->ids);
    if (text_len >= 1024) {
        b->cache_size = 256;
        while (b->cache_size < 16384 && b->cache_size < text_len / 16)
            b->cache_size *= 2;
        b->cache = lsi_calloc(t->alloc, b->cache_size, sizeof *b->cache);
    }
    if (!b->ids || (b->cache_size && !b->cache)) {
        lsi_bpe_free(b);
        return NULL;
    }
    return b;
}

void lsi_bpe_free(struct lsi_bpe *b)
{
    if (!b)
        return;
    const ls_alloc *a = b->t->alloc;
    lsi_free(a, b->ids, b->cap_ids * sizeof *b->ids);
    lsi_free(a, b->symbols, b->cap_symbols * sizeof *b->symbols);
    lsi_free(a, b->heap, b->cap_heap * sizeof *b->heap);
    lsi_free(a, b->cache, b->cache_size * sizeof *b->cache);
    lsi_free(a, b, sizeof *b);
}

static bool grow(const ls_alloc *a, void **p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    const size_t to = lsi_max_size(lsi_max_size(64, need), *cap + *cap / 2);
    size_t bytes;
    void *q = lsi_mul_size(to, size, &bytes) ? lsi_realloc(a, *p, *cap * size, bytes) : NULL;
    if (!q)
        return false;
    *p = q;
    *cap = to;
    return true;
}

bool lsi_bpe_put(struct lsi_bpe *b, int32_t id)
{
    if (b->n_ids == b->cap_ids) {
        void *p = b->ids;
        if (!grow(b->t->alloc, &p, &b->cap_ids, b->n_ids + 1, sizeof *b->ids))
            return false;
        b->ids = p;
    }
    b->ids[b->n_ids++] = id;
    b->last_unk = false;
    return true;
}

void lsi_bpe_break(struct lsi_bpe *b)
{
    b->last_unk = false;
}

void lsi_bpe_forget(struct lsi_bpe *b)
{
    if (b->cache)
        memset(b->cache, 0, b->cache_size * sizeof *b->cache);
}

size_t lsi_bpe_dropped(const struct lsi_bpe *b)
{
    return b->dropped;
}

bool lsi_bpe_take(struct lsi_bpe *b, int32_t **ids, size_t *n)
{
    int32_t *p = b->ids;
    if (b->n_ids != b->cap_ids) { /* the caller releases by the count */
        p = lsi_alloc(b->t->alloc, b->n_ids * sizeof *p);
        if (!p)
            return false;
        if (b->n_ids)
            memcpy(p, b->ids, b->n_ids * sizeof *p);
        lsi_free(b->t->alloc, b->ids, b->cap_ids * sizeof *p);
    }
    b->ids = NULL;
    b->cap_ids = 0;
    *ids = p;
    *n = b->n_ids;
    return true;
}

/* ---- symbols --------------------------------------------------------------------- */

/* A character that has no token of its own: its bytes, or the unknown token, or nothing. */
static bool put_unknown(struct lsi_bpe *b, const char *s, size_t len)
{
    const ls_tokenizer *t = b->t;
    bool all = !t->byte_level;
    for (size_t i = 0; i < len && all; i++)
        all = t->byte_ids[(unsigned char)s[i]] >= 0;
    if (all) {
        for (size_t i = 0; i < len; i++)
            if (!lsi_bpe_put(b, t->byte_ids[(unsigned char)s[i]]))
                return false;
        return true;
    }
    b->dropped += len;
    if (t->unk < 0 || t->byte_level)
        return true;
    if (!(t->fuse_unk && b->last_unk) && !lsi_bpe_put(b, t->unk))
        return false;
    b->last_unk = true;
    return true;
}

static uint32_t first_symbol(const ls_tokenizer *t, const char *s, size_t len, int32_t *id)
{
    if (t->byte_level) {
        *id = t->byte_ids[(unsigned char)*s];
        return 1;
    }
    uint32_t cp;
    const size_t n = lsi_char_at(s, len, &cp);
    *id = lsi_vocab_find(t, s, n);
    return (uint32_t)n;
}

/* Larger scores first: a float's bits in an order that unsigned comparison understands, turned round. */
static uint32_t key_of_score(float score)
{
    uint32_t u;
    memcpy(&u, &score, sizeof u);
    u = u & 0x80000000u ? ~u : u | 0x80000000u;
    return lsi_min_size(~u, NO_KEY - 1) & UINT32_MAX;
}

/* Key of joining two symbols that stand side by side; NO_KEY: they do not join. */
static uint32_t pair_key(const ls_tokenizer *t, const char *s, int32_t left_id, int32_t right_id, size_t len,
                         int32_t *id)
{
    if (t->merges) {
        if (left_id < 0 || right_id < 0)
            return NO_KEY;
        const struct lsi_merge *m = lsi_merges_find(t, left_id, right_id);
        if (!m)
            return NO_KEY;
        *id = (int32_t)m->id;
        return m->rank;
    }
    const int32_t found = lsi_vocab_find(t, s, len);
    if (found < 0)
        return NO_KEY;
    *id = found;
    return key_of_score(t->scores ? t->scores[found] : 0.0f);
}

static bool merge_long(struct lsi_bpe *b, const char *s, size_t len);

/* ---- short pieces ----------------------------------------------------------------- */

static bool merge_short(struct lsi_bpe *b, const char *s, size_t len)
{
    const ls_tokenizer *t = b->t;
    int32_t id[SHORT_MAX], joined[SHORT_MAX];
    uint32_t off[SHORT_MAX + 1], key[SHORT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < len; n++) {
        off[n] = (uint32_t)i;
        i += first_symbol(t, s + i, len - i, &id[n]);
        if (id[n] < 0 && t->byte_level)
            return merge_long(b, s, len); /* rare, and it knows how to leave bytes out */
    }
    off[n] = (uint32_t)len;
    for (size_t i = 0; i + 1 < n; i++)
        key[i] = pair_key(t, s + off[i], id[i], id[i + 1], off[i + 2] - off[i], &joined[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (key[i] < key[best])
                best = i;
        if (key[best] == NO_KEY)
            break;
        id[best] = joined[best];
        for (size_t i = best + 1; i + 1 < n; i++) {
            id[i] = id[i + 1];
            off[i] = off[i + 1];
            key[i - 1] = key[i];
            joined[i - 1] = joined[i];
        }
        n--;
        off[n] = (uint32_t)len;
        if (best > 0)
            key[best - 1] = pair_key(t, s + off[best - 1], id[best - 1], id[best],
                                     off[best + 1] - off[best - 1], &joined[best - 1]);
        if (best + 1 < n)
            key[best] =
                pair_key(t, s + off[best], id[best], id[best + 1], off[best + 2] - off[best], &joined[best]);
    }
    for (size_t i = 0; i < n; i++)
        if (!(id[i] >= 0 ? lsi_bpe_put(b, id[i]) : put_unknown(b, s + off[i], off[i + 1] - off[i])))
            return false;
    return true;
}

/* ---- long pieces ------------------------------------------------------------------- */

/* The root is at HEAP_ROOT, so that the four children of a node lie in one cache line. */
#define HEAP_ROOT 3

static size_t first_child(size_t i)
{
    return 4 * (i - HEAP_ROOT) + HEAP_ROOT + 1;
}

static bool heap_push(struct lsi_bpe *b, uint64_t e)
{
    if (HEAP_ROOT + b->n_heap >= b->cap_heap) {
        void *p = b->heap;
        if (!grow(b->t->alloc, &p, &b->cap_heap, HEAP_ROOT + b->n_heap + 1, sizeof e))
            return false;
        b->heap = p;
    }
    size_t i = HEAP_ROOT + b->n_heap++;
    for (size_t up; i > HEAP_ROOT && e < b->heap[up = (i - HEAP_ROOT - 1) / 4 + HEAP_ROOT]; i = up)
        b->heap[i] = b->heap[up];
    b->heap[i] = e;
    return true;
}

static uint64_t heap_pop(struct lsi_bpe *b)
{
    uint64_t *h = b->heap;
    const size_t end = HEAP_ROOT + --b->n_heap;
    const uint64_t top = h[HEAP_ROOT], e = h[end];
    size_t i = HEAP_ROOT;
    for (size_t child; (child = first_child(i)) < end; i = child) {
        const size_t last = lsi_min_size(child + 4, end);
        for (size_t k = child + 1; k < last; k++)
            child = h[k] < h[child] ? k : child;
        if (e <= h[child])
            break;
        h[i] = h[child];
    }
    h[i] = e;
    return top;
}

/* The pair that begins at left has changed. */
static bool push_pair(struct lsi_bpe *b, const char *s, uint32_t left)
{
    struct symbol *l = &b->symbols[left];
    l->key = NO_KEY;
    if (l->next == NONE)
        return true;
    const struct symbol *r = &b->symbols[l->next];
    l->key = pair_key(b->t, s + l->off, l->id, r->id, l->len + r->len, &l->joined);
    return l->key == NO_KEY || heap_push(b, (uint64_t)l->key << 32 | left);
}

/* For any length; O(n log n). */
static bool merge_long(struct lsi_bpe *b, const char *s, size_t len)
{
    const ls_tokenizer *t = b->t;
    void *p = b->symbols;
    if (!grow(t->alloc, &p, &b->cap_symbols, len, sizeof *b->symbols))
        return false;
    struct symbol *sym = b->symbols = p;
    uint32_t n = 0;
    for (size_t i = 0; i < len;) {
        int32_t id;
        const uint32_t k = first_symbol(t, s + i, len - i, &id);
        if (id < 0 && t->byte_level) {
            b->dropped++; /* its neighbours become neighbours */
        } else {
            sym[n] = (struct symbol){ (uint32_t)i, k, id, n ? n - 1 : NONE, n + 1, NO_KEY, -1 };
            n++;
        }
        i += k;
    }
    if (n == 0)
        return true;
    sym[n - 1].next = NONE;
    b->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!push_pair(b, s, i))
            return false;
    while (b->n_heap) {
        const uint64_t e = heap_pop(b);
        const uint32_t left = (uint32_t)e;
        if (b->n_heap) /* likely the next: it comes from far away */
            __builtin_prefetch(&sym[(uint32_t)b->heap[HEAP_ROOT]]);
        struct symbol *l = &sym[left];
        if (l->key != e >> 32)
            continue;
        struct symbol *r = &sym[l->next];
        l->len += r->len;
        l->id = l->joined;
        l->next = r->next;
        if (r->next != NONE)
            sym[r->next].prev = left;
        r->key = NO_KEY;
        if ((l->prev != NONE && !push_pair(b, s, l->prev)) || !push_pair(b, s, left))
            return false;
    }
    for (uint32_t i = 0; i != NONE; i = sym[i].next)
        if (!(sym[i].id >= 0 ? lsi_bpe_put(b, sym[i].id) : put_unknown(b, s + sym[i].off, sym[i].len)))
            return false;
    return true;
}

/* ---- a piece ------------------------------------------------------------------------ */

static bool merge_piece(struct lsi_bpe *b, const char *s, size_t len)
{
    const ls_tokenizer *t = b->t;
    if (t->ignore_merges) {
        const int32_t id = lsi_vocab_find(t, s, len);
        if (id >= 0)
            return lsi_bpe_put(b, id);
    }
    return len <= SHORT_MAX ? merge_short(b, s, len) : merge_long(b, s, len);
}

static bool cached_piece(struct lsi_bpe *b, const char *s, size_t len)
{
    if (!b->cache_size || len > CACHE_KEY_MAX || len < 2)
        return merge_piece(b, s, len);
    struct cached *c = &b->cache[lsi_hash_bytes(s, len) & (b->cache_size - 1)];
    if (c->len == len && memcmp(c->key, s, len) == 0) {
        for (size_t i = 0; i < c->n; i++)
            if (!lsi_bpe_put(b, b->ids[c->at + i]))
                return false;
        return true;
    }
    const size_t at = b->n_ids, dropped = b->dropped;
    if (!merge_piece(b, s, len))
        return false;
    /* A piece with unknown parts has effects besides its ids. */
    if (b->dropped == dropped)
        *c = (struct cached){ s, (uint32_t)len, (uint32_t)(b->n_ids - at), at };
    return true;
}

bool lsi_bpe_piece(struct lsi_bpe *b, const char *s, size_t len)
{
    const ls_tokenizer *t = b->t;
    if (!t->seam_bits)
        return cached_piece(b, s, len);
    /* Cut where no token holds both neighbours: what is left cannot be joined across. */
    const char *end = s + len, *begin = s;
    uint32_t cp;
    size_t k = len ? lsi_char_at(s, len, &cp) : 0;
    while (s + k < end) {
        const size_t next = lsi_char_at(s + k, (size_t)(end - s) - k, &cp);
        if (!lsi_vocab_may_join(t, s, k, s + k, next)) {
            if (!cached_piece(b, begin, (size_t)(s + k - begin)))
                return false;
            begin = s + k;
        }
        s += k;
        k = next;
    }
    return begin == end || cached_piece(b, begin, (size_t)(end - begin));
}

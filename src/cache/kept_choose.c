/* Which slots stay: the score that decides, and taking out what is below it (kept.h). */
#include "cache/kept.h"

#include <string.h>

static void swap(uint64_t *a, uint64_t *b)
{
    const uint64_t t = *a;
    *a = *b;
    *b = t;
}

uint64_t lsi_kept_threshold(uint64_t *keys, size_t n, size_t k)
{
    size_t lo = 0, hi = n - 1;
    const size_t at = k - 1; /* of the keys in descending order */

    LSI_ASSERT(k >= 1 && k <= n);
    while (lo < hi) { /* Hoare's selection; the keys below lo are larger, those beyond hi smaller */
        const size_t mid = lo + (hi - lo) / 2;
        if (keys[mid] > keys[lo])
            swap(&keys[mid], &keys[lo]);
        if (keys[hi] > keys[lo])
            swap(&keys[hi], &keys[lo]);
        if (keys[hi] > keys[mid])
            swap(&keys[hi], &keys[mid]);
        const uint64_t pivot = keys[mid]; /* the middle one of three */
        size_t i = lo, j = hi;
        while (i <= j) {
            while (keys[i] > pivot)
                i++;
            while (keys[j] < pivot)
                j--;
            if (i <= j) {
                swap(&keys[i++], &keys[j]);
                if (j == 0)
                    break;
                j--;
            }
        }
        if (at <= j)
            hi = j;
        else if (at >= i)
            lo = i;
        else
            break;
    }
    return keys[at];
}

/* ---- taking out ------------------------------------------------------------------------------------ */

void lsi_kept_retain(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, const uint32_t *slot,
                     size_t n)
{
    enum {
        BATCH = 256
    };
    struct lsi_kept_layer *l = &c->layers[layer];
    const struct lsi_kv_view kv = lsi_kept_view(c, layer);
    uint32_t to[BATCH];
    size_t i = 0;

    if (lsi_kept_packs(c)) {
        for (size_t s = 0; s < l->n; s++)
            if (i < n && slot[i] == s)
                i++;
            else
                lsi_kept_pos(l, g)[s] = LSI_KEPT_HOLE;
        return;
    }
    while (i < n && slot[i] == i) /* they are in their places */
        i++;
    for (size_t done; i < n; i += done) {
        done = lsi_min_size(BATCH, n - i);
        for (size_t j = 0; j < done; j++) {
            to[j] = (uint32_t)(i + j);
            lsi_kept_move_numbers(c, l, g, i + j, slot[i + j]);
        }
        lsi_op_kv_move(ex, &kv, g, to, slot + i, done);
    }
}

void lsi_kept_drop(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, size_t slot)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    const struct lsi_kv_view kv = lsi_kept_view(c, layer);
    const uint32_t to = (uint32_t)slot, from = (uint32_t)(l->n - 1);
    if (lsi_kept_packs(c))
        lsi_kept_pos(l, g)[slot] = LSI_KEPT_HOLE;
    if (lsi_kept_packs(c) || to == from)
        return;
    lsi_kept_move_numbers(c, l, g, to, from);
    lsi_op_kv_move(ex, &kv, g, &to, &from, 1);
}

/* Holes of a kv head from slot `from` on. */
static size_t holes_from(const struct lsi_kept_layer *l, size_t g, size_t from)
{
    size_t n = 0;
    for (size_t s = from; s < l->n; s++)
        n += lsi_kept_pos(l, g)[s] == LSI_KEPT_HOLE ? 1 : 0;
    return n;
}

/* The first n holes from slot `from` on, which are exact, are filled by what follows. */
static void fill_holes(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, size_t from, size_t n)
{
    enum {
        BATCH = 256
    };
    struct lsi_kept_layer *l = &c->layers[layer];
    uint32_t to[BATCH], old[BATCH];
    size_t at = from, done = 0, batch = 0;
    for (size_t s = from; s < l->n; s++) {
        if (done < n && lsi_kept_pos(l, g)[s] == LSI_KEPT_HOLE) {
            done++;
            continue;
        }
        if (at != s) {
            lsi_kept_move_numbers(c, l, g, at, s);
            to[batch] = (uint32_t)at;
            old[batch++] = (uint32_t)s;
        }
        at++;
        if (batch == BATCH || s + 1 == l->n) {
            lsi_packed_move(&c->packed, ex, layer, g, to, old, batch);
            batch = 0;
        }
    }
    lsi_packed_move(&c->packed, ex, layer, g, to, old, batch);
}

void lsi_kept_dropped(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t n)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    const size_t G = c->base.shape.G;
    if (!lsi_kept_packs(c)) {
        l->n -= n;
        return;
    }
    const size_t from = c->packed.layers[layer].nk;
    size_t fewest = SIZE_MAX;
    for (size_t g = 0; g < G; g++)
        fewest = lsi_min_size(fewest, holes_from(l, g, from));
    for (size_t g = 0; fewest > 0 && g < G; g++)
        fill_holes(c, ex, layer, g, from, fewest);
    l->holes += n - fewest;
    l->n -= fewest;
    l->turn_n = lsi_min_size(l->turn_n, l->n); /* there is no going back to it */
    c->packed.layers[layer].n = l->n;
}

void lsi_kept_slide(struct lsi_kept *c, size_t layer)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    struct lsi_kv_pages *t = &l->pages;
    const size_t window = lsi_cache_window(&c->base.shape, layer);
    const size_t n = c->pool && l->n > window ? (l->n - window) / LSI_KV_PAGE : 0; /* pages */
    if (n == 0 || !lsi_kept_own(c, layer))
        return;
    for (size_t i = n; i < t->n; i++)
        memcpy(t->page[i - n], t->page[i], lsi_kv_pages_bytes(t));
    l->n -= n * LSI_KV_PAGE;
    for (size_t g = 0; g < c->base.shape.G; g++)
        for (size_t s = 0; s < l->n; s++)
            lsi_kept_move_numbers(c, l, g, s, s + n * LSI_KV_PAGE);
}

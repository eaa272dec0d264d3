/* Packed blocks most of whose tokens have been dropped become fewer (kept.h). */
#include "cache/kept.h"

/* Slots of a layer that may be compacted: whole blocks, values and all; where sinks are copies nothing moves.
 */
struct blocks {
    size_t group, first, end; /* slots: multiples of group */
};

static size_t tokens_in(const struct lsi_kept_layer *l, size_t g, size_t slot, size_t group)
{
    size_t n = 0;
    for (size_t s = slot; s < slot + group; s++)
        n += lsi_kept_pos(l, g)[s] != LSI_KEPT_HOLE ? 1 : 0;
    return n;
}

static bool is_sparse(const struct lsi_kept_layer *l, size_t g, size_t slot, size_t group)
{
    return 2 * tokens_in(l, g, slot, group) < group;
}

/* Blocks that a kv head would have less. */
static size_t blocks_saved(const struct lsi_kept_layer *l, size_t g, const struct blocks *b)
{
    size_t sparse = 0, tokens = 0;
    for (size_t s = b->first; s < b->end; s += b->group)
        if (is_sparse(l, g, s, b->group)) {
            sparse++;
            tokens += tokens_in(l, g, s, b->group);
        }
    return sparse - lsi_div_up(tokens, b->group);
}

/* The group at `to` gets the tokens of n slots, all of which are in it or behind it. */
static void regroup(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, size_t to,
                    const uint32_t *from, size_t n, size_t group)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    const struct lsi_kv_view kv = lsi_packed_codes(&c->packed, layer);
    lsi_op_kv_regroup(ex, &kv, g, to, from, n);
    for (size_t i = 0; i < n; i++)
        lsi_kept_move_numbers(c, l, g, to + i, from[i]);
    for (size_t i = n; i < group; i++)
        lsi_kept_pos(l, g)[to + i] = LSI_KEPT_HOLE;
}

/*
 * Tokens of a head's sparse blocks are put together in the first of them. A block that is written has been
 * read before, because what fills it comes from two sparse blocks at least; its own numbers move to lower
 * slots, in order.
 */
static void gather_sparse(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g,
                          const struct blocks *b, uint32_t *sparse)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    uint32_t from[128];
    size_t n_sparse = 0, n = 0, written = 0;
    for (size_t s = b->first; s < b->end; s += b->group)
        if (is_sparse(l, g, s, b->group))
            sparse[n_sparse++] = (uint32_t)s;
    for (size_t i = 0; i < n_sparse; i++)
        for (size_t s = sparse[i]; s < sparse[i] + b->group; s++) {
            if (lsi_kept_pos(l, g)[s] == LSI_KEPT_HOLE)
                continue;
            from[n++] = (uint32_t)s;
            if (n < b->group)
                continue;
            regroup(c, ex, layer, g, sparse[written++], from, n, b->group);
            n = 0;
        }
    if (n > 0)
        regroup(c, ex, layer, g, sparse[written++], from, n, b->group);
    for (; written < n_sparse; written++)
        for (size_t s = sparse[written]; s < sparse[written] + b->group; s++)
            lsi_kept_pos(l, g)[s] = LSI_KEPT_HOLE;
}

/* The last n blocks of a head that have no token are taken out from among the others. */
static void close_empty(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g,
                        const struct blocks *b, size_t n)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    const struct lsi_kv_view kv = lsi_packed_codes(&c->packed, layer);
    size_t empty = 0, at = b->first;
    for (size_t s = b->first; s < b->end; s += b->group)
        empty += tokens_in(l, g, s, b->group) == 0 ? 1 : 0;
    for (size_t s = b->first; s < b->end; s += b->group) {
        if (tokens_in(l, g, s, b->group) == 0 && empty-- <= n)
            continue;
        if (at != s) {
            const uint32_t to = (uint32_t)at, from = (uint32_t)s;
            lsi_op_kv_move(ex, &kv, g, &to, &from, 1);
            for (size_t i = 0; i < b->group; i++)
                lsi_kept_move_numbers(c, l, g, at + i, s + i);
        }
        at += b->group;
    }
}

void lsi_kept_compact(struct lsi_kept *c, struct lsi_exec *ex, size_t layer)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    const struct lsi_packed_layer *y = &c->packed.layers[layer];
    const size_t group = c->packed.how.group, G = c->base.shape.G;
    const struct blocks b = { .group = group,
                              .first = c->packed.how.sinks > 0 ? group : 0,
                              .end = y->nv / group * group };
    size_t saved = SIZE_MAX;
    for (size_t g = 0; b.first < b.end && g < G; g++)
        saved = lsi_min_size(saved, blocks_saved(l, g, &b));
    if (saved == 0 || saved == SIZE_MAX || !lsi_packed_open(&c->packed, ex, layer))
        return;
    const size_t bytes = (b.end - b.first) / group * sizeof(uint32_t);
    uint32_t *sparse = lsi_kept_hold(ex, bytes);
    for (size_t g = 0; g < G; g++) {
        gather_sparse(c, ex, layer, g, &b, sparse);
        close_empty(c, ex, layer, g, &b, saved);
        for (size_t s = b.end; s < l->n; s++)
            lsi_kept_move_numbers(c, l, g, s - saved * group, s);
    }
    lsi_kept_release(ex, bytes);
    lsi_packed_close(&c->packed, ex, layer, b.end, saved);
    l->n -= saved * group;
    l->holes -= saved * group;
    l->turn_n = lsi_min_size(l->turn_n, l->n);
}

#include "cache/kept.h"

#include <string.h>

/* ---- memory beside the pages ------------------------------------------------------------- */

/* Slots of the arrays that go with n slots of pages: doubling, so that a growing cache copies little. */
static size_t array_slots(size_t n)
{
    size_t cap = n > 0 ? LSI_KV_PAGE : 0;
    while (cap < n)
        cap *= 2;
    return cap;
}

/* Bytes of the arrays of one layer; SIZE_MAX when no size_t holds them. */
static size_t array_bytes(size_t G, size_t n_cols, size_t cap)
{
    size_t bytes;
    return lsi_mul_size(cap, G * (1 + n_cols) * sizeof(float), &bytes) ? bytes : SIZE_MAX;
}

static void free_arrays(struct lsi_kept *c, struct lsi_kept_layer *l)
{
    lsi_free(c->base.alloc, l->pos, array_bytes(c->base.shape.G, c->n_cols, l->cap));
    l->pos = NULL;
    l->col = NULL;
    l->cap = 0;
}

/* Arrays of `cap` slots with what the first n have. */
static bool size_arrays(struct lsi_kept *c, struct lsi_kept_layer *l, size_t cap, size_t n)
{
    const size_t G = c->base.shape.G;
    struct lsi_kept_layer to = { .cap = cap };
    if (cap == l->cap)
        return true;
    to.pos = lsi_calloc(c->base.alloc, 1, array_bytes(G, c->n_cols, cap));
    if (!to.pos)
        return false;
    to.col = (float *)(to.pos + G * cap);
    for (size_t i = 0; n > 0 && i < G * (1 + c->n_cols); i++)
        memcpy(to.pos + i * cap, l->pos + i * l->cap, n * sizeof *to.pos);
    free_arrays(c, l);
    l->cap = cap;
    l->pos = to.pos;
    l->col = to.col;
    return true;
}

size_t lsi_kept_plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_cols,
                     size_t n_tokens)
{
    const struct lsi_packing how = lsi_packing_of(spec);
    size_t pages, layer, total;
    if (spec->storage) {
        pages = lsi_packed_plan(shape, &how, n_tokens, n_tokens);
        layer = n_tokens > SIZE_MAX / 4 ? SIZE_MAX : array_bytes(shape->G, n_cols, array_slots(n_tokens));
        return lsi_mul_size(layer, shape->L, &layer) && lsi_add_size(pages, layer, &total) ? total : SIZE_MAX;
    }
    if (n_tokens > SIZE_MAX / 4 ||
        !lsi_mul_size(lsi_div_up(n_tokens, LSI_KV_PAGE), lsi_kv_page_bytes(spec->format, shape->G, shape->D),
                      &pages) ||
        !lsi_add_size(pages, array_bytes(shape->G, n_cols, array_slots(n_tokens)), &layer) ||
        !lsi_mul_size(layer, shape->L, &total))
        return SIZE_MAX;
    return total;
}

size_t lsi_kept_bytes(const struct lsi_kept *c)
{
    size_t bytes = lsi_kept_packs(c) ? lsi_packed_bytes(&c->packed) : lsi_page_pool_bytes(c->pool);
    for (size_t l = 0; l < c->base.shape.L; l++)
        bytes += array_bytes(c->base.shape.G, c->n_cols, c->layers[l].cap);
    return bytes;
}

size_t lsi_kept_bytes_read(const struct lsi_kept *c)
{
    const struct lsi_cache_shape *s = &c->base.shape;
    const size_t slot = lsi_kv_page_bytes(c->base.spec.format, s->G, s->D) / LSI_KV_PAGE;
    size_t bytes = 0;
    for (size_t l = 0; l < s->L; l++) {
        const size_t window = lsi_cache_window(s, l), n = c->layers[l].n;
        if (lsi_kept_packs(c)) {
            const size_t seen = window ? lsi_min_size(n, window) : n;
            const size_t exact = lsi_min_size(seen, n - c->packed.layers[l].nv);
            bytes += exact * lsi_packed_slot_bytes(&c->packed, true) +
                     (seen - exact) * lsi_packed_slot_bytes(&c->packed, false) +
                     (window ? 0 : n * s->G * c->n_cols * sizeof(float));
            continue;
        }
        bytes += window ? lsi_min_size(n, window) * slot : n * (slot + s->G * c->n_cols * sizeof(float));
    }
    return bytes;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* Percentages are open again, unless there are none. */
static void ask(struct lsi_kept *c)
{
    c->resolved = true;
    memcpy(c->base.spec.value, c->asked, sizeof c->asked);
    for (size_t i = 0; i < c->base.policy->n_keys; i++)
        c->resolved = c->resolved && c->asked[i].percent < 0;
}

ls_status lsi_kept_create(struct lsi_kept **out, size_t bytes, size_t n_cols,
                          const struct lsi_cache_policy *policy, const struct lsi_cache_shape *shape,
                          const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_kept *c = lsi_calloc(alloc, 1, bytes);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    c->base = (struct lsi_cache){ .policy = policy, .shape = *shape, .spec = *spec, .alloc = alloc };
    c->bytes = bytes;
    c->n_cols = n_cols;
    memcpy(c->asked, spec->value, sizeof c->asked);
    ask(c);
    c->layers = lsi_calloc(alloc, shape->L, sizeof *c->layers);
    ls_status st = c->layers ? LS_OK : lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    const struct lsi_packing how = lsi_packing_of(spec);
    if (st == LS_OK && spec->storage)
        st = lsi_packed_create(&c->packed, shape, &how, alloc, err);
    else if (st == LS_OK)
        st = lsi_page_pool_create(&c->pool, lsi_kv_page_bytes(spec->format, shape->G, shape->D), shape->L,
                                  alloc, err);
    if (st != LS_OK) {
        lsi_kept_free(c);
        return st;
    }
    for (size_t l = 0; c->pool && l < shape->L; l++)
        lsi_kv_pages_init(&c->layers[l].pages, c->pool);
    *out = c;
    return LS_OK;
}

void lsi_kept_free(struct lsi_kept *c)
{
    if (!c)
        return;
    for (size_t l = 0; c->layers && l < c->base.shape.L; l++) {
        if (c->pool)
            lsi_kv_pages_cut(&c->layers[l].pages, 0);
        free_arrays(c, &c->layers[l]);
    }
    if (c->packed.layers)
        lsi_packed_free(&c->packed);
    lsi_free(c->base.alloc, c->layers, c->base.shape.L * sizeof *c->layers);
    lsi_page_pool_unref(c->pool);
    lsi_free(c->base.alloc, c, c->bytes);
}

struct lsi_kept *lsi_kept_fork(const struct lsi_kept *from)
{
    const struct lsi_cache *base = &from->base;
    struct lsi_kept *c = lsi_calloc(base->alloc, 1, from->bytes);
    if (!c)
        return NULL;
    memcpy(c, from, from->bytes);
    c->pool = from->pool ? lsi_page_pool_ref(from->pool) : NULL;
    c->packed = (struct lsi_packed){ 0 };
    c->layers = lsi_calloc(base->alloc, base->shape.L, sizeof *c->layers);
    bool ok = c->layers != NULL;
    for (size_t l = 0; ok && c->pool && l < base->shape.L; l++)
        lsi_kv_pages_init(&c->layers[l].pages, c->pool);
    ok = ok && (c->pool || lsi_packed_fork(&c->packed, &from->packed, NULL) == LS_OK);
    for (size_t l = 0; ok && l < base->shape.L; l++) {
        const struct lsi_kept_layer *src = &from->layers[l];
        struct lsi_kept_layer *to = &c->layers[l];
        ok = size_arrays(c, to, src->cap, 0) && (!c->pool || lsi_kv_pages_share(&to->pages, &src->pages));
        if (ok && src->cap > 0)
            memcpy(to->pos, src->pos, array_bytes(base->shape.G, from->n_cols, src->cap));
        to->n = src->n;
        to->holes = src->holes;
        to->turn_n = src->turn_n;
    }
    if (ok)
        return c;
    lsi_kept_free(c);
    return NULL;
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* Give back pages and arrays beyond what the slots in use need. Failing to get smaller arrays harms nothing.
 */
static void trim(struct lsi_kept *c, size_t layer)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    if (c->pool)
        lsi_kv_pages_cut(&l->pages, lsi_min_size(l->pages.n, lsi_div_up(l->n, LSI_KV_PAGE)));
    if (l->n == 0)
        free_arrays(c, l);
    else if (array_slots(l->n) < l->cap)
        (void)size_arrays(c, l, array_slots(l->n), l->n);
}

/* Page by page through the layers, so that pages of the same place lie in one slab (kv_pages.h). */
static bool grow_pages(struct lsi_kept *c, size_t n_rows)
{
    const size_t L = c->base.shape.L;
    size_t most = 0;
    for (size_t l = 0; l < L; l++)
        most = lsi_max_size(most, lsi_div_up(c->layers[l].n + n_rows, LSI_KV_PAGE));
    for (size_t at = 0; at < most; at++)
        for (size_t l = 0; l < L; l++) {
            struct lsi_kept_layer *layer = &c->layers[l];
            if (layer->pages.n == at && at < lsi_div_up(layer->n + n_rows, LSI_KV_PAGE) &&
                !lsi_kv_pages_grow(&layer->pages, 1, at + 1))
                return false;
        }
    return true;
}

/* What rows are to packed storage. */
static enum lsi_packed_rows kind_of(const struct lsi_kept *c, size_t n_rows)
{
    return lsi_packed_kind(c->prompt && !c->piece, c->base.n_prompt, n_rows);
}

static bool grow(struct lsi_kept *c, size_t n_rows)
{
    if (!lsi_kept_packs(c))
        return grow_pages(c, n_rows);
    for (size_t l = 0; l < c->base.shape.L; l++)
        c->packed.layers[l].n = c->layers[l].n;
    return lsi_packed_reserve(&c->packed, kind_of(c, n_rows), n_rows);
}

ls_status lsi_kept_reserve(struct lsi_kept *c, size_t n_rows, bool own_all, ls_error *err)
{
    const struct lsi_cache *base = &c->base;
    const size_t L = base->shape.L;
    LSI_TRY(lsi_cache_check_room(base, n_rows, err));
    bool ok = grow(c, n_rows);
    for (size_t l = 0; ok && l < L; l++) {
        struct lsi_kept_layer *layer = &c->layers[l];
        const size_t cap = array_slots(layer->n + n_rows);
        ok = (cap <= layer->cap || size_arrays(c, layer, cap, layer->n)) &&
             (!c->pool ||
              lsi_kv_pages_own(&layer->pages, own_all ? 0 : layer->n / LSI_KV_PAGE, layer->pages.n));
    }
    if (!ok) {
        for (size_t l = 0; l < L; l++)
            trim(c, l);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu more rows of the KV cache", n_rows);
    }
    c->reading = c->prompt || base->n_prompt > 0 || n_rows > 1;
    return LS_OK;
}

bool lsi_kept_own(struct lsi_kept *c, size_t layer)
{
    struct lsi_kv_pages *t = &c->layers[layer].pages;
    return !c->pool || lsi_kv_pages_own(t, 0, t->n); /* room for rows has made the tail this cache's alone */
}

struct lsi_kv_view lsi_kept_view(const struct lsi_kept *c, size_t layer)
{
    if (lsi_kept_packs(c))
        return lsi_packed_tail(&c->packed, layer);
    return (struct lsi_kv_view){
        .format = c->base.spec.format,
        .G = c->base.shape.G,
        .D = c->base.shape.D,
        .pages = c->layers[layer].pages.page,
    };
}

void lsi_kept_append(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                     const float *v, size_t ldv, size_t n_rows)
{
    if (lsi_kept_packs(c)) {
        lsi_packed_append(&c->packed, ex, layer, kind_of(c, n_rows), k, ldk, v, ldv, n_rows);
        return;
    }
    const struct lsi_kv_view kv = lsi_kept_view(c, layer);
    lsi_op_kv_store(ex, &kv, c->layers[layer].n, k, ldk, v, ldv, n_rows);
}

/* Words of a kv head that say which slots are no holes: of whole pages. */
static size_t seen_words(size_t n)
{
    return lsi_div_up(n, LSI_KV_PAGE) * (LSI_KV_PAGE / 16);
}

size_t lsi_kept_hold_bytes(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec)
{
    return spec->storage
               ? lsi_round_up(shape->G * seen_words(shape->n_ctx) * sizeof(uint16_t), LSI_CACHE_LINE)
               : 0;
}

/* Which of the n first slots of a layer are no holes: [G][seen_words]. */
static void find_holes(const struct lsi_kept *c, size_t layer, size_t n, uint16_t *seen)
{
    const size_t words = seen_words(n);
    for (size_t g = 0; g < c->base.shape.G; g++) {
        const uint32_t *pos = lsi_kept_pos(&c->layers[layer], g);
        for (size_t w = 0; w < words; w++) {
            unsigned bits = 0;
            for (size_t i = 0; i < 16; i++)
                bits |= (unsigned)(pos[lsi_min_size(16 * w + i, n - 1)] != LSI_KEPT_HOLE) << i;
            seen[g * words + w] = (uint16_t)bits;
        }
    }
}

void lsi_kept_attend(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                     float *lse)
{
    struct lsi_attention a = lsi_kept_attention(c, layer, q);
    struct lsi_packed_sight sight = { .n_rows = q->T, .window = q->window, .sinks = true };
    if (!lsi_kept_packs(c)) {
        a.lse = lse;
        lsi_op_attention(ex, &a);
        return;
    }
    const size_t n = c->packed.layers[layer].nv;
    const size_t bytes = c->layers[layer].holes > 0 ? c->base.shape.G * seen_words(n) * sizeof(uint16_t) : 0;
    if (bytes > 0) {
        uint16_t *seen = lsi_kept_hold(ex, bytes);
        find_holes(c, layer, n, seen);
        sight.seen = seen;
        sight.ld_seen = seen_words(n);
    }
    lsi_packed_attend(&c->packed, ex, layer, q, &sight, lse);
    if (bytes > 0)
        lsi_kept_release(ex, bytes);
}

void lsi_kept_sums(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                   const float *lse, float *sums, size_t ld)
{
    struct lsi_attention a = lsi_kept_attention(c, layer, q);
    a.lse = (float *)lse;
    if (lsi_kept_packs(c))
        lsi_packed_sums(&c->packed, ex, layer, q, lse, sums, ld);
    else
        lsi_op_attention_sums(ex, &a, sums, ld);
}

struct lsi_attention lsi_kept_attention(const struct lsi_kept *c, size_t layer,
                                        const struct lsi_cache_query *q)
{
    const struct lsi_kv_view kv = lsi_kept_view(c, layer);
    return lsi_cache_attention(&c->base, q, &kv, c->layers[layer].n);
}

void lsi_kept_commit(struct lsi_kept *c, size_t n_rows)
{
    struct lsi_cache *base = &c->base;
    for (size_t i = 0; i < base->shape.L; i++) {
        struct lsi_kept_layer *l = &c->layers[i];
        for (size_t g = 0; g < base->shape.G; g++)
            for (size_t t = 0; t < n_rows; t++)
                lsi_kept_pos(l, g)[l->n + t] = (uint32_t)(base->length + t);
        l->n += n_rows;
        if (lsi_kept_packs(c))
            c->packed.layers[i].n = l->n;
    }
    c->piece = false;
    if (c->reading && !c->prompt)
        c->begin = base->length;
    c->prompt = c->reading;
    base->length += n_rows;
    c->block = n_rows;
}

bool lsi_kept_can_cut(const struct lsi_kept *c, size_t n_rows)
{
    bool can = true;
    for (size_t l = 0; lsi_kept_packs(c) && l < c->base.shape.L; l++)
        can = can && c->layers[l].n - n_rows >= lsi_packed_least_of(&c->packed, l);
    return can;
}

bool lsi_kept_can_cut_to_turn(const struct lsi_kept *c)
{
    bool can = true;
    for (size_t l = 0; lsi_kept_packs(c) && l < c->base.shape.L; l++)
        can = can && c->layers[l].turn_n >= lsi_packed_least_of(&c->packed, l);
    return can;
}

/* A layer has n slots. */
static void cut_layer(struct lsi_kept *c, size_t layer, size_t n)
{
    c->layers[layer].n = n;
    if (lsi_kept_packs(c))
        lsi_packed_cut_layer(&c->packed, layer, n);
    trim(c, layer);
}

void lsi_kept_cut(struct lsi_kept *c, size_t n_rows)
{
    for (size_t l = 0; l < c->base.shape.L; l++)
        cut_layer(c, l, c->layers[l].n - n_rows);
    c->base.length -= n_rows;
    c->block = 0;
    c->prompt = c->prompt && c->base.length > c->begin;
}

void lsi_kept_cut_to_turn(struct lsi_kept *c)
{
    for (size_t l = 0; l < c->base.shape.L; l++)
        cut_layer(c, l, c->layers[l].turn_n);
    c->base.length = c->turn;
    c->block = 0;
    c->prompt = false;
}

void lsi_kept_clear(struct lsi_kept *c)
{
    c->turn = 0;
    for (size_t l = 0; l < c->base.shape.L; l++)
        c->layers[l].turn_n = c->layers[l].holes = 0;
    lsi_kept_cut_to_turn(c);
    ask(c);
}

void lsi_kept_resolve(struct lsi_kept *c, size_t n_prompt)
{
    for (size_t i = 0; i < c->base.policy->n_keys; i++) {
        const size_t n = lsi_cache_tokens(&c->asked[i], n_prompt);
        c->base.spec.value[i] = (struct lsi_cache_value){ .n = (int64_t)n, .percent = -1 };
    }
    c->resolved = true;
}

void lsi_kept_settle(struct lsi_kept *c, struct lsi_exec *ex)
{
    if (lsi_kept_packs(c))
        lsi_packed_settle(&c->packed, ex);
}

void lsi_kept_end_turn(struct lsi_kept *c)
{
    for (size_t l = 0; l < c->base.shape.L; l++) {
        c->layers[l].turn_n = c->layers[l].n;
        trim(c, l);
    }
    c->turn = c->base.length;
    c->block = 0;
    c->prompt = false;
}

/* ---- the rest of the seam ---------------------------------------------------------------------------- */

/* Move the entry at `at` down to its place in a heap of n whose top is the largest. */
static void sift(int64_t *x, size_t at, size_t n)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && x[child + 1] > x[child])
            child++;
        if (x[at] >= x[child])
            return;
        const int64_t t = x[at];
        x[at] = x[child];
        x[child] = t;
    }
}

static void sort(int64_t *x, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(x, i, n);
    for (size_t end = n; end-- > 1;) {
        const int64_t t = x[0];
        x[0] = x[end];
        x[end] = t;
        sift(x, 0, end);
    }
}

size_t lsi_kept_tokens(const struct lsi_kept *c, size_t layer, size_t g, size_t without, int64_t *pos)
{
    const struct lsi_kept_layer *l = &c->layers[layer];
    const size_t window = lsi_cache_window(&c->base.shape, layer), length = c->base.length;
    size_t n = 0;
    bool sorted = true;
    for (size_t s = 0; s < l->n; s++) {
        const int64_t p = lsi_kept_pos(l, g)[s];
        if (s == without || p == LSI_KEPT_HOLE || (window > 0 && (size_t)p + window <= length))
            continue;
        if (pos) {
            pos[n] = p;
            sorted = sorted && (n == 0 || pos[n - 1] < p);
        }
        n++;
    }
    if (!sorted)
        sort(pos, n);
    return n;
}

ls_status lsi_kept_tile(struct lsi_kept *c, size_t layer, size_t n_tokens, size_t keep, size_t recent,
                        ls_error *err)
{
    const struct lsi_cache_shape *s = &c->base.shape;
    struct lsi_kept_layer *l = &c->layers[layer];
    const size_t window = lsi_cache_window(s, layer);
    const size_t wanted = lsi_min_size(n_tokens, window ? lsi_round_up(window, LSI_KV_PAGE) : keep);
    const size_t n =
        lsi_kept_packs(c) ? lsi_max_size(wanted, l->n) : wanted; /* codes are not cut in the middle */
    const size_t last = lsi_min_size(n, window ? n : recent), early = n - last;
    const size_t whole = lsi_max_size(1, l->n / LSI_KV_PAGE), pages = lsi_div_up(n, LSI_KV_PAGE);

    if (l->n == 0)
        return lsi_fail(err, LS_E_INVAL, "repeating a cache takes tokens in it");
    if (n_tokens > s->n_ctx)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", n_tokens, s->n_ctx);
    if (lsi_kept_packs(c) && n > l->n)
        LSI_TRY(lsi_packed_tile_layer(&c->packed, layer, n, err));
    if ((c->pool && !lsi_kv_pages_grow(&l->pages, 1, pages)) || !lsi_kept_own(c, layer) ||
        !size_arrays(c, l, lsi_max_size(l->cap, array_slots(n)), l->n))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu tokens of the KV cache", n);
    for (size_t p = whole; c->pool && p < pages; p++)
        memcpy(l->pages.page[p], l->pages.page[p % whole], lsi_kv_pages_bytes(&l->pages));
    for (size_t g = 0; g < s->G; g++)
        for (size_t j = 0; j < n; j++)
            lsi_kept_pos(l, g)[j] = (uint32_t)(j < early ? j * (n_tokens - last) / early : n_tokens - n + j);
    l->n = n;
    l->holes = 0;
    return LS_OK;
}

/* Slots of a kv head have different tokens or are holes, and the last block's are at the end. pos: [n] */
static bool plausible_head(const struct lsi_kept *c, const struct lsi_kept_layer *l, size_t g, int64_t *pos)
{
    const size_t length = c->base.length;
    size_t n = 0;
    for (size_t s = 0; s < l->n; s++) {
        const uint32_t p = lsi_kept_pos(l, g)[s];
        if (s + c->block >= l->n && (size_t)p != length - (l->n - s))
            return false;
        if (p != LSI_KEPT_HOLE)
            pos[n++] = p;
    }
    sort(pos, n);
    for (size_t s = 1; s < n; s++)
        if (pos[s - 1] == pos[s])
            return false;
    return n + l->holes == l->n && (n == 0 || (size_t)pos[n - 1] < length);
}

static ls_status check_layer(const struct lsi_kept *c, const struct lsi_kept_layer *l,
                             const struct lsi_cache_io *io, ls_error *err)
{
    if (c->block > l->n)
        return lsi_cache_damaged(io, err);
    int64_t *pos = lsi_calloc(c->base.alloc, l->n, sizeof *pos);
    if (!pos)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of the session");
    bool ok = true;
    for (size_t g = 0; ok && g < c->base.shape.G; g++)
        ok = plausible_head(c, l, g, pos);
    lsi_free(c->base.alloc, pos, l->n * sizeof *pos);
    return ok ? LS_OK : lsi_cache_damaged(io, err);
}

bool lsi_kept_whole_since_turn(const struct lsi_kept *c)
{
    for (size_t i = 0; i < c->base.shape.L; i++) {
        const struct lsi_kept_layer *l = &c->layers[i];
        if (l->n - l->turn_n != c->base.length - c->turn)
            return false;
        for (size_t g = 0; g < c->base.shape.G; g++)
            for (size_t s = 0; s < l->n; s++) {
                const uint32_t p = lsi_kept_pos(l, g)[s];
                if (s < l->turn_n ? p >= c->turn && p != LSI_KEPT_HOLE : p != c->turn + (s - l->turn_n))
                    return false;
            }
    }
    return true;
}

static ls_status layer_state(struct lsi_kept *c, size_t layer, struct lsi_cache_io *io, ls_error *err)
{
    struct lsi_kept_layer *l = &c->layers[layer];
    LSI_TRY(io->bytes(io, &l->n, sizeof l->n, err));
    LSI_TRY(io->bytes(io, &l->turn_n, sizeof l->turn_n, err));
    LSI_TRY(io->bytes(io, &l->holes, sizeof l->holes, err));
    if (l->n > c->base.length || l->turn_n > l->n || l->holes > l->n ||
        (l->holes > 0 && !lsi_kept_packs(c))) {
        l->n = l->turn_n = l->holes = 0;
        return lsi_cache_damaged(io, err);
    }
    if (io->reading && !size_arrays(c, l, array_slots(l->n), 0))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of the session");
    for (size_t i = 0; l->n > 0 && i < c->base.shape.G * (1 + c->n_cols); i++)
        LSI_TRY(io->bytes(io, l->pos + i * l->cap, l->n * sizeof *l->pos, err));
    if (io->reading)
        LSI_TRY(check_layer(c, l, io, err));
    return c->pool ? io->pages(io, &l->pages, lsi_div_up(l->n, LSI_KV_PAGE), err) : LS_OK;
}

/* Budgets are numbers of tokens where they are said to be, and as they were asked for where not. */
static bool values_resolved(const struct lsi_kept *c)
{
    for (size_t i = 0; i < c->base.policy->n_keys; i++)
        if (c->base.spec.value[i].percent != (c->resolved ? -1 : c->asked[i].percent))
            return false;
    return true;
}

ls_status lsi_kept_state(struct lsi_kept *c, struct lsi_cache_io *io, ls_error *err)
{
    struct lsi_cache *base = &c->base;
    LSI_TRY(io->bytes(io, &base->length, sizeof base->length, err));
    LSI_TRY(io->bytes(io, &c->turn, sizeof c->turn, err));
    LSI_TRY(io->bytes(io, &c->block, sizeof c->block, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->resolved, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->prompt, err));
    LSI_TRY(io->bytes(io, &c->begin, sizeof c->begin, err));
    LSI_TRY(lsi_cache_io_values(io, base->policy, c->asked, c->asked, err));
    LSI_TRY(lsi_cache_io_values(io, base->policy, c->asked, base->spec.value, err));
    LSI_TRY(lsi_cache_check_stored(base, err));
    LSI_TRY(lsi_cache_io_flag(io, &c->piece, err));
    if (io->reading && (c->turn > base->length || c->begin > base->length || !values_resolved(c)))
        return lsi_cache_damaged(io, err);
    for (size_t l = 0; l < base->shape.L; l++)
        LSI_TRY(layer_state(c, l, io, err));
    if (!lsi_kept_packs(c))
        return LS_OK;
    LSI_TRY(lsi_packed_state(&c->packed, base->length, io, err));
    for (size_t l = 0; l < base->shape.L; l++)
        if (c->packed.layers[l].n != c->layers[l].n)
            return lsi_cache_damaged(io, err);
    return LS_OK;
}

void *lsi_kept_hold(struct lsi_exec *ex, size_t bytes)
{
    struct lsi_arena *s = &ex->scratch;
    LSI_ASSERT(s->cap >= lsi_round_up(bytes, LSI_CACHE_LINE));
    s->cap = s->cap / LSI_CACHE_LINE * LSI_CACHE_LINE - lsi_round_up(bytes, LSI_CACHE_LINE);
    return s->base + s->cap;
}

void lsi_kept_release(struct lsi_exec *ex, size_t bytes)
{
    ex->scratch.cap += lsi_round_up(bytes, LSI_CACHE_LINE);
}

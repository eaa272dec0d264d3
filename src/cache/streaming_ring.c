/*
 * Exact pages of the streaming policy. Tokens lie in pages by their place in the text. Pages with sinks stay;
 * of the others as many are kept as the window and a block of rows touch, and the oldest becomes the newest:
 *
 *     table      [ sinks | p | p + 1 | ... | p + n ]       p = `first`
 *     next page  [ sinks | p + 1 | ... | p + n | p + n + 1 ]
 *
 * so that slots which follow each other hold tokens which do. The tables are those of the full cache.
 */
#include "cache/cache_streaming.h"

#include <string.h>

/* ---- sizes ------------------------------------------------------------------------------ */

static size_t sink_pages(const struct lsi_streaming *c)
{
    return lsi_streaming_sink_pages(c->S);
}

/* Pages that n consecutive tokens touch at most. */
static size_t pages_of(size_t n)
{
    return lsi_div_up(n - 1, LSI_KV_PAGE) + 1;
}

/* Pages of a layer when a window of R tokens slides. */
static size_t most_pages(const struct lsi_cache_shape *shape, size_t S, size_t R)
{
    return lsi_streaming_sink_pages(S) + pages_of(R + lsi_max_size(shape->n_rows, 1));
}

static size_t most_of(const struct lsi_streaming *c)
{
    return most_pages(&c->base.shape, c->S, lsi_streaming_reach(&c->base.shape, c->R));
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_packing *how, size_t n,
                   size_t n_prompt)
{
    const size_t sinks = lsi_streaming_sink_pages(how->sinks);
    size_t most = most_pages(shape, how->sinks, how->window), total;
    (void)n_prompt;
    if (how->at_once)
        most = lsi_max_size(most, sinks + pages_of(how->window + lsi_streaming_positions(shape)));
    const size_t pages = lsi_min_size(lsi_div_up(n, LSI_KV_PAGE), most);
    if (!lsi_mul_size(pages * shape->L, lsi_kv_page_bytes(how->exact, shape->G, shape->D), &total))
        return SIZE_MAX;
    return total;
}

/* ---- life --------------------------------------------------------------------------------- */

static ls_status create(struct lsi_streaming **c, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const struct lsi_packing *how,
                        const ls_alloc *alloc, ls_error *err)
{
    struct lsi_full *f;
    (void)how;
    LSI_TRY(lsi_full_create(&f, sizeof **c, &lsi_cache_streaming, shape, spec, alloc, err));
    *c = (struct lsi_streaming *)f;
    return LS_OK;
}

static ls_status copy(const struct lsi_streaming *from, struct lsi_streaming **c, ls_error *err)
{
    struct lsi_full *f;
    LSI_TRY(lsi_full_copy(&from->full, &f, err));
    *c = (struct lsi_streaming *)f;
    return LS_OK;
}

/* ---- the ring ------------------------------------------------------------------------------- */

/* The ring's pages follow those of the sinks in the text as well: nothing has been dropped. */
static bool contiguous(const struct lsi_streaming *c)
{
    return c->first == sink_pages(c);
}

/* Index in the tables of a page of the text. */
static size_t index_of(const struct lsi_streaming *c, size_t page)
{
    return contiguous(c) ? page : sink_pages(c) + page - c->first;
}

/* The oldest token besides the sinks that rows to come may see. */
static size_t oldest_seen(const struct lsi_streaming *c)
{
    const size_t from = c->open ? c->start : c->base.length,
                 reach = lsi_streaming_reach(&c->base.shape, c->R);
    return from > reach ? from - reach : 0;
}

/* Pages at the beginning of the ring that nobody will see. */
static size_t spent_pages(const struct lsi_streaming *c)
{
    const size_t page = oldest_seen(c) / LSI_KV_PAGE;
    return page > c->first ? lsi_min_size(page - c->first, c->full.layers[0].n - sink_pages(c)) : 0;
}

/* The oldest n pages of the ring become the newest. */
static void turn(struct lsi_streaming *c, size_t n)
{
    for (size_t l = 0; l < c->base.shape.L; l++) {
        void **ring = c->full.layers[l].page + sink_pages(c);
        const size_t last = c->full.layers[l].n - sink_pages(c) - 1;
        for (size_t i = 0; i < n; i++) {
            void *oldest = ring[0];
            memmove(ring, ring + 1, last * sizeof *ring);
            ring[last] = oldest;
        }
    }
    c->first += n;
}

static void cut_pages(struct lsi_streaming *c, size_t n)
{
    for (size_t l = 0; l < c->base.shape.L; l++)
        lsi_kv_pages_cut(&c->full.layers[l], lsi_min_size(n, c->full.layers[l].n));
}

/* ---- rows ----------------------------------------------------------------------------------- */

static bool reserve(struct lsi_streaming *c, size_t n_rows)
{
    const size_t L = c->base.shape.L, n = c->full.layers[0].n;
    const size_t end = lsi_div_up(c->base.length + n_rows, LSI_KV_PAGE);
    const size_t held = c->first + n - sink_pages(c), more = end > held ? end - held : 0;
    const size_t most = most_of(c);
    const size_t reused = n + more > most ? lsi_min_size(n + more - most, spent_pages(c)) : 0;
    bool ok = lsi_kv_pages_grow(c->full.layers, L, n + more - reused);
    if (ok && reused > 0)
        turn(c, reused);
    for (size_t l = 0; ok && l < L; l++)
        ok =
            lsi_kv_pages_own(&c->full.layers[l], index_of(c, c->base.length / LSI_KV_PAGE), index_of(c, end));
    return ok;
}

/* Pages that only a prompt read at once has needed go. */
static void settle(struct lsi_streaming *c, struct lsi_exec *ex)
{
    const size_t n = c->full.layers[0].n, most = most_of(c);
    const size_t spent = n > most ? lsi_min_size(n - most, spent_pages(c)) : 0;
    (void)ex;
    if (spent == 0)
        return;
    turn(c, spent);
    cut_pages(c, n - spent);
}

/* The pages whose tokens follow each other up to the newest; *token0 is the first of them. */
static struct lsi_kv_view recent_view(const struct lsi_streaming *c, size_t layer, size_t *token0)
{
    struct lsi_kv_view kv = lsi_full_view(&c->base, layer);
    *token0 = contiguous(c) ? 0 : c->first * LSI_KV_PAGE;
    kv.pages += contiguous(c) ? 0 : sink_pages(c);
    return kv;
}

static void append(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    size_t token0;
    const struct lsi_kv_view kv = recent_view(c, layer, &token0);
    lsi_op_kv_store(ex, &kv, c->base.length - token0, k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q, const struct lsi_packed_sight *sight, float *lse)
{
    size_t token0;
    const struct lsi_kv_view kv = recent_view(c, layer, &token0);
    const size_t slot0 = c->base.length + sight->row - token0;
    struct lsi_attention a = lsi_cache_attention(&c->base, q, &kv, slot0);
    a.q += sight->row * q->ldq;
    a.out += sight->row * q->ldo;
    a.lse = lse;
    a.T = sight->n_rows;
    a.s0 = sight->from > token0 ? sight->from - token0 : 0;
    a.window = sight->window;
    lsi_op_attention(ex, &a);
}

static struct lsi_kv_view sinks(const struct lsi_streaming *c, size_t layer)
{
    return lsi_full_view(&c->base, layer);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static ls_status cut(struct lsi_streaming *c, size_t n_tokens, ls_error *err)
{
    const size_t n_sinks = sink_pages(c), reach = lsi_streaming_reach(&c->base.shape, c->R);
    const size_t from = n_tokens > reach ? n_tokens - reach : 0;
    const bool in_sinks = n_tokens <= n_sinks * LSI_KV_PAGE;
    if (!contiguous(c) && !in_sinks && from < c->first * LSI_KV_PAGE)
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "cannot rewind to %zu tokens: the window has moved on and keeps, besides the sinks, what "
            "follows token %zu; rewind to 0 and read the text again",
            n_tokens, c->first * LSI_KV_PAGE);
    if (!contiguous(c) && in_sinks) {
        cut_pages(c, n_sinks);
        c->first = n_sinks;
    }
    if (contiguous(c))
        cut_pages(c, lsi_div_up(n_tokens, LSI_KV_PAGE));
    return LS_OK;
}

static ls_status tile(struct lsi_streaming *c, size_t n_tokens, ls_error *err)
{
    struct lsi_kv_pages *t = c->full.layers;
    const size_t L = c->base.shape.L, end = lsi_div_up(n_tokens, LSI_KV_PAGE);
    const size_t whole = contiguous(c) ? c->base.length / LSI_KV_PAGE : t->n - 1;
    const size_t n = lsi_max_size(t->n, lsi_min_size(end, most_of(c)));
    bool ok = lsi_kv_pages_grow(t, L, n);
    for (size_t l = 0; ok && l < L; l++) {
        ok = lsi_kv_pages_own(&t[l], whole, n);
        for (size_t i = whole; ok && i < n; i++)
            memcpy(t[l].page[i], t[l].page[i % whole], lsi_kv_pages_bytes(t));
    }
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu recent tokens", c->R);
    c->first = sink_pages(c) + end - n;
    return LS_OK;
}

static size_t bytes_read(const struct lsi_streaming *c, size_t layer, size_t n_slots)
{
    (void)layer;
    return n_slots * (lsi_kv_pages_bytes(c->full.layers) / LSI_KV_PAGE);
}

/* What was read is a window with all of its pages, whose first has tokens that are still seen. */
static bool plausible(const struct lsi_streaming *c, size_t n_pages)
{
    const size_t n_sinks = sink_pages(c), end = lsi_div_up(c->base.length, LSI_KV_PAGE);
    if (contiguous(c))
        return n_pages >= end;
    return c->first > n_sinks && c->first <= oldest_seen(c) / LSI_KV_PAGE && n_pages >= n_sinks &&
           n_pages - n_sinks >= end - c->first;
}

static ls_status state(struct lsi_streaming *c, struct lsi_cache_io *io, ls_error *err)
{
    size_t n_pages = c->full.layers[0].n;
    LSI_TRY(io->bytes(io, &n_pages, sizeof n_pages, err));
    if (io->reading && !plausible(c, n_pages))
        return lsi_cache_damaged(io, err);
    for (size_t l = 0; l < c->base.shape.L; l++)
        LSI_TRY(io->pages(io, &c->full.layers[l], n_pages, err));
    return LS_OK;
}

const struct lsi_streaming_storage lsi_streaming_ring = {
    .owner = &lsi_cache_full,
    .plan = plan,
    .create = create,
    .copy = copy,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .sinks = sinks,
    .settle = settle,
    .cut = cut,
    .tile = tile,
    .bytes_read = bytes_read,
    .state = state,
};

/*
 * Packed pages of the streaming policy (packed.h), with what kivi keeps beside them. The sinks stay exact,
 * the recent tokens are packed but for the last ones, and blocks of them expire whole.
 */
#include "cache/cache_streaming.h"

static ls_status create(struct lsi_streaming **c, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const struct lsi_packing *how,
                        const ls_alloc *alloc, ls_error *err)
{
    struct lsi_kivi *k;
    LSI_TRY(lsi_kivi_create(&k, sizeof **c, &lsi_cache_streaming, shape, spec, alloc, err));
    k->packed.how = *how; /* sinks and window are the policy's */
    *c = (struct lsi_streaming *)k;
    return LS_OK;
}

static ls_status copy(const struct lsi_streaming *from, struct lsi_streaming **c, ls_error *err)
{
    struct lsi_kivi *k;
    LSI_TRY(lsi_kivi_copy(&from->kivi, &k, err));
    *c = (struct lsi_streaming *)k;
    return LS_OK;
}

/* The storage learns what the policy has found out since: its window, and where it ends. */
static void take_window(struct lsi_streaming *c)
{
    c->kivi.packed.how.window = lsi_streaming_reach(&c->base.shape, c->R);
    c->kivi.packed.start = c->open ? c->start : SIZE_MAX;
}

static bool reserve(struct lsi_streaming *c, size_t n_rows)
{
    take_window(c);
    return lsi_packed_reserve(&c->kivi.packed, lsi_kivi_rows(&c->kivi, n_rows), n_rows);
}

static void append(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    lsi_cache_kivi.append(&c->base, ex, layer, k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_streaming *c, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q, const struct lsi_packed_sight *sight, float *lse)
{
    lsi_packed_attend(&c->kivi.packed, ex, layer, q, sight, lse);
}

static struct lsi_kv_view sinks(const struct lsi_streaming *c, size_t layer)
{
    return lsi_packed_tail(&c->kivi.packed, layer);
}

static void settle(struct lsi_streaming *c, struct lsi_exec *ex)
{
    lsi_cache_kivi.settle(&c->base, ex);
}

static ls_status cut(struct lsi_streaming *c, size_t n_tokens, ls_error *err)
{
    return lsi_kivi_cut(&c->kivi, n_tokens, "what they see has been packed or the window has moved on", err);
}

static ls_status tile(struct lsi_streaming *c, size_t n_tokens, ls_error *err)
{
    LSI_TRY(lsi_packed_tile(&c->kivi.packed, n_tokens, err));
    c->kivi.settled = n_tokens;
    return LS_OK;
}

static size_t bytes_read(const struct lsi_streaming *c, size_t layer, size_t n_slots)
{
    const struct lsi_packed *s = &c->kivi.packed;
    const size_t exact = lsi_min_size(n_slots, c->S + c->base.length + 1 - s->layers[layer].nv);
    return exact * lsi_packed_slot_bytes(s, true) + (n_slots - exact) * lsi_packed_slot_bytes(s, false);
}

/* There are no pages of a ring; and no prompt is open, for what is read counts as settled. */
static ls_status state(struct lsi_streaming *c, struct lsi_cache_io *io, ls_error *err)
{
    size_t n_pages = 0;
    LSI_TRY(io->bytes(io, &n_pages, sizeof n_pages, err));
    if (io->reading && (n_pages != 0 || c->first != lsi_streaming_sink_pages(c->S) || c->open))
        return lsi_cache_damaged(io, err);
    take_window(c);
    return lsi_kivi_tokens_state(&c->kivi, io, err);
}

const struct lsi_streaming_storage lsi_streaming_packed = {
    .owner = &lsi_cache_kivi,
    .plan = lsi_packed_plan,
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

/*
 * KIVI: every key and value, old ones packed in few bits, the last tokens exact (packed.h). Policies that
 * keep all tokens and differ in what a step reads embed it (cache_kivi.h).
 */
#include "cache/cache_kivi.h"
#include "cache/cache_full.h"

struct lsi_kivi *lsi_kivi(struct lsi_cache *c)
{
    return (struct lsi_kivi *)c;
}

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    (void)shape;
    return lsi_packing_check(spec, err);
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    const struct lsi_packing how = lsi_packing_of(spec);
    return lsi_packed_plan(shape, &how, n_tokens, 0);
}

static size_t plan_prompt(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt)
{
    const struct lsi_packing how = lsi_packing_of(spec);
    return lsi_packed_plan(shape, &how, n_tokens, n_prompt);
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *shape,
                      const struct lsi_cache_spec *spec)
{
    (void)spec;
    return lsi_packed_scratch(ex, shape);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void free_kivi(struct lsi_cache *cache)
{
    if (!cache)
        return;
    lsi_packed_free(&lsi_kivi(cache)->packed);
    lsi_free(cache->alloc, cache, lsi_kivi(cache)->bytes);
}

ls_status lsi_kivi_create(struct lsi_kivi **out, size_t bytes, const struct lsi_cache_policy *policy,
                          const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          const ls_alloc *alloc, ls_error *err)
{
    const struct lsi_packing how = lsi_packing_of(spec);
    struct lsi_kivi *c = lsi_calloc(alloc, 1, bytes);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    c->base = (struct lsi_cache){ .policy = policy, .shape = *shape, .spec = *spec, .alloc = alloc };
    c->bytes = bytes;
    const ls_status st = lsi_packed_create(&c->packed, shape, &how, alloc, err);
    if (st != LS_OK)
        lsi_free(alloc, c, bytes);
    else
        *out = c;
    return st;
}

ls_status lsi_kivi_copy(const struct lsi_kivi *from, struct lsi_kivi **copy, ls_error *err)
{
    const struct lsi_cache *like = &from->base;
    struct lsi_kivi *c = lsi_calloc(like->alloc, 1, from->bytes);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    c->base = *like;
    c->bytes = from->bytes;
    c->settled = from->settled;
    const ls_status st = lsi_packed_fork(&c->packed, &from->packed, err);
    if (st != LS_OK)
        lsi_free(like->alloc, c, from->bytes);
    else
        *copy = c;
    return st;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_kivi *c = NULL;
    LSI_TRY(lsi_kivi_create(&c, sizeof *c, &lsi_cache_kivi, shape, spec, alloc, err));
    *cache = &c->base;
    return LS_OK;
}

static ls_status fork_kivi(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    struct lsi_kivi *c = NULL;
    LSI_TRY(lsi_kivi_copy((const struct lsi_kivi *)cache, &c, err));
    *copy = &c->base;
    return LS_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum lsi_packed_rows lsi_kivi_rows(const struct lsi_kivi *c, size_t n_rows)
{
    return lsi_packed_kind(c->settled < c->base.length, c->base.n_prompt, n_rows);
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct lsi_kivi *c = lsi_kivi(cache);
    LSI_TRY(lsi_cache_check_room(cache, n_rows, err));
    if (!lsi_packed_reserve(&c->packed, lsi_kivi_rows(c, n_rows), n_rows))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens",
                        cache->length + n_rows);
    return LS_OK;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct lsi_kivi *c = lsi_kivi(cache);
    lsi_packed_append(&c->packed, ex, layer, lsi_kivi_rows(c, n_rows), k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const struct lsi_packed_sight all = { .n_rows = q->T, .window = q->window, .sinks = true };
    lsi_packed_attend(&lsi_kivi(cache)->packed, ex, layer, q, &all, q->lse);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    struct lsi_kivi *c = lsi_kivi(cache);
    if (lsi_kivi_rows(c, n_rows) == LSI_PACKED_STEP)
        c->settled++;
    cache->length += n_rows;
    lsi_packed_commit(&c->packed, n_rows);
}

static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    lsi_packed_settle(&lsi_kivi(cache)->packed, ex);
    lsi_kivi(cache)->settled = cache->length;
}

/* ---- the rest of the seam ----------------------------------------------------------------------- */

ls_status lsi_kivi_cut(struct lsi_kivi *c, size_t n_tokens, const char *why, ls_error *err)
{
    const size_t least = lsi_packed_least(&c->packed);
    if (n_tokens > 0 && n_tokens < least)
        return lsi_fail(err, LS_E_UNSUPPORTED, "cannot rewind to %zu tokens: %s; to %zu or more, or to 0",
                        n_tokens, why, least);
    c->settled = lsi_min_size(c->settled, n_tokens);
    lsi_packed_cut(&c->packed, n_tokens);
    return LS_OK;
}

static ls_status rewind_kivi(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    LSI_TRY(lsi_cache_check_rewind(cache, n_tokens, err));
    LSI_TRY(lsi_kivi_cut(lsi_kivi(cache), n_tokens, "the keys or values before them are quantised", err));
    cache->length = n_tokens;
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    return lsi_packed_bytes(&((const struct lsi_kivi *)cache)->packed);
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    if (n_tokens <= cache->length)
        return rewind_kivi(cache, n_tokens, err);
    LSI_TRY(lsi_cache_check_room(cache, n_tokens - cache->length, err));
    if (lsi_kivi(cache)->packed.layers[0].nv < LSI_KV_PAGE)
        return lsi_fail(err, LS_E_INVAL,
                        "repeating a kivi cache takes at least %zu tokens in it, it holds %zu",
                        LSI_KV_PAGE + lsi_kivi(cache)->packed.how.R, cache->length);
    LSI_TRY(lsi_packed_tile(&lsi_kivi(cache)->packed, n_tokens, err));
    cache->length = lsi_kivi(cache)->settled = n_tokens;
    return LS_OK;
}

ls_status lsi_kivi_tokens_state(struct lsi_kivi *c, struct lsi_cache_io *io, ls_error *err)
{
    if (io->reading)
        c->settled = c->base.length;
    LSI_TRY(lsi_packed_state(&c->packed, c->base.length, io, err));
    for (size_t l = 0; l < c->base.shape.L; l++)
        if (c->packed.layers[l].n != c->base.length)
            return lsi_cache_damaged(io, err);
    return LS_OK;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    LSI_TRY(lsi_cache_check_stored(cache, err));
    return lsi_kivi_tokens_state(lsi_kivi(cache), io, err);
}

size_t lsi_kivi_bytes_seen(const struct lsi_cache *cache, size_t layer, size_t n)
{
    const struct lsi_packed *s = &((const struct lsi_kivi *)cache)->packed;
    const size_t window = lsi_cache_window(&cache->shape, layer), all = cache->length + 1;
    const size_t seen = lsi_min_size(lsi_min_size(all, n), window > 0 ? window : n);
    const size_t exact = lsi_min_size(seen, all - s->layers[layer].nv);
    return exact * lsi_packed_slot_bytes(s, true) + (seen - exact) * lsi_packed_slot_bytes(s, false);
}

const struct lsi_cache_policy lsi_cache_kivi = {
    .name = "kivi",
    .example = "kivi:bits=2  keys and values in 2 bits",
    .summary = "old keys and values in 2, 4 or 8 bits, the last tokens exact",
    .keys = lsi_packed_keys,
    .n_keys = LSI_PACKED_KEYS,
    .check = check,
    .plan = plan,
    .plan_prompt = plan_prompt,
    .create = create,
    .free = free_kivi,
    .reserve = reserve,
    .append = append,
    .attend = attend,
    .commit = commit,
    .settle = settle,
    .scratch = scratch,
    .rewind = rewind_kivi,
    .bytes = bytes,
    .tile = tile,
    .fork = fork_kivi,
    .state = state,
    .kept = lsi_full_kept,
};

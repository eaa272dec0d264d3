#include "cache/packed.h"

#include <string.h>

enum {
    BITS,
    BITS_V,
    GROUP,
    RESIDUAL,
    SINKS,
};

const struct lsi_cache_key lsi_packed_keys[LSI_PACKED_KEYS] = {
    [BITS] = { .name = "bits", .help = "bits of a key", .normal = "2", .choices = "2|4|8" },
    [BITS_V] = { .name = "bits_v", .help = "bits of a value", .normal = "same", .choices = "same|2|4|8" },
    [GROUP] = { .name = "group",
                .help = "numbers that share a scale: tokens of keys, dimensions of values",
                .normal = "32",
                .choices = "32|64|128" },
    [RESIDUAL] = { .name = "residual",
                   .help = "last tokens that stay exact, a multiple of group",
                   .normal = "128",
                   .low = 32,
                   .high = 65536 },
    [SINKS] = { .name = "sinks",
                .help = "first tokens that stay exact",
                .normal = "0",
                .low = 0,
                .high = LSI_PACKED_SINKS },
};

/* ---- what was asked for ------------------------------------------------------------------- */

static const struct lsi_cache_value *values(const struct lsi_cache_spec *spec)
{
    return spec->storage ? spec->storage_value : spec->value;
}

struct lsi_packing lsi_packing_of(const struct lsi_cache_spec *spec)
{
    if (!spec->storage && spec->policy != &lsi_cache_kivi)
        return (struct lsi_packing){ .exact = spec->format };
    const struct lsi_cache_value *v = values(spec);
    const unsigned bits = 2u << v[BITS].n, bits_v = v[BITS_V].n == 0 ? bits : 1u << v[BITS_V].n;
    const unsigned group = 32u << v[GROUP].n;
    return (struct lsi_packing){ .packed = lsi_kv_kivi(bits, bits_v, group),
                                 .exact = spec->format,
                                 .group = group,
                                 .R = (size_t)v[RESIDUAL].n,
                                 .sinks = (size_t)v[SINKS].n };
}

ls_status lsi_packing_check(const struct lsi_cache_spec *spec, ls_error *err)
{
    const struct lsi_packing how = lsi_packing_of(spec);
    if (how.R % how.group != 0)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv kivi: residual=%zu is no multiple of group=%zu: take residual=%zu", how.R,
                        how.group, lsi_round_up(how.R, how.group));
    if (spec->format != LSI_KV_BF16 && spec->format != LSI_KV_F32)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv kivi keeps its last tokens in bf16 or fp32: take one of these instead of q8");
    return LS_OK;
}

/* ---- sizes ------------------------------------------------------------------------------- */

/* a - b, or 0. */
static size_t above(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* Slots whose values are quantised of n. */
static size_t n_values(size_t n, size_t R)
{
    return above(n, R);
}

/* Slots whose keys are quantised when there are n: R at a time. */
static size_t n_keys(const struct lsi_packed_layer *y, size_t n, size_t R)
{
    return n > y->nk ? y->nk + (n - y->nk) / R * R : y->nk;
}

/* The oldest slot besides the sinks that rows behind n slots may see, down to a whole group. */
static size_t oldest(const struct lsi_packed *s, size_t n)
{
    const size_t window = s->how.window, end = lsi_min_size(n, s->start);
    return window > 0 && end > window ? (end - window) / s->how.group * s->how.group : 0;
}

static size_t page_of(size_t slot)
{
    return slot / LSI_KV_PAGE;
}

/* Pages of the tail with n settled slots. */
static size_t tail_pages(const struct lsi_packing *how, size_t n)
{
    return lsi_div_up(lsi_min_size(n, how->sinks + how->R + 1), LSI_KV_PAGE);
}

static size_t bytes_of(const struct lsi_cache_shape *shape, const struct lsi_packing *how, size_t codes,
                       size_t tail)
{
    size_t a, b, sum;
    if (!lsi_mul_size(codes, shape->L * lsi_kv_page_bytes(how->packed, shape->G, shape->D), &a) ||
        !lsi_mul_size(tail, shape->L * lsi_kv_page_bytes(how->exact, shape->G, shape->D), &b) ||
        !lsi_add_size(a, b, &sum))
        return SIZE_MAX;
    return sum;
}

/* Slots of a prompt's tail that rows may see, at most. */
static size_t most_seen(const struct lsi_cache_shape *shape, const struct lsi_packing *how)
{
    return how->window > 0 && !how->at_once
               ? how->sinks + how->window + how->group - 1 + lsi_max_size(shape->n_rows, 1)
               : SIZE_MAX;
}

size_t lsi_packed_plan(const struct lsi_cache_shape *shape, const struct lsi_packing *how, size_t n,
                       size_t n_prompt)
{
    size_t codes = lsi_div_up(n / how->R * how->R, LSI_KV_PAGE), tail = tail_pages(how, n);
    if (how->window > 0) /* whole groups, which begin anywhere in a page */
        codes = lsi_div_up(lsi_min_size(n / how->group * how->group, how->window + LSI_KV_PAGE - how->group),
                           LSI_KV_PAGE);
    if (n_prompt > 0) {
        const size_t before = lsi_min_size(n - n_prompt, how->R + how->sinks);
        tail = lsi_div_up(lsi_min_size(before + n_prompt, most_seen(shape, how)), LSI_KV_PAGE);
    }
    return bytes_of(shape, how, codes, tail);
}

size_t lsi_packed_scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *shape)
{
    return lsi_op_kv_pack_scratch(ex, shape->D);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void free_parts(struct lsi_packed *s)
{
    const size_t lse = s->rows * s->shape.H * sizeof(float), out = lse * s->shape.D;
    for (size_t i = 0; i < LSI_LEN(s->part); i++) {
        lsi_free(s->alloc, s->part[i], out);
        lsi_free(s->alloc, s->lse[i], lse);
        s->part[i] = s->lse[i] = NULL;
    }
    lsi_free(s->alloc, s->out_lse, lse);
    s->out_lse = NULL;
    s->rows = 0;
}

static bool make_parts(struct lsi_packed *s, size_t rows)
{
    size_t lse, out;
    if (rows <= s->rows)
        return true;
    free_parts(s);
    if (!lsi_mul_size(rows, s->shape.H * sizeof(float), &lse) || !lsi_mul_size(lse, s->shape.D, &out))
        return false;
    s->rows = rows;
    for (size_t i = 0; i < LSI_LEN(s->part); i++) {
        s->part[i] = lsi_alloc(s->alloc, out);
        s->lse[i] = lsi_alloc(s->alloc, lse);
    }
    s->out_lse = lsi_alloc(s->alloc, lse);
    if (s->part[0] && s->part[1] && s->lse[0] && s->lse[1] && s->out_lse)
        return true;
    free_parts(s);
    return false;
}

void lsi_packed_free(struct lsi_packed *s)
{
    const size_t L = s->shape.L;
    for (size_t l = 0; s->layers && l < L; l++) {
        lsi_kv_pages_cut(&s->codes[l], 0);
        lsi_kv_pages_cut(&s->tail[l], 0);
    }
    lsi_free(s->alloc, s->codes, L * sizeof *s->codes);
    lsi_free(s->alloc, s->tail, L * sizeof *s->tail);
    lsi_free(s->alloc, s->layers, L * sizeof *s->layers);
    free_parts(s);
    lsi_page_pool_unref(s->codes_pool);
    lsi_page_pool_unref(s->tail_pool);
    *s = (struct lsi_packed){ 0 };
}

/* Empty tables over two pools, a reference of each of which becomes the store's; false: no memory. */
static bool make(struct lsi_packed *s, struct lsi_page_pool *codes, struct lsi_page_pool *tail)
{
    const size_t L = s->shape.L;
    s->codes_pool = codes;
    s->tail_pool = tail;
    s->start = SIZE_MAX;
    s->codes = lsi_calloc(s->alloc, L, sizeof *s->codes);
    s->tail = lsi_calloc(s->alloc, L, sizeof *s->tail);
    for (size_t l = 0; s->codes && s->tail && l < L; l++) {
        lsi_kv_pages_init(&s->codes[l], codes);
        lsi_kv_pages_init(&s->tail[l], tail);
    }
    if (s->codes && s->tail)
        s->layers = lsi_calloc(s->alloc, L, sizeof *s->layers);
    return s->layers != NULL;
}

ls_status lsi_packed_create(struct lsi_packed *s, const struct lsi_cache_shape *shape,
                            const struct lsi_packing *how, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_page_pool *codes, *tail;
    *s = (struct lsi_packed){ .how = *how, .shape = *shape, .alloc = alloc };
    LSI_TRY(lsi_page_pool_create(&codes, lsi_kv_page_bytes(how->packed, shape->G, shape->D), shape->L, alloc,
                                 err));
    const ls_status st =
        lsi_page_pool_create(&tail, lsi_kv_page_bytes(how->exact, shape->G, shape->D), shape->L, alloc, err);
    if (st != LS_OK) {
        lsi_page_pool_unref(codes);
        return st;
    }
    if (make(s, codes, tail))
        return LS_OK;
    lsi_packed_free(s);
    return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
}

ls_status lsi_packed_fork(struct lsi_packed *to, const struct lsi_packed *from, ls_error *err)
{
    *to = (struct lsi_packed){ .how = from->how, .shape = from->shape, .alloc = from->alloc };
    bool ok = make(to, lsi_page_pool_ref(from->codes_pool), lsi_page_pool_ref(from->tail_pool));
    for (size_t l = 0; ok && l < from->shape.L; l++) {
        to->layers[l] = from->layers[l];
        ok = lsi_kv_pages_share(&to->codes[l], &from->codes[l]) &&
             lsi_kv_pages_share(&to->tail[l], &from->tail[l]);
    }
    to->start = from->start;
    to->limit = from->limit;
    if (ok)
        return LS_OK;
    lsi_packed_free(to);
    return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
}

size_t lsi_packed_bytes(const struct lsi_packed *s)
{
    return lsi_page_pool_bytes(s->codes_pool) + lsi_page_pool_bytes(s->tail_pool);
}

size_t lsi_packed_slot_bytes(const struct lsi_packed *s, bool exact)
{
    return lsi_kv_page_bytes(exact ? s->how.exact : s->how.packed, s->shape.G, s->shape.D) / LSI_KV_PAGE;
}

/* ---- room -------------------------------------------------------------------------------------- */

/* Pages of codes that hold only slots which are not seen any more become the newest. */
static void forget(struct lsi_packed *s, size_t layer)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    struct lsi_kv_pages *t = &s->codes[layer];
    const size_t first = page_of(oldest(s, y->n)), spent = first - lsi_min_size(first, page_of(y->first));
    for (size_t i = 0; i < lsi_min_size(spent, t->n); i++) {
        void *page = t->page[0];
        memmove(t->page, t->page + 1, (t->n - 1) * sizeof *t->page);
        t->page[t->n - 1] = page;
    }
    y->first += spent * LSI_KV_PAGE;
}

/* Pages of codes once n_rows more rows are settled: what is seen by then, and what is seen now. */
static size_t codes_need(const struct lsi_packed *s, size_t layer, size_t n_rows)
{
    const struct lsi_packed_layer *y = &s->layers[layer];
    const bool drops = s->limit > 0 && lsi_cache_window(&s->shape, layer) == 0;
    const size_t all = y->n + n_rows, most = drops ? y->nk + s->limit + s->how.R : all;
    const size_t n = lsi_min_size(all, most), from = oldest(s, n);
    const struct lsi_packed_layer then = { .nk = lsi_max_size(y->nk, from) };
    const size_t first = lsi_max_size(page_of(y->first), page_of(from));
    const size_t now = lsi_div_up(above(y->nk, y->first), LSI_KV_PAGE);
    return lsi_max_size(now, lsi_div_up(n_keys(&then, n, s->how.R), LSI_KV_PAGE) - first);
}

/* The first slot that the tail has to hold, but for sinks. */
static size_t tail_from(const struct lsi_packed *s, const struct lsi_packed_layer *y)
{
    return lsi_max_size(y->nv, oldest(s, y->n));
}

/* Pages of the tail that n_rows more rows take. */
static size_t tail_need(const struct lsi_packed *s, const struct lsi_packed_layer *y,
                        enum lsi_packed_rows kind, size_t n_rows)
{
    const size_t sinks = s->how.sinks;
    if (kind == LSI_PACKED_STEP)
        return tail_pages(&s->how, y->n + 1);
    if (kind == LSI_PACKED_PROMPT)
        return lsi_div_up(lsi_min_size(y->n, sinks + s->how.R) + n_rows, LSI_KV_PAGE);
    const size_t from = s->how.window > 0 ? lsi_max_size(y->base + sinks, oldest(s, y->n)) : y->base + sinks;
    return lsi_div_up(sinks + y->n - from + n_rows, LSI_KV_PAGE);
}

/* Page by page through the layers, so that pages of the same place lie in one slab (kv_pages.h). */
static bool grow(struct lsi_packed *s, struct lsi_kv_pages *tables, enum lsi_packed_rows kind, size_t n_rows)
{
    bool more = true;
    for (size_t at = 0; more; at++) {
        more = false;
        for (size_t l = 0; l < s->shape.L; l++) {
            const size_t need =
                tables == s->codes ? codes_need(s, l, n_rows) : tail_need(s, &s->layers[l], kind, n_rows);
            more = more || at < need;
            if (tables[l].n == at && at < need && !lsi_kv_pages_grow(&tables[l], 1, at + 1))
                return false;
        }
    }
    return true;
}

bool lsi_packed_reserve(struct lsi_packed *s, enum lsi_packed_rows kind, size_t n_rows)
{
    for (size_t l = 0; l < s->shape.L; l++)
        forget(s, l);
    bool ok = make_parts(s, n_rows) && grow(s, s->codes, kind, n_rows) && grow(s, s->tail, kind, n_rows);
    for (size_t l = 0; ok && l < s->shape.L; l++) {
        const struct lsi_packed_layer *y = &s->layers[l];
        const size_t written = page_of(lsi_max_size(y->nv, y->first)) - page_of(y->first);
        ok = lsi_kv_pages_own(&s->codes[l], written, s->codes[l].n) &&
             lsi_kv_pages_own(&s->tail[l], 0, s->tail[l].n);
    }
    return ok;
}

/* ---- quantising ------------------------------------------------------------------------------ */

struct lsi_kv_view lsi_packed_codes(const struct lsi_packed *s, size_t layer)
{
    return (struct lsi_kv_view){
        .format = s->how.packed, .G = s->shape.G, .D = s->shape.D, .pages = s->codes[layer].page
    };
}

struct lsi_kv_view lsi_packed_tail(const struct lsi_packed *s, size_t layer)
{
    return (struct lsi_kv_view){
        .format = s->how.exact, .G = s->shape.G, .D = s->shape.D, .pages = s->tail[layer].page
    };
}

/* What the slots in use leave to be quantised. What is not seen any more is left out. */
static void quantise(struct lsi_packed *s, struct lsi_exec *ex, size_t layer)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    const size_t from = oldest(s, y->n), R = s->how.R;
    y->nk = lsi_max_size(y->nk, from);
    y->nv = lsi_max_size(y->nv, from);
    const size_t nk = n_keys(y, y->n, R), nv = lsi_max_size(y->nv, n_values(y->n, R));
    const struct lsi_kv_pack p = {
        .from = lsi_packed_tail(s, layer),
        .to = lsi_packed_codes(s, layer),
        .base = y->base - y->first, /* slots count from the first page of codes */
        .k_begin = y->nk - y->first,
        .k_end = nk - y->first,
        .v_begin = lsi_max_size(y->nv, lsi_min_size(nv, s->how.sinks)) - y->first,
        .v_end = nv - y->first,
        /* Values that are quantised again after going back meet keys as far back as the tail reaches. */
        .back = above(above(nv, LSI_KV_PAGE), y->first),
        .skip = above(s->how.sinks, y->first),
    };
    lsi_op_kv_pack(ex, &p);
    y->nk = nk;
    y->nv = nv;
}

/* Slots of the tail move down by `by`, those of the sinks excepted: first .. n - 1. */
static void move_tail(const struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t first, size_t n,
                      size_t by)
{
    enum {
        AT_ONCE = 256
    };
    const struct lsi_kv_view kv = lsi_packed_tail(s, layer);
    uint32_t to[AT_ONCE], from[AT_ONCE];
    for (size_t done = first; done < n; done += AT_ONCE) {
        const size_t some = lsi_min_size(AT_ONCE, n - done);
        for (size_t i = 0; i < some; i++) {
            from[i] = (uint32_t)(done + i);
            to[i] = (uint32_t)(done + i - by);
        }
        for (size_t g = 0; g < kv.G; g++)
            lsi_op_kv_move(ex, &kv, g, to, from, some);
    }
}

/* Room for n_rows more rows in `slots` slots of the tail: what it need not hold goes, as far as that is
 * needed.
 */
static void make_room(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t n_rows, size_t slots)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    const size_t n = y->n, keep = tail_from(s, y), sinks = s->how.sinks, least = sinks + (n - keep) + n_rows;
    if (n - y->base + n_rows <= slots)
        return;
    LSI_ASSERT(least <= slots);
    /* Half of the spare room keeps quantised tokens, for those who want to go back. */
    const size_t spare = (slots - least) / 2;
    const size_t first = lsi_max_size(y->base + sinks, keep > spare ? keep - spare : 0);
    const size_t by = first - sinks - y->base;
    move_tail(s, ex, layer, first - y->base, n - y->base, by);
    y->base += by;
}

void lsi_packed_append(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, enum lsi_packed_rows kind,
                       const float *k, size_t ldk, const float *v, size_t ldv, size_t n_rows)
{
    const struct lsi_packed_layer *y = &s->layers[layer];
    if (kind != LSI_PACKED_MORE)
        quantise(s, ex, layer);
    make_room(s, ex, layer, n_rows, s->tail[layer].n * LSI_KV_PAGE);
    const struct lsi_kv_view kv = lsi_packed_tail(s, layer);
    lsi_op_kv_store(ex, &kv, y->n - y->base, k, ldk, v, ldv, n_rows);
}

void lsi_packed_commit(struct lsi_packed *s, size_t n_rows)
{
    for (size_t l = 0; l < s->shape.L; l++)
        s->layers[l].n += n_rows;
}

void lsi_packed_settle(struct lsi_packed *s, struct lsi_exec *ex)
{
    s->start = SIZE_MAX;
    for (size_t l = 0; l < s->shape.L; l++) {
        const size_t pages = tail_pages(&s->how, s->layers[l].n);
        forget(s, l);
        quantise(s, ex, l);
        make_room(s, ex, l, 0, pages * LSI_KV_PAGE);
        lsi_kv_pages_cut(&s->tail[l], lsi_min_size(pages, s->tail[l].n));
        if (s->how.window == 0) /* slots that were dropped instead of packed */
            lsi_kv_pages_cut(&s->codes[l], lsi_min_size(codes_need(s, l, 0), s->codes[l].n));
    }
    lsi_page_pool_trim(s->tail_pool);
    lsi_page_pool_trim(s->codes_pool);
}

/* ---- dropping --------------------------------------------------------------------------------- */

void lsi_packed_move(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t g, uint32_t *to,
                     uint32_t *from, size_t n)
{
    const struct lsi_kv_view kv = lsi_packed_tail(s, layer);
    const size_t base = s->layers[layer].base;
    for (size_t i = 0; i < n; i++) {
        to[i] -= (uint32_t)base;
        from[i] -= (uint32_t)base;
    }
    lsi_op_kv_move(ex, &kv, g, to, from, n);
}

bool lsi_packed_open(struct lsi_packed *s, struct lsi_exec *ex, size_t layer)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    if (!lsi_kv_pages_own(&s->codes[layer], 0, s->codes[layer].n) ||
        !lsi_kv_pages_own(&s->tail[layer], 0, s->tail[layer].n))
        return false;
    /* The tail then begins with what is not packed, and counts from there. */
    const size_t by = y->nv - s->how.sinks - y->base;
    move_tail(s, ex, layer, y->nv - y->base, y->n - y->base, by);
    y->base += by;
    return true;
}

void lsi_packed_close(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t end, size_t n)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    const struct lsi_kv_view kv = lsi_packed_codes(s, layer);
    const size_t by = n * s->how.group;
    for (size_t slot = end; slot < lsi_round_up(y->nk, s->how.group); slot += s->how.group) {
        const uint32_t from = (uint32_t)slot, to = (uint32_t)(slot - by);
        for (size_t g = 0; g < kv.G; g++)
            lsi_op_kv_move(ex, &kv, g, &to, &from, 1);
    }
    y->n -= by;
    y->nk -= by;
    y->nv -= by;
    y->base -= by;
}

/* ---- attention ---------------------------------------------------------------------------------- */

/* The rows over a part of the slots; false: the first row sees none of them. */
static bool attend_part(struct lsi_exec *ex, const struct lsi_attention *part, float *out, size_t ldo,
                        float *lse)
{
    struct lsi_attention a = *part;
    const size_t end = a.slot0 + 1, from = a.window && end > a.window ? end - a.window : 0;
    if (lsi_max_size(from, a.s0) >= a.end && a.end > 0)
        return false;
    a.out = out;
    a.ldo = ldo;
    a.lse = lse;
    lsi_op_attention(ex, &a);
    return true;
}

void lsi_packed_attend(struct lsi_packed *s, struct lsi_exec *ex, size_t layer,
                       const struct lsi_cache_query *q, const struct lsi_packed_sight *sight, float *lse)
{
    const struct lsi_packed_layer *y = &s->layers[layer];
    const size_t H = s->shape.H, D = s->shape.D, ld = H * D, sinks = s->how.sinks, T = sight->n_rows;
    const size_t slot = y->n + sight->row, from = lsi_max_size(sight->from, sinks);
    const size_t seen = sight->window > 0 ? above(slot + 1, sight->window) : 0;
    const bool old = y->nv > lsi_max_size(from, seen); /* some that the first row sees are quantised */
    float *out = q->out + sight->row * q->ldo;
    struct lsi_attention a = { .q = q->q + sight->row * q->ldq, .ldq = q->ldq, .T = T, .H = H };
    bool part[2] = { false, false };

    a.window = sight->window;
    a.scale = q->scale;
    /* The output may lie where the query does: it is written last. */
    if (old && sight->chosen) {
        struct lsi_attention_slots chosen = *sight->chosen;
        chosen.out = s->part[0];
        chosen.lse = s->lse[0];
        lsi_op_attention_slots(ex, &chosen);
        part[0] = true;
    } else if (old) {
        a.kv = lsi_packed_codes(s, layer);
        a.slot0 = slot - y->first;
        a.s0 = above(from, y->first);
        a.end = y->nv - y->first;
        a.seen = sight->seen;
        a.ld_seen = sight->ld_seen;
        part[0] = attend_part(ex, &a, s->part[0], ld, s->lse[0]);
        a.seen = NULL;
    }
    a.kv = lsi_packed_tail(s, layer);
    const bool apart = sinks > 0 && sight->sinks && (old || y->base > 0 || sight->from > 0);
    if (apart) {
        a.slot0 = slot;
        a.s0 = 0;
        a.end = sinks;
        part[1] = attend_part(ex, &a, s->part[1], ld, s->lse[1]);
    }
    lse = lse ? lse : s->out_lse;
    a.slot0 = slot - y->base;
    a.s0 = old ? y->nv - y->base : apart ? above(from, y->base) : above(sight->from, y->base);
    a.end = 0;
    attend_part(ex, &a, out, q->ldo, lse);
    for (size_t i = 0; i < LSI_LEN(part); i++)
        if (part[i])
            lsi_op_attention_merge(ex, out, q->ldo, lse, s->part[i], ld, s->lse[i], T, H, D);
}

void lsi_packed_sums(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                     const float *lse, float *sums, size_t ld)
{
    const struct lsi_packed_layer *y = &s->layers[layer];
    const size_t sinks = s->how.sinks;
    const bool old = y->nv > sinks;
    struct lsi_attention a = { .q = q->q, .ldq = q->ldq, .lse = (float *)lse, .T = q->T, .H = s->shape.H };

    a.window = q->window;
    a.scale = q->scale;
    if (old) {
        a.kv = lsi_packed_codes(s, layer);
        a.slot0 = y->n;
        a.s0 = sinks;
        a.end = y->nv;
        lsi_op_attention_sums(ex, &a, sums, ld);
    }
    a.kv = lsi_packed_tail(s, layer);
    if (old && sinks > 0) {
        a.s0 = 0;
        a.end = sinks;
        lsi_op_attention_sums(ex, &a, sums, ld);
    }
    a.slot0 = y->n - y->base;
    a.s0 = old ? y->nv - y->base : 0;
    a.end = 0;
    lsi_op_attention_sums(ex, &a, sums + y->base, ld);
}

/* ---- the rest ----------------------------------------------------------------------------------- */

size_t lsi_packed_least_of(const struct lsi_packed *s, size_t layer)
{
    const struct lsi_packed_layer *y = &s->layers[layer];
    size_t least = y->nk;
    if (y->base > 0)
        least = lsi_max_size(least, y->base + s->how.sinks + s->how.R);
    if (y->first > 0)
        least = lsi_max_size(least, y->first + s->how.window);
    return least;
}

size_t lsi_packed_least(const struct lsi_packed *s)
{
    size_t least = 0;
    for (size_t l = 0; l < s->shape.L; l++)
        least = lsi_max_size(least, lsi_packed_least_of(s, l));
    return least;
}

void lsi_packed_cut_layer(struct lsi_packed *s, size_t layer, size_t n)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    if (n == 0)
        *y = (struct lsi_packed_layer){ 0 };
    y->n = n;
    y->nv = lsi_min_size(y->nv, n_values(n, s->how.R));
    const size_t tail = lsi_max_size(tail_pages(&s->how, n), lsi_div_up(n - y->base, LSI_KV_PAGE));
    lsi_kv_pages_cut(&s->codes[layer], lsi_min_size(codes_need(s, layer, 0), s->codes[layer].n));
    lsi_kv_pages_cut(&s->tail[layer], lsi_min_size(tail, s->tail[layer].n));
}

void lsi_packed_cut(struct lsi_packed *s, size_t n)
{
    s->start = SIZE_MAX;
    for (size_t l = 0; l < s->shape.L; l++)
        lsi_packed_cut_layer(s, l, n);
}

ls_status lsi_packed_tile_layer(struct lsi_packed *s, size_t layer, size_t n, ls_error *err)
{
    struct lsi_packed_layer *y = &s->layers[layer];
    struct lsi_kv_pages *t = &s->codes[layer];
    const size_t full = page_of(y->nv) - page_of(y->first), whole = full > 0 ? full : t->n;
    s->limit = 0;
    const size_t need = codes_need(s, layer, n - y->n);
    const struct lsi_packed_layer then = { .nk = lsi_max_size(y->nk, oldest(s, n)) };
    if (!lsi_kv_pages_grow(t, 1, need) || !lsi_kv_pages_own(t, whole, t->n))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a KV cache of %zu tokens", n);
    for (size_t i = whole; whole > 0 && i < t->n; i++)
        memcpy(t->page[i], t->page[i % whole], lsi_kv_pages_bytes(t));
    y->base += n - y->n;
    y->nv = lsi_max_size(n_values(n, s->how.R), y->base + s->how.sinks); /* the tail may be short */
    y->nk = lsi_max_size(n_keys(&then, n, s->how.R), lsi_round_up(y->nv, s->how.group));
    y->n = n;
    y->first = page_of(oldest(s, n)) * LSI_KV_PAGE;
    return LS_OK;
}

ls_status lsi_packed_tile(struct lsi_packed *s, size_t n, ls_error *err)
{
    if (!grow(s, s->codes, LSI_PACKED_STEP, n - s->layers[0].n))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a KV cache of %zu tokens", n);
    for (size_t l = 0; l < s->shape.L; l++)
        LSI_TRY(lsi_packed_tile_layer(s, l, n, err));
    return LS_OK;
}

/* What was read is in order, and pages are forgotten and sinks are apart only where that happens. */
static bool plausible(const struct lsi_packed *s, const struct lsi_packed_layer *y)
{
    const size_t R = s->how.R;
    if ((y->first > 0 && s->how.window == 0) ||
        (y->base > 0 && (y->base > y->nv || y->nv - y->base < s->how.sinks)))
        return false;
    return y->nk <= y->n && y->n - y->nk <= R && y->nk % s->how.group == 0 && y->nv <= n_values(y->n, R) &&
           y->nv <= y->nk && y->first <= y->nv && y->first % LSI_KV_PAGE == 0;
}

ls_status lsi_packed_state(struct lsi_packed *s, size_t most, struct lsi_cache_io *io, ls_error *err)
{
    for (size_t l = 0; l < s->shape.L; l++) {
        struct lsi_packed_layer *y = &s->layers[l];
        LSI_TRY(io->bytes(io, y, sizeof *y, err));
        if (io->reading && (y->n > most || !plausible(s, y))) {
            *y = (struct lsi_packed_layer){ 0 };
            return lsi_cache_damaged(io, err);
        }
        LSI_TRY(io->pages(io, &s->codes[l], lsi_div_up(y->nk - y->first, LSI_KV_PAGE), err));
        LSI_TRY(io->pages(io, &s->tail[l], lsi_div_up(y->n - y->base, LSI_KV_PAGE), err));
    }
    return LS_OK;
}

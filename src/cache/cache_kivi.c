/*
 * KIVI: old keys quantised for each dimension, old values for each token, in few bits (kernels/kivi.h); the
 * last tokens exact.
 *
 * Keys and values have tails of their own. With n tokens, R = residual:
 *
 *     keys      | quantised: R floor(n / R)                  | exact: 0 .. R - 1 |
 *     values    | quantised: n - R           | exact: R                          |
 *
 * so keys are always ahead. Two stores hold this. Packed pages have slots 0 .. nv - 1 for attention, and the
 * keys of slots nv .. nk - 1 in addition. The tail, exact pages, has all slots from nv on; the keys of its
 * slots below nk are what their codes stand for, rounded to the tail's precision. A query goes over both, and
 * the results are merged.
 *
 *     token     0                nv          nk        n
 *     packed    | K V            | K         |
 *     tail                       | K^ V      | K V     |        slot of the tail = token - base
 *
 * The tail stays in as many pages as R takes: when they are full, what is needed moves to their start. The
 * first `sinks` tokens stay there for good, in slots 0 .. sinks - 1.
 *
 * A prompt attends to its own keys and values exactly, so all of them are in the tail until the prompt is
 * settled; what came before it, it sees as it is stored. Quantising follows the attention of a step of
 * decoding: it is done when the next rows are appended.
 */
#include "cache/cache.h"
#include "cache/kv_pages.h"

#include <string.h>

enum {
    BITS,
    BITS_V,
    GROUP,
    RESIDUAL,
    SINKS,
    N_KEYS
};

static const struct lsi_cache_key keys[N_KEYS] = {
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
                .high = 32 },
};

struct layer {
    size_t nk, nv; /* tokens whose keys, values are quantised */
    size_t base;   /* token of slot 0 of the tail, but for sinks */
};

struct cache_kivi {
    struct lsi_cache base;
    size_t R, sinks;
    enum lsi_kv_format packed_format;
    struct lsi_page_pool *packed_pool, *tail_pool;
    struct lsi_kv_pages *packed, *tail; /* [L] each */
    struct layer *layers;               /* [L] */
    size_t settled; /* tokens before the prompt that is being appended; == length: none is */
    float *part[2]; /* [rows][H*D] results over a part of the tokens */
    float *lse[2];  /* [rows][H] */
    float *out_lse; /* [rows][H] */
    size_t rows;    /* that the five above have room for */
};

static struct cache_kivi *kivi(struct lsi_cache *c)
{
    return (struct cache_kivi *)c;
}

/* ---- sizes ------------------------------------------------------------------------------- */

static enum lsi_kv_format packed_format(const struct lsi_cache_spec *spec)
{
    const unsigned bits = 2u << spec->value[BITS].n;
    const unsigned bits_v = spec->value[BITS_V].n == 0 ? bits : 1u << spec->value[BITS_V].n;
    return lsi_kv_kivi(bits, bits_v, 32u << spec->value[GROUP].n);
}

static size_t residual(const struct lsi_cache_spec *spec)
{
    return (size_t)spec->value[RESIDUAL].n;
}

static size_t n_sinks(const struct lsi_cache_spec *spec)
{
    return (size_t)spec->value[SINKS].n;
}

/* Tokens quantised of n. */
static size_t n_keys(size_t n, size_t R)
{
    return n / R * R;
}

static size_t n_values(size_t n, size_t R)
{
    return n > R ? n - R : 0;
}

static size_t packed_pages(size_t n, size_t R)
{
    return lsi_div_up(n_keys(n, R), LSI_KV_PAGE);
}

/* Pages of the tail with n settled tokens. */
static size_t tail_pages(size_t n, size_t R, size_t sinks)
{
    return lsi_div_up(lsi_min_size(n, sinks + R + 1), LSI_KV_PAGE);
}

static size_t bytes_of(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t packed,
                       size_t tail)
{
    size_t a, b, sum;
    if (!lsi_mul_size(packed, shape->L * lsi_kv_page_bytes(packed_format(spec), shape->G, shape->D), &a) ||
        !lsi_mul_size(tail, shape->L * lsi_kv_page_bytes(spec->format, shape->G, shape->D), &b) ||
        !lsi_add_size(a, b, &sum))
        return SIZE_MAX;
    return sum;
}

static size_t plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens)
{
    const size_t R = residual(spec);
    return bytes_of(shape, spec, packed_pages(n_tokens, R), tail_pages(n_tokens, R, n_sinks(spec)));
}

static size_t plan_prompt(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt)
{
    const size_t R = residual(spec), before = lsi_min_size(n_tokens - n_prompt, R + n_sinks(spec));
    return bytes_of(shape, spec, packed_pages(n_tokens, R), lsi_div_up(before + n_prompt, LSI_KV_PAGE));
}

static size_t scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *shape,
                      const struct lsi_cache_spec *spec)
{
    (void)spec;
    return lsi_op_kv_pack_scratch(ex, shape->D);
}

static ls_status check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err)
{
    const size_t group = (size_t)32 << spec->value[GROUP].n, R = residual(spec);
    (void)shape;
    if (R % group != 0)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv kivi: residual=%zu is no multiple of group=%zu: take residual=%zu", R, group,
                        lsi_round_up(R, group));
    if (spec->format != LSI_KV_BF16 && spec->format != LSI_KV_F32)
        return lsi_fail(err, LS_E_INVAL,
                        "--kv kivi keeps its last tokens in bf16 or fp32: take one of these instead of q8");
    return LS_OK;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void free_parts(struct cache_kivi *c)
{
    const size_t lse = c->rows * c->base.shape.H * sizeof(float), out = lse * c->base.shape.D;
    for (size_t i = 0; i < LSI_LEN(c->part); i++) {
        lsi_free(c->base.alloc, c->part[i], out);
        lsi_free(c->base.alloc, c->lse[i], lse);
        c->part[i] = c->lse[i] = NULL;
    }
    lsi_free(c->base.alloc, c->out_lse, lse);
    c->out_lse = NULL;
    c->rows = 0;
}

static bool make_parts(struct cache_kivi *c, size_t rows)
{
    const struct lsi_cache_shape *s = &c->base.shape;
    size_t lse, out;
    if (rows <= c->rows)
        return true;
    free_parts(c);
    if (!lsi_mul_size(rows, s->H * sizeof(float), &lse) || !lsi_mul_size(lse, s->D, &out))
        return false;
    c->rows = rows;
    for (size_t i = 0; i < LSI_LEN(c->part); i++) {
        c->part[i] = lsi_alloc(c->base.alloc, out);
        c->lse[i] = lsi_alloc(c->base.alloc, lse);
    }
    c->out_lse = lsi_alloc(c->base.alloc, lse);
    if (c->part[0] && c->part[1] && c->lse[0] && c->lse[1] && c->out_lse)
        return true;
    free_parts(c);
    return false;
}

static void free_kivi(struct lsi_cache *cache)
{
    struct cache_kivi *c = kivi(cache);
    if (!c)
        return;
    const size_t L = cache->shape.L;
    for (size_t l = 0; c->layers && l < L; l++) {
        lsi_kv_pages_cut(&c->packed[l], 0);
        lsi_kv_pages_cut(&c->tail[l], 0);
    }
    lsi_free(cache->alloc, c->packed, L * sizeof *c->packed);
    lsi_free(cache->alloc, c->tail, L * sizeof *c->tail);
    lsi_free(cache->alloc, c->layers, L * sizeof *c->layers);
    free_parts(c);
    lsi_page_pool_unref(c->packed_pool);
    lsi_page_pool_unref(c->tail_pool);
    lsi_free(cache->alloc, c, sizeof *c);
}

/* An empty cache over two pools (a reference of each becomes the cache's), or NULL. */
static struct cache_kivi *make(const struct lsi_cache *like, struct lsi_page_pool *packed,
                               struct lsi_page_pool *tail)
{
    struct cache_kivi *c = lsi_calloc(like->alloc, 1, sizeof *c);
    if (!c) {
        lsi_page_pool_unref(packed);
        lsi_page_pool_unref(tail);
        return NULL;
    }
    c->base = *like;
    c->base.length = 0;
    c->R = residual(&like->spec);
    c->sinks = n_sinks(&like->spec);
    c->packed_format = packed_format(&like->spec);
    c->packed_pool = packed;
    c->tail_pool = tail;
    c->packed = lsi_calloc(like->alloc, like->shape.L, sizeof *c->packed);
    c->tail = lsi_calloc(like->alloc, like->shape.L, sizeof *c->tail);
    /* Last: where there are layers there are tables. */
    c->layers = c->packed && c->tail ? lsi_calloc(like->alloc, like->shape.L, sizeof *c->layers) : NULL;
    if (!c->layers) {
        free_kivi(&c->base);
        return NULL;
    }
    for (size_t l = 0; l < like->shape.L; l++) {
        lsi_kv_pages_init(&c->packed[l], packed);
        lsi_kv_pages_init(&c->tail[l], tail);
    }
    return c;
}

static ls_status create(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err)
{
    const struct lsi_cache like = {
        .policy = &lsi_cache_kivi, .shape = *shape, .spec = *spec, .alloc = alloc
    };
    struct lsi_page_pool *packed, *tail;
    LSI_TRY(check(spec, shape, err));
    LSI_TRY(lsi_page_pool_create(&packed, lsi_kv_page_bytes(packed_format(spec), shape->G, shape->D),
                                 shape->L, alloc, err));
    const ls_status st = lsi_page_pool_create(&tail, lsi_kv_page_bytes(spec->format, shape->G, shape->D),
                                              shape->L, alloc, err);
    if (st != LS_OK) {
        lsi_page_pool_unref(packed);
        return st;
    }
    struct cache_kivi *c = make(&like, packed, tail);
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    *cache = &c->base;
    return LS_OK;
}

static bool has_prompt(const struct cache_kivi *c)
{
    return c->settled < c->base.length;
}

/* Whether n_rows more rows are a step of decoding. */
static bool is_step(const struct cache_kivi *c, size_t n_rows)
{
    return n_rows == 1 && c->base.n_prompt <= 1 && !has_prompt(c);
}

/* Layers differ after a block that was cancelled between them: some have moved their tails. */
static size_t least_base(const struct cache_kivi *c)
{
    size_t least = SIZE_MAX;
    for (size_t l = 0; l < c->base.shape.L; l++)
        least = lsi_min_size(least, c->layers[l].base);
    return least;
}

/* Pages of the tail that n_rows more rows take. */
static size_t tail_need(const struct cache_kivi *c, size_t n_rows)
{
    const size_t n = c->base.length;
    if (has_prompt(c))
        return lsi_div_up(n - least_base(c) + n_rows, LSI_KV_PAGE);
    if (is_step(c, n_rows))
        return tail_pages(n + 1, c->R, c->sinks);
    return lsi_div_up(lsi_min_size(n, c->sinks + c->R) + n_rows, LSI_KV_PAGE);
}

static ls_status reserve(struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    struct cache_kivi *c = kivi(cache);
    size_t n_tokens;
    if (!lsi_add_size(cache->length, n_rows, &n_tokens) || n_tokens > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", cache->length + n_rows,
                        cache->shape.n_ctx);
    const size_t packed = packed_pages(n_tokens, c->R), tail = tail_need(c, n_rows);
    const size_t L = cache->shape.L;
    bool ok = make_parts(c, n_rows) && lsi_kv_pages_grow(c->packed, L, packed) &&
              lsi_kv_pages_grow(c->tail, L, tail);
    for (size_t l = 0; ok && l < L; l++)
        ok = lsi_kv_pages_own(&c->packed[l], c->layers[l].nv / LSI_KV_PAGE, c->packed[l].n) &&
             lsi_kv_pages_own(&c->tail[l], 0, c->tail[l].n);
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of %zu tokens (%zu MiB)", n_tokens,
                        bytes_of(&cache->shape, &cache->spec, packed, tail) >> 20);
    return LS_OK;
}

/* ---- quantising ------------------------------------------------------------------------------ */

static struct lsi_kv_view packed_view(const struct cache_kivi *c, size_t layer)
{
    return (struct lsi_kv_view){
        .format = c->packed_format, .G = c->base.shape.G, .D = c->base.shape.D, .pages = c->packed[layer].page
    };
}

static struct lsi_kv_view tail_view(const struct cache_kivi *c, size_t layer)
{
    return (struct lsi_kv_view){ .format = c->base.spec.format,
                                 .G = c->base.shape.G,
                                 .D = c->base.shape.D,
                                 .pages = c->tail[layer].page };
}

/* What the committed tokens leave to be quantised. */
static void quantise(struct cache_kivi *c, struct lsi_exec *ex, size_t layer)
{
    struct layer *y = &c->layers[layer];
    const size_t n = c->base.length, nk = n_keys(n, c->R), nv = n_values(n, c->R);
    const struct lsi_kv_pack p = {
        .from = tail_view(c, layer),
        .to = packed_view(c, layer),
        .base = y->base,
        .k_begin = y->nk,
        .k_end = nk,
        .v_begin = lsi_max_size(y->nv, lsi_min_size(nv, c->sinks)),
        .v_end = nv,
        /* Values that are quantised again after going back meet keys as far back as the tail reaches. */
        .back = nv > LSI_KV_PAGE ? nv - LSI_KV_PAGE : 0,
        .skip = c->sinks,
    };
    lsi_op_kv_pack(ex, &p);
    y->nk = nk;
    y->nv = nv;
}

/* Slots of the tail move down by `by`, those of the sinks excepted: first .. n - 1. */
static void move_tail(const struct cache_kivi *c, struct lsi_exec *ex, size_t layer, size_t first, size_t n,
                      size_t by)
{
    enum {
        AT_ONCE = 256
    };
    const struct lsi_kv_view kv = tail_view(c, layer);
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

/* Room for n_rows more rows in `slots` slots of the tail: what is quantised goes, as far as that is needed.
 */
static void make_room(struct cache_kivi *c, struct lsi_exec *ex, size_t layer, size_t n_rows, size_t slots)
{
    struct layer *y = &c->layers[layer];
    const size_t n = c->base.length, least = c->sinks + (n - y->nv) + n_rows;
    if (n - y->base + n_rows <= slots)
        return;
    LSI_ASSERT(least <= slots);
    /* Half of the spare room keeps quantised tokens, for those who want to go back. */
    const size_t spare = (slots - least) / 2;
    const size_t first = lsi_max_size(y->base + c->sinks, y->nv > spare ? y->nv - spare : 0);
    const size_t by = first - c->sinks - y->base;
    move_tail(c, ex, layer, first - y->base, n - y->base, by);
    y->base += by;
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    struct cache_kivi *c = kivi(cache);
    if (!has_prompt(c)) {
        quantise(c, ex, layer);
        make_room(c, ex, layer, n_rows, c->tail[layer].n * LSI_KV_PAGE);
    }
    const struct lsi_kv_view kv = tail_view(c, layer);
    lsi_op_kv_store(ex, &kv, cache->length - c->layers[layer].base, k, ldk, v, ldv, n_rows);
}

static void commit(struct lsi_cache *cache, size_t n_rows)
{
    struct cache_kivi *c = kivi(cache);
    if (is_step(c, n_rows))
        c->settled++;
    cache->length += n_rows;
}

static void settle(struct lsi_cache *cache, struct lsi_exec *ex)
{
    struct cache_kivi *c = kivi(cache);
    const size_t pages = tail_pages(cache->length, c->R, c->sinks);
    for (size_t l = 0; l < cache->shape.L; l++) {
        quantise(c, ex, l);
        make_room(c, ex, l, 0, pages * LSI_KV_PAGE);
        lsi_kv_pages_cut(&c->tail[l], lsi_min_size(pages, c->tail[l].n));
    }
    lsi_page_pool_trim(c->tail_pool);
    c->settled = cache->length;
}

/* ---- attention ---------------------------------------------------------------------------------- */

/* The query over a part of the tokens; false: its first row sees none of them. */
static bool attend_part(struct lsi_exec *ex, const struct lsi_cache_query *q,
                        const struct lsi_attention *part, float *out, size_t ldo, float *lse)
{
    struct lsi_attention a = *part;
    const size_t end = a.slot0 + 1, from = q->window && end > q->window ? end - q->window : 0;
    if (lsi_max_size(from, a.s0) >= a.end && a.end > 0)
        return false;
    a.q = q->q;
    a.ldq = q->ldq;
    a.out = out;
    a.ldo = ldo;
    a.lse = lse;
    a.T = q->T;
    a.window = q->window;
    a.scale = q->scale;
    lsi_op_attention(ex, &a);
    return true;
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    struct cache_kivi *c = kivi(cache);
    const struct layer *y = &c->layers[layer];
    const size_t n = cache->length, H = cache->shape.H, D = cache->shape.D, ld = H * D;
    const bool old = y->nv > c->sinks; /* some are quantised */
    const struct lsi_attention packed = {
        .H = H, .slot0 = n, .s0 = c->sinks, .end = y->nv, .kv = packed_view(c, layer)
    };
    const struct lsi_attention sinks = { .H = H, .slot0 = n, .end = c->sinks, .kv = tail_view(c, layer) };
    const struct lsi_attention tail = {
        .H = H, .slot0 = n - y->base, .s0 = old ? y->nv - y->base : 0, .kv = tail_view(c, layer)
    };
    bool part[2] = { false, false };

    /* The output may lie where the query does: it is written last. */
    if (old)
        part[0] = attend_part(ex, q, &packed, c->part[0], ld, c->lse[0]);
    if (old && c->sinks > 0)
        part[1] = attend_part(ex, q, &sinks, c->part[1], ld, c->lse[1]);
    float *lse = q->lse ? q->lse : c->out_lse;
    attend_part(ex, q, &tail, q->out, q->ldo, lse);
    for (size_t i = 0; i < LSI_LEN(part); i++)
        if (part[i])
            lsi_op_attention_merge(ex, q->out, q->ldo, lse, c->part[i], ld, c->lse[i], q->T, H, D);
}

/* ---- the rest ----------------------------------------------------------------------------------- */

/* The least length to go back to: behind the last quantised key, with exact values before it. */
static size_t least_length(const struct cache_kivi *c)
{
    size_t least = 0;
    for (size_t l = 0; l < c->base.shape.L; l++) {
        const struct layer *y = &c->layers[l];
        least = lsi_max_size(least, y->nk);
        if (y->base > 0)
            least = lsi_max_size(least, y->base + c->sinks + c->R);
    }
    return least;
}

static ls_status rewind_kivi(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_kivi *c = kivi(cache);
    if (n_tokens > cache->length)
        return lsi_fail(err, LS_E_INVAL, "cannot rewind to %zu tokens: the cache holds %zu", n_tokens,
                        cache->length);
    if (n_tokens > 0 && n_tokens < least_length(c))
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "cannot rewind to %zu tokens: the keys or values before them are quantised; to %zu or "
            "more, or to 0",
            n_tokens, least_length(c));
    cache->length = n_tokens;
    c->settled = lsi_min_size(c->settled, n_tokens);
    for (size_t l = 0; l < cache->shape.L; l++) {
        struct layer *y = &c->layers[l];
        if (n_tokens == 0)
            y->nk = y->base = 0;
        y->nv = lsi_min_size(y->nv, n_values(n_tokens, c->R));
    }
    const size_t tail =
        lsi_max_size(tail_pages(n_tokens, c->R, c->sinks), lsi_div_up(n_tokens - least_base(c), LSI_KV_PAGE));
    for (size_t l = 0; l < cache->shape.L; l++) {
        lsi_kv_pages_cut(&c->packed[l], lsi_min_size(packed_pages(n_tokens, c->R), c->packed[l].n));
        lsi_kv_pages_cut(&c->tail[l], lsi_min_size(tail, c->tail[l].n));
    }
    return LS_OK;
}

static size_t bytes(const struct lsi_cache *cache)
{
    const struct cache_kivi *c = (const struct cache_kivi *)cache;
    return lsi_page_pool_bytes(c->packed_pool) + lsi_page_pool_bytes(c->tail_pool);
}

static ls_status tile(struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    struct cache_kivi *c = kivi(cache);
    const size_t whole = c->layers[0].nv / LSI_KV_PAGE; /* packed pages to repeat */
    if (n_tokens <= cache->length)
        return rewind_kivi(cache, n_tokens, err);
    if (whole == 0)
        return lsi_fail(err, LS_E_INVAL,
                        "repeating a kivi cache takes at least %zu tokens in it, it holds %zu",
                        LSI_KV_PAGE + c->R, cache->length);
    if (n_tokens > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", n_tokens,
                        cache->shape.n_ctx);
    bool ok = lsi_kv_pages_grow(c->packed, cache->shape.L, packed_pages(n_tokens, c->R));
    for (size_t l = 0; ok && l < cache->shape.L; l++)
        ok = lsi_kv_pages_own(&c->packed[l], whole, c->packed[l].n);
    if (!ok)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a KV cache of %zu tokens", n_tokens);
    for (size_t l = 0; l < cache->shape.L; l++) {
        struct layer *y = &c->layers[l];
        void *const *page = c->packed[l].page;
        for (size_t i = whole; i < c->packed[l].n; i++)
            memcpy(page[i], page[i % whole], lsi_kv_pages_bytes(&c->packed[l]));
        y->base += n_tokens - cache->length;
        y->nk = n_keys(n_tokens, c->R);
        y->nv = n_values(n_tokens, c->R);
    }
    cache->length = c->settled = n_tokens;
    return LS_OK;
}

static ls_status fork_kivi(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err)
{
    const struct cache_kivi *from = (const struct cache_kivi *)cache;
    struct cache_kivi *c =
        make(cache, lsi_page_pool_ref(from->packed_pool), lsi_page_pool_ref(from->tail_pool));
    for (size_t l = 0; c && l < cache->shape.L; l++) {
        c->layers[l] = from->layers[l];
        if (lsi_kv_pages_share(&c->packed[l], &from->packed[l]) &&
            lsi_kv_pages_share(&c->tail[l], &from->tail[l]))
            continue;
        free_kivi(&c->base);
        c = NULL;
    }
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a copy of the KV cache");
    c->base.length = cache->length;
    c->settled = from->settled;
    *copy = &c->base;
    return LS_OK;
}

static bool plausible(const struct cache_kivi *c, const struct layer *y)
{
    const size_t n = c->base.length;
    return y->nk <= n_keys(n, c->R) && y->nk % c->R == 0 && y->nv <= n_values(n, c->R) && y->nv <= y->nk &&
           y->base <= y->nv && n_keys(n, c->R) - y->nk <= c->R;
}

/* Tables of equal length: a block that was cancelled has quantised in some layers what others have not. */
static bool level(struct lsi_kv_pages *t, size_t n_tables)
{
    size_t most = 0;
    for (size_t i = 0; i < n_tables; i++)
        most = lsi_max_size(most, t[i].n);
    for (size_t i = 0; i < n_tables; i++)
        if (!lsi_kv_pages_grow(&t[i], 1, most))
            return false;
    return true;
}

static ls_status state(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err)
{
    struct cache_kivi *c = kivi(cache);
    LSI_TRY(io->bytes(io, &cache->length, sizeof cache->length, err));
    if (cache->length > cache->shape.n_ctx)
        return lsi_fail(err, LS_E_LIMIT,
                        "the session holds %zu tokens, the context at most %zu: make it longer",
                        cache->length, cache->shape.n_ctx);
    c->settled = cache->length;
    for (size_t l = 0; l < cache->shape.L; l++) {
        struct layer *y = &c->layers[l];
        LSI_TRY(io->bytes(io, &y->nk, sizeof y->nk, err));
        LSI_TRY(io->bytes(io, &y->nv, sizeof y->nv, err));
        LSI_TRY(io->bytes(io, &y->base, sizeof y->base, err));
        if (!plausible(c, y))
            return lsi_cache_damaged(io, err);
        LSI_TRY(io->pages(io, &c->packed[l], lsi_div_up(y->nk, LSI_KV_PAGE), err));
        LSI_TRY(io->pages(io, &c->tail[l], lsi_div_up(cache->length - y->base, LSI_KV_PAGE), err));
    }
    if (io->reading && !(level(c->packed, cache->shape.L) && level(c->tail, cache->shape.L)))
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache of the session");
    return LS_OK;
}

static size_t kept(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos)
{
    (void)layer;
    (void)g;
    for (size_t i = 0; pos && i < cache->length; i++)
        pos[i] = (int64_t)i;
    return cache->length;
}

const struct lsi_cache_policy lsi_cache_kivi = {
    .name = "kivi",
    .example = "kivi:bits=2  keys and values in 2 bits",
    .summary = "old keys and values in 2, 4 or 8 bits, the last tokens exact",
    .keys = keys,
    .n_keys = N_KEYS,
    .lossy = true,
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
    .kept = kept,
};

#include "train/train_cache.h"

static struct lsi_train_cache *self(struct lsi_cache *c)
{
    return (struct lsi_train_cache *)c;
}

static struct lsi_kv_view view(const struct lsi_train_cache *c, size_t layer)
{
    return (struct lsi_kv_view){
        .format = c->base.spec.format,
        .G = c->base.shape.G,
        .D = c->base.shape.D,
        .pages = c->pages + (c->n_layers > 1 ? layer : 0) * c->n_pages,
    };
}

/* First token of the document of token i, and in *end the first of the next. */
static size_t document(const struct lsi_train_cache *c, size_t i, size_t *end)
{
    size_t lo = 0, hi = c->n_docs;
    if (!c->doc_start) {
        *end = SIZE_MAX;
        return 0;
    }
    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (c->doc_start[mid] <= i)
            lo = mid;
        else
            hi = mid;
    }
    *end = c->doc_start[lo + 1];
    return c->doc_start[lo];
}

static size_t positions(const struct lsi_cache *cache, size_t row, size_t n_rows, int64_t *pos0)
{
    size_t end;
    const size_t at = cache->length + row;
    const size_t begin = document((const struct lsi_train_cache *)cache, at, &end);
    *pos0 = (int64_t)(at - begin);
    return lsi_min_size(n_rows - row, end - at);
}

static void append(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows)
{
    const struct lsi_kv_view kv = view(self(cache), layer);
    lsi_op_kv_store(ex, &kv, cache->length, k, ldk, v, ldv, n_rows);
}

static void attend(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q)
{
    const size_t H = cache->shape.H;
    for (size_t row = 0, n; row < q->T; row += n) {
        size_t end;
        const size_t at = cache->length + row, begin = document(self(cache), at, &end);
        n = lsi_min_size(q->T - row, end - at);
        const struct lsi_attention a = {
            .q = q->q + row * q->ldq,
            .out = q->out + row * q->ldo,
            .lse = q->lse ? q->lse + row * H : NULL,
            .ldq = q->ldq,
            .ldo = q->ldo,
            .T = n,
            .H = H,
            .slot0 = at,
            .s0 = begin,
            .window = q->window,
            .scale = q->scale,
            .kv = view(self(cache), layer),
        };
        lsi_op_attention(ex, &a);
    }
}

static void attend_backward(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                            const struct lsi_cache_gradient *g)
{
    const size_t H = cache->shape.H;
    for (size_t row = 0, n; row < g->T; row += n) {
        size_t end;
        const size_t at = cache->length + row, begin = document(self(cache), at, &end);
        n = lsi_min_size(g->T - row, end - at);
        const struct lsi_attention_backward a = {
            .q = g->q + row * g->ld,
            .out = g->out + row * g->ld,
            .dout = g->dout + row * g->ld,
            .lse = g->lse + row * H,
            .dq = g->dq + row * g->ld,
            .dk = g->dk,
            .dv = g->dv,
            .ldq = g->ld,
            .ldo = g->ld,
            .lddo = g->ld,
            .lddq = g->ld,
            .T = n,
            .H = H,
            .slot0 = at,
            .s0 = begin,
            .window = g->window,
            .scale = g->scale,
            .kv = view(self(cache), layer),
        };
        lsi_op_attention_backward(ex, &a);
    }
}

/* The slots it uses of the interface: memory belongs to the trainer's arena. */
static const struct lsi_cache_policy policy = {
    .name = "train",
    .append = append,
    .attend = attend,
    .attend_backward = attend_backward,
    .positions = positions,
};

void lsi_train_cache_layout(struct lsi_train_cache *c, struct lsi_arena *arena,
                            const struct lsi_cache_shape *shape, enum lsi_kv_format format)
{
    *c = (struct lsi_train_cache){ .n_layers = shape->L, .n_pages = lsi_div_up(shape->n_ctx, LSI_KV_PAGE) };
    c->base = (struct lsi_cache){ .policy = &policy, .shape = *shape, .spec = { .format = format } };
    const size_t bytes = lsi_kv_page_bytes(format, shape->G, shape->D), n = c->n_layers * c->n_pages;
    c->pages = lsi_arena_take(arena, n, sizeof *c->pages);
    char *all = lsi_arena_take(arena, n, bytes);
    for (size_t i = 0; c->pages && all && i < n; i++)
        c->pages[i] = all + i * bytes;
}

void lsi_train_cache_begin(struct lsi_train_cache *c, const ls_train_sequence *seq)
{
    c->base.length = 0;
    c->doc_start = seq->doc_start;
    c->n_docs = seq->doc_start ? seq->n_docs : 0;
}

/* What tokens attend to: probabilities of a full cache, rows at a time, what a policy keeps and what it
 * reads. */
#include "decode/context_impl.h"

#include <math.h>

#define MATRIX_BYTES ((size_t)16 << 20) /* of probabilities held together */

struct watch {
    struct lsi_cache_watch base;
    ls_attention_fn *fn;
    void *user;
    size_t layer; /* SIZE_MAX: all */
    size_t begin; /* length before the call */
    size_t rows;  /* at a time */
    size_t ld;
    float *scores; /* [rows][H][ld], backend memory */
    float *p;      /* the same on the host */
};

/* Scores of the first n tokens become probabilities, the rest of the row 0. */
static void softmax(float *x, size_t n, size_t ld)
{
    float most = -INFINITY;
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        most = fmaxf(most, x[j]);
    for (size_t j = 0; j < n; j++) {
        x[j] = expf(x[j] - most);
        sum += (double)x[j];
    }
    for (size_t j = 0; j < n; j++)
        x[j] = (float)((double)x[j] / sum);
    for (size_t j = n; j < ld; j++)
        x[j] = 0;
}

static void see(struct lsi_cache_watch *base, struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                const struct lsi_cache_query *q)
{
    const struct watch *w = (const struct watch *)base;
    const size_t H = cache->shape.H;
    if (w->layer != SIZE_MAX && w->layer != layer)
        return;
    for (size_t row = 0, n; row < q->T; row += n) {
        n = lsi_min_size(w->rows, q->T - row);
        cache->policy->scores(cache, ex, layer, q, row, n, w->scores, w->ld);
        lsi_exec_read(ex, w->p, w->scores, n * H * w->ld * sizeof *w->p);
        for (size_t r = 0; r < n * H; r++)
            softmax(w->p + r * w->ld, cache->length + row + r / H + 1, w->ld);
        w->fn(w->user, layer, cache->length - w->begin + row, n, w->p, w->ld);
    }
}

/* The scratch of scores may be more than what attention takes. */
static ls_status need_scratch(ls_context *ctx, size_t rows, ls_error *err)
{
    const struct lsi_cache_shape *s = &ctx->cache->shape;
    const size_t bytes = lsi_op_attention_scores_scratch(&ctx->exec, rows, s->H, s->G, s->D);
    return bytes <= ctx->exec.scratch.cap ? LS_OK : lsi_exec_set_scratch(&ctx->exec, bytes, err);
}

ls_status ls_context_append_attention(ls_context *ctx, const int32_t *tokens, size_t n_tokens, size_t layer,
                                      ls_attention_fn *fn, void *user, ls_error *err)
{
    const size_t H = ctx->cache->shape.H, length = ctx->cache->length;
    struct watch w = { .base = { see }, .fn = fn, .user = user, .layer = layer, .begin = length };
    size_t row_bytes;
    if (!ctx->cache->policy->scores)
        return lsi_fail(err, LS_E_UNSUPPORTED,
                        "the cache %s does not hold what attention is counted on: take full", ctx->kv);
    if (!lsi_add_size(length, n_tokens, &w.ld) || w.ld > ls_context_capacity(ctx) ||
        !lsi_mul_size(w.ld, H * sizeof(float), &row_bytes))
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit: the context holds %zu of at most %zu",
                        n_tokens, length, ls_context_capacity(ctx));
    w.rows = lsi_min_size(ctx->block, lsi_max_size(1, MATRIX_BYTES / lsi_max_size(1, row_bytes)));
    LSI_TRY(need_scratch(ctx, w.rows, err));
    w.scores = lsi_exec_alloc(&ctx->exec, w.rows * row_bytes);
    w.p = lsi_alloc(ctx->options.alloc, w.rows * row_bytes);
    ls_status st = w.scores && w.p
                       ? LS_OK
                       : lsi_fail(err, LS_E_NOMEM, "out of memory for %zu rows of attention", w.rows);
    if (st == LS_OK) {
        ctx->cache->watch = &w.base;
        st = lsi_context_run(ctx, tokens, n_tokens, err);
        ctx->cache->watch = NULL;
    }
    lsi_exec_free(&ctx->exec, w.scores, w.rows * row_bytes);
    lsi_free(ctx->options.alloc, w.p, w.rows * row_bytes);
    return st;
}

size_t ls_context_kept(const ls_context *ctx, size_t layer, size_t kv_head, int64_t *positions)
{
    return ctx->cache->policy->kept(ctx->cache, layer, kv_head, positions);
}

/* ---- what a step reads ------------------------------------------------------------------- */

struct read_watch {
    struct lsi_cache_watch base;
    ls_read_fn *fn;
    void *user;
    struct lsi_cache_reads to;
};

static void see_reads(struct lsi_cache_watch *base, struct lsi_cache *cache, struct lsi_exec *ex,
                      size_t layer, const struct lsi_cache_query *q)
{
    struct read_watch *w = (struct read_watch *)base;
    const size_t H = cache->shape.H, group = H / cache->shape.G;
    if (cache->policy->reads)
        cache->policy->reads(cache, ex, layer, q, &w->to);
    for (size_t h = 0; h < H; h++) {
        int64_t *pos = w->to.pos + h * w->to.ld;
        if (!cache->policy->reads) {
            w->to.n[h] = cache->policy->kept(cache, layer, h / group, pos);
            pos[w->to.n[h]++] = (int64_t)cache->length;
        }
        w->fn(w->user, layer, h, pos, w->to.n[h]);
    }
}

ls_status ls_context_append_reads(ls_context *ctx, int32_t token, ls_read_fn *fn, void *user, ls_error *err)
{
    const size_t H = ctx->cache->shape.H;
    struct read_watch w = {
        .base = { see_reads }, .fn = fn, .user = user, .to = { .ld = ctx->cache->length + 1 }
    };
    size_t n;
    w.to.n = lsi_calloc(ctx->options.alloc, H, sizeof *w.to.n);
    w.to.pos = lsi_mul_size(H, w.to.ld, &n) ? lsi_calloc(ctx->options.alloc, n, sizeof *w.to.pos) : NULL;
    ls_status st = w.to.n && w.to.pos
                       ? LS_OK
                       : lsi_fail(err, LS_E_NOMEM, "out of memory for what a step of decoding reads");
    if (st == LS_OK) {
        ctx->cache->watch = &w.base;
        st = lsi_context_run(ctx, &token, 1, err);
        ctx->cache->watch = NULL;
    }
    lsi_free(ctx->options.alloc, w.to.n, H * sizeof *w.to.n);
    lsi_free(ctx->options.alloc, w.to.pos, H * w.to.ld * sizeof *w.to.pos);
    return st;
}

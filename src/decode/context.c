/*
 * A context: cache, activations of one block of rows, scratch. Tokens are worked off
 * in blocks, each through all layers, so that nothing but the cache grows with them.
 */
#include "decode/context_impl.h"

#include <math.h>
#include <string.h>

#define DEFAULT_BLOCK   512
#define MAX_TOKENS      ((size_t)1 << 31)  /* angles of the rotary embedding are exact up to there */
#define LOGITS_BYTES    ((size_t)32 << 20) /* rows of logits worked on together when all are wanted */
#define LOGITS_MIN_ROWS 16

void ls_context_options_defaults(ls_context_options *o)
{
    *o = (ls_context_options){ .struct_size = sizeof *o };
}

/* A caller's options, perhaps of an older and shorter struct, over the defaults. */
static ls_context_options read_options(const ls_context_options *o)
{
    ls_context_options all;
    ls_context_options_defaults(&all);
    if (o)
        memcpy(&all, o, lsi_min_size(o->struct_size, sizeof all));
    return all;
}

/* What options and a model come to. */
struct settings {
    size_t n_ctx, block;
    struct lsi_cache_spec cache;
    struct lsi_cache_shape shape;
    enum lsi_compute compute;
};

static ls_status resolve(struct settings *s, const ls_model *m, const ls_context_options *o, ls_error *err)
{
    const struct lsi_config *c = &m->config;
    *s = (struct settings){ .n_ctx = o->n_ctx ? o->n_ctx : c->n_ctx_train };
    if (s->n_ctx == 0)
        return lsi_fail(err, LS_E_INVAL, "the model does not say its context length: give one");
    if (s->n_ctx > MAX_TOKENS)
        return lsi_fail(err, LS_E_INVAL, "a context of %zu tokens is too long: at most %zu", s->n_ctx,
                        MAX_TOKENS);
    switch (o->compute) {
    case LS_COMPUTE_AUTO:
        s->compute = LSI_COMPUTE_AUTO;
        break;
    case LS_COMPUTE_BF16:
        s->compute = LSI_COMPUTE_BF16;
        break;
    case LS_COMPUTE_FP32:
        s->compute = LSI_COMPUTE_FP32;
        break;
    default:
        return lsi_fail(err, LS_E_INVAL, "unknown compute mode %d", (int)o->compute);
    }
    LSI_TRY(lsi_cache_parse(&s->cache, o->kv, err));
    s->block = o->block ? o->block : DEFAULT_BLOCK;
    if (s->block > 65536)
        return lsi_fail(err, LS_E_INVAL, "a block of %zu rows is too large: at most 65536", s->block);
    s->block = lsi_min_size(s->block, s->n_ctx);
    s->shape = (struct lsi_cache_shape){ .L = c->L,
                                         .H = c->H,
                                         .G = c->G,
                                         .D = c->D,
                                         .n_ctx = s->n_ctx,
                                         .n_trained = c->n_ctx_train,
                                         .n_rows = s->block,
                                         .window = c->n_window_layers ? c->window : 0,
                                         .sliding = c->n_window_layers ? c->sliding : NULL };
    return lsi_cache_check(&s->cache, &s->shape, err);
}

/* Everything of a context that lies in its arena: laid out to count, then to use. */
static void layout(struct ls_context *ctx, struct lsi_arena *a, const struct lsi_config *c, size_t block)
{
    lsi_activations_layout(&ctx->act, a, c, block);
    ctx->logits = lsi_arena_take(a, c->V, sizeof(float));
}

static size_t scratch_bytes(const struct lsi_exec *ex, const struct lsi_config *c, const struct settings *s)
{
    const struct lsi_cache_policy *p = s->cache.policy;
    size_t most =
        lsi_max_size(lsi_block_scratch(ex, c, s->block), lsi_op_linear_scratch(ex, s->block, c->C, c->V));
    return p->scratch ? lsi_max_size(most, p->scratch(ex, &s->shape, &s->cache)) : most;
}

ls_status ls_context_plan(const ls_model *model, const ls_context_options *options,
                          ls_context_plan_info *plan, ls_error *err)
{
    const ls_context_options o = read_options(options);
    struct settings s;
    LSI_TRY(resolve(&s, model, &o, err));
    struct lsi_exec ex;
    lsi_exec_plan_cpu(&ex, o.n_threads, s.compute);
    struct ls_context tmp;
    struct lsi_arena count = { 0 };
    layout(&tmp, &count, &model->config, s.block);
    const ls_context_plan_info full = {
        .struct_size = plan->struct_size,
        .weights_bytes = model->weight_bytes,
        .cache_bytes =
            s.cache.policy->plan(&s.shape, &s.cache, s.cache.policy->endless ? MAX_TOKENS : s.n_ctx),
        .cache_bytes_per_token = s.cache.policy->plan(&s.shape, &s.cache, LSI_KV_PAGE) / LSI_KV_PAGE,
        .activation_bytes = count.used,
        .scratch_bytes = scratch_bytes(&ex, &model->config, &s),
    };
    memcpy(plan, &full, lsi_min_size(plan->struct_size, sizeof full));
    return LS_OK;
}

ls_status ls_context_create(ls_model *model, const ls_context_options *options, ls_context **out,
                            ls_error *err)
{
    const ls_context_options o = read_options(options);
    struct settings s;
    LSI_TRY(resolve(&s, model, &o, err));
    ls_context *ctx = lsi_calloc(o.alloc, 1, sizeof *ctx);
    if (!ctx)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a context");
    ctx->options = o;
    ctx->model = lsi_model_ref(model);
    ctx->block = s.block;
    lsi_cache_spec_name(&s.cache, ctx->kv, sizeof ctx->kv);
    memcpy(ctx->kv_now, ctx->kv, sizeof ctx->kv_now);
    ctx->options.kv = ctx->kv;

    const struct lsi_config *c = &model->config;
    struct lsi_arena count = { 0 };
    ls_status st;
    LSI_TRY_OR(fail, lsi_exec_init_cpu(&ctx->exec, o.n_threads, s.compute, o.alloc, err));
    LSI_TRY_OR(fail, lsi_exec_set_scratch(&ctx->exec, scratch_bytes(&ctx->exec, c, &s), err));
    LSI_TRY_OR(fail, s.cache.policy->create(&ctx->cache, &s.shape, &s.cache, o.alloc, err));
    layout(ctx, &count, c, s.block);
    if (!count.failed)
        ctx->arena.base = lsi_exec_alloc(&ctx->exec, count.used);
    if (!ctx->arena.base) {
        st = lsi_fail(err, LS_E_NOMEM, "out of memory for the activations of %zu rows (%zu MiB)", s.block,
                      count.used >> 20);
        goto fail;
    }
    ctx->arena.cap = count.used;
    layout(ctx, &ctx->arena, c, s.block);
    *out = ctx;
    return LS_OK;
fail:
    ls_context_free(ctx);
    return st;
}

void ls_context_free(ls_context *ctx)
{
    if (!ctx)
        return;
    const size_t all_bytes = ctx->logits_rows * ctx->model->config.V * sizeof(float);
    if (ctx->exec.backend) {
        lsi_exec_free(&ctx->exec, ctx->all_logits, all_bytes);
        lsi_exec_free(&ctx->exec, ctx->nll, ctx->logits_rows * sizeof(float));
        lsi_exec_free(&ctx->exec, ctx->arena.base, ctx->arena.cap);
    }
    lsi_free(ctx->options.alloc, ctx->host_logits, all_bytes);
    if (ctx->cache)
        ctx->cache->policy->free(ctx->cache);
    lsi_exec_fini(&ctx->exec);
    lsi_model_unref(ctx->model);
    lsi_free(ctx->options.alloc, ctx, sizeof *ctx);
}

size_t ls_context_length(const ls_context *ctx)
{
    return ctx->cache->length;
}

size_t ls_context_capacity(const ls_context *ctx)
{
    return ctx->cache->policy->endless ? MAX_TOKENS : ctx->cache->shape.n_ctx;
}

bool ls_context_endless(const ls_context *ctx)
{
    return ctx->cache->policy->endless;
}

size_t ls_context_n_vocab(const ls_context *ctx)
{
    return ctx->model->config.V;
}

size_t ls_context_cache_bytes(const ls_context *ctx)
{
    return ctx->cache->policy->bytes(ctx->cache);
}

const char *ls_context_kv(const ls_context *ctx)
{
    return ctx->kv_now;
}

void lsi_context_name_cache(ls_context *ctx)
{
    lsi_cache_spec_name(&ctx->cache->spec, ctx->kv_now, sizeof ctx->kv_now);
}

/* What is done with the rows of each block after the last layer; a->x holds them. */
typedef ls_status rows_fn(ls_context *ctx, void *user, size_t row0, size_t n_rows, ls_error *err);

static bool canceled(const ls_context *ctx)
{
    return ctx->options.cancel && *ctx->options.cancel;
}

/* One block of rows through all layers; committed on success. */
static ls_status forward_block(ls_context *ctx, const int32_t *tokens, size_t n_rows, ls_error *err)
{
    const ls_model *m = ctx->model;
    LSI_TRY(ctx->cache->policy->reserve(ctx->cache, n_rows, err));
    lsi_op_embed(&ctx->exec, ctx->act.x, &m->embed, tokens, n_rows, m->config.embed_scale);
    for (size_t l = 0; l < m->config.L; l++) {
        if (canceled(ctx))
            return lsi_fail(err, LS_E_CANCELED, "cancelled");
        lsi_block_forward(&ctx->exec, m, l, &ctx->act, n_rows, ctx->cache);
    }
    ctx->cache->policy->commit(ctx->cache, n_rows);
    return LS_OK;
}

/*
 * The cache takes memory as it is written; a system that has promised too much ends the process then. What is
 * held now may be less than a plan says, for a policy that has dropped tokens: only what is to come counts.
 */
static ls_status check_memory(const ls_context *ctx, size_t n_tokens, size_t n_prompt, ls_error *err)
{
    const struct lsi_cache *c = ctx->cache;
    const struct lsi_cache_policy *p = c->policy;
    const size_t now = p->plan(&c->shape, &c->spec, c->length);
    const size_t will = p->plan_prompt && n_prompt > 1
                            ? p->plan_prompt(&c->shape, &c->spec, n_tokens, n_prompt)
                            : p->plan(&c->shape, &c->spec, n_tokens);
    if (will <= now || will - now <= p->plan(&c->shape, &c->spec, LSI_KV_PAGE))
        return LS_OK; /* a step of decoding: asking the system would cost more than it */
    const size_t available = lsi_memory_available();
    if (available > 0 && will - now > available)
        return lsi_fail(err, LS_E_NOMEM,
                        "a context of %zu tokens needs %zu MiB more of KV cache and %zu MiB of memory are "
                        "free: take a smaller --kv or a shorter text",
                        n_tokens, (will - now) >> 20, available >> 20);
    return LS_OK;
}

static ls_status check_ids(const ls_context *ctx, const int32_t *tokens, size_t n_tokens, ls_error *err)
{
    const size_t V = ctx->model->config.V;
    for (size_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= V)
            return lsi_fail(err, LS_E_INVAL, "token %zu has id %d: the model has %zu", i, tokens[i], V);
    return LS_OK;
}

static ls_status check_tokens(const ls_context *ctx, const int32_t *tokens, size_t n_tokens, ls_error *err)
{
    LSI_TRY(check_ids(ctx, tokens, n_tokens, err));
    const size_t most = ls_context_capacity(ctx);
    if (n_tokens > most - ctx->cache->length)
        return lsi_fail(
            err, LS_E_LIMIT,
            "%zu tokens do not fit: the context holds %zu of at most %zu; make it longer or the text shorter",
            n_tokens, ctx->cache->length, most);
    return check_memory(ctx, ctx->cache->length + n_tokens, n_tokens, err);
}

static ls_status run(ls_context *ctx, const int32_t *tokens, size_t n_tokens, rows_fn *fn, void *user,
                     ls_error *err)
{
    LSI_TRY(check_tokens(ctx, tokens, n_tokens, err));
    struct lsi_cache *cache = ctx->cache;
    const size_t length = cache->length;
    const bool prompt = n_tokens > 1 || length == 0;
    cache->n_prompt = prompt ? n_tokens : 0;
    for (size_t done = 0; done < n_tokens;) {
        size_t rows = lsi_min_size(ctx->block, n_tokens - done);
        if (cache->policy->block_rows)
            rows = lsi_min_size(rows, cache->policy->block_rows(cache));
        ls_status st = forward_block(ctx, tokens + done, rows, err);
        if (st == LS_OK && fn)
            st = fn(ctx, user, done, rows, err);
        if (st != LS_OK) {
            /* A policy that cannot go back keeps the rows it has: the length says which. */
            (void)cache->policy->rewind(cache, length, NULL);
            return st;
        }
        done += rows;
        ctx->last_rows = rows;
        if (ctx->options.progress)
            ctx->options.progress(ctx->options.progress_user, done, n_tokens);
    }
    if (prompt && cache->policy->settle) {
        cache->policy->settle(cache, &ctx->exec);
        lsi_context_name_cache(ctx);
    }
    return LS_OK;
}

ls_status lsi_context_run(ls_context *ctx, const int32_t *tokens, size_t n_tokens, ls_error *err)
{
    return run(ctx, tokens, n_tokens, NULL, NULL, err);
}

/* Logits of rows row0 .. row0 + n_rows - 1 of the block, which are spent. */
static void head(ls_context *ctx, float *logits, size_t row0, size_t n_rows)
{
    const ls_model *m = ctx->model;
    const struct lsi_config *c = &m->config;
    float *x = ctx->act.x + row0 * c->C;
    lsi_op_rmsnorm(&ctx->exec, x, x, m->output_norm, n_rows, c->C, c->C, c->eps);
    const struct lsi_linear out = { .w = &m->output, .y = logits, .ldy = c->V };
    lsi_op_linear(&ctx->exec, &out, 1, x, n_rows, c->C);
}

static ls_status check_finite(const float *x, size_t n, ls_error *err)
{
    float sum = 0; /* NaN if any value is not finite: one pass that vectorises */
    for (size_t i = 0; i < n; i++)
        sum += x[i] * 0.0f;
    if (sum != 0.0f)
        return lsi_fail(err, LS_E_NUMERIC, "a logit is not finite: the weights or the input are damaged");
    return LS_OK;
}

ls_status ls_context_append(ls_context *ctx, const int32_t *tokens, size_t n_tokens, float *logits,
                            ls_error *err)
{
    if (n_tokens == 0)
        return lsi_fail(err, LS_E_INVAL, "no tokens to append");
    LSI_TRY(lsi_context_run(ctx, tokens, n_tokens, err));
    if (!logits)
        return LS_OK;
    const size_t V = ctx->model->config.V;
    head(ctx, ctx->logits, ctx->last_rows - 1, 1);
    lsi_exec_read(&ctx->exec, logits, ctx->logits, V * sizeof *logits);
    return check_finite(logits, V, err);
}

/* Memory for the logits of several rows. */
static ls_status want_all_logits(ls_context *ctx, ls_error *err)
{
    if (ctx->logits_rows)
        return LS_OK;
    const size_t row_bytes = ctx->model->config.V * sizeof(float);
    const size_t rows = lsi_min_size(ctx->block, lsi_max_size(LOGITS_MIN_ROWS, LOGITS_BYTES / row_bytes));
    ctx->all_logits = lsi_exec_alloc(&ctx->exec, rows * row_bytes);
    ctx->host_logits = lsi_alloc(ctx->options.alloc, rows * row_bytes);
    ctx->nll = lsi_exec_alloc(&ctx->exec, rows * sizeof(float));
    if (!ctx->all_logits || !ctx->host_logits || !ctx->nll) {
        lsi_exec_free(&ctx->exec, ctx->all_logits, rows * row_bytes);
        lsi_free(ctx->options.alloc, ctx->host_logits, rows * row_bytes);
        lsi_exec_free(&ctx->exec, ctx->nll, rows * sizeof(float));
        ctx->all_logits = ctx->host_logits = ctx->nll = NULL;
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu rows of logits", rows);
    }
    ctx->logits_rows = rows;
    return LS_OK;
}

struct all_logits {
    ls_logits_fn *fn;
    void *user;
};

static ls_status give_logits(ls_context *ctx, void *user, size_t row0, size_t n_rows, ls_error *err)
{
    const struct all_logits *a = user;
    const size_t V = ctx->model->config.V;
    for (size_t done = 0; done < n_rows;) {
        const size_t rows = lsi_min_size(ctx->logits_rows, n_rows - done);
        head(ctx, ctx->all_logits, done, rows);
        lsi_exec_read(&ctx->exec, ctx->host_logits, ctx->all_logits, rows * V * sizeof(float));
        const ls_status st = a->fn(a->user, row0 + done, rows, ctx->host_logits);
        if (st != LS_OK)
            return lsi_fail(err, st, "stopped by the function that takes the logits");
        done += rows;
    }
    return LS_OK;
}

ls_status ls_context_append_all(ls_context *ctx, const int32_t *tokens, size_t n_tokens, ls_logits_fn *fn,
                                void *user, ls_error *err)
{
    LSI_TRY(want_all_logits(ctx, err));
    struct all_logits a = { fn, user };
    return run(ctx, tokens, n_tokens, give_logits, &a, err);
}

struct all_nll {
    const int32_t *tokens;
    size_t n_tokens; /* with those that are predicted only */
    float *nll;
};

static ls_status give_nll(ls_context *ctx, void *user, size_t row0, size_t n_rows, ls_error *err)
{
    const struct all_nll *a = user;
    const size_t V = ctx->model->config.V;
    for (size_t done = 0; done < n_rows;) {
        size_t rows = lsi_min_size(ctx->logits_rows, n_rows - done);
        const size_t i = row0 + done;
        if (i + rows >= a->n_tokens) /* nothing follows the last token */
            rows = a->n_tokens - 1 - i;
        if (rows == 0)
            break;
        head(ctx, ctx->all_logits, done, rows);
        lsi_op_nll(&ctx->exec, ctx->nll, ctx->all_logits, a->tokens + i + 1, rows, V, V);
        lsi_exec_read(&ctx->exec, a->nll + i, ctx->nll, rows * sizeof(float));
        LSI_TRY(check_finite(a->nll + i, rows, err));
        done += rows;
    }
    return LS_OK;
}

ls_status ls_context_append_nll(ls_context *ctx, const int32_t *tokens, size_t n_tokens, float *nll,
                                ls_error *err)
{
    LSI_TRY(want_all_logits(ctx, err));
    struct all_nll a = { tokens, n_tokens, nll };
    return run(ctx, tokens, n_tokens, give_nll, &a, err);
}

ls_status ls_context_append_next_nll(ls_context *ctx, const int32_t *tokens, size_t n_tokens, float *nll,
                                     ls_error *err)
{
    LSI_TRY(want_all_logits(ctx, err));
    LSI_TRY(check_ids(ctx, tokens + n_tokens, 1, err));
    struct all_nll a = { tokens, n_tokens + 1, nll };
    return run(ctx, tokens, n_tokens, give_nll, &a, err);
}

ls_status ls_context_fork(const ls_context *ctx, ls_context **copy, ls_error *err)
{
    ls_context *c = NULL;
    LSI_TRY(ls_context_create(ctx->model, &ctx->options, &c, err));
    const ls_status st = ls_context_assign(c, ctx, err);
    if (st == LS_OK)
        *copy = c;
    else
        ls_context_free(c);
    return st;
}

ls_status ls_context_assign(ls_context *to, const ls_context *from, ls_error *err)
{
    struct lsi_cache *cache = NULL;
    if (to == from)
        return LS_OK;
    if (to->model != from->model || strcmp(to->kv, from->kv) != 0 || to->block != from->block ||
        to->cache->shape.n_ctx != from->cache->shape.n_ctx)
        return lsi_fail(err, LS_E_INVAL,
                        "contexts take over each other's tokens only when they have the same model "
                        "and options");
    if (!from->cache->policy->fork)
        return lsi_fail(err, LS_E_UNSUPPORTED, "the cache %s cannot be copied", from->kv);
    LSI_TRY(from->cache->policy->fork(from->cache, &cache, err));
    to->cache->policy->free(to->cache);
    to->cache = cache;
    lsi_context_name_cache(to);
    return LS_OK;
}

ls_status ls_context_rewind(ls_context *ctx, size_t n_tokens, ls_error *err)
{
    LSI_TRY(ctx->cache->policy->rewind(ctx->cache, n_tokens, err));
    lsi_context_name_cache(ctx);
    return LS_OK;
}

ls_status ls_context_tile(ls_context *ctx, size_t n_tokens, ls_error *err)
{
    if (!ctx->cache->policy->tile)
        return lsi_fail(err, LS_E_UNSUPPORTED, "the cache %s cannot be repeated", ctx->kv);
    if (n_tokens > ls_context_capacity(ctx))
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit: the context holds at most %zu", n_tokens,
                        ls_context_capacity(ctx));
    LSI_TRY(check_memory(ctx, n_tokens, 1, err));
    LSI_TRY(ctx->cache->policy->tile(ctx->cache, n_tokens, err));
    lsi_context_name_cache(ctx);
    return LS_OK;
}

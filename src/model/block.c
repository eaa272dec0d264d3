#include "model/block.h"

void lsi_activations_layout(struct lsi_activations *a, struct lsi_arena *arena, const struct lsi_config *c,
                            size_t rows)
{
    *a = (struct lsi_activations){
        .rows = rows,
        .mlp_rows = rows,
        .x = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .n = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .q = lsi_arena_take(arena, rows * c->H * c->D, sizeof(float)),
        .k = lsi_arena_take(arena, rows * c->G * c->D, sizeof(float)),
        .v = lsi_arena_take(arena, rows * c->G * c->D, sizeof(float)),
        .gate = lsi_arena_take(arena, rows * c->F, sizeof(float)),
        .up = lsi_arena_take(arena, rows * c->F, sizeof(float)),
    };
    a->q_in = a->o = a->q;
    a->k_in = a->k;
    a->h = a->x;
    a->o_out = a->mlp_n = a->mlp_out = a->n;
    a->act = a->gate;
}

size_t lsi_block_scratch(const struct lsi_exec *ex, const struct lsi_config *c, size_t rows)
{
    size_t most = lsi_op_attention_scratch(ex, rows, c->H, c->G, c->D);
    most = lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->C, lsi_max_size(c->F, c->H * c->D)));
    most = lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->H * c->D, c->C));
    return lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->F, c->C));
}

/* y += scale * B (A x) of the projections that have an adapter. */
static void add_lora(struct lsi_exec *ex, const struct lsi_layer *w, const enum lsi_proj *proj,
                     const struct lsi_linear *out, size_t n_out, struct lsi_activations *a, const float *x,
                     size_t n_rows)
{
    for (size_t i = 0; w->lora && i < n_out; i++) {
        const struct lsi_lora *lora = &w->lora[proj[i]];
        if (!lora->a.data)
            continue;
        const struct lsi_linear down = { .w = &lora->a, .y = a->low, .ldy = lora->a.n_out };
        const struct lsi_linear up = { .w = &lora->b, .y = out[i].y, .ldy = out[i].ldy, .accumulate = true };
        lsi_op_linear(ex, &down, 1, x, n_rows, lora->a.n_in);
        lsi_op_scale(ex, a->low, n_rows * lora->a.n_out, lora->scale);
        lsi_op_linear(ex, &up, 1, a->low, n_rows, lora->a.n_out);
    }
}

/* y = h + norm?(W x), y may be h: the end of both halves of a layer. before: the output before a post-norm.
 */
static void add_output(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *layer,
                       struct lsi_activations *a, enum lsi_proj proj, const struct lsi_weight *w,
                       const float *bias, const float *post_norm, float *y, const float *h, float *before,
                       const float *x, size_t n_rows)
{
    const struct lsi_linear out = {
        .w = w, .bias = bias, .y = post_norm ? before : y, .ldy = c->C, .accumulate = !post_norm
    };
    if (y != h)
        lsi_op_rows_load(ex, y, h, LSI_F32, n_rows, c->C);
    lsi_op_linear(ex, &out, 1, x, n_rows, w->n_in);
    add_lora(ex, layer, &proj, &out, 1, a, x, n_rows);
    if (post_norm)
        lsi_op_rmsnorm_add(ex, y, before, post_norm, n_rows, c->C, c->eps);
}

/* Rotate n_rows x n_heads vectors by the positions that the cache gives the rows. */
static void rotate(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w, float *x,
                   size_t n_rows, size_t n_heads, const struct lsi_cache *cache)
{
    const size_t ld = n_heads * c->D;
    for (size_t row = 0, n; row < n_rows; row += n) {
        int64_t pos0 = (int64_t)cache->length;
        n = cache->policy->positions ? cache->policy->positions(cache, row, n_rows, &pos0) : n_rows;
        lsi_op_rope(ex, x + row * ld, n, n_heads, c->D, ld, w->rope, pos0);
    }
}

/* Queries (unless q is false), keys and values (unless kv is false) of the rows in a->x. */
static void project(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                    struct lsi_activations *a, size_t n_rows, bool q, bool kv)
{
    static const enum lsi_proj all[] = { LSI_PROJ_Q, LSI_PROJ_K, LSI_PROJ_V };
    const size_t q_cols = c->H * c->D, kv_cols = c->G * c->D;
    const struct lsi_linear qkv[] = {
        { .w = &w->q, .bias = w->q_bias, .y = w->q_norm ? a->q_in : a->q, .ldy = q_cols },
        { .w = &w->k, .bias = w->k_bias, .y = w->k_norm ? a->k_in : a->k, .ldy = kv_cols },
        { .w = &w->v, .bias = w->v_bias, .y = a->v, .ldy = kv_cols },
    };
    const size_t first = q ? 0 : 1, n = (kv ? 3 : 1) - first;

    lsi_op_rmsnorm(ex, a->n, a->x, w->attn_norm, n_rows, c->C, c->C, c->eps);
    lsi_op_linear(ex, qkv + first, n, a->n, n_rows, c->C);
    add_lora(ex, w, all + first, qkv + first, n, a, a->n, n_rows);
}

static void finish_queries(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                           struct lsi_activations *a, size_t n_rows, const struct lsi_cache *cache)
{
    if (w->q_norm)
        lsi_op_rmsnorm(ex, a->q, a->q_in, w->q_norm, n_rows * c->H, c->D, c->D, c->eps);
    rotate(ex, c, w, a->q, n_rows, c->H, cache);
}

static void finish_keys(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                        size_t layer, struct lsi_activations *a, size_t n_rows, struct lsi_cache *cache)
{
    const size_t kv_cols = c->G * c->D;
    if (w->k_norm)
        lsi_op_rmsnorm(ex, a->k, a->k_in, w->k_norm, n_rows * c->G, c->D, c->D, c->eps);
    rotate(ex, c, w, a->k, n_rows, c->G, cache);
    cache->policy->append(cache, ex, layer, a->k, kv_cols, a->v, kv_cols, n_rows);
}

void lsi_block_keys(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                    size_t n_rows, struct lsi_cache *cache)
{
    const struct lsi_layer *w = &m->layers[layer];
    project(ex, &m->config, w, a, n_rows, false, true);
    finish_keys(ex, &m->config, w, layer, a, n_rows, cache);
}

void lsi_block_attention(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                         struct lsi_activations *a, size_t n_rows, struct lsi_cache *cache, bool append)
{
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    const size_t q_cols = c->H * c->D;

    /* Keys before their norm are wanted by the backward pass even when the cache has what came after. */
    project(ex, c, w, a, n_rows, true, append || w->k_norm);
    finish_queries(ex, c, w, a, n_rows, cache);
    if (append)
        finish_keys(ex, c, w, layer, a, n_rows, cache);
    const struct lsi_cache_query q = { .q = a->q,
                                       .out = a->o,
                                       .lse = a->lse,
                                       .ldq = q_cols,
                                       .ldo = q_cols,
                                       .T = n_rows,
                                       .window = w->window,
                                       .scale = c->attn_scale,
                                       .rope = w->rope };
    if (cache->watch)
        cache->watch->see(cache->watch, cache, ex, layer, &q);
    cache->policy->attend(cache, ex, layer, &q);
    add_output(ex, c, w, a, LSI_PROJ_O, &w->o, w->o_bias, w->post_attn_norm, a->h, a->x, a->o_out, a->o,
               n_rows);
}

void lsi_block_gates(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                     const float *h, size_t n_rows)
{
    static const enum lsi_proj proj[] = { LSI_PROJ_GATE, LSI_PROJ_UP };
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    const struct lsi_linear gate_up[] = {
        { .w = &w->gate, .bias = w->gate_bias, .y = a->gate, .ldy = c->F },
        { .w = &w->up, .bias = w->up_bias, .y = a->up, .ldy = c->F },
    };

    lsi_op_rmsnorm(ex, a->mlp_n, h, w->ffn_norm, n_rows, c->C, c->C, c->eps);
    lsi_op_linear(ex, gate_up, LSI_LEN(gate_up), a->mlp_n, n_rows, c->C);
    add_lora(ex, w, proj, gate_up, LSI_LEN(gate_up), a, a->mlp_n, n_rows);
    lsi_op_glu_to(ex, a->act, a->gate, a->up, n_rows, c->F, c->F, c->act);
}

void lsi_block_down(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                    size_t n_rows)
{
    static const enum lsi_proj proj = LSI_PROJ_DOWN;
    const struct lsi_layer *w = &m->layers[layer];
    const struct lsi_linear down = {
        .w = &w->down, .bias = w->down_bias, .y = a->mlp_out, .ldy = m->config.C
    };
    lsi_op_linear(ex, &down, 1, a->act, n_rows, m->config.F);
    add_lora(ex, w, &proj, &down, 1, a, a->act, n_rows);
}

static void mlp(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                size_t n_rows)
{
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    for (size_t row = 0; row < n_rows; row += a->mlp_rows) {
        const size_t n = lsi_min_size(a->mlp_rows, n_rows - row);
        float *h = a->h + row * c->C;
        lsi_block_gates(ex, m, layer, a, h, n);
        add_output(ex, c, w, a, LSI_PROJ_DOWN, &w->down, w->down_bias, w->post_ffn_norm, a->x + row * c->C, h,
                   a->mlp_out, a->act, n);
    }
}

void lsi_block_forward(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                       size_t n_rows, struct lsi_cache *cache)
{
    lsi_block_attention(ex, m, layer, a, n_rows, cache, true);
    mlp(ex, m, layer, a, n_rows);
}

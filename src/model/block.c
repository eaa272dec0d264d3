#include "model/block.h"

void lsi_activations_layout(struct lsi_activations *a, struct lsi_arena *arena, const struct lsi_config *c,
                            size_t rows)
{
    *a = (struct lsi_activations){
        .rows = rows,
        .x = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .n = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .q = lsi_arena_take(arena, rows * c->H * c->D, sizeof(float)),
        .k = lsi_arena_take(arena, rows * c->G * c->D, sizeof(float)),
        .v = lsi_arena_take(arena, rows * c->G * c->D, sizeof(float)),
        .gate = lsi_arena_take(arena, rows * c->F, sizeof(float)),
        .up = lsi_arena_take(arena, rows * c->F, sizeof(float)),
    };
}

size_t lsi_block_scratch(const struct lsi_exec *ex, const struct lsi_config *c, size_t rows)
{
    size_t most = lsi_op_attention_scratch(ex, rows, c->H, c->G, c->D);
    most = lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->C, lsi_max_size(c->F, c->H * c->D)));
    most = lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->H * c->D, c->C));
    return lsi_max_size(most, lsi_op_linear_scratch(ex, rows, c->F, c->C));
}

/* x += norm?(W y): the end of both halves of a layer. */
static void add_output(struct lsi_exec *ex, const struct lsi_config *c, struct lsi_activations *a,
                       const struct lsi_weight *w, const float *bias, const float *post_norm, const float *y,
                       size_t n_rows)
{
    const struct lsi_linear out = {
        .w = w, .bias = bias, .y = post_norm ? a->n : a->x, .ldy = c->C, .accumulate = !post_norm
    };
    lsi_op_linear(ex, &out, 1, y, n_rows, w->n_in);
    if (post_norm)
        lsi_op_rmsnorm_add(ex, a->x, a->n, post_norm, n_rows, c->C, c->eps);
}

static void attention(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                      size_t layer, struct lsi_activations *a, size_t n_rows, struct lsi_cache *cache)
{
    const size_t q_cols = c->H * c->D, kv_cols = c->G * c->D;
    const int64_t pos0 = (int64_t)cache->length;

    lsi_op_rmsnorm(ex, a->n, a->x, w->attn_norm, n_rows, c->C, c->C, c->eps);
    const struct lsi_linear qkv[] = {
        { .w = &w->q, .bias = w->q_bias, .y = a->q, .ldy = q_cols },
        { .w = &w->k, .bias = w->k_bias, .y = a->k, .ldy = kv_cols },
        { .w = &w->v, .bias = w->v_bias, .y = a->v, .ldy = kv_cols },
    };
    lsi_op_linear(ex, qkv, LSI_LEN(qkv), a->n, n_rows, c->C);
    if (w->q_norm)
        lsi_op_rmsnorm(ex, a->q, a->q, w->q_norm, n_rows * c->H, c->D, c->D, c->eps);
    if (w->k_norm)
        lsi_op_rmsnorm(ex, a->k, a->k, w->k_norm, n_rows * c->G, c->D, c->D, c->eps);
    lsi_op_rope(ex, a->q, n_rows, c->H, c->D, q_cols, w->rope, pos0);
    lsi_op_rope(ex, a->k, n_rows, c->G, c->D, kv_cols, w->rope, pos0);

    cache->policy->append(cache, ex, layer, a->k, kv_cols, a->v, kv_cols, n_rows);
    const struct lsi_cache_query q = { .q = a->q,
                                       .out = a->q,
                                       .ldq = q_cols,
                                       .ldo = q_cols,
                                       .T = n_rows,
                                       .window = w->window,
                                       .scale = c->attn_scale };
    cache->policy->attend(cache, ex, layer, &q);
    add_output(ex, c, a, &w->o, w->o_bias, w->post_attn_norm, a->q, n_rows);
}

static void mlp(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                struct lsi_activations *a, size_t n_rows)
{
    lsi_op_rmsnorm(ex, a->n, a->x, w->ffn_norm, n_rows, c->C, c->C, c->eps);
    const struct lsi_linear gate_up[] = {
        { .w = &w->gate, .bias = w->gate_bias, .y = a->gate, .ldy = c->F },
        { .w = &w->up, .bias = w->up_bias, .y = a->up, .ldy = c->F },
    };
    lsi_op_linear(ex, gate_up, LSI_LEN(gate_up), a->n, n_rows, c->C);
    lsi_op_glu(ex, a->gate, a->up, n_rows, c->F, c->F, c->act);
    add_output(ex, c, a, &w->down, w->down_bias, w->post_ffn_norm, a->gate, n_rows);
}

void lsi_block_forward(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                       size_t n_rows, struct lsi_cache *cache)
{
    attention(ex, &m->config, &m->layers[layer], layer, a, n_rows, cache);
    mlp(ex, &m->config, &m->layers[layer], a, n_rows);
}

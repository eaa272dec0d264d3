/*
 * Backward of the block. With t for a row block, from the layer's output to its input:
 *
 *   dh = dy + ffn_norm'( gate', up'( act'( down'(dy) ) ) )          MLP half, mlp_rows at a time
 *   dO = o'(dh)                                                     output product
 *   dq, dk[0..t] +=, dv[0..t] += attention'(dO)
 *   dx = dh + attn_norm'( q'(rope^-1 dq), k'(rope^-1 dk[t]), v'(dv[t]) )
 *
 * dk and dv of the block's own rows are complete at that point when blocks come in descending order:
 * only rows that stand at or after a key attend to it.
 */
#include "model/block.h"

void lsi_activations_layout_backward(struct lsi_activations *a, struct lsi_arena *arena,
                                     const struct lsi_config *c, size_t rows, size_t mlp_rows,
                                     size_t lora_rank)
{
    const size_t q_cols = c->H * c->D, kv_cols = c->G * c->D;
    *a = (struct lsi_activations){
        .rows = rows,
        .mlp_rows = mlp_rows,
        .low_cols = lora_rank,
        .x = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .n = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .q = lsi_arena_take(arena, rows * q_cols, sizeof(float)),
        .k = lsi_arena_take(arena, rows * kv_cols, sizeof(float)),
        .v = lsi_arena_take(arena, rows * kv_cols, sizeof(float)),
        .o = lsi_arena_take(arena, rows * q_cols, sizeof(float)),
        .lse = lsi_arena_take(arena, rows * c->H, sizeof(float)),
        .h = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .mlp_n = lsi_arena_take(arena, mlp_rows * c->C, sizeof(float)),
        .gate = lsi_arena_take(arena, mlp_rows * c->F, sizeof(float)),
        .up = lsi_arena_take(arena, mlp_rows * c->F, sizeof(float)),
        .act = lsi_arena_take(arena, mlp_rows * c->F, sizeof(float)),
    };
    a->q_in = c->qk_norm ? lsi_arena_take(arena, rows * q_cols, sizeof(float)) : a->q;
    a->k_in = c->qk_norm ? lsi_arena_take(arena, rows * kv_cols, sizeof(float)) : a->k;
    a->o_out = c->post_norms ? lsi_arena_take(arena, rows * c->C, sizeof(float)) : NULL;
    a->mlp_out = c->post_norms ? lsi_arena_take(arena, mlp_rows * c->C, sizeof(float)) : NULL;
    if (lora_rank)
        a->low = lsi_arena_take(arena, rows * lora_rank, sizeof(float));
}

void lsi_block_gradients_layout(struct lsi_block_gradients *g, struct lsi_arena *arena,
                                const struct lsi_config *c, size_t rows, size_t mlp_rows, size_t lora_rank)
{
    *g = (struct lsi_block_gradients){
        .dx = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .dn = lsi_arena_take(arena, rows * c->C, sizeof(float)),
        .dq = lsi_arena_take(arena, rows * c->H * c->D, sizeof(float)),
        .dact = lsi_arena_take(arena, mlp_rows * c->F, sizeof(float)),
    };
    if (c->post_norms)
        g->dt = lsi_arena_take(arena, rows * c->C, sizeof(float));
    if (lora_rank)
        g->dlow = lsi_arena_take(arena, rows * lora_rank, sizeof(float));
}

size_t lsi_block_backward_scratch(const struct lsi_exec *ex, const struct lsi_config *c, size_t rows,
                                  size_t mlp_rows, size_t n_slots)
{
    const size_t q_cols = c->H * c->D, kv_cols = c->G * c->D;
    const size_t all[] = {
        lsi_op_attention_backward_scratch(ex, rows, c->H, c->G, c->D, n_slots),
        lsi_op_linear_backward_scratch(ex, rows, c->C, q_cols + 2 * kv_cols),
        lsi_op_linear_backward_scratch(ex, rows, q_cols, c->C),
        lsi_op_linear_backward_scratch(ex, mlp_rows, c->C, 2 * c->F),
        lsi_op_linear_backward_scratch(ex, mlp_rows, c->F, c->C),
        lsi_op_rmsnorm_backward_scratch(ex, rows, c->C),
        c->qk_norm ? lsi_op_rmsnorm_backward_scratch(ex, rows * c->H, c->D) : 0,
    };
    size_t most = 0;
    for (size_t i = 0; i < LSI_LEN(all); i++)
        most = lsi_max_size(most, all[i]);
    return most;
}

/* One projection of a group: its weight, where its gradients go, the gradient of its output. */
struct projection {
    enum lsi_proj proj;
    const struct lsi_weight *w;
    const float *dy;
    size_t lddy;
    float *dw, *dbias;
};

/*
 * dx (+)= of a group that shares x, adapters included:
 *   low = A x;  dB += scale dy^T low;  dlow = scale dy B;  dA += dlow^T x;  dx += dlow A
 */
static void linear_backward(struct lsi_exec *ex, const struct lsi_layer *w,
                            const struct lsi_layer_grads *grads, const struct projection *p, size_t n,
                            struct lsi_activations *a, struct lsi_block_gradients *g, float *dx, size_t lddx,
                            const float *x, size_t ldx, size_t n_rows)
{
    struct lsi_linear_grad group[LSI_N_PROJ];
    for (size_t i = 0; i < n; i++)
        group[i] = (struct lsi_linear_grad){
            .w = p[i].w, .dy = p[i].dy, .lddy = p[i].lddy, .dw = p[i].dw, .dbias = p[i].dbias
        };
    lsi_op_linear_backward(ex, group, n, dx, lddx, false, x, ldx, n_rows, 1.0f);
    for (size_t i = 0; w->lora && i < n; i++) {
        const struct lsi_lora *lora = &w->lora[p[i].proj];
        if (!lora->a.data)
            continue;
        const size_t rank = lora->a.n_out;
        const struct lsi_linear low = { .w = &lora->a, .y = a->low, .ldy = rank };
        const struct lsi_linear_grad b = {
            .w = &lora->b, .dy = p[i].dy, .lddy = p[i].lddy, .dw = grads->lora_b[p[i].proj]
        };
        const struct lsi_linear_grad down = {
            .w = &lora->a, .dy = g->dlow, .lddy = rank, .dw = grads->lora_a[p[i].proj]
        };
        lsi_op_linear(ex, &low, 1, x, n_rows, ldx);
        lsi_op_linear_backward(ex, &b, 1, g->dlow, rank, false, a->low, rank, n_rows, lora->scale);
        lsi_op_linear_backward(ex, &down, 1, dx, lddx, true, x, ldx, n_rows, 1.0f);
    }
}

/* The gradient before a post-norm from that after it; without one they are the same. */
static const float *before_post_norm(struct lsi_exec *ex, const struct lsi_config *c,
                                     struct lsi_block_gradients *g, const float *post_norm, float *dgain,
                                     const float *dy, const float *before, size_t n_rows)
{
    if (!post_norm)
        return dy;
    lsi_op_rmsnorm_backward(ex, g->dt, dgain, dy, before, post_norm, n_rows, c->C, c->C, c->eps, false);
    return g->dt;
}

/* dx: gradient of the rows' output, replaced by that of the stream between the halves. */
static void mlp_rows_backward(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                              struct lsi_activations *a, struct lsi_block_gradients *g,
                              const struct lsi_layer_grads *grads, float *dx, const float *h, size_t n_rows)
{
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    const float *dy =
        before_post_norm(ex, c, g, w->post_ffn_norm, grads->post_ffn_norm, dx, a->mlp_out, n_rows);
    const struct projection down = { LSI_PROJ_DOWN, &w->down, dy, c->C, grads->down, grads->down_bias };
    linear_backward(ex, w, grads, &down, 1, a, g, g->dact, c->F, a->act, c->F, n_rows);
    lsi_op_glu_backward(ex, a->gate, a->up, g->dact, n_rows, c->F, c->F, c->act);
    const struct projection gate_up[] = {
        { LSI_PROJ_GATE, &w->gate, a->gate, c->F, grads->gate, grads->gate_bias },
        { LSI_PROJ_UP, &w->up, a->up, c->F, grads->up, grads->up_bias },
    };
    linear_backward(ex, w, grads, gate_up, LSI_LEN(gate_up), a, g, g->dn, c->C, a->mlp_n, c->C, n_rows);
    lsi_op_rmsnorm_backward(ex, dx, grads->ffn_norm, g->dn, h, w->ffn_norm, n_rows, c->C, c->C, c->eps, true);
}

/* What the forward left of the MLP where it was not kept (or the little that never is). */
static void replay_mlp(struct lsi_exec *ex, const struct ls_model *m, size_t layer, struct lsi_activations *a,
                       bool kept, const float *h, size_t n_rows)
{
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    if (kept) {
        lsi_op_rmsnorm(ex, a->mlp_n, h, w->ffn_norm, n_rows, c->C, c->C, c->eps);
        lsi_op_glu_to(ex, a->act, a->gate, a->up, n_rows, c->F, c->F, c->act);
        return;
    }
    lsi_block_gates(ex, m, layer, a, h, n_rows);
    if (w->post_ffn_norm)
        lsi_block_down(ex, m, layer, a, n_rows);
}

static void mlp_backward(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                         struct lsi_activations *a, bool kept, struct lsi_block_gradients *g,
                         const struct lsi_layer_grads *grads, size_t n_rows)
{
    const size_t C = m->config.C;
    for (size_t row = 0; row < n_rows; row += a->mlp_rows) {
        const size_t n = lsi_min_size(a->mlp_rows, n_rows - row);
        replay_mlp(ex, m, layer, a, kept, a->h + row * C, n);
        mlp_rows_backward(ex, m, layer, a, g, grads, g->dx + row * C, a->h + row * C, n);
    }
}

/* Through the rotary embedding and the norm of heads: d [n_rows][n_heads * D] in place. in: before the norm.
 */
static void heads_backward(struct lsi_exec *ex, const struct lsi_config *c, const struct lsi_layer *w,
                           const struct lsi_cache *cache, float *d, const float *in, const float *norm,
                           float *dnorm, size_t n_rows, size_t n_heads)
{
    const size_t ld = n_heads * c->D;
    for (size_t row = 0, n; row < n_rows; row += n) {
        int64_t pos0 = (int64_t)cache->length;
        n = cache->policy->positions ? cache->policy->positions(cache, row, n_rows, &pos0) : n_rows;
        lsi_op_rope_backward(ex, d + row * ld, n, n_heads, c->D, ld, w->rope, pos0);
    }
    if (norm)
        lsi_op_rmsnorm_backward(ex, d, dnorm, d, in, norm, n_rows * n_heads, c->D, c->D, c->eps, false);
}

static void attention_backward(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                               struct lsi_activations *a, struct lsi_block_gradients *g,
                               const struct lsi_layer_grads *grads, size_t n_rows, struct lsi_cache *cache)
{
    const struct lsi_config *c = &m->config;
    const struct lsi_layer *w = &m->layers[layer];
    const size_t q_cols = c->H * c->D, kv_cols = c->G * c->D;
    const float *dy =
        before_post_norm(ex, c, g, w->post_attn_norm, grads->post_attn_norm, g->dx, a->o_out, n_rows);
    const struct projection out = { LSI_PROJ_O, &w->o, dy, c->C, grads->o, grads->o_bias };
    linear_backward(ex, w, grads, &out, 1, a, g, g->dq, q_cols, a->o, q_cols, n_rows);

    const struct lsi_cache_gradient grad = { .q = a->q,
                                             .out = a->o,
                                             .lse = a->lse,
                                             .dout = g->dq,
                                             .dq = g->dq,
                                             .dk = g->dk,
                                             .dv = g->dv,
                                             .ld = q_cols,
                                             .T = n_rows,
                                             .window = w->window,
                                             .scale = c->attn_scale };
    cache->policy->attend_backward(cache, ex, layer, &grad);

    float *dk = g->dk + cache->length * kv_cols, *dv = g->dv + cache->length * kv_cols;
    heads_backward(ex, c, w, cache, g->dq, a->q_in, w->q_norm, grads->q_norm, n_rows, c->H);
    heads_backward(ex, c, w, cache, dk, a->k_in, w->k_norm, grads->k_norm, n_rows, c->G);
    const struct projection qkv[] = {
        { LSI_PROJ_Q, &w->q, g->dq, q_cols, grads->q, grads->q_bias },
        { LSI_PROJ_K, &w->k, dk, kv_cols, grads->k, grads->k_bias },
        { LSI_PROJ_V, &w->v, dv, kv_cols, grads->v, grads->v_bias },
    };
    linear_backward(ex, w, grads, qkv, LSI_LEN(qkv), a, g, g->dn, c->C, a->n, c->C, n_rows);
    lsi_op_rmsnorm_backward(ex, g->dx, grads->attn_norm, g->dn, a->x, w->attn_norm, n_rows, c->C, c->C,
                            c->eps, true);
}

void lsi_block_backward(struct lsi_exec *ex, const struct ls_model *m, size_t layer,
                        struct lsi_activations *a, bool kept, struct lsi_block_gradients *g,
                        const struct lsi_layer_grads *grads, size_t n_rows, struct lsi_cache *cache)
{
    const struct lsi_config *c = &m->config;
    if (kept)
        lsi_op_rmsnorm(ex, a->n, a->x, m->layers[layer].attn_norm, n_rows, c->C, c->C, c->eps);
    else
        lsi_block_attention(ex, m, layer, a, n_rows, cache, false);
    mlp_backward(ex, m, layer, a, kept, g, grads, n_rows);
    attention_backward(ex, m, layer, a, g, grads, n_rows, cache);
}

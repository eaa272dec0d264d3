#include "train/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/numbers.h"

#define SMALL_TENSOR 4096 /* elements below which 8-bit moments are not worth their error */
#define CHUNK        4096 /* elements of a tensor that pass through a buffer at a time */

static const struct {
    const char *name;
    enum lsi_role role;
} projections[LSI_N_PROJ] = {
    [LSI_PROJ_Q] = { "q_proj", LSI_ROLE_Q },          [LSI_PROJ_K] = { "k_proj", LSI_ROLE_K },
    [LSI_PROJ_V] = { "v_proj", LSI_ROLE_V },          [LSI_PROJ_O] = { "o_proj", LSI_ROLE_O },
    [LSI_PROJ_GATE] = { "gate_proj", LSI_ROLE_GATE }, [LSI_PROJ_UP] = { "up_proj", LSI_ROLE_UP },
    [LSI_PROJ_DOWN] = { "down_proj", LSI_ROLE_DOWN },
};

ls_status lsi_params_targets(const char *text, unsigned *targets, ls_error *err)
{
    *targets = 0;
    if (!text || strcmp(text, "all") == 0)
        text = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    while (*text) {
        const size_t len = strcspn(text, ",");
        unsigned bit = 0;
        for (size_t i = 0; i < LSI_N_PROJ; i++)
            if (strlen(projections[i].name) == len && memcmp(projections[i].name, text, len) == 0)
                bit = 1u << i;
        if (!bit)
            return lsi_fail(err, LS_E_INVAL,
                            "LoRA target \"%.*s\" is unknown: q_proj, k_proj, v_proj, o_proj, gate_proj, "
                            "up_proj, down_proj or all",
                            (int)lsi_min_size(len, 100), text);
        *targets |= bit;
        text += len + (text[len] == ',');
    }
    if (!*targets)
        return lsi_fail(err, LS_E_INVAL, "no LoRA targets are named");
    return LS_OK;
}

/* ---- the list -------------------------------------------------------------------------------- */

static void add(struct lsi_params *p, const struct lsi_config *c, enum lsi_role role, size_t layer)
{
    const struct lsi_shape shape = lsi_role_shape(c, role);
    const struct lsi_source hf = { .prefix = "model.", .head_prefix = "" };
    if (shape.rank == 0)
        return;
    if (p->list) {
        struct lsi_param *q = &p->list[p->n];
        const bool matrix = shape.rank == 2;
        *q = (struct lsi_param){ .role = role, .layer = layer, .rank = shape.rank, .rows = shape.rows };
        lsi_source_name(&hf, c->family, role, layer, q->name, sizeof q->name);
        q->cols = shape.cols;
        q->n = shape.rows * shape.cols;
        q->decay = matrix;
        q->trained = p->options.lora_rank == 0;
        q->dtype = matrix ? p->options.dtype : LSI_F32;
        q->has_master = matrix && q->trained && p->options.dtype == LSI_BF16 && p->options.master;
        const bool small =
            !matrix || q->n < SMALL_TENSOR || role == LSI_ROLE_TOKEN_EMBD || role == LSI_ROLE_OUTPUT;
        q->moments = small && p->options.moments == LSI_MOMENTS_Q8 ? LSI_MOMENTS_F32 : p->options.moments;
    }
    p->n++;
}

/* "…q_proj.weight" to "…q_proj.lora_A.weight". */
static void adapter_name(struct lsi_param *q, const char *matrix)
{
    const size_t stem = strlen(matrix) - strlen("weight");
    snprintf(q->name, sizeof q->name, "%.*slora_%c.weight", (int)stem, matrix,
             q->kind == LSI_PARAM_LORA_A ? 'A' : 'B');
}

static void add_adapter(struct lsi_params *p, const struct lsi_config *c, enum lsi_proj proj, size_t layer,
                        enum lsi_param_kind kind)
{
    if (p->list) {
        const enum lsi_role role = projections[proj].role;
        const struct lsi_shape shape = lsi_role_shape(c, role);
        const size_t rank = p->options.lora_rank;
        struct lsi_param *q = &p->list[p->n];
        *q = (struct lsi_param){ .kind = kind, .role = role, .layer = layer, .rank = 2 };
        q->rows = kind == LSI_PARAM_LORA_A ? rank : shape.rows;
        q->cols = kind == LSI_PARAM_LORA_A ? shape.cols : rank;
        q->n = q->rows * q->cols;
        q->decay = q->trained = true;
        q->dtype = p->options.dtype;
        q->has_master = p->options.dtype == LSI_BF16 && p->options.master;
        q->moments = p->options.moments == LSI_MOMENTS_Q8 && q->n < SMALL_TENSOR ? LSI_MOMENTS_F32
                                                                                 : p->options.moments;
        adapter_name(q, lsi_params_find(p, role, layer)->name);
    }
    p->n++;
}

/* Every parameter in order: without a list they are only counted. */
static void walk(struct lsi_params *p, const struct lsi_config *c)
{
    p->n = 0;
    add(p, c, LSI_ROLE_TOKEN_EMBD, 0);
    for (size_t l = 0; l < c->L; l++)
        for (enum lsi_role role = LSI_ROLE_ATTN_NORM; role < LSI_N_ROLES; role++)
            add(p, c, role, l);
    add(p, c, LSI_ROLE_OUTPUT_NORM, 0);
    add(p, c, LSI_ROLE_OUTPUT, 0);
    for (size_t l = 0; p->options.lora_rank && l < c->L; l++)
        for (enum lsi_proj i = 0; i < LSI_N_PROJ; i++)
            if (p->options.lora_targets >> i & 1) {
                add_adapter(p, c, i, l, LSI_PARAM_LORA_A);
                add_adapter(p, c, i, l, LSI_PARAM_LORA_B);
            }
}

ls_status lsi_params_create(struct lsi_params *p, const struct lsi_config *c,
                            const struct lsi_params_options *o, const ls_alloc *alloc, ls_error *err)
{
    *p = (struct lsi_params){ .options = *o, .alloc = alloc, .L = c->L };
    walk(p, c);
    p->list = lsi_calloc(alloc, p->n, sizeof *p->list);
    if (p->list && o->lora_rank)
        p->lora = lsi_calloc(alloc, c->L * LSI_N_PROJ, sizeof *p->lora);
    if (!p->list || (o->lora_rank && !p->lora)) {
        lsi_params_free(p);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the list of parameters");
    }
    walk(p, c);
    for (size_t i = 0; i < p->n; i++) {
        p->n_elements += p->list[i].n;
        p->n_trained += p->list[i].trained ? p->list[i].n : 0;
    }
    return LS_OK;
}

void lsi_params_free(struct lsi_params *p)
{
    lsi_free(p->alloc, p->list, p->n * sizeof *p->list);
    lsi_free(p->alloc, p->lora, p->L * LSI_N_PROJ * sizeof *p->lora);
    *p = (struct lsi_params){ 0 };
}

struct lsi_param *lsi_params_find(const struct lsi_params *p, enum lsi_role role, size_t layer)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].kind == LSI_PARAM_BASE && p->list[i].role == role && p->list[i].layer == layer)
            return &p->list[i];
    return NULL;
}

void lsi_params_each_of_layer(const struct lsi_params *p, size_t layer, lsi_param_fn *fn, void *user)
{
    for (size_t i = 0; i < p->n; i++)
        if (lsi_role_in_layer(p->list[i].role) && p->list[i].layer == layer)
            fn(user, &p->list[i]);
}

/* ---- memory -------------------------------------------------------------------------------------- */

static size_t weight_bytes(const struct lsi_param *q)
{
    return q->n * (q->dtype == LSI_BF16 ? sizeof(lsi_bf16) : sizeof(float));
}

static void layout_gradients(struct lsi_params *p, struct lsi_arena *arena)
{
    const size_t begin = arena->used;
    size_t layer_end = 0;
    if (p->options.resident) {
        for (size_t i = 0; i < p->n; i++)
            if (p->list[i].trained)
                p->list[i].grad = lsi_arena_take(arena, p->list[i].n, sizeof(float));
        return;
    }
    /* One layer's gradients, used by each in turn; those outside the layers have their own. */
    for (size_t l = 0; l < p->L; l++) {
        arena->used = begin;
        for (size_t i = 0; i < p->n; i++)
            if (p->list[i].trained && lsi_role_in_layer(p->list[i].role) && p->list[i].layer == l)
                p->list[i].grad = lsi_arena_take(arena, p->list[i].n, sizeof(float));
        layer_end = lsi_max_size(layer_end, arena->used);
    }
    arena->used = layer_end;
    struct lsi_param *embed = lsi_params_find(p, LSI_ROLE_TOKEN_EMBD, 0);
    for (size_t i = 0; i < p->n; i++) {
        struct lsi_param *q = &p->list[i];
        if (!q->trained || lsi_role_in_layer(q->role))
            continue;
        /* The output is stepped before the embedding's gradient begins. */
        q->grad = q->role == LSI_ROLE_OUTPUT ? embed->grad : lsi_arena_take(arena, q->n, sizeof(float));
    }
}

void lsi_params_layout(struct lsi_params *p, struct lsi_arena *arena, struct lsi_params_bytes *bytes)
{
    size_t mark = arena->used;
    for (size_t i = 0; i < p->n; i++)
        p->list[i].w = lsi_arena_take(arena, 1, weight_bytes(&p->list[i]));
    bytes->weights = arena->used - mark;
    mark = arena->used;
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].has_master)
            p->list[i].master = lsi_arena_take(arena, p->list[i].n, sizeof(float));
    bytes->master = arena->used - mark;
    mark = arena->used;
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].trained) {
            p->list[i].m = lsi_arena_take(arena, 1, lsi_moments_bytes(p->list[i].moments, p->list[i].n));
            p->list[i].v = lsi_arena_take(arena, 1, lsi_moments_bytes(p->list[i].moments, p->list[i].n));
        }
    bytes->moments = arena->used - mark;
    mark = arena->used;
    layout_gradients(p, arena);
    bytes->gradients = arena->used - mark;
}

/* ---- values ---------------------------------------------------------------------------------------- */

void lsi_param_set(struct lsi_param *p, size_t first, const float *values, size_t n)
{
    if (p->master)
        memcpy(p->master + first, values, n * sizeof *values);
    if (p->dtype == LSI_F32) {
        memcpy((float *)p->w + first, values, n * sizeof *values);
        return;
    }
    lsi_bf16 *w = (lsi_bf16 *)p->w + first;
    for (size_t i = 0; i < n; i++)
        w[i] = lsi_bf16_from_f32(values[i]);
}

void lsi_param_get(const struct lsi_param *p, size_t first, float *values, size_t n)
{
    const float *from = p->master ? p->master : p->dtype == LSI_F32 ? p->w : NULL;
    if (from) {
        memcpy(values, from + first, n * sizeof *values);
        return;
    }
    const lsi_bf16 *w = (const lsi_bf16 *)p->w + first;
    for (size_t i = 0; i < n; i++)
        values[i] = lsi_bf16_to_f32(w[i]);
}

const struct lsi_param *lsi_params_not_finite(const struct lsi_params *p)
{
    float values[CHUNK];
    for (size_t i = 0; i < p->n; i++)
        for (size_t first = 0; first < p->list[i].n; first += CHUNK) {
            const size_t n = lsi_min_size(CHUNK, p->list[i].n - first);
            lsi_param_get(&p->list[i], first, values, n);
            for (size_t k = 0; k < n; k++)
                if (!isfinite(values[k]))
                    return &p->list[i];
        }
    return NULL;
}

/* Row r of a rotated matrix in half pairing, in a file with interleaved pairing. */
static size_t file_row(size_t r, size_t D)
{
    const size_t head = r / D * D, i = r % D, half = D / 2;
    return head + (i % half) * 2 + i / half;
}

static bool is_rotated(enum lsi_role role)
{
    return role == LSI_ROLE_Q || role == LSI_ROLE_K || role == LSI_ROLE_Q_BIAS || role == LSI_ROLE_K_BIAS;
}

/* A matrix, rows brought to fp32 by the operation that looks up embeddings. */
static ls_status load_matrix(struct lsi_param *p, struct lsi_exec *ex, const ls_model *m,
                             const struct lsi_tensor *t, ls_error *err)
{
    struct lsi_weight w = { .dtype = t->dtype, .n_out = p->rows, .n_in = p->cols, .data = t->data };
    const bool swap = m->config.interleaved && is_rotated(p->role);
    enum {
        ROWS = 64
    };
    float *values = lsi_alloc(m->alloc, ROWS * p->cols * sizeof *values);
    if (!values || !lsi_dtype_row_bytes(t->dtype, p->cols, &w.row_bytes)) {
        lsi_free(m->alloc, values, ROWS * p->cols * sizeof *values);
        return lsi_fail(err, LS_E_NOMEM, "out of memory loading %s", p->name);
    }
    for (size_t row = 0; row < p->rows; row += ROWS) {
        const size_t n = lsi_min_size(ROWS, p->rows - row);
        int32_t ids[ROWS];
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)(swap ? file_row(row + i, m->config.D) : row + i);
        lsi_op_embed(ex, values, &w, ids, n, 1.0f);
        lsi_param_set(p, row * p->cols, values, n * p->cols);
    }
    lsi_free(m->alloc, values, ROWS * p->cols * sizeof *values);
    return LS_OK;
}

static void load_vector(struct lsi_param *p, const ls_model *m, const struct lsi_tensor *t)
{
    const bool offset = !m->source.is_gguf && m->config.family->gain_offset && lsi_role_is_gain(p->role);
    const bool swap = m->config.interleaved && is_rotated(p->role);
    for (size_t i = 0; i < p->cols; i++) {
        const size_t from = swap ? file_row(i, m->config.D) : i;
        const float v = lsi_tensor_value(t, from) + (offset ? 1.0f : 0.0f);
        lsi_param_set(p, i, &v, 1);
    }
}

ls_status lsi_params_load(struct lsi_params *p, struct lsi_exec *ex, const ls_model *m, ls_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        struct lsi_param *q = &p->list[i];
        struct lsi_tensor t;
        if (q->kind != LSI_PARAM_BASE)
            continue;
        if (!lsi_source_find(&m->source, m->config.family, q->role, q->layer, &t))
            return lsi_fail(err, LS_E_FORMAT, "%s: tensor %s is missing", m->path, q->name);
        if (q->rank == 2)
            LSI_TRY(load_matrix(q, ex, m, &t, err));
        else
            load_vector(q, m, &t);
    }
    return LS_OK;
}

static void fill(struct lsi_param *p, struct lsi_rng *rng, double std, float constant)
{
    float values[CHUNK];
    for (size_t i = 0; i < p->n; i += CHUNK) {
        const size_t n = lsi_min_size(CHUNK, p->n - i);
        for (size_t j = 0; j < n; j++)
            values[j] = std > 0 ? (float)(std * lsi_rng_normal(rng)) : constant;
        lsi_param_set(p, i, values, n);
    }
}

void lsi_params_random(struct lsi_params *p, double std, uint64_t seed)
{
    struct lsi_rng rng;
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].kind == LSI_PARAM_BASE)
            fill(&p->list[i], &rng, p->list[i].rank == 2 ? std : 0,
                 lsi_role_is_gain(p->list[i].role) ? 1.0f : 0.0f);
}

void lsi_params_random_adapters(struct lsi_params *p, uint64_t seed)
{
    struct lsi_rng rng;
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < p->n; i++) {
        struct lsi_param *q = &p->list[i];
        if (q->kind == LSI_PARAM_LORA_B)
            fill(q, &rng, 0, 0.0f);
        if (q->kind != LSI_PARAM_LORA_A)
            continue;
        const double bound = 1 / sqrt((double)q->cols);
        for (size_t j = 0; j < q->n; j++) {
            const float v = (float)(bound * (2 * lsi_rng_double(&rng) - 1));
            lsi_param_set(q, j, &v, 1);
        }
    }
}

/* ---- the model over them ------------------------------------------------------------------------------ */

static struct lsi_weight weight(const struct lsi_param *p)
{
    return (struct lsi_weight){ .dtype = p->dtype,
                                .n_out = p->rows,
                                .n_in = p->cols,
                                .row_bytes = weight_bytes(p) / p->rows,
                                .data = p->w };
}

static struct lsi_weight *layer_matrix(struct lsi_layer *y, enum lsi_role role)
{
    switch (role) {
    case LSI_ROLE_Q:
        return &y->q;
    case LSI_ROLE_K:
        return &y->k;
    case LSI_ROLE_V:
        return &y->v;
    case LSI_ROLE_O:
        return &y->o;
    case LSI_ROLE_GATE:
        return &y->gate;
    case LSI_ROLE_UP:
        return &y->up;
    case LSI_ROLE_DOWN:
        return &y->down;
    default:
        return NULL;
    }
}

/* The vectors of a layer, and beside each the field of its gradient. */
static void layer_vector(struct lsi_layer *y, struct lsi_layer_grads *g, enum lsi_role role, const float ***v,
                         float ***dv)
{
    const struct {
        enum lsi_role role;
        const float **v;
        float **dv;
    } all[] = {
        { LSI_ROLE_ATTN_NORM, &y->attn_norm, &g->attn_norm },
        { LSI_ROLE_FFN_NORM, &y->ffn_norm, &g->ffn_norm },
        { LSI_ROLE_Q_NORM, &y->q_norm, &g->q_norm },
        { LSI_ROLE_K_NORM, &y->k_norm, &g->k_norm },
        { LSI_ROLE_POST_ATTN_NORM, &y->post_attn_norm, &g->post_attn_norm },
        { LSI_ROLE_POST_FFN_NORM, &y->post_ffn_norm, &g->post_ffn_norm },
        { LSI_ROLE_Q_BIAS, &y->q_bias, &g->q_bias },
        { LSI_ROLE_K_BIAS, &y->k_bias, &g->k_bias },
        { LSI_ROLE_V_BIAS, &y->v_bias, &g->v_bias },
        { LSI_ROLE_O_BIAS, &y->o_bias, &g->o_bias },
        { LSI_ROLE_GATE_BIAS, &y->gate_bias, &g->gate_bias },
        { LSI_ROLE_UP_BIAS, &y->up_bias, &g->up_bias },
        { LSI_ROLE_DOWN_BIAS, &y->down_bias, &g->down_bias },
    };
    for (size_t i = 0; i < LSI_LEN(all); i++)
        if (all[i].role == role) {
            *v = all[i].v;
            *dv = all[i].dv;
        }
}

static enum lsi_proj projection(enum lsi_role role)
{
    enum lsi_proj i = 0;
    while (i < LSI_N_PROJ && projections[i].role != role)
        i++;
    return i;
}

static void bind_param(struct lsi_params *p, struct lsi_param *q, struct ls_model *m)
{
    struct lsi_layer *y = &m->layers[q->layer];
    struct lsi_layer_grads unused;
    const float **v = NULL;
    float **dv = NULL;

    if (q->kind != LSI_PARAM_BASE) {
        struct lsi_lora *lora = &p->lora[q->layer * LSI_N_PROJ + projection(q->role)];
        *(q->kind == LSI_PARAM_LORA_A ? &lora->a : &lora->b) = weight(q);
        lora->scale = p->options.lora_scale;
        return;
    }
    switch (q->role) {
    case LSI_ROLE_TOKEN_EMBD:
        m->embed = weight(q);
        break;
    case LSI_ROLE_OUTPUT:
        m->output = weight(q);
        break;
    case LSI_ROLE_OUTPUT_NORM:
        m->output_norm = q->w;
        break;
    default:
        if (q->rank == 2) {
            *layer_matrix(y, q->role) = weight(q);
        } else {
            layer_vector(y, &unused, q->role, &v, &dv);
            *v = q->w;
        }
    }
}

ls_status lsi_params_bind(struct lsi_params *p, struct ls_model *m, ls_error *err)
{
    const struct lsi_config *c = &m->config;
    struct lsi_arena plan = { 0 };
    lsi_arena_take(&plan, c->L, sizeof *m->layers);
    lsi_arena_take(&plan, c->D / 2, sizeof(double));
    lsi_arena_take(&plan, c->D / 2, sizeof(double));
    if (plan.failed || lsi_arena_init(&m->vectors, p->alloc, plan.used) != LS_OK)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu layers", c->L);
    m->layers = lsi_arena_take(&m->vectors, c->L, sizeof *m->layers);
    memset(m->layers, 0, c->L * sizeof *m->layers);
    for (int i = 0; i < 2; i++)
        lsi_model_rope(&m->rope[i], c, i, lsi_arena_take(&m->vectors, c->D / 2, sizeof(double)));
    for (size_t l = 0; l < c->L; l++) {
        m->layers[l].rope = &m->rope[c->sliding[l]];
        m->layers[l].window = c->sliding[l] ? c->window : 0;
        m->layers[l].lora = p->lora ? p->lora + l * LSI_N_PROJ : NULL;
    }
    for (size_t i = 0; i < p->n; i++)
        bind_param(p, &p->list[i], m);
    if (c->tied)
        m->output = m->embed;
    m->n_parameters = p->n_elements;
    return LS_OK;
}

void lsi_params_unbind(struct ls_model *m)
{
    lsi_arena_fini(&m->vectors);
}

void lsi_params_layer_grads(const struct lsi_params *p, size_t layer, struct lsi_layer_grads *g)
{
    *g = (struct lsi_layer_grads){ 0 };
    for (size_t i = 0; i < p->n; i++) {
        const struct lsi_param *q = &p->list[i];
        if (!q->trained || !lsi_role_in_layer(q->role) || q->layer != layer)
            continue;
        struct lsi_layer unused;
        const float **v = NULL;
        float **dv = NULL;
        float **matrices[LSI_N_PROJ] = { &g->q, &g->k, &g->v, &g->o, &g->gate, &g->up, &g->down };
        if (q->kind == LSI_PARAM_LORA_A)
            g->lora_a[projection(q->role)] = q->grad;
        else if (q->kind == LSI_PARAM_LORA_B)
            g->lora_b[projection(q->role)] = q->grad;
        else if (q->rank == 2)
            *matrices[projection(q->role)] = q->grad;
        else {
            layer_vector(&unused, g, q->role, &v, &dv);
            *dv = q->grad;
        }
    }
}

/* Weights of a model bound to the tensors of its files. */
#include <stdio.h>
#include <string.h>

#include "model/model_impl.h"

struct lsi_shape lsi_role_shape(const struct lsi_config *c, enum lsi_role role)
{
    const struct lsi_shape none = { 0, 0, 0 };
    const size_t q = c->H * c->D, kv = c->G * c->D;
    const struct lsi_shape vec_c = { 1, 1, c->C }, vec_d = { 1, 1, c->D }, vec_f = { 1, 1, c->F };
    switch (role) {
    case LSI_ROLE_TOKEN_EMBD:
        return (struct lsi_shape){ 2, c->V, c->C };
    case LSI_ROLE_OUTPUT:
        return c->tied ? none : (struct lsi_shape){ 2, c->V, c->C };
    case LSI_ROLE_Q:
        return (struct lsi_shape){ 2, q, c->C };
    case LSI_ROLE_K:
    case LSI_ROLE_V:
        return (struct lsi_shape){ 2, kv, c->C };
    case LSI_ROLE_O:
        return (struct lsi_shape){ 2, c->C, q };
    case LSI_ROLE_GATE:
    case LSI_ROLE_UP:
        return (struct lsi_shape){ 2, c->F, c->C };
    case LSI_ROLE_DOWN:
        return (struct lsi_shape){ 2, c->C, c->F };
    case LSI_ROLE_OUTPUT_NORM:
    case LSI_ROLE_ATTN_NORM:
    case LSI_ROLE_FFN_NORM:
        return vec_c;
    case LSI_ROLE_POST_ATTN_NORM:
    case LSI_ROLE_POST_FFN_NORM:
        return c->post_norms ? vec_c : none;
    case LSI_ROLE_Q_NORM:
    case LSI_ROLE_K_NORM:
        return c->qk_norm ? vec_d : none;
    case LSI_ROLE_Q_BIAS:
        return c->qkv_bias ? (struct lsi_shape){ 1, 1, q } : none;
    case LSI_ROLE_K_BIAS:
    case LSI_ROLE_V_BIAS:
        return c->qkv_bias ? (struct lsi_shape){ 1, 1, kv } : none;
    case LSI_ROLE_O_BIAS:
        return c->o_bias ? vec_c : none;
    case LSI_ROLE_GATE_BIAS:
    case LSI_ROLE_UP_BIAS:
        return c->mlp_bias ? vec_f : none;
    case LSI_ROLE_DOWN_BIAS:
        return c->mlp_bias ? vec_c : none;
    case LSI_ROLE_ROPE_FREQS: /* part of the configuration */
    case LSI_N_ROLES:
        break;
    }
    return none;
}

bool lsi_role_is_gain(enum lsi_role role)
{
    switch (role) {
    case LSI_ROLE_OUTPUT_NORM:
    case LSI_ROLE_ATTN_NORM:
    case LSI_ROLE_FFN_NORM:
    case LSI_ROLE_POST_ATTN_NORM:
    case LSI_ROLE_POST_FFN_NORM:
    case LSI_ROLE_Q_NORM:
    case LSI_ROLE_K_NORM:
        return true;
    default:
        return false;
    }
}

/* ---- one tensor ------------------------------------------------------------------------ */

struct binder {
    struct ls_model *m;
    struct lsi_arena *arena; /* without memory: only counts and checks */
    ls_error *err;
    size_t n_matrices[LSI_N_DTYPES];
};

static void shape_text(char *out, size_t cap, size_t rank, const uint64_t *shape)
{
    size_t n = (size_t)snprintf(out, cap, "[");
    for (size_t i = 0; i < rank && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%llu", i ? "][" : "", (unsigned long long)shape[i]);
    if (n < cap)
        snprintf(out + n, cap - n, "]");
}

/* The tensor of a role with its shape checked. */
static ls_status get_tensor(struct binder *b, enum lsi_role role, size_t layer, struct lsi_shape want,
                            struct lsi_tensor *t)
{
    struct ls_model *m = b->m;
    const uint64_t want_shape[2] = { want.rank == 2 ? want.rows : want.cols, want.cols };
    char name[LSI_TENSOR_NAME], expected[64], found[200];

    if (!lsi_source_find(&m->source, m->config.family, role, layer, t)) {
        lsi_source_name(&m->source, m->config.family, role, layer, name, sizeof name);
        return lsi_fail(b->err, LS_E_FORMAT, "%s: tensor %s is missing", m->path, name);
    }
    if (t->rank != want.rank || memcmp(t->shape, want_shape, want.rank * sizeof *want_shape) != 0) {
        shape_text(expected, sizeof expected, want.rank, want_shape);
        shape_text(found, sizeof found, t->rank, t->shape);
        return lsi_fail(b->err, LS_E_FORMAT, "%s: tensor %.*s: expected %s, found %s", m->path,
                        (int)t->name.len, t->name.s, expected, found);
    }
    m->n_parameters += (uint64_t)want.rows * want.cols;
    m->weight_bytes += t->bytes;
    return LS_OK;
}

static ls_status bind_matrix(struct binder *b, enum lsi_role role, size_t layer, struct lsi_weight *w)
{
    const struct lsi_shape shape = lsi_role_shape(&b->m->config, role);
    struct lsi_tensor t;
    if (shape.rank == 0)
        return LS_OK;
    LSI_TRY(get_tensor(b, role, layer, shape, &t));
    *w = (struct lsi_weight){ .dtype = t.dtype, .n_out = shape.rows, .n_in = shape.cols, .data = t.data };
    if (!lsi_dtype_is_weight(t.dtype))
        return lsi_fail(b->err, LS_E_UNSUPPORTED,
                        "%s: tensor %.*s: weights of type %s are not supported; F32, F16, BF16, Q8_0, Q4_0, "
                        "Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are",
                        b->m->path, (int)t.name.len, t.name.s, t.dtype_name);
    if (!lsi_dtype_row_bytes(t.dtype, shape.cols, &w->row_bytes) || t.bytes / shape.rows != w->row_bytes)
        return lsi_fail(b->err, LS_E_FORMAT, "%s: tensor %.*s: rows of %zu do not fit blocks of %s",
                        b->m->path, (int)t.name.len, t.name.s, shape.cols, t.dtype_name);
    b->n_matrices[t.dtype]++;
    return LS_OK;
}

/* A gain or bias, copied; a NULL *out afterwards means that the model has none. */
static ls_status bind_vector(struct binder *b, enum lsi_role role, size_t layer, const float **out)
{
    const struct ls_model *m = b->m;
    const struct lsi_shape shape = lsi_role_shape(&m->config, role);
    struct lsi_tensor t;
    if (shape.rank == 0)
        return LS_OK;
    LSI_TRY(get_tensor(b, role, layer, shape, &t));
    if (t.dtype != LSI_F32 && t.dtype != LSI_F16 && t.dtype != LSI_BF16)
        return lsi_fail(b->err, LS_E_UNSUPPORTED, "%s: tensor %.*s: a vector of type %s is not supported",
                        m->path, (int)t.name.len, t.name.s, t.dtype_name);
    float *v = lsi_arena_take(b->arena, shape.cols, sizeof *v);
    if (!v)
        return LS_OK;
    const bool offset = !m->source.is_gguf && m->config.family->gain_offset && lsi_role_is_gain(role);
    for (size_t i = 0; i < shape.cols; i++)
        v[i] = lsi_tensor_value(&t, i) + (offset ? 1.0f : 0.0f);
    *out = v;
    return LS_OK;
}

/* ---- layers ---------------------------------------------------------------------------- */

static ls_status bind_layer(struct binder *b, size_t i, struct lsi_layer *y)
{
    const struct {
        enum lsi_role role;
        struct lsi_weight *w;
    } matrices[] = {
        { LSI_ROLE_Q, &y->q },       { LSI_ROLE_K, &y->k },       { LSI_ROLE_V, &y->v },
        { LSI_ROLE_O, &y->o },       { LSI_ROLE_GATE, &y->gate }, { LSI_ROLE_UP, &y->up },
        { LSI_ROLE_DOWN, &y->down },
    };
    const struct {
        enum lsi_role role;
        const float **v;
    } vectors[] = {
        { LSI_ROLE_ATTN_NORM, &y->attn_norm },
        { LSI_ROLE_FFN_NORM, &y->ffn_norm },
        { LSI_ROLE_Q_NORM, &y->q_norm },
        { LSI_ROLE_K_NORM, &y->k_norm },
        { LSI_ROLE_POST_ATTN_NORM, &y->post_attn_norm },
        { LSI_ROLE_POST_FFN_NORM, &y->post_ffn_norm },
        { LSI_ROLE_Q_BIAS, &y->q_bias },
        { LSI_ROLE_K_BIAS, &y->k_bias },
        { LSI_ROLE_V_BIAS, &y->v_bias },
        { LSI_ROLE_O_BIAS, &y->o_bias },
        { LSI_ROLE_GATE_BIAS, &y->gate_bias },
        { LSI_ROLE_UP_BIAS, &y->up_bias },
        { LSI_ROLE_DOWN_BIAS, &y->down_bias },
    };
    for (size_t k = 0; k < LSI_LEN(matrices); k++)
        LSI_TRY(bind_matrix(b, matrices[k].role, i, matrices[k].w));
    for (size_t k = 0; k < LSI_LEN(vectors); k++)
        LSI_TRY(bind_vector(b, vectors[k].role, i, vectors[k].v));
    const struct lsi_config *c = &b->m->config;
    y->rope = &b->m->rope[c->sliding[i]];
    y->window = c->sliding[i] ? c->window : 0;
    return LS_OK;
}

void lsi_model_rope(struct lsi_rope *rope, const struct lsi_config *c, int sliding, double *inv_freq)
{
    /* Divisors belong to the layers with the long base: to both kinds unless one has its own. */
    const bool divided = !sliding || c->family->defaults.rope_base_local == 0;
    rope->mscale = lsi_rope_frequencies(&c->rope[sliding], divided ? c->freq_divisors : NULL, c->D, inv_freq);
    rope->inv_freq = inv_freq;
    rope->interleaved = c->interleaved;
}

static void bind_rope(struct binder *b)
{
    struct ls_model *m = b->m;
    for (int i = 0; i < 2; i++) {
        double *inv_freq = lsi_arena_take(b->arena, m->config.D / 2, sizeof *inv_freq);
        if (inv_freq)
            lsi_model_rope(&m->rope[i], &m->config, i, inv_freq);
    }
}

/* The list that ls_model_get_tensor reads. */
static void bind_list(struct binder *b)
{
    struct ls_model *m = b->m;
    const size_t n = lsi_source_n_tensors(&m->source);
    ls_tensor_info *list = lsi_arena_take(b->arena, n, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        struct lsi_tensor t;
        lsi_source_tensor(&m->source, i, &t);
        char *name = lsi_arena_take(b->arena, t.name.len + 1, 1);
        char *dtype = lsi_arena_take(b->arena, sizeof t.dtype_name, 1);
        if (!list || !name || !dtype)
            continue;
        memcpy(name, t.name.s, t.name.len);
        name[t.name.len] = '\0';
        memcpy(dtype, t.dtype_name, sizeof t.dtype_name);
        list[i] = (ls_tensor_info){ .name = name, .dtype = dtype, .rank = t.rank, .bytes = t.bytes };
        memcpy(list[i].shape, t.shape, sizeof list[i].shape);
    }
    m->tensors = list;
    m->n_tensors = n;
}

/* Everything the model has, in one walk: without memory to count and check, then to fill. */
static ls_status bind_all(struct binder *b)
{
    struct ls_model *m = b->m;
    m->n_parameters = m->weight_bytes = 0;
    m->layers = lsi_arena_take(b->arena, m->config.L, sizeof *m->layers);
    if (m->layers)
        memset(m->layers, 0, m->config.L * sizeof *m->layers);
    bind_rope(b);
    LSI_TRY(bind_matrix(b, LSI_ROLE_TOKEN_EMBD, 0, &m->embed));
    LSI_TRY(bind_matrix(b, LSI_ROLE_OUTPUT, 0, &m->output));
    LSI_TRY(bind_vector(b, LSI_ROLE_OUTPUT_NORM, 0, &m->output_norm));
    if (m->config.tied)
        m->output = m->embed;
    for (size_t i = 0; i < m->config.L; i++) {
        struct lsi_layer counted = { 0 };
        LSI_TRY(bind_layer(b, i, m->layers ? &m->layers[i] : &counted));
    }
    bind_list(b);
    return LS_OK;
}

/* ---- tensors that nothing would read ------------------------------------------------------ */

/* Constants that old converters wrote beside the weights. */
static bool is_ignored(struct lsi_str rest)
{
    return lsi_str_is(rest, "self_attn.rotary_emb.inv_freq") || lsi_str_is(rest, "attn_rot_embd.weight");
}

/* A tensor inside a layer that the architecture has no use for would make the results quietly wrong. */
static ls_status check_unused(const struct ls_model *m, ls_error *err)
{
    for (size_t i = 0; i < lsi_source_n_tensors(&m->source); i++) {
        struct lsi_tensor t;
        struct lsi_str rest;
        enum lsi_role role;
        size_t layer;
        lsi_source_tensor(&m->source, i, &t);
        if (!lsi_source_layer_name(&m->source, t.name, &layer, &rest) || is_ignored(rest))
            continue;
        const bool known = lsi_source_role(&m->source, m->config.family, t.name, &role, &layer);
        if (!known || layer >= m->config.L || lsi_role_shape(&m->config, role).rank == 0)
            return lsi_fail(err, LS_E_UNSUPPORTED, "%s: tensor %.*s has no place in a %s model of %zu layers",
                            m->path, (int)t.name.len, t.name.s, m->config.family->name, m->config.L);
    }
    return LS_OK;
}

ls_status lsi_model_bind(struct ls_model *m, ls_error *err)
{
    struct lsi_arena plan = { 0 };
    struct binder b = { .m = m, .arena = &plan, .err = err };
    struct lsi_tensor t;

    if (!lsi_source_find(&m->source, m->config.family, LSI_ROLE_OUTPUT, 0, &t))
        m->config.tied = true;
    LSI_TRY(bind_all(&b));
    LSI_TRY(check_unused(m, err));
    if (plan.failed || lsi_arena_init(&m->vectors, m->alloc, plan.used) != LS_OK)
        return lsi_fail(err, LS_E_NOMEM, "%s: out of memory for %zu bytes of norms and names", m->path,
                        plan.used);
    b = (struct binder){ .m = m, .arena = &m->vectors, .err = err };
    LSI_TRY(bind_all(&b));
    m->main_dtype = LSI_F32;
    for (int i = 0; i < LSI_N_DTYPES; i++)
        if (b.n_matrices[i] > b.n_matrices[m->main_dtype])
            m->main_dtype = (enum lsi_dtype)i;
    return LS_OK;
}

/*
 * The configuration in config.json.
 *
 * Reading is in two steps: fields are collected as they are written, by tables
 * of names; then the description is put together with the family's defaults.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "model/config.h"
#include "model/families.h"

/* A field that may be absent. */
struct opt {
    bool set;
    bool null; /* there, but null */
    double v;  /* whole numbers up to 2^53 and truth values as well */
};

struct opt_text {
    bool set;
    char s[64]; /* cut to fit */
};

/* One rope object, or the part of it that holds for one kind of layers. */
struct raw_rope {
    struct opt_text type;
    struct opt theta, factor, low, high, original, attention, beta_fast, beta_slow, mscale, mscale_all,
        truncate, partial;
};

struct raw_config {
    struct opt_text model_type, architecture, name, act, quantization;
    struct opt C, F, L, H, G, D, V, ctx, eps, tied, attention_bias, mlp_bias, window, use_window, pattern,
        query_scalar, bidirectional, softcap_attn, softcap_final, theta, theta_local, partial, bos;
    struct opt experts;
    struct raw_rope scaling;      /* rope_scaling */
    struct raw_rope params;       /* rope_parameters, all layers */
    struct raw_rope params_of[2]; /* rope_parameters.full_attention, .sliding_attention */
    int32_t eos[LSI_MAX_EOS];
    size_t n_eos;
    bool has_text;
    size_t n_layer_types; /* 0: no list */
    bool sliding[LSI_MAX_LAYERS];
};

enum field_kind {
    INT,
    NUMBER,
    BOOL,
    TEXT
};

struct field {
    const char *key;
    enum field_kind kind;
    size_t offset;
};

#define F(key, kind, member)                           \
    {                                                  \
        key, kind, offsetof(struct raw_config, member) \
    }
static const struct field config_fields[] = {
    F("model_type", TEXT, model_type),
    F("_name_or_path", TEXT, name),
    F("hidden_act", TEXT, act),
    F("hidden_activation", TEXT, act),
    F("hidden_size", INT, C),
    F("intermediate_size", INT, F),
    F("num_hidden_layers", INT, L),
    F("num_attention_heads", INT, H),
    F("num_key_value_heads", INT, G),
    F("head_dim", INT, D),
    F("vocab_size", INT, V),
    F("max_position_embeddings", INT, ctx),
    F("rms_norm_eps", NUMBER, eps),
    F("tie_word_embeddings", BOOL, tied),
    F("attention_bias", BOOL, attention_bias),
    F("mlp_bias", BOOL, mlp_bias),
    F("sliding_window", INT, window),
    F("use_sliding_window", BOOL, use_window),
    F("sliding_window_pattern", INT, pattern),
    F("_sliding_window_pattern", INT, pattern),
    F("query_pre_attn_scalar", NUMBER, query_scalar),
    F("use_bidirectional_attention", BOOL, bidirectional),
    F("attn_logit_softcapping", NUMBER, softcap_attn),
    F("final_logit_softcapping", NUMBER, softcap_final),
    F("num_experts", INT, experts),
    F("num_local_experts", INT, experts),
    F("n_routed_experts", INT, experts),
    F("rope_theta", NUMBER, theta),
    F("rope_local_base_freq", NUMBER, theta_local),
    F("partial_rotary_factor", NUMBER, partial),
};
#undef F

#define F(key, kind, member)                         \
    {                                                \
        key, kind, offsetof(struct raw_rope, member) \
    }
static const struct field rope_fields[] = {
    F("rope_type", TEXT, type),
    F("type", TEXT, type),
    F("rope_theta", NUMBER, theta),
    F("factor", NUMBER, factor),
    F("low_freq_factor", NUMBER, low),
    F("high_freq_factor", NUMBER, high),
    F("original_max_position_embeddings", NUMBER, original),
    F("attention_factor", NUMBER, attention),
    F("beta_fast", NUMBER, beta_fast),
    F("beta_slow", NUMBER, beta_slow),
    F("mscale", NUMBER, mscale),
    F("mscale_all_dim", NUMBER, mscale_all),
    F("truncate", BOOL, truncate),
    F("partial_rotary_factor", NUMBER, partial),
};
#undef F

/* ---- collecting ---------------------------------------------------------------------- */

static ls_status read_text(struct lsi_json *j, const char *key, struct opt_text *out)
{
    struct lsi_json_str s;
    char text[sizeof out->s * 6]; /* as long as an escape makes what is kept */
    LSI_TRY(lsi_json_string(j, &s));
    if (s.len > sizeof text) { /* the part that fits, and no escape cut in two */
        const char *escape = s.escaped ? memchr(s.raw, '\\', sizeof text) : NULL;
        s.len = escape ? (size_t)(escape - s.raw) : sizeof text;
        s.escaped = false;
    }
    const size_t len = lsi_json_unescape(&s, text);
    const size_t n = lsi_utf8_valid_prefix(text, lsi_min_size(len, sizeof out->s - 1));
    text[n] = '\0';
    if (out->set && strcmp(out->s, text) != 0)
        return lsi_json_error(j, "\"%s\" is given twice, as \"%s\" and \"%s\"", key, out->s, text);
    out->set = true;
    memcpy(out->s, text, n + 1);
    return LS_OK;
}

/* A value under one of its names. Said twice (older and newer name) it must be the same. */
static ls_status read_value(struct lsi_json *j, const char *key, enum field_kind kind, struct opt *out)
{
    double v = 0;
    if (kind == BOOL) {
        bool b = false;
        LSI_TRY(lsi_json_bool(j, &b));
        v = b;
    } else if (kind == INT) {
        int64_t i = 0;
        LSI_TRY(lsi_json_int(j, &i));
        if (i < 0 || i > ((int64_t)1 << 53))
            return lsi_json_error(j, "\"%s\" is %lld", key, (long long)i);
        v = (double)i;
    } else {
        LSI_TRY(lsi_json_double(j, &v));
    }
    if (out->set && out->v != v)
        return lsi_json_error(j, "\"%s\" is given twice, as %.9g and %.9g", key, out->v, v);
    *out = (struct opt){ .set = true, .v = v };
    return LS_OK;
}

/* Consumes the value when the key is in the table (*known). */
static ls_status read_field(struct lsi_json *j, const struct lsi_json_str *key, const struct field *fields,
                            size_t n, void *base, bool *known)
{
    *known = false;
    for (size_t i = 0; i < n; i++) {
        if (!lsi_json_str_is(key, fields[i].key))
            continue;
        unsigned char *at = (unsigned char *)base + fields[i].offset;
        *known = true;
        if (lsi_json_peek(j) == LSI_JSON_NULL) {
            if (fields[i].kind != TEXT)
                ((struct opt *)(void *)at)->null = true;
            return lsi_json_null(j);
        }
        if (fields[i].kind == TEXT)
            return read_text(j, fields[i].key, (struct opt_text *)(void *)at);
        return read_value(j, fields[i].key, fields[i].kind, (struct opt *)(void *)at);
    }
    return LS_OK;
}

static ls_status read_rope(struct lsi_json *j, struct raw_rope *r, struct raw_rope *parts)
{
    struct lsi_json_str key;
    bool known;
    if (lsi_json_peek(j) == LSI_JSON_NULL)
        return lsi_json_null(j);
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (parts && lsi_json_str_is(&key, "full_attention"))
            LSI_TRY(read_rope(j, &parts[0], NULL));
        else if (parts && lsi_json_str_is(&key, "sliding_attention"))
            LSI_TRY(read_rope(j, &parts[1], NULL));
        else {
            LSI_TRY(read_field(j, &key, rope_fields, LSI_LEN(rope_fields), r, &known));
            if (!known)
                LSI_TRY(lsi_json_skip(j));
        }
    }
    return j->status;
}

static void add_eos(struct raw_config *raw, int64_t id)
{
    if (id >= 0 && id <= INT32_MAX && raw->n_eos < LSI_MAX_EOS)
        raw->eos[raw->n_eos++] = (int32_t)id;
}

/* One id, a list of ids, or null. */
static ls_status read_ids(struct lsi_json *j, struct raw_config *raw)
{
    int64_t id = 0;
    switch (lsi_json_peek(j)) {
    case LSI_JSON_NULL:
        return lsi_json_null(j);
    case LSI_JSON_ARRAY:
        LSI_TRY(lsi_json_array(j));
        while (lsi_json_next_elem(j)) {
            LSI_TRY(lsi_json_int(j, &id));
            add_eos(raw, id);
        }
        return j->status;
    default:
        LSI_TRY(lsi_json_int(j, &id));
        add_eos(raw, id);
        return LS_OK;
    }
}

/* A list has no plain value: Llama's bos_token_id is one number in every file. */
static ls_status read_bos(struct lsi_json *j, struct raw_config *raw)
{
    if (lsi_json_peek(j) == LSI_JSON_NUMBER)
        return read_value(j, "bos_token_id", INT, &raw->bos);
    return lsi_json_skip(j);
}

static ls_status read_layer_types(struct lsi_json *j, struct raw_config *raw)
{
    struct lsi_json_str s;
    if (lsi_json_peek(j) == LSI_JSON_NULL)
        return lsi_json_null(j);
    LSI_TRY(lsi_json_array(j));
    for (raw->n_layer_types = 0; lsi_json_next_elem(j); raw->n_layer_types++) {
        LSI_TRY(lsi_json_string(j, &s));
        if (raw->n_layer_types == LSI_MAX_LAYERS)
            return lsi_json_error(j, "\"layer_types\" lists more than %d layers", LSI_MAX_LAYERS);
        const bool sliding = lsi_json_str_is(&s, "sliding_attention");
        if (!sliding && !lsi_json_str_is(&s, "full_attention"))
            return lsi_json_error(j, "layer type \"%.*s\" is not supported", (int)lsi_min_size(s.len, 64),
                                  s.raw);
        raw->sliding[raw->n_layer_types] = sliding;
    }
    return j->status;
}

static ls_status read_architectures(struct lsi_json *j, struct raw_config *raw)
{
    if (lsi_json_peek(j) != LSI_JSON_ARRAY)
        return lsi_json_skip(j);
    LSI_TRY(lsi_json_array(j));
    while (lsi_json_next_elem(j)) {
        if (!raw->architecture.set && lsi_json_peek(j) == LSI_JSON_STRING)
            LSI_TRY(read_text(j, "architectures", &raw->architecture));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    return j->status;
}

static ls_status read_quantization(struct lsi_json *j, struct raw_config *raw)
{
    struct lsi_json_str key;
    if (lsi_json_peek(j) == LSI_JSON_NULL)
        return lsi_json_null(j);
    struct opt_text method = { .s = "unknown" };
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "quant_method") && lsi_json_peek(j) == LSI_JSON_STRING)
            LSI_TRY(read_text(j, "quant_method", &method));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    method.set = true;
    raw->quantization = method;
    return j->status;
}

/* text: where the object under "text_config" goes; NULL inside it. */
static ls_status read_object(struct lsi_json *j, struct raw_config *raw, struct raw_config *text)
{
    struct lsi_json_str key;
    bool known;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "rope_scaling"))
            LSI_TRY(read_rope(j, &raw->scaling, NULL));
        else if (lsi_json_str_is(&key, "rope_parameters"))
            LSI_TRY(read_rope(j, &raw->params, raw->params_of));
        else if (lsi_json_str_is(&key, "eos_token_id"))
            LSI_TRY(read_ids(j, raw));
        else if (lsi_json_str_is(&key, "bos_token_id"))
            LSI_TRY(read_bos(j, raw));
        else if (lsi_json_str_is(&key, "layer_types"))
            LSI_TRY(read_layer_types(j, raw));
        else if (lsi_json_str_is(&key, "architectures"))
            LSI_TRY(read_architectures(j, raw));
        else if (lsi_json_str_is(&key, "quantization_config"))
            LSI_TRY(read_quantization(j, raw));
        else if (text && lsi_json_str_is(&key, "text_config") && lsi_json_peek(j) == LSI_JSON_OBJECT) {
            LSI_TRY(read_object(j, text, NULL));
            text->has_text = true;
        } else {
            LSI_TRY(read_field(j, &key, config_fields, LSI_LEN(config_fields), raw, &known));
            if (!known)
                LSI_TRY(lsi_json_skip(j));
        }
    }
    return j->status;
}

/* ---- putting together -------------------------------------------------------------------- */

struct reader {
    const struct raw_config *raw;
    const char *name;
    ls_error *err;
};

static ls_status refuse(const struct reader *r, const char *what)
{
    return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: %s is not supported", r->name, what);
}

static ls_status read_family(const struct reader *r, struct lsi_config *c)
{
    const struct raw_config *raw = r->raw;
    c->family = lsi_family_from_hf(raw->model_type.set ? raw->model_type.s : NULL,
                                   raw->architecture.set ? raw->architecture.s : NULL);
    if (c->family)
        return LS_OK;
    if (!raw->model_type.set && !raw->architecture.set)
        return lsi_fail(r->err, LS_E_FORMAT,
                        "%s: neither model_type nor architectures says what the model is", r->name);
    return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: model_type \"%s\" is not supported (supported: %s)",
                    r->name, raw->model_type.set ? raw->model_type.s : raw->architecture.s,
                    lsi_family_list());
}

static ls_status refuse_unsupported(const struct reader *r, const struct lsi_config *c)
{
    const struct raw_config *raw = r->raw;
    if (raw->quantization.set)
        return lsi_fail(
            r->err, LS_E_UNSUPPORTED,
            "%s: quantization_config (%s) is not supported; use the unquantised model or a GGUF file",
            r->name, raw->quantization.s);
    if (raw->softcap_attn.set)
        return refuse(r, "attn_logit_softcapping");
    if (raw->softcap_final.set)
        return refuse(r, "final_logit_softcapping");
    if (raw->experts.set && raw->experts.v > 0)
        return refuse(r, "a mixture of experts (num_experts)");
    if (raw->bidirectional.set && raw->bidirectional.v != 0)
        return refuse(r, "use_bidirectional_attention: true");
    if (raw->use_window.set && raw->use_window.v != 0 && c->family->defaults.window == 0)
        return refuse(r, "use_sliding_window: true");
    const struct opt *partial[] = { &raw->partial, &raw->scaling.partial, &raw->params.partial,
                                    &raw->params_of[0].partial, &raw->params_of[1].partial };
    for (size_t i = 0; i < LSI_LEN(partial); i++)
        if (partial[i]->set && partial[i]->v != 1)
            return refuse(r, "partial_rotary_factor other than 1");
    return LS_OK;
}

static size_t size_or(const struct opt *o, size_t otherwise)
{
    return o->set ? (size_t)o->v : otherwise;
}

static ls_status read_act(const struct reader *r, struct lsi_config *c)
{
    const struct opt_text *act = &r->raw->act;
    c->act = c->family->gelu ? LSI_ACT_GELU_TANH : LSI_ACT_SILU;
    if (!act->set)
        return LS_OK;
    if (strcmp(act->s, "silu") == 0 || strcmp(act->s, "swish") == 0)
        c->act = LSI_ACT_SILU;
    else if (strcmp(act->s, "gelu_pytorch_tanh") == 0)
        c->act = LSI_ACT_GELU_TANH;
    else
        return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not supported", r->name, act->s);
    return LS_OK;
}

static ls_status read_sizes(const struct reader *r, struct lsi_config *c)
{
    const struct raw_config *raw = r->raw;
    const struct lsi_family *f = c->family;
    const struct lsi_family_defaults *d = &f->defaults;
    const bool bias = raw->attention_bias.set && raw->attention_bias.v != 0;

    snprintf(c->name, sizeof c->name, "%s", raw->name.s);
    c->L = size_or(&raw->L, 0);
    c->C = size_or(&raw->C, 0);
    c->F = size_or(&raw->F, 0);
    c->H = size_or(&raw->H, d->n_heads);
    c->G = size_or(&raw->G, d->n_kv_heads ? d->n_kv_heads : c->H);
    c->D = size_or(&raw->D, d->head_dim ? d->head_dim : c->H ? c->C / c->H : 0);
    c->V = size_or(&raw->V, d->n_vocab);
    c->n_ctx_train = size_or(&raw->ctx, d->n_ctx);
    LSI_TRY(lsi_config_check_sizes(c, r->name, r->err));

    LSI_TRY(read_act(r, c));
    c->eps = raw->eps.set ? (float)raw->eps.v : 1e-6f;
    c->qkv_bias = f->qkv_bias || bias;
    c->o_bias = bias && !f->qkv_bias;
    c->mlp_bias = raw->mlp_bias.set && raw->mlp_bias.v != 0;
    c->qk_norm = f->qk_norm;
    c->post_norms = f->post_norms;
    c->tied = raw->tied.set ? raw->tied.v != 0 : d->tied;
    c->embed_scale = f->scaled_embedding ? sqrtf((float)c->C) : 1;
    const double scalar =
        f->scaled_embedding ? raw->query_scalar.set ? raw->query_scalar.v : 256 : (double)c->D;
    c->attn_scale = (float)(1 / sqrt(scalar));
    c->bos = raw->bos.set && raw->bos.v < (double)c->V ? (int32_t)raw->bos.v : -1;
    for (size_t i = 0; i < raw->n_eos; i++)
        lsi_config_add_eos(c, raw->eos[i]);
    return LS_OK;
}

static ls_status read_windows(const struct reader *r, struct lsi_config *c)
{
    const struct raw_config *raw = r->raw;
    const struct lsi_family_defaults *d = &c->family->defaults;
    if (raw->n_layer_types != 0 && raw->n_layer_types != c->L)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: layer_types lists %zu layers of %zu", r->name,
                        raw->n_layer_types, c->L);
    for (size_t i = 0; i < raw->n_layer_types; i++) {
        c->sliding[i] = raw->sliding[i];
        c->n_window_layers += raw->sliding[i];
    }
    if (c->n_window_layers > 0 && d->window == 0)
        return refuse(r, "a sliding layer (layer_types)");
    /* An absent window is the default of the class; null is none. */
    c->window = d->window == 0 || raw->window.null ? 0 : size_or(&raw->window, d->window);
    if (raw->n_layer_types == 0 && c->window > 0)
        lsi_config_set_pattern(c, size_or(&raw->pattern, d->sliding_pattern));
    if (c->n_window_layers == 0)
        c->window = 0;
    return LS_OK;
}

/* ---- rotary embedding --------------------------------------------------------------------- */

/* Take what `from` says into `to`; where both say something it must be the same. */
static ls_status merge_rope(const struct reader *r, struct raw_rope *to, const struct raw_rope *from)
{
    for (size_t i = 0; i < LSI_LEN(rope_fields); i++) {
        const struct field *f = &rope_fields[i];
        void *a = (unsigned char *)to + f->offset;
        const void *b = (const unsigned char *)from + f->offset;
        if (f->kind == TEXT) {
            struct opt_text *x = a;
            const struct opt_text *y = b;
            if (x->set && y->set && strcmp(x->s, y->s) != 0)
                return lsi_fail(r->err, LS_E_FORMAT,
                                "%s: %s of the rope settings is \"%s\" in one place and \"%s\" in "
                                "another",
                                r->name, f->key, x->s, y->s);
            if (y->set)
                *x = *y;
        } else {
            struct opt *x = a;
            const struct opt *y = b;
            if (x->set && y->set && x->v != y->v)
                return lsi_fail(r->err, LS_E_FORMAT,
                                "%s: %s of the rope settings is %.9g in one place and %.9g in "
                                "another",
                                r->name, f->key, x->v, y->v);
            if (y->set)
                *x = *y;
        }
    }
    return LS_OK;
}

static double value_or(const struct opt *o, double otherwise)
{
    return o->set ? o->v : otherwise;
}

static double yarn_attention(const struct raw_rope *raw, double factor)
{
    if (raw->attention.set)
        return raw->attention.v;
    const double num = value_or(&raw->mscale, 0), den = value_or(&raw->mscale_all, 0);
    if (num != 0 && den != 0 && factor > 1)
        return (0.1 * num * log(factor) + 1) / (0.1 * den * log(factor) + 1);
    return lsi_yarn_attention_factor(factor);
}

static ls_status resolve_rope(const struct reader *r, const struct raw_rope *raw, double base, size_t n_ctx,
                              struct lsi_rope_config *out)
{
    const char *type = raw->type.set ? raw->type.s : "default";
    *out =
        (struct lsi_rope_config){ .base = value_or(&raw->theta, base), .factor = 1, .attention_factor = 1 };
    if (strcmp(type, "default") == 0)
        return LS_OK;
    if (strcmp(type, "linear") == 0)
        out->scaling = LSI_ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        out->scaling = LSI_ROPE_LLAMA3;
    else if (strcmp(type, "yarn") == 0)
        out->scaling = LSI_ROPE_YARN;
    else
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s: rope_type \"%s\" is not supported (supported: default, linear, llama3, yarn)",
                        r->name, type);
    out->factor = value_or(&raw->factor, 0);
    out->original_ctx = value_or(&raw->original, out->scaling == LSI_ROPE_YARN ? (double)n_ctx : 0);
    if (out->scaling == LSI_ROPE_LLAMA3) {
        out->low_freq_factor = value_or(&raw->low, 0);
        out->high_freq_factor = value_or(&raw->high, 0);
    }
    if (out->scaling == LSI_ROPE_YARN) {
        out->attention_factor = yarn_attention(raw, out->factor);
        out->beta_fast = value_or(&raw->beta_fast, 32);
        out->beta_slow = value_or(&raw->beta_slow, 1);
        out->truncate = value_or(&raw->truncate, 1) != 0;
    }
    return LS_OK;
}

static ls_status read_rotary(const struct reader *r, struct lsi_config *c)
{
    const struct raw_config *raw = r->raw;
    const struct lsi_family_defaults *d = &c->family->defaults;
    struct raw_rope all = { .theta = raw->theta };
    LSI_TRY(merge_rope(r, &all, &raw->scaling));
    LSI_TRY(merge_rope(r, &all, &raw->params));
    LSI_TRY(merge_rope(r, &all, &raw->params_of[0]));
    LSI_TRY(resolve_rope(r, &all, d->rope_base, c->n_ctx_train, &c->rope[0]));
    c->rope[1] = c->rope[0];
    if (d->rope_base_local == 0)
        return LS_OK;
    struct raw_rope local = { .theta = raw->theta_local };
    LSI_TRY(merge_rope(r, &local, &raw->params_of[1]));
    return resolve_rope(r, &local, d->rope_base_local, c->n_ctx_train, &c->rope[1]);
}

/* What a multimodal file says outside of its text model, where the text model is silent. */
static void inherit(struct raw_config *text, const struct raw_config *outer)
{
    text->model_type = outer->model_type;
    if (!text->tied.set)
        text->tied = outer->tied;
    if (!text->bos.set)
        text->bos = outer->bos;
    if (!text->name.set)
        text->name = outer->name;
    if (!text->quantization.set)
        text->quantization = outer->quantization;
    for (size_t i = 0; i < outer->n_eos; i++)
        add_eos(text, outer->eos[i]);
}

static ls_status build(const struct reader *r, struct lsi_config *c, const ls_alloc *alloc)
{
    LSI_TRY(read_family(r, c));
    LSI_TRY(refuse_unsupported(r, c));
    LSI_TRY(read_sizes(r, c));
    c->alloc = lsi_alloc_or_default(alloc);
    c->sliding = lsi_calloc(c->alloc, c->L, sizeof *c->sliding);
    if (!c->sliding)
        return lsi_fail(r->err, LS_E_NOMEM, "out of memory reading %s", r->name);
    LSI_TRY(read_windows(r, c));
    LSI_TRY(read_rotary(r, c));
    return lsi_config_check(c, r->name, r->err);
}

ls_status lsi_config_from_json(struct lsi_config *c, const void *data, size_t bytes, const char *name,
                               const ls_alloc *alloc, ls_error *err)
{
    struct raw_config outer = { 0 }, text = { 0 };
    struct lsi_json j;

    memset(c, 0, sizeof *c);
    lsi_json_init(&j, data, bytes, name, err);
    LSI_TRY(read_object(&j, &outer, &text));
    LSI_TRY(lsi_json_end(&j));
    if (text.has_text)
        inherit(&text, &outer);
    const struct reader r = { .raw = text.has_text ? &text : &outer, .name = name, .err = err };
    const ls_status st = build(&r, c, alloc);
    if (st != LS_OK)
        lsi_config_fini(c);
    return st;
}

ls_status lsi_config_add_generation(struct lsi_config *c, const void *data, size_t bytes, const char *name,
                                    ls_error *err)
{
    struct raw_config raw = { 0 };
    struct lsi_json j;
    struct lsi_json_str key;

    lsi_json_init(&j, data, bytes, name, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (lsi_json_str_is(&key, "eos_token_id"))
            LSI_TRY(read_ids(&j, &raw));
        else
            LSI_TRY(lsi_json_skip(&j));
    }
    LSI_TRY(lsi_json_end(&j));
    for (size_t i = 0; i < raw.n_eos; i++)
        lsi_config_add_eos(c, raw.eos[i]);
    return LS_OK;
}

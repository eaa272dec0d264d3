/* config.json and generation_config.json, written so that older and newer readers understand them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/families.h"
#include "model/hf_dir.h"

static const char *dtype_name(enum lsi_dtype t)
{
    return t == LSI_F32 ? "float32" : t == LSI_F16 ? "float16" : "bfloat16";
}

static void put_text(struct lsi_buf *b, const char *key, const char *v)
{
    lsi_buf_printf(b, ",\n  \"%s\": \"%s\"", key, v);
}

static void put_size(struct lsi_buf *b, const char *key, size_t v)
{
    lsi_buf_printf(b, ",\n  \"%s\": %zu", key, v);
}

static void put_bool(struct lsi_buf *b, const char *key, bool v)
{
    lsi_buf_printf(b, ",\n  \"%s\": %s", key, v ? "true" : "false");
}

static void put_number(struct lsi_buf *b, const char *key, double v)
{
    lsi_buf_printf(b, ",\n  \"%s\": ", key);
    lsi_buf_json_number(b, v);
}

/* A member of an object on one line. */
static void put_inner(struct lsi_buf *b, const char *key, double v)
{
    lsi_buf_printf(b, ", \"%s\": ", key);
    lsi_buf_json_number(b, v);
}

/* The members of a rope object after its type. */
static void put_scaling(struct lsi_buf *b, const struct lsi_rope_config *r)
{
    if (r->scaling == LSI_ROPE_NONE)
        return;
    put_inner(b, "factor", r->factor);
    if (r->scaling == LSI_ROPE_LINEAR)
        return;
    lsi_buf_printf(b, ", \"original_max_position_embeddings\": %.0f", r->original_ctx);
    if (r->scaling == LSI_ROPE_LLAMA3) {
        put_inner(b, "low_freq_factor", r->low_freq_factor);
        put_inner(b, "high_freq_factor", r->high_freq_factor);
        return;
    }
    put_inner(b, "attention_factor", r->attention_factor);
    put_inner(b, "beta_fast", r->beta_fast);
    put_inner(b, "beta_slow", r->beta_slow);
    if (!r->truncate)
        lsi_buf_printf(b, ", \"truncate\": false");
}

static const char *rope_type(const struct lsi_rope_config *r)
{
    return r->scaling == LSI_ROPE_NONE ? "default" : lsi_rope_scaling_name(r->scaling);
}

static void put_parameters(struct lsi_buf *b, const struct lsi_rope_config *r)
{
    lsi_buf_printf(b, "{\"rope_type\": \"%s\"", rope_type(r));
    put_inner(b, "rope_theta", r->base);
    put_scaling(b, r);
    lsi_buf_printf(b, "}");
}

/* The value of rope_scaling. */
static void put_rope_scaling(struct lsi_buf *b, const struct lsi_config *c)
{
    const struct lsi_rope_config *r = &c->rope[0];
    if (r->scaling == LSI_ROPE_NONE) {
        lsi_buf_printf(b, "null");
        return;
    }
    lsi_buf_printf(b, "{\"rope_type\": \"%s\"", rope_type(r));
    put_scaling(b, r);
    lsi_buf_printf(b, "}");
}

/* The value of rope_parameters. */
static void put_rope_parameters(struct lsi_buf *b, const struct lsi_config *c)
{
    if (c->family->defaults.rope_base_local == 0) {
        put_parameters(b, &c->rope[0]);
        return;
    }
    lsi_buf_printf(b, "{\n    \"full_attention\": ");
    put_parameters(b, &c->rope[0]);
    lsi_buf_printf(b, ",\n    \"sliding_attention\": ");
    put_parameters(b, &c->rope[1]);
    lsi_buf_printf(b, "\n  }");
}

/* Both spellings: rope_theta with rope_scaling, and rope_parameters. */
static void put_rope(struct lsi_buf *b, const struct lsi_config *c)
{
    const struct lsi_rope_config *r = &c->rope[0];
    put_number(b, "rope_theta", r->base);
    lsi_buf_printf(b, ",\n  \"rope_scaling\": ");
    put_rope_scaling(b, c);
    if (c->family->defaults.rope_base_local > 0)
        put_number(b, "rope_local_base_freq", c->rope[1].base);
    lsi_buf_printf(b, ",\n  \"rope_parameters\": ");
    put_rope_parameters(b, c);
}

static void put_windows(struct lsi_buf *b, const struct lsi_config *c)
{
    const struct lsi_family_defaults *d = &c->family->defaults;
    if (d->window == 0)
        return;
    if (c->window == 0)
        lsi_buf_printf(b, ",\n  \"sliding_window\": null");
    else
        put_size(b, "sliding_window", c->window);
    if (d->sliding_pattern == 0)
        return;
    lsi_buf_printf(b, ",\n  \"layer_types\": [");
    for (size_t i = 0; i < c->L; i++)
        lsi_buf_printf(b, "%s\n    \"%s\"", i ? "," : "",
                       c->sliding[i] ? "sliding_attention" : "full_attention");
    lsi_buf_printf(b, "\n  ]");
}

static void put_stops(struct lsi_buf *b, const struct lsi_config *c)
{
    if (c->bos >= 0)
        lsi_buf_printf(b, ",\n  \"bos_token_id\": %d", c->bos);
    else
        lsi_buf_printf(b, ",\n  \"bos_token_id\": null");
    if (c->n_eos == 0)
        lsi_buf_printf(b, ",\n  \"eos_token_id\": null");
    else if (c->n_eos == 1)
        lsi_buf_printf(b, ",\n  \"eos_token_id\": %d", c->eos[0]);
    else {
        lsi_buf_printf(b, ",\n  \"eos_token_id\": [");
        for (size_t i = 0; i < c->n_eos; i++)
            lsi_buf_printf(b, "%s%d", i ? ", " : "", c->eos[i]);
        lsi_buf_printf(b, "]");
    }
}

/* transformers takes nothing but a whole number where its own class says int. */
static void put_query_scalar(struct lsi_buf *b, const struct lsi_config *c)
{
    const double v = nearbyint(1e4 / ((double)c->attn_scale * (double)c->attn_scale)) / 1e4;
    if (v == floor(v))
        put_size(b, "query_pre_attn_scalar", (size_t)v);
    else
        put_number(b, "query_pre_attn_scalar", v);
}

void lsi_config_write_json(const struct lsi_config *c, enum lsi_dtype dtype, struct lsi_buf *b)
{
    const struct lsi_family *f = c->family;
    const bool gemma = f->scaled_embedding;
    lsi_buf_printf(b, "{\n  \"architectures\": [\"%s\"]", f->architectures[0]);
    put_text(b, "model_type", f->model_types[0]);
    if (*c->name) {
        lsi_buf_printf(b, ",\n  \"_name_or_path\": ");
        lsi_buf_json_string(b, c->name, strlen(c->name));
    }
    put_size(b, "hidden_size", c->C);
    put_size(b, "intermediate_size", c->F);
    put_size(b, "num_hidden_layers", c->L);
    put_size(b, "num_attention_heads", c->H);
    put_size(b, "num_key_value_heads", c->G);
    put_size(b, "head_dim", c->D);
    put_size(b, "vocab_size", c->V);
    put_size(b, "max_position_embeddings", c->n_ctx_train);
    put_text(b, gemma ? "hidden_activation" : "hidden_act",
             c->act == LSI_ACT_GELU_TANH ? "gelu_pytorch_tanh" : "silu");
    put_number(b, "rms_norm_eps", (double)c->eps);
    put_bool(b, "tie_word_embeddings", c->tied);
    put_bool(b, "attention_bias", c->o_bias);
    if (c->mlp_bias)
        put_bool(b, "mlp_bias", true);
    put_number(b, "attention_dropout", 0);
    if (gemma)
        put_query_scalar(b, c);
    put_windows(b, c);
    put_rope(b, c);
    put_stops(b, c);
    put_bool(b, "use_cache", true);
    put_text(b, "torch_dtype", dtype_name(dtype));
    put_text(b, "dtype", dtype_name(dtype));
    lsi_buf_printf(b, "\n}\n");
}

void lsi_config_write_generation(const struct lsi_config *c, struct lsi_buf *b)
{
    lsi_buf_printf(b, "{\n  \"_from_model_config\": true");
    put_stops(b, c);
    lsi_buf_printf(b, "\n}\n");
}

/* ---- what config.json cannot say ------------------------------------------------------------ */

ls_status lsi_config_check_hf(const struct lsi_config *c, const char *name, ls_error *err)
{
    const char *what = NULL;
    if (c->freq_divisors && c->rope[0].scaling != LSI_ROPE_LLAMA3)
        what = "frequencies in rope_freqs.weight that follow no known rule";
    else if (!c->family->qkv_bias && c->qkv_bias != c->o_bias)
        what = "biases on some of q, k, v and o only";
    else if (!c->family->scaled_embedding && fabs((double)c->attn_scale * sqrt((double)c->D) - 1) > 1e-5)
        what = "attention.scale";
    if (!what)
        return LS_OK;
    return lsi_fail(err, LS_E_UNSUPPORTED, "%s: a Hugging Face %s model cannot have %s", name,
                    c->family->name, what);
}

/* ---- other values in an existing file ----------------------------------------------------- */

/* Members of the outermost object that a configuration decides. */
enum field {
    FIELD_MODEL_TYPE,
    FIELD_CTX,
    FIELD_TIED,
    FIELD_ROPE_THETA,
    FIELD_ROPE_SCALING,
    FIELD_ROPE_LOCAL,
    FIELD_ROPE_PARAMETERS,
    N_FIELDS
};

static const char *const field_keys[N_FIELDS] = {
    [FIELD_MODEL_TYPE] = "model_type",           [FIELD_CTX] = "max_position_embeddings",
    [FIELD_TIED] = "tie_word_embeddings",        [FIELD_ROPE_THETA] = "rope_theta",
    [FIELD_ROPE_SCALING] = "rope_scaling",       [FIELD_ROPE_LOCAL] = "rope_local_base_freq",
    [FIELD_ROPE_PARAMETERS] = "rope_parameters",
};

/* A copy of a text under way. */
struct patcher {
    struct lsi_buf *b;
    const char *copied; /* up to here the text is in b */
    const char *dtype;
    const struct lsi_config *c; /* NULL: the dtype alone */
    bool change[N_FIELDS];      /* to what c says */
    bool seen[N_FIELDS];
};

static void put_field(struct lsi_buf *b, const struct lsi_config *c, enum field f)
{
    switch (f) {
    case FIELD_MODEL_TYPE:
        lsi_buf_printf(b, "\"%s\"", c->family->model_types[0]);
        break;
    case FIELD_CTX:
        lsi_buf_printf(b, "%zu", c->n_ctx_train);
        break;
    case FIELD_TIED:
        lsi_buf_printf(b, "%s", c->tied ? "true" : "false");
        break;
    case FIELD_ROPE_THETA:
        lsi_buf_json_number(b, c->rope[0].base);
        break;
    case FIELD_ROPE_SCALING:
        put_rope_scaling(b, c);
        break;
    case FIELD_ROPE_LOCAL:
        lsi_buf_json_number(b, c->rope[1].base);
        break;
    case FIELD_ROPE_PARAMETERS:
        put_rope_parameters(b, c);
        break;
    case N_FIELDS:
        break;
    }
}

/* The value at the reader is replaced in the copy by what the caller appends afterwards. */
static ls_status leave_out(struct lsi_json *j, struct patcher *r)
{
    lsi_json_peek(j); /* to the value's first byte */
    lsi_buf_append(r->b, r->copied, (size_t)(j->p - r->copied));
    LSI_TRY(lsi_json_skip(j));
    r->copied = j->p;
    return LS_OK;
}

/* Members that the text lacks, before the brace that ends the outermost object. `last` is the end of what
 * stands before. Both spellings of the rotary settings are known to older readers by the first alone. */
static void add_missing(struct patcher *r, const char *last)
{
    const bool old_spelling = !r->seen[FIELD_ROPE_PARAMETERS];
    const bool local = r->c->family->defaults.rope_base_local > 0;
    lsi_buf_append(r->b, r->copied, (size_t)(last - r->copied));
    r->copied = last;
    for (enum field f = 0; f < N_FIELDS; f++) {
        const bool wanted = f == FIELD_MODEL_TYPE  ? true
                            : f < FIELD_ROPE_THETA ? r->change[f]
                            : f == FIELD_ROPE_LOCAL
                                ? r->change[f] && old_spelling && local
                                : f != FIELD_ROPE_PARAMETERS && r->change[f] && old_spelling;
        if (!wanted || r->seen[f])
            continue;
        lsi_buf_printf(r->b, ",\n  \"%s\": ", field_keys[f]);
        put_field(r->b, r->c, f);
    }
}

static enum field field_of(const struct lsi_json_str *key)
{
    enum field f = 0;
    while (f < N_FIELDS && !lsi_json_str_is(key, field_keys[f]))
        f++;
    return f;
}

static ls_status patch_object(struct lsi_json *j, struct patcher *r, bool outermost)
{
    struct lsi_json_str key;
    const char *last = NULL;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const enum lsi_json_type type = lsi_json_peek(j);
        const enum field f = outermost && r->c ? field_of(&key) : N_FIELDS;
        if (f < N_FIELDS && r->change[f]) {
            LSI_TRY(leave_out(j, r));
            put_field(r->b, r->c, f);
        } else if (type == LSI_JSON_STRING &&
                   (lsi_json_str_is(&key, "dtype") || lsi_json_str_is(&key, "torch_dtype"))) {
            LSI_TRY(leave_out(j, r));
            lsi_buf_printf(r->b, "\"%s\"", r->dtype);
        } else if (type == LSI_JSON_OBJECT) {
            LSI_TRY(patch_object(j, r, false));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
        if (f < N_FIELDS)
            r->seen[f] = true;
        last = j->p;
    }
    LSI_TRY(j->status);
    if (outermost && r->c && last)
        add_missing(r, last);
    return LS_OK;
}

static ls_status patch(struct patcher *r, const void *data, size_t bytes, const char *name, ls_error *err)
{
    struct lsi_json j;
    lsi_json_init(&j, data, bytes, name, err);
    LSI_TRY(patch_object(&j, r, true));
    LSI_TRY(lsi_json_end(&j));
    lsi_buf_append(r->b, r->copied, (size_t)((const char *)data + bytes - r->copied));
    return LS_OK;
}

ls_status lsi_config_retype_json(const void *data, size_t bytes, const char *name, enum lsi_dtype dtype,
                                 struct lsi_buf *b, ls_error *err)
{
    struct patcher r = { .b = b, .copied = data, .dtype = dtype_name(dtype) };
    return patch(&r, data, bytes, name, err);
}

static bool same_rope(const struct lsi_rope_config *a, const struct lsi_rope_config *b)
{
    return a->base == b->base && a->scaling == b->scaling && a->factor == b->factor &&
           a->original_ctx == b->original_ctx && a->low_freq_factor == b->low_freq_factor &&
           a->high_freq_factor == b->high_freq_factor && a->attention_factor == b->attention_factor &&
           a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow && a->truncate == b->truncate;
}

static ls_status has_text_config(const void *data, size_t bytes, const char *name, bool *has, ls_error *err)
{
    struct lsi_json j;
    struct lsi_json_str key;
    lsi_json_init(&j, data, bytes, name, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (lsi_json_str_is(&key, "text_config") && lsi_json_peek(&j) == LSI_JSON_OBJECT)
            *has = true;
        LSI_TRY(lsi_json_skip(&j));
    }
    return lsi_json_end(&j);
}

ls_status lsi_config_patch_json(const void *data, size_t bytes, const char *name, const struct lsi_config *c,
                                enum lsi_dtype dtype, struct lsi_buf *b, ls_error *err)
{
    struct patcher r = { .b = b, .copied = data, .dtype = dtype_name(dtype), .c = c };
    struct lsi_config old;
    bool multimodal = false;
    LSI_TRY(has_text_config(data, bytes, name, &multimodal, err));
    if (multimodal) {
        lsi_config_write_json(c, dtype, b);
        return LS_OK;
    }
    LSI_TRY(lsi_config_from_json(&old, data, bytes, name, c->alloc, err));
    /* YaRN's original length is the context length where the text is silent: both are written then. */
    const bool rope = !same_rope(&old.rope[0], &c->rope[0]) || !same_rope(&old.rope[1], &c->rope[1]) ||
                      (c->rope[0].scaling == LSI_ROPE_YARN && old.n_ctx_train != c->n_ctx_train);
    for (enum field f = FIELD_ROPE_THETA; f < N_FIELDS; f++)
        r.change[f] = rope;
    r.change[FIELD_CTX] = old.n_ctx_train != c->n_ctx_train;
    r.change[FIELD_TIED] = old.tied != c->tied;
    lsi_config_fini(&old);
    return patch(&r, data, bytes, name, err);
}

/* config.json and generation_config.json, written so that older and newer readers understand them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/convert_impl.h"

static const char *dtype_name(enum lsi_dtype t)
{
    return t == LSI_F32 ? "float32" : t == LSI_F16 ? "float16" : "bfloat16";
}

/* The fewest digits that give the value back. Files keep most numbers in fp32: 1e-5 there is 9.99999975e-06.
 */
static void number_text(double v, char *out, size_t cap)
{
    const bool single = (double)(float)v == v;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, cap, "%.*g", digits, v);
        const double back = strtod(out, NULL);
        if (single ? (float)back == (float)v : back == v)
            break;
    }
    char *comma = strchr(out, ','); /* of the caller's locale */
    if (comma)
        *comma = '.';
    const size_t len = strlen(out);
    if (!strpbrk(out, ".en") && len + 3 <= cap)
        memcpy(out + len, ".0", 3);
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
    char text[40];
    number_text(v, text, sizeof text);
    lsi_buf_printf(b, ",\n  \"%s\": %s", key, text);
}

/* A member of an object on one line. */
static void put_inner(struct lsi_buf *b, const char *key, double v)
{
    char text[40];
    number_text(v, text, sizeof text);
    lsi_buf_printf(b, ", \"%s\": %s", key, text);
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
    char text[40];
    number_text(r->base, text, sizeof text);
    lsi_buf_printf(b, "{\"rope_type\": \"%s\", \"rope_theta\": %s", rope_type(r), text);
    put_scaling(b, r);
    lsi_buf_printf(b, "}");
}

/* Both spellings: rope_theta with rope_scaling, and rope_parameters. */
static void put_rope(struct lsi_buf *b, const struct lsi_config *c)
{
    const struct lsi_rope_config *r = &c->rope[0];
    put_number(b, "rope_theta", r->base);
    if (r->scaling == LSI_ROPE_NONE) {
        lsi_buf_printf(b, ",\n  \"rope_scaling\": null");
    } else {
        lsi_buf_printf(b, ",\n  \"rope_scaling\": {\"rope_type\": \"%s\"", rope_type(r));
        put_scaling(b, r);
        lsi_buf_printf(b, "}");
    }
    if (c->family->defaults.rope_base_local == 0) {
        lsi_buf_printf(b, ",\n  \"rope_parameters\": ");
        put_parameters(b, r);
        return;
    }
    put_number(b, "rope_local_base_freq", c->rope[1].base);
    lsi_buf_printf(b, ",\n  \"rope_parameters\": {\n    \"full_attention\": ");
    put_parameters(b, r);
    lsi_buf_printf(b, ",\n    \"sliding_attention\": ");
    put_parameters(b, &c->rope[1]);
    lsi_buf_printf(b, "\n  }");
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

void lsi_convert_config_json(const struct lsi_convert *cv, enum lsi_dtype dtype, struct lsi_buf *b)
{
    const struct lsi_config *c = &cv->m->config;
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
        put_number(b, "query_pre_attn_scalar",
                   nearbyint(1e4 / ((double)c->attn_scale * (double)c->attn_scale)) / 1e4);
    put_windows(b, c);
    put_rope(b, c);
    put_stops(b, c);
    put_bool(b, "use_cache", true);
    put_text(b, "torch_dtype", dtype_name(dtype));
    put_text(b, "dtype", dtype_name(dtype));
    lsi_buf_printf(b, "\n}\n");
}

void lsi_convert_generation_json(const struct lsi_convert *cv, struct lsi_buf *b)
{
    lsi_buf_printf(b, "{\n  \"_from_model_config\": true");
    put_stops(b, &cv->m->config);
    lsi_buf_printf(b, "\n}\n");
}

/* ---- another dtype in an existing file ---------------------------------------------------- */

struct retyper {
    struct lsi_buf *b;
    const char *copied; /* up to here the text is in b */
    const char *dtype;
};

static ls_status retype_object(struct lsi_json *j, struct retyper *r)
{
    struct lsi_json_str key, value;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const enum lsi_json_type type = lsi_json_peek(j);
        const bool names_dtype = lsi_json_str_is(&key, "dtype") || lsi_json_str_is(&key, "torch_dtype");
        if (type == LSI_JSON_STRING && names_dtype) {
            LSI_TRY(lsi_json_string(j, &value));
            lsi_buf_append(r->b, r->copied, (size_t)(value.raw - r->copied));
            lsi_buf_printf(r->b, "%s", r->dtype);
            r->copied = value.raw + value.len;
        } else if (type == LSI_JSON_OBJECT) {
            LSI_TRY(retype_object(j, r));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    return j->status;
}

ls_status lsi_convert_retype_json(const void *data, size_t bytes, const char *name, enum lsi_dtype dtype,
                                  struct lsi_buf *b, ls_error *err)
{
    struct lsi_json j;
    struct retyper r = { .b = b, .copied = data, .dtype = dtype_name(dtype) };
    lsi_json_init(&j, data, bytes, name, err);
    LSI_TRY(retype_object(&j, &r));
    LSI_TRY(lsi_json_end(&j));
    lsi_buf_append(b, r.copied, (size_t)((const char *)data + bytes - r.copied));
    return LS_OK;
}

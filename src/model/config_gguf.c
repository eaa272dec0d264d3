/* The configuration in the metadata of a GGUF file. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "model/families.h"

#define GEMMA3_PATTERN    6   /* not stored in the files: the reference fixes it */
#define GEMMA3_27B_LAYERS 62  /* the one size whose score scale does not follow from the head */
#define LLAMA3_LOW        1.0 /* in every published llama3 scaling */
#define LLAMA3_HIGH       4.0
#define LLAMA3_CONTEXT    8192.0

/* Keys of one file: "ARCH.suffix". */
struct reader {
    const struct lsi_gguf *g;
    const char *name; /* path, for messages */
    ls_error *err;
    char arch[64];
    char key[128];
};

static const char *key_of(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->key;
}

/* A size; an array, one value per layer, must hold equal values. Absent: *out as it was. */
static ls_status read_size(struct reader *r, const char *suffix, size_t *out)
{
    const struct lsi_gguf_kv *kv = lsi_gguf_find(r->g, key_of(r, suffix));
    if (!kv)
        return LS_OK;
    uint64_t v;
    if (kv->type != LSI_GGUF_ARRAY) {
        if (!lsi_gguf_get_u64(r->g, r->key, &v) || v > SIZE_MAX)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: %s is not a whole number", r->name, r->key);
        *out = (size_t)v;
        return LS_OK;
    }
    int64_t first = 0;
    for (uint64_t i = 0; i < kv->count; i++) {
        int64_t e;
        if (!lsi_gguf_elem_i64(kv, i, &e) || e < 0)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: %s is not a list of whole numbers", r->name, r->key);
        if (i > 0 && e != first)
            return lsi_fail(r->err, LS_E_UNSUPPORTED,
                            "%s: %s differs between layers (%lld, then %lld), which is not supported",
                            r->name, r->key, (long long)first, (long long)e);
        first = e;
    }
    if (kv->count > 0)
        *out = (size_t)first;
    return LS_OK;
}

static ls_status read_double(struct reader *r, const char *suffix, double *out)
{
    if (lsi_gguf_find(r->g, key_of(r, suffix)) && !lsi_gguf_get_f64(r->g, r->key, out))
        return lsi_fail(r->err, LS_E_FORMAT, "%s: %s is not a number", r->name, r->key);
    return LS_OK;
}

static bool has_tensor(const struct reader *r, const char *name)
{
    return lsi_gguf_find_tensor(r->g, name);
}

/* ---- refusals -------------------------------------------------------------------------- */

static ls_status refuse_unsupported(struct reader *r)
{
    static const char *const zero[] = {
        "expert_count",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "attention.max_alibi_bias",
        "attention.clamp_kqv",
        "rope.scaling.yarn_log_multiplier",
        "embedding_length_per_layer_input",
    };
    for (size_t i = 0; i < LSI_LEN(zero); i++) {
        double v = 0;
        LSI_TRY(read_double(r, zero[i], &v));
        if (v != 0)
            return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: %s is %g, which is not supported", r->name, r->key,
                            v);
    }
    bool causal = true;
    if (lsi_gguf_get_bool(r->g, key_of(r, "attention.causal"), &causal) && !causal)
        return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: %s is false: only causal attention is supported",
                        r->name, r->key);
    return LS_OK;
}

static ls_status read_family(struct reader *r, struct lsi_config *c)
{
    struct lsi_str arch;
    if (!lsi_gguf_get_str(r->g, "general.architecture", &arch))
        return lsi_fail(r->err, LS_E_FORMAT, "%s: general.architecture is missing", r->name);
    c->family = lsi_family_from_gguf(arch.s, arch.len);
    if (!c->family)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s: architecture \"%.*s\" is not supported (supported: %s)", r->name,
                        (int)lsi_min_size(arch.len, 64), arch.s, lsi_family_list());
    snprintf(r->arch, sizeof r->arch, "%s", c->family->gguf_arch);
    struct lsi_str name;
    if (lsi_gguf_get_str(r->g, "general.name", &name))
        snprintf(c->name, sizeof c->name, "%.*s",
                 (int)lsi_utf8_valid_prefix(name.s, lsi_min_size(name.len, sizeof c->name - 1)), name.s);
    return LS_OK;
}

/* ---- sizes ------------------------------------------------------------------------------ */

static ls_status read_sizes(struct reader *r, struct lsi_config *c)
{
    LSI_TRY(read_size(r, "block_count", &c->L));
    LSI_TRY(read_size(r, "embedding_length", &c->C));
    LSI_TRY(read_size(r, "feed_forward_length", &c->F));
    LSI_TRY(read_size(r, "context_length", &c->n_ctx_train));
    LSI_TRY(read_size(r, "attention.head_count", &c->H));
    c->G = c->H;
    LSI_TRY(read_size(r, "attention.head_count_kv", &c->G));
    c->D = c->H ? c->C / c->H : 0;
    LSI_TRY(read_size(r, "attention.key_length", &c->D));
    size_t value_length = c->D, rotated = c->D;
    LSI_TRY(read_size(r, "attention.value_length", &value_length));
    if (value_length != c->D)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s: keys have %zu values and values %zu; they must be equal", r->name, c->D,
                        value_length);
    LSI_TRY(read_size(r, "rope.dimension_count", &rotated));
    if (rotated != c->D)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s: %s is %zu of %zu: partial rotary embeddings are not supported", r->name, r->key,
                        rotated, c->D);
    const struct lsi_gguf_tensor *embd = lsi_gguf_find_tensor(r->g, "token_embd.weight");
    if (!embd)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor token_embd.weight is missing", r->name);
    c->V = embd->n_dims == 2 && embd->dims[1] <= SIZE_MAX ? (size_t)embd->dims[1] : 0;
    return LS_OK;
}

static void read_flags(struct reader *r, struct lsi_config *c)
{
    const struct lsi_family *f = c->family;
    c->act = f->gelu ? LSI_ACT_GELU_TANH : LSI_ACT_SILU;
    c->qkv_bias = f->qkv_bias || has_tensor(r, "blk.0.attn_q.bias");
    c->o_bias = has_tensor(r, "blk.0.attn_output.bias");
    c->mlp_bias = has_tensor(r, "blk.0.ffn_gate.bias");
    c->qk_norm = f->qk_norm;
    c->post_norms = f->post_norms;
    c->tied = !has_tensor(r, "output.weight");
    c->interleaved = f->interleaved_gguf;
    c->embed_scale = f->scaled_embedding ? sqrtf((float)c->C) : 1;
}

static ls_status read_scales(struct reader *r, struct lsi_config *c)
{
    double eps = 1e-6, scale = 1 / sqrt((double)c->D);
    LSI_TRY(read_double(r, "attention.layer_norm_rms_epsilon", &eps));
    if (c->family->post_norms && c->L == GEMMA3_27B_LAYERS)
        scale = 1 / sqrt((double)c->C / (double)c->H);
    LSI_TRY(read_double(r, "attention.scale", &scale));
    c->eps = (float)eps;
    c->attn_scale = (float)scale;
    return LS_OK;
}

/* ---- windows ------------------------------------------------------------------------------ */

static ls_status read_windows(struct reader *r, struct lsi_config *c)
{
    size_t window = 0;
    LSI_TRY(read_size(r, "attention.sliding_window", &window));
    if (window == 0)
        return LS_OK;
    const struct lsi_family *windowed = lsi_family_windowed(c->family);
    if (windowed->defaults.window == 0)
        return LS_OK; /* Qwen writes a window it does not use */
    c->family = windowed;
    c->window = window;
    const struct lsi_gguf_kv *kv = lsi_gguf_find(r->g, key_of(r, "attention.sliding_window_pattern"));
    if (kv && kv->type == LSI_GGUF_ARRAY) {
        if (kv->elem_type != LSI_GGUF_BOOL || kv->count != c->L)
            return lsi_fail(r->err, LS_E_FORMAT, "%s: %s must hold one flag for each of %zu layers", r->name,
                            r->key, c->L);
        for (size_t i = 0; i < c->L; i++) {
            c->sliding[i] = kv->data[i] != 0;
            c->n_window_layers += c->sliding[i];
        }
        return LS_OK;
    }
    size_t pattern = c->family->defaults.sliding_pattern ? GEMMA3_PATTERN : 0;
    LSI_TRY(read_size(r, "attention.sliding_window_pattern", &pattern));
    lsi_config_set_pattern(c, pattern);
    return LS_OK;
}

/* ---- rotary embedding ---------------------------------------------------------------------- */

static ls_status read_scaling_type(struct reader *r, struct lsi_rope_config *rope)
{
    struct lsi_str type = { "linear", 6 };
    lsi_gguf_get_str(r->g, key_of(r, "rope.scaling.type"), &type);
    for (int i = 0; i < LSI_N_ROPE_SCALINGS; i++) {
        const char *known = lsi_rope_scaling_name((enum lsi_rope_scaling)i);
        if (i != LSI_ROPE_LLAMA3 && strlen(known) == type.len && memcmp(known, type.s, type.len) == 0) {
            rope->scaling = (enum lsi_rope_scaling)i;
            return LS_OK;
        }
    }
    return lsi_fail(r->err, LS_E_UNSUPPORTED, "%s: rope scaling \"%.*s\" is not supported", r->name,
                    (int)lsi_min_size(type.len, 64), type.s);
}

static ls_status read_rope(struct reader *r, struct lsi_config *c)
{
    struct lsi_rope_config *rope = &c->rope[0];
    *rope = (struct lsi_rope_config){
        .base = 10000, .factor = 0, .attention_factor = 1, .beta_fast = 32, .beta_slow = 1, .truncate = true
    };
    LSI_TRY(read_double(r, "rope.freq_base", &rope->base));
    LSI_TRY(read_scaling_type(r, rope));
    LSI_TRY(read_double(r, "rope.scale_linear", &rope->factor));
    LSI_TRY(read_double(r, "rope.scaling.factor", &rope->factor));
    if (rope->factor == 0)
        rope->factor = 1;
    if (rope->factor == 1 && rope->scaling == LSI_ROPE_LINEAR)
        rope->scaling = LSI_ROPE_NONE;
    if (rope->scaling == LSI_ROPE_NONE)
        rope->factor = 1;
    if (rope->scaling == LSI_ROPE_YARN) {
        double more = 1;
        rope->original_ctx = (double)c->n_ctx_train;
        LSI_TRY(read_double(r, "rope.scaling.original_context_length", &rope->original_ctx));
        LSI_TRY(read_double(r, "rope.scaling.attn_factor", &more));
        LSI_TRY(read_double(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast));
        LSI_TRY(read_double(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow));
        /* The first is the whole factor, as config.json has it; the second multiplies. */
        rope->attention_factor = lsi_yarn_attention_factor(rope->factor);
        LSI_TRY(read_double(r, "rope.scaling.yarn_attn_factor", &rope->attention_factor));
        rope->attention_factor *= more;
    }
    c->rope[1] = *rope;
    if (c->family->defaults.rope_base_local > 0) {
        c->rope[1] = (struct lsi_rope_config){ .base = c->family->defaults.rope_base_local,
                                               .factor = 1,
                                               .attention_factor = 1 };
        LSI_TRY(read_double(r, "rope.freq_base_swa", &c->rope[1].base));
    }
    return LS_OK;
}

static bool follows_llama3(const struct lsi_config *c, struct lsi_rope_config try)
{
    double plain[LSI_MAX_HEAD / 2], scaled[LSI_MAX_HEAD / 2];
    try.scaling = LSI_ROPE_NONE;
    lsi_rope_frequencies(&try, NULL, c->D, plain);
    try.scaling = LSI_ROPE_LLAMA3;
    lsi_rope_frequencies(&try, NULL, c->D, scaled);
    for (size_t i = 0; i < c->D / 2; i++)
        if (!(fabs(plain[i] / scaled[i] / c->freq_divisors[i] - 1) < 1e-4))
            return false;
    return true;
}

/*
 * Files store llama3 scaling only as divisors. Recover the settings that made them:
 * the factor is the largest divisor; the original context is the published one or
 * follows from a divisor between 1 and the factor.
 */
static void recognise_llama3(struct lsi_config *c)
{
    struct lsi_rope_config try = c->rope[0];
    double inv_freq[LSI_MAX_HEAD / 2];
    lsi_rope_frequencies(&try, NULL, c->D, inv_freq);
    try.low_freq_factor = LLAMA3_LOW;
    try.high_freq_factor = LLAMA3_HIGH;
    try.original_ctx = LLAMA3_CONTEXT;
    try.factor = 1;
    for (size_t i = 0; i < c->D / 2; i++)
        try.factor = fmax(try.factor, c->freq_divisors[i]);
    for (size_t i = 0; i < c->D / 2 && !follows_llama3(c, try); i++) {
        const double d = c->freq_divisors[i];
        if (d <= 1.0001 || d >= try.factor * 0.9999)
            continue;
        const double s = (1 / d - 1 / try.factor) / (1 - 1 / try.factor);
        try.original_ctx = nearbyint((LLAMA3_LOW + s * (LLAMA3_HIGH - LLAMA3_LOW)) *
                                     6.283185307179586476925286766559 / inv_freq[i]);
    }
    if (!follows_llama3(c, try))
        return;
    try.scaling = LSI_ROPE_LLAMA3;
    c->rope[0] = try;
    if (c->family->defaults.rope_base_local == 0)
        c->rope[1] = try;
}

static ls_status read_divisors(struct reader *r, struct lsi_config *c)
{
    const struct lsi_gguf_tensor *t = lsi_gguf_find_tensor(r->g, "rope_freqs.weight");
    if (!t)
        return LS_OK;
    if (c->rope[0].scaling != LSI_ROPE_NONE)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s: rope_freqs.weight together with %s scaling is not supported", r->name,
                        lsi_rope_scaling_name(c->rope[0].scaling));
    if (t->dtype != LSI_F32 || t->n_dims != 1 || t->dims[0] != c->D / 2)
        return lsi_fail(r->err, LS_E_FORMAT, "%s: tensor rope_freqs.weight: expected %zu values of F32",
                        r->name, c->D / 2);
    c->freq_divisors = lsi_calloc(c->alloc, c->D / 2, sizeof *c->freq_divisors);
    if (!c->freq_divisors)
        return lsi_fail(r->err, LS_E_NOMEM, "out of memory reading %s", r->name);
    for (size_t i = 0; i < c->D / 2; i++) {
        float d;
        memcpy(&d, t->data + i * sizeof d, sizeof d);
        if (!(d > 0) || !isfinite(d))
            return lsi_fail(r->err, LS_E_FORMAT, "%s: rope_freqs.weight[%zu] is %g; it must be positive",
                            r->name, i, (double)d);
        c->freq_divisors[i] = (double)d;
    }
    recognise_llama3(c);
    return LS_OK;
}

static void read_stops(struct reader *r, struct lsi_config *c)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    uint64_t id;
    c->bos = -1;
    if (lsi_gguf_get_u64(r->g, "tokenizer.ggml.bos_token_id", &id) && id < c->V)
        c->bos = (int32_t)id;
    for (size_t i = 0; i < LSI_LEN(keys); i++)
        if (lsi_gguf_get_u64(r->g, keys[i], &id) && id < c->V)
            lsi_config_add_eos(c, (int64_t)id);
}

ls_status lsi_config_from_gguf(struct lsi_config *c, const struct lsi_gguf *g, const char *name,
                               const ls_alloc *alloc, ls_error *err)
{
    struct reader r = { .g = g, .name = name, .err = err };
    ls_status st;

    memset(c, 0, sizeof *c);
    LSI_TRY_OR(fail, read_family(&r, c));
    LSI_TRY_OR(fail, refuse_unsupported(&r));
    LSI_TRY_OR(fail, read_sizes(&r, c));
    LSI_TRY_OR(fail, lsi_config_check_sizes(c, name, err));

    c->alloc = lsi_alloc_or_default(alloc);
    c->sliding = lsi_calloc(c->alloc, c->L, sizeof *c->sliding);
    if (!c->sliding) {
        st = lsi_fail(err, LS_E_NOMEM, "out of memory reading %s", name);
        goto fail;
    }
    read_flags(&r, c);
    read_stops(&r, c);
    LSI_TRY_OR(fail, read_scales(&r, c));
    LSI_TRY_OR(fail, read_windows(&r, c));
    LSI_TRY_OR(fail, read_rope(&r, c));
    LSI_TRY_OR(fail, lsi_config_check(c, name, err));
    LSI_TRY_OR(fail, read_divisors(&r, c));
    return LS_OK;

fail:
    lsi_config_fini(c);
    return st;
}

/* Writing GGUF files. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/convert_impl.h"
#include "tokenizer/tokenizer.h"

#define QUANTIZATION_VERSION 2
#define LOCAL_ROPE_BASE      10000.0 /* what readers assume for Gemma 3's sliding layers */
#define SLIDING_PATTERN      6       /* the same for the order of its layers */

/* general.file_type for the type that most matrices have. */
static uint32_t file_type(enum lsi_dtype t)
{
    static const struct {
        enum lsi_dtype dtype;
        uint32_t id;
    } known[] = {
        { LSI_F32, 0 },   { LSI_F16, 1 },   { LSI_Q4_0, 2 },  { LSI_Q4_1, 3 },
        { LSI_Q8_0, 7 },  { LSI_Q5_0, 8 },  { LSI_Q5_1, 9 },  { LSI_Q4_K, 15 },
        { LSI_Q5_K, 17 }, { LSI_Q6_K, 18 }, { LSI_BF16, 32 },
    };
    for (size_t i = 0; i < LSI_LEN(known); i++)
        if (known[i].dtype == t)
            return known[i].id;
    return 0;
}

static bool begins_with(struct lsi_str s, const char *text)
{
    return s.len >= strlen(text) && memcmp(s.s, text, strlen(text)) == 0;
}

/* What is said of the rotary embedding and the length of the context. */
static bool is_position(const struct lsi_convert *cv, struct lsi_str key)
{
    char rope[128], context[128];
    snprintf(rope, sizeof rope, "%s.rope.", cv->m->config.family->gguf_arch);
    snprintf(context, sizeof context, "%s.context_length", cv->m->config.family->gguf_arch);
    return begins_with(key, rope) || lsi_str_is(key, context);
}

/* Everything but what this conversion decides anew. */
static void copy_metadata(const struct lsi_convert *cv, struct lsi_gguf_writer *w)
{
    const struct lsi_gguf *g = &cv->m->source.gguf;
    const bool keep = cv->dtype == LSI_N_DTYPES;
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct lsi_gguf_kv *kv = &g->kv[i];
        const bool decided =
            lsi_str_is(kv->key, "general.file_type") || lsi_str_is(kv->key, "general.quantization_version");
        const bool again = cv->reconfigured && is_position(cv, kv->key);
        if (!begins_with(kv->key, "split.") && !again && (keep || !decided))
            lsi_gguf_put_kv(w, kv);
    }
    if (!keep)
        lsi_gguf_put_u32(w, "general.file_type", file_type(cv->dtype));
    if (!keep && lsi_dtype_is_quantized(cv->dtype))
        lsi_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
}

/* Keys of the architecture: "ARCH.suffix". */
struct arch {
    struct lsi_gguf_writer *w;
    const char *name;
    char key[128];
};

static const char *key_of(struct arch *a, const char *suffix)
{
    snprintf(a->key, sizeof a->key, "%s.%s", a->name, suffix);
    return a->key;
}

static void put_size(struct arch *a, const char *suffix, size_t v)
{
    lsi_gguf_put_u32(a->w, key_of(a, suffix), (uint32_t)v);
}

static void put_double(struct arch *a, const char *suffix, double v)
{
    lsi_gguf_put_f32(a->w, key_of(a, suffix), (float)v);
}

static void put_rope(struct arch *a, const struct lsi_config *c)
{
    const struct lsi_rope_config *r = &c->rope[0];
    put_size(a, "rope.dimension_count", c->D);
    put_double(a, "rope.freq_base", r->base);
    if (c->family->defaults.rope_base_local > 0 && c->rope[1].base != LOCAL_ROPE_BASE)
        put_double(a, "rope.freq_base_swa", c->rope[1].base);
    if (r->scaling != LSI_ROPE_LINEAR && r->scaling != LSI_ROPE_YARN)
        return;
    const char *type = lsi_rope_scaling_name(r->scaling);
    lsi_gguf_put_str(a->w, key_of(a, "rope.scaling.type"), type, strlen(type));
    put_double(a, "rope.scaling.factor", r->factor);
    if (r->scaling != LSI_ROPE_YARN)
        return;
    put_size(a, "rope.scaling.original_context_length", (size_t)r->original_ctx);
    put_double(a, "rope.scaling.attn_factor", r->attention_factor / lsi_yarn_attention_factor(r->factor));
    put_double(a, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_double(a, "rope.scaling.yarn_beta_slow", r->beta_slow);
}

/* The same of a configuration that is not the source's. */
static void put_position(const struct lsi_convert *cv, struct lsi_gguf_writer *w)
{
    const struct lsi_config *c = &cv->m->config;
    struct arch a = { .w = w, .name = c->family->gguf_arch };
    put_size(&a, "context_length", c->n_ctx_train);
    put_rope(&a, c);
}

static bool is_usual_pattern(const struct lsi_config *c)
{
    for (size_t i = 0; i < c->L; i++)
        if (c->sliding[i] != ((i + 1) % SLIDING_PATTERN != 0))
            return false;
    return true;
}

static void put_windows(struct arch *a, const struct lsi_config *c)
{
    if (c->window == 0)
        return;
    put_size(a, "attention.sliding_window", c->window);
    if (c->family->defaults.sliding_pattern == 0 || is_usual_pattern(c))
        return;
    const char *key = key_of(a, "attention.sliding_window_pattern");
    const struct lsi_gguf_kv flags = {
        .key = { key, strlen(key) },
        .type = LSI_GGUF_ARRAY,
        .elem_type = LSI_GGUF_BOOL,
        .count = c->L,
        .data = (const unsigned char *)c->sliding,
        .bytes = c->L,
    };
    lsi_gguf_put_kv(a->w, &flags);
}

static void put_metadata(const struct lsi_convert *cv, struct lsi_gguf_writer *w)
{
    const struct lsi_config *c = &cv->m->config;
    const enum lsi_dtype main = cv->dtype == LSI_N_DTYPES ? cv->m->main_dtype : cv->dtype;
    struct arch a = { .w = w, .name = c->family->gguf_arch };
    const char *name = c->name;
    if (!*name) {
        name = strrchr(cv->m->source.dir, '/');
        name = name ? name + 1 : cv->m->source.dir;
    }
    lsi_gguf_put_str(w, "general.architecture", a.name, strlen(a.name));
    lsi_gguf_put_str(w, "general.type", "model", strlen("model"));
    lsi_gguf_put_str(w, "general.name", name, strlen(name));
    lsi_gguf_put_u32(w, "general.file_type", file_type(main));
    lsi_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    put_size(&a, "block_count", c->L);
    put_size(&a, "context_length", c->n_ctx_train);
    put_size(&a, "embedding_length", c->C);
    put_size(&a, "feed_forward_length", c->F);
    put_size(&a, "vocab_size", c->V);
    put_size(&a, "attention.head_count", c->H);
    put_size(&a, "attention.head_count_kv", c->G);
    put_size(&a, "attention.key_length", c->D);
    put_size(&a, "attention.value_length", c->D);
    put_double(&a, "attention.layer_norm_rms_epsilon", (double)c->eps);
    /* Only where readers would not work it out from the size of a head. */
    if (fabs((double)c->attn_scale * sqrt((double)c->D) - 1) > 1e-6)
        put_double(&a, "attention.scale", (double)c->attn_scale);
    put_windows(&a, c);
    put_rope(&a, c);
}

/* ---- tokenizer ------------------------------------------------------------------------------ */

static bool has_file(const char *dir, const char *name)
{
    char path[LSI_MODEL_PATH];
    return lsi_path_join(path, sizeof path, dir, name) && lsi_path_exists(path);
}

#define NO_SCORE -1e9f /* of a token that no text becomes */

/* Readers take one token per row of the table: name the rows that have none, drop tokens without a row. */
static bool fit_vocabulary(ls_tokenizer *t, size_t n_rows)
{
    const size_t n_scored = t->n_tokens;
    for (size_t i = n_scored; i < n_rows; i++) {
        char text[32];
        const int n = snprintf(text, sizeof text, "[PAD%zu]", i);
        if (!lsi_vocab_set(t, i, text, (size_t)n, LSI_TOKEN_UNUSED))
            return false;
    }
    if (t->scores && n_rows > t->cap_scores) {
        float *scores =
            lsi_realloc(t->alloc, t->scores, t->cap_scores * sizeof *scores, n_rows * sizeof *scores);
        if (!scores)
            return false;
        t->scores = scores;
        t->cap_scores = n_rows;
    }
    for (size_t i = n_scored; t->scores && i < n_rows; i++)
        t->scores[i] = NO_SCORE;
    t->n_tokens = lsi_min_size(t->n_tokens, n_rows);
    return true;
}

static ls_status put_tokenizer(const struct lsi_convert *cv, struct lsi_gguf_writer *w)
{
    const char *dir = cv->m->source.dir;
    ls_tokenizer *t = NULL;
    if (!has_file(dir, "tokenizer.json") && !has_file(dir, "tokenizer.model"))
        return LS_OK; /* a model without one, for tests of the mathematics */
    LSI_TRY(lsi_tokenizer_from_dir(dir, cv->alloc, &t, cv->err));
    ls_status st = LS_OK;
    if (!fit_vocabulary(t, cv->m->config.V))
        st = lsi_fail(cv->err, LS_E_NOMEM, "out of memory converting the tokenizer of %s", dir);
    else
        st = lsi_tokenizer_write_gguf(t, w, cv->err);
    ls_tokenizer_close(t);
    return st;
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* The divisors that say llama3 scaling in a GGUF file. */
static ls_status llama3_divisors(const struct lsi_convert *cv, float *out)
{
    const struct lsi_config *c = &cv->m->config;
    struct lsi_rope_config plain = c->rope[0];
    const size_t bytes = c->D * sizeof(double);
    double *f = lsi_alloc(cv->alloc, bytes);
    if (!f)
        return lsi_fail(cv->err, LS_E_NOMEM, "out of memory converting %s", cv->m->path);
    lsi_rope_frequencies(&c->rope[0], NULL, c->D, f);
    plain.scaling = LSI_ROPE_NONE;
    lsi_rope_frequencies(&plain, NULL, c->D, f + c->D / 2);
    for (size_t i = 0; i < c->D / 2; i++)
        out[i] = (float)(f[c->D / 2 + i] / f[i]);
    lsi_free(cv->alloc, f, bytes);
    return LS_OK;
}

static void put_tensor(struct lsi_gguf_writer *w, const struct lsi_convert_tensor *t)
{
    uint64_t dims[LSI_ST_MAX_RANK];
    for (size_t i = 0; i < t->src.rank; i++)
        dims[i] = t->src.shape[t->src.rank - 1 - i];
    lsi_gguf_put_tensor(w, t->name, t->dtype, (uint32_t)t->src.rank, dims);
}

static void write_data(void *to, const void *data, size_t bytes)
{
    lsi_gguf_write_data(to, data, bytes);
}

static ls_status write_tensors(struct lsi_convert *cv, struct lsi_gguf_writer *w)
{
    const struct lsi_config *c = &cv->m->config;
    /* A GGUF file that says nothing else about positions has them already. */
    const bool fresh = !cv->m->source.is_gguf || (cv->reconfigured && !c->freq_divisors);
    const bool divisors = fresh && c->rope[0].scaling == LSI_ROPE_LLAMA3;
    const uint64_t half = c->D / 2;
    float f[LSI_MAX_HEAD / 2];
    if (divisors) {
        LSI_TRY(llama3_divisors(cv, f));
        lsi_gguf_put_tensor(w, "rope_freqs.weight", LSI_F32, 1, &half);
    }
    for (size_t i = 0; i < cv->n_tensors; i++)
        put_tensor(w, &cv->tensors[i]);
    if (divisors)
        lsi_gguf_write_data(w, f, half * sizeof *f);
    for (size_t i = 0; i < cv->n_tensors; i++) {
        LSI_TRY(lsi_convert_rows(cv, &cv->tensors[i], write_data, w));
        lsi_convert_progress(cv);
    }
    return LS_OK;
}

ls_status lsi_convert_to_gguf(struct lsi_convert *cv)
{
    struct lsi_gguf_writer *w = NULL;
    ls_status st;

    LSI_TRY(lsi_gguf_writer_create(&w, cv->out, cv->alloc, cv->err));
    if (cv->m->source.is_gguf) {
        copy_metadata(cv, w);
        if (cv->reconfigured)
            put_position(cv, w);
    } else {
        put_metadata(cv, w);
        LSI_TRY_OR(fail, put_tokenizer(cv, w));
    }
    LSI_TRY_OR(fail, write_tensors(cv, w));
    return lsi_gguf_writer_commit(w, cv->err);

fail:
    lsi_gguf_writer_free(w);
    return st;
}

#include "small_trainer.h"

#include "base/numbers.h"

#define COMMON                                                                                              \
    "\"hidden_size\": 44, \"intermediate_size\": 68, \"num_attention_heads\": 6, \"num_key_value_heads\": " \
    "2, "                                                                                                   \
    "\"vocab_size\": 83, \"rms_norm_eps\": 1e-05, \"max_position_embeddings\": 4096, "

const struct small_model small_models[] = {
    { "llama untied", "{\"model_type\": \"llama\", " COMMON "\"num_hidden_layers\": 3, \"head_dim\": 10, "
                      "\"tie_word_embeddings\": false}" },
    { "llama tied", "{\"model_type\": \"llama\", " COMMON "\"num_hidden_layers\": 2, \"head_dim\": 16, "
                    "\"tie_word_embeddings\": true, \"attention_bias\": true, \"mlp_bias\": true}" },
    { "mistral", "{\"model_type\": \"mistral\", " COMMON "\"num_hidden_layers\": 2, \"head_dim\": 12, "
                 "\"sliding_window\": 9, \"tie_word_embeddings\": false}" },
    { "qwen2", "{\"model_type\": \"qwen2\", " COMMON "\"num_hidden_layers\": 2, \"head_dim\": 14, "
               "\"tie_word_embeddings\": true}" },
    { "qwen3", "{\"model_type\": \"qwen3\", " COMMON "\"num_hidden_layers\": 2, \"head_dim\": 18, "
               "\"tie_word_embeddings\": false}" },
    { "gemma3", "{\"model_type\": \"gemma3_text\", " COMMON "\"num_hidden_layers\": 3, \"head_dim\": 20, "
                "\"query_pre_attn_scalar\": 24, \"sliding_window\": 11, \"rope_theta\": 1000000.0, "
                "\"rope_local_base_freq\": 10000.0, \"layer_types\": [\"sliding_attention\", "
                "\"full_attention\", \"sliding_attention\"]}" },
};
const size_t small_n_models = sizeof small_models / sizeof small_models[0];

const char *small_find(const char *name)
{
    for (size_t i = 0; i < small_n_models; i++)
        if (strcmp(small_models[i].name, name) == 0)
            return small_models[i].config;
    REQUIRE(!"a model of that name");
    return NULL;
}

const char *small_config_path(const char *dir, const char *config)
{
    static char path[1024];
    tiny_write(dir, "config.json", config, strlen(config));
    snprintf(path, sizeof path, "%s/config.json", dir);
    return path;
}

ls_train_options small_options(const char *config_path, size_t seq)
{
    ls_train_options o;
    ls_train_options_defaults(&o);
    o.init = config_path;
    o.seq = seq;
    o.dtype = LS_TRAIN_FP32;
    o.n_threads = 1;
    return o;
}

/* Matrices keep the size of what they multiply, gains are near 1, nothing is 0. */
static void set_weights(struct lsi_params *params, uint64_t seed)
{
    struct lsi_rng rng;
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < params->n; i++) {
        struct lsi_param *p = &params->list[i];
        const double size = p->kind == LSI_PARAM_LORA_B ? 0.1
                            : p->rank == 1              ? 0.2
                                                        : 0.8,
                     deviation = p->rank == 1 ? size : size / sqrt((double)p->cols);
        const double mean = p->rank == 1 && lsi_role_is_gain(p->role) ? 1 : 0;
        for (size_t k = 0; k < p->n; k++) {
            float v = (float)(mean + deviation * sqrt(12) * (lsi_rng_double(&rng) - 0.5));
            if (p->rank == 2)
                v = lsi_bf16_to_f32(lsi_bf16_from_f32(v));
            lsi_param_set(p, k, &v, 1);
        }
    }
}

ls_trainer *small_trainer(const ls_train_options *o, uint64_t seed)
{
    ls_error err = { 0 };
    ls_trainer *t = NULL;
    REQUIRE_OK(ls_trainer_create(o, &t, &err), err);
    set_weights(&t->params, seed);
    return t;
}

void small_sequence(struct small_batch *b, size_t n, size_t V, size_t n_docs, double ignored, uint64_t seed)
{
    struct lsi_rng rng;
    REQUIRE(n <= SMALL_ROWS && n_docs <= n);
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++)
        b->tokens[i] = (int32_t)lsi_rng_below(&rng, V);
    for (size_t i = 0; i < n; i++) {
        const bool skip = lsi_rng_double(&rng) < ignored;
        b->labels[i] = i + 1 == n || skip ? LS_TRAIN_IGNORE : b->tokens[i + 1];
    }
    b->s = (ls_train_sequence){ .tokens = b->tokens, .labels = b->labels, .n = n };
    if (!n_docs)
        return;
    b->doc_start[0] = 0;
    for (size_t d = 1; d < n_docs; d++) { /* of unequal lengths, each at least one token */
        b->doc_start[d] = lsi_max_size(b->doc_start[d - 1] + 1, n * d * d / (n_docs * n_docs));
        b->labels[b->doc_start[d] - 1] = LS_TRAIN_IGNORE;
    }
    b->doc_start[n_docs] = n;
    b->s.doc_start = b->doc_start;
    b->s.n_docs = n_docs;
}

struct small_result small_gradients(ls_trainer *t, const ls_train_sequence *seqs, size_t n)
{
    const struct lsi_params *params;
    struct small_result r = { 0 };
    ls_error err = { 0 };
    REQUIRE_OK(lsi_trainer_gradients(t, seqs, n, &r.loss, &params, &err), err);
    r.values = malloc(params->n_trained * sizeof *r.values);
    REQUIRE(r.values != NULL);
    for (size_t i = 0; i < params->n; i++) {
        const struct lsi_param *p = &params->list[i];
        if (!p->trained)
            continue;
        memcpy(r.values + r.n, p->grad, p->n * sizeof *p->grad);
        r.n += p->n;
    }
    return r;
}

struct small_result small_weights(const ls_trainer *t)
{
    const struct lsi_params *params = &t->params;
    struct small_result r = { .values = malloc(2 * params->n_elements * sizeof(float)) };
    REQUIRE(r.values != NULL);
    for (size_t i = 0; i < params->n; i++) {
        struct lsi_param working = params->list[i];
        lsi_param_get(&working, 0, r.values + r.n, working.n);
        r.n += working.n;
        working.master = NULL;
        lsi_param_get(&working, 0, r.values + r.n, working.n);
        r.n += working.n;
    }
    return r;
}

void small_free(struct small_result *r)
{
    free(r->values);
    *r = (struct small_result){ 0 };
}

static double relative(double difference, double of)
{
    return difference == 0 ? 0 : fabs(difference) / fabs(of);
}

static double greater(double a, double b)
{
    return a >= b || isnan(a) ? a : b;
}

struct small_difference small_compare(const ls_trainer *t, const struct small_result *a,
                                      const struct small_result *b)
{
    struct small_difference d = { .loss = relative(a->loss - b->loss, b->loss), .tensor = "none" };
    const float *x = a->values, *y = b->values;
    double all_x = 0, all_y = 0;
    CHECK_INT(a->n, b->n);
    for (size_t i = 0; i < t->params.n; i++) {
        const struct lsi_param *p = &t->params.list[i];
        double xx = 0, yy = 0, dd = 0, most = 0, most_y = 0;
        if (!p->trained)
            continue;
        for (size_t k = 0; k < p->n; k++, x++, y++) {
            const double difference = (double)*x - (double)*y;
            xx += (double)*x * (double)*x;
            yy += (double)*y * (double)*y;
            dd += difference * difference;
            most = greater(most, fabs(difference));
            most_y = greater(most_y, fabs((double)*y));
        }
        d.distance = greater(d.distance, relative(sqrt(dd), sqrt(yy)));
        const double norm = relative(sqrt(xx) - sqrt(yy), sqrt(yy));
        if (norm > d.norm)
            d.tensor = p->name;
        d.norm = greater(d.norm, norm);
        d.element = greater(d.element, relative(most, most_y));
        all_x += xx;
        all_y += yy;
    }
    d.whole = relative(sqrt(all_x) - sqrt(all_y), sqrt(all_y));
    return d;
}

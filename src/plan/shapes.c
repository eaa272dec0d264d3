/* Models whose sizes are known without a file, and the sizes of those that have one. */
#include <stdio.h>
#include <string.h>

#include "model/model_impl.h"
#include "plan/plan_impl.h"

/* As published with the weights. family: the model_type of config.json, NULL for families the engine
 * does not have. */
struct known {
    const char *name;
    const char *family;
    size_t L, C, F, V, H, G, D;
    size_t n_ctx;
    double rope_base;
    bool tied;
    size_t norms;
};

static const struct known known[] = {
    { "smollm2-135m", "llama", 30, 576, 1536, 49152, 9, 3, 64, 8192, 1e5, true, 2 },
    { "smollm2-360m", "llama", 32, 960, 2560, 49152, 15, 5, 64, 8192, 1e5, true, 2 },
    { "smollm2-1.7b", "llama", 24, 2048, 8192, 49152, 32, 32, 64, 8192, 130000, true, 2 },
    { "qwen2.5-0.5b", "qwen2", 24, 896, 4864, 151936, 14, 2, 64, 32768, 1e6, true, 2 },
    { "llama3.2-1b", "llama", 16, 2048, 8192, 128256, 32, 8, 64, 131072, 5e5, true, 2 },
    { "llama2-7b", "llama", 32, 4096, 11008, 32000, 32, 32, 128, 4096, 1e4, false, 2 },
    { "mistral-7b", "mistral", 32, 4096, 14336, 32000, 32, 8, 128, 32768, 1e6, false, 2 },
    { "qwen2-7b", "qwen2", 28, 3584, 18944, 152064, 28, 4, 128, 131072, 1e6, false, 2 },
    { "llama3-8b", "llama", 32, 4096, 14336, 128256, 32, 8, 128, 8192, 5e5, false, 2 },
    { "qwen3-8b", "qwen3", 36, 4096, 12288, 151936, 32, 8, 128, 40960, 1e6, false, 2 },
    { "gemma2-9b", NULL, 42, 3584, 14336, 256000, 16, 8, 256, 8192, 1e4, true, 4 },
    { "llama3-70b", "llama", 80, 8192, 28672, 128256, 64, 8, 128, 8192, 5e5, false, 2 },
};

const char *ls_plan_shape_name(size_t i)
{
    return i < LSI_LEN(known) ? known[i].name : NULL;
}

/* Weights and gains alone: biases are the family's business (lsi_plan_shape_of). */
static uint64_t count_parameters(const ls_plan_shape *s)
{
    const uint64_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim, c = s->n_embd;
    const uint64_t layer = 2 * c * q + 2 * c * kv + 3 * c * s->n_ff + s->norms * c;
    return (s->tied ? 1 : 2) * (uint64_t)s->n_vocab * c + s->n_layers * layer + c;
}

/* The window is null: the releases of Mistral that this shape stands for see everything. */
static void write_config(const struct known *k, char *json, size_t cap)
{
    snprintf(json, cap,
             "{\"model_type\":\"%s\",\"_name_or_path\":\"%s\",\"num_hidden_layers\":%zu,"
             "\"hidden_size\":%zu,\"intermediate_size\":%zu,\"vocab_size\":%zu,"
             "\"num_attention_heads\":%zu,\"num_key_value_heads\":%zu,\"head_dim\":%zu,"
             "\"max_position_embeddings\":%zu,\"rope_theta\":%.1f,\"tie_word_embeddings\":%s,"
             "\"sliding_window\":null}",
             k->family, k->name, k->L, k->C, k->F, k->V, k->H, k->G, k->D, k->n_ctx, k->rope_base,
             k->tied ? "true" : "false");
}

bool lsi_plan_named_shape(const char *name, ls_plan_shape *shape, char *json, size_t cap)
{
    for (size_t i = 0; i < LSI_LEN(known); i++) {
        const struct known *k = &known[i];
        if (strcmp(k->name, name) != 0)
            continue;
        *shape = (ls_plan_shape){ .struct_size = sizeof *shape,
                                  .name = k->name,
                                  .n_layers = k->L,
                                  .n_embd = k->C,
                                  .n_ff = k->F,
                                  .n_vocab = k->V,
                                  .n_heads = k->H,
                                  .n_kv_heads = k->G,
                                  .head_dim = k->D,
                                  .norms = k->norms,
                                  .tied = k->tied,
                                  .trainable = k->family };
        shape->n_parameters = count_parameters(shape);
        if (k->family)
            write_config(k, json, cap);
        else
            json[0] = '\0';
        return true;
    }
    return false;
}

void lsi_plan_shape_of(const struct lsi_config *c, ls_plan_shape *shape)
{
    *shape = (ls_plan_shape){ .struct_size = sizeof *shape,
                              .n_layers = c->L,
                              .n_embd = c->C,
                              .n_ff = c->F,
                              .n_vocab = c->V,
                              .n_heads = c->H,
                              .n_kv_heads = c->G,
                              .head_dim = c->D,
                              .norms = c->post_norms ? 4 : 2,
                              .window = c->window,
                              .n_window_layers = c->n_window_layers,
                              .tied = c->tied,
                              .trainable = true };
    for (enum lsi_role role = 0; role < LSI_N_ROLES; role++) {
        const struct lsi_shape t = lsi_role_shape(c, role);
        const uint64_t copies = lsi_role_in_layer(role) ? c->L : 1;
        if (t.rank)
            shape->n_parameters += copies * t.rows * t.cols;
    }
}

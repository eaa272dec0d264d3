#include "model/families.h"

#include <string.h>

/* The names Llama and its likes share. In a layer both formats put the layer's number in front. */
#define LLAMA_NAMES                                                          \
    [LSI_ROLE_TOKEN_EMBD] = { "embed_tokens.weight", "token_embd.weight" },  \
    [LSI_ROLE_OUTPUT_NORM] = { "norm.weight", "output_norm.weight" },        \
    [LSI_ROLE_OUTPUT] = { "lm_head.weight", "output.weight" },               \
    [LSI_ROLE_ROPE_FREQS] = { NULL, "rope_freqs.weight" },                   \
    [LSI_ROLE_ATTN_NORM] = { "input_layernorm.weight", "attn_norm.weight" }, \
    [LSI_ROLE_Q] = { "self_attn.q_proj.weight", "attn_q.weight" },           \
    [LSI_ROLE_K] = { "self_attn.k_proj.weight", "attn_k.weight" },           \
    [LSI_ROLE_V] = { "self_attn.v_proj.weight", "attn_v.weight" },           \
    [LSI_ROLE_O] = { "self_attn.o_proj.weight", "attn_output.weight" },      \
    [LSI_ROLE_Q_BIAS] = { "self_attn.q_proj.bias", "attn_q.bias" },          \
    [LSI_ROLE_K_BIAS] = { "self_attn.k_proj.bias", "attn_k.bias" },          \
    [LSI_ROLE_V_BIAS] = { "self_attn.v_proj.bias", "attn_v.bias" },          \
    [LSI_ROLE_O_BIAS] = { "self_attn.o_proj.bias", "attn_output.bias" },     \
    [LSI_ROLE_Q_NORM] = { "self_attn.q_norm.weight", "attn_q_norm.weight" }, \
    [LSI_ROLE_K_NORM] = { "self_attn.k_norm.weight", "attn_k_norm.weight" }, \
    [LSI_ROLE_GATE] = { "mlp.gate_proj.weight", "ffn_gate.weight" },         \
    [LSI_ROLE_UP] = { "mlp.up_proj.weight", "ffn_up.weight" },               \
    [LSI_ROLE_DOWN] = { "mlp.down_proj.weight", "ffn_down.weight" },         \
    [LSI_ROLE_GATE_BIAS] = { "mlp.gate_proj.bias", "ffn_gate.bias" },        \
    [LSI_ROLE_UP_BIAS] = { "mlp.up_proj.bias", "ffn_up.bias" },              \
    [LSI_ROLE_DOWN_BIAS] = { "mlp.down_proj.bias", "ffn_down.bias" }

static const struct lsi_role_name llama_names[LSI_N_ROLES] = {
    LLAMA_NAMES,
    [LSI_ROLE_FFN_NORM] = { "post_attention_layernorm.weight", "ffn_norm.weight" },
};

/* Gemma 3 calls the norm after attention what Llama calls the norm before the MLP. */
static const struct lsi_role_name gemma3_names[LSI_N_ROLES] = {
    LLAMA_NAMES,
    [LSI_ROLE_POST_ATTN_NORM] = { "post_attention_layernorm.weight", "post_attention_norm.weight" },
    [LSI_ROLE_FFN_NORM] = { "pre_feedforward_layernorm.weight", "ffn_norm.weight" },
    [LSI_ROLE_POST_FFN_NORM] = { "post_feedforward_layernorm.weight", "post_ffw_norm.weight" },
};

static const struct lsi_family families[] = {
    {
        /* Llama 2, 3 and 3.x, SmolLM2, TinyLlama */
        .name = "llama",
        .model_types = { "llama" },
        .architectures = { "LlamaForCausalLM" },
        .gguf_arch = "llama",
        .interleaved_gguf = true,
        .defaults = { .n_vocab = 32000, .n_ctx = 2048, .rope_base = 10000 },
        .names = llama_names,
    },
    {
        .name = "mistral",
        .model_types = { "mistral" },
        .architectures = { "MistralForCausalLM" },
        .gguf_arch = "llama",
        .interleaved_gguf = true,
        .defaults = { .n_kv_heads = 8,
                      .n_vocab = 32000,
                      .n_ctx = 131072,
                      .window = 4096,
                      .rope_base = 10000 },
        .names = llama_names,
    },
    {
        .name = "qwen2",
        .model_types = { "qwen2" },
        .architectures = { "Qwen2ForCausalLM" },
        .gguf_arch = "qwen2",
        .qkv_bias = true,
        .defaults = { .n_kv_heads = 32, .n_vocab = 151936, .n_ctx = 32768, .rope_base = 10000 },
        .names = llama_names,
    },
    {
        .name = "qwen3",
        .model_types = { "qwen3" },
        .architectures = { "Qwen3ForCausalLM" },
        .gguf_arch = "qwen3",
        .qk_norm = true,
        .defaults = { .n_kv_heads = 32,
                      .head_dim = 128,
                      .n_vocab = 151936,
                      .n_ctx = 32768,
                      .rope_base = 10000 },
        .names = llama_names,
    },
    {
        .name = "gemma3",
        .model_types = { "gemma3_text", "gemma3" },
        .architectures = { "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration" },
        .gguf_arch = "gemma3",
        .qk_norm = true,
        .post_norms = true,
        .gain_offset = true,
        .scaled_embedding = true,
        .gelu = true,
        .defaults = { .n_heads = 8,
                      .n_kv_heads = 4,
                      .head_dim = 256,
                      .n_vocab = 262208,
                      .n_ctx = 131072,
                      .window = 4096,
                      .rope_base = 1e6,
                      .rope_base_local = 10000,
                      .sliding_pattern = 6,
                      .tied = true },
        .names = gemma3_names,
    },
};

static bool is_one_of(const char *const *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n && list[i]; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

const struct lsi_family *lsi_family_from_hf(const char *model_type, const char *architecture)
{
    for (size_t i = 0; model_type && i < LSI_LEN(families); i++)
        if (is_one_of(families[i].model_types, LSI_LEN(families[i].model_types), model_type))
            return &families[i];
    for (size_t i = 0; !model_type && architecture && i < LSI_LEN(families); i++)
        if (is_one_of(families[i].architectures, LSI_LEN(families[i].architectures), architecture))
            return &families[i];
    return NULL;
}

const struct lsi_family *lsi_family_from_gguf(const char *arch, size_t len)
{
    for (size_t i = 0; i < LSI_LEN(families); i++)
        if (strlen(families[i].gguf_arch) == len && memcmp(families[i].gguf_arch, arch, len) == 0)
            return &families[i];
    return NULL;
}

const struct lsi_family *lsi_family_windowed(const struct lsi_family *f)
{
    for (size_t i = 0; i < LSI_LEN(families); i++)
        if (strcmp(families[i].gguf_arch, f->gguf_arch) == 0 && families[i].defaults.window > 0)
            return &families[i];
    return f;
}

const char *lsi_family_list(void)
{
    return "llama, mistral, qwen2, qwen3, gemma3";
}

/* Configurations of every family as their files spell them, and what must be refused. */
#include "model/config.h"

#include <unistd.h>

#include "base/json.h"
#include "model/families.h"
#include "test.h"

static ls_error err;
static struct lsi_config cfg;

static ls_status read_json(const char *text)
{
    memset(&err, 0, sizeof err);
    return lsi_config_from_json(&cfg, text, strlen(text), "config.json", NULL, &err);
}

/* Must be refused with a message that contains `part`, and hold nothing. */
static void check_refused(const char *text, ls_status status, const char *part)
{
    CHECK_INT(read_json(text), status);
    if (!strstr(err.text, part)) {
        CHECK_STR(err.text, part);
    }
    CHECK(cfg.sliding == NULL);
    lsi_config_fini(&cfg);
}

#define LLAMA_SIZES                                                                \
    "\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 128, " \
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4"
#define SIZES \
    "\"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": 7, \"num_attention_heads\": 4"

/* ---- families ----------------------------------------------------------------- */

static void test_llama(void)
{
    REQUIRE_OK(read_json("{" LLAMA_SIZES "}"), err);
    CHECK_STR(cfg.family->name, "llama");
    CHECK_INT(cfg.G, 4);
    CHECK_INT(cfg.D, 16);
    CHECK_INT(cfg.V, 32000);
    CHECK_INT(cfg.n_ctx_train, 2048);
    CHECK_NEAR(cfg.eps, 1e-6, 1e-12);
    CHECK_NEAR(cfg.rope[0].base, 10000, 0);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_NONE);
    CHECK_NEAR(cfg.attn_scale, 0.25, 1e-7);
    CHECK_NEAR(cfg.embed_scale, 1, 0);
    CHECK(!cfg.tied && !cfg.qkv_bias && !cfg.qk_norm && !cfg.post_norms && !cfg.interleaved);
    CHECK_INT(cfg.window, 0);
    CHECK_INT(cfg.bos, -1);
    CHECK_INT(cfg.n_eos, 0);
    lsi_config_fini(&cfg);
}

static void test_llama_fields(void)
{
    REQUIRE_OK(read_json("{\"model_type\": \"llama\", \"hidden_size\": 6.4e1, \"intermediate_size\": 128.0,"
                         "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
                         "\"head_dim\": 32, \"vocab_size\": 500, \"max_position_embeddings\": 4096,"
                         "\"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": true, \"attention_bias\": true,"
                         "\"mlp_bias\": true, \"bos_token_id\": 1, \"eos_token_id\": [2, 7, 2],"
                         "\"_name_or_path\": \"some/model\", \"hidden_act\": \"silu\","
                         "\"unknown\": {\"deep\": [1, {\"er\": null}]}}"),
               err);
    CHECK_INT(cfg.G, 2);
    CHECK_INT(cfg.D, 32);
    CHECK_INT(cfg.V, 500);
    CHECK_INT(cfg.n_ctx_train, 4096);
    CHECK(cfg.tied && cfg.qkv_bias && cfg.o_bias && cfg.mlp_bias);
    CHECK_INT(cfg.bos, 1);
    CHECK_INT(cfg.n_eos, 2);
    CHECK_INT(cfg.eos[1], 7);
    CHECK_STR(cfg.name, "some/model");

    const char gen[] = "{\"eos_token_id\": [7, 9], \"temperature\": 0.6}";
    REQUIRE_OK(lsi_config_add_generation(&cfg, gen, sizeof gen - 1, "generation_config.json", &err), err);
    CHECK_INT(cfg.n_eos, 3);
    CHECK_INT(cfg.eos[2], 9);
    lsi_config_fini(&cfg);
}

/* Texts with escapes are read, cut to what is kept, and never in the middle of an escape. */
static void test_escaped_texts(void)
{
    char text[1024], name[600], want[64];
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"_name_or_path\": \"models\\\\my \\u00e9t\\u00E9\"}"), err);
    CHECK_STR(cfg.name, "models\\my \xc3\xa9t\xc3\xa9");
    lsi_config_fini(&cfg);

    memset(name, 'a', 400);
    memcpy(name + 400, "\\u00e9", 7);
    memset(want, 'a', 63);
    want[63] = '\0';
    for (size_t cut = 0; cut < 40; cut++) { /* the escape moves through the place where a text is cut */
        snprintf(text, sizeof text, "{" LLAMA_SIZES ", \"_name_or_path\": \"%s\"}", name + cut);
        REQUIRE_OK(read_json(text), err);
        CHECK_STR(cfg.name, want);
        lsi_config_fini(&cfg);
    }
    memcpy(name, "b\\n", 3); /* much too long, and an escape near the beginning */
    snprintf(text, sizeof text, "{" LLAMA_SIZES ", \"_name_or_path\": \"%s\"}", name);
    REQUIRE_OK(read_json(text), err);
    CHECK_STR(cfg.name, "b");
    lsi_config_fini(&cfg);
}

static void test_architecture_without_type(void)
{
    REQUIRE_OK(
        read_json("{\"architectures\": [\"Qwen3ForCausalLM\"], \"num_key_value_heads\": 2, " SIZES "}"), err);
    CHECK_STR(cfg.family->name, "qwen3");
    CHECK_INT(cfg.D, 128);
    CHECK(cfg.qk_norm);
    lsi_config_fini(&cfg);
}

static void test_mistral(void)
{
    REQUIRE_OK(read_json("{\"model_type\": \"mistral\", " SIZES ", \"num_key_value_heads\": 2}"), err);
    CHECK_STR(cfg.family->name, "mistral");
    CHECK_INT(cfg.window, 4096); /* the default of the class */
    CHECK_INT(cfg.n_window_layers, 7);
    lsi_config_fini(&cfg);

    REQUIRE_OK(read_json("{\"model_type\": \"mistral\", " SIZES ", \"num_key_value_heads\": 2,"
                         "\"sliding_window\": null}"),
               err);
    CHECK_INT(cfg.window, 0);
    CHECK_INT(cfg.n_window_layers, 0);
    lsi_config_fini(&cfg);
}

static void test_qwen2(void)
{
    REQUIRE_OK(
        read_json("{\"model_type\": \"qwen2\", " SIZES ", \"num_key_value_heads\": 2, \"rope_theta\": 1e6,"
                  "\"use_sliding_window\": false, \"sliding_window\": 32768, \"max_window_layers\": 21}"),
        err);
    CHECK_STR(cfg.family->name, "qwen2");
    CHECK(cfg.qkv_bias && !cfg.o_bias);
    CHECK_INT(cfg.window, 0);
    CHECK_INT(cfg.V, 151936);
    lsi_config_fini(&cfg);
}

static void test_gemma3(void)
{
    REQUIRE_OK(
        read_json("{\"model_type\": \"gemma3_text\", \"hidden_size\": 640, \"intermediate_size\": 2048,"
                  "\"num_hidden_layers\": 18, \"sliding_window\": 512}"),
        err);
    CHECK_STR(cfg.family->name, "gemma3");
    CHECK_INT(cfg.H, 8);
    CHECK_INT(cfg.G, 4);
    CHECK_INT(cfg.D, 256);
    CHECK_INT(cfg.V, 262208);
    CHECK(cfg.tied && cfg.qk_norm && cfg.post_norms);
    CHECK_INT(cfg.act, LSI_ACT_GELU_TANH);
    CHECK_NEAR(cfg.embed_scale, 25.298221, 1e-5);
    CHECK_NEAR(cfg.attn_scale, 1.0 / 16, 1e-7);
    CHECK_NEAR(cfg.rope[0].base, 1e6, 0);
    CHECK_NEAR(cfg.rope[1].base, 1e4, 0);
    CHECK_INT(cfg.n_window_layers, 15);
    for (size_t i = 0; i < 18; i++)
        CHECK_INT(cfg.sliding[i], i != 5 && i != 11 && i != 17);
    lsi_config_fini(&cfg);
}

static void test_gemma3_inside_multimodal(void)
{
    REQUIRE_OK(read_json("{\"model_type\": \"gemma3\", \"eos_token_id\": [1, 106], \"vision_config\": "
                         "{\"hidden_size\": 9},"
                         "\"text_config\": {\"model_type\": \"gemma3_text\", \"hidden_size\": 2560,"
                         "\"intermediate_size\": 10240, \"num_hidden_layers\": 34, \"sliding_window\": 1024,"
                         "\"query_pre_attn_scalar\": 168,"
                         "\"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}}}"),
               err);
    CHECK_INT(cfg.C, 2560);
    CHECK_INT(cfg.n_eos, 2);
    CHECK_INT(cfg.eos[1], 106);
    CHECK_NEAR(cfg.attn_scale, 0.07715167, 1e-7);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_LINEAR);
    CHECK_NEAR(cfg.rope[0].factor, 8, 0);
    CHECK_INT(cfg.rope[1].scaling, LSI_ROPE_NONE); /* sliding layers are never stretched */
    lsi_config_fini(&cfg);
}

static void test_gemma3_layer_types(void)
{
    REQUIRE_OK(
        read_json("{\"model_type\": \"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 64,"
                  "\"num_hidden_layers\": 3, \"sliding_window\": 8, \"sliding_window_pattern\": 6,"
                  "\"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]}"),
        err);
    CHECK(cfg.sliding[0] && !cfg.sliding[1] && cfg.sliding[2]);
    CHECK_INT(cfg.n_window_layers, 2);
    lsi_config_fini(&cfg);
}

/* ---- rotary embedding ------------------------------------------------------------ */

#define LLAMA3                                                                                           \
    "\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, " \
    "\"original_max_position_embeddings\": 8192"

static void check_llama3(void)
{
    for (int i = 0; i < 2; i++) {
        CHECK_INT(cfg.rope[i].scaling, LSI_ROPE_LLAMA3);
        CHECK_NEAR(cfg.rope[i].base, 500000, 0);
        CHECK_NEAR(cfg.rope[i].factor, 32, 0);
        CHECK_NEAR(cfg.rope[i].original_ctx, 8192, 0);
    }
    lsi_config_fini(&cfg);
}

static void test_rope_spellings(void)
{
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_theta\": 500000.0, \"rope_scaling\": {" LLAMA3 "}}"), err);
    check_llama3();
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_theta\": null, \"rope_parameters\": {" LLAMA3
                         ", \"rope_theta\": 500000}}"),
               err);
    check_llama3();
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_theta\": 500000, \"rope_parameters\": {" LLAMA3 "}}"),
               err);
    check_llama3();
    /* both, agreeing */
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_theta\": 500000, \"rope_scaling\": {" LLAMA3
                         "}, \"rope_parameters\": {" LLAMA3 ", \"rope_theta\": 5e5}}"),
               err);
    check_llama3();
    /* the older key */
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}"), err);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_LINEAR);
    lsi_config_fini(&cfg);
    REQUIRE_OK(read_json("{" LLAMA_SIZES ", \"rope_scaling\": null, \"rope_parameters\": null}"), err);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_NONE);
    lsi_config_fini(&cfg);
}

static void test_rope_by_layer_type(void)
{
    REQUIRE_OK(
        read_json("{\"model_type\": \"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 64,"
                  "\"num_hidden_layers\": 6, \"rope_parameters\": {"
                  "\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, \"rope_theta\": 2e6},"
                  "\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 30000}}}"),
        err);
    CHECK_NEAR(cfg.rope[0].base, 2e6, 0);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_LINEAR);
    CHECK_NEAR(cfg.rope[1].base, 30000, 0);
    CHECK_INT(cfg.rope[1].scaling, LSI_ROPE_NONE);
    lsi_config_fini(&cfg);
    REQUIRE_OK(read_json("{\"model_type\": \"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 64,"
                         "\"num_hidden_layers\": 6, \"rope_theta\": 2e6, \"rope_local_base_freq\": 30000}"),
               err);
    CHECK_NEAR(cfg.rope[0].base, 2e6, 0);
    CHECK_NEAR(cfg.rope[1].base, 30000, 0);
    lsi_config_fini(&cfg);
}

static void test_rope_conflicts(void)
{
    check_refused("{" LLAMA_SIZES ", \"rope_theta\": 10000, \"rope_parameters\": {\"rope_theta\": 500000}}",
                  LS_E_FORMAT, "rope_theta");
    check_refused("{" LLAMA_SIZES ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2},"
                  "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}}",
                  LS_E_FORMAT, "factor");
    check_refused("{" LLAMA_SIZES ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2},"
                  "\"rope_parameters\": {\"rope_type\": \"default\"}}",
                  LS_E_FORMAT, "rope_type");
    check_refused("{\"model_type\": \"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 64,"
                  "\"num_hidden_layers\": 6, \"rope_local_base_freq\": 1e4, \"rope_parameters\": {"
                  "\"sliding_attention\": {\"rope_theta\": 2e4}}}",
                  LS_E_FORMAT, "rope_theta");
}

static void test_rope_refusals(void)
{
    static const char *const types[] = { "dynamic", "longrope", "mrope", "su" };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{" LLAMA_SIZES ", \"rope_scaling\": {\"rope_type\": \"%s\", \"factor\": 2}}", types[i]);
        check_refused(text, LS_E_UNSUPPORTED, types[i]);
    }
    check_refused("{" LLAMA_SIZES ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}",
                  LS_E_FORMAT, "original_max_position_embeddings");
    check_refused("{" LLAMA_SIZES ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, "
                  "\"original_max_position_embeddings\": 1e30}}",
                  LS_E_LIMIT, "original_max_position_embeddings");
    check_refused("{" LLAMA_SIZES ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", LS_E_FORMAT, "factor");
    check_refused("{" LLAMA_SIZES ", \"rope_theta\": -1}", LS_E_FORMAT, "base");
    check_refused("{" LLAMA_SIZES ", \"partial_rotary_factor\": 0.5}", LS_E_UNSUPPORTED,
                  "partial_rotary_factor");
}

/* Against values from the published implementation (transformers 5.2), D = 128. */
static void test_frequencies(void)
{
    double f[64];
    struct lsi_rope_config r = { .base = 500000,
                                 .factor = 8,
                                 .low_freq_factor = 1,
                                 .high_freq_factor = 4,
                                 .original_ctx = 8192,
                                 .scaling = LSI_ROPE_LLAMA3,
                                 .attention_factor = 1 };
    CHECK_NEAR(lsi_rope_frequencies(&r, NULL, 128, f), 1, 0);
    CHECK_NEAR(f[0], 1, 1e-12);
    CHECK_NEAR(f[20], pow(500000, -40.0 / 128), 1e-12); /* fast: as it was */
    CHECK_NEAR(f[60], pow(500000, -120.0 / 128) / 8, 1e-15);
    CHECK(f[32] < pow(500000, -64.0 / 128) && f[32] > pow(500000, -64.0 / 128) / 8);

    /* divisors instead of the rule give the same */
    double plain[64], divisors[64], g[64];
    r.scaling = LSI_ROPE_NONE;
    lsi_rope_frequencies(&r, NULL, 128, plain);
    for (int i = 0; i < 64; i++)
        divisors[i] = plain[i] / f[i];
    r.scaling = LSI_ROPE_LLAMA3;
    lsi_rope_frequencies(&r, divisors, 128, g);
    for (int i = 0; i < 64; i++)
        CHECK_NEAR(g[i] / f[i], 1, 1e-12);
}

static void test_frequencies_yarn(void)
{
    REQUIRE_OK(
        read_json("{" LLAMA_SIZES ", \"head_dim\": 128, \"rope_theta\": 1000000.0, \"rope_scaling\": {"
                  "\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 32768}}"),
        err);
    double f[64];
    CHECK_NEAR(lsi_rope_frequencies(&cfg.rope[0], NULL, 128, f), 0.1 * log(4) + 1, 1e-12);
    CHECK_NEAR(f[0], 1, 1e-12);
    /* dim(32) = 23.59, dim(1) = 39.64: unchanged up to 23, a quarter from 40 on, a line between */
    CHECK_NEAR(f[23] / pow(1e6, -46.0 / 128), 1, 1e-12);
    CHECK_NEAR(f[40] / pow(1e6, -80.0 / 128), 0.25, 1e-12);
    const double ramp = (30.0 - 23) / (40 - 23);
    CHECK_NEAR(f[30] / pow(1e6, -60.0 / 128), ramp / 4 + (1 - ramp), 1e-12);
    lsi_config_fini(&cfg);
}

/* ---- refusals ---------------------------------------------------------------------- */

static void test_refusals(void)
{
    check_refused("{}", LS_E_FORMAT, "model_type");
    check_refused("{\"model_type\": \"mamba\"}", LS_E_UNSUPPORTED, "mamba");
    check_refused("{" LLAMA_SIZES ", \"quantization_config\": {\"bits\": 4, \"quant_method\": \"gptq\"}}",
                  LS_E_UNSUPPORTED, "gptq");
    check_refused("{" LLAMA_SIZES ", \"attn_logit_softcapping\": 50.0}", LS_E_UNSUPPORTED,
                  "attn_logit_softcapping");
    check_refused("{" LLAMA_SIZES ", \"final_logit_softcapping\": 30.0}", LS_E_UNSUPPORTED,
                  "final_logit_softcapping");
    check_refused("{" LLAMA_SIZES ", \"num_local_experts\": 8}", LS_E_UNSUPPORTED, "experts");
    check_refused("{" LLAMA_SIZES ", \"hidden_act\": \"relu\"}", LS_E_UNSUPPORTED, "relu");
    check_refused("{\"model_type\": \"qwen2\", " SIZES ", \"use_sliding_window\": true}", LS_E_UNSUPPORTED,
                  "use_sliding_window");
    check_refused("{\"model_type\": \"gemma3_text\", " SIZES ", \"use_bidirectional_attention\": true}",
                  LS_E_UNSUPPORTED, "use_bidirectional_attention");
    check_refused("{" LLAMA_SIZES ", \"layer_types\": [\"full_attention\", \"linear_attention\"]}",
                  LS_E_FORMAT, "linear_attention");
    check_refused("{\"model_type\": \"gemma3_text\", " SIZES ", \"layer_types\": [\"full_attention\"]}",
                  LS_E_FORMAT, "layer_types");
    check_refused("{" LLAMA_SIZES ", \"layer_types\": [\"sliding_attention\", \"full_attention\"]}",
                  LS_E_UNSUPPORTED, "layer_types");
}

static void test_limits(void)
{
    check_refused("{\"model_type\": \"llama\"}", LS_E_FORMAT, "layers");
    check_refused("{" LLAMA_SIZES ", \"vocab_size\": 1000000000}", LS_E_LIMIT, "vocabulary");
    check_refused("{" LLAMA_SIZES ", \"head_dim\": 7}", LS_E_UNSUPPORTED, "even");
    check_refused("{" LLAMA_SIZES ", \"head_dim\": 4096}", LS_E_LIMIT, "head");
    check_refused("{" LLAMA_SIZES ", \"num_key_value_heads\": 3}", LS_E_FORMAT, "share");
    check_refused("{" LLAMA_SIZES ", \"num_key_value_heads\": 0}", LS_E_FORMAT, "key/value");
    check_refused("{" LLAMA_SIZES ", \"max_position_embeddings\": -5}", LS_E_FORMAT,
                  "max_position_embeddings");
    check_refused("{" LLAMA_SIZES ", \"num_hidden_layers\": 3}", LS_E_FORMAT, "twice");
    check_refused("{\"model_type\": \"llama\", \"num_hidden_layers\": 100000, \"hidden_size\": 64,"
                  "\"intermediate_size\": 1, \"num_attention_heads\": 1}",
                  LS_E_LIMIT, "layers");
    check_refused("{" LLAMA_SIZES ", \"rms_norm_eps\": 2}", LS_E_FORMAT, "epsilon");
    check_refused("{" LLAMA_SIZES "", LS_E_FORMAT, "config.json");
    check_refused("{" LLAMA_SIZES "} x", LS_E_FORMAT, "config.json");
    check_refused("[]", LS_E_FORMAT, "config.json");
}

/* ---- GGUF -------------------------------------------------------------------------------- */

/* Metadata of a file with an embedding of 300 rows, written by the library's writer. */

static char path[64];
static struct lsi_gguf file;

static void put(struct lsi_gguf_writer *w, const char *arch, const char *key, uint32_t v)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    lsi_gguf_put_u32(w, name, v);
}

static void put_f(struct lsi_gguf_writer *w, const char *arch, const char *key, float v)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    lsi_gguf_put_f32(w, name, v);
}

static ls_status read_gguf(const char *arch, void (*more)(struct lsi_gguf_writer *), const float *divisors)
{
    struct lsi_gguf_writer *w = NULL;
    const uint64_t dims[2] = { 64, 300 }, half = 8;
    static const float zeros[64 * 300];
    memset(&err, 0, sizeof err);
    snprintf(path, sizeof path, "/tmp/longspan-config-%ld.gguf", (long)getpid());
    REQUIRE_OK(lsi_gguf_writer_create(&w, path, lsi_alloc_or_default(NULL), &err), err);
    lsi_gguf_put_str(w, "general.architecture", arch, strlen(arch));
    lsi_gguf_put_str(w, "general.name", "Tiny", 4);
    put(w, arch, "block_count", 12);
    put(w, arch, "embedding_length", 64);
    put(w, arch, "feed_forward_length", 128);
    put(w, arch, "context_length", 4096);
    put(w, arch, "attention.head_count", 4);
    put_f(w, arch, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (more)
        more(w);
    lsi_gguf_put_tensor(w, "token_embd.weight", LSI_F32, 2, dims);
    if (divisors)
        lsi_gguf_put_tensor(w, "rope_freqs.weight", LSI_F32, 1, &half);
    lsi_gguf_write_data(w, zeros, sizeof zeros);
    if (divisors)
        lsi_gguf_write_data(w, divisors, 8 * sizeof *divisors);
    REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);
    REQUIRE_OK(lsi_gguf_open(&file, path, lsi_alloc_or_default(NULL), &err), err);
    unlink(path);
    const ls_status st = lsi_config_from_gguf(&cfg, &file, "tiny.gguf", NULL, &err);
    return st;
}

static void close_gguf(void)
{
    lsi_config_fini(&cfg);
    lsi_gguf_close(&file);
}

static void check_gguf_refused(const char *arch, void (*more)(struct lsi_gguf_writer *),
                               const float *divisors, ls_status status, const char *part)
{
    CHECK_INT(read_gguf(arch, more, divisors), status);
    if (!strstr(err.text, part)) {
        CHECK_STR(err.text, part);
    }
    CHECK(cfg.sliding == NULL && cfg.freq_divisors == NULL);
    close_gguf();
}

static void test_gguf_llama(void)
{
    REQUIRE_OK(read_gguf("llama", NULL, NULL), err);
    CHECK_STR(cfg.family->name, "llama");
    CHECK_STR(cfg.name, "Tiny");
    CHECK_INT(cfg.L, 12);
    CHECK_INT(cfg.G, 4);
    CHECK_INT(cfg.D, 16);
    CHECK_INT(cfg.V, 300);
    CHECK(cfg.tied && cfg.interleaved && !cfg.qkv_bias);
    CHECK_NEAR(cfg.rope[0].base, 10000, 0);
    CHECK_NEAR(cfg.eps, 1e-5, 1e-11);
    close_gguf();
}

static void more_mistral(struct lsi_gguf_writer *w)
{
    put(w, "llama", "attention.sliding_window", 1000);
    put(w, "llama", "attention.head_count_kv", 2);
    lsi_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 1);
    lsi_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 2);
    lsi_gguf_put_u32(w, "tokenizer.ggml.eot_token_id", 9);
    lsi_gguf_put_u32(w, "tokenizer.ggml.eom_token_id", 999); /* beyond the vocabulary */
}

static void test_gguf_window(void)
{
    REQUIRE_OK(read_gguf("llama", more_mistral, NULL), err);
    CHECK_STR(cfg.family->name, "mistral");
    CHECK_INT(cfg.window, 1000);
    CHECK_INT(cfg.n_window_layers, 12);
    CHECK_INT(cfg.G, 2);
    CHECK_INT(cfg.bos, 1);
    CHECK_INT(cfg.n_eos, 2);
    CHECK_INT(cfg.eos[1], 9);
    close_gguf();
}

static void more_gemma(struct lsi_gguf_writer *w)
{
    put(w, "gemma3", "attention.sliding_window", 512);
    put(w, "gemma3", "attention.key_length", 32);
    put(w, "gemma3", "attention.value_length", 32);
    put_f(w, "gemma3", "rope.freq_base", 1e6f);
    put_f(w, "gemma3", "rope.scaling.factor", 8);
}

static void test_gguf_gemma3(void)
{
    REQUIRE_OK(read_gguf("gemma3", more_gemma, NULL), err);
    CHECK_INT(cfg.D, 32);
    CHECK_INT(cfg.n_window_layers, 10);
    CHECK(cfg.sliding[4] && !cfg.sliding[5] && !cfg.sliding[11]);
    CHECK_NEAR(cfg.embed_scale, 8, 0);
    CHECK_NEAR(cfg.attn_scale, 1 / sqrt(32), 1e-7);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_LINEAR);
    CHECK_NEAR(cfg.rope[1].base, 10000, 0);
    CHECK_INT(cfg.rope[1].scaling, LSI_ROPE_NONE);
    CHECK(!cfg.interleaved);
    close_gguf();
}

static void more_window(struct lsi_gguf_writer *w)
{
    put(w, "qwen2", "attention.sliding_window", 512);
}

static void test_gguf_qwen2(void)
{
    REQUIRE_OK(read_gguf("qwen2", more_window, NULL), err);
    CHECK(cfg.qkv_bias && !cfg.interleaved);
    CHECK_INT(cfg.window, 0); /* written by converters, not used */
    close_gguf();
}

static void more_yarn(struct lsi_gguf_writer *w)
{
    lsi_gguf_put_str(w, "qwen3.rope.scaling.type", "yarn", 4);
    put_f(w, "qwen3", "rope.scaling.factor", 4);
    put(w, "qwen3", "rope.scaling.original_context_length", 1024);
}

static void test_gguf_yarn(void)
{
    REQUIRE_OK(read_gguf("qwen3", more_yarn, NULL), err);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_YARN);
    CHECK_NEAR(cfg.rope[0].original_ctx, 1024, 0);
    CHECK_NEAR(cfg.rope[0].attention_factor, 0.1 * log(4) + 1, 1e-9);
    CHECK(cfg.qk_norm);
    close_gguf();
}

/* Settings of llama3 scaling come back from the divisors that they make. */
static void check_recovered(double factor, double original)
{
    const struct lsi_rope_config r = { .base = 10000,
                                       .factor = factor,
                                       .low_freq_factor = 1,
                                       .high_freq_factor = 4,
                                       .original_ctx = original,
                                       .scaling = LSI_ROPE_LLAMA3 };
    struct lsi_rope_config plain = r;
    double f[8], p[8];
    float divisors[8];
    plain.scaling = LSI_ROPE_NONE;
    lsi_rope_frequencies(&r, NULL, 16, f);
    lsi_rope_frequencies(&plain, NULL, 16, p);
    for (int i = 0; i < 8; i++)
        divisors[i] = (float)(p[i] / f[i]);
    REQUIRE_OK(read_gguf("llama", NULL, divisors), err);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_LLAMA3);
    CHECK_NEAR(cfg.rope[0].factor, factor, factor * 1e-6);
    double g[8];
    lsi_rope_frequencies(&cfg.rope[0], NULL, 16, g);
    for (int i = 0; i < 8; i++)
        CHECK_NEAR(g[i] / f[i], 1, 1e-5);
    close_gguf();
}

static void test_gguf_llama3(void)
{
    check_recovered(8, 8192);
    check_recovered(32, 8192);
    check_recovered(8, 256);
    check_recovered(4, 100);

    const float odd[8] = { 1, 2, 1, 3, 1, 5, 1, 7 };
    REQUIRE_OK(read_gguf("llama", NULL, odd), err);
    CHECK_INT(cfg.rope[0].scaling, LSI_ROPE_NONE);
    REQUIRE(cfg.freq_divisors != NULL);
    CHECK_NEAR(cfg.freq_divisors[7], 7, 0);
    close_gguf();
}

static void more_partial(struct lsi_gguf_writer *w)
{
    put(w, "llama", "rope.dimension_count", 8);
}
static void more_experts(struct lsi_gguf_writer *w)
{
    put(w, "llama", "expert_count", 8);
}
static void more_softcap(struct lsi_gguf_writer *w)
{
    put_f(w, "gemma3", "final_logit_softcapping", 30);
}
static void more_value(struct lsi_gguf_writer *w)
{
    put(w, "llama", "attention.value_length", 24);
}
static void more_longrope(struct lsi_gguf_writer *w)
{
    lsi_gguf_put_str(w, "llama.rope.scaling.type", "longrope", 8);
}
static void more_layers(struct lsi_gguf_writer *w)
{
    lsi_gguf_put_array(w, "llama.attention.head_count_kv", LSI_GGUF_I32, 2);
    lsi_gguf_elem_put_i32(w, 2);
    lsi_gguf_elem_put_i32(w, 4);
}

static void test_gguf_refusals(void)
{
    const float bad[8] = { 1, 1, 0, 1, 1, 1, 1, 1 };
    check_gguf_refused("mamba", NULL, NULL, LS_E_UNSUPPORTED, "mamba");
    check_gguf_refused("llama", more_partial, NULL, LS_E_UNSUPPORTED, "rope.dimension_count");
    check_gguf_refused("llama", more_experts, NULL, LS_E_UNSUPPORTED, "expert_count");
    check_gguf_refused("gemma3", more_softcap, NULL, LS_E_UNSUPPORTED, "softcapping");
    check_gguf_refused("llama", more_value, NULL, LS_E_UNSUPPORTED, "equal");
    check_gguf_refused("llama", more_longrope, NULL, LS_E_UNSUPPORTED, "longrope");
    check_gguf_refused("llama", more_layers, NULL, LS_E_UNSUPPORTED, "differs between layers");
    check_gguf_refused("llama", NULL, bad, LS_E_FORMAT, "rope_freqs.weight[2]");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_llama),
        TEST(test_llama_fields),
        TEST(test_escaped_texts),
        TEST(test_architecture_without_type),
        TEST(test_mistral),
        TEST(test_qwen2),
        TEST(test_gemma3),
        TEST(test_gemma3_inside_multimodal),
        TEST(test_gemma3_layer_types),
        TEST(test_rope_spellings),
        TEST(test_rope_by_layer_type),
        TEST(test_rope_conflicts),
        TEST(test_rope_refusals),
        TEST(test_frequencies),
        TEST(test_frequencies_yarn),
        TEST(test_refusals),
        TEST(test_limits),
        TEST(test_gguf_llama),
        TEST(test_gguf_window),
        TEST(test_gguf_gemma3),
        TEST(test_gguf_qwen2),
        TEST(test_gguf_yarn),
        TEST(test_gguf_llama3),
        TEST(test_gguf_refusals),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

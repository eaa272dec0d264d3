/* Exported directories: tensors, configuration, tokenizer, what is left on failure. */
#include "train/export.h"

#include <longspan/convert.h>
#include <longspan/tokenizer.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/numbers.h"
#include "model/hf_dir.h"
#include "small_params.h"
#include "tiny_case.h"

/* Every parameter is in the opened model, as it was (F32) or rounded. */
static void check_values(const struct lsi_params *p, const ls_model *m, enum lsi_dtype dtype)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct lsi_param *x = &p->list[i];
        struct lsi_tensor t;
        if (x->kind != LSI_PARAM_BASE)
            continue;
        n++;
        REQUIRE(lsi_source_find(&m->source, m->config.family, x->role, x->layer, &t));
        CHECK_MEM(t.name.s, t.name.len, x->name, strlen(x->name));
        const bool offset = m->config.family->gain_offset && lsi_role_is_gain(x->role);
        float *values = malloc(x->n * sizeof *values);
        lsi_param_get(x, 0, values, x->n);
        CHECK(t.dtype == dtype || (x->rank == 1 && t.dtype == LSI_F32));
        for (size_t k = 0; k < x->n; k++) {
            const float v = offset ? values[k] - 1.0f : values[k];
            const float want = t.dtype == LSI_BF16 ? lsi_bf16_to_f32(lsi_bf16_from_f32(v)) : v;
            if (lsi_tensor_value(&t, k) != want) {
                CHECK_NEAR(lsi_tensor_value(&t, k), want, 0);
                break;
            }
        }
        free(values);
    }
    CHECK_INT(lsi_source_n_tensors(&m->source), n);
}

/* Every family from a configuration alone, in both types. */
static void test_families(void)
{
    static const enum lsi_dtype dtypes[] = { LSI_F32, LSI_BF16 };
    begin_dir();
    for (size_t i = 0; i < tiny_n_configs; i++)
        for (size_t k = 0; k < LSI_LEN(dtypes); k++) {
            struct lsi_params p;
            struct lsi_config c;
            const struct small_spec spec = { .dtype = LSI_BF16, .master = i % 2, .seed = i + 1 };
            small_config(&c, tiny_configs[i]);
            small_params(&p, &c, &spec, NULL);
            const struct lsi_export e = { .params = &p, .config = &c, .dtype = dtypes[k] };
            REQUIRE_OK(lsi_export_hf(&e, tiny_path(dir, "out"), &err), err);
            ls_model *m = open_model("out");
            check_values(&p, m, dtypes[k]);
            CHECK_STR(m->config.family->name, c.family->name);
            CHECK(m->config.tied == c.tied);
            CHECK_NEAR(m->config.rope[0].base, c.rope[0].base, 0);
            CHECK_INT(m->config.rope[0].scaling, c.rope[0].scaling);
            CHECK_HAS(tiny_read(dir, "out/config.json"),
                      k ? "\"dtype\": \"bfloat16\"" : "\"dtype\": \"float32\"");
            ls_model_close(m);
            small_params_free(&p);
            lsi_config_fini(&c);
        }
    CHECK_INT(tiny_count(dir), 1);
    end_dir();
}

static void test_shards(void)
{
    struct lsi_params p;
    struct lsi_config c;
    const struct small_spec spec = { .dtype = LSI_F32 };
    begin_dir();
    small_config(&c, tiny_configs[0]);
    small_params(&p, &c, &spec, NULL);
    const struct lsi_export e = { .params = &p, .config = &c, .dtype = LSI_F32 };
    REQUIRE_OK(lsi_export_sharded(&e, tiny_path(dir, "out"), 60000, &err), err);
    ls_model *m = open_model("out");
    CHECK(m->source.st.n_maps > 1);
    check_values(&p, m, LSI_F32);
    ls_model_close(m);
    small_params_free(&p);
    lsi_config_fini(&c);
    end_dir();
}

/* ---- config.json of a source ------------------------------------------------------------------ */

static const char old_style[] =
    "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"custom\": {\"dtype\": \"float32\", \"a\": [1, "
    "2]},\n"
    "  \"head_dim\": 16,\n  \"hidden_size\": 64,\n  \"intermediate_size\": 96,\n  "
    "\"max_position_embeddings\": 512,\n"
    "  \"model_type\": \"llama\",\n  \"num_attention_heads\": 4,\n  \"num_hidden_layers\": 1,\n"
    "  \"rope_scaling\": null,\n  \"rope_theta\": 10000.0,\n  \"torch_dtype\": \"float16\",\n"
    "  \"vocab_size\": 80\n}\n";

static void open_source(const char *config)
{
    mkdir(tiny_path(dir, "in"), 0777);
    tiny_model(tiny_path(dir, "in"), &(struct tiny_spec){ .config = config, .dtype = LSI_BF16 });
}

/* Export with a configuration that `change` made from the source's. */
static void export_changed(void (*change)(struct lsi_config *c))
{
    struct lsi_params p;
    struct lsi_config c;
    const struct small_spec spec = { .dtype = LSI_BF16 };
    ls_model *in = open_model("in");
    const char *text = tiny_read(dir, "in/config.json");
    small_config(&c, text);
    c.tied = in->config.tied;
    small_params(&p, &c, &spec, NULL);
    if (change)
        change(&c);
    const struct lsi_export e = { .params = &p, .config = &c, .dtype = LSI_BF16, .source = in };
    REQUIRE_OK(lsi_export_hf(&e, tiny_path(dir, "out"), &err), err);
    ls_model *m = open_model("out");
    CHECK_NEAR(m->config.rope[0].base, c.rope[0].base, 0);
    CHECK_INT(m->config.rope[0].scaling, c.rope[0].scaling);
    CHECK_NEAR(m->config.rope[0].factor, c.rope[0].factor, 0);
    CHECK_NEAR(m->config.rope[0].original_ctx, c.rope[0].original_ctx, 0);
    CHECK_NEAR(m->config.rope[1].base, c.rope[1].base, 0);
    CHECK_INT(m->config.n_ctx_train, c.n_ctx_train);
    CHECK(m->config.tied == c.tied);
    ls_model_close(m);
    ls_model_close(in);
    small_params_free(&p);
    lsi_config_fini(&c);
}

static void longer(struct lsi_config *c)
{
    c->n_ctx_train = 65536;
    c->rope[0].base = c->rope[1].base = 5e6;
}

static void yarn(struct lsi_config *c)
{
    c->n_ctx_train = 4096;
    c->rope[0] = (struct lsi_rope_config){ .base = c->rope[0].base,
                                           .scaling = LSI_ROPE_YARN,
                                           .factor = 8,
                                           .original_ctx = 512,
                                           .attention_factor = lsi_yarn_attention_factor(8),
                                           .beta_fast = 32,
                                           .beta_slow = 1,
                                           .truncate = true };
    c->rope[1] = c->rope[0];
}

static void test_patched_config(void)
{
    begin_dir();
    open_source(old_style);
    export_changed(NULL);
    CHECK_HAS(tiny_read(dir, "out/config.json"), "\"torch_dtype\": \"bfloat16\"");
    CHECK_HAS(tiny_content, "\"custom\": {\"dtype\": \"bfloat16\", \"a\": [1, 2]}");
    CHECK_HAS(tiny_content, "\"max_position_embeddings\": 512");
    CHECK_INT(strlen(tiny_content), sizeof old_style - 1 + 2); /* bfloat16 twice: nothing else changed */

    export_changed(longer);
    CHECK_HAS(tiny_read(dir, "out/config.json"), "\"rope_theta\": 5e+06");
    CHECK_HAS(tiny_content, "\"rope_scaling\": null");
    CHECK_HAS(tiny_content, "\"max_position_embeddings\": 65536");
    CHECK(strstr(tiny_content, "rope_parameters") == NULL);

    export_changed(yarn);
    CHECK_HAS(tiny_read(dir, "out/config.json"),
              "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8.0");
    end_dir();
}

/* Members that the text lacks are added; a head that the file lacks makes the model a tied one. */
static void test_added_members(void)
{
    begin_dir();
    mkdir(tiny_path(dir, "in"), 0777);
    tiny_model(tiny_path(dir, "in"),
               &(struct tiny_spec){ .config =
                                        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, "
                                        "\"intermediate_size\": 96, \"num_hidden_layers\": 1, "
                                        "\"num_attention_heads\": 4, \"vocab_size\": 80}",
                                    .dtype = LSI_BF16,
                                    .skip = "lm_head.weight" });
    export_changed(longer);
    CHECK_HAS(tiny_read(dir, "out/config.json"), "\"model_type\": \"llama\"");
    CHECK_HAS(tiny_content, "\"tie_word_embeddings\": true");
    CHECK_HAS(tiny_content, "\"rope_theta\": 5e+06");
    CHECK_HAS(tiny_content, "\"rope_scaling\": null");
    end_dir();
}

/* The newer spelling is kept, of both kinds of layers. */
static void test_patched_parameters(void)
{
    begin_dir();
    open_source(tiny_configs[5]);
    export_changed(longer);
    CHECK(strstr(tiny_read(dir, "out/config.json"), "rope_theta\": 5e+06, \"factor\": 8.0") != NULL);
    CHECK(strstr(tiny_content, "\"rope_scaling\"") == NULL);
    end_dir();
    begin_dir();
    open_source(tiny_configs[3]);
    export_changed(yarn);
    end_dir();
}

/* A multimodal file's text model is a model of its own afterwards. */
static void test_text_config(void)
{
    static const char text[] =
        "{\"model_type\": \"gemma3\", \"vision_config\": {\"layers\": 3}, \"text_config\": {\"model_type\": "
        "\"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 4, \"num_key_value_heads\": 1, \"head_dim\": 32, \"vocab_size\": 80, "
        "\"sliding_window\": 16}}";
    begin_dir();
    open_source(text);
    export_changed(NULL);
    CHECK_HAS(tiny_read(dir, "out/config.json"), "Gemma3ForCausalLM");
    CHECK(strstr(tiny_content, "vision") == NULL);
    end_dir();
}

/* ---- tokenizer, other files --------------------------------------------------------------------- */

static bool is_there(const char *name)
{
    return lsi_path_exists(tiny_path(dir, name));
}

/* Export without a source and with a tokenizer from elsewhere. */
static void export_with(const char *tokenizer, const char *init)
{
    struct lsi_params p;
    struct lsi_config c;
    const struct small_spec spec = { .dtype = LSI_F32 };
    small_config(&c, tiny_configs[0]);
    small_params(&p, &c, &spec, NULL);
    const struct lsi_export e = {
        .params = &p, .config = &c, .dtype = LSI_F32, .tokenizer = tokenizer, .init = init
    };
    REQUIRE_OK(lsi_export_hf(&e, tiny_path(dir, "out"), &err), err);
    small_params_free(&p);
    lsi_config_fini(&c);
}

static void test_tokenizer(void)
{
    begin_dir();
    mkdir(tiny_path(dir, "in"), 0777);
    tiny_write(dir, "in/config.json", tiny_configs[0], strlen(tiny_configs[0]));
    export_with(NULL, tiny_path(dir, "in/config.json"));
    CHECK(!is_there("out/tokenizer.json"));
    CHECK_HAS(tiny_read(dir, "out/config.json"), "\"low_freq_factor\": 1.0");
    CHECK_HAS(tiny_read(dir, "out/generation_config.json"), "\"eos_token_id\": [2, 3]");

    tiny_write(dir, "in/tokenizer.json", "{}", 2);
    tiny_write(dir, "in/chat_template.jinja", "x", 1);
    tiny_write(dir, "in/generation_config.json", "{}", 2);
    export_with(NULL, tiny_path(dir, "in/config.json"));
    CHECK(is_there("out/tokenizer.json") && is_there("out/chat_template.jinja"));
    CHECK_HAS(tiny_read(dir, "out/generation_config.json"),
              "eos_token_id"); /* the model's, not the tokenizer's */
    export_with(tiny_path(dir, "in"), NULL);
    CHECK_STR(tiny_read(dir, "out/tokenizer.json"), "{}");
    export_with(tiny_path(dir, "in/tokenizer.json"), NULL);
    CHECK_STR(tiny_read(dir, "out/tokenizer.json"), "{}");
    end_dir();
}

static void check_same_tokens(const char *a, const char *b)
{
    static const char text[] = "The capital of France is Paris; 3.14 \xe4\xb8\xad\n";
    const char *const paths[] = { a, b };
    ls_tokenizer *t[2] = { NULL };
    int32_t *ids[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        REQUIRE_OK(ls_tokenizer_open(paths[i], NULL, &t[i], &err), err);
        REQUIRE_OK(
            ls_tokenizer_encode(t[i], text, sizeof text - 1, LS_ENCODE_ADD_SPECIAL, &ids[i], &n[i], &err),
            err);
    }
    CHECK_MEM(ids[1], n[1] * sizeof(int32_t), ids[0], n[0] * sizeof(int32_t));
    for (int i = 0; i < 2; i++) {
        ls_tokenizer_ids_free(t[i], ids[i], n[i]);
        ls_tokenizer_close(t[i]);
    }
}

static void test_gguf_source(void)
{
    static const char model[] = LS_SOURCE_DIR "/tests/data/models/smollm2";
    struct lsi_params p;
    struct lsi_config c;
    const struct small_spec spec = { .dtype = LSI_BF16, .master = true };
    begin_dir();
    REQUIRE_OK(ls_convert(model, tiny_path(dir, "in.gguf"), NULL, &err), err);
    ls_model *in = open_model("in.gguf");
    struct lsi_map m;
    char config[LSI_MODEL_PATH];
    snprintf(config, sizeof config, "%s/config.json", model);
    REQUIRE_OK(lsi_map_read(&m, config, 1 << 20, lsi_alloc_or_default(NULL), &err), err);
    REQUIRE_OK(lsi_config_from_json(&c, m.data, m.bytes, config, NULL, &err), err);
    lsi_map_close(&m);
    small_params(&p, &c, &spec, NULL);
    const struct lsi_export e = { .params = &p, .config = &in->config, .dtype = LSI_BF16, .source = in };
    REQUIRE_OK(lsi_export_hf(&e, tiny_path(dir, "out"), &err), err);
    CHECK(is_there("out/tokenizer.json") && is_there("out/tokenizer_config.json"));
    ls_model *out = open_model("out");
    check_values(&p, out, LSI_BF16);
    ls_model_close(out);
    check_same_tokens(model, tiny_path(dir, "out"));
    ls_convert_options o;
    ls_convert_options_defaults(&o);
    o.dtype = "q8_0";
    REQUIRE_OK(ls_convert(tiny_path(dir, "out"), tiny_path(dir, "out.gguf"), &o, &err), err);
    ls_model_close(in);
    small_params_free(&p);
    lsi_config_fini(&c);
    end_dir();
}

/* ---- failures ----------------------------------------------------------------------------------------- */

static void test_export_failures(void)
{
    struct lsi_params p;
    struct lsi_config c;
    const struct small_spec spec = { .dtype = LSI_F32, .lora_rank = 2 };
    int cancel = 1;
    begin_dir();
    small_config(&c, tiny_configs[4]);
    small_params(&p, &c, &spec, NULL);
    struct lsi_export e = { .params = &p, .config = &c, .dtype = LSI_F32 };
    REQUIRE_OK(lsi_export_hf(&e, tiny_path(dir, "out"), &err), err); /* adapters are left out */
    ls_model *m = open_model("out");
    check_values(&p, m, LSI_F32);
    ls_model_close(m);

    e.cancel = &cancel;
    CHECK_INT(lsi_export_hf(&e, tiny_path(dir, "out"), &err), LS_E_CANCELED);
    e.cancel = NULL;
    tiny_write(dir, "out/thesis.txt", "dear", 4);
    CHECK_INT(lsi_export_hf(&e, tiny_path(dir, "out"), &err), LS_E_INVAL);
    CHECK_HAS(err.text, "thesis.txt");
    CHECK_INT(lsi_export_hf(&e, tiny_path(dir, "no/such/place"), &err), LS_E_IO);
    e.tokenizer = tiny_path(dir, "nowhere");
    CHECK_INT(lsi_export_hf(&e, tiny_path(dir, "other"), &err), LS_E_IO);
    CHECK_HAS(err.text, "nowhere");
    CHECK_INT(tiny_count(dir), 1);

    mkdir(tiny_path(dir, "out.tmp-1-0"), 0777); /* left by killed writers; the second is somebody's */
    tiny_write(dir, "out.tmp-1-0/model.safetensors.part-1", "x", 1);
    mkdir(tiny_path(dir, "out.tmp-2-0"), 0777);
    tiny_write(dir, "out.tmp-2-0/thesis.txt", "dear", 4);
    lsi_hf_dir_clean(tiny_path(dir, "out/"));
    CHECK_INT(tiny_count(dir), 2);
    CHECK(is_there("out.tmp-2-0/thesis.txt"));

    e.tokenizer = NULL;
    mkdir(tiny_path(dir, "small"), 0777);
    if (mount("tmpfs", tiny_path(dir, "small"), "tmpfs", 0, "size=100k") == 0) {
        CHECK_INT(lsi_export_hf(&e, tiny_path(dir, "small/out"), &err), LS_E_IO);
        CHECK_HAS(err.text, "No space left");
        CHECK(rmdir(tiny_path(dir, "small/out")) != 0 && !is_there("small/out"));
        umount(tiny_path(dir, "small"));
    }
    small_params_free(&p);
    lsi_config_fini(&c);
    end_dir();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_families),           TEST(test_shards),
        TEST(test_patched_config),     TEST(test_added_members),
        TEST(test_patched_parameters), TEST(test_text_config),
        TEST(test_tokenizer),          TEST(test_gguf_source),
        TEST(test_export_failures),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

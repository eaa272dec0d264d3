/* Opening models: every family, and every way in which tensors can be wrong. */
#include <unistd.h>

#include "base/numbers.h"
#include "tiny_case.h"

static ls_model *open_tiny(const struct tiny_spec *spec)
{
    ls_model *m = NULL;
    begin_dir();
    tiny_model(dir, spec);
    const ls_status st = ls_model_open(dir, NULL, &m, &err);
    end_dir();
    CHECK((st == LS_OK) == (m != NULL));
    return m;
}

static void check_refused(const struct tiny_spec *spec, ls_status status, const char *part)
{
    ls_model *m = open_tiny(spec);
    CHECK(m == NULL);
    CHECK_INT(err.status, status);
    if (!strstr(err.text, part)) {
        CHECK_STR(err.text, part);
    }
    ls_model_close(m);
}

static void test_families(void)
{
    for (size_t i = 0; i < tiny_n_configs; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            ls_model *m = open_tiny(
                &(struct tiny_spec){ .config = tiny_configs[i], .dtype = bf16 ? LSI_BF16 : LSI_F32 });
            if (!m)
                CHECK_STR(err.text, "");
            REQUIRE(m != NULL);
            ls_model_info info = { .struct_size = sizeof info };
            ls_model_get_info(m, &info);
            CHECK_STR(info.format, "safetensors");
            CHECK_STR(info.weights, bf16 ? "BF16" : "F32");
            CHECK_INT(info.n_vocab, 80);
            CHECK_INT(info.weight_bytes, info.n_parameters * (bf16 ? 2 : 4));
            const struct lsi_layer *y = &m->layers[0];
            CHECK(y->attn_norm && y->ffn_norm && y->q.data && y->down.data && y->rope->inv_freq);
            CHECK((y->q_norm != NULL) == m->config.qk_norm);
            CHECK((y->k_bias != NULL) == m->config.qkv_bias);
            CHECK((y->o_bias != NULL) == m->config.o_bias);
            CHECK((y->up_bias != NULL) == m->config.mlp_bias);
            CHECK((y->post_ffn_norm != NULL) == m->config.post_norms);
            CHECK((m->output.data == m->embed.data) == info.tied);
            CHECK_INT(y->o.n_in, info.n_heads * info.head_dim);
            ls_model_close(m);
        }
}

/* Gains are what the norm multiplies by: Gemma's files store them less 1. */
static void test_gain_offset(void)
{
    for (size_t i = 0; i < tiny_n_configs; i++) {
        ls_model *m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[i], .dtype = LSI_F32 });
        REQUIRE(m != NULL);
        struct lsi_tensor t;
        float stored;
        REQUIRE(lsi_source_find(&m->source, m->config.family, LSI_ROLE_FFN_NORM, 0, &t));
        memcpy(&stored, t.data, sizeof stored);
        CHECK_NEAR(m->layers[0].ffn_norm[0], stored + (m->config.family->gain_offset ? 1.0f : 0.0f), 0);
        ls_model_close(m);
    }
}

static void test_windows_and_rope(void)
{
    ls_model *m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[5], .dtype = LSI_F32 });
    REQUIRE(m != NULL);
    CHECK_INT(m->layers[0].window, 16);
    CHECK_INT(m->layers[1].window, 0);
    CHECK(m->layers[0].rope == &m->rope[1] && m->layers[1].rope == &m->rope[0]);
    CHECK_NEAR(m->rope[0].inv_freq[0], 1.0 / 8, 1e-15);
    CHECK_NEAR(m->rope[1].inv_freq[1], pow(10000, -2.0 / 32), 1e-15);
    CHECK_NEAR(m->rope[0].mscale, 1, 0);
    ls_model_close(m);
    m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[3], .dtype = LSI_F32 });
    REQUIRE(m != NULL);
    CHECK_NEAR(m->rope[0].mscale, 0.1 * log(4) + 1, 1e-12);
    ls_model_close(m);
}

static void test_tied_by_absence(void)
{
    ls_model *m = open_tiny(
        &(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_F32, .skip = "lm_head.weight" });
    REQUIRE(m != NULL);
    CHECK(m->config.tied);
    CHECK(m->output.data == m->embed.data);
    ls_model_close(m);
}

static void test_stored_head_of_tied_model(void)
{
    ls_model *m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[1], .dtype = LSI_F32, .head = true });
    REQUIRE(m != NULL);
    CHECK(m->output.data == m->embed.data);
    ls_model_close(m);
}

static void test_wrong_tensors(void)
{
    struct tiny_spec s = { .config = tiny_configs[0], .dtype = LSI_F32 };
    s.skip = "model.layers.1.mlp.up_proj.weight";
    check_refused(&s, LS_E_FORMAT, "tensor model.layers.1.mlp.up_proj.weight is missing");
    s.skip = "model.embed_tokens.weight";
    check_refused(&s, LS_E_FORMAT, "embed_tokens.weight is missing");
    s.skip = NULL;
    s.reshape = "model.layers.0.self_attn.k_proj.weight";
    check_refused(&s, LS_E_FORMAT,
                  "tensor model.layers.0.self_attn.k_proj.weight: expected [32][64], found [33][64]");
    s.reshape = "model.norm.weight";
    check_refused(&s, LS_E_FORMAT, "expected [64], found [65]");
    s.reshape = NULL;
    s.odd = "model.layers.0.self_attn.v_proj.weight";
    s.odd_dtype = LSI_F64;
    check_refused(&s, LS_E_UNSUPPORTED, "type F64");
    s.odd = "model.norm.weight";
    s.odd_dtype = LSI_I32;
    check_refused(&s, LS_E_UNSUPPORTED, "type I32");
    s.odd = NULL;
    s.extra = "model.layers.0.self_attn.q_proj.bias";
    check_refused(&s, LS_E_UNSUPPORTED, "has no place in a llama model");
    s.extra = "model.layers.2.input_layernorm.weight";
    check_refused(&s, LS_E_UNSUPPORTED, "of 2 layers");
}

static void test_ignored_tensors(void)
{
    static const char *const names[] = { "model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.patch",
                                         "model.something" };
    for (size_t i = 0; i < LSI_LEN(names); i++) {
        ls_model *m =
            open_tiny(&(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_F32, .extra = names[i] });
        CHECK(m != NULL);
        ls_model_close(m);
    }
}

static void test_tensor_list(void)
{
    ls_model *m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_BF16 });
    ls_tensor_info t;
    bool found = false;
    REQUIRE(m != NULL);
    CHECK_INT(ls_model_n_tensors(m), 2 * 9 + 3);
    for (size_t i = 0; i < ls_model_n_tensors(m); i++) {
        REQUIRE(ls_model_get_tensor(m, i, &t));
        if (strcmp(t.name, "model.layers.1.mlp.down_proj.weight") != 0)
            continue;
        found = true;
        CHECK_STR(t.dtype, "BF16");
        CHECK_INT(t.rank, 2);
        CHECK_INT(t.shape[0], 64);
        CHECK_INT(t.shape[1], 96);
        CHECK_INT(t.bytes, 64 * 96 * 2);
    }
    CHECK(found);
    CHECK(!ls_model_get_tensor(m, ls_model_n_tensors(m), &t));
    ls_model_close(m);
}

/* ---- paths -------------------------------------------------------------------------- */

static void test_paths(void)
{
    ls_model *m = NULL;
    begin_dir();
    tiny_model(dir, &(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_F32 });

    ls_model_options o;
    ls_model_options_defaults(&o);
    o.prefault = true;
    REQUIRE_OK(ls_model_open(tiny_path(dir, "model.safetensors"), &o, &m, &err), err);
    ls_model_info info = { .struct_size = sizeof info };
    ls_model_get_info(m, &info);
    CHECK_STR(info.path, tiny_path(dir, "model.safetensors"));
    ls_model_close(m);

    CHECK_INT(ls_model_open(tiny_path(dir, "nothing"), NULL, &m, &err), LS_E_IO);
    CHECK(strstr(err.text, "no such file") && strstr(err.text, "nothing"));
    unlink(tiny_path(dir, "config.json"));
    CHECK_INT(ls_model_open(dir, NULL, &m, &err), LS_E_IO);
    CHECK(strstr(err.text, "config.json") != NULL);
    CHECK_INT(ls_model_open(tiny_path(dir, "model.safetensors"), NULL, &m, &err), LS_E_FORMAT);
    CHECK(strstr(err.text, "config.json") != NULL);
    tiny_write(dir, "a.gguf", "GGUF", 4);
    CHECK(ls_model_open(dir, NULL, &m, &err) != LS_OK);
    CHECK(strstr(err.text, "a.gguf") != NULL);
    tiny_write(dir, "b.gguf", "GGUF", 4);
    CHECK_INT(ls_model_open(dir, NULL, &m, &err), LS_E_INVAL);
    CHECK(m == NULL);
    end_dir();

    CHECK_INT(ls_model_open(NULL, NULL, &m, &err), LS_E_INVAL);
    CHECK_INT(ls_model_open("x", NULL, NULL, &err), LS_E_INVAL);
    ls_model_close(NULL);
}

static void test_references(void)
{
    ls_model *m = open_tiny(&(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_F32 });
    REQUIRE(m != NULL);
    ls_model *again = lsi_model_ref(m);
    ls_model_close(m);
    CHECK_STR(again->config.family->name, "llama"); /* alive: the sanitiser would tell */
    lsi_model_unref(again);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_families),
        TEST(test_gain_offset),
        TEST(test_windows_and_rope),
        TEST(test_tied_by_absence),
        TEST(test_stored_head_of_tied_model),
        TEST(test_wrong_tensors),
        TEST(test_ignored_tensors),
        TEST(test_tensor_list),
        TEST(test_paths),
        TEST(test_references),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

/* Adapters in files, and models with adapters added. */
#include "train/adapter.h"

#include <longspan/adapter.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "small_params.h"
#include "faulty.h"
#include "tiny_case.h"

/* Parameters with adapters of rank 3 on q and down, saved as dir/adapter. */
static void save_extended(struct lsi_params *p, const struct lsi_config *c, double alpha,
                          const struct lsi_extension *e)
{
    const struct small_spec spec = { .dtype = LSI_F32, .lora_rank = 3, .seed = 4 };
    small_params(p, c, &spec, NULL);
    REQUIRE_OK(lsi_adapter_save(p, alpha, "some/\"model\"", e, tiny_path(dir, "adapter"), &err), err);
}

static void save_adapter(struct lsi_params *p, const struct lsi_config *c, double alpha)
{
    const struct lsi_extension none = { .n_ctx = c->n_ctx_train };
    save_extended(p, c, alpha, &none);
}

/* A model in dir/in and an adapter of it in dir/adapter, with the parameters that were saved. */
static void begin_adapter(struct lsi_params *p, const char *config, enum lsi_dtype dtype, double alpha)
{
    begin_model(config, dtype);
    ls_model *m = open_model("in");
    save_adapter(p, &m->config, alpha);
    ls_model_close(m);
}

static const struct lsi_param *param(const struct lsi_params *p, enum lsi_param_kind kind, enum lsi_role role,
                                     size_t layer)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].kind == kind && p->list[i].role == role && p->list[i].layer == layer)
            return &p->list[i];
    return NULL;
}

static void test_round_trip(void)
{
    struct lsi_params p;
    struct lsi_adapter a;
    struct lsi_safetensors st;
    begin_model(tiny_configs[0], LSI_F32);
    ls_model *m = open_model("in");
    save_adapter(&p, &m->config, 6);
    CHECK_HAS(tiny_read(dir, "adapter/adapter_config.json"),
              "\"target_modules\": [\"q_proj\", \"down_proj\"]");
    CHECK_HAS(tiny_content, "\"r\": 3,");
    CHECK_HAS(tiny_content, "\"lora_alpha\": 6,");
    CHECK_HAS(tiny_content, "\"base_model_name_or_path\": \"some/\\\"model\\\"\"");
    REQUIRE_OK(lsi_st_open(&st, tiny_path(dir, "adapter/adapter_model.safetensors"),
                           lsi_alloc_or_default(NULL), &err),
               err);
    CHECK_INT(st.n_tensors, 2 * 2 * m->config.L);
    CHECK(lsi_st_find(&st, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight") != NULL);
    CHECK(lsi_st_find(&st, "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight") != NULL);
    lsi_st_close(&st);

    REQUIRE_OK(lsi_adapter_open(&a, tiny_path(dir, "adapter"), &m->config, NULL, &err), err);
    CHECK_INT(a.rank, 3);
    CHECK_NEAR(a.alpha, 6, 0);
    CHECK_INT(a.n, 2 * m->config.L);
    CHECK(lsi_adapter_find(&a, LSI_ROLE_K, 0) == NULL);
    const struct lsi_adapter_target *t = lsi_adapter_find(&a, LSI_ROLE_DOWN, 1);
    REQUIRE(t != NULL);
    const struct lsi_param *A = param(&p, LSI_PARAM_LORA_A, LSI_ROLE_DOWN, 1);
    const struct lsi_param *B = param(&p, LSI_PARAM_LORA_B, LSI_ROLE_DOWN, 1);
    CHECK_INT(t->n_in, 96);
    CHECK_INT(t->n_out, 64);
    CHECK_MEM(t->a, 3 * 96 * sizeof(float), A->w, A->n * sizeof(float));
    CHECK_MEM(t->b, 3 * 64 * sizeof(float), B->w, B->n * sizeof(float));
    lsi_adapter_close(&a);
    small_params_free(&p);
    ls_model_close(m);
    end_dir();
}

/* ---- merging ------------------------------------------------------------------------------------- */

static void row_values(const struct lsi_weight *w, size_t r, float *out)
{
    struct lsk_table k;
    lsk_table_init(&k, lsk_cpu_features());
    lsk_table_dequant(&k, w->dtype)(out, (const unsigned char *)w->data + r * w->row_bytes, w->n_in);
}

/* Row r of a model's file, in the order of Hugging Face files. */
static size_t file_row(const ls_model *m, enum lsi_role role, size_t r)
{
    const size_t D = m->config.D, i = r % D;
    if (role != LSI_ROLE_Q || !m->config.interleaved)
        return r;
    return r / D * D + (i % (D / 2)) * 2 + i / (D / 2);
}

/* The greatest difference between W + scale B A and what the merged model has. */
static double worst(const ls_model *in, const ls_model *out, const struct lsi_params *p, double scale,
                    enum lsi_role role, size_t layer)
{
    const struct lsi_layer *x = &in->layers[layer], *y = &out->layers[layer];
    const struct lsi_weight *w = role == LSI_ROLE_Q ? &x->q : role == LSI_ROLE_DOWN ? &x->down : &x->up;
    const struct lsi_weight *got = role == LSI_ROLE_Q ? &y->q : role == LSI_ROLE_DOWN ? &y->down : &y->up;
    const struct lsi_param *A = param(p, LSI_PARAM_LORA_A, role, layer);
    const struct lsi_param *B = param(p, LSI_PARAM_LORA_B, role, layer);
    float before[256], after[256];
    double most = 0;
    for (size_t r = 0; r < w->n_out; r++) {
        row_values(w, file_row(in, role, r), before);
        row_values(got, file_row(out, role, r), after);
        for (size_t i = 0; i < w->n_in; i++) {
            double sum = 0;
            for (size_t k = 0; A && k < A->rows; k++)
                sum += (double)((const float *)B->w)[r * A->rows + k] *
                       (double)((const float *)A->w)[k * A->cols + i];
            most = fmax(most, fabs((double)before[i] + scale * sum - (double)after[i]));
        }
    }
    return most;
}

static void check_merged(const char *in, const char *out, const struct lsi_params *p, double scale,
                         double tol)
{
    static const enum lsi_role roles[] = { LSI_ROLE_Q, LSI_ROLE_DOWN, LSI_ROLE_UP };
    ls_model *a = open_model(in), *b = open_model(out);
    for (size_t l = 0; l < a->config.L; l++)
        for (size_t i = 0; i < LSI_LEN(roles); i++) {
            const double most = worst(a, b, p, scale, roles[i], l);
            CHECK(most <= (roles[i] == LSI_ROLE_UP ? 0 : tol));
            if (most > tol)
                fprintf(stderr, "    %s, role %d, layer %zu: %.3g\n", out, (int)roles[i], l, most);
        }
    ls_model_close(a);
    ls_model_close(b);
}

static ls_status merge(const char *in, const char *out, const char *dtype)
{
    ls_convert_options o;
    ls_convert_options_defaults(&o);
    o.dtype = dtype;
    return ls_merge_adapter(tiny_path(dir, in), tiny_path(dir, "adapter"), tiny_path(dir, out), &o, &err);
}

/* From and to both formats: GGUF files of Llama's kind have the rows of q in another order. */
static void test_merge(void)
{
    for (size_t i = 0; i < tiny_n_configs; i++) {
        struct lsi_params p;
        begin_adapter(&p, tiny_configs[i], LSI_F32, 1.5);
        REQUIRE_OK(ls_convert(tiny_path(dir, "in"), tiny_path(dir, "in.gguf"), NULL, &err), err);
        REQUIRE_OK(merge("in", "a", NULL), err);
        check_merged("in", "a", &p, 0.5, 1e-6);
        REQUIRE_OK(merge("in", "a.gguf", NULL), err);
        check_merged("in", "a.gguf", &p, 0.5, 1e-6);
        REQUIRE_OK(merge("in.gguf", "b", NULL), err);
        check_merged("in", "b", &p, 0.5, 1e-6);
        REQUIRE_OK(merge("in.gguf", "b.gguf", NULL), err);
        check_merged("in", "b.gguf", &p, 0.5, 1e-6);
        small_params_free(&p);
        end_dir();
    }
}

static void check_frequencies(const struct lsi_config *got, const struct lsi_config *want, int kind)
{
    const size_t D = want->D;
    double a[LSI_MAX_HEAD / 2], b[LSI_MAX_HEAD / 2];
    const double got_scale = lsi_rope_frequencies(&got->rope[kind], kind ? NULL : got->freq_divisors, D, a);
    const double want_scale =
        lsi_rope_frequencies(&want->rope[kind], kind ? NULL : want->freq_divisors, D, b);
    CHECK_NEAR(got_scale, want_scale, 1e-6);
    for (size_t i = 0; i < D / 2; i++)
        CHECK_NEAR(a[i] / b[i], 1, 1e-6);
}

/* What the adapter was trained for beside the matrices: in every format that a merged model has. */
static void test_merge_context(void)
{
    static const struct lsi_extension cases[] = {
        { .rope_base = 543210, .n_ctx = 4096 },
        { .rope_scaling = "linear:4", .n_ctx = 2048 },
        { .rope_scaling = "yarn:8:64", .rope_base = 20000, .n_ctx = 512 },
        { .rope_scaling = "none", .n_ctx = 77 },
        { .n_ctx = 123456 },
    };
    static const char *const ways[][2] = {
        { "in", "a" }, { "in", "a.gguf" }, { "in.gguf", "b" }, { "in.gguf", "b.gguf" }
    };
    for (size_t i = 0; i < tiny_n_configs * LSI_LEN(cases); i++) {
        const struct lsi_extension *e = &cases[i % LSI_LEN(cases)];
        struct lsi_params p;
        begin_model(tiny_configs[i / LSI_LEN(cases)], LSI_F32);
        ls_model *m = open_model("in");
        save_extended(&p, &m->config, 3, e);
        small_params_free(&p);
        REQUIRE_OK(ls_convert(tiny_path(dir, "in"), tiny_path(dir, "in.gguf"), NULL, &err), err);
        for (size_t k = 0; k < LSI_LEN(ways); k++) {
            REQUIRE_OK(merge(ways[k][0], ways[k][1], NULL), err);
            ls_model *in = open_model(ways[k][0]), *out = open_model(ways[k][1]);
            REQUIRE_OK(lsi_config_extend(&in->config, e, &err), err);
            CHECK_INT(out->config.n_ctx_train, e->n_ctx);
            for (int kind = 0; kind <= (in->config.window > 0); kind++)
                check_frequencies(&out->config, &in->config, kind);
            ls_model_close(in);
            ls_model_close(out);
        }
        ls_model_close(m);
        end_dir();
    }
}

static void check_extension_refused(const char *text, ls_status status, const char *part)
{
    tiny_write(dir, "adapter/longspan.json", text, strlen(text));
    CHECK_INT(merge("in", "out", NULL), status);
    CHECK_HAS(err.text, "longspan.json");
    CHECK_HAS(err.text, part);
}

static void test_extension_refusals(void)
{
    struct lsi_params p;
    begin_adapter(&p, tiny_configs[0], LSI_F32, 3);
    small_params_free(&p);
    check_extension_refused("{\"rope_scaling\": \"square:4\"}", LS_E_INVAL, "square:4");
    check_extension_refused("{\"rope_base\": -1}", LS_E_INVAL, "-1");
    check_extension_refused("{\"context_length\": 0}", LS_E_FORMAT, "0 tokens");
    check_extension_refused("{\"rope_base\": ", LS_E_FORMAT, "");
    check_extension_refused(
        "{\"rope_scaling\": \"linear:4444444444444444444444444444444444444444444444444444444"
        "44444444444444444444444444444444444444444444444444444444\"}",
        LS_E_FORMAT, "bytes");
    CHECK(!lsi_path_exists(tiny_path(dir, "out")));
    unlink(tiny_path(dir, "adapter/longspan.json")); /* as PEFT writes adapters */
    REQUIRE_OK(merge("in", "out", NULL), err);
    end_dir();
}

static void test_merge_types(void)
{
    struct lsi_params p;
    begin_adapter(&p, tiny_configs[0], LSI_BF16, 3);
    REQUIRE_OK(merge("in", "bf16", NULL), err);
    check_merged("in", "bf16", &p, 1, 0.005); /* values up to 1.2 */
    REQUIRE_OK(merge("in", "f32", "f32"), err);
    check_merged("in", "f32", &p, 1, 1e-6);
    ls_convert_options o;
    ls_convert_options_defaults(&o);
    o.dtype = "q4_1";
    REQUIRE_OK(ls_convert(tiny_path(dir, "in"), tiny_path(dir, "q.gguf"), &o, &err), err);
    REQUIRE_OK(merge("q.gguf", "q", "f32"), err);
    ls_model *q = open_model("q.gguf"), *out = open_model("q");
    CHECK(worst(q, out, &p, 1, LSI_ROLE_Q, 0) <= 1e-6);
    CHECK(worst(q, out, &p, 1, LSI_ROLE_DOWN, 1) <= 1e-6);
    ls_model_close(out);
    REQUIRE_OK(merge("q.gguf", "again.gguf", NULL), err); /* quantised again */
    out = open_model("again.gguf");
    CHECK_INT(out->layers[0].q.dtype, LSI_Q4_1);
    CHECK(worst(q, out, &p, 1, LSI_ROLE_Q, 0) <= 0.09);
    ls_model_close(q);
    ls_model_close(out);
    small_params_free(&p);
    end_dir();
}

/* Wide enough for blocks of 256. */
static const char wide_config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 256, \"intermediate_size\": 256, \"num_hidden_layers\": 1,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 80}";

/* Every quantised type is kept: what the adapter adds goes in, within the type's step, the rest stays. */
static void test_merge_keeps_types(void)
{
    static const struct {
        const char *name;
        enum lsi_dtype dtype;
        double tol; /* a step: values lie in -1.2 .. 1.2, scales are a little larger than they take */
    } types[] = {
        { "q8_0", LSI_Q8_0, 0.01 }, { "q6_k", LSI_Q6_K, 0.05 }, { "q5_k", LSI_Q5_K, 0.1 },
        { "q5_1", LSI_Q5_1, 0.05 }, { "q5_0", LSI_Q5_0, 0.09 }, { "q4_k", LSI_Q4_K, 0.2 },
        { "q4_1", LSI_Q4_1, 0.1 },  { "q4_0", LSI_Q4_0, 0.18 },
    };
    struct lsi_params p;
    begin_adapter(&p, wide_config, LSI_BF16, 3);
    for (size_t i = 0; i < LSI_LEN(types); i++) {
        ls_convert_options o;
        ls_convert_options_defaults(&o);
        o.dtype = types[i].name;
        o.force = true;
        REQUIRE_OK(ls_convert(tiny_path(dir, "in"), tiny_path(dir, "q.gguf"), &o, &err), err);
        REQUIRE_OK(merge("q.gguf", "out.gguf", "keep"), err);
        ls_model *q = open_model("q.gguf"), *out = open_model("out.gguf");
        CHECK_INT(q->layers[0].q.dtype, types[i].dtype);
        CHECK_INT(out->layers[0].q.dtype, types[i].dtype);
        CHECK_INT(out->layers[0].down.dtype, types[i].dtype);
        const double worst_q = worst(q, out, &p, 1, LSI_ROLE_Q, 0);
        const double worst_down = worst(q, out, &p, 1, LSI_ROLE_DOWN, 0);
        CHECK(worst_q <= types[i].tol && worst_down <= types[i].tol);
        CHECK(worst_q > 0 && worst_down > 0);
        if (worst_q > types[i].tol || worst_down > types[i].tol)
            fprintf(stderr, "    %s: %.3g, %.3g\n", types[i].name, worst_q, worst_down);
        CHECK(worst(q, out, &p, 1, LSI_ROLE_UP, 0) == 0);
        ls_model_close(q);
        ls_model_close(out);
        unlink(tiny_path(dir, "out.gguf"));
    }
    small_params_free(&p);
    end_dir();
}

/* ---- refusals -------------------------------------------------------------------------------------- */

static void check_refused(const char *config, ls_status status, const char *part)
{
    tiny_write(dir, "adapter/adapter_config.json", config, strlen(config));
    CHECK_INT(merge("in", "out", NULL), status);
    CHECK_HAS(err.text, part);
}

static void test_config_refusals(void)
{
    struct lsi_params p;
    begin_adapter(&p, tiny_configs[4], LSI_F32, 3);
    small_params_free(&p);
    check_refused("{\"peft_type\": \"LORA\", \"r\": 3, \"use_dora\": true}", LS_E_UNSUPPORTED, "use_dora");
    check_refused("{\"r\": 3, \"use_rslora\": true}", LS_E_UNSUPPORTED, "use_rslora");
    check_refused("{\"r\": 3, \"alpha_pattern\": {\"q_proj\": 3}}", LS_E_UNSUPPORTED, "alpha_pattern");
    check_refused("{\"r\": 3, \"rank_pattern\": { \"q_proj\": 3 }}", LS_E_UNSUPPORTED, "rank_pattern");
    check_refused("{\"r\": 3, \"modules_to_save\": [\"lm_head\"]}", LS_E_UNSUPPORTED, "modules_to_save");
    check_refused("{\"r\": 3, \"bias\": \"all\"}", LS_E_UNSUPPORTED, "bias \"all\"");
    check_refused("{\"r\": 3, \"peft_type\": \"IA3\"}", LS_E_UNSUPPORTED, "IA3");
    check_refused("{\"r\": 3, \"init_lora_weights\": \"pissa\"}", LS_E_UNSUPPORTED, "pissa");
    check_refused("{\"r\": 0}", LS_E_FORMAT, "rank of 0");
    check_refused("{\"r\": 4}", LS_E_FORMAT, "expected [4][96], found [3][96]");
    check_refused("{\"r\": 3", LS_E_FORMAT, "adapter_config.json");
    CHECK(!lsi_path_exists(tiny_path(dir, "out")));
    CHECK_INT(tiny_count(dir), 2);
    static const char fine[] =
        "{\"r\": 3, \"use_dora\": false, \"rank_pattern\": { }, \"modules_to_save\": null, "
        "\"init_lora_weights\": \"gaussian\", \"unheard_of\": {\"a\": 1}}";
    tiny_write(dir, "adapter/adapter_config.json", fine, sizeof fine - 1);
    REQUIRE_OK(merge("in", "out", NULL), err);
    end_dir();
}

/* Tensors of an adapter under these names, of rank 2 for 64 columns. */
static void write_tensors(const char *const *names, size_t n, uint64_t cols)
{
    struct lsi_st_writer *w = NULL;
    static const float zeros[2 * 4096];
    const uint64_t a[] = { 2, cols }, b[] = { 128, 2 };
    tiny_write(dir, "adapter/adapter_config.json", "{\"r\": 2}", 8);
    REQUIRE_OK(lsi_st_writer_create(&w, tiny_path(dir, "adapter/adapter_model.safetensors"),
                                    lsi_alloc_or_default(NULL), &err),
               err);
    for (size_t i = 0; i < n; i++)
        lsi_st_put_tensor(w, names[i], LSI_F32, 2, strstr(names[i], "_A") ? a : b);
    REQUIRE_OK(lsi_st_writer_begin(w, &err), err);
    for (size_t i = 0; i < n; i++)
        lsi_st_write_data(w, zeros, (strstr(names[lsi_st_writer_order(w, i)], "_A") ? 2 * cols : 256) * 4);
    REQUIRE_OK(lsi_st_writer_commit(w, &err), err);
}

#define LAYER "base_model.model.model.layers."

static void test_tensor_refusals(void)
{
    static const struct {
        const char *names[3];
        ls_status status;
        const char *part;
    } cases[] = {
        { { LAYER "0.self_attn.q_proj.lora_A.weight" }, LS_E_FORMAT, "only one of" },
        { { LAYER "2.self_attn.q_proj.lora_A.weight" }, LS_E_UNSUPPORTED, "2 layers" },
        { { LAYER "0.input_layernorm.lora_A.weight" }, LS_E_UNSUPPORTED, "input_layernorm" },
        { { LAYER "0.self_attn.q_proj.lora_magnitude_vector" }, LS_E_UNSUPPORTED, "magnitude" },
        { { "base_model.model.model.embed_tokens.lora_embedding_A" }, LS_E_UNSUPPORTED, "embedding_A" },
        { { LAYER "0.self_attn.q_proj.lora_A.weight", LAYER "00.self_attn.q_proj.lora_A.weight" },
          LS_E_FORMAT,
          "twice" },
        { { NULL }, LS_E_FORMAT, "no tensors" },
    };
    begin_model(tiny_configs[4], LSI_F32);
    mkdir(tiny_path(dir, "adapter"), 0777);
    CHECK_INT(merge("in", "out", NULL), LS_E_IO);
    CHECK_HAS(err.text, "adapter_config.json");
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        size_t n = 0;
        while (cases[i].names[n])
            n++;
        write_tensors(cases[i].names, n, 64);
        CHECK_INT(merge("in", "out", NULL), cases[i].status);
        CHECK_HAS(err.text, cases[i].part);
    }
    static const char *const good[] = { LAYER "1.self_attn.q_proj.lora_A.weight",
                                        LAYER "1.self_attn.q_proj.lora_B.weight" };
    write_tensors(good, 2, 65);
    CHECK_INT(merge("in", "out", NULL), LS_E_FORMAT);
    CHECK_HAS(err.text, "expected [2][64], found [2][65]");
    write_tensors(good, 2, 64);
    REQUIRE_OK(merge("in", "out", NULL), err);
    CHECK_INT(merge("in", "out", NULL), LS_E_INVAL); /* it is there */
    CHECK_INT(ls_merge_adapter("in", NULL, "x", NULL, &err), LS_E_INVAL);
    end_dir();
}

/* ---- memory -------------------------------------------------------------------------------------- */

static void test_memory(void)
{
    struct lsi_params p;
    begin_adapter(&p, tiny_configs[4], LSI_F32, 3);
    small_params_free(&p);
    for (size_t fail_at = 1;; fail_at++) {
        struct faulty f = { .fail_at = fail_at };
        const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
        ls_convert_options o;
        ls_convert_options_defaults(&o);
        o.alloc = &alloc;
        const ls_status st = ls_merge_adapter(tiny_path(dir, "in"), tiny_path(dir, "adapter"),
                                              tiny_path(dir, "out"), &o, &err);
        CHECK_INT(f.outstanding, 0);
        if (f.n < fail_at) {
            REQUIRE_OK(st, err);
            break;
        }
        CHECK_INT(st, LS_E_NOMEM);
        CHECK_INT(tiny_count(dir), 2);
    }
    end_dir();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_round_trip),         TEST(test_merge),           TEST(test_merge_context),
        TEST(test_extension_refusals), TEST(test_merge_types),     TEST(test_merge_keeps_types),
        TEST(test_config_refusals),    TEST(test_tensor_refusals), TEST(test_memory),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

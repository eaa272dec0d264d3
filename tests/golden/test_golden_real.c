/*
 * A real model against transformers in fp32: test_golden_real (smollm2 | gemma) [CASE].
 * Skipped when the model's file is not here (scripts/get-model obtains it).
 */
#include "golden.h"
#include "test.h"

/*
 * The bounds of the modes that round: what the same rounding costs in transformers on this very text
 * (scripts/make-golden/rounding.py), plus a few per cent. They hold over all logits; the golden file's 64 ids
 * of each row lie up to 3 % above all of them (LONGSPAN_GOLDEN with a file written by real_models.py --full
 * compares them all).
 */
#define PROBED 1.03

static const struct {
    const char *name;                  /* of the golden file */
    const char *variable;              /* environment: the model's file */
    const char *file;                  /* its name in the cache folder */
    double bf16_max, bf16_rms;         /* products of bf16 values */
    double q8_rms;                     /* activations in 8 bits, a scale for each 32 */
    double q8_cache_rms, q8_cache_top; /* those and 8-bit keys and values, as measured */
} known[] = {
    /* transformers: 0.38, 0.058, 0.213; here the products of attention are rounded too */
    { "smollm2", "LONGSPAN_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf", 0.6, 0.062, 0.22, 0.25, 0.945 },
    /* transformers: 0.92, 0.064, 0.271 */
    { "gemma3-270m", "LONGSPAN_GEMMA", "gemma-3-270m.Q4_K_M.gguf", 0.95, 0.065, 0.28, 0.33, 0.95 },
};

static size_t which;
static struct golden golden;
static ls_model *model;
static ls_tokenizer *tok;

static struct golden_diff compare(const struct golden *g, const struct golden_run *run, const char *what,
                                  float *keep)
{
    struct golden_diff d = { 0 };
    ls_error err = { 0 };

    REQUIRE_OK(golden_compare(g, model, run, &d, keep, &err), err);
    golden_print(what, &d);
    return d;
}

static void test_tokens(void)
{
    ls_error err = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;

    REQUIRE(golden.text);
    REQUIRE_OK(ls_tokenizer_encode(tok, golden.text, golden.text_len, LS_ENCODE_ADD_SPECIAL, &ids, &n, &err),
               err);
    CHECK_MEM(ids, n * sizeof *ids, golden.ids, golden.n_tokens * sizeof *ids);
    ls_tokenizer_ids_free(tok, ids, n);
}

static void test_fp32(void)
{
    const struct golden_run run = { "full:fp32", LS_COMPUTE_FP32, 0, 0 };
    const struct golden_diff d = compare(&golden, &run, "fp32", NULL);

    CHECK(d.n_rows >= 1000);
    CHECK(d.max <= 2e-3);
    CHECK(d.top >= 0.999);
}

/* Products of values rounded to bf16. */
static void test_bf16(void)
{
    const struct golden_run run = { "full:fp32", LS_COMPUTE_BF16, 0, 0 };
    const struct golden_diff d = compare(&golden, &run, "bf16", NULL);

    CHECK(d.max <= known[which].bf16_max);
    CHECK(d.rms <= known[which].bf16_rms * PROBED);
    CHECK(d.top >= 0.985);
}

/*
 * Weights as they are, activations in 8 bits with a scale for each 32: one token at a time. The share of
 * equal first choices is counted over some thousand rows: a per cent more or less is two standard errors, and
 * any change of the order of a sum draws it anew (transformers with this rounding: 96.5 %).
 */
static void test_auto_decode(void)
{
    const struct golden_run run = { "full:fp32", LS_COMPUTE_AUTO, 0, 1 };
    const struct golden_diff d = compare(&golden, &run, "auto, one token at a time", NULL);

    CHECK(d.rms <= 1.05 * known[which].q8_rms * PROBED);
    CHECK(d.top >= 0.955);
    CHECK(d.nll_abs <= 0.065);
    CHECK(fabs(d.nll_net) <= 0.0014 + 3 * d.nll_error); /* no bias beyond the noise of a thousand tokens */
}

/* What a user gets without options: the cache in bf16 adds its own rounding (0.03 rms by itself). */
static void test_defaults(void)
{
    struct golden_run run = { NULL, LS_COMPUTE_AUTO, 0, 0 };
    struct golden_diff d = compare(&golden, &run, "defaults, blocks", NULL);

    CHECK(d.rms <= 1.5 * known[which].bf16_rms);
    CHECK(d.top >= 0.98);
    run.block = 1;
    d = compare(&golden, &run, "defaults, one token at a time", NULL);
    CHECK(d.rms <= 1.12 * known[which].q8_rms);
    CHECK(d.top >= 0.95);
}

/* 8-bit keys and values have a scale for each 32 dimensions. */
static void test_q8_cache(void)
{
    const struct golden_run run = { "full:q8", LS_COMPUTE_AUTO, 0, 1 };
    const struct golden_diff d = compare(&golden, &run, "8-bit cache, one token at a time", NULL);

    CHECK(d.rms <= known[which].q8_cache_rms);
    CHECK(d.top >= known[which].q8_cache_top);
}

/* The first rows alone: whole logits of more would take hundreds of megabytes. */
static struct golden first_rows(size_t n)
{
    struct golden g = golden;

    g.n_tokens = n;
    return g;
}

static void test_blocks(void)
{
    static const size_t blocks[] = { 1, 7, 64, 512 };
    const struct golden g = first_rows(known[which].name[0] == 's' ? 520 : 96);
    struct golden_run run = { "full:fp32", LS_COMPUTE_FP32, 0, g.n_tokens };
    ls_model_info info = { .struct_size = sizeof info };
    float *one, *other;
    size_t n;

    ls_model_get_info(model, &info);
    n = g.n_tokens * info.n_vocab;
    one = malloc(n * sizeof *one);
    other = malloc(n * sizeof *other);
    REQUIRE(one && other);
    compare(&g, &run, "one block", one);
    for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
        float max = 0;

        run.block = blocks[b];
        compare(&g, &run, "blocks", other);
        for (size_t k = 0; k < n; k++)
            if (!(fabsf(one[k] - other[k]) <= max))
                max = fabsf(one[k] - other[k]);
        fprintf(stderr, "    blocks of %zu: %.2e from one block\n", blocks[b], (double)max);
        CHECK(max <= 1e-4f);
    }
    free(one);
    free(other);
}

static void test_threads(void)
{
    static const struct golden_run runs[] = {
        { "full:fp32", LS_COMPUTE_FP32, 1, 0 }, { "full:fp32", LS_COMPUTE_FP32, 1, 1 },
        { "full:bf16", LS_COMPUTE_BF16, 1, 0 }, { "full:bf16", LS_COMPUTE_BF16, 1, 1 },
        { "full:bf16", LS_COMPUTE_AUTO, 1, 0 }, { "full:bf16", LS_COMPUTE_AUTO, 1, 1 },
        { "full:q8", LS_COMPUTE_AUTO, 1, 0 },   { "full:q8", LS_COMPUTE_AUTO, 1, 1 },
    };
    const struct golden g = first_rows(96);

    for (size_t k = 0; k < sizeof runs / sizeof runs[0]; k++) {
        struct golden_run run = runs[k];
        const struct golden_diff one = compare(&g, &run, "1 thread", NULL);

        run.n_threads = 2;
        CHECK(one.bits == compare(&g, &run, "2 threads", NULL).bits);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_tokens),   TEST(test_fp32),     TEST(test_bf16),   TEST(test_auto_decode),
        TEST(test_defaults), TEST(test_q8_cache), TEST(test_blocks), TEST(test_threads),
    };
    ls_error err = { 0 };
    const char *path;
    int result = 1;

    which = argc > 1 && strcmp(argv[1], "gemma") == 0 ? 1 : 0;
    path = golden_model_path(known[which].variable, known[which].file);
    if (!path) {
        fprintf(stderr, "skipped: %s is not here; scripts/get-model %s obtains it\n", known[which].file,
                known[which].name);
        return TEST_SKIP;
    }
    if (golden_open(&golden, known[which].name, &err) == LS_OK &&
        ls_model_open(path, NULL, &model, &err) == LS_OK &&
        ls_tokenizer_open(path, NULL, &tok, &err) == LS_OK)
        result = test_main(tests, sizeof tests / sizeof tests[0], argc > 1 ? argc - 1 : argc,
                           argc > 1 ? argv + 1 : argv);
    else
        fprintf(stderr, "error: %s\n", err.text);
    ls_tokenizer_close(tok);
    ls_model_close(model);
    golden_close(&golden);
    return result;
}

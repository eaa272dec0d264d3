/*
 * Cache policies through a context, against the same policies in Python and double:
 * scripts/make-golden/kv_policies.py says what the file holds.
 */
#include <math.h>

#include <longspan/longspan.h>

#include "formats/safetensors.h"
#include "test.h"

#define FILE_NAME LS_SOURCE_DIR "/tests/data/golden/kv-policies.safetensors"
#define MODEL     LS_SOURCE_DIR "/tests/data/models/qwen3"

/* Policies move these logits by 0.26 (4 bits) to 2.5 (root mean square). */
static const struct {
    const char *kv;
    double max, rms; /* how far logits may be off */
} cases[] = {
    { "full", 1e-4, 2e-5 },
    { "streaming:sink=4,recent=60", 1e-4, 2e-5 },
    { "streaming:sink=1,recent=150", 1e-4, 2e-5 },
    { "h2o:heavy=20,recent=20", 1e-4, 2e-5 },
    { "h2o:heavy=15%,recent=5%", 1e-4, 2e-5 },
    { "h2o:heavy=40,recent=10,sinks=4,normalise=age", 1e-4, 2e-5 },
    { "snapkv:budget=60,window=16,kernel=5", 1e-4, 2e-5 },
    { "snapkv:budget=25%,window=16,kernel=7,pool=max", 1e-4, 2e-5 },
    { "snapkv:budget=60,window=16,kernel=5,layers=pyramid", 1e-4, 2e-5 },
    /* In fp32 a number on the border of two codes, or of two scales in fp16, may get the other one. */
    { "kivi:bits=2,group=32,residual=32", 5e-3, 5e-4 },
    { "kivi:bits=4,group=32,residual=128", 5e-3, 5e-4 },
};

struct reference {
    struct lsi_safetensors file;
    const int32_t *ids, *probe_ids;
    size_t n_tokens, n_prompt, n_probe;
};

static const void *find(const struct reference *r, const char *name, size_t rank)
{
    const struct lsi_st_tensor *t = lsi_st_find(&r->file, name);
    REQUIRE(t && t->rank == rank && (uintptr_t)t->data % sizeof(float) == 0);
    return t->data;
}

static void reference_open(struct reference *r)
{
    ls_error err = { 0 };
    *r = (struct reference){ 0 };
    REQUIRE_OK(lsi_st_open(&r->file, FILE_NAME, NULL, &err), err);
    r->ids = find(r, "ids", 1);
    r->n_tokens = lsi_st_find(&r->file, "ids")->shape[0];
    r->n_prompt = (size_t) * (const int32_t *)find(r, "n_prompt", 1);
    r->probe_ids = find(r, "probe_ids", 1);
    r->n_probe = lsi_st_find(&r->file, "probe_ids")->shape[0];
}

static ls_context *open_context(ls_model *model, const char *kv, size_t block, int threads)
{
    ls_context_options o;
    ls_context *ctx = NULL;
    ls_error err = { 0 };
    char text[128];
    snprintf(text, sizeof text, "%s%sfp32", kv, strchr(kv, ':') ? "," : ":");
    ls_context_options_defaults(&o);
    o.n_ctx = 512;
    o.kv = text;
    o.compute = LS_COMPUTE_FP32;
    o.block = block;
    o.n_threads = threads;
    REQUIRE_OK(ls_context_create(model, &o, &ctx, &err), err);
    return ctx;
}

/* The largest difference from the reference, and its root mean square. */
static void compare(const struct reference *r, ls_context *ctx, const char *kv, double *max, double *rms)
{
    const float *want = find(r, kv, 2);
    const size_t n_rows = r->n_tokens - r->n_prompt + 1;
    float *logits = malloc(ls_context_n_vocab(ctx) * sizeof *logits);
    ls_error err = { 0 };
    double sum = 0;
    REQUIRE(logits);
    *max = 0;
    for (size_t row = 0; row < n_rows; row++) {
        const size_t at = row == 0 ? 0 : r->n_prompt + row - 1, n = row == 0 ? r->n_prompt : 1;
        REQUIRE_OK(ls_context_append(ctx, r->ids + at, n, logits, &err), err);
        for (size_t i = 0; i < r->n_probe; i++) {
            const double d = fabs((double)logits[r->probe_ids[i]] - (double)want[row * r->n_probe + i]);
            *max = d <= *max ? *max : d; /* NaN too */
            sum += d * d;
        }
    }
    *rms = sqrt(sum / (double)(n_rows * r->n_probe));
    free(logits);
}

static void test_policies(void)
{
    static const struct {
        size_t block;
        int threads;
    } ways[] = { { 0, 1 }, { 64, 2 }, { 1, 1 } };
    struct reference r;
    ls_model *model = NULL;
    ls_error err = { 0 };
    reference_open(&r);
    REQUIRE_OK(ls_model_open(MODEL, NULL, &model, &err), err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            double max, rms;
            ls_context *ctx = open_context(model, cases[i].kv, ways[w].block, ways[w].threads);
            compare(&r, ctx, cases[i].kv, &max, &rms);
            fprintf(stderr, "    %-52s blocks of %3zu: max %.2e, rms %.2e\n", cases[i].kv, ways[w].block, max,
                    rms);
            CHECK(max <= cases[i].max);
            CHECK(rms <= cases[i].rms);
            ls_context_free(ctx);
        }
    ls_model_close(model);
    lsi_st_close(&r.file);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_policies) };
    return test_main(tests, 1, argc, argv);
}

/*
 * What people do with the library, with the Nth allocation failing, for N = 1, 2, … until it
 * succeeds; once with that allocation alone, once with all that follow. Whatever happens,
 * nothing may be left over, sizes given back must be those taken, the status must be a
 * shortage of memory, and no file may remain of a conversion that failed.
 */
#include <longspan/longspan.h>

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faulty.h"
#include "test.h"

#define MODELS LS_SOURCE_DIR "/tests/data/models/"
#define LEN(a) (sizeof(a) / sizeof(a)[0])

static const char text[] = "The capital of France is Paris; 3.14159 and \xe4\xb8\xad\xe6\x96\x87 \xff\n";

/* ---- allocations that fail -------------------------------------------------- */

typedef ls_status scenario_fn(const ls_alloc *a, ls_error *err);

/* One run; returns whether an allocation was refused. */
static bool run_once(scenario_fn *scenario, size_t fail_at, bool persistent)
{
    struct faulty f = { .fail_at = fail_at, .persistent = persistent };
    const ls_alloc a = { faulty_alloc, faulty_free, &f };
    ls_error err = { 0 };
    const ls_status st = scenario(&a, &err);

    if (st != LS_OK && (st != LS_E_NOMEM || f.refused == 0)) {
        CHECK_INT(st, f.refused ? LS_E_NOMEM : LS_OK);
        fprintf(stderr, "  request %zu%s: %s\n", fail_at, persistent ? " and all after" : "", err.text);
    }
    if (st != LS_OK && err.text[0] == '\0') {
        CHECK(err.text[0] != '\0');
        fprintf(stderr, "  request %zu: a failure without a sentence\n", fail_at);
    }
    if (f.outstanding != 0 || f.wrong_size != 0) {
        CHECK_INT(f.outstanding, 0);
        CHECK_INT(f.wrong_size, 0);
        fprintf(stderr, "  request %zu%s\n", fail_at, persistent ? " and all after" : "");
    }
    return f.refused > 0;
}

static void run_all(scenario_fn *scenario)
{
    for (int persistent = 0; persistent < 2; persistent++) {
        size_t n = 1;
        while (run_once(scenario, n, persistent != 0) && test_failures < 5)
            n++;
        fprintf(stderr, "    %zu allocations%s\n", n - 1, persistent ? ", persistently" : "");
    }
}

/* ---- the model's files --------------------------------------------------------- */

static char scratch_dir[] = "/tmp/longspan-fault-XXXXXX";
static char gguf_path[sizeof scratch_dir + 16];

static void remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return;
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
            char child[4096];
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            snprintf(child, sizeof child, "%s/%s", path, e->d_name);
            remove_tree(child);
        }
        if (d)
            closedir(d);
    }
    remove(path);
}

static void remove_scratch(void)
{
    remove_tree(scratch_dir);
}

/* Entries of the scratch folder: the GGUF file and nothing that a failed conversion left. */
static size_t count_scratch(void)
{
    size_t n = 0;
    DIR *d = opendir(scratch_dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.' || (e->d_name[1] != '\0' && e->d_name[1] != '.');
    if (d)
        closedir(d);
    return n;
}

/* ---- scenarios ------------------------------------------------------------------- */

static ls_status open_model(const char *path, const ls_alloc *a, ls_error *err)
{
    ls_model_options o;
    ls_model *model = NULL;

    ls_model_options_defaults(&o);
    o.alloc = a;
    const ls_status st = ls_model_open(path, &o, &model, err);
    if (st != LS_OK)
        CHECK(model == NULL);
    ls_model_close(model);
    return st;
}

static ls_status open_gguf(const ls_alloc *a, ls_error *err)
{
    return open_model(gguf_path, a, err);
}
static ls_status open_shards(const ls_alloc *a, ls_error *err)
{
    return open_model(MODELS "llama3", a, err);
}
static ls_status open_gemma(const ls_alloc *a, ls_error *err)
{
    return open_model(MODELS "gemma3", a, err);
}

static ls_status round_trip(const ls_tokenizer *tok, ls_error *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, back_len = 0, len;
    char *back = NULL;
    const char *shown;
    ls_detokenizer *d = NULL;
    bool stopped;

    ls_status st = ls_tokenizer_encode(tok, text, sizeof text - 1, LS_ENCODE_ADD_SPECIAL, &ids, &n_ids, err);
    if (st == LS_OK)
        st = ls_tokenizer_decode(tok, ids, n_ids, false, &back, &back_len, err);
    if (st == LS_OK)
        st = ls_detokenizer_create(tok, false, NULL, 0, &d, err);
    for (size_t i = 0; st == LS_OK && i < n_ids; i++) {
        st = ls_detokenizer_push(d, ids[i], &shown, &len, &stopped);
        if (st != LS_OK)
            snprintf(err->text, sizeof err->text, "%s", ls_status_text(st)); /* push takes no error */
    }
    ls_detokenizer_free(d);
    if (back)
        ls_tokenizer_text_free(tok, back, back_len);
    ls_tokenizer_ids_free(tok, ids, n_ids);
    return st;
}

static ls_status use_tokenizer(const char *path, const ls_alloc *a, ls_error *err)
{
    ls_tokenizer *tok = NULL;
    ls_status st = ls_tokenizer_open(path, a, &tok, err);
    if (st == LS_OK)
        st = round_trip(tok, err);
    ls_tokenizer_close(tok);
    return st;
}

static ls_status tokenizer_gguf(const ls_alloc *a, ls_error *err)
{
    return use_tokenizer(gguf_path, a, err);
}
static ls_status tokenizer_bpe(const ls_alloc *a, ls_error *err)
{
    return use_tokenizer(MODELS "llama3", a, err);
}
static ls_status tokenizer_spm(const ls_alloc *a, ls_error *err)
{
    return use_tokenizer(MODELS "gemma3", a, err);
}

static ls_status chat(const ls_alloc *a, ls_error *err)
{
    const ls_chat_message messages[] = { { "system", "Be brief.", 9 }, { "user", text, sizeof text - 1 } };
    ls_tokenizer *tok = NULL;
    ls_chat_template *tmpl = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;

    ls_status st = ls_tokenizer_open(MODELS "llama3", a, &tok, err);
    if (st == LS_OK)
        st = ls_chat_template_open(tok, "llama3", &tmpl, err);
    if (st == LS_OK)
        st = ls_chat_encode(tmpl, messages, 2, true, "It is", &ids, &n_ids, err);
    if (st == LS_OK)
        ls_tokenizer_ids_free(tok, ids, n_ids);
    ls_chat_template_close(tmpl);
    ls_tokenizer_close(tok);
    return st;
}

static ls_model *shared_model; /* opened with memory that does not fail */
static int32_t prompt[300];    /* more than a page, so that it can be repeated */

static void share_model(void)
{
    ls_error err = { 0 };
    REQUIRE_OK(ls_model_open(MODELS "llama3", NULL, &shared_model, &err), err);
}

/* A context that has read the prompt; *ctx is set when there is one, whatever happened to the prompt. */
static ls_status begin(const char *kv, const ls_alloc *a, ls_context **ctx, float *logits, ls_error *err)
{
    ls_context_options o;
    ls_context_options_defaults(&o);
    o.n_ctx = 700;
    o.block = 64;
    o.n_threads = 2;
    o.alloc = a;
    o.kv = kv;
    const ls_status st = ls_context_create(shared_model, &o, ctx, err);
    return st == LS_OK ? ls_context_append(*ctx, prompt, LEN(prompt), logits, err) : st;
}

static ls_status generate(const ls_alloc *a, ls_error *err)
{
    ls_sampler_options so;
    ls_context *ctx = NULL;
    ls_sampler *sampler = NULL;
    static float logits[1 << 16];

    ls_sampler_options_defaults(&so);
    ls_status st = begin(NULL, a, &ctx, logits, err);
    if (st == LS_OK)
        st = ls_sampler_create(&so, ls_context_n_vocab(ctx), a, &sampler, err);
    for (int i = 0; st == LS_OK && i < 3; i++) {
        const int32_t id = ls_sampler_choose(sampler, logits);
        const size_t before = ls_context_length(ctx);

        ls_sampler_accept(sampler, id);
        st = ls_context_append(ctx, &id, 1, logits, err);
        CHECK_INT(ls_context_length(ctx), before + (st == LS_OK));
    }
    if (st == LS_OK) { /* a failed append leaves the context usable */
        const size_t before = ls_context_length(ctx);
        st = ls_context_tile(ctx, 600, err);
        if (st == LS_OK)
            st = ls_context_rewind(ctx, before, err);
        else
            CHECK_INT(ls_context_length(ctx), before);
    }
    ls_sampler_free(sampler);
    ls_context_free(ctx);
    return st;
}

/* Every way to keep a cache, in settings where a prompt and a few steps make it drop, choose or quantise. */
static const char *const caches[] = {
    "full",
    "full:q8",
    "streaming:sink=4,recent=60",
    "streaming:sink=4,recent=20%,prompt=dense",
    "h2o:heavy=30,recent=30",
    "h2o:heavy=10%,recent=10%,chunk=96,values=weigh",
    "snapkv:budget=90,window=8",
    "snapkv:budget=20%,window=8,layers=pyramid",
    "topk:k=40",
    "topk:k=10%,sets=per_group,renorm=no",
    "quest:budget=64,skip=1",
    "quest:budget=20%,skip=0,sets=per_q,fp32",
    "kivi:bits=2,residual=32",
    "kivi:bits=4,residual=32,sinks=4,fp32",
    "quest:budget=96,skip=0+kivi:bits=2,residual=32",
    "streaming:sink=4,recent=64,prompt=dense+kivi:bits=2,residual=32",
    "h2o:heavy=30,recent=32+kivi:bits=2,residual=32",
    "snapkv:budget=90,window=8+kivi:bits=4,residual=32",
};
static const char *cache; /* of the scenario */

static ls_status step(ls_context *ctx, ls_error *err)
{
    const size_t before = ls_context_length(ctx);
    const int32_t id = (int32_t)(before % 90);
    const ls_status st = ls_context_append(ctx, &id, 1, NULL, err);
    CHECK_INT(ls_context_length(ctx), before + (st == LS_OK));
    return st;
}

/* Two contexts with the same tokens: one goes on, and so does the other; then it is stored and read back. */
static ls_status share_cache(ls_context *ctx, ls_error *err)
{
    const int32_t held[512] = { 0 }; /* as many as any file below says; which ones does not matter */
    char path[sizeof scratch_dir + 16];
    ls_context *copy = NULL;
    ls_session session = { 0 };

    snprintf(path, sizeof path, "%s/session", scratch_dir);
    ls_status st = ls_context_fork(ctx, &copy, err);
    CHECK((copy != NULL) == (st == LS_OK));
    for (int i = 0; st == LS_OK && i < 2; i++)
        st = step(copy, err);
    for (int i = 0; st == LS_OK && i < 2; i++)
        st = step(ctx, err);
    if (st == LS_OK)
        st = ls_context_assign(copy, ctx, err);
    if (st == LS_OK)
        st = ls_context_save(copy, path, held, "note", 4, err);
    if (st == LS_OK)
        st = ls_context_load(ctx, path, &session, err);
    if (st == LS_OK)
        st = step(ctx, err);
    ls_session_free(&session);
    ls_context_free(copy);
    remove(path);
    CHECK_INT(count_scratch(), 1);
    return st;
}

static ls_status use_cache(const ls_alloc *a, ls_error *err)
{
    ls_context *ctx = NULL;
    ls_status st = begin(cache, a, &ctx, NULL, err);
    for (int i = 0; st == LS_OK && i < 3; i++)
        st = step(ctx, err);
    if (st == LS_OK)
        st = share_cache(ctx, err);
    if (st == LS_OK)
        st = ls_context_tile(ctx, 600, err);
    if (ctx) { /* whatever has failed: it can begin anew */
        ls_error none;
        CHECK_INT(ls_context_rewind(ctx, 0, &none), LS_OK);
        CHECK_INT(ls_context_length(ctx), 0);
    }
    if (st == LS_OK)
        st = ls_context_append(ctx, prompt, 100, NULL, err);
    ls_context_free(ctx);
    return st;
}

static ls_status convert(const char *name, const ls_alloc *a, ls_error *err)
{
    char out[sizeof scratch_dir + 32];
    ls_convert_options o;

    snprintf(out, sizeof out, "%s/%s", scratch_dir, name);
    ls_convert_options_defaults(&o);
    o.alloc = a;
    const ls_status st = ls_convert(MODELS "llama3", out, &o, err);
    if (st != LS_OK)
        CHECK_INT(count_scratch(), 1);
    remove_tree(out);
    return st;
}

static ls_status to_gguf(const ls_alloc *a, ls_error *err)
{
    return convert("out.gguf", a, err);
}
static ls_status to_hf(const ls_alloc *a, ls_error *err)
{
    return convert("out", a, err);
}

/* ---- cases ------------------------------------------------------------------------ */

static void test_open_gguf(void)
{
    run_all(open_gguf);
}
static void test_open_shards(void)
{
    run_all(open_shards);
}
static void test_open_gemma(void)
{
    run_all(open_gemma);
}
static void test_tokenizer_gguf(void)
{
    run_all(tokenizer_gguf);
}
static void test_tokenizer_bpe(void)
{
    run_all(tokenizer_bpe);
}
static void test_tokenizer_spm(void)
{
    run_all(tokenizer_spm);
}
static void test_chat(void)
{
    run_all(chat);
}
static void test_to_gguf(void)
{
    run_all(to_gguf);
}
static void test_to_hf(void)
{
    run_all(to_hf);
}

static void test_generate(void)
{
    share_model();
    run_all(generate);
    ls_model_close(shared_model);
}

static void test_caches(void)
{
    share_model();
    for (size_t i = 0; i < LEN(caches); i++) {
        cache = caches[i];
        fprintf(stderr, "    %s\n", cache);
        run_all(use_cache);
    }
    ls_model_close(shared_model);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_open_gguf),     TEST(test_open_shards),   TEST(test_open_gemma), TEST(test_tokenizer_gguf),
        TEST(test_tokenizer_bpe), TEST(test_tokenizer_spm), TEST(test_chat),       TEST(test_generate),
        TEST(test_caches),        TEST(test_to_gguf),       TEST(test_to_hf),
    };
    ls_error err = { 0 };

    if (!mkdtemp(scratch_dir)) {
        fprintf(stderr, "%s: %s\n", scratch_dir, strerror(errno));
        return 1;
    }
    atexit(remove_scratch);
    snprintf(gguf_path, sizeof gguf_path, "%s/model.gguf", scratch_dir);
    if (ls_convert(MODELS "llama3", gguf_path, NULL, &err) != LS_OK) {
        fprintf(stderr, "cannot make a GGUF file: %s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < LEN(prompt); i++)
        prompt[i] = (int32_t)(i * 7 % 100);
    return test_main(tests, LEN(tests), argc, argv);
}

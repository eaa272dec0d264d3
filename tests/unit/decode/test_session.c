/* Contexts that are copied, stored and read back: they go on as if nothing had been, and whatever is wrong
 * with a file is told before anything changes. */
#include <stdlib.h>
#include <unistd.h>

#include <longspan/context.h>

#include "../model/tiny.h"
#include "base/base.h"
#include "test.h"

enum {
    V = 80,
    PROMPT = 300,
    STEPS = 40,
    N = 512
};

/* Every policy that can be stored, in more than one precision where it has some. */
static const char *const specs[] = {
    "full:fp32",
    "full:bf16",
    "full:q8",
    "streaming:sink=4,recent=100,fp32",
    "streaming:sink=300,recent=20%",
    "h2o:heavy=30,recent=30,fp32",
    "h2o:q8",
    "snapkv:budget=90,window=8",
    "kivi:bits=2,residual=64",
    "kivi:bits=4,fp32",
    "topk:k=40",
    "quest:budget=64,skip=0",
    "quest:budget=96,skip=0+kivi:bits=2,residual=32",
    "streaming:sink=4,recent=96+kivi:bits=4,residual=32",
    "streaming:sink=4,recent=96,prompt=dense,fp32+kivi:bits=2,residual=64",
    "h2o:heavy=20%,recent=64+kivi:bits=2,residual=32",
    "snapkv:budget=90,window=8+kivi:bits=4,residual=32",
};

static ls_error err;
static char dir[256];
static int32_t ids[N];

static ls_model *open_model(size_t config)
{
    char at[256];
    ls_model *m = NULL;
    tiny_dir(at, sizeof at);
    tiny_model(at, &(struct tiny_spec){ .config = tiny_configs[config], .dtype = LSI_F32 });
    const ls_status st = ls_model_open(at, NULL, &m, &err);
    tiny_remove(at);
    REQUIRE_OK(st, err);
    return m;
}

static ls_context *make_as(ls_model *m, const char *kv, size_t n_ctx, size_t block, ls_compute compute)
{
    ls_context_options o;
    ls_context *ctx = NULL;
    ls_context_options_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_threads = 2;
    o.block = block;
    o.compute = compute;
    o.kv = kv;
    REQUIRE_OK(ls_context_create(m, &o, &ctx, &err), err);
    return ctx;
}

static ls_context *make(ls_model *m, const char *kv)
{
    return make_as(m, kv, N, 64, LS_COMPUTE_FP32);
}

/* A prompt, then single tokens to `end`. */
static void feed(ls_context *ctx, size_t end)
{
    size_t i = ls_context_length(ctx);
    if (i == 0) {
        REQUIRE_OK(ls_context_append(ctx, ids, PROMPT, NULL, &err), err);
        i = PROMPT;
    }
    for (; i < end; i++)
        REQUIRE_OK(ls_context_append(ctx, ids + i, 1, NULL, &err), err);
}

/* The logits of STEPS more tokens, each chosen by `salt` and its place. */
static void go_on(ls_context *ctx, int32_t salt, float *logits)
{
    for (int32_t i = 0; i < STEPS; i++) {
        const int32_t id = (i * 11 + salt) % V;
        REQUIRE_OK(ls_context_append(ctx, &id, 1, logits + (size_t)i * V, &err), err);
    }
}

static float want[STEPS * V], got[STEPS * V];

static void test_fork(void)
{
    ls_model *m = open_model(0);
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        ls_context *doc = make(m, specs[s]), *plain = make(m, specs[s]), *other = NULL;
        feed(doc, PROMPT + 10);
        REQUIRE_OK(ls_context_fork(doc, &other, &err), err);
        CHECK_INT(ls_context_length(other), PROMPT + 10);
        for (int32_t question = 0; question < 3; question++) {
            REQUIRE_OK(ls_context_assign(other, doc, &err), err);
            go_on(other, question, got);
            REQUIRE_OK(ls_context_rewind(plain, 0, &err), err);
            feed(plain, PROMPT + 10);
            go_on(plain, question, want);
            CHECK_MEM(got, sizeof got, want, sizeof want);
            CHECK_INT(ls_context_length(doc), PROMPT + 10);
        }
        ls_context_free(doc); /* a copy outlives what it was made from */
        go_on(other, 1, got);
        go_on(plain, 1, want);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        ls_context_free(other);
        ls_context_free(plain);
    }
    ls_model_close(m);
}

static void test_store(void)
{
    ls_model *m = open_model(0);
    const char *path = tiny_path(dir, "session");
    for (size_t s = 0; s < LSI_LEN(specs); s++) {
        ls_context *a = make(m, specs[s]), *b = make(m, specs[s]);
        ls_session session = { 0 };
        feed(a, PROMPT + 10);
        REQUIRE_OK(ls_context_save(a, path, ids, "a note", 6, &err), err);
        feed(b, PROMPT + 70); /* what it held is forgotten */
        REQUIRE_OK(ls_context_load(b, path, &session, &err), err);
        CHECK_INT(ls_context_length(b), PROMPT + 10);
        CHECK_MEM(session.tokens, session.n_tokens * sizeof *ids, ids, (PROMPT + 10) * sizeof *ids);
        CHECK_STR(session.note, "a note");
        ls_session_free(&session);
        go_on(a, 3, want);
        go_on(b, 3, got);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        /* The file is as it was: pages that are written to are copies. */
        REQUIRE_OK(ls_context_load(a, path, &session, &err), err);
        ls_session_free(&session);
        go_on(a, 3, got);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        REQUIRE_OK(ls_context_rewind(a, 0, &err), err);
        feed(a, PROMPT + 10);
        go_on(a, 3, got);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        ls_context_free(a);
        ls_context_free(b);
    }
    ls_model_close(m);
}

/* b becomes what a is, through a file; each goes on with the same bits. */
static void check_through_file(ls_context *a, ls_context *b)
{
    const char *path = tiny_path(dir, "session");
    ls_session session = { 0 };
    REQUIRE_OK(ls_context_save(a, path, ids, NULL, 0, &err), err);
    REQUIRE_OK(ls_context_load(b, path, &session, &err), err);
    CHECK_STR(ls_context_kv(b), ls_context_kv(a));
    ls_session_free(&session);
    go_on(a, 3, want);
    go_on(b, 3, got);
    CHECK_MEM(got, sizeof got, want, sizeof want);
}

/* How many rows a block has and how long a context may be is no part of what it holds. */
static void test_other_sizes(void)
{
    static const struct {
        size_t n_ctx, block;
    } sizes[] = { { N, 7 }, { N, 200 }, { 1500, 512 }, { 400, 400 } };
    ls_model *m = open_model(0);
    for (size_t s = 0; s < LSI_LEN(specs); s++)
        for (size_t i = 0; i < LSI_LEN(sizes); i++) {
            ls_context *a = make(m, specs[s]),
                       *b = make_as(m, specs[s], sizes[i].n_ctx, sizes[i].block, LS_COMPUTE_FP32);
            float logits[V];
            feed(a, PROMPT + 10);
            check_through_file(a, b);
            REQUIRE_OK(ls_context_append(b, ids, 40, logits, &err), err); /* and so do prompts */
            ls_context_free(a);
            ls_context_free(b);
        }
    ls_model_close(m);
}

/* The first token is a prompt like any other, also for who reads its session. */
static void test_a_prompt_of_one_token(void)
{
    ls_model *m = open_model(0);
    for (size_t s = 0; s < LSI_LEN(specs); s++)
        for (size_t n = 1; n <= 150; n += 149) {
            ls_context *a = make(m, specs[s]), *b = make(m, specs[s]);
            for (size_t i = 0; i < n; i++)
                REQUIRE_OK(ls_context_append(a, ids + i, 1, NULL, &err), err);
            check_through_file(a, b);
            ls_context_free(a);
            ls_context_free(b);
        }
    ls_model_close(m);
}

static void refused(ls_context *ctx, const char *path, ls_status status, const char *word)
{
    ls_session session = { 0 };
    const size_t before = ls_context_length(ctx);
    err = (ls_error){ 0 };
    CHECK_INT(ls_context_load(ctx, path, &session, &err), status);
    CHECK(strstr(err.text, word) != NULL);
    CHECK(session.tokens == NULL);
    CHECK_INT(ls_context_length(ctx), before);
}

static void test_other_settings(void)
{
    ls_model *m = open_model(0), *other = open_model(1);
    const char *path = tiny_path(dir, "session");
    ls_context *a = make(m, "full:fp32"), *b = make(m, "full:bf16"), *c = make(other, "full:fp32"),
               *d = make_as(m, "full:fp32", N, 64, LS_COMPUTE_AUTO),
               *e = make_as(m, "full:fp32", PROMPT - 1, 64, LS_COMPUTE_FP32);
    feed(a, PROMPT);
    REQUIRE_OK(ls_context_save(a, path, ids, NULL, 0, &err), err);
    refused(b, path, LS_E_INVAL, "full:fp32, not full:bf16");
    refused(c, path, LS_E_INVAL, "another model");
    refused(d, path, LS_E_INVAL, "--compute fp32, not auto");
    refused(e, path, LS_E_LIMIT, "holds 300 tokens, the context at most 299");
    refused(a, tiny_path(dir, "none"), LS_E_IO, "No such file");
    refused(a, dir, LS_E_FORMAT, "is no session");
    CHECK_INT(ls_context_assign(b, a, &err), LS_E_INVAL);
    CHECK_INT(ls_context_save(a, tiny_path(dir, "no/where"), ids, NULL, 0, &err), LS_E_IO);
    ls_context_free(a);
    ls_context_free(b);
    ls_context_free(c);
    ls_context_free(d);
    ls_context_free(e);
    ls_model_close(m);
    ls_model_close(other);
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    REQUIRE(f != NULL && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static void test_damage(void)
{
    ls_model *m = open_model(0);
    const char *path = tiny_path(dir, "session");
    char whole[300], bad[300];
    snprintf(whole, sizeof whole, "%s", path);
    snprintf(bad, sizeof bad, "%s-bad", path);
    ls_context *a = make(m, "full:bf16");
    struct lsi_map map;
    feed(a, PROMPT);
    REQUIRE_OK(ls_context_save(a, whole, ids, "note", 4, &err), err);
    REQUIRE_OK(lsi_map_open(&map, whole, &err), err);
    unsigned char *copy = malloc(map.bytes);
    REQUIRE(copy != NULL);
    for (size_t n = 0; n < map.bytes; n += n < 600 ? 37 : map.bytes / 23) {
        write_file(bad, map.data, n);
        refused(a, bad, LS_E_FORMAT, n < 8 ? "is no session" : "session");
    }
    for (size_t at = 8; at < map.bytes; at += at < 600 ? 13 : map.bytes / 31) {
        memcpy(copy, map.data, map.bytes);
        copy[at] ^= 4;
        write_file(bad, copy, map.bytes);
        refused(a, bad, LS_E_FORMAT, "damaged");
    }
    free(copy);
    lsi_map_close(&map);
    ls_context_free(a);
    ls_model_close(m);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_fork),           TEST(test_store),
        TEST(test_other_sizes),    TEST(test_a_prompt_of_one_token),
        TEST(test_other_settings), TEST(test_damage),
    };
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)(i * 7 % V);
    tiny_dir(dir, sizeof dir);
    const int status = test_main(tests, LSI_LEN(tests), argc, argv);
    tiny_remove(dir);
    return status;
}

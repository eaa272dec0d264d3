/* Every allocation fails once: a status comes back and nothing is left behind. */
#include "faulty.h"
#include "formats/gguf.h"
#include "recorded.h"

#include <longspan/chat.h>

#include <unistd.h>

static struct faulty faulty;
static const ls_alloc counting = { faulty_alloc, faulty_free, &faulty };

/* What is tried, on a file or directory; all that it makes is released again. */
typedef ls_status trial_fn(const char *path, ls_error *err);

/*
 * With every allocation failing in turn, until none is left to fail. may_do_without: some memory is only
 * wished for (machine code of a pattern), so that success before the end is right too.
 */
static void try_all(trial_fn *trial, const char *path, bool may_do_without)
{
    bool done = false;
    for (faulty.fail_at = 1; !done && faulty.fail_at < 20000; faulty.fail_at++) {
        ls_error err = { 0 };
        faulty.n = 0;
        const ls_status st = trial(path, &err);
        done = faulty.n < faulty.fail_at;
        if (!may_do_without || st != LS_OK)
            CHECK_INT(st, done ? LS_OK : LS_E_NOMEM);
        CHECK_INT(faulty.outstanding, 0);
        if (test_failures) {
            fprintf(stderr, "  allocation %zu of %s: %s\n", faulty.fail_at, path, err.text);
            break;
        }
    }
    faulty.fail_at = 0;
    CHECK(done && faulty.n > 3);
}

/* ---- opening and encoding -------------------------------------------------------- */

static ls_status encode_some(const ls_tokenizer *t, ls_error *err)
{
    static const char text[] =
        "Hello 123 \xe4\xb8\xad\xe6\x96\x87 <|sep|> e\xcc\x81 and some more text, with words";
    int32_t *ids;
    size_t n;
    const ls_status st = ls_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, err);
    if (st == LS_OK)
        ls_tokenizer_ids_free(t, ids, n);
    return st;
}

static ls_status with_open(open_fn *fn, const char *path, ls_error *err)
{
    struct lsi_map m;
    ls_tokenizer *t = NULL;
    LSI_TRY(lsi_map_open(&m, path, err));
    ls_status st = fn(m.data, m.bytes, path, &counting, &t, err);
    if (st == LS_OK)
        st = encode_some(t, err);
    ls_tokenizer_close(t);
    lsi_map_close(&m);
    return st;
}

static ls_status open_json(const char *path, ls_error *err)
{
    return with_open(lsi_tokenizer_from_json, path, err);
}

static ls_status open_sentencepiece(const char *path, ls_error *err)
{
    return with_open(lsi_tokenizer_from_sentencepiece, path, err);
}

static ls_status open_path(const char *path, ls_error *err)
{
    ls_tokenizer *t = NULL;
    ls_status st = ls_tokenizer_open(path, &counting, &t, err);
    if (st == LS_OK)
        st = encode_some(t, err);
    ls_tokenizer_close(t);
    return st;
}

static void test_opening(void)
{
    try_all(open_json, DATA "qwen2.json", false);
    try_all(open_json, DATA "other.json", true);
    try_all(open_json, DATA "llama2.json", false);
    try_all(open_sentencepiece, DATA "spm.model", false);
}

/* ---- writing, and opening what was written ----------------------------------------- */

static ls_tokenizer *made; /* with the counting allocator, before anything fails */

static ls_status write_gguf(const char *path, ls_error *err)
{
    struct lsi_gguf_writer *w;
    LSI_TRY(lsi_gguf_writer_create(&w, path, &counting, err));
    const ls_status st = lsi_tokenizer_write_gguf(made, w, err);
    if (st == LS_OK)
        return lsi_gguf_writer_commit(w, err);
    lsi_gguf_writer_free(w);
    return st;
}

static ls_status write_hf(const char *path, ls_error *err)
{
    return lsi_tokenizer_write_hf(made, path, err);
}

/* The tokenizer that is written lives on: what it holds is not counted. */
static void make(const char *name)
{
    ls_error err = { 0 };
    struct lsi_map m;
    char path[512];
    snprintf(path, sizeof path, DATA "%s.json", name);
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    const ls_status st = lsi_tokenizer_from_json(m.data, m.bytes, path, &counting, &made, &err);
    lsi_map_close(&m);
    REQUIRE_OK(st, err);
    faulty.outstanding = 0;
}

static void test_writing(void)
{
    static const char *const names[] = { "smollm", "llama2" };
    static const char *const files[] = { "t.gguf", "tokenizer.json", "tokenizer_config.json",
                                         "special_tokens_map.json" };
    for (size_t i = 0; i < LSI_LEN(names); i++) {
        char dir[] = "/tmp/ls-tok-XXXXXX", path[64];
        REQUIRE(mkdtemp(dir) != NULL);
        make(names[i]);
        snprintf(path, sizeof path, "%s/t.gguf", dir);
        try_all(write_gguf, path, false);
        try_all(open_path, path, false);
        try_all(write_hf, dir, false);
        try_all(open_path, dir, false);
        for (size_t k = 0; k < LSI_LEN(files); k++) {
            snprintf(path, sizeof path, "%s/%s", dir, files[k]);
            CHECK_INT(unlink(path), 0);
        }
        CHECK_INT(rmdir(dir), 0); /* no unfinished file is left */
        ls_tokenizer_close(made);
    }
}

/* ---- conversations ------------------------------------------------------------------ */

static ls_status chat(const char *name, ls_error *err)
{
    const ls_chat_message messages[] = { { "system", "Be <|sep|> brief.", 17 },
                                         { "user", " What is it? ", 13 },
                                         { "assistant", "A test.", 7 },
                                         { "user", "And now?", 8 } };
    ls_chat_template *c = NULL;
    int32_t *ids;
    char *text;
    size_t n;
    LSI_TRY(ls_chat_template_open(made, name, &c, err));
    ls_status st = ls_chat_encode(c, messages, LSI_LEN(messages), true, "Well", &ids, &n, err);
    if (st == LS_OK) {
        ls_tokenizer_ids_free(made, ids, n);
        st = ls_chat_render(c, messages, LSI_LEN(messages), true, "Well", &text, &n, err);
    }
    if (st == LS_OK)
        ls_tokenizer_text_free(made, text, n);
    ls_chat_template_close(c);
    return st;
}

static void test_conversations(void)
{
    make("smollm");
    for (const char *const *name = ls_chat_template_names(); *name; name++)
        try_all(chat, *name, false);
    ls_tokenizer_close(made);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_opening), TEST(test_writing), TEST(test_conversations) };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

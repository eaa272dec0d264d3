/* Tokenizers against ids recorded from the `tokenizers` library (scripts/make-golden/small_tokenizers.py). */
#include "formats/gguf.h"
#include "test.h"
#include "tokenizer/tokenizer.h"

#include <longspan/chat.h>

#include <unistd.h>

#define DATA LS_SOURCE_DIR "/tests/unit/tokenizer/data/"

static const char *const families[] = { "gpt2", "smollm", "llama3", "qwen2", "other", "llama2", "gemma" };

/* Allocations can be counted, and one of them made to fail. */
static size_t n_live, n_calls, fail_at;

static void *count_alloc(void *user, size_t bytes)
{
    (void)user;
    if (++n_calls == fail_at)
        return NULL;
    n_live++;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void count_free(void *user, void *p, size_t bytes)
{
    (void)user;
    (void)bytes;
    n_live -= p != NULL;
    free(p);
}

static const ls_alloc counting = { count_alloc, count_free, NULL };

static ls_tokenizer *open_family(const char *name, const ls_alloc *alloc)
{
    char path[512];
    ls_error err = { 0 };
    struct lsi_map m;
    ls_tokenizer *t = NULL;
    snprintf(path, sizeof path, DATA "%s.json", name);
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    const ls_status st = lsi_tokenizer_from_json(m.data, m.bytes, path, alloc, &t, &err);
    lsi_map_close(&m);
    REQUIRE_OK(st, err);
    return t;
}

static size_t from_hex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned v;
    while (hex[0] != '-' && sscanf(hex, "%2x", &v) == 1 && hex[0] != ' ') {
        out[n++] = (char)v;
        hex += 2;
    }
    return n;
}

/* Every line of the recorded file; returns how many were wrong. */
static int check_ids(const ls_tokenizer *t, const char *name)
{
    char path[512], line[8192], text[2048];
    ls_error err = { 0 };
    int wrong = 0, row = 0;
    snprintf(path, sizeof path, DATA "%s.ids", name);
    FILE *f = fopen(path, "r");
    REQUIRE(f != NULL);
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#')
            continue;
        row++;
        const size_t len = from_hex(line, text);
        int32_t *ids;
        size_t n, i = 0;
        REQUIRE_OK(ls_tokenizer_encode(t, text, len, LS_ENCODE_PARSE_SPECIAL, &ids, &n, &err), err);
        bool same = true;
        for (char *p = strchr(line, ' '); p; p = strchr(p + 1, ' '), i++)
            same &= i < n && ids[i] == atoi(p);
        if (!same || i != n) {
            wrong++;
            fprintf(stderr, "  %s: text %d differs: \"%.*s\"\n", name, row, (int)len, text);
        }
        ls_tokenizer_ids_free(t, ids, n);
    }
    fclose(f);
    CHECK(row > 40);
    return wrong;
}

static void test_recorded_ids(void)
{
    for (size_t i = 0; i < LSI_LEN(families); i++) {
        ls_tokenizer *t = open_family(families[i], NULL);
        CHECK_INT(check_ids(t, families[i]), 0);
        ls_tokenizer_close(t);
    }
}

/* What we write is read back as the same tokenizer, in both forms. */
static void test_written_forms(void)
{
    for (size_t i = 0; i < LSI_LEN(families); i++) {
        char dir[] = "/tmp/ls-tok-XXXXXX", path[64];
        ls_error err = { 0 };
        ls_tokenizer *t = open_family(families[i], NULL), *u;
        REQUIRE(mkdtemp(dir) != NULL);
        REQUIRE_OK(lsi_tokenizer_write_hf(t, dir, &err), err);
        REQUIRE_OK(ls_tokenizer_open(dir, NULL, &u, &err), err);
        CHECK_INT(check_ids(u, families[i]), 0);
        ls_tokenizer_close(u);
        struct lsi_gguf_writer *w;
        snprintf(path, sizeof path, "%s/t.gguf", dir);
        REQUIRE_OK(lsi_gguf_writer_create(&w, path, NULL, &err), err);
        const ls_status st = lsi_tokenizer_write_gguf(t, w, &err);
        if (strcmp(families[i], "other") == 0) {
            CHECK_INT(st, LS_E_UNSUPPORTED);
            lsi_gguf_writer_free(w);
        } else {
            REQUIRE_OK(st, err);
            REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);
            REQUIRE_OK(ls_tokenizer_open(path, NULL, &u, &err), err);
            CHECK_STR(ls_tokenizer_split(u), ls_tokenizer_split(t));
            CHECK_INT(ls_tokenizer_n_vocab(u), ls_tokenizer_n_vocab(t));
            ls_tokenizer_close(u);
            unlink(path);
        }
        static const char *const files[] = { "tokenizer.json", "tokenizer_config.json",
                                             "special_tokens_map.json" };
        for (size_t k = 0; k < LSI_LEN(files); k++) {
            snprintf(path, sizeof path, "%s/%s", dir, files[k]);
            CHECK_INT(unlink(path), 0);
        }
        rmdir(dir);
        ls_tokenizer_close(t);
    }
}

/* Any bytes come back, in one piece and as a stream. */
static void test_broken_bytes(void)
{
    char text[4096];
    struct lsi_rng rng;
    lsi_rng_init(&rng, 7);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i % 3 ? lsi_rng_below(&rng, 256) : 'a' + lsi_rng_below(&rng, 26));
    for (size_t i = 0; i < 5; i++) {
        ls_tokenizer *t = open_family(families[i], NULL);
        ls_error err = { 0 };
        int32_t *ids;
        size_t n, len;
        char *back;
        if (strcmp(families[i], "qwen2") != 0) { /* NFC changes texts */
            REQUIRE_OK(ls_tokenizer_encode(t, text, sizeof text, 0, &ids, &n, &err), err);
            REQUIRE_OK(ls_tokenizer_decode(t, ids, n, true, &back, &len, &err), err);
            CHECK_MEM(back, len, text, sizeof text);
            ls_tokenizer_text_free(t, back, len);
            ls_tokenizer_ids_free(t, ids, n);
        }
        ls_tokenizer_close(t);
    }
}

/* A megabyte without a place to split takes a moment, not minutes. */
static void test_long_piece(void)
{
    const size_t len = 1 << 20;
    char *text = malloc(len);
    REQUIRE(text != NULL);
    memset(text, 'e', len);
    for (size_t i = 0; i < LSI_LEN(families); i++) {
        ls_tokenizer *t = open_family(families[i], NULL);
        ls_error err = { 0 };
        int32_t *ids;
        size_t n;
        const double start = lsi_now();
        REQUIRE_OK(ls_tokenizer_encode(t, text, len, 0, &ids, &n, &err), err);
        CHECK(lsi_now() - start < 20.0);
        ls_tokenizer_ids_free(t, ids, n);
        ls_tokenizer_close(t);
    }
    free(text);
}

/* Control tokens are text where the caller says so. */
static void test_plain_ranges(void)
{
    ls_tokenizer *t = open_family("smollm", NULL);
    ls_error err = { 0 };
    int32_t *ids;
    size_t n;
    const int32_t sep = ls_tokenizer_find(t, "<|sep|>", 7);
    const ls_byte_range plain = { 7, 14 };
    CHECK(sep >= 0 && ls_tokenizer_is_control(t, sep));
    REQUIRE_OK(ls_tokenizer_encode(t, "<|sep|><|sep|>", 14, 0, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++)
        CHECK(ids[i] != sep);
    ls_tokenizer_ids_free(t, ids, n);
    REQUIRE_OK(ls_tokenizer_encode_ranges(t, "<|sep|><|sep|>", 14, LS_ENCODE_PARSE_SPECIAL, &plain, 1, &ids,
                                          &n, NULL, &err),
               err);
    CHECK(n > 2);
    CHECK_INT(ids[0], sep);
    for (size_t i = 1; i < n; i++)
        CHECK(ids[i] != sep);
    ls_tokenizer_ids_free(t, ids, n);
    ls_tokenizer_close(t);
}

/* The stream of a text's tokens: whole characters only, stop strings held back and cut. */
static void test_streaming(void)
{
    static const char text[] = "caf\xc3\xa9 \xf0\x9f\x98\x80 then STOP and more";
    static const char *const stop[] = { "STOP" };
    ls_tokenizer *t = open_family("gpt2", NULL);
    ls_detokenizer *d;
    ls_error err = { 0 };
    int32_t *ids;
    size_t n, len;
    const char *s;
    char out[128];
    size_t n_out = 0;
    bool stopped = false;
    REQUIRE_OK(ls_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, &err), err);
    REQUIRE_OK(ls_detokenizer_create(t, true, stop, 1, &d, &err), err);
    for (size_t i = 0; i < n && !stopped; i++) {
        REQUIRE(ls_detokenizer_push(d, ids[i], &s, &len, &stopped) == LS_OK);
        CHECK_INT(lsi_utf8_valid_prefix(s, len), len);
        memcpy(out + n_out, s, len);
        n_out += len;
    }
    CHECK(stopped);
    CHECK_MEM(out, n_out, "caf\xc3\xa9 \xf0\x9f\x98\x80 then ", 16);
    ls_detokenizer_free(d);
    /* Half a character at the end becomes one replacement. */
    REQUIRE_OK(ls_detokenizer_create(t, true, NULL, 0, &d, &err), err);
    const int32_t half = ls_tokenizer_find(t, "\xf0", 1);
    REQUIRE(half >= 0);
    REQUIRE(ls_detokenizer_push(d, half, &s, &len, &stopped) == LS_OK);
    CHECK_INT(len, 0);
    REQUIRE(ls_detokenizer_finish(d, &s, &len) == LS_OK);
    CHECK_MEM(s, len, "\xef\xbf\xbd", 3);
    ls_detokenizer_free(d);
    ls_tokenizer_ids_free(t, ids, n);
    ls_tokenizer_close(t);
}

static void test_templates(void)
{
    static const struct {
        const char *name, *text;
    } cases[] = {
        { "chatml",
          "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U <|im_end|>\n<|im_start|>assistant\n" },
        { "llama3",
          "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
          "\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" },
        { "llama2", "[INST] <<SYS>>\nS\n<</SYS>>\n\n U  [/INST]" },
        { "mistral-v1", " [INST] S\n\n U  [/INST]" },
        { "mistral-v3", "[INST] S\n\n U [/INST]" },
        { "mistral-v3-tekken", "[INST]S\n\n U [/INST]" },
        { "mistral-v7", "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST]  U [/INST]" },
        { "gemma", "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n" },
    };
    const ls_chat_message messages[] = { { "system", "S", 1 }, { "user", " U ", 3 } };
    ls_tokenizer *t = open_family("gpt2", NULL);
    ls_chat_template *c;
    ls_error err = { 0 };
    char *text;
    size_t len;
    CHECK_INT(ls_chat_template_open(t, NULL, &c, &err), LS_E_UNSUPPORTED);
    CHECK(strstr(err.text, "--chat-template") != NULL);
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        REQUIRE_OK(ls_chat_template_open(t, cases[i].name, &c, &err), err);
        REQUIRE_OK(ls_chat_render(c, messages, 2, true, NULL, &text, &len, &err), err);
        CHECK_STR(text, cases[i].text);
        ls_tokenizer_text_free(t, text, len);
        ls_chat_template_close(c);
    }
    REQUIRE_OK(ls_chat_template_open(t, "smollm2", &c, &err), err);
    REQUIRE_OK(ls_chat_render(c, &messages[1], 1, true, "Yes", &text, &len, &err), err);
    CHECK_STR(
        text,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n U <|im_end|>\n<|im_start|>assistant\nYes");
    ls_tokenizer_text_free(t, text, len);
    ls_chat_template_close(c);
    ls_tokenizer_close(t);
}

/* Each allocation in turn fails: a status, and nothing left behind. */
static void test_failing_memory(void)
{
    static const char text[] =
        "Hello 123 \xe4\xb8\xad\xe6\x96\x87 <|sep|> e\xcc\x81 and some more text, with words";
    static const char *const names[] = { "qwen2", "other", "llama2" };
    for (size_t k = 0; k < LSI_LEN(names); k++) {
        char path[512];
        ls_error err = { 0 };
        struct lsi_map m;
        snprintf(path, sizeof path, DATA "%s.json", names[k]);
        REQUIRE_OK(lsi_map_open(&m, path, &err), err);
        bool done = false;
        for (fail_at = 1; !done && fail_at < 5000; fail_at++) {
            ls_tokenizer *t = NULL;
            int32_t *ids = NULL;
            size_t n = 0;
            n_calls = 0;
            ls_status st = lsi_tokenizer_from_json(m.data, m.bytes, path, &counting, &t, &err);
            if (st == LS_OK)
                st = ls_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, &err);
            done = n_calls < fail_at;
            /* A pattern whose machine code finds no memory is interpreted instead. */
            if (strcmp(names[k], "other") != 0 || st != LS_OK)
                CHECK_INT(st, done ? LS_OK : LS_E_NOMEM);
            if (ids)
                ls_tokenizer_ids_free(t, ids, n);
            ls_tokenizer_close(t);
            CHECK_INT(n_live, 0);
        }
        fail_at = 0;
        CHECK(done);
        lsi_map_close(&m);
    }
}

static void test_refusals(void)
{
    static const struct {
        const char *json;
        ls_status status;
    } cases[] = {
        { "", LS_E_FORMAT },
        { "{}", LS_E_FORMAT },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", LS_E_UNSUPPORTED },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", LS_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", LS_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", LS_E_FORMAT },
        { "{\"normalizer\":{\"type\":\"Precompiled\"},\"model\":{}}", LS_E_UNSUPPORTED },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}},\"model\":{}}",
          LS_E_UNSUPPORTED },
    };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        ls_tokenizer *t;
        ls_error err = { 0 };
        CHECK_INT(lsi_tokenizer_from_json(cases[i].json, strlen(cases[i].json), "x.json", NULL, &t, &err),
                  cases[i].status);
        CHECK(t == NULL);
        CHECK(err.text[0] != '\0');
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_recorded_ids), TEST(test_written_forms),  TEST(test_broken_bytes),
        TEST(test_long_piece),   TEST(test_plain_ranges),   TEST(test_streaming),
        TEST(test_templates),    TEST(test_failing_memory), TEST(test_refusals),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

/* Tokenizers against recorded ids: reading, writing, decoding. */
#include "formats/gguf.h"
#include "recorded.h"

#include <longspan/tokenizer.h>

#include <unistd.h>

static void test_recorded_ids(void)
{
    for (size_t i = 0; i < LSI_LEN(families); i++) {
        ls_tokenizer *t = open_family(families[i]);
        CHECK_INT(check_ids(t, families[i], LS_ENCODE_PARSE_SPECIAL), 0);
        ls_tokenizer_close(t);
    }
    for (size_t i = 0; i < LSI_LEN(models); i++) {
        ls_tokenizer *t = open_model(models[i]);
        CHECK_STR(ls_tokenizer_kind(t), "spm");
        /* SentencePiece knows no way to write a control token in a text. */
        CHECK_INT(check_ids(t, models[i], 0), 0);
        ls_tokenizer_close(t);
    }
}

/* What we write is read back as the same tokenizer, in both forms. */
static void test_written_forms(void)
{
    for (size_t i = 0; i < LSI_LEN(families); i++) {
        char dir[] = "/tmp/ls-tok-XXXXXX", path[64];
        ls_error err = { 0 };
        ls_tokenizer *t = open_family(families[i]), *u;
        REQUIRE(mkdtemp(dir) != NULL);
        REQUIRE_OK(lsi_tokenizer_write_hf(t, dir, &err), err);
        REQUIRE_OK(ls_tokenizer_open(dir, NULL, &u, &err), err);
        CHECK_INT(check_ids(u, families[i], LS_ENCODE_PARSE_SPECIAL), 0);
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
        ls_tokenizer *t = open_family(families[i]);
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
        ls_tokenizer *t = open_family(families[i]);
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
    ls_tokenizer *t = open_family("smollm");
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
    ls_tokenizer *t = open_family("gpt2");
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
        TEST(test_recorded_ids), TEST(test_written_forms), TEST(test_broken_bytes), TEST(test_long_piece),
        TEST(test_plain_ranges), TEST(test_streaming),     TEST(test_refusals),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

/* Texts and lines to sequences: windows, borders, labels, order, and what is said about bad files. */
#include "data_files.h"

static char dir[512];

/* ---- text ---------------------------------------------------------------------- */

static char *words(size_t n_bytes, uint64_t seed)
{
    struct lsi_rng rng;
    char *s = malloc(n_bytes + 1);
    REQUIRE(s != NULL);
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < n_bytes; i++) {
        const unsigned r = (unsigned)lsi_rng_below(&rng, 100);
        s[i] = (char)(r < 70 ? (unsigned)'a' + r % 26 : r < 88 ? ' ' : r < 92 ? '0' + r % 10 : '\n');
        if (r >= 95)
            s[i] = "'.,- "[r % 5];
    }
    s[n_bytes] = '\0';
    return s;
}

static void test_windows(void)
{
    ls_tokenizer *tok = open_smollm2();
    ls_error err = { 0 };
    char *text = words(5000, 1);
    int32_t *ids;
    size_t n, seq = 37;
    REQUIRE_OK(ls_tokenizer_encode(tok, text, 5000, LS_ENCODE_ADD_SPECIAL, &ids, &n, &err), err);
    const char *path = write_text(dir, "a.txt", text);
    struct lsi_data_options o = data_options(tok, &path, 1, seq);
    struct lsi_data *d = open_data(&o);
    REQUIRE(n % seq != 0 && n > 3 * seq);
    CHECK_INT(lsi_data_n_sequences(d), n / seq);
    CHECK_INT(lsi_data_n_tokens(d), n / seq * seq);
    CHECK_INT(lsi_data_n_dropped(d), n % seq);
    for (uint64_t i = 0; i < 2 * (n / seq) + 1; i++) { /* from the start again after the last */
        const int32_t *want = ids + i % (n / seq) * seq;
        const ls_train_sequence s = get_sequence(d, i, (int)(i % 2));
        uint64_t valid;
        REQUIRE(s.n == seq && s.n_docs == 1 && !s.doc_start);
        CHECK_MEM(s.tokens, seq * 4, want, seq * 4);
        CHECK_MEM(s.labels, (seq - 1) * 4, want + 1, (seq - 1) * 4);
        CHECK_INT(s.labels[seq - 1], LS_TRAIN_IGNORE);
        REQUIRE_OK(lsi_data_n_valid(d, i, &valid, &err), err);
        CHECK_INT(valid, seq - 1);
    }
    lsi_data_close(d);
    ls_tokenizer_ids_free(tok, ids, n);
    ls_tokenizer_close(tok);
    free(text);
}

/* Two files are two documents: no window holds tokens of both. */
static void test_files_are_documents(void)
{
    ls_tokenizer *tok = open_smollm2();
    const char *paths[] = { write_text(dir, "a.txt", "aaaaaaaaa bbbbb ccccc dddd"),
                            write_text(dir, "b.txt", "0123456789 0123456789 01") };
    struct lsi_data_options o = data_options(tok, paths, 2, 7);
    struct lsi_data *d = open_data(&o);
    bool digits = false;
    for (uint64_t i = 0; i < lsi_data_n_sequences(d); i++) {
        const ls_train_sequence s = get_sequence(d, i, 0);
        size_t n_digits = 0, n_letters = 0;
        for (size_t t = 0; t < s.n; t++) {
            size_t len;
            const char *piece = ls_tokenizer_piece(tok, s.tokens[t], true, &len);
            n_digits += memchr("0123456789", piece[len - 1], 10) != NULL;
            n_letters += piece[len - 1] >= 'a';
        }
        CHECK(n_digits == 0 || n_letters == 0);
        CHECK(!digits || n_letters == 0); /* in the order of the files */
        digits = n_digits > 0;
    }
    CHECK(digits);
    lsi_data_close(d);
    ls_tokenizer_close(tok);
}

/* Long texts are tokenised in parts: the same as at once, for every family. */
static void test_parts_change_nothing(void)
{
    static const char *const families[] = { "gpt2", "smollm", "llama3", "qwen2", "other", "llama2", "gemma" };
    enum {
        BYTES = 5 << 20
    };
    char *text = words(BYTES, 7);
    memset(text + (7 << 19), 'x', 1 << 20); /* the place to cut lies far before the part's end */
    const char *path = write_text(dir, "long.txt", text);
    for (size_t f = 0; f < LSI_LEN(families); f++) {
        ls_tokenizer *tok = open_family(families[f]);
        ls_error err = { 0 };
        int32_t *ids;
        size_t n;
        REQUIRE_OK(ls_tokenizer_encode(tok, text, BYTES, LS_ENCODE_ADD_SPECIAL, &ids, &n, &err), err);
        const struct lsi_data_options o = data_options(tok, &path, 1, n);
        struct lsi_data *d = open_data(&o);
        CHECK_INT(lsi_data_n_dropped(d), 0);
        const ls_train_sequence s = get_sequence(d, 0, 0);
        CHECK_MEM(s.tokens, s.n * 4, ids, n * 4);
        lsi_data_close(d);
        ls_tokenizer_ids_free(tok, ids, n);
        ls_tokenizer_close(tok);
    }
    free(text);
}

/* ---- order ---------------------------------------------------------------------- */

/* Which window of the text in order a sequence is: windows are told apart by their tokens. */
static size_t find_window(struct lsi_data *ordered, const ls_train_sequence *s)
{
    for (uint64_t k = 0; k < lsi_data_n_sequences(ordered); k++) {
        const ls_train_sequence w = get_sequence(ordered, k, 1);
        if (memcmp(w.tokens, s->tokens, s->n * sizeof *s->tokens) == 0)
            return (size_t)k;
    }
    return SIZE_MAX;
}

static void test_shuffle(void)
{
    enum {
        MAX = 512
    };
    ls_tokenizer *tok = open_smollm2();
    char *text = words(6000, 3);
    const char *path = write_text(dir, "a.txt", text);
    struct lsi_data_options o = data_options(tok, &path, 1, 40);
    struct lsi_data *ordered = open_data(&o);
    o.shuffle = true;
    o.seed = 5;
    struct lsi_data *a = open_data(&o), *b = open_data(&o);
    o.seed = 6;
    struct lsi_data *c = open_data(&o);
    const size_t n = (size_t)lsi_data_n_sequences(a);
    size_t order[3][MAX], moved = 0, differs = 0, other_seed = 0;
    REQUIRE(n > 20 && n <= MAX);
    for (size_t epoch = 0; epoch < 3; epoch++) {
        bool seen[MAX] = { false };
        for (size_t i = 0; i < n; i++) {
            const ls_train_sequence s = get_sequence(a, epoch * n + i, 0);
            const size_t k = order[epoch][i] = find_window(ordered, &s);
            REQUIRE(k < n && !seen[k]);
            seen[k] = true;
            moved += k != i;
            differs += epoch > 0 && k != order[epoch - 1][i];
        }
    }
    CHECK(moved > 2 * n && differs > n);
    for (size_t i = 3 * n; i-- > 0;) { /* by number alone, in any order of asking */
        const ls_train_sequence s = get_sequence(b, i, 0);
        CHECK_INT(find_window(ordered, &s), order[i / n][i % n]);
        const ls_train_sequence t = get_sequence(c, i, 0);
        other_seed += find_window(ordered, &t) != order[i / n][i % n];
    }
    CHECK(other_seed > n);
    lsi_data_close(a);
    lsi_data_close(b);
    lsi_data_close(c);
    lsi_data_close(ordered);
    ls_tokenizer_close(tok);
    free(text);
}

/* ---- lines ----------------------------------------------------------------------- */

static const char three[] = "{\"text\": \"one two\"}\n"
                            "\n"
                            "{\"id\": [1, {\"a\": null}], \"text\": \"caf\\u00e9 \\\"x\\\"\"}\r\n"
                            "{\"text\": \"z\", \"n\": 3}"; /* no line feed at the end */

static void test_lines(void)
{
    static const char *const texts[] = { "one two", "caf\xc3\xa9 \"x\"", "z" };
    ls_tokenizer *tok = open_smollm2();
    const int32_t eos = ls_tokenizer_eos(tok);
    ls_error err = { 0 };
    const char *path = write_text(dir, "a.jsonl", three);
    struct lsi_data_options o = data_options(tok, &path, 1, 64);
    for (int pack = 0; pack < 2; pack++) {
        o.pack = pack;
        struct lsi_data *d = open_data(&o);
        CHECK_INT(lsi_data_n_sequences(d), pack ? 1 : 3);
        for (size_t i = 0, at = 0; i < 3; i++) {
            const ls_train_sequence s = get_sequence(d, pack ? 0 : i, 0);
            int32_t *ids;
            size_t n;
            REQUIRE_OK(ls_tokenizer_encode(tok, texts[i], strlen(texts[i]), 0, &ids, &n, &err), err);
            CHECK_INT(s.n_docs, pack ? 3 : 1);
            CHECK(!pack == !s.doc_start);
            CHECK(!pack || s.doc_start[i] == at);
            CHECK_MEM(s.tokens + at, n * 4, ids, n * 4);
            CHECK_MEM(s.labels + at, (n - 1) * 4, ids + 1, (n - 1) * 4);
            CHECK_INT(s.tokens[at + n], eos);
            CHECK_INT(s.labels[at + n - 1], eos);
            CHECK_INT(s.labels[at + n], LS_TRAIN_IGNORE);
            at = pack ? at + n + 1 : 0;
            CHECK(!pack || s.doc_start[i + 1] == at);
            CHECK(i < 2 || s.n == (pack ? at : n + 1));
            ls_tokenizer_ids_free(tok, ids, n);
        }
        lsi_data_close(d);
    }
    ls_tokenizer_close(tok);
}

/* A document longer than a sequence goes on in the next as one of its own; a rest of one token is dropped. */
static void test_long_documents(void)
{
    ls_tokenizer *tok = open_smollm2();
    const char *path = write_text(dir, "a.jsonl", "{\"text\": \"0123456789012345678901234567890\"}\n");
    struct lsi_data_options o = data_options(tok, &path, 1, 8); /* 31 digits and the end token: 4 times 8 */
    struct lsi_data *d = open_data(&o);
    CHECK_INT(lsi_data_n_sequences(d), 4);
    CHECK_INT(lsi_data_n_dropped(d), 0);
    for (uint64_t i = 0; i < 4; i++) {
        const ls_train_sequence s = get_sequence(d, i, 0);
        uint64_t valid;
        ls_error err = { 0 };
        CHECK_INT(s.n, 8);
        CHECK_INT(s.labels[7], LS_TRAIN_IGNORE);
        REQUIRE_OK(lsi_data_n_valid(d, i, &valid, &err), err);
        CHECK_INT(valid, 7);
    }
    lsi_data_close(d);
    o.seq = 31;
    d = open_data(&o);
    CHECK_INT(lsi_data_n_sequences(d), 1);
    CHECK_INT(lsi_data_n_dropped(d), 1);
    lsi_data_close(d);
    ls_tokenizer_close(tok);
}

/* ---- what is wrong ---------------------------------------------------------------- */

static void test_bad_lines(void)
{
    static const struct {
        const char *text, *line, *says;
        ls_train_format format;
    } cases[] = {
        { "{\"text\": \"a b\"}\n{\"text\": \"a", ":2:", "does not end", LS_TRAIN_AUTO },
        { "{\"text\": \"a b\"}\n\n{\"txt\": \"a\"}\n", ":3:", "no \"text\"", LS_TRAIN_AUTO },
        { "{\"text\": \"a b\"}\n{\"text\": 5}\n", ":2:", "expected a string", LS_TRAIN_AUTO },
        { "{\"text\": \"a b\"}\n{\"text\": \"\xff\"}\n", ":2:", "UTF-8", LS_TRAIN_AUTO },
        { "{\"text\": \"a b\"}\nhello\n", ":2:", "expected an object", LS_TRAIN_AUTO },
        { "{\"text\": \"a b\"} {\"text\": \"c\"}\n", ":1:", "more text", LS_TRAIN_AUTO },
        { "{\"a\": 1}\n", ":1:", "neither \"text\" nor \"messages\"", LS_TRAIN_AUTO },
        { "\n\n", "", "holds no lines", LS_TRAIN_AUTO },
        { "good\nbad \xc3(\n", ":2:", "not UTF-8", LS_TRAIN_TEXT },
        { "{\"text\": \"a b\"}\n", ":1:", "no \"messages\"", LS_TRAIN_CHAT },
    };
    ls_tokenizer *tok = open_smollm2();
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        char where[600];
        const char *path = write_text(dir, "bad.jsonl", cases[i].text);
        struct lsi_data_options o = data_options(tok, &path, 1, 8);
        o.format = cases[i].format;
        const char *text = open_failure(&o, LS_E_FORMAT);
        snprintf(where, sizeof where, "%s%s", path, cases[i].line);
        if (strncmp(text, where, strlen(where)) != 0 || !strstr(text, cases[i].says)) {
            test_fail_(__FILE__, __LINE__);
            fprintf(stderr, "case %zu says: %s\n", i, text);
        }
    }
    ls_tokenizer_close(tok);
}

static void test_too_little(void)
{
    ls_tokenizer *tok = open_smollm2();
    const char *paths[2] = { write_text(dir, "a.txt", "0123456789"), write_text(dir, "b.jsonl", three) };
    struct lsi_data_options o = data_options(tok, paths, 1, 64);
    CHECK_STR(open_failure(&o, LS_E_INVAL),
              "the data hold 10 tokens and a sequence takes --seq 64: take a smaller --seq or more text");
    o.n_paths = 2;
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "cannot be mixed") != NULL);
    o.n_paths = 0;
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "--data") != NULL);
    o.n_paths = 1;
    o.seq = 1;
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "--seq") != NULL);
    o.seq = 4;
    o.n_vocab = 20;
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "the tokenizer of the test's is not the model's") != NULL);
    paths[0] = write_text(dir, "e.jsonl", "{\"text\": \"\"}\n");
    o = data_options(tok, paths, 1, 64);
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "nothing to learn from") != NULL);
    paths[0] = tiny_path(dir, "missing.txt");
    CHECK(strstr(open_failure(&o, LS_E_IO), "missing.txt") != NULL);
    ls_tokenizer_close(tok);
}

static void test_cancel(void)
{
    const volatile int cancel = 1;
    ls_tokenizer *tok = open_smollm2();
    const char *path = write_text(dir, "a.jsonl", three);
    struct lsi_data_options o = data_options(tok, &path, 1, 64);
    o.cancel = &cancel;
    o.cache_dir = tiny_path(dir, "tokens");
    open_failure(&o, LS_E_CANCELED);
    ls_tokenizer_close(tok);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_windows),
        TEST(test_files_are_documents),
        TEST(test_parts_change_nothing),
        TEST(test_shuffle),
        TEST(test_lines),
        TEST(test_long_documents),
        TEST(test_bad_lines),
        TEST(test_too_little),
        TEST(test_cancel),
    };
    tiny_dir(dir, sizeof dir);
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    tiny_remove(dir);
    return rc;
}

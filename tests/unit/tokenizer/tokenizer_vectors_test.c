/*
 * Published test texts of real vocabularies: LS_VOCAB_DIR names a directory of ggml-vocab-NAME.gguf with .inp
 * and .out beside them. Skipped when it is not set.
 */
#include "test.h"

#include <longspan/tokenizer.h>

static char *read_all(const char *dir, const char *name, const char *suffix)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf%s", dir, name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    char *text = malloc(1 << 20);
    if (text)
        text[fread(text, 1, (1 << 20) - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Texts of one vocabulary that differ. */
static int check_vocabulary(const char *dir, const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[1024];
    ls_error err = { 0 };
    ls_tokenizer *t;
    int wrong = 0, n_texts = 0;
    char *texts = read_all(dir, name, ".inp"), *rows = read_all(dir, name, ".out");
    if (!texts || !rows) {
        free(texts);
        free(rows);
        return 0;
    }
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", dir, name);
    REQUIRE_OK(ls_tokenizer_open(path, NULL, &t, &err), err);
    char *row = rows;
    const char *s = texts;
    for (const char *end; (end = strstr(s, mark)) != NULL; s = end + sizeof mark - 1, n_texts++) {
        int32_t *ids;
        size_t n, i = 0;
        char *line_end = strchr(row, '\n');
        REQUIRE(line_end != NULL);
        *line_end = '\0';
        REQUIRE_OK(ls_tokenizer_encode(t, s, (size_t)(end - s), 0, &ids, &n, &err), err);
        bool same = true;
        char *next;
        for (long id = strtol(row, &next, 10); next != row; id = strtol(row, &next, 10), i++) {
            same &= i < n && ids[i] == id;
            row = next;
        }
        if (!same || i != n) {
            wrong++;
            fprintf(stderr, "  %s: text %d differs\n", name, n_texts);
        }
        ls_tokenizer_ids_free(t, ids, n);
        row = line_end + 1;
    }
    fprintf(stderr, "  %s: %d of %d\n", name, n_texts - wrong, n_texts);
    ls_tokenizer_close(t);
    free(texts);
    free(rows);
    return wrong;
}

static void test_vectors(void)
{
    static const char *const names[] = { "gpt-2",          "mpt",       "starcoder", "refact",    "llama-bpe",
                                         "qwen2",          "llama-spm", "phi-3",     "command-r", "falcon",
                                         "deepseek-coder", "qwen35",    "gemma-4" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK_INT(check_vocabulary(getenv("LS_VOCAB_DIR"), names[i]), 0);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_vectors) };
    if (!getenv("LS_VOCAB_DIR")) {
        fprintf(stderr, "LS_VOCAB_DIR names no folder with the published vectors\n");
        return TEST_SKIP;
    }
    return test_main(tests, 1, argc, argv);
}

/*
 * What a real model answers: ids of difficult texts, greedy continuations, a needle in a long text.
 * test_golden_answers (smollm2 | gemma) (tokens | greedy | needle)
 * Skipped when the model's file, or the Bible (Debian's bible-kjv) for the needle, is not here.
 */
#include "cases.h"
#include "golden.h"
#include "test.h"

static const char *name;
static struct golden_cases cases;
static ls_model *model;
static ls_tokenizer *tok;

static void check_ids(const char *what, const int32_t *got, size_t n_got, const int32_t *want, size_t n_want)
{
    size_t i = 0;

    if (n_got == n_want && (n_want == 0 || memcmp(got, want, n_want * sizeof *want) == 0))
        return;
    while (i < n_got && i < n_want && got[i] == want[i])
        i++;
    fprintf(stderr, "    \"%s\": %zu ids, expected %zu; they differ at %zu (%d, expected %d)\n", what, n_got,
            n_want, i, i < n_got ? (int)got[i] : -1, i < n_want ? (int)want[i] : -1);
    CHECK(!"the ids are those of the reference");
}

static void encode(const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n)
{
    ls_error err = { 0 };

    *ids = NULL;
    *n = 0;
    REQUIRE_OK(ls_tokenizer_encode(tok, text, len, flags, ids, n, &err), err);
}

static void test_tokens(void)
{
    for (size_t i = 0; i < cases.n; i++) {
        const struct golden_case *c = &cases.v[i];
        ls_error err = { 0 };
        int32_t *ids;
        char *text = NULL;
        size_t n, len = 0;

        encode(c->text, c->text_len, 0, &ids, &n);
        check_ids(c->text, ids, n, c->ids, c->n_ids);
        REQUIRE_OK(ls_tokenizer_decode(tok, ids, n, false, &text, &len, &err), err);
        /* SentencePiece writes a space as U+2581, so that a text's own one comes back as a space */
        if (strcmp(ls_tokenizer_kind(tok), "bpe") == 0 || !strstr(c->text, "\xE2\x96\x81"))
            CHECK_MEM(text, len, c->text, c->text_len);
        ls_tokenizer_text_free(tok, text, len);
        ls_tokenizer_ids_free(tok, ids, n);
        if (strcmp(name, "smollm2") == 0) {
            encode(c->text, c->text_len, LS_ENCODE_PARSE_SPECIAL, &ids, &n);
            check_ids(c->text, ids, n, c->control_ids ? c->control_ids : c->ids,
                      c->control_ids ? c->n_control_ids : c->n_ids);
            ls_tokenizer_ids_free(tok, ids, n);
        }
    }
}

/* Greedy continuation of at most n_max ids, the stopping one included. */
static size_t answer(const int32_t *prompt, size_t n_prompt, size_t n_max, const char *kv, ls_compute compute,
                     int32_t *out)
{
    ls_model_info info = { .struct_size = sizeof info };
    ls_context_options o;
    ls_context *ctx = NULL;
    ls_error err = { 0 };
    float *logits;
    size_t n = 0;

    ls_model_get_info(model, &info);
    logits = malloc(info.n_vocab * sizeof *logits);
    REQUIRE(logits);
    ls_context_options_defaults(&o);
    o.n_ctx = n_prompt + n_max;
    o.kv = kv;
    o.compute = compute;
    REQUIRE_OK(ls_context_create(model, &o, &ctx, &err), err);
    REQUIRE_OK(ls_context_append(ctx, prompt, n_prompt, logits, &err), err);
    while (n < n_max) {
        int32_t best = 0;

        for (size_t v = 1; v < info.n_vocab; v++)
            if (logits[v] > logits[best])
                best = (int32_t)v;
        out[n++] = best;
        if (ls_tokenizer_is_stop(tok, best) || n == n_max)
            break;
        REQUIRE_OK(ls_context_append(ctx, &best, 1, logits, &err), err);
    }
    ls_context_free(ctx);
    free(logits);
    return n;
}

static void test_greedy(void)
{
    for (size_t i = 0; i < cases.n; i++) {
        const struct golden_case *c = &cases.v[i];
        int32_t *ids = NULL, out[64];
        size_t n = 0;
        ls_error err = { 0 };

        if (strcmp(c->kind, "needle") == 0)
            continue;
        if (strcmp(c->kind, "chat") == 0) {
            const ls_chat_message message = { "user", c->prompt, strlen(c->prompt) };
            ls_chat_template *tmpl = NULL;

            REQUIRE_OK(ls_chat_template_open(tok, NULL, &tmpl, &err), err);
            REQUIRE_OK(ls_chat_encode(tmpl, &message, 1, true, NULL, &ids, &n, &err), err);
            ls_chat_template_close(tmpl);
        } else {
            encode(c->prompt, strlen(c->prompt), LS_ENCODE_ADD_SPECIAL, &ids, &n);
        }
        check_ids(c->prompt, ids, n, c->prompt_ids, c->n_prompt_ids);
        ls_tokenizer_ids_free(tok, ids, n);
        REQUIRE(c->n_ids <= 64);
        n = answer(c->prompt_ids, c->n_prompt_ids, c->n_ids, "full:fp32", LS_COMPUTE_FP32, out);
        check_ids(c->text, out, n, c->ids, c->n_ids);
    }
}

/* The text of a passage, from Debian's bible; NULL when it is not installed. */
static char *passage(const char *reference)
{
    char command[256], *text = NULL;
    size_t n = 0, got;
    FILE *f;

    if (system("command -v bible >/dev/null") != 0)
        return NULL;
    snprintf(command, sizeof command, "bible -l 200 '%s'", reference);
    f = popen(command, "r");
    REQUIRE(f);
    do {
        text = realloc(text, n + 65537);
        REQUIRE(text);
        got = fread(text + n, 1, 65536, f);
        n += got;
    } while (got);
    pclose(f);
    text[n] = 0;
    return text;
}

/* texts.py, needle_prompt: the line goes in at the line break after `share` of the text. */
static char *needle_prompt(const struct golden_case *c, char *text)
{
    const char *form = "Some special magic numbers are hidden within the following text.\n"
                       "%.*sOne of the special magic numbers for %s is: %lld.\n%s\n"
                       "What is the special magic number for %s mentioned in the provided text? "
                       "The special magic number for %s mentioned in the provided text is:";
    const size_t size = (size_t)c->chars + 1024;
    char *out = malloc(size), *at;

    REQUIRE(out && strlen(text) >= (size_t)c->chars);
    text[c->chars] = 0;
    at = strchr(text + (size_t)(c->share * (double)c->chars), '\n') + 1;
    snprintf(out, size, form, (int)(at - text), text, c->city, (long long)c->number, at, c->city, c->city);
    return out;
}

static bool contains(const int32_t *ids, size_t n, int64_t number)
{
    char want[32], *text = NULL;
    size_t len = 0;
    ls_error err = { 0 };
    bool found;

    snprintf(want, sizeof want, "%lld", (long long)number);
    REQUIRE_OK(ls_tokenizer_decode(tok, ids, n, false, &text, &len, &err), err);
    found = strstr(text, want) != NULL;
    if (!found)
        fprintf(stderr, "    the answer is \"%s\", the number %s\n", text, want);
    ls_tokenizer_text_free(tok, text, len);
    return found;
}

static bool left_out;

static void test_needle(void)
{
    for (size_t i = 0; i < cases.n; i++) {
        const struct golden_case *c = &cases.v[i];
        int32_t *ids, out[64];
        char *text, *prompt;
        size_t n_prompt, n;

        if (strcmp(c->kind, "needle") != 0)
            continue;
        text = passage(c->passage);
        if (!text) {
            left_out = true;
            return;
        }
        prompt = needle_prompt(c, text);
        encode(prompt, strlen(prompt), LS_ENCODE_ADD_SPECIAL, &ids, &n_prompt);
        CHECK_INT(n_prompt, c->n_prompt);
        REQUIRE(c->n_ids <= 64);
        n = answer(ids, n_prompt, c->n_ids, "full:fp32", LS_COMPUTE_FP32, out);
        check_ids(c->city, out, n, c->ids, c->n_ids);
        n = answer(ids, n_prompt, c->n_ids, "full:bf16", LS_COMPUTE_AUTO, out);
        CHECK(contains(out, n, c->number));
        n = answer(ids, n_prompt, c->n_ids, "full:q8", LS_COMPUTE_AUTO, out);
        CHECK(contains(out, n, c->number));
        ls_tokenizer_ids_free(tok, ids, n_prompt);
        free(prompt);
        free(text);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_tokens), TEST(test_greedy), TEST(test_needle) };
    const bool gemma = argc == 3 && strcmp(argv[1], "gemma") == 0;
    const char *path = gemma ? golden_model_path("LONGSPAN_GEMMA", "gemma-3-270m.Q4_K_M.gguf")
                             : golden_model_path("LONGSPAN_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf");
    ls_error err = { 0 };
    char file[64];
    int result = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: %s (smollm2 | gemma) (tokens | greedy | needle)\n", argv[0]);
        return 2;
    }
    if (!path) {
        fprintf(stderr, "skipped: the model is not here; scripts/get-model obtains it\n");
        return TEST_SKIP;
    }
    name = gemma ? "gemma3-270m" : "smollm2";
    snprintf(file, sizeof file, "%s-%s", name, strcmp(argv[2], "tokens") == 0 ? "tokens" : "greedy");
    if (golden_cases_open(&cases, file, &err) == LS_OK && ls_model_open(path, NULL, &model, &err) == LS_OK &&
        ls_tokenizer_open(path, NULL, &tok, &err) == LS_OK)
        result = test_main(tests, sizeof tests / sizeof tests[0], 2, argv + 1);
    else
        fprintf(stderr, "error: %s\n", err.text);
    ls_tokenizer_close(tok);
    ls_model_close(model);
    golden_cases_close(&cases);
    if (left_out)
        fprintf(stderr, "skipped: the bible package is not installed\n");
    return result == 0 && left_out ? TEST_SKIP : result;
}

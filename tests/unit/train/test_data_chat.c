/* Conversations: the loss is on what the assistant writes, and on its end token. */
#include "data_files.h"

static char dir[512];

#define MESSAGES_MAX 4

/* A line of data from pairs of role and content. */
static void conversation(struct lsi_buf *b, const char *const *fields, size_t n, const char *const names[3])
{
    lsi_buf_printf(b, "{\"%s\": [", names[0]);
    for (size_t i = 0; i < n; i++) {
        lsi_buf_printf(b, "%s{\"%s\": \"%s\", \"%s\": ", i ? ", " : "", names[1], fields[2 * i], names[2]);
        lsi_buf_json_string(b, fields[2 * i + 1], strlen(fields[2 * i + 1]));
        lsi_buf_printf(b, "}");
    }
    lsi_buf_printf(b, "]}\n");
}

static const char *const usual[3] = { "messages", "role", "content" };

/* The text of the tokens that are labels; between two stretches of them stands a bar. */
static char *learnt_text(const ls_tokenizer *tok, const ls_train_sequence *s)
{
    static char out[4096];
    size_t n = 0;
    for (size_t t = 0; t < s->n; t++) {
        size_t len;
        if (s->labels[t] == LS_TRAIN_IGNORE) {
            if (n && out[n - 1] != '|')
                out[n++] = '|';
            continue;
        }
        CHECK_INT(s->labels[t], s->tokens[t + 1]);
        const char *piece = ls_tokenizer_piece(tok, s->labels[t], true, &len);
        memcpy(out + n, piece, len);
        n += len;
    }
    out[n] = '\0';
    return out;
}

static struct lsi_data *open_lines(const ls_tokenizer *tok, const char *tmpl, const char *text, size_t seq)
{
    const char *path = write_text(dir, "chat.jsonl", text);
    struct lsi_data_options o = data_options(tok, &path, 1, seq);
    o.chat_template = tmpl;
    return open_data(&o);
}

static const char *const plain[] = { "system",    "Be brief.", "user", "Two?",
                                     "assistant", "2.",        "user", "<|im_end|> Three?",
                                     "assistant", "It is\n\n3" };

static void test_smollm2(void)
{
    ls_tokenizer *tok = open_smollm2();
    ls_error err = { 0 };
    struct lsi_buf b;
    uint64_t valid;
    size_t n_valid = 0;
    lsi_buf_init(&b, NULL, 1 << 20);
    conversation(&b, plain, 5, usual);
    struct lsi_data *d = open_lines(tok, NULL, b.data, 200);
    ls_train_sequence s = get_sequence(d, 0, 0);
    CHECK_STR(learnt_text(tok, &s), "2.<|im_end|>|It is\n\n3<|im_end|>|");
    for (size_t t = 0; t < s.n; t++)
        n_valid += s.labels[t] != LS_TRAIN_IGNORE;
    REQUIRE_OK(lsi_data_n_valid(d, 0, &valid, &err), err);
    CHECK_INT(valid, n_valid);

    /* The tokens are those of the conversation as chat writes it; the user's control token is text. */
    ls_chat_template *tmpl;
    ls_chat_message m[5];
    int32_t *ids;
    size_t n;
    for (size_t i = 0; i < 5; i++)
        m[i] = (ls_chat_message){ plain[2 * i], plain[2 * i + 1], strlen(plain[2 * i + 1]) };
    REQUIRE_OK(ls_chat_template_open(tok, NULL, &tmpl, &err), err);
    REQUIRE_OK(ls_chat_encode(tmpl, m, 5, false, NULL, &ids, &n, &err), err);
    CHECK_MEM(s.tokens, s.n * 4, ids, n * 4);
    ls_tokenizer_ids_free(tok, ids, n);
    ls_chat_template_close(tmpl);
    lsi_data_close(d);
    lsi_buf_fini(&b);
    ls_tokenizer_close(tok);
}

/* The other usual names of the same things. */
static void test_names(void)
{
    static const char *const names[3] = { "conversations", "from", "value" };
    static const char *const fields[] = { "human", "Two?", "gpt", "2." };
    ls_tokenizer *tok = open_smollm2();
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 1 << 20);
    conversation(&b, fields, 2, names);
    struct lsi_data *d = open_lines(tok, NULL, b.data, 100);
    const ls_train_sequence s = get_sequence(d, 0, 0);
    CHECK_STR(learnt_text(tok, &s), "2.<|im_end|>|");
    lsi_data_close(d);
    lsi_buf_fini(&b);
    ls_tokenizer_close(tok);
}

/* Every template, over tokenizers with and without spaces of their own, with and without a normaliser. */
static void test_templates(void)
{
    static const char *const fields[] = { "user", "Cafe\xcc\x81 one?", "assistant", "Yes it is.",
                                          "user", "And two?",          "assistant", "No." };
    static const struct {
        const char *family, *tmpl, *want;
    } cases[] = {
        { "qwen2", "qwen2", "Yes it is.<|im_end|>|No.<|im_end|>|" },
        { "qwen2", "chatml", "Yes it is.<|im_end|>|No.<|im_end|>|" },
        { "smollm", "smollm2", "Yes it is.<|im_end|>|No.<|im_end|>|" },
        { "llama3", "llama3", "Yes it is.<|eot_id|>|No.<|eot_id|>|" },
        { "llama3", "llama3.1", "Yes it is.<|eot_id|>|No.<|eot_id|>|" },
        { "llama2", "llama2", " Yes it is. </s>| No. </s>|" },
        { "llama2", "mistral-v1", " Yes it is.</s>| No.</s>|" },
        { "llama2", "mistral-v3", " Yes it is.</s>| No.</s>|" },
        { "gemma", "gemma", "Yes it is.<end_of_turn>|No.<end_of_turn>|" },
    };
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 1 << 20);
    conversation(&b, fields, 4, usual);
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        ls_tokenizer *tok = open_family(cases[i].family);
        if (strcmp(cases[i].family, "llama2") == 0) {
            tok->bos = ls_tokenizer_find(tok, "<s>", 3);
            tok->eos = ls_tokenizer_find(tok, "</s>", 4);
        }
        struct lsi_data *d = open_lines(tok, cases[i].tmpl, b.data, 1000);
        const ls_train_sequence s = get_sequence(d, 0, 0);
        fprintf(stderr, "  %s with %s\n", cases[i].tmpl, cases[i].family);
        CHECK_STR(learnt_text(tok, &s), cases[i].want);
        lsi_data_close(d);
        ls_tokenizer_close(tok);
    }
    lsi_buf_fini(&b);
}

/* Packed: each conversation keeps its own labels; one without an answer is left out and counted. */
static void test_packed(void)
{
    static const char *const question[] = { "user", "Hello?" };
    static const char *const pair[] = { "user", "One?", "assistant", "1!" };
    ls_tokenizer *tok = open_smollm2();
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 1 << 20);
    conversation(&b, pair, 2, usual);
    conversation(&b, question, 1, usual);
    conversation(&b, plain, 5, usual);
    for (int cached = 0; cached < 3; cached++) { /* without the cache, written, mapped */
        const char *path = write_text(dir, "chat.jsonl", b.data);
        struct lsi_data_options o = data_options(tok, &path, 1, 1000);
        o.cache_dir = cached ? tiny_path(dir, "chat-tokens") : NULL;
        struct lsi_data *d = open_data(&o);
        const ls_train_sequence s = get_sequence(d, 0, 0);
        CHECK_INT(lsi_data_n_sequences(d), 1);
        CHECK_INT(s.n_docs, 2);
        CHECK(lsi_data_n_dropped(d) > 10);
        CHECK_STR(learnt_text(tok, &s), "1!<|im_end|>|2.<|im_end|>|It is\n\n3<|im_end|>|");
        lsi_data_close(d);
    }
    lsi_buf_fini(&b);
    ls_tokenizer_close(tok);
}

/* The answer lies in the second of three pieces; pieces without a label are dropped. */
static void test_cut_conversation(void)
{
    static const char *const fields[] = { "user",      "0123456789012345678901234567890123456789",
                                          "assistant", "98765",
                                          "user",      "0123456789012345678901234567890123456789" };
    ls_tokenizer *tok = open_smollm2();
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 1 << 20);
    conversation(&b, fields, 3, usual);
    struct lsi_data *whole = open_lines(tok, NULL, b.data, 1000);
    const size_t n = get_sequence(whole, 0, 0).n, seq = n / 3 + 1;
    struct lsi_data *d = open_lines(tok, NULL, b.data, seq);
    size_t learnt = 0, n_digits = 0;
    for (uint64_t i = 0; i < lsi_data_n_sequences(d); i++) {
        const ls_train_sequence s = get_sequence(d, i, 0);
        const char *text = learnt_text(tok, &s);
        learnt += text[0] != '\0';
        n_digits += strspn(text, "98765");
    }
    CHECK_INT(learnt, lsi_data_n_sequences(d));
    CHECK(learnt < 3 && n_digits > 0);
    CHECK_INT(lsi_data_n_tokens(d) + lsi_data_n_dropped(d), n);
    lsi_data_close(d);
    lsi_data_close(whole);
    lsi_buf_fini(&b);
    ls_tokenizer_close(tok);
}

static void test_errors(void)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        { "{\"messages\": []}", ":2: a conversation needs at least one message" },
        { "{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}", "role \"tool\" is none of" },
        { "{\"messages\": [{\"role\": \"user\"}]}", "a message has no \"content\"" },
        { "{\"messages\": [{\"content\": \"x\"}]}", "a message has no \"role\"" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": [\"x\"]}]}", "expected a string" },
        { "{\"messages\": {\"role\": \"user\"}}", "expected an array" },
        { "{\"text\": \"x\"}", ":2: the line has no \"messages\"" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}", ":2:" },
    };
    ls_tokenizer *tok = open_smollm2();
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        char text[1000];
        snprintf(text, sizeof text, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n%s\n",
                 cases[i].line);
        const char *path = write_text(dir, "chat.jsonl", text);
        struct lsi_data_options o = data_options(tok, &path, 1, 100);
        static ls_error err;
        struct lsi_data *d = NULL;
        CHECK(lsi_data_open(&d, &o, &err) != LS_OK);
        if (!strstr(err.text, cases[i].says) || strncmp(err.text, path, strlen(path)) != 0) {
            test_fail_(__FILE__, __LINE__);
            fprintf(stderr, "case %zu says: %s\n", i, err.text);
        }
    }
    const char *path =
        write_text(dir, "chat.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n");
    struct lsi_data_options o = data_options(tok, &path, 1, 100);
    CHECK(strstr(open_failure(&o, LS_E_INVAL), "where the assistant answers") != NULL);
    ls_tokenizer_close(tok);
    tok = open_family("gpt2"); /* has no template */
    o = data_options(tok, &path, 1, 100);
    CHECK(strstr(open_failure(&o, LS_E_UNSUPPORTED), "--chat-template") != NULL);
    ls_tokenizer_close(tok);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_smollm2),          TEST(test_names),  TEST(test_templates), TEST(test_packed),
        TEST(test_cut_conversation), TEST(test_errors),
    };
    tiny_dir(dir, sizeof dir);
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    tiny_remove(dir);
    return rc;
}

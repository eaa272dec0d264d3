/* Chat templates: recognition and exact text. */
#include "recorded.h"
#include "tokenizer/chat_render.h"

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
        { "llama2", "[INST] <<SYS>>\nS\n<</SYS>>\n\n U [/INST]" },
        { "mistral-v1", " [INST] S\n\n U  [/INST]" },
        { "mistral-v3", "[INST] S\n\n U [/INST]" },
        { "mistral-v3-tekken", "[INST]S\n\n U [/INST]" },
        { "mistral-v7", "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST]  U [/INST]" },
        { "gemma", "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n" },
    };
    const ls_chat_message messages[] = { { "system", "S", 1 }, { "user", " U ", 3 } };
    ls_tokenizer *t = open_family("gpt2");
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

/* ---- renderings recorded from the published templates (scripts/make-golden/chat_renderings.py) ----------
 */

#define CONVERSATIONS_MAX 16
#define MESSAGES_MAX      8

struct conversation {
    ls_chat_message messages[MESSAGES_MAX];
    size_t n;
};

static char *unescape(char *s)
{
    char *out = s;
    for (const char *p = s; *p; p++) {
        if (*p == '\\') {
            p++;
            *out++ = (char)(*p == 'n' ? '\n' : *p == 't' ? '\t' : *p);
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
    return s;
}

static void read_conversation(struct conversation *c, char *fields)
{
    char *rest = fields;
    for (const char *role; (role = strsep(&rest, "\t")) != NULL;) {
        char *content = strsep(&rest, "\t");
        REQUIRE(content != NULL && c->n < MESSAGES_MAX);
        unescape(content);
        c->messages[c->n++] = (ls_chat_message){ role, content, strlen(content) };
    }
}

static int check_rendering(const ls_tokenizer *t, const char *name, const struct conversation *c, bool prompt,
                           const char *want)
{
    ls_chat_template *tmpl;
    ls_error err = { 0 };
    char *text;
    size_t len;
    REQUIRE_OK(ls_chat_template_open(t, name, &tmpl, &err), err);
    /* The first Llama 3 template asks for an answer in any case; by name the library does so when told. */
    tmpl->always_prompt = strcmp(name, "llama3") == 0;
    REQUIRE_OK(ls_chat_render(tmpl, c->messages, c->n, prompt, NULL, &text, &len, &err), err);
    const int wrong = strcmp(text, want) != 0;
    if (wrong)
        fprintf(stderr, "  %s, %zu messages:\n%s\n  expected:\n%s\n", name, c->n, text, want);
    ls_tokenizer_text_free(t, text, len);
    ls_chat_template_close(tmpl);
    return wrong;
}

static void test_recorded_renderings(void)
{
    static struct conversation conversations[CONVERSATIONS_MAX];
    static char file[1 << 17];
    size_t n = 0;
    int wrong = 0, checked = 0;
    FILE *f = fopen(DATA "chat.txt", "r");
    REQUIRE(f != NULL);
    file[fread(file, 1, sizeof file - 1, f)] = '\0';
    fclose(f);
    ls_tokenizer *t = open_family("llama2");
    t->bos = ls_tokenizer_find(t, "<s>", 3);
    t->eos = ls_tokenizer_find(t, "</s>", 4);
    char *rest = file;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (line[0] == '#' || line[0] == '\0')
            continue;
        const char *name = strsep(&line, "\t");
        if (strcmp(name, "conversation") == 0) {
            REQUIRE(n < CONVERSATIONS_MAX);
            read_conversation(&conversations[n++], line);
            continue;
        }
        const size_t index = strtoul(strsep(&line, "\t"), NULL, 10);
        const bool prompt = strcmp(strsep(&line, "\t"), "1") == 0;
        REQUIRE(index < n);
        wrong += check_rendering(t, name, &conversations[index], prompt, unescape(line));
        checked++;
    }
    CHECK_INT(wrong, 0);
    CHECK(checked > 100);
    ls_tokenizer_close(t);
}

/* ---- recognition ------------------------------------------------------------------------ */

static void test_recognition(void)
{
#define TURN "'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
    static const struct {
        const char *text, *name, *begin; /* name NULL: refused; begin of the rendering of one question */
    } cases[] = {
        { "{{ " TURN " }}", "chatml", "<|im_start|>user" },
        { "{{- bos_token }}{{ " TURN " }}", "chatml", "<s><|im_start|>user" },
        { "{{ '<|im_start|>system\\nBe kind.<|im_end|>' }}{{ " TURN " }}", "chatml",
          "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user" },
        { "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>' }}{{ " TURN " }}", "qwen2",
          "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" },
        { "{{ '<|im_start|>system\\nIt is ' + date }}{{ " TURN " }}", NULL, NULL },
        { "{{ " TURN " }}{{ '<|tool_list|>' }}", NULL, NULL },
        { "{{ " TURN " }}{{ '<|im_start|>assistant\\n<think>\\n' }}", NULL, NULL },
        { "{{ '<|im_start|>user<|im_sep|>' }}", NULL, NULL },
        { "{{ '[INST] ' + message['content'] + ' [/INST]' }}", "llama2", "<s>[INST] Q [/INST]" },
        { "{{ '[INST] <<SYS>>' + idx }}", NULL, NULL },
        { "{{ '[SYSTEM_PROMPT]' + default_system_message }}[INST]", NULL, NULL },
        { "{{ '<start_of_turn>' + role }}", "gemma", "<s><start_of_turn>user\nQ" },
        { "<|start_header_id|><|end_header_id|>{{ bos_token }}", "llama3", "<s><|start_header_id|>user" },
        { "<|start_header_id|><|end_header_id|>{{ functions }}", NULL, NULL },
        { "{{ message['content'] }}", NULL, NULL },
    };
    const ls_chat_message question = { "user", "Q", 1 };
    ls_tokenizer *t = open_family("llama2");
    t->bos = ls_tokenizer_find(t, "<s>", 3);
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        ls_chat_template *c;
        ls_error err = { 0 };
        char *text;
        size_t len;
        t->chat_template = lsi_strndup(t->alloc, cases[i].text, strlen(cases[i].text));
        const ls_status st = ls_chat_template_open(t, NULL, &c, &err);
        CHECK_INT(st, cases[i].name ? LS_OK : LS_E_UNSUPPORTED);
        if (st == LS_OK) {
            CHECK_STR(ls_chat_template_name(c), cases[i].name ? cases[i].name : "refused");
            REQUIRE_OK(ls_chat_render(c, &question, 1, true, NULL, &text, &len, &err), err);
            if (cases[i].begin && strncmp(text, cases[i].begin, strlen(cases[i].begin)) != 0)
                CHECK_STR(text, cases[i].begin);
            ls_tokenizer_text_free(t, text, len);
            ls_chat_template_close(c);
        }
        lsi_free(t->alloc, t->chat_template, strlen(cases[i].text) + 1);
        t->chat_template = NULL;
    }
    ls_tokenizer_close(t);
#undef TURN
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_templates), TEST(test_recorded_renderings),
                                         TEST(test_recognition) };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

/* Chat templates: recognition and exact text. */
#include "recorded.h"

#include <longspan/chat.h>

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

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_templates) };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

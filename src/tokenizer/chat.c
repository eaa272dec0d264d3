/* Chat templates: which one it is, and conversations to ids. */
#include "tokenizer/chat_render.h"

#include <string.h>

static const char smollm2_system[] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
static const char qwen25_system[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
static const char qwen2_system[] = "You are a helpful assistant.";

static const struct {
    const char *name;
    enum lsi_chat_kind kind;
    const char *default_system;
} templates[] = {
    { "chatml", LSI_CHAT_CHATML, NULL },         { "smollm2", LSI_CHAT_CHATML, smollm2_system },
    { "qwen2", LSI_CHAT_CHATML, qwen25_system }, { "qwen3", LSI_CHAT_QWEN3, NULL },
    { "llama2", LSI_CHAT_LLAMA2, NULL },         { "llama3", LSI_CHAT_LLAMA3, NULL },
    { "llama3.1", LSI_CHAT_LLAMA31, NULL },      { "mistral-v1", LSI_CHAT_MISTRAL_V1, NULL },
    { "mistral-v3", LSI_CHAT_MISTRAL_V3, NULL }, { "mistral-v3-tekken", LSI_CHAT_MISTRAL_TEKKEN, NULL },
    { "mistral-v7", LSI_CHAT_MISTRAL_V7, NULL }, { "gemma", LSI_CHAT_GEMMA, NULL },
};
#define CHOICES                                                                                            \
    "chatml, smollm2, qwen2, qwen3, llama2, llama3, llama3.1, mistral-v1, mistral-v3, mistral-v3-tekken, " \
    "mistral-v7, gemma"

const char *const *ls_chat_template_names(void)
{
    static const char *const names[] = {
        "chatml",     "smollm2",  "qwen2",      "qwen3",      "llama2",
        "llama3",     "llama3.1", "mistral-v1", "mistral-v3", "mistral-v3-tekken",
        "mistral-v7", "gemma",    NULL
    };
    return names;
}

static bool set_named(ls_chat_template *c, const char *name)
{
    for (size_t i = 0; i < LSI_LEN(templates); i++) {
        if (strcmp(templates[i].name, name) == 0) {
            c->name = templates[i].name;
            c->kind = templates[i].kind;
            c->default_system = templates[i].default_system;
            c->system_tags = true;
            return true;
        }
    }
    return false;
}

static const char *recognise_mistral(const char *text)
{
    if (strstr(text, "[SYSTEM_PROMPT]"))
        return "mistral-v7";
    if (!strstr(text, "' [INST] ' + system_message") && !strstr(text, "[AVAILABLE_TOOLS]"))
        return "llama2";
    if (strstr(text, " [INST]"))
        return "mistral-v1";
    return strstr(text, "\"[INST]\"") || strstr(text, "'[INST]'") ? "mistral-v3-tekken" : "mistral-v3";
}

static const char *recognise_chatml(const char *text)
{
    if (strstr(text, smollm2_system))
        return "smollm2";
    if (strstr(text, qwen25_system) || strstr(text, "system\\nYou are a helpful assistant"))
        return "qwen2";
    return strstr(text, "<think>") || strstr(text, "</think>") ? "qwen3" : "chatml";
}

/* The signs of each family, first match wins. */
static bool recognise(ls_chat_template *c, const char *text)
{
    const char *name = NULL;
    if (strstr(text, "<|im_start|>") && !strstr(text, "<|im_sep|>"))
        name = recognise_chatml(text);
    else if (strstr(text, "[INST]"))
        name = recognise_mistral(text);
    else if (strstr(text, "<start_of_turn>"))
        name = "gemma";
    else if (strstr(text, "<|start_header_id|>") && strstr(text, "<|end_header_id|>"))
        name = strstr(text, "Cutting Knowledge Date") ? "llama3.1" : "llama3";
    if (!name || !set_named(c, name))
        return false;
    if (strcmp(name, "qwen2") == 0 && !strstr(text, qwen25_system))
        c->default_system = qwen2_system;
    c->system_tags = strstr(text, "<<SYS>>") != NULL;
    c->always_prompt = c->kind == LSI_CHAT_LLAMA3 && !strstr(text, "add_generation_prompt");
    return true;
}

ls_status ls_chat_template_open(const ls_tokenizer *tok, const char *name, ls_chat_template **tmpl,
                                ls_error *err)
{
    *tmpl = NULL;
    ls_chat_template c = { .tok = tok };
    if (name && strcmp(name, "auto") != 0) {
        if (!set_named(&c, name))
            return lsi_fail(err, LS_E_UNSUPPORTED,
                            "no chat template is named \"%.40s\"; --chat-template takes one of: " CHOICES,
                            name);
    } else {
        const char *text = ls_tokenizer_chat_template(tok);
        if (!text)
            return lsi_fail(err, LS_E_UNSUPPORTED,
                            "the model has no chat template (it may be a base model, made to continue text); "
                            "choose one with --chat-template NAME: " CHOICES);
        if (!recognise(&c, text))
            return lsi_fail(err, LS_E_UNSUPPORTED,
                            "the model's chat template is not a known one; choose one with --chat-template "
                            "NAME: " CHOICES);
    }
    *tmpl = lsi_alloc(tok->alloc, sizeof **tmpl);
    if (!*tmpl)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a chat template");
    **tmpl = c;
    return LS_OK;
}

void ls_chat_template_close(ls_chat_template *c)
{
    if (c)
        lsi_free(c->tok->alloc, c, sizeof *c);
}

const char *ls_chat_template_name(const ls_chat_template *c)
{
    return c->name;
}

ls_status ls_chat_encode(const ls_chat_template *c, const ls_chat_message *messages, size_t n, bool prompt,
                         const char *answer_prefix, int32_t **ids, size_t *n_ids, ls_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    struct lsi_rendering r;
    ls_status st = lsi_chat_render(c, messages, n, prompt, answer_prefix, &r, err);
    if (st == LS_OK) /* the beginning-of-text token is in the rendering where the template has it */
        st = ls_tokenizer_encode_ranges(c->tok, r.text.data ? r.text.data : "", r.text.len,
                                        LS_ENCODE_PARSE_SPECIAL, (const ls_byte_range *)(void *)r.plain.data,
                                        r.plain.len / sizeof(ls_byte_range), ids, n_ids, NULL, err);
    lsi_buf_fini(&r.text);
    lsi_buf_fini(&r.plain);
    return st;
}

ls_status ls_chat_render(const ls_chat_template *c, const ls_chat_message *messages, size_t n, bool prompt,
                         const char *answer_prefix, char **text, size_t *len, ls_error *err)
{
    *text = NULL;
    *len = 0;
    struct lsi_rendering r;
    ls_status st = lsi_chat_render(c, messages, n, prompt, answer_prefix, &r, err);
    if (st == LS_OK) {
        *text = lsi_strndup(c->tok->alloc, r.text.data, r.text.len);
        *len = r.text.len;
        if (!*text)
            st = lsi_fail(err, LS_E_NOMEM, "no memory for the rendered conversation");
    }
    lsi_buf_fini(&r.text);
    lsi_buf_fini(&r.plain);
    return st;
}

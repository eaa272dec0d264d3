/* Chat templates: which one it is, and conversations to ids. */
#include "tokenizer/chat_render.h"

#include <stdio.h>
#include <string.h>

static const char smollm2_system[] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
static const char qwen25_system[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
static const char qwen2_system[] = "You are a helpful assistant.";

static const struct {
    const char *name;
    enum lsi_chat_kind kind;
    const char *default_system;
} templates[] = {
    { "chatml", LSI_CHAT_CHATML, "" },           { "smollm2", LSI_CHAT_CHATML, smollm2_system },
    { "qwen2", LSI_CHAT_CHATML, qwen25_system }, { "qwen3", LSI_CHAT_QWEN3, "" },
    { "llama2", LSI_CHAT_LLAMA2, "" },           { "llama3", LSI_CHAT_LLAMA3, "" },
    { "llama3.1", LSI_CHAT_LLAMA31, "" },        { "mistral-v1", LSI_CHAT_MISTRAL_V1, "" },
    { "mistral-v3", LSI_CHAT_MISTRAL_V3, "" },   { "mistral-v3-tekken", LSI_CHAT_MISTRAL_TEKKEN, "" },
    { "mistral-v7", LSI_CHAT_MISTRAL_V7, "" },   { "gemma", LSI_CHAT_GEMMA, "" },
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
            snprintf(c->default_text, sizeof c->default_text, "%s", templates[i].default_system);
            c->system_tags = true;
            return true;
        }
    }
    return false;
}

static bool has(const char *text, const char *sign)
{
    return strstr(text, sign) != NULL;
}

/* Tags <|…|> other than these mean a form that is not known here. */
static bool has_foreign_tags(const char *text, const char *const *known, size_t n)
{
    for (const char *p = text; (p = strstr(p, "<|")) != NULL; p += 2) {
        bool found = false;
        for (size_t i = 0; i < n && !found; i++)
            found = strncmp(p, known[i], strlen(known[i])) == 0;
        if (!found)
            return true;
    }
    return false;
}

/* The template's text begins with {{ bos_token }}. */
static bool begins_with_bos(const char *text)
{
    text += strspn(text, " \t\r\n{-");
    return strncmp(text, "bos_token", 9) == 0;
}

/* ---- Mistral and Llama 2 -------------------------------------------------------- */

static const char *recognise_inst(ls_chat_template *c, const char *text)
{
    if (has(text, "[SYSTEM_PROMPT]")) /* later models put no space, and a long text of their own */
        return has(text, "[SYSTEM_PROMPT] ") && !has(text, "default_system") ? "mistral-v7" : NULL;
    if (has(text, "<<SYS>>")) {
        c->system_tags = true;
        return has(text, "bos_token + '[INST] '") && has(text, "strip()") && !has(text, "true == true")
                   ? "llama2"
                   : NULL;
    }
    if (!has(text, "' [INST] ' + system_message") && !has(text, "[AVAILABLE_TOOLS]"))
        return has(text, "'[INST] ' + message['content'] + ' [/INST]'") ? "llama2" : NULL;
    if (has(text, " [INST]"))
        return "mistral-v1";
    return has(text, "\"[INST]\"") || has(text, "'[INST]'") ? "mistral-v3-tekken" : "mistral-v3";
}

/* ---- ChatML ------------------------------------------------------------------------ */

/*
 * The system text that a template puts in when there is none: it stands between the tags. False: it is
 * there, but not as plain text.
 */
static bool take_default_system(ls_chat_template *c, const char *text)
{
    static const char open[] = "<|im_start|>system";
    for (const char *p = text; (p = strstr(p, open)) != NULL;) {
        p += sizeof open - 1;
        if (*p == '\n' || strncmp(p, "\\n", 2) == 0)
            p += *p == '\n' ? 1 : 2;
        const size_t n = strcspn(p, "<'\"\\");
        if (n == 0)
            continue;
        if (strncmp(p + n, "<|im_end|>", 10) != 0 || n >= sizeof c->default_text)
            return false;
        memcpy(c->default_text, p, n);
        c->default_text[n] = '\0';
    }
    return true;
}

static const char *recognise_chatml(ls_chat_template *c, const char *text)
{
    static const char *const tags[] = { "<|im_start|>", "<|im_end|>", "<|endoftext|>" };
    if (has_foreign_tags(text, tags, LSI_LEN(tags)) || !take_default_system(c, text))
        return NULL;
    /* System texts that are put together, and tools that are always offered. */
    if (has(text, "## Metadata") || has(text, "keep_past_thinking") || has(text, "List of tools") ||
        has(text, "You are a function calling AI model"))
        return NULL;
    c->begins_with_bos = begins_with_bos(text);
    if (has(text, "bos_token") && !c->begins_with_bos)
        return NULL;
    if (has(text, "<think>") || has(text, "</think>")) /* of the forms that treat thoughts, Qwen 3's */
        return has(text, "loop.last or (not loop.last and reasoning_content)") &&
                       !has(text, "'<think>\\n' }}") && !has(text, "<think>\\n' }}")
                   ? "qwen3"
                   : NULL;
    if (strcmp(c->default_text, smollm2_system) == 0)
        return "smollm2";
    return strncmp(c->default_text, qwen2_system, sizeof qwen2_system - 2) == 0 ||
                   strcmp(c->default_text, qwen25_system) == 0
               ? "qwen2"
               : "chatml";
}

/* ---- Llama 3 -------------------------------------------------------------------------- */

static const char *recognise_llama3(ls_chat_template *c, const char *text)
{
    static const char *const tags[] = { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                        "<|eom_id|>",          "<|python_tag|>",    "<|begin_of_text|>" };
    if (has_foreign_tags(text, tags, LSI_LEN(tags)))
        return NULL;
    if (has(text, "Cutting Knowledge Date"))
        return has(text, "Today Date: ") && has(text, "26 Jul 2024") ? "llama3.1" : NULL;
    if (has(text, "tools") || has(text, "functions")) /* the plain form knows none */
        return NULL;
    c->always_prompt = !has(text, "add_generation_prompt");
    return "llama3";
}

/* The signs of each family. What has signs of something else too is unknown rather than guessed. */
static bool recognise(ls_chat_template *c, const char *text)
{
    ls_chat_template seen = { .tok = c->tok };
    const char *name = NULL;
    if (has(text, "<|im_start|>"))
        name = recognise_chatml(&seen, text);
    else if (has(text, "[INST]"))
        name = recognise_inst(&seen, text);
    else if (has(text, "<start_of_turn>"))
        name = "gemma";
    else if (has(text, "<|start_header_id|>") && has(text, "<|end_header_id|>"))
        name = recognise_llama3(&seen, text);
    if (!name || !set_named(c, name))
        return false;
    c->system_tags = seen.system_tags;
    c->always_prompt = seen.always_prompt;
    c->begins_with_bos = seen.begins_with_bos;
    memcpy(c->default_text, seen.default_text, sizeof c->default_text);
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
    lsi_rendering_fini(&r);
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
    lsi_rendering_fini(&r);
    return st;
}

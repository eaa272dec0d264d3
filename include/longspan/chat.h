/*
 * Chat templates, by recognition: the template text in a model's files is
 * compared with the known families; an unknown one, or one with signs of something else besides, is an
 * error, not a guess.
 */
#ifndef LONGSPAN_CHAT_H
#define LONGSPAN_CHAT_H

#include <longspan/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_chat_template ls_chat_template;

typedef struct ls_chat_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
    size_t content_len;
} ls_chat_message;

/**
 * The template of a tokenizer's files, or the one named (chatml, smollm2, qwen2, qwen3, llama2, llama3,
 * llama3.1, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, gemma).
 * @param name  NULL or "auto": recognise. LS_E_UNSUPPORTED when there is none or it is unknown:
 *              the text names --chat-template and the choices.
 */
LS_API ls_status ls_chat_template_open(const ls_tokenizer *tok, const char *name, ls_chat_template **tmpl,
                                       ls_error *err);
LS_API void ls_chat_template_close(ls_chat_template *tmpl);
LS_API const char *ls_chat_template_name(const ls_chat_template *tmpl);
/** Names of all known templates, NULL-terminated. */
LS_API const char *const *ls_chat_template_names(void);

/**
 * Render messages and encode them, control tokens recognised in the template's parts only. Call it with
 * the whole conversation each time; the ids of a longer conversation begin with those of the shorter one
 * when add_generation_prompt and the answer are as given, unless the template changes earlier turns (qwen3
 * drops their thoughts, mistral-v3 moves the system text to the last question).
 *
 * @param answer_prefix  Text that the answer begins with (may be NULL); part of the prompt.
 */
LS_API ls_status ls_chat_encode(const ls_chat_template *tmpl, const ls_chat_message *messages,
                                size_t n_messages, bool add_generation_prompt, const char *answer_prefix,
                                int32_t **ids, size_t *n_ids, ls_error *err);
/** The rendered text alone. Release: ls_tokenizer_text_free. */
LS_API ls_status ls_chat_render(const ls_chat_template *tmpl, const ls_chat_message *messages,
                                size_t n_messages, bool add_generation_prompt, const char *answer_prefix,
                                char **text, size_t *len, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

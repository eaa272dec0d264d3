/* Rendering of the known chat templates: chat.c recognises, chat_render.c writes the text. */
#ifndef LSI_CHAT_RENDER_H
#define LSI_CHAT_RENDER_H

#include "tokenizer/tokenizer.h"

#include <longspan/chat.h>

enum lsi_chat_kind {
    LSI_CHAT_CHATML,
    LSI_CHAT_QWEN3,
    LSI_CHAT_LLAMA2,
    LSI_CHAT_LLAMA3,
    LSI_CHAT_LLAMA31,
    LSI_CHAT_MISTRAL_V1,
    LSI_CHAT_MISTRAL_V3,
    LSI_CHAT_MISTRAL_TEKKEN,
    LSI_CHAT_MISTRAL_V7,
    LSI_CHAT_GEMMA,
};

struct ls_chat_template {
    const ls_tokenizer *tok;
    const char *name;
    enum lsi_chat_kind kind;
    bool system_tags;       /* LLAMA2: <<SYS>> */
    bool always_prompt;     /* LLAMA3: the first template asks for an answer in any case */
    bool begins_with_bos;   /* CHATML */
    char default_text[256]; /* of ChatML: system text when the first message is none; empty: no such turn */
};

/* The text and, within it, the bytes that were given by the caller and those that an assistant would write.
 */
struct lsi_rendering {
    struct lsi_buf text;
    struct lsi_buf plain; /* array of ls_byte_range */
    struct lsi_buf
        answers; /* array of ls_byte_range: from the first byte of an answer through its end token */
};

void lsi_rendering_fini(struct lsi_rendering *r);

/** lsi_rendering_fini is due in any case. */
ls_status lsi_chat_render(const ls_chat_template *c, const ls_chat_message *messages, size_t n,
                          bool add_generation_prompt, const char *answer_prefix, struct lsi_rendering *r,
                          ls_error *err);

#endif

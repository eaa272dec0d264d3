/* The exact text of a conversation in each family's form. */
#include "tokenizer/chat_render.h"

#include <string.h>

struct writer {
    const ls_chat_template *c;
    struct lsi_rendering *r;
};

struct span {
    const char *s;
    size_t len;
};

static void put(struct writer *w, const char *s)
{
    lsi_buf_append(&w->r->text, s, strlen(s));
}

/* The caller's words: control tokens in them are plain text. */
static void put_words(struct writer *w, struct span t)
{
    const ls_byte_range range = { w->r->text.len, w->r->text.len + t.len };
    if (t.len == 0)
        return;
    lsi_buf_append(&w->r->text, t.s, t.len);
    lsi_buf_append(&w->r->plain, &range, sizeof range);
}

static void put_token(struct writer *w, int32_t id)
{
    size_t n;
    const char *s = ls_tokenizer_piece(w->c->tok, id, true, &n);
    lsi_buf_append(&w->r->text, s, n);
}

static void put_bos(struct writer *w)
{
    put_token(w, w->c->tok->bos);
}

static void put_eos(struct writer *w)
{
    put_token(w, w->c->tok->eos);
}

static struct span words(const ls_chat_message *m)
{
    return (struct span){ m->content ? m->content : "", m->content ? m->content_len : 0 };
}

static struct span trimmed(struct span t)
{
    uint32_t cp;
    for (size_t k; t.len && (k = lsi_char_at(t.s, t.len, &cp), lsi_char_class_of(cp) == LSI_CHAR_SPACE);) {
        t.s += k;
        t.len -= k;
    }
    while (t.len) {
        size_t k = t.len - 1;
        while (k > 0 && t.len - k < 4 && ((unsigned char)t.s[k] & 0xc0) == 0x80)
            k--;
        if (lsi_char_at(t.s + k, t.len - k, &cp) != t.len - k || lsi_char_class_of(cp) != LSI_CHAR_SPACE)
            break;
        t.len = k;
    }
    return t;
}

static bool is_role(const ls_chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* What follows the last </think>, without the line feeds in front. */
static struct span without_thoughts(struct span t)
{
    static const char mark[] = "</think>";
    const char *end = t.s + t.len;
    for (const char *hit; (hit = memmem(t.s, (size_t)(end - t.s), mark, sizeof mark - 1)) != NULL;) {
        t.s = hit + sizeof mark - 1;
        while (t.s < end && *t.s == '\n')
            t.s++;
    }
    t.len = (size_t)(end - t.s);
    return t;
}

static void chatml(struct writer *w, const ls_chat_message *m, size_t n, bool prompt)
{
    size_t last_user = n;
    for (size_t i = 0; i < n; i++)
        if (is_role(&m[i], "user"))
            last_user = i;
    if (w->c->default_system && n && !is_role(&m[0], "system")) {
        put(w, "<|im_start|>system\n");
        put(w, w->c->default_system);
        put(w, "<|im_end|>\n");
    }
    for (size_t i = 0; i < n; i++) {
        const bool earlier = w->c->kind == LSI_CHAT_QWEN3 && is_role(&m[i], "assistant") && i < last_user;
        put(w, "<|im_start|>");
        put(w, m[i].role);
        put(w, "\n");
        put_words(w, earlier ? without_thoughts(words(&m[i])) : words(&m[i]));
        put(w, "<|im_end|>\n");
    }
    if (prompt)
        put(w, "<|im_start|>assistant\n");
}

static void llama3(struct writer *w, const ls_chat_message *m, size_t n, bool prompt)
{
    put_bos(w);
    size_t i = 0;
    if (w->c->kind == LSI_CHAT_LLAMA31) {
        /* A fixed date: with today's, prompts and everything kept for them would change daily. */
        put(w, "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
               "Today Date: 26 Jul 2024\n\n");
        if (n && is_role(&m[0], "system"))
            put_words(w, trimmed(words(&m[i++])));
        put(w, "<|eot_id|>");
    }
    for (; i < n; i++) {
        put(w, "<|start_header_id|>");
        put(w, m[i].role);
        put(w, "<|end_header_id|>\n\n");
        put_words(w, trimmed(words(&m[i])));
        put(w, "<|eot_id|>");
    }
    if (prompt || w->c->always_prompt)
        put(w, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static void llama2(struct writer *w, const ls_chat_message *m, size_t n)
{
    const ls_chat_message *system = n && is_role(&m[0], "system") ? &m[0] : NULL;
    for (size_t i = system ? 1 : 0; i < n; i++) {
        if (is_role(&m[i], "user")) {
            /* Only the form with <<SYS>> begins each question anew. */
            if (i <= 1 || w->c->system_tags)
                put_bos(w);
            put(w, "[INST] ");
            if (system) {
                put(w, w->c->system_tags ? "<<SYS>>\n" : "");
                put_words(w, words(system));
                put(w, w->c->system_tags ? "\n<</SYS>>\n\n" : "\n\n");
                system = NULL;
                put_words(w, words(&m[i]));
            } else {
                put_words(w, trimmed(words(&m[i])));
            }
            put(w, " [/INST]");
        } else {
            put(w, w->c->system_tags ? " " : "");
            put_words(w, trimmed(words(&m[i])));
            put(w, w->c->system_tags ? " " : "");
            put_eos(w);
        }
    }
}

static void mistral(struct writer *w, const ls_chat_message *m, size_t n)
{
    static const struct {
        const char *open, *close, *answer;
    } forms[] = {
        [LSI_CHAT_MISTRAL_V1] = { " [INST] ", " [/INST]", " " },
        [LSI_CHAT_MISTRAL_V3] = { "[INST] ", "[/INST]", " " },
        [LSI_CHAT_MISTRAL_TEKKEN] = { "[INST]", "[/INST]", "" },
        [LSI_CHAT_MISTRAL_V7] = { "[INST] ", "[/INST]", " " },
    };
    const enum lsi_chat_kind kind = w->c->kind;
    const bool system = n && is_role(&m[0], "system");
    size_t with_system = n; /* the question that carries the system text: first (v1) or last */
    for (size_t i = 0; system && i < n; i++)
        if (is_role(&m[i], "user") && (with_system == n || kind != LSI_CHAT_MISTRAL_V1))
            with_system = i;
    put_bos(w);
    if (system && kind == LSI_CHAT_MISTRAL_V7) {
        put(w, "[SYSTEM_PROMPT] ");
        put_words(w, words(&m[0]));
        put(w, "[/SYSTEM_PROMPT]");
    }
    for (size_t i = system ? 1 : 0; i < n; i++) {
        if (is_role(&m[i], "user")) {
            put(w, forms[kind].open);
            if (system && i == with_system && kind != LSI_CHAT_MISTRAL_V7) {
                put_words(w, words(&m[0]));
                put(w, "\n\n");
            }
            put_words(w, words(&m[i]));
            put(w, forms[kind].close);
        } else {
            put(w, forms[kind].answer);
            put_words(w, words(&m[i]));
            put_eos(w);
        }
    }
}

static void gemma(struct writer *w, const ls_chat_message *m, size_t n, bool prompt)
{
    put_bos(w);
    const ls_chat_message *system = n && is_role(&m[0], "system") ? &m[0] : NULL;
    for (size_t i = system ? 1 : 0; i < n; i++) {
        const bool user = is_role(&m[i], "user");
        put(w, user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
        if (system) {
            put_words(w, words(system));
            put(w, "\n\n");
            system = NULL;
        }
        put_words(w, trimmed(words(&m[i])));
        put(w, "<end_of_turn>\n");
    }
    if (prompt)
        put(w, "<start_of_turn>model\n");
}

static ls_status check_messages(const ls_chat_template *c, const ls_chat_message *m, size_t n, ls_error *err)
{
    if (n == 0)
        return lsi_fail(err, LS_E_INVAL, "a conversation needs at least one message");
    const bool tagged = c->kind == LSI_CHAT_CHATML || c->kind == LSI_CHAT_QWEN3 ||
                        c->kind == LSI_CHAT_LLAMA3 || c->kind == LSI_CHAT_LLAMA31;
    bool want_user = true;
    for (size_t i = 0; i < n; i++) {
        const bool user = is_role(&m[i], "user"), system = is_role(&m[i], "system");
        if (!user && !system && !is_role(&m[i], "assistant"))
            return lsi_fail(err, LS_E_INVAL, "message %zu: role \"%.40s\" is none of system, user, assistant",
                            i, m[i].role);
        if (tagged)
            continue;
        if (system && i == 0)
            continue;
        if (system || user != want_user)
            return lsi_fail(err, LS_E_INVAL,
                            "message %zu: the %s template takes an optional system message, then user and "
                            "assistant in turn",
                            i, c->name);
        want_user = !want_user;
    }
    return LS_OK;
}

/* Families that write the answer after a space begin a given answer so too. */
static const char *before_answer(const ls_chat_template *c)
{
    switch (c->kind) {
    case LSI_CHAT_LLAMA2:
        return c->system_tags ? " " : "";
    case LSI_CHAT_MISTRAL_V1:
    case LSI_CHAT_MISTRAL_V3:
    case LSI_CHAT_MISTRAL_V7:
        return " ";
    default:
        return "";
    }
}

ls_status lsi_chat_render(const ls_chat_template *c, const ls_chat_message *m, size_t n, bool prompt,
                          const char *answer_prefix, struct lsi_rendering *r, ls_error *err)
{
    lsi_buf_init(&r->text, c->tok->alloc, SIZE_MAX / 4);
    lsi_buf_init(&r->plain, c->tok->alloc, SIZE_MAX / 4);
    LSI_TRY(check_messages(c, m, n, err));
    struct writer w = { c, r };
    switch (c->kind) {
    case LSI_CHAT_CHATML:
    case LSI_CHAT_QWEN3:
        chatml(&w, m, n, prompt);
        break;
    case LSI_CHAT_LLAMA2:
        llama2(&w, m, n);
        break;
    case LSI_CHAT_LLAMA3:
    case LSI_CHAT_LLAMA31:
        llama3(&w, m, n, prompt);
        break;
    case LSI_CHAT_GEMMA:
        gemma(&w, m, n, prompt);
        break;
    default:
        mistral(&w, m, n);
        break;
    }
    if (answer_prefix && answer_prefix[0]) {
        put(&w, answer_prefix[0] == ' ' ? "" : before_answer(c));
        put_words(&w, (struct span){ answer_prefix, strlen(answer_prefix) });
    }
    if (r->text.failed || r->plain.failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the rendered conversation");
    return LS_OK;
}

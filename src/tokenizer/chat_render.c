/* The exact text of a conversation in each family's form. */
#include "tokenizer/chat_render.h"

#include <string.h>

struct writer {
    const ls_chat_template *c;
    struct lsi_rendering *r;
    size_t answer; /* where the answer that is being written begins */
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

static void begin_answer(struct writer *w)
{
    w->answer = w->r->text.len;
}

static void end_answer(struct writer *w)
{
    const ls_byte_range range = { w->answer, w->r->text.len };
    lsi_buf_append(&w->r->answers, &range, sizeof range);
}

static struct span words(const ls_chat_message *m)
{
    return (struct span){ m->content ? m->content : "", m->content ? m->content_len : 0 };
}

static struct span trimmed_end(struct span t)
{
    uint32_t cp;
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

static struct span trimmed(struct span t)
{
    uint32_t cp;
    for (size_t k; t.len && (k = lsi_char_at(t.s, t.len, &cp), lsi_char_class_of(cp) == LSI_CHAR_SPACE);) {
        t.s += k;
        t.len -= k;
    }
    return trimmed_end(t);
}

static bool is_role(const ls_chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* Without the line feeds at both ends. */
static struct span without_lines(struct span t)
{
    while (t.len && t.s[0] == '\n') {
        t.s++;
        t.len--;
    }
    while (t.len && t.s[t.len - 1] == '\n')
        t.len--;
    return t;
}

/* Qwen 3: what an answer says after its last </think>, and what was thought before the first. */
static struct span split_thoughts(struct span t, struct span *thoughts)
{
    static const char open[] = "<think>", close[] = "</think>";
    const char *end = t.s + t.len, *hit = memmem(t.s, t.len, close, sizeof close - 1);
    *thoughts = (struct span){ "", 0 };
    if (!hit)
        return t;
    thoughts->s = t.s;
    thoughts->len = (size_t)(hit - t.s);
    for (const char *p; (p = memmem(thoughts->s, thoughts->len, open, sizeof open - 1)) != NULL;) {
        thoughts->len -= (size_t)(p + sizeof open - 1 - thoughts->s);
        thoughts->s = p + sizeof open - 1;
    }
    *thoughts = without_lines(*thoughts);
    for (; hit; hit = memmem(t.s, (size_t)(end - t.s), close, sizeof close - 1))
        t.s = hit + sizeof close - 1;
    while (t.s < end && *t.s == '\n')
        t.s++;
    t.len = (size_t)(end - t.s);
    return t;
}

/* Thoughts are kept in answers to the last question only. */
static void qwen3_answer(struct writer *w, struct span t, bool after_last_user, bool last)
{
    struct span thoughts;
    t = split_thoughts(t, &thoughts);
    if (after_last_user && (last || thoughts.len)) {
        put(w, "<think>\n");
        put_words(w, thoughts);
        put(w, "\n</think>\n\n");
        while (t.len && t.s[0] == '\n') {
            t.s++;
            t.len--;
        }
    }
    put_words(w, t);
}

static void chatml(struct writer *w, const ls_chat_message *m, size_t n, bool prompt)
{
    size_t last_user = n;
    for (size_t i = 0; i < n; i++)
        if (is_role(&m[i], "user"))
            last_user = i;
    if (w->c->begins_with_bos)
        put_bos(w);
    if (w->c->default_text[0] && n && !is_role(&m[0], "system")) {
        put(w, "<|im_start|>system\n");
        put(w, w->c->default_text);
        put(w, "<|im_end|>\n");
    }
    for (size_t i = 0; i < n; i++) {
        const bool answer = is_role(&m[i], "assistant");
        put(w, "<|im_start|>");
        put(w, m[i].role);
        put(w, "\n");
        begin_answer(w);
        if (w->c->kind == LSI_CHAT_QWEN3 && answer)
            qwen3_answer(w, words(&m[i]), i > last_user, i + 1 == n);
        else
            put_words(w, words(&m[i]));
        put(w, "<|im_end|>");
        if (answer)
            end_answer(w);
        put(w, "\n");
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
        begin_answer(w);
        put_words(w, trimmed(words(&m[i])));
        put(w, "<|eot_id|>");
        if (is_role(&m[i], "assistant"))
            end_answer(w);
    }
    if (prompt || w->c->always_prompt)
        put(w, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* The form with <<SYS>> begins each question anew and trims; the one without does neither. */
static void llama2(struct writer *w, const ls_chat_message *m, size_t n)
{
    const bool tags = w->c->system_tags;
    const ls_chat_message *system = n && is_role(&m[0], "system") ? &m[0] : NULL;
    if (!tags)
        put_bos(w);
    for (size_t i = system ? 1 : 0; i < n; i++) {
        const struct span text = words(&m[i]);
        if (is_role(&m[i], "user")) {
            if (tags)
                put_bos(w);
            put(w, "[INST] ");
            if (system) {
                put(w, tags ? "<<SYS>>\n" : "");
                put_words(w, words(system));
                put(w, tags ? "\n<</SYS>>\n\n" : "\n\n");
                put_words(w, tags ? trimmed_end(text) : text);
                system = NULL;
            } else {
                put_words(w, tags ? trimmed(text) : text);
            }
            put(w, " [/INST]");
        } else {
            begin_answer(w);
            put(w, tags ? " " : "");
            put_words(w, tags ? trimmed(text) : text);
            put(w, tags ? " " : "");
            put_eos(w);
            end_answer(w);
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
    /* The question that carries the system text: the first (v1), or the last while it is unanswered. */
    const size_t with_system = kind == LSI_CHAT_MISTRAL_V1 ? 1 : n - 1;
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
            begin_answer(w);
            put(w, forms[kind].answer);
            put_words(w, kind == LSI_CHAT_MISTRAL_V3 ? trimmed(words(&m[i])) : words(&m[i]));
            put_eos(w);
            end_answer(w);
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
        begin_answer(w);
        put_words(w, trimmed(words(&m[i])));
        put(w, "<end_of_turn>");
        if (!user)
            end_answer(w);
        put(w, "\n");
    }
    if (prompt)
        put(w, "<start_of_turn>model\n");
}

void lsi_rendering_fini(struct lsi_rendering *r)
{
    lsi_buf_fini(&r->text);
    lsi_buf_fini(&r->plain);
    lsi_buf_fini(&r->answers);
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
    lsi_buf_init(&r->answers, c->tok->alloc, SIZE_MAX / 4);
    LSI_TRY(check_messages(c, m, n, err));
    struct writer w = { c, r, 0 };
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
    if (r->text.failed || r->plain.failed || r->answers.failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the rendered conversation");
    return LS_OK;
}

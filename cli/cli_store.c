/*
 * --session FILE: what has been processed and said, kept for the next run. Beside the tokens a file holds
 * texts, one after the other as "NAME BYTES\n" and the bytes: "doc", the turns of a chat by their roles, and
 * "pending", ids that were generated and not yet processed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_session.h"

static struct store_text *add_text(struct store *st, const char *name, size_t n)
{
    st->texts = cli_realloc(st->texts, st->n_texts + 1, sizeof *st->texts);
    struct store_text *t = &st->texts[st->n_texts++];
    *t = (struct store_text){ 0 };
    snprintf(t->name, sizeof t->name, "%.*s", (int)(n < sizeof t->name ? n : sizeof t->name - 1), name);
    return t;
}

void store_add(struct store *st, const char *name, const void *data, size_t n)
{
    text_add(&add_text(st, name, strlen(name))->text, data, n);
}

const struct text *store_find(const struct store *st, const char *name)
{
    for (size_t i = 0; i < st->n_texts; i++)
        if (strcmp(st->texts[i].name, name) == 0)
            return &st->texts[i].text;
    return NULL;
}

void store_clear(struct store *st)
{
    for (size_t i = 0; i < st->n_texts; i++)
        text_free(&st->texts[i].text);
    free(st->texts);
    *st = (struct store){ 0 };
}

/* The file's sum has been checked: what does not parse was written by something else. */
static bool parse(struct store *st, const char *note, size_t n)
{
    const char *end = note + n;
    while (note < end) {
        const char *line = memchr(note, '\n', (size_t)(end - note)),
                   *space = memchr(note, ' ', (size_t)(end - note));
        if (!line || !space || space > line)
            return false;
        char *after;
        const unsigned long long bytes = strtoull(space + 1, &after, 10);
        if (after != line || bytes > (size_t)(end - line - 1))
            return false;
        text_add(&add_text(st, note, (size_t)(space - note))->text, line + 1, bytes);
        note = line + 1 + bytes;
    }
    return true;
}

const char *store_role(const char *name)
{
    static const char *const roles[] = { "system", "user", "assistant" };

    for (size_t i = 0; i < CLI_LEN(roles); i++)
        if (strcmp(roles[i], name) == 0)
            return roles[i];
    return NULL;
}

/* A text that goes on would end a conversation, and a conversation would replace the text. */
static int check_kind(const struct session *s, const struct store *st)
{
    bool turns = false;

    for (size_t i = 0; i < st->n_texts; i++)
        turns = turns || store_role(st->texts[i].name);
    if (s->o->command->bit & CMD_CHAT)
        return turns || store_find(st, "doc")
                   ? EXIT_OK
                   : cli_fail("%s holds a text of generate and no conversation; go on with generate, or name "
                              "another file with --session",
                              s->o->session);
    return turns ? cli_fail("%s holds a conversation; go on with chat, or name another file with --session",
                            s->o->session)
                 : EXIT_OK;
}

int store_load(struct session *s, struct store *st)
{
    const char *path = s->o->session;
    ls_session file = { 0 };
    ls_error err = { 0 };
    *st = (struct store){ 0 };
    if (!path || access(path, F_OK) != 0)
        return EXIT_OK;
    if (ls_context_load(s->ctx, path, &file, &err) != LS_OK)
        return cli_fail("%s", err.text);
    int status = EXIT_OK;
    if (parse(st, file.note, file.note_bytes))
        session_holds(s, file.tokens, file.n_tokens);
    else
        status = cli_fail("%s was written by another program", path);
    ls_session_free(&file);
    if (status == EXIT_OK)
        status = check_kind(s, st);
    st->loaded = status == EXIT_OK;
    return status;
}

int store_save(struct session *s, const struct store *st)
{
    struct text note = { 0 };
    ls_error err = { 0 };
    if (!s->o->session)
        return EXIT_OK;
    for (size_t i = 0; i < st->n_texts; i++) {
        text_printf(&note, "%s %zu\n", st->texts[i].name, st->texts[i].text.len);
        text_add(&note, st->texts[i].text.data, st->texts[i].text.len);
    }
    const ls_status got = ls_context_save(s->ctx, s->o->session, s->held, note.data, note.len, &err);
    text_free(&note);
    return got == LS_OK ? EXIT_OK : cli_fail("%s", err.text);
}

int store_document(struct session *s, const struct store *st, struct text *doc)
{
    const struct text *had = store_find(st, "doc");
    if (!st->loaded || (!had && !doc->len))
        return EXIT_OK;
    if (!had)
        return cli_fail("%s goes on without a document; leave --doc out, or name another file with --session",
                        s->o->session);
    if (doc->len && (doc->len != had->len || memcmp(doc->data, had->data, had->len) != 0))
        return cli_fail("%s is about another document than %s; name another file with --session",
                        s->o->session, s->o->doc);
    text_clear(doc);
    text_add(doc, had->data, had->len);
    return EXIT_OK;
}

/* The tokens of a document are the beginning of what a question about it is. */
static int check_tokens(struct session *s, encode_fn *encode, void *user)
{
    int32_t *ids = NULL;
    size_t n = 0;
    int status = encode(user, 0, "a", 1, &ids, &n);

    if (status == EXIT_OK && (n < s->n_held || memcmp(ids, s->held, s->n_held * sizeof *ids) != 0))
        status = cli_fail("%s holds its document as another command or another --chat-template reads it; ask "
                          "with that one, or name another file with --session",
                          s->o->session);
    ls_tokenizer_ids_free(s->tok, ids, n);
    return status;
}

int store_go_on(struct session *s, const struct store *st, encode_fn *encode, void *user)
{
    if (store_find(st, "doc") && !store_find(st, "user")) {
        const int status = check_tokens(s, encode, user);
        if (status != EXIT_OK)
            return status;
    }
    cli_note(s->o->quiet, "%s: %zu tokens go on", s->o->session, s->n_held);
    return EXIT_OK;
}

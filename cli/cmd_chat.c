/* A conversation through the model's chat template. */
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_session.h"
#include "line_input.h"

struct turn {
    const char *role;
    struct text content;
};

struct chat {
    struct session s;
    struct store store;
    ls_chat_template *tmpl;
    struct text doc;
    struct turn *turns;
    size_t n_turns;
    struct report report;
};

static struct text *add_turn(struct chat *c, const char *role)
{
    c->turns = cli_realloc(c->turns, c->n_turns + 1, sizeof *c->turns);
    c->turns[c->n_turns] = (struct turn){ .role = role };
    return &c->turns[c->n_turns++].content;
}

static void drop_turns(struct chat *c, size_t n)
{
    while (c->n_turns > n)
        text_free(&c->turns[--c->n_turns].content);
}

/* An empty conversation: the system message, if one was given. */
static void reset(struct chat *c)
{
    drop_turns(c, 0);
    if (c->s.o->system)
        text_puts(add_turn(c, "system"), c->s.o->system);
}

static bool has_question(const struct chat *c)
{
    for (size_t i = 0; i < c->n_turns; i++)
        if (strcmp(c->turns[i].role, "user") == 0)
            return true;
    return false;
}

/* The question, behind the document from byte `from` on if it is the first one. */
static void add_question(struct chat *c, size_t from, const char *question, size_t len)
{
    const bool first = !has_question(c);
    struct text *content = add_turn(c, "user");

    if (first && c->doc.len) {
        text_add(content, c->doc.data + from, c->doc.len - from);
        text_puts(content, c->doc.data[c->doc.len - 1] == '\n' ? "\n" : "\n\n");
    }
    text_add(content, question, len);
}

static int encode(struct chat *c, int32_t **ids, size_t *n_ids)
{
    ls_chat_message *messages = cli_realloc(NULL, c->n_turns, sizeof *messages);
    ls_error err = { 0 };
    ls_status st;

    for (size_t i = 0; i < c->n_turns; i++) {
        const struct turn *t = &c->turns[i];
        messages[i] = (ls_chat_message){ t->role, t->content.data ? t->content.data : "", t->content.len };
    }
    st = ls_chat_encode(c->tmpl, messages, c->n_turns, true, c->s.o->answer_prefix, ids, n_ids, &err);
    free(messages);
    return st == LS_OK ? EXIT_OK : cli_fail("%s", err.text);
}

/* One question and its answer; a failed question leaves the conversation as it was. */
static int ask(struct chat *c, const char *question, size_t len)
{
    const struct text prompt = { .data = (char *)question, .len = len };
    const size_t n_before = c->n_turns;
    struct answer a = { 0 };
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int status;

    add_question(c, 0, question, len);
    status = encode(c, &ids, &n_ids);
    if (status == EXIT_OK)
        status = session_answer(&c->s, ids, n_ids, c->s.o->answer_prefix, &a);
    ls_tokenizer_ids_free(c->s.tok, ids, n_ids);
    if (status == EXIT_OK || a.text.len)
        text_add(add_turn(c, "assistant"), a.text.data, a.text.len);
    else
        drop_turns(c, n_before);
    if (status != EXIT_ERROR)
        report_add(&c->report, &c->s, &prompt, &a);
    answer_free(&a);
    return status;
}

/* ---- what lasts ------------------------------------------------------------------ */

/* The ids of the conversation with one more question, which is taken back. */
static int encode_question(void *user, size_t from, const char *question, size_t len, int32_t **ids,
                           size_t *n_ids)
{
    struct chat *c = user;
    const size_t n_before = c->n_turns;

    add_question(c, from, question, len);
    const int status = encode(c, ids, n_ids);
    drop_turns(c, n_before);
    return status;
}

static int keep(struct chat *c)
{
    store_clear(&c->store);
    if (c->doc.len)
        store_add(&c->store, "doc", c->doc.data, c->doc.len);
    for (size_t i = 0; i < c->n_turns; i++)
        store_add(&c->store, c->turns[i].role, c->turns[i].content.data, c->turns[i].content.len);
    return store_save(&c->s, &c->store);
}

/* The turns of the session that was loaded. */
static int take_turns(struct chat *c)
{
    const struct text *system = store_find(&c->store, "system");
    const char *wanted = c->s.o->system;

    if (wanted && (!system || strcmp(wanted, system->data ? system->data : "") != 0))
        return cli_fail("%s has %s system message; leave --system out, or name another file with --session",
                        c->s.o->session, system ? "another" : "no");
    for (size_t i = 0; i < c->store.n_texts; i++) {
        const struct store_text *t = &c->store.texts[i];
        const char *role = store_role(t->name);
        if (role)
            text_add(add_turn(c, role), t->text.data, t->text.len);
    }
    return EXIT_OK;
}

/* Where the conversation begins: as it was stored, or with the document, which is processed now. */
static int begin(struct chat *c)
{
    int status = store_load(&c->s, &c->store);

    if (status == EXIT_OK)
        status = store_document(&c->s, &c->store, &c->doc);
    if (status != EXIT_OK)
        return status;
    if (c->store.loaded) {
        status = take_turns(c);
        return status == EXIT_OK ? store_go_on(&c->s, &c->store, encode_question, c) : status;
    }
    reset(c);
    if (!c->doc.len)
        return EXIT_OK;
    status = session_share(&c->s, encode_question, c, &c->doc);
    return status == EXIT_OK && c->s.o->session && c->s.n_base > 0 ? keep(c) : status;
}

/* ---- one-shot ------------------------------------------------------------------ */

/* Each is a conversation for itself, unless they go on with a session that is no document. */
static int ask_prompts(struct chat *c, const struct prompts *p)
{
    const bool lasting = c->s.o->session && !c->doc.len;
    const size_t n_before = c->n_turns;
    int status = EXIT_OK;

    c->s.apart = !lasting;
    for (size_t i = 0; i < p->n && status == EXIT_OK; i++) {
        if (!lasting)
            drop_turns(c, n_before);
        if (p->n > 1 && !c->s.o->quiet)
            fprintf(stderr, "> %s\n", p->items[i].data);
        status = ask(c, p->items[i].data, p->items[i].len);
        if (lasting && status == EXIT_OK)
            status = keep(c);
    }
    return status;
}

/* ---- line by line ----------------------------------------------------------------- */

static const char commands_help[] = "  /reset   forget the conversation (a document stays)\n"
                                    "  /tokens  how full the context is\n"
                                    "  /help    this list\n"
                                    "  /quit    end; so does Ctrl-D\n"
                                    "  Ctrl-C   stop an answer\n";

/* True when the line was a command; *quit is set by /quit. From a pipe what is no command is text. */
static bool run_command(struct chat *c, const char *line, size_t len, bool interactive, bool *quit)
{
    static const char *const names[] = { "/help", "/reset", "/tokens", "/quit" };
    char word[64];
    const char *near;

    if (len == 0 || line[0] != '/')
        return false;
    snprintf(word, sizeof word, "%.*s", (int)(len < 63 ? len : 63), line);
    word[strcspn(word, " \t\r")] = '\0';
    if (strcmp(word, "/quit") == 0 || strcmp(word, "/exit") == 0) {
        *quit = true;
    } else if (strcmp(word, "/reset") == 0) {
        reset(c);
        fputs("The conversation begins anew.\n", stderr);
    } else if (strcmp(word, "/tokens") == 0) {
        fprintf(stderr, "%zu of %zu tokens\n", c->s.n_held, ls_context_capacity(c->s.ctx));
    } else if (strcmp(word, "/help") == 0) {
        fputs(commands_help, stderr);
    } else if (!interactive || strchr(word + 1, '/')) {
        return false; /* with a second slash it is a path */
    } else {
        near = nearest_name(word, names, CLI_LEN(names));
        fprintf(stderr, "There is no command %s%s%s%s; /help lists them.\n", word,
                near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
    }
    return true;
}

static int converse(struct chat *c, bool interactive)
{
    struct line_input *in = line_input_open(interactive);
    int status = EXIT_OK;
    bool quit = false;

    if (interactive)
        cli_note(c->s.o->quiet, "ask something; /help lists the commands, Ctrl-D ends");
    while (!quit) {
        const char *line;
        size_t len;
        const enum line_result got = line_input_read(in, &line, &len);
        if (got == LINE_END)
            break;
        if (got == LINE_INTERRUPTED) {
            status = EXIT_INTERRUPTED;
            if (!interactive)
                break;
            signals_rearm();
            fputs("(Ctrl-D or /quit ends)\n", stderr);
            continue;
        }
        if (strspn(line, " \t\r") >= len || run_command(c, line, len, interactive, &quit))
            continue;
        const size_t n_before = c->n_turns;
        status = ask(c, line, len);
        /* A question without any answer is no part of the conversation, and may be in the cache. */
        if (c->s.o->session && status != EXIT_ERROR && c->n_turns > n_before && keep(c) != EXIT_OK)
            status = EXIT_ERROR;
        if (!interactive && status != EXIT_OK)
            break;
        signals_rearm();
    }
    line_input_close(in);
    return interactive ? EXIT_OK : status;
}

static int open_chat(struct chat *c, const struct cli_options *o)
{
    ls_error err = { 0 };
    int status = EXIT_OK;

    if (o->doc && !text_read_file(&c->doc, o->doc))
        return EXIT_ERROR;
    status = session_open(&c->s, o, (size_t)o->context);
    if (status != EXIT_OK)
        return status;
    if (ls_chat_template_open(c->s.tok, o->chat_template, &c->tmpl, &err) != LS_OK)
        return cli_fail("%s", err.text);
    return begin(c);
}

int cmd_chat(const struct cli_options *o)
{
    const bool one_shot = o->file || o->prompts.n;
    struct chat c = { 0 };
    struct prompts p = { 0 };
    int status;

    setlocale(LC_CTYPE, ""); /* so that line editing knows how wide characters are */
    status = prompts_read(o, &p);
    if (status == EXIT_OK)
        status = open_chat(&c, o);
    if (status == EXIT_OK) {
        status = one_shot ? ask_prompts(&c, &p) : converse(&c, isatty(STDIN_FILENO) && isatty(STDERR_FILENO));
        status = report_end(&c.report, &c.s, status);
    }
    drop_turns(&c, 0);
    free(c.turns);
    store_clear(&c.store);
    ls_chat_template_close(c.tmpl);
    session_close(&c.s);
    text_free(&c.doc);
    prompts_free(&p);
    return status;
}

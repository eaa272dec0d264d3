/* Continue raw text. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_session.h"

struct run {
    struct session s;
    struct store store;
    struct text doc;
    struct report report;
};

/* tell: about what the vocabulary cannot express. */
static int encode(const struct session *s, const struct text *whole, size_t plain_bytes, unsigned flags,
                  bool tell, int32_t **ids, size_t *n)
{
    const ls_byte_range plain = { 0, plain_bytes };
    ls_error err = { 0 };
    size_t dropped = 0;

    if (ls_tokenizer_encode_ranges(s->tok, whole->data ? whole->data : "", whole->len,
                                   flags | LS_ENCODE_PARSE_SPECIAL, &plain, plain_bytes ? 1 : 0, ids, n,
                                   &dropped, &err) != LS_OK)
        return cli_fail("%s", err.text);
    if (tell && dropped)
        cli_note(s->o->quiet,
                 "%zu bytes of the text cannot be expressed in this vocabulary and were left out", dropped);
    return EXIT_OK;
}

/*
 * The ids of document and prompt as one text. Control tokens are recognised in the prompt alone: a
 * document is data. Prompts after the same document begin with the same ids, up to the token that
 * joins them, and session_prompt keeps that much of the cache.
 */
static int encode_part(struct run *r, size_t from, const char *prompt, size_t len, bool tell, int32_t **ids,
                       size_t *n)
{
    struct text whole = { 0 };

    if (r->doc.len > from)
        text_add(&whole, r->doc.data + from, r->doc.len - from);
    text_add(&whole, prompt, len);
    const int status = encode(&r->s, &whole, r->doc.len - from, LS_ENCODE_ADD_SPECIAL, tell, ids, n);
    text_free(&whole);
    return status;
}

static int encode_probe(void *user, size_t from, const char *question, size_t len, int32_t **ids, size_t *n)
{
    return encode_part(user, from, question, len, false, ids, n);
}

/* Behind what the session holds: its tokens, those it has not processed, those of the prompt. */
static int encode_more(struct run *r, const struct text *prompt, int32_t **ids, size_t *n)
{
    const struct text *pending = store_find(&r->store, "pending");
    const size_t n_pending = pending ? pending->len / sizeof **ids : 0, n_held = r->s.n_held;
    int32_t *more = NULL;
    size_t n_more = 0;
    const int status = encode(&r->s, prompt, 0, n_held ? 0 : LS_ENCODE_ADD_SPECIAL, true, &more, &n_more);

    if (status != EXIT_OK)
        return status;
    *n = n_held + n_pending + n_more;
    *ids = cli_realloc(NULL, *n, sizeof **ids);
    if (n_held)
        memcpy(*ids, r->s.held, n_held * sizeof **ids);
    if (n_pending)
        memcpy(*ids + n_held, pending->data, n_pending * sizeof **ids);
    if (n_more)
        memcpy(*ids + n_held + n_pending, more, n_more * sizeof **ids);
    ls_tokenizer_ids_free(r->s.tok, more, n_more);
    if (*n > n_held)
        return EXIT_OK;
    free(*ids);
    *ids = NULL;
    return cli_fail("%s ends with the end of its text; give something that follows it with -p",
                    r->s.o->session);
}

/* The text and its continuation are the session. The last token was shown, and is processed next time. */
static int keep(struct run *r, const struct answer *a)
{
    const size_t n_processed = r->s.n_held > a->prompt_tokens ? r->s.n_held - a->prompt_tokens : 0;

    store_clear(&r->store);
    if (a->n_ids > n_processed)
        store_add(&r->store, "pending", a->ids + n_processed, (a->n_ids - n_processed) * sizeof *a->ids);
    return store_save(&r->s, &r->store);
}

static int run_prompt(struct run *r, const struct text *prompt)
{
    const bool lasting = r->s.o->session && !r->doc.len;
    struct answer a = { 0 };
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int status = lasting
                     ? encode_more(r, prompt, &ids, &n_ids)
                     : encode_part(r, 0, prompt->data ? prompt->data : "", prompt->len, true, &ids, &n_ids);

    if (status == EXIT_OK)
        status = session_answer(&r->s, ids, n_ids, NULL, &a);
    if (lasting)
        free(ids);
    else
        ls_tokenizer_ids_free(r->s.tok, ids, n_ids);
    if (lasting && (status == EXIT_OK || a.n_ids > 0)) {
        const int kept = keep(r, &a);
        status = kept == EXIT_OK ? status : kept;
    }
    if (status != EXIT_ERROR)
        report_add(&r->report, &r->s, prompt, &a);
    answer_free(&a);
    return status;
}

/* Process the document before the first prompt, and store it. */
static int read_document(struct run *r)
{
    int status = store_document(&r->s, &r->store, &r->doc);

    if (status == EXIT_OK && r->store.loaded)
        status = store_go_on(&r->s, &r->store, encode_probe, r);
    if (status != EXIT_OK || !r->doc.len || r->store.loaded)
        return status;
    status = session_share(&r->s, encode_probe, r, &r->doc);
    store_add(&r->store, "doc", r->doc.data, r->doc.len);
    return status == EXIT_OK && r->s.n_base > 0 ? store_save(&r->s, &r->store) : status;
}

static int run_prompts(struct run *r, const struct prompts *p)
{
    int status = read_document(r);

    r->s.apart = !r->s.o->session || r->doc.len;
    for (size_t i = 0; i < p->n && status == EXIT_OK; i++) {
        if (p->n > 1 && !r->s.o->quiet)
            fprintf(stderr, "> %s\n", p->items[i].data);
        status = run_prompt(r, &p->items[i]);
    }
    return report_end(&r->report, &r->s, status);
}

/* Without -p and -f the prompt comes from standard input; a session goes on without any. */
static int read_prompts(const struct cli_options *o, struct prompts *p)
{
    struct cli_options with_stdin = *o;
    const bool given = o->file || o->prompts.n, stored = o->session && access(o->session, F_OK) == 0;

    if (!given && !stored && isatty(STDIN_FILENO))
        return cli_usage("no prompt: give one with -p TEXT or -f FILE");
    if (!given && !stored)
        with_stdin.file = "-";
    const int status = prompts_read(&with_stdin, p);
    if (status == EXIT_OK && p->n == 0)
        text_puts(prompts_add(p), "");
    return status;
}

int cmd_generate(const struct cli_options *o)
{
    struct prompts p = { 0 };
    struct run r = { 0 };
    int status = read_prompts(o, &p);

    if (status == EXIT_OK && o->doc && !text_read_file(&r.doc, o->doc))
        status = EXIT_ERROR;
    if (status == EXIT_OK)
        status = session_open(&r.s, o, (size_t)o->context);
    if (status == EXIT_OK)
        status = store_load(&r.s, &r.store);
    if (status == EXIT_OK)
        status = run_prompts(&r, &p);
    store_clear(&r.store);
    session_close(&r.s);
    text_free(&r.doc);
    prompts_free(&p);
    return status;
}

/* Continue raw text. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_session.h"

/*
 * The ids of document and prompt as one text. Control tokens are recognised in the prompt alone: a
 * document is data. Prompts after the same document begin with the same ids, up to the token that
 * joins them, and session_prompt keeps that much of the cache.
 */
static int encode(struct session *s, const struct text *doc, const struct text *prompt, int32_t **ids,
                  size_t *n)
{
    const ls_byte_range plain = { 0, doc->len };
    struct text whole = { 0 };
    ls_error err = { 0 };
    size_t dropped = 0;
    ls_status st;

    text_add(&whole, doc->data, doc->len);
    text_add(&whole, prompt->data, prompt->len);
    st = ls_tokenizer_encode_ranges(s->tok, whole.data, whole.len,
                                    LS_ENCODE_ADD_SPECIAL | LS_ENCODE_PARSE_SPECIAL, &plain, doc->len ? 1 : 0,
                                    ids, n, &dropped, &err);
    text_free(&whole);
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    if (dropped)
        cli_note(s->o->quiet,
                 "%zu bytes of the text cannot be expressed in this vocabulary and were left out", dropped);
    return EXIT_OK;
}

static int run_prompts(struct session *s, const struct text *doc, const struct prompts *p)
{
    struct report report = { 0 };
    int status = EXIT_OK;

    for (size_t i = 0; i < p->n && status == EXIT_OK; i++) {
        struct answer a = { 0 };
        int32_t *ids = NULL;
        size_t n_ids = 0;
        if (p->n > 1 && !s->o->quiet)
            fprintf(stderr, "> %s\n", p->items[i].data);
        status = encode(s, doc, &p->items[i], &ids, &n_ids);
        if (status == EXIT_OK)
            status = session_answer(s, ids, n_ids, NULL, &a);
        ls_tokenizer_ids_free(s->tok, ids, n_ids);
        if (status != EXIT_ERROR)
            report_add(&report, s, &p->items[i], &a);
        answer_free(&a);
    }
    return report_end(&report, s, status);
}

int cmd_generate(const struct cli_options *o)
{
    struct prompts p;
    struct text doc = { 0 };
    struct session s = { 0 };
    struct cli_options with_stdin = *o;
    int status;

    if (!o->file && !o->prompts.n) {
        if (isatty(STDIN_FILENO))
            return cli_usage("no prompt: give one with -p TEXT or -f FILE");
        with_stdin.file = "-";
    }
    status = prompts_read(&with_stdin, &p);
    if (status == EXIT_OK && o->doc && !text_read_file(&doc, o->doc))
        status = EXIT_ERROR;
    if (status == EXIT_OK)
        status = session_open(&s, o, (size_t)o->context);
    if (status == EXIT_OK)
        status = run_prompts(&s, &doc, &p);
    session_close(&s);
    text_free(&doc);
    prompts_free(&p);
    return status;
}

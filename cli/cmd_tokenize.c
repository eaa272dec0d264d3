/* Text to ids and back. */
#include <stdlib.h>
#include <string.h>

#include "cli_options.h"

static int encode(const struct cli_options *o, const ls_tokenizer *tok, const struct text *text,
                  int32_t **ids, size_t *n)
{
    const unsigned flags =
        (o->no_bos ? 0 : LS_ENCODE_ADD_SPECIAL) | (o->special ? LS_ENCODE_PARSE_SPECIAL : 0);
    size_t dropped = 0;
    ls_error err = { 0 };

    if (ls_tokenizer_encode_ranges(tok, text->data, text->len, flags, NULL, 0, ids, n, &dropped, &err) !=
        LS_OK)
        return cli_fail("%s", err.text);
    if (dropped)
        cli_note(o->quiet, "%zu bytes of the text cannot be expressed in this vocabulary and were left out",
                 dropped);
    return EXIT_OK;
}

/* A line per token: its id and its text as a JSON string. */
static int print_tokens(const ls_tokenizer *tok, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct json_out j = { 0 };
        size_t len = 0;
        const char *piece = ls_tokenizer_piece(tok, ids[i], true, &len);
        json_text(&j, NULL, piece, len);
        printf("%7d  %s\n", (int)ids[i], j.text.data);
        text_free(&j.text);
    }
    return finish_output(EXIT_OK);
}

static int run_encode(const struct cli_options *o, const ls_tokenizer *tok, const struct text *text)
{
    struct json_out j = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;
    int status = encode(o, tok, text, &ids, &n);

    if (status == EXIT_OK && o->json) {
        json_ids(&j, NULL, ids, n);
        status = json_print(&j);
    } else if (status == EXIT_OK) {
        status = print_tokens(tok, ids, n);
        cli_note(o->quiet, "%zu token%s", n, n == 1 ? "" : "s");
    }
    ls_tokenizer_ids_free(tok, ids, n);
    return status;
}

static int run_decode(const struct cli_options *o, const ls_tokenizer *tok, const struct text *text)
{
    ls_error err = { 0 };
    int32_t *ids = NULL;
    char *out = NULL;
    size_t n = 0, len = 0;

    if (!parse_ids(text->data, text->len, ls_tokenizer_n_vocab(tok), &ids, &n))
        return EXIT_ERROR;
    const ls_status st = ls_tokenizer_decode(tok, ids, n, o->special, &out, &len, &err);
    free(ids);
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    fwrite(out, 1, len, stdout);
    ls_tokenizer_text_free(tok, out, len);
    return finish_output(EXIT_OK);
}

int cmd_tokenize(const struct cli_options *o)
{
    struct text text = { 0 };
    ls_tokenizer *tok = NULL;
    ls_error err = { 0 };
    char *path = NULL;
    int status = EXIT_OK;

    if (o->prompts.n + (o->file != NULL) > 1)
        return cli_usage("one text at a time: either -p TEXT or -f FILE");
    path = find_model(o);
    if (!path)
        return EXIT_USAGE;
    text_add(&text, "", 0);
    if (o->prompts.n)
        text_puts(&text, o->prompts.items[0]);
    else if (!text_read_file(&text, o->file ? o->file : "-"))
        status = EXIT_ERROR;
    if (status == EXIT_OK && ls_tokenizer_open(path, NULL, &tok, &err) != LS_OK)
        status = cli_fail("%s", err.text);
    if (status == EXIT_OK)
        status = o->decode ? run_decode(o, tok, &text) : run_encode(o, tok, &text);
    ls_tokenizer_close(tok);
    text_free(&text);
    free(path);
    return status;
}

/* Ids to text: all at once, or token by token with whole characters only. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

const char *ls_tokenizer_piece(const ls_tokenizer *t, int32_t id, bool with_control, size_t *len)
{
    *len = 0;
    if (id < 0 || (size_t)id >= t->n_tokens)
        return "";
    const struct lsi_token *k = &t->tokens[id];
    if (k->type == LSI_TOKEN_CONTROL || k->type == LSI_TOKEN_UNKNOWN)
        if (!with_control)
            return "";
    *len = k->len;
    return k->len ? lsi_token_text(t, (size_t)id) : "";
}

ls_status ls_tokenizer_decode(const ls_tokenizer *t, const int32_t *ids, size_t n_ids, bool with_control,
                              char **text, size_t *len, ls_error *err)
{
    *text = NULL;
    *len = 0;
    size_t total = 0, n;
    bool start = true, drop = false;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->n_tokens)
            return lsi_fail(err, LS_E_INVAL, "token id %d is outside of the vocabulary (0 to %zu)",
                            (int)ids[i], t->n_tokens - 1);
        const char *s = ls_tokenizer_piece(t, ids[i], with_control, &n);
        if (start && n) {
            start = false;
            drop = t->strip_space && s[0] == ' ';
        }
        if (!lsi_add_size(total, n, &total) || total == SIZE_MAX)
            return lsi_fail(err, LS_E_LIMIT, "the text of %zu tokens is too long", n_ids);
    }
    total -= drop;
    char *out = lsi_alloc(t->alloc, total + 1);
    if (!out)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a text of %zu bytes", total);
    size_t at = 0;
    for (size_t i = 0; i < n_ids; i++) {
        const char *s = ls_tokenizer_piece(t, ids[i], with_control, &n);
        if (n && drop) {
            drop = false;
            s++;
            n--;
        }
        memcpy(out + at, s, n);
        at += n;
    }
    out[at] = '\0';
    *text = out;
    *len = at;
    return LS_OK;
}

void ls_tokenizer_text_free(const ls_tokenizer *t, char *text, size_t len)
{
    lsi_free(t->alloc, text, len + 1);
}

/* ---- streaming ------------------------------------------------------------------- */

struct stop_text {
    char *s;
    size_t len;
};

struct ls_detokenizer {
    const ls_tokenizer *t;
    struct stop_text *stop;
    size_t n_stop;
    struct lsi_buf bytes; /* undelivered bytes, the last ones perhaps half a character */
    struct lsi_buf text;  /* whole characters, kept back while a stop string may begin in them */
    struct lsi_buf shown; /* what the last call returned */
    bool at_start;        /* a leading space is still to be dropped */
    bool stopped;
};

ls_status ls_detokenizer_create(const ls_tokenizer *t, bool continues, const char *const *stop, size_t n_stop,
                                ls_detokenizer **out, ls_error *err)
{
    *out = NULL;
    ls_detokenizer *d = lsi_calloc(t->alloc, 1, sizeof *d);
    if (!d)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a detokenizer");
    d->t = t;
    d->at_start = t->strip_space && !continues;
    lsi_buf_init(&d->bytes, t->alloc, SIZE_MAX / 4);
    lsi_buf_init(&d->text, t->alloc, SIZE_MAX / 4);
    lsi_buf_init(&d->shown, t->alloc, SIZE_MAX / 4);
    d->stop = n_stop ? lsi_calloc(t->alloc, n_stop, sizeof *d->stop) : NULL;
    bool ok = d->stop || n_stop == 0;
    d->n_stop = ok ? n_stop : 0;
    for (size_t i = 0; ok && i < n_stop; i++) {
        d->stop[i].len = strlen(stop[i]);
        d->stop[i].s = lsi_strndup(t->alloc, stop[i], d->stop[i].len);
        ok = d->stop[i].s != NULL;
    }
    if (!ok) {
        ls_detokenizer_free(d);
        return lsi_fail(err, LS_E_NOMEM, "no memory for the stop strings");
    }
    *out = d;
    return LS_OK;
}

void ls_detokenizer_free(ls_detokenizer *d)
{
    if (!d)
        return;
    const ls_alloc *a = d->t->alloc;
    for (size_t i = 0; i < d->n_stop; i++)
        lsi_free(a, d->stop[i].s, d->stop[i].len + 1);
    lsi_free(a, d->stop, d->n_stop * sizeof *d->stop);
    lsi_buf_fini(&d->bytes);
    lsi_buf_fini(&d->text);
    lsi_buf_fini(&d->shown);
    lsi_free(a, d, sizeof *d);
}

/* True when s is the beginning of a UTF-8 sequence whose rest may still come. */
static bool may_continue(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    const size_t want = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || n >= want)
        return false;
    for (size_t i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return false;
    if (n == 1)
        return true;
    /* Second bytes that make overlong forms, surrogates or values beyond U+10FFFF. */
    return !((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
             (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f));
}

static void buf_drop_front(struct lsi_buf *b, size_t n)
{
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
    b->data[b->len] = '\0';
}

/* Move whole characters from bytes to text. */
static void take_characters(ls_detokenizer *d, bool end)
{
    size_t i = 0;
    const char *s = d->bytes.data;
    while (i < d->bytes.len) {
        const size_t left = d->bytes.len - i, whole = lsi_utf8_valid_prefix(s + i, left);
        lsi_buf_append(&d->text, s + i, whole);
        i += whole;
        if (i == d->bytes.len)
            break;
        if (may_continue(s + i, d->bytes.len - i)) {
            if (end) {
                lsi_buf_append(&d->text, REPLACEMENT, 3);
                i = d->bytes.len;
            }
            break;
        }
        lsi_buf_append(&d->text, REPLACEMENT, 3);
        i++;
    }
    buf_drop_front(&d->bytes, i);
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t held_back(const ls_detokenizer *d)
{
    size_t most = 0;
    for (size_t i = 0; i < d->n_stop; i++) {
        const struct stop_text *st = &d->stop[i];
        size_t k = lsi_min_size(st->len ? st->len - 1 : 0, d->text.len);
        while (k > most && memcmp(d->text.data + d->text.len - k, st->s, k) != 0)
            k--;
        most = lsi_max_size(most, k);
    }
    return most;
}

/* Offset of the first stop string in the text, or its length. */
static size_t find_stop(const ls_detokenizer *d)
{
    size_t first = d->text.len;
    for (size_t i = 0; i < d->n_stop; i++) {
        const char *hit = d->stop[i].len && d->text.len
                              ? memmem(d->text.data, d->text.len, d->stop[i].s, d->stop[i].len)
                              : NULL;
        if (hit)
            first = lsi_min_size(first, (size_t)(hit - d->text.data));
    }
    return first;
}

static ls_status show(ls_detokenizer *d, size_t n, const char **text, size_t *len)
{
    d->shown.len = 0;
    if (!lsi_buf_append(&d->shown, d->text.data ? d->text.data : "", n) || d->text.failed || d->bytes.failed)
        return LS_E_NOMEM;
    buf_drop_front(&d->text, n);
    *text = d->shown.data;
    *len = n;
    return LS_OK;
}

ls_status ls_detokenizer_push(ls_detokenizer *d, int32_t id, const char **text, size_t *len, bool *stopped)
{
    *text = "";
    *len = 0;
    *stopped = d->stopped;
    if (id < 0 || (size_t)id >= d->t->n_tokens)
        return LS_E_INVAL;
    size_t n;
    const char *s = ls_tokenizer_piece(d->t, id, false, &n);
    if (n == 0 || d->stopped)
        return LS_OK;
    if (d->at_start && s[0] == ' ') {
        s++;
        n--;
    }
    d->at_start = false;
    lsi_buf_append(&d->bytes, s, n);
    take_characters(d, false);
    const size_t at = find_stop(d);
    if (at < d->text.len) {
        d->stopped = *stopped = true;
        const ls_status st = show(d, at, text, len);
        d->text.len = d->bytes.len = 0;
        return st;
    }
    return show(d, d->text.len - held_back(d), text, len);
}

ls_status ls_detokenizer_finish(ls_detokenizer *d, const char **text, size_t *len)
{
    *text = "";
    *len = 0;
    if (d->stopped)
        return LS_OK;
    take_characters(d, true);
    return show(d, d->text.len, text, len);
}

/*
 * Files to tokens. A text is one document; a file of lines has one in each, and every complaint
 * about a line names it.
 */
#include "train/data_impl.h"

#include "tokenizer/tokenizer.h"

#include <string.h>

/* ---- files and their lines ------------------------------------------------------- */

ls_status lsi_data_file_open(struct lsi_data_file *f, const char *path, ls_train_format format, ls_error *err)
{
    *f = (struct lsi_data_file){ .path = path, .format = format };
    LSI_TRY(lsi_map_open(&f->map, path, err));
    f->data = f->map.data ? (const char *)f->map.data : "";
    f->bytes = f->map.bytes;
    if (format != LS_TRAIN_AUTO)
        return LS_OK;
    if (lsi_path_has_suffix(path, ".jsonl"))
        return lsi_data_detect(f, &f->format, err);
    f->format = LS_TRAIN_TEXT;
    return LS_OK;
}

void lsi_data_file_close(struct lsi_data_file *f)
{
    lsi_map_close(&f->map);
}

/* A place in a file of lines. */
struct lines {
    const struct lsi_data_file *f;
    size_t at;               /* first byte of the next line */
    size_t number;           /* of the line, from 1 */
    const char *begin, *end; /* of the line */
};

static bool is_blank(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p == end;
}

/* The next line that is not empty. */
static bool next_line(struct lines *l)
{
    while (l->at < l->f->bytes) {
        l->begin = l->f->data + l->at;
        const char *hit = memchr(l->begin, '\n', l->f->bytes - l->at);
        l->end = hit ? hit : l->f->data + l->f->bytes;
        l->at = (size_t)(l->end - l->f->data) + 1;
        l->number++;
        if (l->number == 1)
            l->begin += lsi_utf8_mark(l->begin, (size_t)(l->end - l->begin));
        if (!is_blank(l->begin, l->end))
            return true;
    }
    return false;
}

/* A reader on one line whose messages count the lines of the file. */
static void read_line(struct lsi_json *j, const struct lines *l, ls_error *err)
{
    lsi_json_init(j, l->f->data, (size_t)(l->end - l->f->data), l->f->path, err);
    j->p = l->begin;
}

ls_status lsi_data_detect(const struct lsi_data_file *f, ls_train_format *format, ls_error *err)
{
    struct lines l = { .f = f };
    struct lsi_json j;
    struct lsi_json_str key;
    bool text = false, chat = false;
    if (!next_line(&l))
        return lsi_fail(err, LS_E_FORMAT, "%s holds no lines", f->path);
    read_line(&j, &l, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        text = text || lsi_json_str_is(&key, "text");
        chat = chat || lsi_json_str_is(&key, "messages") || lsi_json_str_is(&key, "conversations");
        LSI_TRY(lsi_json_skip(&j));
    }
    LSI_TRY(lsi_json_end(&j));
    if (!text && !chat)
        return lsi_fail(err, LS_E_FORMAT, "%s:%zu: the line has neither \"text\" nor \"messages\"", f->path,
                        l.number);
    *format = chat ? LS_TRAIN_CHAT : LS_TRAIN_JSONL;
    return LS_OK;
}

/* ---- what all formats share -------------------------------------------------------- */

ls_status lsi_data_take_string(struct lsi_data_reader *r, const struct lsi_json_str *s, ls_error *err)
{
    const size_t before = r->text.len;
    if (!lsi_buf_append(&r->text, s->raw, s->len)) /* at least as long as the text */
        return lsi_fail(err, LS_E_NOMEM, "no memory for a line of the data");
    r->text.len = before + lsi_json_unescape(s, r->text.data + before);
    return LS_OK;
}

ls_status lsi_data_put(struct lsi_data_reader *r, const char *what, const int32_t *ids,
                       const unsigned char *learn, size_t n, ls_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= r->n_vocab)
            return lsi_fail(
                err, LS_E_INVAL,
                "%s holds token %d, and the model has %zu: the tokenizer of %s is not the model's", what,
                (int)ids[i], r->n_vocab, r->tokenizer_path ? r->tokenizer_path : "the run");
    return lsi_token_writer_put(r->out, ids, learn, n, err);
}

static ls_status advance(struct lsi_data_reader *r, size_t bytes, ls_error *err)
{
    r->done_bytes += bytes;
    if (r->progress)
        r->progress(r->progress_user, r->done_bytes, r->total_bytes);
    if (r->cancel && *r->cancel)
        return lsi_fail(err, LS_E_CANCELED, "cancelled while the data were tokenised");
    return LS_OK;
}

/* ---- one text ------------------------------------------------------------------------- */

enum {
    TEXT_PIECE = 4 << 20 /* bytes that are tokenised at once where a text can be cut */
};

/* Every rule ends a piece of text between a letter and the space behind it. */
static bool splits_at_spaces(const ls_tokenizer *t)
{
    bool words = false;
    for (size_t i = 0; i < t->n_splits; i++) {
        switch (t->splits[i].kind) {
        case LSI_SPLIT_GPT2:
        case LSI_SPLIT_LLAMA3:
        case LSI_SPLIT_QWEN2:
            words = true;
            break;
        case LSI_SPLIT_DIGITS:
        case LSI_SPLIT_NUMBERS:
            break;
        default:
            return false;
        }
    }
    return words;
}

/*
 * Whether "a b" can be cut before its space: the rules look at nothing across it, no added token contains
 * such a place or takes the spaces beside it, and the beginning of a text is treated like any other place.
 */
static bool can_be_cut(const ls_tokenizer *t)
{
    if (!t->byte_level || t->prefix_space != LSI_PREFIX_NEVER || !splits_at_spaces(t))
        return false;
    for (size_t i = 0; i < t->n_norms; i++)
        if (t->norms[i].kind > LSI_NORM_NFKD)
            return false;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct lsi_added *a = &t->added[i];
        if (a->lstrip || a->rstrip || a->single_word || memchr(t->added_text.data + a->off, ' ', a->len))
            return false;
    }
    return true;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_cut(const char *s, size_t i)
{
    return s[i] == ' ' && is_letter(s[i - 1]) && is_letter(s[i + 1]);
}

/* Bytes of the next part of a text: to the last cut before TEXT_PIECE, else the first one behind it. */
static size_t next_part(const char *s, size_t n)
{
    if (n <= TEXT_PIECE)
        return n;
    for (size_t i = TEXT_PIECE - 1; i > 0; i--)
        if (is_cut(s, i))
            return i;
    for (size_t i = TEXT_PIECE; i + 1 < n; i++)
        if (is_cut(s, i))
            return i;
    return n;
}

static ls_status check_utf8(const struct lsi_data_file *f, ls_error *err)
{
    const size_t valid = lsi_utf8_valid_prefix(f->data, f->bytes);
    size_t line = 1;
    if (valid == f->bytes)
        return LS_OK;
    for (size_t i = 0; i < valid; i++)
        line += f->data[i] == '\n';
    return lsi_fail(err, LS_E_FORMAT, "%s:%zu: the text is not UTF-8", f->path, line);
}

static ls_status read_text(struct lsi_data_reader *r, const struct lsi_data_file *f, ls_error *err)
{
    const bool cut = can_be_cut(r->tok);
    LSI_TRY(check_utf8(f, err));
    if (cut && ls_tokenizer_adds_bos(r->tok))
        LSI_TRY(lsi_data_put(r, f->path, &r->tok->bos, NULL, 1, err));
    for (size_t at = 0; at < f->bytes;) {
        const size_t len = cut ? next_part(f->data + at, f->bytes - at) : f->bytes;
        int32_t *ids;
        size_t n;
        ls_status st =
            ls_tokenizer_encode(r->tok, f->data + at, len, cut ? 0 : LS_ENCODE_ADD_SPECIAL, &ids, &n, err);
        if (st != LS_OK) {
            lsi_error_prefix(err, "%s", f->path);
            return st;
        }
        st = lsi_data_put(r, f->path, ids, NULL, n, err);
        ls_tokenizer_ids_free(r->tok, ids, n);
        LSI_TRY(st);
        LSI_TRY(advance(r, len, err));
        at += len;
    }
    if (cut && r->tok->add_eos && r->tok->eos >= 0)
        LSI_TRY(lsi_data_put(r, f->path, &r->tok->eos, NULL, 1, err));
    return lsi_token_writer_end_document(r->out, err);
}

/* ---- a document in each line --------------------------------------------------------------- */

static ls_status put_document(struct lsi_data_reader *r, const char *what, ls_error *err)
{
    const ls_tokenizer *t = r->tok;
    const char *text = r->text.data ? r->text.data : "";
    int32_t *ids;
    size_t n;
    ls_status st = ls_tokenizer_encode(t, text, r->text.len, LS_ENCODE_ADD_SPECIAL, &ids, &n, err);
    if (st != LS_OK) {
        lsi_error_prefix(err, "%s", what);
        return st;
    }
    st = lsi_data_put(r, what, ids, NULL, n, err);
    if (st == LS_OK && t->eos >= 0 && !t->add_eos)
        st = lsi_data_put(r, what, &t->eos, NULL, 1, err);
    ls_tokenizer_ids_free(t, ids, n);
    return st == LS_OK ? lsi_token_writer_end_document(r->out, err) : st;
}

static ls_status read_document(struct lsi_data_reader *r, struct lsi_json *j, const char *what, ls_error *err)
{
    struct lsi_json_str key, text;
    bool found = false;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (!lsi_json_str_is(&key, "text")) {
            LSI_TRY(lsi_json_skip(j));
            continue;
        }
        LSI_TRY(lsi_json_string(j, &text));
        r->text.len = 0;
        LSI_TRY(lsi_data_take_string(r, &text, err));
        found = true;
    }
    LSI_TRY(lsi_json_end(j));
    if (!found)
        return lsi_fail(err, LS_E_FORMAT, "%s: the line has no \"text\"", what);
    return put_document(r, what, err);
}

static ls_status read_lines(struct lsi_data_reader *r, const struct lsi_data_file *f, ls_error *err)
{
    struct lines l = { .f = f };
    size_t told = 0;
    while (next_line(&l)) {
        struct lsi_json j;
        char what[300];
        snprintf(what, sizeof what, "%s:%zu", f->path, l.number);
        read_line(&j, &l, err);
        if (f->format == LS_TRAIN_CHAT)
            LSI_TRY(lsi_data_read_chat(r, &j, what, err));
        else
            LSI_TRY(read_document(r, &j, what, err));
        const size_t at = lsi_min_size(l.at, f->bytes);
        LSI_TRY(advance(r, at - told, err));
        told = at;
    }
    return LS_OK;
}

ls_status lsi_data_read_file(struct lsi_data_reader *r, const struct lsi_data_file *f, ls_error *err)
{
    return f->format == LS_TRAIN_TEXT ? read_text(r, f, err) : read_lines(r, f, err);
}

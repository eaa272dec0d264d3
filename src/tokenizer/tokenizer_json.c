/* tokenizer.json of the Hugging Face tokenizers library, read in one pass. */
#include "tokenizer/tokenizer_json.h"

#include <stdio.h>
#include <string.h>

/* ---- strings ------------------------------------------------------------------ */

ls_status lsi_json_resolve(struct lsi_json *j, const struct lsi_json_str *str, struct lsi_json_text *out)
{
    if (!str->escaped) {
        out->s = str->raw;
        out->len = str->len;
        return LS_OK;
    }
    if (out->cap < str->len) {
        char *p = lsi_realloc(out->alloc, out->esc, out->cap, str->len);
        if (!p)
            return lsi_fail(j->err, LS_E_NOMEM, "%s: no memory for a string of %zu bytes", j->name, str->len);
        out->esc = p;
        out->cap = str->len;
    }
    out->s = out->esc;
    out->len = lsi_json_unescape(str, out->esc);
    return LS_OK;
}

ls_status lsi_json_read_text(struct lsi_json *j, struct lsi_json_text *out)
{
    struct lsi_json_str str;
    LSI_TRY(lsi_json_string(j, &str));
    return lsi_json_resolve(j, &str, out);
}

void lsi_json_text_fini(struct lsi_json_text *t)
{
    lsi_free(t->alloc, t->esc, t->cap);
    *t = (struct lsi_json_text){ 0 };
}

bool lsi_json_text_is(const struct lsi_json_text *t, const char *s)
{
    return t->len == strlen(s) && memcmp(t->s, s, t->len) == 0;
}

static ls_status no_memory(struct lsi_json *j)
{
    return lsi_fail(j->err, LS_E_NOMEM, "%s: no memory for the tokenizer", j->name);
}

ls_status lsi_json_peek_type(const struct lsi_json *at, char *type, size_t cap)
{
    struct lsi_json j = *at;
    struct lsi_json_str key, value;
    type[0] = '\0';
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (lsi_json_str_is(&key, "type")) {
            LSI_TRY(lsi_json_string(&j, &value));
            snprintf(type, cap, "%.*s", (int)lsi_min_size(value.len, cap - 1), value.raw);
            return LS_OK;
        }
        LSI_TRY(lsi_json_skip(&j));
    }
    return j.status;
}

bool lsi_json_at_null(struct lsi_json *j)
{
    return lsi_json_peek(j) == LSI_JSON_NULL;
}

ls_status lsi_json_read_list(struct lsi_json_loader *l, struct lsi_json *j, const char *list_key,
                             lsi_json_item_fn *fn)
{
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (!lsi_json_str_is(&key, list_key)) {
            LSI_TRY(lsi_json_skip(j));
            continue;
        }
        LSI_TRY(lsi_json_array(j));
        while (lsi_json_next_elem(j))
            LSI_TRY(fn(l, j));
    }
    return j->status;
}

ls_status lsi_json_unsupported(struct lsi_json *j, const char *what, const char *type)
{
    return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", j->name, what, type);
}

/* ---- added tokens ---------------------------------------------------------------- */

static ls_status read_added(struct lsi_json_loader *l, struct lsi_json *j)
{
    struct lsi_added a = { .id = -1 };
    struct lsi_json_str key, content = { 0 };
    int64_t id = -1;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        bool *flag = lsi_json_str_is(&key, "special")       ? &a.special
                     : lsi_json_str_is(&key, "normalized")  ? &a.normalized
                     : lsi_json_str_is(&key, "single_word") ? &a.single_word
                     : lsi_json_str_is(&key, "lstrip")      ? &a.lstrip
                     : lsi_json_str_is(&key, "rstrip")      ? &a.rstrip
                                                            : NULL;
        if (flag)
            LSI_TRY(lsi_json_bool(j, flag));
        else if (lsi_json_str_is(&key, "id"))
            LSI_TRY(lsi_json_int(j, &id));
        else if (lsi_json_str_is(&key, "content"))
            LSI_TRY(lsi_json_string(j, &content));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    LSI_TRY(j->status);
    if (id < 0 || (uint64_t)id >= LSI_TOKENS_MAX || (uint64_t)id >= l->doc_bytes || !content.raw)
        return lsi_json_error(j, "added token without text or with an impossible id %lld", (long long)id);
    a.id = (int32_t)id;
    LSI_TRY(lsi_json_resolve(j, &content, &l->text));
    return lsi_added_push(l->t, &a, l->text.s, l->text.len) ? LS_OK : no_memory(j);
}

/* ---- model ------------------------------------------------------------------------------- */

static ls_status read_vocab(struct lsi_json_loader *l, struct lsi_json *j)
{
    struct lsi_json_str key;
    int64_t id;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        LSI_TRY(lsi_json_int(j, &id));
        /* An entry takes more than one byte of the file, so its size bounds the ids. */
        if (id < 0 || (uint64_t)id >= LSI_TOKENS_MAX || (uint64_t)id >= l->doc_bytes)
            return lsi_json_error(j, "token id %lld is out of range", (long long)id);
        LSI_TRY(lsi_json_resolve(j, &key, &l->text));
        if (!lsi_vocab_set_surface(l->t, (size_t)id, l->text.s, l->text.len, LSI_TOKEN_NORMAL))
            return no_memory(j);
    }
    return j->status;
}

/* Added tokens take their place in the vocabulary; then it can be searched. */
static ls_status finish_vocab(struct lsi_json_loader *l, struct lsi_json *j)
{
    ls_tokenizer *t = l->t;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct lsi_added *a = &t->added[i];
        if (!lsi_vocab_set_surface(t, (size_t)a->id, t->added_text.data + a->off, a->len,
                                   a->special ? LSI_TOKEN_CONTROL : LSI_TOKEN_USER))
            return no_memory(j);
    }
    if (t->byte_fallback && !lsi_vocab_name_bytes(t))
        return no_memory(j);
    if (t->n_tokens == 0)
        return lsi_fail(j->err, LS_E_FORMAT, "%s: the vocabulary is empty", j->name);
    return lsi_vocab_index(t) ? LS_OK : no_memory(j);
}

static ls_status read_merges(struct lsi_json_loader *l, struct lsi_json *j)
{
    struct lsi_json_text left = { .alloc = l->t->alloc };
    ls_status st = LS_OK;
    uint32_t rank = 0;
    if (!lsi_merges_reserve(l->t, lsi_min_size(l->t->n_tokens, l->doc_bytes)))
        return no_memory(j);
    LSI_TRY_OR(done, lsi_json_array(j));
    for (; lsi_json_next_elem(j); rank++) {
        bool ok;
        if (lsi_json_peek(j) == LSI_JSON_ARRAY) {
            LSI_TRY_OR(done, lsi_json_array(j));
            for (int i = 0; i < 2; i++) {
                if (!lsi_json_next_elem(j)) {
                    st = lsi_json_error(j, "a merge must have two parts");
                    goto done;
                }
                LSI_TRY_OR(done, lsi_json_read_text(j, i ? &l->text : &left));
            }
            if (lsi_json_next_elem(j)) {
                st = lsi_json_error(j, "a merge must have two parts");
                goto done;
            }
            ok = lsi_merges_add(l->t, left.s, left.len, l->text.s, l->text.len, rank);
        } else {
            LSI_TRY_OR(done, lsi_json_read_text(j, &l->text));
            if (l->text.len >= 8 && memcmp(l->text.s, "#version", 8) == 0)
                continue;
            const char *space = l->text.len > 1 ? memchr(l->text.s + 1, ' ', l->text.len - 1) : NULL;
            if (!space) {
                st = lsi_json_error(j, "a merge must be two parts with a space between");
                goto done;
            }
            const size_t n = (size_t)(space - l->text.s);
            ok = lsi_merges_add(l->t, l->text.s, n, space + 1, l->text.len - n - 1, rank);
        }
        if (!ok) {
            st = no_memory(j);
            goto done;
        }
    }
    st = j->status;
done:
    lsi_json_text_fini(&left);
    return st;
}

/* A prefix or suffix inside words: only absent ones are known here. */
static ls_status read_affix(struct lsi_json_loader *l, struct lsi_json *j, const char *name)
{
    if (lsi_json_at_null(j))
        return lsi_json_null(j);
    LSI_TRY(lsi_json_read_text(j, &l->text));
    return l->text.len == 0 ? LS_OK : lsi_json_unsupported(j, name, "with a text");
}

static ls_status read_model(struct lsi_json_loader *l, struct lsi_json *j)
{
    char type[40];
    struct lsi_json_str key;
    struct lsi_json at_merges = { 0 };
    bool merged = false, fallback_seen = false;
    LSI_TRY(lsi_json_peek_type(j, type, sizeof type));
    if (type[0] && strcmp(type, "BPE") != 0)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: tokenizer model \"%s\" is not supported (BPE is)",
                        j->name, type);
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "vocab")) {
            LSI_TRY(read_vocab(l, j));
            l->vocab_done = true;
        } else if (lsi_json_str_is(&key, "merges")) {
            if (l->t->merges || at_merges.p)
                return lsi_json_error(j, "merges stand there twice");
            if (!l->vocab_done || !fallback_seen) {
                at_merges = *j;
                LSI_TRY(lsi_json_skip(j));
                continue;
            }
            LSI_TRY(finish_vocab(l, j));
            LSI_TRY(read_merges(l, j));
            merged = true;
        } else if (lsi_json_str_is(&key, "unk_token") && !lsi_json_at_null(j)) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            l->unk_len = lsi_min_size(l->text.len, sizeof l->unk);
            memcpy(l->unk, l->text.s, l->unk_len);
        } else if (lsi_json_str_is(&key, "fuse_unk") && !lsi_json_at_null(j)) {
            LSI_TRY(lsi_json_bool(j, &l->t->fuse_unk));
        } else if (lsi_json_str_is(&key, "byte_fallback") && !lsi_json_at_null(j)) {
            LSI_TRY(lsi_json_bool(j, &l->t->byte_fallback));
            fallback_seen = true;
        } else if (lsi_json_str_is(&key, "ignore_merges") && !lsi_json_at_null(j)) {
            LSI_TRY(lsi_json_bool(j, &l->t->ignore_merges));
        } else if (lsi_json_str_is(&key, "continuing_subword_prefix")) {
            LSI_TRY(read_affix(l, j, "continuing_subword_prefix"));
        } else if (lsi_json_str_is(&key, "end_of_word_suffix")) {
            LSI_TRY(read_affix(l, j, "end_of_word_suffix"));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(j->status);
    if (merged)
        return LS_OK;
    if (!l->vocab_done || !at_merges.p)
        return lsi_fail(j->err, LS_E_FORMAT, "%s: the model has no vocab or no merges", j->name);
    LSI_TRY(finish_vocab(l, j));
    return read_merges(l, &at_merges);
}

/* ---- the document -------------------------------------------------------------------------- */

static ls_status read_document(struct lsi_json_loader *l, struct lsi_json *j)
{
    enum {
        ADDED = 1,
        NORMALIZER = 2,
        PRE = 4,
        DECODER = 8,
        POST = 16,
        MODEL = 32
    };
    struct lsi_json_str key;
    struct lsi_json at_model = { 0 }, at_post = { 0 };
    unsigned seen = 0;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const unsigned what = lsi_json_str_is(&key, "added_tokens")     ? ADDED
                              : lsi_json_str_is(&key, "normalizer")     ? NORMALIZER
                              : lsi_json_str_is(&key, "pre_tokenizer")  ? PRE
                              : lsi_json_str_is(&key, "decoder")        ? DECODER
                              : lsi_json_str_is(&key, "post_processor") ? POST
                              : lsi_json_str_is(&key, "model")          ? MODEL
                                                                        : 0u;
        if (seen & what)
            return lsi_json_error(j, "the same section stands there twice");
        seen |= what;
        switch (what) {
        case ADDED:
            if (lsi_json_at_null(j)) {
                LSI_TRY(lsi_json_null(j));
                break;
            }
            LSI_TRY(lsi_json_array(j));
            while (lsi_json_next_elem(j))
                LSI_TRY(read_added(l, j));
            LSI_TRY(j->status);
            break;
        case NORMALIZER:
            LSI_TRY(lsi_json_read_normalizer(l, j));
            break;
        case PRE:
            LSI_TRY(lsi_json_read_pre_tokenizer(l, j));
            break;
        case DECODER:
            LSI_TRY(lsi_json_read_decoder(l, j));
            break;
        case POST:
            at_post = *j;
            LSI_TRY(lsi_json_skip(j));
            break;
        case MODEL:
            /* The vocabulary is read with the other sections known; they come first in real files. */
            if ((seen & (ADDED | NORMALIZER | PRE | DECODER)) == (ADDED | NORMALIZER | PRE | DECODER)) {
                LSI_TRY(read_model(l, j));
                break;
            }
            at_model = *j;
            LSI_TRY(lsi_json_skip(j));
            break;
        default:
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(lsi_json_end(j));
    if (!(seen & MODEL))
        return lsi_fail(j->err, LS_E_FORMAT, "%s: there is no model section", j->name);
    if (at_model.p)
        LSI_TRY(read_model(l, &at_model));
    return at_post.p ? lsi_json_read_post_processor(l, &at_post) : LS_OK;
}

ls_status lsi_tokenizer_from_json(const void *data, size_t bytes, const char *name, const ls_alloc *alloc,
                                  ls_tokenizer **tok, ls_error *err)
{
    ls_tokenizer *t;
    struct lsi_json j;
    *tok = NULL;
    LSI_TRY(lsi_tokenizer_new(alloc, &t, err));
    struct lsi_json_loader l = {
        .t = t, .text = { .alloc = t->alloc }, .doc_bytes = bytes, .bos = -1, .eos = -1
    };
    lsi_json_init(&j, data, bytes, name, err);
    ls_status st = read_document(&l, &j);
    lsi_json_text_fini(&l.text);
    if (st == LS_OK && ((!t->byte_level && !lsi_vocab_note_seams(t)) || !lsi_added_index(t)))
        st = lsi_fail(err, LS_E_NOMEM, "%s: no memory for the tokenizer's tables", name);
    if (st != LS_OK) {
        ls_tokenizer_close(t);
        return st;
    }
    if (l.unk_len)
        t->unk = ls_tokenizer_find(t, l.unk, l.unk_len);
    t->bos = l.bos;
    t->add_bos = l.bos >= 0;
    t->eos = l.eos;
    t->add_eos = l.eos >= 0;
    lsi_split_set_name(t);
    lsi_mark_stops(t);
    *tok = t;
    return LS_OK;
}

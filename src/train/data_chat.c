/*
 * Conversations to tokens that know which of them an assistant would write.
 *
 * The template's module renders the whole conversation and says which bytes are answers, end tokens
 * included; which tokens these are is found by laying the tokens' texts along the rendering. Where they do
 * not fit (a normaliser changed something), the beginning of the text up to the border is encoded and
 * counted.
 */
#include "train/data_impl.h"

#include "tokenizer/chat_render.h"

#include <string.h>

struct conversation {
    ls_chat_message *messages; /* [n] */
    size_t *ends;              /* [n] ends of their contents in the reader's text */
    size_t n, cap;
    const ls_alloc *alloc;
};

static void conversation_fini(struct conversation *c)
{
    lsi_free(c->alloc, c->messages, c->cap * sizeof *c->messages);
    lsi_free(c->alloc, c->ends, c->cap * sizeof *c->ends);
}

static ls_status grow(struct conversation *c, ls_error *err)
{
    const size_t cap = c->cap ? 2 * c->cap : 16;
    ls_chat_message *m = lsi_calloc(c->alloc, cap, sizeof *m);
    size_t *ends = lsi_calloc(c->alloc, cap, sizeof *ends);
    if (!m || !ends) {
        lsi_free(c->alloc, m, cap * sizeof *m);
        lsi_free(c->alloc, ends, cap * sizeof *ends);
        return lsi_fail(err, LS_E_NOMEM, "no memory for a conversation of the data");
    }
    if (c->n) {
        memcpy(m, c->messages, c->n * sizeof *m);
        memcpy(ends, c->ends, c->n * sizeof *ends);
    }
    conversation_fini(c);
    c->messages = m;
    c->ends = ends;
    c->cap = cap;
    return LS_OK;
}

/* ---- reading ------------------------------------------------------------------- */

static const char *role_of(const struct lsi_json_str *s)
{
    static const struct {
        const char *written, *role;
    } roles[] = {
        { "system", "system" }, { "user", "user" },           { "human", "user" },
        { "gpt", "assistant" }, { "assistant", "assistant" },
    };
    for (size_t i = 0; i < LSI_LEN(roles); i++)
        if (lsi_json_str_is(s, roles[i].written))
            return roles[i].role;
    return NULL;
}

/* {"role": …, "content": …}, or with the names "from" and "value". */
static ls_status read_message(struct lsi_data_reader *r, struct lsi_json *j, struct conversation *c,
                              ls_error *err)
{
    struct lsi_json_str key, text = { 0 };
    const char *role = NULL;
    bool content = false;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const bool is_role = lsi_json_str_is(&key, "role") || lsi_json_str_is(&key, "from");
        if (!is_role && !lsi_json_str_is(&key, "content") && !lsi_json_str_is(&key, "value")) {
            LSI_TRY(lsi_json_skip(j));
            continue;
        }
        struct lsi_json_str value;
        LSI_TRY(lsi_json_string(j, &value));
        if (is_role && !(role = role_of(&value)))
            return lsi_json_error(j, "role \"%.*s\" is none of system, user, assistant",
                                  (int)lsi_min_size(value.len, 40), value.raw);
        if (!is_role) {
            text = value;
            content = true;
        }
    }
    if (j->status == LS_OK && (!role || !content))
        return lsi_json_error(j, "a message has no \"%s\"", role ? "content" : "role");
    LSI_TRY(j->status);
    if (c->n == c->cap)
        LSI_TRY(grow(c, err));
    LSI_TRY(lsi_data_take_string(r, &text, err));
    c->messages[c->n].role = role;
    c->ends[c->n++] = r->text.len;
    return LS_OK;
}

static ls_status read_messages(struct lsi_data_reader *r, struct lsi_json *j, struct conversation *c,
                               ls_error *err)
{
    c->n = 0;
    r->text.len = 0;
    LSI_TRY(lsi_json_array(j));
    while (lsi_json_next_elem(j))
        LSI_TRY(read_message(r, j, c, err));
    LSI_TRY(j->status);
    const char *text = r->text.data ? r->text.data : "";
    for (size_t i = 0; i < c->n; i++) { /* the text has stopped moving */
        const size_t begin = i ? c->ends[i - 1] : 0;
        c->messages[i].content = text + begin;
        c->messages[i].content_len = c->ends[i] - begin;
    }
    return LS_OK;
}

/* ---- which tokens are answers ------------------------------------------------------ */

struct tokens {
    const ls_tokenizer *tok;
    const struct lsi_rendering *r;
    const int32_t *ids;
    size_t n;
};

static ls_status encode(const struct tokens *t, size_t len, int32_t **ids, size_t *n, ls_error *err)
{
    const ls_byte_range *plain = (const ls_byte_range *)(void *)t->r->plain.data;
    size_t n_plain = t->r->plain.len / sizeof *plain;
    while (n_plain && plain[n_plain - 1].begin >= len)
        n_plain--;
    return ls_tokenizer_encode_ranges(t->tok, t->r->text.data ? t->r->text.data : "", len,
                                      LS_ENCODE_PARSE_SPECIAL, plain, n_plain, ids, n, NULL, err);
}

/*
 * Byte of the rendering at which each token begins, begins[n] the end; false when texts do not fit. Families
 * that put a space before words begin tokens with one that the text need not have.
 */
static bool lay_along(const struct tokens *t, size_t *begins)
{
    const char *text = t->r->text.data;
    const size_t len = t->r->text.len;
    size_t at = 0;
    for (size_t i = 0; i < t->n; i++) {
        size_t k;
        const char *s = ls_tokenizer_piece(t->tok, t->ids[i], true, &k);
        begins[i] = at;
        if (k > len - at || memcmp(text + at, s, k) != 0) {
            if (k == 0 || s[0] != ' ' || k - 1 > len - at || memcmp(text + at, s + 1, k - 1) != 0)
                return false;
            k--;
        }
        at += k;
    }
    begins[t->n] = at;
    return at == len;
}

/* Tokens that cover bytes of the range. */
static void mark_range(const struct tokens *t, const size_t *begins, ls_byte_range range,
                       unsigned char *learn)
{
    size_t low = 0, high = t->n; /* the first token that ends behind range.begin */
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (begins[mid + 1] <= range.begin)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = low; i < t->n && begins[i] < range.end; i++)
        learn[i] = 1;
}

static ls_status mark_by_counting(const struct tokens *t, ls_byte_range range, unsigned char *learn,
                                  ls_error *err)
{
    int32_t *ids;
    size_t first, end;
    LSI_TRY(encode(t, range.begin, &ids, &first, err));
    ls_tokenizer_ids_free(t->tok, ids, first);
    LSI_TRY(encode(t, range.end, &ids, &end, err));
    ls_tokenizer_ids_free(t->tok, ids, end);
    for (size_t i = first; i < end && i < t->n; i++)
        learn[i] = 1;
    return LS_OK;
}

static ls_status mark_answers(const struct tokens *t, size_t *begins, unsigned char *learn, ls_error *err)
{
    const ls_byte_range *answers = (const ls_byte_range *)(void *)t->r->answers.data;
    const size_t n = t->r->answers.len / sizeof *answers;
    const bool fits = lay_along(t, begins);
    for (size_t i = 0; i < n; i++) {
        if (fits)
            mark_range(t, begins, answers[i], learn);
        else
            LSI_TRY(mark_by_counting(t, answers[i], learn, err));
    }
    return LS_OK;
}

static ls_status put_conversation(struct lsi_data_reader *r, const struct tokens *t, const char *what,
                                  ls_error *err)
{
    unsigned char *learn = lsi_calloc(r->alloc, t->n, 1);
    size_t *begins = lsi_calloc(r->alloc, t->n + 1, sizeof *begins);
    ls_status st;
    if (learn && begins)
        st = mark_answers(t, begins, learn, err);
    else
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a conversation of the data");
    if (st == LS_OK)
        st = lsi_data_put(r, what, t->ids, learn, t->n, err);
    lsi_free(r->alloc, learn, t->n);
    lsi_free(r->alloc, begins, (t->n + 1) * sizeof *begins);
    return st == LS_OK ? lsi_token_writer_end_document(r->out, err) : st;
}

static ls_status render(struct lsi_data_reader *r, const struct conversation *c, const char *what,
                        ls_error *err)
{
    struct lsi_rendering rendering;
    struct tokens t = { r->tok, &rendering, NULL, 0 };
    int32_t *ids = NULL;
    ls_status st = lsi_chat_render(r->chat, c->messages, c->n, false, NULL, &rendering, err);
    if (st == LS_OK)
        st = encode(&t, rendering.text.len, &ids, &t.n, err);
    if (st != LS_OK)
        lsi_error_prefix(err, "%s", what);
    t.ids = ids;
    if (st == LS_OK && rendering.answers.len == 0)
        r->out->n_dropped += t.n; /* nothing to learn from */
    else if (st == LS_OK)
        st = put_conversation(r, &t, what, err);
    if (ids)
        ls_tokenizer_ids_free(r->tok, ids, t.n);
    lsi_rendering_fini(&rendering);
    return st;
}

ls_status lsi_data_read_chat(struct lsi_data_reader *r, struct lsi_json *j, const char *what, ls_error *err)
{
    struct conversation c = { .alloc = r->alloc };
    struct lsi_json_str key;
    bool found = false;
    ls_status st;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const bool wanted = lsi_json_str_is(&key, "messages") || lsi_json_str_is(&key, "conversations");
        LSI_TRY_OR(done, wanted ? read_messages(r, j, &c, err) : lsi_json_skip(j));
        found = found || wanted;
    }
    LSI_TRY_OR(done, lsi_json_end(j));
    if (found)
        st = render(r, &c, what, err);
    else
        st = lsi_fail(err, LS_E_FORMAT, "%s: the line has no \"messages\"", what);
done:
    conversation_fini(&c);
    return st;
}

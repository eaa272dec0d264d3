/* tokenizer.json of the Hugging Face tokenizers library, read in one pass. */
#include "tokenizer/tokenizer_json.h"

#include <stdio.h>
#include <string.h>

static const char meta[] = "\xe2\x96\x81"; /* U+2581 */

struct loader {
    ls_tokenizer *t;
    struct lsi_json_text text;
    size_t doc_bytes;
    char unk[64]; /* unk_token */
    size_t unk_len;
    int32_t bos, eos; /* that the post-processor adds */
    bool vocab_done;
};

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

/* The "type" of the object at j, which stays where it is. Empty when there is none. */
static ls_status peek_type(const struct lsi_json *at, char *type, size_t cap)
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

static bool at_null(struct lsi_json *j)
{
    return lsi_json_peek(j) == LSI_JSON_NULL;
}

typedef ls_status item_fn(struct loader *l, struct lsi_json *j);

/* An object that holds a list under `list_key`: every element goes to fn. */
static ls_status read_list(struct loader *l, struct lsi_json *j, const char *list_key, item_fn *fn)
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

/* ---- added tokens ---------------------------------------------------------------- */

static ls_status read_added(struct loader *l, struct lsi_json *j)
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

/* ---- patterns ---------------------------------------------------------------------- */

/* {"String": …} or {"Regex": …}; the text is in l->text. */
static ls_status read_pattern(struct loader *l, struct lsi_json *j, bool *literal)
{
    struct lsi_json_str key;
    bool seen = false;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        *literal = lsi_json_str_is(&key, "String");
        if (!*literal && !lsi_json_str_is(&key, "Regex"))
            return lsi_json_error(j, "a pattern must be a String or a Regex");
        LSI_TRY(lsi_json_read_text(j, &l->text));
        seen = true;
    }
    LSI_TRY(j->status);
    return seen ? LS_OK : lsi_json_error(j, "empty pattern");
}

/* ---- normalizer ---------------------------------------------------------------------- */

static ls_status push_norm(struct loader *l, struct lsi_json *j, struct lsi_norm n)
{
    if (l->t->n_norms == LSI_NORM_MAX)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: normalizer has more than %d steps", j->name,
                        LSI_NORM_MAX);
    l->t->norms[l->t->n_norms++] = n;
    return LS_OK;
}

static ls_status short_text(struct loader *l, struct lsi_json *j, char *out, unsigned char *len)
{
    if (l->text.len > LSI_NORM_TEXT)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: normalizer text longer than %d bytes", j->name,
                        LSI_NORM_TEXT);
    memcpy(out, l->text.s, l->text.len);
    *len = (unsigned char)l->text.len;
    return LS_OK;
}

static ls_status read_replace(struct loader *l, struct lsi_json *j)
{
    struct lsi_norm n = { .kind = LSI_NORM_REPLACE };
    struct lsi_json_str key;
    bool literal = true;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "pattern")) {
            LSI_TRY(read_pattern(l, j, &literal));
            LSI_TRY(short_text(l, j, n.from, &n.from_len));
        } else if (lsi_json_str_is(&key, "content")) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            LSI_TRY(short_text(l, j, n.to, &n.to_len));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(j->status);
    if (!literal)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: normalizer Replace with a Regex is not supported",
                        j->name);
    if (n.from_len == 1 && n.from[0] == ' ' && n.to_len == 3 && memcmp(n.to, meta, 3) == 0) {
        l->t->space_is_meta = true;
        return LS_OK;
    }
    return push_norm(l, j, n);
}

static ls_status read_prepend(struct loader *l, struct lsi_json *j)
{
    struct lsi_norm n = { .kind = LSI_NORM_PREPEND };
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "prepend")) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            LSI_TRY(short_text(l, j, n.to, &n.to_len));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(j->status);
    if (n.to_len == 3 && memcmp(n.to, meta, 3) == 0) {
        l->t->space_is_meta = true;
        l->t->prefix_space = LSI_PREFIX_ALWAYS;
        return LS_OK;
    }
    return push_norm(l, j, n);
}

static ls_status read_strip(struct loader *l, struct lsi_json *j)
{
    struct lsi_json_str key;
    bool left = false, right = false;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "strip_left"))
            LSI_TRY(lsi_json_bool(j, &left));
        else if (lsi_json_str_is(&key, "strip_right"))
            LSI_TRY(lsi_json_bool(j, &right));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    LSI_TRY(j->status);
    if (left)
        LSI_TRY(push_norm(l, j, (struct lsi_norm){ .kind = LSI_NORM_STRIP_LEFT }));
    return right ? push_norm(l, j, (struct lsi_norm){ .kind = LSI_NORM_STRIP_RIGHT }) : LS_OK;
}

static ls_status unsupported(struct lsi_json *j, const char *what, const char *type)
{
    return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", j->name, what, type);
}

static ls_status read_normalizer(struct loader *l, struct lsi_json *j)
{
    static const struct {
        const char *type;
        enum lsi_norm_kind kind;
    } forms[] = {
        { "NFC", LSI_NORM_NFC }, { "NFD", LSI_NORM_NFD }, { "NFKC", LSI_NORM_NFKC }, { "NFKD", LSI_NORM_NFKD }
    };
    if (at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(peek_type(j, type, sizeof type));
    for (size_t i = 0; i < LSI_LEN(forms); i++) {
        if (strcmp(type, forms[i].type) == 0) {
            LSI_TRY(lsi_json_skip(j));
            return push_norm(l, j, (struct lsi_norm){ .kind = forms[i].kind });
        }
    }
    if (strcmp(type, "Replace") == 0)
        return read_replace(l, j);
    if (strcmp(type, "Prepend") == 0)
        return read_prepend(l, j);
    if (strcmp(type, "Strip") == 0)
        return read_strip(l, j);
    if (strcmp(type, "Sequence") == 0)
        return read_list(l, j, "normalizers", read_normalizer);
    return unsupported(j, "normalizer", type);
}

/* ---- pre_tokenizer ---------------------------------------------------------------------- */

static ls_status push_split(struct loader *l, struct lsi_json *j, enum lsi_split_kind kind)
{
    if (!lsi_split_push(l->t, kind))
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: pre_tokenizer has more than %d stages", j->name,
                        LSI_SPLIT_MAX);
    return LS_OK;
}

static ls_status read_byte_level(struct loader *l, struct lsi_json *j)
{
    bool prefix = true, regex = true;
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "add_prefix_space"))
            LSI_TRY(lsi_json_bool(j, &prefix));
        else if (lsi_json_str_is(&key, "use_regex"))
            LSI_TRY(lsi_json_bool(j, &regex));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    LSI_TRY(j->status);
    l->t->byte_level = true;
    if (prefix) {
        l->t->prefix_space = LSI_PREFIX_ALWAYS;
        l->t->space_if_none = true;
    }
    return regex ? push_split(l, j, LSI_SPLIT_GPT2) : LS_OK;
}

static ls_status read_behavior(struct loader *l, struct lsi_json *j, enum lsi_split_behavior *b)
{
    static const char *const names[] = { [LSI_SPLIT_ISOLATED] = "Isolated",
                                         [LSI_SPLIT_REMOVED] = "Removed",
                                         [LSI_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                         [LSI_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
                                         [LSI_SPLIT_CONTIGUOUS] = "Contiguous" };
    LSI_TRY(lsi_json_read_text(j, &l->text));
    for (size_t i = 0; i < LSI_LEN(names); i++) {
        if (lsi_json_text_is(&l->text, names[i])) {
            *b = (enum lsi_split_behavior)i;
            return LS_OK;
        }
    }
    return lsi_json_error(j, "unknown split behavior");
}

/* A stage whose pattern is in the file, or (Punctuation, Whitespace) follows from its type. */
static ls_status read_split(struct loader *l, struct lsi_json *j, const char *pattern,
                            enum lsi_split_behavior behavior, bool invert)
{
    struct lsi_json_str key;
    struct lsi_json at_pattern = { 0 };
    bool literal = false;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "pattern")) {
            at_pattern = *j;
            LSI_TRY(lsi_json_skip(j));
        } else if (lsi_json_str_is(&key, "behavior")) {
            LSI_TRY(read_behavior(l, j, &behavior));
        } else if (lsi_json_str_is(&key, "invert")) {
            LSI_TRY(lsi_json_bool(j, &invert));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(j->status);
    if (pattern)
        return lsi_split_pattern(l->t, pattern, strlen(pattern), false, behavior, invert, j->err);
    if (!at_pattern.p)
        return lsi_json_error(j, "Split without a pattern");
    LSI_TRY(read_pattern(l, &at_pattern, &literal));
    /* Gemma's stage: its normaliser has replaced every space by then, so that nothing matches. */
    if (literal && l->t->space_is_meta && l->text.len == 1 && l->text.s[0] == ' ')
        return LS_OK;
    return lsi_split_pattern(l->t, l->text.s, l->text.len, literal, behavior, invert, j->err);
}

static ls_status read_digits(struct loader *l, struct lsi_json *j)
{
    bool individual = false;
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key))
        LSI_TRY(lsi_json_str_is(&key, "individual_digits") ? lsi_json_bool(j, &individual)
                                                           : lsi_json_skip(j));
    LSI_TRY(j->status);
    return push_split(l, j, individual ? LSI_SPLIT_DIGITS : LSI_SPLIT_NUMBERS);
}

/* Settings of Metaspace, pre-tokenizer and decoder alike. */
static ls_status read_metaspace(struct loader *l, struct lsi_json *j, enum lsi_prefix_scheme *scheme,
                                bool *split)
{
    struct lsi_json_str key;
    *scheme = LSI_PREFIX_ALWAYS;
    *split = true;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        bool flag = true;
        if (lsi_json_str_is(&key, "replacement")) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            if (!lsi_json_text_is(&l->text, meta))
                return lsi_fail(j->err, LS_E_UNSUPPORTED,
                                "%s: Metaspace with a replacement other than U+2581", j->name);
        } else if (lsi_json_str_is(&key, "prepend_scheme")) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            *scheme = lsi_json_text_is(&l->text, "never")   ? LSI_PREFIX_NEVER
                      : lsi_json_text_is(&l->text, "first") ? LSI_PREFIX_FIRST
                                                            : LSI_PREFIX_ALWAYS;
        } else if (lsi_json_str_is(&key, "add_prefix_space")) { /* before there was prepend_scheme */
            LSI_TRY(lsi_json_bool(j, &flag));
            if (!flag)
                *scheme = LSI_PREFIX_NEVER;
        } else if (lsi_json_str_is(&key, "split")) {
            LSI_TRY(lsi_json_bool(j, split));
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    return j->status;
}

static ls_status read_pre_tokenizer(struct loader *l, struct lsi_json *j)
{
    if (at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return read_list(l, j, "pretokenizers", read_pre_tokenizer);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(l, j);
    if (strcmp(type, "Split") == 0)
        return read_split(l, j, NULL, LSI_SPLIT_ISOLATED, false);
    if (strcmp(type, "Digits") == 0)
        return read_digits(l, j);
    if (strcmp(type, "Punctuation") == 0)
        return read_split(l, j, "[\\p{P}$+<=>^`|~]", LSI_SPLIT_ISOLATED, false);
    if (strcmp(type, "Whitespace") == 0)
        return read_split(l, j, "\\w+|[^\\w\\s]+", LSI_SPLIT_REMOVED, true);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return read_split(l, j, "\\s+", LSI_SPLIT_REMOVED, false);
    if (strcmp(type, "Metaspace") == 0) {
        bool split;
        LSI_TRY(read_metaspace(l, j, &l->t->prefix_space, &split));
        l->t->space_is_meta = true;
        l->t->space_if_none = true;
        return split ? push_split(l, j, LSI_SPLIT_SPACE) : LS_OK;
    }
    return unsupported(j, "pre_tokenizer", type);
}

/* ---- decoder, post_processor ------------------------------------------------------------- */

static ls_status read_decoder(struct loader *l, struct lsi_json *j)
{
    if (at_null(j))
        return lsi_json_null(j);
    char type[40];
    struct lsi_json_str key;
    LSI_TRY(peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return read_list(l, j, "decoders", read_decoder);
    if (strcmp(type, "Metaspace") == 0) {
        enum lsi_prefix_scheme scheme;
        bool split;
        LSI_TRY(read_metaspace(l, j, &scheme, &split));
        l->t->strip_space = scheme != LSI_PREFIX_NEVER;
        return LS_OK;
    }
    if (strcmp(type, "ByteLevel") == 0)
        l->t->byte_level = true;
    const bool strip = strcmp(type, "Strip") == 0;
    int64_t start = 0;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key))
        LSI_TRY(strip && lsi_json_str_is(&key, "start") ? lsi_json_int(j, &start) : lsi_json_skip(j));
    l->t->strip_space |= start > 0;
    return j->status;
}

/* Elements of "single": the special tokens before and after the text. */
static ls_status read_template_item(struct loader *l, struct lsi_json *j)
{
    struct lsi_json_str key, inner;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (!lsi_json_str_is(&key, "SpecialToken")) {
            LSI_TRY(lsi_json_skip(j));
            l->bos = l->bos == -2 ? -1 : l->bos; /* the text itself: what follows comes after it */
            l->eos = -2;
            continue;
        }
        LSI_TRY(lsi_json_object(j));
        while (lsi_json_next_key(j, &inner)) {
            if (!lsi_json_str_is(&inner, "id")) {
                LSI_TRY(lsi_json_skip(j));
                continue;
            }
            LSI_TRY(lsi_json_read_text(j, &l->text));
            int32_t id = -1;
            for (size_t i = 0; i < l->t->n_added; i++)
                if (l->t->added[i].len == l->text.len &&
                    memcmp(l->t->added_text.data + l->t->added[i].off, l->text.s, l->text.len) == 0)
                    id = l->t->added[i].id;
            int32_t *slot = l->eos == -2 ? &l->eos : &l->bos;
            if (slot == &l->bos && l->bos >= 0)
                return lsi_fail(
                    j->err, LS_E_UNSUPPORTED,
                    "%s: a post_processor that adds several tokens before the text is not supported",
                    j->name);
            *slot = id;
        }
    }
    return j->status;
}

static ls_status read_post_processor(struct loader *l, struct lsi_json *j)
{
    if (at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return read_list(l, j, "processors", read_post_processor);
    if (strcmp(type, "ByteLevel") == 0)
        return lsi_json_skip(j);
    if (strcmp(type, "TemplateProcessing") != 0)
        return unsupported(j, "post_processor", type);
    l->bos = -2;
    LSI_TRY(read_list(l, j, "single", read_template_item));
    l->bos = l->bos == -2 ? -1 : l->bos;
    l->eos = l->eos == -2 ? -1 : l->eos;
    return LS_OK;
}

/* ---- model ------------------------------------------------------------------------------- */

static ls_status read_vocab(struct loader *l, struct lsi_json *j)
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
static ls_status finish_vocab(struct loader *l, struct lsi_json *j)
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

static ls_status read_merges(struct loader *l, struct lsi_json *j)
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
static ls_status read_affix(struct loader *l, struct lsi_json *j, const char *name)
{
    if (at_null(j))
        return lsi_json_null(j);
    LSI_TRY(lsi_json_read_text(j, &l->text));
    return l->text.len == 0 ? LS_OK : unsupported(j, name, "with a text");
}

static ls_status read_model(struct loader *l, struct lsi_json *j)
{
    char type[40];
    struct lsi_json_str key;
    struct lsi_json at_merges = { 0 };
    bool merged = false, fallback_seen = false;
    LSI_TRY(peek_type(j, type, sizeof type));
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
        } else if (lsi_json_str_is(&key, "unk_token") && !at_null(j)) {
            LSI_TRY(lsi_json_read_text(j, &l->text));
            l->unk_len = lsi_min_size(l->text.len, sizeof l->unk);
            memcpy(l->unk, l->text.s, l->unk_len);
        } else if (lsi_json_str_is(&key, "fuse_unk") && !at_null(j)) {
            LSI_TRY(lsi_json_bool(j, &l->t->fuse_unk));
        } else if (lsi_json_str_is(&key, "byte_fallback") && !at_null(j)) {
            LSI_TRY(lsi_json_bool(j, &l->t->byte_fallback));
            fallback_seen = true;
        } else if (lsi_json_str_is(&key, "ignore_merges") && !at_null(j)) {
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

static ls_status read_document(struct loader *l, struct lsi_json *j)
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
            if (at_null(j)) {
                LSI_TRY(lsi_json_null(j));
                break;
            }
            LSI_TRY(lsi_json_array(j));
            while (lsi_json_next_elem(j))
                LSI_TRY(read_added(l, j));
            LSI_TRY(j->status);
            break;
        case NORMALIZER:
            LSI_TRY(read_normalizer(l, j));
            break;
        case PRE:
            LSI_TRY(read_pre_tokenizer(l, j));
            break;
        case DECODER:
            LSI_TRY(read_decoder(l, j));
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
    return at_post.p ? read_post_processor(l, &at_post) : LS_OK;
}

ls_status lsi_tokenizer_from_json(const void *data, size_t bytes, const char *name, const ls_alloc *alloc,
                                  ls_tokenizer **tok, ls_error *err)
{
    ls_tokenizer *t;
    struct lsi_json j;
    *tok = NULL;
    LSI_TRY(lsi_tokenizer_new(alloc, &t, err));
    struct loader l = { .t = t, .text = { .alloc = t->alloc }, .doc_bytes = bytes, .bos = -1, .eos = -1 };
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

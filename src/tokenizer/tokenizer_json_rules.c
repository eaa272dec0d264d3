/* tokenizer.json: normalizer, pre_tokenizer, decoder and post_processor. */
#include "tokenizer/tokenizer_json.h"

#include <stdio.h>
#include <string.h>

static const char meta[] = "\xe2\x96\x81"; /* U+2581 */

/* ---- patterns ---------------------------------------------------------------------- */

/* {"String": …} or {"Regex": …}; the text is in l->text. */
static ls_status read_pattern(struct lsi_json_loader *l, struct lsi_json *j, bool *literal)
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

static ls_status push_norm(struct lsi_json_loader *l, struct lsi_json *j, struct lsi_norm n)
{
    if (l->t->n_norms == LSI_NORM_MAX)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: normalizer has more than %d steps", j->name,
                        LSI_NORM_MAX);
    l->t->norms[l->t->n_norms++] = n;
    return LS_OK;
}

static ls_status short_text(struct lsi_json_loader *l, struct lsi_json *j, char *out, unsigned char *len)
{
    if (l->text.len > LSI_NORM_TEXT)
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: normalizer text longer than %d bytes", j->name,
                        LSI_NORM_TEXT);
    memcpy(out, l->text.s, l->text.len);
    *len = (unsigned char)l->text.len;
    return LS_OK;
}

static ls_status read_replace(struct lsi_json_loader *l, struct lsi_json *j)
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

static ls_status read_prepend(struct lsi_json_loader *l, struct lsi_json *j)
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

static ls_status read_strip(struct lsi_json_loader *l, struct lsi_json *j)
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

ls_status lsi_json_read_normalizer(struct lsi_json_loader *l, struct lsi_json *j)
{
    static const struct {
        const char *type;
        enum lsi_norm_kind kind;
    } forms[] = {
        { "NFC", LSI_NORM_NFC }, { "NFD", LSI_NORM_NFD }, { "NFKC", LSI_NORM_NFKC }, { "NFKD", LSI_NORM_NFKD }
    };
    if (lsi_json_at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(lsi_json_peek_type(j, type, sizeof type));
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
        return lsi_json_read_list(l, j, "normalizers", lsi_json_read_normalizer);
    return lsi_json_unsupported(j, "normalizer", type);
}

/* ---- pre_tokenizer ---------------------------------------------------------------------- */

static ls_status push_split(struct lsi_json_loader *l, struct lsi_json *j, enum lsi_split_kind kind)
{
    if (!lsi_split_push(l->t, kind))
        return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: pre_tokenizer has more than %d stages", j->name,
                        LSI_SPLIT_MAX);
    return LS_OK;
}

static ls_status read_byte_level(struct lsi_json_loader *l, struct lsi_json *j)
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

static ls_status read_behavior(struct lsi_json_loader *l, struct lsi_json *j, enum lsi_split_behavior *b)
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
static ls_status read_split(struct lsi_json_loader *l, struct lsi_json *j, const char *pattern,
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

static ls_status read_digits(struct lsi_json_loader *l, struct lsi_json *j)
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
static ls_status read_metaspace(struct lsi_json_loader *l, struct lsi_json *j, enum lsi_prefix_scheme *scheme,
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

ls_status lsi_json_read_pre_tokenizer(struct lsi_json_loader *l, struct lsi_json *j)
{
    if (lsi_json_at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(lsi_json_peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return lsi_json_read_list(l, j, "pretokenizers", lsi_json_read_pre_tokenizer);
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
    return lsi_json_unsupported(j, "pre_tokenizer", type);
}

/* ---- decoder, post_processor ------------------------------------------------------------- */

ls_status lsi_json_read_decoder(struct lsi_json_loader *l, struct lsi_json *j)
{
    if (lsi_json_at_null(j))
        return lsi_json_null(j);
    char type[40];
    struct lsi_json_str key;
    LSI_TRY(lsi_json_peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return lsi_json_read_list(l, j, "decoders", lsi_json_read_decoder);
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
static ls_status read_template_item(struct lsi_json_loader *l, struct lsi_json *j)
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

ls_status lsi_json_read_post_processor(struct lsi_json_loader *l, struct lsi_json *j)
{
    if (lsi_json_at_null(j))
        return lsi_json_null(j);
    char type[40];
    LSI_TRY(lsi_json_peek_type(j, type, sizeof type));
    if (strcmp(type, "Sequence") == 0)
        return lsi_json_read_list(l, j, "processors", lsi_json_read_post_processor);
    if (strcmp(type, "ByteLevel") == 0)
        return lsi_json_skip(j);
    if (strcmp(type, "TemplateProcessing") != 0)
        return lsi_json_unsupported(j, "post_processor", type);
    l->bos = -2;
    LSI_TRY(lsi_json_read_list(l, j, "single", read_template_item));
    l->bos = l->bos == -2 ? -1 : l->bos;
    l->eos = l->eos == -2 ? -1 : l->eos;
    return LS_OK;
}

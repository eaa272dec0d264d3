/* Tokenizers in GGUF files: reading and writing tokenizer.* pairs. */
#include "formats/gguf.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

static ls_status read_kind(ls_tokenizer *t, const struct lsi_gguf *g, ls_error *err)
{
    struct lsi_str model;
    if (!lsi_gguf_get_str(g, KEY("model"), &model))
        return lsi_fail(err, LS_E_FORMAT, "the file has no tokenizer (key " KEY("model") " is missing)");
    if (model.len == 4 && memcmp(model.s, "gpt2", 4) == 0) {
        t->byte_level = true;
    } else if (model.len == 5 && memcmp(model.s, "llama", 5) == 0) {
        t->space_is_meta = true;
        t->byte_fallback = true;
    } else if (model.len == 6 && memcmp(model.s, "gemma4", 6) == 0) {
        t->space_is_meta = true;
        t->byte_fallback = true;
    } else {
        return lsi_fail(err, LS_E_UNSUPPORTED,
                        "tokenizer model \"%.*s\" is not supported (gpt2 and llama are: byte-level and "
                        "SentencePiece BPE)",
                        (int)lsi_min_size(model.len, 40), model.s);
    }
    return LS_OK;
}

static ls_status read_tokens(ls_tokenizer *t, const struct lsi_gguf *g, ls_error *err)
{
    const struct lsi_gguf_kv *tokens = lsi_gguf_find(g, KEY("tokens"));
    const struct lsi_gguf_kv *types = lsi_gguf_find(g, KEY("token_type"));
    if (!tokens || tokens->type != LSI_GGUF_ARRAY || tokens->elem_type != LSI_GGUF_STRING ||
        tokens->count == 0)
        return lsi_fail(err, LS_E_FORMAT, KEY("tokens") " is missing, empty or no array of strings");
    if (tokens->count > LSI_TOKENS_MAX)
        return lsi_fail(err, LS_E_LIMIT, KEY("tokens") " has %llu entries (limit %u)",
                        (unsigned long long)tokens->count, LSI_TOKENS_MAX);
    if (types && (types->type != LSI_GGUF_ARRAY || types->count != tokens->count))
        return lsi_fail(err, LS_E_FORMAT, KEY("token_type") " has %llu entries, but there are %llu tokens",
                        (unsigned long long)types->count, (unsigned long long)tokens->count);
    /* Each string has eight bytes of length in front: what is left bounds the text. */
    if (!lsi_vocab_reserve(t, tokens->count, tokens->bytes - lsi_min_size(tokens->bytes, tokens->count * 8)))
        return lsi_fail(err, LS_E_NOMEM, "no memory for %llu tokens", (unsigned long long)tokens->count);
    size_t cursor = 0, id = 0;
    for (struct lsi_str s; lsi_gguf_next_str(tokens, &cursor, &s); id++) {
        int64_t type = LSI_TOKEN_NORMAL;
        if (types &&
            (!lsi_gguf_elem_i64(types, id, &type) || type < LSI_TOKEN_NORMAL || type > LSI_TOKEN_BYTE))
            type = LSI_TOKEN_NORMAL;
        if (type == LSI_TOKEN_NORMAL && lsi_is_stop_text(s.s, s.len))
            type = LSI_TOKEN_CONTROL; /* files that forgot to say so are common */
        if (!lsi_vocab_set_surface(t, id, s.s, s.len, (enum lsi_token_type)type))
            return lsi_fail(err, LS_E_NOMEM, "no memory for token %zu of %zu bytes", id, s.len);
        if (type == LSI_TOKEN_CONTROL || type == LSI_TOKEN_USER || type == LSI_TOKEN_UNKNOWN) {
            const struct lsi_added a = { .id = (int32_t)id, .special = type != LSI_TOKEN_USER };
            if (!lsi_added_push(t, &a, s.s, s.len))
                return lsi_fail(err, LS_E_NOMEM, "no memory for token %zu", id);
        }
    }
    return LS_OK;
}

static ls_status read_scores(ls_tokenizer *t, const struct lsi_gguf *g, ls_error *err)
{
    const struct lsi_gguf_kv *scores = lsi_gguf_find(g, KEY("scores"));
    if (!scores || scores->type != LSI_GGUF_ARRAY || scores->count != t->n_tokens)
        return lsi_fail(err, LS_E_FORMAT, KEY("scores") " must have one number for each of the %zu tokens",
                        t->n_tokens);
    t->scores = lsi_alloc(t->alloc, t->n_tokens * sizeof *t->scores);
    if (!t->scores)
        return lsi_fail(err, LS_E_NOMEM, "no memory for %zu scores", t->n_tokens);
    t->cap_scores = t->n_tokens;
    if (scores->elem_type == LSI_GGUF_F32 && scores->bytes == t->n_tokens * sizeof(float)) {
        memcpy(t->scores, scores->data, scores->bytes);
        return LS_OK;
    }
    for (size_t i = 0; i < t->n_tokens; i++) {
        double v;
        if (!lsi_gguf_elem_f64(scores, i, &v))
            return lsi_fail(err, LS_E_FORMAT, KEY("scores") " is no array of numbers");
        t->scores[i] = (float)v;
    }
    return LS_OK;
}

static ls_status read_merges(ls_tokenizer *t, const struct lsi_gguf *g, ls_error *err)
{
    const struct lsi_gguf_kv *merges = lsi_gguf_find(g, KEY("merges"));
    if (!merges || merges->type != LSI_GGUF_ARRAY || merges->elem_type != LSI_GGUF_STRING)
        return lsi_fail(err, LS_E_FORMAT, KEY("merges") " is missing or no array of strings");
    if (merges->count > UINT32_MAX - 1 || !lsi_merges_reserve(t, merges->count))
        return lsi_fail(err, LS_E_NOMEM, "no memory for %llu merges", (unsigned long long)merges->count);
    size_t cursor = 0;
    uint32_t rank = 0;
    for (struct lsi_str s; lsi_gguf_next_str(merges, &cursor, &s); rank++) {
        const char *space = s.len > 1 ? memchr(s.s + 1, ' ', s.len - 1) : NULL;
        if (!space)
            return lsi_fail(err, LS_E_FORMAT, KEY("merges") "[%u]: no space between two parts", rank);
        const size_t left = (size_t)(space - s.s);
        if (!lsi_merges_add(t, s.s, left, space + 1, s.len - left - 1, rank))
            return lsi_fail(err, LS_E_NOMEM, "no memory for merge %u", rank);
    }
    return LS_OK;
}

static void read_id(const ls_tokenizer *t, const struct lsi_gguf *g, const char *key, int32_t *id)
{
    uint64_t v;
    if (lsi_gguf_get_u64(g, key, &v) && v < t->n_tokens)
        *id = (int32_t)v;
    if (*id >= 0 && (size_t)*id >= t->n_tokens)
        *id = -1;
}

static ls_status read_rules(ls_tokenizer *t, const struct lsi_gguf *g, ls_error *err)
{
    bool prefix = !t->byte_level && t->scores;
    lsi_gguf_get_bool(g, KEY("add_space_prefix"), &prefix);
    if (!t->byte_level) {
        t->prefix_space = prefix ? LSI_PREFIX_ALWAYS : LSI_PREFIX_NEVER;
        t->strip_space = prefix;
        snprintf(t->split_name, sizeof t->split_name, "none");
        if (!t->scores) /* merges never cross lines in these vocabularies */
            return lsi_split_pattern(t, "[^\\n]+|[\\n]+", 12, false, LSI_SPLIT_ISOLATED, false, err);
        return LS_OK;
    }
    struct lsi_str pre = { "default", 7 };
    lsi_gguf_get_str(g, KEY("pre"), &pre);
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)lsi_min_size(pre.len, sizeof name - 1), pre.s);
    bool known;
    LSI_TRY(lsi_split_named(t, name, &known, err));
    if (!known) {
        snprintf(
            t->warning, sizeof t->warning,
            "the file's rule for splitting text (" KEY("pre") " = \"%s\") is not known; GPT-2's is used and "
                                                              "answers may suffer",
            name);
        snprintf(t->split_name, sizeof t->split_name, "default");
        lsi_split_push(t, LSI_SPLIT_GPT2);
    }
    t->ignore_merges = t->splits[0].kind == LSI_SPLIT_LLAMA3 || strcmp(name, "tekken") == 0;
    if (strcmp(t->split_name, "qwen2") == 0)
        t->norms[t->n_norms++] = (struct lsi_norm){ .kind = LSI_NORM_NFC };
    return LS_OK;
}

static void read_roles(ls_tokenizer *t, const struct lsi_gguf *g)
{
    t->bos = t->byte_level ? 11 : 1;
    t->eos = t->byte_level ? 11 : 2;
    t->unk = t->byte_level ? -1 : 0;
    t->add_bos = !t->byte_level || (t->n_splits && t->splits[0].kind == LSI_SPLIT_LLAMA3);
    read_id(t, g, KEY("bos_token_id"), &t->bos);
    read_id(t, g, KEY("eos_token_id"), &t->eos);
    read_id(t, g, KEY("unknown_token_id"), &t->unk);
    read_id(t, g, KEY("padding_token_id"), &t->pad);
    lsi_gguf_get_bool(g, KEY("add_bos_token"), &t->add_bos);
    lsi_gguf_get_bool(g, KEY("add_eos_token"), &t->add_eos);
    static const char *const stops[] = { KEY("eot_token_id"), KEY("eom_token_id") };
    for (size_t i = 0; i < LSI_LEN(stops); i++) {
        int32_t id = -1;
        read_id(t, g, stops[i], &id);
        lsi_mark_stop(t, id);
    }
    lsi_mark_stops(t);
}

ls_status lsi_tokenizer_from_gguf(const struct lsi_gguf *g, const ls_alloc *alloc, ls_tokenizer **tok,
                                  ls_error *err)
{
    ls_tokenizer *t;
    *tok = NULL;
    LSI_TRY(lsi_tokenizer_new(alloc, &t, err));
    ls_status st;
    LSI_TRY_OR(fail, read_kind(t, g, err));
    LSI_TRY_OR(fail, read_tokens(t, g, err));
    if (!lsi_vocab_index(t)) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the index of %zu tokens", t->n_tokens);
        goto fail;
    }
    if (t->byte_level || lsi_gguf_find(g, KEY("merges")))
        LSI_TRY_OR(fail, read_merges(t, g, err));
    else
        LSI_TRY_OR(fail, read_scores(t, g, err));
    LSI_TRY_OR(fail, read_rules(t, g, err));
    if ((!t->byte_level && !lsi_vocab_note_seams(t)) || !lsi_added_index(t)) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the tokenizer's tables");
        goto fail;
    }
    read_roles(t, g);
    struct lsi_str tmpl;
    if (lsi_gguf_get_str(g, "tokenizer.chat_template", &tmpl) && tmpl.len &&
        !memchr(tmpl.s, '\0', tmpl.len)) {
        t->chat_template = lsi_strndup(t->alloc, tmpl.s, tmpl.len);
        if (!t->chat_template) {
            st = lsi_fail(err, LS_E_NOMEM, "no memory for the chat template");
            goto fail;
        }
    }
    *tok = t;
    return LS_OK;
fail:
    ls_tokenizer_close(t);
    return st;
}

/* ---- writing --------------------------------------------------------------------- */

static void put_tokens(const ls_tokenizer *t, struct lsi_gguf_writer *w, struct lsi_buf *b)
{
    lsi_gguf_put_array(w, KEY("tokens"), LSI_GGUF_STRING, t->n_tokens);
    for (size_t id = 0; id < t->n_tokens; id++) {
        b->len = 0;
        if (t->tokens[id].len == 0) /* a slot without a token */
            lsi_buf_printf(b, "[PAD%zu]", id);
        else
            lsi_vocab_surface(t, id, b);
        lsi_gguf_elem_put_str(w, b->data, b->len);
    }
    lsi_gguf_put_array(w, KEY("token_type"), LSI_GGUF_I32, t->n_tokens);
    for (size_t id = 0; id < t->n_tokens; id++)
        lsi_gguf_elem_put_i32(w, id == (size_t)t->unk && !t->byte_level ? LSI_TOKEN_UNKNOWN
                                                                        : (int32_t)t->tokens[id].type);
}

static void put_merges(const ls_tokenizer *t, struct lsi_gguf_writer *w, const struct lsi_merge_row *rows,
                       size_t n, struct lsi_buf *b)
{
    lsi_gguf_put_array(w, KEY("merges"), LSI_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        b->len = 0;
        lsi_vocab_surface(t, (size_t)rows[i].left, b);
        lsi_buf_append(b, " ", 1);
        lsi_vocab_surface(t, (size_t)rows[i].right, b);
        lsi_gguf_elem_put_str(w, b->data, b->len);
    }
}

/* Scores that merge in the order of the ranks; what no merge makes comes last. */
static ls_status put_scores(const ls_tokenizer *t, struct lsi_gguf_writer *w,
                            const struct lsi_merge_row *rows, size_t n, ls_error *err)
{
    float *made = NULL;
    const float *scores = t->scores;
    if (!scores) {
        made = lsi_alloc(t->alloc, t->n_tokens * sizeof *made);
        if (!made)
            return lsi_fail(err, LS_E_NOMEM, "no memory for %zu scores", t->n_tokens);
        for (size_t id = 0; id < t->n_tokens; id++)
            made[id] = -1e9f;
        for (size_t i = n; i > 0; i--)
            made[rows[i - 1].id] = -(float)(i - 1);
        scores = made;
    }
    lsi_gguf_put_array(w, KEY("scores"), LSI_GGUF_F32, t->n_tokens);
    for (size_t id = 0; id < t->n_tokens; id++)
        lsi_gguf_elem_put_f32(w, scores[id]);
    lsi_free(t->alloc, made, t->n_tokens * sizeof *made);
    return LS_OK;
}

static void put_roles(const ls_tokenizer *t, struct lsi_gguf_writer *w)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = { { KEY("bos_token_id"), t->bos },
                { KEY("eos_token_id"), t->eos },
                { KEY("unknown_token_id"), t->unk },
                { KEY("padding_token_id"), t->pad } };
    for (size_t i = 0; i < LSI_LEN(ids); i++)
        if (ids[i].id >= 0)
            lsi_gguf_put_u32(w, ids[i].key, (uint32_t)ids[i].id);
    lsi_gguf_put_bool(w, KEY("add_bos_token"), ls_tokenizer_adds_bos(t));
    lsi_gguf_put_bool(w, KEY("add_eos_token"), t->add_eos && t->eos >= 0);
    lsi_gguf_put_bool(w, KEY("add_space_prefix"), t->prefix_space != LSI_PREFIX_NEVER);
    /* Spellings that end an answer are known to readers; another one has a key. */
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->tokens[id].stop && (int32_t)id != t->eos) {
            lsi_gguf_put_u32(w, KEY("eot_token_id"), (uint32_t)id);
            break;
        }
    }
    if (t->chat_template)
        lsi_gguf_put_str(w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
}

ls_status lsi_tokenizer_write_gguf(const ls_tokenizer *t, struct lsi_gguf_writer *w, ls_error *err)
{
    const bool nfc =
        t->n_norms == 1 && t->norms[0].kind == LSI_NORM_NFC && strcmp(t->split_name, "qwen2") == 0;
    bool named = !t->byte_level ? t->n_splits == 0 || t->splits[0].kind == LSI_SPLIT_SPACE
                                : strcmp(t->split_name, "regex") != 0 && strcmp(t->split_name, "none") != 0;
    if (!named || (t->n_norms && !nfc))
        return lsi_fail(
            err, LS_E_UNSUPPORTED,
            "GGUF has no name for this tokenizer's way of splitting and normalising text; keep the "
            "Hugging Face directory form");
    struct lsi_merge_row *rows = NULL;
    size_t n = 0;
    if (t->merges)
        LSI_TRY(lsi_merges_list(t, &rows, &n, err));
    struct lsi_buf b;
    lsi_buf_init(&b, t->alloc, LSI_TOKEN_MAX_BYTES * (size_t)4);
    ls_status st = LS_OK;
    lsi_gguf_put_str(w, KEY("model"), t->byte_level ? "gpt2" : "llama", t->byte_level ? 4 : 5);
    const char *pre = t->byte_level ? t->split_name : "default";
    lsi_gguf_put_str(w, KEY("pre"), pre, strlen(pre));
    put_tokens(t, w, &b);
    if (t->byte_level)
        put_merges(t, w, rows, n, &b);
    else
        st = put_scores(t, w, rows, n, err);
    if (st == LS_OK)
        put_roles(t, w);
    if (st == LS_OK && b.failed)
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the tokenizer's texts");
    lsi_buf_fini(&b);
    lsi_free(t->alloc, rows, n * sizeof *rows);
    return st;
}

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

static bool is_stop_text(const char *s, size_t len)
{
    return (len == 10 && memcmp(s, "<|eot_id|>", 10) == 0) ||
           (len == 10 && memcmp(s, "<|im_end|>", 10) == 0) || (len == 7 && memcmp(s, "<|end|>", 7) == 0) ||
           (len == 13 && memcmp(s, "<end_of_turn>", 13) == 0) ||
           (len == 13 && memcmp(s, "<|endoftext|>", 13) == 0) ||
           (len == 10 && memcmp(s, "<|eom_id|>", 10) == 0);
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
        if (type == LSI_TOKEN_NORMAL && is_stop_text(s.s, s.len))
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

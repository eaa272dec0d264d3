/*
 * The tokenizer of a Hugging Face directory: tokenizer.json (or tokenizer.model), and around it the roles of
 * tokens, the ids that end an answer and the chat template, which are spread over several files.
 */
#include "tokenizer/tokenizer_json.h"

#include <stdio.h>
#include <string.h>

#define SMALL_FILE_MAX ((size_t)64 << 20)

struct settings {
    ls_tokenizer *t;
    struct lsi_json_text text;
    bool add_bos_seen, add_bos, add_eos_seen, add_eos;
    bool llama_class; /* a class that builds its post-processor from add_bos_token */
};

/* "text", {"content": "text", …} or null. The id, -1 if it is no token. */
static ls_status read_role(struct settings *s, struct lsi_json *j, int32_t *id)
{
    struct lsi_json_str key;
    switch (lsi_json_peek(j)) {
    case LSI_JSON_STRING:
        LSI_TRY(lsi_json_read_text(j, &s->text));
        break;
    case LSI_JSON_OBJECT:
        s->text.len = 0;
        LSI_TRY(lsi_json_object(j));
        while (lsi_json_next_key(j, &key))
            LSI_TRY(lsi_json_str_is(&key, "content") ? lsi_json_read_text(j, &s->text) : lsi_json_skip(j));
        LSI_TRY(j->status);
        break;
    default:
        return lsi_json_skip(j);
    }
    const int32_t found = s->text.len ? ls_tokenizer_find(s->t, s->text.s, s->text.len) : -1;
    if (found >= 0)
        *id = found;
    return LS_OK;
}

static ls_status set_template(struct settings *s, struct lsi_json *j)
{
    ls_tokenizer *t = s->t;
    if (s->text.len == 0 || memchr(s->text.s, '\0', s->text.len))
        return LS_OK;
    if (t->chat_template)
        lsi_free(t->alloc, t->chat_template, strlen(t->chat_template) + 1);
    t->chat_template = lsi_strndup(t->alloc, s->text.s, s->text.len);
    return t->chat_template ? LS_OK : lsi_fail(j->err, LS_E_NOMEM, "no memory for the chat template");
}

/* A text, or a list of {name, template} of which "default" counts. */
static ls_status read_template(struct settings *s, struct lsi_json *j)
{
    if (lsi_json_peek(j) == LSI_JSON_STRING) {
        LSI_TRY(lsi_json_read_text(j, &s->text));
        return set_template(s, j);
    }
    if (lsi_json_peek(j) != LSI_JSON_ARRAY)
        return lsi_json_skip(j);
    LSI_TRY(lsi_json_array(j));
    while (lsi_json_next_elem(j)) {
        struct lsi_json_str key, name = { 0 }, text = { 0 };
        LSI_TRY(lsi_json_object(j));
        while (lsi_json_next_key(j, &key)) {
            if (lsi_json_str_is(&key, "name"))
                LSI_TRY(lsi_json_string(j, &name));
            else if (lsi_json_str_is(&key, "template"))
                LSI_TRY(lsi_json_string(j, &text));
            else
                LSI_TRY(lsi_json_skip(j));
        }
        LSI_TRY(j->status);
        if (name.raw && text.raw && lsi_json_str_is(&name, "default")) {
            LSI_TRY(lsi_json_resolve(j, &text, &s->text));
            LSI_TRY(set_template(s, j));
        }
    }
    return j->status;
}

/* tokenizer_config.json and special_tokens_map.json: the first file that names a role decides. */
static ls_status read_roles(struct settings *s, struct lsi_json *j)
{
    ls_tokenizer *t = s->t;
    struct lsi_json_str key;
    int32_t bos = -1, eos = -1, unk = -1, pad = -1;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        int32_t *role = lsi_json_str_is(&key, "bos_token")   ? &bos
                        : lsi_json_str_is(&key, "eos_token") ? &eos
                        : lsi_json_str_is(&key, "unk_token") ? &unk
                        : lsi_json_str_is(&key, "pad_token") ? &pad
                                                             : NULL;
        const bool is_bool = lsi_json_peek(j) == LSI_JSON_BOOL;
        if (role) {
            LSI_TRY(read_role(s, j, role));
        } else if (lsi_json_str_is(&key, "add_bos_token") && is_bool) {
            LSI_TRY(lsi_json_bool(j, &s->add_bos));
            s->add_bos_seen = true;
        } else if (lsi_json_str_is(&key, "add_eos_token") && is_bool) {
            LSI_TRY(lsi_json_bool(j, &s->add_eos));
            s->add_eos_seen = true;
        } else if (lsi_json_str_is(&key, "chat_template")) {
            LSI_TRY(read_template(s, j));
        } else if (lsi_json_str_is(&key, "tokenizer_class") && lsi_json_peek(j) == LSI_JSON_STRING) {
            LSI_TRY(lsi_json_read_text(j, &s->text));
            s->llama_class =
                memmem(s->text.s, s->text.len, "Llama", 5) || memmem(s->text.s, s->text.len, "Gemma", 5);
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    LSI_TRY(lsi_json_end(j));
    t->bos = t->bos < 0 ? bos : t->bos;
    t->eos = t->eos < 0 ? eos : t->eos;
    t->unk = t->unk < 0 ? unk : t->unk;
    t->pad = t->pad < 0 ? pad : t->pad;
    return LS_OK;
}

static ls_status read_stop(struct settings *s, struct lsi_json *j)
{
    int64_t id;
    LSI_TRY(lsi_json_int(j, &id));
    if (id >= 0 && (uint64_t)id < s->t->n_tokens) {
        lsi_mark_stop(s->t, (int32_t)id);
        if (s->t->eos < 0)
            s->t->eos = (int32_t)id;
    }
    return LS_OK;
}

/* generation_config.json and config.json: eos_token_id is a number or a list. */
static ls_status read_stops(struct settings *s, struct lsi_json *j)
{
    struct lsi_json_str key;
    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        const enum lsi_json_type type = lsi_json_peek(j);
        const bool eos = lsi_json_str_is(&key, "eos_token_id");
        int64_t id;
        if (eos && type == LSI_JSON_NUMBER) {
            LSI_TRY(read_stop(s, j));
        } else if (eos && type == LSI_JSON_ARRAY) {
            LSI_TRY(lsi_json_array(j));
            while (lsi_json_next_elem(j))
                LSI_TRY(read_stop(s, j));
        } else if (lsi_json_str_is(&key, "bos_token_id") && type == LSI_JSON_NUMBER) {
            LSI_TRY(lsi_json_int(j, &id));
            if (s->t->bos < 0 && id >= 0 && (uint64_t)id < s->t->n_tokens)
                s->t->bos = (int32_t)id;
        } else {
            LSI_TRY(lsi_json_skip(j));
        }
    }
    return lsi_json_end(j);
}

typedef ls_status reader_fn(struct settings *s, struct lsi_json *j);

/* A file that may be missing. */
static ls_status read_file(struct settings *s, const char *dir, const char *name, reader_fn *fn,
                           ls_error *err)
{
    char path[4096];
    struct lsi_map m;
    if (!lsi_path_join(path, sizeof path, dir, name) || !lsi_path_exists(path))
        return LS_OK;
    LSI_TRY(lsi_map_read(&m, path, SMALL_FILE_MAX, s->t->alloc, err));
    struct lsi_json j;
    lsi_json_init(&j, m.data, m.bytes, path, err);
    const ls_status st = fn(s, &j);
    lsi_map_close(&m);
    return st;
}

/* The template in a file of its own takes precedence. */
static ls_status read_jinja(struct settings *s, const char *dir, ls_error *err)
{
    char path[4096];
    struct lsi_map m;
    if (!lsi_path_join(path, sizeof path, dir, "chat_template.jinja") || !lsi_path_exists(path))
        return LS_OK;
    LSI_TRY(lsi_map_read(&m, path, SMALL_FILE_MAX, s->t->alloc, err));
    const struct lsi_json_text keep = s->text;
    struct lsi_json j = { .err = err };
    s->text.s = (const char *)m.data;
    s->text.len = m.bytes;
    const ls_status st = set_template(s, &j);
    s->text = keep;
    lsi_map_close(&m);
    return st;
}

static ls_status read_settings(struct settings *s, const char *dir, ls_error *err)
{
    ls_tokenizer *t = s->t;
    LSI_TRY(read_file(s, dir, "tokenizer_config.json", read_roles, err));
    LSI_TRY(read_file(s, dir, "special_tokens_map.json", read_roles, err));
    LSI_TRY(read_file(s, dir, "generation_config.json", read_stops, err));
    LSI_TRY(read_file(s, dir, "config.json", read_stops, err));
    LSI_TRY(read_jinja(s, dir, err));
    if (s->add_bos_seen && (s->add_bos || s->llama_class))
        t->add_bos = s->add_bos;
    if (s->add_eos_seen && (s->add_eos || s->llama_class))
        t->add_eos = s->add_eos;
    lsi_mark_stops(t);
    return LS_OK;
}

ls_status lsi_tokenizer_from_dir(const char *dir, const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err)
{
    static const struct {
        const char *name;
        ls_status (*open)(const void *, size_t, const char *, const ls_alloc *, ls_tokenizer **, ls_error *);
    } forms[] = { { "tokenizer.json", lsi_tokenizer_from_json },
                  { "tokenizer.model", lsi_tokenizer_from_sentencepiece } };
    char path[4096];
    *tok = NULL;
    for (size_t i = 0; i < LSI_LEN(forms); i++) {
        struct lsi_map m;
        if (!lsi_path_join(path, sizeof path, dir, forms[i].name))
            return lsi_fail(err, LS_E_INVAL, "the path %.100s… is too long", dir);
        if (!lsi_path_exists(path))
            continue;
        LSI_TRY(lsi_map_open(&m, path, err));
        ls_status st = forms[i].open(m.data, m.bytes, path, alloc, tok, err);
        lsi_map_close(&m);
        if (st != LS_OK)
            return st;
        struct settings s = { .t = *tok, .text = { .alloc = (*tok)->alloc } };
        st = read_settings(&s, dir, err);
        lsi_json_text_fini(&s.text);
        if (st != LS_OK) {
            ls_tokenizer_close(*tok);
            *tok = NULL;
        }
        return st;
    }
    return lsi_fail(err, LS_E_IO, "%s: there is neither tokenizer.json nor tokenizer.model", dir);
}

/* The object: creation, release, questions. */
#include "tokenizer/tokenizer.h"

#include "formats/gguf.h"
#include "formats/model_path.h"

#include <string.h>

ls_status lsi_tokenizer_new(const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err)
{
    alloc = lsi_alloc_or_default(alloc);
    ls_tokenizer *t = lsi_calloc(alloc, 1, sizeof *t);
    *tok = t;
    if (!t)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a tokenizer");
    t->alloc = alloc;
    lsi_buf_init(&t->text, alloc, UINT32_MAX);
    lsi_buf_init(&t->added_text, alloc, UINT32_MAX);
    t->bos = t->eos = t->unk = t->pad = -1;
    return LS_OK;
}

void ls_tokenizer_close(ls_tokenizer *t)
{
    if (!t)
        return;
    const ls_alloc *a = t->alloc;
    lsi_free(a, t->tokens, t->cap_tokens * sizeof *t->tokens);
    lsi_buf_fini(&t->text);
    lsi_free(a, t->scores, t->cap_scores * sizeof *t->scores);
    lsi_free(a, t->index, t->index_cap * sizeof *t->index);
    lsi_free(a, t->merges, t->merges_cap * sizeof *t->merges);
    lsi_free(a, t->seam_bits, LSI_SEAM_BYTES);
    lsi_free(a, t->added, t->cap_added * sizeof *t->added);
    lsi_buf_fini(&t->added_text);
    lsi_free(a, t->raw_trie.nodes, t->raw_trie.cap * sizeof *t->raw_trie.nodes);
    lsi_free(a, t->norm_trie.nodes, t->norm_trie.cap * sizeof *t->norm_trie.nodes);
    for (size_t i = 0; i < t->n_splits; i++)
        lsi_regex_free(t->splits[i].regex);
    if (t->chat_template)
        lsi_free(a, t->chat_template, strlen(t->chat_template) + 1);
    lsi_free(a, t, sizeof *t);
}

static bool has_file(const char *dir, const char *name)
{
    char path[LSI_MODEL_PATH];
    return lsi_path_join(path, sizeof path, dir, name) && lsi_path_exists(path);
}

ls_status ls_tokenizer_open(const char *path, const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err)
{
    char found[LSI_MODEL_PATH];
    *tok = NULL;
    /* A directory may hold a tokenizer and no model. */
    if (has_file(path, "tokenizer.json") || has_file(path, "tokenizer.model"))
        return lsi_tokenizer_from_dir(path, alloc, tok, err);
    LSI_TRY(lsi_model_path(path, found, err));
    if (lsi_path_is_dir(found))
        return lsi_tokenizer_from_dir(found, alloc, tok, err);
    struct lsi_gguf g;
    LSI_TRY(lsi_gguf_open(&g, found, alloc, err));
    const ls_status st = lsi_tokenizer_from_gguf(&g, alloc, tok, err);
    lsi_gguf_close(&g);
    if (st != LS_OK)
        lsi_error_prefix(err, "%s", found);
    return st;
}

size_t ls_tokenizer_n_vocab(const ls_tokenizer *t)
{
    return t->n_tokens;
}

const char *ls_tokenizer_kind(const ls_tokenizer *t)
{
    return t->byte_level ? "bpe" : "spm";
}

const char *ls_tokenizer_split(const ls_tokenizer *t)
{
    return t->split_name;
}

int32_t ls_tokenizer_bos(const ls_tokenizer *t)
{
    return t->bos;
}

int32_t ls_tokenizer_eos(const ls_tokenizer *t)
{
    return t->eos;
}

bool ls_tokenizer_adds_bos(const ls_tokenizer *t)
{
    return t->add_bos && t->bos >= 0;
}

bool ls_tokenizer_is_stop(const ls_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_tokens && t->tokens[id].stop;
}

bool ls_tokenizer_is_control(const ls_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_tokens &&
           (t->tokens[id].type == LSI_TOKEN_CONTROL || t->tokens[id].type == LSI_TOKEN_UNKNOWN);
}

int32_t ls_tokenizer_find(const ls_tokenizer *t, const char *text, size_t len)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].len == len && memcmp(t->added_text.data + t->added[i].off, text, len) == 0)
            return t->added[i].id;
    return lsi_vocab_find_any(t, text, len);
}

const char *ls_tokenizer_chat_template(const ls_tokenizer *t)
{
    return t->chat_template;
}

const char *ls_tokenizer_warning(const ls_tokenizer *t)
{
    return t->warning[0] ? t->warning : NULL;
}

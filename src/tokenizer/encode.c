/* Text to ids: added tokens, normalisation, pieces, merges. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#define TEXT_MAX ((size_t)1 << 30)

struct encoder {
    const ls_tokenizer *t;
    struct lsi_bpe *bpe;
    struct lsi_buf norm; /* normalised stretches; pieces that lie in it are remembered by address */
    ls_error *err;
};

static bool take_piece(void *ctx, const char *s, size_t len)
{
    return lsi_bpe_piece(ctx, s, len);
}

static ls_status no_memory(struct encoder *e)
{
    return lsi_fail(e->err, LS_E_NOMEM, "no memory to tokenise the text");
}

/* A stretch after normalisation: the added tokens that are matched in normalised text, then pieces. */
static ls_status encode_normalized(struct encoder *e, const char *s, size_t len)
{
    for (size_t at = 0; at < len;) {
        const struct lsi_match m = lsi_added_next(e->t, &e->t->norm_trie, s, len, at, false, NULL, 0);
        LSI_TRY(lsi_split_run(e->t, s + at, m.begin - at, take_piece, e->bpe, e->err));
        if (m.added < 0)
            break;
        if (!lsi_bpe_put(e->bpe, e->t->added[m.added].id))
            return no_memory(e);
        at = m.end;
    }
    return LS_OK;
}

static ls_status encode_stretch(struct encoder *e, const char *s, size_t len, bool first)
{
    lsi_bpe_break(e->bpe);
    if (len == 0)
        return LS_OK;
    if (lsi_normalize_is_identity(e->t, s, len, first))
        return encode_normalized(e, s, len);
    const char *before = e->norm.data;
    const size_t at = e->norm.len;
    LSI_TRY(lsi_normalize(e->t, s, len, first, &e->norm, e->err));
    if (before && before != e->norm.data)
        lsi_bpe_forget(e->bpe);
    if (e->norm.len == at) /* normalised away: the buffer may not even exist */
        return LS_OK;
    return encode_normalized(e, e->norm.data + at, e->norm.len - at);
}

ls_status ls_tokenizer_encode_ranges(const ls_tokenizer *t, const char *text, size_t len, unsigned flags,
                                     const ls_byte_range *plain, size_t n_plain, int32_t **ids, size_t *n_ids,
                                     size_t *n_dropped, ls_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    if (len > TEXT_MAX)
        return lsi_fail(err, LS_E_LIMIT, "a text of %zu bytes is too long to tokenise at once (limit %zu)",
                        len, TEXT_MAX);
    const bool add = flags & LS_ENCODE_ADD_SPECIAL, special = flags & LS_ENCODE_PARSE_SPECIAL;
    ls_status st = LS_OK;
    struct encoder e = { .t = t, .err = err };
    lsi_buf_init(&e.norm, t->alloc, TEXT_MAX * 3);
    e.bpe = lsi_bpe_new(t, len);
    if (!e.bpe || (add && t->add_bos && t->bos >= 0 && !lsi_bpe_put(e.bpe, t->bos))) {
        st = no_memory(&e);
        goto done;
    }
    for (size_t at = 0; at < len;) {
        const struct lsi_match m = lsi_added_next(t, &t->raw_trie, text, len, at, special, plain, n_plain);
        LSI_TRY_OR(done, encode_stretch(&e, text + at, m.begin - at, at == 0));
        if (m.added < 0)
            break;
        if (!lsi_bpe_put(e.bpe, t->added[m.added].id)) {
            st = no_memory(&e);
            goto done;
        }
        at = m.end;
    }
    if (add && t->add_eos && t->eos >= 0 && !lsi_bpe_put(e.bpe, t->eos)) {
        st = no_memory(&e);
        goto done;
    }
    if (n_dropped)
        *n_dropped = lsi_bpe_dropped(e.bpe);
    if (!lsi_bpe_take(e.bpe, ids, n_ids))
        st = no_memory(&e);
done:
    lsi_bpe_free(e.bpe);
    lsi_buf_fini(&e.norm);
    return st;
}

ls_status ls_tokenizer_encode(const ls_tokenizer *t, const char *text, size_t len, unsigned flags,
                              int32_t **ids, size_t *n_ids, ls_error *err)
{
    return ls_tokenizer_encode_ranges(t, text, len, flags, NULL, 0, ids, n_ids, NULL, err);
}

void ls_tokenizer_ids_free(const ls_tokenizer *t, int32_t *ids, size_t n_ids)
{
    lsi_free(t->alloc, ids, n_ids * sizeof *ids);
}

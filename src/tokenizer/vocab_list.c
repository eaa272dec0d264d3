/* The vocabulary as files spell it: token texts and the list of merges. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

bool lsi_vocab_surface(const ls_tokenizer *t, size_t id, struct lsi_buf *out)
{
    const struct lsi_token *k = &t->tokens[id];
    const char *s = lsi_token_text(t, id);
    if (k->type == LSI_TOKEN_BYTE)
        return lsi_buf_printf(out, "<0x%02X>", (unsigned)(unsigned char)s[0]);
    const bool as_it_is =
        k->type == LSI_TOKEN_CONTROL || k->type == LSI_TOKEN_USER || k->type == LSI_TOKEN_UNKNOWN;
    if (as_it_is || !(t->byte_level || t->space_is_meta))
        return lsi_buf_append(out, s, k->len);
    for (size_t i = 0; i < k->len; i++) {
        char u[4];
        if (t->byte_level)
            lsi_buf_append(out, u, lsi_utf8_encode(lsi_byte_letter((unsigned char)s[i]), u));
        else if (s[i] == ' ')
            lsi_buf_append(out, "\xe2\x96\x81", 3);
        else
            lsi_buf_append(out, s + i, 1);
    }
    return !out->failed;
}

static int by_rank(const void *a, const void *b)
{
    const struct lsi_merge_row *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Order of equal results: by the ids of the parts. */
static int by_parts(const void *a, const void *b)
{
    const struct lsi_merge_row *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

struct rows {
    const ls_tokenizer *t;
    struct lsi_merge_row *p;
    size_t n, cap;
};

static bool rows_push(struct rows *r, struct lsi_merge_row row)
{
    struct lsi_merge_row *p = lsi_grow(r->t->alloc, r->p, r->n, &r->cap, 4096, sizeof *p);
    if (!p)
        return false;
    r->p = p;
    r->p[r->n++] = row;
    return true;
}

static int32_t find_normal(const ls_tokenizer *t, const char *s, size_t len)
{
    const int32_t id = lsi_vocab_find(t, s, len);
    return id >= 0 && t->tokens[id].type == LSI_TOKEN_NORMAL ? id : -1;
}

/* Highest score first as an increasing key. */
static uint32_t key_of(float score)
{
    uint32_t u;
    memcpy(&u, &score, sizeof u);
    return ~(u & 0x80000000u ? ~u : u | 0x80000000u);
}

/* Every way to join two tokens into a third, best score first: what merging by score does, spelled out. */
static bool rows_from_scores(struct rows *r)
{
    const ls_tokenizer *t = r->t;
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->tokens[id].type != LSI_TOKEN_NORMAL)
            continue;
        const char *s = lsi_token_text(t, id);
        const size_t len = t->tokens[id].len;
        uint32_t cp;
        if (find_normal(t, s, len) != (int32_t)id)
            continue; /* a second token of the same text is never produced */
        for (size_t i = lsi_char_at(s, len ? len : 1, &cp); i < len; i += lsi_char_at(s + i, len - i, &cp)) {
            const struct lsi_merge_row row = { find_normal(t, s, i), find_normal(t, s + i, len - i),
                                               (int32_t)id, key_of(t->scores[id]) };
            if (row.left >= 0 && row.right >= 0 && !rows_push(r, row))
                return false;
        }
    }
    if (r->n)
        qsort(r->p, r->n, sizeof *r->p, by_parts);
    for (size_t i = 0; i < r->n; i++)
        r->p[i].rank = (uint32_t)i;
    return true;
}

ls_status lsi_merges_list(const ls_tokenizer *t, struct lsi_merge_row **rows, size_t *n, ls_error *err)
{
    struct rows r = { .t = t };
    bool ok = true;
    if (t->merges) {
        for (size_t i = 0; ok && i < t->merges_cap; i++) {
            const struct lsi_merge *m = &t->merges[i];
            if (m->pair != UINT64_MAX)
                ok = rows_push(&r,
                               (struct lsi_merge_row){ (int32_t)(m->pair >> 32), (int32_t)(uint32_t)m->pair,
                                                       (int32_t)m->id, m->rank });
        }
        if (r.n)
            qsort(r.p, r.n, sizeof *r.p, by_rank);
    } else if (t->scores) {
        ok = rows_from_scores(&r);
    }
    /* The caller releases it by its count: no room to spare. */
    struct lsi_merge_row *p = ok ? lsi_alloc(t->alloc, r.n * sizeof *p) : NULL;
    if (p && r.n)
        memcpy(p, r.p, r.n * sizeof *p);
    lsi_free(t->alloc, r.p, r.cap * sizeof *r.p);
    if (!p)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the tokenizer's merges");
    *rows = p;
    *n = r.n;
    return LS_OK;
}

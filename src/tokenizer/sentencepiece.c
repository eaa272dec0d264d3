/* tokenizer.model of SentencePiece: a protobuf message, of which a few fields matter. */
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

/* Bytes of one message. */
struct wire {
    const unsigned char *p, *end;
    bool broken;
};

struct field {
    uint32_t number, type;
    uint64_t value;   /* varint; bits of a 4- or 8-byte value */
    struct wire body; /* of a length-delimited one */
};

static uint64_t varint(struct wire *w)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        const unsigned char b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    w->broken = true;
    return 0;
}

static bool next_field(struct wire *w, struct field *f)
{
    if (w->broken || w->p == w->end)
        return false;
    const uint64_t tag = varint(w);
    *f = (struct field){ .number = (uint32_t)(tag >> 3), .type = (uint32_t)(tag & 7) };
    size_t n = 0;
    switch (f->type) {
    case 0:
        f->value = varint(w);
        return !w->broken;
    case 1:
        n = 8;
        break;
    case 2: {
        const uint64_t len = varint(w);
        if (w->broken || len > (size_t)(w->end - w->p)) {
            w->broken = true;
            return false;
        }
        f->body = (struct wire){ w->p, w->p + len, false };
        w->p += len;
        return true;
    }
    case 5:
        n = 4;
        break;
    default:
        w->broken = true;
        return false;
    }
    if ((size_t)(w->end - w->p) < n) {
        w->broken = true;
        return false;
    }
    for (size_t i = n; i > 0; i--)
        f->value = f->value << 8 | w->p[i - 1];
    w->p += n;
    return !w->broken;
}

struct piece {
    const char *s;
    size_t len;
    float score;
    enum lsi_token_type type;
};

static bool read_piece(struct wire w, struct piece *p)
{
    struct field f;
    *p = (struct piece){ .s = "", .type = LSI_TOKEN_NORMAL };
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.type == 2) {
            p->s = (const char *)f.body.p;
            p->len = (size_t)(f.body.end - f.body.p);
        } else if (f.number == 2 && f.type == 5) {
            const uint32_t bits = (uint32_t)f.value;
            memcpy(&p->score, &bits, sizeof bits);
        } else if (f.number == 3 && f.type == 0 && f.value >= LSI_TOKEN_NORMAL && f.value <= LSI_TOKEN_BYTE) {
            p->type = (enum lsi_token_type)f.value;
        }
    }
    return !w.broken;
}

struct trainer {
    uint64_t model_type;
    int32_t unk, bos, eos, pad;
};

static bool read_trainer(struct wire w, struct trainer *t)
{
    struct field f;
    while (next_field(&w, &f)) {
        if (f.type != 0)
            continue;
        const int32_t id = (int32_t)(uint32_t)f.value;
        switch (f.number) {
        case 3:
            t->model_type = f.value;
            break;
        case 40:
            t->unk = id;
            break;
        case 41:
            t->bos = id;
            break;
        case 42:
            t->eos = id;
            break;
        case 43:
            t->pad = id;
            break;
        default:
            break;
        }
    }
    return !w.broken;
}

struct rules {
    bool prefix, trims, charsmap;
};

static bool read_rules(struct wire w, struct rules *r)
{
    struct field f;
    while (next_field(&w, &f)) {
        if (f.number == 2 && f.type == 2)
            r->charsmap = f.body.p != f.body.end;
        else if (f.number == 3 && f.type == 0)
            r->prefix = f.value;
        else if (f.number == 4 && f.type == 0)
            r->trims = f.value;
    }
    return !w.broken;
}

static ls_status add_piece(ls_tokenizer *t, const struct piece *p, const char *name, ls_error *err)
{
    const size_t id = t->n_tokens;
    float *s = lsi_grow(t->alloc, t->scores, id, &t->cap_scores, 1024, sizeof *s);
    if (!s)
        return lsi_fail(err, LS_E_NOMEM, "%s: no memory for the tokenizer", name);
    t->scores = s;
    t->scores[id] = p->score;
    bool ok = id < LSI_TOKENS_MAX && lsi_vocab_set_surface(t, id, p->s, p->len, p->type);
    if (ok && (p->type == LSI_TOKEN_CONTROL || p->type == LSI_TOKEN_USER || p->type == LSI_TOKEN_UNKNOWN)) {
        const struct lsi_added a = { .id = (int32_t)id, .special = p->type != LSI_TOKEN_USER };
        const struct lsi_token *k = &t->tokens[id];
        ok = lsi_added_push(t, &a, lsi_token_text(t, id), k->len);
    }
    return ok ? LS_OK : lsi_fail(err, LS_E_NOMEM, "%s: no memory for the tokenizer", name);
}

static int32_t in_range(const ls_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_tokens ? id : -1;
}

ls_status lsi_tokenizer_from_sentencepiece(const void *data, size_t bytes, const char *name,
                                           const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err)
{
    ls_tokenizer *t;
    struct wire w = { data, (const unsigned char *)data + bytes, false };
    struct trainer trainer = { .model_type = 1, .unk = 0, .bos = 1, .eos = 2, .pad = -1 };
    struct rules rules = { .prefix = true, .trims = true };
    struct field f;
    struct piece p;
    *tok = NULL;
    LSI_TRY(lsi_tokenizer_new(alloc, &t, err));
    t->space_is_meta = true;
    t->user_after_norm = true;
    t->byte_fallback = true;
    ls_status st = LS_OK;
    bool sound = bytes > 0;
    while (sound && next_field(&w, &f)) {
        if (f.type != 2)
            continue;
        if (f.number == 1) {
            sound = read_piece(f.body, &p);
            if (sound)
                LSI_TRY_OR(fail, add_piece(t, &p, name, err));
        } else if (f.number == 2) {
            sound = read_trainer(f.body, &trainer);
        } else if (f.number == 3) {
            sound = read_rules(f.body, &rules);
        }
    }
    if (!sound || w.broken || t->n_tokens == 0) {
        st = lsi_fail(err, LS_E_FORMAT, "%s is no SentencePiece model, or it is damaged", name);
        goto fail;
    }
    if (trainer.model_type != 2 || rules.charsmap || rules.trims) {
        st = lsi_fail(err, LS_E_UNSUPPORTED,
                      "%s: only SentencePiece models of type BPE that leave the text as it is are supported",
                      name);
        goto fail;
    }
    t->prefix_space = rules.prefix ? LSI_PREFIX_ALWAYS : LSI_PREFIX_NEVER;
    t->strip_space = rules.prefix;
    if (!lsi_vocab_index(t) || !lsi_vocab_note_seams(t) || !lsi_added_index(t)) {
        st = lsi_fail(err, LS_E_NOMEM, "%s: no memory for the tokenizer's tables", name);
        goto fail;
    }
    t->unk = in_range(t, trainer.unk);
    t->bos = in_range(t, trainer.bos);
    t->eos = in_range(t, trainer.eos);
    t->pad = in_range(t, trainer.pad);
    t->add_bos = t->bos >= 0;
    lsi_split_set_name(t);
    lsi_mark_stops(t);
    *tok = t;
    return LS_OK;
fail:
    ls_tokenizer_close(t);
    return st;
}

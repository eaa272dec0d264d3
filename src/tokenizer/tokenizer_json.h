/* What the readers of a Hugging Face directory share. */
#ifndef LSI_TOKENIZER_JSON_H
#define LSI_TOKENIZER_JSON_H

#include "base/json.h"
#include "tokenizer/tokenizer.h"

/* A string of the document without escapes: points into the document or into esc. */
struct lsi_json_text {
    const char *s;
    size_t len;
    char *esc;
    size_t cap;
    const ls_alloc *alloc;
};

/** Resolve a string; valid until the next call. */
ls_status lsi_json_resolve(struct lsi_json *j, const struct lsi_json_str *str, struct lsi_json_text *out);
ls_status lsi_json_read_text(struct lsi_json *j, struct lsi_json_text *out);
void lsi_json_text_fini(struct lsi_json_text *t);
bool lsi_json_text_is(const struct lsi_json_text *t, const char *s);

/* ---- tokenizer.json ------------------------------------------------------- */

struct lsi_json_loader {
    ls_tokenizer *t;
    struct lsi_json_text text;
    size_t doc_bytes;
    char unk[64]; /* unk_token */
    size_t unk_len;
    int32_t bos, eos; /* that the post-processor adds */
    bool vocab_done;
};

typedef ls_status lsi_json_item_fn(struct lsi_json_loader *l, struct lsi_json *j);

/** The "type" of the object at j, which stays where it is. Empty when there is none. */
ls_status lsi_json_peek_type(const struct lsi_json *at, char *type, size_t cap);
bool lsi_json_at_null(struct lsi_json *j);
/** An object that holds a list under list_key: every element goes to fn. */
ls_status lsi_json_read_list(struct lsi_json_loader *l, struct lsi_json *j, const char *list_key,
                             lsi_json_item_fn *fn);
ls_status lsi_json_unsupported(struct lsi_json *j, const char *what, const char *type);

/* Sections of the document: tokenizer_json_rules.c. The post-processor needs the added tokens. */
lsi_json_item_fn lsi_json_read_normalizer, lsi_json_read_pre_tokenizer, lsi_json_read_decoder,
    lsi_json_read_post_processor;

#endif

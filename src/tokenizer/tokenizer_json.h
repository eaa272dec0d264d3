/* Helpers that the readers of a Hugging Face directory share. */
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

#endif

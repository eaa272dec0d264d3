/*
 * A strict streaming JSON reader over bytes in memory, and nothing else.
 *
 * Pull style: the caller asks for what it expects, so a 33 MB tokenizer is read in
 * one pass without a tree. RFC 8259: no comments, no trailing commas, no leading
 * zeros, valid UTF-8 only, lone surrogates rejected, nesting limited, nothing but
 * white space after the value. Duplicate keys are the caller's business.
 *
 *     struct lsi_json j;
 *     lsi_json_init(&j, data, bytes, "config.json", err);
 *     LSI_TRY(lsi_json_object(&j));
 *     while (lsi_json_next_key(&j, &key))              // false at the end or on error
 *         if (lsi_json_str_is(&key, "hidden_size")) LSI_TRY(lsi_json_int(&j, &v));
 *         else LSI_TRY(lsi_json_skip(&j));
 *     LSI_TRY(lsi_json_end(&j));                       // reports an error met by next_key too
 */
#ifndef LSI_JSON_H
#define LSI_JSON_H

#include "base/base.h"

#define LSI_JSON_DEPTH 64

enum lsi_json_type {
    LSI_JSON_NULL,
    LSI_JSON_BOOL,
    LSI_JSON_NUMBER,
    LSI_JSON_STRING,
    LSI_JSON_ARRAY,
    LSI_JSON_OBJECT,
    LSI_JSON_NONE, /* not at a value: end of input or malformed */
};

/* A string still in the text, escapes unresolved, between its quotes. Validated when scanned. */
struct lsi_json_str {
    const char *raw;
    size_t len;
    bool escaped; /* has backslashes: unescape before use */
};

struct lsi_json {
    const char *p, *end, *begin;
    const char *name; /* for messages */
    ls_error *err;
    ls_status status; /* first failure; every later call returns it */
    int depth;
    unsigned char stack[LSI_JSON_DEPTH]; /* container kind and whether it has had an element */
};

void lsi_json_init(struct lsi_json *j, const void *data, size_t bytes, const char *name, ls_error *err);
/** Type of the next value, nothing consumed. */
enum lsi_json_type lsi_json_peek(struct lsi_json *j);

ls_status lsi_json_object(struct lsi_json *j); /* enter; then next_key until false */
bool lsi_json_next_key(struct lsi_json *j, struct lsi_json_str *key);
ls_status lsi_json_array(struct lsi_json *j); /* enter; then next_elem until false */
bool lsi_json_next_elem(struct lsi_json *j);

ls_status lsi_json_string(struct lsi_json *j, struct lsi_json_str *s);
ls_status lsi_json_bool(struct lsi_json *j, bool *v);
/** Accepts 1e6 and 1000000.0 when integral; LS_E_FORMAT when it does not fit. */
ls_status lsi_json_int(struct lsi_json *j, int64_t *v);
/** Any number, however many digits; 1e999 is an error. */
ls_status lsi_json_double(struct lsi_json *j, double *v);
ls_status lsi_json_null(struct lsi_json *j);
/** Skip one value of any kind, validating it. */
ls_status lsi_json_skip(struct lsi_json *j);
/** Only white space may be left. Returns the first error of the whole read. */
ls_status lsi_json_end(struct lsi_json *j);
/** A failure of the caller's own, with line and column: "config.json:3:14: ...". Sticky. */
ls_status lsi_json_error(struct lsi_json *j, const char *fmt, ...) LSI_PRINTF(2, 3);

/** Compare with plain text, resolving escapes. */
bool lsi_json_str_is(const struct lsi_json_str *s, const char *text);
/** Resolve escapes into out (at least s->len bytes; not NUL-terminated); returns the length. */
size_t lsi_json_unescape(const struct lsi_json_str *s, char *out);
/** NUL-terminated copy; LS_E_FORMAT if it contains U+0000. Release: lsi_free(a, p, strlen(p) + 1). */
ls_status lsi_json_strdup(const struct lsi_json_str *s, const ls_alloc *a, char **out);

#endif

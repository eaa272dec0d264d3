/* The JSON reader: skip and a full walk must agree on what is valid; every value is read in every way. */
#include "base/json.h"

#include <string.h>

#include "fuzz.h"

static void use_string(const struct lsi_json_str *s)
{
    char *out = lsi_alloc(NULL, s->len);
    FUZZ_CHECK(out);
    const size_t n = lsi_json_unescape(s, out);
    FUZZ_CHECK(n <= s->len && lsi_utf8_valid_prefix(out, n) == n);
    lsi_free(NULL, out, s->len);
    char *copy;
    if (lsi_json_strdup(s, NULL, &copy) == LS_OK) {
        FUZZ_CHECK(strlen(copy) == n && lsi_json_str_is(s, copy));
        lsi_free(NULL, copy, n + 1);
    }
}

static void walk(struct lsi_json *j)
{
    struct lsi_json_str s;
    bool b;
    switch (lsi_json_peek(j)) {
    case LSI_JSON_OBJECT:
        lsi_json_object(j);
        while (lsi_json_next_key(j, &s)) {
            use_string(&s);
            walk(j);
        }
        break;
    case LSI_JSON_ARRAY:
        lsi_json_array(j);
        while (lsi_json_next_elem(j))
            walk(j);
        break;
    case LSI_JSON_STRING:
        if (lsi_json_string(j, &s) == LS_OK)
            use_string(&s);
        break;
    case LSI_JSON_NUMBER: {
        struct lsi_json as_int = *j, as_double = *j; /* whether it fits is not a matter of the grammar */
        int64_t i;
        double d;
        as_int.err = as_double.err = NULL;
        if (lsi_json_int(&as_int, &i) == LS_OK && lsi_json_double(&as_double, &d) == LS_OK)
            FUZZ_CHECK((double)i == d);
        lsi_json_skip(j);
        break;
    }
    case LSI_JSON_BOOL:
        lsi_json_bool(j, &b);
        break;
    case LSI_JSON_NULL:
        lsi_json_null(j);
        break;
    case LSI_JSON_NONE:
        lsi_json_error(j, "no value");
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_json j;
    ls_error err = { 0 };
    lsi_json_init(&j, data, bytes, "input", &err);
    lsi_json_skip(&j);
    const bool valid = lsi_json_end(&j) == LS_OK;
    FUZZ_CHECK(valid == (err.text[0] == '\0'));
    lsi_json_init(&j, data, bytes, "input", &err);
    walk(&j);
    FUZZ_CHECK((lsi_json_end(&j) == LS_OK) == valid);
    return 0;
}

#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* stack[] holds these bits for each open container. */
enum {
    IN_OBJECT = 1,
    HAS_ELEMENT = 2,
};

/* Significant digits that can change the rounding of a double: 767 at most, one more says "and then some". */
#define MAX_DOUBLE_DIGITS 768

/* ---- errors ------------------------------------------------------------- */

ls_status lsi_json_error(struct lsi_json *j, const char *fmt, ...)
{
    if (j->status != LS_OK)
        return j->status;
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);

    size_t line = 1;
    const char *line_begin = j->begin;
    for (const char *p = j->begin; p < j->p; p++) {
        if (*p == '\n') {
            line++;
            line_begin = p + 1;
        }
    }
    j->status =
        lsi_fail(j->err, LS_E_FORMAT, "%s:%zu:%zu: %s", j->name, line, (size_t)(j->p - line_begin) + 1, text);
    return j->status;
}

static const char *found(const struct lsi_json *j)
{
    if (j->p == j->end)
        return "the end of the text";
    switch (*j->p) {
    case '{':
        return "an object";
    case '[':
        return "an array";
    case '"':
        return "a string";
    case 't':
    case 'f':
        return "true or false";
    case 'n':
        return "null";
    default:
        return *j->p == '-' || (*j->p >= '0' && *j->p <= '9') ? "a number" : "something else";
    }
}

static ls_status expected(struct lsi_json *j, const char *what)
{
    return lsi_json_error(j, "expected %s, found %s", what, found(j));
}

/* ---- scanning ----------------------------------------------------------- */

static inline void skip_space(struct lsi_json *j)
{
    const char *p = j->p;
    while (p < j->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    j->p = p;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Four hex digits at p; -1 when they are not there. */
static int32_t hex4(const char *p, const char *end)
{
    if (end - p < 4)
        return -1;
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        const int h = hex_digit(p[i]);
        if (h < 0)
            return -1;
        v = v * 16 + h;
    }
    return v;
}

/* One escape; j->p at its backslash, left behind it. */
static ls_status scan_escape(struct lsi_json *j)
{
    if (j->end - j->p < 2)
        return lsi_json_error(j, "the string does not end");
    const char c = j->p[1];
    if (c != 'u') {
        if (c == '\0' || !strchr("\"\\/bfnrt", c))
            return lsi_json_error(j, "unknown escape in a string");
        j->p += 2;
        return LS_OK;
    }
    const int32_t unit = hex4(j->p + 2, j->end);
    if (unit < 0)
        return lsi_json_error(j, "\\u needs four hexadecimal digits");
    if (unit < 0xd800 || unit > 0xdfff) {
        j->p += 6;
        return LS_OK;
    }
    if (unit < 0xdc00 && j->end - j->p >= 12 && j->p[6] == '\\' && j->p[7] == 'u') {
        const int32_t low = hex4(j->p + 8, j->end);
        if (low >= 0xdc00 && low <= 0xdfff) {
            j->p += 12;
            return LS_OK;
        }
    }
    return lsi_json_error(j, "half a surrogate pair in a string");
}

/* Nonzero bits mark bytes of w that are a quote, a backslash, a control character or not ASCII.
 * A borrow may also mark the byte above a marked one, never one below: the lowest mark is exact. */
static inline uint64_t special_bytes(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t quote = w ^ (ones * '"');
    const uint64_t slash = w ^ (ones * '\\');
    return ((w - ones * 0x20) | (quote - ones) | (slash - ones) | w) & (ones * 0x80);
}

/* A string; j->p at its opening quote. */
static ls_status scan_string(struct lsi_json *j, struct lsi_json_str *s)
{
    const char *const end = j->end;
    const char *p = j->p + 1;
    s->raw = p;
    s->escaped = false;
    for (;;) {
        while (end - p >= 8) {
            uint64_t w;
            memcpy(&w, p, 8);
            const uint64_t mark = special_bytes(w);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            if (mark) {
                p += __builtin_ctzll(mark) / 8;
                break;
            }
#else
            if (mark)
                break;
#endif
            p += 8;
        }
        if (p == end) {
            j->p = p;
            return lsi_json_error(j, "the string does not end");
        }
        const unsigned char c = (unsigned char)*p;
        if (c == '"') {
            s->len = (size_t)(p - s->raw);
            j->p = p + 1;
            return LS_OK;
        }
        if (c >= 0x80) {
            const size_t n = lsi_utf8_len(p, (size_t)(end - p));
            if (n == 0) {
                j->p = p;
                return lsi_json_error(j, "invalid UTF-8 in a string");
            }
            p += n;
        } else if (c == '\\') {
            s->escaped = true;
            j->p = p;
            LSI_TRY(scan_escape(j));
            p = j->p;
        } else if (c < 0x20) {
            j->p = p;
            return lsi_json_error(j, "unescaped control character in a string");
        } else {
            p++;
        }
    }
}

/* The parts of a number as it stands in the text. */
struct number {
    const char *int_digits, *frac_digits;
    size_t n_int, n_frac;
    int64_t exponent; /* as written, saturated */
    bool negative;
    bool plain; /* neither fraction nor exponent */
};

static inline bool is_digit(const struct lsi_json *j, const char *p)
{
    return p < j->end && *p >= '0' && *p <= '9';
}

static ls_status scan_exponent(struct lsi_json *j, struct number *n)
{
    const char *p = j->p + 1;
    bool negative = false;
    if (p < j->end && (*p == '+' || *p == '-'))
        negative = *p++ == '-';
    if (!is_digit(j, p))
        return lsi_json_error(j, "the exponent of a number has no digits");
    int64_t e = 0;
    for (; is_digit(j, p); p++)
        e = e < 100000000000000000 ? e * 10 + (*p - '0') : e;
    n->exponent = negative ? -e : e;
    n->plain = false;
    j->p = p;
    return LS_OK;
}

static ls_status scan_number(struct lsi_json *j, struct number *n)
{
    const char *p = j->p;
    *n = (struct number){ .plain = true };
    if (*p == '-') {
        n->negative = true;
        p++;
    }
    n->int_digits = p;
    while (is_digit(j, p))
        p++;
    n->n_int = (size_t)(p - n->int_digits);
    if (n->n_int == 0)
        return lsi_json_error(j, "a number has no digits");
    if (n->n_int > 1 && n->int_digits[0] == '0')
        return lsi_json_error(j, "a number has a leading zero");
    if (p < j->end && *p == '.') {
        n->plain = false;
        n->frac_digits = ++p;
        while (is_digit(j, p))
            p++;
        n->n_frac = (size_t)(p - n->frac_digits);
        if (n->n_frac == 0)
            return lsi_json_error(j, "a number has no digits after its point");
    }
    j->p = p;
    if (p < j->end && (*p == 'e' || *p == 'E'))
        LSI_TRY(scan_exponent(j, n));
    return LS_OK;
}

static ls_status scan_word(struct lsi_json *j, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
        return lsi_json_error(j, "expected a value (strings need double quotes)");
    j->p += n;
    return LS_OK;
}

/* ---- the reader --------------------------------------------------------- */

void lsi_json_init(struct lsi_json *j, const void *data, size_t bytes, const char *name, ls_error *err)
{
    const char *begin = data ? data : "";
    *j = (struct lsi_json){
        .p = begin,
        .begin = begin,
        .end = begin + (data ? bytes : 0),
        .name = name,
        .err = err,
        .status = LS_OK,
    };
}

enum lsi_json_type lsi_json_peek(struct lsi_json *j)
{
    if (j->status != LS_OK)
        return LSI_JSON_NONE;
    skip_space(j);
    if (j->p == j->end)
        return LSI_JSON_NONE;
    switch (*j->p) {
    case '{':
        return LSI_JSON_OBJECT;
    case '[':
        return LSI_JSON_ARRAY;
    case '"':
        return LSI_JSON_STRING;
    case 't':
    case 'f':
        return LSI_JSON_BOOL;
    case 'n':
        return LSI_JSON_NULL;
    default:
        return *j->p == '-' || is_digit(j, j->p) ? LSI_JSON_NUMBER : LSI_JSON_NONE;
    }
}

static ls_status enter(struct lsi_json *j, enum lsi_json_type type)
{
    const bool object = type == LSI_JSON_OBJECT;
    if (lsi_json_peek(j) != type)
        return expected(j, object ? "an object" : "an array");
    if (j->depth == LSI_JSON_DEPTH)
        return lsi_json_error(j, "more than %d levels of nesting", LSI_JSON_DEPTH);
    j->stack[j->depth++] = object ? IN_OBJECT : 0;
    j->p++;
    return LS_OK;
}

ls_status lsi_json_object(struct lsi_json *j)
{
    return enter(j, LSI_JSON_OBJECT);
}

ls_status lsi_json_array(struct lsi_json *j)
{
    return enter(j, LSI_JSON_ARRAY);
}

/* Go past the comma to the next element of the innermost container; false at its end or on error. */
static inline bool next_item(struct lsi_json *j, bool object)
{
    if (j->status != LS_OK)
        return false;
    LSI_ASSERT(j->depth > 0 && ((j->stack[j->depth - 1] & IN_OBJECT) != 0) == object);
    unsigned char *top = &j->stack[j->depth - 1];
    skip_space(j);
    const char c = j->p < j->end ? *j->p : '\0';
    if (c == (object ? '}' : ']')) {
        j->p++;
        j->depth--;
        return false;
    }
    if (*top & HAS_ELEMENT) {
        if (c != ',') {
            expected(j, object ? "',' or '}'" : "',' or ']'");
            return false;
        }
        j->p++;
        skip_space(j);
    }
    *top |= HAS_ELEMENT;
    return true;
}

bool lsi_json_next_key(struct lsi_json *j, struct lsi_json_str *key)
{
    if (!next_item(j, true))
        return false;
    if (j->p == j->end || *j->p != '"') {
        expected(j, "a key");
        return false;
    }
    if (scan_string(j, key) != LS_OK)
        return false;
    skip_space(j);
    if (j->p == j->end || *j->p != ':') {
        expected(j, "':'");
        return false;
    }
    j->p++;
    return true;
}

bool lsi_json_next_elem(struct lsi_json *j)
{
    if (!next_item(j, false))
        return false;
    if (j->p < j->end && *j->p == ']') {
        lsi_json_error(j, "a comma is followed by ']'");
        return false;
    }
    return true;
}

ls_status lsi_json_string(struct lsi_json *j, struct lsi_json_str *s)
{
    if (lsi_json_peek(j) != LSI_JSON_STRING)
        return expected(j, "a string");
    return scan_string(j, s);
}

ls_status lsi_json_bool(struct lsi_json *j, bool *v)
{
    if (lsi_json_peek(j) != LSI_JSON_BOOL)
        return expected(j, "true or false");
    const bool is_true = *j->p == 't';
    LSI_TRY(scan_word(j, is_true ? "true" : "false"));
    *v = is_true;
    return LS_OK;
}

ls_status lsi_json_null(struct lsi_json *j)
{
    if (lsi_json_peek(j) != LSI_JSON_NULL)
        return expected(j, "null");
    return scan_word(j, "null");
}

/* ---- numbers ------------------------------------------------------------ */

/* Digit i of the integer and fraction digits taken together. */
static int number_digit(const struct number *n, size_t i)
{
    return (i < n->n_int ? n->int_digits[i] : n->frac_digits[i - n->n_int]) - '0';
}

/* The digits without zeros at either end: [*first, *last), value = digits * 10^*exp10. Empty for zero. */
static void significant_digits(const struct number *n, size_t *first, size_t *last, int64_t *exp10)
{
    size_t a = 0, b = n->n_int + n->n_frac;
    while (a < b && number_digit(n, a) == 0)
        a++;
    while (b > a && number_digit(n, b - 1) == 0)
        b--;
    *first = a;
    *last = b;
    *exp10 = n->exponent + (int64_t)n->n_int - (int64_t)b;
}

/* False when the value is no integer or does not fit. */
static bool number_to_int(const struct number *n, int64_t *v)
{
    size_t first, last;
    int64_t exp10;
    significant_digits(n, &first, &last, &exp10);
    if (first == last) {
        *v = 0;
        return true;
    }
    if (exp10 < 0 || exp10 > 18 || last - first > 19)
        return false;
    int64_t x = 0; /* negative all the way: its range is one larger */
    for (size_t i = first; i < last; i++) {
        if (__builtin_mul_overflow(x, 10, &x) || __builtin_sub_overflow(x, number_digit(n, i), &x))
            return false;
    }
    for (; exp10 > 0; exp10--) {
        if (__builtin_mul_overflow(x, 10, &x))
            return false;
    }
    if (!n->negative && __builtin_sub_overflow(0, x, &x))
        return false;
    *v = x;
    return true;
}

ls_status lsi_json_int(struct lsi_json *j, int64_t *v)
{
    if (lsi_json_peek(j) != LSI_JSON_NUMBER)
        return expected(j, "an integer");
    const char *begin = j->p;
    struct number n;
    LSI_TRY(scan_number(j, &n));
    if (n.plain && n.n_int <= 18) { /* cannot overflow */
        int64_t x = 0;
        for (size_t i = 0; i < n.n_int; i++)
            x = x * 10 + (n.int_digits[i] - '0');
        *v = n.negative ? -x : x;
        return LS_OK;
    }
    if (!number_to_int(&n, v)) {
        const int len = (int)lsi_min_size((size_t)(j->p - begin), 40);
        j->p = begin;
        return lsi_json_error(j, "%.*s is not an integer of 64 bits", len, begin);
    }
    return LS_OK;
}

ls_status lsi_json_double(struct lsi_json *j, double *v)
{
    if (lsi_json_peek(j) != LSI_JSON_NUMBER)
        return expected(j, "a number");
    const char *begin = j->p;
    struct number n;
    LSI_TRY(scan_number(j, &n));
    size_t first, last;
    int64_t exp10;
    significant_digits(&n, &first, &last, &exp10);

    /* strtod rounds correctly; written without a point, the text means the same in every locale. Digits
     * that can only break a tie are stood for by one. */
    char text[MAX_DOUBLE_DIGITS + 32];
    size_t len = 0;
    for (size_t i = first; i < last && len < MAX_DOUBLE_DIGITS; i++)
        text[len++] = (char)('0' + number_digit(&n, i));
    exp10 += (int64_t)(last - first - len);
    if (len < last - first) {
        text[len++] = '1';
        exp10--;
    }
    if (len == 0)
        text[len++] = '0';
    snprintf(text + len, sizeof text - len, "e%lld", (long long)exp10);
    const double x = strtod(text, NULL);
    if (isinf(x)) {
        j->p = begin;
        return lsi_json_error(j, "the number is too large");
    }
    *v = n.negative ? -x : x;
    return LS_OK;
}

/* ---- skip, end ---------------------------------------------------------- */

static ls_status skip_scalar(struct lsi_json *j)
{
    struct lsi_json_str s;
    struct number n;
    bool b;
    switch (lsi_json_peek(j)) {
    case LSI_JSON_STRING:
        return scan_string(j, &s);
    case LSI_JSON_NUMBER:
        return scan_number(j, &n);
    case LSI_JSON_BOOL:
        return lsi_json_bool(j, &b);
    case LSI_JSON_NULL:
        return lsi_json_null(j);
    default:
        return expected(j, "a value");
    }
}

ls_status lsi_json_skip(struct lsi_json *j)
{
    const int base = j->depth;
    do {
        const enum lsi_json_type type = lsi_json_peek(j);
        if (type == LSI_JSON_OBJECT || type == LSI_JSON_ARRAY)
            LSI_TRY(enter(j, type));
        else
            LSI_TRY(skip_scalar(j));
        /* Close what ends here, stop at the next value. */
        while (j->depth > base) {
            struct lsi_json_str key;
            if (j->stack[j->depth - 1] & IN_OBJECT ? lsi_json_next_key(j, &key) : lsi_json_next_elem(j))
                break;
            if (j->status != LS_OK)
                return j->status;
        }
    } while (j->depth > base);
    return LS_OK;
}

ls_status lsi_json_end(struct lsi_json *j)
{
    if (j->status != LS_OK)
        return j->status;
    skip_space(j);
    if (j->depth > 0 || j->p != j->end)
        return lsi_json_error(j, j->depth > 0 ? "the text ends inside an object or array"
                                              : "there is more text after the value");
    return LS_OK;
}

/* ---- strings ------------------------------------------------------------ */

/* The character at *p (a validated string), escapes resolved: its UTF-8 in out[4], its length returned. */
static size_t next_char(const char **p, char *out)
{
    const char *s = *p;
    if (*s != '\\') {
        out[0] = *s;
        *p = s + 1;
        return 1; /* bytes of longer characters come one by one */
    }
    if (s[1] != 'u') {
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        const char *hit = strchr(from, s[1]);
        out[0] = hit ? to[hit - from] : s[1];
        *p = s + 2;
        return 1;
    }
    uint32_t cp = (uint32_t)hex4(s + 2, s + 6);
    *p = s + 6;
    if (cp >= 0xd800 && cp <= 0xdbff) {
        cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t)hex4(s + 8, s + 12) - 0xdc00);
        *p = s + 12;
    }
    return lsi_utf8_encode(cp, out);
}

bool lsi_json_str_is(const struct lsi_json_str *s, const char *text)
{
    size_t n = strlen(text);
    if (!s->escaped)
        return n == s->len && memcmp(s->raw, text, n) == 0;
    const char *p = s->raw, *const end = s->raw + s->len;
    while (p < end) {
        char c[4];
        const size_t k = next_char(&p, c);
        if (k > n || memcmp(c, text, k) != 0)
            return false;
        text += k;
        n -= k;
    }
    return n == 0;
}

size_t lsi_json_unescape(const struct lsi_json_str *s, char *out)
{
    if (!s->escaped) {
        memcpy(out, s->raw, s->len);
        return s->len;
    }
    const char *p = s->raw, *const end = s->raw + s->len;
    size_t n = 0;
    while (p < end) {
        char c[4];
        const size_t k = next_char(&p, c);
        memcpy(out + n, c, k);
        n += k;
    }
    return n;
}

ls_status lsi_json_strdup(const struct lsi_json_str *s, const ls_alloc *a, char **out)
{
    size_t n = 0;
    for (const char *p = s->raw; p < s->raw + s->len;) {
        char c[4];
        const size_t k = next_char(&p, c);
        if (c[0] == '\0')
            return LS_E_FORMAT;
        n += k;
    }
    char *text = lsi_alloc(a, n + 1);
    if (!text)
        return LS_E_NOMEM;
    lsi_json_unescape(s, text);
    text[n] = '\0';
    *out = text;
    return LS_OK;
}

#include "base/base.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void lsi_buf_init(struct lsi_buf *b, const ls_alloc *alloc, size_t max_bytes)
{
    *b = (struct lsi_buf){ .alloc = alloc, .max = max_bytes };
}

void lsi_buf_fini(struct lsi_buf *b)
{
    lsi_free(b->alloc, b->data, b->cap);
    *b = (struct lsi_buf){ 0 };
}

/* Room for n more bytes and a NUL. */
static bool reserve(struct lsi_buf *b, size_t n)
{
    size_t need;
    if (b->failed || !lsi_add_size(b->len, n, &need) || need > b->max || need == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    need++;
    if (need <= b->cap)
        return true;
    const size_t cap = lsi_max_size(need, b->cap < SIZE_MAX / 2 ? lsi_max_size(64, b->cap * 2) : need);
    char *p = lsi_realloc(b->alloc, b->data, b->cap, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

bool lsi_buf_append(struct lsi_buf *b, const void *data, size_t n)
{
    if (!reserve(b, n))
        return false;
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool lsi_buf_printf(struct lsi_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return false;
    }
    if ((size_t)n < sizeof small)
        return lsi_buf_append(b, small, (size_t)n);
    if (!reserve(b, (size_t)n))
        return false;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

bool lsi_buf_json_string(struct lsi_buf *b, const char *s, size_t n)
{
    lsi_buf_append(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        const unsigned char c = (unsigned char)s[i];
        const size_t len = lsi_utf8_len(s + i, n - i);
        if (len == 0) {
            lsi_buf_append(b, "\xef\xbf\xbd", 3);
            i++;
        } else if (c == '"' || c == '\\') {
            const char esc[2] = { '\\', (char)c };
            lsi_buf_append(b, esc, 2);
            i++;
        } else if (c == '\n') {
            lsi_buf_append(b, "\\n", 2);
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            lsi_buf_printf(b, "\\u%04x", c);
            i++;
        } else {
            lsi_buf_append(b, s + i, len);
            i += len;
        }
    }
    return lsi_buf_append(b, "\"", 1);
}

bool lsi_buf_json_number(struct lsi_buf *b, double v)
{
    char text[40];
    if (!isfinite(v))
        return lsi_buf_append(b, "null", 4);
    const bool single = (double)(float)v == v;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        const double back = strtod(text, NULL);
        if (single ? (float)back == (float)v : back == v)
            break;
    }
    char *comma = strchr(text, ','); /* of the caller's locale */
    if (comma)
        *comma = '.';
    lsi_buf_append(b, text, strlen(text));
    return strpbrk(text, ".e") ? !b->failed : lsi_buf_append(b, ".0", 2);
}

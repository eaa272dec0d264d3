/* JSON out, and arrays of ids in. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void add_string(struct text *t, const char *s, size_t n);

static void begin_value(struct json_out *j, const char *key)
{
    if (j->need_comma)
        text_puts(&j->text, ",");
    j->need_comma = true;
    if (key) {
        add_string(&j->text, key, strlen(key));
        text_puts(&j->text, ":");
    }
}

/* Length 1..4 of the valid UTF-8 sequence at s, 0 when it is none. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    static const struct {
        unsigned char mask, lead, least, most; /* range of the second byte */
        size_t len;
    } rows[] = {
        { 0xff, 0xe0, 0xa0, 0xbf, 3 }, { 0xff, 0xed, 0x80, 0x9f, 3 }, { 0xf0, 0xe0, 0x80, 0xbf, 3 },
        { 0xff, 0xf0, 0x90, 0xbf, 4 }, { 0xff, 0xf4, 0x80, 0x8f, 4 }, { 0xfc, 0xf0, 0x80, 0xbf, 4 },
    };

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        return n > 1 && (s[1] & 0xc0) == 0x80 ? 2 : 0;
    for (size_t i = 0; i < CLI_LEN(rows); i++) {
        if ((s[0] & rows[i].mask) != rows[i].lead)
            continue;
        if (n < rows[i].len || s[1] < rows[i].least || s[1] > rows[i].most)
            return 0;
        for (size_t k = 2; k < rows[i].len; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return rows[i].len;
    }
    return 0;
}

/* Bytes that are not UTF-8 become U+FFFD: the output is JSON whatever the text was. */
static void add_string(struct text *t, const char *s, size_t n)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";

    text_puts(t, "\"");
    for (size_t i = 0; i < n;) {
        const unsigned char c = (unsigned char)s[i];
        const char *e = c ? strchr(escaped, c) : NULL;
        const size_t len = utf8_length((const unsigned char *)s + i, n - i);
        if (e)
            text_printf(t, "\\%c", letters[e - escaped]);
        else if (c < 0x20 || c == 0x7f)
            text_printf(t, "\\u%04x", c);
        else if (len == 0)
            text_puts(t, "\xef\xbf\xbd");
        else
            text_add(t, s + i, len);
        i += len ? len : 1;
    }
    text_puts(t, "\"");
}

void json_open(struct json_out *j, const char *key, char bracket)
{
    begin_value(j, key);
    text_add(&j->text, &bracket, 1);
    j->need_comma = false;
}

void json_close(struct json_out *j, char bracket)
{
    text_add(&j->text, &bracket, 1);
    j->need_comma = true;
}

void json_text(struct json_out *j, const char *key, const char *s, size_t n)
{
    begin_value(j, key);
    add_string(&j->text, s, n);
}

void json_str(struct json_out *j, const char *key, const char *s)
{
    if (s) {
        json_text(j, key, s, strlen(s));
    } else {
        begin_value(j, key);
        text_puts(&j->text, "null");
    }
}

void json_int(struct json_out *j, const char *key, long long v)
{
    begin_value(j, key);
    text_printf(&j->text, "%lld", v);
}

void json_uint(struct json_out *j, const char *key, unsigned long long v)
{
    begin_value(j, key);
    text_printf(&j->text, "%llu", v);
}

void json_real(struct json_out *j, const char *key, double v)
{
    begin_value(j, key);
    if (isfinite(v))
        text_printf(&j->text, "%.9g", v);
    else
        text_puts(&j->text, "null");
}

void json_bool(struct json_out *j, const char *key, bool v)
{
    begin_value(j, key);
    text_puts(&j->text, v ? "true" : "false");
}

void json_ids(struct json_out *j, const char *key, const int32_t *ids, size_t n)
{
    begin_value(j, key);
    text_puts(&j->text, "[");
    for (size_t i = 0; i < n; i++)
        text_printf(&j->text, i ? ",%d" : "%d", (int)ids[i]);
    text_puts(&j->text, "]");
}

void json_raw(struct json_out *j, const char *key, char left, const struct text *values, char right)
{
    begin_value(j, key);
    text_add(&j->text, &left, 1);
    text_add(&j->text, values->data, values->len);
    text_add(&j->text, &right, 1);
}

int json_print(struct json_out *j)
{
    text_puts(&j->text, "\n");
    fwrite(j->text.data, 1, j->text.len, stdout);
    text_free(&j->text);
    return finish_output(EXIT_OK);
}

/* One id at s[*i]; moves *i behind it. */
static bool parse_id(const char *s, size_t n, size_t n_vocab, size_t *i, unsigned long long *id)
{
    size_t end = *i;

    *id = 0;
    while (end < n && isdigit((unsigned char)s[end]) && end - *i < 12)
        *id = *id * 10 + (unsigned)(s[end++] - '0');
    if (end == *i || (end < n && !isspace((unsigned char)s[end]) && s[end] != ',' && s[end] != ']')) {
        const size_t len = strcspn(s + *i, " ,\n]");
        cli_fail("the ids to decode have '%.*s' at byte %zu where a number should stand",
                 (int)(len ? len < 20 ? len : 20 : 1), s + *i, *i);
        return false;
    }
    if (*id >= n_vocab) {
        cli_fail("id %llu is not in the vocabulary, which has %zu tokens", *id, n_vocab);
        return false;
    }
    *i = end;
    return true;
}

bool parse_ids(const char *s, size_t n, size_t n_vocab, int32_t **out, size_t *n_out)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, cap = 0, i = strspn(s, " \t\r\n");
    const bool array = i < n && s[i] == '[';

    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    if (array && s[n - 1] != ']') {
        cli_fail("the array of ids to decode has no ']' at its end; it may be truncated");
        return false;
    }
    for (i += array, n -= array; i < n;) {
        unsigned long long id;
        if (isspace((unsigned char)s[i]) || s[i] == ',') {
            i++;
            continue;
        }
        if (!parse_id(s, n, n_vocab, &i, &id)) {
            free(ids);
            return false;
        }
        if (n_ids == cap) {
            cap = cap ? 2 * cap : 1024;
            ids = cli_realloc(ids, cap, sizeof *ids);
        }
        ids[n_ids++] = (int32_t)id;
    }
    *out = ids;
    *n_out = n_ids;
    return true;
}

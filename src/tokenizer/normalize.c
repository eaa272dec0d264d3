/* What happens to a stretch of text before it is split. */
#include "tokenizer/tokenizer.h"

#include <string.h>
#include <utf8proc.h>

static const char meta[] = "\xe2\x96\x81"; /* U+2581 */

static bool contains(const char *s, size_t len, const char *what, size_t n)
{
    return n && len >= n && memmem(s, len, what, n) != NULL;
}

static bool is_ascii(const char *s, size_t len)
{
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t v;
        memcpy(&v, s + i, 8);
        if (v & 0x8080808080808080u)
            return false;
    }
    for (; i < len; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    return true;
}

/* Latin below the combining marks and unified ideographs are the same in every composed form. */
static bool is_composed(const char *s, size_t len)
{
    if (is_ascii(s, len))
        return true;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += lsi_char_at(s + i, len - i, &cp);
        if (cp >= 0x300 && !(cp >= 0x4e00 && cp <= 0x9fff) && !(cp >= 0x2010 && cp <= 0x2027) &&
            !(cp >= 0x3001 && cp <= 0x3029) && !(cp >= 0xff00 && cp <= 0xff60))
            return false;
    }
    return true;
}

/* Needs a space put in front. */
static bool wants_prefix(const ls_tokenizer *t, const char *s, size_t len, bool first)
{
    if (t->prefix_space == LSI_PREFIX_NEVER || len == 0 || (t->prefix_space == LSI_PREFIX_FIRST && !first))
        return false;
    return !(t->space_if_none && (s[0] == ' ' || (t->space_is_meta && len >= 3 && memcmp(s, meta, 3) == 0)));
}

static bool step_is_identity(const struct lsi_norm *n, const char *s, size_t len)
{
    uint32_t cp;
    switch (n->kind) {
    case LSI_NORM_NFC:
        return is_composed(s, len);
    case LSI_NORM_NFD:
    case LSI_NORM_NFKC:
    case LSI_NORM_NFKD:
        return is_ascii(s, len);
    case LSI_NORM_REPLACE:
        return !contains(s, len, n->from, n->from_len);
    case LSI_NORM_PREPEND:
        return len == 0;
    case LSI_NORM_STRIP_LEFT:
        return len == 0 || (lsi_char_at(s, len, &cp), lsi_char_class_of(cp) != LSI_CHAR_SPACE);
    case LSI_NORM_STRIP_RIGHT:
        return len == 0; /* looking is stripping */
    }
    return false;
}

bool lsi_normalize_is_identity(const ls_tokenizer *t, const char *s, size_t len, bool first)
{
    for (size_t i = 0; i < t->n_norms; i++)
        if (!step_is_identity(&t->norms[i], s, len))
            return false;
    return !wants_prefix(t, s, len, first) && !(t->space_is_meta && contains(s, len, meta, 3));
}

/* Unicode normalisation of valid UTF-8 through a scratch array of code points. */
static ls_status normalize_valid(const ls_alloc *alloc, enum lsi_norm_kind kind, const char *s, size_t len,
                                 struct lsi_buf *out, ls_error *err)
{
    utf8proc_option_t opt = UTF8PROC_STABLE;
    opt |= kind == LSI_NORM_NFC || kind == LSI_NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == LSI_NORM_NFKC || kind == LSI_NORM_NFKD)
        opt |= UTF8PROC_COMPAT;
    const utf8proc_ssize_t n =
        utf8proc_decompose((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, NULL, 0, opt);
    size_t bytes;
    if (n < 0 || !lsi_mul_size((size_t)n + 1, sizeof(utf8proc_int32_t), &bytes))
        return lsi_fail(err, LS_E_LIMIT, "the text cannot be normalised: %s", utf8proc_errmsg(n));
    utf8proc_int32_t *cps = lsi_alloc(alloc, bytes);
    if (!cps)
        return lsi_fail(err, LS_E_NOMEM, "no memory to normalise %zu bytes of text", len);
    utf8proc_decompose((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, cps, n, opt);
    const utf8proc_ssize_t m = utf8proc_normalize_utf32(cps, n, opt);
    for (utf8proc_ssize_t i = 0; i < m; i++) {
        char u[4];
        lsi_buf_append(out, u, lsi_utf8_encode((uint32_t)cps[i], u));
    }
    lsi_free(alloc, cps, bytes);
    return m < 0 ? lsi_fail(err, LS_E_LIMIT, "the text cannot be normalised: %s", utf8proc_errmsg(m)) : LS_OK;
}

/* The same for any bytes: those that are not UTF-8 stay as they are. */
static ls_status normalize_unicode(const ls_alloc *alloc, enum lsi_norm_kind kind, const char *s, size_t len,
                                   struct lsi_buf *out, ls_error *err)
{
    const size_t part = (size_t)1 << 16; /* bounds the scratch array */
    const char *end = s + len;
    while (s < end) {
        const char *valid_end = s + lsi_utf8_valid_prefix(s, (size_t)(end - s));
        while (s < valid_end) {
            /* A part ends before an ASCII character: it composes with nothing in front of it. */
            const char *cut = (size_t)(valid_end - s) > part ? s + part : valid_end;
            while (cut < valid_end && (unsigned char)*cut >= 0x80)
                cut++;
            LSI_TRY(normalize_valid(alloc, kind, s, (size_t)(cut - s), out, err));
            s = cut;
        }
        if (s < end)
            lsi_buf_append(out, s++, 1);
    }
    return LS_OK;
}

static void replace_all(const char *s, size_t len, const char *from, size_t from_len, const char *to,
                        size_t to_len, struct lsi_buf *out)
{
    const char *end = s + len;
    while (s < end) {
        const char *hit = from_len ? memmem(s, (size_t)(end - s), from, from_len) : NULL;
        lsi_buf_append(out, s, (size_t)((hit ? hit : end) - s));
        if (!hit)
            break;
        lsi_buf_append(out, to, to_len);
        s = hit + from_len;
    }
}

static ls_status run_step(const ls_tokenizer *t, const struct lsi_norm *n, const char *s, size_t len,
                          struct lsi_buf *out, ls_error *err)
{
    uint32_t cp;
    switch (n->kind) {
    case LSI_NORM_NFC:
    case LSI_NORM_NFD:
    case LSI_NORM_NFKC:
    case LSI_NORM_NFKD:
        return normalize_unicode(t->alloc, n->kind, s, len, out, err);
    case LSI_NORM_REPLACE:
        replace_all(s, len, n->from, n->from_len, n->to, n->to_len, out);
        return LS_OK;
    case LSI_NORM_PREPEND:
        if (len)
            lsi_buf_append(out, n->to, n->to_len);
        break;
    case LSI_NORM_STRIP_LEFT:
        while (len) {
            const size_t k = lsi_char_at(s, len, &cp);
            if (lsi_char_class_of(cp) != LSI_CHAR_SPACE)
                break;
            s += k;
            len -= k;
        }
        break;
    case LSI_NORM_STRIP_RIGHT:
        while (len) {
            size_t k = len - 1;
            while (k > 0 && len - k < 4 && ((unsigned char)s[k] & 0xc0) == 0x80)
                k--;
            if (lsi_char_at(s + k, len - k, &cp) != len - k || lsi_char_class_of(cp) != LSI_CHAR_SPACE)
                break;
            len = k;
        }
        break;
    }
    lsi_buf_append(out, s, len);
    return LS_OK;
}

ls_status lsi_normalize(const ls_tokenizer *t, const char *s, size_t len, bool first, struct lsi_buf *out,
                        ls_error *err)
{
    struct lsi_buf tmp[2];
    for (int i = 0; i < 2; i++)
        lsi_buf_init(&tmp[i], t->alloc, out->max);
    ls_status st = LS_OK;
    for (size_t i = 0; st == LS_OK && i < t->n_norms; i++) {
        if (step_is_identity(&t->norms[i], s, len))
            continue;
        struct lsi_buf *to = &tmp[s == tmp[0].data && s ? 1 : 0];
        to->len = 0;
        st = run_step(t, &t->norms[i], s, len, to, err);
        s = to->data;
        len = to->len;
        if (st == LS_OK && to->failed)
            st = lsi_fail(err, LS_E_NOMEM, "no memory to normalise the text");
    }
    if (st == LS_OK) {
        if (wants_prefix(t, s, len, first))
            lsi_buf_append(out, " ", 1);
        replace_all(s, len, meta, t->space_is_meta ? 3 : 0, " ", 1, out);
        if (out->failed)
            st = lsi_fail(err, LS_E_NOMEM, "no memory to normalise the text");
    }
    for (int i = 0; i < 2; i++)
        lsi_buf_fini(&tmp[i]);
    return st;
}

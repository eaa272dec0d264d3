/* Split patterns other than the known ones, through PCRE2. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT   10000000
#define HEAP_LIMIT_KB (64 * 1024)

struct lsi_regex {
    const ls_alloc *alloc;
    pcre2_general_context *general;
    pcre2_code *code;
    char *pattern;
    size_t len;
};

struct lsi_regex_run {
    const struct lsi_regex *re;
    pcre2_match_data *data;
    pcre2_match_context *match;
};

/* PCRE2 frees without a size: keep it in front of the block. */
static void *give(PCRE2_SIZE bytes, void *user)
{
    size_t total;
    if (!lsi_add_size(bytes, LSI_CACHE_LINE, &total))
        return NULL;
    unsigned char *p = lsi_alloc(user, total);
    if (!p)
        return NULL;
    memcpy(p, &total, sizeof total);
    return p + LSI_CACHE_LINE;
}

static void take_back(void *ptr, void *user)
{
    if (!ptr)
        return;
    unsigned char *p = (unsigned char *)ptr - LSI_CACHE_LINE;
    size_t total;
    memcpy(&total, p, sizeof total);
    lsi_free(user, p, total);
}

/*
 * PCRE2's \s holds U+180E, which is no white space in the engines that the
 * files are written for: spell the class out.
 */
static bool spell_spaces(const char *s, size_t len, struct lsi_buf *out)
{
    static const char spaces[] =
        "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
        "\\x{205f}\\x{3000}";
    bool in_class = false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\\' && i + 1 < len) {
            const char c = s[++i];
            if (c == 's' || (c == 'S' && !in_class)) {
                if (!in_class)
                    lsi_buf_append(out, c == 's' ? "[" : "[^", c == 's' ? 1 : 2);
                lsi_buf_append(out, spaces, sizeof spaces - 1);
                if (!in_class)
                    lsi_buf_append(out, "]", 1);
            } else {
                lsi_buf_append(out, s + i - 1, 2);
            }
            continue;
        }
        if (s[i] == '[' && !in_class) {
            in_class = true;
            lsi_buf_append(out, s + i, 1);
            if (i + 1 < len && s[i + 1] == '^')
                lsi_buf_append(out, s + ++i, 1);
            if (i + 1 < len && s[i + 1] == ']')
                lsi_buf_append(out, s + ++i, 1);
            continue;
        }
        if (s[i] == ']')
            in_class = false;
        lsi_buf_append(out, s + i, 1);
    }
    return !out->failed;
}

ls_status lsi_regex_compile(const ls_alloc *alloc, const char *pattern, size_t len, struct lsi_regex **out,
                            ls_error *err)
{
    ls_status st = LS_OK;
    struct lsi_buf b;
    lsi_buf_init(&b, alloc, 1 << 20);
    struct lsi_regex *re = lsi_calloc(alloc, 1, sizeof *re);
    if (re)
        re->alloc = alloc;
    if (!re || !spell_spaces(pattern, len, &b)) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a split pattern of %zu bytes", len);
        goto done;
    }
    re->pattern = lsi_strndup(alloc, pattern, len);
    re->len = len;
    if (!re->pattern) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a split pattern");
        goto done;
    }
    union {
        const ls_alloc *in;
        void *out;
    } user = { alloc };
    re->general = pcre2_general_context_create(give, take_back, user.out);
    if (!re->general) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a split pattern");
        goto done;
    }
    pcre2_compile_context *cc = pcre2_compile_context_create(re->general);
    if (!cc) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a split pattern");
        goto done;
    }
    int code;
    PCRE2_SIZE at;
    re->code = pcre2_compile((PCRE2_SPTR)(b.data ? b.data : ""), b.len,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, cc);
    pcre2_compile_context_free(cc);
    if (!re->code) {
        PCRE2_UCHAR text[120] = { 0 };
        pcre2_get_error_message(code, text, sizeof text);
        st = lsi_fail(err, code == PCRE2_ERROR_HEAP_FAILED ? LS_E_NOMEM : LS_E_UNSUPPORTED,
                      "the tokenizer's split pattern cannot be compiled: %s", (const char *)text);
        goto done;
    }
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
done:
    lsi_buf_fini(&b);
    if (st != LS_OK) {
        lsi_regex_free(re);
        re = NULL;
    }
    *out = re;
    return st;
}

void lsi_regex_free(struct lsi_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    pcre2_general_context_free(re->general);
    if (re->pattern)
        lsi_free(re->alloc, re->pattern, re->len + 1);
    lsi_free(re->alloc, re, sizeof *re);
}

const char *lsi_regex_pattern(const struct lsi_regex *re, size_t *len)
{
    *len = re->len;
    return re->pattern;
}

struct lsi_regex_run *lsi_regex_run_new(const struct lsi_regex *re)
{
    struct lsi_regex_run *run = lsi_calloc(re->alloc, 1, sizeof *run);
    if (!run)
        return NULL;
    run->re = re;
    run->data = pcre2_match_data_create_from_pattern(re->code, re->general);
    run->match = pcre2_match_context_create(re->general);
    if (!run->data || !run->match) {
        lsi_regex_run_free(run);
        return NULL;
    }
    pcre2_set_match_limit(run->match, MATCH_LIMIT);
    pcre2_set_heap_limit(run->match, HEAP_LIMIT_KB);
    return run;
}

void lsi_regex_run_free(struct lsi_regex_run *run)
{
    if (!run)
        return;
    pcre2_match_context_free(run->match);
    pcre2_match_data_free(run->data);
    lsi_free(run->re->alloc, run, sizeof *run);
}

int lsi_regex_next(struct lsi_regex_run *run, const char *s, size_t len, size_t from, size_t *begin,
                   size_t *end)
{
    if (from >= len)
        return 0;
    const uint32_t opt = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(run->re->code, (PCRE2_SPTR)s, len, from, opt, run->data, run->match);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its state on the heap */
        rc = pcre2_match(run->re->code, (PCRE2_SPTR)s, len, from, opt | PCRE2_NO_JIT, run->data, run->match);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return -1;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(run->data);
    if (v[1] <= v[0] || v[0] < from)
        return -1;
    *begin = v[0];
    *end = v[1];
    return 1;
}

/*
 * Splitting a stretch of text into the pieces inside which tokens are merged.
 *
 * The four families of rules in use are written by hand; every other pattern is a
 * regular expression (split_regex.c). Stages are applied one inside the other.
 */
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

/* ---- the hand-written rules ------------------------------------------------- */

/* A character of the piece: class, code point, bytes. n == 0 past the end. */
struct ch {
    uint32_t cp;
    uint32_t n;
    enum lsi_char_class cls;
};

static inline struct ch char_at(const char *s, const char *end)
{
    struct ch c = { 0, 0, LSI_CHAR_OTHER };
    if (s == end)
        return c;
    c.n = (uint32_t)lsi_char_at(s, (size_t)(end - s), &c.cp);
    c.cls = lsi_char_class_of(c.cp);
    return c;
}

static const char *run_of(const char *s, const char *end, enum lsi_char_class cls)
{
    for (struct ch c = char_at(s, end); c.n && c.cls == cls; c = char_at(s, end))
        s += c.n;
    return s;
}

/* 's 't 're 've 'm 'll 'd after an apostrophe at s; s itself when there is none. */
static const char *contraction(const char *s, const char *end, bool fold)
{
    const size_t n = (size_t)(end - s);
    if (n < 2)
        return s;
    char a = s[1], b = n > 2 ? s[2] : '\0';
    if (fold) {
        if (n > 2 && memcmp(s + 1, "\xc5\xbf", 2) == 0) /* U+017F, a long s */
            return s + 3;
        a = a >= 'A' && a <= 'Z' ? (char)(a + 32) : a;
        b = b >= 'A' && b <= 'Z' ? (char)(b + 32) : b;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return s + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return s + 3;
    return s;
}

/* A run of white space; its last character is left to the next word unless it is alone or the text ends. */
static const char *space_run(const char *s, const char *end, bool lines)
{
    const char *p = s, *last = s, *after_line = NULL;
    for (struct ch c = char_at(p, end); c.n && c.cls == LSI_CHAR_SPACE; c = char_at(p, end)) {
        last = p;
        p += c.n;
        if (c.cp == '\n' || c.cp == '\r')
            after_line = p;
    }
    if (lines && after_line)
        return after_line;
    return p == end || last == s ? p : last;
}

static const char *gpt2_piece(const char *s, const char *end)
{
    if (*s == '\'') {
        const char *e = contraction(s, end, false);
        if (e != s)
            return e;
    }
    const char *p = s;
    struct ch c = char_at(p, end);
    if (c.cp == ' ') {
        const struct ch next = char_at(p + 1, end);
        if (next.n && next.cls != LSI_CHAR_SPACE) {
            p++;
            c = next;
        }
    }
    return c.cls == LSI_CHAR_SPACE ? space_run(s, end, false) : run_of(p, end, c.cls);
}

/* At most three digits a piece (Llama 3) or one (Qwen). */
static const char *llama3_piece(const char *s, const char *end, int max_digits)
{
    if (*s == '\'') {
        const char *e = contraction(s, end, true);
        if (e != s)
            return e;
    }
    const struct ch c = char_at(s, end);
    if (c.cls == LSI_CHAR_LETTER)
        return run_of(s, end, LSI_CHAR_LETTER);
    if (c.cls == LSI_CHAR_NUMBER) {
        const char *p = s + c.n;
        for (int k = 1; k < max_digits; k++) {
            const struct ch d = char_at(p, end);
            if (d.cls != LSI_CHAR_NUMBER)
                break;
            p += d.n;
        }
        return p;
    }
    const struct ch next = char_at(s + c.n, end);
    if (next.cls == LSI_CHAR_LETTER && c.cp != '\r' && c.cp != '\n')
        return run_of(s + c.n, end, LSI_CHAR_LETTER);
    const bool spaced = c.cp == ' ' && next.n && next.cls == LSI_CHAR_OTHER;
    if (c.cls == LSI_CHAR_SPACE && !spaced)
        return space_run(s, end, true);
    const char *p = run_of(spaced ? s + 1 : s, end, LSI_CHAR_OTHER);
    while (p < end && (*p == '\r' || *p == '\n'))
        p++;
    return p;
}

/* ---- stages ------------------------------------------------------------------- */

struct run {
    const ls_tokenizer *t;
    struct lsi_regex_run *regex[LSI_SPLIT_MAX];
    lsi_piece_fn *fn;
    void *ctx;
    int failed; /* 1: fn gave up, 2: a pattern met its limits */
};

static bool run_stage(struct run *r, size_t stage, const char *s, const char *end);

static bool emit(struct run *r, size_t stage, const char *s, const char *end)
{
    return s == end || run_stage(r, stage + 1, s, end);
}

/* Pieces [match or gap] in order, given out as the behaviour says. */
struct cutter {
    struct run *r;
    size_t stage;
    enum lsi_split_behavior behavior;
    bool invert;
    const char *held, *held_end; /* waits for what is joined to it */
    bool held_match;
};

static bool cut(struct cutter *c, const char *s, const char *end, bool match)
{
    if (s == end)
        return true;
    match ^= c->invert;
    switch (c->behavior) {
    case LSI_SPLIT_REMOVED:
        return match || emit(c->r, c->stage, s, end);
    case LSI_SPLIT_ISOLATED:
        return emit(c->r, c->stage, s, end);
    default:
        break;
    }
    const bool joins = c->held != c->held_end &&
                       ((c->behavior == LSI_SPLIT_MERGED_WITH_PREVIOUS && match && !c->held_match) ||
                        (c->behavior == LSI_SPLIT_MERGED_WITH_NEXT && c->held_match && !match) ||
                        (c->behavior == LSI_SPLIT_CONTIGUOUS && match == c->held_match));
    if (!joins) {
        if (!emit(c->r, c->stage, c->held, c->held_end))
            return false;
        c->held = s;
    }
    c->held_end = end;
    c->held_match = match;
    return true;
}

static bool run_regex(struct run *r, size_t stage, const char *s, const char *end)
{
    const struct lsi_split *sp = &r->t->splits[stage];
    struct cutter c = { r, stage, sp->behavior, sp->invert, s, s, false };
    if (!r->regex[stage])
        r->regex[stage] = lsi_regex_run_new(sp->regex);
    if (!r->regex[stage]) {
        r->failed = 1;
        return false;
    }
    while (s < end) {
        /* The matcher reads valid UTF-8 only; other bytes lie between matches. */
        const size_t valid = lsi_utf8_valid_prefix(s, (size_t)(end - s));
        size_t at = 0, begin, to;
        int found;
        while ((found = lsi_regex_next(r->regex[stage], s, valid, at, &begin, &to)) > 0) {
            if (!cut(&c, s + at, s + begin, false) || !cut(&c, s + begin, s + to, true))
                return false;
            at = to;
        }
        if (found < 0) {
            r->failed = 2;
            return false;
        }
        const size_t broken = valid < (size_t)(end - s) ? 1 : 0;
        if (!cut(&c, s + at, s + valid + broken, false))
            return false;
        s += valid + broken;
    }
    return emit(r, stage, c.held, c.held_end);
}

/* Each digit alone, or runs of digits, and what is between them. */
static bool run_digits(struct run *r, size_t stage, const char *s, const char *end, bool alone)
{
    const char *gap = s;
    while (s < end) {
        const struct ch c = char_at(s, end);
        if (c.cls != LSI_CHAR_NUMBER) {
            s += c.n;
            continue;
        }
        const char *to = alone ? s + c.n : run_of(s, end, LSI_CHAR_NUMBER);
        if (!emit(r, stage, gap, s) || !emit(r, stage, s, to))
            return false;
        s = gap = to;
    }
    return emit(r, stage, gap, end);
}

static bool run_spaces(struct run *r, size_t stage, const char *s, const char *end)
{
    while (s < end) {
        const char *next = memchr(s + 1, ' ', (size_t)(end - s - 1));
        if (!next)
            next = end;
        if (!emit(r, stage, s, next))
            return false;
        s = next;
    }
    return true;
}

static bool run_stage(struct run *r, size_t stage, const char *s, const char *end)
{
    if (stage == r->t->n_splits) {
        if (!r->fn(r->ctx, s, (size_t)(end - s)))
            r->failed = 1;
        return !r->failed;
    }
    switch (r->t->splits[stage].kind) {
    case LSI_SPLIT_REGEX:
        return run_regex(r, stage, s, end);
    case LSI_SPLIT_DIGITS:
    case LSI_SPLIT_NUMBERS:
        return run_digits(r, stage, s, end, r->t->splits[stage].kind == LSI_SPLIT_DIGITS);
    case LSI_SPLIT_SPACE:
        return run_spaces(r, stage, s, end);
    default:
        break;
    }
    const enum lsi_split_kind kind = r->t->splits[stage].kind;
    while (s < end) {
        const char *to = kind == LSI_SPLIT_GPT2 ? gpt2_piece(s, end)
                                                : llama3_piece(s, end, kind == LSI_SPLIT_LLAMA3 ? 3 : 1);
        if (!emit(r, stage, s, to))
            return false;
        s = to;
    }
    return true;
}

ls_status lsi_split_run(const ls_tokenizer *t, const char *s, size_t len, lsi_piece_fn *fn, void *ctx,
                        ls_error *err)
{
    struct run r = { .t = t, .fn = fn, .ctx = ctx };
    if (len)
        run_stage(&r, 0, s, s + len);
    for (size_t i = 0; i < t->n_splits; i++)
        lsi_regex_run_free(r.regex[i]);
    if (r.failed == 2)
        return lsi_fail(
            err, LS_E_LIMIT,
            "the tokenizer's split pattern needs too many steps on this text; it cannot be used here");
    return r.failed ? lsi_fail(err, LS_E_NOMEM, "no memory to tokenise %zu bytes", len) : LS_OK;
}

/* ---- names and patterns ---------------------------------------------------------- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Patterns as they stand in published tokenizer.json files. */
static const struct {
    const char *pattern;
    enum lsi_split_kind kind;
} known_patterns[] = {
    { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", LSI_SPLIT_GPT2 },
    { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL, LSI_SPLIT_LLAMA3 },
    { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL, LSI_SPLIT_QWEN2 },
    { "\\p{N}", LSI_SPLIT_DIGITS },
    { "\\p{N}+", LSI_SPLIT_NUMBERS },
};

const char *lsi_split_pattern_of(enum lsi_split_kind kind)
{
    for (size_t i = 0; i < LSI_LEN(known_patterns); i++)
        if (known_patterns[i].kind == kind)
            return known_patterns[i].pattern;
    return NULL;
}

bool lsi_split_push(ls_tokenizer *t, enum lsi_split_kind kind)
{
    if (t->n_splits == LSI_SPLIT_MAX)
        return false;
    t->splits[t->n_splits++] = (struct lsi_split){ .kind = kind };
    return true;
}

/* A text as a pattern that matches exactly it. */
static bool quote_literal(struct lsi_buf *b, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (strchr("\\^$.[]|()?*+{}-#", s[i]) && s[i])
            lsi_buf_append(b, "\\", 1);
        lsi_buf_append(b, s + i, 1);
    }
    return !b->failed;
}

ls_status lsi_split_pattern(ls_tokenizer *t, const char *pattern, size_t len, bool literal,
                            enum lsi_split_behavior behavior, bool invert, ls_error *err)
{
    if (t->n_splits == LSI_SPLIT_MAX)
        return lsi_fail(err, LS_E_UNSUPPORTED, "pre_tokenizer: more than %d stages", LSI_SPLIT_MAX);
    /* These patterns leave no gaps or isolate, so removing what is not matched changes nothing. */
    const bool plain =
        !literal && ((behavior == LSI_SPLIT_ISOLATED) || (behavior == LSI_SPLIT_REMOVED && invert));
    for (size_t i = 0; plain && i < LSI_LEN(known_patterns); i++) {
        const enum lsi_split_kind kind = known_patterns[i].kind;
        if (strlen(known_patterns[i].pattern) != len || memcmp(known_patterns[i].pattern, pattern, len) != 0)
            continue;
        if (behavior == LSI_SPLIT_REMOVED && (kind == LSI_SPLIT_DIGITS || kind == LSI_SPLIT_NUMBERS))
            break;
        lsi_split_push(t, kind);
        return LS_OK;
    }
    struct lsi_split *sp = &t->splits[t->n_splits];
    *sp = (struct lsi_split){ .kind = LSI_SPLIT_REGEX, .behavior = behavior, .invert = invert };
    if (!literal) {
        LSI_TRY(lsi_regex_compile(t->alloc, pattern, len, &sp->regex, err));
    } else {
        struct lsi_buf b;
        lsi_buf_init(&b, t->alloc, 1 << 16);
        ls_status st = lsi_fail(err, LS_E_NOMEM, "no memory for a split pattern");
        if (quote_literal(&b, pattern, len))
            st = lsi_regex_compile(t->alloc, b.data ? b.data : "", b.len, &sp->regex, err);
        lsi_buf_fini(&b);
        LSI_TRY(st);
    }
    t->n_splits++;
    return LS_OK;
}

/* Rules that GGUF files name. Stages are separated by a line feed, in the order of application. */
static const char gpt2_rule[] = "gpt-2 mpt olmo jais trillion phi-2 jina-es jina-de jina-v2-es jina-v2-de "
                                "gigachat granite-docling mellum a.x-4.0 roberta-bpe jina-v1-en jina-v2-code "
                                "modern-bert ";
static const char smollm_rule[] = "smollm starcoder refact command-r codeshell exaone minerva-7b ";
static const char llama3_rule[] = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx "
                                  "smaug-bpe chatglm-bpe glm4 ";
static const char qwen2_rule[] = "qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez kormo solar-open ";

static const struct {
    const char *name;
    const char *patterns[3];
} named_patterns[] = {
    { "falcon",
      { "[\\p{P}$+<=>^~|`]+",
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "[0-9][0-9][0-9]" } },
    { "deepseek-coder",
      { "[\r\n]", "\\s?\\p{L}+|\\s?\\p{P}+",
        "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80"
        "\xea\xb0\x80-\xed\x9f\xbf]+|\\p{N}" } },
    { "qwen35",
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
                     "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "tekken",
      { "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
        "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
        "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "gpt-4o",
      { "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
        "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}"
        "\\p{M}]*" CONTRACTIONS
        "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "deepseek-v3",
      { "\\p{N}{1,3}", "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+" } },
};

static bool is_listed(const char *list, const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = list; n > 0 && (p = strstr(p, name)) != NULL; p += n)
        if ((p == list || p[-1] == ' ') && p[n] == ' ')
            return true;
    return false;
}

ls_status lsi_split_named(ls_tokenizer *t, const char *name, bool *known, ls_error *err)
{
    *known = true;
    snprintf(t->split_name, sizeof t->split_name, "%s", name);
    if (is_listed(gpt2_rule, name)) {
        lsi_split_push(t, LSI_SPLIT_GPT2);
    } else if (is_listed(smollm_rule, name)) {
        lsi_split_push(t, LSI_SPLIT_DIGITS);
        lsi_split_push(t, LSI_SPLIT_GPT2);
    } else if (is_listed(llama3_rule, name)) {
        lsi_split_push(t, LSI_SPLIT_LLAMA3);
    } else if (is_listed(qwen2_rule, name)) {
        lsi_split_push(t, LSI_SPLIT_QWEN2);
    } else {
        for (size_t i = 0; i < LSI_LEN(named_patterns); i++) {
            if (strcmp(named_patterns[i].name, name) != 0)
                continue;
            for (size_t k = 0; k < 3 && named_patterns[i].patterns[k]; k++)
                LSI_TRY(lsi_split_pattern(t, named_patterns[i].patterns[k],
                                          strlen(named_patterns[i].patterns[k]), false, LSI_SPLIT_ISOLATED,
                                          false, err));
            return LS_OK;
        }
        *known = false;
    }
    return LS_OK;
}

void lsi_split_set_name(ls_tokenizer *t)
{
    if (t->split_name[0])
        return;
    static const struct {
        const char *name;
        size_t n;
        enum lsi_split_kind kinds[2];
    } names[] = {
        { "none", 0, { 0 } },
        { "none", 1, { LSI_SPLIT_SPACE } },
        { "gpt-2", 1, { LSI_SPLIT_GPT2 } },
        { "smollm", 2, { LSI_SPLIT_DIGITS, LSI_SPLIT_GPT2 } },
        { "llama-bpe", 1, { LSI_SPLIT_LLAMA3 } },
        { "qwen2", 1, { LSI_SPLIT_QWEN2 } },
    };
    snprintf(t->split_name, sizeof t->split_name, "regex");
    for (size_t i = 0; i < LSI_LEN(names); i++) {
        bool same = names[i].n == t->n_splits;
        for (size_t k = 0; same && k < t->n_splits; k++)
            same = t->splits[k].kind == names[i].kinds[k];
        if (same) {
            snprintf(t->split_name, sizeof t->split_name, "%s", names[i].name);
            return;
        }
    }
}

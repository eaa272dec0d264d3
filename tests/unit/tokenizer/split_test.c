/*
 * The hand-written split rules against their published patterns, run by PCRE2, on generated text: many
 * scripts, all white space, digits of every kind, contractions, emoji, line ends and broken UTF-8.
 */
#include "recorded.h"

#define TEXT_MAX   4096
#define N_TEXTS    120
#define PIECES_MAX (TEXT_MAX + 1)

/* Where pieces end, as offsets into the text. */
struct ends {
    size_t n, at[PIECES_MAX];
    const char *text;
};

/* A text and the same with every byte that is not UTF-8 as U+FFFD, which patterns can be run on. */
struct sample {
    char text[TEXT_MAX], valid[3 * TEXT_MAX];
    size_t len, valid_len;
    size_t origin[3 * TEXT_MAX + 1]; /* offset in text of every offset in valid */
};

/* ---- generated text --------------------------------------------------------------- */

static const struct {
    uint32_t first, last;
} ranges[] = {
    { 'a', 'z' },         { 'A', 'Z' },         { '0', '9' },         { '!', '/' },
    { 0xa1, 0x24f },      { 0x300, 0x36f },     { 0x370, 0x3ff },     { 0x400, 0x4ff },
    { 0x5d0, 0x5ea },     { 0x620, 0x669 },     { 0x900, 0x97f },     { 0xe00, 0xe5b },
    { 0x1100, 0x11ff },   { 0x2000, 0x206f },   { 0x2070, 0x218b },   { 0x2460, 0x24ff },
    { 0x2700, 0x27bf },   { 0x3000, 0x30ff },   { 0x3220, 0x32b0 },   { 0x4e00, 0x9fff },
    { 0xac00, 0xd7a3 },   { 0xff00, 0xffef },   { 0x20, 0xd7ff },     { 0xe000, 0xfffd },
    { 0x10107, 0x10133 }, { 0x1d400, 0x1d7ff }, { 0x1f1e6, 0x1f1ff }, { 0x1f300, 0x1f64f },
};

static const uint32_t spaces[] = { 9,      10,     11,     12,     13,     32,     0x85,   0xa0,   0x1680,
                                   0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                   0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0x180e };

static const char *const words[] = {
    "'s",
    "'S",
    "'t",
    "'re",
    "'RE",
    "'Ve",
    "'m",
    "'ll",
    "'lL",
    "'d",
    "'\xc5\xbf",
    "'l",
    "'r",
    "'v",
    "'",
    "''s",
    " ",
    " ",
    "  ",
    "   ",
    "\n",
    "\r\n",
    "\n\n",
    " \n",
    "\n ",
    "\t",
    "the",
    " of",
    "It",
    "x1y",
    "123",
    "1234",
    " 12",
    "3.14",
    "1,000",
    "...",
    "?!",
    " (",
    ")\n",
    "_",
    "\xe2\x80\x8d",
    "\xef\xb8\x8f",
    "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
    "\xff",
    "\xc3",
    "\xe2\x82",
    "\xf0\x9f",
    "\x80",
    "\xed\xa0\x80",
    "\xc0\xaf",
    "",
};

static void put_char(struct sample *s, uint32_t cp)
{
    char u[4];
    const size_t n = lsi_utf8_encode(cp, u);
    memcpy(s->text + s->len, u, n);
    s->len += n;
}

static void make_sample(struct lsi_rng *rng, struct sample *s)
{
    const size_t want = 1 + (size_t)lsi_rng_below(rng, TEXT_MAX - 64);
    s->len = 0;
    while (s->len < want) {
        switch (lsi_rng_below(rng, 4)) {
        case 0: {
            const size_t k = (size_t)lsi_rng_below(rng, LSI_LEN(ranges)),
                         n = 1 + (size_t)lsi_rng_below(rng, 5);
            for (size_t i = 0; i < n; i++)
                put_char(s, ranges[k].first +
                                (uint32_t)lsi_rng_below(rng, ranges[k].last - ranges[k].first + 1));
            break;
        }
        case 1:
            for (size_t n = 1 + (size_t)lsi_rng_below(rng, 3); n > 0; n--)
                put_char(s, spaces[lsi_rng_below(rng, LSI_LEN(spaces))]);
            break;
        default: {
            const char *w = words[lsi_rng_below(rng, LSI_LEN(words))];
            const size_t n = w[0] ? strlen(w) : 1; /* the empty one is a NUL */
            memcpy(s->text + s->len, w, n);
            s->len += n;
        }
        }
    }
    s->valid_len = 0;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        char u[4];
        const size_t n = lsi_char_at(s->text + i, s->len - i, &cp), m = lsi_utf8_encode(cp, u);
        for (size_t k = 0; k < m; k++) {
            s->origin[s->valid_len] = i;
            s->valid[s->valid_len++] = u[k];
        }
        i += n;
    }
    s->origin[s->valid_len] = s->len;
}

/* ---- both ways --------------------------------------------------------------------- */

static bool note_piece(void *ctx, const char *s, size_t len)
{
    struct ends *e = ctx;
    e->at[e->n++] = (size_t)(s - e->text) + len;
    return e->n < PIECES_MAX;
}

/* Matches and what lies between them, each given to the patterns that follow. */
static void cut_by_patterns(struct lsi_regex_run **runs, const char *s, size_t begin, size_t end,
                            struct ends *out)
{
    if (begin == end)
        return;
    if (!runs[0]) {
        out->at[out->n++] = end;
        return;
    }
    size_t at = 0, from, to;
    int found;
    while ((found = lsi_regex_next(runs[0], s + begin, end - begin, at, &from, &to)) > 0) {
        cut_by_patterns(runs + 1, s, begin + at, begin + from, out);
        cut_by_patterns(runs + 1, s, begin + from, begin + to, out);
        at = to;
    }
    REQUIRE(found == 0);
    cut_by_patterns(runs + 1, s, begin + at, end, out);
}

static void show_difference(const char *rule, const struct sample *s, const struct ends *got,
                            const struct ends *want)
{
    size_t i = 0;
    while (i < got->n && i < want->n && got->at[i] == want->at[i])
        i++;
    const size_t at = i ? got->at[i - 1] : 0, end = lsi_min_size(s->len, at + 24);
    fprintf(stderr, "  %s: piece %zu at %zu ends at %zu, expected %zu:", rule, i, at,
            i < got->n ? got->at[i] : 0, i < want->n ? want->at[i] : 0);
    for (size_t k = at; k < end; k++)
        fprintf(stderr, " %02x", (unsigned char)s->text[k]);
    fprintf(stderr, "\n");
}

static void check_rule(const char *rule, const enum lsi_split_kind *kinds, size_t n)
{
    static struct sample sample;
    static struct ends got, want;
    struct lsi_regex *re[3] = { NULL };
    struct lsi_regex_run *runs[3] = { NULL };
    struct lsi_rng rng;
    ls_error err = { 0 };
    ls_tokenizer *t;
    size_t bytes = 0, pieces = 0;
    int wrong = 0;
    REQUIRE_OK(lsi_tokenizer_new(NULL, &t, &err), err);
    for (size_t i = 0; i < n; i++) {
        const char *pattern = lsi_split_pattern_of(kinds[i]);
        REQUIRE(pattern != NULL && lsi_split_push(t, kinds[i]));
        REQUIRE_OK(lsi_regex_compile(t->alloc, pattern, strlen(pattern), &re[i], &err), err);
        REQUIRE((runs[i] = lsi_regex_run_new(re[i])) != NULL);
    }
    lsi_rng_init(&rng, 20);
    for (int k = 0; k < N_TEXTS; k++) {
        make_sample(&rng, &sample);
        got.n = want.n = 0;
        got.text = sample.text;
        REQUIRE_OK(lsi_split_run(t, sample.text, sample.len, note_piece, &got, &err), err);
        cut_by_patterns(runs, sample.valid, 0, sample.valid_len, &want);
        for (size_t i = 0; i < want.n; i++)
            want.at[i] = sample.origin[want.at[i]];
        bytes += sample.len;
        pieces += want.n;
        if (got.n == want.n && memcmp(got.at, want.at, got.n * sizeof got.at[0]) == 0)
            continue;
        if (wrong++ < 3)
            show_difference(rule, &sample, &got, &want);
    }
    CHECK_INT(wrong, 0);
    CHECK(bytes > 200000 && pieces > 40000);
    for (size_t i = 0; i < n; i++) {
        lsi_regex_run_free(runs[i]);
        lsi_regex_free(re[i]);
    }
    ls_tokenizer_close(t);
}

static void test_gpt2(void)
{
    check_rule("gpt-2", (enum lsi_split_kind[]){ LSI_SPLIT_GPT2 }, 1);
}

static void test_smollm(void)
{
    check_rule("smollm", (enum lsi_split_kind[]){ LSI_SPLIT_DIGITS, LSI_SPLIT_GPT2 }, 2);
}

static void test_llama3(void)
{
    check_rule("llama-bpe", (enum lsi_split_kind[]){ LSI_SPLIT_LLAMA3 }, 1);
}

static void test_qwen2(void)
{
    check_rule("qwen2", (enum lsi_split_kind[]){ LSI_SPLIT_QWEN2 }, 1);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_gpt2), TEST(test_smollm), TEST(test_llama3),
                                         TEST(test_qwen2) };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}

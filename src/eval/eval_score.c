/*
 * What an answer is worth. CONTAINS is RULER's (Hsieh et al. 2024), the others are LongBench's (Bai et al.
 * 2024), each as the benchmark's own program counts it, peculiarities included, so that scores can be held
 * beside published ones. Small letters and white space are Unicode's.
 */
#include "eval/eval.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

/* ---- texts --------------------------------------------------------------------------------------- */

/* The text in small letters; plain: without ASCII punctuation, which joins what it stands between. */
static void put_small(struct lsi_buf *b, const char *s, bool plain)
{
    const size_t n = strlen(s);
    lsi_buf_init(b, NULL, LSI_EVAL_TEXT_BYTES);
    lsi_buf_append(b, "", 0);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        char small[4];
        i += lsi_char_at(s + i, n - i, &cp);
        if (!plain || cp >= 128 || !ispunct((int)cp))
            lsi_buf_append(b, small, lsi_utf8_encode(lsi_char_lower(cp), small));
    }
}

/* The next word between white space of [*s, end); len 0 behind the last. */
static struct lsi_piece next_word(const char **s, const char *end)
{
    struct lsi_piece w = { NULL, 0 };
    while (*s < end) {
        uint32_t cp;
        const size_t n = lsi_char_at(*s, (size_t)(end - *s), &cp);
        const bool space = lsi_char_class_of(cp) == LSI_CHAR_SPACE;
        if (space && w.len)
            break;
        if (!space && !w.len)
            w.s = *s;
        w.len += space ? 0 : n;
        *s += n;
    }
    return w;
}

static bool same(const struct lsi_piece *a, const struct lsi_piece *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->s, b->s, a->len) == 0);
}

static const struct lsi_piece *pieces_of(const struct lsi_buf *b)
{
    return (const struct lsi_piece *)(const void *)b->data;
}

static size_t n_pieces(const struct lsi_buf *b)
{
    return b->len / sizeof(struct lsi_piece);
}

/* ---- contained ----------------------------------------------------------------------------------- */

static double score_contains(const ls_eval_turn *t, const char *answer, bool one)
{
    struct lsi_buf text, wanted;
    size_t found = 0;
    put_small(&text, answer, false);
    for (size_t i = 0; i < t->n_expected; i++) {
        put_small(&wanted, t->expected[i], false);
        found += !text.failed && !wanted.failed && strstr(text.data, wanted.data) != NULL;
        lsi_buf_fini(&wanted);
    }
    lsi_buf_fini(&text);
    if (one)
        return found > 0;
    return t->n_expected ? (double)found / (double)t->n_expected : 0;
}

/* ---- F1 of words --------------------------------------------------------------------------------- */

static bool is_article(const char *s, size_t n)
{
    return (n == 1 && s[0] == 'a') || (n == 2 && memcmp(s, "an", 2) == 0) ||
           (n == 3 && memcmp(s, "the", 3) == 0);
}

/* Articles become white space: "the", and the one in "the—cat", whose dash is no part of a word. */
static void blank_articles(struct lsi_buf *b)
{
    size_t begin = 0;
    for (size_t i = 0; i <= b->len;) {
        uint32_t cp = ' ';
        const size_t n = i < b->len ? lsi_char_at(b->data + i, b->len - i, &cp) : 1;
        const enum lsi_char_class c = lsi_char_class_of(cp);
        if (c != LSI_CHAR_LETTER && c != LSI_CHAR_NUMBER) {
            if (is_article(b->data + begin, i - begin))
                memset(b->data + begin, ' ', i - begin);
            begin = i + n;
        }
        i += n;
    }
}

/* A text and the words in it. */
struct words {
    struct lsi_buf text, words;
};

static void words_init(struct words *w, const char *text)
{
    put_small(&w->text, text, true);
    lsi_buf_init(&w->words, NULL, LSI_EVAL_TEXT_BYTES);
    if (w->text.failed)
        return;
    blank_articles(&w->text);
    const char *s = w->text.data, *end = s + w->text.len;
    for (struct lsi_piece p = next_word(&s, end); p.len; p = next_word(&s, end))
        lsi_buf_append(&w->words, &p, sizeof p);
}

static void words_fini(struct words *w)
{
    lsi_buf_fini(&w->text);
    lsi_buf_fini(&w->words);
}

static size_t count_word(const struct lsi_piece *words, size_t n, const struct lsi_piece *word)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += same(&words[i], word);
    return count;
}

/* F1 of two bags of words: 2 P R / (P + R) with P = common / n and R = common / m. */
static double f1(const struct words *a, const struct words *b)
{
    const size_t n = n_pieces(&a->words), m = n_pieces(&b->words);
    const struct lsi_piece *x = pieces_of(&a->words), *y = pieces_of(&b->words);
    size_t common = 0;
    for (size_t i = 0; i < n; i++) /* the k-th of a word is common when the other bag has k */
        common += count_word(x, i, &x[i]) < count_word(y, m, &x[i]);
    return common ? 2.0 * (double)common / (double)(n + m) : 0;
}

static double compare_f1(const char *answer, const char *expected)
{
    struct words a, b;
    words_init(&a, answer);
    words_init(&b, expected);
    const double v = f1(&a, &b);
    words_fini(&a);
    words_fini(&b);
    return v;
}

/* ---- ROUGE-L --------------------------------------------------------------------------------------- */

/* Words by sentences, which end at full stops. A sentence of white space alone has one word, of no letters.
 */
struct sentences {
    struct lsi_buf words; /* struct lsi_piece */
    struct lsi_buf ends;  /* size_t: words up to the end of each sentence */
};

static void sentences_init(struct sentences *t, const char *text)
{
    lsi_buf_init(&t->words, NULL, LSI_EVAL_TEXT_BYTES);
    lsi_buf_init(&t->ends, NULL, LSI_EVAL_TEXT_BYTES);
    while (*text) {
        const char *end = text + strcspn(text, "."), *s = text;
        if (end > text) {
            struct lsi_piece w = next_word(&s, end);
            do
                lsi_buf_append(&t->words, &w, sizeof w);
            while ((w = next_word(&s, end)).len);
            const size_t n = n_pieces(&t->words);
            lsi_buf_append(&t->ends, &n, sizeof n);
        }
        text = *end ? end + 1 : end;
    }
}

static void sentences_fini(struct sentences *t)
{
    lsi_buf_fini(&t->words);
    lsi_buf_fini(&t->ends);
}

static size_t n_sentences(const struct sentences *t)
{
    return t->ends.len / sizeof(size_t);
}

/* Words of sentence i. */
static const struct lsi_piece *sentence_of(const struct sentences *t, size_t i, size_t *n)
{
    const size_t *ends = (const size_t *)(const void *)t->ends.data, begin = i ? ends[i - 1] : 0;
    *n = ends[i] - begin;
    return pieces_of(&t->words) + begin;
}

/* The words of the longest common subsequence of x and y; of several the one that ends first in y. */
static bool add_common(struct lsi_used *set, const struct lsi_piece *x, size_t n, const struct lsi_piece *y,
                       size_t m)
{
    const size_t row = m + 1;
    uint32_t *table = lsi_calloc(NULL, (n + 1) * row, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            const uint32_t above = table[(i - 1) * row + j], before = table[i * row + j - 1];
            table[i * row + j] = same(&x[i - 1], &y[j - 1]) ? table[(i - 1) * row + j - 1] + 1
                                 : above > before           ? above
                                                            : before;
        }
    for (size_t i = n, j = m; i > 0 && j > 0;) {
        if (same(&x[i - 1], &y[j - 1])) {
            lsi_used_add(set, x[i - 1].len ? x[i - 1].s : "", x[i - 1].len);
            i--, j--;
        } else if (table[(i - 1) * row + j] > table[i * row + j - 1]) {
            i--;
        } else {
            j--;
        }
    }
    lsi_free(NULL, table, (n + 1) * row * sizeof *table);
    return !set->failed;
}

static size_t count_different(const struct sentences *t)
{
    struct lsi_used set = { 0 };
    for (size_t i = 0; i < n_pieces(&t->words); i++) {
        const struct lsi_piece *w = &pieces_of(&t->words)[i];
        lsi_used_add(&set, w->len ? w->s : "", w->len);
    }
    const size_t n = set.n;
    lsi_used_fini(&set);
    return n;
}

/*
 * ROUGE-L of summaries (Lin 2004) as the benchmark's library has it: the words that the longest common
 * subsequences of any sentence of the one with any of the other have, each word once, over the different
 * words of both. Capitals and punctuation count.
 */
static double compare_rouge_l(const char *answer, const char *expected)
{
    struct sentences a, b;
    struct lsi_used common = { 0 };
    double v = 0;
    sentences_init(&a, answer);
    sentences_init(&b, expected);
    bool ok = !a.words.failed && !a.ends.failed && !b.words.failed && !b.ends.failed;
    for (size_t i = 0; ok && i < n_sentences(&b); i++)
        for (size_t k = 0; ok && k < n_sentences(&a); k++) {
            size_t n, m;
            const struct lsi_piece *x = sentence_of(&b, i, &n), *y = sentence_of(&a, k, &m);
            ok = add_common(&common, x, n, y, m);
        }
    if (ok && common.n > 0) {
        const double p = (double)common.n / (double)count_different(&a),
                     r = (double)common.n / (double)count_different(&b);
        v = 2 * p * r / (p + r + 1e-8);
    }
    lsi_used_fini(&common);
    sentences_fini(&a);
    sentences_fini(&b);
    return v;
}

/* ---- classes, numbers, code ----------------------------------------------------------------------- */

/*
 * Classes that the answer names, as they are written. One that is part of the expected one does not count,
 * unless the class named before it was left out for that.
 */
static double compare_class(const ls_eval_case *c, const char *answer, const char *wanted)
{
    size_t named = 0;
    bool found = false, left_out = false;
    for (size_t k = 0; k < c->n_classes; k++) {
        const char *name = c->classes[k];
        if (!strstr(answer, name))
            continue;
        const bool expected = strcmp(name, wanted) == 0;
        left_out = !left_out && !expected && strstr(wanted, name) != NULL;
        named += !left_out;
        found |= expected;
    }
    return found ? 1.0 / (double)named : 0;
}

/* The digits of the first number of a text. */
static struct lsi_piece number_at(const char *s)
{
    s += strcspn(s, "0123456789");
    return (struct lsi_piece){ s, strspn(s, "0123456789") };
}

static double compare_number(const char *answer, const char *expected)
{
    const struct lsi_piece wanted = number_at(expected);
    size_t numbers = 0, right = 0;
    for (struct lsi_piece n = number_at(answer); n.len; n = number_at(n.s + n.len)) {
        numbers++;
        right += same(&n, &wanted);
    }
    return numbers ? (double)right / (double)numbers : 0;
}

/* The first line, behind empty ones, without a comment or a fence; it may be empty itself. */
static struct lsi_piece code_line(const char *answer)
{
    for (answer += strspn(answer, "\n");;) {
        const struct lsi_piece line = { answer, strcspn(answer, "\n") };
        bool code = true;
        for (size_t i = 0; i < line.len; i++)
            code &= line.s[i] != '`' && line.s[i] != '#' &&
                    !(line.s[i] == '/' && i + 1 < line.len && line.s[i + 1] == '/');
        if (code || !answer[line.len])
            return code ? line : (struct lsi_piece){ answer, 0 };
        answer += line.len + 1;
    }
}

static void put_characters(struct lsi_buf *b, const char *s, size_t n)
{
    lsi_buf_init(b, NULL, LSI_EVAL_TEXT_BYTES);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += lsi_char_at(s + i, n - i, &cp);
        lsi_buf_append(b, &cp, sizeof cp);
    }
}

/* Length of the longest common subsequence, row by row. */
static size_t common_characters(const uint32_t *a, size_t n, const uint32_t *b, size_t m)
{
    size_t *row = lsi_calloc(NULL, m + 1, sizeof *row), common = 0;
    if (!row)
        return 0;
    for (size_t i = 0; i < n; i++) {
        size_t diagonal = 0;
        for (size_t j = 0; j < m; j++) {
            const size_t above = row[j + 1];
            row[j + 1] = a[i] == b[j] ? diagonal + 1 : lsi_max_size(above, row[j]);
            diagonal = above;
        }
    }
    common = row[m];
    lsi_free(NULL, row, (m + 1) * sizeof *row);
    return common;
}

/* Edit similarity in whole per cent: 1 - distance / both lengths, where a change costs as much as two. */
static double compare_similarity(const char *answer, const char *expected)
{
    const struct lsi_piece line = code_line(answer);
    struct lsi_buf a, b;
    put_characters(&a, line.s, line.len);
    put_characters(&b, expected, strlen(expected));
    const size_t n = a.len / sizeof(uint32_t), m = b.len / sizeof(uint32_t);
    double v = n == 0 && m == 0;
    if (n > 0 && m > 0 && !a.failed && !b.failed) {
        const size_t common = common_characters((const uint32_t *)(const void *)a.data, n,
                                                (const uint32_t *)(const void *)b.data, m);
        v = 1 - (double)(n + m - 2 * common) / (double)(n + m);
    }
    lsi_buf_fini(&a);
    lsi_buf_fini(&b);
    return rint(100 * v) / 100;
}

/* ---- all of them -------------------------------------------------------------------------------------- */

static double compare(const ls_eval_case *c, const char *answer, const char *expected)
{
    switch (c->metric) {
    case LS_EVAL_F1:
        return compare_f1(answer, expected);
    case LS_EVAL_ROUGE_L:
        return compare_rouge_l(answer, expected);
    case LS_EVAL_CLASS:
        return compare_class(c, answer, expected);
    case LS_EVAL_NUMBER:
        return compare_number(answer, expected);
    case LS_EVAL_SIMILARITY:
        return compare_similarity(answer, expected);
    case LS_EVAL_CONTAINS:
    case LS_EVAL_CONTAINS_1:
    case LS_EVAL_NLL:
        break;
    }
    return 0;
}

static double score(const ls_eval_case *c, const ls_eval_turn *t, const char *answer)
{
    double best = 0;
    if (c->metric == LS_EVAL_CONTAINS || c->metric == LS_EVAL_CONTAINS_1)
        return score_contains(t, answer, c->metric == LS_EVAL_CONTAINS_1);
    for (size_t i = 0; i < t->n_expected; i++)
        best = fmax(best, compare(c, answer, t->expected[i]));
    return best;
}

double ls_eval_score(const ls_eval_case *c, size_t turn, const char *answer)
{
    if (!c->first_line)
        return score(c, &c->turns[turn], answer);
    answer += strspn(answer, "\n");
    const size_t n = strcspn(answer, "\n");
    char *line = lsi_strndup(NULL, answer, n);
    const double v = line ? score(c, &c->turns[turn], line) : 0;
    lsi_free(NULL, line, n + 1);
    return v;
}

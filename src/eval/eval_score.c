/*
 * What an answer is worth. CONTAINS is RULER's, F1, CLASS, NUMBER and ROUGE_L are LongBench's (Bai et al.
 * 2024), written from their definitions. Comparison is of bytes with ASCII letters in small ones.
 */
#include "eval/eval.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define MOST_WORDS 4096 /* of an answer or of what is expected; more are not looked at */

static bool contains(const char *text, const char *wanted)
{
    const size_t n = strlen(wanted);
    if (n == 0)
        return true;
    for (; *text; text++)
        if (strncasecmp(text, wanted, n) == 0)
            return true;
    return false;
}

static double score_contains(const ls_eval_turn *t, const char *answer, bool one)
{
    size_t found = 0;
    for (size_t i = 0; i < t->n_expected; i++)
        found += contains(answer, t->expected[i]);
    if (one)
        return found > 0;
    return t->n_expected ? (double)found / (double)t->n_expected : 0;
}

/* ---- words --------------------------------------------------------------------------------------- */

struct words {
    char *text; /* a copy in small letters; the words point into it */
    size_t bytes;
    struct lsi_piece *word; /* [n] */
    size_t n;
};

static bool is_article(const char *s, size_t n)
{
    return (n == 1 && s[0] == 'a') || (n == 2 && memcmp(s, "an", 2) == 0) ||
           (n == 3 && memcmp(s, "the", 3) == 0);
}

/* Words between white space; plain: without punctuation, which joins what it stands between, and articles. */
static bool split(struct words *w, const char *text, bool plain)
{
    *w = (struct words){ .bytes = strlen(text) + 1 };
    w->text = lsi_alloc(NULL, w->bytes);
    w->word = lsi_calloc(NULL, MOST_WORDS, sizeof *w->word);
    if (!w->text || !w->word)
        return false;
    size_t end = 0;
    for (const char *p = text; *p && w->n < MOST_WORDS;) {
        const size_t begin = end;
        for (; *p && isspace((unsigned char)*p); p++)
            continue;
        for (; *p && !isspace((unsigned char)*p); p++)
            if (!plain || !ispunct((unsigned char)*p))
                w->text[end++] = (char)tolower((unsigned char)*p);
        if (end > begin && !(plain && is_article(w->text + begin, end - begin)))
            w->word[w->n++] = (struct lsi_piece){ w->text + begin, end - begin };
    }
    return true;
}

static void words_free(struct words *w)
{
    lsi_free(NULL, w->text, w->bytes);
    lsi_free(NULL, w->word, MOST_WORDS * sizeof *w->word);
}

static bool same(const struct lsi_piece *a, const struct lsi_piece *b)
{
    return a->len == b->len && memcmp(a->s, b->s, a->len) == 0;
}

static double harmonic(size_t common, size_t n, size_t m)
{
    return common ? 2.0 * (double)common / (double)(n + m) : 0;
}

/* F1 of two bags of words: 2 P R / (P + R) with P = common / n and R = common / m. */
static double f1(const struct words *a, const struct words *b)
{
    bool taken[MOST_WORDS] = { false };
    size_t common = 0;
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++)
            if (!taken[j] && same(&a->word[i], &b->word[j])) {
                taken[j] = true;
                common++;
                break;
            }
    return harmonic(common, a->n, b->n);
}

/* Length of the longest common subsequence, row by row. */
static double rouge_l(const struct words *a, const struct words *b)
{
    size_t row[MOST_WORDS + 1] = { 0 };
    for (size_t i = 0; i < a->n; i++) {
        size_t diagonal = 0;
        for (size_t j = 0; j < b->n; j++) {
            const size_t above = row[j + 1];
            row[j + 1] = same(&a->word[i], &b->word[j]) ? diagonal + 1 : lsi_max_size(above, row[j]);
            diagonal = above;
        }
    }
    return harmonic(row[b->n], a->n, b->n);
}

/* The same of bytes. */
static double similarity(const char *a, const char *b)
{
    const size_t n = lsi_min_size(strlen(a), MOST_WORDS), m = lsi_min_size(strlen(b), MOST_WORDS);
    size_t row[MOST_WORDS + 1] = { 0 };
    for (size_t i = 0; i < n; i++) {
        size_t diagonal = 0;
        for (size_t j = 0; j < m; j++) {
            const size_t above = row[j + 1];
            row[j + 1] = a[i] == b[j] ? diagonal + 1 : lsi_max_size(above, row[j]);
            diagonal = above;
        }
    }
    return harmonic(row[m], n, m);
}

static double compare_words(const ls_eval_turn *t, const char *answer, ls_eval_metric metric)
{
    const bool plain = metric == LS_EVAL_F1;
    struct words a, b;
    double best = 0;
    if (split(&a, answer, plain))
        for (size_t i = 0; i < t->n_expected; i++) {
            if (split(&b, t->expected[i], plain)) {
                const double v = plain ? f1(&a, &b) : rouge_l(&a, &b);
                best = v > best ? v : best;
            }
            words_free(&b);
        }
    words_free(&a);
    return best;
}

/* ---- classes, numbers, code ----------------------------------------------------------------------- */

/* Classes that the answer names; one whose name is part of an expected one that is named does not count. */
static double score_class(const ls_eval_case *c, const ls_eval_turn *t, const char *answer)
{
    double best = 0;
    for (size_t i = 0; i < t->n_expected; i++) {
        const char *wanted = t->expected[i];
        size_t named = 0;
        if (!contains(answer, wanted))
            continue;
        for (size_t k = 0; k < c->n_classes; k++)
            named += contains(answer, c->classes[k]) &&
                     (strcasecmp(c->classes[k], wanted) == 0 || !contains(wanted, c->classes[k]));
        best = named && 1.0 / (double)named > best ? 1.0 / (double)named : best;
    }
    return best;
}

/* The digits of the first number of a text. */
static struct lsi_piece number_at(const char *s)
{
    s += strcspn(s, "0123456789");
    return (struct lsi_piece){ s, strspn(s, "0123456789") };
}

static double score_number(const ls_eval_turn *t, const char *answer)
{
    double best = 0;
    for (size_t i = 0; i < t->n_expected; i++) {
        const struct lsi_piece wanted = number_at(t->expected[i]);
        size_t numbers = 0, right = 0;
        for (struct lsi_piece n = number_at(answer); n.len; n = number_at(n.s + n.len)) {
            numbers++;
            right += same(&n, &wanted);
        }
        best = numbers && (double)right / (double)numbers > best ? (double)right / (double)numbers : best;
    }
    return best;
}

/* The first line that is code: neither a comment nor a fence. */
static double score_similarity(const ls_eval_turn *t, const char *answer)
{
    char line[MOST_WORDS] = "";
    double best = 0;
    while (*answer) {
        const size_t n = strcspn(answer, "\n");
        snprintf(line, sizeof line, "%.*s", (int)lsi_min_size(n, sizeof line - 1), answer);
        if (n > 0 && !strpbrk(line, "`#") && !strstr(line, "//"))
            break;
        line[0] = '\0';
        answer += n + (answer[n] == '\n');
    }
    for (size_t i = 0; i < t->n_expected; i++) {
        const double v = similarity(line, t->expected[i]);
        best = v > best ? v : best;
    }
    return best;
}

/* ---- all of them -------------------------------------------------------------------------------------- */

static double score(const ls_eval_case *c, const ls_eval_turn *t, const char *answer)
{
    switch (c->metric) {
    case LS_EVAL_CONTAINS:
    case LS_EVAL_CONTAINS_1:
        return score_contains(t, answer, c->metric == LS_EVAL_CONTAINS_1);
    case LS_EVAL_F1:
    case LS_EVAL_ROUGE_L:
        return compare_words(t, answer, c->metric);
    case LS_EVAL_CLASS:
        return score_class(c, t, answer);
    case LS_EVAL_NUMBER:
        return score_number(t, answer);
    case LS_EVAL_SIMILARITY:
        return score_similarity(t, answer);
    case LS_EVAL_NLL:
        break;
    }
    return 0;
}

double ls_eval_score(const ls_eval_case *c, size_t turn, const char *answer)
{
    char line[MOST_WORDS];
    if (!c->first_line)
        return score(c, &c->turns[turn], answer);
    answer += strspn(answer, " \r\n\t");
    snprintf(line, sizeof line, "%.*s", (int)lsi_min_size(strcspn(answer, "\n"), sizeof line - 1), answer);
    return score(c, &c->turns[turn], line);
}

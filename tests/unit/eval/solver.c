#include "solver.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer(struct solution *s, const char *text, size_t n)
{
    if (s->n < SOLVER_ANSWERS)
        snprintf(s->answers[s->n++], SOLVER_BYTES, "%.*s", (int)n, text);
}

static size_t word_length(const char *s)
{
    return strcspn(s, " \n,.:?=");
}

/* What stands between two marks of a text. */
static const char *between(const char *text, const char *left, const char *right, size_t *n)
{
    const char *begin = strstr(text, left), *end = begin ? strstr(begin + strlen(left), right) : NULL;
    *n = end ? (size_t)(end - begin) - strlen(left) : 0;
    return end ? begin + strlen(left) : "";
}

static const char *last_of(const char *text, const char *mark)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, mark)) != NULL; p++)
        found = p;
    return found;
}

/* ---- needles: every sentence about a name that is asked for ------------------------------------------- */

static void solve_needle(const char *text, const char *question, struct solution *s)
{
    static const char mark[] = "special magic numbers for ";
    size_t n;
    const char *names =
        between(question, strstr(question, mark) ? mark : "special magic number for ", " mentioned", &n);
    for (const char *p = names; p < names + n;) {
        while (*p == ',' || *p == ' ')
            p++;
        const size_t len = word_length(p);
        const bool is_and = len == 3 && memcmp(p, "and", 3) == 0;
        char sentence[128];
        snprintf(sentence, sizeof sentence, "One of the special magic numbers for %.*s is: ", (int)len, p);
        for (const char *at = text; !is_and && (at = strstr(at, sentence)) != NULL;) {
            at += strlen(sentence);
            answer(s, at, strspn(at, "0123456789"));
        }
        p += len;
    }
}

/* ---- variables: values are carried on until nothing changes -----------------------------------------------
 */

static void solve_variables(const char *text, const char *question, struct solution *s)
{
    struct variable {
        char name[16], from[16], value[16];
    } v[64] = { 0 };
    size_t n = 0, len;
    const char *value = between(question, "have the value ", " in the text", &len);
    text = last_of(text, "Variables are assigned");
    for (const char *p = text; p && (p = strstr(p, "VAR ")) != NULL && n < 64; n++) {
        p += 4;
        snprintf(v[n].name, sizeof v[n].name, "%.*s", (int)word_length(p), p);
        p = strstr(p, "= ") + 2;
        const bool copied = strncmp(p, "VAR ", 4) == 0;
        p += copied ? 4 : 0;
        snprintf(copied ? v[n].from : v[n].value, 16, "%.*s", (int)word_length(p), p);
    }
    for (size_t round = 0; round < n; round++)
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++)
                if (v[i].from[0] && strcmp(v[i].from, v[k].name) == 0)
                    memcpy(v[i].value, v[k].value, sizeof v[i].value);
    for (size_t i = 0; i < n; i++)
        if (strlen(v[i].value) == len && memcmp(v[i].value, value, len) == 0)
            answer(s, v[i].name, strlen(v[i].name));
}

/* ---- words: counted after sorting
 * ------------------------------------------------------------------------------ */

struct counted {
    char word[32];
    size_t n;
};

static int by_word(const void *a, const void *b)
{
    return strcmp(((const struct counted *)a)->word, ((const struct counted *)b)->word);
}

static int by_count(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;
    return (x->n < y->n) - (x->n > y->n);
}

/* The most frequent words; none when it is not clear which they are. */
static void most_frequent(const char *text, bool numbered, size_t wanted, struct solution *s)
{
    const size_t most = strlen(text) / 2 + 1;
    struct counted *w = calloc(most, sizeof *w);
    size_t n = 0, kinds = 0;
    for (const char *p = text; w && *p;) {
        const size_t len = strcspn(p, " \n");
        const bool counts = numbered ? !isdigit((unsigned char)*p) : strncmp(p, "...", 3) != 0;
        if (len > 0 && counts) {
            snprintf(w[n].word, sizeof w[n].word, "%.*s", (int)len, p);
            w[n++].n = 1;
        }
        p += len;
        p += strspn(p, " \n");
    }
    qsort(w, n, sizeof *w, by_word);
    for (size_t i = 0; i < n; i++) {
        if (kinds > 0 && strcmp(w[kinds - 1].word, w[i].word) == 0)
            w[kinds - 1].n++;
        else
            w[kinds++] = w[i];
    }
    qsort(w, kinds, sizeof *w, by_count);
    if (kinds >= wanted && (kinds == wanted || w[wanted - 1].n > w[wanted].n))
        for (size_t i = 0; i < wanted; i++)
            answer(s, w[i].word, strlen(w[i].word));
    free(w);
}

static void solve_words(const char *text, const char *header, bool numbered, size_t wanted,
                        struct solution *s)
{
    const char *begin = last_of(text, header);
    begin = begin ? strchr(begin, '\n') : NULL;
    if (begin)
        most_frequent(begin + 1, numbered, wanted, s);
}

/* ---- lines, copies
 * -------------------------------------------------------------------------------------------------- */

static void solve_line(const char *text, const char *question, struct solution *s)
{
    size_t n;
    char mark[128];
    const char *key = between(question, "content of line ", "?", &n);
    snprintf(mark, sizeof mark, "line %.*s: the content is ", (int)n, key);
    const char *at = strstr(text, mark);
    if (at && !strstr(at + 1, mark))
        answer(s, at + strlen(mark), word_length(at + strlen(mark)));
}

/* The n words behind the only place where the question's words stand. */
static void solve_copy(const char *text, const char *question, size_t n, struct solution *s)
{
    char cue[1024];
    snprintf(cue, sizeof cue, "%s ", question);
    const char *at = strstr(text, cue);
    if (!at || strstr(at + 1, cue))
        return;
    const char *begin = at + strlen(cue), *end = begin;
    for (size_t i = 0; i < n; i++)
        end += strcspn(end, " ") + (i + 1 < n);
    answer(s, begin, (size_t)(end - begin));
}

void solve(const char *task, const char *text, const char *question, struct solution *s)
{
    s->n = 0;
    if (strncmp(task, "needle-", 7) == 0) {
        solve_needle(text, question, s);
    } else if (strcmp(task, "passkey") == 0) {
        size_t n;
        const char *value = between(text, "The pass key is ", ".", &n);
        answer(s, value, n);
    } else if (strcmp(task, "variable-tracking") == 0) {
        solve_variables(text, question, s);
    } else if (strcmp(task, "common-words") == 0) {
        solve_words(text, "numbered list stand there more often", true, 10, s);
    } else if (strcmp(task, "frequent-words") == 0) {
        solve_words(text, "made of coded words", false, 3, s);
    } else if (strcmp(task, "lines") == 0 || strcmp(task, "stream") == 0) {
        solve_line(text, question, s);
    } else if (strcmp(task, "copy") == 0) {
        solve_copy(text, question, 5, s);
    } else if (strcmp(task, "induction") == 0) {
        solve_copy(text, question, 1, s);
    }
}

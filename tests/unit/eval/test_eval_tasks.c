/* Generators: a solver finds in the text what they expect; lengths, seeds. */
#include <ctype.h>

#include <longspan/eval.h>

#include "solver.h"
#include "test.h"

static ls_error err;
static ls_tokenizer *tok;
static ls_eval_source *source;

static void open_source(const char *hay)
{
    const ls_eval_text text = { "test", hay, hay ? strlen(hay) : 0 };
    memset(&err, 0, sizeof err);
    REQUIRE_OK(ls_tokenizer_open(LS_SOURCE_DIR "/models/recall", NULL, &tok, &err), err);
    REQUIRE_OK(ls_eval_source_create(tok, hay ? &text : NULL, NULL, &source, &err), err);
}

static void close_source(void)
{
    ls_eval_source_free(source);
    ls_tokenizer_close(tok);
}

static bool expects(const ls_eval_turn *t, const char *answer)
{
    for (size_t i = 0; i < t->n_expected; i++)
        if (strcmp(t->expected[i], answer) == 0)
            return true;
    return false;
}

/* All that stands before the question of a turn, with the answers that a perfect model gives. */
static char *text_before(const ls_eval_case *c, size_t turn)
{
    size_t n = 1;
    for (size_t i = 0; i <= turn; i++)
        n += strlen(c->turns[i].text) + strlen(c->turns[i].question) + 64;
    char *all = calloc(n, 1);
    for (size_t i = 0; i <= turn; i++) {
        strcat(all, c->turns[i].text);
        if (i < turn) {
            strcat(all, c->turns[i].question);
            strcat(all, c->turns[i].expected[0]);
        }
    }
    return all;
}

static void check_solved(const ls_eval_case *c)
{
    for (size_t i = 0; i < c->n_turns; i++) {
        struct solution s;
        char *text = text_before(c, i);
        solve(c->task, text, c->turns[i].question, &s);
        CHECK_INT(s.n, c->turns[i].n_expected);
        for (size_t k = 0; k < s.n; k++) {
            if (!expects(&c->turns[i], s.answers[k]))
                fprintf(stderr, "  %s, seed %d, turn %zu: %s is not expected\n", c->task, (int)c->seed, i,
                        s.answers[k]);
            CHECK(expects(&c->turns[i], s.answers[k]));
        }
        free(text);
    }
}

static void check_all(size_t n_tokens, size_t slack, uint64_t n_seeds)
{
    const ls_eval_task_info *t;
    for (size_t i = 0; (t = ls_eval_task(i)) != NULL; i++)
        for (uint64_t seed = 0; seed < n_seeds; seed++) {
            ls_eval_case *c = NULL;
            const ls_status st = ls_eval_case_create(source, t->name, n_tokens, seed, seed / 2, &c, &err);
            if (st == LS_E_LIMIT)
                break; /* the task takes more */
            REQUIRE_OK(st, err);
            CHECK(c->n_ctx <= n_tokens);
            CHECK(c->n_ctx + slack >= n_tokens);
            if (c->n_ctx > n_tokens || c->n_ctx + slack < n_tokens)
                fprintf(stderr, "  %s of %zu tokens has %zu\n", t->name, n_tokens, c->n_ctx);
            if (c->metric == LS_EVAL_NLL)
                CHECK_INT(c->turns[0].n_expected, 0);
            else
                check_solved(c);
            ls_eval_case_free(c);
        }
}

/* A unit of the longest kind is ten lines of the stream with their question. */
static void test_solver(void)
{
    open_source(NULL);
    check_all(300, 260, 6);
    check_all(1000, 260, 6);
    check_all(4500, 260, 3);
    check_all(20000, 260, 1);
    close_source();
}

/* A text of the user's, in another script and with long lines. */
static void test_own_text(void)
{
    static char hay[400000];
    size_t n = 0;
    for (int i = 0; i < 900; i++)
        n +=
            (size_t)snprintf(hay + n, sizeof hay - n,
                             "%d: 長い文章の中に数字を隠す。 Ein langer Satz steht hier. And another one! %s",
                             i, i % 3 ? "" : "\n\n  \n");
    open_source(hay);
    check_all(3000, 400, 2);
    close_source();
}

/* Whether a text has a word, between what are no letters and digits. */
static bool has_word(const char *text, const char *word)
{
    const size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[n]))
            return true;
    return false;
}

/* No word of a question is its answer, though the text has them all among few others. */
static void test_questions_do_not_tell(void)
{
    static const char *const words[] = { "some",     "words", "following", "numbered", "list",   "stand",
                                         "there",    "more",  "often",     "than",     "others", "remember",
                                         "question", "which", "most",      "answer",   "that",   "them" };
    static char hay[40000];
    const ls_eval_task_info *t;
    size_t n = 0;
    for (int i = 0; i < 220; i++)
        n += (size_t)snprintf(hay + n, sizeof hay - n, "The word is %s, and abc%c%c.\n", words[i % 18],
                              'a' + i / 26, 'a' + i % 26);
    open_source(hay);
    for (size_t i = 0; (t = ls_eval_task(i)) != NULL; i++)
        for (uint64_t seed = 0; seed < 8; seed++) {
            ls_eval_case *c = NULL;
            REQUIRE_OK(ls_eval_case_create(source, t->name, 3000, seed, 0, &c, &err), err);
            for (size_t k = 0; k < c->n_turns; k++)
                for (size_t e = 0; e < c->turns[k].n_expected; e++) {
                    CHECK(!has_word(c->turns[k].question, c->turns[k].expected[e]));
                    CHECK(!has_word(c->turns[k].prefix, c->turns[k].expected[e]));
                }
            ls_eval_case_free(c);
        }
    close_source();
}

static void test_seeds(void)
{
    const ls_eval_task_info *t;
    open_source(NULL);
    for (size_t i = 0; (t = ls_eval_task(i)) != NULL; i++) {
        ls_eval_case *a = NULL, *same = NULL, *seed = NULL, *index = NULL;
        REQUIRE_OK(ls_eval_case_create(source, t->name, 2000, 5, 1, &a, &err), err);
        REQUIRE_OK(ls_eval_case_create(source, t->name, 2000, 5, 1, &same, &err), err);
        REQUIRE_OK(ls_eval_case_create(source, t->name, 2000, 6, 1, &seed, &err), err);
        REQUIRE_OK(ls_eval_case_create(source, t->name, 2000, 5, 2, &index, &err), err);
        CHECK_STR(a->turns[0].text, same->turns[0].text);
        CHECK_STR(a->turns[0].question, same->turns[0].question);
        CHECK(strcmp(a->turns[0].text, seed->turns[0].text) != 0);
        CHECK(strcmp(a->turns[0].text, index->turns[0].text) != 0);
        ls_eval_case_free(a);
        ls_eval_case_free(same);
        ls_eval_case_free(seed);
        ls_eval_case_free(index);
    }
    close_source();
}

/* The same on every machine: what a seed gives is written down. */
static void test_written_down(void)
{
    ls_eval_case *c = NULL;
    open_source(NULL);
    REQUIRE_OK(ls_eval_case_create(source, "needle-single", 200, 1, 0, &c, &err), err);
    CHECK_STR(c->turns[0].question,
              "What is the special magic number for Kealgeakith mentioned in the provided text?");
    CHECK_STR(c->turns[0].expected[0], "56176");
    CHECK(strstr(c->turns[0].text, "\nOne of the special magic numbers for Kealgeakith is: 56176.\n") !=
          NULL);
    ls_eval_case_free(c);
    close_source();
}

static void test_refused(void)
{
    ls_eval_case *c = NULL;
    ls_eval_source *s = NULL;
    open_source(NULL);
    CHECK_INT(ls_eval_case_create(source, "haystack", 1000, 0, 0, &c, &err), LS_E_INVAL);
    CHECK_INT(ls_eval_case_create(source, "common-words", 100, 0, 0, &c, &err), LS_E_LIMIT);
    CHECK(strstr(err.text, "common-words takes at least") != NULL);
    const ls_eval_text few = { "few", "one\ntwo\nthree\n", 14 }, binary = { "binary", "a\0b", 3 };
    CHECK_INT(ls_eval_source_create(tok, &few, NULL, &s, &err), LS_E_INVAL);
    CHECK_INT(ls_eval_source_create(tok, &binary, NULL, &s, &err), LS_E_INVAL);
    close_source();
}

/* A broken text must not pass the solver: it would accept anything. */
static void test_solver_refuses(void)
{
    struct solution s;
    ls_eval_case *c = NULL;
    open_source(NULL);
    REQUIRE_OK(ls_eval_case_create(source, "needle-single", 800, 3, 0, &c, &err), err);
    char *text = text_before(c, 0);
    char *needle = strstr(text, "One of the special magic numbers");
    REQUIRE(needle != NULL);
    needle[0] = 'o';
    solve("needle-single", text, c->turns[0].question, &s);
    CHECK_INT(s.n, 0);
    free(text);
    ls_eval_case_free(c);
    close_source();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_solver),       TEST(test_own_text), TEST(test_questions_do_not_tell), TEST(test_seeds),
        TEST(test_written_down), TEST(test_refused),  TEST(test_solver_refuses)
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

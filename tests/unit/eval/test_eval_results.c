/* Metrics, questions from files, results in a folder. */
#include <longspan/eval.h>

#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static ls_error err;
static char dir[64];

static void make_dir(void)
{
    memset(&err, 0, sizeof err);
    snprintf(dir, sizeof dir, "/tmp/longspan-eval-XXXXXX");
    REQUIRE(mkdtemp(dir) != NULL);
}

static void remove_dir(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK_INT(system(command), 0);
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");
    REQUIRE(f != NULL);
    fputs(text, f);
    fclose(f);
}

static char *read_file(const char *name)
{
    static char text[1 << 20];
    FILE *f = fopen(path_of(name), "r");
    REQUIRE(f != NULL);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* ---- metrics ------------------------------------------------------------------------------------- */

static double score_of(ls_eval_metric metric, bool first_line, const char *answer, const char *a,
                       const char *b)
{
    const char *expected[] = { a, b }, *classes[] = { "Date", "birth", "Date of birth", "Person", "City" };
    const ls_eval_turn turn = { "", "", "", expected, b ? 2 : 1 };
    const ls_eval_case c = { .metric = metric,
                             .first_line = first_line,
                             .turns = &turn,
                             .n_turns = 1,
                             .classes = classes,
                             .n_classes = 5 };
    return ls_eval_score(&c, 0, answer);
}

static void test_contains(void)
{
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, false, " 12345 and ABCD.", "12345", "abcd"), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, false, " 12345 and ABC", "12345", "abcd"), 0.5, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, false, "1234 5", "12345", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, false, "À L'ÉCOLE", "école", NULL), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS_1, false, "abcd", "12345", "abcd"), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, true, "\n no\n12345", "12345", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, true, "\n\n 12345\nno", "12345", NULL), 1, 0);
    /* A line of white space is the first line. */
    CHECK_NEAR(score_of(LS_EVAL_CONTAINS, true, " \n12345", "12345", NULL), 0, 0);
}

/* By hand: articles and punctuation go, common words count as often as they stand in both. */
static void test_f1(void)
{
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "The cat, a dog!", "cat dog", NULL), 1, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "cat cat bird", "cat dog", NULL), 2.0 / 5, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "cat cat bird", "bird cat cat cat", NULL), 6.0 / 7, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "cat cat bird", "horse", "bird"), 2.0 / 4, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "", "cat", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "don't", "dont", NULL), 1, 1e-12);
    /* Beyond ASCII: small letters, a space that does not break, an article between curly quotes. */
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "ÉCOLE", "école", NULL), 1, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "cat\u00a0dog", "dog cat", NULL), 1, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "\u201cThe\u201d end", "end", NULL), 2.0 / 4, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_F1, false, "theatre a-an", "theatre", NULL), 2.0 / 3, 1e-12);
}

/* By hand; the library's numbers differ from these by the 1e-8 that it adds to a sum. */
static void test_rouge(void)
{
    /* "the cat sat" of "the cat has sat" and "the old cat sat": the longest common subsequence has 3 words.
     */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "the cat has sat", "the old cat sat", NULL), 6.0 / 8, 1e-7);
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "a b c", "c b a", NULL), 2.0 / 6, 1e-7);
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "x", "y", "x"), 1, 1e-7);
    /* A word counts once: 2 of 2 and 2 of 2. */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "x x x y", "x y", NULL), 1, 1e-7);
    /* Capitals and commas make other words. */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "Cat", "cat", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "cat, dog", "cat dog", NULL), 0.5, 1e-7);
    /* Sentences in another order: The cat sat / The dog ran against The dog sat / A cat ran have The, sat,
     * dog, cat, ran in common, 5 of 5 and 5 of 6 words. */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "The cat sat. The dog ran.", "The dog sat. A cat ran.", NULL),
               2 * 1.0 * (5.0 / 6) / (1 + 5.0 / 6), 1e-7);
    /* The example of Lin (2004): the union of w1 w2 and w1 w3 w5 has 4 of 5 words, and 4 of 8. */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", NULL),
               2 * 0.8 * 0.5 / (0.8 + 0.5), 1e-7);
    /* White space between full stops is a sentence of one word without letters: " . " has that one word, "x.
     * " two. */
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, " . ", "x. ", NULL), 2 * 1.0 * 0.5 / 1.5, 1e-7);
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "...", "a", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_ROUGE_L, false, "", "a", NULL), 0, 0);
}

static void test_class(void)
{
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "It is a Person.", "Person", NULL), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "It is a person.", "Person", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "Person or City", "Person", NULL), 0.5, 0);
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "Other date", "Person", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "a Day", "Day", NULL), 0, 0); /* no class */
    /* "Date" is part of what is expected and does not count; "birth", named behind it, does. */
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "Date of birth", "Date of birth", NULL), 0.5, 0);
    CHECK_NEAR(score_of(LS_EVAL_CLASS, false, "Date of birth", "Date", NULL), 1.0 / 3, 1e-12);
}

static void test_other_metrics(void)
{
    CHECK_NEAR(score_of(LS_EVAL_NUMBER, false, "Paragraph 12", "Paragraph 12", NULL), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_NUMBER, false, "12 or 13, not 112", "12", NULL), 1.0 / 3, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_NUMBER, false, "none", "12", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "# comment\nabcd\nx", "abxd", NULL), 6.0 / 8, 1e-12);
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "\n\nabc", "abc", NULL), 1, 0);
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "# c\n\nabc", "abc", NULL), 0, 0); /* the empty line */
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "`x`\n// y", "abc", NULL), 0, 0);
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "h\u00e9llo", "hallo", NULL), 0.8, 1e-12); /* characters */
    CHECK_NEAR(score_of(LS_EVAL_SIMILARITY, false, "abcdef", "abx", NULL), 0.44, 1e-12);      /* of 4 / 9 */
}

/* ---- files --------------------------------------------------------------------------------------------- */

static const char ruler[] =
    "{\"index\":0,\"input\":\"Some text\\nwith lines.\\nWhat is it? It "
    "is\",\"outputs\":[\"one\",\"two\"],\"length\":7}\n"
    "\n"
    "{\"index\":1,\"input\":\"T\\nQ?\\n\",\"outputs\":[\"x\"],\"length\":7,\"answer_prefix\":\" A:\"}\n";

static void test_ruler(void)
{
    ls_eval_file *f = NULL;
    ls_eval_source *s = NULL;
    ls_tokenizer *tok = NULL;
    ls_eval_case *c = NULL;
    make_dir();
    write_file("vt.jsonl", ruler);
    REQUIRE_OK(ls_tokenizer_open(LS_SOURCE_DIR "/models/recall", NULL, &tok, &err), err);
    REQUIRE_OK(ls_eval_source_create(tok, NULL, NULL, &s, &err), err);
    REQUIRE_OK(ls_eval_file_open(path_of("vt.jsonl"), &f, &err), err);
    CHECK_INT(ls_eval_file_count(f), 2);
    CHECK_INT(ls_eval_file_one_line(f), 0);
    CHECK_STR(ls_eval_file_set(f, 0), "vt");
    REQUIRE_OK(ls_eval_file_case(f, 0, s, 0, &c, &err), err);
    CHECK_STR(c->turns[0].text, "Some text\nwith lines.\n");
    CHECK_STR(c->turns[0].question, "What is it? It is");
    CHECK_STR(c->turns[0].prefix, "");
    CHECK_INT(c->turns[0].n_expected, 2);
    CHECK_INT(c->metric, LS_EVAL_CONTAINS);
    CHECK_INT(c->n_predict, 30);
    ls_eval_case_free(c);
    REQUIRE_OK(ls_eval_file_case(f, 1, s, 0, &c, &err), err);
    CHECK_STR(c->turns[0].question, "Q?");
    CHECK_STR(c->turns[0].prefix, " A:");
    ls_eval_case_free(c);
    CHECK_INT(ls_eval_file_case(f, 0, s, 20, &c, &err), LS_E_LIMIT);
    ls_eval_file_close(f);
    ls_eval_source_free(s);
    ls_tokenizer_close(tok);
    remove_dir();
}

static void test_longbench(void)
{
    static char line[20000], context[9000];
    ls_eval_file *f = NULL;
    ls_eval_source *s = NULL;
    ls_tokenizer *tok = NULL;
    ls_eval_case *c = NULL;
    make_dir();
    for (int i = 0; i < 800; i++)
        sprintf(context + strlen(context), "word%03d é ", i);
    snprintf(
        line, sizeof line,
        "{\"input\":\"Who?\",\"context\":\"%s\",\"answers\":[\"He\"],\"length\":9,\"dataset\":\"hotpotqa\","
        "\"all_classes\":null}\n"
        "{\"input\":\"Type:\",\"context\":\"c\",\"answers\":[\"B\"],\"dataset\":\"trec_e\",\"all_classes\":["
        "\"A\",\"B\"]}\n",
        context);
    write_file("some.jsonl", line);
    REQUIRE_OK(ls_tokenizer_open(LS_SOURCE_DIR "/models/recall", NULL, &tok, &err), err);
    REQUIRE_OK(ls_eval_source_create(tok, NULL, NULL, &s, &err), err);
    REQUIRE_OK(ls_eval_file_open(path_of("some.jsonl"), &f, &err), err);
    CHECK_STR(ls_eval_file_set(f, 0), "hotpotqa");
    CHECK_STR(ls_eval_file_set(f, 1), "trec_e");
    CHECK(ls_eval_file_set(f, 2) == NULL);
    CHECK_INT(ls_eval_file_set_of(f, 0), 0);
    CHECK_INT(ls_eval_file_set_of(f, 1), 1);
    REQUIRE_OK(ls_eval_file_case(f, 0, s, 0, &c, &err), err);
    CHECK_INT(c->metric, LS_EVAL_F1);
    CHECK(strstr(c->turns[0].text, "word400") != NULL);
    ls_eval_case_free(c);
    /* Too long: both ends stay, whole characters. */
    REQUIRE_OK(ls_eval_file_case(f, 0, s, 500, &c, &err), err);
    CHECK(c->n_ctx <= 500 && c->n_ctx > 400);
    CHECK(strstr(c->turns[0].text, "word000") && strstr(c->turns[0].text, "word799"));
    CHECK(strstr(c->turns[0].text, "word400") == NULL);
    CHECK_STR(c->turns[0].question, "Question: Who?");
    ls_eval_case_free(c);
    REQUIRE_OK(ls_eval_file_case(f, 1, s, 0, &c, &err), err);
    CHECK_STR(c->task, "trec_e");
    CHECK_INT(c->metric, LS_EVAL_CLASS);
    CHECK_INT(c->n_classes, 2);
    CHECK(c->first_line);
    ls_eval_case_free(c);
    ls_eval_file_close(f);
    ls_eval_source_free(s);
    ls_tokenizer_close(tok);
    remove_dir();
}

static void test_bad_files(void)
{
    static const struct {
        const char *text, *says;
    } bad[] = { { "", "has no questions" },
                { "\n \n", "has no questions" },
                { "{\"input\":\"a\",\"outputs\":[\"b\"]}\nnonsense\n", "line 2" },
                { "{\"input\":\"a\"}\n", "is no question" },
                { "{\"input\":\"a\",\"answers\":[\"b\"]}\n", "is no question" },
                { "{\"input\":\"a\",\"outputs\":[]}\n", "is no question" },
                { "{\"input\":\"a\",\"outputs\":[\"b\"]}\n{\"input\":\"\\n\",\"outputs\":[\"b\"]}\n",
                  "line 2 has an empty input" },
                { "{\"input\":\"\",\"context\":\" \",\"answers\":[\"b\"]}\n", "line 1 has an empty input" },
                { "{\"input\":1,\"outputs\":[\"b\"]}\n", "line 1" },
                { "{\"input\":\"a\",\"outputs\":[1]}\n", "line 1" },
                { "{\"input\":\"a\\u0000b\",\"outputs\":[\"b\"]}\n", "line 1" },
                { "{\"input\":\"a\",\"outputs\":[\"b\"]", "line 1" } };
    ls_eval_file *f = NULL;
    make_dir();
    CHECK_INT(ls_eval_file_open(path_of("none"), &f, &err), LS_E_IO);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file("bad.jsonl", bad[i].text);
        memset(&err, 0, sizeof err);
        CHECK_INT(ls_eval_file_open(path_of("bad.jsonl"), &f, &err), LS_E_FORMAT);
        if (!strstr(err.text, bad[i].says))
            fprintf(stderr, "  %zu: %s\n", i, err.text);
        CHECK(strstr(err.text, bad[i].says) != NULL);
    }
    remove_dir();
}

/* ---- results
 * ------------------------------------------------------------------------------------------------ */

static ls_eval_record record_of(uint64_t index, double score)
{
    static char answer[] = "a \"b\"\n";
    return (ls_eval_record){ .kv = "h2o:heavy=3,recent=4",
                             .budget = "10%",
                             .task = "lines",
                             .n_tokens = 4096,
                             .seed = 7,
                             .index = index,
                             .protocol = LS_EVAL_SPARSE,
                             .result = { .struct_size = sizeof(ls_eval_result),
                                         .score = score,
                                         .prompt_tokens = 4000,
                                         .prompt_seconds = 2,
                                         .decode_tokens = 10,
                                         .decode_seconds = 0.5,
                                         .cache_bytes = 1000 + index,
                                         .answer = answer } };
}

/* By hand: scores 1, 0, 1, 1 have the mean 3/4 and the variance 1/4. */
static void check_rows(ls_eval_log *log)
{
    const ls_eval_row *rows = NULL;
    size_t n = 0;
    REQUIRE_OK(ls_eval_log_rows(log, &rows, &n, &err), err);
    REQUIRE(n == 2);
    CHECK_INT(rows[0].n, 4);
    CHECK_NEAR(rows[0].accuracy, 0.75, 1e-12);
    CHECK_NEAR(rows[0].accuracy_stderr, 0.25, 1e-12);
    CHECK_NEAR(rows[0].prompt_rate, 2000, 1e-9);
    CHECK_NEAR(rows[0].decode_rate, 20, 1e-9);
    CHECK_NEAR(rows[0].cache_bytes, 1001.5, 1e-9);
    CHECK(isnan(rows[0].perplexity[0]));
    CHECK(isnan(rows[1].accuracy));
    CHECK_NEAR(rows[1].perplexity[LS_EVAL_BINS - 1], exp(2.0), 1e-9);
    CHECK_STR(rows[1].task, "ppl");
    CHECK_STR(rows[0].label, "h2o");
}

static void add_all(ls_eval_log *log)
{
    for (uint64_t i = 0; i < 4; i++) {
        ls_eval_record r = record_of(i, i != 1);
        CHECK(!ls_eval_log_has(log, &r));
        REQUIRE_OK(ls_eval_log_add(log, &r, &err), err);
        CHECK(ls_eval_log_has(log, &r));
        r.protocol = LS_EVAL_DENSE;
        CHECK(!ls_eval_log_has(log, &r));
    }
    ls_eval_record r = record_of(0, 0);
    r.task = "ppl";
    for (size_t i = 0; i < LS_EVAL_BINS; i++) {
        r.result.scored[i] = 5;
        r.result.nll[i] = 5 * (1 + (double)i / (LS_EVAL_BINS - 1));
    }
    REQUIRE_OK(ls_eval_log_add(log, &r, &err), err);
}

static void test_log(void)
{
    ls_eval_log *log = NULL;
    make_dir();
    REQUIRE_OK(ls_eval_log_open(dir, "one \"way\"", false, &log, &err), err);
    add_all(log);
    check_rows(log);
    ls_eval_log_close(log);
    /* Refused: without resume, and with other settings. */
    CHECK_INT(ls_eval_log_open(dir, "one \"way\"", false, &log, &err), LS_E_INVAL);
    CHECK(strstr(err.text, "--resume") != NULL);
    CHECK_INT(ls_eval_log_open(dir, "another", true, &log, &err), LS_E_INVAL);
    CHECK(strstr(err.text, "other settings") != NULL);
    /* A line that was cut off goes, and the rest is what it was. */
    const size_t whole = strlen(read_file("results.jsonl"));
    FILE *f = fopen(path_of("results.jsonl"), "a");
    fputs("{\"kv\":\"fu", f);
    fclose(f);
    REQUIRE_OK(ls_eval_log_open(dir, "one \"way\"", true, &log, &err), err);
    CHECK_INT(strlen(read_file("results.jsonl")), whole);
    const ls_eval_record r = record_of(2, 1);
    CHECK(ls_eval_log_has(log, &r));
    check_rows(log);
    ls_eval_log_close(log);
    remove_dir();
}

/* The first setting that differs is named, and a folder is one process's. */
static void test_held_log(void)
{
    static const struct {
        const char *asked, *says;
    } of[] = { { "model b\nblock 1", "other settings: 'model a', not 'model b'" },
               { "model a\nblock 2", "other settings: 'block 1', not 'block 2'" },
               { "model a", "other settings: 'block 1', not nothing" },
               { "model a\nblock 1\ndata c", "other settings: nothing, not 'data c'" },
               { "", "other settings: 'model a', not nothing" } };
    ls_eval_log *log = NULL, *other = NULL;
    make_dir();
    REQUIRE_OK(ls_eval_log_open(dir, "model a\nblock 1", false, &log, &err), err);
    CHECK_INT(ls_eval_log_open(dir, "model a\nblock 1", true, &other, &err), LS_E_IO);
    CHECK(strstr(err.text, "another process is evaluating in") != NULL);
    ls_eval_log_close(log);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        CHECK_INT(ls_eval_log_open(dir, of[i].asked, true, &log, &err), LS_E_INVAL);
        if (!strstr(err.text, of[i].says))
            fprintf(stderr, "  %zu: %s\n", i, err.text);
        CHECK(strstr(err.text, of[i].says) != NULL);
    }
    remove_dir();
}

static void test_memory_log(void)
{
    ls_eval_log *log = NULL;
    REQUIRE_OK(ls_eval_log_open(NULL, "", false, &log, &err), err);
    add_all(log);
    check_rows(log);
    ls_eval_log_close(log);
}

/* Well formed, and everything within the frame. */
static void check_picture(const char *name)
{
    char *text = read_file(name);
    int width = 0, height = 0;
    CHECK(strstr(text, "</svg>\n") != NULL);
    CHECK(strstr(text, "nan") == NULL && strstr(text, "inf") == NULL);
    REQUIRE(sscanf(strstr(text, "width=\""), "width=\"%d\" height=\"%d\"", &width, &height) == 2);
    for (const char *p = text; (p = strstr(p, "<circle cx=\"")) != NULL; p++) {
        double x = -1, y = -1;
        REQUIRE(sscanf(p, "<circle cx=\"%lf\" cy=\"%lf\"", &x, &y) == 2);
        CHECK(x >= 0 && x <= width && y >= 0 && y <= height);
    }
}

/* The keys that tell policies apart: neither defaults nor what a budget came to. */
static void test_labels(void)
{
    static const struct {
        const char *kv, *budget, *label;
    } of[] = {
        { "full:bf16", "", "full" },
        { "full:q8", "", "full:q8" },
        { "h2o:heavy=51,recent=51,sinks=0,chunk=0,normalise=age,values=plain,bf16", "10%",
          "h2o:normalise=age" },
        { "h2o:heavy=64,recent=64,sinks=4,chunk=0,normalise=none,values=plain,q8", "",
          "h2o:heavy=64,recent=64,sinks=4,q8" },
        { "streaming:sink=4,recent=405,prompt=windowed,self=no,bf16", "20%", "streaming" },
        { "topk:k=10%,sinks=0,recent=1,sets=per_q,renorm=yes,prompt=dense,bf16", "", "topk" },
        { "nobody:knows=1,bf16", "10%", "nobody:knows=1,bf16" },
        { "quest:page=16,budget=60,skip=2,sets=group,combine=pseudo,bf16+"
          "kivi:bits=4,bits_v=same,group=32,residual=128,sinks=0",
          "10%", "quest+kivi:bits=4" },
        { "h2o:heavy=64,recent=64,sinks=0,chunk=0,normalise=none,values=plain,fp32+"
          "kivi:bits=2,bits_v=same,group=32,residual=32,sinks=0",
          "", "h2o:heavy=64,recent=64,fp32+kivi:residual=32" },
    };
    const ls_eval_row *rows = NULL;
    ls_eval_log *log = NULL;
    size_t n = 0;
    REQUIRE_OK(ls_eval_log_open(NULL, "", false, &log, &err), err);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        ls_eval_record r = record_of(0, 1);
        r.kv = of[i].kv;
        r.budget = of[i].budget;
        REQUIRE_OK(ls_eval_log_add(log, &r, &err), err);
    }
    REQUIRE_OK(ls_eval_log_rows(log, &rows, &n, &err), err);
    REQUIRE(n == sizeof of / sizeof of[0]);
    for (size_t i = 0; i < n; i++)
        CHECK_STR(rows[i].label, of[i].label);
    ls_eval_log_close(log);
}

static void test_pictures(void)
{
    ls_eval_row rows[40] = { { 0 } };
    size_t n = 0;
    make_dir();
    for (size_t kv = 0; kv < 5; kv++)
        for (size_t length = 1; length <= 4; length++)
            for (size_t p = 0; p < 2; p++)
                rows[n++] = (ls_eval_row){ .kv = kv == 0   ? "full:bf16"
                                                 : kv == 1 ? "h2o:heavy=4"
                                                 : kv == 2 ? "snapkv"
                                                           : "quest",
                                           .budget = kv == 0  ? ""
                                                     : kv < 4 ? "10%"
                                                              : "64",
                                           .task = "lines",
                                           .n_tokens = length << 10,
                                           .protocol = (ls_eval_protocol)p,
                                           .n = 1,
                                           .accuracy = 0.25 * (double)(kv % 5),
                                           .accuracy_stderr = (double)NAN,
                                           .prompt_rate = 100,
                                           .decode_rate = kv == 3 ? (double)NAN : 10 * (double)length,
                                           .cache_bytes = 1e6 * (double)length };
    for (size_t i = 0; i < n; i++)
        snprintf(rows[i].label, sizeof rows[i].label, "%.*s", (int)strcspn(rows[i].kv, ":"), rows[i].kv);
    REQUIRE_OK(ls_eval_plot(rows, n, dir, &err), err);
    check_picture("accuracy.svg");
    CHECK(strstr(read_file("accuracy.svg"), ">quest<") != NULL);
    check_picture("speed.svg");
    check_picture("memory.svg");
    /* Without accuracies there is no picture of them. */
    remove(path_of("accuracy.svg"));
    rows[0].accuracy = (double)NAN;
    REQUIRE_OK(ls_eval_plot(rows, 1, dir, &err), err);
    CHECK(access(path_of("accuracy.svg"), F_OK) != 0);
    check_picture("memory.svg");
    /* One length: bars with their numbers. */
    CHECK(strstr(read_file("memory.svg"), ">0.9537<") != NULL); /* 1e6 / 2^20 */
    CHECK(strstr(read_file("memory.svg"), "<circle") == NULL);
    remove_dir();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_contains),      TEST(test_f1),       TEST(test_rouge),      TEST(test_class),
        TEST(test_other_metrics), TEST(test_ruler),    TEST(test_longbench),  TEST(test_bad_files),
        TEST(test_log),           TEST(test_held_log), TEST(test_memory_log), TEST(test_labels),
        TEST(test_pictures)
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}

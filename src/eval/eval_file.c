/*
 * Cases from files that a user has. A RULER line is a whole prompt, whose last line is the question. A
 * LongBench line is a context and a question about it; what is said around them depends on the data set and
 * is in our words.
 */
#include "eval/eval_file.h"

#include <string.h>

#include "base/digest.h"
#include "eval/eval.h"

#define FILE_BYTES    ((size_t)1 << 32)
#define LEAST_PREDICT 32 /* tokens of an answer to a RULER question */

struct file_line {
    struct lsi_piece text;
    size_t number; /* in the file, from 1 */
    size_t set;    /* of its data set */
    bool one_line; /* a question with no text before it */
};

struct set_name {
    char s[128];
};

struct ls_eval_file {
    struct lsi_map map;
    struct lsi_buf lines; /* struct file_line: those that are not empty */
    struct lsi_buf sets;  /* struct set_name: of the data sets, in the order of their first lines */
    char path[4096];
    char name[128]; /* of lines that name no data set */
};

/* ---- the file -------------------------------------------------------------------------------------- */

static const char *data_of(const ls_eval_file *f)
{
    return (const char *)f->map.data;
}

static struct file_line *line_of(const ls_eval_file *f, size_t i)
{
    return (struct file_line *)(void *)f->lines.data + i;
}

static const char *name_of(const ls_eval_file *f, size_t i)
{
    return ls_eval_file_set(f, line_of(f, i)->set);
}

static ls_status read_line(const ls_eval_file *f, size_t i, struct lsi_eval_line *l, ls_error *err)
{
    const struct file_line *at = line_of(f, i);
    return lsi_eval_line_read(l, at->text.s, at->text.len, f->path, at->number, err);
}

static void find_lines(ls_eval_file *f)
{
    const char *text = data_of(f);
    size_t number = 1;
    for (size_t at = lsi_utf8_mark(text, f->map.bytes); at < f->map.bytes; number++) {
        const char *end = memchr(text + at, '\n', f->map.bytes - at);
        const size_t n = end ? (size_t)(end - (text + at)) : f->map.bytes - at;
        const struct file_line line = { .text = { text + at, n }, .number = number };
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", text[at + blank]) && text[at + blank])
            blank++;
        if (blank < n)
            lsi_buf_append(&f->lines, &line, sizeof line);
        at += n + 1;
    }
}

/* The last two parts of a path: "qa_1" and "validation" of data/qa_1/validation.jsonl. */
static void name_parts(const char *path, char folder[64], char file[64])
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *begin = slash;
    snprintf(file, 64, "%.*s", (int)lsi_min_size(strcspn(name, "."), 63), name);
    while (begin && begin > path && begin[-1] != '/')
        begin--;
    snprintf(folder, 64, "%.*s", slash ? (int)lsi_min_size((size_t)(slash - begin), 63) : 0,
             slash ? begin : "");
}

/* RULER keeps the files of all tasks under the same names, in a folder for each. */
static void find_name(ls_eval_file *f)
{
    char folder[64], file[64];
    name_parts(f->path, folder, file);
    const bool by_folder = *folder && (strcmp(file, "validation") == 0 || strcmp(file, "test") == 0);
    snprintf(f->name, sizeof f->name, "%s", by_folder ? folder : file);
}

/* Sets of LongBench in Chinese: their metrics count words that a program for Chinese cuts. */
static bool is_chinese(const char *name)
{
    static const char *const names[] = { "multifieldqa_zh", "dureader", "vcsum", "lsht",
                                         "passage_retrieval_zh" };
    for (size_t i = 0; i < LSI_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Where the last line of an input begins; *end: where it ends. */
static size_t question_of(const char *input, size_t *end)
{
    size_t at;
    for (*end = strlen(input); *end > 0 && input[*end - 1] == '\n';)
        --*end;
    for (at = *end; at > 0 && input[at - 1] != '\n';)
        at--;
    return at;
}

/* The data set of a line, one more when it is the first with its name. */
static ls_status find_set(ls_eval_file *f, struct file_line *line, const struct lsi_eval_line *l,
                          ls_error *err)
{
    struct set_name name;
    const char *known;
    snprintf(name.s, sizeof name.s, "%.100s", l->dataset && *l->dataset ? l->dataset : f->name);
    if (is_chinese(name.s))
        return lsi_fail(err, LS_E_UNSUPPORTED,
                        "%s, line %zu: %s is one of LongBench's Chinese data sets, for which there are no "
                        "metrics here: leave it out",
                        f->path, line->number, name.s);
    for (line->set = 0; (known = ls_eval_file_set(f, line->set)) != NULL; line->set++)
        if (strcmp(known, name.s) == 0)
            return LS_OK;
    if (!lsi_buf_append(&f->sets, &name, sizeof name))
        return lsi_fail(err, LS_E_NOMEM, "no memory for the data sets of %s", f->path);
    return LS_OK;
}

static ls_status check_lines(ls_eval_file *f, ls_error *err)
{
    const size_t n = ls_eval_file_count(f);
    if (n == 0)
        return lsi_fail(err, LS_E_FORMAT, "%s has no questions", f->path);
    find_name(f);
    for (size_t i = 0; i < n; i++) {
        struct lsi_eval_line l;
        ls_status st = read_line(f, i, &l, err);
        if (st == LS_OK)
            st = find_set(f, line_of(f, i), &l, err);
        if (st == LS_OK)
            line_of(f, i)->one_line = l.ruler && question_of(l.input, &(size_t){ 0 }) == 0;
        lsi_eval_line_free(&l);
        LSI_TRY(st);
    }
    return LS_OK;
}

ls_status ls_eval_file_open(const char *path, ls_eval_file **out, ls_error *err)
{
    ls_eval_file *f = lsi_calloc(NULL, 1, sizeof *f);
    ls_status st;
    if (!f)
        return lsi_fail(err, LS_E_NOMEM, "no memory for %s", path);
    snprintf(f->path, sizeof f->path, "%s", path);
    lsi_buf_init(&f->lines, NULL, SIZE_MAX / 4);
    lsi_buf_init(&f->sets, NULL, SIZE_MAX / 4);
    LSI_TRY_OR(fail, lsi_map_read(&f->map, path, FILE_BYTES, NULL, err));
    find_lines(f);
    if (f->lines.failed) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the lines of %s", path);
        goto fail;
    }
    LSI_TRY_OR(fail, check_lines(f, err));
    *out = f;
    return LS_OK;
fail:
    ls_eval_file_close(f);
    return st;
}

void ls_eval_file_close(ls_eval_file *f)
{
    if (!f)
        return;
    lsi_map_close(&f->map);
    lsi_buf_fini(&f->lines);
    lsi_buf_fini(&f->sets);
    lsi_free(NULL, f, sizeof *f);
}

size_t ls_eval_file_count(const ls_eval_file *f)
{
    return f->lines.len / sizeof(struct file_line);
}

uint64_t ls_eval_file_digest(const ls_eval_file *f)
{
    struct lsi_digest d;
    lsi_digest_init(&d);
    lsi_digest_add(&d, f->map.data, f->map.bytes);
    return lsi_digest_get(&d);
}

const char *ls_eval_file_set(const ls_eval_file *f, size_t k)
{
    if (k >= f->sets.len / sizeof(struct set_name))
        return NULL;
    return ((const struct set_name *)(const void *)f->sets.data)[k].s;
}

size_t ls_eval_file_set_of(const ls_eval_file *f, size_t i)
{
    return line_of(f, i)->set;
}

size_t ls_eval_file_one_line(const ls_eval_file *f)
{
    size_t n = 0;
    for (size_t i = 0; i < ls_eval_file_count(f); i++)
        n += line_of(f, i)->one_line;
    return n;
}

/* ---- LongBench ---------------------------------------------------------------------------------------- */

/* What is said around context and input. */
struct form {
    const char *before, *after; /* the context */
    const char *ask, *asked;    /* before and after the input */
    const char *prefix;
};

static const struct form questions = {
    "Read the following text and answer the question about it in a few words.\n\n", "\n\n", "Question: ", "",
    "\nAnswer:"
};
static const struct form summaries = { "Read the following text.\n\n", "\n\n", "Write a summary of it. ", "",
                                       "\nSummary:" };
static const struct form as_it_is = { "", "\n", "", "", "" };
static const struct form code = { "", "", "", "", "" };
static const struct form counting = { "Some of the following paragraphs stand there more than once.\n\n",
                                      "\n\n", "How many different paragraphs are there?", "",
                                      "\nNumber of paragraphs:" };
static const struct form finding = { "Each of the following paragraphs has a number.\n\n", "\n\n",
                                     "Of which paragraph is this the summary? ", "", "\nAnswer: Paragraph" };

/* Metrics and greatest lengths of answers as the benchmark has them. */
static const struct dataset {
    const char *name;
    const struct form *form;
    ls_eval_metric metric;
    size_t n_predict;
    bool first_line;
} datasets[] = {
    { "narrativeqa", &questions, LS_EVAL_F1, 128, false },
    { "qasper", &questions, LS_EVAL_F1, 128, false },
    { "multifieldqa_en", &questions, LS_EVAL_F1, 64, false },
    { "hotpotqa", &questions, LS_EVAL_F1, 32, false },
    { "2wikimqa", &questions, LS_EVAL_F1, 32, false },
    { "musique", &questions, LS_EVAL_F1, 32, false },
    { "gov_report", &summaries, LS_EVAL_ROUGE_L, 512, false },
    { "qmsum", &questions, LS_EVAL_ROUGE_L, 512, false },
    { "multi_news", &summaries, LS_EVAL_ROUGE_L, 512, false },
    { "trec", &as_it_is, LS_EVAL_CLASS, 64, true },
    { "triviaqa", &as_it_is, LS_EVAL_F1, 32, true },
    { "samsum", &as_it_is, LS_EVAL_ROUGE_L, 128, true },
    { "passage_count", &counting, LS_EVAL_NUMBER, 32, false },
    { "passage_retrieval_en", &finding, LS_EVAL_NUMBER, 32, false },
    { "lcc", &code, LS_EVAL_SIMILARITY, 64, false },
    { "repobench-p", &code, LS_EVAL_SIMILARITY, 64, false },
};

/* One that is not known is of the kind that its lines look like. */
static struct dataset find_dataset(const struct lsi_eval_line *l)
{
    for (size_t i = 0; l->dataset && i < LSI_LEN(datasets); i++) {
        const size_t n = strlen(datasets[i].name);
        if (strncmp(l->dataset, datasets[i].name, n) == 0 &&
            (!l->dataset[n] || strcmp(l->dataset + n, "_e") == 0)) /* a selection with even lengths */
            return datasets[i];
    }
    if (lsi_eval_texts(&l->classes) > 0)
        return (struct dataset){ "", &as_it_is, LS_EVAL_CLASS, 64, true };
    if (!*l->input)
        return (struct dataset){ "", &summaries, LS_EVAL_ROUGE_L, 512, false };
    return (struct dataset){ "", &questions, LS_EVAL_F1, 64, false };
}

static void add(struct lsi_draft *d, const char *s)
{
    lsi_draft_add(d, s, strlen(s));
}

/* Of the context the first and the last bytes, `keep` together, whole characters. */
static void add_ends(struct lsi_draft *d, const char *s, size_t keep)
{
    const size_t n = strlen(s);
    if (keep >= n) {
        lsi_draft_add(d, s, n);
        return;
    }
    size_t head = keep / 2, tail = n - (keep - head);
    while (head > 0 && ((unsigned char)s[head] & 0xc0) == 0x80)
        head--;
    while (tail < n && ((unsigned char)s[tail] & 0xc0) == 0x80)
        tail++;
    lsi_draft_add(d, s, head);
    lsi_draft_add(d, s + tail, n - tail);
}

static void write_longbench(struct lsi_draft *d, const struct lsi_eval_line *l, size_t keep)
{
    const struct dataset set = find_dataset(l);
    d->metric = set.metric;
    d->n_predict = set.n_predict;
    d->first_line = set.first_line;
    lsi_draft_turn(d);
    add(d, set.form->before);
    add_ends(d, l->context, keep);
    add(d, set.form->after);
    lsi_draft_question(d);
    add(d, set.form->ask);
    add(d, l->input);
    add(d, set.form->asked);
    lsi_draft_prefix(d);
    add(d, set.form->prefix);
}

/* ---- RULER -----------------------------------------------------------------------------------------------
 */

/* Tokens of an answer as the benchmark has them, by the names it gives its files; 0: another name. */
static size_t ruler_predict(const char *name)
{
    static const struct {
        const char *begins;
        size_t n;
    } rows[] = { { "niah", 128 }, { "vt", 30 }, { "cwe", 120 }, { "fwe", 50 }, { "qa", 32 } };
    for (size_t i = 0; i < LSI_LEN(rows); i++)
        if (strncmp(name, rows[i].begins, strlen(rows[i].begins)) == 0)
            return rows[i].n;
    return 0;
}

/* Of RULER's questions about documents one expected text is enough. */
static void write_ruler(struct lsi_draft *d, const char *name, const struct lsi_eval_line *l)
{
    size_t end;
    const size_t at = question_of(l->input, &end);
    d->metric = strncmp(name, "qa", 2) == 0 ? LS_EVAL_CONTAINS_1 : LS_EVAL_CONTAINS;
    d->n_predict = ruler_predict(name);
    lsi_draft_turn(d);
    lsi_draft_add(d, l->input, at);
    lsi_draft_question(d);
    lsi_draft_add(d, l->input + at, end - at);
    lsi_draft_prefix(d);
    if (l->prefix)
        add(d, l->prefix);
}

/* ---- cases
 * -------------------------------------------------------------------------------------------------- */

static ls_status write_case(const ls_eval_file *f, size_t i, const struct lsi_eval_line *l,
                            const ls_eval_source *source, size_t keep, ls_eval_case **c, ls_error *err)
{
    struct lsi_draft d;
    lsi_draft_init(&d, source, 0);
    if (l->ruler)
        write_ruler(&d, name_of(f, i), l);
    else
        write_longbench(&d, l, keep);
    for (size_t k = 0; k < lsi_eval_texts(&l->answers); k++)
        lsi_draft_expect(&d, lsi_eval_text(&l->answers, k), strlen(lsi_eval_text(&l->answers, k)));
    for (size_t k = 0; k < lsi_eval_texts(&l->classes); k++)
        lsi_draft_class(&d, lsi_eval_text(&l->classes, k), strlen(lsi_eval_text(&l->classes, k)));
    d.n_least_predict = LEAST_PREDICT;
    const ls_status st = lsi_case_finish(source, &d, name_of(f, i), 0, i, c, err);
    lsi_draft_fini(&d);
    return st;
}

/* Bytes of the context fall until the case fits. */
static ls_status fit_case(const ls_eval_file *f, size_t i, const struct lsi_eval_line *l,
                          const ls_eval_source *source, size_t n_tokens, ls_eval_case **out, ls_error *err)
{
    size_t keep = l->ruler ? 0 : strlen(l->context);
    for (;;) {
        ls_eval_case *c = NULL;
        LSI_TRY(write_case(f, i, l, source, keep, &c, err));
        if (n_tokens == 0 || c->n_ctx <= n_tokens) {
            *out = c;
            return LS_OK;
        }
        const size_t n_ctx = c->n_ctx;
        ls_eval_case_free(c);
        if (keep == 0)
            return lsi_fail(err, LS_E_LIMIT, "a question of %s takes %zu tokens and %zu are allowed",
                            name_of(f, i), n_ctx, n_tokens);
        keep = lsi_min_size(keep - 1, (size_t)((double)keep * 0.99 * (double)n_tokens / (double)n_ctx));
    }
}

ls_status ls_eval_file_case(const ls_eval_file *f, size_t i, const ls_eval_source *source, size_t n_tokens,
                            ls_eval_case **c, ls_error *err)
{
    struct lsi_eval_line l;
    ls_status st = read_line(f, i, &l, err);
    if (st == LS_OK)
        st = fit_case(f, i, &l, source, n_tokens, c, err);
    lsi_eval_line_free(&l);
    return st;
}

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

struct ls_eval_file {
    struct lsi_map map;
    struct lsi_buf lines;   /* struct lsi_piece: those that are not empty */
    struct lsi_buf numbers; /* size_t: of each, from 1 */
    bool any;               /* one expected text is enough (RULER's qa) */
    char path[4096];
    char name[128];
};

/* ---- the file -------------------------------------------------------------------------------------- */

static const char *data_of(const ls_eval_file *f)
{
    return (const char *)f->map.data;
}

static const struct lsi_piece *line_of(const ls_eval_file *f, size_t i)
{
    return (const struct lsi_piece *)(const void *)f->lines.data + i;
}

static ls_status read_line(const ls_eval_file *f, size_t i, struct lsi_eval_line *l, ls_error *err)
{
    const struct lsi_piece *p = line_of(f, i);
    return lsi_eval_line_read(l, p->s, p->len, f->path, ((const size_t *)(const void *)f->numbers.data)[i],
                              err);
}

static void find_lines(ls_eval_file *f)
{
    const char *text = data_of(f);
    size_t number = 1;
    for (size_t at = lsi_utf8_mark(text, f->map.bytes); at < f->map.bytes; number++) {
        const char *end = memchr(text + at, '\n', f->map.bytes - at);
        const size_t n = end ? (size_t)(end - (text + at)) : f->map.bytes - at;
        const struct lsi_piece p = { text + at, n };
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", p.s[blank]) && p.s[blank])
            blank++;
        if (blank < n) {
            lsi_buf_append(&f->lines, &p, sizeof p);
            lsi_buf_append(&f->numbers, &number, sizeof number);
        }
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
static void find_name(ls_eval_file *f, const struct lsi_eval_line *first)
{
    char folder[64], file[64];
    name_parts(f->path, folder, file);
    const bool by_folder = *folder && (strcmp(file, "validation") == 0 || strcmp(file, "test") == 0);
    snprintf(f->name, sizeof f->name, "%.100s", first->dataset ? first->dataset : by_folder ? folder : file);
    f->any = first->ruler && strncmp(f->name, "qa", 2) == 0;
}

static ls_status check_lines(ls_eval_file *f, ls_error *err)
{
    const size_t n = ls_eval_file_count(f);
    if (n == 0)
        return lsi_fail(err, LS_E_FORMAT, "%s has no questions", f->path);
    for (size_t i = 0; i < n; i++) {
        struct lsi_eval_line l;
        const ls_status st = read_line(f, i, &l, err);
        if (st == LS_OK && i == 0)
            find_name(f, &l);
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
    lsi_buf_init(&f->numbers, NULL, SIZE_MAX / 4);
    LSI_TRY_OR(fail, lsi_map_read(&f->map, path, FILE_BYTES, NULL, err));
    find_lines(f);
    if (f->lines.failed || f->numbers.failed) {
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
    lsi_buf_fini(&f->numbers);
    lsi_free(NULL, f, sizeof *f);
}

size_t ls_eval_file_count(const ls_eval_file *f)
{
    return f->lines.len / sizeof(struct lsi_piece);
}

uint64_t ls_eval_file_digest(const ls_eval_file *f)
{
    struct lsi_digest d;
    lsi_digest_init(&d);
    lsi_digest_add(&d, f->map.data, f->map.bytes);
    return lsi_digest_get(&d);
}

const char *ls_eval_file_name(const ls_eval_file *f)
{
    return f->name;
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

static void write_ruler(struct lsi_draft *d, const ls_eval_file *f, const struct lsi_eval_line *l)
{
    size_t end = strlen(l->input), at;
    while (end > 0 && l->input[end - 1] == '\n')
        end--;
    for (at = end; at > 0 && l->input[at - 1] != '\n';)
        at--;
    d->metric = f->any ? LS_EVAL_CONTAINS_1 : LS_EVAL_CONTAINS;
    d->n_predict = ruler_predict(f->name);
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
        write_ruler(&d, f, l);
    else
        write_longbench(&d, l, keep);
    for (size_t k = 0; k < lsi_eval_texts(&l->answers); k++)
        lsi_draft_expect(&d, lsi_eval_text(&l->answers, k), strlen(lsi_eval_text(&l->answers, k)));
    for (size_t k = 0; k < lsi_eval_texts(&l->classes); k++)
        lsi_draft_class(&d, lsi_eval_text(&l->classes, k), strlen(lsi_eval_text(&l->classes, k)));
    d.n_least_predict = LEAST_PREDICT;
    const ls_status st = lsi_case_finish(source, &d, f->name, 0, i, c, err);
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
            return lsi_fail(err, LS_E_LIMIT, "a question of %s takes %zu tokens and %zu are allowed", f->name,
                            n_ctx, n_tokens);
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

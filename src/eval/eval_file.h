/* Lines of RULER's and LongBench's files; apart from cases, so that it can be fuzzed alone. */
#ifndef LSI_EVAL_FILE_H
#define LSI_EVAL_FILE_H

#include "base/base.h"

/* Texts of a line; NULL where it has none. */
struct lsi_eval_line {
    char *context, *input, *prefix, *dataset;
    struct lsi_buf answers, classes; /* char * each */
    bool ruler;                      /* "outputs" instead of "answers" */
};

/**
 * Read a line. Release with lsi_eval_line_free, on failure too.
 * @param name    For messages: "questions.jsonl".
 * @param number  Of the line, from 1.
 */
ls_status lsi_eval_line_read(struct lsi_eval_line *l, const char *line, size_t n, const char *name,
                             size_t number, ls_error *err);
void lsi_eval_line_free(struct lsi_eval_line *l);

static inline size_t lsi_eval_texts(const struct lsi_buf *list)
{
    return list->len / sizeof(char *);
}

static inline const char *lsi_eval_text(const struct lsi_buf *list, size_t i)
{
    return ((char *const *)(const void *)list->data)[i];
}

#endif

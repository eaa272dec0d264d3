/* The cases that scripts/make-golden/real_models.py writes as JSON. */
#ifndef LS_GOLDEN_CASES_H
#define LS_GOLDEN_CASES_H

#include "base/base.h"

/* One object of a file; what it lacks is NULL or 0. */
struct golden_case {
    char *kind;   /* "chat", "generate", "needle" */
    char *prompt; /* of chat and generate */
    char *text;   /* the answer, or the text to encode; may contain NUL */
    size_t text_len;
    int32_t *prompt_ids, *ids, *control_ids;
    size_t n_prompt_ids, n_ids, n_control_ids;
    /* needle: where the text comes from and what is hidden in it */
    char *city, *passage;
    int64_t number, chars, n_prompt;
    double share;
};

struct golden_cases {
    struct golden_case *v;
    size_t n;
};

/** All cases of tests/data/golden/NAME.json. */
ls_status golden_cases_open(struct golden_cases *c, const char *name, ls_error *err);
void golden_cases_close(struct golden_cases *c);

#endif

/*
 * Inside the evaluation.
 *
 *   eval_hay.c    the text that things are hidden in: lines, vocabulary; one that is made up
 *   eval_words.c  names, numbers, words from a seed
 *   eval_tasks.c  a generator for each task: what it writes with n units of text
 *   eval_case.c   from a draft to a case of so many tokens
 *   eval_file.c   cases from RULER's and LongBench's files
 *   eval_score.c  metrics
 *   eval_run.c    a case put to a context
 *   eval_log.c    results in a file; eval_rows.c their sums; eval_chart.c their pictures
 */
#ifndef LSI_EVAL_H
#define LSI_EVAL_H

#include <longspan/eval.h>

#include "base/base.h"

#define LSI_EVAL_TEXT_BYTES ((size_t)1 << 31) /* of a case at most */

/* ---- the text that things are hidden in ------------------------------------------------------------ */

struct lsi_piece {
    const char *s;
    size_t len;
};

/* Lines end in a line feed; a line that is long is cut behind sentences. */
struct lsi_hay {
    char *text;
    size_t bytes;
    struct lsi_buf lines; /* struct lsi_piece */
    struct lsi_buf
        words; /* struct lsi_piece: different words of lower-case letters, the most frequent first */
};

ls_status lsi_hay_init(struct lsi_hay *h, const char *text, size_t len, ls_error *err);
/** Sentences that are made up, the same every time. */
ls_status lsi_hay_init_made_up(struct lsi_hay *h, ls_error *err);
void lsi_hay_fini(struct lsi_hay *h);
size_t lsi_hay_lines(const struct lsi_hay *h);
/** Line i, from the beginning again after the last. */
struct lsi_piece lsi_hay_line(const struct lsi_hay *h, size_t i);
size_t lsi_hay_words(const struct lsi_hay *h);
struct lsi_piece lsi_hay_word(const struct lsi_hay *h, size_t i);

struct ls_eval_source {
    const ls_tokenizer *tok;
    const ls_chat_template *chat;
    struct lsi_hay hay;
    char name[256];
};

/* ---- words from a seed ------------------------------------------------------------------------------ */

#define LSI_WORD_BYTES 32

/** A word that does not exist: "brothel" it may be, a name in a text it hardly is. */
void lsi_pseudo_word(struct lsi_rng *r, bool capital, char out[LSI_WORD_BYTES]);
/** n_letters random small letters. */
void lsi_letters(struct lsi_rng *r, size_t n_letters, char out[LSI_WORD_BYTES]);
/** A number of n_digits digits, the first not 0. */
void lsi_digits(struct lsi_rng *r, size_t n_digits, char out[LSI_WORD_BYTES]);

/* Words that have been used, to draw different ones. */
struct lsi_used {
    uint64_t *slots; /* digests; 0: free */
    size_t cap, n;
    bool failed;
};
/** Note a word; false when it was there (or memory ran out: failed). */
bool lsi_used_add(struct lsi_used *u, const char *word, size_t n);
bool lsi_used_has(const struct lsi_used *u, const char *word, size_t n);
void lsi_used_fini(struct lsi_used *u);

/* ---- drafts ------------------------------------------------------------------------------------------- */

/* A case while it is written: strings one after the other, each with a NUL behind it. */
struct lsi_draft {
    const ls_eval_source *source;
    struct lsi_rng rng;
    struct lsi_used used;
    struct lsi_buf text;     /* strings */
    struct lsi_buf turns;    /* struct lsi_draft_turn */
    struct lsi_buf expected; /* size_t: where each begins */
    struct lsi_buf classes;  /* size_t */
    ls_eval_metric metric;
    bool first_line;
    size_t n_target;        /* tokens that are wanted: some tasks count differently in short texts */
    size_t n_predict;       /* 0: from the expected answers, */
    size_t n_least_predict; /* at least so many */
};

struct lsi_draft_turn {
    size_t text, question, prefix; /* where they begin */
    size_t expected, n_expected;
};

void lsi_draft_init(struct lsi_draft *d, const ls_eval_source *source, uint64_t seed);
void lsi_draft_fini(struct lsi_draft *d);
/** Begin a turn: its text follows by lsi_draft_add and lsi_draft_put. */
void lsi_draft_turn(struct lsi_draft *d);
void lsi_draft_add(struct lsi_draft *d, const char *s, size_t n);
void lsi_draft_put(struct lsi_draft *d, const char *fmt, ...) LSI_PRINTF(2, 3);
/** The text is complete; so is the question, and the prefix: they end and the next begins. */
void lsi_draft_question(struct lsi_draft *d);
void lsi_draft_prefix(struct lsi_draft *d);
/** An answer that is expected of the turn. */
void lsi_draft_expect(struct lsi_draft *d, const char *s, size_t n);
void lsi_draft_class(struct lsi_draft *d, const char *s, size_t n);
bool lsi_draft_failed(const struct lsi_draft *d);

/* A task: what it writes with n units of text (lines, words), n >= least. */
struct lsi_eval_task {
    ls_eval_task_info info;
    size_t least;
    void (*write)(struct lsi_draft *d, size_t n);
};
/** The task with this name, NULL when there is none. */
const struct lsi_eval_task *lsi_eval_find_task(const char *name);

/** A case from a draft, with its tokens counted. */
ls_status lsi_case_finish(const ls_eval_source *source, const struct lsi_draft *d, const char *task,
                          uint64_t seed, uint64_t index, ls_eval_case **c, ls_error *err);

/* ---- ids --------------------------------------------------------------------------------------------- */

struct lsi_turn_ids {
    int32_t *ids;
    size_t n;
    size_t n_text; /* of them the turn's text; the rest is the question */
};

/** Ids of the prompt of turn i. Release: lsi_turn_ids_free. */
ls_status lsi_turn_encode(const ls_eval_source *source, const ls_eval_case *c, size_t i,
                          struct lsi_turn_ids *t, ls_error *err);
void lsi_turn_ids_free(const ls_eval_source *source, struct lsi_turn_ids *t);

#endif

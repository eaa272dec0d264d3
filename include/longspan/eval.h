/*
 * Questions about long texts whose answers are known, put to a model under a cache policy.
 *
 *     ls_eval_source *source;                       // tokenizer and the text that things are hidden in
 *     ls_eval_source_create(tok, NULL, NULL, &source, &err);
 *     ls_eval_case *c;
 *     ls_eval_case_create(source, "needle-single", 4096, seed, 0, &c, &err);
 *     ls_eval_result r = { .struct_size = sizeof r };
 *     ls_eval_ask(ctx, source, c, LS_EVAL_SPARSE, 0, &r, &err);         // r.score: 0 .. 1
 *
 * The same tokenizer, text, task, length, seed and index give the same case on every machine.
 */
#ifndef LONGSPAN_EVAL_H
#define LONGSPAN_EVAL_H

#include <longspan/chat.h>
#include <longspan/context.h>
#include <longspan/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tasks --------------------------------------------------------------------------------- */

typedef struct ls_eval_task_info {
    const char *name;  /* "needle-single" */
    const char *group; /* "needle": a name for several tasks, or the task's own */
    const char *summary;
} ls_eval_task_info;

/** The i-th task; NULL beyond the last. */
LS_API const ls_eval_task_info *ls_eval_task(size_t i);

/* ---- where texts come from -------------------------------------------------------------------- */

typedef struct ls_eval_source ls_eval_source;

typedef struct ls_eval_text {
    const char *name; /* told in results: "bible-kjv", a path */
    const char *data; /* UTF-8, copied */
    size_t len;
} ls_eval_text;

/**
 * @param tok   What lengths are counted with. Tokenizer and template stay open as long as the source.
 * @param text  The text that things are hidden in; NULL: sentences that are made up, always the same.
 * @param chat  Questions are put as a user's message of this template; NULL: the text is continued as it is.
 * @return LS_E_INVAL when the text has less than a hundred lines or sentences.
 */
LS_API ls_status ls_eval_source_create(const ls_tokenizer *tok, const ls_eval_text *text,
                                       const ls_chat_template *chat, ls_eval_source **source, ls_error *err);
LS_API void ls_eval_source_free(ls_eval_source *source);
/** Name of the text, with a digest of it: "made-up:0123456789abcdef". */
LS_API const char *ls_eval_source_name(const ls_eval_source *source);

/* ---- cases -------------------------------------------------------------------------------------- */

typedef struct ls_eval_turn {
    const char *text;     /* what is read before the question */
    const char *question; /* follows it directly */
    const char *prefix;   /* how the answer begins: part of the prompt */
    const char *const *expected;
    size_t n_expected;
} ls_eval_turn;

typedef enum ls_eval_metric {
    LS_EVAL_CONTAINS,   /* share of the expected texts that the answer contains, in any case of letters */
    LS_EVAL_CONTAINS_1, /* 1 when it contains one of them */
    LS_EVAL_F1,         /* of words, the best of the expected ones; articles and punctuation do not count */
    LS_EVAL_CLASS,      /* 1 / classes that the answer names, when the expected one is among them */
    LS_EVAL_NUMBER,     /* share of the answer's numbers that are the expected one */
    LS_EVAL_ROUGE_L,    /* of summaries: common subsequences of words, the best of the expected ones */
    LS_EVAL_SIMILARITY, /* edit similarity of the first line of code, in whole per cent */
    LS_EVAL_NLL,        /* no answer: how well the text is predicted */
} ls_eval_metric;

typedef struct ls_eval_case {
    const char *task;
    ls_eval_metric metric;
    bool first_line; /* only the first line of an answer counts */
    uint64_t seed, index;
    size_t n_tokens;  /* of all turns' prompts */
    size_t n_predict; /* tokens of an answer at most */
    size_t n_ctx;     /* tokens that a context needs */
    /* Several turns are one stream: answers stay in it, and each turn's text follows. */
    const ls_eval_turn *turns;
    size_t n_turns;
    const char *const *classes; /* of LS_EVAL_CLASS: all there are */
    size_t n_classes;
} ls_eval_case;

/**
 * Make a case of which prompt and answers take at most n_tokens, and hardly less.
 * @return LS_E_INVAL no such task
 *         LS_E_LIMIT n_tokens are too few for this task: the sentence says how many it takes
 */
LS_API ls_status ls_eval_case_create(const ls_eval_source *source, const char *task, size_t n_tokens,
                                     uint64_t seed, uint64_t index, ls_eval_case **c, ls_error *err);
LS_API void ls_eval_case_free(ls_eval_case *c);

/**
 * The prompt of a turn as a model reads it, in the source's chat template where it has one. In a stream the
 * answer to the turn before stands before it.
 *
 * @param n_document  Of the n ids those of the turn's text; the rest is the question. NULL: not asked.
 * Release ids with ls_tokenizer_ids_free.
 */
LS_API ls_status ls_eval_prompt_ids(const ls_eval_source *source, const ls_eval_case *c, size_t turn,
                                    int32_t **ids, size_t *n, size_t *n_document, ls_error *err);

/** Score of an answer, 0 .. 1. */
LS_API double ls_eval_score(const ls_eval_case *c, size_t turn, const char *answer);

/* ---- cases from files ----------------------------------------------------------------------------- */

typedef struct ls_eval_file ls_eval_file;

/**
 * A JSONL file as RULER ("input", "outputs") or LongBench ("context", "input", "answers") have it. Lines may
 * be of several data sets.
 * @return LS_E_FORMAT       a line is neither: the sentence names it
 *         LS_E_UNSUPPORTED  a data set of LongBench for which there is no metric
 */
LS_API ls_status ls_eval_file_open(const char *path, ls_eval_file **file, ls_error *err);
LS_API void ls_eval_file_close(ls_eval_file *file);
LS_API size_t ls_eval_file_count(const ls_eval_file *file);
/** Digest of its bytes: a file that was changed has another. */
LS_API uint64_t ls_eval_file_digest(const ls_eval_file *file);
/** Name for results of the k-th data set in the file: what the lines say, else the file's name. NULL beyond
 * the last. */
LS_API const char *ls_eval_file_set(const ls_eval_file *file, size_t k);
/** The data set of line i < count. */
LS_API size_t ls_eval_file_set_of(const ls_eval_file *file, size_t i);
/** RULER's inputs of a single line: all of it is the question, and LS_EVAL_SPARSE has no document to read. */
LS_API size_t ls_eval_file_one_line(const ls_eval_file *file);
/**
 * The case of a line. One that is longer than n_tokens (0: as long as it is) loses the middle of its document
 * in a LongBench file, as is usual there; in a RULER file, where the answer could go with it, it is
 * LS_E_LIMIT.
 */
LS_API ls_status ls_eval_file_case(const ls_eval_file *file, size_t i, const ls_eval_source *source,
                                   size_t n_tokens, ls_eval_case **c, ls_error *err);

/* ---- asking ---------------------------------------------------------------------------------------- */

typedef enum ls_eval_protocol {
    LS_EVAL_DENSE,  /* document and question are the prompt; then the answer is decoded */
    LS_EVAL_SPARSE, /* the document is the prompt; question and answer go through decode steps */
} ls_eval_protocol;

/** "dense", "sparse". */
LS_API const char *ls_eval_protocol_name(ls_eval_protocol protocol);

#define LS_EVAL_BINS 8

typedef struct ls_eval_result {
    size_t struct_size;
    double score;         /* mean over the turns; of LS_EVAL_NLL: 0 */
    size_t prompt_tokens; /* processed in blocks by this call */
    double prompt_seconds;
    size_t decode_tokens; /* through decode steps */
    double decode_seconds;
    size_t cache_bytes;          /* at the end */
    double nll[LS_EVAL_BINS];    /* of LS_EVAL_NLL: sums over equal parts of the text */
    size_t scored[LS_EVAL_BINS]; /* tokens of each */
    char *answer;                /* of all turns, with line feeds between; ls_eval_result_clear releases it */
} ls_eval_result;

/**
 * Ask greedily. For LS_EVAL_NLL the last eighth of the text goes through decode steps under LS_EVAL_SPARSE,
 * each with the token that stands there; under both protocols every token but the first of the text counts.
 *
 * @param held  What ls_eval_keep said of this context and case; 0: what the context holds is forgotten.
 */
LS_API ls_status ls_eval_ask(ls_context *ctx, const ls_eval_source *source, const ls_eval_case *c,
                             ls_eval_protocol protocol, size_t held, ls_eval_result *result, ls_error *err);
/**
 * After a case was asked under LS_EVAL_SPARSE: go back to the last whole block before its question, so that
 * LS_EVAL_DENSE need not read the document again. That changes nothing but the time.
 *
 * @param block  The context's option, not 0.
 * @param held   Tokens that are kept; 0 where the cache policy does not keep every token exactly, or there is
 *               nothing to keep.
 */
LS_API ls_status ls_eval_keep(ls_context *ctx, const ls_eval_source *source, const ls_eval_case *c,
                              size_t block, size_t *held, ls_error *err);
LS_API void ls_eval_result_clear(ls_eval_result *result);

/* ---- results ------------------------------------------------------------------------------------------ */

typedef struct ls_eval_record {
    const char *kv;     /* as a context tells it before its first prompt: shares of a prompt as shares */
    const char *budget; /* as it was asked for, "" where the policy was written out */
    const char *task;
    size_t n_tokens; /* length that was asked for */
    uint64_t seed, index;
    ls_eval_protocol protocol;
    ls_eval_result result;
} ls_eval_record;

/** What the records of one policy, budget, task, length and protocol come to. */
typedef struct ls_eval_row {
    const char *kv, *budget, *task;
    size_t n_tokens;
    ls_eval_protocol protocol;
    size_t n;
    double accuracy, accuracy_stderr; /* NAN where there is none */
    double perplexity[LS_EVAL_BINS];  /* NAN where there is none; the last is what decoding came to */
    double prompt_rate, decode_rate;  /* tokens/s, NAN where there were none */
    double cache_bytes;               /* mean */
    /* The policy for readers: its name, and the keys that are not the default. A budget that was asked for
     * beside the policy is not among them. */
    char label[96];
} ls_eval_row;

typedef struct ls_eval_log ls_eval_log;

/** What session files tell models apart by: settings and samples of every tensor. Other weights give another
 * number; a change of single elements may not. */
LS_API uint64_t ls_eval_model_digest(const ls_model *model);

/**
 * Results in memory and, with a folder, in DIR/results.jsonl: a line for the settings, then one for each
 * case. The folder is held until the log is closed: another process that opens it is refused.
 * @param settings  What results depend on, "NAME VALUE" in lines; a folder with others is refused, and the
 *                  first that differs is named.
 * @param resume    Go on with what is there; else a folder with results is refused.
 */
LS_API ls_status ls_eval_log_open(const char *dir, const char *settings, bool resume, ls_eval_log **log,
                                  ls_error *err);
LS_API void ls_eval_log_close(ls_eval_log *log);
/** Whether there is a record with the same kv, budget, task, length, seed, index and protocol. */
LS_API bool ls_eval_log_has(const ls_eval_log *log, const ls_eval_record *key);
/** Add a record; its line is handed to the system as a whole. */
LS_API ls_status ls_eval_log_add(ls_eval_log *log, const ls_eval_record *record, ls_error *err);
/** Rows in the order in which their first records were added; they live until the next call of add or close.
 */
LS_API ls_status ls_eval_log_rows(ls_eval_log *log, const ls_eval_row **rows, size_t *n, ls_error *err);
/**
 * Draw DIR/accuracy.svg (against the budget), DIR/speed.svg and DIR/memory.svg (against the length), of
 * which those without points are left out.
 */
LS_API ls_status ls_eval_plot(const ls_eval_row *rows, size_t n, const char *dir, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

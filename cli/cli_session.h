/*
 * A model with a context, as generate, chat, perplexity and bench use it: opening with clear
 * messages, keeping the processed prefix between prompts, generating an answer, statistics.
 */
#ifndef LONGSPAN_CLI_SESSION_H
#define LONGSPAN_CLI_SESSION_H

#include "cli_options.h"

enum stop_reason {
    STOP_EOS,
    STOP_LENGTH,
    STOP_INTERRUPT,
    STOP_TEXT
};

struct session {
    const struct cli_options *o;
    ls_tokenizer *tok;
    ls_model *model;
    ls_model_info info;
    ls_context *ctx;
    float *logits; /* [V] */
    size_t n_vocab;
    int32_t *held; /* [n_held] the tokens in the cache */
    size_t n_held, cap_held;
    int32_t *stop_ids; /* tokens that end an answer */
    size_t n_stop_ids;
    uint64_t seed; /* in use, chosen or given */
    struct progress progress;
};

/** What one prompt gave. Zero-initialise; release with answer_free. */
struct answer {
    struct text text; /* as shown, the answer prefix included */
    int32_t *ids;     /* generated, without the token that ended the answer */
    size_t n_ids, cap_ids;
    size_t prompt_tokens;
    size_t kept_tokens; /* of the prompt, that were in the cache already */
    double prompt_seconds, generate_seconds;
    enum stop_reason stop;
};

/** Open tokenizer, model and context. An exit status; session_close is due in any case. */
int session_open(struct session *s, const struct cli_options *o, size_t n_ctx);
void session_close(struct session *s);

/** Fill in what the options say about the context. */
void session_context_options(struct session *s, size_t n_ctx, ls_context_options *c);

/**
 * Make the cache hold exactly ids, keeping the common beginning, and compute the logits after the
 * last one. An exit status: EXIT_INTERRUPTED after Ctrl-C.
 */
int session_prompt(struct session *s, const int32_t *ids, size_t n, struct answer *a);

/**
 * Answer the prompt ids. The text streams to stdout unless --json; prefix (may be NULL) is text that
 * the prompt ends with and that belongs to the answer. An exit status.
 */
int session_answer(struct session *s, const int32_t *ids, size_t n, const char *prefix, struct answer *a);

void answer_free(struct answer *a);

/**
 * What all answers of a run come to (cli_report.c). With --json one object is printed at the end:
 * the last answer's members, totals, and an array `answers` when there is more than one.
 * Zero-initialise; report_end releases it.
 */
struct report {
    struct json_out answers;
    struct answer last;
    size_t n;
    size_t processed_tokens, generated_tokens;
    double prompt_seconds, generate_seconds;
};

/** Tell about an answer on stderr and take it over; *a is empty afterwards. */
void report_add(struct report *r, const struct session *s, const struct text *prompt, struct answer *a);
/** An exit status: `status`, unless printing fails. */
int report_end(struct report *r, const struct session *s, int status);

/** The prompts of -p and -f, or of standard input when it is no terminal. An exit status. */
struct prompts {
    struct text *items;
    size_t n;
};
int prompts_read(const struct cli_options *o, struct prompts *p);
void prompts_free(struct prompts *p);

#endif

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
    bool apart;        /* each prompt is for itself: what it finds in the cache must not depend on others */
    int32_t *stop_ids; /* tokens that end an answer */
    size_t n_stop_ids;
    uint64_t seed; /* in use, chosen or given */
    struct progress progress;

    ls_context *base; /* the beginning that all prompts share, or NULL (session_share) */
    int32_t *base_ids;
    size_t n_base;
    size_t share_tokens; /* processed for it, to be counted with the first answer */
    double share_seconds;
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

/** Say why there is no context. An exit status: what cannot be is a mistake of the command line. */
int session_no_context(ls_status st, const ls_error *err);

/** Tell that more tokens are asked for than the model was trained for. */
void session_note_trained(const struct session *s);

/** Fill in what the options say about the context. */
void session_context_options(struct session *s, size_t n_ctx, ls_context_options *c);

/**
 * Make the cache hold exactly ids, keeping the common beginning, and compute the logits after the
 * last one. An exit status: EXIT_INTERRUPTED after Ctrl-C.
 */
int session_prompt(struct session *s, const int32_t *ids, size_t n, struct answer *a);

/** The ids of a prompt: a document from byte `from` on, and a question. An exit status. */
typedef int encode_fn(void *user, size_t from, const char *question, size_t len, int32_t **ids, size_t *n);
/**
 * Process the beginning that prompts with different questions about a document share, and keep it: caches
 * that cannot go back start from there again. An exit status.
 */
int session_share(struct session *s, encode_fn *encode, void *user, const struct text *doc);
/** The context holds these ids (it has been loaded): keep them as a beginning. */
void session_holds(struct session *s, const int32_t *ids, size_t n);

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

/* What a --session file holds beside the tokens (cli_store.c). Zero-initialise; store_clear releases it. */
struct store_text {
    char name[16];
    struct text text;
};

struct store {
    struct store_text *texts;
    size_t n_texts;
    bool loaded; /* from a file that existed */
};

/** Read the file of --session, if there is one, into session and store: one of the same command's, or of a
 * document. An exit status. */
int store_load(struct session *s, struct store *st);
/** Write it, if --session was given. An exit status. */
int store_save(struct session *s, const struct store *st);
void store_add(struct store *st, const char *name, const void *data, size_t n);
/** The first text of a name, or NULL. */
const struct text *store_find(const struct store *st, const char *name);
void store_clear(struct store *st);
/** Take the document from the store; --doc must be the same one. An exit status. */
int store_document(struct session *s, const struct store *st, struct text *doc);
/** What was loaded goes on, which is told; not so the tokens of a document that questions do not begin with.
 * An exit status. */
int store_go_on(struct session *s, const struct store *st, encode_fn *encode, void *user);
/** The role of the turn of a conversation that a text of this name is, or NULL. */
const char *store_role(const char *name);

/** The prompts of -p and -f, or of standard input when it is no terminal. An exit status. */
struct prompts {
    struct text *items;
    size_t n;
};
/** One more, empty. */
struct text *prompts_add(struct prompts *p);
int prompts_read(const struct cli_options *o, struct prompts *p);
void prompts_free(struct prompts *p);

#endif

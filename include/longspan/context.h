/*
 * A context: one sequence being read or generated with a model. Holds the KV cache
 * and the scratch of a block of rows. Used by one thread at a time.
 *
 *     ls_context_options o;
 *     ls_context_options_defaults(&o);
 *     o.n_ctx = 8192;
 *     ls_context *ctx = NULL;
 *     ls_context_create(model, &o, &ctx, &err);
 *     ls_context_append(ctx, ids, n, logits, &err);    // any n: worked off in blocks of rows
 */
#ifndef LONGSPAN_CONTEXT_H
#define LONGSPAN_CONTEXT_H

#include <longspan/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_context ls_context;

typedef enum ls_compute {
    LS_COMPUTE_AUTO, /* few rows (decoding): 8-bit activations for quantised weights, fp32 for others;
                        blocks of a prompt: bf16 */
    LS_COMPUTE_BF16, /* products in bf16, sums in fp32 */
    LS_COMPUTE_FP32, /* everything in fp32: reference accuracy */
} ls_compute;

/** done of total tokens of this call are processed. Called from the calling thread. */
typedef void ls_progress_fn(void *user, size_t done, size_t total);

typedef struct ls_context_options {
    size_t struct_size;
    size_t n_ctx;   /* most tokens held, up to 2^31; 0: what the model was trained for */
    const char *kv; /* "full", "full:q8", "streaming:sink=4,recent=1020" ...: ls_kv_policy_at lists them;
                       NULL: "full:bf16" */
    ls_compute compute;
    int n_threads;            /* 0: all processors of this process */
    size_t block;             /* rows worked on together; 0: chosen (512) */
    ls_progress_fn *progress; /* NULL: none */
    void *progress_user;
    const volatile int *cancel; /* made non-zero from anywhere: the call returns LS_E_CANCELED; NULL: never */
    const ls_alloc *alloc;
} ls_context_options;

LS_API void ls_context_options_defaults(ls_context_options *o);

/* A cache policy, as a kv text names it. The texts are constant. */
typedef struct ls_kv_policy_info {
    size_t struct_size;
    const char *name;
    const char *summary; /* one line */
    const char *example; /* a kv text, two spaces, what it does; or NULL */
    size_t n_keys;
    bool endless; /* sequences may be longer than n_ctx */
    bool packs;   /* "NAME+kivi" stores what it keeps as kivi does, with the keys of kivi behind it */
} ls_kv_policy_info;

/* A key of a policy: "name=value". */
typedef struct ls_kv_key_info {
    size_t struct_size;
    const char *name;
    const char *help;
    const char *normal;  /* what it is when it is not given; NULL: it must be given */
    const char *choices; /* words, '|' between them; NULL: a whole number */
    int64_t low, high;   /* of the number */
    bool percent;        /* or a share of the tokens of the first prompt, "10%" */
} ls_kv_key_info;

/** Policy i of those there are; false beyond the last. struct_size must be set: only so many bytes are
 * written. */
LS_API bool ls_kv_policy_at(size_t i, ls_kv_policy_info *info);
/** Key `key` of policy i, likewise. */
LS_API bool ls_kv_key_at(size_t i, size_t key, ls_kv_key_info *info);
/** LS_E_INVAL, and a sentence with the fix, when a kv text cannot be read. */
LS_API ls_status ls_kv_check(const char *kv, ls_error *err);

/** Bytes a context will take, without making it. */
typedef struct ls_context_plan_info {
    size_t struct_size;
    size_t weights_bytes; /* shared with other contexts of the model */
    size_t cache_bytes;   /* when n_ctx tokens are held; grows with use */
    size_t cache_bytes_per_token;
    size_t activation_bytes;
    size_t scratch_bytes;
} ls_context_plan_info;

/**
 * What ls_context_create would take with these options; nothing of it is allocated.
 * @param o     NULL: defaults.
 * @param plan  struct_size must be set: only so many bytes are written.
 */
LS_API ls_status ls_context_plan(const ls_model *model, const ls_context_options *o,
                                 ls_context_plan_info *plan, ls_error *err);

/** A context that holds no tokens yet. It keeps the model open. o NULL: defaults. */
LS_API ls_status ls_context_create(ls_model *model, const ls_context_options *o, ls_context **ctx,
                                   ls_error *err);
LS_API void ls_context_free(ls_context *ctx);

/** Tokens held now; the most it may hold; logits of a row. */
LS_API size_t ls_context_length(const ls_context *ctx);
LS_API size_t ls_context_capacity(const ls_context *ctx);
LS_API size_t ls_context_n_vocab(const ls_context *ctx);
/** The cache policy keeps a fixed number of tokens: the sequence may be longer than n_ctx, up to the
 * capacity. */
LS_API bool ls_context_endless(const ls_context *ctx);
/** Bytes the cache holds now. */
LS_API size_t ls_context_cache_bytes(const ls_context *ctx);
/** Name of the cache policy and format, e.g. "full:bf16"; shares of the prompt are numbers of tokens after
 * it. */
LS_API const char *ls_context_kv(const ls_context *ctx);

/**
 * Append tokens and compute the logits after the last one. To cache policies the tokens are a prompt when
 * there is more than one, or when they are the first; any other single token is a step of decoding.
 *
 * @param tokens    [n_tokens] ids, each below n_vocab. Read during the call only.
 * @param logits    [V] floats, or NULL to skip the output matrix.
 * @return LS_OK
 *         LS_E_INVAL     no tokens, or an id is out of range; unchanged
 *         LS_E_LIMIT     more than n_ctx tokens; unchanged
 *         LS_E_CANCELED  the cancel flag was raised; holds the tokens it held before the call
 *         LS_E_NOMEM     likewise
 *         LS_E_NUMERIC   a logit is not finite; the tokens were appended
 */
LS_API ls_status ls_context_append(ls_context *ctx, const int32_t *tokens, size_t n_tokens, float *logits,
                                   ls_error *err);

/** Rows row0 .. row0+n_rows-1 of the call's tokens; logits [n_rows][V]. A status other than LS_OK stops. */
typedef ls_status ls_logits_fn(void *user, size_t row0, size_t n_rows, const float *logits);

/**
 * Append and hand the logits of every row to fn, a few rows at a time: constant memory. Fails as
 * ls_context_append does; what fn returned comes back, and the context holds what it held before.
 * No tokens: nothing happens.
 */
LS_API ls_status ls_context_append_all(ls_context *ctx, const int32_t *tokens, size_t n_tokens,
                                       ls_logits_fn *fn, void *user, ls_error *err);

/**
 * Append and give each row's negative log likelihood of the token that follows it, nll[i] for
 * tokens[i + 1] after tokens[0..i]: n_tokens - 1 values. Logits are never held for more than a few rows.
 * A value that is not finite is LS_E_NUMERIC. On failure nll is partly written and the context holds
 * what it held before.
 */
LS_API ls_status ls_context_append_nll(ls_context *ctx, const int32_t *tokens, size_t n_tokens, float *nll,
                                       ls_error *err);

/**
 * The same with one value more, nll[n_tokens - 1] for tokens[n_tokens], which is looked at and not appended:
 * token by token after a prompt it measures what a cache policy does while generating.
 */
LS_API ls_status ls_context_append_next_nll(ls_context *ctx, const int32_t *tokens, size_t n_tokens,
                                            float *nll, ls_error *err);

/**
 * What rows row0 .. row0 + n_rows - 1 of a call attend to in a layer: p[(i * n_heads + h) * ld + j] is the
 * probability that head h of row row0 + i gives to token j of the sequence, 0 for tokens after it. Valid
 * during the call.
 */
typedef void ls_attention_fn(void *user, size_t layer, size_t row0, size_t n_rows, const float *p, size_t ld);

/**
 * Append, and hand the attention probabilities of every layer, or of one, to fn, a few rows at a time. Slower
 * than ls_context_append by the size of the matrices.
 *
 * @param layer   SIZE_MAX: all
 * @return as ls_context_append; LS_E_UNSUPPORTED: the cache policy is not full
 */
LS_API ls_status ls_context_append_attention(ls_context *ctx, const int32_t *tokens, size_t n_tokens,
                                             size_t layer, ls_attention_fn *fn, void *user, ls_error *err);

/**
 * Tokens that the cache keeps for a key/value head of a layer, ascending: how many, and their places in the
 * sequence unless positions is NULL.
 */
LS_API size_t ls_context_kept(const ls_context *ctx, size_t layer, size_t kv_head, int64_t *positions);

/** Tokens that a query head of a layer reads, ascending, the newest included; valid during the call. */
typedef void ls_read_fn(void *user, size_t layer, size_t head, const int64_t *positions, size_t n);

/**
 * Append one token, and tell fn what each head of each layer reads for it: of policies that keep everything
 * and choose for every step, what they choose; of others, what they keep.
 *
 * @return as ls_context_append
 */
LS_API ls_status ls_context_append_reads(ls_context *ctx, int32_t token, ls_read_fn *fn, void *user,
                                         ls_error *err);

/**
 * Another context with the same model, options and tokens. Memory of keys and values is shared until one of
 * the two writes to it: many questions can be put to one processed text. The two may be used by different
 * threads.
 */
LS_API ls_status ls_context_fork(const ls_context *ctx, ls_context **copy, ls_error *err);

/**
 * Make a context hold what another one holds (ls_context_fork without a new context); what it held is
 * forgotten. LS_E_INVAL: model or options differ. On failure it is unchanged.
 */
LS_API ls_status ls_context_assign(ls_context *to, const ls_context *from, ls_error *err);

/**
 * Store what the context holds in a file, which takes the place of another one only when it is complete.
 *
 * @param tokens  [length of the context] the tokens it holds, stored with it
 * @param note    [note_bytes] what the caller wants to find again; may be NULL
 */
LS_API ls_status ls_context_save(ls_context *ctx, const char *path, const int32_t *tokens, const void *note,
                                 size_t note_bytes, ls_error *err);

/** What ls_context_load found; release with ls_session_free. */
typedef struct ls_session {
    int32_t *tokens;
    size_t n_tokens;
    char *note; /* NUL-terminated */
    size_t note_bytes;
    const ls_alloc *alloc;
} ls_session;

/**
 * Make the context hold what a file holds. The file stays open: its pages are read when they are attended
 * and shared with other processes.
 *
 * @return LS_OK
 *         LS_E_IO      cannot be read
 *         LS_E_FORMAT  no session, cut off or damaged (everything is checked against a sum)
 *         LS_E_INVAL   made with another model or other options; the sentence names the difference
 *         On failure the context is unchanged.
 */
LS_API ls_status ls_context_load(ls_context *ctx, const char *path, ls_session *session, ls_error *err);
LS_API void ls_session_free(ls_session *session);

/** Forget all but the first n_tokens. n_tokens <= length. LS_E_UNSUPPORTED when the cache policy has dropped
 * what they need, and nothing has changed; n_tokens = 0 always works. */
LS_API ls_status ls_context_rewind(ls_context *ctx, size_t n_tokens, ls_error *err);

/**
 * For benchmarks: make the cache hold n_tokens by repeating what it holds (at least 256 tokens),
 * so that speed at a depth can be measured without reading a text of that length. Whole pages of 256
 * tokens are repeated: tokens beyond the last whole one are replaced.
 */
LS_API ls_status ls_context_tile(ls_context *ctx, size_t n_tokens, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

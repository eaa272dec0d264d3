/*
 * Text to token ids and back.
 *
 *     ls_tokenizer *tok = NULL;
 *     ls_tokenizer_open("model.gguf", NULL, &tok, &err);     // or a Hugging Face directory
 *     int32_t *ids; size_t n;
 *     ls_tokenizer_encode(tok, text, strlen(text), LS_ENCODE_ADD_SPECIAL, &ids, &n, &err);
 *     ...
 *     ls_tokenizer_ids_free(tok, ids, n);
 *
 * A tokenizer is immutable after open and may be shared between threads.
 */
#ifndef LONGSPAN_TOKENIZER_H
#define LONGSPAN_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <longspan/alloc.h>
#include <longspan/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_tokenizer ls_tokenizer;
typedef struct ls_detokenizer ls_detokenizer;

enum {
    LS_ENCODE_ADD_SPECIAL = 1,   /* add bos/eos where the model's files say so */
    LS_ENCODE_PARSE_SPECIAL = 2, /* recognise control tokens such as <|im_end|> in the text */
};

/** A range of bytes of a text in which control tokens are not recognised. */
typedef struct ls_byte_range {
    size_t begin, end;
} ls_byte_range;

/** Open the tokenizer of a model by the path that ls_model_open takes. alloc may be NULL. */
LS_API ls_status ls_tokenizer_open(const char *path, const ls_alloc *alloc, ls_tokenizer **tok,
                                   ls_error *err);
LS_API void ls_tokenizer_close(ls_tokenizer *tok);

/** Number of ids: every id is below it. */
LS_API size_t ls_tokenizer_n_vocab(const ls_tokenizer *tok);
/** "bpe" or "spm". */
LS_API const char *ls_tokenizer_kind(const ls_tokenizer *tok);
/** Name of the split rule: "gpt-2", "smollm", "llama-bpe", "qwen2", "none" … */
LS_API const char *ls_tokenizer_split(const ls_tokenizer *tok);
/** Id or -1 when there is none. */
LS_API int32_t ls_tokenizer_bos(const ls_tokenizer *tok);
LS_API int32_t ls_tokenizer_eos(const ls_tokenizer *tok);
LS_API bool ls_tokenizer_adds_bos(const ls_tokenizer *tok);
/** True for every id that ends an answer (eos, eot, eom and their kin). */
LS_API bool ls_tokenizer_is_stop(const ls_tokenizer *tok, int32_t id);
/** True for control tokens (never shown as text). */
LS_API bool ls_tokenizer_is_control(const ls_tokenizer *tok, int32_t id);
/** Id of a token by its exact text, -1 when there is none. */
LS_API int32_t ls_tokenizer_find(const ls_tokenizer *tok, const char *text, size_t len);
/** Something about the files that makes results doubtful, for showing once; NULL when all is well. */
LS_API const char *ls_tokenizer_warning(const ls_tokenizer *tok);
/** Text of the chat template in the files, or NULL. Lives as long as the tokenizer. */
LS_API const char *ls_tokenizer_chat_template(const ls_tokenizer *tok);

/**
 * Encode text. The ids are released with ls_tokenizer_ids_free.
 * Broken UTF-8 is encoded as bytes where the vocabulary can, exactly as far as it can.
 */
LS_API ls_status ls_tokenizer_encode(const ls_tokenizer *tok, const char *text, size_t len, unsigned flags,
                                     int32_t **ids, size_t *n_ids, ls_error *err);
/**
 * The same, with ranges (sorted, disjoint) in which control tokens are plain text: for rendered
 * chat templates that contain a user's words. n_dropped (may be NULL): bytes that the vocabulary
 * cannot express and that were left out.
 */
LS_API ls_status ls_tokenizer_encode_ranges(const ls_tokenizer *tok, const char *text, size_t len,
                                            unsigned flags, const ls_byte_range *plain, size_t n_plain,
                                            int32_t **ids, size_t *n_ids, size_t *n_dropped, ls_error *err);
LS_API void ls_tokenizer_ids_free(const ls_tokenizer *tok, int32_t *ids, size_t n_ids);

/**
 * Exact bytes of a token. *len 0 for control tokens unless with_control.
 * The bytes live as long as the tokenizer.
 */
LS_API const char *ls_tokenizer_piece(const ls_tokenizer *tok, int32_t id, bool with_control, size_t *len);

/**
 * Decode to exact bytes (not NUL-terminated by count, but a NUL follows). Release: ls_tokenizer_text_free.
 * A leading space added by encode is removed at the start of the text.
 */
LS_API ls_status ls_tokenizer_decode(const ls_tokenizer *tok, const int32_t *ids, size_t n_ids,
                                     bool with_control, char **text, size_t *len, ls_error *err);
LS_API void ls_tokenizer_text_free(const ls_tokenizer *tok, char *text, size_t len);

/**
 * Streaming: give tokens one by one, take whole characters. Never returns half a UTF-8 character;
 * invalid bytes become U+FFFD; a suffix that could begin a stop string is held back.
 *
 * @param continues  true when the text continues a prompt (no leading space is stripped).
 */
LS_API ls_status ls_detokenizer_create(const ls_tokenizer *tok, bool continues, const char *const *stop,
                                       size_t n_stop, ls_detokenizer **d, ls_error *err);
LS_API void ls_detokenizer_free(ls_detokenizer *d);
/**
 * @param text, len  Bytes that may be shown now (valid until the next call; maybe none).
 * @param stopped    Set when a stop string was completed; it is not part of the text.
 */
LS_API ls_status ls_detokenizer_push(ls_detokenizer *d, int32_t id, const char **text, size_t *len,
                                     bool *stopped);
/** The rest: held-back text, an incomplete tail as one U+FFFD. */
LS_API ls_status ls_detokenizer_finish(ls_detokenizer *d, const char **text, size_t *len);

#ifdef __cplusplus
}
#endif
#endif

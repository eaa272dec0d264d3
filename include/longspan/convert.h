/* Conversion between GGUF files and Hugging Face directories, with quantisation. */
#ifndef LONGSPAN_CONVERT_H
#define LONGSPAN_CONVERT_H

#include <stdbool.h>

#include <longspan/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_convert_options {
    size_t struct_size;
    const char *format;       /* "gguf" or "hf"; NULL: gguf when the output's name ends in .gguf, else hf */
    const char *dtype;        /* type of the matrices, see below; NULL: "keep" */
    bool force;               /* replace what is there */
    ls_progress_fn *progress; /* tensors done, of total */
    void *progress_user;
    const volatile int *cancel;
    const ls_alloc *alloc;
} ls_convert_options;

LS_API void ls_convert_options_defaults(ls_convert_options *o);

/**
 * Write the model and its tokenizer at `in` to `out`. Nothing is left behind on failure or cancellation.
 *
 * Types are "keep" (quantised matrices become bf16 in a Hugging Face directory), "f32", "f16", "bf16" and, in
 * GGUF files, "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0". The table of tokens and the
 * output get q8_0 with all of these. Rows that no 256 divides get q5_0 for q4_k, q5_1 for q5_k, q8_0 for
 * q6_k; rows that no 32 divides f16 or bf16.
 *
 * The Hugging Face directory loads in transformers unchanged (model.safetensors, config.json, tokenizer
 * files, generation_config.json).
 */
LS_API ls_status ls_convert(const char *in, const char *out, const ls_convert_options *o, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

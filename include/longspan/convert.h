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
    const char *format; /* "gguf" or "hf"; NULL: gguf when the output's name ends in .gguf, else hf */
    const char *dtype;  /* matrices: "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"; NULL or "keep": as they are
                           (quantised ones become bf16 in a Hugging Face directory) */
    bool force;         /* replace what is there */
    ls_progress_fn *progress; /* tensors done, of total */
    void *progress_user;
    const volatile int *cancel;
    const ls_alloc *alloc;
} ls_convert_options;

LS_API void ls_convert_options_defaults(ls_convert_options *o);

/**
 * Write the model and its tokenizer at `in` to `out`. Nothing is left behind on failure or cancellation.
 * The Hugging Face directory loads in transformers unchanged (model.safetensors, config.json, tokenizer
 * files, generation_config.json).
 */
LS_API ls_status ls_convert(const char *in, const char *out, const ls_convert_options *o, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

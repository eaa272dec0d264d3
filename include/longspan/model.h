/*
 * Models: architecture and weights of a GGUF file or a Hugging Face directory.
 * Immutable after open; may be shared between threads and contexts.
 */
#ifndef LONGSPAN_MODEL_H
#define LONGSPAN_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <longspan/alloc.h>
#include <longspan/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_model ls_model;

typedef struct ls_model_options {
    size_t struct_size;
    const ls_alloc *alloc; /* NULL: the C library's */
    bool prefault; /* read the whole file ahead when opening (default false: pages come when touched) */
} ls_model_options;

LS_API void ls_model_options_defaults(ls_model_options *o);

/**
 * Open a model. Weights stay in the mapped file, quantised as they are.
 * @param path     a GGUF file, a Hugging Face directory, or a directory with one .gguf file.
 * @param options  NULL for defaults.
 */
LS_API ls_status ls_model_open(const char *path, const ls_model_options *options, ls_model **model,
                               ls_error *err);
/** Contexts keep a reference; the last one closes the files. NULL allowed. */
LS_API void ls_model_close(ls_model *model);

/** What a model is; strings live as long as the model. */
typedef struct ls_model_info {
    size_t struct_size;
    const char *path;
    const char *format;  /* "gguf" or "safetensors" */
    const char *family;  /* "llama", "mistral", "qwen2", "qwen3", "gemma3" */
    const char *name;    /* as the file says; may be "" */
    const char *weights; /* most common weight type, "Q4_1", "BF16" … */
    size_t n_layers;     /* L */
    size_t n_embd;       /* C */
    size_t n_heads;      /* H */
    size_t n_kv_heads;   /* G */
    size_t head_dim;     /* D */
    size_t n_ff;         /* F */
    size_t n_vocab;      /* V, rows of the output matrix */
    size_t n_ctx_train;  /* the context it was trained for */
    size_t window;       /* sliding window of the layers that have one, 0: none */
    size_t n_window_layers;
    double rope_base;
    const char *rope_scaling; /* "none", "linear", "llama3", "yarn" */
    bool tied;                /* output matrix is the embedding */
    uint64_t n_parameters;
    uint64_t weight_bytes;
} ls_model_info;

/** @param info  struct_size must be set: only so many bytes are written. */
LS_API void ls_model_get_info(const ls_model *model, ls_model_info *info);

typedef struct ls_tensor_info {
    const char *name; /* as in the file */
    const char *dtype;
    size_t rank;
    uint64_t shape[8]; /* slowest axis first */
    uint64_t bytes;
} ls_tensor_info;

/** Tensors in the model's files. */
LS_API size_t ls_model_n_tensors(const ls_model *model);
/** i < ls_model_n_tensors; false otherwise. */
LS_API bool ls_model_get_tensor(const ls_model *model, size_t i, ls_tensor_info *info);

#ifdef __cplusplus
}
#endif
#endif

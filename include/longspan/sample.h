/*
 * Choosing the next token from logits. A sampler remembers the tokens it has seen
 * (for the repeat penalty) and its random state.
 */
#ifndef LONGSPAN_SAMPLE_H
#define LONGSPAN_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include <longspan/alloc.h>
#include <longspan/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_sampler ls_sampler;

/* Order of application, as in llama.cpp: penalty, top-k, top-p, min-p, temperature. */
typedef struct ls_sampler_options {
    size_t struct_size;
    float temperature;    /* 0: greedy; default 0.8 */
    int top_k;            /* 0: off; default 40 */
    float top_p;          /* 1: off; default 0.95 */
    float min_p;          /* 0: off; default 0.05 */
    float repeat_penalty; /* 1: off; default 1 */
    int repeat_last;      /* tokens the penalty looks back, up to 2^24; 0: off, -1: all; default 64 */
    uint64_t seed;        /* same seed, same choices */
} ls_sampler_options;

LS_API void ls_sampler_options_defaults(ls_sampler_options *o);
/**
 * @param o        NULL: defaults.
 * @param n_vocab  V: length of the logits.
 * @param alloc    NULL: the C library's.
 */
LS_API ls_status ls_sampler_create(const ls_sampler_options *o, size_t n_vocab, const ls_alloc *alloc,
                                   ls_sampler **s, ls_error *err);
LS_API void ls_sampler_free(ls_sampler *s);
/** Tell the sampler about a token of the text (prompt or chosen). */
LS_API void ls_sampler_accept(ls_sampler *s, int32_t id);
/** Choose from logits [V], which are left as they are. Ties go to the lowest id. Does not accept. */
LS_API int32_t ls_sampler_choose(ls_sampler *s, const float *logits);

#ifdef __cplusplus
}
#endif
#endif

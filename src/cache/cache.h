/*
 * The cache policy: what is kept of the keys and values of one sequence, in which
 * form, and how a query reads it. One vtable, one file for each policy, one row in
 * cache.c. A policy never sees a model: it is told shapes, is given rows, and answers
 * attention.
 *
 * The life of a block of rows, for every layer l in order:
 *
 *     reserve(n)                      room in all layers; the only step that may fail
 *     append(l, k, v)  attend(l, q)   in each layer
 *     commit(n)                       the length grows: the rows are part of the sequence
 *
 * Without commit the rows never were: a cancelled block leaves the cache as it was.
 */
#ifndef LSI_CACHE_H
#define LSI_CACHE_H

#include "ops/backward.h"

struct lsi_cache_shape {
    size_t L;     /* layers */
    size_t H;     /* query heads */
    size_t G;     /* kv heads */
    size_t D;     /* values per head */
    size_t n_ctx; /* most tokens of a sequence */
};

/* A block of query rows of one layer; rows are those of the last append. */
struct lsi_cache_query {
    const float *q; /* [T][H*D], row stride ldq */
    float *out;     /* [T][H*D], row stride ldo; may equal q */
    float *lse;     /* [T][H] or NULL */
    size_t ldq, ldo;
    size_t T;
    size_t window; /* 0: none */
    float scale;
};

/* The gradient of a query of the same rows: lsi_op_attention_backward. */
struct lsi_cache_gradient {
    const float *q, *out, *dout; /* [T][H*D], row stride ld for all */
    const float *lse;            /* [T][H] */
    float *dq;                   /* [T][H*D]; may equal dout */
    float *dk, *dv;              /* [slots][G*D] added to; slot s in row s */
    size_t ld;
    size_t T;
    size_t window;
    float scale;
};

struct lsi_cache {
    const struct lsi_cache_policy *policy;
    struct lsi_cache_shape shape;
    enum lsi_kv_format format;
    size_t length; /* tokens committed */
    const ls_alloc *alloc;
};

struct lsi_cache_policy {
    const char *name;

    /** Bytes held with n tokens (nothing is allocated); SIZE_MAX when no size_t holds them. */
    size_t (*plan)(const struct lsi_cache_shape *shape, enum lsi_kv_format format, size_t n_tokens);
    ls_status (*create)(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        enum lsi_kv_format format, const ls_alloc *alloc, ls_error *err);
    void (*free)(struct lsi_cache *cache);

    /** Room for n_rows more rows. On failure the cache is as before. */
    ls_status (*reserve)(struct lsi_cache *cache, size_t n_rows, ls_error *err);
    /** Keys (rotated) and values of the rows that follow `length`, [n_rows][G*D]. */
    void (*append)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows);
    void (*attend)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q);
    void (*commit)(struct lsi_cache *cache, size_t n_rows);
    /** (optional) Training: the gradient of attend. */
    void (*attend_backward)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                            const struct lsi_cache_gradient *g);
    /**
     * (optional) Positions for the rotary embedding of the n_rows rows that follow `length`: of the rows from
     * `row` on, how many have consecutive positions, which begin at *pos0. Without it all of them do, from
     * `length` on.
     */
    size_t (*positions)(const struct lsi_cache *cache, size_t row, size_t n_rows, int64_t *pos0);

    /** Keep the first n_tokens. Afterwards the cache is what it was with them. */
    ls_status (*rewind)(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
    /** Bytes held now. */
    size_t (*bytes)(const struct lsi_cache *cache);
    /** (optional) Benchmarks: repeat what is held until n_tokens are. */
    ls_status (*tile)(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
};

/* What a --kv text asks for. */
struct lsi_cache_spec {
    const struct lsi_cache_policy *policy;
    enum lsi_kv_format format;
};

/** "full", "full:bf16|q8|fp32". NULL means "full:bf16". The error names the choices. */
ls_status lsi_cache_parse(struct lsi_cache_spec *spec, const char *text, ls_error *err);
/** "full:bf16" … */
void lsi_cache_spec_name(const struct lsi_cache_spec *spec, char *out, size_t cap);

extern const struct lsi_cache_policy lsi_cache_full; /* cache_full.c */

#endif

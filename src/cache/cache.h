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
 * After the last block of a prompt:
 *
 *     settle()                        what was said is over: compress it as the policy does
 *
 * A prompt is what one call of the caller appends, when that is more than one token or the first of the
 * sequence. Any other single token is a step of decoding.
 */
#ifndef LSI_CACHE_H
#define LSI_CACHE_H

#include "ops/backward.h"
#include "cache/kv_pages.h"
#include "ops/cache_ops.h"

struct lsi_cache_shape {
    size_t L;            /* layers */
    size_t H;            /* query heads */
    size_t G;            /* kv heads */
    size_t D;            /* values per head */
    size_t n_ctx;        /* most tokens of a sequence; policies that hold a fixed number keep going beyond */
    size_t n_trained;    /* tokens that the model was trained for; 0: it does not say */
    size_t n_rows;       /* most rows of a block */
    size_t window;       /* of the layers that slide; 0: none does */
    const bool *sliding; /* [L], or NULL; lives as long as the cache */
};

/* A block of query rows of one layer; rows are those of the last append. */
struct lsi_cache_query {
    const float *q; /* [T][H*D], row stride ldq; rotated */
    float *out;     /* [T][H*D], row stride ldo; may equal q */
    float *lse;     /* [T][H] or NULL */
    size_t ldq, ldo;
    size_t T;
    size_t window; /* 0: none */
    float scale;
    const struct lsi_rope *rope; /* how q and the keys were rotated: for policies that give other positions */
};

/* Which tokens a row reads: n[h] of query head h, pos[h * ld + i] ascending. */
struct lsi_cache_reads {
    size_t *n;    /* [H] */
    int64_t *pos; /* [H][ld] */
    size_t ld;    /* tokens of the sequence, the row's own included */
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

/** The sliding window of a layer, 0: it sees everything before it. */
static inline size_t lsi_cache_window(const struct lsi_cache_shape *s, size_t layer)
{
    return s->sliding && s->sliding[layer] ? s->window : 0;
}

/* ---- what a --kv text asks for ------------------------------------------------------ */

#define LSI_CACHE_KEYS 12

/* A key of a policy: "name=value" in a --kv text. */
struct lsi_cache_key {
    const char *name;
    const char *help;    /* with the unit */
    const char *normal;  /* default, as it would be written; NULL: must be given */
    int64_t low, high;   /* of a whole number */
    bool percent;        /* may be "10%" of the prompt */
    const char *choices; /* words instead of a number, '|' between them; NULL: a number */
};

struct lsi_cache_value {
    int64_t n;      /* number, or place among the choices */
    double percent; /* of the tokens of the first prompt; < 0: n counts */
};

struct lsi_cache_spec {
    const struct lsi_cache_policy *policy;
    const struct lsi_cache_policy *storage; /* "+kivi": how what the policy keeps is stored; NULL: in pages */
    enum lsi_kv_format format;
    struct lsi_cache_value value[LSI_CACHE_KEYS];         /* as policy->keys */
    struct lsi_cache_value storage_value[LSI_CACHE_KEYS]; /* as storage->keys */
};

struct lsi_cache;

/* Looks on while a block is attended; queries have not been answered yet. */
struct lsi_cache_watch {
    void (*see)(struct lsi_cache_watch *watch, struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                const struct lsi_cache_query *q);
};

struct lsi_cache {
    const struct lsi_cache_policy *policy;
    struct lsi_cache_shape shape;
    struct lsi_cache_spec spec;
    size_t length;   /* tokens committed: the position of the next one */
    size_t n_prompt; /* tokens of the prompt that is being appended, set by who appends; 0: single steps */
    const ls_alloc *alloc;
    struct lsi_cache_watch *watch; /* during a call; NULL: nobody */
};

/* ---- state as bytes ------------------------------------------------------------------ */

/*
 * Visits the state of a cache, to write it or to read it back: one function of a policy does both, so
 * that they cannot differ. Reading, `bytes` fills what it is given.
 */
struct lsi_cache_io {
    bool reading;
    const char *name; /* of the file, for errors */
    ls_status (*bytes)(struct lsi_cache_io *io, void *data, size_t n, ls_error *err);
    /* The first n pages of a table; reading, an empty table gets them. They may lie in the mapped file. */
    ls_status (*pages)(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *err);
};

/** What was read cannot be: LS_E_FORMAT. */
ls_status lsi_cache_damaged(const struct lsi_cache_io *io, ls_error *err);
/** A flag, as a byte 0 or 1. */
ls_status lsi_cache_io_flag(struct lsi_cache_io *io, bool *flag, ls_error *err);
/**
 * The values of a policy, [LSI_CACHE_KEYS]. Reading, they must be those that were asked for, but for
 * percentages that have become numbers of tokens; `value` changes on success only.
 */
ls_status lsi_cache_io_values(struct lsi_cache_io *io, const struct lsi_cache_policy *policy,
                              const struct lsi_cache_value *asked, struct lsi_cache_value *value,
                              ls_error *err);

/* ---- the policy ----------------------------------------------------------------------- */

struct lsi_cache_policy {
    const char *name;
    const char *summary;              /* one line for the help */
    const char *example;              /* a --kv text, and after two spaces what it does; NULL: none */
    const struct lsi_cache_key *keys; /* [n_keys] */
    size_t n_keys;
    bool endless; /* the length may exceed n_ctx */
    bool packs;   /* what it keeps may be stored as kivi does: "NAME+kivi" */

    /** (optional) What the values mean together: an error names the key and the fix. */
    ls_status (*check)(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape, ls_error *err);
    /** Bytes held with n tokens (nothing is allocated); SIZE_MAX when no size_t holds them. */
    size_t (*plan)(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_tokens);
    /** (optional; NULL: plan) The most bytes held while a prompt of n_prompt tokens makes the length
     * n_tokens. */
    size_t (*plan_prompt)(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec,
                          size_t n_tokens, size_t n_prompt);
    ls_status (*create)(struct lsi_cache **cache, const struct lsi_cache_shape *shape,
                        const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err);
    void (*free)(struct lsi_cache *cache);

    /** (optional) Most rows that the next block may have, >= 1: a policy that cuts long prompts in between.
     */
    size_t (*block_rows)(const struct lsi_cache *cache);
    /** Room for n_rows (<= shape.n_rows) more rows. On failure the cache is as before. */
    ls_status (*reserve)(struct lsi_cache *cache, size_t n_rows, ls_error *err);
    /** Keys (rotated) and values of the rows that follow `length`, [n_rows][G*D]. */
    void (*append)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                   const float *v, size_t ldv, size_t n_rows);
    void (*attend)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q);
    void (*commit)(struct lsi_cache *cache, size_t n_rows);
    /** (optional; NULL: what is kept, and itself) What a query of one row, a step of decoding, reads. */
    void (*reads)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                  struct lsi_cache_reads *to);
    /**
     * (optional) Scores of rows row0 .. row0 + n_rows - 1 of a query with all tokens, as
     * lsi_op_attention_scores: slot s is token s.
     */
    void (*scores)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                   const struct lsi_cache_query *q, size_t row0, size_t n_rows, float *scores, size_t ld);
    /** (optional) The rows since the last settle were a prompt, which is complete. */
    void (*settle)(struct lsi_cache *cache, struct lsi_exec *ex);
    /** (optional) Training: the gradient of attend. */
    void (*attend_backward)(struct lsi_cache *cache, struct lsi_exec *ex, size_t layer,
                            const struct lsi_cache_gradient *g);
    /**
     * (optional) Positions for the rotary embedding of the n_rows rows that follow `length`: of the rows from
     * `row` on, how many have consecutive positions, which begin at *pos0. Without it all of them do, from
     * `length` on.
     */
    size_t (*positions)(const struct lsi_cache *cache, size_t row, size_t n_rows, int64_t *pos0);
    /** (optional) Scratch of the exec that attend and settle take beyond lsi_op_attention_scratch. */
    size_t (*scratch)(const struct lsi_exec *ex, const struct lsi_cache_shape *shape,
                      const struct lsi_cache_spec *spec);

    /**
     * Keep the first n_tokens. Afterwards the cache is what it was with them. LS_E_UNSUPPORTED when what they
     * need is gone, and nothing has changed; n_tokens = 0 always succeeds and clears everything.
     */
    ls_status (*rewind)(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
    /** Bytes held now. */
    size_t (*bytes)(const struct lsi_cache *cache);
    /** (optional; NULL: bytes) Bytes that the next step of decoding reads. */
    size_t (*bytes_read)(const struct lsi_cache *cache);
    /** (optional) Benchmarks: repeat what is held until n_tokens are. */
    ls_status (*tile)(struct lsi_cache *cache, size_t n_tokens, ls_error *err);
    /** Another cache with the same tokens, which shares pages until one of the two writes to them. */
    ls_status (*fork)(const struct lsi_cache *cache, struct lsi_cache **copy, ls_error *err);
    /** (optional) Write the state, or read it into a cache that create has just made with the same shape and
     * spec. */
    ls_status (*state)(struct lsi_cache *cache, struct lsi_cache_io *io, ls_error *err);
    /**
     * The tokens that a query of kv head g of a layer can see now, ascending: their number, and where they
     * stand in the sequence unless pos is NULL.
     */
    size_t (*kept)(const struct lsi_cache *cache, size_t layer, size_t g, int64_t *pos);
};

/**
 * "NAME", or "NAME:item,item" with items "key=value" or a precision bf16, q8, fp32; and behind it "+kivi" or
 * "+kivi:item,item" for policies that pack. NULL means "full:bf16". The error names the choices.
 */
ls_status lsi_cache_parse(struct lsi_cache_spec *spec, const char *text, ls_error *err);
/** An error for values that cannot be, of the storage or of the policy. */
ls_status lsi_cache_check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape,
                          ls_error *err);
/** The spec as a text that lsi_cache_parse reads: "full:bf16", "h2o:heavy=64,recent=64,bf16" … */
void lsi_cache_spec_name(const struct lsi_cache_spec *spec, char *out, size_t cap);
/** Index of a policy in the list that help and errors show; NULL beyond the last. */
const struct lsi_cache_policy *lsi_cache_policy_at(size_t i);

/* What every policy refuses in the same words. */

/** LS_E_LIMIT unless n_rows more fit the context. */
ls_status lsi_cache_check_room(const struct lsi_cache *cache, size_t n_rows, ls_error *err);
/** LS_E_LIMIT unless the length, which has been read from a file, fits the context. */
ls_status lsi_cache_check_stored(const struct lsi_cache *cache, ls_error *err);
/** LS_E_INVAL when there are fewer tokens than those to go back to. */
ls_status lsi_cache_check_rewind(const struct lsi_cache *cache, size_t n_tokens, ls_error *err);

/** A value as a number of tokens: percentages are of n_prompt tokens, rounded down, at least 1. */
static inline size_t lsi_cache_tokens(const struct lsi_cache_value *v, size_t n_prompt)
{
    if (v->percent < 0)
        return (size_t)v->n;
    return lsi_max_size(1, (size_t)(v->percent / 100.0 * (double)n_prompt));
}

/* Tokens that a row reads besides those it chooses: before begin, and from end on. */
struct lsi_cache_read_always {
    size_t begin, end;
};

/** Attention of all rows of a query over the slots of a view up to their own, of which slot0 is the first. */
struct lsi_attention lsi_cache_attention(const struct lsi_cache *cache, const struct lsi_cache_query *q,
                                         const struct lsi_kv_view *kv, size_t slot0);

/** What attention over chosen slots reads, of slots that are tokens. n_sets: H, or kv heads. */
void lsi_cache_read_slots(struct lsi_cache_reads *to, size_t H, const struct lsi_slots *slots,
                          const size_t *first, size_t n_sets, const struct lsi_cache_read_always *always);
/** The same when a row reads all it is allowed to see. */
void lsi_cache_read_all(struct lsi_cache_reads *to, size_t H, size_t window);

extern const struct lsi_cache_policy lsi_cache_full;      /* cache_full.c */
extern const struct lsi_cache_policy lsi_cache_streaming; /* cache_streaming.c */
extern const struct lsi_cache_policy lsi_cache_h2o;       /* cache_h2o.c */
extern const struct lsi_cache_policy lsi_cache_snapkv;    /* cache_snapkv.c */
extern const struct lsi_cache_policy lsi_cache_topk;      /* cache_topk.c */
extern const struct lsi_cache_policy lsi_cache_quest;     /* cache_quest.c */
extern const struct lsi_cache_policy lsi_cache_kivi;      /* cache_kivi.c */

#endif

/*
 * How keys and values lie when they are packed (KIVI, arXiv 2402.02750): old keys quantised for each
 * dimension, old values for each token, in few bits (kernels/kivi.h); the last tokens exact. Policies that
 * keep their tokens so embed a struct lsi_packed and say which slots there are; this says how they are
 * stored.
 *
 * Keys and values have tails of their own. With n slots in use, R = residual, of a layer that nothing was
 * dropped from:
 *
 *     keys      | quantised: R floor(n / R)                  | exact: 0 .. R - 1 |
 *     values    | quantised: n - R           | exact: R                          |
 *
 * so keys are always ahead. Two tables of pages hold this. Packed pages have slots first .. nv - 1 for
 * attention, and the keys of slots nv .. nk - 1 in addition. The tail, exact pages, has all slots from nv on;
 * the keys of its slots below nk are what their codes stand for, rounded to the tail's precision. A query
 * goes over both, and the results are merged.
 *
 *     slot      first            nv          nk        n
 *     packed    | K V            | K         |
 *     tail                       | K^ V      | K V     |        slot of the tail = slot - base
 *
 * The tail stays in as many pages as R takes: when they are full, what is needed moves to their start. The
 * first `sinks` slots stay there for good, in slots 0 .. sinks - 1.
 *
 * A prompt attends to its own keys and values exactly, so all that its rows see are in the tail until the
 * prompt is settled; what came before it, it sees as it is stored. Quantising follows the attention of a step
 * of decoding: it is done when the next rows are appended.
 *
 * With a window, slots before the last `window` ones are never seen again: pages of codes that hold only such
 * ones become the newest, and the tail of a long prompt forgets them.
 */
#ifndef LSI_PACKED_H
#define LSI_PACKED_H

#include "cache/cache.h"

/* What a spec says of the storage. */
struct lsi_packing {
    enum lsi_kv_format packed, exact;
    size_t group, R, sinks;
    size_t window; /* slots before the next that rows to come see, sinks excepted; 0: all */
    bool at_once;  /* all rows of a prompt see what its first one saw */
};

struct lsi_packed_layer {
    size_t n;      /* slots in use */
    size_t nk, nv; /* slots whose keys, values are quantised */
    size_t base;   /* slot of the tail's slot 0, but for sinks */
    size_t first;  /* slot of the first packed page */
};

struct lsi_packed {
    struct lsi_packing how;
    struct lsi_cache_shape shape;
    const ls_alloc *alloc;
    struct lsi_page_pool *codes_pool, *tail_pool;
    struct lsi_kv_pages *codes, *tail; /* [L] each */
    struct lsi_packed_layer *layers;   /* [L] */
    size_t limit;   /* most slots that a settled prompt leaves in a layer that does not slide; 0: all */
    size_t start;   /* the window ends here while a prompt is read at once; SIZE_MAX: none is */
    float *part[2]; /* [rows][H*D] results over a part of the slots */
    float *lse[2];  /* [rows][H] */
    float *out_lse; /* [rows][H] */
    size_t rows;    /* that the five above have room for */
};

/* What rows are, which decides what may be quantised before them. */
enum lsi_packed_rows {
    LSI_PACKED_STEP,   /* a step of decoding */
    LSI_PACKED_PROMPT, /* the first rows of a prompt */
    LSI_PACKED_MORE,   /* more rows of a prompt */
};

/** Of n_rows more; more: of a prompt that has begun, n_prompt: struct lsi_cache. */
static inline enum lsi_packed_rows lsi_packed_kind(bool more, size_t n_prompt, size_t n_rows)
{
    return more ? LSI_PACKED_MORE : n_rows == 1 && n_prompt <= 1 ? LSI_PACKED_STEP : LSI_PACKED_PROMPT;
}

/** The keys of kivi: cache_kivi.c. */
extern const struct lsi_cache_key lsi_packed_keys[];
#define LSI_PACKED_KEYS 5
/* Most first tokens that stay exact: a group and the least residual have as many. */
#define LSI_PACKED_SINKS 32

/** What the spec says, of a policy over packed storage or of kivi itself; of others that nothing is packed.
 */
struct lsi_packing lsi_packing_of(const struct lsi_cache_spec *spec);
/** Values of a storage that cannot be: an error names the key and the fix. */
ls_status lsi_packing_check(const struct lsi_cache_spec *spec, ls_error *err);

/** Bytes with n slots in each layer, settled; with n_prompt > 0 the most while a prompt of so many makes them
 * n. */
size_t lsi_packed_plan(const struct lsi_cache_shape *shape, const struct lsi_packing *how, size_t n,
                       size_t n_prompt);
/** An empty store. On failure it holds nothing. */
ls_status lsi_packed_create(struct lsi_packed *s, const struct lsi_cache_shape *shape,
                            const struct lsi_packing *how, const ls_alloc *alloc, ls_error *err);
/** A copy that shares pages. On failure *to holds nothing. */
ls_status lsi_packed_fork(struct lsi_packed *to, const struct lsi_packed *from, ls_error *err);
void lsi_packed_free(struct lsi_packed *s);
size_t lsi_packed_bytes(const struct lsi_packed *s);
/** Of one layer's pages of codes, and of its exact pages, per slot. */
size_t lsi_packed_slot_bytes(const struct lsi_packed *s, bool exact);
size_t lsi_packed_scratch(const struct lsi_exec *ex, const struct lsi_cache_shape *shape);

/** Room for n_rows more in each layer; false: no memory, and slots in use are as before. */
bool lsi_packed_reserve(struct lsi_packed *s, enum lsi_packed_rows kind, size_t n_rows);
void lsi_packed_append(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, enum lsi_packed_rows kind,
                       const float *k, size_t ldk, const float *v, size_t ldv, size_t n_rows);
/** The rows of the last append are slots in use. */
void lsi_packed_commit(struct lsi_packed *s, size_t n_rows);
/** A prompt is complete: what it leaves to be quantised is, and memory that was for the rest goes back. */
void lsi_packed_settle(struct lsi_packed *s, struct lsi_exec *ex);

/* What policies do that drop slots; they count those that stay, and tell layers[].n. */

/** Slots of kv head g in the tail move: to[i] <= from[i], both ascending, from nk on. */
void lsi_packed_move(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t g, uint32_t *to,
                     uint32_t *from, size_t n);
/** Groups of slots whose values are quantised may be rewritten and taken out; false: no memory, and they may
 * not. */
bool lsi_packed_open(struct lsi_packed *s, struct lsi_exec *ex, size_t layer);
/** n groups less in front of slot `end`, a whole group: what follows moves to there, in every kv head. */
void lsi_packed_close(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, size_t end, size_t n);

/* What rows of a query see. */
struct lsi_packed_sight {
    size_t row;    /* of the query, and */
    size_t n_rows; /* so many: row i is slot n + i */
    size_t from;   /* first slot */
    size_t window; /* 0: none */
    bool sinks;    /* the first how.sinks slots as well, whatever `from` is */
    const struct lsi_attention_slots
        *chosen;          /* (optional) of one row: these ranges of packed slots, and the tail */
    const uint16_t *seen; /* (optional) of packed slots, as of struct lsi_attention */
    size_t ld_seen;
};
/** Attention of rows of the last append; lse [n_rows][H] or NULL. */
void lsi_packed_attend(struct lsi_packed *s, struct lsi_exec *ex, size_t layer,
                       const struct lsi_cache_query *q, const struct lsi_packed_sight *sight, float *lse);
/** lsi_op_attention_sums of all rows of the last append and all slots; q as it was when they were attended.
 */
void lsi_packed_sums(struct lsi_packed *s, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                     const float *lse, float *sums, size_t ld);
struct lsi_kv_view lsi_packed_codes(const struct lsi_packed *s, size_t layer);
struct lsi_kv_view lsi_packed_tail(const struct lsi_packed *s, size_t layer);

/** The least number of slots of a layer to go back to, but for 0: with exact keys and values behind it. */
size_t lsi_packed_least_of(const struct lsi_packed *s, size_t layer);
/** The same of all layers together. */
size_t lsi_packed_least(const struct lsi_packed *s);
/** A layer has n slots, lsi_packed_least_of or more, or none. */
void lsi_packed_cut_layer(struct lsi_packed *s, size_t layer, size_t n);
/** Every layer has. */
void lsi_packed_cut(struct lsi_packed *s, size_t n);
/** Benchmarks: packed pages, the full ones if there are any, are repeated until n slots are in use in every
 * layer, or in one; n more than there are. Without any there are zeros. */
ls_status lsi_packed_tile(struct lsi_packed *s, size_t n, ls_error *err);
ls_status lsi_packed_tile_layer(struct lsi_packed *s, size_t layer, size_t n, ls_error *err);
/** State of a storage with at most so many slots in a layer. */
ls_status lsi_packed_state(struct lsi_packed *s, size_t most, struct lsi_cache_io *io, ls_error *err);

#endif

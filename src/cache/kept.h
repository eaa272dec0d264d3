/*
 * What policies share that keep a part of the tokens: of each layer as many slots for every kv head, each
 * head with tokens of its own choice.
 *
 *     layer      slot      0    1    2    3   ...  n - 1 | next
 *     kv head 0  token     0    3    4    9         t    |
 *     kv head 1  token     1    2    4    7         t    |
 *
 * Keys and values lie in pages (kv_pages.h), beside them for each slot the place of its token in the sequence
 * and numbers of the policy (columns). New rows go to the slots that follow; dropping tokens moves those of
 * others to their places. A policy embeds struct lsi_kept as its first member.
 *
 * Layers with a sliding window are attended plainly. At the end of a prompt they forget whole pages
 * before the window, which no later row sees.
 *
 * Over packed storage (packed.h) a slot that is packed cannot be left alone: dropping its token makes a hole,
 * a slot that nobody sees. Tokens in the exact tail are taken out of it, as many in each kv head: those that
 * a head has more of stay as holes and are packed. The tail that rows of a step see has no holes, because its
 * tokens are among the latest, which are never dropped. When blocks of slots have more holes than tokens,
 * what is left of them is quantised anew, together (lsi_kept_compact).
 */
#ifndef LSI_KEPT_H
#define LSI_KEPT_H

#include "cache/packed.h"

#define LSI_KEPT_HOLE UINT32_MAX /* instead of the place of a slot's token */

struct lsi_kept_layer {
    struct lsi_kv_pages pages; /* none when storage is packed */
    size_t n;                  /* slots in use, */
    size_t holes;              /* and of those in each kv head the ones whose tokens have been dropped */
    size_t turn_n;             /* when `turn` was set */
    size_t cap;                /* slots of the arrays below */
    uint32_t *pos;             /* [G][cap] */
    float *col;                /* [n_cols][G][cap] */
};

struct lsi_kept {
    struct lsi_cache base;
    struct lsi_page_pool *pool;                   /* NULL: storage is packed */
    struct lsi_packed packed;                     /* instead of it */
    struct lsi_kept_layer *layers;                /* [L] */
    struct lsi_cache_value asked[LSI_CACHE_KEYS]; /* base.spec.value has the percentages resolved */
    size_t bytes;                                 /* of this struct and what embeds it */
    size_t n_cols;
    bool resolved; /* budgets are numbers of tokens */
    bool prompt;   /* tokens from `begin` on belong to a prompt that has not ended */
    bool reading;  /* so do the rows that are being appended */
    bool piece;    /* packed: what has been read of the prompt is settled, although it has not ended */
    size_t begin;
    size_t turn;  /* tokens when something was last dropped at the end of a prompt */
    size_t block; /* rows of the last block while it can be taken back, else 0 */
};

/** Tokens so far of the prompt that has not ended. */
static inline size_t lsi_kept_prompt_rows(const struct lsi_kept *c)
{
    return c->prompt ? c->base.length - c->begin : 0;
}

/** The value of key i of the policy; it must be a number (resolved). */
static inline size_t lsi_kept_value(const struct lsi_kept *c, size_t i)
{
    return (size_t)c->base.spec.value[i].n;
}

static inline uint32_t *lsi_kept_pos(const struct lsi_kept_layer *l, size_t g)
{
    return l->pos + g * l->cap;
}

/** Column i of a kv head: [cap]. Heads of a column follow each other. */
static inline float *lsi_kept_col(const struct lsi_kept *c, const struct lsi_kept_layer *l, size_t i,
                                  size_t g)
{
    return l->col + (i * c->base.shape.G + g) * l->cap;
}

/** The numbers beside the slots of a kv head: slot `to` gets those of `from`. */
static inline void lsi_kept_move_numbers(const struct lsi_kept *c, const struct lsi_kept_layer *l, size_t g,
                                         size_t to, size_t from)
{
    lsi_kept_pos(l, g)[to] = lsi_kept_pos(l, g)[from];
    for (size_t i = 0; i < c->n_cols; i++)
        lsi_kept_col(c, l, i, g)[to] = lsi_kept_col(c, l, i, g)[from];
}

static inline bool lsi_kept_packs(const struct lsi_kept *c)
{
    return c->base.spec.storage != NULL;
}

/** Tokens that each kv head of a layer holds. */
static inline size_t lsi_kept_held(const struct lsi_kept_layer *l)
{
    return l->n - l->holes;
}

static inline bool lsi_kept_slides(const struct lsi_kept *c, size_t layer)
{
    return lsi_cache_window(&c->base.shape, layer) > 0;
}

/* ---- life ------------------------------------------------------------------------------- */

/** Bytes with n tokens, none of them dropped: the most there are, at the end of a prompt. */
size_t lsi_kept_plan(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec, size_t n_cols,
                     size_t n_tokens);
/** An empty cache in a zeroed struct of `bytes` that begins with struct lsi_kept. */
ls_status lsi_kept_create(struct lsi_kept **c, size_t bytes, size_t n_cols,
                          const struct lsi_cache_policy *policy, const struct lsi_cache_shape *shape,
                          const struct lsi_cache_spec *spec, const ls_alloc *alloc, ls_error *err);
void lsi_kept_free(struct lsi_kept *c);
/** A copy of all of the struct, what it points to not shared but for pages; NULL when there is no memory. */
struct lsi_kept *lsi_kept_fork(const struct lsi_kept *from);
size_t lsi_kept_bytes(const struct lsi_kept *c);
size_t lsi_kept_bytes_read(const struct lsi_kept *c);
ls_status lsi_kept_state(struct lsi_kept *c, struct lsi_cache_io *io, ls_error *err);
/** Nothing has been dropped since `turn`: what has been read can go back to there. */
bool lsi_kept_whole_since_turn(const struct lsi_kept *c);

/* ---- rows --------------------------------------------------------------------------------- */

/** Room for n_rows more. own_all: slots that are in use may be written to as well. */
ls_status lsi_kept_reserve(struct lsi_kept *c, size_t n_rows, bool own_all, ls_error *err);
void lsi_kept_append(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const float *k, size_t ldk,
                     const float *v, size_t ldv, size_t n_rows);
/** The attention of the rows of the last append over all slots; lse [T][H] or NULL. */
void lsi_kept_attend(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                     float *lse);
/** Column sums of its probabilities (lsi_op_attention_sums), q as it was; of holes they mean nothing. */
void lsi_kept_sums(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, const struct lsi_cache_query *q,
                   const float *lse, float *sums, size_t ld);
/** The attention of rows over all slots, of pages. */
struct lsi_attention lsi_kept_attention(const struct lsi_kept *c, size_t layer,
                                        const struct lsi_cache_query *q);
/** The slots of a layer that are exact: its pages, or the tail of packed storage. */
struct lsi_kv_view lsi_kept_view(const struct lsi_kept *c, size_t layer);
/** Bytes of exec's scratch that lsi_kept_attend holds. */
size_t lsi_kept_hold_bytes(const struct lsi_cache_shape *shape, const struct lsi_cache_spec *spec);
void lsi_kept_commit(struct lsi_kept *c, size_t n_rows);
/** Whether the last n_rows may go; without packed storage they always may. */
bool lsi_kept_can_cut(const struct lsi_kept *c, size_t n_rows);
/** Whether every layer can become what it was at `turn`, when nothing has been dropped since. */
bool lsi_kept_can_cut_to_turn(const struct lsi_kept *c);
/** The last n_rows of every layer are gone. */
void lsi_kept_cut(struct lsi_kept *c, size_t n_rows);
/** Every layer is what it was at `turn`: nothing has been dropped since. */
void lsi_kept_cut_to_turn(struct lsi_kept *c);
/** Nothing is held, percentages are open again. */
void lsi_kept_clear(struct lsi_kept *c);
/** Percentages, as they were asked for, become tokens: of a prompt of so many. */
void lsi_kept_resolve(struct lsi_kept *c, size_t n_prompt);
/** Packed storage: what a prompt, or a piece of it that is done, leaves is packed. */
void lsi_kept_settle(struct lsi_kept *c, struct lsi_exec *ex);
/** A prompt has ended, and what is to be dropped has been: memory that was for the rest goes back. Sets
 * `turn`. */
void lsi_kept_end_turn(struct lsi_kept *c);

/* ---- choosing ------------------------------------------------------------------------------- */

/** A number that orders tokens: larger scores first, of equal ones the later token. */
static inline uint64_t lsi_kept_key(float score, uint32_t pos)
{
    const union {
        float f;
        uint32_t u;
    } bits = { score };
    const uint32_t order = bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
    return (uint64_t)order << 32 | pos;
}

/** The k-th largest of n different keys, 1 <= k <= n; reorders them. */
uint64_t lsi_kept_threshold(uint64_t *keys, size_t n, size_t k);

/** Pages that are to be written are the cache's alone; false: no memory, and nothing may be dropped. */
bool lsi_kept_own(struct lsi_kept *c, size_t layer);
/** Of a kv head keep slots slot[0] < slot[1] … of n; lsi_kept_dropped follows when all heads are done. */
void lsi_kept_retain(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, const uint32_t *slot,
                     size_t n);
/** Of a kv head drop one slot: the last one takes its place, or it is a hole; lsi_kept_dropped follows. */
void lsi_kept_drop(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t g, size_t slot);
/** Every kv head of a layer has dropped n tokens. */
void lsi_kept_dropped(struct lsi_kept *c, struct lsi_exec *ex, size_t layer, size_t n);
/** Packed blocks that have more holes than tokens become fewer, if that saves one in each kv head. */
void lsi_kept_compact(struct lsi_kept *c, struct lsi_exec *ex, size_t layer);
/** A sliding layer forgets the pages that no later row sees. */
void lsi_kept_slide(struct lsi_kept *c, size_t layer);

/* ---- the rest of the seam -------------------------------------------------------------------- */

/** The tokens of all slots of a kv head but `without` (SIZE_MAX: of all), ascending. */
size_t lsi_kept_tokens(const struct lsi_kept *c, size_t layer, size_t g, size_t without, int64_t *pos);
/**
 * Benchmarks, for one layer: n_tokens have been read and `keep` of them are held (a sliding layer: what it
 * sees), the last `recent` and others evenly from before. Pages are repeated.
 */
ls_status lsi_kept_tile(struct lsi_kept *c, size_t layer, size_t n_tokens, size_t keep, size_t recent,
                        ls_error *err);

/** Memory at the end of the exec's scratch, that ops leave alone until lsi_kept_release. */
void *lsi_kept_hold(struct lsi_exec *ex, size_t bytes);
void lsi_kept_release(struct lsi_exec *ex, size_t bytes);

#endif

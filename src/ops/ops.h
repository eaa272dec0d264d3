/*
 * Operations the block is made of. The one place where model code meets a device:
 * everything above passes addresses that belong to an exec's backend and never
 * looks at what is behind them; everything below knows where the bytes are and
 * which instruction set runs.
 *
 * Rules for all of them:
 *  - Activations are fp32 rows, [n_rows][n_cols], row stride `ld` in elements.
 *  - Sums are accumulated in fp32 (or wider) whatever the operands are.
 *  - Results do not depend on the number of threads, bit for bit, nor on what
 *    else is in the batch of rows, except where a function says so.
 *  - No allocation: scratch comes from exec->scratch, whose size the
 *    matching _scratch function gives beforehand.
 *  - Ops cannot fail. Shapes are the caller's duty (checked by assertions).
 */
#ifndef LSI_OPS_H
#define LSI_OPS_H

#include "base/base.h"
#include "base/dtype.h"

/* How products of activations with weights are computed. */
enum lsi_compute {
    LSI_COMPUTE_AUTO, /* few rows: 8-bit activations, one scale per 32; many rows: bf16 */
    LSI_COMPUTE_BF16, /* operands rounded to bf16, fp32 sums */
    LSI_COMPUTE_FP32, /* everything fp32 */
};

/* How a cache stores keys and values. Tile layouts: kernels/kv_layout.h. */
enum lsi_kv_format {
    LSI_KV_BF16,
    LSI_KV_F32,
    LSI_KV_Q8, /* 8 bits, a bf16 scale for each run of 32 dimensions */
    /* Packed in few bits, whole groups of slots at a time (kernels/kivi.h). How is part of the format:
     * lsi_kv_kivi. Written by lsi_op_kv_pack alone. */
    LSI_KV_KIVI,
};

/** LSI_KV_KIVI with so many bits for keys and values (2, 4, 8), in groups of so many (32, 64, 128). */
static inline enum lsi_kv_format lsi_kv_kivi(unsigned bits_k, unsigned bits_v, unsigned group)
{
    return (enum lsi_kv_format)(LSI_KV_KIVI | bits_k << 4 | bits_v << 8 | group << 12);
}

/** The format without how it packs. */
static inline enum lsi_kv_format lsi_kv_kind(enum lsi_kv_format format)
{
    return (enum lsi_kv_format)((unsigned)format & 15);
}

#define LSI_KV_PAGE 256 /* tokens per page of a cache */

struct lsi_backend; /* backend/backend.h */

/* One session's way to run ops. Used by one caller thread at a time. */
struct lsi_exec {
    const struct lsi_backend *backend;
    int n_threads;
    struct lsi_pool *pool; /* NULL with one thread */
    enum lsi_compute compute;
    bool few_as_many; /* few rows go the ways of many: a row is rounded alike however many there are */
    struct lsi_arena scratch; /* reset by each op */
    void *state;              /* the backend's own (primitive cache, streams) */
};

/* A matrix [n_out][n_in] stored by rows: y = W x. */
struct lsi_weight {
    enum lsi_dtype dtype;
    size_t n_out, n_in;
    size_t row_bytes;
    const void *data; /* NULL: absent */
};

/* One product of a group that shares its input: y[r][o] (+)= sum_i x[r][i] W[o][i] + bias[o]. */
struct lsi_linear {
    const struct lsi_weight *w;
    const float *bias; /* [n_out] or NULL */
    float *y;          /* [n_rows][ldy] */
    size_t ldy;
    bool accumulate; /* add to y (residual stream) */
};

/* ---- rows ------------------------------------------------------------------ */

/** y[t][C] = scale * table[ids[t]]. */
void lsi_op_embed(struct lsi_exec *ex, float *y, const struct lsi_weight *table, const int32_t *ids,
                  size_t n_rows, float scale);

/** y = x * gain / rms(x). Row stride of x and y: ld. y may equal x. In fp32. */
void lsi_op_rmsnorm(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                    size_t n_cols, size_t ld, float eps);

/** y += rmsnorm(x) * gain (Gemma's post-norms, fused with the residual). */
void lsi_op_rmsnorm_add(struct lsi_exec *ex, float *y, const float *x, const float *gain, size_t n_rows,
                        size_t n_cols, float eps);

/**
 * Rotary position embedding, in place, of n_rows x n_heads vectors of D.
 *
 *   out[i]       = a cos - b sin          (a, b) = (x[i], x[i + D/2])       half pairing
 *   out[i + D/2] = b cos + a sin                 = (x[2i], x[2i + 1])       interleaved input
 *
 * The output is in half layout for both, so that attention sees one layout.
 * angle = (pos0 + row) * inv_freq[i], formed in double; cos and sin times mscale.
 */
struct lsi_rope {
    const double *inv_freq; /* [D/2], host memory */
    double mscale;          /* 1 but for yarn */
    bool interleaved;       /* pairing of the input */
};

void lsi_op_rope(struct lsi_exec *ex, float *x, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                 const struct lsi_rope *rope, int64_t pos0);

enum lsi_act {
    LSI_ACT_SILU,
    LSI_ACT_GELU_TANH,
};

/** gate = act(gate) * up, element by element; both [n_rows][ld], n_cols used. */
void lsi_op_glu(struct lsi_exec *ex, float *gate, const float *up, size_t n_rows, size_t n_cols, size_t ld,
                enum lsi_act act);

/* ---- products --------------------------------------------------------------- */

/**
 * Run a group of products that read the same x [n_rows][ldx]. All weights of a
 * group have the same n_in. One parallel region for the group.
 */
void lsi_op_linear(struct lsi_exec *ex, const struct lsi_linear *out, size_t n_out, const float *x,
                   size_t n_rows, size_t ldx);

/** Scratch for any lsi_op_linear with up to n_rows rows and n_in columns of input, n_out per weight. */
size_t lsi_op_linear_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out);

/* ---- attention --------------------------------------------------------------- */

/*
 * Stored keys and values of one layer: pages of LSI_KV_PAGE consecutive slots,
 * each holding all G heads. Slot s is in page s / LSI_KV_PAGE. Keys are stored
 * after the rotary embedding. Pages are zeroed before their first use, so that
 * unused slots hold finite numbers.
 */
struct lsi_kv_view {
    enum lsi_kv_format format;
    size_t G, D;
    void *const *pages; /* [n_pages] */
};

/** Bytes of one page of one layer: G heads, keys and values. A multiple of 64. */
size_t lsi_kv_page_bytes(enum lsi_kv_format format, size_t G, size_t D);

/** Store rows k, v [n_rows][G*D] (strides ldk, ldv) in slots slot0 .. slot0 + n_rows - 1. */
void lsi_op_kv_store(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, const float *k,
                     size_t ldk, const float *v, size_t ldv, size_t n_rows);

/**
 * Causal attention of a block of query rows over stored slots.
 *
 * Row t sits at slot slot0 + t and sees slot s iff s0 <= s <= slot0 + t and, when
 * window > 0, s > slot0 + t - window, and when end > 0, s < end. Query head h reads kv head h / (H/G).
 * Softmax and sums in fp32. With compute fp32 products are fp32 as well; else
 * operands may be rounded to bf16.
 *
 * q, out  [T][H][D], row strides ldq, ldo. out may equal q.
 * lse     [T][H] natural log of the sum of weights (the partial state of the row,
 *         mergeable with other parts), or NULL. A row that sees nothing: out 0, lse -inf.
 */
struct lsi_attention {
    const float *q;
    float *out;
    float *lse;
    size_t ldq, ldo;
    size_t T, H;
    size_t slot0;  /* slot of row 0 */
    size_t s0;     /* first slot to look at */
    size_t end;    /* first slot not to look at any more; 0: none */
    size_t window; /* 0: none */
    float scale;
    /* (optional) Of packed pages: [G][ld_seen], and of those slots the ones with a bit: slot 16 i + j in bit
     * j of word i. Whole words of pages count. */
    const uint16_t *seen;
    size_t ld_seen;
    struct lsi_kv_view kv;
};

void lsi_op_attention(struct lsi_exec *ex, const struct lsi_attention *a);
size_t lsi_op_attention_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D);

/* ---- logits -------------------------------------------------------------------- */

/** nll[t] = logsumexp(logits[t]) - logits[t][target[t]], in double inside; target < 0 gives NaN. */
void lsi_op_nll(struct lsi_exec *ex, float *nll, const float *logits, const int32_t *target, size_t n_rows,
                size_t V, size_t ld);

/* ---- memory -------------------------------------------------------------------- */

/** Backend memory for activations, zeroed; NULL when there is none. */
void *lsi_exec_alloc(struct lsi_exec *ex, size_t bytes);
void lsi_exec_free(struct lsi_exec *ex, void *ptr, size_t bytes);
/** Copy results to host memory. */
void lsi_exec_read(struct lsi_exec *ex, void *host, const void *ptr, size_t bytes);

/** An exec for the _scratch functions alone: it starts no threads and holds nothing. */
void lsi_exec_plan_cpu(struct lsi_exec *ex, int n_threads, enum lsi_compute compute);
/**
 * Make an exec on the CPU backend. n_threads 0: one for each processor. Scratch is not set: compute the
 * maximum of the _scratch functions, then lsi_exec_set_scratch.
 */
ls_status lsi_exec_init_cpu(struct lsi_exec *ex, int n_threads, enum lsi_compute compute,
                            const ls_alloc *alloc, ls_error *err);
ls_status lsi_exec_set_scratch(struct lsi_exec *ex, size_t bytes, ls_error *err);
void lsi_exec_fini(struct lsi_exec *ex);

#endif

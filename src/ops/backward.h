/*
 * Operations of training: gradients of those in ops.h, the loss, the optimizer. The rules of
 * ops.h hold: fp32 rows, fp32 sums, the same bits for any number of threads, no
 * allocation, no failure.
 *
 * The gradient of the loss with respect to a tensor x is called dx. Gradients of
 * parameters are fp32 and always added to, since a sequence is worked off in blocks of rows;
 * gradients of activations say whether they are added to.
 */
#ifndef LSI_BACKWARD_H
#define LSI_BACKWARD_H

#include "ops/ops.h"

/* ---- rows ------------------------------------------------------------------ */

/**
 * Gradient of y = x * gain / rms(x), row by row (rows of n_cols, stride ld for all three):
 *
 *   r = 1 / sqrt(mean(x^2) + eps);  c = sum_k dy_k gain_k x_k
 *   dx_j (+)= r gain_j dy_j - (r^3 / n_cols) x_j c;   dgain_j += sum_rows dy_j x_j r
 *
 * dx may equal dy (then without accumulate). dgain NULL: not wanted.
 */
void lsi_op_rmsnorm_backward(struct lsi_exec *ex, float *dx, float *dgain, const float *dy, const float *x,
                             const float *gain, size_t n_rows, size_t n_cols, size_t ld, float eps,
                             bool accumulate);
size_t lsi_op_rmsnorm_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_cols);

/** Gradient of lsi_op_rope, in place: rotates by the negative angle (times mscale). From half layout back to
 * the pairing of the input. */
void lsi_op_rope_backward(struct lsi_exec *ex, float *dx, size_t n_rows, size_t n_heads, size_t D, size_t ld,
                          const struct lsi_rope *rope, int64_t pos0);

/** Zero bytes of backend memory. */
void lsi_op_zero(struct lsi_exec *ex, void *x, size_t bytes);

/** x *= scale, n elements. */
void lsi_op_scale(struct lsi_exec *ex, float *x, size_t n, float scale);

/** y = act(gate) * up; y may equal gate. All [n_rows][ld]. */
void lsi_op_glu_to(struct lsi_exec *ex, float *y, const float *gate, const float *up, size_t n_rows,
                   size_t n_cols, size_t ld, enum lsi_act act);

/**
 * Gradient of a = act(gate) * up, in place:  gate <- da * up * act'(gate);  up <- da * act(gate).
 * All [n_rows][ld].
 */
void lsi_op_glu_backward(struct lsi_exec *ex, float *gate, float *up, const float *da, size_t n_rows,
                         size_t n_cols, size_t ld, enum lsi_act act);

/** dtable[ids[t]][C] += scale * dy[t][C], rows in ascending order of t. dtable fp32 [V][C]. */
void lsi_op_embed_backward(struct lsi_exec *ex, float *dtable, const float *dy, const int32_t *ids,
                           size_t n_rows, size_t n_cols, float scale);

/** y[t][n_cols] = values of stored rows of type F32 or BF16, dense, and back (to nearest even). */
void lsi_op_rows_load(struct lsi_exec *ex, float *y, const void *rows, enum lsi_dtype dtype, size_t n_rows,
                      size_t n_cols);
void lsi_op_rows_store(struct lsi_exec *ex, void *rows, enum lsi_dtype dtype, const float *x, size_t n_rows,
                       size_t n_cols);

/* ---- products --------------------------------------------------------------- */

/* Gradients of one product y = W x + bias of a group that shares its input. */
struct lsi_linear_grad {
    const struct lsi_weight *w; /* F32 or BF16 */
    const float *dy;            /* [n_rows][lddy] */
    size_t lddy;
    float *dw;    /* [n_out][n_in] fp32, or NULL: not wanted */
    float *dbias; /* [n_out], or NULL */
};

/**
 *   dx[r][i]    (+)= scale * sum_group sum_o dy[r][o] W[o][i]       dx NULL: not wanted
 *   dw[o][i]     += scale * sum_r dy[r][o] x[r][i]
 *   dbias[o]     += scale * sum_r dy[r][o]
 *
 * All weights of a group have the same n_in. Operands of products are rounded to bf16 unless compute is
 * fp32; sums are fp32. dx overlaps neither x nor any dy.
 */
void lsi_op_linear_backward(struct lsi_exec *ex, const struct lsi_linear_grad *grads, size_t n_grads,
                            float *dx, size_t lddx, bool accumulate, const float *x, size_t ldx,
                            size_t n_rows, float scale);
/** Scratch for a group with n_in columns of input and n_out outputs in all. */
size_t lsi_op_linear_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out);

/* ---- attention --------------------------------------------------------------- */

/**
 * Gradient of lsi_op_attention (FlashAttention-2, arXiv 2307.08691, section 3.2; queries outermost, so that a
 * block of rows needs the keys before it and no query after it). Rows, slots, window and scale
 * mean what they mean there.
 *
 *   P = exp(scale q k^T - lse);  E = sum_d dout out;  dP = dout v^T;  dZ = P (dP - E)
 *   dq = scale dZ k;   dk += scale dZ^T q;   dv += P^T dout
 *
 * dk, dv  [slots][G][D] fp32: slot s lies in row s - slot_base. Added to for every slot that is seen.
 */
struct lsi_attention_backward {
    const float *q;    /* [T][H][D] as the forward took it (rotated), row stride ldq */
    const float *out;  /* [T][H][D] what it gave, row stride ldo */
    const float *dout; /* [T][H][D] row stride lddo */
    const float *lse;  /* [T][H] what it gave */
    float *dq;         /* [T][H][D] row stride lddq; may equal dout or out, not q */
    float *dk, *dv;    /* [slots][G*D] */
    size_t ldq, ldo, lddo, lddq;
    size_t T, H;
    size_t slot0;     /* slot of row 0 */
    size_t s0;        /* first slot to look at */
    size_t slot_base; /* slot of row 0 of dk and dv */
    size_t window;    /* 0: none */
    float scale;
    struct lsi_kv_view kv; /* format BF16 or F32 */
};

void lsi_op_attention_backward(struct lsi_exec *ex, const struct lsi_attention_backward *a);
/** S: most slots that rows of the call see. */
size_t lsi_op_attention_backward_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D,
                                         size_t S);

/* ---- loss ---------------------------------------------------------------------- */

/**
 * Cross-entropy and its gradient with respect to the logits, in place: row t becomes
 * softmax(logits[t]) - onehot(target[t]), unscaled; returns sum_t (logsumexp(logits[t]) -
 * logits[t][target[t]]) in double, rows in ascending order. Targets lie in [0, V).
 */
double lsi_op_cross_entropy(struct lsi_exec *ex, float *logits, const int32_t *target, size_t n_rows,
                            size_t V, size_t ld);
size_t lsi_op_cross_entropy_scratch(const struct lsi_exec *ex, size_t n_rows);

/* ---- optimizer ------------------------------------------------------------------- */

/** sum of x^2 in double. NaN or infinite when an element is. */
double lsi_op_sum_squares(struct lsi_exec *ex, const float *x, size_t n);

/* How the moments of AdamW are stored. */
enum lsi_moments {
    LSI_MOMENTS_F32,
    LSI_MOMENTS_BF16, /* rounded stochastically */
    LSI_MOMENTS_Q8,   /* blocks of 256: 8-bit dynamic map (signed for m, unsigned for v) times the block's
                         greatest magnitude (Dettmers et al., arXiv 2110.02861) */
};

/** Bytes of the first (or second) moment of n elements. A multiple of 64. */
size_t lsi_moments_bytes(enum lsi_moments format, size_t n);

/* One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101), decoupled decay:
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2        g = grad_scale * stored gradient
 *   w -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w) */
struct lsi_adamw {
    double lr, beta1, beta2, eps, decay;
    float grad_scale;
    uint64_t step; /* t, from 1 */
    uint64_t seed; /* of stochastic rounding: keyed by seed, step, stream and element */
};

/* A tensor to be stepped. Where the weight is bf16: with a master copy the master is stepped in fp32 and the
 * weight is its nearest; without, the weight is stepped and rounded stochastically. */
struct lsi_adamw_tensor {
    void *w; /* [n] */
    enum lsi_dtype dtype;
    float *master; /* [n] or NULL */
    const float *g;
    void *m, *v;
    enum lsi_moments moments;
    size_t n;
    uint64_t stream; /* number of the tensor, for stochastic rounding */
};

void lsi_op_adamw(struct lsi_exec *ex, const struct lsi_adamw *p, const struct lsi_adamw_tensor *t);

#endif

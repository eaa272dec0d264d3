/* Row operations: contracts. Each works on one row of n elements. */
#ifndef LSK_ROWS_H
#define LSK_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** y[i] = x[i] * gain[i] / sqrt(mean(x^2) + eps). y may equal x. Accuracy: 4e-6 relative to ref. */
typedef void lsk_rmsnorm_fn(float *y, const float *x, const float *gain, size_t n, float eps);

/** y[i] += x[i] * gain[i] / sqrt(mean(x^2) + eps). y and x do not overlap. */
typedef void lsk_rmsnorm_add_fn(float *y, const float *x, const float *gain, size_t n, float eps);

/**
 * y[i] = act(gate[i]) * up[i]; y may equal gate. glu_silu: x / (1 + exp(-x)); glu_gelu: the tanh form
 * x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Accuracy: 1e-5 relative, and 1e-30.
 */
typedef void lsk_glu_fn(float *y, const float *gate, const float *up, size_t n);

/** cosine[i], sine[i] of angle pos * inv_freq[i] (formed in double), times mscale. |angle| up to 2^31. */
typedef void lsk_rope_angles_fn(float *cosine, float *sine, const double *inv_freq, size_t n, double pos,
                                double mscale);

/**
 * Rotate the vector x of 2 * n elements in place by n angles. Pairs are (x[i], x[i + n]), or with
 * interleaved (x[2i], x[2i + 1]); results always go to (x[i], x[i + n]). n <= LSK_ROPE_MAX.
 */
#define LSK_ROPE_MAX 1024
typedef void lsk_rope_fn(float *x, const float *cosine, const float *sine, size_t n, bool interleaved);

/** log(sum_i exp(x[i])), sums in double; n > 0. -inf entries count nothing; NaN or +inf give that.
 * Accuracy: 1e-6. */
typedef double lsk_logsumexp_fn(const float *x, size_t n);

/**
 * sums[c] += sum_r 2^(z[r * ld + c] - base[r]); z may be -inf, base +inf, and z - base at most 128. A
 * column's value depends on that column alone. Accuracy: 1e-5 relative.
 */
typedef void lsk_exp2_columns_fn(float *sums, const float *z, size_t ld, const float *base, size_t n_rows,
                                 size_t n_cols);

/**
 * at[0 .. k - 1] = the places of the k greatest of the numbers x[n], ascending; of equal ones the last are
 * taken. 1 <= k <= n. -0 is less than 0, and a NaN greater than everything or, with its sign bit set, less.
 * What is in x afterwards means nothing.
 */
typedef void lsk_choose_fn(uint32_t *at, float *x, size_t n, size_t k);

/* ---- gradients -------------------------------------------------------------- */

/**
 * Gradient of one row of rmsnorm, r = 1 / sqrt(mean(x^2) + eps), c = sum_k dy[k] gain[k] x[k]:
 *
 *   dx[i] (+)= r gain[i] dy[i] - (r^3 / n) c x[i];   dgain[i] += dy[i] x[i] r
 *
 * dx may equal dy; dgain may be NULL. Accuracy: 4e-6 of r sum |dy gain x| |x|_max r^2 / n and of the terms.
 */
typedef void lsk_rmsnorm_backward_fn(float *dx, float *dgain, const float *dy, const float *x,
                                     const float *gain, size_t n, float eps, bool accumulate);

/** gate[i] <- da[i] up[i] act'(gate[i]); up[i] <- da[i] act(gate[i]). |gate| up to 2^20. Accuracy: 1e-5
 * relative to |da up (1 + |gate|)| and |da gate|. */
typedef void lsk_glu_backward_fn(float *gate, float *up, const float *da, size_t n);

/**
 * x <- softmax(x) - onehot(target), returns logsumexp(x) - x[target]; n > 0, target < n. Sums in double;
 * a NaN among x gives NaN. Accuracy: 1e-6 of a probability; 1e-6 for what is returned.
 */
typedef double lsk_cross_entropy_fn(float *x, size_t n, size_t target);

#endif

/*
 * Kernels of the optimizer: contracts.
 *
 * Moments may be stored in 8 bits, in blocks of LSK_DYNAMIC8_BLOCK elements that share a scale. The map
 * of codes to numbers is dynamic (Dettmers et al., arXiv 2110.02861): decades, each
 * cut into twice as many parts as the one below it. For codes t = 2^e + k, 0 <= k < 2^e,
 *
 *     u(t) = 10^(e - E) (0.1 + 0.9 (k + 1/2) / 2^e)      the middle of part k of decade e;   u(0) = 0
 *
 *     signed    codes -127 .. 127, E = 6: seven decades, u(-t) = -u(t)         for first moments
 *     unsigned  codes    0 .. 255, E = 7: eight decades                        for second moments
 *
 * A block's scale is its greatest magnitude over the greatest u, so that the greatest element is kept exactly
 * but for rounding to fp32, and the element with code c is scale * u(c). An element gets the nearest code;
 * except that with the unsigned map only zero gets code 0: a second moment that vanished while the first
 * one did not would leave eps alone in the denominator of the step. The least second moment is 5.5e-8 of the
 * block's greatest, so elements whose gradients are below 1/4000 of the greatest take smaller steps than with
 * moments in fp32.
 */
#ifndef LSK_OPTIMIZER_H
#define LSK_OPTIMIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/numbers.h"

#define LSK_DYNAMIC8_BLOCK 256
/* A block whose greatest magnitude is below this becomes zeros: its inverse must stay finite. */
#define LSK_DYNAMIC8_LEAST 0x1p-120f

/** x[n] = stored moments; ceil(n / 256) scales. dynamic8_load: signed codes, dynamic8u_load: unsigned. */
typedef void lsk_dynamic8_load_fn(float *x, const uint8_t *codes, const float *scales, size_t n);

/** Stored moments of x[n]; dynamic8u_store: x >= 0. Codes and scales are the same bits in every
 * implementation. A block with a NaN or an infinity has the scale NaN. */
typedef void lsk_dynamic8_store_fn(uint8_t *codes, float *scales, const float *x, size_t n);

/** sum x[i]^2 in double; NaN or infinite when an element is. Accuracy: 1e-14 relative. */
typedef double lsk_sum_squares_fn(const float *x, size_t n);

/* The factors of one step of AdamW. */
struct lsk_adamw {
    float grad_scale;
    float beta1, rest1; /* rest = 1 - beta, formed in double */
    float beta2, rest2;
    float fade;  /* lr decay; 1 - lr decay would lose its last digits, in every step the same way */
    float rate;  /* lr / (1 - beta1^t) */
    float root2; /* 1 / sqrt(1 - beta2^t) */
    float eps;
};

/**
 *   h = grad_scale g;  m <- beta1 m + rest1 h;  v <- beta2 v + rest2 h^2
 *   w <- w - (fade w + rate m / (root2 sqrt(v) + eps))
 *
 * Accuracy: 5e-7 relative to the terms added.
 */
typedef void lsk_adamw_fn(float *w, float *m, float *v, const float *g, size_t n, const struct lsk_adamw *p);

/**
 * y[i] = x[i] rounded to bf16 stochastically: away from zero with the probability of the part that
 * is cut off. The random numbers are counted: element i takes number first + i of the stream `key`, whatever
 * n and the position in a call (lsk_random_run and lsk_random16 define it). first is a multiple of
 * LSK_RANDOM_RUN. A NaN stays one. The same bits in every implementation.
 */
typedef void lsk_round_bf16_fn(lsi_bf16 *y, const float *x, size_t n, uint64_t key, uint64_t first);

#define LSK_RANDOM_RUN 256

/** Mixes the bits of x: every bit of the result depends on every bit of x, and no two x give the same. */
static inline uint64_t lsk_mix64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/** Key of the run of LSK_RANDOM_RUN numbers that holds number `first`. */
static inline uint64_t lsk_random_run(uint64_t key, uint64_t first)
{
    return lsk_mix64(key + lsk_mix64(first / LSK_RANDOM_RUN + 0x632be59bd9b4e019u));
}

/* In words of 32 bits, since AVX2 multiplies no wider ones. */
#define LSK_RANDOM_STEP 0x9e3779b9u
#define LSK_RANDOM_MUL1 0x7feb352du
#define LSK_RANDOM_MUL2 0x846ca68bu

/** Sixteen random bits: number j < LSK_RANDOM_RUN of a run. */
static inline uint32_t lsk_random16(uint64_t run, uint32_t j)
{
    uint32_t x = (uint32_t)run + j * LSK_RANDOM_STEP;
    x ^= x >> 16;
    x *= LSK_RANDOM_MUL1;
    x ^= (x >> 15) ^ (uint32_t)(run >> 32);
    x *= LSK_RANDOM_MUL2;
    return x >> 16;
}

#endif

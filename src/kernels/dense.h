/*
 * Dense products of packed operands: contracts.
 *
 * A *unit* is what one multiply-add takes of the summed index: an fp32 value, or a pair of bf16 values that
 * follow each other in it (the first in the low half). Either is 4 bytes, so operands of both kinds are laid
 * out alike, in panels as wide as the block of results that the kernels hold in registers:
 *
 *     A  [n_units][LSK_GEMM_M]     8 rows of C         both packed by the same two functions: one where
 *     B  [n_units][LSK_GEMM_N]    48 columns of C      the summed index runs along rows, one where across
 *
 * A row or column that a panel has too many is zero, and so is the second half of the last pair of an odd
 * sum.
 */
#ifndef LSK_DENSE_H
#define LSK_DENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/numbers.h"

#define LSK_GEMM_M 8
#define LSK_GEMM_N 48

/**
 * C[r][c] (+)= scale * sum_u A[u][r] B[u][c] for r < rows <= LSK_GEMM_M, c < cols <= LSK_GEMM_N; row stride
 * ldc; add: to what is there, else C is not read. gemm_f32: units are values. gemm_bf16: units are pairs,
 * sums fp32 (subnormal numbers may count as zero). The sum of an element depends on n_units and its operands
 * alone.
 */
typedef void lsk_gemm_fn(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                         size_t rows, size_t cols, float scale, bool add);

/**
 * Eight lanes of a panel: out[u * width + i] = in[i * ld + u] for u < n_units, i < n; zero for n <= i < 8.
 * The summed index runs along the rows of the stored matrix.
 */
typedef void lsk_gemm_turn_fn(uint32_t *out, size_t width, const uint32_t *in, size_t ld, size_t n,
                              size_t n_units);

/** The same of fp32 values rounded to pairs of bf16, as gemm_pair_f32 rounds; a lone last value gets a zero.
 */
typedef void lsk_gemm_turn_f32_fn(uint32_t *out, size_t width, const float *in, size_t ld, size_t n,
                                  size_t n_values);

/**
 * Pairs of two consecutive rows, the summed index running down the columns of the stored matrix: column c
 * goes to out[c / width * panel + c % width] for c < n; lanes up to the next multiple of width are zeroed.
 * width is 8 or a multiple of 16. second NULL: zeros. gemm_pair_f32 rounds to nearest even; a NaN stays a
 * NaN, a subnormal number may become zero.
 */
typedef void lsk_gemm_pair_f32_fn(uint32_t *out, size_t panel, size_t width, const float *first,
                                  const float *second, size_t n);
typedef void lsk_gemm_pair_bf16_fn(uint32_t *out, size_t panel, size_t width, const lsi_bf16 *first,
                                   const lsi_bf16 *second, size_t n);

#endif

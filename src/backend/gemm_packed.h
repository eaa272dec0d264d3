/*
 * Dense products of operands that our own kernels read (kernels/dense.h): packing from stored matrices, and
 * products of packed panels. For what a library does with detours: sums that run down the columns of both
 * operands, results that are added to fp32 rows of any stride, one rounding for several products.
 *
 * One thread works at a time on one result; who calls cuts results into tasks by shape alone.
 */
#ifndef LSI_GEMM_PACKED_H
#define LSI_GEMM_PACKED_H

#include "base/base.h"
#include "base/dtype.h"
#include "kernels/kernels.h"

/* What operands are packed as. */
enum lsi_gemm_kind {
    LSI_GEMM_F32,     /* values */
    LSI_GEMM_ROUNDED, /* values rounded to bf16, in fp32: for processors without products of bf16 */
    LSI_GEMM_BF16,    /* pairs of bf16 */
};

/* A matrix stored by rows. */
struct lsi_gemm_matrix {
    const void *data;
    enum lsi_dtype dtype;
    size_t row_bytes;
};

/** Whether these products are faster than the library's where both can do the work, on a processor with
 * these features. */
bool lsi_gemm_packed_wins(uint64_t features);

/** Units of a sum of n products. */
static inline size_t lsi_gemm_units(enum lsi_gemm_kind kind, size_t n)
{
    return kind == LSI_GEMM_BF16 ? lsi_div_up(n, 2) : n;
}

#define LSI_GEMM_CHUNK 512 /* most units that are multiplied before the results go to memory */

/** Products of a sum of n to be packed and multiplied at a time: evenly cut, a multiple of every block of a
 * stored type. */
size_t lsi_gemm_chunk(enum lsi_gemm_kind kind, size_t n);

/**
 * Pack rows row0 .. row0 + n_rows - 1, columns col0 .. col0 + n_cols - 1 of a matrix; panel p of `width`
 * lanes (a multiple of 8) begins at out + p * panel units. along: a lane is a row, the sum runs along it;
 * col0 is a multiple of the type's block. down: a lane is a column, the sum runs down it; F32 and BF16 only.
 */
void lsi_gemm_pack_along(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t panel,
                         size_t width, const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows,
                         size_t col0, size_t n_cols);
void lsi_gemm_pack_down(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t panel,
                        size_t width, const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows,
                        size_t col0, size_t n_cols);

/* Panels of an operand, `panel` units apart. */
struct lsi_gemm_panels {
    const uint32_t *data;
    size_t panel;
};

/** C[M][N] (+)= scale * A B over n_units of the sum; row stride ldc. A has panels of LSK_GEMM_M lanes, B of
 * LSK_GEMM_N. */
void lsi_gemm_multiply(const struct lsk_table *k, enum lsi_gemm_kind kind, float *C, size_t ldc, size_t M,
                       size_t N, struct lsi_gemm_panels A, struct lsi_gemm_panels B, size_t n_units,
                       float scale, bool add);

#endif

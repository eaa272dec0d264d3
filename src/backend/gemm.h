/*
 * Dense products for blocks of rows: C = A B^T on one thread, A and B by rows.
 *
 * The library behind it (oneDNN) is named in gemm_onednn.c only; gemm_builtin.c does the
 * same work where it is absent or declines. A tile's result depends on the tile's shape
 * alone, and who calls decides the tiles without looking at the number of threads: that is
 * what keeps results equal for every thread count.
 */
#ifndef LSI_GEMM_H
#define LSI_GEMM_H

#include "base/base.h"
#include "base/numbers.h"
#include "kernels/kernels.h"

struct lsi_gemm; /* prepared shapes; heap object */

/*
 * C[M][N] = A[M][K] B[N][K]^T, fp32 sums. bf16: A and B are bf16, else fp32. C is dense, its row stride N:
 * oneDNN's best products write nothing else.
 */
struct lsi_gemm_shape {
    size_t M, N, K;
    size_t lda, ldb;
    bool bf16;
};

ls_status lsi_gemm_create(struct lsi_gemm **g, int n_threads, const ls_alloc *alloc);
void lsi_gemm_free(struct lsi_gemm *g);

/** One line for people: which library and version, or "built-in". */
const char *lsi_gemm_library(void);

#define LSI_GEMM_KEPT 96 /* shapes that are kept: those used last */

/**
 * A handle for a shape, made at its first use and good until LSI_GEMM_KEPT other shapes have been
 * prepared after it. Not thread-safe; call it before the parallel region. -1 means that the
 * built-in product runs; never fails.
 */
int lsi_gemm_prepare(struct lsi_gemm *g, const struct lsi_gemm_shape *s);

/** Run a prepared shape. Threads call it at once, each with its own number. */
void lsi_gemm_run(struct lsi_gemm *g, int handle, int thread, const struct lsi_gemm_shape *s, float *C,
                  const void *A, const void *B);

/** The built-in product (also the reference in tests). */
void lsi_gemm_builtin(const struct lsi_gemm_shape *s, float *C, const void *A, const void *B);

#endif

/*
 * The built-in dense product: small blocks of C in registers, plain C that compilers
 * vectorise. Several times slower than a tuned library, used only without one.
 */
#include "backend/gemm.h"

#define ROWS  4
#define COLS  4
#define LANES 16 /* partial sums per element of C: the order of a sum is fixed by K */

static float load(const void *p, size_t i, bool bf16)
{
    return bf16 ? lsi_bf16_to_f32(((const lsi_bf16 *)p)[i]) : ((const float *)p)[i];
}

/* Sums of up to ROWS x COLS dot products. */
static void block(const struct lsi_gemm_shape *s, float *C, const void *A, const void *B, size_t m0,
                  size_t n0, size_t rows, size_t cols)
{
    float sum[ROWS][COLS][LANES] = { 0 };
    const size_t K16 = s->K / LANES * LANES;
    for (size_t k = 0; k < s->K; k += LANES) {
        const size_t lanes = k < K16 ? LANES : s->K - k;
        float a[ROWS][LANES] = { 0 }, b[COLS][LANES] = { 0 };
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < lanes; i++)
                a[r][i] = load(A, (m0 + r) * s->lda + k + i, s->bf16);
        for (size_t c = 0; c < cols; c++)
            for (size_t i = 0; i < lanes; i++)
                b[c][i] = load(B, (n0 + c) * s->ldb + k + i, s->bf16);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t c = 0; c < COLS; c++)
                for (size_t i = 0; i < LANES; i++)
                    sum[r][c][i] += a[r][i] * b[c][i];
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            for (size_t half = LANES / 2; half > 0; half /= 2)
                for (size_t i = 0; i < half; i++)
                    sum[r][c][i] += sum[r][c][i + half];
            C[(m0 + r) * s->N + n0 + c] = sum[r][c][0];
        }
}

void lsi_gemm_builtin(const struct lsi_gemm_shape *s, float *C, const void *A, const void *B)
{
    for (size_t m = 0; m < s->M; m += ROWS)
        for (size_t n = 0; n < s->N; n += COLS)
            block(s, C, A, B, m, n, lsi_min_size(ROWS, s->M - m), lsi_min_size(COLS, s->N - n));
}

#ifndef LSI_HAVE_ONEDNN

struct lsi_gemm {
    const ls_alloc *alloc;
};

ls_status lsi_gemm_create(struct lsi_gemm **g, int n_threads, const ls_alloc *alloc)
{
    (void)n_threads;
    *g = lsi_calloc(alloc, 1, sizeof **g);
    if (!*g)
        return LS_E_NOMEM;
    (*g)->alloc = alloc;
    return LS_OK;
}

void lsi_gemm_free(struct lsi_gemm *g)
{
    if (g)
        lsi_free(g->alloc, g, sizeof *g);
}

const char *lsi_gemm_library(void)
{
    return "built-in";
}

int lsi_gemm_prepare(struct lsi_gemm *g, const struct lsi_gemm_shape *s)
{
    (void)g;
    (void)s;
    return -1;
}

void lsi_gemm_run(struct lsi_gemm *g, int handle, int thread, const struct lsi_gemm_shape *s, float *C,
                  const void *A, const void *B)
{
    (void)g;
    (void)handle;
    (void)thread;
    lsi_gemm_builtin(s, C, A, B);
}

#endif

/* What tests of ops on rows of numbers share. */
#ifndef OP_CASE_H
#define OP_CASE_H

#include "ops/ops.h"
#include "test.h"

static inline struct lsi_exec make_exec(int n_threads, size_t scratch)
{
    struct lsi_exec ex;
    ls_error err;
    REQUIRE_OK(lsi_exec_init_cpu(&ex, n_threads, LSI_COMPUTE_FP32, lsi_alloc_or_default(NULL), &err), err);
    if (scratch > 0)
        REQUIRE_OK(lsi_exec_set_scratch(&ex, scratch, &err), err);
    return ex;
}

static inline void fill(float *x, size_t n, uint64_t seed)
{
    struct lsi_rng rng;
    lsi_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)lsi_rng_normal(&rng);
}

/* The bits of the first number of threads, compared with those of the others. */
static inline void same(float *first, const float *got, size_t n, int threads)
{
    if (threads == 1)
        memcpy(first, got, n * sizeof *got);
    CHECK(memcmp(first, got, n * sizeof *got) == 0);
}

#endif

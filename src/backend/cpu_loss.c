/*
 * Cross-entropy on the CPU: a row of logits at a time, which a second-level cache holds for all vocabularies
 * in use, so memory sees one reading and one writing. Losses go to scratch and are added in the order of
 * rows.
 */
#include "backend/cpu.h"

#define LOSS_WORK 16384 /* logits per task, at least one row */

struct loss {
    lsk_cross_entropy_fn *kernel;
    float *logits;
    const int32_t *target;
    double *nll; /* [n_rows] */
    size_t n_rows, V, ld, group;
};

static void loss_task(void *ctx, size_t task, int thread)
{
    const struct loss *a = ctx;
    const size_t end = lsi_min_size(a->n_rows, (task + 1) * a->group);

    (void)thread;
    for (size_t t = task * a->group; t < end; t++) {
        LSI_ASSERT(a->target[t] >= 0 && (size_t)a->target[t] < a->V);
        a->nll[t] = a->kernel(a->logits + t * a->ld, a->V, (size_t)a->target[t]);
    }
}

double lsi_cpu_cross_entropy(struct lsi_exec *ex, float *logits, const int32_t *target, size_t n_rows,
                             size_t V, size_t ld)
{
    struct loss a = { .logits = logits, .target = target, .n_rows = n_rows, .V = V, .ld = ld };
    double sum = 0.0;

    a.kernel = lsi_cpu_kernels(ex)->cross_entropy;
    a.nll = lsi_arena_take(&ex->scratch, n_rows, sizeof *a.nll);
    a.group = lsi_max_size(1, LOSS_WORK / lsi_max_size(1, V));
    lsi_parallel(ex->pool, lsi_div_up(n_rows, a.group), loss_task, &a);
    for (size_t t = 0; t < n_rows; t++)
        sum += a.nll[t];
    return sum;
}

size_t lsi_cpu_cross_entropy_scratch(const struct lsi_exec *ex, size_t n_rows)
{
    struct lsi_arena plan = { 0 };

    (void)ex;
    lsi_arena_take(&plan, n_rows, sizeof(double));
    return plan.used;
}

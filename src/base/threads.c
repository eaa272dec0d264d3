#include "base/base.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

void lsi_parallel(int n_threads, size_t n_tasks, lsi_task_fn *fn, void *ctx)
{
    if ((size_t)n_threads > n_tasks)
        n_threads = (int)n_tasks;
    if (n_threads <= 1) {
        for (size_t i = 0; i < n_tasks; i++)
            fn(ctx, i, 0);
        return;
    }
    _Atomic size_t next = 0;
#pragma omp parallel num_threads(n_threads)
    {
        const int thread = omp_get_thread_num();
        size_t i;
        while ((i = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed)) < n_tasks)
            fn(ctx, i, thread);
    }
}

int lsi_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int n = CPU_COUNT(&set);
        if (n > 0)
            return n;
    }
    return 1;
}

double lsi_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

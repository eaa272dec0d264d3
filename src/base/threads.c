/*
 * A pool of threads for many short parallel regions.
 *
 * A decoding step has some 150 regions of a few microseconds. Between them workers
 * spin, for a bounded time: on an idle machine the next region starts at once, and on a busy
 * one nobody burns the time slice that the thread it waits for would need. (GCC's OpenMP
 * runtime spins far longer: with both processors of a machine busy elsewhere a region of
 * 15 us took 33 ms, here 0.1-0.4 ms; on the idle machine both take 1 us.)
 *
 * A job is one word, `ticket` = [job number | tasks not yet taken]. Taking a task is a
 * compare-and-swap on it, so a worker that wakes late finds either a task of the current job
 * or none; nobody waits for workers that took nothing. The fields of a job may be read only by
 * holders of one of its tasks: the caller cannot leave, and so not write them, before
 * those are done.
 */
#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define SPINS 2000 /* pauses: 30 to 100 us */

struct worker {
    struct lsi_pool *pool;
    pthread_t thread;
    int number; /* 1 .. n_workers */
};

struct lsi_pool {
    _Alignas(LSI_CACHE_LINE) _Atomic uint64_t ticket;
    _Alignas(LSI_CACHE_LINE) _Atomic uint32_t done; /* tasks of the job that are finished */
    _Alignas(LSI_CACHE_LINE) atomic_int sleepers;   /* workers that must be woken */
    atomic_bool caller_sleeps;
    atomic_bool stop;

    /* the job; see above for who may read it */
    lsi_task_fn *fn;
    void *ctx;
    uint32_t n_tasks;

    pthread_mutex_t lock;
    pthread_cond_t job, finished;
    int n_workers, cap_workers; /* running; asked for */
    struct worker *workers;
    const ls_alloc *alloc;
};

static void pause_a_moment(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t left(uint64_t ticket)
{
    return (uint32_t)ticket;
}

/* Take and run tasks of the current job until none is left. */
static void work(struct lsi_pool *p, int thread)
{
    uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    while (left(t) > 0) {
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &t, t - 1, memory_order_acquire,
                                                   memory_order_acquire))
            continue;
        const uint32_t n = p->n_tasks; /* stable from here until `done` counts this task */
        p->fn(p->ctx, n - left(t), thread);
        if (atomic_fetch_add(&p->done, 1) + 1 == n && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
        t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
}

static bool idle(struct lsi_pool *p)
{
    return left(atomic_load(&p->ticket)) == 0 && !atomic_load(&p->stop);
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct lsi_pool *p = w->pool;
    while (!atomic_load(&p->stop)) {
        for (int i = 0; i < SPINS && idle(p); i++)
            pause_a_moment();
        if (idle(p)) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (idle(p))
                pthread_cond_wait(&p->job, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        work(p, w->number);
    }
    return NULL;
}

static void wake_workers(struct lsi_pool *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->job);
    pthread_mutex_unlock(&p->lock);
}

/* Workers run none of the program's signal handlers; faults of their own still reach theirs. */
static int start_worker(struct worker *w)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
    sigset_t blocked, was;
    sigfillset(&blocked);
    for (size_t i = 0; i < LSI_LEN(faults); i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &was); /* a new thread inherits it */
    const int e = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return e;
}

ls_status lsi_pool_create(struct lsi_pool **out, int n_threads, const ls_alloc *alloc)
{
    *out = NULL;
    if (n_threads <= 1)
        return LS_OK;
    struct lsi_pool *p = lsi_calloc(alloc, 1, sizeof *p);
    if (!p)
        return LS_E_NOMEM;
    p->alloc = alloc;
    p->cap_workers = n_threads - 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->job, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->workers = lsi_calloc(alloc, (size_t)p->cap_workers, sizeof *p->workers);
    if (!p->workers) {
        lsi_pool_free(p);
        return LS_E_NOMEM;
    }
    for (int i = 0; i < p->cap_workers; i++) {
        p->workers[i] = (struct worker){ .pool = p, .number = i + 1 };
        if (start_worker(&p->workers[i]) != 0)
            break; /* fewer threads do the same work */
        p->n_workers++;
    }
    *out = p;
    return LS_OK;
}

void lsi_pool_free(struct lsi_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    wake_workers(p);
    for (int i = 0; i < p->n_workers; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->job);
    pthread_mutex_destroy(&p->lock);
    lsi_free(p->alloc, p->workers, (size_t)p->cap_workers * sizeof *p->workers);
    lsi_free(p->alloc, p, sizeof *p);
}

void lsi_parallel(struct lsi_pool *p, size_t n_tasks, lsi_task_fn *fn, void *ctx)
{
    if (!p || n_tasks <= 1 || n_tasks > UINT32_MAX) {
        for (size_t i = 0; i < n_tasks; i++)
            fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n_tasks = (uint32_t)n_tasks;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    const uint64_t job = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store(&p->ticket, job << 32 | n_tasks);
    if (atomic_load(&p->sleepers) > 0)
        wake_workers(p);

    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->done) != n_tasks; i++)
        pause_a_moment();
    if (atomic_load(&p->done) != n_tasks) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, true);
        while (atomic_load(&p->done) != n_tasks)
            pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, false);
        pthread_mutex_unlock(&p->lock);
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
    const long online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t has bits */
    return online > 0 ? (int)online : 1;
}

double lsi_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

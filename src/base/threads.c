/*
 * A pool of threads for many short parallel regions.
 *
 * A decoding step has some 150 regions of a few microseconds. Between them workers
 * spin, for a bounded time: on an idle machine the next region starts at once, and on a busy
 * one nobody burns the time slice that the thread it waits for would need. (GCC's OpenMP
 * runtime spins far longer: with both processors of a machine busy elsewhere a region of
 * 15 us took 33 ms, here 0.1-0.4 ms; on the idle machine both take 1 us.)
 *
 * The tasks of a job lie in ranges [next, end), one word each. Taking a task is a compare-and-swap on the
 * word, so a worker that wakes late finds either a task of the current job or none; nobody waits for
 * workers that took nothing. The fields of a job may be read only by holders of one of its
 * tasks: the caller cannot leave, and so not write them, before those are done.
 *
 * Either all tasks are one range, taken in order, or each thread has a range of its own:
 *
 *     tasks   0 1 2 3 4 5 6 | 7 8 9 10 11 12 13
 *     thread 0 -->      <-- thread 1 when it has finished its own
 *
 * so that a thread walks through memory in one direction and nobody fetches ahead what another will read.
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

/* Tasks not yet taken: next in the high half, end in the low one. */
struct range {
    _Alignas(LSI_CACHE_LINE) _Atomic uint64_t tasks;
};

struct lsi_pool {
    struct range *ranges;                            /* [cap_workers + 1] */
    _Alignas(LSI_CACHE_LINE) _Atomic uint32_t epoch; /* counts jobs: what idle workers watch */
    _Alignas(LSI_CACHE_LINE) _Atomic uint32_t done;  /* tasks of the job that are finished */
    _Alignas(LSI_CACHE_LINE) atomic_int sleepers;    /* workers that must be woken */
    atomic_bool caller_sleeps;
    atomic_bool stop;
    atomic_bool split; /* each thread has a range of its own */

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

static uint64_t make_range(uint32_t next, uint32_t end)
{
    return (uint64_t)next << 32 | end;
}

/* Take the first task of a range, or the last. False when it is empty. */
static bool take(struct range *r, bool last, uint32_t *task)
{
    uint64_t t = atomic_load_explicit(&r->tasks, memory_order_acquire);
    for (;;) {
        const uint32_t next = (uint32_t)(t >> 32), end = (uint32_t)t;
        if (next >= end)
            return false;
        const uint64_t rest = last ? make_range(next, end - 1) : make_range(next + 1, end);
        *task = last ? end - 1 : next;
        if (atomic_compare_exchange_weak_explicit(&r->tasks, &t, rest, memory_order_acquire,
                                                  memory_order_acquire))
            return true;
    }
}

static void run_task(struct lsi_pool *p, uint32_t task, int thread)
{
    const uint32_t n = p->n_tasks; /* stable until `done` counts this task */
    p->fn(p->ctx, task, thread);
    if (atomic_fetch_add(&p->done, 1) + 1 == n && atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->finished);
        pthread_mutex_unlock(&p->lock);
    }
}

/* Run tasks of the current job until none is left: those of the thread's own range, then others' last ones.
 */
static void work(struct lsi_pool *p, int thread)
{
    const int n = p->cap_workers + 1;
    uint32_t task;
    for (int i = 0; i < n; i++) {
        struct range *r = &p->ranges[(thread + i) % n];
        while (take(r, i > 0 && atomic_load_explicit(&p->split, memory_order_relaxed), &task))
            run_task(p, task, thread);
    }
}

static bool idle(struct lsi_pool *p, uint32_t seen)
{
    return atomic_load(&p->epoch) == seen && !atomic_load(&p->stop);
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct lsi_pool *p = w->pool;
    uint32_t seen = 0;
    while (!atomic_load(&p->stop)) {
        for (int i = 0; i < SPINS && idle(p, seen); i++)
            pause_a_moment();
        if (idle(p, seen)) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (idle(p, seen))
                pthread_cond_wait(&p->job, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->epoch);
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
    p->ranges = lsi_calloc(alloc, (size_t)n_threads, sizeof *p->ranges);
    if (!p->workers || !p->ranges) {
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
    lsi_free(p->alloc, p->ranges, ((size_t)p->cap_workers + 1) * sizeof *p->ranges);
    lsi_free(p->alloc, p, sizeof *p);
}

static void run(struct lsi_pool *p, size_t n_tasks, lsi_task_fn *fn, void *ctx, bool split)
{
    if (!p || n_tasks <= 1 || n_tasks > UINT32_MAX) {
        for (size_t i = 0; i < n_tasks; i++)
            fn(ctx, i, 0);
        return;
    }
    const size_t n_ranges = split ? (size_t)p->cap_workers + 1 : 1;
    p->fn = fn;
    p->ctx = ctx;
    p->n_tasks = (uint32_t)n_tasks;
    atomic_store_explicit(&p->split, split, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    for (size_t i = 0; i < n_ranges; i++)
        atomic_store_explicit(
            &p->ranges[i].tasks,
            make_range((uint32_t)(n_tasks * i / n_ranges), (uint32_t)(n_tasks * (i + 1) / n_ranges)),
            memory_order_release);
    atomic_fetch_add(&p->epoch, 1);
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

void lsi_parallel(struct lsi_pool *p, size_t n_tasks, lsi_task_fn *fn, void *ctx)
{
    run(p, n_tasks, fn, ctx, false);
}

void lsi_parallel_split(struct lsi_pool *p, size_t n_tasks, lsi_task_fn *fn, void *ctx)
{
    run(p, n_tasks, fn, ctx, true);
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

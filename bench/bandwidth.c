/*
 * Read bandwidth of this machine's memory, with 1 and with 2 (or N) threads: the denominator of every
 * "share of the limit" in docs/benchmarks.md.
 *
 *     cc -O3 -march=native -fopenmp bandwidth.c -o bandwidth && ./bandwidth [THREADS]
 *
 * Prints one JSON object: {"threads": [1, 2], "gb_per_s": [..., ...], "gb_per_s_large_pages": [..., ...]},
 * medians of nine passes over 1 GiB in pages of 4 KiB, as files are mapped, and of 2 MiB.
 */
#define _GNU_SOURCE
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BYTES  ((size_t)1 << 30)
#define PASSES 9
#define LANES  32 /* sums side by side, so that no pass waits for an addition */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static uint64_t sum(const uint64_t *p, size_t n)
{
    uint64_t s[LANES] = { 0 }, total = 0;

    for (size_t i = 0; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            s[k] += p[i + k];
    for (size_t k = 0; k < LANES; k++)
        total += s[k];
    return total;
}

static double gb_per_s(const uint64_t *data, int n_threads, uint64_t *check)
{
    const size_t share = BYTES / sizeof *data / (size_t)n_threads;
    double seconds[PASSES];

    for (int pass = 0; pass < PASSES; pass++) {
        const double start = omp_get_wtime();
        uint64_t total = 0;

#pragma omp parallel num_threads(n_threads) reduction(+ : total)
        total += sum(data + share * (size_t)omp_get_thread_num(), share);
        seconds[pass] = omp_get_wtime() - start;
        *check += total;
    }
    qsort(seconds, PASSES, sizeof seconds[0], compare);
    return (double)BYTES / seconds[PASSES / 2] / 1e9;
}

/* Bandwidth with one thread and with all, in pages of one kind. */
static int measure(int advice, int n_threads, double *one, double *many)
{
    uint64_t *data = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), check = 0;

    if (data == MAP_FAILED)
        return 0;
    madvise(data, BYTES, advice);
    for (size_t i = 0; i < BYTES / sizeof *data; i++)
        data[i] = i;
    *one = gb_per_s(data, 1, &check);
    *many = gb_per_s(data, n_threads, &check);
    munmap(data, BYTES);
    fprintf(stderr, "check %llx\n", (unsigned long long)check); /* the sums must be formed */
    return 1;
}

int main(int argc, char **argv)
{
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    double one[2], many[2];

    if (n_threads < 1 || !measure(MADV_NOHUGEPAGE, n_threads, &one[0], &many[0]) ||
        !measure(MADV_HUGEPAGE, n_threads, &one[1], &many[1])) {
        fprintf(stderr, "usage: bandwidth [THREADS]   (needs 1 GiB of memory)\n");
        return 1;
    }
    printf("{\"threads\": [1, %d], \"gb_per_s\": [%.2f, %.2f], \"gb_per_s_large_pages\": [%.2f, %.2f]}\n",
           n_threads, one[0], many[0], one[1], many[1]);
    return 0;
}

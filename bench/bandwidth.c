/*
 * Read bandwidth of this machine's memory, with 1 and with 2 (or N) threads: the denominator of every
 * "share of the limit" in docs/benchmarks.md.
 *
 *     cc -O3 -march=native -fopenmp bandwidth.c -o bandwidth && ./bandwidth [THREADS]
 *
 * Prints one JSON object: {"threads": [1, 2], "gb_per_s": [..., ...]}, medians of nine passes over 1 GiB.
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

int main(int argc, char **argv)
{
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    uint64_t *data = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), check = 0;
    double one, many;

    if (n_threads < 1 || data == MAP_FAILED) {
        fprintf(stderr, "usage: bandwidth [THREADS]   (needs 1 GiB of memory)\n");
        return 1;
    }
    madvise(data, BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < BYTES / sizeof *data; i++)
        data[i] = i;
    one = gb_per_s(data, 1, &check);
    many = gb_per_s(data, n_threads, &check);
    fprintf(stderr, "check %llx\n", (unsigned long long)check);
    printf("{\"threads\": [1, %d], \"gb_per_s\": [%.2f, %.2f]}\n", n_threads, one, many);
    return 0;
}

/*
 * For tests of policies that keep everything and read a part: what attention over a set of tokens is, in
 * double. Keys and values are stored in fp32, so that the simulators see what the policies see.
 */
#ifndef READING_H
#define READING_H

enum {
    L = 2,
    H = 4,
    G = 2,
    GROUP = H / G,
    D = 16,
    N = 600
};

#include "cache_fixture.h"

/* Score of query head h of token t with token s. */
static inline double score_of(size_t l, size_t t, size_t h, size_t s)
{
    double z = 0;
    for (size_t d = 0; d < D; d++)
        z += (double)q[t * Q + h * D + d] * (double)k[l][s * KV + h / GROUP * D + d];
    return z * (double)scale;
}

/* The most that query head h of token t can score in a run, from its keys. */
static inline double bound_of(size_t l, size_t t, size_t h, size_t first, size_t n)
{
    double u = 0;
    for (size_t d = 0; d < D; d++) {
        float lo = INFINITY, hi = -INFINITY;
        for (size_t s = first; s < first + n; s++) {
            lo = fminf(lo, k[l][s * KV + h / GROUP * D + d]);
            hi = fmaxf(hi, k[l][s * KV + h / GROUP * D + d]);
        }
        const double x = (double)q[t * Q + h * D + d];
        u += fmax(x * (double)lo, x * (double)hi);
    }
    return u * (double)scale;
}

/* Attention of query head h of token t over the tokens s <= t with in[s]; returns the log of the sum of
 * weights. */
static inline double attend_to(size_t l, size_t t, size_t h, const bool *in, double *out)
{
    double sum = 0;
    for (size_t d = 0; d < D; d++)
        out[d] = 0;
    for (size_t s = 0; s <= t; s++) {
        const double w = in[s] ? exp(score_of(l, t, h, s)) : 0;
        sum += w;
        for (size_t d = 0; d < D; d++)
            out[d] += w * (double)v[l][s * KV + h / GROUP * D + d];
    }
    for (size_t d = 0; d < D; d++)
        out[d] /= sum;
    return log(sum);
}

/* The best n of n_all things with these numbers, equal ones: the later. */
static inline void take_best(const double *number, size_t n_all, size_t n, bool *in)
{
    for (size_t i = 0; i < n_all; i++)
        in[i] = false;
    for (; n > 0; n--) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < n_all; i++)
            if (!in[i] && (best == SIZE_MAX || number[i] >= number[best]))
                best = i;
        in[best] = true;
    }
}

#endif

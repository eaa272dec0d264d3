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

/* The least multiple of `step` that is not below x. */
static inline double steps_to(float x, float step)
{
    const float n = ceilf(x / step);
    return (double)((n * step < x ? n + 1.0f : n) * step);
}

/* The most that query head h of token t can score in a run, from the bounds of its keys in 127ths of the
 * greatest. */
static inline double bound_of(size_t l, size_t t, size_t h, size_t first, size_t n)
{
    float lo[D], hi[D], greatest = 0;
    double u = 0;
    for (size_t d = 0; d < D; d++) {
        lo[d] = INFINITY;
        hi[d] = -INFINITY;
        for (size_t s = first; s < first + n; s++) {
            lo[d] = fminf(lo[d], k[l][s * KV + h / GROUP * D + d]);
            hi[d] = fmaxf(hi[d], k[l][s * KV + h / GROUP * D + d]);
        }
        greatest = fmaxf(greatest, fmaxf(-lo[d], hi[d]));
    }
    const float step = nextafterf(greatest / 127, INFINITY);
    for (size_t d = 0; d < D; d++) {
        const double x = (double)q[t * Q + h * D + d];
        u += x > 0 ? x * steps_to(hi[d], step) : -x * steps_to(-lo[d], step);
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

/* Quantising by its definition: for lists that are compared with packed storage. */
#ifndef PACKING_H
#define PACKING_H

#include "base/numbers.h"

#include <math.h>
#include <stddef.h>

/* Halves in ascending order, from -31743 to 31743. */
static inline double half(int i)
{
    return i < 0 ? -(double)lsi_f16_to_f32((lsi_f16)-i) : (double)lsi_f16_to_f32((lsi_f16)i);
}

static inline double half_at_most(double x)
{
    int lo = -31743, hi = 31743;
    while (lo < hi) {
        const int mid = lo + (hi - lo + 1) / 2;
        if (half(mid) <= x)
            lo = mid;
        else
            hi = mid - 1;
    }
    return half(lo);
}

/* n numbers, step apart, as what their codes stand for. */
static inline void quantise(float *x, size_t n, size_t step, unsigned bits)
{
    double low = (double)x[0], high = low;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, (double)x[i * step]);
        high = fmax(high, (double)x[i * step]);
    }
    const double most = (double)((1u << bits) - 1), z = half_at_most(low),
                 s = -half_at_most(-(high - z) / most);
    for (size_t i = 0; i < n; i++) {
        const double u = s > 0 ? fmin(most, rint(((double)x[i * step] - z) / s)) : 0;
        x[i * step] = (float)(u * s + z);
    }
}

#endif

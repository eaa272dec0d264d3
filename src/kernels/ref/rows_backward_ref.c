/* Gradients of row operations by their formulas, in double. */
#include "kernels/impl.h"

#include <math.h>

void lsk_rmsnorm_backward_ref(float *dx, float *dgain, const float *dy, const float *x, const float *gain,
                              size_t n, float eps, bool accumulate)
{
    double square = 0.0, c = 0.0;

    for (size_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        c += (double)dy[i] * (double)gain[i] * (double)x[i];
    }
    const double r = 1.0 / sqrt(square / (double)n + (double)eps);
    const double along = r * r * r * c / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double d = r * (double)gain[i] * (double)dy[i] - along * (double)x[i];
        if (dgain)
            dgain[i] = (float)((double)dgain[i] + (double)dy[i] * (double)x[i] * r);
        dx[i] = (float)(accumulate ? (double)dx[i] + d : d);
    }
}

void lsk_glu_silu_backward_ref(float *gate, float *up, const float *da, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double z = (double)gate[i], d = (double)da[i];
        const double s = 1.0 / (1.0 + exp(-z));
        gate[i] = (float)(d * (double)up[i] * s * (1.0 + z * (1.0 - s)));
        up[i] = (float)(d * z * s);
    }
}

void lsk_glu_gelu_backward_ref(float *gate, float *up, const float *da, size_t n)
{
    const double root = 0.79788456080286535588; /* sqrt(2 / pi) */

    for (size_t i = 0; i < n; i++) {
        const double z = (double)gate[i], d = (double)da[i];
        const double u = root * (z + 0.044715 * z * z * z), du = root * (1.0 + 0.134145 * z * z);
        /* s = (1 + tanh u) / 2, so that gelu = z s and s' = 2 s (1 - s) u'. */
        const double s = 1.0 / (1.0 + exp(-2.0 * u));
        gate[i] = (float)(d * (double)up[i] * (s + 2.0 * z * s * (1.0 - s) * du));
        up[i] = (float)(d * z * s);
    }
}

double lsk_cross_entropy_ref(float *x, size_t n, size_t target)
{
    const double lse = lsk_logsumexp_ref(x, n), loss = lse - (double)x[target];

    for (size_t i = 0; i < n; i++)
        x[i] = (float)(exp((double)x[i] - lse) - (i == target ? 1.0 : 0.0));
    return loss;
}

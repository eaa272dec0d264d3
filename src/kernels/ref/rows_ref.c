/* Row operations by their formulas, in double. */
#include "kernels/impl.h"

#include <math.h>
#include <string.h>

static double inverse_rms(const float *x, size_t n, float eps)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(sum / (double)n + (double)eps);
}

void lsk_rmsnorm_ref(float *y, const float *x, const float *gain, size_t n, float eps)
{
    const double inv = inverse_rms(x, n, eps);

    for (size_t i = 0; i < n; i++)
        y[i] = (float)((double)x[i] * inv * (double)gain[i]);
}

void lsk_rmsnorm_add_ref(float *y, const float *x, const float *gain, size_t n, float eps)
{
    const double inv = inverse_rms(x, n, eps);

    for (size_t i = 0; i < n; i++)
        y[i] = (float)((double)y[i] + (double)x[i] * inv * (double)gain[i]);
}

void lsk_glu_silu_ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double x = (double)gate[i];
        y[i] = (float)(x / (1.0 + exp(-x)) * (double)up[i]);
    }
}

void lsk_glu_gelu_ref(float *y, const float *gate, const float *up, size_t n)
{
    const double root = 0.79788456080286535588; /* sqrt(2 / pi) */

    for (size_t i = 0; i < n; i++) {
        const double x = (double)gate[i];
        /* (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), without the cancellation near -1. */
        const double u = root * (x + 0.044715 * x * x * x);
        y[i] = (float)(x / (1.0 + exp(-2.0 * u)) * (double)up[i]);
    }
}

void lsk_rope_angles_ref(float *cosine, float *sine, const double *inv_freq, size_t n, double pos,
                         double mscale)
{
    for (size_t i = 0; i < n; i++) {
        const double angle = pos * inv_freq[i];
        cosine[i] = (float)(cos(angle) * mscale);
        sine[i] = (float)(sin(angle) * mscale);
    }
}

void lsk_rope_ref(float *x, const float *cosine, const float *sine, size_t n, bool interleaved)
{
    if (interleaved) {
        float odd[LSK_ROPE_MAX];
        for (size_t i = 0; i < n; i++)
            odd[i] = x[2 * i + 1];
        for (size_t i = 0; i < n; i++)
            x[i] = x[2 * i];
        for (size_t i = 0; i < n; i++)
            x[i + n] = odd[i];
    }
    for (size_t i = 0; i < n; i++) {
        const double a = (double)x[i], b = (double)x[i + n], c = (double)cosine[i], s = (double)sine[i];
        x[i] = (float)(a * c - b * s);
        x[i + n] = (float)(b * c + a * s);
    }
}

double lsk_logsumexp_ref(const float *x, size_t n)
{
    float max = -INFINITY;
    double sum = 0.0;

    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]))
            return (double)x[i];
        max = x[i] > max ? x[i] : max;
    }
    if (isinf(max))
        return (double)max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)max);
    return (double)max + log(sum);
}

void lsk_exp2_columns_ref(float *sums, const float *z, size_t ld, const float *base, size_t n_rows,
                          size_t n_cols)
{
    for (size_t c = 0; c < n_cols; c++) {
        double sum = 0.0;
        for (size_t r = 0; r < n_rows; r++)
            sum += exp2((double)z[r * ld + c] - (double)base[r]);
        sums[c] += (float)sum;
    }
}

/* A whole number that is the greater, the greater x is. */
static int32_t rank_of(float x)
{
    int32_t rank;

    memcpy(&rank, &x, sizeof rank);
    return rank < 0 ? rank ^ INT32_MAX : rank;
}

/* Halves the numbers among which the k-th greatest must be until there is one left. */
void lsk_choose_ref(uint32_t *at, float *x, size_t n, size_t k)
{
    int64_t least = INT32_MIN, most = INT32_MAX;
    size_t above = 0, chosen = 0;

    while (least < most) {
        const int64_t middle = least + (most - least + 1) / 2;
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
            count += rank_of(x[i]) >= middle ? 1 : 0;
        if (count >= k)
            least = middle;
        else
            most = middle - 1;
    }
    for (size_t i = 0; i < n; i++)
        above += rank_of(x[i]) > least ? 1 : 0;
    /* Backwards, so that the last of equal numbers are met first. */
    for (size_t i = n, equal = k - above; i-- > 0;) {
        const bool take = rank_of(x[i]) > least || (rank_of(x[i]) == least && equal > 0);
        if (rank_of(x[i]) == least && equal > 0)
            equal--;
        if (take)
            at[k - ++chosen] = (uint32_t)i;
    }
}

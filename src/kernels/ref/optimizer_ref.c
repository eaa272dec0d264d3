/* Kernels of the optimizer by their formulas. */
#include "kernels/impl.h"
#include "kernels/dynamic8.h"

#include <math.h>

double lsk_sum_squares_ref(const float *x, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

void lsk_adamw_ref(float *w, float *m, float *v, const float *g, size_t n, const struct lsk_adamw *p)
{
    for (size_t i = 0; i < n; i++) {
        const double h = (double)p->grad_scale * (double)g[i];
        m[i] = (float)((double)p->beta1 * (double)m[i] + (double)p->rest1 * h);
        v[i] = (float)((double)p->beta2 * (double)v[i] + (double)p->rest2 * h * h);
        const double below = (double)p->root2 * sqrt((double)v[i]) + (double)p->eps;
        w[i] =
            (float)((double)w[i] - (double)p->fade * (double)w[i] - (double)p->rate * (double)m[i] / below);
    }
}

void lsk_round_bf16_ref(lsi_bf16 *y, const float *x, size_t n, uint64_t key, uint64_t first)
{
    uint64_t run = 0;

    for (size_t i = 0; i < n; i++) {
        if (i % LSK_RANDOM_RUN == 0)
            run = lsk_random_run(key, first + i);
        const uint32_t bits = lsi_f32_bits(x[i]);
        const uint32_t random = lsk_random16(run, (uint32_t)(i % LSK_RANDOM_RUN));
        y[i] = isnan(x[i]) ? (lsi_bf16)(bits >> 16 | 64) : (lsi_bf16)((bits + random) >> 16);
    }
}

/* ---- moments in 8 bits --------------------------------------------------------- */

static size_t block_end(size_t i, size_t n)
{
    return n - i < LSK_DYNAMIC8_BLOCK ? n : i + LSK_DYNAMIC8_BLOCK;
}

/* u of a code's magnitude. */
static float magnitude(const struct lsk_dynamic8 *map, unsigned t)
{
    unsigned e = 0;

    if (t == 0)
        return 0.0f;
    while (t >> (e + 1) != 0)
        e++;
    const float mantissa = (float)t / (float)(1u << e); /* 1 + k / 2^e */
    return map->slope[e] * mantissa + map->offset[e];
}

/* The code whose u is nearest to u. A NaN gives 0. */
static unsigned nearest(const struct lsk_dynamic8 *map, float u)
{
    unsigned e = 0;

    if (!(u > map->threshold[0]))
        return 0;
    while (e < 7 && u > map->threshold[e + 1])
        e++;
    const float code = u * map->inverse[e] + map->start[e];
    return (unsigned)fminf(fmaxf(code, 1.0f), map->last[e]);
}

static float scale_of(const struct lsk_dynamic8 *map, const float *x, size_t n)
{
    float max = 0.0f;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return NAN;
        max = fmaxf(max, fabsf(x[i]));
    }
    return max < LSK_DYNAMIC8_LEAST ? 0.0f : max * map->unit;
}

static void store(const struct lsk_dynamic8 *map, uint8_t *codes, float *scales, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += LSK_DYNAMIC8_BLOCK) {
        const size_t end = block_end(i, n);
        const float scale = scale_of(map, x + i, end - i);
        const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
        scales[i / LSK_DYNAMIC8_BLOCK] = scale;
        for (size_t j = i; j < end; j++) {
            const unsigned t = nearest(map, fabsf(x[j]) * inverse);
            codes[j] = (uint8_t)(x[j] < 0.0f ? 0u - t : t);
        }
    }
}

void lsk_dynamic8_load_ref(float *x, const uint8_t *codes, const float *scales, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int code = (int8_t)codes[i];
        const float u = magnitude(&lsk_dynamic8_signed, (unsigned)(code < 0 ? -code : code));
        x[i] = scales[i / LSK_DYNAMIC8_BLOCK] * (code < 0 ? -u : u);
    }
}

void lsk_dynamic8_store_ref(uint8_t *codes, float *scales, const float *x, size_t n)
{
    store(&lsk_dynamic8_signed, codes, scales, x, n);
}

void lsk_dynamic8u_load_ref(float *x, const uint8_t *codes, const float *scales, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = scales[i / LSK_DYNAMIC8_BLOCK] * magnitude(&lsk_dynamic8_unsigned, codes[i]);
}

void lsk_dynamic8u_store_ref(uint8_t *codes, float *scales, const float *x, size_t n)
{
    store(&lsk_dynamic8_unsigned, codes, scales, x, n);
}

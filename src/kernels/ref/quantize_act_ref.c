/*
 * Activations to 8 bits: runs of 32 with a scale and a scaled sum.
 *
 * The largest magnitude is taken on the bits, where a NaN is larger than infinity: a
 * run with either gets a scale that is not finite, so the fault stays visible. A run
 * whose scale is not a normal number is stored as zeros, because 1 / scale may overflow.
 */
#include "kernels/impl.h"

#include <float.h>
#include <math.h>

void lsk_quantize_act_ref(int8_t *q, float *d, float *s, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 32; b++) {
        const float *xb = x + 32 * b;
        uint32_t amax_bits = 0;
        int32_t sum = 0;

        for (size_t i = 0; i < 32; i++) {
            const uint32_t bits = lsi_f32_bits(xb[i]) & 0x7fffffffu;
            amax_bits = bits > amax_bits ? bits : amax_bits;
        }
        const float scale = lsi_f32_from_bits(amax_bits) / 127.0f;
        const bool usable = scale >= FLT_MIN && scale <= FLT_MAX;
        const float inv = usable ? 1.0f / scale : 0.0f;
        for (size_t i = 0; i < 32; i++) {
            const int32_t v = usable ? (int32_t)lrintf(xb[i] * inv) : 0;
            q[32 * b + i] = (int8_t)v;
            sum += v;
        }
        d[b] = scale;
        s[b] = scale * (float)sum;
    }
}

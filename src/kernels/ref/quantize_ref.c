/*
 * Stored rows from values, for export. Scales are formed in fp32 and only then
 * rounded to half, and codes come from the scale before that rounding: this is what
 * makes files equal, byte for byte, to those of the usual quantisers.
 */
#include "kernels/impl.h"

#include <math.h>

static void put_u16(void *row, size_t at, uint16_t v)
{
    memcpy((unsigned char *)row + at, &v, sizeof v);
}

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* Truncated to an integer in lo..hi; a NaN gives lo. */
static int code(float v, int lo, int hi)
{
    if (!(v > (float)lo))
        return lo;
    return v < (float)hi ? (int)v : hi;
}

void lsk_quantize_f32_ref(void *row, const float *x, size_t n)
{
    if (n > 0)
        memcpy(row, x, n * sizeof *x);
}

void lsk_quantize_f16_ref(void *row, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_u16(row, 2 * i, lsi_f16_from_f32(x[i]));
}

void lsk_quantize_bf16_ref(void *row, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_u16(row, 2 * i, lsi_bf16_from_f32(x[i]));
}

void lsk_quantize_q8_0_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;

    for (size_t i = 0; i < n; i += 32, p += 34) {
        float amax = 0.0f;
        for (size_t j = 0; j < 32; j++)
            amax = fmaxf(amax, fabsf(x[i + j]));
        const float d = amax / 127.0f, id = inverse(d);
        put_u16(p, 0, lsi_f16_from_f32(d));
        for (size_t j = 0; j < 32; j++)
            p[2 + j] = (unsigned char)code(roundf(x[i + j] * id), -128, 127);
    }
}

void lsk_quantize_q4_0_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;

    for (size_t i = 0; i < n; i += 32, p += 18) {
        float max = 0.0f; /* the value of largest magnitude, with its sign */
        for (size_t j = 0; j < 32; j++)
            if (fabsf(x[i + j]) > fabsf(max))
                max = x[i + j];
        const float d = max / -8.0f, id = inverse(d);
        put_u16(p, 0, lsi_f16_from_f32(d));
        for (size_t j = 0; j < 16; j++) {
            const int lo = code(x[i + j] * id + 8.5f, 0, 15), hi = code(x[i + j + 16] * id + 8.5f, 0, 15);
            p[2 + j] = (unsigned char)(lo | hi << 4);
        }
    }
}

void lsk_quantize_q4_1_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;

    for (size_t i = 0; i < n; i += 32, p += 20) {
        float min = x[i], max = x[i];
        for (size_t j = 1; j < 32; j++) {
            min = fminf(min, x[i + j]);
            max = fmaxf(max, x[i + j]);
        }
        const float d = (max - min) / 15.0f, id = inverse(d);
        put_u16(p, 0, lsi_f16_from_f32(d));
        put_u16(p, 2, lsi_f16_from_f32(min));
        for (size_t j = 0; j < 16; j++) {
            const int lo = code((x[i + j] - min) * id + 0.5f, 0, 15);
            const int hi = code((x[i + j + 16] - min) * id + 0.5f, 0, 15);
            p[4 + j] = (unsigned char)(lo | hi << 4);
        }
    }
}

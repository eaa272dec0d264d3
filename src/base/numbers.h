/* Sixteen-bit floats: bf16 and IEEE half, to and from fp32, one at a time. */
#ifndef LSI_NUMBERS_H
#define LSI_NUMBERS_H

#include <stdint.h>
#include <string.h>

typedef uint16_t lsi_bf16;
typedef uint16_t lsi_f16;

static inline float lsi_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t lsi_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float lsi_bf16_to_f32(lsi_bf16 h)
{
    return lsi_f32_from_bits((uint32_t)h << 16);
}

/** Round to nearest even; a NaN stays a (quiet) NaN. */
static inline lsi_bf16 lsi_bf16_from_f32(float f)
{
    const uint32_t u = lsi_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (lsi_bf16)((u >> 16) | 64);
    return (lsi_bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float lsi_f16_to_f32(lsi_f16 h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exp = (h >> 10) & 31u;
    const uint32_t man = h & 0x3ffu;
    if (exp == 31)
        return lsi_f32_from_bits(sign | 0x7f800000u | (man << 13));
    if (exp != 0)
        return lsi_f32_from_bits(sign | ((exp + 112u) << 23) | (man << 13));
    const float sub = (float)man * 0x1p-24f; /* subnormal or zero: exact */
    return lsi_f32_from_bits(sign | lsi_f32_bits(sub));
}

/** Round to nearest even; overflow gives infinity; NaN stays NaN. */
static inline lsi_f16 lsi_f16_from_f32(float f)
{
    const uint32_t u = lsi_f32_bits(f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u)
        return (lsi_f16)(sign | 0x7e00u | ((abs >> 13) & 0x3ffu));
    if (abs >= 0x47800000u) /* 65536 and above; 65520..65535.99 round up below */
        return (lsi_f16)(sign | 0x7c00u);
    if (abs < 0x38800000u) { /* below 2^-14: adding 0.5 aligns to units of 2^-24 and rounds to even */
        const float t = lsi_f32_from_bits(abs) + 0.5f;
        return (lsi_f16)(sign | (lsi_f32_bits(t) - 0x3f000000u));
    }
    const uint32_t r = abs + 0xfffu + ((abs >> 13) & 1u);
    return (lsi_f16)(sign | ((r - 0x38000000u) >> 13));
}

#endif

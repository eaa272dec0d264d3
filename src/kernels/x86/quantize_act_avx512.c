/* Activations to 8 bits, a run of 32 in two registers. Same roundings as the reference, so equal bits. */
#include <float.h>
#include <immintrin.h>

#include "kernels/impl.h"

void lsk_quantize_act_avx512(int8_t *q, float *d, float *s, const float *x, size_t n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);

    for (size_t b = 0; b < n / 32; b++) {
        const __m512 x0 = _mm512_loadu_ps(x + 32 * b), x1 = _mm512_loadu_ps(x + 32 * b + 16);
        const __m512i m0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
        const __m512i m1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
        const float scale = lsi_f32_from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1))) / 127.0f;
        const bool usable = scale >= FLT_MIN && scale <= FLT_MAX;
        const __m512 inv = _mm512_set1_ps(usable ? 1.0f / scale : 0.0f);
        const __mmask16 keep = usable ? 0xffff : 0;
        const __m512i q0 = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(x0, inv));
        const __m512i q1 = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(x1, inv));

        _mm_storeu_si128((__m128i *)(q + 32 * b), _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(q + 32 * b + 16), _mm512_cvtepi32_epi8(q1));
        d[b] = scale;
        s[b] = scale * (float)_mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
    }
}

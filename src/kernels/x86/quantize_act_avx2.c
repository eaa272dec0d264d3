/* Activations to 8 bits, a run of 32 in four registers. Same roundings as the reference, so equal bits. */
#include <float.h>
#include <immintrin.h>

#include "kernels/impl.h"

static uint32_t max_u32(__m256i v)
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static int32_t sum_i32(__m256i v)
{
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

void lsk_quantize_act_avx2(int8_t *q, float *d, float *s, const float *x, size_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    /* Packing works in halves of a register: this puts the eight quadruples back in order. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);

    for (size_t b = 0; b < n / 32; b++) {
        __m256i v[4], max = _mm256_setzero_si256();

        for (int i = 0; i < 4; i++) {
            const __m256 xi = _mm256_loadu_ps(x + 32 * b + 8 * i);
            max = _mm256_max_epu32(max, _mm256_and_si256(_mm256_castps_si256(xi), magnitude));
        }
        const float scale = lsi_f32_from_bits(max_u32(max)) / 127.0f;
        const bool usable = scale >= FLT_MIN && scale <= FLT_MAX;
        const __m256 inv = _mm256_set1_ps(usable ? 1.0f / scale : 0.0f);
        const __m256i keep = _mm256_set1_epi32(usable ? -1 : 0);
        for (int i = 0; i < 4; i++) {
            const __m256 xi = _mm256_mul_ps(_mm256_loadu_ps(x + 32 * b + 8 * i), inv);
            v[i] = _mm256_and_si256(_mm256_cvtps_epi32(xi), keep);
        }
        const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(v[0], v[1]), _mm256_add_epi32(v[2], v[3]));
        const __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
        _mm256_storeu_si256((__m256i *)(q + 32 * b), _mm256_permutevar8x32_epi32(bytes, order));
        d[b] = scale;
        s[b] = scale * (float)sum_i32(sum);
    }
}

/* Attention over one page and storing into it, AVX-512. Head sizes that are no multiple of 16 go to the
 * reference. */
#include "kernels/impl.h"

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#include <math.h>

/* 24 sums, 4 operands, 1 broadcast of 32 registers. */
#define ROWS  6
#define KEYS  1
#define SPLIT 4
#define DIMS  4

#include "kernels/x86/attention_formats.h"
#include "kernels/x86/attention_kivi.h"
#include "kernels/x86/attention_bounds.h"

void lsk_attn_f32_avx512(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? f32_attend(a) : lsk_attn_f32_ref(a);
}

void lsk_attn_bf16_avx512(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? bf16_attend(a) : lsk_attn_bf16_ref(a);
}

void lsk_attn_bf16_round_avx512(const struct lsk_attn *a)
{
    lsk_attn_bf16_avx512(a);
}

void lsk_attn_q8_avx512(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? q8_attend(a) : lsk_attn_q8_ref(a);
}

void lsk_attn_tiles_f32_avx512(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? f32_attend_tiles(a) : lsk_attn_tiles_f32_ref(a);
}

void lsk_attn_tiles_bf16_avx512(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? bf16_attend_tiles(a) : lsk_attn_tiles_bf16_ref(a);
}

void lsk_attn_tiles_q8_avx512(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? q8_attend_tiles(a) : lsk_attn_tiles_q8_ref(a);
}

void lsk_attn_scores_f32_avx512(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? f32_score(a) : lsk_attn_scores_f32_ref(a);
}

void lsk_attn_scores_bf16_avx512(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? bf16_score(a) : lsk_attn_scores_bf16_ref(a);
}

void lsk_attn_scores_q8_avx512(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? q8_score(a) : lsk_attn_scores_q8_ref(a);
}

void lsk_attn_bounds_avx512(const struct lsk_attn_scores *a)
{
    a->D % 4 == 0 && a->D <= BOUNDS_MAX_D ? bounds_scores(a) : lsk_attn_bounds_ref(a);
}

void lsk_attn_scores_bf16_round_avx512(const struct lsk_attn_scores *a)
{
    lsk_attn_scores_bf16_avx512(a);
}

void lsk_attn_scores_kivi_avx512(const struct lsk_attn_scores *a)
{
    kivi_score(a);
}

void lsk_attn_kivi_avx512(const struct lsk_attn *a)
{
    kivi_attention(a);
}

void lsk_attn_kivi_round_avx512(const struct lsk_attn *a)
{
    kivi_attention(a);
}

void lsk_kivi_to_bf16_avx512(void *bf16_head, const void *head, struct lsk_kivi f, size_t D)
{
    kivi_to_bf16(bf16_head, head, f, D);
}

void lsk_kv_q8_to_bf16_avx512(void *bf16_head, const void *q8_head, size_t D)
{
    q8_to_bf16(bf16_head, q8_head, D);
}

/* bf16 numbers in 32-bit lanes, rounded to nearest even, a NaN to a NaN. */
static __m512i bf16_lanes(const float *p)
{
    const __m512 x = _mm512_loadu_ps(p);
    const __m512i u = _mm512_castps_si512(x), high = _mm512_srli_epi32(u, 16);
    const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), even);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);

    return _mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), nan, high, _mm512_set1_epi32(64));
}

void lsk_kv_store_bf16_avx512(void *head, size_t D, size_t slot, const float *k, const float *v)
{
    const __m256i apart = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112); /* words of a key's pairs */
    const __mmask32 half = slot % 2 ? 0xaaaaaaaau : 0x55555555u;
    const __m128i shift = _mm_cvtsi32_si128(slot % 2 ? 16 : 0);
    lsi_bf16 *p = head;

    if (D % LSK_TILE != 0) {
        lsk_kv_store_bf16_ref(head, D, slot, k, v);
        return;
    }
    for (size_t d = 0; d < D; d += VEC_LANES) {
        lsi_bf16 *pairs = p + lsk_kv_bf16_v(D, slot / 2 * 2, d);
        _mm256_i32scatter_epi32(p + lsk_kv_bf16_k(D, slot, d), apart,
                                _mm512_cvtepi32_epi16(bf16_lanes(k + d)), 4);
        _mm512_storeu_si512(pairs, _mm512_mask_mov_epi16(_mm512_loadu_si512(pairs), half,
                                                         _mm512_sll_epi32(bf16_lanes(v + d), shift)));
    }
}

/* Attention over one page, AVX2. Head sizes that are no multiple of 16 go to the reference. */
#include "kernels/impl.h"

#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/vec_math.h"

#include <math.h>

/* 8 sums, 2 operands, 1 broadcast of 16 registers. */
#define ROWS  4
#define KEYS  2
#define SPLIT 1
#define DIMS  2

#include "kernels/x86/attention_formats.h"
#include "kernels/x86/attention_kivi.h"
#include "kernels/x86/attention_bounds.h"

void lsk_attn_f32_avx2(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? f32_attend(a) : lsk_attn_f32_ref(a);
}

void lsk_attn_bf16_avx2(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? bf16_attend(a) : lsk_attn_bf16_ref(a);
}

void lsk_attn_bf16_round_avx2(const struct lsk_attn *a)
{
    lsk_attn_bf16_avx2(a);
}

void lsk_attn_q8_avx2(const struct lsk_attn *a)
{
    a->D % LSK_TILE == 0 ? q8_attend(a) : lsk_attn_q8_ref(a);
}

void lsk_attn_tiles_f32_avx2(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? f32_attend_tiles(a) : lsk_attn_tiles_f32_ref(a);
}

void lsk_attn_tiles_bf16_avx2(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? bf16_attend_tiles(a) : lsk_attn_tiles_bf16_ref(a);
}

void lsk_attn_tiles_q8_avx2(const struct lsk_attn_tiles *a)
{
    a->D % LSK_TILE == 0 ? q8_attend_tiles(a) : lsk_attn_tiles_q8_ref(a);
}

void lsk_attn_scores_f32_avx2(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? f32_score(a) : lsk_attn_scores_f32_ref(a);
}

void lsk_attn_scores_bf16_avx2(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? bf16_score(a) : lsk_attn_scores_bf16_ref(a);
}

void lsk_attn_scores_q8_avx2(const struct lsk_attn_scores *a)
{
    a->D % LSK_TILE == 0 ? q8_score(a) : lsk_attn_scores_q8_ref(a);
}

void lsk_attn_bounds_avx2(const struct lsk_attn_scores *a)
{
    a->D % 4 == 0 && a->D <= BOUNDS_MAX_D ? bounds_scores(a) : lsk_attn_bounds_ref(a);
}

void lsk_attn_scores_bf16_round_avx2(const struct lsk_attn_scores *a)
{
    lsk_attn_scores_bf16_avx2(a);
}

void lsk_attn_scores_kivi_avx2(const struct lsk_attn_scores *a)
{
    kivi_score(a);
}

void lsk_attn_kivi_avx2(const struct lsk_attn *a)
{
    kivi_attention(a);
}

void lsk_attn_kivi_round_avx2(const struct lsk_attn *a)
{
    kivi_attention(a);
}

void lsk_kivi_to_bf16_avx2(void *bf16_head, const void *head, struct lsk_kivi f, size_t D)
{
    kivi_to_bf16(bf16_head, head, f, D);
}

void lsk_kv_q8_to_bf16_avx2(void *bf16_head, const void *q8_head, size_t D)
{
    q8_to_bf16(bf16_head, q8_head, D);
}

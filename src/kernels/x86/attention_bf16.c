/* Attention over one page with products of bf16 pairs (AVX512_BF16). */
#include "kernels/impl.h"

#include "kernels/x86/vec_bf16.h"
#include "kernels/x86/vec_math.h"

#include <math.h>

#define ROWS        6
#define KEYS        1
#define SPLIT       4
#define DIMS        4
#define PAIRS_MAX_D 256

#define NAME(x)     pairs_##x
#define FIELDS      2
#define SCALES      0
#define PAIRS       1
#define KEY(w, c)   ((void)(c), vec_as_floats(w))
#define VALUE(w, c) ((void)(c), vec_as_floats(w))
#include "kernels/x86/attention_body.h"

void lsk_attn_bf16_round_bf16(const struct lsk_attn *a)
{
    if (a->D % LSK_TILE == 0 && a->D <= PAIRS_MAX_D)
        pairs_attend(a);
    else
        lsk_attn_bf16_round_avx512(a);
}

void lsk_attn_scores_bf16_round_bf16(const struct lsk_attn_scores *a)
{
    if (a->D % LSK_TILE == 0 && a->D <= PAIRS_MAX_D)
        pairs_score(a);
    else
        lsk_attn_scores_bf16_round_avx512(a);
}

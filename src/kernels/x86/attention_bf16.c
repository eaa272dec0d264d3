/* Attention over one page with products of bf16 pairs (AVX512_BF16). */
#include "kernels/impl.h"

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#include <math.h>
#include <string.h>

/* c + b0 x0 + b1 x1 for the two bf16 numbers of each word. */
static inline vec vec_fma_pairs(vec b, vec x, vec c)
{
    __m512bh b_pairs, x_pairs;

    memcpy(&b_pairs, &b, sizeof b);
    memcpy(&x_pairs, &x, sizeof x);
    return _mm512_dpbf16_ps(c, b_pairs, x_pairs);
}

/* 32 numbers in order, rounded to bf16. */
static inline vec_bits vec_pack_bf16(vec low, vec high)
{
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    vec_bits bits;

    memcpy(&bits, &both, sizeof bits);
    return bits;
}

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

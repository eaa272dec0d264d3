/* Gradient of attention over slots of one page, AVX2. Head sizes that are no multiple of 16 go to the
 * reference. */
#include "kernels/impl.h"

#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/vec_math.h"

#include <math.h>

/* 12 sums, 2 operands, 1 broadcast of 16 registers. */
#define ROWS 6
#define VECS 2

#include "kernels/x86/attention_backward_formats.h"

void lsk_attn_backward_f32_avx2(const struct lsk_attn_backward *a)
{
    a->D % LSK_TILE == 0 ? f32_backward(a, pack_page_f32) : lsk_attn_backward_f32_ref(a);
}

void lsk_attn_backward_bf16_avx2(const struct lsk_attn_backward *a)
{
    a->D % LSK_TILE == 0 ? f32_backward(a, pack_page_bf16) : lsk_attn_backward_bf16_ref(a);
}

void lsk_attn_backward_bf16_round_avx2(const struct lsk_attn_backward *a)
{
    lsk_attn_backward_bf16_avx2(a);
}

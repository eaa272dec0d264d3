/* Gradient of attention over slots of one page with products of bf16 pairs (AVX512_BF16). */
#include "kernels/impl.h"

#include "kernels/x86/vec_bf16.h"
#include "kernels/x86/vec_math.h"

#include <math.h>

/* 24 sums, 4 operands, 1 broadcast of 32 registers. */
#define ROWS    6
#define VECS    4

#define NAME(x) pairs_##x
#define PAIRS   1
#include "kernels/x86/attention_backward_body.h"

/* Two neighbouring words (a0 a1)(b0 b1) become (a0 b0)(a1 b1). */
static uint64_t exchange(uint64_t x)
{
    return (x & 0xffff00000000ffffu) | (x >> 16 & 0xffff0000u) | (x & 0xffff0000u) << 16;
}

/*
 * Keys lie in pairs of dimensions, 16 slots side by side: as columns they are copied, as rows they are wanted
 * in pairs of slots. Values lie in pairs of slots and are wanted in pairs of dimensions. Both go two
 * words at a time.
 */
static void pack_page(const struct pairs_operands *o, const void *head, size_t D, size_t from, size_t to)
{
    const lsi_bf16 *page = head;
    const size_t block = LSK_BACKWARD_SLOTS, word = sizeof(uint32_t);

    for (size_t s = from; s < to; s += LSK_TILE)
        for (size_t pair = 0; pair < D / 2; pair++) {
            const lsi_bf16 *keys = page + lsk_kv_bf16_k(D, s, 2 * pair);
            const size_t column = (s / block * (D / 2) + pair) * block + s % block;
            memcpy(o->k_columns + column, keys, LSK_TILE * word);
            for (size_t i = 0; i < LSK_TILE; i += 2) {
                const size_t row = (s + i) / 2 * D + 2 * pair;
                uint64_t x, y;
                memcpy(&x, keys + 2 * i, sizeof x);
                memcpy(&y, page + lsk_kv_bf16_v(D, s + i, 2 * pair), sizeof y);
                x = exchange(x);
                y = exchange(y);
                memcpy(o->k_rows + row, &x, sizeof x);
                memcpy(o->v_columns + column + i, &y, sizeof y);
            }
        }
}

void lsk_attn_backward_bf16_round_bf16(const struct lsk_attn_backward *a)
{
    a->D % LSK_TILE == 0 ? pairs_backward(a, pack_page) : lsk_attn_backward_bf16_round_ref(a);
}

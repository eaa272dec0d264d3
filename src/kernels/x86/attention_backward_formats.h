/* Gradient of attention in fp32, both formats of pages. The includer has taken the vectors and defined ROWS
 * and VECS. */
#define NAME(x) f32_##x
#define PAIRS   0
#include "kernels/x86/attention_backward_body.h"

static void pack_page_f32(const struct f32_operands *o, const void *head, size_t D, size_t from, size_t to)
{
    const float *page = head;

    for (size_t s = from; s < to; s++) {
        const size_t column = s / LSK_BACKWARD_SLOTS * D * LSK_BACKWARD_SLOTS + s % LSK_BACKWARD_SLOTS;
        for (size_t d = 0; d < D; d++) {
            const float k = page[lsk_kv_f32_k(D, s, d)];
            o->k_columns[column + d * LSK_BACKWARD_SLOTS] = k;
            o->k_rows[s * D + d] = k;
            o->v_columns[column + d * LSK_BACKWARD_SLOTS] = page[lsk_kv_f32_v(D, s, d)];
        }
    }
}

static void pack_page_bf16(const struct f32_operands *o, const void *head, size_t D, size_t from, size_t to)
{
    const lsi_bf16 *page = head;

    for (size_t s = from; s < to; s++) {
        const size_t column = s / LSK_BACKWARD_SLOTS * D * LSK_BACKWARD_SLOTS + s % LSK_BACKWARD_SLOTS;
        for (size_t d = 0; d < D; d++) {
            const float k = lsi_bf16_to_f32(page[lsk_kv_bf16_k(D, s, d)]);
            o->k_columns[column + d * LSK_BACKWARD_SLOTS] = k;
            o->k_rows[s * D + d] = k;
            o->v_columns[column + d * LSK_BACKWARD_SLOTS] = lsi_bf16_to_f32(page[lsk_kv_bf16_v(D, s, d)]);
        }
    }
}

/* Elements of keys and values in a page of numbers that are not packed, for the reference kernels. */
#ifndef LSK_KV_ELEMENT_REF_H
#define LSK_KV_ELEMENT_REF_H

#include "kernels/impl.h"

/* Of a kv head of the page: element d of a slot. */
typedef float lsk_kv_element_fn(const void *head, size_t D, size_t slot, size_t d);

static inline float lsk_ref_f32_key(const void *head, size_t D, size_t slot, size_t d)
{
    return ((const float *)head)[lsk_kv_f32_k(D, slot, d)];
}

static inline float lsk_ref_f32_value(const void *head, size_t D, size_t slot, size_t d)
{
    return ((const float *)head)[lsk_kv_f32_v(D, slot, d)];
}

static inline float lsk_ref_bf16_key(const void *head, size_t D, size_t slot, size_t d)
{
    return lsi_bf16_to_f32(((const lsi_bf16 *)head)[lsk_kv_bf16_k(D, slot, d)]);
}

static inline float lsk_ref_bf16_value(const void *head, size_t D, size_t slot, size_t d)
{
    return lsi_bf16_to_f32(((const lsi_bf16 *)head)[lsk_kv_bf16_v(D, slot, d)]);
}

#endif

/* Writing and reading one slot of a page, and pages from one format to another. Offsets: kv_layout.h. */
#include "kernels/impl.h"

#include <float.h>
#include <math.h>

void lsk_kv_store_f32_ref(void *head, size_t D, size_t slot, const float *k, const float *v)
{
    float *p = head;

    for (size_t d = 0; d < D; d++) {
        p[lsk_kv_f32_k(D, slot, d)] = k[d];
        p[lsk_kv_f32_v(D, slot, d)] = v[d];
    }
}

void lsk_kv_store_bf16_ref(void *head, size_t D, size_t slot, const float *k, const float *v)
{
    lsi_bf16 *p = head;

    for (size_t d = 0; d < D; d++) {
        p[lsk_kv_bf16_k(D, slot, d)] = lsi_bf16_from_f32(k[d]);
        p[lsk_kv_bf16_v(D, slot, d)] = lsi_bf16_from_f32(v[d]);
    }
}

/* The scale that brings the largest magnitude to 127; 0 (and *inv 0) when it is not a normal number. It is
 * rounded before the numbers are: none loses by that. */
static lsi_bf16 q8_scale(const float *x, size_t n, float *inv)
{
    float amax = 0.0f;

    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        amax = a > amax ? a : amax;
    }
    const float scale = lsi_bf16_to_f32(lsi_bf16_from_f32(amax / 127.0f));
    const bool usable = scale >= FLT_MIN && scale <= FLT_MAX;
    *inv = usable ? 1.0f / scale : 0.0f;
    return usable ? lsi_bf16_from_f32(scale) : 0;
}

static int q8_round(float x, float inv)
{
    const float y = x * inv;
    return y >= 127.0f ? 127 : y >= -127.0f ? (int)lrintf(y) : -127; /* a NaN ends as -127 */
}

void lsk_kv_store_q8_ref(void *head, size_t D, size_t slot, const float *k, const float *v)
{
    uint8_t *p = head;
    lsi_bf16 *k_scales = (lsi_bf16 *)(void *)(p + lsk_kv_q8_k_scales(D));
    lsi_bf16 *v_scales = (lsi_bf16 *)(void *)(p + lsk_kv_q8_v_scales(D));

    for (size_t d0 = 0; d0 < D; d0 += LSK_KV_Q8_RUN) {
        const size_t n = D - d0 < LSK_KV_Q8_RUN ? D - d0 : LSK_KV_Q8_RUN, at = lsk_kv_q8_scale(slot, d0);
        float k_inv, v_inv;
        k_scales[at] = q8_scale(k + d0, n, &k_inv);
        v_scales[at] = q8_scale(v + d0, n, &v_inv);
        for (size_t d = d0; d < d0 + n; d++) {
            p[lsk_kv_q8_k(D, slot, d)] = (uint8_t)(128 + q8_round(k[d], k_inv));
            p[lsk_kv_q8_v(D, slot, d)] = (uint8_t)q8_round(v[d], v_inv);
        }
    }
}

/* ---- reading ------------------------------------------------------------------ */

void lsk_kv_load_f32_ref(const void *head, size_t D, size_t slot, float *k, float *v)
{
    const float *p = head;

    for (size_t d = 0; k && d < D; d++)
        k[d] = p[lsk_kv_f32_k(D, slot, d)];
    for (size_t d = 0; v && d < D; d++)
        v[d] = p[lsk_kv_f32_v(D, slot, d)];
}

void lsk_kv_load_bf16_ref(const void *head, size_t D, size_t slot, float *k, float *v)
{
    const lsi_bf16 *p = head;

    for (size_t d = 0; k && d < D; d++)
        k[d] = lsi_bf16_to_f32(p[lsk_kv_bf16_k(D, slot, d)]);
    for (size_t d = 0; v && d < D; d++)
        v[d] = lsi_bf16_to_f32(p[lsk_kv_bf16_v(D, slot, d)]);
}

void lsk_kv_load_q8_ref(const void *head, size_t D, size_t slot, float *k, float *v)
{
    const uint8_t *p = head;
    const lsi_bf16 *k_scales = (const lsi_bf16 *)(const void *)(p + lsk_kv_q8_k_scales(D));
    const lsi_bf16 *v_scales = (const lsi_bf16 *)(const void *)(p + lsk_kv_q8_v_scales(D));

    for (size_t d = 0; k && d < D; d++)
        k[d] =
            (float)(p[lsk_kv_q8_k(D, slot, d)] - 128) * lsi_bf16_to_f32(k_scales[lsk_kv_q8_scale(slot, d)]);
    for (size_t d = 0; v && d < D; d++)
        v[d] =
            (float)(int8_t)p[lsk_kv_q8_v(D, slot, d)] * lsi_bf16_to_f32(v_scales[lsk_kv_q8_scale(slot, d)]);
}

void lsk_kv_q8_to_bf16_ref(void *bf16_head, const void *q8_head, size_t D)
{
    const uint8_t *p = q8_head;
    const lsi_bf16 *k_scales = (const lsi_bf16 *)(const void *)(p + lsk_kv_q8_k_scales(D));
    const lsi_bf16 *v_scales = (const lsi_bf16 *)(const void *)(p + lsk_kv_q8_v_scales(D));
    lsi_bf16 *out = bf16_head;

    for (size_t s = 0; s < LSK_PAGE; s++)
        for (size_t d = 0; d < D; d++) {
            const size_t at = lsk_kv_q8_scale(s, d);
            const float k = (float)(p[lsk_kv_q8_k(D, s, d)] - 128) * lsi_bf16_to_f32(k_scales[at]);
            const float v = (float)(int8_t)p[lsk_kv_q8_v(D, s, d)] * lsi_bf16_to_f32(v_scales[at]);
            out[lsk_kv_bf16_k(D, s, d)] = lsi_bf16_from_f32(k);
            out[lsk_kv_bf16_v(D, s, d)] = lsi_bf16_from_f32(v);
        }
}

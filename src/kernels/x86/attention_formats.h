/* attention_body.h for each stored format: f32_attend, bf16_attend, q8_attend. */
#define NAME(x)     f32_##x
#define FIELDS      1
#define SCALES      0
#define PAIRS       0
#define KEY(w, c)   ((void)(c), vec_as_floats(w))
#define VALUE(w, c) ((void)(c), vec_as_floats(w))
#include "kernels/x86/attention_body.h"

#define NAME(x)     bf16_##x
#define FIELDS      2
#define SCALES      0
#define PAIRS       0
#define KEY(w, c)   ((c) ? vec_bf16_high(w) : vec_bf16_low(w))
#define VALUE(w, c) ((c) ? vec_bf16_high(w) : vec_bf16_low(w))
#include "kernels/x86/attention_body.h"

#define NAME(x)     q8_##x
#define FIELDS      4
#define SCALES      1
#define PAIRS       0
#define KEY(w, c)   vec_byte(vec_flip_bytes(w), c)
#define VALUE(w, c) vec_byte(w, c)
#include "kernels/x86/attention_body.h"

/*
 * A head of a q8 page as bf16. A word of 4 keys' dimensions (or 4 slots' values) becomes two words
 * of 2, in two rows of the other layout, `step` bytes apart; scale[c] is for field c.
 */
static void q8_word_to_bf16(unsigned char *to, size_t step, vec_bits w, const vec scale[4])
{
    for (int c = 0; c < 4; c += 2)
        vec_store_words(to + (size_t)c / 2 * step, vec_bf16_words(vec_mul(vec_byte(w, c), scale[c]),
                                                                  vec_mul(vec_byte(w, c + 1), scale[c + 1])));
}

/* Dimensions d0 .. end - 1 of all slots, which share scales. */
static void q8_run_to_bf16(unsigned char *to, const unsigned char *from, size_t D, size_t d0, size_t end)
{
    const unsigned char *k_scales = from + lsk_kv_q8_k_scales(D);
    const lsi_bf16 *v_scales = (const lsi_bf16 *)(const void *)(from + lsk_kv_q8_v_scales(D));
    vec scale[4];

    for (size_t s = 0; s < LSK_PAGE; s += VEC_LANES) {
        for (size_t c = 0; c < 4; c++)
            scale[c] = q8_scale(k_scales, s, d0);
        for (size_t d = d0; d < end; d += 4)
            q8_word_to_bf16(to + 2 * lsk_kv_bf16_k(D, s, d), 64,
                            vec_flip_bytes(vec_words(from + lsk_kv_q8_k(D, s, d))), scale);
    }
    for (size_t s = 0; s < LSK_PAGE; s += 4) {
        for (size_t c = 0; c < 4; c++)
            scale[c] = vec_set(lsi_bf16_to_f32(v_scales[lsk_kv_q8_scale(s + c, d0)]) / VEC_BYTE_ONE);
        for (size_t d = d0; d < end; d += VEC_LANES)
            q8_word_to_bf16(to + 2 * lsk_kv_bf16_v(D, s, d), 4 * D, vec_words(from + lsk_kv_q8_v(D, s, d)),
                            scale);
    }
}

static void q8_to_bf16(void *bf16_head, const void *q8_head, size_t D)
{
    for (size_t d = 0; d < D; d += LSK_KV_Q8_RUN)
        q8_run_to_bf16(bf16_head, q8_head, D, d, d + LSK_KV_Q8_RUN < D ? d + LSK_KV_Q8_RUN : D);
}

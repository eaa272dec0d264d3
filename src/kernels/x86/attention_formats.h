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
 * of 2, in two rows of the other layout.
 */
static void q8_to_bf16(void *bf16_head, const void *q8_head, size_t D)
{
    const unsigned char *from = q8_head;
    const float *k_scales = (const float *)(const void *)(from + lsk_kv_q8_scales(D));
    unsigned char *to = bf16_head;

    for (size_t s = 0; s < LSK_PAGE; s += VEC_LANES) {
        const vec scale = vec_mul(vec_load(k_scales + s), vec_set(1.0f / VEC_BYTE_ONE));
        const size_t in = s / LSK_TILE * LSK_TILE * D + s % LSK_TILE * 4;
        const size_t out = s / LSK_TILE * LSK_TILE * D * 2 + s % LSK_TILE * 4;
        for (size_t i = 0; i < D / 4; i++) {
            const vec_bits w = vec_flip_bytes(vec_words(from + in + i * 64));
            for (int c = 0; c < 4; c += 2)
                vec_store_words(
                    to + out + (2 * i + (size_t)c / 2) * 64,
                    vec_bf16_words(vec_mul(vec_byte(w, c), scale), vec_mul(vec_byte(w, c + 1), scale)));
        }
    }
    from += LSK_PAGE * D;
    to += LSK_PAGE * D * 2;
    for (size_t s = 0; s < LSK_PAGE; s += 4) {
        vec scale[4];
        for (size_t c = 0; c < 4; c++)
            scale[c] = vec_set(k_scales[LSK_PAGE + s + c] / VEC_BYTE_ONE);
        for (size_t d = 0; d < D; d += VEC_LANES) {
            const vec_bits w = vec_words(from + s * D + 4 * d);
            for (int c = 0; c < 4; c += 2)
                vec_store_words(to + (s / 2 + (size_t)c / 2) * 4 * D + 4 * d,
                                vec_bf16_words(vec_mul(vec_byte(w, c), scale[c]),
                                               vec_mul(vec_byte(w, c + 1), scale[c + 1])));
        }
    }
}

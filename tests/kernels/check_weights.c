/* Weight kernels: dequantise, quantise, products with stored types. */
#include "kt.h"

#include <math.h>
#include <string.h>

void check_quantize_act(struct kt *k)
{
    static const size_t sizes[] = { 0, 32, 64, 96, 576, 640 };
    lsk_quantize_act_fn *ref = (lsk_quantize_act_fn *)kt_ref(k), *fn;

    while ((fn = (lsk_quantize_act_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < KT_LEN(sizes) * KT_N_FILLS; i++) {
            const size_t n = sizes[i % KT_LEN(sizes)], nb = n / 32;
            const float *x = kt_f32(k, n, (enum kt_fill)(i / KT_LEN(sizes)));
            int8_t *q = kt_bytes(k, n), *want_q = kt_bytes(k, n);
            float *d = kt_f32(k, nb, KT_FILL), *want_d = kt_f32(k, nb, KT_FILL);
            float *s = kt_f32(k, nb, KT_FILL), *want_s = kt_f32(k, nb, KT_FILL);

            ref(want_q, want_d, want_s, x, n);
            fn(q, d, s, x, n);
            kt_equal(k, q, want_q, n, "q");
            kt_near(k, d, want_d, nb, 0.0, 0.0, "d");
            kt_near(k, s, want_s, nb, 0.0, 0.0, "s");
            kt_reset(k);
        }
    }
}

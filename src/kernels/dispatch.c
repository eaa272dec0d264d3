/* Filling the kernel table. Compiled for the plainest processor of the architecture. */
#include "kernels/impl.h"

void lsk_table_init(struct lsk_table *t, uint64_t features)
{
#define LSK_IMPL(op, isa, bits)                            \
    if ((features & (uint64_t)(bits)) == (uint64_t)(bits)) \
        t->op = lsk_##op##_##isa;
#include "kernels/kernels.def"
#undef LSK_IMPL
}

/* X(dtype, its name in operations) */
#define QUANTISED(X) \
    X(Q8_0, q8_0)    \
    X(Q4_0, q4_0)    \
    X(Q4_1, q4_1)    \
    X(Q5_0, q5_0)    \
    X(Q5_1, q5_1)    \
    X(Q4_K, q4_k)    \
    X(Q5_K, q5_k)    \
    X(Q6_K, q6_k)
#define WEIGHTS(X) \
    X(F32, f32)    \
    X(F16, f16)    \
    X(BF16, bf16)  \
    QUANTISED(X)
#define LOOKUP(family, types)                                                             \
    lsk_##family##_fn *lsk_table_##family(const struct lsk_table *t, enum lsi_dtype type) \
    {                                                                                     \
        switch (type) {                                                                   \
            types(CASE_##family) default : return NULL;                                   \
        }                                                                                 \
    }
#define CASE_dequant(dtype, name) \
    case LSI_##dtype:             \
        return t->dequant_##name;
#define CASE_dequant_bf16(dtype, name) \
    case LSI_##dtype:                  \
        return t->dequant_bf16_##name;
#define CASE_quantize(dtype, name) \
    case LSI_##dtype:              \
        return t->quantize_##name;
#define CASE_matvec_f32(dtype, name) \
    case LSI_##dtype:                \
        return t->matvec_f32_##name;
#define CASE_matvec_q8(dtype, name) \
    case LSI_##dtype:               \
        return t->matvec_q8_##name;

LOOKUP(dequant, WEIGHTS)
LOOKUP(dequant_bf16, WEIGHTS)
LOOKUP(quantize, WEIGHTS)
LOOKUP(matvec_f32, WEIGHTS)
LOOKUP(matvec_q8, QUANTISED)

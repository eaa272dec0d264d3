/* Filling the kernel table. Compiled for the plainest processor of the architecture. */
#include "kernels/impl.h"

void lsk_table_init(struct lsk_table *t, uint64_t features)
{
#define LSK_IMPL(op, isa, bits)                                                                              \
    if ((features & (uint64_t)(bits)) == (uint64_t)(bits))                                                   \
        t->op = lsk_##op##_##isa;
#include "kernels/kernels.def"
#undef LSK_IMPL
}

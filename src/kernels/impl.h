/* Prototypes of every implementation in kernels.def: included by the files that define them. */
#ifndef LSK_IMPL_H
#define LSK_IMPL_H

#include "kernels/kernels.h"

#define LSK_OP(op, type) typedef type lsk_type_##op;
#include "kernels/ops.def"
#undef LSK_OP

#define LSK_IMPL(op, isa, bits) lsk_type_##op lsk_##op##_##isa;
#include "kernels/kernels.def"
#undef LSK_IMPL

#endif

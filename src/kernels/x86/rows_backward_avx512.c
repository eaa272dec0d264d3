/* Gradients of row operations, AVX-512. */
#include "kernels/impl.h"

#include <math.h>
#include <string.h>

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#define NAME(op) lsk_##op##_avx512
#include "kernels/x86/rows_backward_body.h"

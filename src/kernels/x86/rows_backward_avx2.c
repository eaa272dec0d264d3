/* Gradients of row operations, AVX2. */
#include "kernels/impl.h"

#include <math.h>
#include <string.h>

#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/vec_math.h"

#define NAME(op) lsk_##op##_avx2
#include "kernels/x86/rows_backward_body.h"

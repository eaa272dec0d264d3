/* Kernels of the optimizer, AVX-512. */
#include "kernels/impl.h"
#include "kernels/dynamic8.h"

#include <math.h>
#include <string.h>

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#define NAME(op) lsk_##op##_avx512
#include "kernels/x86/optimizer_body.h"

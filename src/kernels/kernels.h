/*
 * Kernels: leaves of the computation. Fixed operation, raw pointers, no
 * allocation, no threads, no errors. Each typedef is the contract of an operation for
 * every implementation of it; kernels.def lists the implementations; ref/ holds
 * the definition that the others are tested against.
 *
 * Unless a contract says otherwise: any size including 0, no alignment needed,
 * nothing outside the stated extents is read or written.
 */
#ifndef LSK_KERNELS_H
#define LSK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/numbers.h"

/* ---- processor features ------------------------------------------------------ */

/* X(name, bit). A bit is set only if the processor and the operating system both support it. */
#define LSK_CPU_LIST(X)                  \
    X(AVX2, 0)                           \
    X(FMA, 1)                            \
    X(F16C, 2)                           \
    X(AVX512, 3) /* F, BW, DQ, VL, CD */ \
    X(VNNI, 4)   /* AVX512_VNNI */       \
    X(BF16, 5)   /* AVX512_BF16 */       \
    X(VBMI, 6)   /* AVX512_VBMI */       \
    X(AVXVNNI, 7)                        \
    X(AMX, 8) /* AMX_TILE, AMX_BF16, AMX_INT8, permission granted by the kernel */

enum {
#define LSK_CPU_ENUM(name, bit) LSK_CPU_##name = 1 << (bit),
    LSK_CPU_LIST(LSK_CPU_ENUM)
#undef LSK_CPU_ENUM
};

/** What this machine has, after LS_CPU (environment: ref, avx2, avx512, native) has been applied. */
uint64_t lsk_cpu_features(void);
/** What this machine has, whatever the environment says. */
uint64_t lsk_cpu_detect(void);
/** Parse a level name (ref, avx2, avx512, native) to a mask; false when unknown. */
bool lsk_cpu_mask_from_name(const char *name, uint64_t *mask);

/* ---- weights: rows of n elements, n a multiple of the type's block --------------- */

/** y[n] = values of one stored row. One operation per type: dequant_q4_0 … */
typedef void lsk_dequant_fn(float *y, const void *row, size_t n);
/** The same, rounded to bf16 (nearest even). dequant_bf16_q4_0 … */
typedef void lsk_dequant_bf16_fn(lsi_bf16 *y, const void *row, size_t n);
/** One stored row from x[n] values (export). One operation per type: quantize_q4_0 … */
typedef void lsk_quantize_fn(void *row, const float *x, size_t n);

/*
 * Activations in 8 bits: per run of 32 a scale d = max|x| / 127, q = round(x / d),
 * and s = d * sum(q) for types with an offset. n is a multiple of 32.
 */
struct lsk_q8 {
    int8_t *q; /* [n]      */
    float *d;  /* [n / 32] */
    float *s;  /* [n / 32] */
};
typedef void lsk_quantize_act_fn(int8_t *q, float *d, float *s, const float *x, size_t n);

#define LSK_MATVEC_ROWS 8 /* most input rows of one matvec call */

/**
 * y[r * ldy + o] = sum_i w[o][i] x[r][i], for o < n_out, r < n_rows (1..LSK_MATVEC_ROWS).
 *
 * w  n_out rows of n_in elements in a stored type, row_bytes apart.
 * x  [n_rows][ldx] fp32. Products are formed from the dequantised weight in fp32.
 * A value y[r][o] is the same bits whatever n_out, n_rows and the position in a call:
 * the order of its sum is a function of n_in alone.
 */
typedef void lsk_matvec_f32_fn(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out,
                               const float *x, size_t ldx, size_t n_rows, size_t n_in);

/** The same with 8-bit activations: integer sums per 32, scaled and added in fp32. */
typedef void lsk_matvec_q8_fn(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out,
                              const struct lsk_q8 *x /* [n_rows] */, size_t n_rows, size_t n_in);

/* ---- the table ----------------------------------------------------------------------
 *
 * ops.def      LSK_OP(op, typedef)            one row per operation: makes the struct
 * kernels.def  LSK_IMPL(op, isa, cpu bits)    one row per implementation, plainest first;
 *                                             function lsk_<op>_<isa>; the last usable row wins
 */
#include "kernels/rows.h"
#include "kernels/optimizer.h"
#include "kernels/attention.h"
#include "kernels/dense.h"
#include "kernels/attention_backward.h"

struct lsk_table {
#define LSK_OP(op, type) type *op;
#include "kernels/ops.def"
#undef LSK_OP
};

/** Fill a table with the best implementation for a feature mask. */
void lsk_table_init(struct lsk_table *t, uint64_t features);

/** The kernel that dequantises (multiplies) a type; NULL for types that are not weights. */
lsk_dequant_fn *lsk_table_dequant(const struct lsk_table *t, enum lsi_dtype type);
lsk_dequant_bf16_fn *lsk_table_dequant_bf16(const struct lsk_table *t, enum lsi_dtype type);
lsk_quantize_fn *lsk_table_quantize(const struct lsk_table *t, enum lsi_dtype type);
lsk_matvec_f32_fn *lsk_table_matvec_f32(const struct lsk_table *t, enum lsi_dtype type);
/** NULL for F32, F16, BF16: their products are formed in fp32. */
lsk_matvec_q8_fn *lsk_table_matvec_q8(const struct lsk_table *t, enum lsi_dtype type);

#endif

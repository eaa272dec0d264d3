/*
 * Packing and products of packed operands.
 *
 * A block of 8 x 48 results is in registers while its sum runs; the panel of the smaller operand is the one
 * that changes fastest, so that the other, which may lie far away, is read once. A chunk of the sum is short
 * enough for a panel of A to stay in the first cache and for what one task packs to stay in the second.
 */
#include "backend/gemm_packed.h"

#include <string.h>

#define LANES 8   /* rows that are turned at a time */
#define DEALT 192 /* values that are brought to fp32 at a time; whole panels */
#define AHEAD 16  /* rows */
#define RUN   256 /* units of a row that are turned at a time */

bool lsi_gemm_packed_wins(uint64_t features)
{
#ifdef LSI_HAVE_ONEDNN
    return (features & LSK_CPU_BF16) && !(features & LSK_CPU_AMX); /* the library knows AMX, we do not */
#else
    (void)features;
    return true;
#endif
}

/* Sums of fp32 values are cut at half the length: shorter runs round less, and fp32 is the mode of reference.
 */
size_t lsi_gemm_chunk(enum lsi_gemm_kind kind, size_t n)
{
    const size_t most = kind == LSI_GEMM_BF16 ? 2 * LSI_GEMM_CHUNK : LSI_GEMM_CHUNK / 2;
    const size_t even = lsi_div_up(n, lsi_max_size(1, lsi_div_up(n, most)));
    return lsi_round_up(lsi_max_size(1, even), 256);
}

static const char *element(const struct lsi_gemm_matrix *m, size_t row, size_t col)
{
    return (const char *)m->data + row * m->row_bytes +
           col / lsi_dtype_block(m->dtype) * lsi_dtype_block_bytes(m->dtype);
}

/* n values of a row as the kind has them: fp32, or fp32 that bf16 can hold. */
static void load_values(const struct lsk_table *k, enum lsi_gemm_kind kind, float *y, const void *row,
                        enum lsi_dtype dtype, size_t n)
{
    if (kind == LSI_GEMM_F32) {
        lsk_table_dequant(k, dtype)(y, row, n);
        return;
    }
    lsi_bf16 h[RUN];
    for (size_t i = 0; i < n; i += RUN) { /* a multiple of every type's block */
        const size_t run = lsi_min_size(RUN, n - i);
        const char *from = (const char *)row + i / lsi_dtype_block(dtype) * lsi_dtype_block_bytes(dtype);
        lsk_table_dequant_bf16(k, dtype)(h, from, run);
        lsk_table_dequant(k, LSI_BF16)(y + i, h, run);
    }
}

/* Up to LANES rows, from column col0 on, brought to units [LANES][RUN]; a lone last value gets a zero. */
static void load_rows(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t (*units)[RUN],
                      const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows, size_t col0, size_t n_cols)
{
    for (size_t r = 0; r < n_rows; r++) {
        const char *row = element(m, row0 + r, col0);
        if (kind == LSI_GEMM_BF16) {
            lsi_bf16 *h = (lsi_bf16 *)(void *)units[r];
            lsk_table_dequant_bf16(k, m->dtype)(h, row, n_cols);
            if (n_cols % 2)
                h[n_cols] = 0;
        } else {
            load_values(k, kind, (float *)(void *)units[r], row, m->dtype, n_cols);
        }
    }
}

/* Eight lanes of n_cols values: straight from rows whose stored values are units already or need but
 * rounding. */
static bool turn_stored(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t width,
                        const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows, size_t col0,
                        size_t n_cols)
{
    const void *from = element(m, row0, col0);
    if (((uintptr_t)from | m->row_bytes) % sizeof(uint32_t))
        return false;
    const size_t ld = m->row_bytes / sizeof(uint32_t);
    if (m->dtype == LSI_F32 && kind == LSI_GEMM_BF16)
        k->gemm_turn_f32(out, width, from, ld, n_rows, n_cols);
    else if (m->dtype == LSI_F32 && kind == LSI_GEMM_F32)
        k->gemm_turn(out, width, from, ld, n_rows, n_cols);
    else if (m->dtype == LSI_BF16 && kind == LSI_GEMM_BF16 && n_cols % 2 == 0)
        k->gemm_turn(out, width, from, ld, n_rows, n_cols / 2);
    else
        return false;
    return true;
}

void lsi_gemm_pack_along(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t panel,
                         size_t width, const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows,
                         size_t col0, size_t n_cols)
{
    const size_t run = kind == LSI_GEMM_BF16 ? 2 * RUN : RUN;
    uint32_t units[LANES][RUN];
    for (size_t i = 0; i < lsi_round_up(n_rows, width); i += LANES) {
        const size_t lanes = i < n_rows ? lsi_min_size(LANES, n_rows - i) : 0;
        uint32_t *to = out + i / width * panel + i % width;
        if (lanes && turn_stored(k, kind, to, width, m, row0 + i, lanes, col0, n_cols))
            continue;
        for (size_t c = 0; c < n_cols; c += run) {
            const size_t n = lsi_min_size(run, n_cols - c);
            load_rows(k, kind, units, m, row0 + i, lanes, col0 + c, n);
            k->gemm_turn(to + lsi_gemm_units(kind, c) * width, width, units[0], RUN, lanes,
                         lsi_gemm_units(kind, n));
        }
    }
}

/* Part of a row is too short for the processor to see that the next row's follows: it is asked for ahead. */
static void fetch(const char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(from + i);
}

static void pack_pairs_down(const struct lsk_table *k, uint32_t *out, size_t panel, size_t width,
                            const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows, size_t col0,
                            size_t n_cols)
{
    const size_t bytes = n_cols * lsi_dtype_block_bytes(m->dtype);
    const char *first = element(m, row0, col0);
    for (size_t r = 0; r < n_rows; r += 2, first += 2 * m->row_bytes, out += width) {
        const char *second = r + 1 < n_rows ? first + m->row_bytes : NULL;
        if (r + AHEAD + 1 < n_rows) {
            fetch(first + AHEAD * m->row_bytes, bytes);
            fetch(first + (AHEAD + 1) * m->row_bytes, bytes);
        }
        if (m->dtype == LSI_F32)
            k->gemm_pair_f32(out, panel, width, (const void *)first, (const void *)second, n_cols);
        else
            k->gemm_pair_bf16(out, panel, width, (const void *)first, (const void *)second, n_cols);
    }
}

/* n values to consecutive panels, the last lanes of the last one zero. */
static void deal(uint32_t *out, size_t panel, size_t width, const float *values, size_t n)
{
    for (size_t c = 0; c < n; c += width, out += panel) {
        const size_t lanes = lsi_min_size(width, n - c);
        if (lanes < width)
            memset(out + lanes, 0, (width - lanes) * sizeof *out);
        if (lanes == LSK_GEMM_M) /* of a size known here: not a call */
            memcpy(out, values + c, LSK_GEMM_M * sizeof *out);
        else
            memcpy(out, values + c, lanes * sizeof *out);
    }
}

static void pack_values_down(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t panel,
                             size_t width, const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows,
                             size_t col0, size_t n_cols)
{
    float values[DEALT];
    const size_t size = lsi_dtype_block_bytes(m->dtype);
    for (size_t r = 0; r < n_rows; r++, out += width) {
        const char *row = element(m, row0 + r, col0);
        if (r + AHEAD < n_rows)
            fetch(row + AHEAD * m->row_bytes, n_cols * size);
        for (size_t c = 0; c < n_cols; c += DEALT) {
            const size_t n = lsi_min_size(DEALT, n_cols - c);
            const bool as_stored = kind == LSI_GEMM_F32 && m->dtype == LSI_F32;
            if (!as_stored)
                load_values(k, kind, values, row + c * size, m->dtype, n);
            deal(out + c / width * panel, panel, width, as_stored ? (const void *)(row + c * size) : values,
                 n);
        }
    }
}

void lsi_gemm_pack_down(const struct lsk_table *k, enum lsi_gemm_kind kind, uint32_t *out, size_t panel,
                        size_t width, const struct lsi_gemm_matrix *m, size_t row0, size_t n_rows,
                        size_t col0, size_t n_cols)
{
    LSI_ASSERT(m->dtype == LSI_F32 || m->dtype == LSI_BF16);
    if (kind == LSI_GEMM_BF16)
        pack_pairs_down(k, out, panel, width, m, row0, n_rows, col0, n_cols);
    else
        pack_values_down(k, kind, out, panel, width, m, row0, n_rows, col0, n_cols);
}

void lsi_gemm_multiply(const struct lsk_table *k, enum lsi_gemm_kind kind, float *C, size_t ldc, size_t M,
                       size_t N, struct lsi_gemm_panels A, struct lsi_gemm_panels B, size_t n_units,
                       float scale, bool add)
{
    lsk_gemm_fn *block = kind == LSI_GEMM_BF16 ? k->gemm_bf16 : k->gemm_f32;
    const size_t m_panels = lsi_div_up(M, LSK_GEMM_M), n_panels = lsi_div_up(N, LSK_GEMM_N);
    const bool b_fastest = M > N;
    for (size_t i = 0; i < m_panels * n_panels; i++) {
        const size_t mp = b_fastest ? i / n_panels : i % m_panels;
        const size_t np = b_fastest ? i % n_panels : i / m_panels;
        const size_t m0 = mp * LSK_GEMM_M, n0 = np * LSK_GEMM_N;
        block(C + m0 * ldc + n0, ldc, A.data + mp * A.panel, B.data + np * B.panel, n_units,
              lsi_min_size(LSK_GEMM_M, M - m0), lsi_min_size(LSK_GEMM_N, N - n0), scale, add);
    }
}

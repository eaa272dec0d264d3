/*
 * Products of activations with weights on the CPU.
 *
 * Few rows: each output row of a weight is multiplied where it lies, in the type it is stored in
 * (matvec kernels); reading the weights is the cost. Many rows: tiles of weight
 * rows are brought to bf16 or fp32 in scratch and a dense product does the rest;
 * a tile is used for all rows at once, so the conversion is paid once per block.
 *
 *     W [n_out][n_in]   tile t = rows [t*N, t*N + N)        one task
 *     y [n_rows][n_out]          columns of the tile, all rows
 *
 * Tiles depend on the shape of the weight alone and no sum is split between tasks:
 * results do not depend on the number of threads.
 */
#include "backend/cpu.h"

#include <string.h>

#define MAX_GROUP 8 /* products that share an input */
_Static_assert(2 * MAX_GROUP <= LSI_GEMM_KEPT, "no shape of a group may push out another of it");

#define MATVEC_TASK_BYTES 16384 /* weights of one task: a microsecond or so of memory traffic */
#define MATVEC_TASK_ROWS  256   /* most output rows of a task; bounds the buffer on the stack */

/* Rows up to which matvec kernels beat bringing the weights to bf16 (or fp32) and a dense product:
 * `longspan bench -p 8,12,16,17,20,24,25`, SmolLM2-135M Q4_1, two threads with AVX-512 and AMX. With 8-bit
 * activations 16 rows take 24 ms, 24 take 35, dense 25 take 26; in fp32 8 take 33, 12 take 41, dense 17
 * take 38. */
#define MATVEC_MAX_ROWS_Q8  16
#define MATVEC_MAX_ROWS_F32 8

/* Output columns of a dense task: wide enough to reuse the activations, narrow enough that a
 * square 576 matrix still gives every thread work. */
static size_t dense_tile(size_t n_out)
{
    return n_out >= 1024 ? 192 : 96;
}

#define DENSE_TILE_MAX 192

/* Our own products read packed operands: rows of a task, which shares the packed activations with others and
 * packs its own weights. */
#define PACKED_ROWS 1024
#define PACK_ROWS   16 /* of a packing task */

struct linear_job {
    const struct lsi_cpu *cpu;
    const struct lsi_linear *out;
    size_t n_out; /* products of the group */
    size_t n_rows, n_in;
    const float *x; /* [n_rows][ldx] */
    size_t ldx;
    /* matvec */
    const struct lsk_q8 *q8; /* [n_rows] or NULL */
    const float *x_bf16_f32; /* [n_rows][n_in] values rounded to bf16, or NULL */
    /* dense */
    bool bf16;
    const void *x_dense;       /* [n_rows][n_in] bf16, or NULL for x itself */
    float *const *products;    /* [n_threads] finished tiles */
    void *const *tiles;        /* [n_threads] dequantised weights */
    int handles[MAX_GROUP][2]; /* per product: whole tile, last tile */
    size_t task_rows[MAX_GROUP];
    /* packed */
    enum lsi_gemm_kind kind;
    uint32_t *x_packed; /* panels of 8 rows */
    size_t x_panel;
};

static size_t n_tasks(const struct linear_job *j)
{
    size_t n = 0;
    for (size_t i = 0; i < j->n_out; i++)
        n += lsi_div_up(j->out[i].w->n_out, j->task_rows[i]);
    return n;
}

/* Which product and which rows of it a task is. */
static const struct lsi_linear *find_task(const struct linear_job *j, size_t task, size_t *product,
                                          size_t *row0, size_t *rows)
{
    for (size_t i = 0;; i++) {
        const size_t total = j->out[i].w->n_out, n = lsi_div_up(total, j->task_rows[i]);
        if (task < n) {
            *product = i;
            *row0 = task * j->task_rows[i];
            *rows = lsi_min_size(j->task_rows[i], total - *row0);
            return &j->out[i];
        }
        task -= n;
    }
}

static const char *weight_row(const struct lsi_weight *w, size_t row)
{
    return (const char *)w->data + row * w->row_bytes;
}

static void matvec_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct linear_job *j = ctx;
    size_t product, row0, rows;
    const struct lsi_linear *o = find_task(j, task, &product, &row0, &rows);
    const struct lsi_weight *w = o->w;
    float buf[LSK_MATVEC_ROWS * MATVEC_TASK_ROWS];
    const bool direct = !o->accumulate && !o->bias;

    for (size_t r0 = 0; r0 < j->n_rows; r0 += LSK_MATVEC_ROWS) {
        const size_t n = lsi_min_size(LSK_MATVEC_ROWS, j->n_rows - r0);
        float *out = o->y + r0 * o->ldy + row0;
        float *y = direct ? out : buf;
        const size_t ldy = direct ? o->ldy : MATVEC_TASK_ROWS;
        if (j->q8 && lsi_dtype_is_quantized(w->dtype)) {
            lsk_table_matvec_q8(&j->cpu->kernels, w->dtype)(y, ldy, weight_row(w, row0), w->row_bytes, rows,
                                                            j->q8 + r0, n, j->n_in);
        } else {
            const float *x = j->x_bf16_f32 ? j->x_bf16_f32 + r0 * j->n_in : j->x + r0 * j->ldx;
            lsk_table_matvec_f32(&j->cpu->kernels, w->dtype)(y, ldy, weight_row(w, row0), w->row_bytes, rows,
                                                             x, j->x_bf16_f32 ? j->n_in : j->ldx, n, j->n_in);
        }
        for (size_t r = 0; !direct && r < n; r++)
            for (size_t i = 0; i < rows; i++) {
                const float v = y[r * ldy + i] + (o->bias ? o->bias[row0 + i] : 0);
                out[r * o->ldy + i] = o->accumulate ? out[r * o->ldy + i] + v : v;
            }
    }
}

static struct lsi_gemm_shape dense_shape(const struct linear_job *j, size_t rows)
{
    return (struct lsi_gemm_shape){
        .M = j->n_rows,
        .N = rows,
        .K = j->n_in,
        .lda = j->x_dense ? j->n_in : j->ldx,
        .ldb = j->n_in,
        .bf16 = j->bf16,
    };
}

/* A finished tile [n_rows][rows] to its columns of y. */
static void store_tile(const struct linear_job *j, const struct lsi_linear *o, const float *tile, size_t row0,
                       size_t rows)
{
    const float *bias = o->bias ? o->bias + row0 : NULL;
    for (size_t r = 0; r < j->n_rows; r++) {
        float *y = o->y + r * o->ldy + row0;
        const float *from = tile + r * rows;
        if (o->accumulate)
            for (size_t i = 0; i < rows; i++)
                y[i] += from[i];
        else
            memcpy(y, from, rows * sizeof *y);
        for (size_t i = 0; bias && i < rows; i++)
            y[i] += bias[i];
    }
}

static void dense_task(void *ctx, size_t task, int thread)
{
    const struct linear_job *j = ctx;
    size_t product, row0, rows;
    const struct lsi_linear *o = find_task(j, task, &product, &row0, &rows);
    const struct lsi_weight *w = o->w;
    const void *tile = j->tiles[thread];
    const enum lsi_dtype plain = j->bf16 ? LSI_BF16 : LSI_F32;

    if (w->dtype == plain && (uintptr_t)w->data % (j->bf16 ? 2 : 4) == 0) {
        tile = weight_row(w, row0);
    } else if (j->bf16) {
        lsi_bf16 *t = j->tiles[thread];
        for (size_t i = 0; i < rows; i++)
            lsk_table_dequant_bf16(&j->cpu->kernels, w->dtype)(t + i * j->n_in, weight_row(w, row0 + i),
                                                               j->n_in);
    } else {
        float *t = j->tiles[thread];
        for (size_t i = 0; i < rows; i++)
            lsk_table_dequant(&j->cpu->kernels, w->dtype)(t + i * j->n_in, weight_row(w, row0 + i), j->n_in);
    }

    const struct lsi_gemm_shape s = dense_shape(j, rows);
    const int handle = j->handles[product][rows != j->task_rows[product]];
    lsi_gemm_run(j->cpu->gemm, handle, thread, &s, j->products[thread], j->x_dense ? j->x_dense : j->x, tile);
    store_tile(j, o, j->products[thread], row0, rows);
}

struct round_job {
    const struct lsk_table *kernels;
    const float *x;
    lsi_bf16 *y;
    size_t n_in, ldx;
    size_t rows_per_task, n_rows;
};

static void round_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct round_job *j = ctx;
    const size_t end = lsi_min_size(j->n_rows, (task + 1) * j->rows_per_task);
    for (size_t r = task * j->rows_per_task; r < end; r++)
        lsk_table_dequant_bf16(j->kernels, LSI_F32)(j->y + r * j->n_in, j->x + r * j->ldx, j->n_in);
}

static void run_dense(struct lsi_exec *ex, struct linear_job *j)
{
    struct lsi_cpu *cpu = ex->state;
    j->bf16 = ex->compute != LSI_COMPUTE_FP32 && cpu->bf16_products;
    if (ex->compute != LSI_COMPUTE_FP32) {
        lsi_bf16 *x = lsi_arena_take(&ex->scratch, j->n_rows * j->n_in, sizeof *x);
        struct round_job round = { &cpu->kernels, j->x, x, j->n_in, j->ldx, 16, j->n_rows };
        lsi_parallel(ex->pool, lsi_div_up(j->n_rows, round.rows_per_task), round_task, &round);
        j->x_dense = x;
        if (!j->bf16) { /* no bf16 products here: the same rounded values, in fp32 */
            float *xf = lsi_arena_take(&ex->scratch, j->n_rows * j->n_in, sizeof *xf);
            lsk_table_dequant(&cpu->kernels, LSI_BF16)(xf, x, j->n_rows * j->n_in);
            j->x_dense = xf;
        }
    }
    void *tiles[LSI_MAX_THREADS];
    float *products[LSI_MAX_THREADS];
    for (int t = 0; t < ex->n_threads; t++) {
        tiles[t] = lsi_arena_take(&ex->scratch, DENSE_TILE_MAX * j->n_in, sizeof(float));
        products[t] = lsi_arena_take(&ex->scratch, DENSE_TILE_MAX * j->n_rows, sizeof(float));
    }
    j->tiles = tiles;
    j->products = products;
    for (size_t i = 0; i < j->n_out; i++) {
        const size_t total = j->out[i].w->n_out;
        j->task_rows[i] = dense_tile(total);
        for (int last = 0; last < 2; last++) {
            const size_t rows = last ? total % j->task_rows[i] : lsi_min_size(j->task_rows[i], total);
            if (rows == 0 || (!last && total < j->task_rows[i]))
                continue;
            const struct lsi_gemm_shape s = dense_shape(j, rows);
            j->handles[i][last] = lsi_gemm_prepare(cpu->gemm, &s);
        }
    }
    lsi_parallel(ex->pool, n_tasks(j), dense_task, j);
}

static void pack_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct linear_job *j = ctx;
    const struct lsi_gemm_matrix x = { j->x, LSI_F32, j->ldx * sizeof *j->x };
    const size_t r0 = task * PACK_ROWS, n = lsi_min_size(PACK_ROWS, j->n_rows - r0);
    lsi_gemm_pack_along(&j->cpu->kernels, j->kind, j->x_packed + r0 / LSK_GEMM_M * j->x_panel, j->x_panel,
                        LSK_GEMM_M, &x, r0, n, 0, j->n_in);
}

static void add_bias(float *y, size_t ldy, const float *bias, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n; i++)
            y[r * ldy + i] += bias[i];
}

/* A tile of columns of a block of rows: the tile's weights are packed a chunk of the sum at a time. */
static void packed_task(void *ctx, size_t task, int thread)
{
    const struct linear_job *j = ctx;
    const struct lsk_table *kernels = &j->cpu->kernels;
    const size_t r0 = task / n_tasks(j) * PACKED_ROWS, n_rows = lsi_min_size(PACKED_ROWS, j->n_rows - r0);
    size_t product, row0, rows;
    const struct lsi_linear *o = find_task(j, task % n_tasks(j), &product, &row0, &rows);
    const struct lsi_gemm_matrix w = { o->w->data, o->w->dtype, o->w->row_bytes };
    const size_t chunk = lsi_gemm_chunk(j->kind, j->n_in);
    const uint32_t *x = j->x_packed + r0 / LSK_GEMM_M * j->x_panel;
    float *y = o->y + r0 * o->ldy + row0;
    for (size_t k0 = 0; k0 < j->n_in; k0 += chunk) {
        const size_t n = lsi_min_size(chunk, j->n_in - k0), units = lsi_gemm_units(j->kind, n);
        const struct lsi_gemm_panels A = { x + lsi_gemm_units(j->kind, k0) * LSK_GEMM_M, j->x_panel };
        const struct lsi_gemm_panels B = { j->tiles[thread], units * LSK_GEMM_N };
        lsi_gemm_pack_along(kernels, j->kind, j->tiles[thread], B.panel, LSK_GEMM_N, &w, row0, rows, k0, n);
        lsi_gemm_multiply(kernels, j->kind, y, o->ldy, n_rows, rows, A, B, units, 1, o->accumulate || k0 > 0);
    }
    if (o->bias)
        add_bias(y, o->ldy, o->bias + row0, n_rows, rows);
}

static void run_packed(struct lsi_exec *ex, struct linear_job *j)
{
    void *tiles[LSI_MAX_THREADS];
    j->kind = lsi_cpu_gemm_kind(ex);
    j->x_panel = lsi_gemm_units(j->kind, j->n_in) * LSK_GEMM_M;
    j->x_packed =
        lsi_arena_take(&ex->scratch, lsi_div_up(j->n_rows, LSK_GEMM_M) * j->x_panel, sizeof *j->x_packed);
    for (int t = 0; t < ex->n_threads; t++)
        tiles[t] = lsi_arena_take(&ex->scratch, LSI_GEMM_CHUNK * DENSE_TILE_MAX, sizeof(uint32_t));
    j->tiles = tiles;
    for (size_t i = 0; i < j->n_out; i++)
        j->task_rows[i] = dense_tile(j->out[i].w->n_out);
    lsi_parallel(ex->pool, lsi_div_up(j->n_rows, PACK_ROWS), pack_task, j);
    lsi_parallel(ex->pool, n_tasks(j) * lsi_div_up(j->n_rows, PACKED_ROWS), packed_task, j);
}

static void run_matvec(struct lsi_exec *ex, struct linear_job *j, bool q8)
{
    const struct lsi_cpu *cpu = ex->state;
    if (q8) {
        struct lsk_q8 *x = lsi_arena_take(&ex->scratch, j->n_rows, sizeof *x);
        for (size_t r = 0; r < j->n_rows; r++) {
            x[r].q = lsi_arena_take(&ex->scratch, j->n_in, 1);
            x[r].d = lsi_arena_take(&ex->scratch, j->n_in / 32, sizeof(float));
            x[r].s = lsi_arena_take(&ex->scratch, j->n_in / 32, sizeof(float));
            cpu->kernels.quantize_act(x[r].q, x[r].d, x[r].s, j->x + r * j->ldx, j->n_in);
        }
        j->q8 = x;
    } else if (ex->compute == LSI_COMPUTE_BF16) {
        lsi_bf16 *b = lsi_arena_take(&ex->scratch, j->n_in, sizeof *b);
        float *x = lsi_arena_take(&ex->scratch, j->n_rows * j->n_in, sizeof *x);
        for (size_t r = 0; r < j->n_rows; r++) {
            lsk_table_dequant_bf16(&cpu->kernels, LSI_F32)(b, j->x + r * j->ldx, j->n_in);
            lsk_table_dequant(&cpu->kernels, LSI_BF16)(x + r * j->n_in, b, j->n_in);
        }
        j->x_bf16_f32 = x;
    }
    for (size_t i = 0; i < j->n_out; i++) {
        const size_t rows = MATVEC_TASK_BYTES / lsi_max_size(1, j->out[i].w->row_bytes) / 16 * 16;
        j->task_rows[i] = lsi_min_size(lsi_max_size(rows, 16), MATVEC_TASK_ROWS);
    }
    lsi_parallel_split(ex->pool, n_tasks(j), matvec_task, j);
}

void lsi_cpu_linear(struct lsi_exec *ex, const struct lsi_linear *out, size_t n_out, const float *x,
                    size_t n_rows, size_t ldx)
{
    LSI_ASSERT(n_out > 0 && n_out <= MAX_GROUP);
    struct linear_job j = { .cpu = ex->state,
                            .out = out,
                            .n_out = n_out,
                            .n_rows = n_rows,
                            .n_in = out[0].w->n_in,
                            .x = x,
                            .ldx = ldx };
    /* 8-bit activations serve the quantised weights of a group; the others of it stay in fp32. */
    bool q8 = false;
    for (size_t i = 0; i < n_out; i++)
        q8 = q8 || (ex->compute == LSI_COMPUTE_AUTO && lsi_dtype_is_quantized(out[i].w->dtype));
    if (lsi_cpu_few(ex, n_rows, q8 ? MATVEC_MAX_ROWS_Q8 : MATVEC_MAX_ROWS_F32))
        run_matvec(ex, &j, q8);
    else if (lsi_cpu_packs(ex))
        run_packed(ex, &j);
    else
        run_dense(ex, &j);
}

size_t lsi_cpu_linear_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out)
{
    (void)n_out;
    struct lsi_arena a = { 0 };
    /* dense: rounded activations, perhaps in fp32 as well; weights and results of a tile for each thread */
    lsi_arena_take(&a, n_rows * n_in, sizeof(lsi_bf16));
    lsi_arena_take(&a, n_rows * n_in, sizeof(float));
    for (int t = 0; t < ex->n_threads; t++) {
        lsi_arena_take(&a, DENSE_TILE_MAX * n_in, sizeof(float));
        lsi_arena_take(&a, DENSE_TILE_MAX * n_rows, sizeof(float));
    }
    size_t dense = a.used;
    /* packed: activations, and a chunk of a tile of weights for each thread */
    a = (struct lsi_arena){ 0 };
    lsi_arena_take(&a, lsi_round_up(n_rows, LSK_GEMM_M) * n_in, sizeof(uint32_t));
    for (int t = 0; t < ex->n_threads; t++)
        lsi_arena_take(&a, LSI_GEMM_CHUNK * DENSE_TILE_MAX, sizeof(uint32_t));
    dense = lsi_max_size(dense, a.used);
    /* matvec: 8-bit rows with their scales */
    a = (struct lsi_arena){ 0 };
    const size_t rows = lsi_min_size(n_rows, MATVEC_MAX_ROWS_Q8);
    lsi_arena_take(&a, rows, sizeof(struct lsk_q8));
    for (size_t r = 0; r < rows; r++) {
        lsi_arena_take(&a, n_in, 1);
        lsi_arena_take(&a, n_in / 32, sizeof(float));
        lsi_arena_take(&a, n_in / 32, sizeof(float));
    }
    return lsi_max_size(dense, a.used);
}

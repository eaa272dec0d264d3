/*
 * Gradients of products on the CPU.
 *
 *     dx [n_rows][n_in]  = dy W        sum over outputs:  A = dy by rows,     B = W down its columns
 *     dW [n_out][n_in]  += dy^T x      sum over rows:     A = dy by columns,  B = x down its columns
 *
 * No operand is transposed in memory: the kernels take pairs of the summed index, and pairs of rows are as
 * good as pairs of columns. Two parallel regions:
 *
 *     1  x packed for every dW of the group, dy for dx: what several tasks read
 *     2  tiles of dx (columns of it; the tile's columns of every W are packed on the way, a chunk of rows at
 * a time) and tiles of dW (rows of it; the tile's columns of dy are packed on the way)
 *
 * Rows, and outputs where a group has many, are taken in pieces: what is packed of a piece has a size that
 * neither a long sequence nor a large vocabulary changes. Pieces and tiles depend on shapes alone and a sum
 * is never split between tasks: any number of threads gives the same bits.
 */
#include "backend/cpu.h"

#define MAX_GROUP    8    /* products that share an input */
#define PIECE_ROWS   2048 /* whole tasks of dx */
#define PIECE_OUT    8192 /* outputs of a group that are packed at a time */
#define TILE_MAX     192  /* columns of dx, rows of dW of a task */
#define DX_ROWS      1024 /* most rows of a task of dx */
#define PACK_X_ROWS  64   /* of a packing task; even, so that pairs do not straddle */
#define PACK_DY_ROWS 16   /* whole panels */

struct backward_job {
    const struct lsk_table *kernels;
    const struct lsi_linear_grad *grads;
    size_t n_grads;
    float *dx;
    size_t lddx;
    bool accumulate;
    struct lsi_gemm_matrix x;
    size_t n_rows, n_in;
    float scale;
    enum lsi_gemm_kind kind;
    uint32_t *x_packed; /* panels of 48 columns, or NULL */
    size_t x_panel;
    uint32_t *dy_packed[MAX_GROUP]; /* panels of 8 rows */
    size_t dy_panel[MAX_GROUP];
    uint32_t *const *buffers; /* [n_threads] what a task packs for itself */
    size_t n_first;           /* tasks of the first kind in a region */
};

/* Wide enough to reuse what is packed for a tile, narrow enough that a square 576 matrix gives
 * every thread work. */
static size_t tile_of(size_t n)
{
    return n >= 1024 ? TILE_MAX : TILE_MAX / 2;
}

static struct lsi_gemm_matrix dy_of(const struct lsi_linear_grad *g)
{
    return (struct lsi_gemm_matrix){ g->dy, LSI_F32, g->lddy * sizeof *g->dy };
}

static void pack_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct backward_job *j = ctx;
    if (task < j->n_first) {
        const size_t r0 = task * PACK_X_ROWS, n = lsi_min_size(PACK_X_ROWS, j->n_rows - r0);
        uint32_t *to = j->x_packed + lsi_gemm_units(j->kind, r0) * LSK_GEMM_N;
        lsi_gemm_pack_down(j->kernels, j->kind, to, j->x_panel, LSK_GEMM_N, &j->x, r0, n, 0, j->n_in);
        return;
    }
    const size_t r0 = (task - j->n_first) * PACK_DY_ROWS, n = lsi_min_size(PACK_DY_ROWS, j->n_rows - r0);
    for (size_t i = 0; i < j->n_grads; i++) {
        const struct lsi_gemm_matrix dy = dy_of(&j->grads[i]);
        lsi_gemm_pack_along(j->kernels, j->kind, j->dy_packed[i] + r0 / LSK_GEMM_M * j->dy_panel[i],
                            j->dy_panel[i], LSK_GEMM_M, &dy, r0, n, 0, j->grads[i].w->n_out);
    }
}

/* Rows row0 .. and columns col0 .. of dx: a chunk of each weight's rows after the other. */
static void dx_tile(const struct backward_job *j, size_t row0, size_t n_rows, size_t col0, size_t n_cols,
                    uint32_t *buffer)
{
    float *dx = j->dx + row0 * j->lddx + col0;
    bool add = j->accumulate;
    for (size_t i = 0; i < j->n_grads; i++) {
        const struct lsi_weight *w = j->grads[i].w;
        const struct lsi_gemm_matrix stored = { w->data, w->dtype, w->row_bytes };
        const size_t chunk = lsi_gemm_chunk(j->kind, w->n_out);
        const uint32_t *dy = j->dy_packed[i] + row0 / LSK_GEMM_M * j->dy_panel[i];
        for (size_t k0 = 0; k0 < w->n_out; k0 += chunk, add = true) {
            const size_t n = lsi_min_size(chunk, w->n_out - k0), units = lsi_gemm_units(j->kind, n);
            const struct lsi_gemm_panels A = { dy + lsi_gemm_units(j->kind, k0) * LSK_GEMM_M,
                                               j->dy_panel[i] };
            const struct lsi_gemm_panels B = { buffer, units * LSK_GEMM_N };
            lsi_gemm_pack_down(j->kernels, j->kind, buffer, B.panel, LSK_GEMM_N, &stored, k0, n, col0,
                               n_cols);
            lsi_gemm_multiply(j->kernels, j->kind, dx, j->lddx, n_rows, n_cols, A, B, units, j->scale, add);
        }
    }
}

static void add_bias(const struct backward_job *j, const struct lsi_linear_grad *g, size_t row0, size_t n)
{
    float sum[TILE_MAX] = { 0 };
    for (size_t r = 0; r < j->n_rows; r++)
        for (size_t o = 0; o < n; o++)
            sum[o] += g->dy[r * g->lddy + row0 + o];
    for (size_t o = 0; o < n; o++)
        g->dbias[row0 + o] += j->scale * sum[o];
}

/* Rows row0 .. of dW, all columns. */
static void dw_tile(const struct backward_job *j, const struct lsi_linear_grad *g, size_t row0, size_t n,
                    uint32_t *buffer)
{
    const struct lsi_gemm_matrix dy = dy_of(g);
    const size_t chunk = lsi_gemm_chunk(j->kind, j->n_rows);
    for (size_t k0 = 0; k0 < j->n_rows; k0 += chunk) {
        const size_t rows = lsi_min_size(chunk, j->n_rows - k0), units = lsi_gemm_units(j->kind, rows);
        const struct lsi_gemm_panels A = { buffer, units * LSK_GEMM_M };
        const struct lsi_gemm_panels B = { j->x_packed + lsi_gemm_units(j->kind, k0) * LSK_GEMM_N,
                                           j->x_panel };
        lsi_gemm_pack_down(j->kernels, j->kind, buffer, A.panel, LSK_GEMM_M, &dy, k0, rows, row0, n);
        lsi_gemm_multiply(j->kernels, j->kind, g->dw + row0 * j->n_in, j->n_in, n, j->n_in, A, B, units,
                          j->scale, true);
    }
}

static size_t n_weight_tasks(const struct lsi_linear_grad *g)
{
    return g->dw || g->dbias ? lsi_div_up(g->w->n_out, tile_of(g->w->n_out)) : 0;
}

static void product_task(void *ctx, size_t task, int thread)
{
    const struct backward_job *j = ctx;
    if (task < j->n_first) {
        const size_t tile = tile_of(j->n_in), n_tiles = lsi_div_up(j->n_in, tile);
        const size_t row0 = task / n_tiles * DX_ROWS, col0 = task % n_tiles * tile;
        dx_tile(j, row0, lsi_min_size(DX_ROWS, j->n_rows - row0), col0, lsi_min_size(tile, j->n_in - col0),
                j->buffers[thread]);
        return;
    }
    task -= j->n_first;
    const struct lsi_linear_grad *g = j->grads;
    for (; task >= n_weight_tasks(g); g++)
        task -= n_weight_tasks(g);
    const size_t tile = tile_of(g->w->n_out), row0 = task * tile, n = lsi_min_size(tile, g->w->n_out - row0);
    if (g->dw)
        dw_tile(j, g, row0, n, j->buffers[thread]);
    if (g->dbias)
        add_bias(j, g, row0, n);
}

/* Operands in scratch and where they begin. */
static void take_packed(struct lsi_exec *ex, struct backward_job *j, bool want_dw)
{
    if (want_dw) {
        j->x_panel = lsi_gemm_units(j->kind, j->n_rows) * LSK_GEMM_N;
        j->x_packed =
            lsi_arena_take(&ex->scratch, lsi_div_up(j->n_in, LSK_GEMM_N) * j->x_panel, sizeof *j->x_packed);
    }
    for (size_t i = 0; j->dx && i < j->n_grads; i++) {
        j->dy_panel[i] = lsi_gemm_units(j->kind, j->grads[i].w->n_out) * LSK_GEMM_M;
        j->dy_packed[i] = lsi_arena_take(&ex->scratch, lsi_div_up(j->n_rows, LSK_GEMM_M) * j->dy_panel[i],
                                         sizeof *j->dy_packed[i]);
    }
}

/* The gradients of one piece; j holds what the caller gave. */
static void run_piece(struct lsi_exec *ex, struct backward_job *j)
{
    uint32_t *buffers[LSI_MAX_THREADS];
    size_t n_tasks = 0;
    bool want_dw = false;
    for (size_t i = 0; i < j->n_grads; i++) {
        want_dw = want_dw || j->grads[i].dw;
        n_tasks += n_weight_tasks(&j->grads[i]);
    }
    ex->scratch.used = 0;
    take_packed(ex, j, want_dw);
    for (int t = 0; t < ex->n_threads; t++)
        buffers[t] = lsi_arena_take(&ex->scratch, LSI_GEMM_CHUNK * TILE_MAX, sizeof *buffers[t]);
    j->buffers = buffers;

    j->n_first = want_dw ? lsi_div_up(j->n_rows, PACK_X_ROWS) : 0;
    lsi_parallel(ex->pool, j->n_first + (j->dx ? lsi_div_up(j->n_rows, PACK_DY_ROWS) : 0), pack_task, j);
    j->n_first = j->dx ? lsi_div_up(j->n_in, tile_of(j->n_in)) * lsi_div_up(j->n_rows, DX_ROWS) : 0;
    lsi_parallel(ex->pool, j->n_first + n_tasks, product_task, j);
}

/* Outputs first .. first + n - 1 of a product. */
static struct lsi_linear_grad outputs(const struct lsi_linear_grad *g, struct lsi_weight *w, size_t first,
                                      size_t n)
{
    struct lsi_linear_grad part = *g;
    *w = *g->w;
    w->data = (const char *)w->data + first * w->row_bytes;
    w->n_out = n;
    part.w = w;
    part.dy += first;
    if (part.dw)
        part.dw += first * w->n_in;
    if (part.dbias)
        part.dbias += first;
    return part;
}

/* Some rows: the group at once, or each product's outputs a piece at a time. */
static void run_rows(struct lsi_exec *ex, struct backward_job j)
{
    const struct lsi_linear_grad *grads = j.grads;
    const size_t n_grads = j.n_grads;
    size_t n_out = 0;
    for (size_t i = 0; i < n_grads; i++)
        n_out += grads[i].w->n_out;
    if (n_out <= PIECE_OUT) {
        run_piece(ex, &j);
        return;
    }
    for (size_t i = 0; i < n_grads; i++)
        for (size_t first = 0; first < grads[i].w->n_out; first += PIECE_OUT) {
            struct lsi_weight w;
            const struct lsi_linear_grad part =
                outputs(&grads[i], &w, first, lsi_min_size(PIECE_OUT, grads[i].w->n_out - first));
            j.grads = &part;
            j.n_grads = 1;
            run_piece(ex, &j);
            j.accumulate = true;
        }
}

void lsi_cpu_linear_backward(struct lsi_exec *ex, const struct lsi_linear_grad *grads, size_t n_grads,
                             float *dx, size_t lddx, bool accumulate, const float *x, size_t ldx,
                             size_t n_rows, float scale)
{
    LSI_ASSERT(n_grads > 0 && n_grads <= MAX_GROUP);
    for (size_t row = 0; row < n_rows; row += PIECE_ROWS) {
        struct lsi_linear_grad part[MAX_GROUP];
        for (size_t i = 0; i < n_grads; i++) {
            part[i] = grads[i];
            part[i].dy += row * grads[i].lddy;
        }
        run_rows(ex, (struct backward_job){ .kernels = lsi_cpu_kernels(ex),
                                            .grads = part,
                                            .n_grads = n_grads,
                                            .dx = dx ? dx + row * lddx : NULL,
                                            .lddx = lddx,
                                            .accumulate = accumulate,
                                            .x = { x + row * ldx, LSI_F32, ldx * sizeof *x },
                                            .n_rows = lsi_min_size(PIECE_ROWS, n_rows - row),
                                            .n_in = grads[0].w->n_in,
                                            .scale = scale,
                                            .kind = lsi_cpu_gemm_kind(ex) });
    }
}

/* As for fp32 units, the larger ones. */
size_t lsi_cpu_linear_backward_scratch(const struct lsi_exec *ex, size_t n_rows, size_t n_in, size_t n_out)
{
    const size_t rows = lsi_min_size(n_rows, PIECE_ROWS), out = lsi_min_size(n_out, PIECE_OUT);
    struct lsi_arena a = { 0 };
    lsi_arena_take(&a, lsi_round_up(n_in, LSK_GEMM_N) * rows, sizeof(uint32_t));
    lsi_arena_take(&a, lsi_round_up(rows, LSK_GEMM_M) * out, sizeof(uint32_t));
    for (int i = 1; i < MAX_GROUP; i++) /* what aligning each product's part can cost */
        lsi_arena_take(&a, 1, 1);
    for (int t = 0; t < ex->n_threads; t++)
        lsi_arena_take(&a, LSI_GEMM_CHUNK * TILE_MAX, sizeof(uint32_t));
    return a.used;
}

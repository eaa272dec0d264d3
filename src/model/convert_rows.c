#include <string.h>

#include "model/convert_impl.h"

#define CHUNK_BYTES ((size_t)4 << 20) /* of output at a time */
#define TASK_ROWS   16

ls_status lsi_convert_check_cancel(const struct lsi_convert *cv)
{
    if (cv->o.cancel && *cv->o.cancel)
        return lsi_fail(cv->err, LS_E_CANCELED, "the conversion to %s was cancelled", cv->out);
    return LS_OK;
}

void lsi_convert_progress(struct lsi_convert *cv)
{
    cv->n_done++;
    if (cv->o.progress)
        cv->o.progress(cv->o.progress_user, cv->n_done, cv->n_tensors);
}

/* The row that row r comes from when the order of rows changes. */
static size_t reordered(enum lsi_row_order order, size_t D, size_t r)
{
    const size_t head = r / D * D, i = r % D, half = D / 2;
    switch (order) {
    case LSI_ROWS_INTERLEAVE:
        return head + (i % 2) * half + i / 2;
    case LSI_ROWS_SPLIT:
        return head + (i % half) * 2 + i / half;
    case LSI_ROWS_SAME:
        break;
    }
    return r;
}

/* A run of rows on the way from the file to a buffer. */
struct run {
    const struct lsi_convert_tensor *t;
    size_t D, first, n;
    size_t src_row, out_row; /* bytes */
    bool copy;               /* the bytes stay as they are */
    lsk_dequant_fn *dequant;
    lsk_quantize_fn *quantize;
    float *values; /* [n_threads][cols] */
    unsigned char *out;
};

static void convert_row(const struct run *run, size_t r, float *values)
{
    const struct lsi_convert_tensor *t = run->t;
    const size_t from = reordered(t->order, run->D, run->first + r);
    const unsigned char *src = t->src.data + from * run->src_row;
    unsigned char *out = run->out + r * run->out_row;
    if (run->copy) {
        memcpy(out, src, run->out_row);
        return;
    }
    run->dequant(values, src, t->cols);
    for (size_t i = 0; t->add != 0 && i < t->cols; i++)
        values[i] += t->add;
    if (t->edit) {
        const enum lsi_row_order to_halves = t->pairs ? LSI_ROWS_INTERLEAVE : LSI_ROWS_SAME;
        t->edit->apply(t->edit->user, t->role, t->layer, reordered(to_halves, run->D, from), values);
    }
    run->quantize(out, values, t->cols);
}

static void convert_task(void *ctx, size_t task, int thread)
{
    const struct run *run = ctx;
    const size_t end = lsi_min_size(run->n, (task + 1) * TASK_ROWS);
    for (size_t r = task * TASK_ROWS; r < end; r++)
        convert_row(run, r, run->values + (size_t)thread * run->t->cols);
}

static ls_status copy_all(struct lsi_convert *cv, const struct lsi_convert_tensor *t, lsi_write_fn *write,
                          void *to)
{
    for (size_t at = 0; at < t->src.bytes; at += CHUNK_BYTES) {
        LSI_TRY(lsi_convert_check_cancel(cv));
        write(to, t->src.data + at, lsi_min_size(CHUNK_BYTES, t->src.bytes - at));
    }
    return LS_OK;
}

ls_status lsi_convert_rows(struct lsi_convert *cv, const struct lsi_convert_tensor *t, lsi_write_fn *write,
                           void *to)
{
    struct run run = { .t = t,
                       .D = cv->m->config.D,
                       .copy = t->dtype == t->src.dtype && t->add == 0 && !t->edit };
    ls_status st = LS_OK;

    if (run.copy && t->order == LSI_ROWS_SAME)
        return copy_all(cv, t, write, to);
    run.dequant = lsk_table_dequant(&cv->kernels, t->src.dtype);
    run.quantize = lsk_table_quantize(&cv->kernels, t->dtype);
    if (!run.copy && (!run.dequant || !run.quantize))
        return lsi_fail(cv->err, LS_E_UNSUPPORTED, "tensor %s cannot be converted from %s to %s", t->name,
                        t->src.dtype_name, lsi_dtype_name(t->dtype));
    if (!lsi_dtype_row_bytes(t->src.dtype, t->cols, &run.src_row) ||
        !lsi_dtype_row_bytes(t->dtype, t->cols, &run.out_row))
        return lsi_fail(cv->err, LS_E_UNSUPPORTED,
                        "tensor %s has rows of %zu values, which do not fit blocks of %s", t->name, t->cols,
                        lsi_dtype_name(t->dtype));

    const size_t chunk_rows = lsi_min_size(t->rows, lsi_max_size(1, CHUNK_BYTES / run.out_row));
    const size_t values_bytes = (size_t)cv->n_threads * t->cols * sizeof(float);
    run.values = lsi_alloc(cv->alloc, values_bytes);
    run.out = lsi_alloc(cv->alloc, chunk_rows * run.out_row);
    if (!run.values || !run.out)
        st = lsi_fail(cv->err, LS_E_NOMEM, "out of memory converting tensor %s", t->name);
    for (run.first = 0; st == LS_OK && run.first < t->rows; run.first += run.n) {
        run.n = lsi_min_size(chunk_rows, t->rows - run.first);
        st = lsi_convert_check_cancel(cv);
        if (st != LS_OK)
            break;
        lsi_parallel(cv->pool, lsi_div_up(run.n, TASK_ROWS), convert_task, &run);
        write(to, run.out, run.n * run.out_row);
    }
    lsi_free(cv->alloc, run.values, values_bytes);
    lsi_free(cv->alloc, run.out, chunk_rows * run.out_row);
    return st;
}

/*
 * The gradients of one sequence (training.md 7).
 *
 *   forward    layers ascending, blocks ascending: the input of each layer, or of every N-th, is kept (tier),
 *              the output of the last lies in `rows`
 *   loss       pieces of the valid rows: logits, loss, gradients of the head; `rows` becomes the gradient of
 *              the last layer's output
 *   replay     where not every layer's input is kept: forward again from one that is to the next (inner)
 *   backward   layers descending: keys and values of all rows, then blocks descending, each replayed and
 *              differentiated; `rows` becomes the gradient of the layer's input in place
 *
 * Only the tier, inner inputs, `rows`, keys and values of one layer and their gradients grow with the
 * sequence.
 */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>

struct sweep {
    struct lsi_sequence_job *j;
    ls_trainer *t;
    struct lsi_exec *ex;
    const struct lsi_config *c;
    struct lsi_train_memory *m;
    const struct lsi_train_settings *s;
    const ls_train_sequence *seq;
    size_t n, n_blocks;
    size_t row_bytes;
    bool keep_inputs; /* for a backward pass */
    bool stepping;    /* parameters are being stepped: what has begun is finished */
    bool ends_only;   /* the first and the last block of the first and the last layer: a dry step */
};

static struct sweep begin(struct lsi_sequence_job *j, bool keep_inputs)
{
    ls_trainer *t = j->t;
    struct sweep w = { .j = j, .t = t, .ex = &t->exec, .c = &t->model.config, .m = &t->memory };
    w.s = &t->settings;
    w.seq = j->seq;
    w.n = j->seq->n;
    w.n_blocks = lsi_n_pieces(w.n, w.s->block);
    w.row_bytes = w.m->tier.row_bytes;
    w.keep_inputs = keep_inputs;
    w.ends_only = t->o.dry_step;
    lsi_train_cache_begin(&w.m->cache, j->seq);
    return w;
}

static size_t first_row(const struct sweep *w, size_t block)
{
    return block * w->s->block;
}

static size_t n_rows(const struct sweep *w, size_t block)
{
    return lsi_min_size(w->s->block, w->n - first_row(w, block));
}

/* A dry step leaves out what lies between the ends. */
static bool leaves_out(const struct sweep *w, size_t i, size_t n)
{
    return w->ends_only && i > 0 && i + 1 < n;
}

static ls_status tick(struct sweep *w, size_t work, ls_error *err)
{
    ls_trainer *t = w->t;
    t->rows_done += work;
    if (t->o.on_rows)
        t->o.on_rows(t->o.user, t->rows_done, t->rows_total);
    if (t->o.cancel && *t->o.cancel && !w->stepping)
        return lsi_fail(err, LS_E_CANCELED, "the step was cancelled");
    return LS_OK;
}

static unsigned char *last_rows(const struct sweep *w, size_t row)
{
    return w->m->rows + row * w->row_bytes;
}

/* Layers from one whose input is in the tier to the next such are a group. */
static size_t first_of_group(const struct sweep *w, size_t layer)
{
    return layer - layer % w->s->every;
}

static bool in_tier(const struct sweep *w, size_t layer)
{
    return layer % w->s->every == 0;
}

static unsigned char *inner_rows(const struct sweep *w, size_t layer, size_t row)
{
    return w->m->inner + ((layer % w->s->every - 1) * w->s->seq + row) * w->row_bytes;
}

/* The input of a layer outlives the forward pass: a checkpoint, or within the last group. */
static bool is_kept(const struct sweep *w, size_t layer)
{
    return in_tier(w, layer) || first_of_group(w, layer) == first_of_group(w, w->c->L - 1);
}

/* Where the forward pass leaves the input of a layer: where the backward pass finds it, or on its way through
 * `rows`. */
static void *layer_rows(const struct sweep *w, size_t layer, size_t row)
{
    if (!w->keep_inputs || layer >= w->c->L || !is_kept(w, layer) ||
        (in_tier(w, layer) && w->m->tier.in_file))
        return last_rows(w, row);
    return in_tier(w, layer) ? lsi_tier_at(&w->m->tier, layer / w->s->every, row) : inner_rows(w, layer, row);
}

static void put_rows(struct sweep *w, size_t layer, size_t row, const float *x, size_t n)
{
    void *to = layer_rows(w, layer, row);
    lsi_op_rows_store(w->ex, to, w->s->row_dtype, x, n, w->c->C);
    if (w->keep_inputs && w->m->tier.in_file && layer < w->c->L && in_tier(w, layer))
        lsi_tier_write(&w->m->tier, layer / w->s->every, row, n, to);
}

/* ---- forward ------------------------------------------------------------------------------- */

static ls_status forward_layer(struct sweep *w, size_t layer, ls_error *err)
{
    struct lsi_activations *a = w->s->keep && w->keep_inputs ? &w->m->kept[layer] : &w->m->forward;
    for (size_t i = 0; i < w->n_blocks; i++) {
        const size_t row = first_row(w, i), n = n_rows(w, i);
        if (leaves_out(w, i, w->n_blocks))
            continue;
        lsi_op_rows_load(w->ex, a->x, layer_rows(w, layer, row), w->s->row_dtype, n, w->c->C);
        w->m->cache.base.length = row;
        lsi_block_forward(w->ex, &w->t->model, layer, a, n, &w->m->cache.base);
        put_rows(w, layer + 1, row, a->x, n);
        LSI_TRY(tick(w, n, err));
    }
    return LS_OK;
}

static ls_status forward(struct sweep *w, ls_error *err)
{
    float *x = w->m->forward.x;
    for (size_t i = 0; i < w->n_blocks; i++) {
        const size_t row = first_row(w, i), n = n_rows(w, i);
        if (leaves_out(w, i, w->n_blocks))
            continue;
        lsi_op_embed(w->ex, x, &w->t->model.embed, w->seq->tokens + row, n, w->c->embed_scale);
        put_rows(w, 0, row, x, n);
    }
    for (size_t l = 0; l < w->c->L; l++)
        if (!leaves_out(w, l, w->c->L))
            LSI_TRY(forward_layer(w, l, err));
    return LS_OK;
}

/* ---- the head -------------------------------------------------------------------------------- */

/* Rows begin .. end - 1 of the sequence, of which n have labels. */
struct valid_rows {
    size_t n;
    size_t begin, end;
};

static struct valid_rows next_valid(const struct sweep *w, size_t row, size_t most)
{
    struct valid_rows v = { .begin = row };
    for (; row < w->n && v.n < most; row++)
        v.n += w->seq->labels[row] >= 0;
    v.end = row;
    return v;
}

/* Rows that have labels, one after the other in x. */
static void gather(struct sweep *w, const struct valid_rows *v, float *x)
{
    size_t done = 0;
    for (size_t row = v->begin, end; row < v->end; row = end) {
        const bool valid = w->seq->labels[row] >= 0;
        for (end = row + 1; end < v->end && (w->seq->labels[end] >= 0) == valid; end++)
            ;
        if (!valid)
            continue;
        lsi_op_rows_load(w->ex, x + done * w->c->C, last_rows(w, row), w->s->row_dtype, end - row, w->c->C);
        done += end - row;
    }
}

/* And back; 0 where there is no label. */
static void scatter(struct sweep *w, const struct valid_rows *v, const float *x)
{
    size_t done = 0;
    for (size_t row = v->begin, end; row < v->end; row = end) {
        const bool valid = w->seq->labels[row] >= 0;
        for (end = row + 1; end < v->end && (w->seq->labels[end] >= 0) == valid; end++)
            ;
        if (!valid) {
            lsi_op_zero(w->ex, last_rows(w, row), (end - row) * w->row_bytes);
            continue;
        }
        lsi_op_rows_store(w->ex, last_rows(w, row), w->s->row_dtype, x + done * w->c->C, end - row, w->c->C);
        done += end - row;
    }
}

static void valid_labels(const struct sweep *w, const struct valid_rows *v, int32_t *labels)
{
    for (size_t row = v->begin; row < v->end; row++)
        if (w->seq->labels[row] >= 0)
            *labels++ = w->seq->labels[row];
}

static float *grad_of(const struct sweep *w, enum lsi_role role)
{
    const struct lsi_param *p = lsi_params_find(&w->t->params, role, 0);
    return p && p->trained ? p->grad : NULL;
}

static void head_piece(struct sweep *w, const struct valid_rows *v, bool backward)
{
    const struct ls_model *model = &w->t->model;
    struct lsi_train_memory *m = w->m;
    const size_t C = w->c->C, V = w->c->V;
    float *dgain = grad_of(w, LSI_ROLE_OUTPUT_NORM);
    float *dw = grad_of(w, w->c->tied ? LSI_ROLE_TOKEN_EMBD : LSI_ROLE_OUTPUT);
    const struct lsi_linear out = { .w = &model->output, .y = m->logits, .ldy = V };
    const struct lsi_linear_grad grad = { .w = &model->output, .dy = m->logits, .lddy = V, .dw = dw };

    gather(w, v, m->head_x);
    valid_labels(w, v, m->head_labels);
    lsi_op_rmsnorm(w->ex, m->head_n, m->head_x, model->output_norm, v->n, C, C, w->c->eps);
    lsi_op_linear(w->ex, &out, 1, m->head_n, v->n, C);
    w->j->loss += lsi_op_cross_entropy(w->ex, m->logits, m->head_labels, v->n, V, V);
    if (!backward)
        return;
    lsi_op_linear_backward(w->ex, &grad, 1, m->head_dn, C, false, m->head_n, C, v->n, w->j->alpha);
    lsi_op_rmsnorm_backward(w->ex, m->head_dn, dgain, m->head_dn, m->head_x, model->output_norm, v->n, C, C,
                            w->c->eps, false);
    scatter(w, v, m->head_dn);
}

static ls_status head(struct sweep *w, bool backward, ls_error *err)
{
    const size_t work = lsi_train_head_work(w->c);
    w->j->loss = 0;
    for (size_t row = 0; row < w->n;) {
        const struct valid_rows v = next_valid(w, row, w->s->head_rows);
        const bool last = v.end == w->n;
        if (v.n > 0 && !(w->ends_only && row > 0 && !last))
            head_piece(w, &v, backward);
        else if (backward && v.n == 0)
            scatter(w, &v, NULL);
        LSI_TRY(tick(w, (v.end - row) * work, err));
        row = v.end;
    }
    return LS_OK;
}

/* ---- backward ----------------------------------------------------------------------------------- */

static void load_input(struct sweep *w, struct lsi_activations *a, size_t layer, size_t block)
{
    const size_t row = first_row(w, block), n = n_rows(w, block);
    const bool stored = in_tier(w, layer);
    const void *rows =
        stored ? lsi_tier_read(&w->m->tier, layer / w->s->every, row, n) : inner_rows(w, layer, row);
    lsi_op_rows_load(w->ex, a->x, rows, w->s->row_dtype, n, w->c->C);
    if (stored)
        lsi_tier_release(&w->m->tier, rows);
}

static void prefetch(struct sweep *w, size_t layer, size_t block)
{
    if (in_tier(w, layer) && !w->ends_only)
        lsi_tier_prefetch(&w->m->tier, layer / w->s->every, first_row(w, block), n_rows(w, block));
}

/* From a group's checkpoint forward to the input of its last layer. The forward pass has left those of the
 * last group. */
static ls_status replay_group(struct sweep *w, size_t last, ls_error *err)
{
    struct lsi_activations *a = &w->m->forward;
    for (size_t l = first_of_group(w, last); l < last; l++) {
        for (size_t i = 0; i < w->n_blocks; i++) {
            const size_t row = first_row(w, i), n = n_rows(w, i);
            if (leaves_out(w, i, w->n_blocks))
                continue;
            load_input(w, a, l, i);
            if (i + 1 < w->n_blocks)
                prefetch(w, l, i + 1);
            w->m->cache.base.length = row;
            lsi_block_forward(w->ex, &w->t->model, l, a, n, &w->m->cache.base);
            lsi_op_rows_store(w->ex, inner_rows(w, l + 1, row), w->s->row_dtype, a->x, n, w->c->C);
            LSI_TRY(tick(w, n, err));
        }
    }
    return LS_OK;
}

/* Keys and values of every row, ascending: the block that is read last is the first to be differentiated. */
static ls_status layer_keys(struct sweep *w, size_t layer, ls_error *err)
{
    struct lsi_activations *a = &w->m->forward;
    for (size_t i = 0; i < w->n_blocks; i++) {
        if (leaves_out(w, i, w->n_blocks))
            continue;
        load_input(w, a, layer, i);
        if (i + 1 < w->n_blocks)
            prefetch(w, layer, i + 1);
        w->m->cache.base.length = first_row(w, i);
        lsi_block_keys(w->ex, &w->t->model, layer, a, n_rows(w, i), &w->m->cache.base);
        LSI_TRY(tick(w, 0, err));
    }
    return LS_OK;
}

/* What was computed is not finite: a weight that is not is the reason, else the numbers grew too large. */
static ls_status fail_numbers(const struct sweep *w, const char *what, ls_error *err)
{
    const struct lsi_param *p = lsi_params_not_finite(&w->t->params);
    if (p)
        return lsi_fail(err, LS_E_NUMERIC, "%s is not finite: %s holds a value that is not", what, p->name);
    return lsi_fail(err, LS_E_NUMERIC, "%s is not finite; a smaller learning rate, or fp32, may help", what);
}

static ls_status check_gradient(const struct sweep *w, size_t layer, double squares, ls_error *err)
{
    char what[64];
    if (isfinite(squares))
        return LS_OK;
    snprintf(what, sizeof what, "the gradient of the input of layer %zu", layer);
    return fail_numbers(w, what, err);
}

static ls_status backward_layer(struct sweep *w, size_t layer, ls_error *err)
{
    const bool kept = w->s->keep;
    struct lsi_activations *a = kept ? &w->m->kept[layer] : &w->m->act;
    struct lsi_block_gradients *g = &w->m->grads;
    struct lsi_layer_grads grads;
    const size_t kv_bytes = w->n * w->c->G * w->c->D * sizeof(float);
    double squares = 0;

    /* The forward pass has left those of the last layer. */
    if (!kept && layer + 1 < w->c->L)
        LSI_TRY(layer_keys(w, layer, err));
    lsi_params_layer_grads(&w->t->params, layer, &grads);
    lsi_op_zero(w->ex, g->dk, kv_bytes);
    lsi_op_zero(w->ex, g->dv, kv_bytes);
    for (size_t i = w->n_blocks; i-- > 0;) {
        const size_t row = first_row(w, i), n = n_rows(w, i);
        if (leaves_out(w, i, w->n_blocks))
            continue;
        load_input(w, a, layer, i);
        if (i > 0)
            prefetch(w, layer, i - 1);
        else if (layer > 0)
            prefetch(w, in_tier(w, layer) ? first_of_group(w, layer - 1) : layer - 1, 0);
        lsi_op_rows_load(w->ex, g->dx, last_rows(w, row), w->s->row_dtype, n, w->c->C);
        w->m->cache.base.length = row;
        lsi_block_backward(w->ex, &w->t->model, layer, a, kept, g, &grads, n, &w->m->cache.base);
        squares += lsi_op_sum_squares(w->ex, g->dx, n * w->c->C);
        lsi_op_rows_store(w->ex, last_rows(w, row), w->s->row_dtype, g->dx, n, w->c->C);
        LSI_TRY(tick(w, 3 * n, err));
    }
    return check_gradient(w, layer, squares, err);
}

static void embedding_backward(struct sweep *w)
{
    float *dtable = grad_of(w, LSI_ROLE_TOKEN_EMBD);
    float *dy = w->m->grads.dx;
    for (size_t i = 0; dtable && i < w->n_blocks; i++) {
        const size_t row = first_row(w, i), n = n_rows(w, i);
        if (leaves_out(w, i, w->n_blocks))
            continue;
        lsi_op_rows_load(w->ex, dy, last_rows(w, row), w->s->row_dtype, n, w->c->C);
        lsi_op_embed_backward(w->ex, dtable, dy, w->seq->tokens + row, n, w->c->C, w->c->embed_scale);
    }
}

static ls_status backward(struct sweep *w, ls_error *err)
{
    for (size_t l = w->c->L; l-- > 0;) {
        if (leaves_out(w, l, w->c->L))
            continue;
        if (!is_kept(w, l) && in_tier(w, l + 1))
            LSI_TRY(replay_group(w, l, err));
        if (w->j->step_layers)
            lsi_trainer_zero_layer(w->t, l);
        LSI_TRY(backward_layer(w, l, err));
        LSI_TRY(lsi_tier_status(&w->m->tier, err));
        if (w->j->step_layers)
            LSI_TRY(lsi_trainer_step_layer(w->t, l, err));
    }
    embedding_backward(w);
    return LS_OK;
}

static double input_squares(struct sweep *w, size_t layer)
{
    double squares = 0;
    for (size_t i = 0; i < w->n_blocks; i++) {
        load_input(w, &w->m->act, layer, i);
        squares += lsi_op_sum_squares(w->ex, w->m->act.x, n_rows(w, i) * w->c->C);
    }
    return squares;
}

/* The loss is not finite: where that began, as far as inputs of layers are there. */
static ls_status fail_loss(struct sweep *w, ls_error *err)
{
    char what[100] = "the loss";
    for (size_t l = 1, finite = 0; l < w->c->L; l++) {
        if (!is_kept(w, l))
            continue;
        if (isfinite(input_squares(w, l))) {
            finite = l;
            continue;
        }
        if (l - finite == 1)
            snprintf(what, sizeof what, "the loss, from the output of layer %zu on,", l - 1);
        else
            snprintf(what, sizeof what, "the loss, from the output of one of the layers %zu to %zu on,",
                     finite, l - 1);
        break;
    }
    return fail_numbers(w, what, err);
}

/* ---- a sequence ------------------------------------------------------------------------------------- */

static ls_status run(struct sweep *w, ls_error *err)
{
    LSI_TRY(forward(w, err));
    LSI_TRY(lsi_tier_status(&w->m->tier, err));
    LSI_TRY(head(w, true, err));
    if (!isfinite(w->j->loss))
        return fail_loss(w, err);
    w->stepping = w->j->step_layers;
    if (w->j->step_layers && !w->c->tied)
        LSI_TRY(lsi_trainer_step_output(w->t, err));
    LSI_TRY(backward(w, err));
    return lsi_tier_status(&w->m->tier, err);
}

ls_status lsi_sequence_gradients(struct lsi_sequence_job *j, ls_error *err)
{
    struct sweep w = begin(j, true);
    const ls_status st = run(&w, err);
    lsi_tier_drain(&w.m->tier);
    return st;
}

ls_status lsi_sequence_loss(struct lsi_sequence_job *j, ls_error *err)
{
    struct sweep w = begin(j, false);
    LSI_TRY(forward(&w, err));
    return head(&w, false, err);
}

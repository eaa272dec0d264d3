/*
 * A mode against the standard computation.
 *
 * The standard one runs first; the gradients of its first batch and its last weights are kept, and
 * the mode's are compared with them tensor by tensor.
 */
#include <math.h>
#include <string.h>

#include "formats/safetensors.h"
#include "train/adapter.h"
#include "train/data.h"
#include "train/trainer.h"

enum {
    CHUNK = 4096 /* values that are compared at once */
};

/*
 * What sums in another order come to. Loss and norm: training.md, rule 7 of its numerics. The gradient
 * itself: twice and four times what that rule has for elements, because sums that cancel lose more; a tensor
 * alone, a gain above all, more than all together. Measured on SmolLM2-135M, 256 to 1,024 tokens, sweep in
 * blocks of 64 and 256: fp32 7e-7 to 1e-6, the worst tensor 2.5e-6; bf16 6e-3, the worst tensor 1.5e-2, where
 * bf16 itself is 4e-2 from fp32.
 */
#define NORM_FP32     1e-6
#define NORM_BF16     1e-3
#define GRADIENT_FP32 4e-6
#define GRADIENT_BF16 0x1p-6
#define TENSOR_FACTOR 4
#define STEP_FP32     1e-3 /* of the loss after steps: what optimizers make of the last bits */
#define STEP_BF16     1e-2

#define NOTHING       1e-5 /* share of the whole gradient's norm below which a tensor's is noise */

struct verify {
    ls_train_options o; /* with the mode to verify */
    const char *dump;
    ls_train_verify_fn *on_step;
    void *user;
    ls_train_verify_result *result;
    ls_tokenizer *tok;
    struct lsi_data *data;
    ls_train_sequence *seqs; /* [accumulate] */
    bool second;             /* computing with the mode: comparing, not keeping */
    /* of the standard computation */
    ls_train_verify_step *steps; /* [1 + o.steps] */
    float *grads, *weights;      /* [n_trained], weights only with steps */
    size_t n_trained;
    const ls_alloc *alloc;
};

/* ---- tensors --------------------------------------------------------------------- */

/* Sums of squares: of a - b, of b. */
struct difference {
    double squares, b_squares;
};

static void compare(struct difference *d, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double x = (double)a[i], y = (double)b[i];
        d->squares += (x - y) * (x - y);
        d->b_squares += y * y;
    }
}

static double relative(double difference, double of)
{
    return difference == 0 ? 0 : fabs(difference) / fabs(of); /* infinite where nothing should be */
}

static void raise_to(double *most, char name[160], double value, const struct lsi_param *p)
{
    if (!(value > *most) && !isnan(value))
        return;
    *most = value;
    snprintf(name, 160, "%s", p->name);
}

static void compare_gradients(struct verify *v, const struct lsi_params *params)
{
    ls_train_verify_result *r = v->result;
    const double least = NOTHING * v->steps[0].standard_grad_norm;
    struct difference all = { 0 };
    size_t at = 0;
    for (size_t i = 0; i < params->n; i++) {
        const struct lsi_param *p = &params->list[i];
        struct difference d = { 0 };
        if (!p->trained)
            continue;
        compare(&d, p->grad, v->grads + at, p->n);
        raise_to(&r->tensor_difference, r->tensor, relative(sqrt(d.squares), sqrt(d.b_squares) + least), p);
        all.squares += d.squares;
        all.b_squares += d.b_squares;
        at += p->n;
    }
    r->gradient_difference = relative(sqrt(all.squares), sqrt(all.b_squares));
}

static void keep_gradients(struct verify *v, const struct lsi_params *params)
{
    size_t at = 0;
    for (size_t i = 0; i < params->n; i++) {
        const struct lsi_param *p = &params->list[i];
        if (!p->trained)
            continue;
        memcpy(v->grads + at, p->grad, p->n * sizeof *p->grad);
        at += p->n;
    }
}

/* Keep the weights, or compare them with those that were kept. */
static void take_weights(struct verify *v, const struct lsi_params *params)
{
    ls_train_verify_result *r = v->result;
    float values[CHUNK];
    size_t at = 0;
    for (size_t i = 0; i < params->n; i++) {
        const struct lsi_param *p = &params->list[i];
        struct difference d = { 0 };
        if (!p->trained)
            continue;
        for (size_t first = 0; first < p->n; first += CHUNK) {
            const size_t n = lsi_min_size(CHUNK, p->n - first);
            if (!v->second) {
                lsi_param_get(p, first, v->weights + at + first, n);
                continue;
            }
            lsi_param_get(p, first, values, n);
            compare(&d, values, v->weights + at + first, n);
        }
        if (v->second)
            raise_to(&r->weight_difference, r->weight_tensor, relative(sqrt(d.squares), sqrt(d.b_squares)),
                     p);
        at += p->n;
    }
}

static double norm_of(const struct lsi_params *params)
{
    double squares = 0;
    for (size_t i = 0; i < params->n; i++)
        for (size_t k = 0; params->list[i].trained && k < params->list[i].n; k++)
            squares += (double)params->list[i].grad[k] * (double)params->list[i].grad[k];
    return sqrt(squares);
}

/* ---- the dump ------------------------------------------------------------------------- */

static const struct lsi_param *nth_trained(const struct lsi_params *params, size_t n)
{
    const struct lsi_param *p = params->list;
    while (!p->trained || n-- > 0)
        p++;
    return p;
}

static ls_status write_dump(const char *path, double loss, const struct lsi_params *params,
                            const ls_alloc *alloc, ls_error *err)
{
    struct lsi_st_writer *w;
    const float value = (float)loss;
    char name[LSI_TENSOR_NAME + sizeof LSI_PEFT_PREFIX];
    size_t n = 1;
    LSI_TRY(lsi_st_writer_create(&w, path, alloc, err));
    lsi_st_put_tensor(w, "loss", LSI_F32, 0, NULL);
    for (size_t i = 0; i < params->n; i++) {
        const struct lsi_param *p = &params->list[i];
        const uint64_t matrix[] = { p->rows, p->cols }, vector[] = { p->n };
        if (!p->trained)
            continue;
        snprintf(name, sizeof name, "%s%s", p->kind == LSI_PARAM_BASE ? "" : LSI_PEFT_PREFIX, p->name);
        lsi_st_put_tensor(w, name, LSI_F32, (uint32_t)p->rank, p->rank == 2 ? matrix : vector);
        n++;
    }
    const ls_status st = lsi_st_writer_begin(w, err);
    if (st != LS_OK) {
        lsi_st_writer_free(w);
        return st;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t number =
            lsi_st_writer_order(w, i); /* as they were put: the loss, then the trained ones */
        const struct lsi_param *p = number ? nth_trained(params, number - 1) : NULL;
        lsi_st_write_data(w, p ? p->grad : &value, (p ? p->n : 1) * sizeof value);
    }
    return lsi_st_writer_commit(w, err);
}

/* ---- the two computations --------------------------------------------------------------- */

static ls_status get_batch(struct verify *v, uint64_t step, ls_error *err)
{
    const size_t n = v->o.accumulate;
    for (size_t i = 0; i < n; i++)
        LSI_TRY(lsi_data_get(v->data, step * n + i, (int)i, &v->seqs[i], err));
    return LS_OK;
}

static ls_status make_room(struct verify *v, const struct lsi_params *params, ls_error *err)
{
    v->n_trained = (size_t)params->n_trained;
    v->grads = lsi_calloc(v->alloc, v->n_trained, sizeof *v->grads);
    if (v->o.steps)
        v->weights = lsi_calloc(v->alloc, v->n_trained, sizeof *v->weights);
    if (v->grads && (v->weights || !v->o.steps))
        return LS_OK;
    return lsi_fail(err, LS_E_NOMEM, "no memory for a copy of the gradients (%zu values)", v->n_trained);
}

/* What the standard computation gave is kept; the other's is reported beside it. */
static void tell(struct verify *v, uint64_t step, double loss, double norm)
{
    ls_train_verify_step *s = &v->steps[step];
    ls_train_verify_result *r = v->result;
    if (!v->second) {
        *s = (ls_train_verify_step){
            .struct_size = sizeof *s, .step = step, .standard_loss = loss, .standard_grad_norm = norm
        };
        return;
    }
    s->loss = loss;
    s->grad_norm = norm;
    const double difference = relative(loss - s->standard_loss, s->standard_loss);
    double *most = step ? &r->step_loss_difference : &r->loss_difference;
    if (!(difference <= *most))
        *most = difference;
    if (step == 0)
        r->norm_difference = relative(norm - s->standard_grad_norm, s->standard_grad_norm);
    if (v->on_step)
        v->on_step(v->user, s);
}

static ls_status first_batch(struct verify *v, ls_trainer *t, ls_error *err)
{
    const struct lsi_params *params;
    double loss;
    LSI_TRY(get_batch(v, 0, err));
    LSI_TRY(lsi_trainer_gradients(t, v->seqs, v->o.accumulate, &loss, &params, err));
    if (v->second) {
        compare_gradients(v, params);
    } else {
        LSI_TRY(make_room(v, params, err));
        keep_gradients(v, params);
    }
    tell(v, 0, loss, norm_of(params));
    return v->second && v->dump ? write_dump(v->dump, loss, params, v->alloc, err) : LS_OK;
}

static ls_status train(struct verify *v, ls_trainer *t, ls_error *err)
{
    for (uint64_t k = 0; k < v->o.steps; k++) {
        ls_train_step s = { .struct_size = sizeof s };
        if (v->o.cancel && *v->o.cancel)
            return lsi_fail(err, LS_E_CANCELED, "cancelled before step %llu", (unsigned long long)(k + 1));
        LSI_TRY(get_batch(v, k, err));
        LSI_TRY(ls_trainer_step(t, v->seqs, v->o.accumulate, v->o.lr, &s, err));
        tell(v, k + 1, s.loss, s.grad_norm);
    }
    if (v->o.steps)
        take_weights(v, &t->params);
    return LS_OK;
}

/*
 * Gradients can be looked at where they are resident. A trainer that steps each layer as soon as it can
 * comes after one that only computes them.
 */
static ls_status compute(struct verify *v, ls_train_mode mode, ls_error *err)
{
    const bool resident = v->o.clip > 0 || v->o.accumulate > 1;
    ls_train_options o = v->o;
    ls_trainer *t;
    o.mode = mode;
    if (mode == LS_TRAIN_STANDARD && v->o.mode != mode) { /* there is nothing that could be kept elsewhere */
        o.spill = NULL;
        o.checkpoint_layers = 0;
    }
    if (!resident)
        o.clip = 1;
    LSI_TRY(ls_trainer_create(&o, &t, err));
    ls_status st = first_batch(v, t, err);
    if (st == LS_OK && !resident && v->o.steps) {
        ls_trainer_free(t);
        o.clip = 0;
        LSI_TRY(ls_trainer_create(&o, &t, err));
    }
    if (st == LS_OK)
        st = train(v, t, err);
    ls_trainer_free(t);
    return st;
}

static ls_status open_data(struct verify *v, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    struct lsi_config c;
    struct lsi_data_options d;
    LSI_TRY(lsi_data_tokenizer_path(&v->o, path, err));
    LSI_TRY(ls_tokenizer_open(path, v->alloc, &v->tok, err));
    LSI_TRY(lsi_trainer_config(&c, &v->o, err));
    lsi_data_run_options(&d, &v->o, false, v->tok, path, c.V);
    lsi_config_fini(&c);
    return lsi_data_open(&v->data, &d, err);
}

static void judge(struct verify *v)
{
    ls_train_verify_result *r = v->result;
    const bool bf16 = v->o.dtype == LS_TRAIN_BF16;
    r->norm_tolerance = bf16 ? NORM_BF16 : NORM_FP32;
    r->gradient_tolerance = bf16 ? GRADIENT_BF16 : GRADIENT_FP32;
    r->tensor_tolerance = TENSOR_FACTOR * r->gradient_tolerance;
    r->step_tolerance = bf16 ? STEP_BF16 : STEP_FP32;
    r->passed = r->loss_difference <= r->norm_tolerance && r->norm_difference <= r->norm_tolerance &&
                r->gradient_difference <= r->gradient_tolerance &&
                r->tensor_difference <= r->tensor_tolerance && r->step_loss_difference <= r->step_tolerance;
}

ls_status ls_train_verify(const ls_train_options *options, const char *dump, ls_train_verify_fn *on_step,
                          void *user, ls_train_verify_result *result, ls_error *err)
{
    ls_train_verify_result full = { .struct_size = result->struct_size };
    struct verify v = { .dump = dump, .on_step = on_step, .user = user, .result = &full };
    ls_status st = LS_OK;
    ls_train_options_defaults(&v.o);
    memcpy(&v.o, options, lsi_min_size(options->struct_size, sizeof v.o));
    if (v.o.accumulate == 0)
        v.o.accumulate = 1;
    v.alloc = lsi_alloc_or_default(v.o.alloc);
    v.steps = v.o.steps < SIZE_MAX ? lsi_calloc(v.alloc, (size_t)v.o.steps + 1, sizeof *v.steps) : NULL;
    v.seqs = lsi_calloc(v.alloc, v.o.accumulate, sizeof *v.seqs);
    if (!v.steps || !v.seqs)
        st = lsi_fail(err, LS_E_NOMEM, "no memory to keep what %llu steps give",
                      (unsigned long long)v.o.steps);
    if (st == LS_OK)
        st = open_data(&v, err);
    if (st == LS_OK)
        st = compute(&v, LS_TRAIN_STANDARD, err);
    v.second = true;
    if (st == LS_OK)
        st = compute(&v, v.o.mode, err);
    if (st == LS_OK) {
        judge(&v);
        memcpy(result, &full, lsi_min_size(result->struct_size, sizeof full));
    }
    lsi_data_close(v.data);
    ls_tokenizer_close(v.tok);
    lsi_free(v.alloc, v.grads, v.n_trained * sizeof *v.grads);
    lsi_free(v.alloc, v.weights, v.n_trained * sizeof *v.weights);
    lsi_free(v.alloc, v.seqs, v.o.accumulate * sizeof *v.seqs);
    lsi_free(v.alloc, v.steps, v.steps ? ((size_t)v.o.steps + 1) * sizeof *v.steps : 0);
    return st;
}

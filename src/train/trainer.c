#include "train/trainer.h"

#include <math.h>
#include <string.h>

#define TOUCH_BYTES 4096 /* a page of memory, at most */

void ls_train_options_defaults(ls_train_options *o)
{
    *o = (ls_train_options){
        .struct_size = sizeof *o,
        .shuffle = true,
        .pack = true,
        .steps = 100,
        .lr = 2e-5,
        .schedule = LS_TRAIN_COSINE,
        .warmup = 0.03,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .weight_decay = 0.01,
        .clip = 1,
        .accumulate = 1,
        .seq = 1024,
        .eval_sequences = 16,
        .keep = 2,
    };
}

static ls_train_options read_options(const ls_train_options *o)
{
    ls_train_options all;
    ls_train_options_defaults(&all);
    memcpy(&all, o, lsi_min_size(o->struct_size, sizeof all));
    return all;
}

static ls_status check_options(const ls_train_options *o, ls_error *err)
{
    if ((unsigned)o->mode > LS_TRAIN_MST || (unsigned)o->dtype > LS_TRAIN_FP32 ||
        (unsigned)o->weights > LS_TRAIN_PURE || (unsigned)o->moments > LS_TRAIN_MOMENTS_Q8)
        return lsi_fail(err, LS_E_INVAL, "an option of the training has no such value");
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return lsi_fail(err, LS_E_INVAL, "betas lie in [0, 1), not %g, %g", o->beta1, o->beta2);
    if (!(o->eps > 0) || !(o->weight_decay >= 0) || !(o->clip >= 0))
        return lsi_fail(err, LS_E_INVAL, "eps must be above 0, weight decay and clip must not be negative");
    return LS_OK;
}

ls_status ls_train_get_plan(const ls_train_options *options, ls_train_plan *plan, ls_error *err)
{
    const ls_train_options o = read_options(options);
    struct lsi_config c;
    LSI_TRY(check_options(&o, err));
    LSI_TRY(lsi_trainer_config(&c, &o, err));
    const ls_status st = lsi_train_plan(&c, &o, plan, err);
    lsi_config_fini(&c);
    return st;
}

/* ---- making ------------------------------------------------------------------------------------ */

/* What makes a step smaller; where no length does, what is held of every parameter must. */
static const char *smaller_step(const ls_trainer *t, uint64_t limit)
{
    ls_train_options shortest = t->o;
    ls_train_plan p = { .struct_size = sizeof p };
    shortest.seq = 1;
    shortest.mlp_chunks = shortest.head_chunks = 0;
    if (lsi_train_plan(&t->model.config, &shortest, &p, NULL) == LS_OK && p.total_bytes > limit)
        return t->o.lora_rank ? "take a smaller model" : "keep less of each parameter, or train an adapter";
    if (t->o.mode != LS_TRAIN_SWEEP)
        return "take the mode sweep, or fewer tokens";
    return t->o.spill ? "take fewer tokens, or moments in 8 bits"
                      : "take fewer tokens, or spill activations to a file";
}

/* Refused before anything is touched, with what would help. */
static ls_status check_memory(const ls_trainer *t, ls_error *err)
{
    const ls_train_plan *p = &t->plan;
    const uint64_t free_now = lsi_memory_available(), limit = t->o.memory ? t->o.memory : free_now;
    if (limit == 0 || p->total_bytes <= limit)
        return LS_OK;
    const double mib = 1024 * 1024;
    return lsi_fail(
        err, LS_E_NOMEM,
        "a step of %zu tokens takes %.1f MiB, and there %s %.1f MiB: %s ('longspan plan' shows what "
        "fits)",
        p->seq, (double)p->total_bytes / mib, t->o.memory ? "may be" : "are", (double)limit / mib,
        smaller_step(t, limit));
}

static ls_status take(ls_trainer *t, struct lsi_arena *arena, size_t bytes, ls_error *err)
{
    arena->base = lsi_exec_alloc(&t->exec, bytes);
    if (!arena->base)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu MiB", bytes >> 20);
    arena->used = 0;
    arena->cap = bytes;
    return LS_OK;
}

/* Everything that the plan counted, allocated. */
static ls_status allocate(ls_trainer *t, ls_error *err)
{
    const struct lsi_config *c = &t->model.config;
    struct lsi_params_bytes bytes;
    struct lsi_arena states = { 0 }, work = { 0 };
    struct lsi_train_memory counted;

    lsi_params_layout(&t->params, &states, &bytes);
    lsi_train_layout(&counted, &work, c, &t->settings, NULL);
    LSI_TRY(take(t, &t->states, states.used, err));
    LSI_TRY(take(t, &t->work, work.used, err));
    lsi_params_layout(&t->params, &t->states, &bytes);
    lsi_train_layout(&t->memory, &t->work, c, &t->settings, NULL);
    LSI_TRY(lsi_exec_set_scratch(&t->exec, t->plan.scratch_bytes, err));
    return t->settings.spill ? lsi_tier_open(&t->memory.tier, t->o.spill, err) : LS_OK;
}

static ls_status load(ls_trainer *t, ls_error *err)
{
    ls_model_options o;
    ls_model *m;
    if (t->o.init) {
        double std;
        LSI_TRY(lsi_trainer_init_std(t->o.init, t->alloc, &std, err));
        lsi_params_random(&t->params, std, t->o.seed);
    } else {
        ls_model_options_defaults(&o);
        o.alloc = t->alloc;
        LSI_TRY(ls_model_open(t->o.model, &o, &m, err));
        const ls_status st = lsi_params_load(&t->params, &t->exec, m, err);
        ls_model_close(m);
        LSI_TRY(st);
    }
    if (t->o.lora_rank)
        lsi_params_random_adapters(&t->params, t->o.seed);
    return LS_OK;
}

ls_status ls_trainer_create(const ls_train_options *options, ls_trainer **out, ls_error *err)
{
    const ls_train_options o = read_options(options);
    const ls_alloc *alloc = lsi_alloc_or_default(o.alloc);
    ls_status st;

    *out = NULL;
    LSI_TRY(check_options(&o, err));
    ls_trainer *t = lsi_calloc(alloc, 1, sizeof *t);
    if (!t)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a trainer");
    t->alloc = t->model.alloc = alloc;
    t->o = o;
    t->plan.struct_size = sizeof t->plan;
    LSI_TRY_OR(fail, lsi_trainer_config(&t->model.config, &o, err));
    LSI_TRY_OR(fail, lsi_train_plan(&t->model.config, &o, &t->plan, err));
    t->o.checkpoint_layers = t->plan.checkpoint_layers;
    LSI_TRY_OR(fail, check_memory(t, err));
    LSI_TRY_OR(fail, lsi_train_settle(&t->settings, &t->model.config, &t->o, err));
    LSI_TRY_OR(fail, lsi_params_create(&t->params, &t->model.config, &t->settings.params, alloc, err));
    LSI_TRY_OR(fail, lsi_exec_init_cpu(&t->exec, o.n_threads, t->settings.compute, o.alloc, err));
    t->exec.few_as_many = true; /* the length of blocks changes no rounding */
    LSI_TRY_OR(fail, allocate(t, err));
    LSI_TRY_OR(fail, lsi_params_bind(&t->params, &t->model, err));
    LSI_TRY_OR(fail, load(t, err));
    *out = t;
    return LS_OK;
fail:
    ls_trainer_free(t);
    return st;
}

void ls_trainer_free(ls_trainer *t)
{
    if (!t)
        return;
    lsi_tier_close(&t->memory.tier);
    lsi_params_unbind(&t->model);
    if (t->exec.backend) {
        lsi_exec_free(&t->exec, t->states.base, t->states.cap);
        lsi_exec_free(&t->exec, t->work.base, t->work.cap);
    }
    lsi_exec_fini(&t->exec);
    lsi_params_free(&t->params);
    lsi_config_fini(&t->model.config);
    lsi_free(t->alloc, t, sizeof *t);
}

void ls_trainer_get_plan(const ls_trainer *t, ls_train_plan *plan)
{
    const size_t size = plan->struct_size;
    memcpy(plan, &t->plan, lsi_min_size(size, sizeof t->plan));
    plan->struct_size = size;
}

/* ---- the optimizer ---------------------------------------------------------------------------------- */

static void zero_grad(ls_trainer *t, const struct lsi_param *p)
{
    if (p->trained)
        lsi_op_zero(&t->exec, p->grad, p->n * sizeof *p->grad);
}

static ls_status check_finite(const struct lsi_param *p, double squares, ls_error *err)
{
    if (isfinite(squares))
        return LS_OK;
    return lsi_fail(err, LS_E_NUMERIC,
                    "the gradient of %s is not finite; a smaller learning rate, or fp32, may help", p->name);
}

static void step_param(ls_trainer *t, struct lsi_param *p)
{
    struct lsi_adamw a = t->adamw;
    const struct lsi_adamw_tensor tensor = { .w = p->w,
                                             .dtype = p->dtype,
                                             .master = p->master,
                                             .g = p->grad,
                                             .m = p->m,
                                             .v = p->v,
                                             .moments = p->moments,
                                             .n = p->n,
                                             .stream = (uint64_t)(p - t->params.list) };
    if (!p->decay)
        a.decay = 0;
    lsi_op_adamw(&t->exec, &a, &tensor);
}

/* The parameters that fn says are stepped now, where each is stepped as soon as it can be. */
typedef bool chosen_fn(const struct lsi_param *p, size_t layer);

static bool in_layer(const struct lsi_param *p, size_t layer)
{
    return p->trained && lsi_role_in_layer(p->role) && p->layer == layer;
}

static bool of_output(const struct lsi_param *p, size_t layer)
{
    (void)layer;
    return p->trained && p->role == LSI_ROLE_OUTPUT;
}

static bool outside_layers(const struct lsi_param *p, size_t layer)
{
    (void)layer;
    return p->trained && (p->role == LSI_ROLE_TOKEN_EMBD || p->role == LSI_ROLE_OUTPUT_NORM);
}

static ls_status step_chosen(ls_trainer *t, chosen_fn *chosen, size_t layer, ls_error *err)
{
    for (size_t i = 0; i < t->params.n; i++) {
        struct lsi_param *p = &t->params.list[i];
        if (!chosen(p, layer))
            continue;
        const double squares = lsi_op_sum_squares(&t->exec, p->grad, p->n);
        LSI_TRY(check_finite(p, squares, err));
        t->norm_squares += squares;
        step_param(t, p);
    }
    return LS_OK;
}

void lsi_trainer_zero_layer(ls_trainer *t, size_t layer)
{
    for (size_t i = 0; i < t->params.n; i++)
        if (in_layer(&t->params.list[i], layer))
            zero_grad(t, &t->params.list[i]);
}

ls_status lsi_trainer_step_layer(ls_trainer *t, size_t layer, ls_error *err)
{
    return step_chosen(t, in_layer, layer, err);
}

ls_status lsi_trainer_step_output(ls_trainer *t, ls_error *err)
{
    LSI_TRY(step_chosen(t, of_output, 0, err));
    /* The embedding's gradient begins in the memory that this one had. */
    zero_grad(t, lsi_params_find(&t->params, LSI_ROLE_TOKEN_EMBD, 0));
    return LS_OK;
}

static void zero_gradients(ls_trainer *t)
{
    for (size_t i = 0; i < t->params.n; i++)
        if (t->params.options.resident || !lsi_role_in_layer(t->params.list[i].role))
            zero_grad(t, &t->params.list[i]);
}

/* Global norm of resident gradients. */
static ls_status gradient_norm(ls_trainer *t, double *norm, ls_error *err)
{
    double squares = 0;
    for (size_t i = 0; i < t->params.n; i++) {
        const struct lsi_param *p = &t->params.list[i];
        if (!p->trained)
            continue;
        const double s = lsi_op_sum_squares(&t->exec, p->grad, p->n);
        LSI_TRY(check_finite(p, s, err));
        squares += s;
    }
    *norm = sqrt(squares);
    return LS_OK;
}

/* ---- a step ---------------------------------------------------------------------------------------------
 */

static ls_status check_sequence(const ls_trainer *t, const ls_train_sequence *s, ls_error *err)
{
    const size_t V = t->model.config.V;
    if (s->n == 0 || s->n > t->settings.seq)
        return lsi_fail(err, LS_E_INVAL, "a sequence has %zu tokens; this trainer takes 1 to %zu", s->n,
                        t->settings.seq);
    for (size_t i = 0; i < s->n; i++)
        if (s->tokens[i] < 0 || (size_t)s->tokens[i] >= V || (s->labels[i] >= 0 && (size_t)s->labels[i] >= V))
            return lsi_fail(err, LS_E_INVAL, "token %zu has id %d and label %d: the model has %zu ids", i,
                            s->tokens[i], s->labels[i], V);
    if (!s->doc_start)
        return LS_OK;
    bool ordered = s->n_docs > 0 && s->doc_start[0] == 0 && s->doc_start[s->n_docs] == s->n;
    for (size_t i = 0; ordered && i < s->n_docs; i++)
        ordered = s->doc_start[i] < s->doc_start[i + 1];
    if (!ordered)
        return lsi_fail(err, LS_E_INVAL, "the documents of a sequence do not begin at 0, rise and end at %zu",
                        s->n);
    return LS_OK;
}

static uint64_t count_valid(const ls_train_sequence *s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->labels[i] >= 0;
    return n;
}

/* Labels and tokens of a batch; the number of valid labels comes before any gradient (training.md 3.1). */
static ls_status begin_batch(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs, uint64_t *n_valid,
                             uint64_t *n_tokens, ls_error *err)
{
    const size_t L = t->model.config.L;
    const size_t work =
        4 * L + lsi_train_replayed(L, t->settings.every) + lsi_train_head_work(&t->model.config);
    *n_valid = *n_tokens = 0;
    t->rows_done = t->rows_total = 0;
    for (size_t i = 0; i < n_seqs; i++) {
        LSI_TRY(check_sequence(t, &seqs[i], err));
        *n_valid += count_valid(&seqs[i]);
        *n_tokens += seqs[i].n;
        t->rows_total += seqs[i].n * work;
    }
    return LS_OK;
}

static ls_status batch_gradients(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs,
                                 uint64_t n_valid, bool step_layers, double *loss, ls_error *err)
{
    *loss = 0;
    zero_gradients(t);
    for (size_t i = 0; i < n_seqs; i++) {
        struct lsi_sequence_job job = { .t = t,
                                        .seq = &seqs[i],
                                        .alpha = n_valid ? (float)(1.0 / (double)n_valid) : 0,
                                        .step_layers = step_layers };
        LSI_TRY(lsi_sequence_gradients(&job, err));
        *loss += job.loss;
    }
    if (n_valid)
        *loss /= (double)n_valid;
    return LS_OK;
}

ls_status lsi_trainer_gradients(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs, double *loss,
                                const struct lsi_params **params, ls_error *err)
{
    uint64_t n_valid, n_tokens;
    if (!t->params.options.resident)
        return lsi_fail(err, LS_E_INVAL, "gradients are not kept here: ask for clipping or accumulation");
    LSI_TRY(begin_batch(t, seqs, n_seqs, &n_valid, &n_tokens, err));
    LSI_TRY(batch_gradients(t, seqs, n_seqs, n_valid, false, loss, err));
    *params = &t->params;
    return LS_OK;
}

static void set_adamw(ls_trainer *t, double lr)
{
    t->adamw = (struct lsi_adamw){ .lr = lr,
                                   .beta1 = t->o.beta1,
                                   .beta2 = t->o.beta2,
                                   .eps = t->o.eps,
                                   .decay = t->o.weight_decay,
                                   .grad_scale = 1,
                                   .step = t->steps + 1,
                                   .seed = t->o.seed };
    t->norm_squares = 0;
}

/* Clip by the global norm as PyTorch does, then step everything. */
static ls_status step_resident(ls_trainer *t, double *norm, ls_error *err)
{
    LSI_TRY(gradient_norm(t, norm, err));
    if (t->o.clip > 0)
        t->adamw.grad_scale = (float)fmin(1, t->o.clip / (*norm + 1e-6));
    for (size_t i = 0; i < t->params.n; i++)
        if (t->params.list[i].trained)
            step_param(t, &t->params.list[i]);
    return LS_OK;
}

ls_status ls_trainer_step(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs, double lr,
                          ls_train_step *result, ls_error *err)
{
    const bool resident = t->params.options.resident;
    const double started = lsi_now();
    uint64_t n_valid, n_tokens;
    double loss, norm = 0;

    if (n_seqs == 0 || (n_seqs > 1 && !resident))
        return lsi_fail(
            err, LS_E_INVAL,
            "a step takes one sequence where parameters are stepped in the backward pass, else at "
            "least one; set accumulate to take %zu",
            n_seqs);
    LSI_TRY(begin_batch(t, seqs, n_seqs, &n_valid, &n_tokens, err));
    set_adamw(t, lr);
    LSI_TRY(batch_gradients(t, seqs, n_seqs, n_valid, !resident, &loss, err));
    if (resident) {
        LSI_TRY(step_resident(t, &norm, err));
    } else {
        LSI_TRY(step_chosen(t, outside_layers, 0, err));
        norm = sqrt(t->norm_squares);
    }
    t->steps++;
    const ls_train_step full = { .struct_size = result->struct_size,
                                 .step = t->steps,
                                 .loss = loss,
                                 .grad_norm = norm,
                                 .lr = lr,
                                 .tokens = n_tokens,
                                 .valid_labels = n_valid,
                                 .seconds = lsi_now() - started,
                                 .peak_bytes = lsi_peak_rss_bytes(),
                                 .eval_loss = NAN };
    memcpy(result, &full, lsi_min_size(result->struct_size, sizeof full));
    return LS_OK;
}

ls_status ls_trainer_eval(ls_trainer *t, const ls_train_sequence *seq, double *loss_sum, uint64_t *n_valid,
                          ls_error *err)
{
    uint64_t n_tokens;
    struct lsi_sequence_job job = { .t = t, .seq = seq };
    LSI_TRY(begin_batch(t, seq, 1, n_valid, &n_tokens, err));
    t->rows_total = 0;
    LSI_TRY(lsi_sequence_loss(&job, err));
    *loss_sum = job.loss;
    return LS_OK;
}

/* ---- a dry step -------------------------------------------------------------------------------------------
 */

/* Write to every page, so that the system gives it: what is there, since tables of pages and of kept
 * activations lie in the arena, too. */
static void touch(const struct lsi_arena *a)
{
    volatile unsigned char *p = a->base;
    for (size_t i = 0; i < a->cap; i += TOUCH_BYTES)
        p[i] = p[i];
}

ls_status lsi_trainer_dry_step(ls_trainer *t, ls_error *err)
{
    const size_t n = t->settings.seq, bytes = n * sizeof(int32_t);
    int32_t *ids = lsi_calloc(t->alloc, n, sizeof *ids);
    const ls_train_sequence seq = { .tokens = ids, .labels = ids, .n = n };
    struct lsi_sequence_job job = { .t = t, .seq = &seq, .alpha = 1.0f / (float)n };
    if (!ids)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu tokens", n);
    touch(&t->states);
    touch(&t->work);
    touch(&t->exec.scratch);
    zero_gradients(t);
    const ls_status st = lsi_sequence_gradients(&job, err);
    lsi_free(t->alloc, ids, bytes);
    return st;
}

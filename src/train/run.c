/*
 * A run: steps over data in a run directory (docs/formats/run-directory.md), from the beginning or from its
 * last checkpoint on. Whatever ends it, the directory holds a whole checkpoint and whole lines of metrics.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <longspan/convert.h>

#include "model/hf_dir.h"
#include "train/adapter.h"
#include "train/data.h"
#include "train/export.h"
#include "train/metrics.h"
#include "train/plot.h"
#include "train/run_file.h"
#include "train/trainer.h"

struct run {
    ls_train_options o;
    char token_cache[LSI_MODEL_PATH];
    int lock; /* file descriptor of the run directory */
    ls_trainer *t;
    ls_tokenizer *tok;
    char tokenizer_path[LSI_MODEL_PATH];
    struct lsi_data *data, *eval;
    ls_train_sequence *seqs; /* [accumulate] */
    struct lsi_metrics *metrics;
    struct lsi_state state;
    struct lsi_setting settings[LSI_RUN_SETTINGS];
    size_t n_settings;
    uint64_t saved; /* step of the last checkpoint */
};

static void note(const struct run *r, const char *fmt, ...) LSI_PRINTF(2, 3);

static void note(const struct run *r, const char *fmt, ...)
{
    char text[600];
    va_list args;
    if (!r->o.on_note)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->o.on_note(r->o.user, text);
}

static bool cancelled(const struct run *r)
{
    return r->o.cancel && *r->o.cancel;
}

/* ---- the directory ------------------------------------------------------------------------- */

static ls_status take_directory(struct run *r, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    const char *out = r->o.out;
    LSI_TRY(lsi_dir_take(out, "training", &r->lock, err));
    if (!lsi_path_join(path, sizeof path, out, "run.json"))
        return lsi_fail(err, LS_E_INVAL, "the path of the run directory is too long: %.200s", out);
    if (lsi_path_exists(path) && !r->o.resume)
        return lsi_fail(err, LS_E_INVAL,
                        "%s holds a run already: go on with it (resume), or name another directory", out);
    return LS_OK;
}

static ls_status open_data(struct run *r, ls_error *err)
{
    struct lsi_data_options d;
    const size_t V = r->t->model.config.V;
    LSI_TRY(lsi_data_tokenizer_path(&r->o, r->tokenizer_path, err));
    LSI_TRY(ls_tokenizer_open(r->tokenizer_path, r->o.alloc, &r->tok, err));
    lsi_data_run_options(&d, &r->o, false, r->tok, r->tokenizer_path, V);
    LSI_TRY(lsi_data_open(&r->data, &d, err));
    if (r->o.eval_every && !r->o.eval_data)
        note(r, "there are no evaluation data (eval-data): nothing is evaluated");
    if (r->o.eval_data) {
        lsi_data_run_options(&d, &r->o, true, r->tok, r->tokenizer_path, V);
        const ls_status st = lsi_data_open(&r->eval, &d, err);
        if (st != LS_OK)
            lsi_error_prefix(err, "evaluation data");
        LSI_TRY(st);
    }
    r->seqs = lsi_calloc(r->t->alloc, r->o.accumulate, sizeof *r->seqs);
    if (!r->seqs)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %zu sequences", r->o.accumulate);
    note(r, "%" PRIu64 " sequences of up to %zu tokens in the data, %" PRIu64 " tokens in all",
         lsi_data_n_sequences(r->data), r->o.seq, lsi_data_n_tokens(r->data));
    return LS_OK;
}

static void forward_note(void *user, const char *sentence)
{
    note(user, "%s", sentence);
}

/* How far a run that is gone on with has come. */
static void note_resumed(struct run *r)
{
    const uint64_t step = r->state.step, data = lsi_data_key(r->data);
    if (step > r->o.steps)
        note(r, "the run has done %" PRIu64 " steps, more than the %" PRIu64 " asked for", step, r->o.steps);
    else if (step)
        note(r, "going on after step %" PRIu64, step);
    else
        note(r, "there is no checkpoint in %s: beginning at the first step", r->o.out);
    if (r->state.data && data != r->state.data)
        note(r, "the data, or their tokenizer, are not those that the run began with: it goes on with them, "
                "and does not end as it would have");
}

/* From the last checkpoint, if there is one; the description of the run is written anew either way. */
static ls_status begin(struct run *r, ls_error *err)
{
    LSI_TRY(lsi_run_settings(&r->o, r->settings, &r->n_settings, err));
    r->state = (struct lsi_state){ .loss_mean = NAN };
    if (r->o.resume) {
        LSI_TRY(lsi_state_latest(r->o.out, &r->t->params, &r->state, r->settings, r->n_settings, forward_note,
                                 r, err));
        note_resumed(r);
    }
    r->state.data = lsi_data_key(r->data);
    r->t->steps = r->saved = r->state.step;
    LSI_TRY(lsi_run_file_write(r->o.out, &r->o, &r->t->model.config, r->t->alloc, err));
    return lsi_metrics_open(&r->metrics, r->o.out, r->state.step, r->t->alloc, err);
}

static ls_status save(struct run *r, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    ls_error drawing;
    if (r->saved == r->state.step)
        return LS_OK;
    LSI_TRY(lsi_state_path(path, r->o.out, r->state.step, err));
    LSI_TRY(lsi_state_save(path, &r->t->params, &r->state, r->settings, r->n_settings, err));
    r->saved = r->state.step;
    lsi_state_prune(r->o.out, r->o.keep);
    if (lsi_plot_write(r->o.out, r->t->alloc, &drawing) != LS_OK) /* a run does not end for a picture */
        note(r, "%s", drawing.text);
    return LS_OK;
}

/* ---- steps ------------------------------------------------------------------------------------ */

/* Learning rate of step i, from 0 (docs/training.md, "Learning rate"). */
static double learning_rate(const ls_train_options *o, uint64_t i)
{
    const double steps = (double)o->steps;
    /* Whole steps; a share that falls short of one by rounding alone is that one. */
    const double warmup = floor(o->warmup < 1 ? o->warmup * steps + 1e-9 : o->warmup);
    if ((double)i < warmup)
        return o->lr * ((double)i + 1) / warmup;
    const double at = steps > warmup ? ((double)i - warmup) / (steps - warmup) : 1;
    switch (o->schedule) {
    case LS_TRAIN_LINEAR:
        return o->lr * (o->min_lr_ratio + (1 - o->min_lr_ratio) * (1 - at));
    case LS_TRAIN_COSINE:
        return o->lr *
               (o->min_lr_ratio + (1 - o->min_lr_ratio) * 0.5 * (1 + cos(3.14159265358979323846 * at)));
    case LS_TRAIN_CONSTANT:
        break;
    }
    return o->lr;
}

/* Mean loss of the evaluation data's first sequences. */
static ls_status evaluate(struct run *r, double *mean, ls_error *err)
{
    const uint64_t all = lsi_data_n_sequences(r->eval), most = r->o.eval_sequences;
    double sum = 0;
    uint64_t n = 0;
    for (uint64_t i = 0; i < all && i < most; i++) {
        ls_train_sequence s;
        double loss;
        uint64_t valid;
        LSI_TRY(lsi_data_get(r->eval, i, 0, &s, err));
        LSI_TRY(ls_trainer_eval(r->t, &s, &loss, &valid, err));
        sum += loss;
        n += valid;
    }
    *mean = n ? sum / (double)n : NAN;
    return LS_OK;
}

static bool is_due(uint64_t step, uint64_t every, uint64_t last)
{
    return step == last || (every && step % every == 0);
}

static ls_status one_step(struct run *r, ls_error *err)
{
    const size_t n = r->o.accumulate;
    const uint64_t i = r->state.step;
    ls_train_step s = { .struct_size = sizeof s };

    for (size_t k = 0; k < n; k++)
        LSI_TRY(lsi_data_get(r->data, r->state.next_sequence + k, (int)k, &r->seqs[k], err));
    ls_status st = ls_trainer_step(r->t, r->seqs, n, learning_rate(&r->o, i), &s, err);
    if (st == LS_E_NUMERIC)
        lsi_error_prefix(err, "step %" PRIu64 ": ", i + 1);
    LSI_TRY(st);
    r->state.step++;
    r->state.next_sequence += n;
    r->state.tokens += s.tokens;
    r->state.seconds += s.seconds;
    r->state.loss_mean = isnan(r->state.loss_mean) ? s.loss : 0.95 * r->state.loss_mean + 0.05 * s.loss;
    if (r->eval && is_due(r->state.step, r->o.eval_every, r->o.steps)) {
        st = evaluate(r, &s.eval_loss, err);
        if (st != LS_OK && st != LS_E_CANCELED)
            return st;
    }
    LSI_TRY(lsi_metrics_append(r->metrics, &s, err));
    if (r->o.on_step)
        r->o.on_step(r->o.user, &s);
    if (is_due(r->state.step, r->o.save_every, r->o.steps))
        return save(r, err);
    return LS_OK;
}

/* ---- the end ------------------------------------------------------------------------------------ */

static ls_status write_gguf(struct run *r, const char *dir, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    ls_convert_options o;
    ls_convert_options_defaults(&o);
    o.dtype = r->o.gguf;
    o.force = true;
    o.alloc = r->o.alloc;
    if (!lsi_path_join(path, sizeof path, r->o.out, "model.gguf"))
        return lsi_fail(err, LS_E_INVAL, "the path of the run directory is too long");
    return ls_convert(dir, path, &o, err);
}

static ls_status write_result(struct run *r, ls_error *err)
{
    char dir[LSI_MODEL_PATH];
    const bool adapter = r->o.lora_rank > 0;
    if (!lsi_path_join(dir, sizeof dir, r->o.out, adapter ? "adapter" : "model"))
        return lsi_fail(err, LS_E_INVAL, "the path of the run directory is too long");
    lsi_hf_dir_clean(dir); /* the run directory is locked: nobody else writes there */
    if (adapter) {
        const double alpha = r->o.lora_alpha > 0 ? r->o.lora_alpha : 2 * (double)r->o.lora_rank;
        struct lsi_extension extension;
        LSI_TRY(lsi_trainer_extension(&extension, &r->o, r->t->model.config.n_ctx_train, err));
        LSI_TRY(lsi_adapter_save(&r->t->params, alpha, r->o.model ? r->o.model : r->o.init, &extension, dir,
                                 err));
        note(r, "the adapter is in %s; 'longspan merge' adds it to the model", dir);
        return LS_OK;
    }
    LSI_TRY(ls_trainer_export(r->t, dir, err));
    note(r, "the model is in %s", dir);
    return r->o.gguf ? write_gguf(r, dir, err) : LS_OK;
}

ls_status ls_trainer_export(ls_trainer *t, const char *dir, ls_error *err)
{
    ls_model *source = NULL;
    ls_model_options mo;
    ls_model_options_defaults(&mo);
    mo.alloc = t->alloc;
    if (t->o.lora_rank)
        return lsi_fail(err, LS_E_UNSUPPORTED,
                        "an adapter is merged into its model ('longspan merge'), not exported");
    if (t->o.model)
        LSI_TRY(ls_model_open(t->o.model, &mo, &source, err));
    const struct lsi_export e = { .params = &t->params,
                                  .config = &t->model.config,
                                  .dtype = t->o.dtype == LS_TRAIN_BF16 ? LSI_BF16 : LSI_F32,
                                  .source = source,
                                  .init = t->o.init,
                                  .tokenizer = t->o.tokenizer,
                                  .alloc = t->alloc };
    const ls_status st = lsi_export_hf(&e, dir, err);
    ls_model_close(source);
    return st;
}

/* ---- the run --------------------------------------------------------------------------------------- */

static ls_status dry(struct run *r, ls_error *err)
{
    ls_train_plan p = { .struct_size = sizeof p };
    LSI_TRY(lsi_trainer_dry_step(r->t, err));
    ls_trainer_get_plan(r->t, &p);
    if (r->o.on_dry_step)
        r->o.on_dry_step(r->o.user, &p, r->t->states.cap + r->t->work.cap + r->t->exec.scratch.cap);
    return LS_OK;
}

static ls_status steps(struct run *r, ls_error *err)
{
    ls_status st = LS_OK;
    while (st == LS_OK && r->state.step < r->o.steps)
        st = cancelled(r) ? lsi_fail(err, LS_E_CANCELED, "cancelled") : one_step(r, err);
    if (st == LS_E_CANCELED) {
        LSI_TRY(save(r, err));
        return lsi_fail(err, LS_E_CANCELED,
                        "stopped after step %" PRIu64 " of %" PRIu64 "; resume goes on from there",
                        r->state.step, r->o.steps);
    }
    LSI_TRY(st);
    LSI_TRY(save(r, err));
    return write_result(r, err);
}

/* What was chosen so that the memory suffices costs time: that is worth a word. */
static void note_checkpoints(struct run *r)
{
    const size_t every = r->t->settings.every;
    if (every > 1 && !r->o.checkpoint_layers)
        note(r,
             "the memory holds the input of one layer in %zu: the layers between are computed once more, "
             "which takes longer and changes nothing else",
             every);
}

static ls_status check(struct run *r, ls_error *err)
{
    const ls_train_options *o = &r->o;
    if (!o->out && !o->dry_step)
        return lsi_fail(err, LS_E_INVAL, "a run takes a directory to write to (out)");
    if (o->n_data == 0 && !o->dry_step)
        return lsi_fail(err, LS_E_INVAL, "a run takes data to learn from");
    if (o->steps == 0)
        return lsi_fail(err, LS_E_INVAL, "a run takes at least one step");
    if (!(o->lr >= 0) || !(o->warmup >= 0) || !(o->min_lr_ratio >= 0 && o->min_lr_ratio <= 1))
        return lsi_fail(
            err, LS_E_INVAL,
            "learning rate and warm-up must not be negative, the ratio at the end lies in [0, 1]");
    if (o->accumulate == 0)
        r->o.accumulate = 1;
    if (o->gguf && o->lora_rank)
        return lsi_fail(err, LS_E_INVAL,
                        "an adapter has no GGUF file; 'longspan merge' writes one of the merged model");
    if (!o->token_cache && o->out) {
        if (!lsi_path_join(r->token_cache, sizeof r->token_cache, o->out, "tokens"))
            return lsi_fail(err, LS_E_INVAL, "the path of the run directory is too long: %.200s", o->out);
        r->o.token_cache = r->token_cache;
    }
    return LS_OK;
}

ls_status ls_train_run(const ls_train_options *options, ls_error *err)
{
    struct run r = { .lock = -1 };
    ls_status st;
    ls_train_options_defaults(&r.o);
    memcpy(&r.o, options, lsi_min_size(options->struct_size, sizeof r.o));
    LSI_TRY(check(&r, err));
    LSI_TRY_OR(end, r.o.dry_step ? LS_OK : take_directory(&r, err));
    LSI_TRY_OR(end, ls_trainer_create(&r.o, &r.t, err));
    note_checkpoints(&r);
    if (r.o.dry_step) {
        st = dry(&r, err);
        goto end;
    }
    LSI_TRY_OR(end, open_data(&r, err));
    LSI_TRY_OR(end, begin(&r, err));
    st = steps(&r, err);
end:
    lsi_metrics_close(r.metrics);
    lsi_data_close(r.data);
    lsi_data_close(r.eval);
    ls_tokenizer_close(r.tok);
    if (r.t)
        lsi_free(r.t->alloc, r.seqs, r.o.accumulate * sizeof *r.seqs);
    ls_trainer_free(r.t);
    if (r.lock >= 0)
        close(r.lock);
    return st;
}

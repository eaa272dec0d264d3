/* A training run, and how far it has come. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_train.h"

enum {
    LINE_SECONDS = 10, /* between lines where there is no terminal */
    ROWS_SECONDS = 60  /* and between those within a step */
};

#define KEEP 0.9 /* share of the past in the running means */

struct run {
    const struct cli_options *o;
    ls_train_step last; /* step 0: none yet */
    uint64_t n_steps;   /* of this process */
    double loss;        /* running mean */
    double step_seconds, tokens_per_second;
    uint64_t tokens;
    double eval_loss; /* the last one, NAN: none */
    double started, shown;
    bool drawn;
    struct progress reading; /* of the data at hand */
    size_t read;             /* bytes of them */
    ls_train_plan plan;      /* of a dry step */
    uint64_t allocated;
};

/* ---- while it runs --------------------------------------------------------------- */

static void wipe(struct run *r)
{
    if (r->drawn)
        progress_wipe();
    r->drawn = false;
    progress_end(&r->reading);
}

static void describe(const struct run *r, char *out, size_t cap)
{
    char memory[32], left[32];
    const double steps = (double)(r->o->steps - (long long)r->last.step);

    snprintf(out, cap, "step %llu/%lld, loss %.4f (mean %.4f), %.0f tokens/s, %s, %s left",
             (unsigned long long)r->last.step, r->o->steps, r->last.loss, r->loss, r->tokens_per_second,
             format_bytes(memory, (double)r->last.peak_bytes), format_seconds(left, steps * r->step_seconds));
}

/* A running mean; the first values count alike. */
static double mean(double before, double value, uint64_t n)
{
    const double keep = fmin(KEEP, 1 - 1 / (double)n);

    return keep * before + (1 - keep) * value;
}

static void on_step(void *user, const ls_train_step *step)
{
    struct run *r = user;
    const bool terminal = isatty(STDERR_FILENO);
    char text[160];

    r->last = *step;
    r->n_steps++;
    r->tokens += step->tokens;
    r->loss = mean(r->loss, step->loss, r->n_steps);
    r->step_seconds = mean(r->step_seconds, step->seconds, r->n_steps);
    r->tokens_per_second =
        mean(r->tokens_per_second, (double)step->tokens / fmax(step->seconds, 1e-9), r->n_steps);
    if (!isnan(step->eval_loss))
        r->eval_loss = step->eval_loss;
    if (r->o->quiet)
        return;
    if (!isnan(step->eval_loss)) {
        wipe(r);
        fprintf(stderr, "step %llu: loss on the evaluation data %.4f\n", (unsigned long long)step->step,
                step->eval_loss);
    }
    describe(r, text, sizeof text);
    if (terminal) {
        progress_draw("train", text, (double)step->step / (double)r->o->steps);
        r->drawn = true;
    } else if (now_seconds() - r->shown >= LINE_SECONDS || (long long)step->step == r->o->steps) {
        fprintf(stderr, "train: %s\n", text);
        r->shown = now_seconds();
    }
}

/* Within a step that takes long. */
static void on_rows(void *user, size_t done, size_t total)
{
    struct run *r = user;
    const double now = now_seconds(), share = total ? (double)done / (double)total : 0;
    const bool terminal = isatty(STDERR_FILENO);
    char text[160];

    if (r->o->quiet || now - r->started < 1 || now - r->shown < (terminal ? 0.2 : ROWS_SECONDS))
        return;
    r->shown = now;
    if (!terminal) {
        fprintf(stderr, "train: step %llu/%lld, %.0f %% of it\n", (unsigned long long)r->last.step + 1,
                r->o->steps, 100 * share);
        return;
    }
    if (r->last.step)
        describe(r, text, sizeof text);
    else
        snprintf(text, sizeof text, "step 1/%lld, %.0f %% of it", r->o->steps, 100 * share);
    progress_draw("train", text, ((double)r->last.step + share) / (double)r->o->steps);
    r->drawn = true;
}

/* Data that have not been tokenised yet; those of the evaluation come after those of the training. */
static void on_data(void *user, size_t done, size_t total)
{
    struct run *r = user;

    if (done < r->read || !r->reading.what) {
        progress_end(&r->reading);
        progress_start(&r->reading, "tokenise", "bytes", r->o->quiet);
    }
    r->read = done;
    progress_update(&r->reading, done, total);
}

static void on_note(void *user, const char *sentence)
{
    struct run *r = user;

    if (r->o->quiet)
        return;
    wipe(r);
    cli_note(false, "%s", sentence);
}

static void on_dry_step(void *user, const ls_train_plan *plan, uint64_t allocated_bytes)
{
    struct run *r = user;

    r->plan = *plan;
    r->allocated = allocated_bytes;
}

/* ---- at the end -------------------------------------------------------------------- */

static int print_json(const struct run *r, bool stopped)
{
    struct json_out j = { 0 };
    const double seconds = now_seconds() - r->started;

    json_open(&j, NULL, '{');
    json_str(&j, "out", r->o->out);
    json_bool(&j, "stopped", stopped);
    json_real(&j, "step", r->last.step ? (double)r->last.step : NAN);
    json_int(&j, "steps", r->o->steps);
    json_real(&j, "loss", r->last.step ? r->last.loss : NAN);
    json_real(&j, "mean_loss", r->last.step ? r->loss : NAN);
    json_real(&j, "eval_loss", r->eval_loss);
    json_uint(&j, "trained_tokens", r->tokens);
    json_real(&j, "seconds", seconds);
    json_real(&j, "tokens_per_second", r->tokens_per_second);
    json_str(&j, "mode", r->o->mode);
    json_str(&j, "dtype", r->o->dtype);
    json_uint(&j, "peak_bytes", ls_peak_bytes());
    json_close(&j, '}');
    return json_print(&j);
}

static int finish(const struct run *r, bool stopped)
{
    const bool quiet = r->o->quiet;
    char took[32], peak[32];

    format_seconds(took, now_seconds() - r->started);
    format_bytes(peak, (double)ls_peak_bytes());
    const char *result = r->o->lora_rank ? "adapter" : "model";
    if (!stopped && r->n_steps)
        cli_note(quiet, "%llu steps in %s, last loss %.4f (mean %.4f), peak memory %s; the result is %s/%s",
                 (unsigned long long)r->n_steps, took, r->last.loss, r->loss, peak, r->o->out, result);
    else if (!stopped)
        cli_note(quiet, "all steps were done before; the result is %s/%s", r->o->out, result);
    else if (r->last.step)
        cli_note(quiet,
                 "stopped after step %llu of %lld with a checkpoint; the same command with --resume goes on",
                 (unsigned long long)r->last.step, r->o->steps);
    else
        cli_note(quiet, "stopped before a step was done; nothing has changed");
    return r->o->json ? print_json(r, stopped) : EXIT_OK;
}

static void print_bytes(const char *label, uint64_t bytes, const char *what)
{
    char text[32];

    printf("%-13s%s (%llu bytes)%s\n", label, format_bytes(text, (double)bytes), (unsigned long long)bytes,
           what);
}

/* What a dry step took. */
static int finish_dry(const struct run *r)
{
    struct json_out j = { 0 };
    char phase[64];

    if (!r->o->json) {
        snprintf(phase, sizeof phase, ", greatest in phase %s", r->plan.peak_phase);
        print_bytes("planned", r->plan.total_bytes, phase);
        print_bytes("allocated", r->allocated, "");
        if (r->plan.spill_bytes)
            print_bytes("in the file", r->plan.spill_bytes, "");
        print_bytes("peak memory", ls_peak_bytes(), ", the process as a whole");
        return finish_output(EXIT_OK);
    }
    json_open(&j, NULL, '{');
    json_int(&j, "seq", r->o->seq);
    json_str(&j, "mode", r->o->mode);
    json_str(&j, "dtype", r->o->dtype);
    json_uint(&j, "planned_bytes", r->plan.total_bytes);
    json_uint(&j, "allocated_bytes", r->allocated);
    json_uint(&j, "file_bytes", r->plan.spill_bytes);
    json_uint(&j, "peak_bytes", ls_peak_bytes());
    json_real(&j, "seconds", now_seconds() - r->started);
    json_close(&j, '}');
    return json_print(&j);
}

static bool holds_run(const char *dir)
{
    struct text path = { 0 };
    struct stat info;

    text_printf(&path, "%s/run.json", dir);
    const bool found = lstat(path.data, &info) == 0;
    text_free(&path);
    return found;
}

static int check(const struct cli_options *o)
{
    if (o->dry_step)
        return EXIT_OK;
    if (!o->out)
        return cli_usage("no folder for the run: name one with --out DIR");
    if (!o->resume && holds_run(o->out))
        return cli_fail("'%s' holds a run already; --resume goes on with it, another --out begins a new one",
                        o->out);
    if (o->resume && !holds_run(o->out))
        return cli_fail("'%s' holds no run to go on with; without --resume one begins there", o->out);
    return EXIT_OK;
}

int cmd_train(const struct cli_options *o)
{
    struct run r = { .o = o, .eval_loss = NAN, .started = now_seconds() };
    ls_train_options t;
    ls_error err = { 0 };
    char *model;
    int status = train_options(o, &t, &model);

    if (status == EXIT_OK)
        status = check(o);
    if (status == EXIT_OK) {
        t.on_step = on_step;
        t.on_dry_step = on_dry_step;
        t.on_rows = on_rows;
        t.on_data = on_data;
        t.on_note = on_note;
        t.user = &r;
        r.shown = r.started;
        const ls_status st = ls_train_run(&t, &err);
        wipe(&r);
        if (st != LS_OK && st != LS_E_CANCELED)
            status = train_fails(&t, st, &err);
        else if (o->dry_step)
            status = st == LS_OK ? finish_dry(&r) : EXIT_INTERRUPTED;
        else
            status = finish(&r, st == LS_E_CANCELED);
    }
    free(model);
    return status;
}

/* What training takes: this program's own plan, or formulas of other systems. */
#include <stdlib.h>
#include <string.h>

#include "plan_report.h"

static int library_fails(const ls_error *err)
{
    return cli_fail("%s", err->text);
}

/* ---- the command line ----------------------------------------------------------- */

/* The model that is meant; release with free. */
static int find_subject(const struct cli_options *o, char **model)
{
    const size_t n = o->rest.n + (o->model != NULL);

    *model = NULL;
    if (n > 1)
        return cli_usage("unexpected argument '%s': plan takes one model", o->rest.items[o->rest.n - 1]);
    *model = o->rest.n ? strdup(o->rest.items[0]) : find_model(o);
    return *model ? EXIT_OK : EXIT_USAGE;
}

static int read_sizes(struct plan_report *r)
{
    const struct cli_options *o = r->o;
    char *end;

    r->memory = o->memory ? o->memory : ls_memory_available();
    if (r->memory == 0)
        return cli_usage("this system does not say what memory there is; say it with --memory SIZE");
    if (strcmp(o->plan_seq, "max") == 0)
        return EXIT_OK;
    r->seq = (size_t)strtoull(o->plan_seq, &end, 10);
    if (*end || o->plan_seq[0] < '0' || o->plan_seq[0] > '9' || r->seq < 1 || r->seq > LS_PLAN_MAX_SEQ)
        return cli_usage("--seq is '%s'; it must be max or a number of tokens from 1 to %zu", o->plan_seq,
                         LS_PLAN_MAX_SEQ);
    return EXIT_OK;
}

/* ---- this library ------------------------------------------------------------------- */

static int plan_mode(struct plan_report *r, const ls_planner *p, struct plan_mode *m)
{
    ls_error err = { 0 };

    m->plan.struct_size = sizeof m->plan;
    m->cost.struct_size = sizeof m->cost;
    m->o.seq = r->seq;
    m->o.memory = r->memory;
    if (ls_planner_longest(p, &m->o, r->memory, &m->longest, &m->plan, &err) != LS_OK)
        return library_fails(&err);
    m->fits = m->longest > 0;
    if (r->seq) {
        if (ls_planner_get(p, &m->o, &m->plan, &err) != LS_OK)
            return library_fails(&err);
        m->fits = m->plan.total_bytes <= r->memory;
    }
    m->o.seq = m->plan.seq;
    ls_planner_get_cost(p, &m->o, &m->plan, &r->rates, &m->cost);
    return EXIT_OK;
}

static int find_rates(struct plan_report *r, const ls_planner *p, const ls_train_options *o)
{
    const struct cli_options *c = r->o;
    ls_error err = { 0 };

    r->rates = (ls_plan_rates){ .struct_size = sizeof r->rates,
                                .gemm = c->rate_gemm * 1e9,
                                .gemm_backward = c->rate_gemm * 1e9,
                                .attention = c->rate_attention * 1e9,
                                .attention_backward = c->rate_attention * 1e9,
                                .copy = c->rate_copy * 1e9 };
    return ls_planner_measure(p, o, &r->rates, &err) == LS_OK ? EXIT_OK : library_fails(&err);
}

/* Every mode with the same options; only what a mode cannot have is left out, unless it was chosen. */
static int plan_own(struct plan_report *r, const ls_planner *p)
{
    static const struct {
        ls_train_mode mode;
        const char *name;
    } modes[PLAN_MODES] = {
        { LS_TRAIN_STANDARD, "standard" },
        { LS_TRAIN_RECOMPUTE, "recompute" },
        { LS_TRAIN_MST, "mst" },
        { LS_TRAIN_SWEEP, "sweep" },
    };
    ls_train_options o;
    ls_error err = { 0 };
    int status;

    ls_train_options_defaults(&o);
    train_options_how(r->o, &o);
    status = find_rates(r, p, &o);
    for (size_t i = 0; i < PLAN_MODES && status == EXIT_OK; i++) {
        r->modes[i].o = o;
        r->modes[i].o.mode = modes[i].mode;
        r->modes[i].name = modes[i].name;
        if (modes[i].mode == o.mode)
            r->chosen = i;
        else if (modes[i].mode == LS_TRAIN_STANDARD) {
            r->modes[i].o.spill = NULL;
            r->modes[i].o.checkpoint_layers = 0;
        }
        status = plan_mode(r, p, &r->modes[i]);
    }
    if (status != EXIT_OK)
        return status;
    r->own = true;
    o.seq = r->seq;
    r->advice[0].struct_size = sizeof r->advice[0];
    if (ls_planner_advise(p, &o, r->memory, r->advice, &r->n_advice, &err) != LS_OK)
        return library_fails(&err);
    return EXIT_OK;
}

/* ---- formulas -------------------------------------------------------------------------- */

static int plan_profiles(struct plan_report *r, const ls_planner *p, const char *wanted)
{
    const struct cli_options *o = r->o;
    const bool frameworks = strcmp(wanted, "framework") == 0;
    const char *name, *summary;
    ls_error err = { 0 };

    for (size_t i = 0; (name = ls_plan_profile_name(i, &summary)) && r->n_profiles < PLAN_PROFILES; i++) {
        if (frameworks ? strcmp(name, "spec") == 0 : strcmp(name, wanted) != 0)
            continue;
        struct plan_profile *f = &r->profiles[r->n_profiles++];
        f->name = name;
        f->summary = summary;
        ls_plan_request_defaults(&f->request);
        f->request.memory = r->memory;
        f->request.bytes_per_parameter = o->bytes_per_parameter;
        f->request.accumulate = o->accumulate > 1;
        f->request.offload = o->spill != NULL;
        f->request.row_bytes = f->request.checkpoint_bytes = strcmp(o->dtype, "fp32") == 0 ? 4 : 2;
        f->estimate.struct_size = sizeof f->estimate;
        if (ls_planner_estimate(p, name, &f->request, &f->estimate, &err) != LS_OK)
            return library_fails(&err);
    }
    return EXIT_OK;
}

static int plan_all(struct plan_report *r, const ls_planner *p)
{
    const bool own = strcmp(r->o->profile, "own") == 0;

    r->shape.struct_size = sizeof r->shape;
    ls_planner_get_shape(p, &r->shape);
    if (own && r->shape.trainable)
        return plan_own(r, p);
    if (own)
        cli_note(r->o->quiet,
                 "%s is of a family that this program does not train; what follows are formulas of "
                 "other systems",
                 r->shape.name);
    return plan_profiles(r, p, own ? "framework" : r->o->profile);
}

int cmd_plan(const struct cli_options *o)
{
    struct plan_report r = { .o = o };
    ls_planner *p = NULL;
    ls_error err = { 0 };
    char *model;
    int status = find_subject(o, &model);

    if (status == EXIT_OK)
        status = read_sizes(&r);
    if (status == EXIT_OK && ls_planner_open(model, NULL, &p, &err) != LS_OK)
        status = library_fails(&err);
    if (status == EXIT_OK)
        status = plan_all(&r, p);
    if (status == EXIT_OK)
        status = o->json ? plan_print_json(&r) : plan_print_text(&r);
    ls_planner_close(p);
    free(model);
    return status;
}

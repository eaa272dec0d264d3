/* How far a way of training is from the plain one. */
#include <math.h>
#include <stdlib.h>

#include "cli_train.h"

struct verification {
    const struct cli_options *o;
    struct json_out steps;
    struct progress reading; /* of the data */
    double started;
};

static double relative(double a, double b)
{
    return a == b ? 0 : fabs(a - b) / fabs(b);
}

static void on_step(void *user, const ls_train_verify_step *s)
{
    struct verification *v = user;
    const double loss = relative(s->loss, s->standard_loss),
                 norm = relative(s->grad_norm, s->standard_grad_norm);

    progress_end(&v->reading);
    if (v->o->json) {
        json_open(&v->steps, NULL, '{');
        json_uint(&v->steps, "step", s->step);
        json_real(&v->steps, "loss", s->loss);
        json_real(&v->steps, "standard_loss", s->standard_loss);
        json_real(&v->steps, "grad_norm", s->grad_norm);
        json_real(&v->steps, "standard_grad_norm", s->standard_grad_norm);
        json_close(&v->steps, '}');
        return;
    }
    if (s->step == 0)
        printf("              %-12s%-12s%-14s%-12s%-12s%s\n", v->o->mode, "standard", "difference",
               v->o->mode, "standard", "difference");
    if (s->step == 0)
        printf("first batch   ");
    else
        printf("step %-9llu", (unsigned long long)s->step);
    printf("loss %-10.6f%-12.6f%-9.1e gradient norm %-10.6g%-12.6g%.1e\n", s->loss, s->standard_loss, loss,
           s->grad_norm, s->standard_grad_norm, norm);
    fflush(stdout);
}

static void print_text(const struct verification *v, const ls_train_verify_result *r)
{
    printf("loss          %.1e relative, may be %.1e\n", r->loss_difference, r->norm_tolerance);
    printf("norm          %.1e, may be %.1e\n", r->norm_difference, r->norm_tolerance);
    printf("gradient      %.1e, may be %.1e\n", r->gradient_difference, r->gradient_tolerance);
    printf("of a tensor   %.1e, may be %.1e%s%s\n", r->tensor_difference, r->tensor_tolerance,
           r->tensor[0] ? ": " : "", r->tensor);
    if (v->o->steps)
        printf("after steps   loss %.1e, may be %.1e; weights %.1e%s%s\n", r->step_loss_difference,
               r->step_tolerance, r->weight_difference, r->weight_tensor[0] ? ": " : "", r->weight_tensor);
    puts(r->passed ? "the same up to rounding" : "DIFFERENT: more than rounding explains");
}

static int print_json(struct verification *v, const ls_train_verify_result *r)
{
    struct json_out j = { 0 };

    json_open(&j, NULL, '{');
    json_bool(&j, "passed", r->passed);
    json_str(&j, "mode", v->o->mode);
    json_str(&j, "dtype", v->o->dtype);
    json_raw(&j, "steps", '[', &v->steps.text, ']');
    json_real(&j, "loss_difference", r->loss_difference);
    json_real(&j, "norm_difference", r->norm_difference);
    json_real(&j, "gradient_difference", r->gradient_difference);
    json_real(&j, "tensor_difference", r->tensor_difference);
    json_str(&j, "tensor", r->tensor);
    json_real(&j, "step_loss_difference", r->step_loss_difference);
    json_real(&j, "weight_difference", r->weight_difference);
    json_str(&j, "weight_tensor", r->weight_tensor);
    json_real(&j, "norm_tolerance", r->norm_tolerance);
    json_real(&j, "gradient_tolerance", r->gradient_tolerance);
    json_real(&j, "tensor_tolerance", r->tensor_tolerance);
    json_real(&j, "step_tolerance", r->step_tolerance);
    json_real(&j, "seconds", now_seconds() - v->started);
    json_uint(&j, "peak_bytes", ls_peak_bytes());
    json_close(&j, '}');
    return json_print(&j);
}

static int verify(struct verification *v, const ls_train_options *t)
{
    ls_train_verify_result r = { .struct_size = sizeof r };
    ls_error err = { 0 };
    int status = EXIT_OK;

    progress_start(&v->reading, "tokenise", "bytes", v->o->quiet);
    const ls_status st = ls_train_verify(t, v->o->dump, on_step, v, &r, &err);
    progress_end(&v->reading);
    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    if (st != LS_OK)
        return train_fails(t, st, &err);
    if (v->o->json)
        status = print_json(v, &r);
    else
        print_text(v, &r);
    status = finish_output(status);
    return status == EXIT_OK && !r.passed ? EXIT_ERROR : status;
}

int cmd_verify_training(const struct cli_options *o)
{
    struct verification v = { .o = o, .started = now_seconds() };
    ls_train_options t;
    char *model;
    int status = train_options(o, &t, &model);

    if (status == EXIT_OK) {
        t.on_data = progress_update;
        t.user = &v.reading;
        status = verify(&v, &t);
    }
    text_free(&v.steps.text);
    free(model);
    return status;
}

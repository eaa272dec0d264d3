/*
 * A trainer: parameters, memory of a step, and the step. trainer.c makes it and steps the
 * optimizer; sweep.c computes the gradients of one sequence.
 */
#ifndef LSI_TRAINER_H
#define LSI_TRAINER_H

#include "train/extend.h"
#include "train/layout.h"

struct ls_trainer {
    const ls_alloc *alloc;
    ls_train_options o;    /* texts belong to the caller and must live as long as the trainer */
    struct ls_model model; /* configuration and a view of the parameters */
    struct lsi_exec exec;
    struct lsi_params params;
    struct lsi_train_settings settings;
    struct lsi_train_memory memory;
    struct lsi_arena states, work; /* backend memory */
    ls_train_plan plan;
    uint64_t steps; /* optimizer steps made */

    /* of the running step */
    struct lsi_adamw adamw;
    double norm_squares;          /* of the gradients stepped so far, where they are stepped layer by layer */
    size_t rows_done, rows_total; /* of a step: rows through a layer, weighted by what they cost */
};

/* Gradients of one sequence are added to those that are there. */
struct lsi_sequence_job {
    ls_trainer *t;
    const ls_train_sequence *seq;
    float alpha;      /* 1 / valid labels of the step */
    double loss;      /* sum over the sequence's valid labels */
    bool step_layers; /* step each layer when its gradients are complete */
};

/** Forward, loss, backward. LS_E_NUMERIC names the layer where something is not finite. */
ls_status lsi_sequence_gradients(struct lsi_sequence_job *j, ls_error *err);
/** Loss alone: j->alpha and step_layers are not looked at. */
ls_status lsi_sequence_loss(struct lsi_sequence_job *j, ls_error *err);

/** Configuration of options: model or init, with the rotary embedding and context that they ask for. */
ls_status lsi_trainer_config(struct lsi_config *c, const ls_train_options *o, ls_error *err);

/** What options change of the configuration that they name, whose context has n_ctx_model tokens. */
ls_status lsi_trainer_extension(struct lsi_extension *e, const ls_train_options *o, size_t n_ctx_model,
                                ls_error *err);

/** Deviation of random weights by the config.json of init (initializer_range). */
ls_status lsi_trainer_init_std(const char *path, const ls_alloc *alloc, double *std, ls_error *err);

/* Where parameters are stepped as soon as their gradients are complete; with t->adamw. */
void lsi_trainer_zero_layer(ls_trainer *t, size_t layer);
ls_status lsi_trainer_step_layer(ls_trainer *t, size_t layer, ls_error *err);
/** The output matrix (untied) and the norm before it. */
ls_status lsi_trainer_step_output(ls_trainer *t, ls_error *err);

/** Loss (a mean) and gradients of a batch, without a step; gradients must be resident. */
ls_status lsi_trainer_gradients(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs, double *loss,
                                const struct lsi_params **params, ls_error *err);

/** Touch all memory, run the ends of each phase on o.seq tokens. */
ls_status lsi_trainer_dry_step(ls_trainer *t, ls_error *err);

#endif

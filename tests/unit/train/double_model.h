/*
 * Complete models of every family in double precision, forward and backward written from the equations alone
 * (training.md 1): what the trainer's gradients are held against. Everything is kept, nothing is fast.
 */
#ifndef DOUBLE_MODEL_H
#define DOUBLE_MODEL_H

#include "small_trainer.h"

#define DOUBLE_ROWS 31 /* most tokens of a sequence */

/* What a layer keeps for its backward pass: [rows][width], scores [H][rows][rows]. */
struct double_layer {
    double *x, *n, *q_in, *k_in, *q, *k, *v, *p, *o, *y, *h, *n2, *gate, *up, *act, *z;
};

struct double_model {
    const struct lsi_config *c;
    const struct lsi_params *params;
    const ls_train_sequence *s;
    double **values, **grads; /* [params->n] weights, and the gradients that backward passes add to */
    struct double_layer *layers;
    double *x, *n, *dx; /* output of the last layer, behind the last norm, gradient of rows */
    double *all;        /* what all of them lie in */
};

/* The weights of a trainer, in double; gradients are 0. */
struct double_model double_open(const ls_trainer *t, const ls_train_sequence *s);
void double_close(struct double_model *m);

/* Layer l from layers[l].x to y. */
void double_layer_forward(struct double_model *m, size_t l, double *y);
/* dx: gradient of the output, replaced by that of the input. After the layer's forward. */
void double_layer_backward(struct double_model *m, size_t l, double *dx);
/* Mean loss of the valid labels. */
double double_loss(struct double_model *m);
/* And the gradients of all parameters. */
double double_gradients(struct double_model *m);

#endif

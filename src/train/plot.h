/*
 * RUN/loss.svg: how a run went, drawn from its metrics.jsonl. Loss of every step, thin, and smoothed; losses
 * of evaluations as points; below, the learning rate, the norm of the gradient where it is known, and the
 * greatest resident memory. Any number of steps: what falls on one column of the picture is drawn as its
 * range.
 */
#ifndef LSI_PLOT_H
#define LSI_PLOT_H

#include "base/base.h"

/** Draw RUN/metrics.jsonl as RUN/loss.svg. A file without a step gives a picture that says so. */
ls_status lsi_plot_write(const char *run, const ls_alloc *alloc, ls_error *err);

#endif

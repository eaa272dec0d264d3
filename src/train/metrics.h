/*
 * RUN/metrics.jsonl: an object a step,
 *
 *   {"step":1,"loss":2.5,"grad_norm":1.25,"lr":1e-05,"tokens":4096,"labels":4095,"seconds":3.5,
 *    "peak_bytes":123456789}
 *
 * with "eval_loss" after a step that was followed by an evaluation. grad_norm is null where it is not known.
 * Each line is handed to the system as a whole when its step is done.
 */
#ifndef LSI_METRICS_H
#define LSI_METRICS_H

#include <longspan/train.h>

#include "base/base.h"

struct lsi_metrics; /* heap object */

/** Begin anew (step 0) or go on behind `step`: lines of later steps, and what was cut off in writing, go. */
ls_status lsi_metrics_open(struct lsi_metrics **m, const char *run, uint64_t step, const ls_alloc *alloc,
                           ls_error *err);
/** On failure (disk full) the file holds whole lines still. */
ls_status lsi_metrics_append(struct lsi_metrics *m, const ls_train_step *step, ls_error *err);
void lsi_metrics_close(struct lsi_metrics *m);

typedef void lsi_metrics_fn(void *user, const ls_train_step *step);
/** Call fn for every line. An unfinished last line is passed over; another that is no such object is an
 * error. */
ls_status lsi_metrics_read(const char *path, lsi_metrics_fn *fn, void *user, ls_error *err);

#endif

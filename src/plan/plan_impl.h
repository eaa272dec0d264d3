/* The planner's insides: a model's sizes and, where the engine knows its family, its configuration. */
#ifndef LSI_PLAN_IMPL_H
#define LSI_PLAN_IMPL_H

#include <longspan/plan.h>

#include "model/config.h"

struct ls_planner {
    ls_plan_shape shape;
    char *name; /* owned: shape.name */
    size_t name_bytes;
    bool has_config;
    struct lsi_config config; /* has_config */
    const ls_alloc *alloc;
};

/* A named shape; false when there is none of this name. JSON text of a config.json goes to json (empty for
 * families that the engine does not have). */
bool lsi_plan_named_shape(const char *name, ls_plan_shape *shape, char *json, size_t cap);
/* The sizes of a configuration. */
void lsi_plan_shape_of(const struct lsi_config *c, ls_plan_shape *shape);

/* Something whose bytes depend on a length. LS_E_LIMIT and LS_E_NOMEM say "too long to be counted". */
typedef ls_status lsi_plan_bytes_fn(void *ctx, size_t seq, ls_train_plan *plan, ls_error *err);

/*
 * Greatest seq in [least, max_seq] with total_bytes(seq) <= memory, or 0 when `least` does not fit; *plan is
 * its plan (of `least` for 0). Bytes grow with the length except where a longer sequence is cut into smaller
 * pieces.
 */
ls_status lsi_plan_longest(lsi_plan_bytes_fn *fn, void *ctx, uint64_t memory, size_t least, size_t max_seq,
                           size_t *seq, ls_train_plan *plan, ls_error *err);

/* Options of any struct_size, complete. */
ls_train_options lsi_plan_options(const ls_train_options *o);

#endif

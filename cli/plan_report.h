/* What `longspan plan` found, gathered before any of it is printed as text or as JSON. */
#ifndef LONGSPAN_PLAN_REPORT_H
#define LONGSPAN_PLAN_REPORT_H

#include <longspan/plan.h>

#include "cli_train.h"

enum {
    PLAN_MODES = 4,
    PLAN_PROFILES = 5,
};

/* One mode of this library. */
struct plan_mode {
    const char *name;
    ls_train_options o;
    size_t longest;
    ls_train_plan plan; /* of the length that was asked for, or of the longest */
    bool fits;          /* that length does */
    ls_plan_cost cost;  /* of a sequence of that length */
};

/* One formula. */
struct plan_profile {
    const char *name, *summary;
    ls_plan_request request;
    ls_plan_estimate estimate;
};

struct plan_report {
    const struct cli_options *o;
    ls_plan_shape shape;
    uint64_t memory;
    size_t seq; /* 0: the longest */

    bool own;
    struct plan_mode modes[PLAN_MODES];
    size_t chosen; /* of modes, the one that details are of */
    ls_plan_rates rates;
    ls_plan_advice advice[LS_PLAN_MAX_ADVICE];
    size_t n_advice;

    struct plan_profile profiles[PLAN_PROFILES];
    size_t n_profiles;
};

/* An exit status each. */
int plan_print_text(const struct plan_report *r);
int plan_print_json(const struct plan_report *r);

#endif

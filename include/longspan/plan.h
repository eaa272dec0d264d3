/*
 * Planning: what a training step takes before anything is allocated, for models of any size.
 *
 *     ls_planner *p;
 *     ls_planner_open("llama3-8b", NULL, &p, &err);   // or a model, or a config.json
 *     ls_train_options o;
 *     ls_train_options_defaults(&o);
 *     ls_train_plan plan = { .struct_size = sizeof plan };
 *     size_t longest;
 *     ls_planner_longest(p, &o, (uint64_t)80 << 30, &longest, &plan, &err);
 *
 * Two kinds of answers. Those about this library are the trainer's own layout, run dry: exact. Profiles
 * are formulas: of frameworks and published systems, and of the reference this library is held to.
 */
#ifndef LONGSPAN_PLAN_H
#define LONGSPAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <longspan/train.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ls_planner ls_planner;

/** A model in numbers: all that a plan depends on. */
typedef struct ls_plan_shape {
    size_t struct_size;
    const char *name; /* of a named shape, else what was opened; the planner's */
    size_t n_layers, n_embd, n_ff, n_vocab;
    size_t n_heads, n_kv_heads, head_dim;
    size_t norms;                   /* of a layer: 2, or 4 with norms behind attention and MLP */
    size_t window, n_window_layers; /* 0: every layer sees everything */
    bool tied;                      /* the output matrix is the embedding */
    bool trainable;                 /* false: a family that only profiles can be asked about */
    uint64_t n_parameters;
} ls_plan_shape;

/** Name of the i-th shape that is known without a file, NULL behind the last. */
LS_API const char *ls_plan_shape_name(size_t i);

/**
 * @param model  a named shape ("llama3-8b"), a config.json, a GGUF file or a Hugging Face directory.
 *               Weights are not read.
 */
LS_API ls_status ls_planner_open(const char *model, const ls_alloc *alloc, ls_planner **p, ls_error *err);
LS_API void ls_planner_close(ls_planner *p);
/** shape->struct_size must be set. */
LS_API void ls_planner_get_shape(const ls_planner *p, ls_plan_shape *shape);

/* ---- this library: the allocator run dry --------------------------------------- */

#define LS_PLAN_MAX_SEQ ((size_t)1 << 31) /* tokens of the longest sequence the trainer takes */

/** What ls_train_get_plan would say, for the planner's model (o's model and init are not looked at).
 * o->memory is what the choice of checkpoint_layers keeps to, 0: no limit. */
LS_API ls_status ls_planner_get(const ls_planner *p, const ls_train_options *o, ls_train_plan *plan,
                                ls_error *err);
/**
 * The longest sequence whose plan takes at most `memory` bytes, and that plan. Where not even a sequence
 * fits, *seq is 0 and the plan is the one of the shortest.
 */
LS_API ls_status ls_planner_longest(const ls_planner *p, const ls_train_options *o, uint64_t memory,
                                    size_t *seq, ls_train_plan *plan, ls_error *err);

/** A change of the options, and how far it goes. */
typedef struct ls_plan_advice {
    size_t struct_size;
    const char *option;   /* as on the command line: "--weights pure" */
    const char *effect;   /* a clause: "no fp32 copy of the weights" */
    size_t longest;       /* with this change alone */
    uint64_t total_bytes; /* at o->seq, 0 when that is 0 */
    bool fits;            /* o->seq fits then */
} ls_plan_advice;

#define LS_PLAN_MAX_ADVICE 16

/**
 * Changes that lead further than o does, each computed by planning with it; the longest first.
 * @param o     o->seq 0: only the longest sequences are of interest
 * @param list  [LS_PLAN_MAX_ADVICE], struct_size of list[0] must be set
 */
LS_API ls_status ls_planner_advise(const ls_planner *p, const ls_train_options *o, uint64_t memory,
                                   ls_plan_advice *list, size_t *n, ls_error *err);

/* ---- time ------------------------------------------------------------------------- */

/** How fast a machine is. */
typedef struct ls_plan_rates {
    size_t struct_size;
    double gemm;               /* FLOP/s of dense products in the dtype of the run */
    double gemm_backward;      /* of their gradients */
    double attention;          /* FLOP/s of attention, counted causal */
    double attention_backward; /* of its gradient */
    double copy;               /* bytes read and written in a second */
} ls_plan_rates;

/**
 * Measure this machine: a few seconds of products and attention of the model's shapes, cut where they
 * would take long. Uses o's dtype and n_threads. Values of *rates that are not 0 are kept and not measured.
 */
LS_API ls_status ls_planner_measure(const ls_planner *p, const ls_train_options *o, ls_plan_rates *rates,
                                    ls_error *err);

/** What a step of one sequence costs. */
typedef struct ls_plan_cost {
    size_t struct_size;
    double model_flops;    /* of forward and backward passes alone */
    double hardware_flops; /* with what is computed again */
    double gemm_seconds, attention_seconds;
    double rows_seconds;      /* element by element work, by its traffic */
    double optimizer_seconds; /* by its traffic */
    double seconds;
    double spill_rate; /* bytes per second a file must take for the spill to stay hidden; 0: no spill */
} ls_plan_cost;

/** @param plan  of o, from the functions above: its lengths and pieces are used. */
LS_API void ls_planner_get_cost(const ls_planner *p, const ls_train_options *o, const ls_train_plan *plan,
                                const ls_plan_rates *rates, ls_plan_cost *cost);

/* ---- profiles ---------------------------------------------------------------------- */

/** What a profile is asked. */
typedef struct ls_plan_request {
    size_t struct_size;
    uint64_t memory;            /* bytes; 1 GiB of it is left to the framework */
    double bytes_per_parameter; /* weights, gradients and optimizer state; 0: states are elsewhere and two
                                   layers are resident */
    bool accumulate;            /* gradients of all weights are resident: 2 bytes more per parameter */
    bool offload;               /* checkpoints are on the host or in a file */
    size_t row_bytes;           /* of a value in rows: 2 or 4 */
    size_t checkpoint_bytes;    /* of a value in a checkpoint: 2 or 4 */
    size_t scratch_rows;        /* rows of a block ("spec" only) */
    bool layer_gradient;        /* a layer's gradient is apart from the states ("spec" only) */
} ls_plan_request;

/** bf16 rows and checkpoints, 6 bytes per parameter, blocks of 2048 rows. */
LS_API void ls_plan_request_defaults(ls_plan_request *r);

/** Bytes by cause. */
typedef struct ls_plan_estimate {
    size_t struct_size;
    double states_bytes, constant_bytes; /* constants: framework, gradient in flight, blocks */
    double checkpoint_per_token;         /* where checkpoints are in this memory */
    double forward_per_token, head_per_token, layer_per_token; /* working set of each phase */
    double bytes_per_token;
    const char *peak_phase; /* "forward", "head", "layer" */
    uint64_t longest;       /* tokens, 0: the states alone are too large */
} ls_plan_estimate;

/** Name of the i-th profile, NULL behind the last; *summary (may be NULL) says what it is. */
LS_API const char *ls_plan_profile_name(size_t i, const char **summary);

/** @param profile  "vanilla", "recompute", "mst", "tiled-mlp" of frameworks, or "spec". */
LS_API ls_status ls_planner_estimate(const ls_planner *p, const char *profile, const ls_plan_request *r,
                                     ls_plan_estimate *estimate, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif

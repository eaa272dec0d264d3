/*
 * Profiles: bytes of other systems by formula, and the reference formula for a sweep through row blocks. All
 * are linear in the length, so that the longest one is a quotient.
 *
 * Frameworks (eager, bf16, tiled attention), per token and layer:
 *   A = 8 C norms + 4 q + 4 kv + 8 F    kept for the backward pass
 *   X = 6 F + 8 C                       while one MLP is differentiated
 *   2 C L                               checkpoints of all layers
 *   18 V or 14 V                        logits, in bf16 and copies in fp32; one copy fewer where nothing
 *                                       of a layer stands beside them
 * q = H D, kv = G D. docs/planning.md holds these against published lengths.
 */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "plan/plan_impl.h"

#define GIB ((double)(1 << 30))

/* A shape in the letters of docs/notation.md, as real numbers: products cannot overflow. */
struct sizes {
    double L, C, F, V, q, kv, norms, n_parameters;
};

static struct sizes sizes_of(const ls_plan_shape *s)
{
    return (struct sizes){ .L = (double)s->n_layers,
                           .C = (double)s->n_embd,
                           .F = (double)s->n_ff,
                           .V = (double)s->n_vocab,
                           .q = (double)s->n_heads * (double)s->head_dim,
                           .kv = (double)s->n_kv_heads * (double)s->head_dim,
                           .norms = (double)s->norms,
                           .n_parameters = (double)s->n_parameters };
}

static double kept(const struct sizes *s)
{
    return 8 * s->C * s->norms + 4 * s->q + 4 * s->kv + 8 * s->F;
}

static double mlp_backward(const struct sizes *s)
{
    return 6 * s->F + 8 * s->C;
}

static double checkpoints(const struct sizes *s)
{
    return 2 * s->C * s->L;
}

/* ---- frameworks ----------------------------------------------------------------- */

typedef void profile_fn(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e);

/* What all frameworks have: states in the request's precision and about 1 GiB for themselves. */
static void framework_constants(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    e->states_bytes = s->n_parameters * (r->bytes_per_parameter + (r->accumulate ? 2 : 0));
    e->constant_bytes = GIB;
}

static void vanilla(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    framework_constants(s, r, e);
    e->forward_per_token = s->L * kept(s);
    e->layer_per_token = s->L * kept(s);
    e->head_per_token = s->L * kept(s) + 14 * s->V;
}

static void recompute(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    framework_constants(s, r, e);
    e->checkpoint_per_token = checkpoints(s);
    e->layer_per_token = kept(s) + mlp_backward(s);
    e->head_per_token = 18 * s->V;
}

/* Logits of C / V of the rows at a time. */
static void mini_sequence(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    recompute(s, r, e);
    e->head_per_token = 18 * s->C;
}

/* The MLP keeps nothing; what is left is attention's. */
static void tiled_mlp(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    mini_sequence(s, r, e);
    e->layer_per_token = kept(s) - 8 * s->F + 6 * s->q + 4 * s->C;
}

/* ---- the reference of this library ----------------------------------------------- */

static double layer_parameters(const struct sizes *s)
{
    return 2 * s->C * s->q + 2 * s->C * s->kv + 3 * s->C * s->F;
}

/*
 * Layer input, row gradient, keys and values with their fp32 gradients; everything else is of a
 * block's size. Keys and values are kept as rows are.
 */
static void sweep_formula(const struct sizes *s, const ls_plan_request *r, ls_plan_estimate *e)
{
    const double b = (double)r->row_bytes, rows = (double)r->scratch_rows;
    const double gradient = fmax(4 * layer_parameters(s), 4 * s->V * s->C);

    e->states_bytes = r->bytes_per_parameter > 0
                          ? s->n_parameters * (r->bytes_per_parameter + (r->accumulate ? 2 : 0))
                          : 2 * layer_parameters(s) * 2;
    e->constant_bytes = GIB + rows * (3 * s->F + 4 * s->C + 3 * s->q) * b;
    if (r->layer_gradient && !r->accumulate)
        e->constant_bytes += gradient;
    e->checkpoint_per_token = (double)r->checkpoint_bytes * s->C * s->L;
    e->forward_per_token = b * s->C + 2 * b * s->kv;
    e->head_per_token = b * s->C;
    e->layer_per_token = 2 * b * s->C + (2 * b + 8) * s->kv;
}

static const struct profile {
    const char *name, *summary;
    profile_fn *fn;
} profiles[] = {
    { "vanilla", "a framework that keeps every activation", vanilla },
    { "recompute", "layers recomputed whole, logits of all rows", recompute },
    { "mst", "mini-sequence MLP and head over recomputation (arXiv 2407.15892)", mini_sequence },
    { "tiled-mlp", "the MLP recomputed in tiles as well (arXiv 2506.13996)", tiled_mlp },
    { "spec", "the formula this library's sweep is held to", sweep_formula },
};

const char *ls_plan_profile_name(size_t i, const char **summary)
{
    if (i >= LSI_LEN(profiles))
        return NULL;
    if (summary)
        *summary = profiles[i].summary;
    return profiles[i].name;
}

void ls_plan_request_defaults(ls_plan_request *r)
{
    *r = (ls_plan_request){ .struct_size = sizeof *r,
                            .bytes_per_parameter = 6,
                            .row_bytes = 2,
                            .checkpoint_bytes = 2,
                            .scratch_rows = 2048,
                            .layer_gradient = true };
}

/* The phase with the greatest working set, the length it leaves. */
static void solve(double memory, bool offload, ls_plan_estimate *e)
{
    const double phases[] = { e->layer_per_token, e->head_per_token, e->forward_per_token };
    static const char *const names[] = { "layer", "head", "forward" };
    size_t peak = 0;

    for (size_t i = 1; i < LSI_LEN(phases); i++)
        if (phases[i] > phases[peak])
            peak = i;
    if (offload)
        e->checkpoint_per_token = 0;
    e->peak_phase = names[peak];
    e->bytes_per_token = e->checkpoint_per_token + phases[peak];
    const double left = memory - e->states_bytes - e->constant_bytes;
    e->longest = left > 0 ? (uint64_t)(left / e->bytes_per_token) : 0;
}

ls_status ls_planner_estimate(const ls_planner *p, const char *profile, const ls_plan_request *r,
                              ls_plan_estimate *estimate, ls_error *err)
{
    const struct sizes s = sizes_of(&p->shape);
    ls_plan_estimate e = { .struct_size = estimate->struct_size };

    if ((r->row_bytes != 2 && r->row_bytes != 4) || (r->checkpoint_bytes != 2 && r->checkpoint_bytes != 4) ||
        !(r->bytes_per_parameter >= 0))
        return lsi_fail(err, LS_E_INVAL, "plan: values have 2 or 4 bytes and states no less than none");
    for (size_t i = 0; i < LSI_LEN(profiles); i++) {
        if (strcmp(profiles[i].name, profile) != 0)
            continue;
        profiles[i].fn(&s, r, &e);
        solve((double)r->memory, r->offload, &e);
        memcpy(estimate, &e, lsi_min_size(e.struct_size, sizeof e));
        return LS_OK;
    }
    return lsi_fail(err, LS_E_INVAL,
                    "there is no profile '%s' (there are vanilla, recompute, mst, tiled-mlp, spec)", profile);
}

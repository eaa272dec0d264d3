/* What leads further: each change is planned for itself. */
#include <string.h>

#include "base/base.h"
#include "plan/plan_impl.h"

typedef bool change_fn(ls_train_options *o);

/* Each makes its change and says whether it was one. */
static bool to_sweep(ls_train_options *o)
{
    const bool changes = o->mode != LS_TRAIN_SWEEP;
    o->mode = LS_TRAIN_SWEEP;
    return changes;
}

static bool to_spill(ls_train_options *o)
{
    const bool changes = !o->spill && o->mode != LS_TRAIN_STANDARD;
    o->spill = ".";
    return changes;
}

/* As many as the memory asks for. */
static bool to_fewer_checkpoints(ls_train_options *o)
{
    const bool changes = o->checkpoint_layers > 0 && o->mode == LS_TRAIN_SWEEP;
    o->checkpoint_layers = 0;
    return changes;
}

static bool to_bf16(ls_train_options *o)
{
    const bool changes = o->dtype != LS_TRAIN_BF16;
    o->dtype = LS_TRAIN_BF16;
    return changes;
}

static bool to_pure(ls_train_options *o)
{
    const bool changes = o->dtype == LS_TRAIN_BF16 && o->weights != LS_TRAIN_PURE && !o->lora_rank;
    o->weights = LS_TRAIN_PURE;
    return changes;
}

static bool to_moments_bf16(ls_train_options *o)
{
    const bool changes = o->moments == LS_TRAIN_MOMENTS_FP32;
    o->moments = LS_TRAIN_MOMENTS_BF16;
    return changes;
}

static bool to_moments_q8(ls_train_options *o)
{
    const bool changes = o->moments != LS_TRAIN_MOMENTS_Q8;
    o->moments = LS_TRAIN_MOMENTS_Q8;
    return changes;
}

/* Gradients of one layer at a time: nothing may have to wait for all of them. */
static bool to_layer_steps(ls_train_options *o)
{
    const bool changes = !o->lora_rank && (o->clip > 0 || o->accumulate > 1);
    o->clip = 0;
    o->accumulate = 1;
    return changes;
}

static bool to_lora(ls_train_options *o)
{
    const bool changes = !o->lora_rank;
    o->lora_rank = 16;
    return changes;
}

/* Together, where more than one of them is a change. */
static bool to_small_states(ls_train_options *o)
{
    const int changes = to_layer_steps(o) + to_pure(o) + to_moments_q8(o);
    return changes > 1;
}

static bool to_smallest(ls_train_options *o)
{
    const int changes = to_sweep(o) + to_spill(o) + to_small_states(o);
    return changes > 1;
}

static const struct {
    const char *option, *effect;
    change_fn *fn;
} changes[] = {
    { "--mode sweep", "row blocks through one layer at a time", to_sweep },
    { "--spill DIR", "activation checkpoints go to a file", to_spill },
    { "--checkpoint-layers 0", "inputs of fewer layers are kept, the layers between are computed again",
      to_fewer_checkpoints },
    { "--dtype bf16", "products, rows and checkpoints in bf16", to_bf16 },
    { "--weights pure", "no fp32 copy of the weights, stochastic rounding", to_pure },
    { "--moments bf16", "AdamW's moments in bf16", to_moments_bf16 },
    { "--moments q8", "AdamW's moments in 8 bits", to_moments_q8 },
    { "--clip 0 --accumulate 1", "each layer is stepped at once, so one layer's gradients are held",
      to_layer_steps },
    { "--lora-rank 16", "adapters are trained, the weights stay", to_lora },
    { "--weights pure --moments q8 --clip 0 --accumulate 1", "the smallest states with all weights trained",
      to_small_states },
    { "--mode sweep --spill DIR --weights pure --moments q8 --clip 0 --accumulate 1",
      "the longest with all weights trained", to_smallest },
};

/* Longest first; few enough for insertion. */
static void insert(ls_plan_advice *list, size_t n, size_t size, const ls_plan_advice *a)
{
    unsigned char *bytes = (unsigned char *)list;
    size_t at = n;

    for (; at > 0; at--) {
        ls_plan_advice before = { 0 };
        memcpy(&before, bytes + (at - 1) * size, lsi_min_size(size, sizeof before));
        if (before.longest >= a->longest)
            break;
        memcpy(bytes + at * size, bytes + (at - 1) * size, size);
    }
    memcpy(bytes + at * size, a, lsi_min_size(size, sizeof *a));
}

ls_status ls_planner_advise(const ls_planner *p, const ls_train_options *options, uint64_t memory,
                            ls_plan_advice *list, size_t *n, ls_error *err)
{
    ls_train_options o = lsi_plan_options(options);
    const size_t size = list->struct_size;
    ls_train_plan plan = { .struct_size = sizeof plan };
    size_t now;

    *n = 0;
    o.memory = memory;
    LSI_TRY(ls_planner_longest(p, &o, memory, &now, &plan, err));
    for (size_t i = 0; i < LSI_LEN(changes); i++) {
        ls_train_options changed = o;
        ls_plan_advice a = { .struct_size = size, .option = changes[i].option, .effect = changes[i].effect };
        if (!changes[i].fn(&changed))
            continue;
        LSI_TRY(ls_planner_longest(p, &changed, memory, &a.longest, &plan, err));
        if (a.longest <= now)
            continue;
        if (o.seq) {
            LSI_TRY(ls_planner_get(p, &changed, &plan, err));
            a.total_bytes = plan.total_bytes;
            a.fits = plan.total_bytes <= memory;
        }
        insert(list, *n, size, &a);
        ++*n;
    }
    return LS_OK;
}

/*
 * What a step costs: products by their number, everything else by the bytes it moves.
 *
 *   linear     2 n (2 C q + 2 C kv + 3 C F) in each layer
 *   attention  4 q for each pair of a row and a key that it sees
 *   head       2 n V C
 *
 * once forward, twice as much backward (two and a half times for attention). A mode that keeps no
 * activations does the layers' forward pass again, and once more for layers between two activation
 * checkpoints; the head never, since logits stay until their gradient has been formed.
 */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "plan/plan_impl.h"
#include "train/layout.h"

/* A layer's attention and MLP matrices and the head, in values. */
struct matrices {
    double attention, mlp, head;
};

static struct matrices matrices_of(const ls_plan_shape *s)
{
    const double c = (double)s->n_embd, q = (double)(s->n_heads * s->head_dim),
                 kv = (double)(s->n_kv_heads * s->head_dim);
    return (struct matrices){ .attention = 2 * c * q + 2 * c * kv,
                              .mlp = 3 * c * (double)s->n_ff,
                              .head = c * (double)s->n_vocab };
}

/* Pairs of a row and a key that it sees, one of them itself. */
static double pairs(double n, double window)
{
    if (window == 0 || window >= n)
        return n * (n + 1) / 2;
    return window * (window + 1) / 2 + (n - window) * window;
}

static double attention_flops(const ls_plan_shape *s, double n)
{
    const double windowed = (double)s->n_window_layers, q = (double)(s->n_heads * s->head_dim);
    return 4 * q * (((double)s->n_layers - windowed) * pairs(n, 0) + windowed * pairs(n, (double)s->window));
}

/* Products of n rows in `pieces` with `values` weights: by arithmetic or by the weights' traffic. */
static double product_seconds(double n, double values, double passes, double rate, double pieces,
                              double bytes_per_value, double copy)
{
    return fmax(passes * 2 * n * values / rate, pieces * values * bytes_per_value / copy);
}

/* What a run does more or less than a plain step. */
struct extent {
    double layer_forward;    /* passes forward through the layers */
    double linear_backward;  /* products of a product's gradient: of the input, of the weight */
    double weight_bytes;     /* of a value of a weight */
    double gradient_traffic; /* bytes read and written for a value of its gradient */
};

static struct extent extent_of(const ls_plan_shape *s, const ls_train_options *o, const ls_train_plan *plan)
{
    const size_t again = s->n_layers + lsi_train_replayed(s->n_layers, plan->checkpoint_layers);
    return (struct extent){ .layer_forward =
                                1 + (o->mode == LS_TRAIN_STANDARD ? 0 : (double)again / (double)s->n_layers),
                            .linear_backward = o->lora_rank ? 1 : 2,
                            .weight_bytes = o->dtype == LS_TRAIN_BF16 ? 2 : 4,
                            .gradient_traffic = o->lora_rank ? 0 : 8 };
}

static double gemm_seconds(const ls_plan_shape *s, const struct extent *x, const ls_train_plan *plan,
                           const ls_plan_rates *rates)
{
    const struct matrices m = matrices_of(s);
    const double n = (double)plan->seq, layers = (double)s->n_layers;
    const double blocks = ceil(n / (double)plan->block), b = x->weight_bytes;
    const struct {
        double values, pieces, forward;
    } parts[] = {
        { layers * m.attention, blocks, x->layer_forward },
        { layers * m.mlp, (double)plan->mlp_chunks, x->layer_forward },
        { m.head, (double)plan->head_chunks, 1 },
    };
    double seconds = 0;
    for (size_t i = 0; i < LSI_LEN(parts); i++) {
        seconds += product_seconds(n, parts[i].values, parts[i].forward, rates->gemm,
                                   parts[i].pieces * parts[i].forward, b, rates->copy);
        seconds += product_seconds(n, parts[i].values, x->linear_backward, rates->gemm_backward,
                                   parts[i].pieces, b + x->gradient_traffic, rates->copy);
    }
    return seconds;
}

/* Rows of the residual stream and its like always travel; those of the MLP stay in the cache when a block's
 * pieces are chosen to fit it. */
static double rows_seconds(const ls_plan_shape *s, const ls_train_options *o, double n, double copy)
{
    const double mlp = o->mode == LS_TRAIN_SWEEP ? 0 : 14 * (double)s->n_ff;
    return n * (double)s->n_layers * (8 * (double)s->n_embd + mlp) * sizeof(float) / copy;
}

static double optimizer_seconds(const ls_train_options *o, const ls_train_plan *p, double copy)
{
    const uint64_t weights = o->lora_rank ? 0 : p->weights_bytes + p->master_bytes;
    return (2 * (double)(weights + p->moments_bytes) + (double)p->gradient_bytes) / copy;
}

void ls_planner_get_cost(const ls_planner *p, const ls_train_options *options, const ls_train_plan *plan,
                         const ls_plan_rates *rates, ls_plan_cost *cost)
{
    const ls_train_options o = lsi_plan_options(options);
    const struct matrices m = matrices_of(&p->shape);
    const struct extent x = extent_of(&p->shape, &o, plan);
    const double n = (double)plan->seq, attention = attention_flops(&p->shape, n);
    const double linear = 2 * n * (double)p->shape.n_layers * (m.attention + m.mlp);
    const double head = 2 * n * m.head, backward = x.linear_backward;
    ls_plan_cost c = { .struct_size = cost->struct_size };

    c.model_flops = (1 + backward) * (linear + head) + 3.5 * attention;
    c.hardware_flops = c.model_flops + (x.layer_forward - 1) * (linear + attention);
    c.gemm_seconds = gemm_seconds(&p->shape, &x, plan, rates);
    c.attention_seconds =
        x.layer_forward * attention / rates->attention + 2.5 * attention / rates->attention_backward;
    c.rows_seconds = rows_seconds(&p->shape, &o, n, rates->copy);
    c.optimizer_seconds = optimizer_seconds(&o, plan, rates->copy);
    c.seconds = c.gemm_seconds + c.attention_seconds + c.rows_seconds + c.optimizer_seconds;
    if (plan->spill_bytes)
        c.spill_rate = (double)plan->spill_bytes / (linear / rates->gemm + attention / rates->attention);
    memcpy(cost, &c, lsi_min_size(c.struct_size, sizeof c));
}

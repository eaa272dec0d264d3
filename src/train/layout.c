#include "train/layout.h"

#include <string.h>
#include <unistd.h>

#include "base/numbers.h"

/* Blocks are long enough that reading the weights again for each costs little, and short enough that what
 * the MLP makes of one stays in the last-level cache (docs/training.md, "How long a block is"). */
#define BLOCK_MIN     ((size_t)256)
#define BLOCK_MAX     ((size_t)1024)
#define CACHE_BYTES   ((size_t)32 << 20)  /* where the system does not say */
#define HEAD_BYTES    ((size_t)128 << 20) /* of logits */
#define HEAD_MIN_ROWS ((size_t)128)
#define ROUND_ROWS    ((size_t)64)

#define MAX_ROWS      ((size_t)1 << 31) /* angles of the rotary embedding are exact up to there */

/* ---- settings ------------------------------------------------------------------------------ */

/* n rows in even pieces of at most `most`, multiples of ROUND_ROWS where they are that long. */
static size_t even(size_t n, size_t most)
{
    if (n <= most)
        return n;
    if (most >= ROUND_ROWS)
        most = most / ROUND_ROWS * ROUND_ROWS;
    const size_t rows = lsi_div_up(n, lsi_div_up(n, most));
    return lsi_min_size(most, most >= ROUND_ROWS ? lsi_round_up(rows, ROUND_ROWS) : rows);
}

static size_t last_level_cache(void)
{
    const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? (size_t)bytes : CACHE_BYTES;
}

static size_t choose_block(const struct lsi_config *c, size_t n)
{
    const size_t row_bytes = 3 * c->F * sizeof(float);
    const size_t fits = last_level_cache() / 2 / lsi_max_size(1, row_bytes);
    return even(n, lsi_min_size(BLOCK_MAX, lsi_max_size(BLOCK_MIN, fits)));
}

static size_t choose_head(const struct lsi_config *c, size_t n)
{
    const size_t row_bytes = c->V * sizeof(float) + 2 * c->C * sizeof(float);
    return even(n, lsi_max_size(HEAD_MIN_ROWS, HEAD_BYTES / row_bytes));
}

/* Rows of the pieces by mode; counts that the caller gave replace what the mode says. */
static void settle_pieces(struct lsi_train_settings *s, const struct lsi_config *c, const ls_train_options *o)
{
    const size_t n = s->seq;
    switch (o->mode) {
    case LS_TRAIN_STANDARD:
    case LS_TRAIN_RECOMPUTE:
        s->block = s->mlp_rows = s->head_rows = n;
        break;
    case LS_TRAIN_MST: /* as the paper chooses: C rows of the MLP, V / C pieces of the head */
        s->block = n;
        s->mlp_rows = even(n, c->C);
        s->head_rows = lsi_div_up(n, lsi_max_size(1, c->V / c->C));
        break;
    case LS_TRAIN_SWEEP:
        s->block = choose_block(c, n);
        s->mlp_rows = s->block;
        s->head_rows = choose_head(c, n);
        break;
    }
    if (o->block && o->mode == LS_TRAIN_SWEEP)
        s->block = s->mlp_rows = lsi_min_size(o->block, n);
    if (o->mlp_chunks)
        s->mlp_rows = lsi_min_size(s->block, lsi_div_up(n, o->mlp_chunks));
    if (o->head_chunks)
        s->head_rows = lsi_div_up(n, o->head_chunks);
}

static ls_status settle_params(struct lsi_params_options *p, const ls_train_options *o, ls_error *err)
{
    static const enum lsi_moments moments[] = {
        [LS_TRAIN_MOMENTS_FP32] = LSI_MOMENTS_F32,
        [LS_TRAIN_MOMENTS_BF16] = LSI_MOMENTS_BF16,
        [LS_TRAIN_MOMENTS_Q8] = LSI_MOMENTS_Q8,
    };
    const bool bf16 = o->dtype == LS_TRAIN_BF16;
    *p = (struct lsi_params_options){ .dtype = bf16 ? LSI_BF16 : LSI_F32,
                                      .master = bf16 && o->weights == LS_TRAIN_MASTER,
                                      .moments = moments[o->moments],
                                      .lora_rank = o->lora_rank };
    /* A parameter may be stepped in the backward pass when nothing that is known only later changes
     * its step: no further sequence, no norm over all gradients. */
    p->resident = o->accumulate > 1 || o->clip > 0 || o->lora_rank > 0;
    if (o->lora_rank) {
        LSI_TRY(lsi_params_targets(o->lora_targets, &p->lora_targets, err));
        p->lora_scale = (float)(o->lora_alpha > 0 ? o->lora_alpha / (double)o->lora_rank : 2.0);
    }
    return LS_OK;
}

ls_status lsi_train_settle(struct lsi_train_settings *s, const struct lsi_config *c,
                           const ls_train_options *o, ls_error *err)
{
    *s = (struct lsi_train_settings){ .seq = o->seq, .n_threads = o->n_threads };
    if (o->seq < 1 || o->seq > MAX_ROWS)
        return lsi_fail(err, LS_E_INVAL, "a sequence has 1 to %zu tokens, not %zu", MAX_ROWS, o->seq);
    if (o->spill && o->mode == LS_TRAIN_STANDARD)
        return lsi_fail(err, LS_E_INVAL,
                        "the standard mode keeps every activation in memory: there is nothing to spill; take "
                        "another mode");
    if (o->checkpoint_layers > 1 && o->mode == LS_TRAIN_STANDARD)
        return lsi_fail(
            err, LS_E_INVAL,
            "the standard mode keeps every activation: leave --checkpoint-layers %zu out, or take "
            "another mode",
            o->checkpoint_layers);
    if (o->mlp_chunks > o->seq || o->head_chunks > o->seq)
        return lsi_fail(err, LS_E_INVAL, "%zu tokens cannot be cut into %zu pieces", o->seq,
                        lsi_max_size(o->mlp_chunks, o->head_chunks));
    settle_pieces(s, c, o);
    const bool bf16 = o->dtype == LS_TRAIN_BF16;
    s->keep = o->mode == LS_TRAIN_STANDARD;
    if (s->keep)
        s->mlp_rows = s->block;
    s->every = lsi_min_size(c->L, lsi_max_size(1, o->checkpoint_layers));
    s->spill = o->spill != NULL;
    s->row_dtype = bf16 ? LSI_BF16 : LSI_F32;
    s->kv_format = bf16 ? LSI_KV_BF16 : LSI_KV_F32;
    s->compute = bf16 ? LSI_COMPUTE_BF16 : LSI_COMPUTE_FP32;
    return settle_params(&s->params, o, err);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t row_bytes(const struct lsi_config *c, const struct lsi_train_settings *s)
{
    return c->C * (s->row_dtype == LSI_BF16 ? sizeof(lsi_bf16) : sizeof(float));
}

/* One layer's activations that the backward pass reads; what is cheap to have again is shared with `act`. */
static void layout_kept(struct lsi_activations *k, struct lsi_arena *arena, const struct lsi_config *c,
                        const struct lsi_train_settings *s, const struct lsi_activations *act)
{
    const size_t n = s->block, q = c->H * c->D, kv = c->G * c->D;
    *k = *act;
    k->q = lsi_arena_take(arena, n * q, sizeof(float));
    k->o = lsi_arena_take(arena, n * q, sizeof(float));
    k->lse = lsi_arena_take(arena, n * c->H, sizeof(float));
    k->h = lsi_arena_take(arena, n * c->C, sizeof(float));
    k->gate = lsi_arena_take(arena, n * c->F, sizeof(float));
    k->up = lsi_arena_take(arena, n * c->F, sizeof(float));
    k->q_in = c->qk_norm ? lsi_arena_take(arena, n * q, sizeof(float)) : k->q;
    k->k_in = c->qk_norm ? lsi_arena_take(arena, n * kv, sizeof(float)) : k->k;
    if (c->post_norms) {
        k->o_out = lsi_arena_take(arena, n * c->C, sizeof(float));
        k->mlp_out = lsi_arena_take(arena, n * c->C, sizeof(float));
    }
}

/* The memory of a backward pass as a forward pass alone uses it. */
static struct lsi_activations forward_only(const struct lsi_activations *a)
{
    struct lsi_activations f = *a;
    f.q_in = f.o = f.q;
    f.k_in = f.k;
    f.lse = NULL;
    f.h = f.x;
    f.o_out = f.n;
    f.mlp_out = f.mlp_n;
    f.act = f.gate;
    return f;
}

static void layout_head(struct lsi_train_memory *m, struct lsi_arena *arena, const struct lsi_config *c,
                        const struct lsi_train_settings *s)
{
    m->head_x = lsi_arena_take(arena, s->head_rows * c->C, sizeof(float));
    m->head_n = lsi_arena_take(arena, s->head_rows * c->C, sizeof(float));
    m->head_dn = lsi_arena_take(arena, s->head_rows * c->C, sizeof(float));
    m->logits = lsi_arena_take(arena, s->head_rows * c->V, sizeof(float));
    m->head_labels = lsi_arena_take(arena, s->head_rows, sizeof(int32_t));
}

/*
 *   states | tier | inner | rows | kv | kept | head: x, n, dn, logits
 *                                    | block activations, gradients | dk, dv
 *
 * The head shares its memory with the blocks and the gradients of keys and values: none of them lives
 * while the head works.
 */
void lsi_train_layout(struct lsi_train_memory *m, struct lsi_arena *arena, const struct lsi_config *c,
                      const struct lsi_train_settings *s, ls_train_plan *plan)
{
    const struct lsi_cache_shape shape = {
        .L = s->keep ? c->L : 1, .H = c->H, .G = c->G, .D = c->D, .n_ctx = s->seq
    };
    ls_train_plan unused;
    ls_train_plan *p = plan ? plan : &unused;
    size_t mark = arena->used;

    lsi_tier_layout(&m->tier, arena, s->spill, lsi_div_up(c->L, s->every), s->seq, row_bytes(c, s), s->block);
    size_t inner_rows = 0;
    arena->failed = arena->failed || !lsi_mul_size(s->every - 1, s->seq, &inner_rows);
    m->inner = lsi_arena_take(arena, inner_rows, row_bytes(c, s));
    p->checkpoint_bytes = arena->used - mark;
    p->spill_bytes = lsi_tier_file_bytes(&m->tier);
    mark = arena->used;
    m->rows = lsi_arena_take(arena, s->seq, row_bytes(c, s));
    p->rows_bytes = arena->used - mark;
    mark = arena->used;
    lsi_train_cache_layout(&m->cache, arena, &shape, s->kv_format);
    p->kv_bytes = arena->used - mark;

    const size_t shared = arena->used;
    layout_head(m, arena, c, s);
    p->head_bytes = arena->used - shared;
    const size_t head_end = arena->used;

    arena->used = shared;
    lsi_activations_layout_backward(&m->act, arena, c, s->block, s->mlp_rows, s->params.lora_rank);
    m->forward = forward_only(&m->act);
    lsi_block_gradients_layout(&m->grads, arena, c, s->block, s->mlp_rows, s->params.lora_rank);
    p->block_bytes = arena->used - shared;
    mark = arena->used;
    m->grads.dk = lsi_arena_take(arena, s->seq * c->G * c->D, sizeof(float));
    m->grads.dv = lsi_arena_take(arena, s->seq * c->G * c->D, sizeof(float));
    p->dkv_bytes = arena->used - mark;
    arena->used = lsi_max_size(arena->used, head_end);

    mark = arena->used;
    m->kept = s->keep ? lsi_arena_take(arena, c->L, sizeof *m->kept) : NULL;
    for (size_t l = 0; s->keep && l < c->L; l++) {
        struct lsi_activations counted;
        layout_kept(m->kept ? &m->kept[l] : &counted, arena, c, s, &m->act);
    }
    p->kept_bytes = arena->used - mark;
}

size_t lsi_train_head_work(const struct lsi_config *c)
{
    const size_t layer = c->C * (2 * c->H * c->D + 2 * c->G * c->D + 3 * c->F), head = 3 * c->C * c->V;
    return lsi_max_size(1, (head + layer / 2) / layer);
}

/* A product from a layer's width to an adapter's rank, and one back; the rank may be the greater. */
static size_t adapter_scratch(const struct lsi_exec *ex, const struct lsi_train_settings *s,
                              const struct lsi_config *c)
{
    const size_t rank = s->params.lora_rank, n = s->block,
                 width = lsi_max_size(lsi_max_size(c->C, c->F), c->H * c->D);
    const size_t forward =
        lsi_max_size(lsi_op_linear_scratch(ex, n, width, rank), lsi_op_linear_scratch(ex, n, rank, width));
    const size_t backward = lsi_max_size(lsi_op_linear_backward_scratch(ex, n, width, rank),
                                         lsi_op_linear_backward_scratch(ex, n, rank, width));
    return rank ? lsi_max_size(forward, backward) : 0;
}

size_t lsi_train_scratch(const struct lsi_train_settings *s, const struct lsi_config *c)
{
    struct lsi_exec ex;
    lsi_exec_plan_cpu(&ex, s->n_threads, s->compute);
    ex.few_as_many = true;
    const size_t all[] = {
        lsi_block_scratch(&ex, c, s->block),
        lsi_block_backward_scratch(&ex, c, s->block, s->mlp_rows, s->seq),
        lsi_op_linear_scratch(&ex, s->head_rows, c->C, c->V),
        lsi_op_linear_backward_scratch(&ex, s->head_rows, c->C, c->V),
        lsi_op_cross_entropy_scratch(&ex, s->head_rows),
        lsi_op_rmsnorm_backward_scratch(&ex, s->head_rows, c->C),
        adapter_scratch(&ex, s, c),
    };
    size_t most = 0;
    for (size_t i = 0; i < LSI_LEN(all); i++)
        most = lsi_max_size(most, all[i]);
    return most;
}

/* ---- the plan ------------------------------------------------------------------------------------ */

/* Greatest use by phase, of what a phase touches. */
static void set_phases(ls_train_plan *p)
{
    const uint64_t states = p->weights_bytes + p->master_bytes + p->moments_bytes + p->gradient_bytes;
    const uint64_t base =
        states + p->checkpoint_bytes + p->rows_bytes + p->kv_bytes + p->kept_bytes + p->scratch_bytes;
    static const char *const names[] = { "forward", "loss", "backward", "step" };
    p->forward_bytes = base + p->block_bytes;
    p->loss_bytes = base + p->head_bytes;
    p->backward_bytes = base + p->block_bytes + p->dkv_bytes;
    p->step_bytes = states;
    const uint64_t all[] = { p->forward_bytes, p->loss_bytes, p->backward_bytes, p->step_bytes };
    size_t most = 0;
    for (size_t i = 1; i < LSI_LEN(all); i++)
        if (all[i] > all[most])
            most = i;
    p->peak_phase = names[most];
}

static ls_status count(const struct lsi_config *c, const ls_train_options *o, ls_train_plan *p, ls_error *err)
{
    struct lsi_train_settings s;
    struct lsi_params params;
    struct lsi_params_bytes bytes;
    struct lsi_train_memory memory;
    struct lsi_arena states = { 0 }, work = { 0 };

    LSI_TRY(lsi_train_settle(&s, c, o, err));
    LSI_TRY(lsi_params_create(&params, c, &s.params, lsi_alloc_or_default(o->alloc), err));
    lsi_params_layout(&params, &states, &bytes);
    lsi_params_free(&params);
    lsi_train_layout(&memory, &work, c, &s, p);
    if (states.failed || work.failed)
        return lsi_fail(err, LS_E_LIMIT, "%zu tokens take more memory than there are addresses for", o->seq);
    p->seq = s.seq;
    p->block = s.block;
    p->mlp_rows = s.mlp_rows;
    p->head_rows = s.head_rows;
    p->mlp_chunks = lsi_n_pieces(s.seq, s.mlp_rows);
    p->head_chunks = lsi_n_pieces(s.seq, s.head_rows);
    p->checkpoint_layers = s.every;
    p->weights_bytes = bytes.weights;
    p->master_bytes = bytes.master;
    p->moments_bytes = bytes.moments;
    p->gradient_bytes = bytes.gradients;
    p->scratch_bytes = lsi_train_scratch(&s, c);
    p->total_bytes = (uint64_t)states.used + work.used + p->scratch_bytes;
    set_phases(p);
    return LS_OK;
}

/* Layers from one activation checkpoint to the next: what the options say, or else the fewest with which the
 * plan keeps within `memory` bytes; where none does, those of the smallest plan. */
static ls_status choose_layers(const struct lsi_config *c, const ls_train_options *o, uint64_t memory,
                               size_t *layers, ls_error *err)
{
    uint64_t least = UINT64_MAX;

    *layers = lsi_max_size(1, o->checkpoint_layers);
    if (o->checkpoint_layers || o->mode != LS_TRAIN_SWEEP || memory == 0)
        return LS_OK;
    /* L / N checkpoints and N - 1 inputs between two of them are fewest where N is the root of L. */
    for (size_t n = 1; n == 1 || (n - 1) * (n - 1) < c->L; n++) {
        ls_train_options with = *o;
        ls_train_plan p;
        with.checkpoint_layers = n;
        LSI_TRY(count(c, &with, &p, err));
        if (p.total_bytes < least) {
            least = p.total_bytes;
            *layers = n;
        }
        if (p.total_bytes <= memory)
            break;
    }
    return LS_OK;
}

ls_status lsi_train_plan(const struct lsi_config *c, const ls_train_options *o, ls_train_plan *plan,
                         ls_error *err)
{
    ls_train_plan p = { .struct_size = sizeof p }, longer = p;
    ls_train_options chosen = *o;
    LSI_TRY(
        choose_layers(c, o, o->memory ? o->memory : lsi_memory_available(), &chosen.checkpoint_layers, err));
    LSI_TRY(count(c, &chosen, &p, err));
    /* The slope over as many rows as do not change how they are cut. */
    ls_train_options more = chosen;
    const size_t step = lsi_max_size(LSI_KV_PAGE, lsi_round_up(p.block, LSI_KV_PAGE));
    more.seq = o->seq + step;
    if (o->mode == LS_TRAIN_SWEEP) {
        more.block = p.block;
        more.head_chunks = lsi_max_size(1, lsi_div_up(more.seq, p.head_rows));
    }
    if (count(c, &more, &longer, NULL) == LS_OK && longer.total_bytes > p.total_bytes)
        p.bytes_per_token = (double)(longer.total_bytes - p.total_bytes) / (double)step;
    const size_t size = lsi_min_size(plan->struct_size, sizeof p);
    p.struct_size = plan->struct_size;
    memcpy(plan, &p, size);
    return LS_OK;
}

/*
 * Gradient of attention on the CPU. Kernels (kernels/attention_backward.h) let the rows of some
 * tokens meet slots of one page of one kv head; this file decides which, and who does it.
 *
 * Tokens are taken some at a time, and the slots that they see are cut into units. A task is a kv head and a
 * stripe of units, every n-th one:
 *
 *     units      | 0 | 1 | 2 | 3 | 4 | 5 | 6 | ...
 *     kv head 0    a   b   c   a   b   c   a          tasks a, b, c of 3 stripes
 *     kv head 1    d   e   f   d   e   f   d
 *
 * Nobody else adds to the rows of dk and dv of a task's units. The rows of dq get a part from each stripe;
 * the parts lie in scratch and are added in ascending order. All that depends on the shape of the call alone,
 * so results are equal for every number of threads.
 */
#include "backend/cpu.h"

#include <string.h>

#define TOKENS      512 /* taken at a time: bounds scratch */
#define TASKS       32  /* at least, where there are so many units: stripes times kv heads */
#define SHORT_SLOTS 2048
#define SHORT_UNIT  128 /* slots of a unit when no more than SHORT_SLOTS are seen; otherwise a page */
#define SUM_TOKENS  16  /* per task that adds parts of dq */

struct limits {
    uint16_t *lo, *hi; /* [tokens] */
    void *work;
};

struct call {
    const struct lsi_attention_backward *a;
    lsk_attn_backward_fn *backward;
    size_t group, head_bytes;
    struct limits *threads; /* [n_threads] */
    float *parts;           /* [n_stripes][G][tokens][group][D] */
    /* the tokens at hand */
    size_t t0, n_tokens;
    size_t unit, first_unit, n_units, n_stripes;
};

static size_t unit_slots(size_t n_slots)
{
    return n_slots <= SHORT_SLOTS ? SHORT_UNIT : LSI_KV_PAGE;
}

static size_t stripes(size_t n_units, size_t G)
{
    return lsi_min_size(n_units, lsi_div_up(TASKS, G));
}

/* First slot that the token sees, and the one behind the last; a token before s0 sees none. */
static size_t seen_from(const struct lsi_attention_backward *a, size_t t)
{
    const size_t end = a->slot0 + t + 1;
    return a->window > 0 && end > a->window ? lsi_max_size(a->s0, end - a->window) : a->s0;
}

static size_t seen_to(const struct lsi_attention_backward *a, size_t t)
{
    return a->slot0 + t + 1;
}

static void layout(struct lsi_arena *s, struct call *c, int n_threads, size_t tokens, size_t H, size_t D,
                   size_t n_stripes)
{
    c->parts = lsi_arena_take(s, n_stripes * tokens * H, D * sizeof(float));
    c->threads = lsi_arena_take(s, (size_t)n_threads, sizeof *c->threads);
    for (int i = 0; i < n_threads; i++) {
        const struct limits limits = {
            .lo = lsi_arena_take(s, tokens, sizeof(uint16_t)),
            .hi = lsi_arena_take(s, tokens, sizeof(uint16_t)),
            .work = lsi_arena_take(s, lsk_attn_backward_work(D), 1),
        };
        if (c->threads)
            c->threads[i] = limits;
    }
}

/* ---- tasks ------------------------------------------------------------------------------ */

/* Position of a slot in a page, 0 or LSI_KV_PAGE for slots before or after it. */
static uint16_t within(size_t slot, size_t page_slot)
{
    return slot <= page_slot ? 0 : (uint16_t)lsi_min_size(slot - page_slot, LSI_KV_PAGE);
}

/* The tokens at hand, first .. last - 1, that see any of the slots from .. to - 1: those from the first
 * slot on, until the window has passed the last. */
static size_t first_seeing(const struct call *c, size_t from)
{
    const size_t slot0 = c->a->slot0, end = c->t0 + c->n_tokens;
    return lsi_min_size(end, lsi_max_size(c->t0, from > slot0 ? from - slot0 : 0));
}

static size_t last_seeing(const struct call *c, size_t to)
{
    const size_t slot0 = c->a->slot0, end = c->t0 + c->n_tokens, passed = to + c->a->window - 1;
    if (c->a->window == 0)
        return end;
    return lsi_min_size(end, passed > slot0 ? passed - slot0 : 0);
}

/* Let the tokens at hand meet slots from .. to - 1, all of one page. */
static void meet(const struct call *c, const struct limits *limits, size_t g, float *dq, size_t from,
                 size_t to)
{
    const struct lsi_attention_backward *a = c->a;
    const size_t D = a->kv.D, page = from / LSI_KV_PAGE, slot = page * LSI_KV_PAGE;
    const size_t first = first_seeing(c, from), last = last_seeing(c, to);

    if (first >= last)
        return;
    for (size_t t = first; t < last; t++) {
        limits->lo[t - first] = within(seen_from(a, t), slot);
        limits->hi[t - first] = within(seen_to(a, t), slot);
    }
    const size_t head = g * c->group, row = (from - a->slot_base) * a->kv.G + g;
    const struct lsk_attn_backward k = {
        .head = (const unsigned char *)a->kv.pages[page] + g * c->head_bytes,
        .D = D,
        .group = c->group,
        .n_tokens = last - first,
        .from = from - slot,
        .to = to - slot,
        .q = a->q + first * a->ldq + head * D,
        .out = a->out + first * a->ldo + head * D,
        .dout = a->dout + first * a->lddo + head * D,
        .ldq = a->ldq,
        .ldo = a->ldo,
        .lddo = a->lddo,
        .lse = a->lse + first * a->H + head,
        .ldl = a->H,
        .lo = limits->lo,
        .hi = limits->hi,
        .scale = a->scale,
        .dq = dq + (first - c->t0) * c->group * D,
        .dk = a->dk + row * D,
        .dv = a->dv + row * D,
        .ldkv = a->kv.G * D,
        .work = limits->work,
    };
    c->backward(&k);
}

/* What a stripe has for dq of the group's heads: of tokens first .. last - 1, in its place among all at hand.
 */
struct part {
    float *dq;
    size_t first, last;
};

static struct part part_of(const struct call *c, size_t stripe, size_t g)
{
    const size_t last_unit = stripe + (c->n_units - 1 - stripe) / c->n_stripes * c->n_stripes;
    const struct part part = {
        .dq = c->parts + (stripe * c->a->kv.G + g) * c->n_tokens * c->group * c->a->kv.D,
        .first = first_seeing(c, (c->first_unit + stripe) * c->unit),
        .last = last_seeing(c, (c->first_unit + last_unit + 1) * c->unit),
    };
    return part;
}

static void stripe_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct lsi_attention_backward *a = c->a;
    const size_t stripe = task / a->kv.G, g = task % a->kv.G, n = c->group * a->kv.D;
    const size_t begin = seen_from(a, c->t0), end = seen_to(a, c->t0 + c->n_tokens - 1);
    const struct part part = part_of(c, stripe, g);

    if (part.first >= part.last)
        return;
    memset(part.dq + (part.first - c->t0) * n, 0, (part.last - part.first) * n * sizeof *part.dq);
    for (size_t i = stripe; i < c->n_units; i += c->n_stripes) {
        const size_t slot = (c->first_unit + i) * c->unit;
        meet(c, &c->threads[thread], g, part.dq, lsi_max_size(slot, begin),
             lsi_min_size(slot + c->unit, end));
    }
}

/* dq = the sum of its parts. */
static void sum_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct lsi_attention_backward *a = c->a;
    const size_t n = c->group * a->kv.D, first = c->t0 + task * SUM_TOKENS;
    const size_t end = lsi_min_size(first + SUM_TOKENS, c->t0 + c->n_tokens);

    (void)thread;
    for (size_t g = 0; g < a->kv.G; g++) {
        for (size_t t = first; t < end; t++)
            memset(a->dq + t * a->lddq + g * n, 0, n * sizeof *a->dq);
        for (size_t i = 0; i < c->n_stripes; i++) {
            const struct part part = part_of(c, i, g);
            for (size_t t = lsi_max_size(first, part.first); t < lsi_min_size(end, part.last); t++) {
                float *dq = a->dq + t * a->lddq + g * n;
                const float *from = part.dq + (t - c->t0) * n;
                for (size_t j = 0; j < n; j++)
                    dq[j] += from[j];
            }
        }
    }
}

/* ---- the operation ------------------------------------------------------------------------- */

static void choose_kernel(const struct lsi_exec *ex, struct call *c)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const size_t D = c->a->kv.D;

    if (c->a->kv.format == LSI_KV_F32) {
        c->backward = kernels->attn_backward_f32;
        c->head_bytes = lsk_kv_f32_head_bytes(D);
        return;
    }
    c->backward =
        ex->compute == LSI_COMPUTE_FP32 ? kernels->attn_backward_bf16 : kernels->attn_backward_bf16_round;
    c->head_bytes = lsk_kv_bf16_head_bytes(D);
}

void lsi_cpu_attention_backward(struct lsi_exec *ex, const struct lsi_attention_backward *a)
{
    struct call c = { .a = a, .group = a->H / a->kv.G };

    LSI_ASSERT(a->kv.G > 0 && a->H % a->kv.G == 0 && a->kv.D % 2 == 0 && a->kv.format != LSI_KV_Q8);
    choose_kernel(ex, &c);
    for (c.t0 = 0; c.t0 < a->T; c.t0 += c.n_tokens) {
        c.n_tokens = lsi_min_size(TOKENS, a->T - c.t0);
        const size_t begin = seen_from(a, c.t0);
        const size_t end = lsi_max_size(seen_to(a, c.t0 + c.n_tokens - 1), begin + 1);
        c.unit = unit_slots(end - begin);
        c.first_unit = begin / c.unit;
        c.n_units = (end - 1) / c.unit - c.first_unit + 1;
        c.n_stripes = stripes(c.n_units, a->kv.G);
        ex->scratch.used = 0;
        layout(&ex->scratch, &c, ex->n_threads, c.n_tokens, a->H, a->kv.D, c.n_stripes);
        LSI_ASSERT(!ex->scratch.failed);
        lsi_parallel(ex->pool, c.n_stripes * a->kv.G, stripe_task, &c);
        lsi_parallel(ex->pool, lsi_div_up(c.n_tokens, SUM_TOKENS), sum_task, &c);
    }
}

size_t lsi_cpu_attention_backward_scratch(const struct lsi_exec *ex, size_t T, size_t H, size_t G, size_t D,
                                          size_t S)
{
    struct lsi_arena s = { 0 };
    struct call c = { 0 };
    /* With a window no row sees all slots that the rows see together. */
    const size_t tokens = lsi_min_size(T, TOKENS), slots = S + tokens;
    const size_t most = lsi_max_size(slots, lsi_min_size(slots, SHORT_SLOTS) * (LSI_KV_PAGE / SHORT_UNIT));

    layout(&s, &c, ex->n_threads, tokens, H, D, stripes(most / LSI_KV_PAGE + 2, G));
    return s.used;
}

/*
 * The longest sequence for a memory: doubling, bisection, and a look ahead.
 *
 * Bytes grow with the length within one cut into pieces. Where a longer sequence is cut into one piece
 * more, pieces get smaller and bytes fall, so the first length that does not fit need not be the last that
 * does. How far the last can lie ahead is bounded: even pieces, k of them, lose at most 1/k of their rows to
 * the next, and every token costs.
 */
#include "plan/plan_impl.h"

enum {
    MOST_CUTS = 256
}; /* looked at beyond the first length that does not fit */

struct search {
    lsi_plan_bytes_fn *fn;
    void *ctx;
    uint64_t memory;
    ls_error *err;
};

static ls_status try_length(const struct search *s, size_t seq, ls_train_plan *plan, bool *fits)
{
    ls_error why = { 0 };
    const ls_status st = s->fn(s->ctx, seq, plan, &why);

    *fits = st == LS_OK && plan->total_bytes <= s->memory;
    if (st == LS_OK || st == LS_E_LIMIT || st == LS_E_NOMEM)
        return LS_OK;
    if (s->err)
        *s->err = why;
    return st;
}

/*
 * From lo, which fits (0: nothing), up to neighbours: *lo fits, *hi does not. *hi is 0 when the greatest
 * length fits.
 */
static ls_status climb(const struct search *s, size_t least, size_t max_seq, size_t *lo, size_t *hi)
{
    ls_train_plan plan = { .struct_size = sizeof plan };
    bool fits = true;

    while (fits) {
        if (*lo == max_seq) {
            *hi = 0;
            return LS_OK;
        }
        *hi = *lo == 0 ? least : *lo > max_seq / 2 ? max_seq : 2 * *lo;
        LSI_TRY(try_length(s, *hi, &plan, &fits));
        if (fits)
            *lo = *hi;
    }
    while (*lo && *hi - *lo > 1) {
        const size_t mid = *lo + (*hi - *lo) / 2;
        LSI_TRY(try_length(s, mid, &plan, &fits));
        *(fits ? lo : hi) = mid;
    }
    return LS_OK;
}

static size_t n_blocks(const ls_train_plan *plan)
{
    return plan->block ? lsi_div_up(plan->seq, plan->block) : 0;
}

/* How a length is cut: a number that grows with the length, and no sooner than some piece gets smaller. */
static ls_status cut_of(const struct search *s, size_t seq, size_t *cut, bool *fits)
{
    ls_train_plan plan = { .struct_size = sizeof plan };
    LSI_TRY(try_length(s, seq, &plan, fits));
    *cut = plan.mlp_chunks + plan.head_chunks + n_blocks(&plan);
    return LS_OK;
}

/* The first length in (seq, last] that is cut in another way than seq, 0 when there is none. */
static ls_status next_cut(const struct search *s, size_t seq, size_t last, size_t *next)
{
    size_t same = seq, other = seq, step = 1, cut, now;
    bool fits;

    *next = 0;
    LSI_TRY(cut_of(s, seq, &now, &fits));
    do {
        if (other == last)
            return LS_OK;
        same = other;
        other = step < last - other ? other + step : last;
        step *= 2;
        LSI_TRY(cut_of(s, other, &cut, &fits));
    } while (cut == now);
    while (other - same > 1) {
        const size_t mid = same + (other - same) / 2;
        LSI_TRY(cut_of(s, mid, &cut, &fits));
        *(cut == now ? &same : &other) = mid;
    }
    *next = other;
    return LS_OK;
}

/* A fitting length beyond lo, 0 when there is none: only where a new cut begins can bytes have fallen. */
static ls_status look_ahead(const struct search *s, size_t max_seq, size_t lo, size_t *found)
{
    ls_train_plan plan = { .struct_size = sizeof plan };
    size_t cut;
    bool fits;

    *found = 0;
    LSI_TRY(try_length(s, lo, &plan, &fits));
    const double pieces = (double)(plan.block_bytes + plan.head_bytes + plan.scratch_bytes);
    const size_t fewest =
        lsi_max_size(1, lsi_min_size(n_blocks(&plan), lsi_min_size(plan.mlp_chunks, plan.head_chunks)));
    const double bound = plan.bytes_per_token > 0 ? pieces / (double)fewest / plan.bytes_per_token : 0;
    const size_t window = (size_t)(bound < (double)lo ? bound : (double)lo) + 1;
    const size_t last = window < max_seq - lo ? lo + window : max_seq;
    size_t seq = lo;
    for (int i = 0; i < MOST_CUTS; i++) {
        LSI_TRY(next_cut(s, seq, last, &seq));
        if (!seq)
            break;
        LSI_TRY(cut_of(s, seq, &cut, &fits));
        if (fits)
            *found = seq;
    }
    return LS_OK;
}

ls_status lsi_plan_longest(lsi_plan_bytes_fn *fn, void *ctx, uint64_t memory, size_t least, size_t max_seq,
                           size_t *seq, ls_train_plan *plan, ls_error *err)
{
    const struct search s = { fn, ctx, memory, err };
    size_t lo = 0, hi = 0, ahead = 0;

    do {
        lo = lsi_max_size(lo, ahead);
        LSI_TRY(climb(&s, least, max_seq, &lo, &hi));
        ahead = 0;
        if (lo && hi)
            LSI_TRY(look_ahead(&s, max_seq, lo, &ahead));
    } while (ahead);
    *seq = lo;
    return fn(ctx, lo ? lo : least, plan, err);
}

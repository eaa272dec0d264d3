/*
 * Choosing the next token. Every cut here keeps a prefix of the tokens in order of
 * falling logit, so nothing is ever sorted but the few that may be chosen:
 *
 *     top-k   one pass with a heap of the k best
 *     min-p   keeps logit >= max + log(min_p): a threshold
 *     top-p   sums the probabilities of the best until p is reached; without top-k
 *             the best are gathered by thresholds that fall until they suffice
 *
 * Equal logits are ordered by id. A logit that is not a number is never chosen.
 */
#include <math.h>
#include <string.h>

#include <longspan/sample.h>

#include "base/base.h"

#define MAX_REPEAT_LAST (1 << 24) /* bounds the memory of a look back; -1 looks back further for less */

struct candidate {
    float logit;
    int32_t id;
};

struct ls_sampler {
    ls_sampler_options o;
    size_t n_vocab;
    const ls_alloc *alloc;
    struct lsi_rng rng;

    float *work;            /* [V] penalised logits; NULL when there is no penalty */
    struct candidate *best; /* [V], or [top_k] when that is on; NULL when greedy */
    size_t cap_best;
    int32_t *last; /* ring of the tokens the penalty looks back on */
    size_t cap_last, n_last, next_last;
    uint32_t *seen; /* [V] 1 where a token occurred, when the penalty looks back on all */
};

void ls_sampler_options_defaults(ls_sampler_options *o)
{
    *o = (ls_sampler_options){
        .struct_size = sizeof *o,
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last = 64,
    };
}

static ls_status check_options(const ls_sampler_options *o, size_t n_vocab, ls_error *err)
{
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return lsi_fail(err, LS_E_INVAL, "a vocabulary of %zu tokens cannot be sampled from", n_vocab);
    if (!(o->temperature >= 0) || isinf(o->temperature))
        return lsi_fail(err, LS_E_INVAL, "temperature is %g; it must be 0 or greater",
                        (double)o->temperature);
    if (o->top_k < 0)
        return lsi_fail(err, LS_E_INVAL, "top_k is %d; it must be 0 (off) or greater", o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return lsi_fail(err, LS_E_INVAL, "top_p is %g; it must lie between 0 and 1", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return lsi_fail(err, LS_E_INVAL, "min_p is %g; it must lie between 0 and 1", (double)o->min_p);
    if (!(o->repeat_penalty > 0) || isinf(o->repeat_penalty))
        return lsi_fail(err, LS_E_INVAL, "repeat_penalty is %g; it must be greater than 0",
                        (double)o->repeat_penalty);
    if (o->repeat_last < -1 || o->repeat_last > MAX_REPEAT_LAST)
        return lsi_fail(err, LS_E_INVAL, "repeat_last is %d; it must be -1 (all), 0 (off) or up to %d",
                        o->repeat_last, MAX_REPEAT_LAST);
    return LS_OK;
}

static bool has_penalty(const ls_sampler_options *o)
{
    return o->repeat_penalty != 1.0f && o->repeat_last != 0;
}

static bool is_greedy(const ls_sampler_options *o)
{
    return o->temperature == 0 || o->top_k == 1;
}

ls_status ls_sampler_create(const ls_sampler_options *o, size_t n_vocab, const ls_alloc *alloc,
                            ls_sampler **out, ls_error *err)
{
    ls_sampler_options opt;
    ls_sampler *s = NULL;
    ls_status st = LS_OK;

    ls_sampler_options_defaults(&opt);
    if (o)
        memcpy(&opt, o, lsi_min_size(o->struct_size, sizeof opt));
    LSI_TRY(check_options(&opt, n_vocab, err));

    alloc = lsi_alloc_or_default(alloc);
    s = lsi_calloc(alloc, 1, sizeof *s);
    if (!s)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a sampler");
    s->o = opt;
    s->n_vocab = n_vocab;
    s->alloc = alloc;
    lsi_rng_init(&s->rng, opt.seed);

    if (has_penalty(&opt)) {
        s->work = lsi_calloc(alloc, n_vocab, sizeof *s->work);
        if (opt.repeat_last < 0) {
            s->seen = lsi_calloc(alloc, n_vocab, sizeof *s->seen);
        } else {
            s->cap_last = (size_t)opt.repeat_last;
            s->last = lsi_calloc(alloc, s->cap_last, sizeof *s->last);
        }
        if (!s->work || (!s->seen && !s->last))
            st = LS_E_NOMEM;
    }
    if (!is_greedy(&opt)) {
        s->cap_best = opt.top_k > 0 ? lsi_min_size((size_t)opt.top_k, n_vocab) : n_vocab;
        s->best = lsi_calloc(alloc, s->cap_best, sizeof *s->best);
        if (!s->best)
            st = LS_E_NOMEM;
    }
    if (st != LS_OK) {
        ls_sampler_free(s);
        return lsi_fail(err, st, "no memory for sampling from %zu tokens", n_vocab);
    }
    *out = s;
    return LS_OK;
}

void ls_sampler_free(ls_sampler *s)
{
    if (!s)
        return;
    lsi_free(s->alloc, s->work, s->n_vocab * sizeof *s->work);
    lsi_free(s->alloc, s->best, s->cap_best * sizeof *s->best);
    lsi_free(s->alloc, s->last, s->cap_last * sizeof *s->last);
    lsi_free(s->alloc, s->seen, s->n_vocab * sizeof *s->seen);
    lsi_free(s->alloc, s, sizeof *s);
}

void ls_sampler_accept(ls_sampler *s, int32_t id)
{
    if (id < 0 || (size_t)id >= s->n_vocab)
        return;
    if (s->seen) {
        s->seen[id] = 1;
    } else if (s->last) {
        s->last[s->next_last] = id;
        s->next_last = (s->next_last + 1) % s->cap_last;
        s->n_last = lsi_min_size(s->n_last + 1, s->cap_last);
    }
}

/* Keskar et al. 2019: divide what speaks for a seen token, multiply what speaks against it. */
static float penalised(float logit, float penalty)
{
    return logit > 0 ? logit / penalty : logit * penalty;
}

static const float *apply_penalty(ls_sampler *s, const float *logits)
{
    const float penalty = s->o.repeat_penalty;

    memcpy(s->work, logits, s->n_vocab * sizeof *s->work);
    if (s->seen) {
        for (size_t i = 0; i < s->n_vocab; i++)
            if (s->seen[i])
                s->work[i] = penalised(logits[i], penalty);
    }
    /* From the caller's logits each time, so that a token that occurs twice is penalised once. */
    for (size_t i = 0; i < s->n_last; i++)
        s->work[s->last[i]] = penalised(logits[s->last[i]], penalty);
    return s->work;
}

/* Comparisons with NaN are false, so NaN never becomes the best. */
static int32_t argmax(const float *logits, size_t n)
{
    float top = -INFINITY;
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (logits[i] > top) {
            top = logits[i];
            at = i;
        }
    }
    return (int32_t)at;
}

static bool is_better(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Binary heap with the worst candidate on top: place item at `hole` or below it. */
static void sift_down(struct candidate *h, size_t n, size_t hole, struct candidate item)
{
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= n)
            break;
        if (child + 1 < n && is_better(h[child], h[child + 1]))
            child++;
        if (!is_better(item, h[child]))
            break;
        h[hole] = h[child];
        hole = child;
    }
    h[hole] = item;
}

static void heapify(struct candidate *h, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(h, n, i, h[i]);
}

/* A heap with the worst on top becomes an array with the best in front. */
static void sort_heap(struct candidate *h, size_t n)
{
    while (n > 1) {
        const struct candidate worst = h[0], moved = h[n - 1];
        n--;
        sift_down(h, n, 0, moved);
        h[n] = worst;
    }
}

/* The k best of the logits, best first; fewer when there are not k numbers among them. */
static size_t take_top_k(const float *logits, size_t n_vocab, struct candidate *best, size_t k)
{
    size_t n = 0, i = 0;

    for (; i < n_vocab && n < k; i++)
        if (logits[i] > -INFINITY)
            best[n++] = (struct candidate){ logits[i], (int32_t)i };
    heapify(best, n);
    for (; i < n_vocab; i++) /* only reached with n == k; equal logits stay out: their ids are higher */
        if (logits[i] > best[0].logit)
            sift_down(best, n, 0, (struct candidate){ logits[i], (int32_t)i });
    sort_heap(best, n);
    return n;
}

/* All with logit >= least, best first if asked for, else by id. */
static size_t take_from(const float *logits, size_t n_vocab, float least, bool sorted, struct candidate *best)
{
    size_t n = 0;

    for (size_t i = 0; i < n_vocab; i++)
        if (logits[i] >= least && logits[i] > -INFINITY)
            best[n++] = (struct candidate){ logits[i], (int32_t)i };
    if (sorted) {
        heapify(best, n);
        sort_heap(best, n);
    }
    return n;
}

static double sum_exp(const float *logits, size_t n, float max)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY)
            sum += (double)expf(logits[i] - max);
    return sum;
}

/* Length of the shortest prefix that holds the share top_p of total; n + 1 when n do not suffice. */
static size_t top_p_prefix(const struct candidate *best, size_t n, double total, float top_p)
{
    const double wanted = (double)top_p * total;
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)expf(best[i].logit - best[0].logit);
        if (sum >= wanted)
            return i + 1;
    }
    return n + 1;
}

static size_t cut_top_k(ls_sampler *s, const float *logits, float least)
{
    struct candidate *best = s->best;
    size_t n = take_top_k(logits, s->n_vocab, best, s->cap_best);

    if (s->o.top_p < 1) {
        double total = 0;
        for (size_t i = 0; i < n; i++)
            total += (double)expf(best[i].logit - best[0].logit);
        n = lsi_min_size(n, top_p_prefix(best, n, total, s->o.top_p));
    }
    while (n > 1 && best[n - 1].logit < least)
        n--;
    return n;
}

/*
 * Without top-k the vocabulary is the set. Whatever top-p keeps beyond the min-p threshold is cut
 * anyway, so gathering stops there; above it the threshold falls in steps that mostly end at the first.
 */
static size_t cut_all(ls_sampler *s, const float *logits, float max, float least)
{
    double total;
    size_t n, keep;
    float below = 8;

    if (s->o.top_p >= 1)
        return take_from(logits, s->n_vocab, least, false, s->best);
    total = sum_exp(logits, s->n_vocab, max);
    for (;;) {
        const float from = fmaxf(max - below, least);
        n = take_from(logits, s->n_vocab, from, true, s->best);
        keep = top_p_prefix(s->best, n, total, s->o.top_p);
        if (keep <= n)
            return keep;
        if (from <= least)
            return n;
        below = below < 64 ? below * 2 : INFINITY;
    }
}

static int32_t draw(ls_sampler *s, const struct candidate *best, size_t n, float max)
{
    const double inv = 1.0 / (double)s->o.temperature;
    double sum = 0, at;

    for (size_t i = 0; i < n; i++)
        sum += exp(((double)best[i].logit - (double)max) * inv);
    at = lsi_rng_double(&s->rng) * sum;
    for (size_t i = 0; i < n; i++) {
        at -= exp(((double)best[i].logit - (double)max) * inv);
        if (at < 0)
            return best[i].id;
    }
    return best[n - 1].id; /* rounding left a crumb of the sum */
}

int32_t ls_sampler_choose(ls_sampler *s, const float *logits)
{
    float max, least;
    size_t n;
    int32_t top;

    if (s->work)
        logits = apply_penalty(s, logits);
    top = argmax(logits, s->n_vocab);
    max = logits[top];
    if (is_greedy(&s->o) || !isfinite(max))
        return top;
    least = s->o.min_p > 0 ? max + logf(s->o.min_p) : -INFINITY;
    n = s->o.top_k > 0 ? cut_top_k(s, logits, least) : cut_all(s, logits, max, least);
    return draw(s, s->best, n, max);
}

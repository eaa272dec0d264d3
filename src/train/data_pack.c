/*
 * Documents to sequences.
 *
 * Tight packing is best fit on pieces by falling length: each goes to the fullest sequence that still has
 * room. Sequences stand in lists by their room; bits say which lists are not empty, and bits over those bits
 * make the next list easy to find.
 */
#include "train/data_impl.h"

#include <string.h>

static ls_status no_memory(ls_error *err)
{
    return lsi_fail(err, LS_E_NOMEM, "no memory for the order of the data");
}

/* ---- pieces -------------------------------------------------------------------- */

static bool push_piece(struct lsi_sequences *s, uint64_t first, size_t n)
{
    struct lsi_piece *p = lsi_grow(s->alloc, s->pieces, s->n_pieces, &s->cap_pieces, 64, sizeof *p);
    if (!p)
        return false;
    s->pieces = p;
    s->pieces[s->n_pieces++] = (struct lsi_piece){ first, (uint32_t)n };
    s->n_tokens += n;
    return true;
}

/* A label is the token behind, so the first token of a piece is none's. */
static bool teaches(const struct lsi_token_store *t, uint64_t first, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (lsi_token_learnt(t, first + i))
            return true;
    return false;
}

static ls_status cut_documents(struct lsi_sequences *s, const struct lsi_token_store *t, size_t seq,
                               size_t least, ls_error *err)
{
    for (size_t d = 0; d < t->n_docs; d++) {
        for (uint64_t at = t->docs[d]; at < t->docs[d + 1]; at += seq) {
            const size_t n = lsi_min_size((size_t)(t->docs[d + 1] - at), seq);
            if (n < least || !teaches(t, at, n))
                s->n_dropped += n;
            else if (!push_piece(s, at, n))
                return no_memory(err);
        }
    }
    return LS_OK;
}

/* ---- sequences ------------------------------------------------------------------- */

/* Ends sequences in the order of pieces; seq 0: after each. */
static ls_status put_in_order(struct lsi_sequences *s, size_t seq, ls_error *err)
{
    size_t used = 0;
    s->first = lsi_calloc(s->alloc, s->n_pieces + 1, sizeof *s->first);
    if (!s->first)
        return no_memory(err);
    for (size_t i = 0; i < s->n_pieces; i++) {
        if (i == 0 || used + s->pieces[i].n > seq) {
            s->first[s->n++] = i;
            used = 0;
        }
        used += s->pieces[i].n;
    }
    s->first[s->n] = s->n_pieces;
    return LS_OK;
}

/* Sequences with room for more, by how much. Numbers in lists count from 1, 0 ends them. */
struct rooms {
    size_t n_words, n_tops;
    uint32_t *head; /* [seq + 1] by room */
    uint32_t *next; /* [n_pieces] by sequence */
    uint64_t *word; /* [n_words] bit r % 64 of word r / 64: head[r] is not 0 */
    uint64_t *top;  /* [n_tops] the same for words */
};

static void put_room(struct rooms *r, size_t room, uint32_t sequence)
{
    r->next[sequence] = r->head[room];
    r->head[room] = sequence + 1;
    r->word[room / 64] |= 1ull << room % 64;
    r->top[room / 4096] |= 1ull << room / 64 % 64;
}

static uint32_t take_room(struct rooms *r, size_t room)
{
    const uint32_t sequence = r->head[room] - 1;
    r->head[room] = r->next[sequence];
    if (r->head[room] == 0) {
        r->word[room / 64] &= ~(1ull << room % 64);
        if (r->word[room / 64] == 0)
            r->top[room / 4096] &= ~(1ull << room / 64 % 64);
    }
    return sequence;
}

/* The lowest set bit of words[0 .. n-1] at or after `from`; SIZE_MAX: none. */
static size_t next_bit(const uint64_t *words, size_t n, size_t from)
{
    for (size_t w = from / 64; w < n; w++) {
        const uint64_t bits = w == from / 64 ? words[w] >> from % 64 << from % 64 : words[w];
        if (bits)
            return w * 64 + (size_t)__builtin_ctzll(bits);
    }
    return SIZE_MAX;
}

/* The least room of at least n tokens; SIZE_MAX: none. */
static size_t find_room(const struct rooms *r, size_t n)
{
    const size_t w = n / 64;
    const uint64_t here = r->word[w] >> n % 64 << n % 64;
    if (here)
        return w * 64 + (size_t)__builtin_ctzll(here);
    const size_t next = next_bit(r->top, r->n_tops, w + 1);
    return next == SIZE_MAX ? SIZE_MAX : next * 64 + (size_t)__builtin_ctzll(r->word[next]);
}

/* Pieces by falling length, equal ones as they stood: their numbers in order[n_pieces]. */
static void sort_by_length(const struct lsi_sequences *s, size_t seq, size_t *begin, uint32_t *order)
{
    for (size_t i = 0; i < s->n_pieces; i++)
        begin[seq - s->pieces[i].n + 1]++;
    for (size_t k = 1; k <= seq; k++)
        begin[k] += begin[k - 1];
    for (size_t i = 0; i < s->n_pieces; i++)
        order[begin[seq - s->pieces[i].n]++] = (uint32_t)i;
}

/* A sequence for each piece, in the order given. */
static void best_fit(struct lsi_sequences *s, size_t seq, const uint32_t *order, struct rooms *r,
                     uint32_t *sequence_of)
{
    for (size_t k = 0; k < s->n_pieces; k++) {
        const uint32_t i = order[k];
        const size_t n = s->pieces[i].n, room = find_room(r, n);
        const uint32_t sequence = room == SIZE_MAX ? (uint32_t)s->n++ : take_room(r, room);
        const size_t left = (room == SIZE_MAX ? seq : room) - n;
        sequence_of[i] = sequence;
        if (left > 0)
            put_room(r, left, sequence);
    }
}

/* Bring the pieces of a sequence side by side. */
static void gather(struct lsi_sequences *s, const uint32_t *sequence_of, struct lsi_piece *to)
{
    for (size_t i = 0; i < s->n_pieces; i++)
        s->first[sequence_of[i] + 1]++;
    for (size_t k = 0; k < s->n; k++)
        s->first[k + 1] += s->first[k];
    for (size_t i = 0; i < s->n_pieces; i++)
        to[s->first[sequence_of[i]]++] = s->pieces[i];
    for (size_t k = s->n; k > 0; k--) /* they have moved to their ends */
        s->first[k] = s->first[k - 1];
    s->first[0] = 0;
}

static void lay_out(struct lsi_arena *a, struct rooms *r, const struct lsi_sequences *s, size_t seq,
                    size_t **begin, uint32_t **order, uint32_t **sequence_of)
{
    r->n_words = seq / 64 + 1;
    r->n_tops = seq / 4096 + 1;
    r->head = lsi_arena_take(a, seq + 1, sizeof *r->head);
    r->next = lsi_arena_take(a, s->n_pieces, sizeof *r->next);
    r->word = lsi_arena_take(a, r->n_words, sizeof *r->word);
    r->top = lsi_arena_take(a, r->n_tops, sizeof *r->top);
    *begin = lsi_arena_take(a, seq + 2, sizeof **begin);
    *order = lsi_arena_take(a, s->n_pieces, sizeof **order);
    *sequence_of = lsi_arena_take(a, s->n_pieces, sizeof **sequence_of);
}

static ls_status put_tight(struct lsi_sequences *s, size_t seq, ls_error *err)
{
    struct lsi_arena plan = { 0 }, a;
    struct rooms r;
    size_t *begin;
    uint32_t *order, *sequence_of;
    if (s->n_pieces >= UINT32_MAX)
        return lsi_fail(err, LS_E_LIMIT, "the data have %zu documents, more than can be packed", s->n_pieces);
    lay_out(&plan, &r, s, seq, &begin, &order, &sequence_of);
    if (plan.failed || lsi_arena_init(&a, s->alloc, plan.used) != LS_OK)
        return no_memory(err);
    memset(a.base, 0, a.cap);
    lay_out(&a, &r, s, seq, &begin, &order, &sequence_of);
    sort_by_length(s, seq, begin, order);
    best_fit(s, seq, order, &r, sequence_of);
    s->first = lsi_calloc(s->alloc, s->n_pieces + 1, sizeof *s->first);
    struct lsi_piece *pieces = lsi_calloc(s->alloc, s->cap_pieces, sizeof *pieces);
    if (s->first && pieces) {
        gather(s, sequence_of, pieces);
        lsi_free(s->alloc, s->pieces, s->cap_pieces * sizeof *s->pieces);
        s->pieces = pieces;
    }
    lsi_arena_fini(&a);
    if (s->first && pieces)
        return LS_OK;
    lsi_free(s->alloc, pieces, s->cap_pieces * sizeof *pieces);
    return no_memory(err);
}

ls_status lsi_sequences_make(struct lsi_sequences *s, const struct lsi_token_store *t, size_t seq,
                             enum lsi_packing packing, const ls_alloc *alloc, ls_error *err)
{
    *s = (struct lsi_sequences){ .alloc = alloc };
    ls_status st = cut_documents(s, t, seq, packing == LSI_PACK_WINDOWS ? seq : 2, err);
    if (st == LS_OK)
        st = packing == LSI_PACK_TIGHT ? put_tight(s, seq, err)
                                       : put_in_order(s, packing == LSI_PACK_ORDERED ? seq : 0, err);
    if (st != LS_OK) {
        lsi_sequences_fini(s);
        return st;
    }
    for (size_t i = 0; i < s->n; i++)
        s->most_pieces = lsi_max_size(s->most_pieces, s->first[i + 1] - s->first[i]);
    return LS_OK;
}

void lsi_sequences_fini(struct lsi_sequences *s)
{
    lsi_free(s->alloc, s->pieces, s->cap_pieces * sizeof *s->pieces);
    lsi_free(s->alloc, s->first, s->first ? (s->n_pieces + 1) * sizeof *s->first : 0);
    *s = (struct lsi_sequences){ 0 };
}

/*
 * Attention of one row over chosen slots, on the CPU, and merging of partial results.
 *
 * The slots of a list are cut into pieces of equal numbers of slots,
 *
 *     list 0   | piece 0 | piece 1 | piece 2 |      a state for each piece and each of the list's rows
 *     list 1   | piece 0 | pie
 *
 * whose states are merged in ascending order: pieces are a function of the lists alone, so that results are
 * equal for every number of threads. Kernels see slots by tiles (kernels/attention.h), each with a mask of
 * those that are meant. Packed slots (kernels/kivi.h) are seen by pages, a page with a mask as often as there
 * are gaps between the blocks that are wanted of it.
 */
#include "backend/cpu_attention.h"

#define PIECE_SLOTS    256   /* at least */
#define MAX_PIECES     64    /* of a list */
#define ALONE_ELEMENTS 65536 /* key elements that one thread goes through faster than two wake up */
#define BLOCK_TILES    2     /* of packed slots that are unpacked together */

struct piece {
    size_t list;
    size_t range; /* where it begins: in this range, */
    size_t skip;  /* so many slots after its start */
    size_t n_slots;
};

struct call {
    const struct lsi_attention_slots *a;
    lsk_attn_tiles_fn *attn;
    lsk_attn_fn *attn_packed; /* NULL: slots are not packed */
    struct lsk_kivi kivi;
    uint16_t *lo, *hi;    /* [n_threads][H] */
    size_t n_lists, rows; /* rows of a list */
    size_t head_bytes;
    float *q; /* [H][D] */
    struct piece *pieces;
    size_t *first_piece;          /* [n_lists + 1] */
    struct lsi_cpu_states states; /* row r of piece i: i rows + r */
};

static void layout(struct lsi_arena *s, struct call *c, int n_threads, size_t H, size_t D)
{
    const size_t states = (size_t)MAX_PIECES * H;

    c->q = lsi_arena_take(s, H * D, sizeof(float));
    c->pieces = lsi_arena_take(s, states, sizeof *c->pieces); /* as many lists as heads, at most */
    c->first_piece = lsi_arena_take(s, H + 1, sizeof *c->first_piece);
    c->states.m = lsi_arena_take(s, states, sizeof(float));
    c->states.l = lsi_arena_take(s, states, sizeof(float));
    c->states.acc = lsi_arena_take(s, states * D, sizeof(float));
    c->lo = lsi_arena_take(s, (size_t)n_threads * H, sizeof *c->lo);
    c->hi = lsi_arena_take(s, (size_t)n_threads * H, sizeof *c->hi);
}

size_t lsi_cpu_attention_slots_scratch(const struct lsi_exec *ex, size_t H, size_t G, size_t D)
{
    struct lsi_arena count = { 0 };
    struct call c = { 0 };

    (void)G;
    layout(&count, &c, ex->n_threads, H, D);
    return count.used;
}

/* ---- cutting ------------------------------------------------------------------------- */

/* Cut list number `list`, whose pieces begin at *n; returns its slots. */
static size_t cut_list(const struct call *c, size_t list, size_t *n)
{
    const struct lsi_attention_slots *a = c->a;
    const size_t first = a->first[list], last = a->first[list + 1];
    size_t total = 0, size = PIECE_SLOTS, before = 0, done = 0;

    for (size_t i = first; i < last; i++)
        total += a->slots[i].end - a->slots[i].begin;
    while (lsi_div_up(total, size) > MAX_PIECES)
        size *= 2;
    for (size_t i = first; i < last; i++) {
        const size_t length = a->slots[i].end - a->slots[i].begin;
        for (; done < before + length; done += size)
            c->pieces[(*n)++] = (struct piece){
                .list = list, .range = i, .skip = done - before, .n_slots = lsi_min_size(size, total - done)
            };
        before += length;
    }
    return total;
}

/* ---- a piece --------------------------------------------------------------------------- */

/* Tiles of a piece, in ascending order: where the walk through its ranges stands. */
struct walk {
    const struct call *c;
    size_t g;           /* kv head */
    size_t range, slot; /* the next slot */
    size_t left;        /* slots still to come */
};

static struct walk start_walk(const struct call *c, const struct piece *p)
{
    const struct lsi_attention_slots *a = c->a;
    return (struct walk){ .c = c,
                          .g = p->list * c->rows / (a->H / a->kv.G),
                          .range = p->range,
                          .slot = a->slots[p->range].begin + p->skip,
                          .left = p->n_slots };
}

/* The next tile, which may gather slots of several ranges. Only while slots are left. */
static struct lsk_attn_tile next_tile(struct walk *w)
{
    const struct lsi_attention_slots *a = w->c->a;
    const size_t tile = w->slot / LSK_TILE, per_page = LSI_KV_PAGE / LSK_TILE;
    struct lsk_attn_tile t = {
        .head = (const unsigned char *)a->kv.pages[tile / per_page] + w->g * w->c->head_bytes,
        .tile = (uint16_t)(tile % per_page),
    };

    while (w->left > 0 && w->slot / LSK_TILE == tile) {
        const size_t range_end = a->slots[w->range].end;
        const size_t end = lsi_min_size(lsi_min_size(range_end, (tile + 1) * LSK_TILE), w->slot + w->left);
        t.seen = (uint16_t)(t.seen | ((UINT32_C(1) << (end - w->slot)) - 1) << w->slot % LSK_TILE);
        w->left -= end - w->slot;
        w->slot = end;
        if (end == range_end && w->left > 0)
            w->slot = a->slots[++w->range].begin;
    }
    return t;
}

/* Up to `most` tiles; returns how many. */
static size_t next_tiles(struct walk *w, struct lsk_attn_tile *tiles, size_t most)
{
    size_t n = 0;
    while (n < most && w->left > 0)
        tiles[n++] = next_tile(w);
    return n;
}

/* Slots of a page that are packed next to each other, as many as follow. */
static void see_packed(struct walk *w, struct lsk_attn_tile *next, struct lsk_attn *k, uint16_t *lo,
                       uint16_t *hi)
{
    uint16_t seen[LSK_ATTN_TILES] = { 0 };
    const size_t first = next->tile;
    size_t last;

    k->head = next->head;
    k->seen = seen;
    do {
        last = next->tile;
        seen[last] = next->seen;
        *next = w->left > 0 ? next_tile(w) : (struct lsk_attn_tile){ 0 };
    } while (next->head == k->head && next->tile / BLOCK_TILES <= last / BLOCK_TILES + 1);
    for (size_t r = 0; r < k->n_rows; r++) {
        lo[r] = (uint16_t)(first * LSK_TILE);
        hi[r] = (uint16_t)((last + 1) * LSK_TILE);
    }
    w->c->attn_packed(k);
}

static void packed_piece(const struct call *c, const struct piece *p, const struct lsi_cpu_states *states,
                         int thread)
{
    uint16_t *lo = c->lo + (size_t)thread * c->a->H, *hi = c->hi + (size_t)thread * c->a->H;
    struct walk w = start_walk(c, p);
    struct lsk_attn_tile next = next_tile(&w);
    struct lsk_attn k = { .kivi = c->kivi, .D = c->a->kv.D, .n_rows = c->rows, .lo = lo, .hi = hi };

    k.q = c->q + p->list * c->rows * k.D;
    k.m = states->m;
    k.l = states->l;
    k.acc = states->acc;
    while (next.head)
        see_packed(&w, &next, &k, lo, hi);
}

/* While some tiles are attended the next are asked for: at the end those of the piece that follows. */
static void piece_task(void *ctx, size_t task, int thread)
{
    const struct call *c = ctx;
    const struct piece *p = &c->pieces[task];
    const size_t D = c->a->kv.D, state = task * c->rows, h = p->list * c->rows;
    const struct lsi_cpu_states states = { c->states.m + state, c->states.l + state,
                                           c->states.acc + state * D };
    struct lsk_attn_tile tiles[2][LSK_ATTN_TILES];
    struct lsk_attn_tiles k = { .D = D, .n_rows = c->rows, .q = c->q + h * D };
    struct walk w = start_walk(c, p);

    lsi_cpu_states_reset(&states, c->rows, D);
    if (c->attn_packed) {
        packed_piece(c, p, &states, thread);
        return;
    }
    k.m = states.m;
    k.l = states.l;
    k.acc = states.acc;
    k.n_next = next_tiles(&w, tiles[0], LSK_ATTN_TILES);
    for (size_t turn = 0; k.n_next > 0; turn++) {
        k.tiles = tiles[turn % 2];
        k.n_tiles = k.n_next;
        k.next = tiles[(turn + 1) % 2];
        k.n_next = next_tiles(&w, tiles[(turn + 1) % 2], LSK_ATTN_TILES);
        const bool last = k.n_next == 0;
        if (last && task + 1 < c->first_piece[c->n_lists]) {
            struct walk then = start_walk(c, p + 1);
            k.n_next = next_tiles(&then, tiles[(turn + 1) % 2], LSK_ATTN_TILES);
        }
        c->attn(&k);
        if (last)
            break;
    }
}

/* ---- the operation ------------------------------------------------------------------------ */

static void finish_list(const struct call *c, size_t list)
{
    const struct lsi_attention_slots *a = c->a;
    const size_t D = a->kv.D, first = c->first_piece[list], n = c->first_piece[list + 1] - first;

    for (size_t r = 0; r < c->rows; r++) {
        const size_t h = list * c->rows + r, state = first * c->rows + r;
        if (n > 0) {
            lsi_cpu_states_merge(&c->states, state, n, c->rows, D);
            lsi_cpu_states_finish(&c->states, state, D, a->out + h * D, a->lse ? a->lse + h : NULL);
            continue;
        }
        for (size_t d = 0; d < D; d++)
            a->out[h * D + d] = 0.0f;
        if (a->lse)
            a->lse[h] = -INFINITY;
    }
}

void lsi_cpu_attention_slots(struct lsi_exec *ex, const struct lsi_attention_slots *a)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const size_t D = a->kv.D;
    struct call c = { .a = a, .n_lists = a->per_q ? a->H : a->kv.G };
    size_t n_pieces = 0, n_slots = 0;

    LSI_ASSERT(a->kv.G > 0 && a->H % a->kv.G == 0 && D % 2 == 0);
    c.rows = a->H / c.n_lists;
    c.head_bytes = lsi_cpu_head_bytes(a->kv.format, D);
    if (lsi_kv_kind(a->kv.format) == LSI_KV_KIVI) {
        c.kivi = lsi_cpu_kivi(a->kv.format);
        c.attn_packed = ex->compute != LSI_COMPUTE_FP32 ? kernels->attn_kivi_round : kernels->attn_kivi;
    }
    c.attn = a->kv.format == LSI_KV_F32    ? kernels->attn_tiles_f32
             : a->kv.format == LSI_KV_BF16 ? kernels->attn_tiles_bf16
                                           : kernels->attn_tiles_q8;
    layout(&ex->scratch, &c, ex->n_threads, a->H, D);
    LSI_ASSERT(!ex->scratch.failed);
    lsi_cpu_pack_queries(c.q, a->q, 0, 1, a->H * D, (double)a->scale * LSI_LOG2_E);
    for (size_t i = 0; i < c.n_lists; i++) {
        c.first_piece[i] = n_pieces;
        n_slots += cut_list(&c, i, &n_pieces);
    }
    c.first_piece[c.n_lists] = n_pieces;
    lsi_parallel_split(n_slots * D <= ALONE_ELEMENTS ? NULL : ex->pool, n_pieces, piece_task, &c);
    for (size_t i = 0; i < c.n_lists; i++)
        finish_list(&c, i);
}

/* ---- merging --------------------------------------------------------------------------------- */

#define MERGE_ELEMENTS 16384 /* of a task */

struct merge {
    float *out, *lse;
    const float *part, *part_lse;
    size_t ldo, ldp, T, H, D;
    size_t tokens; /* per task */
};

static void merge_row(const struct merge *m, size_t t, size_t h)
{
    float *out = m->out + t * m->ldo + h * m->D, *lse = &m->lse[t * m->H + h];
    const float *part = m->part + t * m->ldp + h * m->D;
    const double a = (double)*lse, b = (double)m->part_lse[t * m->H + h], most = fmax(a, b);

    if (most == -INFINITY)
        return;
    const double ea = exp(a - most), eb = exp(b - most);
    const float wa = (float)(ea / (ea + eb)), wb = (float)(eb / (ea + eb));
    for (size_t d = 0; d < m->D; d++)
        out[d] = wa * out[d] + wb * part[d];
    *lse = (float)(most + log(ea + eb));
}

static void merge_task(void *ctx, size_t task, int thread)
{
    const struct merge *m = ctx;

    (void)thread;
    for (size_t t = task * m->tokens; t < lsi_min_size(m->T, (task + 1) * m->tokens); t++)
        for (size_t h = 0; h < m->H; h++)
            merge_row(m, t, h);
}

void lsi_cpu_attention_merge(struct lsi_exec *ex, float *out, size_t ldo, float *lse, const float *part,
                             size_t ldp, const float *part_lse, size_t T, size_t H, size_t D)
{
    struct merge m = { .out = out, .lse = lse, .part = part, .part_lse = part_lse, .ldo = ldo, .ldp = ldp };

    m.T = T;
    m.H = H;
    m.D = D;
    m.tokens = lsi_max_size(1, MERGE_ELEMENTS / (H * D));
    lsi_parallel(ex->pool, lsi_div_up(T, m.tokens), merge_task, &m);
}

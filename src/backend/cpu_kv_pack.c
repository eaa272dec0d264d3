/*
 * Quantising stored keys and values on the CPU (kernels/kivi.h). A task is one head of one page of what is
 * written; in between, a group of keys lies in scratch as fp32 rows.
 */
#include "backend/cpu_attention.h"

#define MOST_GROUP 128
#define ALONE      64 /* keys and values, each of all heads, that are not worth waking threads for */

struct job {
    const struct lsi_kv_pack *p;
    const struct lsk_table *kernels;
    lsk_kv_load_fn *load;
    lsk_kv_store_fn *store;
    struct lsk_kivi kivi;
    size_t page0; /* first page of `to` */
    float *rows;  /* [n_threads][2 MOST_GROUP][D] */
};

static void layout(struct lsi_arena *s, struct job *j, int n_threads, size_t D)
{
    j->rows = lsi_arena_take(s, (size_t)n_threads * 2 * MOST_GROUP * D, sizeof(float));
}

size_t lsi_cpu_kv_pack_scratch(const struct lsi_exec *ex, size_t D)
{
    struct lsi_arena count = { 0 };
    struct job j = { 0 };

    layout(&count, &j, ex->n_threads, D);
    return count.used;
}

/* The head of `from` that holds a slot of `to`; *at: where it stands in its page. */
static unsigned char *exact_head(const struct job *j, size_t g, size_t slot, size_t *at)
{
    const struct lsi_kv_pack *p = j->p;
    const size_t s = lsi_max_size(slot, p->skip) - p->base;

    *at = s % LSI_KV_PAGE;
    return (unsigned char *)p->from.pages[s / LSI_KV_PAGE] +
           g * lsi_cpu_head_bytes(p->from.format, p->from.D);
}

/* Keys of the group at `slot`. */
static void pack_keys(const struct job *j, unsigned char *head, size_t g, size_t slot, float *rows)
{
    const struct lsi_kv_pack *p = j->p;
    const size_t D = p->to.D, end = slot + j->kivi.group;
    size_t at;

    for (size_t s = slot; s < end; s++) {
        const unsigned char *exact = exact_head(j, g, s, &at);
        j->load(exact, D, at, rows + (s - slot) * D, NULL);
    }
    j->kernels->kivi_pack_keys(head, j->kivi, D, slot % LSI_KV_PAGE, rows, D);
    for (size_t s = lsi_max_size(slot, lsi_max_size(p->back, p->skip)); s < end; s++) {
        unsigned char *exact = exact_head(j, g, s, &at);
        j->load(exact, D, at, NULL, rows + D);
        j->kernels->kivi_load(head, j->kivi, D, s % LSI_KV_PAGE, rows, NULL);
        j->store(exact, D, at, rows, rows + D);
    }
}

static void pack_task(void *ctx, size_t task, int thread)
{
    const struct job *j = ctx;
    const struct lsi_kv_pack *p = j->p;
    const size_t D = p->to.D, g = task % p->to.G, page = j->page0 + task / p->to.G;
    const size_t first = page * LSI_KV_PAGE, end = first + LSI_KV_PAGE;
    unsigned char *head = (unsigned char *)p->to.pages[page] + g * lsi_cpu_head_bytes(p->to.format, D);
    float *rows = j->rows + (size_t)thread * 2 * MOST_GROUP * D;

    for (size_t s = lsi_max_size(first, p->k_begin); s < lsi_min_size(end, p->k_end); s += j->kivi.group)
        pack_keys(j, head, g, s, rows);
    for (size_t s = lsi_max_size(first, p->v_begin); s < lsi_min_size(end, p->v_end); s++) {
        size_t at;
        const unsigned char *exact = exact_head(j, g, s, &at);
        j->load(exact, D, at, NULL, rows);
        j->kernels->kivi_pack_value(head, j->kivi, D, s % LSI_KV_PAGE, rows);
    }
}

void lsi_cpu_kv_pack(struct lsi_exec *ex, const struct lsi_kv_pack *p)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const size_t n_keys = p->k_end - p->k_begin, n_values = p->v_end - p->v_begin;
    const size_t begin = n_keys == 0     ? p->v_begin
                         : n_values == 0 ? p->k_begin
                                         : lsi_min_size(p->k_begin, p->v_begin);
    const size_t end = n_keys == 0 ? p->v_end : n_values == 0 ? p->k_end : lsi_max_size(p->k_end, p->v_end);
    struct job j = { .p = p, .kernels = kernels, .kivi = lsi_cpu_kivi(p->to.format) };

    LSI_ASSERT(lsi_kv_kind(p->to.format) == LSI_KV_KIVI && p->to.D == p->from.D && p->to.G == p->from.G);
    LSI_ASSERT(p->k_begin % j.kivi.group == 0 && p->k_end % j.kivi.group == 0);
    if (n_keys + n_values == 0)
        return;
    layout(&ex->scratch, &j, ex->n_threads, p->to.D);
    LSI_ASSERT(!ex->scratch.failed);
    j.load = p->from.format == LSI_KV_F32 ? kernels->kv_load_f32 : kernels->kv_load_bf16;
    j.store = p->from.format == LSI_KV_F32 ? kernels->kv_store_f32 : kernels->kv_store_bf16;
    j.page0 = begin / LSI_KV_PAGE;
    lsi_parallel(n_keys + n_values <= ALONE ? NULL : ex->pool,
                 ((end - 1) / LSI_KV_PAGE - j.page0 + 1) * p->to.G, pack_task, &j);
}

void lsi_cpu_kv_regroup(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, size_t to,
                        const uint32_t *from, size_t n)
{
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    const size_t D = kv->D, offset = g * lsi_cpu_head_bytes(kv->format, D);
    struct job j = { .kernels = kernels, .kivi = lsi_cpu_kivi(kv->format) };

    LSI_ASSERT(n > 0 && n <= j.kivi.group && to % j.kivi.group == 0);
    layout(&ex->scratch, &j, 1, D);
    LSI_ASSERT(!ex->scratch.failed);
    float *k = j.rows, *v = j.rows + (size_t)MOST_GROUP * D;
    for (size_t i = 0; i < j.kivi.group; i++) {
        const size_t slot = from[lsi_min_size(i, n - 1)];
        kernels->kivi_load((const unsigned char *)kv->pages[slot / LSI_KV_PAGE] + offset, j.kivi, D,
                           slot % LSI_KV_PAGE, k + i * D, v + i * D);
    }
    unsigned char *head = (unsigned char *)kv->pages[to / LSI_KV_PAGE] + offset;
    kernels->kivi_pack_keys(head, j.kivi, D, to % LSI_KV_PAGE, k, D);
    for (size_t i = 0; i < j.kivi.group; i++)
        kernels->kivi_pack_value(head, j.kivi, D, (to + i) % LSI_KV_PAGE, v + i * D);
}

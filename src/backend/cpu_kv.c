/*
 * Stored keys and values moved and read, on the CPU. In every format a key is 32-bit words a tile apart
 * (kernels/kv_layout.h), so that one function moves the keys of all; values are elements of 4, 2 or 1
 * bytes, 4 bytes apart.
 */
#include "backend/cpu_attention.h"

#include <string.h>

/* Words of 4 bytes that hold a key, which are also the 4-byte places of a value's dimensions. */
static size_t key_words(enum lsi_kv_format format, size_t D)
{
    return format == LSI_KV_F32 ? D : format == LSI_KV_BF16 ? D / 2 : lsk_kv_q8_dims(D) / 4;
}

/* Where the first word of a slot's key, and the first element of its value, begin. */
static size_t key_at(enum lsi_kv_format format, size_t D, size_t slot)
{
    switch (format) {
    case LSI_KV_F32:
        return lsk_kv_f32_k(D, slot, 0) * sizeof(float);
    case LSI_KV_BF16:
        return lsk_kv_bf16_k(D, slot, 0) * sizeof(lsi_bf16);
    case LSI_KV_Q8:
        return lsk_kv_q8_k(D, slot, 0);
    case LSI_KV_KIVI:
        break; /* its slots do not move one by one */
    }
    return 0;
}

static size_t value_at(enum lsi_kv_format format, size_t D, size_t slot)
{
    switch (format) {
    case LSI_KV_F32:
        return lsk_kv_f32_v(D, slot, 0) * sizeof(float);
    case LSI_KV_BF16:
        return lsk_kv_bf16_v(D, slot, 0) * sizeof(lsi_bf16);
    case LSI_KV_Q8:
        return lsk_kv_q8_v(D, slot, 0);
    case LSI_KV_KIVI:
        break;
    }
    return 0;
}

static void move_scales(unsigned char *to, size_t to_slot, const unsigned char *from, size_t from_slot,
                        size_t D)
{
    const size_t parts[] = { lsk_kv_q8_k_scales(D), lsk_kv_q8_v_scales(D) };

    for (size_t i = 0; i < LSI_LEN(parts); i++)
        for (size_t d = 0; d < D; d += LSK_KV_Q8_RUN)
            memcpy(to + parts[i] + lsk_kv_q8_scale(to_slot, d) * sizeof(lsi_bf16),
                   from + parts[i] + lsk_kv_q8_scale(from_slot, d) * sizeof(lsi_bf16), sizeof(lsi_bf16));
}

/* One slot of a head; slots count from the start of their pages. */
static void move_slot(enum lsi_kv_format format, size_t D, unsigned char *to, size_t to_slot,
                      const unsigned char *from, size_t from_slot)
{
    unsigned char *to_key = to + key_at(format, D, to_slot), *to_value = to + value_at(format, D, to_slot);
    const unsigned char *key = from + key_at(format, D, from_slot);
    const unsigned char *value = from + value_at(format, D, from_slot);

    for (size_t i = 0; i < key_words(format, D); i++)
        memcpy(to_key + i * 4 * LSK_TILE, key + i * 4 * LSK_TILE, 4);
    switch (format) {
    case LSI_KV_F32:
        memmove(to_value, value, D * sizeof(float));
        break;
    case LSI_KV_BF16:
        for (size_t d = 0; d < D; d++)
            memcpy(to_value + 4 * d, value + 4 * d, sizeof(lsi_bf16));
        break;
    case LSI_KV_Q8:
        for (size_t d = 0; d < D; d++)
            to_value[4 * d] = value[4 * d];
        move_scales(to, to_slot, from, from_slot, D);
        break;
    case LSI_KV_KIVI:
        break;
    }
}

/* The same for a group of packed slots, all of which lies in a block. */
static void move_group(struct lsk_kivi f, size_t D, unsigned char *to, size_t to_slot,
                       const unsigned char *from, size_t from_slot)
{
    const size_t bytes = lsk_kivi_block_bytes(f, D);
    memcpy(to + to_slot / f.group * bytes, from + from_slot / f.group * bytes, bytes);
}

void lsi_cpu_kv_move(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t g, const uint32_t *to,
                     const uint32_t *from, size_t n)
{
    const size_t offset = g * lsi_cpu_head_bytes(kv->format, kv->D);

    (void)ex;
    for (size_t i = 0; i < n; i++) {
        LSI_ASSERT(to[i] <= from[i]);
        unsigned char *head = (unsigned char *)kv->pages[to[i] / LSI_KV_PAGE] + offset;
        const unsigned char *old = (const unsigned char *)kv->pages[from[i] / LSI_KV_PAGE] + offset;
        if (to[i] == from[i])
            continue;
        if (lsi_kv_kind(kv->format) == LSI_KV_KIVI)
            move_group(lsi_cpu_kivi(kv->format), kv->D, head, to[i] % LSI_KV_PAGE, old,
                       from[i] % LSI_KV_PAGE);
        else
            move_slot(kv->format, kv->D, head, to[i] % LSI_KV_PAGE, old, from[i] % LSI_KV_PAGE);
    }
}

/* ---- reading ---------------------------------------------------------------------------- */

struct load {
    const struct lsi_kv_view *kv;
    lsk_kv_load_fn *load;
    lsk_kivi_load_fn *unpack; /* NULL: load does it */
    float *k, *v;
    size_t ldk, ldv, slot0, n_rows;
};

static void load_slot(const struct load *l, const unsigned char *head, size_t slot, float *k, float *v)
{
    if (l->unpack)
        l->unpack(head, lsi_cpu_kivi(l->kv->format), l->kv->D, slot, k, v);
    else
        l->load(head, l->kv->D, slot, k, v);
}

/* The rows of one page. */
static void load_task(void *ctx, size_t task, int thread)
{
    const struct load *l = ctx;
    const size_t page = l->slot0 / LSI_KV_PAGE + task, D = l->kv->D;
    const size_t begin = lsi_max_size(l->slot0, page * LSI_KV_PAGE);
    const size_t end = lsi_min_size(l->slot0 + l->n_rows, (page + 1) * LSI_KV_PAGE);

    (void)thread;
    for (size_t slot = begin; slot < end; slot++) {
        const size_t t = slot - l->slot0;
        const unsigned char *head = l->kv->pages[page];
        for (size_t g = 0; g < l->kv->G; g++, head += lsi_cpu_head_bytes(l->kv->format, D))
            load_slot(l, head, slot % LSI_KV_PAGE, l->k ? l->k + t * l->ldk + g * D : NULL,
                      l->v ? l->v + t * l->ldv + g * D : NULL);
    }
}

void lsi_cpu_kv_load(struct lsi_exec *ex, const struct lsi_kv_view *kv, size_t slot0, float *k, size_t ldk,
                     float *v, size_t ldv, size_t n_rows)
{
    struct load l = { .kv = kv, .k = k, .v = v, .ldk = ldk, .ldv = ldv, .slot0 = slot0, .n_rows = n_rows };

    if (n_rows == 0)
        return;
    const struct lsk_table *kernels = lsi_cpu_kernels(ex);
    l.load = lsi_cpu_kv_load_kernel(kernels, kv->format);
    l.unpack = lsi_kv_kind(kv->format) == LSI_KV_KIVI ? kernels->kivi_load : NULL;
    lsi_parallel(n_rows < LSI_KV_PAGE / 4 ? NULL : ex->pool,
                 (slot0 + n_rows - 1) / LSI_KV_PAGE - slot0 / LSI_KV_PAGE + 1, load_task, &l);
}

/*
 * Each lane takes every fourth word: lane = rotate((lane ^ word) * odd). For a given lane that is one to
 * one in the word, so no change of a single word can be missed.
 */
#include "base/digest.h"

#include <string.h>

#define ODD 0x9e3779b97f4a7c15u

static uint64_t step(uint64_t lane, uint64_t word)
{
    const uint64_t x = (lane ^ word) * ODD;
    return x << 29 | x >> 35;
}

static void add_blocks(struct lsi_digest *d, const unsigned char *p, size_t n_blocks)
{
    uint64_t lane[4];
    memcpy(lane, d->lane, sizeof lane);
    for (size_t b = 0; b < n_blocks; b++, p += LSI_DIGEST_BLOCK) {
        uint64_t word[4];
        memcpy(word, p, sizeof word);
        for (int i = 0; i < 4; i++)
            lane[i] = step(lane[i], word[i]);
    }
    memcpy(d->lane, lane, sizeof lane);
}

void lsi_digest_init(struct lsi_digest *d)
{
    *d = (struct lsi_digest){ .lane = { 1, 2, 3, 4 } };
}

void lsi_digest_add(struct lsi_digest *d, const void *data, size_t n)
{
    const unsigned char *p = data;
    const size_t held = d->bytes % LSI_DIGEST_BLOCK;
    if (n == 0)
        return;
    d->bytes += n;
    if (held) {
        const size_t k = lsi_min_size(n, LSI_DIGEST_BLOCK - held);
        memcpy(d->tail + held, p, k);
        if (held + k < LSI_DIGEST_BLOCK)
            return;
        add_blocks(d, d->tail, 1);
        p += k;
        n -= k;
    }
    add_blocks(d, p, n / LSI_DIGEST_BLOCK);
    if (n % LSI_DIGEST_BLOCK)
        memcpy(d->tail, p + n / LSI_DIGEST_BLOCK * LSI_DIGEST_BLOCK, n % LSI_DIGEST_BLOCK);
}

void lsi_digest_add_u64(struct lsi_digest *d, uint64_t v)
{
    lsi_digest_add(d, &v, sizeof v);
}

uint64_t lsi_digest_get(const struct lsi_digest *d)
{
    struct lsi_digest end = *d;
    const size_t held = d->bytes % LSI_DIGEST_BLOCK;
    memset(end.tail + held, 0, LSI_DIGEST_BLOCK - held);
    add_blocks(&end, end.tail, 1);
    uint64_t h = d->bytes;
    for (int i = 0; i < 4; i++) {
        h = step(h, end.lane[i]);
        h ^= h >> 32; /* high bits back into low ones, which a product does not reach */
    }
    return h * ODD ^ h >> 31;
}

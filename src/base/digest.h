/*
 * A 64-bit digest of bytes, to notice that a file is damaged or has changed. Quick (eight bytes
 * a step in four independent lanes); no protection against somebody who wants two files to agree.
 */
#ifndef LSI_DIGEST_H
#define LSI_DIGEST_H

#include "base/base.h"

#define LSI_DIGEST_BLOCK 32

struct lsi_digest {
    uint64_t lane[4];
    uint64_t bytes;
    unsigned char tail[LSI_DIGEST_BLOCK]; /* bytes % LSI_DIGEST_BLOCK of them wait for a whole block */
};

void lsi_digest_init(struct lsi_digest *d);
/** Pieces of any size: the digest is that of their concatenation. */
void lsi_digest_add(struct lsi_digest *d, const void *data, size_t n);
/** A number, or the length of what follows: sequences of texts stay apart. */
void lsi_digest_add_u64(struct lsi_digest *d, uint64_t v);
uint64_t lsi_digest_get(const struct lsi_digest *d);

#endif

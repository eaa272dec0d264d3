/*
 * Tokenised documents, one after the other: ids, which of them are to be predicted, and where
 * documents begin. Held in memory, or in a file that is mapped: docs/formats/token-cache.md.
 */
#ifndef LSI_TOKEN_STORE_H
#define LSI_TOKEN_STORE_H

#include "base/digest.h"

struct lsi_token_store {
    const int32_t *ids;         /* [n_ids] */
    const unsigned char *learn; /* bit t % 8 of byte t / 8: id t is to be predicted; NULL: all are */
    const uint64_t *docs;       /* [n_docs + 1] first ids of documents, then n_ids */
    size_t n_ids, n_docs;
    uint64_t n_dropped; /* ids of documents that were left out */
    /* owned: the file, or the memory */
    struct lsi_map map;
    struct lsi_buf ids_held, learn_held, docs_held;
};

static inline bool lsi_token_learnt(const struct lsi_token_store *s, size_t t)
{
    return !s->learn || (s->learn[t / 8] >> t % 8 & 1);
}

/**
 * Map a token cache. LS_E_FORMAT when it is damaged, of another version, of another key or holds ids from
 * n_vocab on; LS_E_IO when it is not there.
 */
ls_status lsi_token_store_open(struct lsi_token_store *s, const char *path, uint64_t key, size_t n_vocab,
                               ls_error *err);
/** The same for bytes that the caller keeps, aligned to 8 (fuzzing, tests). */
ls_status lsi_token_store_parse(struct lsi_token_store *s, const void *data, size_t bytes, const char *name,
                                uint64_t key, size_t n_vocab, ls_error *err);
/** A zeroed store is fine. */
void lsi_token_store_close(struct lsi_token_store *s);

/* Writes documents as they come; memory holds a bit for each token and eight bytes for each document. */
struct lsi_token_writer {
    const char *path; /* NULL: into memory */
    uint64_t key;
    bool with_learn;
    uint64_t n_ids;
    uint64_t n_dropped; /* set by whoever leaves documents out */
    unsigned char bits; /* of learn, not yet a byte */
    struct lsi_buf ids, learn, docs;
    struct lsi_out out;
    struct lsi_digest digest;
};

ls_status lsi_token_writer_open(struct lsi_token_writer *w, const char *path, uint64_t key, bool with_learn,
                                const ls_alloc *alloc, ls_error *err);
/** Ids of the document that is being written. learn: a byte for each, NULL: all are to be predicted. */
ls_status lsi_token_writer_put(struct lsi_token_writer *w, const int32_t *ids, const unsigned char *learn,
                               size_t n, ls_error *err);
ls_status lsi_token_writer_end_document(struct lsi_token_writer *w, ls_error *err);
/** Complete the file and map it, or hand over the memory. lsi_token_writer_close is due in any case. */
ls_status lsi_token_writer_finish(struct lsi_token_writer *w, struct lsi_token_store *s, size_t n_vocab,
                                  ls_error *err);
/** Drops what was not finished. A zeroed writer is fine. */
void lsi_token_writer_close(struct lsi_token_writer *w);

#endif

/*
 * Activation checkpoints: the input of every layer, kept from the forward to the backward pass in
 * memory or in a file. The file is written once, in ascending order, and read with the next block
 * on its way while the one before is worked on; a thread of its own does the transfers.
 */
#ifndef LSI_TIER_H
#define LSI_TIER_H

#include <pthread.h>

#include "base/base.h"

#define LSI_TIER_SLOTS 4 /* blocks on their way to or from the file */

struct lsi_tier_slot {
    enum {
        LSI_SLOT_FREE,
        LSI_SLOT_WRITING,
        LSI_SLOT_READING,
        LSI_SLOT_READY, /* read, and not fetched yet */
        LSI_SLOT_HELD,
    } state;
    size_t layer, row, n;
    uint64_t order; /* requests are served in this order */
    unsigned char *rows;
};

struct lsi_tier {
    size_t n_layers, n_rows, block;
    size_t row_bytes;
    bool in_file;
    unsigned char *memory; /* [n_layers][n_rows][row_bytes], or NULL with a file */

    int fd;
    char path[4096]; /* for messages: the file has no name */
    struct lsi_tier_slot slots[LSI_TIER_SLOTS];
    uint64_t clock;
    int error; /* errno of the first transfer that failed */
    bool failed_writing;
    bool running, stop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

/** Take its memory (or that of the transfers) from an arena, or count it. */
void lsi_tier_layout(struct lsi_tier *t, struct lsi_arena *arena, bool in_file, size_t n_layers,
                     size_t n_rows, size_t row_bytes, size_t block);
/** Bytes of the file, 0 in memory. */
uint64_t lsi_tier_file_bytes(const struct lsi_tier *t);
/** Open the file in a folder, with its room set aside, and start the thread. Nothing to do in memory. */
ls_status lsi_tier_open(struct lsi_tier *t, const char *dir, ls_error *err);
/** A zeroed tier is fine. */
void lsi_tier_close(struct lsi_tier *t);

/** Store rows row .. row + n - 1 (n <= block) of a layer's input. */
void lsi_tier_write(struct lsi_tier *t, size_t layer, size_t row, size_t n, const void *rows);
/** Where rows lie in memory, NULL for a file. */
void *lsi_tier_at(const struct lsi_tier *t, size_t layer, size_t row);
/** Ask for rows that will be wanted soon: a hint, forgotten when there is no room for it. */
void lsi_tier_prefetch(struct lsi_tier *t, size_t layer, size_t row, size_t n);
/** The rows, until the next call of lsi_tier_release. A failed transfer gives rows of old values; _status
 * tells. */
const void *lsi_tier_read(struct lsi_tier *t, size_t layer, size_t row, size_t n);
void lsi_tier_release(struct lsi_tier *t, const void *rows);
/** Forget what was asked for and not fetched (a cancelled step), after all transfers have ended. */
void lsi_tier_drain(struct lsi_tier *t);
ls_status lsi_tier_status(struct lsi_tier *t, ls_error *err);

#endif

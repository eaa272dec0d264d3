/*
 * Pages of keys and values that several caches may share, also caches that are used by different threads.
 *
 * A pool owns memory in slabs of as many pages as a step of growth takes (one for each layer); a page goes
 * back to its pool when nobody refers to it, a slab to the system when none of its pages is in use.
 * A table is one layer's column of pages, in order; tables of two caches may refer to the same page, which is
 * copied when one of them is about to write to it.
 *
 *     table of cache A, layer l     [ p0 | p1 | p2 ]       p0, p1: two references
 *     table of cache B, layer l     [ p0 | p1 | p3 ]
 */
#ifndef LSI_KV_PAGES_H
#define LSI_KV_PAGES_H

#include "base/base.h"

struct lsi_page_pool;

/** A pool with one reference. Pages of new slabs are zero. */
ls_status lsi_page_pool_create(struct lsi_page_pool **pool, size_t page_bytes, size_t pages_per_slab,
                               const ls_alloc *alloc, ls_error *err);
struct lsi_page_pool *lsi_page_pool_ref(struct lsi_page_pool *pool);
/** Tables must have given their pages back before the last reference goes. NULL: nothing happens. */
void lsi_page_pool_unref(struct lsi_page_pool *pool);
/** Give back to the system what nobody uses. */
void lsi_page_pool_trim(struct lsi_page_pool *pool);
/** Bytes of all slabs. */
size_t lsi_page_pool_bytes(struct lsi_page_pool *pool);

struct lsi_kv_pages {
    struct lsi_page_pool *pool;
    void **page; /* [n] */
    size_t n, cap;
};

/** Bytes of one page of a table. */
size_t lsi_kv_pages_bytes(const struct lsi_kv_pages *t);

/** An empty table; it keeps no reference of its own to the pool. */
void lsi_kv_pages_init(struct lsi_kv_pages *t, struct lsi_page_pool *pool);
/** Forget the pages from n on, and with n = 0 the table's memory. */
void lsi_kv_pages_cut(struct lsi_kv_pages *t, size_t n);
/**
 * Tables of equal length get at least n pages; false when there is no memory, and all are as before. Pages of
 * the same place lie in one slab, so that cutting the tables gives slabs back.
 */
bool lsi_kv_pages_grow(struct lsi_kv_pages *t, size_t n_tables, size_t n);
/** Pages first .. n - 1 are this table's alone, copied where they were not; false: no memory. */
bool lsi_kv_pages_own(struct lsi_kv_pages *t, size_t first, size_t n);
/** An empty table gets the pages of another, shared. false: no memory. */
bool lsi_kv_pages_share(struct lsi_kv_pages *to, const struct lsi_kv_pages *from);
/** An empty table gets n pages of memory that was mapped from a file; it and the pool own it then. false: no
 * memory. */
bool lsi_kv_pages_adopt(struct lsi_kv_pages *t, void *base, size_t n);

#endif

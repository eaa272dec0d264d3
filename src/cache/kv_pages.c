#include "cache/kv_pages.h"

#include <pthread.h>
#include <string.h>

struct slab {
    char *base;
    size_t n_pages, n_used;
    uint32_t *refs; /* [n_pages] */
    bool mapped;    /* adopted: given back to the system, whoever allocates */
};

/* Caches that share pages may be used by several threads: the lock guards all below it, and the counts. */
struct lsi_page_pool {
    const ls_alloc *alloc;
    pthread_mutex_t lock;
    size_t refs;
    size_t page_bytes, pages_per_slab;
    struct slab *slabs; /* [n_slabs], ascending by address */
    size_t n_slabs, cap_slabs;
    size_t free_slab; /* where a free page was last; a hint */
};

/* ---- slabs ---------------------------------------------------------------------------- */

/* Slabs come straight from the system (large pages, touched when used) unless the caller brought an
 * allocator. */
static void *slab_alloc(const struct lsi_page_pool *p)
{
    const size_t bytes = p->pages_per_slab * p->page_bytes;
    return p->alloc ? lsi_calloc(p->alloc, bytes, 1) : lsi_pages_alloc(bytes);
}

static void slab_free(const struct lsi_page_pool *p, const struct slab *s)
{
    const size_t bytes = s->n_pages * p->page_bytes;
    lsi_free(p->alloc, s->refs, s->n_pages * sizeof *s->refs);
    if (p->alloc && !s->mapped)
        lsi_free(p->alloc, s->base, bytes);
    else
        lsi_pages_free(s->base, bytes);
}

/* The slab that holds an address, or where one with that address belongs. */
static size_t find_slab(const struct lsi_page_pool *p, const void *at)
{
    size_t lo = 0, hi = p->n_slabs;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const struct slab *s = &p->slabs[mid];
        if ((uintptr_t)at < (uintptr_t)s->base)
            hi = mid;
        else if ((uintptr_t)at >= (uintptr_t)s->base + s->n_pages * p->page_bytes)
            lo = mid + 1;
        else
            return mid;
    }
    return lo;
}

static bool insert_slab(struct lsi_page_pool *p, void *base, size_t n_pages, bool mapped)
{
    struct slab *more = lsi_grow(p->alloc, p->slabs, p->n_slabs, &p->cap_slabs, 16, sizeof *more);
    if (!more)
        return false;
    p->slabs = more;
    uint32_t *refs = lsi_calloc(p->alloc, n_pages, sizeof *refs);
    if (!refs)
        return false;
    const size_t at = find_slab(p, base);
    memmove(p->slabs + at + 1, p->slabs + at, (p->n_slabs - at) * sizeof *p->slabs);
    p->slabs[at] = (struct slab){ .base = base, .n_pages = n_pages, .refs = refs, .mapped = mapped };
    p->n_slabs++;
    p->free_slab = at;
    return true;
}

static void remove_slab(struct lsi_page_pool *p, size_t at)
{
    slab_free(p, &p->slabs[at]);
    p->n_slabs--;
    memmove(p->slabs + at, p->slabs + at + 1, (p->n_slabs - at) * sizeof *p->slabs);
}

/* ---- pages ----------------------------------------------------------------------------- */

static bool has_room(const struct slab *s)
{
    return s->n_used < s->n_pages;
}

static void *page_get(struct lsi_page_pool *p)
{
    if (p->free_slab >= p->n_slabs || !has_room(&p->slabs[p->free_slab])) {
        size_t i = 0;
        while (i < p->n_slabs && !has_room(&p->slabs[i]))
            i++;
        p->free_slab = i;
        if (i == p->n_slabs) {
            void *base = slab_alloc(p);
            if (!base)
                return NULL;
            if (!insert_slab(p, base, p->pages_per_slab, false)) {
                const struct slab s = { .base = base, .n_pages = p->pages_per_slab };
                slab_free(p, &s);
                return NULL;
            }
        }
    }
    struct slab *s = &p->slabs[p->free_slab];
    size_t i = 0;
    while (s->refs[i] > 0)
        i++;
    s->refs[i] = 1;
    s->n_used++;
    return s->base + i * p->page_bytes;
}

static uint32_t *refs_of(struct lsi_page_pool *p, const void *page)
{
    const struct slab *s = &p->slabs[find_slab(p, page)];
    return &s->refs[(size_t)((const char *)page - s->base) / p->page_bytes];
}

/* One empty slab stays, so that stepping to and fro over its border costs nothing. */
static void page_put(struct lsi_page_pool *p, void *page)
{
    const size_t at = find_slab(p, page);
    struct slab *s = &p->slabs[at];
    if (--s->refs[(size_t)((char *)page - s->base) / p->page_bytes] > 0)
        return;
    s->n_used--;
    p->free_slab = at;
    if (s->n_used > 0)
        return;
    for (size_t i = 0; i < p->n_slabs; i++)
        if (i != at && p->slabs[i].n_used == 0) {
            remove_slab(p, i > at ? i : at);
            p->free_slab = i < at ? i : at;
            return;
        }
}

/* ---- the pool --------------------------------------------------------------------------- */

ls_status lsi_page_pool_create(struct lsi_page_pool **pool, size_t page_bytes, size_t pages_per_slab,
                               const ls_alloc *alloc, ls_error *err)
{
    struct lsi_page_pool *p = lsi_calloc(alloc, 1, sizeof *p);
    size_t bytes;
    if (!p || !lsi_mul_size(page_bytes, pages_per_slab, &bytes)) {
        lsi_free(alloc, p, sizeof *p);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the KV cache");
    }
    *p = (struct lsi_page_pool){ .alloc = alloc, .refs = 1, .page_bytes = page_bytes };
    p->pages_per_slab = pages_per_slab;
    pthread_mutex_init(&p->lock, NULL);
    *pool = p;
    return LS_OK;
}

struct lsi_page_pool *lsi_page_pool_ref(struct lsi_page_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->refs++;
    pthread_mutex_unlock(&pool->lock);
    return pool;
}

void lsi_page_pool_unref(struct lsi_page_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    const size_t left = --pool->refs;
    pthread_mutex_unlock(&pool->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&pool->lock);
    for (size_t i = 0; i < pool->n_slabs; i++)
        slab_free(pool, &pool->slabs[i]);
    lsi_free(pool->alloc, pool->slabs, pool->cap_slabs * sizeof *pool->slabs);
    lsi_free(pool->alloc, pool, sizeof *pool);
}

void lsi_page_pool_trim(struct lsi_page_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    for (size_t i = pool->n_slabs; i-- > 0;)
        if (pool->slabs[i].n_used == 0)
            remove_slab(pool, i);
    pthread_mutex_unlock(&pool->lock);
}

size_t lsi_page_pool_bytes(struct lsi_page_pool *pool)
{
    size_t n = 0;
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < pool->n_slabs; i++)
        n += pool->slabs[i].n_pages;
    pthread_mutex_unlock(&pool->lock);
    return n * pool->page_bytes;
}

/* ---- tables -------------------------------------------------------------------------------- */

void lsi_kv_pages_init(struct lsi_kv_pages *t, struct lsi_page_pool *pool)
{
    *t = (struct lsi_kv_pages){ .pool = pool };
}

static bool room(struct lsi_kv_pages *t, size_t n)
{
    if (n <= t->cap)
        return true;
    const size_t cap = lsi_max_size(n, lsi_max_size(16, 2 * t->cap));
    void **more = lsi_realloc(t->pool->alloc, t->page, t->cap * sizeof *more, cap * sizeof *more);
    if (!more)
        return false;
    t->page = more;
    t->cap = cap;
    return true;
}

void lsi_kv_pages_cut(struct lsi_kv_pages *t, size_t n)
{
    if (t->n > n) {
        pthread_mutex_lock(&t->pool->lock);
        while (t->n > n)
            page_put(t->pool, t->page[--t->n]);
        pthread_mutex_unlock(&t->pool->lock);
    }
    if (n > 0 || !t->page)
        return;
    lsi_free(t->pool->alloc, t->page, t->cap * sizeof *t->page);
    t->page = NULL;
    t->cap = 0;
}

static bool push_new(struct lsi_kv_pages *t)
{
    pthread_mutex_lock(&t->pool->lock);
    void *page = room(t, t->n + 1) ? page_get(t->pool) : NULL;
    pthread_mutex_unlock(&t->pool->lock);
    if (page)
        t->page[t->n++] = page;
    return page != NULL;
}

bool lsi_kv_pages_grow(struct lsi_kv_pages *t, size_t n_tables, size_t n)
{
    const size_t had = t[0].n;
    for (size_t at = had; at < n; at++)
        for (size_t i = 0; i < n_tables; i++) {
            LSI_ASSERT(t[i].n == at);
            if (push_new(&t[i]))
                continue;
            for (size_t k = 0; k < n_tables; k++)
                lsi_kv_pages_cut(&t[k], lsi_min_size(t[k].n, had));
            return false;
        }
    return true;
}

/* Page i is this table's alone. */
static bool own(struct lsi_kv_pages *t, size_t i)
{
    if (*refs_of(t->pool, t->page[i]) == 1)
        return true;
    void *mine = page_get(t->pool);
    if (!mine)
        return false;
    memcpy(mine, t->page[i], t->pool->page_bytes);
    page_put(t->pool, t->page[i]);
    t->page[i] = mine;
    return true;
}

bool lsi_kv_pages_own(struct lsi_kv_pages *t, size_t first, size_t n)
{
    bool ok = true;
    pthread_mutex_lock(&t->pool->lock);
    for (size_t i = first; ok && i < n; i++)
        ok = own(t, i);
    pthread_mutex_unlock(&t->pool->lock);
    return ok;
}

bool lsi_kv_pages_share(struct lsi_kv_pages *to, const struct lsi_kv_pages *from)
{
    if (!room(to, from->n))
        return false;
    pthread_mutex_lock(&from->pool->lock);
    for (size_t i = 0; i < from->n; i++) {
        ++*refs_of(from->pool, from->page[i]);
        to->page[i] = from->page[i];
    }
    pthread_mutex_unlock(&from->pool->lock);
    to->n = from->n;
    return true;
}

bool lsi_kv_pages_adopt(struct lsi_kv_pages *t, void *base, size_t n)
{
    struct lsi_page_pool *p = t->pool;
    pthread_mutex_lock(&p->lock);
    const bool ok = room(t, n) && insert_slab(p, base, n, true);
    struct slab *s = ok ? &p->slabs[p->free_slab] : NULL;
    for (size_t i = 0; ok && i < n; i++) {
        s->refs[i] = 1;
        t->page[i] = s->base + i * p->page_bytes;
    }
    if (ok)
        s->n_used = t->n = n;
    pthread_mutex_unlock(&p->lock);
    return ok;
}

size_t lsi_kv_pages_bytes(const struct lsi_kv_pages *t)
{
    return t->pool->page_bytes;
}

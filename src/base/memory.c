/* Memory: the only file that names the C library's allocator. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void *heap_alloc(void *user, size_t bytes)
{
    (void)user;
    if (bytes > SIZE_MAX - LSI_CACHE_LINE)
        return NULL;
    return aligned_alloc(LSI_CACHE_LINE, lsi_round_up(bytes, LSI_CACHE_LINE));
}

static void heap_free(void *user, void *ptr, size_t bytes)
{
    (void)user;
    (void)bytes;
    free(ptr);
}

static const ls_alloc heap = { heap_alloc, heap_free, NULL };

const ls_alloc *lsi_alloc_or_default(const ls_alloc *a)
{
    return a ? a : &heap;
}

void *lsi_alloc(const ls_alloc *a, size_t bytes)
{
    a = lsi_alloc_or_default(a);
    return a->alloc(a->user, bytes ? bytes : 1);
}

void *lsi_calloc(const ls_alloc *a, size_t n, size_t size)
{
    size_t bytes;
    if (!lsi_mul_size(n, size, &bytes))
        return NULL;
    void *p = lsi_alloc(a, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void *lsi_realloc(const ls_alloc *a, void *ptr, size_t old_bytes, size_t new_bytes)
{
    void *p = lsi_alloc(a, new_bytes);
    if (p && ptr) {
        memcpy(p, ptr, lsi_min_size(old_bytes, new_bytes));
        lsi_free(a, ptr, old_bytes);
    }
    return p;
}

void *lsi_grow(const ls_alloc *a, void *array, size_t n, size_t *cap, size_t least, size_t size)
{
    size_t more, bytes;
    if (n < *cap)
        return array;
    if (!lsi_mul_size(*cap, 2, &more) || !lsi_mul_size(lsi_max_size(more, least), size, &bytes))
        return NULL;
    void *p = lsi_realloc(a, array, *cap * size, bytes);
    if (p)
        *cap = bytes / size;
    return p;
}

char *lsi_strndup(const ls_alloc *a, const char *s, size_t n)
{
    if (n == SIZE_MAX)
        return NULL;
    char *p = lsi_alloc(a, n + 1);
    if (p) {
        if (n)
            memcpy(p, s, n);
        p[n] = '\0';
    }
    return p;
}

void lsi_free(const ls_alloc *a, void *ptr, size_t bytes)
{
    if (!ptr)
        return;
    a = lsi_alloc_or_default(a);
    a->free(a->user, ptr, bytes ? bytes : 1);
}

ls_status lsi_arena_init(struct lsi_arena *a, const ls_alloc *alloc, size_t bytes)
{
    *a = (struct lsi_arena){ .alloc = alloc, .cap = bytes };
    a->base = lsi_alloc(alloc, bytes);
    if (!a->base) {
        a->cap = 0;
        return LS_E_NOMEM;
    }
    return LS_OK;
}

void lsi_arena_fini(struct lsi_arena *a)
{
    lsi_free(a->alloc, a->base, a->cap);
    *a = (struct lsi_arena){ 0 };
}

void *lsi_arena_take(struct lsi_arena *a, size_t n, size_t size)
{
    size_t bytes, end;
    if (a->failed || !lsi_mul_size(n, size, &bytes) || bytes > SIZE_MAX - LSI_CACHE_LINE ||
        !lsi_add_size(a->used, lsi_round_up(bytes, LSI_CACHE_LINE), &end)) {
        a->failed = true;
        return NULL;
    }
    void *p = NULL;
    if (a->base) {
        if (end > a->cap) {
            a->failed = true;
            return NULL;
        }
        p = a->base + a->used;
    }
    a->used = end;
    return p;
}

#define HUGE_PAGE ((size_t)2 << 20)

void *lsi_pages_alloc(size_t bytes)
{
    if (bytes == 0 || bytes > SIZE_MAX - HUGE_PAGE)
        return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    /* A wish: refusal changes speed only. Small pieces often lie side by side, and are one to the system. */
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void lsi_pages_free(void *ptr, size_t bytes)
{
    if (ptr)
        munmap(ptr, bytes);
}

/* What getrusage tells begins with the peak of the process that started this one: exec keeps it. */
size_t lsi_peak_rss_bytes(void)
{
    unsigned long long kib;
    char line[128];
    struct rusage u;
    bool found = false;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "VmHWM: %llu kB", &kib) == 1;
    if (f)
        fclose(f);
    if (found)
        return (size_t)kib * 1024;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (size_t)u.ru_maxrss * 1024 : 0;
}

/* The number in a file of the system; SIZE_MAX when there is none ("max", no such file). */
static size_t read_size(const char *path)
{
    unsigned long long n;
    FILE *f = fopen(path, "r");
    const bool ok = f && fscanf(f, "%llu", &n) == 1;
    if (f)
        fclose(f);
    return ok ? (size_t)n : SIZE_MAX;
}

/* What a container's limit leaves; SIZE_MAX without one. Paths as a process in a container sees them. */
static size_t left_by_limit(const char *limit_path, const char *used_path)
{
    const size_t limit = read_size(limit_path), used = read_size(used_path);
    if (limit == SIZE_MAX || used == SIZE_MAX)
        return SIZE_MAX;
    return limit > used ? limit - used : 1;
}

size_t lsi_memory_available(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return 0;
    char line[128];
    unsigned long long kib = 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    fclose(f);
    size_t bytes = (size_t)kib * 1024;
    bytes = lsi_min_size(bytes, left_by_limit("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"));
    return lsi_min_size(bytes, left_by_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                             "/sys/fs/cgroup/memory/memory.usage_in_bytes"));
}

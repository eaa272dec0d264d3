/*
 * What every module may use: errors, checked sizes, memory, numbers, files,
 * threads, random numbers. Depends on the C library only.
 */
#ifndef LSI_BASE_H
#define LSI_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <longspan/alloc.h>
#include <longspan/status.h>

#if defined(__GNUC__) || defined(__clang__)
#define LSI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define LSI_LIKELY(x)         __builtin_expect(!!(x), 1)
#define LSI_UNLIKELY(x)       __builtin_expect(!!(x), 0)
#else
#define LSI_PRINTF(fmt, args)
#define LSI_LIKELY(x)   (x)
#define LSI_UNLIKELY(x) (x)
#endif

#define LSI_LEN(a)     (sizeof(a) / sizeof((a)[0]))
#define LSI_CACHE_LINE 64

#ifdef NDEBUG
#define LSI_ASSERT(cond) ((void)sizeof(cond))
#else
#include <assert.h>
#define LSI_ASSERT(cond) assert(cond)
#endif

/* ---- errors ------------------------------------------------------------- */

/** Write status and a formatted sentence to err (may be NULL); returns status. */
ls_status lsi_fail(ls_error *err, ls_status status, const char *fmt, ...) LSI_PRINTF(3, 4);

/** Put "text: " in front of the sentence already in err (may be NULL). */
void lsi_error_prefix(ls_error *err, const char *fmt, ...) LSI_PRINTF(2, 3);

/* Forward a failure. Only for functions that hold nothing to release. */
#define LSI_TRY(call)                     \
    do {                                  \
        const ls_status lsi_st_ = (call); \
        if (lsi_st_ != LS_OK)             \
            return lsi_st_;               \
    } while (0)

/* The same for functions with a cleanup label; sets the local `st`. */
#define LSI_TRY_OR(label, call) \
    do {                        \
        st = (call);            \
        if (st != LS_OK)        \
            goto label;         \
    } while (0)

/* ---- checked sizes ------------------------------------------------------ */

/** *out = a * b; false (and *out untouched) on overflow. */
static inline bool lsi_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/** *out = a + b; false on overflow. */
static inline bool lsi_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline size_t lsi_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t lsi_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}
/** a / b rounded up (b > 0), for any a. */
static inline size_t lsi_div_up(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

/** a rounded up to a multiple of b (b > 0). */
static inline size_t lsi_round_up(size_t a, size_t b)
{
    return (a + b - 1) / b * b;
}

/* ---- memory ------------------------------------------------------------- */

/** The allocator to use for a possibly NULL option. Never NULL. */
const ls_alloc *lsi_alloc_or_default(const ls_alloc *a);

/** Uninitialised, 64-byte aligned; NULL when there is none. bytes 0 gives a valid pointer. */
void *lsi_alloc(const ls_alloc *a, size_t bytes);

/** Zeroed array of n elements; NULL on overflow or when there is none. */
void *lsi_calloc(const ls_alloc *a, size_t n, size_t size);

/** A larger (or smaller) block with min(old, new) bytes kept; the old block stays valid on failure. */
void *lsi_realloc(const ls_alloc *a, void *ptr, size_t old_bytes, size_t new_bytes);

/**
 * An array of n elements that has room for one more: the array, where it is now, or NULL when there is no
 * memory, and the array and *cap are as they were. The capacity doubles, beginning with `least`.
 */
void *lsi_grow(const ls_alloc *a, void *array, size_t n, size_t *cap, size_t least, size_t size);

/** NUL-terminated copy of n bytes, released with lsi_free(a, p, n + 1). */
char *lsi_strndup(const ls_alloc *a, const char *s, size_t n);

void lsi_free(const ls_alloc *a, void *ptr, size_t bytes);

/**
 * Arena: one block carved from the front. With base NULL it only counts, so the
 * code that lays an object out is also the code that says how large it is:
 *
 *     struct lsi_arena plan = { 0 };
 *     layout(&plan, &tmp);                 // plan.used is the size
 *     LSI_TRY(lsi_arena_init(&arena, alloc, plan.used));
 *     layout(&arena, obj);                 // the same pieces, now real
 */
struct lsi_arena {
    unsigned char *base; /* NULL: counting only */
    size_t used;         /* bytes handed out, padding included */
    size_t cap;          /* bytes in base */
    bool failed;         /* a size overflowed, or cap was not enough */
    const ls_alloc *alloc;
};

ls_status lsi_arena_init(struct lsi_arena *a, const ls_alloc *alloc, size_t bytes);
void lsi_arena_fini(struct lsi_arena *a);

/** n elements of `size` bytes, 64-byte aligned, uninitialised; NULL while counting or on failure. */
void *lsi_arena_take(struct lsi_arena *a, size_t n, size_t size);

/**
 * Large zeroed memory straight from the system, with 2 MiB pages asked for
 * (sequential attention over small pages loses a third of the bandwidth to
 * address translation). Physical memory is taken when touched.
 */
void *lsi_pages_alloc(size_t bytes);
void lsi_pages_free(void *ptr, size_t bytes);

/** Highest resident set of this process so far, in bytes; 0 if unknown. */
size_t lsi_peak_rss_bytes(void);

/** Bytes the system (and a container's limit) could give without swapping, now; 0 if unknown. */
size_t lsi_memory_available(void);

/* ---- growing byte buffer with a ceiling ---------------------------------- */

struct lsi_buf {
    char *data; /* NUL-terminated after every append */
    size_t len, cap, max;
    bool failed; /* an append did not fit or memory ran out; sticky */
    const ls_alloc *alloc;
};

void lsi_buf_init(struct lsi_buf *b, const ls_alloc *alloc, size_t max_bytes);
void lsi_buf_fini(struct lsi_buf *b);
bool lsi_buf_append(struct lsi_buf *b, const void *data, size_t n);
bool lsi_buf_printf(struct lsi_buf *b, const char *fmt, ...) LSI_PRINTF(2, 3);
/** Append s as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
bool lsi_buf_json_string(struct lsi_buf *b, const char *s, size_t n);
/** Append v with the fewest digits that give it back, whatever the locale; null when it is not finite. A
 * value that fp32 holds exactly gets the digits that give the fp32 number back: 1e-05,
 * not 9.99999974737875e-06. */
bool lsi_buf_json_number(struct lsi_buf *b, double v);

/* ---- files --------------------------------------------------------------- */

/** A whole file, read-only. */
struct lsi_map {
    const unsigned char *data;
    size_t bytes;
    /* owned by file.c */
    void *map_base;
    size_t map_bytes;
    const ls_alloc *heap; /* set when the file was read instead of mapped */
};

/** Map a regular file (an empty one has data NULL, bytes 0). Error text names the path. */
ls_status lsi_map_open(struct lsi_map *m, const char *path, ls_error *err);
/** Read instead of mapping: for small files and for file systems where mapping is unsafe. */
ls_status lsi_map_read(struct lsi_map *m, const char *path, size_t max_bytes, const ls_alloc *alloc,
                       ls_error *err);
void lsi_map_close(struct lsi_map *m);

#define LSI_PART ".part-" /* in the name of an unfinished file, after its own */

/** Names in a directory are safe on disk once the directory is. */
void lsi_sync_dir(const char *dir);

/** A file that appears under its name only when it is complete: written beside it, synced, renamed. What
 * killed writers of the same file left is removed by the next. */
struct lsi_out {
    FILE *f;
    char path[4096];
    char tmp[4096 + 32];
    uint64_t bytes;
    int error; /* errno of the first write that failed, 0: none did */
};

ls_status lsi_out_open(struct lsi_out *o, const char *path, ls_error *err);
/** Failure is sticky and reported by commit. */
void lsi_out_write(struct lsi_out *o, const void *data, size_t n);
void lsi_out_zeros(struct lsi_out *o, size_t n);
ls_status lsi_out_commit(struct lsi_out *o, ls_error *err);
/** Drop what was written. Safe after commit and on a zeroed struct. */
void lsi_out_abort(struct lsi_out *o);

/**
 * Make a directory unless it is there, and hold it: one process at a time. It is let go by close(*fd) and
 * with the process, however that ends.
 * @param doing  What another process is told to be doing there: "training".
 * @return LS_E_IO, also when another process holds it; *fd is -1 then.
 */
ls_status lsi_dir_take(const char *path, const char *doing, int *fd, ls_error *err);

bool lsi_path_is_dir(const char *path);
bool lsi_path_exists(const char *path);
/** Whether a path ends in, say, ".gguf". */
bool lsi_path_has_suffix(const char *path, const char *suffix);
/** dir/name into out; false when it does not fit. */
bool lsi_path_join(char *out, size_t cap, const char *dir, const char *name);

/* ---- threads ------------------------------------------------------------- */

/** task: 0 .. n_tasks-1, each run exactly once; thread: 0 (the caller) .. n_threads-1. */
typedef void lsi_task_fn(void *ctx, size_t task, int thread);

/** Threads that wait for work. Used by one caller at a time. */
struct lsi_pool;

/** n_threads counts the caller; with 1 no thread is started and *pool is NULL. */
ls_status lsi_pool_create(struct lsi_pool **pool, int n_threads, const ls_alloc *alloc);
void lsi_pool_free(struct lsi_pool *pool);

/**
 * Run n_tasks on the caller and the pool's threads (NULL: on the caller alone) and wait. Tasks are
 * handed out in order as threads become free, so a result must depend on the task alone, never on
 * the thread: that is what makes results equal for every number of threads. A task must not
 * start another region of the same pool.
 */
void lsi_parallel(struct lsi_pool *pool, size_t n_tasks, lsi_task_fn *fn, void *ctx);

/**
 * The same, but each thread begins with a stretch of consecutive tasks of its own and helps others
 * from the end of theirs afterwards: for tasks that read consecutive memory, where what one thread
 * fetches ahead should be what it reads next.
 */
void lsi_parallel_split(struct lsi_pool *pool, size_t n_tasks, lsi_task_fn *fn, void *ctx);

/** Processors this process may use (affinity respected), at least 1. */
int lsi_cpu_count(void);

/** Monotonic seconds. */
double lsi_now(void);

/* ---- random numbers: xoshiro256** (Blackman, Vigna 2018) ------------------ */

struct lsi_rng {
    uint64_t s[4];
};

void lsi_rng_init(struct lsi_rng *r, uint64_t seed);
uint64_t lsi_rng_u64(struct lsi_rng *r);
/** Uniform in [0, 1), 53 bits. */
double lsi_rng_double(struct lsi_rng *r);
/** Uniform in [0, n), unbiased; n > 0. */
uint64_t lsi_rng_below(struct lsi_rng *r, uint64_t n);
/** Standard normal. */
double lsi_rng_normal(struct lsi_rng *r);

/* ---- UTF-8 ---------------------------------------------------------------- */

/** Length 1..4 of the valid sequence at s (n bytes left), 0 if it is not valid UTF-8. */
size_t lsi_utf8_len(const char *s, size_t n);
/** The same, with the code point. */
size_t lsi_utf8_decode(const char *s, size_t n, uint32_t *cp);
/** Bytes written to out[4]. */
size_t lsi_utf8_encode(uint32_t cp, char *out);
/** Bytes of the longest valid prefix. */
size_t lsi_utf8_valid_prefix(const char *s, size_t n);
/** Bytes of the byte order mark that a text begins with: 3 or 0. */
size_t lsi_utf8_mark(const char *s, size_t n);

#endif

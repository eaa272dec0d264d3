#include "train/tier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void lsi_tier_layout(struct lsi_tier *t, struct lsi_arena *arena, bool in_file, size_t n_layers,
                     size_t n_rows, size_t row_bytes, size_t block)
{
    *t = (struct lsi_tier){ .n_layers = n_layers, .n_rows = n_rows, .block = block, .row_bytes = row_bytes };
    t->in_file = in_file;
    t->fd = -1;
    if (!in_file) {
        size_t rows = 0;
        arena->failed = arena->failed || !lsi_mul_size(n_layers, n_rows, &rows);
        t->memory = lsi_arena_take(arena, rows, row_bytes);
        return;
    }
    for (int i = 0; i < LSI_TIER_SLOTS; i++)
        t->slots[i].rows = lsi_arena_take(arena, block, row_bytes);
}

uint64_t lsi_tier_file_bytes(const struct lsi_tier *t)
{
    return !t->in_file ? 0 : (uint64_t)t->n_layers * t->n_rows * t->row_bytes;
}

/* ---- the thread -------------------------------------------------------------------------- */

/* All n bytes or an errno. */
static int transfer(int fd, unsigned char *rows, size_t n, off_t at, bool write)
{
    while (n > 0) {
        const ssize_t got = write ? pwrite(fd, rows, n, at) : pread(fd, rows, n, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO;
        rows += got;
        n -= (size_t)got;
        at += got;
    }
    return 0;
}

static struct lsi_tier_slot *first_in(struct lsi_tier *t, int state)
{
    struct lsi_tier_slot *first = NULL;
    for (int i = 0; i < LSI_TIER_SLOTS; i++) {
        struct lsi_tier_slot *s = &t->slots[i];
        if ((int)s->state == state && (!first || s->order < first->order))
            first = s;
    }
    return first;
}

/* The request to serve next. */
static struct lsi_tier_slot *oldest(struct lsi_tier *t)
{
    struct lsi_tier_slot *w = first_in(t, LSI_SLOT_WRITING), *r = first_in(t, LSI_SLOT_READING);
    return w && r ? (w->order < r->order ? w : r) : w ? w : r;
}

static void *serve(void *arg)
{
    struct lsi_tier *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        struct lsi_tier_slot *s = oldest(t);
        if (!s && t->stop)
            break;
        if (!s) {
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        const bool write = s->state == LSI_SLOT_WRITING;
        const off_t at = (off_t)((s->layer * t->n_rows + s->row) * t->row_bytes);
        pthread_mutex_unlock(&t->lock);
        const int e = transfer(t->fd, s->rows, s->n * t->row_bytes, at, write);
        pthread_mutex_lock(&t->lock);
        if (e && !t->error) {
            t->error = e;
            t->failed_writing = write;
        }
        s->state = write ? LSI_SLOT_FREE : LSI_SLOT_READY;
        pthread_cond_broadcast(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* A file without a name: it goes with the process, however that ends. */
static int open_unnamed(struct lsi_tier *t, const char *dir)
{
    const int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    if (!lsi_path_join(t->path, sizeof t->path, dir, "longspan-XXXXXX")) {
        errno = ENAMETOOLONG;
        return -1;
    }
    const int named = mkostemp(t->path, O_CLOEXEC);
    if (named >= 0)
        unlink(t->path);
    return named;
}

ls_status lsi_tier_open(struct lsi_tier *t, const char *dir, ls_error *err)
{
    const uint64_t bytes = lsi_tier_file_bytes(t);
    if (!t->in_file)
        return LS_OK;
    t->fd = open_unnamed(t, dir);
    if (t->fd < 0)
        return lsi_fail(err, LS_E_IO, "cannot make a file for activations in %s: %s", dir, strerror(errno));
    snprintf(t->path, sizeof t->path, "%s", dir);
    const int e = posix_fallocate(t->fd, 0, (off_t)bytes);
    if (e && e != EOPNOTSUPP && e != EINVAL) {
        lsi_tier_close(t);
        return lsi_fail(err, LS_E_IO, "the activations take %.1f GB in %s: %s", (double)bytes / 1e9, dir,
                        strerror(e));
    }
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    t->running = pthread_create(&t->thread, NULL, serve, t) == 0;
    if (!t->running) {
        pthread_mutex_destroy(&t->lock);
        pthread_cond_destroy(&t->work);
        pthread_cond_destroy(&t->done);
        lsi_tier_close(t);
        return lsi_fail(err, LS_E_NOMEM, "cannot start a thread for the transfers of activations");
    }
    return LS_OK;
}

void lsi_tier_close(struct lsi_tier *t)
{
    if (t->running) {
        pthread_mutex_lock(&t->lock);
        t->stop = true;
        pthread_cond_signal(&t->work);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->thread, NULL);
        pthread_mutex_destroy(&t->lock);
        pthread_cond_destroy(&t->work);
        pthread_cond_destroy(&t->done);
    }
    if (t->in_file && t->fd >= 0)
        close(t->fd);
    t->running = false;
    t->fd = -1;
}

/* ---- requests -------------------------------------------------------------------------------- */

void *lsi_tier_at(const struct lsi_tier *t, size_t layer, size_t row)
{
    return t->memory ? t->memory + (layer * t->n_rows + row) * t->row_bytes : NULL;
}

/* A slot for rows that are needed now. Those of the oldest prefetch nobody came for are given up, or a
 * reader would wait for ever once such prefetches fill every slot. */
static struct lsi_tier_slot *free_slot(struct lsi_tier *t)
{
    for (;;) {
        struct lsi_tier_slot *s = first_in(t, LSI_SLOT_FREE);
        s = s ? s : first_in(t, LSI_SLOT_READY);
        if (s)
            return s;
        pthread_cond_wait(&t->done, &t->lock);
    }
}

static void request(struct lsi_tier *t, struct lsi_tier_slot *s, int state, size_t layer, size_t row,
                    size_t n)
{
    s->layer = layer;
    s->row = row;
    s->n = n;
    s->order = t->clock++;
    s->state = state;
    pthread_cond_signal(&t->work);
}

void lsi_tier_write(struct lsi_tier *t, size_t layer, size_t row, size_t n, const void *rows)
{
    LSI_ASSERT(n <= t->block);
    if (!t->in_file) {
        memcpy(lsi_tier_at(t, layer, row), rows, n * t->row_bytes);
        return;
    }
    pthread_mutex_lock(&t->lock);
    struct lsi_tier_slot *s = free_slot(t);
    memcpy(s->rows, rows, n * t->row_bytes);
    request(t, s, LSI_SLOT_WRITING, layer, row, n);
    pthread_mutex_unlock(&t->lock);
}

static struct lsi_tier_slot *find(struct lsi_tier *t, size_t layer, size_t row)
{
    for (int i = 0; i < LSI_TIER_SLOTS; i++) {
        struct lsi_tier_slot *s = &t->slots[i];
        if ((s->state == LSI_SLOT_READING || s->state == LSI_SLOT_READY) && s->layer == layer &&
            s->row == row)
            return s;
    }
    return NULL;
}

void lsi_tier_prefetch(struct lsi_tier *t, size_t layer, size_t row, size_t n)
{
    if (!t->in_file)
        return;
    pthread_mutex_lock(&t->lock);
    struct lsi_tier_slot *s = find(t, layer, row) ? NULL : first_in(t, LSI_SLOT_FREE);
    if (s)
        request(t, s, LSI_SLOT_READING, layer, row, n);
    pthread_mutex_unlock(&t->lock);
}

const void *lsi_tier_read(struct lsi_tier *t, size_t layer, size_t row, size_t n)
{
    if (!t->in_file)
        return lsi_tier_at(t, layer, row);
    pthread_mutex_lock(&t->lock);
    struct lsi_tier_slot *s = find(t, layer, row);
    if (!s) {
        s = free_slot(t);
        request(t, s, LSI_SLOT_READING, layer, row, n);
    }
    while (s->state == LSI_SLOT_READING)
        pthread_cond_wait(&t->done, &t->lock);
    s->state = LSI_SLOT_HELD;
    pthread_mutex_unlock(&t->lock);
    return s->rows;
}

void lsi_tier_release(struct lsi_tier *t, const void *rows)
{
    if (!t->in_file)
        return;
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < LSI_TIER_SLOTS; i++)
        if (t->slots[i].rows == rows)
            t->slots[i].state = LSI_SLOT_FREE;
    pthread_mutex_unlock(&t->lock);
}

void lsi_tier_drain(struct lsi_tier *t)
{
    if (!t->running)
        return;
    pthread_mutex_lock(&t->lock);
    while (oldest(t))
        pthread_cond_wait(&t->done, &t->lock);
    for (int i = 0; i < LSI_TIER_SLOTS; i++)
        t->slots[i].state = LSI_SLOT_FREE;
    pthread_mutex_unlock(&t->lock);
}

ls_status lsi_tier_status(struct lsi_tier *t, ls_error *err)
{
    if (!t->in_file)
        return LS_OK;
    pthread_mutex_lock(&t->lock);
    const int e = t->error;
    const bool writing = t->failed_writing;
    pthread_mutex_unlock(&t->lock);
    if (e)
        return lsi_fail(err, LS_E_IO, "cannot %s activations in %s: %s", writing ? "store" : "read back",
                        t->path, strerror(e));
    return LS_OK;
}

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static ls_status open_regular(const char *path, int *fd, size_t *bytes, ls_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hold us up */
    if (*fd < 0)
        return lsi_fail(err, LS_E_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return lsi_fail(err, LS_E_IO, "%s is not a regular file", path);
    }
    *bytes = (size_t)st.st_size;
    return LS_OK;
}

ls_status lsi_map_open(struct lsi_map *m, const char *path, ls_error *err)
{
    *m = (struct lsi_map){ 0 };
    int fd;
    size_t bytes;
    LSI_TRY(open_regular(path, &fd, &bytes, err));
    if (bytes > 0) {
        void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            const int e = errno;
            close(fd);
            return lsi_fail(err, LS_E_IO, "cannot map %s (%zu bytes): %s", path, bytes, strerror(e));
        }
        m->map_base = p;
        m->map_bytes = bytes;
        m->data = p;
        m->bytes = bytes;
    }
    close(fd);
    return LS_OK;
}

ls_status lsi_map_read(struct lsi_map *m, const char *path, size_t max_bytes, const ls_alloc *alloc,
                       ls_error *err)
{
    *m = (struct lsi_map){ 0 };
    int fd;
    size_t bytes, got = 0;
    LSI_TRY(open_regular(path, &fd, &bytes, err));
    ls_status st = LS_OK;
    unsigned char *data = NULL;
    if (bytes > max_bytes) {
        st = lsi_fail(err, LS_E_LIMIT, "%s has %zu bytes, more than the %zu that such a file may have", path,
                      bytes, max_bytes);
        goto done;
    }
    data = lsi_alloc(alloc, bytes);
    if (!data) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the %zu bytes of %s", bytes, path);
        goto done;
    }
    while (got < bytes) {
        const ssize_t r = read(fd, data + got, bytes - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            st = lsi_fail(err, LS_E_IO, "cannot read %s: %s", path,
                          r < 0 ? strerror(errno) : "it became shorter");
            lsi_free(alloc, data, bytes);
            goto done;
        }
        got += (size_t)r;
    }
    *m = (struct lsi_map){ data, bytes, data, bytes, lsi_alloc_or_default(alloc) };
done:
    close(fd);
    return st;
}

void lsi_map_close(struct lsi_map *m)
{
    if (m->heap)
        lsi_free(m->heap, m->map_base, m->map_bytes);
    else if (m->map_base)
        munmap(m->map_base, m->map_bytes);
    *m = (struct lsi_map){ 0 };
}

ls_status lsi_out_open(struct lsi_out *o, const char *path, ls_error *err)
{
    memset(o, 0, sizeof *o);
    const size_t len = strlen(path);
    if (len >= sizeof o->path)
        return lsi_fail(err, LS_E_INVAL, "the path of the output is longer than %zu bytes",
                        sizeof o->path - 1);
    memcpy(o->path, path, len + 1);
    snprintf(o->tmp, sizeof o->tmp, "%s" LSI_PART "%ld", path, (long)getpid());
    o->f = fopen(o->tmp, "wb");
    if (!o->f)
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", path, strerror(errno));
    return LS_OK;
}

void lsi_out_write(struct lsi_out *o, const void *data, size_t n)
{
    if (!o->f || o->error || n == 0)
        return;
    errno = 0;
    if (fwrite(data, 1, n, o->f) != n)
        o->error = errno ? errno : EIO;
    o->bytes += n;
}

void lsi_out_zeros(struct lsi_out *o, size_t n)
{
    static const char zeros[64];
    while (n) {
        const size_t k = lsi_min_size(n, sizeof zeros);
        lsi_out_write(o, zeros, k);
        n -= k;
    }
}

void lsi_sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

/* The directory that a path names a file of. */
static void sync_parent(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
    lsi_sync_dir(dir);
}

ls_status lsi_out_commit(struct lsi_out *o, ls_error *err)
{
    if (!o->f)
        return lsi_fail(err, LS_E_INVAL, "the output file is not open");
    int e = o->error;
    if (!e && (fflush(o->f) != 0 || fsync(fileno(o->f)) != 0))
        e = errno;
    if (fclose(o->f) != 0 && !e)
        e = errno;
    o->f = NULL;
    if (!e && rename(o->tmp, o->path) != 0)
        e = errno;
    if (e) {
        unlink(o->tmp);
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", o->path, strerror(e));
    }
    sync_parent(o->path);
    return LS_OK;
}

void lsi_out_abort(struct lsi_out *o)
{
    if (!o->f)
        return;
    fclose(o->f);
    o->f = NULL;
    unlink(o->tmp);
}

bool lsi_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool lsi_path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool lsi_path_has_suffix(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);
    return n >= m && strcmp(path + n - m, suffix) == 0;
}

bool lsi_path_join(char *out, size_t cap, const char *dir, const char *name)
{
    const size_t n = strlen(dir);
    const char *sep = n && dir[n - 1] == '/' ? "" : "/";
    const int k = snprintf(out, cap, "%s%s%s", dir, sep, name);
    return k >= 0 && (size_t)k < cap;
}

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
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

ls_status lsi_dir_take(const char *path, const char *doing, int *fd, ls_error *err)
{
    *fd = -1;
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return lsi_fail(err, LS_E_IO, "cannot make the directory %s: %s", path, strerror(errno));
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return lsi_fail(err, LS_E_IO, "cannot open the directory %s: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return LS_OK;
    const int e = errno;
    close(*fd);
    *fd = -1;
    if (e == EWOULDBLOCK)
        return lsi_fail(err, LS_E_IO,
                        "another process is %s in %s: wait until it ends, or name another directory", doing,
                        path);
    return lsi_fail(err, LS_E_IO, "cannot lock the directory %s: %s", path, strerror(e));
}

/* The directory that a path names a file of, and the file's name in it. */
static const char *parent_of(const char *path, char dir[4096])
{
    const char *slash = strrchr(path, '/');
    snprintf(dir, 4096, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
    return slash ? slash + 1 : path;
}

/*
 * An unfinished file is locked for as long as its writer lives, and has its name until it has the other one:
 * what can be locked was left by somebody who was killed. Where a file system has no locks nothing is known,
 * and nothing is removed.
 */
static FILE *open_part(const char *tmp)
{
    for (int i = 0; i < 3; i++) {
        struct stat st;
        const int fd = open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            return NULL;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(fd);
            errno = EBUSY;
            return NULL;
        }
        const bool gone = fstat(fd, &st) == 0 && st.st_nlink == 0; /* removed before it was locked */
        FILE *f = !gone && ftruncate(fd, 0) == 0 ? fdopen(fd, "wb") : NULL;
        if (f)
            return f;
        const int e = errno;
        close(fd);
        errno = e;
        if (!gone)
            return NULL;
    }
    errno = EBUSY;
    return NULL;
}

/* Whether a name in a directory is that of an unfinished `name`. */
static bool is_part(const char *entry, const char *name)
{
    const size_t n = strlen(name), m = strlen(LSI_PART);
    if (strncmp(entry, name, n) != 0 || strncmp(entry + n, LSI_PART, m) != 0)
        return false;
    const char *pid = entry + n + m;
    return *pid && pid[strspn(pid, "0123456789")] == '\0';
}

/* Remove what killed writers of the same file left beside it. */
static void clear_parts(const char *path)
{
    char dir[4096], part[4096];
    const char *name = parent_of(path, dir);
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (!is_part(e->d_name, name) || !lsi_path_join(part, sizeof part, dir, e->d_name))
            continue;
        const int fd = open(part, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlink(part);
        if (fd >= 0)
            close(fd);
    }
    if (d)
        closedir(d);
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
    clear_parts(path);
    o->f = open_part(o->tmp);
    if (!o->f)
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", path,
                        errno == EBUSY ? "it is being written already" : strerror(errno));
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

ls_status lsi_out_commit(struct lsi_out *o, ls_error *err)
{
    char dir[4096];
    if (!o->f)
        return lsi_fail(err, LS_E_INVAL, "the output file is not open");
    int e = o->error;
    if (!e && (fflush(o->f) != 0 || fsync(fileno(o->f)) != 0))
        e = errno;
    if (!e && rename(o->tmp, o->path) != 0)
        e = errno;
    if (e)
        unlink(o->tmp);
    fclose(o->f); /* last: until then others must leave it alone */
    o->f = NULL;
    if (e)
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", o->path, strerror(e));
    parent_of(o->path, dir);
    lsi_sync_dir(dir);
    return LS_OK;
}

void lsi_out_abort(struct lsi_out *o)
{
    if (!o->f)
        return;
    unlink(o->tmp);
    fclose(o->f);
    o->f = NULL;
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

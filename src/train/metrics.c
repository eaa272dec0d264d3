#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define FILE_NAME  "metrics.jsonl"
#define LINE_BYTES ((size_t)1 << 16)

struct lsi_metrics {
    int fd;
    off_t size; /* of whole lines */
    struct lsi_buf line;
    char path[4096];
    const ls_alloc *alloc;
};

/* ---- reading ------------------------------------------------------------------------------- */

static ls_status read_u64(struct lsi_json *j, uint64_t *v)
{
    int64_t i;
    LSI_TRY(lsi_json_int(j, &i));
    if (i < 0)
        return lsi_json_error(j, "a negative number");
    *v = (uint64_t)i;
    return LS_OK;
}

static ls_status read_double(struct lsi_json *j, double *v)
{
    if (lsi_json_peek(j) != LSI_JSON_NULL)
        return lsi_json_double(j, v);
    *v = (double)NAN;
    return lsi_json_null(j);
}

/* One line. Unknown members are passed over. */
static ls_status read_line(const char *line, size_t bytes, const char *name, ls_train_step *s, ls_error *err)
{
    struct lsi_json j;
    struct lsi_json_str key;
    const struct {
        const char *key;
        uint64_t *n;
        double *v;
    } members[] = {
        { "step", &s->step, NULL },           { "loss", NULL, &s->loss },
        { "grad_norm", NULL, &s->grad_norm }, { "lr", NULL, &s->lr },
        { "tokens", &s->tokens, NULL },       { "labels", &s->valid_labels, NULL },
        { "seconds", NULL, &s->seconds },     { "peak_bytes", &s->peak_bytes, NULL },
        { "eval_loss", NULL, &s->eval_loss },
    };
    *s = (ls_train_step){
        .struct_size = sizeof *s, .loss = (double)NAN, .grad_norm = (double)NAN, .eval_loss = (double)NAN
    };
    lsi_json_init(&j, line, bytes, name, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        size_t i = 0;
        while (i < LSI_LEN(members) && !lsi_json_str_is(&key, members[i].key))
            i++;
        if (i == LSI_LEN(members))
            LSI_TRY(lsi_json_skip(&j));
        else if (members[i].n)
            LSI_TRY(read_u64(&j, members[i].n));
        else
            LSI_TRY(read_double(&j, members[i].v));
    }
    return lsi_json_end(&j);
}

ls_status lsi_metrics_read(const char *path, lsi_metrics_fn *fn, void *user, ls_error *err)
{
    struct lsi_map m;
    ls_train_step s;
    ls_status st = LS_OK;
    size_t at = 0;
    LSI_TRY(lsi_map_open(&m, path, err));
    while (st == LS_OK && at < m.bytes) {
        const unsigned char *end = memchr(m.data + at, '\n', m.bytes - at);
        if (!end)
            break;
        const size_t n = (size_t)(end - m.data) - at;
        st = read_line((const char *)m.data + at, n, path, &s, err);
        if (st == LS_OK)
            fn(user, &s);
        at += n + 1;
    }
    lsi_map_close(&m);
    return st;
}

/* ---- going on behind a step -------------------------------------------------------------------- */

/* Bytes of the whole lines up to a step. A line that cannot be read ends what is kept. */
static size_t keep_bytes(const struct lsi_map *m, uint64_t step)
{
    ls_train_step s;
    size_t at = 0;
    while (at < m->bytes) {
        const unsigned char *end = memchr(m->data + at, '\n', m->bytes - at);
        if (!end)
            break;
        const size_t n = (size_t)(end - m->data) - at;
        if (read_line((const char *)m->data + at, n, FILE_NAME, &s, NULL) != LS_OK || s.step > step)
            break;
        at += n + 1;
    }
    return at;
}

/* A new file with the lines to keep takes the old one's place: the old one is whole until then. */
static ls_status cut(const char *path, uint64_t step, ls_error *err)
{
    struct lsi_map m = { 0 };
    struct lsi_out out;
    if (step > 0 && lsi_path_exists(path))
        LSI_TRY(lsi_map_open(&m, path, err));
    const size_t n = m.bytes ? keep_bytes(&m, step) : 0;
    ls_status st = LS_OK;
    if (n == 0 || n < m.bytes) {
        st = lsi_out_open(&out, path, err);
        if (st == LS_OK) {
            lsi_out_write(&out, m.data, n);
            st = lsi_out_commit(&out, err);
        }
    }
    lsi_map_close(&m);
    return st;
}

ls_status lsi_metrics_open(struct lsi_metrics **out, const char *run, uint64_t step, const ls_alloc *alloc,
                           ls_error *err)
{
    ls_status st;
    *out = NULL;
    alloc = lsi_alloc_or_default(alloc);
    struct lsi_metrics *m = lsi_calloc(alloc, 1, sizeof *m);
    if (!m)
        return lsi_fail(err, LS_E_NOMEM, "no memory to write " FILE_NAME);
    m->fd = -1;
    m->alloc = alloc;
    lsi_buf_init(&m->line, alloc, LINE_BYTES);
    if (!lsi_path_join(m->path, sizeof m->path, run, FILE_NAME)) {
        st = lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the run is too long", run);
        goto fail;
    }
    LSI_TRY_OR(fail, cut(m->path, step, err));
    m->fd = open(m->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    m->size = m->fd < 0 ? -1 : lseek(m->fd, 0, SEEK_END);
    if (m->size < 0) {
        st = lsi_fail(err, LS_E_IO, "cannot write %s: %s", m->path, strerror(errno));
        goto fail;
    }
    *out = m;
    return LS_OK;

fail:
    lsi_metrics_close(m);
    return st;
}

void lsi_metrics_close(struct lsi_metrics *m)
{
    if (!m)
        return;
    if (m->fd >= 0)
        close(m->fd);
    lsi_buf_fini(&m->line);
    lsi_free(m->alloc, m, sizeof *m);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void put_double(struct lsi_buf *b, const char *key, double v)
{
    lsi_buf_printf(b, ",\"%s\":", key);
    lsi_buf_json_number(b, v);
}

static void put_u64(struct lsi_buf *b, const char *key, uint64_t v)
{
    lsi_buf_printf(b, ",\"%s\":%" PRIu64, key, v);
}

static void put_line(struct lsi_buf *b, const ls_train_step *s)
{
    b->len = 0;
    lsi_buf_printf(b, "{\"step\":%" PRIu64, s->step);
    put_double(b, "loss", s->loss);
    put_double(b, "grad_norm", s->grad_norm);
    put_double(b, "lr", s->lr);
    put_u64(b, "tokens", s->tokens);
    put_u64(b, "labels", s->valid_labels);
    put_double(b, "seconds", s->seconds);
    put_u64(b, "peak_bytes", s->peak_bytes);
    if (!isnan(s->eval_loss))
        put_double(b, "eval_loss", s->eval_loss);
    lsi_buf_printf(b, "}\n");
}

/* All of it, or the number of an error. */
static int write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t k = write(fd, data, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? errno : EIO;
        data += k;
        n -= (size_t)k;
    }
    return 0;
}

ls_status lsi_metrics_append(struct lsi_metrics *m, const ls_train_step *step, ls_error *err)
{
    put_line(&m->line, step);
    if (m->line.failed) {
        lsi_buf_fini(&m->line);
        lsi_buf_init(&m->line, m->alloc, LINE_BYTES);
        return lsi_fail(err, LS_E_NOMEM, "no memory to write %s", m->path);
    }
    const int e = write_all(m->fd, m->line.data, m->line.len);
    if (e) {
        if (ftruncate(m->fd, m->size) != 0) /* a device, or a file that others took away */
            return lsi_fail(err, LS_E_IO, "cannot write %s: %s, and its last line is not whole", m->path,
                            strerror(e));
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", m->path, strerror(e));
    }
    m->size += (off_t)m->line.len;
    return LS_OK;
}

/*
 * Sessions on disk: what a context holds, so that a text is processed once (docs/formats/session.md).
 *
 *     header | note | tokens | state of the cache, its tables of pages at multiples of ALIGN | sum
 *
 * A reader checks the sum over everything before it believes a number, then maps the pages: they are shared
 * with other processes that have the file open, and written to in memory only.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "decode/context_impl.h"

#define MAGIC   "LSSESS\r\n"
#define VERSION 4
#define ALIGN   4096 /* of tables of pages: what every system can map */

struct header {
    char magic[8];
    uint64_t version;
    uint64_t model;   /* fingerprint */
    uint64_t compute; /* ls_compute, as it was asked for */
    uint64_t n_tokens;
    uint64_t note_bytes;
    char kv[192];
};

/* ---- which model --------------------------------------------------------------------------- */

/* Pieces of every tensor: training changes all of them, and a file of gigabytes is not read for this. */
static void digest_tensor(struct lsi_digest *d, const struct lsi_tensor *t)
{
    enum {
        PIECES = 16,
        PIECE = 64
    };
    lsi_digest_add_u64(d, t->name.len);
    lsi_digest_add(d, t->name.s, t->name.len);
    lsi_digest_add_u64(d, (uint64_t)t->dtype);
    lsi_digest_add_u64(d, t->bytes);
    const size_t step = t->bytes / PIECES;
    for (size_t i = 0; i < PIECES; i++)
        lsi_digest_add(d, t->data + i * step, lsi_min_size(PIECE, step));
}

uint64_t lsi_session_fingerprint(const ls_model *m)
{
    const struct lsi_config *c = &m->config;
    const uint64_t sizes[] = { c->L, c->C, c->H, c->G, c->D, c->F, c->V, c->window };
    struct lsi_digest d;
    lsi_digest_init(&d);
    lsi_digest_add(&d, sizes, sizeof sizes);
    for (int i = 0; i < 2; i++) {
        lsi_digest_add_u64(&d, m->rope[i].interleaved);
        lsi_digest_add(&d, &m->rope[i].mscale, sizeof m->rope[i].mscale);
        if (m->rope[i].inv_freq)
            lsi_digest_add(&d, m->rope[i].inv_freq, c->D / 2 * sizeof *m->rope[i].inv_freq);
    }
    for (size_t i = 0; i < lsi_source_n_tensors(&m->source); i++) {
        struct lsi_tensor t;
        lsi_source_tensor(&m->source, i, &t);
        digest_tensor(&d, &t);
    }
    return lsi_digest_get(&d);
}

/* ---- writing --------------------------------------------------------------------------------- */

struct writer {
    struct lsi_cache_io io;
    struct lsi_out out;
    struct lsi_digest sum;
};

static void put(struct writer *w, const void *data, size_t n)
{
    lsi_out_write(&w->out, data, n);
    lsi_digest_add(&w->sum, data, n);
}

static void pad(struct writer *w)
{
    static const char zeros[ALIGN];
    put(w, zeros, (ALIGN - w->out.bytes % ALIGN) % ALIGN);
}

static ls_status write_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *err)
{
    (void)err;
    put((struct writer *)io, data, n);
    return LS_OK;
}

static ls_status write_pages(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *err)
{
    struct writer *w = (struct writer *)io;
    (void)err;
    pad(w);
    for (size_t i = 0; i < n; i++)
        put(w, t->page[i], lsi_kv_pages_bytes(t));
    return LS_OK;
}

ls_status ls_context_save(ls_context *ctx, const char *path, const int32_t *tokens, const void *note,
                          size_t note_bytes, ls_error *err)
{
    struct writer w = { .io = { .name = path, .bytes = write_bytes, .pages = write_pages } };
    struct header h = { .magic = MAGIC, .version = VERSION, .compute = (uint64_t)ctx->options.compute };

    if (!ctx->cache->policy->state)
        return lsi_fail(err, LS_E_UNSUPPORTED, "a session with the cache %s cannot be stored", ctx->kv);
    h.model = lsi_session_fingerprint(ctx->model);
    h.n_tokens = ctx->cache->length;
    h.note_bytes = note_bytes;
    memcpy(h.kv, ctx->kv, sizeof h.kv);
    LSI_TRY(lsi_out_open(&w.out, path, err));
    lsi_digest_init(&w.sum);
    put(&w, &h, sizeof h);
    put(&w, note, note_bytes);
    put(&w, tokens, h.n_tokens * sizeof *tokens);
    const ls_status st = ctx->cache->policy->state(ctx->cache, &w.io, err);
    if (st != LS_OK) {
        lsi_out_abort(&w.out);
        return st;
    }
    const uint64_t sum = lsi_digest_get(&w.sum);
    lsi_out_write(&w.out, &sum, sizeof sum);
    return lsi_out_commit(&w.out, err);
}

/* ---- reading ---------------------------------------------------------------------------------- */

struct reader {
    struct lsi_cache_io io; /* its name is the path */
    int fd;
    const unsigned char *data; /* [bytes] the whole file */
    size_t bytes;
    size_t at, end; /* of what the sum is over */
};

static ls_status cut_off(const struct reader *r, ls_error *err)
{
    return lsi_fail(err, LS_E_FORMAT, "%s: the session is cut off or damaged; make it again", r->io.name);
}

static ls_status read_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *err)
{
    struct reader *r = (struct reader *)io;
    if (n > r->end - r->at)
        return cut_off(r, err);
    if (n)
        memcpy(data, r->data + r->at, n);
    r->at += n;
    return LS_OK;
}

static ls_status read_pages(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *err)
{
    struct reader *r = (struct reader *)io;
    const size_t at = lsi_round_up(r->at, ALIGN);
    size_t bytes;
    if (!lsi_mul_size(n, lsi_kv_pages_bytes(t), &bytes) || at > r->end || bytes > r->end - at)
        return cut_off(r, err);
    r->at = at + bytes;
    if (n == 0)
        return LS_OK;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, r->fd, (off_t)at);
    if (base == MAP_FAILED)
        return lsi_fail(err, LS_E_IO, "cannot map %s: %s", r->io.name, strerror(errno));
    if (lsi_kv_pages_adopt(t, base, n))
        return LS_OK;
    munmap(base, bytes);
    return lsi_fail(err, LS_E_NOMEM, "out of memory for the session %s", r->io.name);
}

/* One descriptor for all: whoever replaces the file meanwhile changes nothing here. */
static ls_status open_file(struct reader *r, ls_error *err)
{
    struct stat st;
    r->fd = open(r->io.name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is no session, and would wait */
    if (r->fd < 0 || fstat(r->fd, &st) != 0)
        return lsi_fail(err, LS_E_IO, "cannot read %s: %s", r->io.name, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return lsi_fail(err, LS_E_FORMAT, "%s is no session", r->io.name);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, r->fd, 0);
    if (data == MAP_FAILED)
        return lsi_fail(err, LS_E_IO, "cannot map %s: %s", r->io.name, strerror(errno));
    r->data = data;
    r->bytes = (size_t)st.st_size;
    return LS_OK;
}

static ls_status check_sum(struct reader *r, ls_error *err)
{
    uint64_t sum;
    if (r->bytes < sizeof(struct header) + sizeof sum || memcmp(r->data, MAGIC, 8) != 0)
        return lsi_fail(err, LS_E_FORMAT, "%s is no session", r->io.name);
    r->end = r->bytes - sizeof sum;
    memcpy(&sum, r->data + r->end, sizeof sum);
    struct lsi_digest d;
    lsi_digest_init(&d);
    lsi_digest_add(&d, r->data, r->end);
    return lsi_digest_get(&d) == sum ? LS_OK : cut_off(r, err);
}

static const char *const computes[] = {
    [LS_COMPUTE_AUTO] = "auto",
    [LS_COMPUTE_BF16] = "bf16",
    [LS_COMPUTE_FP32] = "fp32",
};

static ls_status check_header(const struct reader *r, const struct header *h, const ls_context *ctx,
                              ls_error *err)
{
    if (h->version != VERSION)
        return lsi_fail(err, LS_E_FORMAT,
                        "%s is a session of version %llu, this program reads %d: make it again", r->io.name,
                        (unsigned long long)h->version, VERSION);
    if (h->model != lsi_session_fingerprint(ctx->model))
        return lsi_fail(err, LS_E_INVAL, "%s was made with another model", r->io.name);
    if (memchr(h->kv, 0, sizeof h->kv) == NULL || strcmp(h->kv, ctx->kv) != 0)
        return lsi_fail(err, LS_E_INVAL, "%s was made with --kv %.*s, not %s", r->io.name, (int)sizeof h->kv,
                        h->kv, ctx->kv);
    if (h->compute >= LSI_LEN(computes))
        return cut_off(r, err);
    if (h->compute != (uint64_t)ctx->options.compute)
        return lsi_fail(err, LS_E_INVAL, "%s was made with --compute %s, not %s", r->io.name,
                        computes[h->compute], computes[ctx->options.compute]);
    return LS_OK;
}

static ls_status read_session(struct reader *r, ls_session *s, const struct header *h, ls_error *err)
{
    if (h->note_bytes > r->end - r->at || h->n_tokens > (r->end - r->at) / sizeof *s->tokens)
        return cut_off(r, err);
    s->note_bytes = h->note_bytes;
    s->n_tokens = h->n_tokens;
    s->note = lsi_calloc(s->alloc, s->note_bytes + 1, 1);
    s->tokens = lsi_calloc(s->alloc, s->n_tokens, sizeof *s->tokens);
    if (!s->note || !s->tokens)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the session %s", r->io.name);
    LSI_TRY(read_bytes(&r->io, s->note, s->note_bytes, err));
    return read_bytes(&r->io, s->tokens, s->n_tokens * sizeof *s->tokens, err);
}

static ls_status read_cache(struct reader *r, const ls_context *ctx, const ls_session *s,
                            struct lsi_cache **cache, ls_error *err)
{
    const struct lsi_cache *like = ctx->cache;
    if (!like->policy->state)
        return lsi_fail(err, LS_E_UNSUPPORTED, "a session with the cache %s cannot be read", ctx->kv);
    struct lsi_cache_spec
        spec; /* as it was asked for: what the context holds may have made tokens of shares */
    LSI_TRY(lsi_cache_parse(&spec, ctx->kv, err));
    LSI_TRY(like->policy->create(cache, &like->shape, &spec, like->alloc, err));
    LSI_TRY(like->policy->state(*cache, &r->io, err));
    return (*cache)->length == s->n_tokens && r->at == r->end ? LS_OK : cut_off(r, err);
}

static ls_status load(struct reader *r, ls_context *ctx, ls_session *s, ls_error *err)
{
    struct header h;
    struct lsi_cache *cache = NULL;
    LSI_TRY(check_sum(r, err));
    LSI_TRY(read_bytes(&r->io, &h, sizeof h, err));
    LSI_TRY(check_header(r, &h, ctx, err));
    LSI_TRY(read_session(r, s, &h, err));
    const ls_status st = read_cache(r, ctx, s, &cache, err);
    if (st != LS_OK) {
        if (cache)
            cache->policy->free(cache);
        return st;
    }
    ctx->cache->policy->free(ctx->cache);
    ctx->cache = cache;
    lsi_context_name_cache(ctx);
    return LS_OK;
}

ls_status ls_context_load(ls_context *ctx, const char *path, ls_session *session, ls_error *err)
{
    struct reader r = { .io = { .reading = true, .name = path, .bytes = read_bytes, .pages = read_pages } };
    ls_session s = { .alloc = ctx->options.alloc };

    ls_status st = open_file(&r, err);
    if (st == LS_OK)
        st = load(&r, ctx, &s, err);
    if (r.data)
        munmap((void *)r.data, r.bytes);
    if (r.fd >= 0)
        close(r.fd);
    if (st == LS_OK)
        *session = s;
    else
        ls_session_free(&s);
    return st;
}

void ls_session_free(ls_session *s)
{
    if (!s)
        return;
    lsi_free(s->alloc, s->tokens, s->n_tokens * sizeof *s->tokens);
    lsi_free(s->alloc, s->note, s->note_bytes + 1);
    *s = (ls_session){ 0 };
}

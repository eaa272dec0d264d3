/*
 *   header, 64 bytes | ids, int32 | learn bits, when there are any | first ids of documents, uint64
 *
 * Sections are padded to 8 bytes. The header is written last, over zeros: a file without one is no cache.
 */
#include "train/token_store.h"

#include <errno.h>
#include <string.h>

static const char magic[8] = "LSTOKENS";

#define VERSION    1
#define WITH_LEARN 1u

struct header {
    char magic[8];
    uint32_t version;
    uint32_t flags;
    uint64_t key;
    uint64_t n_ids;
    uint64_t n_docs;
    uint64_t n_dropped;
    uint64_t reserved;
    uint64_t digest; /* of what follows the header, then of the header before this field */
};
_Static_assert(sizeof(struct header) == 64, "the header has no padding");

#define DIGESTED offsetof(struct header, digest)

/* ---- reading ---------------------------------------------------------------- */

/* Where the sections begin and the file ends; false when the counts do not fit it. */
static bool sections(const struct header *h, size_t bytes, size_t *learn, size_t *docs)
{
    const size_t body = bytes - sizeof *h;
    if (h->n_ids > body / 4 || h->n_docs >= body / 8)
        return false;
    *learn = sizeof *h + lsi_round_up((size_t)h->n_ids * 4, 8);
    *docs = *learn;
    if (h->flags & WITH_LEARN)
        *docs += lsi_round_up(lsi_div_up((size_t)h->n_ids, 8), 8);
    return *docs + ((size_t)h->n_docs + 1) * 8 == bytes;
}

static bool borders_ascend(const struct lsi_token_store *s)
{
    if (s->docs[0] != 0 || s->docs[s->n_docs] != s->n_ids)
        return false;
    for (size_t i = 0; i < s->n_docs; i++)
        if (s->docs[i] >= s->docs[i + 1])
            return false;
    return true;
}

static bool ids_fit(const struct lsi_token_store *s, size_t n_vocab)
{
    uint32_t greatest = 0; /* a negative id is a great one */
    for (size_t i = 0; i < s->n_ids; i++) {
        const uint32_t id = (uint32_t)s->ids[i];
        greatest = id > greatest ? id : greatest;
    }
    return s->n_ids == 0 || greatest < n_vocab;
}

ls_status lsi_token_store_parse(struct lsi_token_store *s, const void *data, size_t bytes, const char *name,
                                uint64_t key, size_t n_vocab, ls_error *err)
{
    const unsigned char *p = data;
    struct header h;
    struct lsi_digest d;
    size_t learn, docs;
    *s = (struct lsi_token_store){ 0 };
    if (bytes < sizeof h || memcmp(p, magic, sizeof magic) != 0)
        return lsi_fail(err, LS_E_FORMAT, "%s is not a token cache", name);
    memcpy(&h, p, sizeof h);
    if (h.version != VERSION)
        return lsi_fail(err, LS_E_FORMAT, "%s is a token cache of version %u, not %u", name, h.version,
                        (unsigned)VERSION);
    if (h.key != key)
        return lsi_fail(err, LS_E_FORMAT, "%s was made from other data, or with another tokenizer", name);
    lsi_digest_init(&d);
    lsi_digest_add(&d, p + sizeof h, bytes - sizeof h);
    lsi_digest_add(&d, p, DIGESTED);
    if (lsi_digest_get(&d) != h.digest || !sections(&h, bytes, &learn, &docs))
        return lsi_fail(err, LS_E_FORMAT, "%s is damaged", name);
    s->n_ids = (size_t)h.n_ids;
    s->n_docs = (size_t)h.n_docs;
    s->n_dropped = h.n_dropped;
    s->ids = (const int32_t *)(const void *)(p + sizeof h);
    s->learn = h.flags & WITH_LEARN ? p + learn : NULL;
    s->docs = (const uint64_t *)(const void *)(p + docs);
    if (!borders_ascend(s) || !ids_fit(s, n_vocab)) {
        *s = (struct lsi_token_store){ 0 };
        return lsi_fail(err, LS_E_FORMAT, "%s is damaged", name);
    }
    return LS_OK;
}

ls_status lsi_token_store_open(struct lsi_token_store *s, const char *path, uint64_t key, size_t n_vocab,
                               ls_error *err)
{
    struct lsi_map map;
    *s = (struct lsi_token_store){ 0 };
    LSI_TRY(lsi_map_open(&map, path, err));
    const ls_status st = lsi_token_store_parse(s, map.data, map.bytes, path, key, n_vocab, err);
    if (st == LS_OK)
        s->map = map;
    else
        lsi_map_close(&map);
    return st;
}

void lsi_token_store_close(struct lsi_token_store *s)
{
    lsi_map_close(&s->map);
    lsi_buf_fini(&s->ids_held);
    lsi_buf_fini(&s->learn_held);
    lsi_buf_fini(&s->docs_held);
    *s = (struct lsi_token_store){ 0 };
}

/* ---- writing ---------------------------------------------------------------- */

static ls_status no_memory(ls_error *err)
{
    return lsi_fail(err, LS_E_NOMEM, "no memory for the tokens of the data");
}

ls_status lsi_token_writer_open(struct lsi_token_writer *w, const char *path, uint64_t key, bool with_learn,
                                const ls_alloc *alloc, ls_error *err)
{
    memset(w, 0, sizeof *w);
    w->path = path;
    w->key = key;
    w->with_learn = with_learn;
    lsi_buf_init(&w->ids, alloc, SIZE_MAX / 4);
    lsi_buf_init(&w->learn, alloc, SIZE_MAX / 4);
    lsi_buf_init(&w->docs, alloc, SIZE_MAX / 4);
    lsi_digest_init(&w->digest);
    if (path) {
        LSI_TRY(lsi_out_open(&w->out, path, err));
        lsi_out_zeros(&w->out, sizeof(struct header));
    }
    return lsi_buf_append(&w->docs, &w->n_ids, sizeof w->n_ids) ? LS_OK : no_memory(err);
}

void lsi_token_writer_close(struct lsi_token_writer *w)
{
    lsi_out_abort(&w->out);
    lsi_buf_fini(&w->ids);
    lsi_buf_fini(&w->learn);
    lsi_buf_fini(&w->docs);
}

/* Bytes behind the header. */
static void write_body(struct lsi_token_writer *w, const void *data, size_t n)
{
    lsi_digest_add(&w->digest, data, n);
    lsi_out_write(&w->out, data, n);
}

static void pad_body(struct lsi_token_writer *w)
{
    static const char zeros[8];
    write_body(w, zeros, (8 - w->out.bytes % 8) % 8);
}

ls_status lsi_token_writer_put(struct lsi_token_writer *w, const int32_t *ids, const unsigned char *learn,
                               size_t n, ls_error *err)
{
    if (w->path)
        write_body(w, ids, n * sizeof *ids);
    else
        lsi_buf_append(&w->ids, ids, n * sizeof *ids);
    for (size_t i = 0; i < n && w->with_learn; i++) {
        const uint64_t t = w->n_ids + i;
        w->bits = (unsigned char)(w->bits | (!learn || learn[i] ? 1u : 0u) << t % 8);
        if (t % 8 == 7) {
            lsi_buf_append(&w->learn, &w->bits, 1);
            w->bits = 0;
        }
    }
    w->n_ids += n;
    return w->ids.failed || w->learn.failed ? no_memory(err) : LS_OK;
}

ls_status lsi_token_writer_end_document(struct lsi_token_writer *w, ls_error *err)
{
    uint64_t begin;
    memcpy(&begin, w->docs.data + w->docs.len - sizeof begin, sizeof begin);
    if (begin == w->n_ids) /* nothing in it */
        return LS_OK;
    return lsi_buf_append(&w->docs, &w->n_ids, sizeof w->n_ids) ? LS_OK : no_memory(err);
}

static ls_status finish_file(struct lsi_token_writer *w, size_t n_docs, ls_error *err)
{
    struct header h = { .version = VERSION, .flags = w->with_learn ? WITH_LEARN : 0, .key = w->key };
    memcpy(h.magic, magic, sizeof magic);
    h.n_ids = w->n_ids;
    h.n_docs = n_docs;
    h.n_dropped = w->n_dropped;
    pad_body(w);
    write_body(w, w->learn.data, w->learn.len);
    pad_body(w);
    write_body(w, w->docs.data, w->docs.len);
    lsi_digest_add(&w->digest, &h, DIGESTED);
    h.digest = lsi_digest_get(&w->digest);
    if (!w->out.error && fseeko(w->out.f, 0, SEEK_SET) != 0)
        w->out.error = errno;
    lsi_out_write(&w->out, &h, sizeof h);
    return lsi_out_commit(&w->out, err);
}

ls_status lsi_token_writer_finish(struct lsi_token_writer *w, struct lsi_token_store *s, size_t n_vocab,
                                  ls_error *err)
{
    const size_t n_docs = w->docs.len / sizeof(uint64_t) - 1;
    *s = (struct lsi_token_store){ 0 };
    if (w->with_learn && w->n_ids % 8 && !lsi_buf_append(&w->learn, &w->bits, 1))
        return no_memory(err);
    if (w->path) {
        LSI_TRY(finish_file(w, n_docs, err));
        return lsi_token_store_open(s, w->path, w->key, n_vocab, err);
    }
    s->n_ids = (size_t)w->n_ids;
    s->n_docs = n_docs;
    s->n_dropped = w->n_dropped;
    s->ids_held = w->ids;
    s->learn_held = w->learn;
    s->docs_held = w->docs;
    s->ids = (const int32_t *)(const void *)s->ids_held.data;
    s->learn = w->with_learn ? (const unsigned char *)s->learn_held.data : NULL;
    s->docs = (const uint64_t *)(const void *)s->docs_held.data;
    memset(&w->ids, 0, sizeof w->ids);
    memset(&w->learn, 0, sizeof w->learn);
    memset(&w->docs, 0, sizeof w->docs);
    return LS_OK;
}

/*
 * The object behind data.h: tokens from the cache or from the files, sequences, the order of an
 * epoch, and the two slots that hold what was asked for last.
 */
#include "train/data_impl.h"

#include "tokenizer/chat_render.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct slot {
    int32_t *tokens, *labels; /* [seq] */
    size_t *doc_start;        /* [most_pieces + 1] */
};

struct lsi_data {
    struct lsi_token_store tokens;
    struct lsi_sequences sequences;
    uint64_t key; /* digest of files and tokenizer */
    size_t seq;
    bool shuffle;
    uint64_t seed;
    uint64_t epoch;     /* whose order is known */
    size_t *order;      /* [n] sequences of that epoch; NULL: always the same */
    struct slot *slots; /* [n_slots] */
    int n_slots;
    const ls_alloc *alloc;

    /* while opening */
    struct lsi_data_file *files; /* [n_files] */
    size_t n_files;
    ls_chat_template *chat;
};

/* ---- files ----------------------------------------------------------------------- */

static void close_files(struct lsi_data *d)
{
    for (size_t i = 0; i < d->n_files && d->files; i++)
        lsi_data_file_close(&d->files[i]);
    lsi_free(d->alloc, d->files, d->n_files * sizeof *d->files);
    ls_chat_template_close(d->chat);
    d->files = NULL;
    d->chat = NULL;
}

static ls_status open_files(struct lsi_data *d, const struct lsi_data_options *o, ls_error *err)
{
    d->n_files = o->n_paths;
    d->files = lsi_calloc(d->alloc, o->n_paths, sizeof *d->files);
    if (!d->files)
        return lsi_fail(err, LS_E_NOMEM, "no memory for %zu data files", o->n_paths);
    for (size_t i = 0; i < o->n_paths; i++) {
        LSI_TRY(lsi_data_file_open(&d->files[i], o->paths[i], o->format, err));
        if ((d->files[i].format == LS_TRAIN_TEXT) != (d->files[0].format == LS_TRAIN_TEXT))
            return lsi_fail(err, LS_E_INVAL,
                            "%s is a text and %s has a document in each line; they cannot be mixed",
                            o->paths[d->files[i].format == LS_TRAIN_TEXT ? i : 0],
                            o->paths[d->files[i].format == LS_TRAIN_TEXT ? 0 : i]);
        if (d->files[i].format == LS_TRAIN_CHAT && !d->chat)
            LSI_TRY(ls_chat_template_open(o->tok, o->chat_template, &d->chat, err));
    }
    return LS_OK;
}

/* ---- the key of the cache ------------------------------------------------------------ */

static void digest_text(struct lsi_digest *g, const char *s, size_t n)
{
    lsi_digest_add_u64(g, n);
    lsi_digest_add(g, s, n);
}

/*
 * A tokenizer is its vocabulary, its merges, and rules that show in what it makes of a text
 * with something of everything in it.
 */
static ls_status digest_tokenizer(struct lsi_digest *g, const ls_tokenizer *t, ls_error *err)
{
    static const char probe[] =
        " It's 12345 o'clock,\r\n\t  caf\xc3\xa9 e\xcc\x81 \xe6\x97\xa5\xe6\x9c\xac   "
        "\xf0\x9f\x99\x82\n\n\n\"I'LL DON'T\" 3.14 x_y <s> <|im_start|>a \xc2\xbd\xef\xac\x81 ";
    const ls_byte_range none = { 0, 0 };
    for (size_t i = 0; i < t->n_tokens; i++) {
        digest_text(g, lsi_token_text(t, i), t->tokens[i].len);
        lsi_digest_add_u64(g, t->tokens[i].type);
    }
    for (size_t i = 0; i < t->merges_cap; i++) {
        if (t->merges[i].pair == UINT64_MAX)
            continue;
        lsi_digest_add_u64(g, t->merges[i].pair);
        lsi_digest_add_u64(g, t->merges[i].rank);
    }
    if (t->scores)
        lsi_digest_add(g, t->scores, t->n_tokens * sizeof *t->scores);
    lsi_digest_add_u64(g, (uint64_t)t->eos);
    for (unsigned flags = 0; flags < 4; flags++) {
        int32_t *ids;
        size_t n;
        LSI_TRY(ls_tokenizer_encode_ranges(t, probe, sizeof probe - 1, flags, &none, 0, &ids, &n, NULL, err));
        lsi_digest_add_u64(g, n);
        lsi_digest_add(g, ids, n * sizeof *ids);
        ls_tokenizer_ids_free(t, ids, n);
    }
    return LS_OK;
}

static void digest_chat(struct lsi_digest *g, const ls_chat_template *c)
{
    digest_text(g, c->name, strlen(c->name));
    digest_text(g, c->default_text, strlen(c->default_text));
    lsi_digest_add_u64(g, (uint64_t)c->system_tags | (uint64_t)c->always_prompt << 1 |
                              (uint64_t)c->begins_with_bos << 2);
}

/* Everything that the tokens depend on. */
static ls_status cache_key(const struct lsi_data *d, const ls_tokenizer *tok, uint64_t *key, ls_error *err)
{
    struct lsi_digest g;
    lsi_digest_init(&g);
    LSI_TRY(digest_tokenizer(&g, tok, err));
    if (d->chat)
        digest_chat(&g, d->chat);
    for (size_t i = 0; i < d->n_files; i++) {
        lsi_digest_add_u64(&g, d->files[i].format);
        digest_text(&g, d->files[i].data, d->files[i].bytes);
    }
    *key = lsi_digest_get(&g);
    return LS_OK;
}

/* The file of these data in the folder, which is made; changed data take the place of what they were. */
static ls_status cache_path(const struct lsi_data_options *o, char *path, size_t cap, ls_error *err)
{
    struct lsi_digest g;
    char name[40];
    lsi_digest_init(&g);
    for (size_t i = 0; i < o->n_paths; i++)
        digest_text(&g, o->paths[i], strlen(o->paths[i]));
    snprintf(name, sizeof name, "%016llx.tokens", (unsigned long long)lsi_digest_get(&g));
    if (!lsi_path_join(path, cap, o->cache_dir, name))
        return lsi_fail(err, LS_E_INVAL, "the path of the token cache is too long: %.200s", o->cache_dir);
    if (mkdir(o->cache_dir, 0777) != 0 && errno != EEXIST)
        return lsi_fail(err, LS_E_IO, "cannot make the folder %s: %s", o->cache_dir, strerror(errno));
    return LS_OK;
}

/* ---- tokens ----------------------------------------------------------------------------- */

static ls_status read_files(struct lsi_data *d, const struct lsi_data_options *o, struct lsi_token_writer *w,
                            ls_error *err)
{
    struct lsi_data_reader r = {
        .tok = o->tok,
        .tokenizer_path = o->tokenizer_path,
        .chat = d->chat,
        .n_vocab = o->n_vocab,
        .out = w,
        .progress = o->progress,
        .progress_user = o->progress_user,
        .cancel = o->cancel,
        .alloc = d->alloc,
    };
    ls_status st = LS_OK;
    lsi_buf_init(&r.text, d->alloc, SIZE_MAX / 4);
    for (size_t i = 0; i < d->n_files; i++)
        r.total_bytes += d->files[i].bytes;
    for (size_t i = 0; i < d->n_files && st == LS_OK; i++)
        st = lsi_data_read_file(&r, &d->files[i], err);
    lsi_buf_fini(&r.text);
    return st;
}

static ls_status load_tokens(struct lsi_data *d, const struct lsi_data_options *o, ls_error *err)
{
    char path[4096];
    struct lsi_token_writer w;
    if (o->cache_dir) {
        LSI_TRY(cache_path(o, path, sizeof path, err));
        LSI_TRY(cache_key(d, o->tok, &d->key, err));
        if (lsi_token_store_open(&d->tokens, path, d->key, o->n_vocab, NULL) == LS_OK)
            return LS_OK;
    }
    ls_status st =
        lsi_token_writer_open(&w, o->cache_dir ? path : NULL, d->key, d->chat != NULL, d->alloc, err);
    if (st == LS_OK)
        st = read_files(d, o, &w, err);
    if (st == LS_OK)
        st = lsi_token_writer_finish(&w, &d->tokens, o->n_vocab, err);
    lsi_token_writer_close(&w);
    return st;
}

/* ---- sequences ----------------------------------------------------------------------------- */

static ls_status make_sequences(struct lsi_data *d, const struct lsi_data_options *o, ls_error *err)
{
    const bool windows = d->files[0].format == LS_TRAIN_TEXT;
    const enum lsi_packing packing = windows      ? LSI_PACK_WINDOWS
                                     : !o->pack   ? LSI_PACK_NONE
                                     : o->shuffle ? LSI_PACK_TIGHT
                                                  : LSI_PACK_ORDERED;
    LSI_TRY(lsi_sequences_make(&d->sequences, &d->tokens, d->seq, packing, d->alloc, err));
    if (d->sequences.n)
        return LS_OK;
    if (windows)
        return lsi_fail(
            err, LS_E_INVAL,
            "the data hold %zu tokens and a sequence takes --seq %zu: take a smaller --seq or more "
            "text",
            d->tokens.n_ids, d->seq);
    return lsi_fail(err, LS_E_INVAL, "the data hold nothing to learn from: %s%s",
                    d->tokens.n_docs ? "no document has two tokens, the second to be predicted"
                                     : "there are no documents",
                    d->chat ? " (conversations count where the assistant answers)" : "");
}

static ls_status make_slots(struct lsi_data *d, ls_error *err)
{
    d->slots = lsi_calloc(d->alloc, (size_t)d->n_slots, sizeof *d->slots);
    bool ok = d->slots;
    for (int i = 0; ok && i < d->n_slots; i++) {
        struct slot *s = &d->slots[i];
        s->tokens = lsi_calloc(d->alloc, d->seq, sizeof *s->tokens);
        s->labels = lsi_calloc(d->alloc, d->seq, sizeof *s->labels);
        s->doc_start = lsi_calloc(d->alloc, d->sequences.most_pieces + 1, sizeof *s->doc_start);
        ok = s->tokens && s->labels && s->doc_start;
    }
    if (d->shuffle) {
        d->order = lsi_calloc(d->alloc, d->sequences.n, sizeof *d->order);
        ok = ok && d->order;
        d->epoch = UINT64_MAX;
    }
    return ok ? LS_OK : lsi_fail(err, LS_E_NOMEM, "no memory for sequences of %zu tokens", d->seq);
}

ls_status lsi_data_open(struct lsi_data **out, const struct lsi_data_options *o, ls_error *err)
{
    *out = NULL;
    if (o->n_paths == 0)
        return lsi_fail(err, LS_E_INVAL, "no data: name a file with --data");
    if (o->seq < 2 || o->seq >= UINT32_MAX)
        return lsi_fail(err, LS_E_INVAL, "a sequence of %zu tokens: --seq must be at least 2", o->seq);
    struct lsi_data *d = lsi_calloc(o->alloc, 1, sizeof *d);
    if (!d)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the data");
    d->alloc = o->alloc;
    d->seq = o->seq;
    d->shuffle = o->shuffle;
    d->seed = o->seed;
    d->n_slots = o->n_slots > 0 ? o->n_slots : LSI_DATA_SLOTS;
    ls_status st = open_files(d, o, err);
    if (st == LS_OK)
        st = load_tokens(d, o, err);
    if (st == LS_OK)
        st = make_sequences(d, o, err);
    if (st == LS_OK)
        st = make_slots(d, err);
    close_files(d);
    if (st == LS_OK)
        *out = d;
    else
        lsi_data_close(d);
    return st;
}

void lsi_data_close(struct lsi_data *d)
{
    if (!d)
        return;
    for (int i = 0; d->slots && i < d->n_slots; i++) {
        struct slot *s = &d->slots[i];
        lsi_free(d->alloc, s->tokens, d->seq * sizeof *s->tokens);
        lsi_free(d->alloc, s->labels, d->seq * sizeof *s->labels);
        lsi_free(d->alloc, s->doc_start, (d->sequences.most_pieces + 1) * sizeof *s->doc_start);
    }
    lsi_free(d->alloc, d->slots, (size_t)d->n_slots * sizeof *d->slots);
    lsi_free(d->alloc, d->order, d->sequences.n * sizeof *d->order);
    lsi_sequences_fini(&d->sequences);
    lsi_token_store_close(&d->tokens);
    lsi_free(d->alloc, d, sizeof *d);
}

uint64_t lsi_data_n_sequences(const struct lsi_data *d)
{
    return d->sequences.n;
}

uint64_t lsi_data_n_tokens(const struct lsi_data *d)
{
    return d->sequences.n_tokens;
}

uint64_t lsi_data_key(const struct lsi_data *d)
{
    return d->key;
}

uint64_t lsi_data_n_dropped(const struct lsi_data *d)
{
    return d->sequences.n_dropped + d->tokens.n_dropped;
}

/* ---- one sequence ------------------------------------------------------------------------------- */

/* The order of an epoch: a permutation drawn from the seed and the epoch's number alone. */
static void order_epoch(struct lsi_data *d, uint64_t epoch)
{
    struct lsi_rng rng, base;
    const size_t n = d->sequences.n;
    if (d->epoch == epoch)
        return;
    lsi_rng_init(&base, d->seed);
    lsi_rng_init(&rng, lsi_rng_u64(&base) + epoch);
    for (size_t i = 0; i < n; i++) {
        const size_t j = (size_t)lsi_rng_below(&rng, i + 1);
        d->order[i] = d->order[j];
        d->order[j] = i;
    }
    d->epoch = epoch;
}

static size_t sequence_of(struct lsi_data *d, uint64_t i)
{
    const uint64_t n = d->sequences.n;
    if (!d->shuffle)
        return (size_t)(i % n);
    order_epoch(d, i / n);
    return d->order[i % n];
}

ls_status lsi_data_get(struct lsi_data *d, uint64_t i, int slot, ls_train_sequence *s, ls_error *err)
{
    if (slot < 0 || slot >= d->n_slots)
        return lsi_fail(err, LS_E_INVAL, "there is no slot %d for a sequence", slot);
    const struct slot *to = &d->slots[slot];
    const size_t k = sequence_of(d, i), first = d->sequences.first[k], end = d->sequences.first[k + 1];
    size_t at = 0;
    for (size_t p = first; p < end; p++) {
        const struct lsi_piece *piece = &d->sequences.pieces[p];
        const int32_t *ids = d->tokens.ids + piece->first;
        to->doc_start[p - first] = at;
        for (size_t t = 0; t < piece->n; t++) {
            const bool learnt = t + 1 < piece->n && lsi_token_learnt(&d->tokens, piece->first + t + 1);
            to->tokens[at + t] = ids[t];
            to->labels[at + t] = learnt ? ids[t + 1] : LS_TRAIN_IGNORE;
        }
        at += piece->n;
    }
    to->doc_start[end - first] = at;
    *s = (ls_train_sequence){ .tokens = to->tokens, .labels = to->labels, .n = at, .n_docs = end - first };
    if (s->n_docs > 1)
        s->doc_start = to->doc_start;
    return LS_OK;
}

ls_status lsi_data_n_valid(struct lsi_data *d, uint64_t i, uint64_t *n_valid, ls_error *err)
{
    (void)err;
    const size_t k = sequence_of(d, i);
    *n_valid = 0;
    for (size_t p = d->sequences.first[k]; p < d->sequences.first[k + 1]; p++) {
        const struct lsi_piece *piece = &d->sequences.pieces[p];
        for (size_t t = 1; t < piece->n; t++)
            *n_valid += lsi_token_learnt(&d->tokens, piece->first + t);
    }
    return LS_OK;
}

#include "train/state_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/numbers.h"
#include "formats/safetensors.h"
#include "ops/backward.h"

#define VERSION   "1"
#define CHECKSUMS "~checksums" /* '~' sorts behind every letter: the last tensor of its width */
#define FOLDER    "checkpoints"
#define SETTING   "setting."
#define N_STATE   6   /* metadata values of struct lsi_state */
#define MAX_VALUE 160 /* bytes of a metadata value */
#define PIECE     ((size_t)4 << 20)

/* ---- checksums ------------------------------------------------------------------------------ */

/*
 * 64 bits of a byte stream: four lanes of 8-byte words. A step h = rotl((h ^ w) * K) is a bijection of h for
 * every w and of w for every h, so a change of one word always shows.
 */
struct sum {
    uint64_t lane[4];
    uint64_t bytes;
};

static uint64_t sum_step(uint64_t h, uint64_t w)
{
    h = (h ^ w) * 0x9e3779b97f4a7c15u;
    return h << 29 | h >> 35;
}

/* Pieces of a stream are multiples of 32 bytes, except the last. */
static void sum_add(struct sum *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t w[4];
    s->bytes += n;
    for (; n >= sizeof w; p += sizeof w, n -= sizeof w) {
        memcpy(w, p, sizeof w);
        for (int i = 0; i < 4; i++)
            s->lane[i] = sum_step(s->lane[i], w[i]);
    }
    if (n == 0)
        return;
    memset(w, 0, sizeof w);
    memcpy(w, p, n);
    for (int i = 0; i < 4; i++)
        s->lane[i] = sum_step(s->lane[i], w[i]);
}

static uint64_t sum_value(const struct sum *s)
{
    uint64_t h = s->bytes;
    for (int i = 0; i < 4; i++)
        h = sum_step(h, s->lane[i]);
    return h;
}

static uint64_t sum_of(const void *data, size_t n)
{
    struct sum s = { 0 };
    sum_add(&s, data, n);
    return sum_value(&s);
}

/* ---- what is stored --------------------------------------------------------------------------- */

enum part {
    WEIGHT,
    FIRST_MOMENT,
    SECOND_MOMENT,
    N_PARTS
};

/* One tensor of the file and where its bytes are in memory. */
struct piece {
    char name[LSI_TENSOR_NAME + 4];
    enum lsi_dtype dtype;
    uint32_t rank;
    uint64_t shape[2];
    void *data;
    size_t bytes;
};

static void weight_piece(const struct lsi_param *p, struct piece *x)
{
    x->dtype = p->master ? LSI_F32 : p->dtype;
    x->data = p->master ? p->master : p->w;
    x->rank = (uint32_t)p->rank;
    x->shape[0] = p->rank == 2 ? p->rows : p->n;
    x->shape[1] = p->cols;
}

static void moment_piece(const struct lsi_param *p, void *data, struct piece *x)
{
    static const enum lsi_dtype dtypes[] = {
        [LSI_MOMENTS_F32] = LSI_F32, [LSI_MOMENTS_BF16] = LSI_BF16, [LSI_MOMENTS_Q8] = LSI_U8
    };
    x->dtype = dtypes[p->moments];
    x->data = data;
    x->rank = 1;
    x->shape[0] = p->moments == LSI_MOMENTS_Q8 ? lsi_moments_bytes(p->moments, p->n) : p->n;
}

/* Part `number` of the file, numbers of untrained parameters and missing moments included; false: not stored.
 */
static bool get_piece(const struct lsi_params *params, size_t number, struct piece *x)
{
    static const char *const suffixes[] = { "", ".m", ".v" };
    const struct lsi_param *p = &params->list[number / N_PARTS];
    const enum part part = (enum part)(number % N_PARTS);
    void *moment = part == FIRST_MOMENT ? p->m : p->v;
    *x = (struct piece){ .rank = 0 };
    if (!p->trained || (part != WEIGHT && !moment))
        return false;
    if (part == WEIGHT)
        weight_piece(p, x);
    else
        moment_piece(p, moment, x);
    x->bytes =
        lsi_dtype_block_bytes(x->dtype) * (size_t)x->shape[0] * (size_t)(x->rank == 2 ? x->shape[1] : 1);
    snprintf(x->name, sizeof x->name, "%s%s", p->name, suffixes[part]);
    return true;
}

static size_t n_numbers(const struct lsi_params *p)
{
    return p->n * N_PARTS;
}

static size_t count_pieces(const struct lsi_params *p)
{
    struct piece x;
    size_t n = 0;
    for (size_t i = 0; i < n_numbers(p); i++)
        n += get_piece(p, i, &x);
    return n;
}

/* ---- metadata ----------------------------------------------------------------------------------- */

/* Doubles as their bits: exact, and the same in every locale. */
static void double_text(double v, char out[MAX_VALUE])
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    snprintf(out, MAX_VALUE, "%016" PRIx64, bits);
}

static void state_texts(const struct lsi_state *s, const char *keys[N_STATE], char values[N_STATE][MAX_VALUE])
{
    keys[0] = "step";
    snprintf(values[0], MAX_VALUE, "%" PRIu64, s->step);
    keys[1] = "next_sequence";
    snprintf(values[1], MAX_VALUE, "%" PRIu64, s->next_sequence);
    keys[2] = "tokens";
    snprintf(values[2], MAX_VALUE, "%" PRIu64, s->tokens);
    keys[3] = "seconds";
    double_text(s->seconds, values[3]);
    keys[4] = "loss_mean";
    double_text(s->loss_mean, values[4]);
    keys[5] = "data";
    snprintf(values[5], MAX_VALUE, "%016" PRIx64, s->data);
}

/* Every key and value once, in a fixed form: what the first checksum is of. */
static void note_value(struct lsi_buf *b, const char *key, const char *value)
{
    lsi_buf_append(b, key, strlen(key) + 1);
    lsi_buf_append(b, value, strlen(value) + 1);
}

/* The same for a tensor's description. */
static void note_tensor(struct lsi_buf *b, const char *name, enum lsi_dtype dtype, size_t rank,
                        const uint64_t *shape)
{
    lsi_buf_append(b, name, strlen(name) + 1);
    lsi_buf_printf(b, "%s", lsi_dtype_name(dtype));
    for (size_t i = 0; i < rank; i++)
        lsi_buf_printf(b, " %" PRIu64, shape[i]);
    lsi_buf_append(b, "", 1);
}

struct metadata {
    char version[MAX_VALUE];
    char state[N_STATE][MAX_VALUE];
    char (*settings)[MAX_VALUE]; /* [n_settings]; "" where the file has none */
};

static void put_metadata(struct lsi_st_writer *w, struct lsi_buf *noted, const struct lsi_state *s,
                         const struct lsi_setting *settings, size_t n)
{
    const char *keys[N_STATE];
    char values[N_STATE][MAX_VALUE], key[MAX_VALUE];
    note_value(noted, "format", "pt"); /* the writer's own, always first */
    lsi_st_put_metadata(w, "version", VERSION);
    note_value(noted, "version", VERSION);
    state_texts(s, keys, values);
    for (size_t i = 0; i < LSI_LEN(keys); i++) {
        lsi_st_put_metadata(w, keys[i], values[i]);
        note_value(noted, keys[i], values[i]);
    }
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, SETTING "%s", settings[i].name);
        lsi_st_put_metadata(w, key, settings[i].value);
        note_value(noted, key, settings[i].value);
    }
}

/* ---- writing --------------------------------------------------------------------------------------- */

ls_status lsi_state_path(char out[LSI_MODEL_PATH], const char *run, uint64_t step, ls_error *err)
{
    const int n = snprintf(out, LSI_MODEL_PATH, "%s/" FOLDER "/step-%08" PRIu64 ".safetensors", run, step);
    char folder[LSI_MODEL_PATH];
    if (n < 0 || n >= LSI_MODEL_PATH)
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the run is too long", run);
    if (mkdir(run, 0777) != 0 && errno != EEXIST)
        return lsi_fail(err, LS_E_IO, "cannot create the directory %s: %s", run, strerror(errno));
    snprintf(folder, sizeof folder, "%s/" FOLDER, run);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return lsi_fail(err, LS_E_IO, "cannot create the directory %s: %s", folder, strerror(errno));
    return LS_OK;
}

/* The numbers of the pieces in the order in which they are put: i-th piece -> its number. */
static size_t *list_pieces(const struct lsi_params *p, size_t n)
{
    struct piece x;
    size_t *list = lsi_calloc(p->alloc, n + 1, sizeof *list), k = 0;
    for (size_t i = 0; list && i < n_numbers(p); i++)
        if (get_piece(p, i, &x))
            list[k++] = i;
    return list;
}

static void put_pieces(struct lsi_st_writer *w, const struct lsi_params *p, const size_t *list, size_t n)
{
    struct piece x;
    const uint64_t sums = (n + 1) * sizeof(uint64_t);
    for (size_t i = 0; i < n; i++) {
        get_piece(p, list[i], &x);
        lsi_st_put_tensor(w, x.name, x.dtype, x.rank, x.shape);
    }
    lsi_st_put_tensor(w, CHECKSUMS, LSI_U8, 1, &sums);
}

/* Data and its checksum in one pass: every piece is read from memory once. */
static uint64_t write_piece(struct lsi_st_writer *w, const struct piece *x)
{
    struct sum s = { 0 };
    for (size_t at = 0; at < x->bytes; at += PIECE) {
        const size_t n = lsi_min_size(PIECE, x->bytes - at);
        sum_add(&s, (const unsigned char *)x->data + at, n);
        lsi_st_write_data(w, (const unsigned char *)x->data + at, n);
    }
    return sum_value(&s);
}

static ls_status write_all(struct lsi_st_writer *w, const struct lsi_params *p, const size_t *list, size_t n,
                           struct lsi_buf *noted, uint64_t *sums, ls_error *err)
{
    struct piece x;
    LSI_TRY(lsi_st_writer_begin(w, err));
    for (size_t i = 0; i < n; i++) {
        const size_t k = lsi_st_writer_order(w, i);
        if (k == n)
            return lsi_fail(err, LS_E_INVAL, "a parameter's name sorts behind " CHECKSUMS);
        get_piece(p, list[k], &x);
        note_tensor(noted, x.name, x.dtype, x.rank, x.shape);
        sums[i + 1] = write_piece(w, &x);
    }
    if (noted->failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory to write a checkpoint");
    sums[0] = sum_of(noted->data, noted->len);
    lsi_st_write_data(w, sums, (n + 1) * sizeof *sums);
    return LS_OK;
}

ls_status lsi_state_save(const char *path, const struct lsi_params *p, const struct lsi_state *s,
                         const struct lsi_setting *settings, size_t n_settings, ls_error *err)
{
    const size_t n = count_pieces(p);
    struct lsi_st_writer *w = NULL;
    struct lsi_buf noted;
    ls_status st;

    lsi_buf_init(&noted, p->alloc, PIECE);
    size_t *list = list_pieces(p, n);
    uint64_t *sums = lsi_calloc(p->alloc, n + 1, sizeof *sums);
    if (!list || !sums) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory to write %s", path);
        goto end;
    }
    LSI_TRY_OR(end, lsi_st_writer_create(&w, path, p->alloc, err));
    put_metadata(w, &noted, s, settings, n_settings);
    put_pieces(w, p, list, n);
    LSI_TRY_OR(end, write_all(w, p, list, n, &noted, sums, err));
    st = lsi_st_writer_commit(w, err);
    w = NULL;
end:
    lsi_st_writer_free(w);
    lsi_buf_fini(&noted);
    lsi_free(p->alloc, list, (n + 1) * sizeof *list);
    lsi_free(p->alloc, sums, (n + 1) * sizeof *sums);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* What a reader carries. */
struct reader {
    const char *path;
    const ls_alloc *alloc;
    struct lsi_safetensors file;
    struct metadata meta;
    struct lsi_buf noted; /* keys and values as they come */
    const struct lsi_setting *settings;
    size_t n_settings;
    ls_error *err;
};

static ls_status damaged(const struct reader *r, const char *what)
{
    return lsi_fail(r->err, LS_E_FORMAT, "%s is damaged: %s", r->path, what);
}

/* Where the value of a key goes; NULL: nowhere. */
static char *place_of(struct reader *r, const struct lsi_json_str *key)
{
    static const struct lsi_state none;
    const char *keys[N_STATE];
    char values[N_STATE][MAX_VALUE], name[MAX_VALUE];
    state_texts(&none, keys, values);
    if (lsi_json_str_is(key, "version"))
        return r->meta.version;
    for (size_t i = 0; i < LSI_LEN(keys); i++)
        if (lsi_json_str_is(key, keys[i]))
            return r->meta.state[i];
    for (size_t i = 0; i < r->n_settings; i++) {
        snprintf(name, sizeof name, SETTING "%s", r->settings[i].name);
        if (lsi_json_str_is(key, name))
            return r->meta.settings[i];
    }
    return NULL;
}

static ls_status read_member(struct reader *r, struct lsi_json *j, const struct lsi_json_str *key)
{
    struct lsi_json_str value;
    char unknown[MAX_VALUE], name[MAX_VALUE];
    char *out = place_of(r, key);
    LSI_TRY(lsi_json_string(j, &value));
    if (value.len >= MAX_VALUE || key->len >= MAX_VALUE)
        return damaged(r, "its metadata is too long");
    if (!out)
        out = unknown;
    out[lsi_json_unescape(&value, out)] = '\0';
    name[lsi_json_unescape(key, name)] = '\0';
    note_value(&r->noted, name, out);
    return LS_OK;
}

static ls_status read_metadata(struct reader *r)
{
    const struct lsi_map *m = &r->file.maps[0];
    struct lsi_json j;
    struct lsi_json_str key;
    uint64_t header;
    memcpy(&header, m->data, sizeof header); /* checked by lsi_st_open, as all of the header's syntax */
    lsi_json_init(&j, m->data + sizeof header, (size_t)header, r->path, r->err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (!lsi_json_str_is(&key, "__metadata__")) {
            LSI_TRY(lsi_json_skip(&j));
            continue;
        }
        LSI_TRY(lsi_json_object(&j));
        while (lsi_json_next_key(&j, &key))
            LSI_TRY(read_member(r, &j, &key));
    }
    LSI_TRY(lsi_json_end(&j));
    if (r->meta.version[0] == '\0')
        return damaged(r, "it is no checkpoint of a run");
    return LS_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct lsi_st_tensor *const *x = a, *const *y = b;
    return (*x)->data < (*y)->data ? -1 : (*x)->data > (*y)->data;
}

/* Tensors in the order of the file against their sums. */
static ls_status check_sums(struct reader *r)
{
    const size_t n = r->file.n_tensors;
    const struct lsi_st_tensor *sums = lsi_st_find(&r->file, CHECKSUMS);
    ls_status st = LS_OK;
    uint64_t want;
    if (!sums || sums->bytes != n * sizeof want)
        return damaged(r, "it has no checksums");
    const struct lsi_st_tensor **order = lsi_calloc(r->alloc, n, sizeof *order);
    if (!order)
        return lsi_fail(r->err, LS_E_NOMEM, "no memory to read %s", r->path);
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (&r->file.tensors[i] != sums)
            order[k++] = &r->file.tensors[i];
    qsort(order, k, sizeof *order, by_place);
    for (size_t i = 0; i < k; i++)
        note_tensor(&r->noted, order[i]->name, order[i]->dtype, order[i]->rank, order[i]->shape);
    memcpy(&want, sums->data, sizeof want);
    if (r->noted.failed)
        st = lsi_fail(r->err, LS_E_NOMEM, "no memory to read %s", r->path);
    else if (sum_of(r->noted.data, r->noted.len) != want)
        st = damaged(r, "its header does not fit its checksum");
    for (size_t i = 0; st == LS_OK && i < k; i++) {
        memcpy(&want, sums->data + (i + 1) * sizeof want, sizeof want);
        if (sum_of(order[i]->data, order[i]->bytes) != want)
            st = lsi_fail(r->err, LS_E_FORMAT, "%s is damaged: tensor %s does not fit its checksum", r->path,
                          order[i]->name);
    }
    lsi_free(r->alloc, order, n * sizeof *order);
    return st;
}

static ls_status check_settings(const struct reader *r)
{
    if (strcmp(r->meta.version, VERSION) != 0)
        return lsi_fail(r->err, LS_E_UNSUPPORTED,
                        "%s has version %s of checkpoints; this program reads " VERSION, r->path,
                        r->meta.version);
    for (size_t i = 0; i < r->n_settings; i++)
        if (strcmp(r->meta.settings[i], r->settings[i].value) != 0)
            return lsi_fail(r->err, LS_E_INVAL, "%s: the run was made with %s %s, not %s", r->path,
                            r->settings[i].name, r->meta.settings[i][0] ? r->meta.settings[i] : "(none)",
                            r->settings[i].value);
    return LS_OK;
}

static void shape_text(char *out, size_t cap, const char *dtype, size_t rank, const uint64_t *shape)
{
    size_t n = (size_t)snprintf(out, cap, "%s ", dtype);
    for (size_t i = 0; i < rank && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "[%" PRIu64 "]", shape[i]);
}

/* The same tensors, of the same types and shapes, no more and no less. */
static ls_status check_tensors(const struct reader *r, const struct lsi_params *p)
{
    struct piece x;
    char want[64], have[200];
    for (size_t i = 0; i < n_numbers(p); i++) {
        if (!get_piece(p, i, &x))
            continue;
        const struct lsi_st_tensor *t = lsi_st_find(&r->file, x.name);
        if (!t)
            return lsi_fail(r->err, LS_E_INVAL, "%s: the run trains no %s; this one does", r->path, x.name);
        if (t->dtype == x.dtype && t->rank == x.rank &&
            memcmp(t->shape, x.shape, x.rank * sizeof *x.shape) == 0)
            continue;
        shape_text(want, sizeof want, lsi_dtype_name(x.dtype), x.rank, x.shape);
        shape_text(have, sizeof have, t->dtype_name, t->rank, t->shape);
        return lsi_fail(r->err, LS_E_INVAL, "%s: tensor %s is %s, expected %s", r->path, x.name, have, want);
    }
    if (r->file.n_tensors != count_pieces(p) + 1)
        return lsi_fail(r->err, LS_E_INVAL, "%s: the run trains %zu tensors, this one %zu", r->path,
                        r->file.n_tensors - 1, count_pieces(p));
    return LS_OK;
}

static bool read_u64(const char *text, uint64_t *v)
{
    char *end;
    errno = 0;
    *v = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static bool read_bits(const char *text, double *v)
{
    char *end;
    errno = 0;
    const uint64_t bits = strtoull(text, &end, 16);
    memcpy(v, &bits, sizeof *v);
    return errno == 0 && end == text + 16 && *end == '\0';
}

static ls_status read_state(const struct reader *r, struct lsi_state *s)
{
    s->data = strtoull(r->meta.state[5], NULL, 16); /* files made before it was stored have none: 0 */
    if (read_u64(r->meta.state[0], &s->step) && read_u64(r->meta.state[1], &s->next_sequence) &&
        read_u64(r->meta.state[2], &s->tokens) && read_bits(r->meta.state[3], &s->seconds) &&
        read_bits(r->meta.state[4], &s->loss_mean))
        return LS_OK;
    return damaged(r, "its metadata is no state of a run");
}

/* Weights that are the nearest of their masters are not in the file. */
static void round_masters(struct lsi_params *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct lsi_param *x = &p->list[i];
        lsi_bf16 *w = x->w;
        if (!x->trained || !x->master || x->master == x->w)
            continue;
        if (x->dtype == LSI_F32)
            memcpy(x->w, x->master, x->n * sizeof(float));
        else
            for (size_t k = 0; k < x->n; k++)
                w[k] = lsi_bf16_from_f32(x->master[k]);
    }
}

static ls_status load(struct reader *r, struct lsi_params *p, struct lsi_state *s)
{
    struct lsi_state state = { 0 };
    struct piece x;
    LSI_TRY(lsi_st_open(&r->file, r->path, r->alloc, r->err));
    LSI_TRY(read_metadata(r));
    LSI_TRY(check_sums(r));
    LSI_TRY(check_settings(r));
    LSI_TRY(check_tensors(r, p));
    LSI_TRY(read_state(r, &state));
    for (size_t i = 0; i < n_numbers(p); i++)
        if (get_piece(p, i, &x))
            memcpy(x.data, lsi_st_find(&r->file, x.name)->data, x.bytes);
    round_masters(p);
    *s = state;
    return LS_OK;
}

ls_status lsi_state_load(const char *path, struct lsi_params *p, struct lsi_state *s,
                         const struct lsi_setting *settings, size_t n_settings, ls_error *err)
{
    struct reader r = {
        .path = path, .alloc = p->alloc, .settings = settings, .n_settings = n_settings, .err = err
    };
    lsi_buf_init(&r.noted, p->alloc, PIECE);
    r.meta.settings = lsi_calloc(p->alloc, n_settings + 1, sizeof *r.meta.settings);
    const ls_status st =
        r.meta.settings ? load(&r, p, s) : lsi_fail(err, LS_E_NOMEM, "no memory to read %s", path);
    lsi_st_close(&r.file);
    lsi_free(p->alloc, r.meta.settings, (n_settings + 1) * sizeof *r.meta.settings);
    lsi_buf_fini(&r.noted);
    return st;
}

/* ---- the folder --------------------------------------------------------------------------------------- */

/* "step-00000123.safetensors" -> 123; false for other names. */
static bool read_name(const char *name, uint64_t *step)
{
    char *end;
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    errno = 0;
    *step = strtoull(name + 5, &end, 10);
    return errno == 0 && strcmp(end, ".safetensors") == 0;
}

/* The newest step below `below`; false: none. */
static bool newest_below(const char *run, uint64_t below, uint64_t *step)
{
    char folder[LSI_MODEL_PATH];
    bool found = false;
    uint64_t n;
    DIR *d = lsi_path_join(folder, sizeof folder, run, FOLDER) ? opendir(folder) : NULL;
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;)
        if (read_name(e->d_name, &n) && n < below && (!found || n > *step)) {
            *step = n;
            found = true;
        }
    if (d)
        closedir(d);
    return found;
}

ls_status lsi_state_latest(const char *run, struct lsi_params *p, struct lsi_state *s,
                           const struct lsi_setting *settings, size_t n_settings, lsi_note_fn *note,
                           void *user, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    ls_error failure;
    uint64_t step = UINT64_MAX;
    ls_status st = LS_OK;
    *s = (struct lsi_state){ .loss_mean = (double)NAN };
    while (newest_below(run, step, &step)) {
        LSI_TRY(lsi_state_path(path, run, step, err));
        st = lsi_state_load(path, p, s, settings, n_settings, &failure);
        if (st == LS_OK)
            return LS_OK;
        if (st == LS_E_INVAL || st == LS_E_NOMEM) /* older ones will not do either */
            return lsi_fail(err, st, "%s", failure.text);
        if (note)
            note(user, failure.text);
    }
    return st == LS_OK ? LS_OK : lsi_fail(err, st, "%s", failure.text);
}

/* What a writer that was killed left in a folder; the one that runs has none when this is called. */
static void remove_parts(const char *folder)
{
    static const char *const files[] = { "step-", "loss.svg", "metrics.jsonl", "run.json", "model.gguf" };
    char path[LSI_MODEL_PATH];
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;)
        for (size_t i = 0; i < LSI_LEN(files); i++)
            if (strncmp(e->d_name, files[i], strlen(files[i])) == 0 && strstr(e->d_name, LSI_PART) &&
                lsi_path_join(path, sizeof path, folder, e->d_name))
                unlink(path);
    if (d)
        closedir(d);
}

void lsi_state_prune(const char *run, size_t keep)
{
    char path[LSI_MODEL_PATH];
    uint64_t step = UINT64_MAX;
    remove_parts(run);
    if (lsi_path_join(path, sizeof path, run, FOLDER))
        remove_parts(path);
    for (size_t i = 0; newest_below(run, step, &step); i++)
        if (i >= lsi_max_size(keep, 1) && lsi_state_path(path, run, step, NULL) == LS_OK)
            unlink(path);
}

/*
 * Session files: what loads can be read from, added to, copied and taken back.
 *
 *     input   [ which --kv text | FILE if it is a whole file ] [ n ] bytes
 *
 * A whole file gets what a fuzzer does not find: zeros up to a multiple of ALIGN and n - 1 times as many
 * (n = 0: none), in place of zeros the model's fingerprint, the block and the --kv text, and its sum.
 * Otherwise the bytes are the state of a cache as its policy visits it, without the pages: they take none of
 * the input, so that what follows them is reached.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/digest.h"
#include "decode/context_impl.h"

#include "fuzz.h"

enum {
    FILE_BIT = 0x80,
    N_CTX = 600,
    N_ROWS = 8,
    PROMPT = 11,
    L = 2,
    H = 4,
    G = 2,
    D = 32,
    WINDOW = 70, /* of the second layer */
    MOST_PAGES = 24,
    ALIGN = 4096,
    AT_MODEL = 16, /* in the header of a file */
    AT_COMPUTE = 24,
    AT_KV = 48,
    KV_BYTES = 192,
};

static const char *const specs[] = {
    "full:bf16",
    "full:q8",
    "streaming:sink=4,recent=100",
    "streaming:sink=300,recent=20%,prompt=dense",
    "h2o:heavy=30,recent=30,sinks=2,chunk=16",
    "h2o:normalise=age,values=weigh",
    "snapkv:budget=40,window=8",
    "snapkv:budget=50%,window=8,layers=pyramid",
    "kivi:bits=2,residual=64",
    "kivi:bits=4,residual=32,sinks=4,fp32",
    "topk:k=40",
    "quest:budget=64,skip=0",
    "quest:budget=20%,skip=1,sets=per_q",
    "quest:budget=64,skip=0+kivi:bits=4,residual=64",
    "streaming:sink=4,recent=128+kivi:bits=2,residual=32",
    "h2o:heavy=64,recent=64+kivi:bits=2,residual=32",
    "snapkv:budget=64,window=8+kivi:bits=4,residual=32",
    "streaming:sink=4,recent=128,prompt=dense+kivi:bits=2,residual=32",
};

static ls_context *contexts[LSI_LEN(specs)]; /* made when they are first wanted */

static ls_context *context_of(size_t which)
{
    static bool sliding[L] = { false, true };
    static struct ls_model model = {
        .config = { .L = L,
                    .C = H * D,
                    .H = H,
                    .G = G,
                    .D = D,
                    .F = 16,
                    .V = 16,
                    .n_ctx_train = N_CTX,
                    .window = WINDOW,
                    .n_window_layers = 1,
                    .sliding = sliding },
        .source = { .is_gguf = true },
        .refs = 1,
    };
    ls_context_options o;
    ls_context_options_defaults(&o);
    o.n_ctx = N_CTX;
    o.n_threads = 1;
    o.block = N_ROWS;
    o.compute = LS_COMPUTE_FP32;
    o.kv = specs[which];
    if (!contexts[which])
        FUZZ_CHECK(ls_context_create(&model, &o, &contexts[which], NULL) == LS_OK);
    return contexts[which];
}

/* ---- using what was read -------------------------------------------------------------- */

static void check(const struct lsi_cache *c)
{
    static int64_t pos[N_CTX + 1];
    FUZZ_CHECK(c->policy->endless || c->length <= N_CTX);
    for (size_t l = 0; l < L; l++)
        for (size_t g = 0; g < G; g++) {
            const size_t n = c->policy->kept(c, l, g, NULL);
            FUZZ_CHECK(n <= N_CTX && n <= c->length);
            FUZZ_CHECK(c->policy->kept(c, l, g, pos) == n);
            for (size_t i = 0; i < n; i++)
                FUZZ_CHECK(pos[i] >= 0 && (size_t)pos[i] < c->length && (i == 0 || pos[i - 1] < pos[i]));
        }
    c->policy->bytes(c);
    if (c->policy->bytes_read)
        c->policy->bytes_read(c);
}

/* Rows through the first n_layers. */
static void layers(struct lsi_cache *c, struct lsi_exec *ex, size_t n_rows, size_t n_layers)
{
    static float q[N_ROWS][H * D], k[N_ROWS][G * D], v[N_ROWS][G * D];
    for (size_t t = 0; t < n_rows; t++)
        for (size_t i = 0; i < H * D; i++) {
            q[t][i] = (float)((i * 7 + t) % 13) - 6;
            k[t][i % (G * D)] = (float)((i * 5 + t) % 11) - 5;
            v[t][i % (G * D)] = (float)((i * 3 + t) % 9) - 4;
        }
    for (size_t l = 0; l < n_layers; l++) {
        const struct lsi_cache_query query = { .q = q[0],
                                               .out = q[0],
                                               .ldq = H * D,
                                               .ldo = H * D,
                                               .T = n_rows,
                                               .window = lsi_cache_window(&c->shape, l),
                                               .scale = 0.1f };
        c->policy->append(c, ex, l, k[0], G * D, v[0], G * D, n_rows);
        c->policy->attend(c, ex, l, &query);
    }
}

/* Tokens as a context appends them; false: no room. */
static bool append(struct lsi_cache *c, struct lsi_exec *ex, size_t n_tokens)
{
    c->n_prompt = n_tokens > 1 ? n_tokens : 0;
    for (size_t done = 0, rows; done < n_tokens; done += rows) {
        rows = lsi_min_size(N_ROWS, n_tokens - done);
        if (c->policy->block_rows)
            rows = lsi_min_size(rows, c->policy->block_rows(c));
        if (c->policy->reserve(c, rows, NULL) != LS_OK)
            return false;
        layers(c, ex, rows, L);
        c->policy->commit(c, rows);
    }
    if (n_tokens > 1 && c->policy->settle)
        c->policy->settle(c, ex);
    check(c);
    return true;
}

static void use(struct lsi_cache *c, struct lsi_exec *ex)
{
    struct lsi_cache *copy;
    check(c);
    if (c->policy->reserve(c, 1, NULL) == LS_OK)
        layers(c, ex, 1, 1); /* cancelled */
    FUZZ_CHECK(c->policy->fork(c, &copy, NULL) == LS_OK);
    if (append(copy, ex, 1) && append(copy, ex, PROMPT))
        append(copy, ex, 1);
    append(c, ex, 1);
    if (c->length > 0)
        (void)c->policy->rewind(c, c->length - 1, NULL);
    check(c);
    (void)c->policy->rewind(c, c->length / 2, NULL);
    append(c, ex, PROMPT);
    copy->policy->free(copy);
    FUZZ_CHECK(c->policy->rewind(c, 0, NULL) == LS_OK && c->length == 0);
    FUZZ_CHECK(append(c, ex, PROMPT) && append(c, ex, 1));
}

/* ---- a state ------------------------------------------------------------------------------- */

struct input {
    struct lsi_cache_io io;
    const uint8_t *data;
    size_t bytes, n_pages;
};

static ls_status read_bytes(struct lsi_cache_io *io, void *data, size_t n, ls_error *err)
{
    struct input *in = (struct input *)io;
    if (n > in->bytes)
        return lsi_fail(err, LS_E_FORMAT, "the input has ended");
    if (n)
        memcpy(data, in->data, n);
    in->data += n;
    in->bytes -= n;
    return LS_OK;
}

static ls_status read_pages(struct lsi_cache_io *io, struct lsi_kv_pages *t, size_t n, ls_error *err)
{
    struct input *in = (struct input *)io;
    if (n > in->n_pages || !lsi_kv_pages_grow(t, 1, n))
        return lsi_fail(err, LS_E_FORMAT, "the input has no more pages");
    in->n_pages -= n;
    return LS_OK;
}

static void run_state(ls_context *ctx, const uint8_t *data, size_t bytes)
{
    struct input in = { .io = { .reading = true, .name = "input", .bytes = read_bytes, .pages = read_pages },
                        .data = data,
                        .bytes = bytes,
                        .n_pages = MOST_PAGES };
    const struct lsi_cache *like = ctx->cache;
    struct lsi_cache *c;
    ls_error err = { 0 };
    FUZZ_CHECK(like->policy->create(&c, &like->shape, &like->spec, like->alloc, NULL) == LS_OK);
    if (c->policy->state(c, &in.io, &err) == LS_OK)
        use(c, &ctx->exec);
    else
        FUZZ_CHECK(err.text[0]);
    c->policy->free(c);
}

/* ---- a file ---------------------------------------------------------------------------------- */

/* Where the input has zeros, what the file must have. */
static void fill(unsigned char *p, size_t bytes, size_t at, const void *value, size_t n)
{
    static const char zeros[KV_BYTES];
    if (at + n <= bytes && memcmp(p + at, zeros, n) == 0)
        memcpy(p + at, value, n);
}

static void run_file(ls_context *ctx, const uint8_t *data, size_t bytes, size_t zeros)
{
    const size_t n = bytes + zeros + sizeof(uint64_t);
    unsigned char *p = lsi_calloc(NULL, n, 1);
    const uint64_t model = lsi_session_fingerprint(ctx->model), compute = LS_COMPUTE_FP32;
    struct lsi_digest d;
    ls_session session = { 0 };
    ls_error err = { 0 };
    char path[64];
    const int fd = memfd_create("session", MFD_CLOEXEC);
    FUZZ_CHECK(p && fd >= 0);
    if (bytes)
        memcpy(p, data, bytes);
    fill(p, bytes, AT_MODEL, &model, sizeof model);
    fill(p, bytes, AT_COMPUTE, &compute, sizeof compute);
    fill(p, bytes, AT_KV, ctx->kv, sizeof ctx->kv);
    lsi_digest_init(&d);
    lsi_digest_add(&d, p, n - sizeof(uint64_t));
    const uint64_t sum = lsi_digest_get(&d);
    memcpy(p + n - sizeof sum, &sum, sizeof sum);
    FUZZ_CHECK(write(fd, p, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    if (ls_context_load(ctx, path, &session, &err) == LS_OK) {
        FUZZ_CHECK(session.n_tokens == ls_context_length(ctx) && session.note[session.note_bytes] == 0);
        use(ctx->cache, &ctx->exec);
    } else {
        FUZZ_CHECK(err.text[0] && !session.tokens && !session.note);
    }
    ls_session_free(&session);
    close(fd);
    lsi_free(NULL, p, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 2)
        return 0;
    ls_context *ctx = context_of((data[0] & ~FILE_BIT) % LSI_LEN(specs));
    if (data[0] & FILE_BIT)
        run_file(ctx, data + 2, bytes - 2,
                 data[1] ? lsi_round_up(bytes - 2, ALIGN) - (bytes - 2) + (data[1] - 1u) * ALIGN : 0);
    else
        run_state(ctx, data + 2, bytes - 2);
    return 0;
}

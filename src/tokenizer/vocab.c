/* Tokens by id and by text; merges by pair. */
#include "tokenizer/tokenizer.h"

#include <string.h>

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

uint64_t lsi_hash_bytes(const char *s, size_t len)
{
    uint64_t h = 0x51ed270b35a2fd1bu ^ len, v;
    while (len >= 8) {
        memcpy(&v, s, 8);
        h = mix(h ^ v);
        s += 8;
        len -= 8;
    }
    v = 0;
    for (size_t i = 0; i < len; i++)
        v = v << 8 | (unsigned char)s[i];
    return mix(mix(h ^ v));
}

static size_t pow2_at_least(size_t n)
{
    size_t p = 16;
    while (p < n && p <= SIZE_MAX / 2)
        p *= 2;
    return p;
}

/* ---- filling -------------------------------------------------------------- */

static bool grow_tokens(ls_tokenizer *t, size_t n)
{
    if (n <= t->cap_tokens)
        return true;
    const size_t cap = lsi_max_size(n, t->cap_tokens + t->cap_tokens / 2);
    struct lsi_token *p = lsi_realloc(t->alloc, t->tokens, t->cap_tokens * sizeof *p, cap * sizeof *p);
    if (!p)
        return false;
    memset(p + t->cap_tokens, 0, (cap - t->cap_tokens) * sizeof *p);
    t->tokens = p;
    t->cap_tokens = cap;
    return true;
}

bool lsi_vocab_reserve(ls_tokenizer *t, size_t n_tokens, size_t text_bytes)
{
    if (n_tokens > LSI_TOKENS_MAX || !grow_tokens(t, n_tokens))
        return false;
    if (t->text.cap == 0 && text_bytes < t->text.max) {
        t->text.data = lsi_alloc(t->alloc, text_bytes + 1);
        if (!t->text.data)
            return false;
        t->text.cap = text_bytes + 1;
    }
    return true;
}

bool lsi_vocab_set(ls_tokenizer *t, size_t id, const char *s, size_t len, enum lsi_token_type type)
{
    if (id >= LSI_TOKENS_MAX || len > LSI_TOKEN_MAX_BYTES || !grow_tokens(t, id + 1))
        return false;
    const size_t off = t->text.len;
    if (!lsi_buf_append(&t->text, s, len))
        return false;
    for (; t->n_tokens <= id; t->n_tokens++)
        t->tokens[t->n_tokens].type = LSI_TOKEN_UNUSED;
    t->tokens[id] = (struct lsi_token){ .off = (uint32_t)off,
                                        .len = (uint32_t)len & LSI_TOKEN_MAX_BYTES,
                                        .type = (uint32_t)type & 0x7f };
    return true;
}

/* Letters of the byte-level alphabet to bytes; false when there is any other letter. */
static bool from_letters(const char *s, size_t len, char *out, size_t *out_len)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = (unsigned char)s[i];
        if (cp > 0x20 && cp < 0x7f) {
            out[n++] = s[i++];
            continue;
        }
        const size_t k = lsi_utf8_decode(s + i, len - i, &cp);
        const int b = k ? lsi_letter_byte(cp) : -1;
        if (b < 0)
            return false;
        out[n++] = (char)b;
        i += k;
    }
    *out_len = n;
    return true;
}

size_t lsi_vocab_bytes(const ls_tokenizer *t, const char *s, size_t len, char *out)
{
    size_t n = 0;
    if (t->byte_level) {
        if (from_letters(s, len, out, &n))
            return n;
    } else if (t->space_is_meta) {
        for (size_t i = 0; i < len;) {
            if (len - i >= 3 && memcmp(s + i, "\xe2\x96\x81", 3) == 0) {
                out[n++] = ' ';
                i += 3;
            } else {
                out[n++] = s[i++];
            }
        }
        return n;
    }
    if (len)
        memcpy(out, s, len);
    return len;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* <0xHH> */
static int byte_token(const char *s, size_t len)
{
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    const int hi = hex_digit(s[3]), lo = hex_digit(s[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

bool lsi_vocab_set_surface(ls_tokenizer *t, size_t id, const char *s, size_t len, enum lsi_token_type type)
{
    char small[256];
    if (type == LSI_TOKEN_BYTE) {
        const int b = byte_token(s, len);
        if (b >= 0) {
            small[0] = (char)b;
            return lsi_vocab_set(t, id, small, 1, LSI_TOKEN_BYTE);
        }
        type = LSI_TOKEN_NORMAL;
    }
    if (type == LSI_TOKEN_CONTROL || (type == LSI_TOKEN_USER && t->byte_level))
        return lsi_vocab_set(t, id, s, len, type);
    if (len <= sizeof small)
        return lsi_vocab_set(t, id, small, lsi_vocab_bytes(t, s, len, small), type);
    char *big = lsi_alloc(t->alloc, len);
    const bool ok = big && lsi_vocab_set(t, id, big, lsi_vocab_bytes(t, s, len, big), type);
    lsi_free(t->alloc, big, len);
    return ok;
}

bool lsi_vocab_name_bytes(ls_tokenizer *t)
{
    for (size_t id = 0; id < t->n_tokens; id++) {
        const int b = t->tokens[id].type == LSI_TOKEN_NORMAL
                          ? byte_token(lsi_token_text(t, id), t->tokens[id].len)
                          : -1;
        const char byte = (char)b;
        if (b >= 0 && !lsi_vocab_set(t, id, &byte, 1, LSI_TOKEN_BYTE))
            return false;
    }
    return true;
}

/* ---- index ---------------------------------------------------------------- */

static void index_put(ls_tokenizer *t, size_t id)
{
    const uint64_t h = lsi_hash_bytes(lsi_token_text(t, id), t->tokens[id].len);
    size_t at = h & (t->index_cap - 1);
    while (t->index[at])
        at = (at + 1) & (t->index_cap - 1);
    t->index[at] = (h >> 32) << 32 | (id + 1);
}

bool lsi_vocab_index(ls_tokenizer *t)
{
    t->index_cap = pow2_at_least(t->n_tokens * 2);
    t->index = lsi_calloc(t->alloc, t->index_cap, sizeof *t->index);
    if (!t->index)
        return false;
    for (size_t b = 0; b < 256; b++)
        t->byte_ids[b] = -1;
    /* Normal tokens first: a lookup meets them before others of the same text. */
    for (size_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i].type == LSI_TOKEN_NORMAL && t->tokens[i].len)
            index_put(t, i);
    for (size_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i].type != LSI_TOKEN_NORMAL && t->tokens[i].len)
            index_put(t, i);
    for (size_t i = 0; i < t->n_tokens; i++) {
        const struct lsi_token *k = &t->tokens[i];
        const bool right = t->byte_level ? k->type == LSI_TOKEN_NORMAL || k->type == LSI_TOKEN_USER
                                         : k->type == LSI_TOKEN_BYTE;
        if (k->len == 1 && right) {
            int32_t *slot = &t->byte_ids[(unsigned char)*lsi_token_text(t, i)];
            if (*slot < 0 || (t->tokens[*slot].type == LSI_TOKEN_USER && k->type == LSI_TOKEN_NORMAL))
                *slot = (int32_t)i;
        }
    }
    return true;
}

/* User-defined tokens take part in merges where a list says so; by score they are only found in the text. */
static int32_t find(const ls_tokenizer *t, const char *s, size_t len, bool any)
{
    if (len == 0 || len > LSI_TOKEN_MAX_BYTES || t->index_cap == 0)
        return -1;
    const uint64_t h = lsi_hash_bytes(s, len);
    for (size_t at = h & (t->index_cap - 1); t->index[at]; at = (at + 1) & (t->index_cap - 1)) {
        if (t->index[at] >> 32 != h >> 32)
            continue;
        const size_t id = (uint32_t)t->index[at] - 1;
        const struct lsi_token *k = &t->tokens[id];
        if (k->len == len && memcmp(lsi_token_text(t, id), s, len) == 0 &&
            (any || k->type == LSI_TOKEN_NORMAL || (k->type == LSI_TOKEN_USER && !t->scores)))
            return (int32_t)id;
    }
    return -1;
}

int32_t lsi_vocab_find(const ls_tokenizer *t, const char *s, size_t len)
{
    return find(t, s, len, false);
}

int32_t lsi_vocab_find_any(const ls_tokenizer *t, const char *s, size_t len)
{
    return find(t, s, len, true);
}

/* ---- merges ---------------------------------------------------------------- */

bool lsi_merges_reserve(ls_tokenizer *t, size_t n)
{
    t->merges_cap = pow2_at_least(n * 2);
    size_t bytes;
    if (n > SIZE_MAX / 4 || !lsi_mul_size(t->merges_cap, sizeof *t->merges, &bytes)) {
        t->merges_cap = 0;
        return false;
    }
    t->merges = lsi_alloc(t->alloc, bytes);
    if (!t->merges) {
        t->merges_cap = 0;
        return false;
    }
    memset(t->merges, 0xff, bytes);
    return true;
}

static size_t merge_slot(const ls_tokenizer *t, uint64_t pair)
{
    return mix(mix(pair)) & (t->merges_cap - 1);
}

static bool merges_grow(ls_tokenizer *t)
{
    struct lsi_merge *old = t->merges;
    const size_t old_cap = t->merges_cap;
    if (!lsi_merges_reserve(t, old_cap)) {
        t->merges = old;
        t->merges_cap = old_cap;
        return false;
    }
    for (size_t i = 0; i < old_cap; i++) {
        if (old[i].pair == UINT64_MAX)
            continue;
        size_t at = merge_slot(t, old[i].pair);
        while (t->merges[at].pair != UINT64_MAX)
            at = (at + 1) & (t->merges_cap - 1);
        t->merges[at] = old[i];
    }
    lsi_free(t->alloc, old, old_cap * sizeof *old);
    return true;
}

static bool merges_put(ls_tokenizer *t, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = merge_slot(t, pair);
    for (; t->merges[at].pair != UINT64_MAX; at = (at + 1) & (t->merges_cap - 1))
        if (t->merges[at].pair == pair)
            return true; /* said twice: the first has the lower rank */
    if ((t->n_merges + 1) * 2 > t->merges_cap) {
        if (!merges_grow(t))
            return false;
        return merges_put(t, left, right, rank, id);
    }
    t->merges[at] = (struct lsi_merge){ .pair = pair, .rank = rank, .id = (uint32_t)id };
    t->n_merges++;
    return true;
}

const struct lsi_merge *lsi_merges_find(const ls_tokenizer *t, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t at = merge_slot(t, pair); t->merges[at].pair != UINT64_MAX;
         at = (at + 1) & (t->merges_cap - 1))
        if (t->merges[at].pair == pair)
            return &t->merges[at];
    return NULL;
}

static bool is_token(const ls_tokenizer *t, size_t id, const char *s, size_t len)
{
    return id < t->n_tokens && t->tokens[id].len == len && t->tokens[id].type == LSI_TOKEN_NORMAL &&
           memcmp(lsi_token_text(t, id), s, len) == 0;
}

bool lsi_merges_add(ls_tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len,
                    uint32_t rank)
{
    char small[512];
    size_t len;
    if (!lsi_add_size(left_len, right_len, &len))
        return false;
    char *s = len <= sizeof small ? small : lsi_alloc(t->alloc, len);
    if (!s)
        return false;
    const size_t a = lsi_vocab_bytes(t, left, left_len, s);
    const size_t b = lsi_vocab_bytes(t, right, right_len, s + a);
    const int32_t l = lsi_vocab_find(t, s, a), r = lsi_vocab_find(t, s + a, b);
    bool ok = true;
    if (l >= 0 && r >= 0) {
        /* Vocabularies mostly list the results in the order of the merges: try the next id first. */
        const size_t guess = t->n_merges ? t->last_merged + 1 : 0;
        const int32_t id = is_token(t, guess, s, a + b) ? (int32_t)guess : lsi_vocab_find(t, s, a + b);
        ok = id < 0 || merges_put(t, l, r, rank, id);
        if (id >= 0)
            t->last_merged = (size_t)id;
    }
    if (s != small)
        lsi_free(t->alloc, s, len);
    return ok;
}

/* ---- seams ----------------------------------------------------------------- */

static size_t seam_of(const char *a, size_t a_len, const char *b, size_t b_len)
{
    uint64_t v = 0;
    for (size_t i = 0; i < a_len; i++)
        v = v << 8 | (unsigned char)a[i];
    for (size_t i = 0; i < b_len; i++)
        v = v << 8 | (unsigned char)b[i];
    return (v * 0x9e3779b97f4a7c15u) >> (64 - LSI_SEAM_BITS);
}

bool lsi_vocab_note_seams(ls_tokenizer *t)
{
    t->seam_bits = lsi_calloc(t->alloc, 1, LSI_SEAM_BYTES);
    if (!t->seam_bits)
        return false;
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->tokens[id].type != LSI_TOKEN_NORMAL && t->tokens[id].type != LSI_TOKEN_USER)
            continue;
        const char *s = lsi_token_text(t, id), *end = s + t->tokens[id].len;
        uint32_t cp;
        size_t k = s < end ? lsi_char_at(s, (size_t)(end - s), &cp) : 0;
        while (s + k < end) {
            const size_t next = lsi_char_at(s + k, (size_t)(end - s) - k, &cp);
            const size_t bit = seam_of(s, k, s + k, next);
            t->seam_bits[bit >> 5] |= 1u << (bit & 31);
            s += k;
            k = next;
        }
    }
    return true;
}

bool lsi_vocab_may_join(const ls_tokenizer *t, const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (!t->seam_bits)
        return true;
    const size_t bit = seam_of(a, a_len, b, b_len);
    return t->seam_bits[bit >> 5] >> (bit & 31) & 1;
}

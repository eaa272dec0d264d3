/*
 * Added tokens: found in the text before anything else, leftmost first, then longest.
 *
 * A trie walked from each position gives that order directly, and which tokens count can be decided match
 * by match (control tokens may be forbidden in parts of a text). The first step is a table of 256, so a
 * position where nothing begins costs one load, however many tokens there are.
 */
#include "tokenizer/tokenizer.h"

#include <string.h>

bool lsi_added_push(ls_tokenizer *t, const struct lsi_added *a, const char *s, size_t len)
{
    if (len == 0)
        return true; /* would match everywhere */
    struct lsi_added *p = lsi_grow(t->alloc, t->added, t->n_added, &t->cap_added, 32, sizeof *p);
    if (!p)
        return false;
    t->added = p;
    struct lsi_added *slot = &t->added[t->n_added];
    *slot = *a;
    slot->off = (uint32_t)t->added_text.len;
    slot->len = (uint32_t)len;
    if (!lsi_buf_append(&t->added_text, s, len))
        return false;
    t->n_added++;
    return true;
}

/* ---- trie ------------------------------------------------------------------- */

static uint32_t trie_step(const struct lsi_trie *trie, uint32_t node, unsigned char byte)
{
    if (node == 0)
        return trie->root[byte];
    uint32_t n = trie->nodes[node].child;
    while (n && trie->nodes[n].byte != byte)
        n = trie->nodes[n].next;
    return n;
}

static uint32_t trie_new_node(ls_tokenizer *t, struct lsi_trie *trie)
{
    if (trie->n == UINT32_MAX)
        return 0;
    struct lsi_trie_node *p = lsi_grow(t->alloc, trie->nodes, trie->n, &trie->cap, 256, sizeof *p);
    if (!p)
        return 0;
    trie->nodes = p;
    trie->nodes[trie->n] = (struct lsi_trie_node){ .added = -1 };
    return (uint32_t)trie->n++;
}

static bool trie_add(ls_tokenizer *t, struct lsi_trie *trie, const char *s, size_t len, size_t added)
{
    if (trie->n == 0)
        trie_new_node(t, trie); /* the root */
    if (trie->n == 0)
        return false;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        const unsigned char byte = (unsigned char)s[i];
        uint32_t to = trie_step(trie, node, byte);
        if (to == 0) {
            to = trie_new_node(t, trie);
            if (to == 0)
                return false;
            struct lsi_trie_node *fresh = &trie->nodes[to];
            fresh->byte = byte;
            if (node == 0) {
                trie->root[byte] = to;
            } else {
                fresh->next = trie->nodes[node].child;
                trie->nodes[node].child = to;
            }
        }
        node = to;
    }
    if (trie->nodes[node].added < 0) /* of two equal texts the first counts */
        trie->nodes[node].added = (int32_t)added;
    return true;
}

bool lsi_added_index(ls_tokenizer *t)
{
    struct lsi_buf norm;
    lsi_buf_init(&norm, t->alloc, LSI_TOKEN_MAX_BYTES);
    bool ok = true;
    for (size_t i = 0; ok && i < t->n_added; i++) {
        const struct lsi_added *a = &t->added[i];
        const char *s = t->added_text.data + a->off;
        if (t->user_after_norm && !a->special) {
            ok = trie_add(t, &t->norm_trie, s, a->len, i);
            continue;
        }
        if (!a->normalized || a->special || lsi_normalize_is_identity(t, s, a->len, true)) {
            ok = trie_add(t, &t->raw_trie, s, a->len, i);
            continue;
        }
        norm.len = 0;
        ok = lsi_normalize(t, s, a->len, true, &norm, NULL) == LS_OK &&
             (norm.len == 0 || trie_add(t, &t->norm_trie, norm.data, norm.len, i));
    }
    lsi_buf_fini(&norm);
    return ok;
}

/* ---- matching ---------------------------------------------------------------- */

static bool in_plain_range(size_t begin, size_t end, const ls_byte_range *plain, size_t n_plain)
{
    size_t lo = 0, hi = n_plain; /* first range that ends after begin */
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (plain[mid].end <= begin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n_plain && plain[lo].begin < end;
}

static bool word_before(const char *s, size_t at)
{
    size_t k = at;
    while (k > 0 && at - k < 4) {
        k--;
        if (((unsigned char)s[k] & 0xc0) != 0x80)
            break;
    }
    uint32_t cp;
    return at > 0 && lsi_utf8_decode(s + k, at - k, &cp) && lsi_char_is_word(cp);
}

static bool word_after(const char *s, size_t len, size_t at)
{
    uint32_t cp;
    return at < len && lsi_utf8_decode(s + at, len - at, &cp) && lsi_char_is_word(cp);
}

/* Move the ends over neighbouring white space where the token asks for it. */
static void swallow_space(const struct lsi_added *a, const char *s, size_t len, size_t from,
                          struct lsi_match *m)
{
    uint32_t cp;
    while (a->rstrip && m->end < len) {
        const size_t k = lsi_char_at(s + m->end, len - m->end, &cp);
        if (lsi_char_class_of(cp) != LSI_CHAR_SPACE)
            break;
        m->end += k;
    }
    while (a->lstrip && m->begin > from) {
        size_t k = m->begin - 1;
        while (k > from && m->begin - k < 4 && ((unsigned char)s[k] & 0xc0) == 0x80)
            k--;
        if (lsi_char_at(s + k, m->begin - k, &cp) != m->begin - k || lsi_char_class_of(cp) != LSI_CHAR_SPACE)
            break;
        m->begin = k;
    }
}

struct lsi_match lsi_added_next(const ls_tokenizer *t, const struct lsi_trie *trie, const char *s, size_t len,
                                size_t from, bool special, const ls_byte_range *plain, size_t n_plain)
{
    const struct lsi_match none = { len, len, -1 };
    if (trie->n == 0)
        return none;
    for (size_t i = from; i < len; i++) {
        uint32_t node = trie->root[(unsigned char)s[i]];
        struct lsi_match best = none;
        for (size_t k = i + 1; node; k++) {
            const int32_t added = trie->nodes[node].added;
            if (added >= 0) {
                const struct lsi_added *a = &t->added[added];
                const bool allowed = !a->special || (special && !in_plain_range(i, k, plain, n_plain));
                if (allowed && !(a->single_word && (word_before(s, i) || word_after(s, len, k))))
                    best = (struct lsi_match){ i, k, added };
            }
            if (k == len)
                break;
            node = trie_step(trie, node, (unsigned char)s[k]);
        }
        if (best.added >= 0) {
            swallow_space(&t->added[best.added], s, len, from, &best);
            return best;
        }
    }
    return none;
}

/* ---- tokens that end an answer ------------------------------------------------ */

void lsi_mark_stop(ls_tokenizer *t, int32_t id)
{
    if (id >= 0 && (size_t)id < t->n_tokens)
        t->tokens[id].stop = 1;
}

static const char *const stop_texts[] = { "<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
                                          "<|endoftext|>", "<|eom_id|>", "<EOT>",   "<turn|>" };

bool lsi_is_stop_text(const char *s, size_t len)
{
    for (size_t i = 0; i < LSI_LEN(stop_texts); i++)
        if (strlen(stop_texts[i]) == len && memcmp(stop_texts[i], s, len) == 0)
            return true;
    return false;
}

void lsi_mark_stops(ls_tokenizer *t)
{
    lsi_mark_stop(t, t->eos);
    for (size_t i = 0; i < LSI_LEN(stop_texts); i++)
        lsi_mark_stop(t, lsi_vocab_find_any(t, stop_texts[i], strlen(stop_texts[i])));
}

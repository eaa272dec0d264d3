#include "eval/eval.h"

#include <string.h>

#include "base/digest.h"

static const char *const onsets[] = { "b", "bl", "br", "c",  "ch", "cl", "d", "dr", "f",  "fl", "g",  "gr",
                                      "h", "j",  "k",  "kr", "l",  "m",  "n", "p",  "pl", "pr", "qu", "r",
                                      "s", "sh", "st", "t",  "th", "tr", "v", "w",  "y",  "z" };
static const char *const vowels[] = {
    "a", "a", "a", "e", "e", "e", "i", "i", "o", "o", "u", "ai", "ea", "ou"
};
static const char *const codas[] = { "", "", "", "n", "r", "l", "s", "m", "t", "th", "x", "nd", "k" };

static const char *draw(struct lsi_rng *r, const char *const *list, size_t n)
{
    return list[lsi_rng_below(r, n)];
}

/* Two or three syllables: of the first there are some fifty million. */
void lsi_pseudo_word(struct lsi_rng *r, bool capital, char out[LSI_WORD_BYTES])
{
    const size_t syllables = 2 + (lsi_rng_below(r, 3) == 0);
    size_t n = 0;
    for (size_t i = 0; i < syllables; i++) {
        const char *onset = draw(r, onsets, LSI_LEN(onsets)), *vowel = draw(r, vowels, LSI_LEN(vowels));
        const char *coda = draw(r, codas, LSI_LEN(codas));
        n += (size_t)snprintf(out + n, LSI_WORD_BYTES - n, "%s%s%s", onset, vowel, coda);
    }
    if (capital)
        out[0] = (char)(out[0] - 'a' + 'A');
}

void lsi_letters(struct lsi_rng *r, size_t n_letters, char out[LSI_WORD_BYTES])
{
    for (size_t i = 0; i < n_letters; i++)
        out[i] = (char)('a' + lsi_rng_below(r, 26));
    out[n_letters] = '\0';
}

void lsi_digits(struct lsi_rng *r, size_t n_digits, char out[LSI_WORD_BYTES])
{
    for (size_t i = 0; i < n_digits; i++)
        out[i] = (char)(i == 0 ? '1' + lsi_rng_below(r, 9) : '0' + lsi_rng_below(r, 10));
    out[n_digits] = '\0';
}

/* ---- words that have been used --------------------------------------------------------------- */

static uint64_t key_of(const char *word, size_t n)
{
    struct lsi_digest digest;
    lsi_digest_init(&digest);
    lsi_digest_add(&digest, word, n);
    return lsi_digest_get(&digest) | 1; /* 0 is a free slot */
}

/* The slot of a key, or the free one where it belongs. */
static uint64_t *slot_of(const struct lsi_used *u, uint64_t key)
{
    size_t at = (size_t)(key >> 1) & (u->cap - 1);
    while (u->slots[at] && u->slots[at] != key)
        at = (at + 1) & (u->cap - 1);
    return &u->slots[at];
}

static bool grow(struct lsi_used *u)
{
    struct lsi_used more = { .cap = u->cap ? 2 * u->cap : 64, .n = u->n };
    more.slots = lsi_calloc(NULL, more.cap, sizeof *more.slots);
    if (!more.slots)
        return false;
    for (size_t i = 0; i < u->cap; i++)
        if (u->slots[i])
            *slot_of(&more, u->slots[i]) = u->slots[i];
    lsi_used_fini(u);
    *u = more;
    return true;
}

/* Two words with one digest pass for one: a word is not used then, which does no harm. */
bool lsi_used_add(struct lsi_used *u, const char *word, size_t n)
{
    const uint64_t key = key_of(word, n);
    if (u->failed || (2 * u->n >= u->cap && !grow(u))) {
        u->failed = true;
        return false;
    }
    uint64_t *slot = slot_of(u, key);
    if (*slot)
        return false;
    *slot = key;
    u->n++;
    return true;
}

bool lsi_used_has(const struct lsi_used *u, const char *word, size_t n)
{
    return u->cap > 0 && *slot_of(u, key_of(word, n)) != 0;
}

void lsi_used_fini(struct lsi_used *u)
{
    lsi_free(NULL, u->slots, u->cap * sizeof *u->slots);
    *u = (struct lsi_used){ 0 };
}

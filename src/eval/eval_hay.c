#include "eval/eval.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define LONG_LINE     400 /* bytes: a longer one is cut into sentences */
#define LEAST_LINES   100 /* fewer are no text to hide anything in */
#define WORD_LEAST    4   /* letters of a word of the vocabulary */
#define WORD_MOST     12
#define WORDS_READ    ((size_t)16 << 20) /* bytes of the text that the vocabulary is taken from */
#define LEAST_WORDS   200                /* of a vocabulary */

#define MADE_UP_LINES 12000
#define MADE_UP_SEED  20240611

static void add_piece(struct lsi_buf *list, const char *s, size_t len)
{
    const struct lsi_piece p = { s, len };
    lsi_buf_append(list, &p, sizeof p);
}

static bool blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isspace((unsigned char)s[i]))
            return false;
    return true;
}

/* ---- lines -------------------------------------------------------------------------------------- */

/* Bytes of the first sentence of a long line, with its end. */
static size_t sentence(const char *s, size_t n)
{
    for (size_t i = LONG_LINE / 2; i + 1 < n; i++)
        if (strchr(".!?", s[i]) && s[i + 1] == ' ')
            return i + 1;
    return n;
}

/* Copy a line, each long sentence as a line of its own; returns the bytes written, at most n + n / 200 + 2.
 */
static size_t copy_line(char *out, const char *s, size_t n)
{
    size_t done = 0;
    while (n > 0) {
        const size_t take = n > LONG_LINE ? sentence(s, n) : n;
        memcpy(out + done, s, take);
        done += take;
        out[done++] = '\n';
        for (s += take, n -= take; n > 0 && *s == ' '; n--)
            s++;
    }
    return done;
}

static void find_lines(struct lsi_hay *h)
{
    for (size_t at = 0; at < h->bytes;) {
        const char *end = memchr(h->text + at, '\n', h->bytes - at);
        const size_t n = end ? (size_t)(end - (h->text + at)) + 1 : h->bytes - at;
        add_piece(&h->lines, h->text + at, n);
        at += n;
    }
}

/* ---- what texts are made up of -------------------------------------------------------------------- */

static const char *const qualities[] = { "old",    "young",   "patient",  "quiet",    "careful",
                                         "tired",  "clever",  "stubborn", "cheerful", "lonely",
                                         "honest", "curious", "proud",    "gentle",   "anxious",
                                         "famous", "humble",  "restless", "sleepy",   "thoughtful" };
static const char *const people[] = { "miller",   "teacher",   "sailor",    "gardener",  "widow",
                                      "doctor",   "shepherd",  "painter",   "clerk",     "baker",
                                      "captain",  "farmer",    "student",   "mason",     "fisherman",
                                      "judge",    "musician",  "messenger", "carpenter", "weaver",
                                      "merchant", "soldier",   "printer",   "hunter",    "librarian",
                                      "tailor",   "innkeeper", "traveller", "poet",      "smith" };
static const char *const deeds[] = { "carried",  "mended",  "sold",     "painted",   "found",    "forgot",
                                     "borrowed", "counted", "buried",   "described", "watched",  "measured",
                                     "returned", "cleaned", "wanted",   "dropped",   "examined", "wrapped",
                                     "hid",      "praised", "bought",   "repaired",  "followed", "kept",
                                     "showed",   "refused", "received", "burned",    "drew",     "noticed" };
static const char *const things[] = {
    "a heavy lantern",   "the wooden bridge",  "an empty barrel",   "the silver spoon",   "a torn letter",
    "the broken clock",  "a basket of pears",  "the narrow boat",   "a pair of gloves",   "the iron gate",
    "a sack of flour",   "the blue curtain",   "an unfinished map", "the copper kettle",  "a bundle of ropes",
    "the painted chest", "a loaf of bread",    "the garden wall",   "a handful of seeds", "the old violin",
    "a stack of books",  "the leather saddle", "a jar of honey",    "the stone oven",     "a woollen coat",
    "the church bell",   "a candle",           "the long ladder",   "a walking stick",    "the harvest song"
};
static const char *const places[] = { "near the frozen river",     "behind the market hall",
                                      "at the edge of the forest", "in the upper village",
                                      "beside the mill pond",      "under the great oak",
                                      "on the road to the coast",  "in the attic of the inn",
                                      "across the wet meadow",     "by the harbour steps",
                                      "outside the town gate",     "between the vineyards",
                                      "at the foot of the hill",   "in the shade of a barn",
                                      "along the sandy shore",     "above the quiet valley" };
static const char *const times[] = { "before the rain began",    "when the bells had rung",
                                     "late in the afternoon",    "after a long winter",
                                     "while the others slept",   "on the first warm day",
                                     "as soon as it grew dark",  "during the harvest",
                                     "without saying a word",    "as everybody had hoped",
                                     "for the second time",      "although nobody had asked",
                                     "until the fire went out",  "because the roof leaked",
                                     "once the guests had left", "in spite of the wind" };
static const char *const links[] = { "Meanwhile",       "Later",    "In the end", "At that hour",
                                     "Soon afterwards", "As usual", "To be sure", "Nevertheless" };

/* ---- vocabulary ----------------------------------------------------------------------------------- */

static int compare_pieces(const void *a, const void *b)
{
    const struct lsi_piece *x = a, *y = b;
    const int order = memcmp(x->s, y->s, lsi_min_size(x->len, y->len));
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

struct counted {
    struct lsi_piece word;
    size_t n;
};

/* The most frequent first; words are different, so that the order is always the same. */
static int compare_counts(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : compare_pieces(&x->word, &y->word);
}

/* Each word once. */
static ls_status count_words(struct lsi_buf *words, ls_error *err)
{
    struct lsi_piece *w = (struct lsi_piece *)(void *)words->data;
    const size_t found = words->len / sizeof *w;
    struct counted *c = lsi_calloc(NULL, found, sizeof *c);
    size_t n = 0;
    if (!c)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the words of the text to hide things in");
    qsort(w, found, sizeof *w, compare_pieces);
    for (size_t i = 0; i < found; i++) {
        if (n == 0 || compare_pieces(&c[n - 1].word, &w[i]) != 0)
            c[n++].word = w[i];
        c[n - 1].n++;
    }
    qsort(c, n, sizeof *c, compare_counts);
    for (size_t i = 0; i < n; i++)
        w[i] = c[i].word;
    words->len = n * sizeof *w;
    lsi_free(NULL, c, found * sizeof *c);
    return LS_OK;
}

static void add_words(struct lsi_hay *h, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add_piece(&h->words, words[i], strlen(words[i]));
}

/* Whole words of small letters: a name, which begins with a capital, is none. A text in another script has
 * few. */
static ls_status find_words(struct lsi_hay *h, ls_error *err)
{
    const size_t n = lsi_min_size(h->bytes, WORDS_READ);
    for (size_t i = 0; i < n;) {
        size_t len = 0;
        bool small = true;
        while (i + len < n && (isalpha((unsigned char)h->text[i + len]) || (h->text[i + len] & 0x80)))
            small &= h->text[i + len] >= 'a' && h->text[i + len] <= 'z', len++;
        if (small && len >= WORD_LEAST && len <= WORD_MOST)
            add_piece(&h->words, h->text + i, len);
        i += len ? len : 1;
    }
    if (h->words.len < LEAST_WORDS * sizeof(struct lsi_piece)) {
        add_words(h, qualities, LSI_LEN(qualities));
        add_words(h, people, LSI_LEN(people));
        add_words(h, deeds, LSI_LEN(deeds));
    }
    if (h->words.failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the words of the text to hide things in");
    return count_words(&h->words, err);
}

ls_status lsi_hay_init(struct lsi_hay *h, const char *text, size_t len, ls_error *err)
{
    const size_t cap = len + len / (LONG_LINE / 2) + 2;
    *h = (struct lsi_hay){ 0 };
    lsi_buf_init(&h->lines, NULL, SIZE_MAX / 4);
    lsi_buf_init(&h->words, NULL, SIZE_MAX / 4);
    if (len > 0 && memchr(text, '\0', len))
        return lsi_fail(err, LS_E_INVAL, "the text to hide things in has bytes 0: it is no text");
    h->text = lsi_alloc(NULL, cap);
    if (!h->text)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the %zu bytes of the text to hide things in", len);
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        const size_t n = end ? (size_t)(end - (text + at)) : len - at;
        if (!blank(text + at, n))
            h->bytes += copy_line(h->text + h->bytes, text + at, n);
        at += n + 1;
    }
    /* The block keeps its size for lsi_free. */
    char *fit = lsi_realloc(NULL, h->text, cap, lsi_max_size(h->bytes, 1));
    if (!fit) {
        lsi_free(NULL, h->text, cap);
        h->text = NULL;
        h->bytes = 0;
        return lsi_fail(err, LS_E_NOMEM, "no memory for the text to hide things in");
    }
    h->text = fit;
    find_lines(h);
    LSI_TRY(find_words(h, err));
    if (h->lines.failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory for the lines of the text to hide things in");
    if (lsi_hay_lines(h) < LEAST_LINES)
        return lsi_fail(err, LS_E_INVAL,
                        "the text to hide things in has %zu lines or long sentences: take one of at least %d",
                        lsi_hay_lines(h), LEAST_LINES);
    return LS_OK;
}

void lsi_hay_fini(struct lsi_hay *h)
{
    lsi_free(NULL, h->text, lsi_max_size(h->bytes, 1));
    lsi_buf_fini(&h->lines);
    lsi_buf_fini(&h->words);
    *h = (struct lsi_hay){ 0 };
}

size_t lsi_hay_lines(const struct lsi_hay *h)
{
    return h->lines.len / sizeof(struct lsi_piece);
}

struct lsi_piece lsi_hay_line(const struct lsi_hay *h, size_t i)
{
    return ((const struct lsi_piece *)(const void *)h->lines.data)[i % lsi_hay_lines(h)];
}

size_t lsi_hay_words(const struct lsi_hay *h)
{
    return h->words.len / sizeof(struct lsi_piece);
}

struct lsi_piece lsi_hay_word(const struct lsi_hay *h, size_t i)
{
    return ((const struct lsi_piece *)(const void *)h->words.data)[i];
}

/* ---- a text that is made up -------------------------------------------------------------------------- */

static const char *pick(struct lsi_rng *r, const char *const *list, size_t n)
{
    return list[lsi_rng_below(r, n)];
}
#define PICK(list) pick(r, list, LSI_LEN(list))

/* One of a few forms; drawn piece by piece, so that the order of draws is fixed. */
static void make_up_sentence(struct lsi_buf *b, struct lsi_rng *r)
{
    const uint64_t form = lsi_rng_below(r, 4);
    const char *quality = PICK(qualities), *person = PICK(people), *deed = PICK(deeds), *thing = PICK(things);
    const char *other = PICK(people), *place = PICK(places), *time = PICK(times), *link = PICK(links);
    if (form == 0)
        lsi_buf_printf(b, "The %s %s %s %s %s.", quality, person, deed, thing, place);
    else if (form == 1)
        lsi_buf_printf(b, "%s the %s %s %s %s, and the %s was glad of it.", link, person, deed, thing, time,
                       other);
    else if (form == 2)
        lsi_buf_printf(b, "The %s and the %s %s %s %s, %s.", person, other, deed, thing, place, time);
    else
        lsi_buf_printf(b, "%s, said the %s %s, the %s %s %s.", link, quality, person, other, deed, thing);
}

ls_status lsi_hay_init_made_up(struct lsi_hay *h, ls_error *err)
{
    struct lsi_rng r;
    struct lsi_buf b;
    lsi_rng_init(&r, MADE_UP_SEED);
    lsi_buf_init(&b, NULL, LSI_EVAL_TEXT_BYTES);
    for (size_t i = 0; i < MADE_UP_LINES; i++) {
        make_up_sentence(&b, &r);
        lsi_buf_append(&b, " ", 1);
        make_up_sentence(&b, &r);
        lsi_buf_append(&b, "\n", 1);
    }
    ls_status st = LS_OK;
    if (b.failed)
        st = lsi_fail(err, LS_E_NOMEM, "no memory for the text to hide things in");
    else
        st = lsi_hay_init(h, b.data, b.len, err);
    lsi_buf_fini(&b);
    return st;
}

/*
 * The tasks. needle-*, passkey, variable-tracking, common-words and frequent-words are those of RULER (Hsieh
 * et al. 2024), in words of our own except for the needle's; lines is line retrieval (Li et al. 2023), stream
 * is StreamEval (Xiao et al. 2023). A generator writes a draft with n units of text and asks about it; what
 * it hides it also notes as expected.
 */
#include "eval/eval.h"

#include <string.h>

#define DIGITS        5    /* of a number that is hidden */
#define NEEDLES       4    /* of multi-key, multi-value and multi-query */
#define HOPS          4    /* assignments of a variable by another one */
#define COMMON        10   /* words that are common */
#define LONG_TEXT     4096 /* tokens from which on words are repeated as often as in long texts */
#define CODED_LETTERS 6
#define STREAM_EVERY  10   /* lines between questions */
#define STREAM_BACK   20   /* lines between the one that is asked for and the question */
#define CUE           8    /* words that say where to copy from */
#define COPIED        5    /* words to copy */
#define COPY_WORDS    300  /* the most frequent words, of which random texts are made */
#define LIST_WORDS    4000 /* and lists */
#define LETTERS       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/* ---- pieces ----------------------------------------------------------------------------------------- */

static void new_name(struct lsi_draft *d, char out[LSI_WORD_BYTES])
{
    do
        lsi_pseudo_word(&d->rng, true, out);
    while (!lsi_used_add(&d->used, out, strlen(out)) && !d->used.failed);
}

static void new_number(struct lsi_draft *d, char out[LSI_WORD_BYTES])
{
    do
        lsi_digits(&d->rng, DIGITS, out);
    while (!lsi_used_add(&d->used, out, strlen(out)) && !d->used.failed);
}

static void expect(struct lsi_draft *d, const char *s)
{
    lsi_draft_expect(d, s, strlen(s));
}

/* Places 0 .. n, ascending. */
static void draw_places(struct lsi_draft *d, size_t *places, size_t k, size_t n)
{
    for (size_t i = 0; i < k; i++)
        places[i] = (size_t)lsi_rng_below(&d->rng, n + 1);
    for (size_t i = 1; i < k; i++) /* a few: by insertion */
        for (size_t j = i; j > 0 && places[j - 1] > places[j]; j--) {
            const size_t t = places[j];
            places[j] = places[j - 1];
            places[j - 1] = t;
        }
}

#define HIDDEN_BYTES 192

/* n lines of hay from a random place on, with each hidden line at a random place between them. */
static void hide_in_hay(struct lsi_draft *d, size_t n, char (*hidden)[HIDDEN_BYTES], size_t k)
{
    const struct lsi_hay *hay = &d->source->hay;
    const size_t begin = (size_t)lsi_rng_below(&d->rng, lsi_hay_lines(hay));
    size_t places[NEEDLES + HOPS + 1], next = 0;
    draw_places(d, places, k, n);
    for (size_t i = 0; i <= n; i++) {
        for (; next < k && places[next] == i; next++)
            lsi_draft_add(d, hidden[next], strlen(hidden[next]));
        if (i < n) {
            const struct lsi_piece line = lsi_hay_line(hay, begin + i);
            lsi_draft_add(d, line.s, line.len);
        }
    }
}

static const char *const filler[] = { "The road is long.", "The river is wide.", "The wind is cold.",
                                      "We walk and walk.", "Then we go home." };

/* n times the same sentences, with the hidden lines between them. */
static void hide_in_filler(struct lsi_draft *d, size_t n, char (*hidden)[HIDDEN_BYTES], size_t k)
{
    size_t places[NEEDLES + HOPS + 1], next = 0;
    draw_places(d, places, k, n);
    for (size_t i = 0; i <= n; i++) {
        for (; next < k && places[next] == i; next++)
            lsi_draft_add(d, hidden[next], strlen(hidden[next]));
        if (i < n)
            lsi_draft_put(d, "%s %s %s %s %s\n", filler[0], filler[1], filler[2], filler[3], filler[4]);
    }
}

/* "A", "A and B", "A, B, and C" */
static void put_list(struct lsi_draft *d, char (*names)[LSI_WORD_BYTES], size_t n)
{
    for (size_t i = 0; i < n; i++)
        lsi_draft_put(d, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : n > 2 ? ", and " : " and ", names[i]);
}

/* The n items in random order. */
static void shuffle(struct lsi_draft *d, struct lsi_piece *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)lsi_rng_below(&d->rng, i);
        const struct lsi_piece t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

/* ---- needles ------------------------------------------------------------------------------------------ */

static void write_needles(struct lsi_draft *d, size_t n, size_t n_keys, size_t n_values, size_t n_asked)
{
    const size_t k = n_keys * n_values;
    char keys[NEEDLES][LSI_WORD_BYTES], values[NEEDLES][LSI_WORD_BYTES], lines[NEEDLES][HIDDEN_BYTES];
    for (size_t i = 0; i < n_keys; i++)
        new_name(d, keys[i]);
    for (size_t i = 0; i < k; i++) {
        new_number(d, values[i]);
        snprintf(lines[i], sizeof lines[i], "One of the special magic numbers for %s is: %s.\n",
                 keys[i / n_values], values[i]);
    }
    lsi_draft_turn(d);
    lsi_draft_put(d, "Some special magic numbers are hidden within the following text.\n");
    hide_in_hay(d, n, lines, k);
    lsi_draft_question(d);
    /* Needles stand in the order of their keys, at random places: any of them may be asked for. */
    const size_t first = (size_t)lsi_rng_below(&d->rng, n_keys - n_asked + 1);
    const bool several = n_asked * n_values > 1;
    lsi_draft_put(d, several ? "What are all the special magic numbers for "
                             : "What is the special magic number for ");
    put_list(d, keys + first, n_asked);
    lsi_draft_put(d, " mentioned in the provided text?");
    lsi_draft_prefix(d);
    lsi_draft_put(d, several ? " The special magic numbers for " : " The special magic number for ");
    put_list(d, keys + first, n_asked);
    lsi_draft_put(d,
                  several ? " mentioned in the provided text are:" : " mentioned in the provided text is:");
    for (size_t i = 0; i < n_asked * n_values; i++)
        expect(d, values[first * n_values + i]);
}

static void write_single(struct lsi_draft *d, size_t n)
{
    write_needles(d, n, 1, 1, 1);
}

static void write_multikey(struct lsi_draft *d, size_t n)
{
    write_needles(d, n, NEEDLES, 1, 1);
}

static void write_multivalue(struct lsi_draft *d, size_t n)
{
    write_needles(d, n, 1, NEEDLES, 1);
}

static void write_multiquery(struct lsi_draft *d, size_t n)
{
    write_needles(d, n, NEEDLES, 1, NEEDLES);
}

static void write_passkey(struct lsi_draft *d, size_t n)
{
    char value[LSI_WORD_BYTES], line[1][HIDDEN_BYTES];
    new_number(d, value);
    snprintf(line[0], sizeof line[0], "The pass key is %s. Remember it. %s is the pass key.\n", value, value);
    lsi_draft_turn(d);
    hide_in_filler(d, n, line, 1);
    lsi_draft_question(d);
    lsi_draft_put(d, "What is the pass key?");
    lsi_draft_prefix(d);
    lsi_draft_put(d, " The pass key is");
    expect(d, value);
}

/* ---- variables -------------------------------------------------------------------------------------------
 */

static void draw_chain(struct lsi_draft *d, char names[HOPS + 1][LSI_WORD_BYTES], char value[LSI_WORD_BYTES],
                       char lines[HOPS + 1][HIDDEN_BYTES])
{
    new_number(d, value);
    for (size_t i = 0; i <= HOPS; i++) {
        do {
            lsi_letters(&d->rng, 5, names[i]);
            for (char *c = names[i]; *c; c++)
                *c = (char)(*c - 'a' + 'A');
        } while (!lsi_used_add(&d->used, names[i], strlen(names[i])) && !d->used.failed);
        if (i == 0)
            snprintf(lines[i], sizeof lines[i], "VAR %s = %s\n", names[i], value);
        else
            snprintf(lines[i], sizeof lines[i], "VAR %s = VAR %s\n", names[i], names[i - 1]);
    }
}

static void ask_chain(struct lsi_draft *d, const char *value)
{
    lsi_draft_put(d, "Question: Which variables have the value %s in the text above?", value);
}

static void begin_chain_answer(struct lsi_draft *d, const char *value)
{
    lsi_draft_put(
        d, " Answer: By the assignments in the text above, %d variables have the value %s:", HOPS + 1, value);
}

/* An example with its answer first, as in RULER. */
static void write_variables(struct lsi_draft *d, size_t n)
{
    static const char header[] =
        "Variables are assigned in the following text, one by a number and the others by a "
        "variable. Keep track of their values.\n";
    char names[HOPS + 1][LSI_WORD_BYTES], value[LSI_WORD_BYTES], lines[HOPS + 1][HIDDEN_BYTES];
    lsi_draft_turn(d);
    lsi_draft_put(d, "%s", header);
    draw_chain(d, names, value, lines);
    hide_in_filler(d, lsi_min_size(n, 3), lines, HOPS + 1);
    ask_chain(d, value);
    begin_chain_answer(d, value);
    for (size_t i = 0; i <= HOPS; i++)
        lsi_draft_put(d, " %s", names[i]);
    lsi_draft_put(d, "\n\n%s", header);
    draw_chain(d, names, value, lines);
    hide_in_filler(d, n, lines, HOPS + 1);
    lsi_draft_question(d);
    ask_chain(d, value);
    lsi_draft_prefix(d);
    begin_chain_answer(d, value);
    for (size_t i = 0; i <= HOPS; i++)
        expect(d, names[i]);
}

/* ---- words
 * --------------------------------------------------------------------------------------------------- */

/* A word that has not been used: of the text's vocabulary, or one that does not exist where that is spent. It
 * is kept behind the draft's strings. */
static struct lsi_piece new_word(struct lsi_draft *d, struct lsi_buf *made_up)
{
    const size_t n = lsi_min_size(lsi_hay_words(&d->source->hay), LIST_WORDS);
    for (size_t tries = 0; tries < 20; tries++) {
        const struct lsi_piece w = lsi_hay_word(&d->source->hay, (size_t)lsi_rng_below(&d->rng, n));
        if (lsi_used_add(&d->used, w.s, w.len))
            return w;
    }
    char word[LSI_WORD_BYTES];
    do
        lsi_pseudo_word(&d->rng, false, word);
    while (!lsi_used_add(&d->used, word, strlen(word)) && !d->used.failed);
    const struct lsi_piece w = { NULL, strlen(word) };
    lsi_buf_append(made_up, word, LSI_WORD_BYTES);
    return w;
}

/* Words of a sentence, in small letters as new_word's are, are not drawn any more. */
static void use_words(struct lsi_draft *d, const char *s)
{
    char word[LSI_WORD_BYTES];
    while (*s) {
        const size_t n = strspn(s, LETTERS);
        LSI_ASSERT(n < sizeof word);
        for (size_t i = 0; i < n; i++)
            word[i] = (char)(s[i] | ('a' - 'A'));
        if (n > 0)
            (void)lsi_used_add(&d->used, word, n);
        s += n > 0 ? n : 1;
    }
}

/* n different words, the common ones first. Words that were made up are found when all are there, because
 * their memory moves while it grows. */
static void draw_words(struct lsi_draft *d, struct lsi_buf *made_up, struct lsi_piece *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        words[i] = new_word(d, made_up);
    if (made_up->failed)
        return;
    for (size_t i = 0, at = 0; i < n; i++)
        if (!words[i].s)
            words[i].s = made_up->data + LSI_WORD_BYTES * at++;
}

static const char words_header[] =
    "Some words of the following numbered list stand there more often than the "
    "others. Remember them.\n";
static const char words_question[] = "Question: Which 10 words stand in the list most often?";
static const char words_prefix[] = " Answer: The 10 words that stand in the list most often are:";

/* A numbered list in which COMMON words stand `often` times and n others `seldom` times; notes the common
 * ones. */
static void put_word_list(struct lsi_draft *d, size_t n, size_t often, size_t seldom,
                          struct lsi_piece common[COMMON], struct lsi_buf *made_up)
{
    const size_t total = COMMON * often + n * seldom;
    struct lsi_piece *words = lsi_calloc(NULL, COMMON + n, sizeof *words);
    struct lsi_piece *list = lsi_calloc(NULL, total, sizeof *list);
    if (words && list) {
        size_t k = 0;
        draw_words(d, made_up, words, COMMON + n);
        for (size_t i = 0; i < COMMON + n; i++)
            for (size_t j = 0; j < (i < COMMON ? often : seldom); j++)
                list[k++] = words[i];
        shuffle(d, list, total);
        lsi_draft_put(d, "%s", words_header);
        for (size_t i = 0; i < total && !made_up->failed; i++)
            lsi_draft_put(d, "%s%zu. %.*s", i ? " " : "", i + 1, (int)list[i].len, list[i].s);
        lsi_draft_put(d, "\n");
        memcpy(common, words, COMMON * sizeof *common);
    } else {
        d->used.failed = true;
    }
    lsi_free(NULL, list, total * sizeof *list);
    lsi_free(NULL, words, (COMMON + n) * sizeof *words);
}

/* How often words are repeated is RULER's, for long texts and for short ones. */
static void write_common_words(struct lsi_draft *d, size_t n)
{
    const bool is_long = d->n_target >= LONG_TEXT;
    struct lsi_piece common[COMMON] = { { 0 } };
    struct lsi_buf made_up, made_up_before;
    lsi_buf_init(&made_up, NULL, SIZE_MAX / 4);
    lsi_buf_init(&made_up_before, NULL, SIZE_MAX / 4);
    use_words(d, words_header);
    use_words(d, words_question);
    use_words(d, words_prefix);
    lsi_draft_turn(d);
    put_word_list(d, is_long ? 30 : 10, is_long ? 10 : 3, is_long ? 3 : 1, common, &made_up_before);
    lsi_draft_put(d, "%s%s", words_question, words_prefix);
    for (size_t i = 0; i < COMMON && common[i].s; i++)
        lsi_draft_put(d, " %zu. %.*s", i + 1, (int)common[i].len, common[i].s);
    lsi_draft_put(d, "\n\n");
    put_word_list(d, n, is_long ? 30 : 6, is_long ? 3 : 1, common, &made_up);
    lsi_draft_question(d);
    lsi_draft_put(d, "%s", words_question);
    lsi_draft_prefix(d);
    lsi_draft_put(d, "%s", words_prefix);
    for (size_t i = 0; i < COMMON && common[i].s; i++)
        lsi_draft_expect(d, common[i].s, common[i].len);
    d->used.failed |= made_up.failed || made_up_before.failed;
    lsi_buf_fini(&made_up);
    lsi_buf_fini(&made_up_before);
}

/*
 * Coded words whose frequencies fall with the square of their rank (a zeta distribution with alpha 2). The
 * most frequent is noise, as in RULER: three dots, which the question leaves out.
 */
static void write_frequent_words(struct lsi_draft *d, size_t n)
{
    const double zeta2 = 1.6449340668482264;
    char word[LSI_WORD_BYTES], top[3][LSI_WORD_BYTES];
    struct lsi_buf coded;
    struct lsi_piece *list = lsi_calloc(NULL, n, sizeof *list);
    size_t total = 0;
    lsi_buf_init(&coded, NULL, SIZE_MAX / 4);
    if (!list) {
        d->used.failed = true;
        return;
    }
    /* Words first, then pieces of them: their memory moves while it grows. */
    for (size_t rank = 1;; rank++) {
        const size_t count = (size_t)((double)n / zeta2 / (double)(rank * rank));
        if (count == 0 || total + count > n)
            break;
        if (rank == 1) {
            memcpy(word, "...", 4);
        } else {
            do
                lsi_letters(&d->rng, CODED_LETTERS, word);
            while (!lsi_used_add(&d->used, word, strlen(word)) && !d->used.failed);
        }
        if (rank >= 2 && rank <= 4)
            memcpy(top[rank - 2], word, sizeof word);
        lsi_buf_append(&coded, word, LSI_WORD_BYTES);
        for (size_t i = 0; i < count; i++)
            list[total++].len = rank - 1;
    }
    for (size_t i = 0; i < total && !coded.failed; i++) {
        list[i].s = coded.data + LSI_WORD_BYTES * list[i].len;
        list[i].len = strlen(list[i].s);
    }
    lsi_draft_turn(d);
    lsi_draft_put(
        d,
        "The following text is made of coded words. Keep track of how often each of them stands there. The "
        "dots do not count.\n");
    if (!coded.failed) {
        shuffle(d, list, total);
        for (size_t i = 0; i < total; i++)
            lsi_draft_put(d, "%s%.*s", i ? " " : "", (int)list[i].len, list[i].s);
    }
    lsi_draft_put(d, "\n");
    lsi_draft_question(d);
    lsi_draft_put(d, "Question: Which three coded words stand in the text above most often?");
    lsi_draft_prefix(d);
    lsi_draft_put(d, " Answer: The three coded words that stand there most often are:");
    for (size_t i = 0; i < 3; i++)
        expect(d, top[i]);
    d->used.failed |= coded.failed;
    lsi_buf_fini(&coded);
    lsi_free(NULL, list, n * sizeof *list);
}

/* ---- lines
 * ----------------------------------------------------------------------------------------------------- */

/* Keys and contents of lines that have been written. */
struct listing {
    char key[LSI_WORD_BYTES], value[LSI_WORD_BYTES];
};

static void put_line(struct lsi_draft *d, struct listing *l)
{
    new_name(d, l->key);
    lsi_digits(&d->rng, DIGITS, l->value);
    lsi_draft_put(d, "line %s: the content is %s.\n", l->key, l->value);
}

static void ask_line(struct lsi_draft *d, const struct listing *l)
{
    lsi_draft_question(d);
    lsi_draft_put(d, "What is the content of line %s?", l->key);
    lsi_draft_prefix(d);
    lsi_draft_put(d, " line %s: the content is", l->key);
    expect(d, l->value);
}

static void write_lines(struct lsi_draft *d, size_t n)
{
    const size_t asked = (size_t)lsi_rng_below(&d->rng, n);
    struct listing line, wanted = { "", "" };
    lsi_draft_turn(d);
    for (size_t i = 0; i < n; i++) {
        put_line(d, &line);
        if (i == asked)
            wanted = line;
    }
    ask_line(d, &wanted);
}

/* n groups of lines after the first, a question behind each of them about the line STREAM_BACK lines above.
 */
static void write_stream(struct lsi_draft *d, size_t n)
{
    struct listing last[STREAM_BACK + 1];
    const size_t n_lines = STREAM_BACK + n * STREAM_EVERY;
    for (size_t i = 0; i < n_lines; i++) {
        if (i == 0 || (i > STREAM_BACK && (i - STREAM_BACK) % STREAM_EVERY == 0)) {
            lsi_draft_turn(d);
            if (i > 0)
                lsi_draft_put(d, "\n"); /* behind the answer */
        }
        put_line(d, &last[i % LSI_LEN(last)]);
        if (i >= STREAM_BACK && (i + 1 - STREAM_BACK) % STREAM_EVERY == 0)
            ask_line(d, &last[(i - STREAM_BACK) % LSI_LEN(last)]);
    }
}

/* ---- copying
 * ------------------------------------------------------------------------------------------------------- */

static struct lsi_piece any_word(struct lsi_draft *d)
{
    const struct lsi_hay *hay = &d->source->hay;
    const size_t n = lsi_min_size(lsi_hay_words(hay), COPY_WORDS);
    return lsi_hay_word(hay, (size_t)lsi_rng_below(&d->rng, n));
}

/* Random words; the question is some of them again, and the words that followed are expected. */
static void write_copied(struct lsi_draft *d, size_t n, bool unique_cue)
{
    const size_t n_cue = unique_cue ? 1 : CUE, n_wanted = unique_cue ? 1 : COPIED;
    const size_t at = (size_t)lsi_rng_below(&d->rng, n - n_cue - n_wanted + 1);
    char cue[LSI_WORD_BYTES];
    struct lsi_piece kept[CUE + COPIED];
    struct lsi_buf expected;
    new_name(d, cue);
    cue[0] = (char)(cue[0] - 'A' + 'a');
    lsi_buf_init(&expected, NULL, 4096);
    lsi_draft_turn(d);
    for (size_t i = 0; i < n; i++) {
        const struct lsi_piece w =
            unique_cue && i == at ? (struct lsi_piece){ cue, strlen(cue) } : any_word(d);
        lsi_draft_put(d, " %.*s", (int)w.len, w.s);
        if (i >= at && i < at + n_cue)
            kept[i - at] = w;
        else if (i >= at + n_cue && i < at + n_cue + n_wanted)
            lsi_buf_printf(&expected, "%s%.*s", expected.len ? " " : "", (int)w.len, w.s);
    }
    lsi_draft_question(d);
    for (size_t i = 0; i < n_cue; i++)
        lsi_draft_put(d, " %.*s", (int)kept[i].len, kept[i].s);
    lsi_draft_prefix(d);
    lsi_draft_expect(d, expected.data ? expected.data : "", expected.len);
    lsi_buf_fini(&expected);
}

static void write_copy(struct lsi_draft *d, size_t n)
{
    write_copied(d, n, false);
}

static void write_induction(struct lsi_draft *d, size_t n)
{
    write_copied(d, n, true);
}

/* ---- predicting
 * ----------------------------------------------------------------------------------------------------- */

static void write_perplexity(struct lsi_draft *d, size_t n)
{
    d->metric = LS_EVAL_NLL;
    lsi_draft_turn(d);
    hide_in_hay(d, n, NULL, 0);
    lsi_draft_question(d);
    lsi_draft_prefix(d);
}

static const struct lsi_eval_task tasks[] = {
    { { "needle-single", "needle", "a number hidden in a text (RULER)" }, 0, write_single },
    { { "needle-multikey", "needle", "the number of one of four names (RULER)" }, 0, write_multikey },
    { { "needle-multivalue", "needle", "all four numbers of a name (RULER)" }, 0, write_multivalue },
    { { "needle-multiquery", "needle", "the numbers of four names (RULER)" }, 0, write_multiquery },
    { { "passkey", "passkey", "a number in sentences that are always the same" }, 1, write_passkey },
    { { "variable-tracking", "variable-tracking", "variables that have a value through others (RULER)" },
      1,
      write_variables },
    { { "common-words", "common-words", "the ten words that stand in a list most often (RULER)" },
      1,
      write_common_words },
    { { "frequent-words", "frequent-words", "the three most frequent of coded words (RULER)" },
      100,
      write_frequent_words },
    { { "lines", "lines", "the content of a line of a list" }, 2, write_lines },
    { { "stream", "stream", "questions every 10 lines about the line 20 above, in one stream (StreamEval)" },
      1,
      write_stream },
    { { "copy", "copy", "random words: go on after eight that stood there" }, CUE + COPIED, write_copy },
    { { "induction", "induction", "random words: the one that followed another" }, 2, write_induction },
    { { "ppl", "ppl", "perplexity of a text, by position" }, 1, write_perplexity },
};

const ls_eval_task_info *ls_eval_task(size_t i)
{
    return i < LSI_LEN(tasks) ? &tasks[i].info : NULL;
}

const struct lsi_eval_task *lsi_eval_find_task(const char *name)
{
    for (size_t i = 0; i < LSI_LEN(tasks); i++)
        if (strcmp(tasks[i].info.name, name) == 0)
            return &tasks[i];
    return NULL;
}

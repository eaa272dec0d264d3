/*
 * The picture of attention: a square for each pair of bins, darker for more. Shades are steps of the
 * logarithm: most keys get next to nothing, and what is interesting are the few that do not.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inspect.h"

enum {
    MOST_BINS = 160,
    SIDE = 640, /* of the map */
    LEFT = 64,
    TOP = 40,
    WIDTH = LEFT + SIDE + 130,
    HEIGHT = TOP + SIDE + 56,
    N_SHADES = 10,
};

static const double faintest = 1e-4; /* share of a row in one bin that gets the first shade */

void map_init(struct attention_map *m, size_t n_tokens)
{
    m->n_tokens = n_tokens;
    m->per_bin = (n_tokens + MOST_BINS - 1) / MOST_BINS;
    m->n_bins = (n_tokens + m->per_bin - 1) / m->per_bin;
    const size_t n = m->n_bins * m->n_bins;
    m->mass = memset(cli_realloc(NULL, n, sizeof *m->mass), 0, n * sizeof *m->mass);
    m->rows = memset(cli_realloc(NULL, m->n_bins, sizeof *m->rows), 0, m->n_bins * sizeof *m->rows);
}

void map_free(struct attention_map *m)
{
    free(m->mass);
    free(m->rows);
    *m = (struct attention_map){ 0 };
}

static size_t bin_of(const struct attention_map *m, size_t token)
{
    return token / m->per_bin;
}

/* Where bin i begins on an axis, from its origin. */
static double edge(const struct attention_map *m, size_t i)
{
    const size_t token = i * m->per_bin < m->n_tokens ? i * m->per_bin : m->n_tokens;

    return SIDE * (double)token / (double)m->n_tokens;
}

void map_add(struct attention_map *m, size_t row, const float *p)
{
    double *to = m->mass + bin_of(m, row) * m->n_bins;

    for (size_t j = 0; j <= row; j++)
        to[bin_of(m, j)] += (double)p[j];
    m->rows[bin_of(m, row)]++;
}

/* 0: nothing to be seen, N_SHADES: all of the row. */
static int shade(const struct attention_map *m, size_t y, size_t x)
{
    const double share = m->rows[y] > 0 ? m->mass[y * m->n_bins + x] / m->rows[y] : 0;

    if (share < faintest)
        return 0;
    const double step = log(share / faintest) / log(1 / faintest) * N_SHADES;
    return step >= N_SHADES ? N_SHADES : 1 + (int)step;
}

/* From pale to dark blue. */
static void color(char out[8], int s)
{
    const double a = (double)s / N_SHADES;

    snprintf(out, 8, "#%02x%02x%02x", (unsigned)(235 - 225 * a), (unsigned)(243 - 203 * a),
             (unsigned)(252 - 152 * a));
}

static void add_text(struct text *t, double x, double y, const char *anchor, int size, const char *s)
{
    text_printf(t, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x, y,
                anchor, size, s);
}

/* Squares of one shade that stand side by side are one rectangle. */
static void add_row(struct text *t, const struct attention_map *m, size_t y)
{
    const double top = edge(m, y), height = edge(m, y + 1) - top;

    for (size_t x = 0, n; x < m->n_bins; x += n) {
        const int s = shade(m, y, x);
        char fill[8];
        for (n = 1; x + n < m->n_bins && shade(m, y, x + n) == s; n++)
            ;
        if (s == 0)
            continue;
        color(fill, s);
        text_printf(t, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n",
                    LEFT + edge(m, x), TOP + top, edge(m, x + n) - edge(m, x), height, fill);
    }
}

static void add_ticks(struct text *t, const struct attention_map *m)
{
    char number[32];

    for (int i = 0; i <= 4; i++) {
        const double at = SIDE * i / 4.0;
        snprintf(number, sizeof number, "%zu", m->n_tokens * (size_t)i / 4);
        add_text(t, LEFT + at, TOP + SIDE + 18, "middle", 12, number);
        add_text(t, LEFT - 8, TOP + at + 4, "end", 12, number);
    }
    add_text(t, LEFT + SIDE / 2.0, TOP + SIDE + 42, "middle", 13, "attended token");
    text_printf(t,
                "<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\" "
                "font-size=\"13\">token that attends</text>\n",
                TOP + SIDE / 2);
}

static void add_legend(struct text *t, const struct attention_map *m)
{
    const double x = LEFT + SIDE + 24;
    char cell[48] = "in a token";

    if (m->per_bin > 1)
        snprintf(cell, sizeof cell, "in %zu tokens", m->per_bin);
    add_text(t, x, TOP + 10, "start", 12, "share of a row");
    add_text(t, x, TOP + 26, "start", 12, cell);
    for (int s = N_SHADES; s >= 1; s--) {
        const double y = TOP + 36 + (N_SHADES - s) * 20;
        char fill[8], label[32];
        color(fill, s);
        text_printf(t, "<rect x=\"%.0f\" y=\"%.0f\" width=\"20\" height=\"20\" fill=\"%s\"/>\n", x, y, fill);
        snprintf(label, sizeof label, "%.2g", faintest * pow(1 / faintest, (double)(s - 1) / N_SHADES));
        add_text(t, x + 28, y + 18, "start", 11, label);
    }
}

int map_write(const struct attention_map *m, const char *path, const char *title)
{
    struct text t = { 0 };
    int status = EXIT_OK;

    text_printf(&t,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                "font-family=\"sans-serif\" fill=\"#1f2933\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
                WIDTH, HEIGHT, WIDTH, HEIGHT);
    add_text(&t, LEFT, 24, "start", 15, title);
    text_puts(&t, "<g shape-rendering=\"crispEdges\">\n"); /* no light seams between squares */
    for (size_t y = 0; y < m->n_bins; y++)
        add_row(&t, m, y);
    text_puts(&t, "</g>\n");
    text_printf(&t, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#6b7785\"/>\n",
                LEFT, TOP, SIDE, SIDE);
    add_ticks(&t, m);
    add_legend(&t, m);
    text_puts(&t, "</svg>\n");

    FILE *f = fopen(path, "w");
    const bool written = f && fwrite(t.data, 1, t.len, f) == t.len;
    if ((f && fclose(f) != 0) || !written)
        status = cli_fail("cannot write '%s': %s", path, strerror(errno));
    text_free(&t);
    return status;
}

/* ---- choosing the greatest ------------------------------------------------------ */

/* The k greatest come to the front (quickselect; the pivot is the middle of three). */
static void select_largest(float *x, size_t n, size_t k)
{
    size_t lo = 0, hi = n;

    while (hi - lo > 1 && k > lo && k < hi) {
        const float a = x[lo], b = x[lo + (hi - lo) / 2], c = x[hi - 1];
        const float pivot = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
        size_t above = lo, at = lo, below = hi; /* greater | equal | unseen | smaller */
        while (at < below) {
            const float v = x[at];
            if (v > pivot) {
                x[at++] = x[above];
                x[above++] = v;
            } else if (v < pivot) {
                x[at] = x[--below];
                x[below] = v;
            } else {
                at++;
            }
        }
        if (k < above)
            hi = above;
        else if (k > below)
            lo = below;
        else
            return;
    }
}

double largest_sum(float *x, size_t n, size_t k)
{
    double sum = 0;

    if (k > n)
        k = n;
    select_largest(x, n, k);
    for (size_t i = 0; i < k; i++)
        sum += (double)x[i];
    return sum;
}

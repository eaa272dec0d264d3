#include "train/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg.h"
#include "train/metrics.h"

#define TEXT_BYTES ((size_t)16 << 20)
#define MAX_EVALS  2000 /* points drawn */

/* The picture, in pixels. */
#define WIDTH       880
#define LEFT        76
#define RIGHT       36
#define COLUMNS     (WIDTH - LEFT - RIGHT) /* of a panel */
#define TOP         64
#define LOSS_HEIGHT 280
#define SMALL       84 /* height of the panels below */
#define GAP         34 /* between panels, with the title of the lower */
#define BOTTOM      46

#define RAW         "#9db8d6"
#define SMOOTH      "#1f5fa8"
#define EVAL        "#c8501e"
#define RATE        "#3b7d4f"
#define NORM        "#8a5aa8"
#define MEMORY      "#8a6d1f"

/* ---- numbers ---------------------------------------------------------------------------------- */

/* Values of one quantity in one column. */
struct cell {
    double low, high, sum;
    uint64_t n;
};

static void cell_add(struct cell *c, double v)
{
    if (!isfinite(v))
        return;
    c->low = c->n == 0 || v < c->low ? v : c->low;
    c->high = c->n == 0 || v > c->high ? v : c->high;
    c->sum += v;
    c->n++;
}

enum series {
    LOSS,
    SMOOTHED,
    LEARNING_RATE,
    GRADIENT,
    PEAK,
    N_SERIES
};

struct point {
    uint64_t step;
    double v;
};

struct plot {
    /* first pass: what the picture has to hold */
    uint64_t n_steps, first, last;
    uint64_t n_evals;
    struct cell all[N_SERIES]; /* over all steps */
    double final_eval;
    uint64_t tokens;
    double seconds;
    /* second pass */
    struct cell cells[N_SERIES][COLUMNS];
    struct point evals[MAX_EVALS];
    uint64_t eval_seen;
    size_t n_points;
    double smooth[COLUMNS]; /* of the loss, where a column has one */
    double final_loss;      /* of it, the last */
    struct lsi_buf b;
};

static void note_range(void *user, const ls_train_step *s)
{
    struct plot *p = user;
    p->first = p->n_steps == 0 ? s->step : p->first;
    p->last = s->step;
    p->n_steps++;
    cell_add(&p->all[LOSS], s->loss);
    cell_add(&p->all[LEARNING_RATE], s->lr);
    cell_add(&p->all[GRADIENT], s->grad_norm);
    cell_add(&p->all[PEAK], (double)s->peak_bytes);
    p->tokens += s->tokens;
    p->seconds += isfinite(s->seconds) ? s->seconds : 0;
    if (isfinite(s->eval_loss)) {
        p->final_eval = s->eval_loss;
        p->n_evals++;
    }
}

/* Place of a step on the panel, 0 .. 1. */
static double place(const struct plot *p, uint64_t step)
{
    return p->last > p->first ? (double)(step - p->first) / (double)(p->last - p->first) : 0.5;
}

static size_t column_of(const struct plot *p, uint64_t step)
{
    const double x = place(p, step) * (COLUMNS - 1);
    return lsi_min_size((size_t)(x + 0.5), COLUMNS - 1);
}

/* Evaluations are thinned evenly when there are more than fit; the last one is always drawn. */
static void note_eval(struct plot *p, const ls_train_step *s)
{
    const uint64_t every = lsi_max_size(1, lsi_div_up(p->n_evals, MAX_EVALS - 1));
    p->eval_seen++;
    if ((p->eval_seen % every == 0 || p->eval_seen == p->n_evals) && p->n_points < MAX_EVALS)
        p->evals[p->n_points++] = (struct point){ s->step, s->eval_loss };
}

static void note_step(void *user, const ls_train_step *s)
{
    struct plot *p = user;
    if (s->step < p->first || s->step > p->last)
        return; /* the steps of a file that was put together by hand */
    const size_t column = column_of(p, s->step);
    cell_add(&p->cells[LOSS][column], s->loss);
    cell_add(&p->cells[LEARNING_RATE][column], s->lr);
    cell_add(&p->cells[GRADIENT][column], s->grad_norm);
    cell_add(&p->cells[PEAK][column], (double)s->peak_bytes);
    if (isfinite(s->eval_loss))
        note_eval(p, s);
}

/* Columns that the smoothed line looks at on each side: a sixtieth of the picture or two steps, none of a
 * few. */
static size_t reach_of(const struct plot *p)
{
    return p->n_steps < 10 ? 0 : lsi_max_size(COLUMNS / 60, (size_t)(2 * COLUMNS / p->n_steps));
}

/* Mean of the columns around each, near ones counting more: it does not lag behind, as running means do. */
static void smooth(struct plot *p)
{
    const size_t reach = reach_of(p);
    for (size_t i = 0; i < COLUMNS; i++) {
        const size_t first = i > reach ? i - reach : 0, end = lsi_min_size(COLUMNS, i + reach + 1);
        double sum = 0, weight = 0;
        if (p->cells[LOSS][i].n == 0)
            continue;
        for (size_t k = first; k < end; k++) {
            const struct cell *c = &p->cells[LOSS][k];
            const double w = (double)(reach + 1 - (k > i ? k - i : i - k));
            sum += w * c->sum;
            weight += w * (double)c->n;
        }
        p->smooth[i] = p->final_loss = sum / weight;
    }
}

/* ---- drawing --------------------------------------------------------------------------------------- */

struct panel {
    double top, height;
    struct lsi_axis y;
    double unit; /* values are divided by it */
};

static double y_of(const struct panel *p, double v)
{
    const double t = (v / p->unit - p->y.low) / (p->y.high - p->y.low);
    return p->top + p->height * (1 - (t < 0 ? 0 : t > 1 ? 1 : t));
}

static void put_y_axis(struct plot *p, const struct panel *panel)
{
    lsi_svg_y_axis(&p->b, &panel->y, LEFT, WIDTH - RIGHT, panel->top, panel->height);
}

static void put_x_axis(struct plot *p, double bottom)
{
    char text[32];
    const double range = (double)(p->last - p->first);
    const double step = range > 0 ? fmax(1, lsi_nice_step(range, 8)) : 1;
    const double begin = ceil((double)p->first / step) * step;
    for (double v = begin; v <= (double)p->last; v += step) {
        const double x = LEFT + place(p, (uint64_t)v) * (COLUMNS - 1);
        lsi_svg_line(&p->b, x, bottom, x, bottom + 4, LSI_SVG_SOFT);
        lsi_grouped((uint64_t)v, text);
        lsi_svg_text(&p->b, x, bottom + 18, "middle", LSI_SVG_SOFT, 11, text);
    }
    lsi_svg_text(&p->b, LEFT + COLUMNS / 2.0, bottom + 36, "middle", LSI_SVG_SOFT, 12, "step");
}

/* Every column's range as one vertical stroke from the last value of the one before: a line at full width, an
 * area where many steps share a column. */
static void put_range(struct plot *p, const struct panel *panel, const struct cell *cells, const char *color)
{
    const char *command = "M";
    lsi_buf_printf(&p->b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1\" d=\"", color);
    for (size_t i = 0; i < COLUMNS; i++) {
        const struct cell *c = &cells[i];
        if (c->n == 0)
            continue;
        const double ends[] = { c->high, c->low };
        for (size_t k = 0; k < (c->high > c->low ? 2u : 1u); k++) {
            lsi_buf_printf(&p->b, "%s%zu ", command, LEFT + i);
            lsi_svg_px(&p->b, y_of(panel, ends[k]));
            command = "L";
        }
    }
    lsi_buf_printf(&p->b, "\"/>\n");
}

static void put_smooth(struct plot *p, const struct panel *panel)
{
    const char *command = "M";
    lsi_buf_printf(&p->b, "<path fill=\"none\" stroke=\"" SMOOTH
                          "\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"");
    for (size_t i = 0; i < COLUMNS; i++) {
        if (p->cells[LOSS][i].n == 0)
            continue;
        lsi_buf_printf(&p->b, "%s%zu ", command, LEFT + i);
        lsi_svg_px(&p->b, y_of(panel, p->smooth[i]));
        command = "L";
    }
    lsi_buf_printf(&p->b, "\"/>\n");
}

/* A few steps are points: one alone has no line. */
static void put_dots(struct plot *p, const struct panel *panel, const struct cell *cells, const char *color)
{
    for (size_t i = 0; i < COLUMNS && p->n_steps <= 40; i++)
        if (cells[i].n > 0)
            lsi_svg_circle(&p->b, (double)(LEFT + i), y_of(panel, cells[i].sum / (double)cells[i].n), "2.5",
                           color);
}

static void put_evals(struct plot *p, const struct panel *panel)
{
    const char *radius = p->n_points > 200 ? "2" : "3.5";
    for (size_t i = 0; i < p->n_points; i++)
        if (p->evals[i].step >= p->first && p->evals[i].step <= p->last)
            lsi_svg_circle(&p->b, LEFT + place(p, p->evals[i].step) * (COLUMNS - 1),
                           y_of(panel, p->evals[i].v), radius, EVAL);
}

/* ---- panels ------------------------------------------------------------------------------------------ */

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The greatest value that a panel shows: all of them, unless a few spikes would press the rest flat. */
static double top_of(const struct cell *cells, double low)
{
    double highs[COLUMNS];
    size_t n = 0;
    for (size_t i = 0; i < COLUMNS; i++)
        if (cells[i].n > 0)
            highs[n++] = cells[i].high;
    if (n == 0)
        return low;
    qsort(highs, n, sizeof *highs, compare_doubles);
    const double most = highs[(n - 1) * 97 / 100], greatest = highs[n - 1];
    return greatest - low > 3 * (most - low) ? most + (most - low) * 0.1 : greatest;
}

static struct lsi_axis loss_axis(const struct plot *p)
{
    struct cell range = { 0 };
    if (p->all[LOSS].n > 0) {
        cell_add(&range, p->all[LOSS].low);
        cell_add(&range, top_of(p->cells[LOSS], p->all[LOSS].low));
    }
    for (size_t i = 0; i < COLUMNS; i++)
        if (p->cells[LOSS][i].n > 0)
            cell_add(&range, p->smooth[i]);
    for (size_t i = 0; i < p->n_points; i++)
        cell_add(&range, p->evals[i].v);
    return range.n ? lsi_axis_make(range.low, range.high, 6) : lsi_axis_make(0, 1, 6);
}

static void put_loss(struct plot *p, double top)
{
    const struct panel panel = { .top = top, .height = LOSS_HEIGHT, .y = loss_axis(p), .unit = 1 };
    put_y_axis(p, &panel);
    put_range(p, &panel, p->cells[LOSS], RAW);
    put_smooth(p, &panel);
    put_dots(p, &panel, p->cells[LOSS], SMOOTH);
    put_evals(p, &panel);
    lsi_svg_title(&p->b, LEFT, top - 12, RAW, "loss of a step");
    lsi_svg_title(&p->b, LEFT + 120, top - 12, SMOOTH, "smoothed");
    if (p->n_points > 0)
        lsi_svg_title(&p->b, LEFT + 216, top - 12, EVAL, "evaluation");
}

/* A panel below that begins at zero. */
static void put_small(struct plot *p, double top, enum series s, const char *color, const char *title,
                      double unit)
{
    const double high = top_of(p->cells[s], 0) / unit;
    const struct panel panel = {
        .top = top, .height = SMALL, .y = lsi_axis_make(0, high > 0 ? high : 1, 3), .unit = unit
    };
    put_y_axis(p, &panel);
    put_range(p, &panel, p->cells[s], color);
    put_dots(p, &panel, p->cells[s], color);
    lsi_svg_title(&p->b, LEFT, top - 10, color, title);
}

/* "12.3 M" */
static void put_count(struct lsi_buf *b, double v)
{
    static const char *const names[] = { "", " thousand", " million", " billion", " trillion" };
    char text[40];
    size_t i = 0;
    for (; v >= 1000 && i + 1 < LSI_LEN(names); i++)
        v /= 1000;
    snprintf(text, sizeof text, "%.*f", i == 0 || v >= 100 ? 0 : 1, v);
    lsi_drop_comma(text);
    lsi_buf_printf(b, "%s%s", text, names[i]);
}

static void put_duration(struct lsi_buf *b, double seconds)
{
    const uint64_t s = (uint64_t)(seconds + 0.5);
    if (s < 120)
        lsi_buf_printf(b, "%" PRIu64 " s", s);
    else if (s < 7200)
        lsi_buf_printf(b, "%" PRIu64 " min", s / 60);
    else
        lsi_buf_printf(b, "%" PRIu64 " h %02" PRIu64 " min", s / 3600, s / 60 % 60);
}

/* The line above: how far the run is and what it came to. */
static void put_summary(struct plot *p)
{
    char steps[32], loss[32];
    lsi_grouped(p->n_steps, steps);
    lsi_buf_printf(&p->b,
                   "<text x=\"%d\" y=\"26\" fill=\"" LSI_SVG_INK
                   "\" font-size=\"15\" font-weight=\"600\">%s step%s",
                   LEFT, steps, p->n_steps == 1 ? "" : "s");
    if (p->all[LOSS].n > 0) {
        snprintf(loss, sizeof loss, "%.4f", p->final_loss);
        lsi_drop_comma(loss);
        lsi_buf_printf(&p->b, ", loss %s", loss);
    }
    if (p->n_evals > 0) {
        snprintf(loss, sizeof loss, "%.4f", p->final_eval);
        lsi_drop_comma(loss);
        lsi_buf_printf(&p->b, ", evaluation %s", loss);
    }
    lsi_buf_printf(&p->b,
                   "</text>\n<text x=\"%d\" y=\"26\" text-anchor=\"end\" fill=\"" LSI_SVG_SOFT
                   "\" font-size=\"12\">",
                   WIDTH - RIGHT);
    put_count(&p->b, (double)p->tokens);
    lsi_buf_printf(&p->b, " tokens in ");
    put_duration(&p->b, p->seconds);
    lsi_buf_printf(&p->b, "</text>\n");
}

static void draw(struct plot *p)
{
    const bool norm = p->all[GRADIENT].n > 0;
    const bool large = p->all[PEAK].high >= (double)(1 << 30);
    const int n_small = norm ? 3 : 2;
    const int height = TOP + LOSS_HEIGHT + n_small * (GAP + SMALL) + BOTTOM;
    double top = TOP + LOSS_HEIGHT + GAP;
    lsi_svg_begin(&p->b, WIDTH, height);
    if (p->n_steps == 0) {
        lsi_svg_text(&p->b, WIDTH / 2.0, height / 2.0, "middle", LSI_SVG_SOFT, 14, "no step yet");
        lsi_buf_printf(&p->b, "</svg>\n");
        return;
    }
    put_summary(p);
    put_loss(p, TOP);
    put_small(p, top, LEARNING_RATE, RATE, "learning rate", 1);
    top += GAP + SMALL;
    if (norm) {
        put_small(p, top, GRADIENT, NORM, "norm of the gradient", 1);
        top += GAP + SMALL;
    }
    put_small(p, top, PEAK, MEMORY, large ? "greatest resident memory, GiB" : "greatest resident memory, MiB",
              large ? (double)(1 << 30) : (double)(1 << 20));
    put_x_axis(p, top + SMALL);
    lsi_buf_printf(&p->b, "</svg>\n");
}

static ls_status write_picture(struct plot *p, const char *path, ls_error *err)
{
    struct lsi_out out;
    if (p->b.failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory to draw %s", path);
    LSI_TRY(lsi_out_open(&out, path, err));
    lsi_out_write(&out, p->b.data, p->b.len);
    return lsi_out_commit(&out, err);
}

ls_status lsi_plot_write(const char *run, const ls_alloc *alloc, ls_error *err)
{
    char from[4096], to[4096];
    ls_status st;
    if (!lsi_path_join(from, sizeof from, run, "metrics.jsonl") ||
        !lsi_path_join(to, sizeof to, run, "loss.svg"))
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the run is too long", run);
    alloc = lsi_alloc_or_default(alloc);
    struct plot *p = lsi_calloc(alloc, 1, sizeof *p);
    if (!p)
        return lsi_fail(err, LS_E_NOMEM, "no memory to draw %s", to);
    lsi_buf_init(&p->b, alloc, TEXT_BYTES);
    LSI_TRY_OR(end, lsi_metrics_read(from, note_range, p, err));
    LSI_TRY_OR(end, lsi_metrics_read(from, note_step, p, err));
    smooth(p);
    draw(p);
    st = write_picture(p, to, err);
end:
    lsi_buf_fini(&p->b);
    lsi_free(alloc, p, sizeof *p);
    return st;
}

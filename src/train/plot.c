#include "train/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/metrics.h"

#define TEXT_BYTES ((size_t)16 << 20)
#define MAX_TICKS  12
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

#define INK         "#1f2933"
#define SOFT        "#6b7785"
#define GRID        "#e4e8ec"
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

/* ---- axes ---------------------------------------------------------------------------------------- */

static void drop_comma(char *text)
{
    char *comma = strchr(text, ','); /* of the caller's locale */
    if (comma)
        *comma = '.';
}

/* 1.50 -> 1.5, 2.00 -> 2 */
static void drop_zeros(char *text)
{
    size_t n = strlen(text);
    if (!strchr(text, '.'))
        return;
    while (text[n - 1] == '0')
        n--;
    text[text[n - 1] == '.' ? n - 1 : n] = '\0';
}

/* A number for people, with the digits that a step of the axis needs: 0.012, 3.5, 2e-5. */
static void put_number(struct lsi_buf *b, double v, double step)
{
    char text[40];
    const double size = fabs(v);
    const int steps_power = (int)floor(log10(step) + 1e-9);
    if (v == 0) {
        lsi_buf_printf(b, "0");
    } else if (step >= 1e-3 && size < 1e6) {
        snprintf(text, sizeof text, "%.*f", steps_power < 0 ? -steps_power : 0, v);
        drop_comma(text);
        lsi_buf_append(b, text, strlen(text));
    } else {
        const int power = (int)floor(log10(size) + 1e-9), digits = power - steps_power;
        snprintf(text, sizeof text, "%.*f", digits < 0 ? 0 : digits > 6 ? 6 : digits, v / pow(10, power));
        drop_comma(text);
        drop_zeros(text);
        lsi_buf_printf(b, "%se%d", text, power);
    }
}

struct axis {
    double low, high; /* of the panel's edges */
    double step;      /* between ticks */
};

/* 1, 2 or 5 times a power of ten, so that about n of them fill a range. */
static double nice_step(double range, int n)
{
    const double raw = range / n;
    const double power = pow(10, floor(log10(raw)));
    const double m = raw / power;
    return power * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

/* An axis over a range, ends on ticks. One value alone gets some room around it. */
static struct axis make_axis(double low, double high, int n)
{
    struct axis a;
    if (!(high > low)) {
        const double room = low != 0 ? fabs(low) * 0.1 : 1;
        low -= room;
        high += room;
    }
    a.step = nice_step(high - low, n);
    a.low = floor(low / a.step + 1e-9) * a.step;
    a.high = ceil(high / a.step - 1e-9) * a.step;
    return a;
}

/* ---- drawing --------------------------------------------------------------------------------------- */

struct panel {
    double top, height;
    struct axis y;
    double unit; /* values are divided by it */
};

/* Numbers of the drawing: two decimals, whatever the locale. */
static void put_px(struct lsi_buf *b, double v)
{
    const long long hundredths = llround(v * 100);
    const long long a = hundredths < 0 ? -hundredths : hundredths;
    lsi_buf_printf(b, "%s%lld.%02lld", hundredths < 0 ? "-" : "", a / 100, a % 100);
}

static double y_of(const struct panel *p, double v)
{
    const double t = (v / p->unit - p->y.low) / (p->y.high - p->y.low);
    return p->top + p->height * (1 - (t < 0 ? 0 : t > 1 ? 1 : t));
}

static void put_text(struct lsi_buf *b, double x, double y, const char *anchor, const char *fill, int size,
                     const char *text)
{
    lsi_buf_printf(b, "<text x=\"");
    put_px(b, x);
    lsi_buf_printf(b, "\" y=\"");
    put_px(b, y);
    lsi_buf_printf(b, "\" text-anchor=\"%s\" fill=\"%s\" font-size=\"%d\">%s</text>\n", anchor, fill, size,
                   text);
}

static void put_line(struct lsi_buf *b, double x0, double y0, double x1, double y1, const char *color)
{
    lsi_buf_printf(b, "<line x1=\"");
    put_px(b, x0);
    lsi_buf_printf(b, "\" y1=\"");
    put_px(b, y0);
    lsi_buf_printf(b, "\" x2=\"");
    put_px(b, x1);
    lsi_buf_printf(b, "\" y2=\"");
    put_px(b, y1);
    lsi_buf_printf(b, "\" stroke=\"%s\"/>\n", color);
}

/* Horizontal lines with their numbers. */
static void put_y_axis(struct lsi_buf *b, const struct panel *p)
{
    for (int i = 0; i <= MAX_TICKS; i++) {
        const double v = p->y.low + i * p->y.step;
        if (v > p->y.high + p->y.step * 1e-6)
            break;
        const double y = y_of(p, v * p->unit);
        put_line(b, LEFT, y, WIDTH - RIGHT, y, GRID);
        lsi_buf_printf(b, "<text x=\"%d\" y=\"", LEFT - 8);
        put_px(b, y + 4);
        lsi_buf_printf(b, "\" text-anchor=\"end\" fill=\"" SOFT "\" font-size=\"11\">");
        put_number(b, fabs(v) < p->y.step * 1e-6 ? 0 : v, p->y.step);
        lsi_buf_printf(b, "</text>\n");
    }
}

/* 1234567 -> 1,234,567 */
static void grouped(uint64_t v, char out[32])
{
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%" PRIu64, v);
    size_t k = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[k++] = ',';
        out[k++] = digits[i];
    }
    out[k] = '\0';
}

static void put_x_axis(struct plot *p, double bottom)
{
    char text[32];
    const double range = (double)(p->last - p->first);
    const double step = range > 0 ? fmax(1, nice_step(range, 8)) : 1;
    const double begin = ceil((double)p->first / step) * step;
    for (double v = begin; v <= (double)p->last; v += step) {
        const double x = LEFT + place(p, (uint64_t)v) * (COLUMNS - 1);
        put_line(&p->b, x, bottom, x, bottom + 4, SOFT);
        grouped((uint64_t)v, text);
        put_text(&p->b, x, bottom + 18, "middle", SOFT, 11, text);
    }
    put_text(&p->b, LEFT + COLUMNS / 2.0, bottom + 36, "middle", SOFT, 12, "step");
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
            put_px(&p->b, y_of(panel, ends[k]));
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
        put_px(&p->b, y_of(panel, p->smooth[i]));
        command = "L";
    }
    lsi_buf_printf(&p->b, "\"/>\n");
}

static void put_circle(struct plot *p, double x, double y, const char *radius, const char *color)
{
    lsi_buf_printf(&p->b, "<circle cx=\"");
    put_px(&p->b, x);
    lsi_buf_printf(&p->b, "\" cy=\"");
    put_px(&p->b, y);
    lsi_buf_printf(&p->b, "\" r=\"%s\" fill=\"%s\"/>\n", radius, color);
}

/* A few steps are points: one alone has no line. */
static void put_dots(struct plot *p, const struct panel *panel, const struct cell *cells, const char *color)
{
    for (size_t i = 0; i < COLUMNS && p->n_steps <= 40; i++)
        if (cells[i].n > 0)
            put_circle(p, (double)(LEFT + i), y_of(panel, cells[i].sum / (double)cells[i].n), "2.5", color);
}

static void put_evals(struct plot *p, const struct panel *panel)
{
    const char *radius = p->n_points > 200 ? "2" : "3.5";
    for (size_t i = 0; i < p->n_points; i++)
        if (p->evals[i].step >= p->first && p->evals[i].step <= p->last)
            put_circle(p, LEFT + place(p, p->evals[i].step) * (COLUMNS - 1), y_of(panel, p->evals[i].v),
                       radius, EVAL);
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

static struct axis loss_axis(const struct plot *p)
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
    return range.n ? make_axis(range.low, range.high, 6) : make_axis(0, 1, 6);
}

static void put_title(struct plot *p, double x, double y, const char *color, const char *text)
{
    lsi_buf_printf(&p->b, "<rect x=\"");
    put_px(&p->b, x);
    lsi_buf_printf(&p->b, "\" y=\"");
    put_px(&p->b, y - 8);
    lsi_buf_printf(&p->b, "\" width=\"10\" height=\"8\" fill=\"%s\"/>\n", color);
    put_text(&p->b, x + 16, y, "start", INK, 12, text);
}

static void put_loss(struct plot *p, double top)
{
    const struct panel panel = { .top = top, .height = LOSS_HEIGHT, .y = loss_axis(p), .unit = 1 };
    put_y_axis(&p->b, &panel);
    put_range(p, &panel, p->cells[LOSS], RAW);
    put_smooth(p, &panel);
    put_dots(p, &panel, p->cells[LOSS], SMOOTH);
    put_evals(p, &panel);
    put_title(p, LEFT, top - 12, RAW, "loss of a step");
    put_title(p, LEFT + 120, top - 12, SMOOTH, "smoothed");
    if (p->n_points > 0)
        put_title(p, LEFT + 216, top - 12, EVAL, "evaluation");
}

/* A panel below that begins at zero. */
static void put_small(struct plot *p, double top, enum series s, const char *color, const char *title,
                      double unit)
{
    const double high = top_of(p->cells[s], 0) / unit;
    const struct panel panel = {
        .top = top, .height = SMALL, .y = make_axis(0, high > 0 ? high : 1, 3), .unit = unit
    };
    put_y_axis(&p->b, &panel);
    put_range(p, &panel, p->cells[s], color);
    put_dots(p, &panel, p->cells[s], color);
    put_title(p, LEFT, top - 10, color, title);
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
    drop_comma(text);
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
    grouped(p->n_steps, steps);
    lsi_buf_printf(&p->b,
                   "<text x=\"%d\" y=\"26\" fill=\"" INK "\" font-size=\"15\" font-weight=\"600\">%s step%s",
                   LEFT, steps, p->n_steps == 1 ? "" : "s");
    if (p->all[LOSS].n > 0) {
        snprintf(loss, sizeof loss, "%.4f", p->final_loss);
        drop_comma(loss);
        lsi_buf_printf(&p->b, ", loss %s", loss);
    }
    if (p->n_evals > 0) {
        snprintf(loss, sizeof loss, "%.4f", p->final_eval);
        drop_comma(loss);
        lsi_buf_printf(&p->b, ", evaluation %s", loss);
    }
    lsi_buf_printf(&p->b,
                   "</text>\n<text x=\"%d\" y=\"26\" text-anchor=\"end\" fill=\"" SOFT "\" font-size=\"12\">",
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
    lsi_buf_printf(
        &p->b,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
        "font-family=\"system-ui, 'Helvetica Neue', Arial, sans-serif\">\n"
        "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
        WIDTH, height, WIDTH, height, WIDTH, height);
    if (p->n_steps == 0) {
        put_text(&p->b, WIDTH / 2.0, height / 2.0, "middle", SOFT, 14, "no step yet");
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

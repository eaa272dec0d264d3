/*
 * Pictures of a table of results. A picture has panels, a panel lines, one for each policy, which has the
 * same colour in all of them; a policy without a budget is level in a picture over budgets. Where all points
 * of a panel have the same place, there are bars instead, which do not hide each other.
 */
#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg.h"

#define PICTURE_BYTES ((size_t)16 << 20)
#define MAX_LINES     24
#define MAX_POINTS    64
#define MAX_PANELS    64

/* The picture, in pixels. */
#define LEFT    76
#define COLUMNS 560 /* of a panel */
#define TOP     48
#define HEIGHT  220
#define GAP     76 /* below a panel: numbers, what they are, the next title */
#define LEGEND  (LEFT + COLUMNS + 28)
#define LEDGE   16 /* from one line of the legend to the next */
#define BAR     20 /* from one bar to the next */
#define LETTER  7  /* of a name, about */

static const char *const colors[MAX_LINES] = {
    "#1f2933", "#1f5fa8", "#c8501e", "#3b7d4f", "#8a5aa8", "#8a6d1f", "#2a9d9d", "#b0305c",
    "#6b7785", "#5a8f1f", "#4b4bc8", "#c88a1e", "#7fb2e5", "#f0a07c", "#8fcfa3", "#c9a6de",
    "#d6c07a", "#8adada", "#e88fae", "#b9c2cc", "#b2d977", "#a3a3f0", "#7a3b12", "#0f4d2a",
};

/* Means: several results may fall on one point. */
struct point {
    double x, sum;
    size_t n;
};

struct chart_line {
    const char *name;
    const char *color;
    bool level; /* the same everywhere */
    struct point points[MAX_POINTS];
    size_t n;
};

struct chart_panel {
    char title[160];
    const char *x_label;
    struct chart_line lines[MAX_LINES];
    size_t n;
};

struct picture {
    struct chart_panel *panels; /* [MAX_PANELS] */
    size_t n;
    const char *names[MAX_LINES]; /* of policies */
    size_t n_names;
};

/* ---- gathering --------------------------------------------------------------------------------------- */

static struct chart_panel *panel_of(struct picture *p, const char *title, const char *x_label)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->panels[i].title, title) == 0)
            return &p->panels[i];
    if (p->n == MAX_PANELS)
        return NULL;
    struct chart_panel *panel = &p->panels[p->n++];
    snprintf(panel->title, sizeof panel->title, "%s", title);
    panel->x_label = x_label;
    return panel;
}

/* The colour of a policy; NULL when there are more than colours. */
static const char *color_of(struct picture *p, const char *name)
{
    size_t i = 0;
    while (i < p->n_names && strcmp(p->names[i], name) != 0)
        i++;
    if (i == MAX_LINES)
        return NULL;
    if (i == p->n_names)
        p->names[p->n_names++] = name;
    return colors[i];
}

static struct chart_line *line_of(struct picture *p, struct chart_panel *panel, const char *name)
{
    const char *color = color_of(p, name);
    for (size_t i = 0; i < panel->n; i++)
        if (strcmp(panel->lines[i].name, name) == 0)
            return &panel->lines[i];
    if (!color) /* as many as there are colours */
        return NULL;
    struct chart_line *line = &panel->lines[panel->n++];
    line->name = name;
    line->color = color;
    return line;
}

static void add_point(struct picture *p, struct chart_panel *panel, const char *name, bool level, double x,
                      double y)
{
    struct chart_line *line = panel && isfinite(y) ? line_of(p, panel, name) : NULL;
    size_t i = 0;
    if (!line)
        return;
    line->level = level;
    while (i < line->n && line->points[i].x != x)
        i++;
    if (i == MAX_POINTS)
        return;
    if (i == line->n)
        line->points[line->n++] = (struct point){ .x = x };
    line->points[i].sum += y;
    line->points[i].n++;
}

/* A budget in per cent of the length. */
static double share_of(const ls_eval_row *r)
{
    const double v = strtod(r->budget, NULL);
    return strchr(r->budget, '%') ? v : 100 * v / (double)r->n_tokens;
}

static void gather_accuracy(struct picture *p, const ls_eval_row *r)
{
    char title[160], length[32];
    if (!isfinite(r->accuracy))
        return;
    lsi_grouped(r->n_tokens, length);
    snprintf(title, sizeof title, "accuracy in %%, mean of the tasks: %s tokens, %s", length,
             r->protocol == LS_EVAL_DENSE ? "dense (the question is in the prompt)"
                                          : "sparse (the question follows the compression)");
    add_point(p, panel_of(p, title, "budget, per cent of the length"), r->label, !*r->budget,
              *r->budget ? share_of(r) : 0, 100 * r->accuracy);
}

/* Budgets have panels of their own. A policy that has none stands in all of them, or in one of its own. */
static void gather_by_budget(struct picture *p, const ls_eval_row *rows, size_t n, const ls_eval_row *r,
                             const char *what, double v)
{
    char title[160];
    bool alone = true;
    for (size_t i = 0; i < n; i++) {
        bool seen = !*rows[i].budget || (*r->budget && strcmp(r->budget, rows[i].budget) != 0);
        for (size_t k = 0; k < i && !seen; k++)
            seen = strcmp(rows[k].budget, rows[i].budget) == 0;
        if (seen)
            continue;
        snprintf(title, sizeof title, "%s, budget %.32s", what, rows[i].budget);
        add_point(p, panel_of(p, title, "length, tokens"), r->label, false, (double)r->n_tokens, v);
        alone = false;
    }
    if (alone)
        add_point(p, panel_of(p, what, "length, tokens"), r->label, false, (double)r->n_tokens, v);
}

/* ---- drawing ------------------------------------------------------------------------------------------- */

static int compare_points(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    return (x->x > y->x) - (x->x < y->x);
}

struct range {
    double low, high;
};

static void widen(struct range *r, double v)
{
    r->low = v < r->low ? v : r->low;
    r->high = v > r->high ? v : r->high;
}

static double mean(const struct point *p)
{
    return p->sum / (double)p->n;
}

static double x_of(const struct range *x, double v)
{
    const double t = x->high > x->low ? (v - x->low) / (x->high - x->low) : 0.5;
    return LEFT + 20 + t * (COLUMNS - 40);
}

static double y_of(const struct lsi_axis *y, double top, double v)
{
    return top + HEIGHT * (1 - (v - y->low) / (y->high - y->low));
}

/* "12.5" whatever the locale. */
static void put_share(char text[32], double v)
{
    snprintf(text, 32, "%.4g", v);
    lsi_drop_comma(text);
}

static void put_place(char text[32], double x)
{
    if (x >= 1000)
        lsi_grouped((uint64_t)x, text);
    else
        put_share(text, x);
}

/* A tick where there are points, unless it would stand on the one before. */
static void put_x_ticks(struct lsi_buf *b, const struct chart_panel *panel, const struct range *x,
                        double bottom)
{
    struct point all[MAX_LINES * MAX_POINTS];
    size_t n = 0;
    double last = -1e9;
    for (size_t i = 0; i < panel->n; i++)
        for (size_t k = 0; k < panel->lines[i].n && !panel->lines[i].level; k++)
            all[n++] = panel->lines[i].points[k];
    qsort(all, n, sizeof *all, compare_points);
    for (size_t i = 0; i < n; i++) {
        const double at = x_of(x, all[i].x);
        if (at - last < 44)
            continue;
        char text[32];
        put_place(text, all[i].x);
        lsi_svg_line(b, at, bottom, at, bottom + 4, LSI_SVG_SOFT);
        lsi_svg_text(b, at, bottom + 18, "middle", LSI_SVG_SOFT, 11, text);
        last = at;
    }
    lsi_svg_text(b, LEFT + COLUMNS / 2.0, bottom + 36, "middle", LSI_SVG_SOFT, 12, panel->x_label);
}

static void put_curve(struct lsi_buf *b, const struct chart_line *line, const struct range *x,
                      const struct lsi_axis *y, double top)
{
    lsi_buf_printf(b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s d=\"", line->color,
                   line->level ? " stroke-dasharray=\"5 4\"" : "");
    for (size_t i = 0; i < line->n; i++) {
        const double at = y_of(y, top, mean(&line->points[i]));
        lsi_buf_printf(b, i ? "L" : "M");
        lsi_svg_px(b, line->level ? LEFT : x_of(x, line->points[i].x));
        lsi_buf_printf(b, " ");
        lsi_svg_px(b, at);
        if (line->level) {
            lsi_buf_printf(b, "L%d ", LEFT + COLUMNS);
            lsi_svg_px(b, at);
        }
    }
    lsi_buf_printf(b, "\"/>\n");
    for (size_t i = 0; i < line->n && !line->level; i++)
        lsi_svg_circle(b, x_of(x, line->points[i].x), y_of(y, top, mean(&line->points[i])), "3", line->color);
}

/* All points have one place, *x; NAN where all lines are level. */
static bool is_one_place(const struct chart_panel *panel, double *x)
{
    bool found = false;
    *x = NAN;
    for (size_t i = 0; i < panel->n; i++)
        for (size_t k = 0; k < panel->lines[i].n && !panel->lines[i].level; k++) {
            if (found && panel->lines[i].points[k].x != *x)
                return false;
            *x = panel->lines[i].points[k].x;
            found = true;
        }
    return true;
}

/* The names stand where lines have their legend, bars left of them. */
static void put_bars(struct lsi_buf *b, const struct chart_panel *panel, const struct lsi_axis *axis,
                     double x, double top)
{
    char text[32];
    for (size_t i = 0; i < panel->n; i++) {
        const struct chart_line *line = &panel->lines[i];
        const double v = mean(&line->points[0]), y = top + (double)(i * BAR),
                     width = v / axis->high * (COLUMNS - 60);
        lsi_buf_printf(b, "<rect x=\"%d\" y=\"", LEFT);
        lsi_svg_px(b, y + 3);
        lsi_buf_printf(b, "\" width=\"");
        lsi_svg_px(b, width);
        lsi_buf_printf(b, "\" height=\"%d\" fill=\"%s\"/>\n", BAR - 6, line->color);
        put_share(text, v);
        lsi_svg_text(b, LEFT + width + 6, y + 14, "start", LSI_SVG_SOFT, 11, text);
        lsi_svg_title(b, LEGEND, y + 14, line->color, line->name);
    }
    lsi_svg_line(b, LEFT, top, LEFT, top + (double)(panel->n * BAR), LSI_SVG_SOFT);
    if (!isfinite(x))
        return;
    char place[96];
    put_place(text, x);
    snprintf(place, sizeof place, "%s: %s", panel->x_label, text);
    lsi_svg_text(b, LEFT, top + (double)(panel->n * BAR) + 18, "start", LSI_SVG_SOFT, 12, place);
}

static void put_lines(struct lsi_buf *b, const struct chart_panel *panel, const struct range *x,
                      const struct lsi_axis *axis, double top)
{
    lsi_svg_y_axis(b, axis, LEFT, LEFT + COLUMNS, top, HEIGHT);
    put_x_ticks(b, panel, x, top + HEIGHT);
    for (size_t i = 0; i < panel->n; i++) {
        const struct chart_line *line = &panel->lines[i];
        put_curve(b, line, x, axis, top);
        lsi_svg_title(b, LEGEND, top + 8 + (double)(i * LEDGE), line->color, line->name);
    }
}

static void put_panel(struct lsi_buf *b, struct chart_panel *panel, double top)
{
    struct range x = { INFINITY, -INFINITY }, y = { 0, -INFINITY };
    double place;
    for (size_t i = 0; i < panel->n; i++) {
        struct chart_line *line = &panel->lines[i];
        qsort(line->points, line->n, sizeof *line->points, compare_points);
        for (size_t k = 0; k < line->n; k++) {
            widen(&y, mean(&line->points[k]));
            if (!line->level)
                widen(&x, line->points[k].x);
        }
    }
    const struct lsi_axis axis = lsi_axis_make(y.low, y.high > 0 ? y.high : 1, 6);
    lsi_svg_text(b, LEFT, top - 14, "start", LSI_SVG_INK, 13, panel->title);
    if (is_one_place(panel, &place))
        put_bars(b, panel, &axis, place, top);
    else
        put_lines(b, panel, &x, &axis, top);
}

/* From one panel's top to the next: its lines' names may be more than it is high. */
static double room_of(const struct chart_panel *panel)
{
    double x;
    if (is_one_place(panel, &x))
        return (double)(panel->n * BAR) + GAP;
    return fmax(HEIGHT, (double)(panel->n * LEDGE)) + GAP;
}

static void draw(struct lsi_buf *b, struct picture *p)
{
    double height = TOP, top = TOP;
    size_t widest = 0;
    for (size_t i = 0; i < p->n; i++)
        height += room_of(&p->panels[i]);
    for (size_t i = 0; i < p->n_names; i++)
        widest = lsi_max_size(widest, strlen(p->names[i]));
    lsi_svg_begin(b, LEGEND + 40 + (int)widest * LETTER, (int)height - GAP / 3);
    for (size_t i = 0; i < p->n; i++) {
        put_panel(b, &p->panels[i], top);
        top += room_of(&p->panels[i]);
    }
    lsi_buf_printf(b, "</svg>\n");
}

static ls_status write_picture(struct picture *p, const char *path, ls_error *err)
{
    struct lsi_buf b;
    struct lsi_out out;
    ls_status st = LS_OK;
    lsi_buf_init(&b, NULL, PICTURE_BYTES);
    draw(&b, p);
    if (b.failed)
        st = lsi_fail(err, LS_E_NOMEM, "no memory to draw %s", path);
    if (st == LS_OK)
        st = lsi_out_open(&out, path, err);
    if (st == LS_OK) {
        lsi_out_write(&out, b.data, b.len);
        st = lsi_out_commit(&out, err);
    }
    lsi_buf_fini(&b);
    return st;
}

/* Pictures. */
enum what {
    ACCURACY,
    SPEED,
    MEMORY
};

static void gather(struct picture *p, enum what what, const ls_eval_row *rows, size_t n)
{
    for (size_t i = 0; i < n && what == ACCURACY; i++)
        gather_accuracy(p, &rows[i]);
    for (size_t i = 0; i < n && what == SPEED; i++)
        gather_by_budget(p, rows, n, &rows[i], "decode steps, tokens/s", rows[i].decode_rate);
    for (size_t i = 0; i < n && what == SPEED; i++)
        gather_by_budget(p, rows, n, &rows[i], "prompt, tokens/s", rows[i].prompt_rate);
    for (size_t i = 0; i < n && what == MEMORY; i++)
        gather_by_budget(p, rows, n, &rows[i], "cache after the answer, MiB",
                         rows[i].cache_bytes / (1 << 20));
}

ls_status ls_eval_plot(const ls_eval_row *rows, size_t n, const char *dir, ls_error *err)
{
    static const char *const files[] = {
        [ACCURACY] = "accuracy.svg", [SPEED] = "speed.svg", [MEMORY] = "memory.svg"
    };
    struct picture p;
    char path[4096];
    ls_status st = LS_OK;
    p.panels = lsi_calloc(NULL, MAX_PANELS, sizeof *p.panels);
    if (!p.panels)
        return lsi_fail(err, LS_E_NOMEM, "no memory to draw results");
    for (size_t i = 0; i < LSI_LEN(files) && st == LS_OK; i++) {
        memset(p.panels, 0, MAX_PANELS * sizeof *p.panels);
        p.n = p.n_names = 0;
        gather(&p, (enum what)i, rows, n);
        if (p.n == 0)
            continue;
        if (!lsi_path_join(path, sizeof path, dir, files[i]))
            st = lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the folder is too long", dir);
        else
            st = write_picture(&p, path, err);
    }
    lsi_free(NULL, p.panels, MAX_PANELS * sizeof *p.panels);
    return st;
}

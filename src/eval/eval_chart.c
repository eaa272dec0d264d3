/*
 * Pictures of a table of results. A picture has panels, a panel lines, one for each policy; a policy without
 * a budget is level in a picture over budgets.
 */
#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg.h"

#define PICTURE_BYTES ((size_t)16 << 20)
#define MAX_LINES     24
#define MAX_POINTS    64
#define MAX_PANELS    16

/* The picture, in pixels. */
#define WIDTH   880
#define LEFT    76
#define COLUMNS 560 /* of a panel */
#define TOP     48
#define HEIGHT  220
#define GAP     76 /* below a panel: numbers, what they are, the next title */
#define LEGEND  (LEFT + COLUMNS + 28)
#define LEDGE   16 /* from one line of the legend to the next */

static const char *const colors[] = { "#1f2933", "#1f5fa8", "#c8501e", "#3b7d4f", "#8a5aa8", "#8a6d1f",
                                      "#2a9d9d", "#b0305c", "#6b7785", "#5a8f1f", "#4b4bc8", "#c88a1e" };

/* Means: several results may fall on one point. */
struct point {
    double x, sum;
    size_t n;
};

struct chart_line {
    char name[96];
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

static struct chart_line *line_of(struct chart_panel *panel, const char *name)
{
    for (size_t i = 0; i < panel->n; i++)
        if (strcmp(panel->lines[i].name, name) == 0)
            return &panel->lines[i];
    if (panel->n == MAX_LINES)
        return NULL;
    struct chart_line *line = &panel->lines[panel->n++];
    snprintf(line->name, sizeof line->name, "%s", name);
    return line;
}

static void add_point(struct chart_panel *panel, const char *name, bool level, double x, double y)
{
    struct chart_line *line = panel && isfinite(y) ? line_of(panel, name) : NULL;
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

/* The policy's name where a budget was applied to it, else all that was asked for. */
static void name_policy(char out[96], const ls_eval_row *r, bool with_budget)
{
    if (!*r->budget)
        snprintf(out, 96, "%s", r->kv);
    else
        snprintf(out, 96, "%.*s%s%s%s", (int)strcspn(r->kv, ":+"), r->kv, r->kv + strcspn(r->kv, "+"),
                 with_budget ? " " : "", with_budget ? r->budget : "");
}

/* A budget in per cent of the length. */
static double share_of(const ls_eval_row *r)
{
    const double v = strtod(r->budget, NULL);
    return strchr(r->budget, '%') ? v : 100 * v / (double)r->n_tokens;
}

static void gather_accuracy(struct picture *p, const ls_eval_row *r)
{
    char title[160], name[96];
    if (!isfinite(r->accuracy))
        return;
    snprintf(title, sizeof title, "accuracy, %% (mean of the tasks), %zu tokens, question %s", r->n_tokens,
             ls_eval_protocol_name(r->protocol));
    name_policy(name, r, false);
    add_point(panel_of(p, title, "budget, per cent of the length"), name, !*r->budget,
              *r->budget ? share_of(r) : 0, 100 * r->accuracy);
}

static void gather_speed(struct picture *p, const ls_eval_row *r)
{
    char name[96];
    name_policy(name, r, true);
    add_point(panel_of(p, "decode steps, tokens/s", "length, tokens"), name, false, (double)r->n_tokens,
              r->decode_rate);
    add_point(panel_of(p, "prompt, tokens/s", "length, tokens"), name, false, (double)r->n_tokens,
              r->prompt_rate);
}

static void gather_memory(struct picture *p, const ls_eval_row *r)
{
    char name[96];
    name_policy(name, r, true);
    add_point(panel_of(p, "cache after the answer, MiB", "length, tokens"), name, false, (double)r->n_tokens,
              r->cache_bytes / (1 << 20));
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
        if (all[i].x >= 1000)
            lsi_grouped((uint64_t)all[i].x, text);
        else
            put_share(text, all[i].x);
        lsi_svg_line(b, at, bottom, at, bottom + 4, LSI_SVG_SOFT);
        lsi_svg_text(b, at, bottom + 18, "middle", LSI_SVG_SOFT, 11, text);
        last = at;
    }
    lsi_svg_text(b, LEFT + COLUMNS / 2.0, bottom + 36, "middle", LSI_SVG_SOFT, 12, panel->x_label);
}

static void put_curve(struct lsi_buf *b, const struct chart_line *line, const struct range *x,
                      const struct lsi_axis *y, double top, const char *color)
{
    lsi_buf_printf(b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s d=\"", color,
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
        lsi_svg_circle(b, x_of(x, line->points[i].x), y_of(y, top, mean(&line->points[i])), "3", color);
}

static void put_panel(struct lsi_buf *b, struct chart_panel *panel, double top)
{
    struct range x = { INFINITY, -INFINITY }, y = { 0, -INFINITY };
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
    lsi_svg_y_axis(b, &axis, LEFT, LEFT + COLUMNS, top, HEIGHT);
    put_x_ticks(b, panel, &x, top + HEIGHT);
    for (size_t i = 0; i < panel->n; i++) {
        const char *color = colors[i % LSI_LEN(colors)];
        put_curve(b, &panel->lines[i], &x, &axis, top, color);
        lsi_svg_title(b, LEGEND, top + 8 + (double)(i * LEDGE), color, panel->lines[i].name);
    }
}

/* From one panel's top to the next: its lines' names may be more than it is high. */
static double room_of(const struct chart_panel *panel)
{
    return fmax(HEIGHT, (double)(panel->n * LEDGE)) + GAP;
}

static void draw(struct lsi_buf *b, struct picture *p)
{
    double height = TOP, top = TOP;
    for (size_t i = 0; i < p->n; i++)
        height += room_of(&p->panels[i]);
    lsi_svg_begin(b, WIDTH, (int)height - GAP / 3);
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

ls_status ls_eval_plot(const ls_eval_row *rows, size_t n, const char *dir, ls_error *err)
{
    static const struct {
        const char *file;
        void (*gather)(struct picture *p, const ls_eval_row *r);
    } pictures[] = { { "accuracy.svg", gather_accuracy },
                     { "speed.svg", gather_speed },
                     { "memory.svg", gather_memory } };
    struct picture p;
    char path[4096];
    ls_status st = LS_OK;
    p.panels = lsi_calloc(NULL, MAX_PANELS, sizeof *p.panels);
    if (!p.panels)
        return lsi_fail(err, LS_E_NOMEM, "no memory to draw results");
    for (size_t i = 0; i < LSI_LEN(pictures) && st == LS_OK; i++) {
        memset(p.panels, 0, MAX_PANELS * sizeof *p.panels);
        p.n = 0;
        for (size_t k = 0; k < n; k++)
            pictures[i].gather(&p, &rows[k]);
        if (p.n == 0)
            continue;
        if (!lsi_path_join(path, sizeof path, dir, pictures[i].file))
            st = lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the folder is too long", dir);
        else
            st = write_picture(&p, path, err);
    }
    lsi_free(NULL, p.panels, MAX_PANELS * sizeof *p.panels);
    return st;
}

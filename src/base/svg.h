/*
 * Pictures as SVG: axes with round numbers, lines, texts. Numbers are written without the locale's
 * comma. Texts are the program's own: nothing in them is escaped.
 */
#ifndef LSI_SVG_H
#define LSI_SVG_H

#include "base/base.h"

#define LSI_SVG_INK  "#1f2933"
#define LSI_SVG_SOFT "#6b7785"
#define LSI_SVG_GRID "#e4e8ec"

struct lsi_axis {
    double low, high; /* of the panel's edges */
    double step;      /* between ticks */
};

/** 1, 2 or 5 times a power of ten, so that about n of them fill a range. */
double lsi_nice_step(double range, int n);
/** An axis over a range, ends on ticks. One value alone gets some room around it. */
struct lsi_axis lsi_axis_make(double low, double high, int n);

/** The picture's beginning, white; its end is "</svg>\n". */
void lsi_svg_begin(struct lsi_buf *b, int width, int height);
/** A coordinate: two decimals. */
void lsi_svg_px(struct lsi_buf *b, double v);
/** A number for people, with the digits that a step of the axis needs: 0.012, 3.5, 2e-5. */
void lsi_svg_number(struct lsi_buf *b, double v, double step);
/** text-anchor: "start", "middle", "end". */
void lsi_svg_text(struct lsi_buf *b, double x, double y, const char *anchor, const char *fill, int size,
                  const char *text);
void lsi_svg_line(struct lsi_buf *b, double x0, double y0, double x1, double y1, const char *color);
void lsi_svg_circle(struct lsi_buf *b, double x, double y, const char *radius, const char *color);
/** A coloured box with a text behind it. */
void lsi_svg_title(struct lsi_buf *b, double x, double y, const char *color, const char *text);
/** Horizontal lines at the ticks between x0 and x1, with their numbers to the left. */
void lsi_svg_y_axis(struct lsi_buf *b, const struct lsi_axis *y, double x0, double x1, double top,
                    double height);
/** The point of a printed number becomes one where the locale has a comma. */
void lsi_drop_comma(char *text);
/** 1234567 -> 1,234,567 */
void lsi_grouped(uint64_t v, char out[32]);

#endif

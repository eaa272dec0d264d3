#include "base/svg.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MAX_TICKS 12

/* ---- numbers ------------------------------------------------------------------------------------ */

void lsi_drop_comma(char *text)
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

void lsi_svg_number(struct lsi_buf *b, double v, double step)
{
    char text[40];
    const double size = fabs(v);
    const int steps_power = (int)floor(log10(step) + 1e-9);
    if (v == 0) {
        lsi_buf_printf(b, "0");
    } else if (step >= 1e-3 && size < 1e6) {
        snprintf(text, sizeof text, "%.*f", steps_power < 0 ? -steps_power : 0, v);
        lsi_drop_comma(text);
        lsi_buf_append(b, text, strlen(text));
    } else {
        const int power = (int)floor(log10(size) + 1e-9), digits = power - steps_power;
        snprintf(text, sizeof text, "%.*f", digits < 0 ? 0 : digits > 6 ? 6 : digits, v / pow(10, power));
        lsi_drop_comma(text);
        drop_zeros(text);
        lsi_buf_printf(b, "%se%d", text, power);
    }
}

/* ---- axes ---------------------------------------------------------------------------------------- */

double lsi_nice_step(double range, int n)
{
    const double raw = range / n;
    const double power = pow(10, floor(log10(raw)));
    const double m = raw / power;
    return power * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

struct lsi_axis lsi_axis_make(double low, double high, int n)
{
    struct lsi_axis a;
    if (!(high > low)) {
        const double room = low != 0 ? fabs(low) * 0.1 : 1;
        low -= room;
        high += room;
    }
    a.step = lsi_nice_step(high - low, n);
    a.low = floor(low / a.step + 1e-9) * a.step;
    a.high = ceil(high / a.step - 1e-9) * a.step;
    return a;
}

/* ---- drawing --------------------------------------------------------------------------------------- */

void lsi_svg_begin(struct lsi_buf *b, int width, int height)
{
    lsi_buf_printf(
        b,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
        "font-family=\"system-ui, 'Helvetica Neue', Arial, sans-serif\">\n"
        "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
        width, height, width, height, width, height);
}

void lsi_svg_px(struct lsi_buf *b, double v)
{
    const long long hundredths = llround(v * 100);
    const long long a = hundredths < 0 ? -hundredths : hundredths;
    lsi_buf_printf(b, "%s%lld.%02lld", hundredths < 0 ? "-" : "", a / 100, a % 100);
}

void lsi_svg_text(struct lsi_buf *b, double x, double y, const char *anchor, const char *fill, int size,
                  const char *text)
{
    lsi_buf_printf(b, "<text x=\"");
    lsi_svg_px(b, x);
    lsi_buf_printf(b, "\" y=\"");
    lsi_svg_px(b, y);
    lsi_buf_printf(b, "\" text-anchor=\"%s\" fill=\"%s\" font-size=\"%d\">%s</text>\n", anchor, fill, size,
                   text);
}

void lsi_svg_line(struct lsi_buf *b, double x0, double y0, double x1, double y1, const char *color)
{
    lsi_buf_printf(b, "<line x1=\"");
    lsi_svg_px(b, x0);
    lsi_buf_printf(b, "\" y1=\"");
    lsi_svg_px(b, y0);
    lsi_buf_printf(b, "\" x2=\"");
    lsi_svg_px(b, x1);
    lsi_buf_printf(b, "\" y2=\"");
    lsi_svg_px(b, y1);
    lsi_buf_printf(b, "\" stroke=\"%s\"/>\n", color);
}

void lsi_grouped(uint64_t v, char out[32])
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

void lsi_svg_circle(struct lsi_buf *b, double x, double y, const char *radius, const char *color)
{
    lsi_buf_printf(b, "<circle cx=\"");
    lsi_svg_px(b, x);
    lsi_buf_printf(b, "\" cy=\"");
    lsi_svg_px(b, y);
    lsi_buf_printf(b, "\" r=\"%s\" fill=\"%s\"/>\n", radius, color);
}

void lsi_svg_title(struct lsi_buf *b, double x, double y, const char *color, const char *text)
{
    lsi_buf_printf(b, "<rect x=\"");
    lsi_svg_px(b, x);
    lsi_buf_printf(b, "\" y=\"");
    lsi_svg_px(b, y - 8);
    lsi_buf_printf(b, "\" width=\"10\" height=\"8\" fill=\"%s\"/>\n", color);
    lsi_svg_text(b, x + 16, y, "start", LSI_SVG_INK, 12, text);
}

void lsi_svg_y_axis(struct lsi_buf *b, const struct lsi_axis *axis, double x0, double x1, double top,
                    double height)
{
    for (int i = 0; i <= MAX_TICKS; i++) {
        const double v = axis->low + i * axis->step;
        if (v > axis->high + axis->step * 1e-6)
            break;
        const double y = top + height * (1 - (v - axis->low) / (axis->high - axis->low));
        lsi_svg_line(b, x0, y, x1, y, LSI_SVG_GRID);
        lsi_buf_printf(b, "<text x=\"");
        lsi_svg_px(b, x0 - 8);
        lsi_buf_printf(b, "\" y=\"");
        lsi_svg_px(b, y + 4);
        lsi_buf_printf(b, "\" text-anchor=\"end\" fill=\"" LSI_SVG_SOFT "\" font-size=\"11\">");
        lsi_svg_number(b, fabs(v) < axis->step * 1e-6 ? 0 : v, axis->step);
        lsi_buf_printf(b, "</text>\n");
    }
}

/* How far a long piece of work has come. */
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum {
    BAR_CELLS = 24,
    BAR_LEAST = 4 /* fewer cells tell nothing */
};

/* One line that fits the terminal: a longer one would stay there each time it is redrawn. */
void progress_draw(const char *what, const char *text, double share)
{
    const size_t columns = terminal_columns(), width = columns ? columns - 1 : 80;
    const size_t used = strlen(what) + strlen(text) + 4; /* two spaces, two brackets */
    const size_t room = used < width ? width - used : 0, cells = room < BAR_CELLS ? room : BAR_CELLS;
    const size_t full = (size_t)((double)cells * (share < 1 ? share : 1));
    char bar[BAR_CELLS + 1], line[256];

    memset(bar, '.', cells);
    memset(bar, '#', full);
    bar[cells] = '\0';
    if (cells >= BAR_LEAST)
        snprintf(line, sizeof line, "%s [%s] %s", what, bar, text);
    else
        snprintf(line, sizeof line, "%s %s", what, text);
    fprintf(stderr, "\r%.*s\033[K", (int)width, line);
    fflush(stderr);
}

void progress_wipe(void)
{
    fputs("\r\033[K", stderr);
}

void progress_start(struct progress *p, const char *what, const char *unit, bool quiet)
{
    *p = (struct progress){ .what = what, .unit = unit, .quiet = quiet, .started = now_seconds() };
    p->shown = p->started;
}

void progress_span(struct progress *p, size_t offset, size_t total)
{
    p->offset = offset;
    p->total = total;
}

void progress_update(void *user, size_t done, size_t total)
{
    struct progress *p = user;
    const double now = now_seconds(), spent = now - p->started;
    const bool terminal = isatty(STDERR_FILENO);
    char left[32], text[128];

    if (p->total) {
        done += p->offset;
        total = p->total;
    }
    if (!p->what || p->quiet || spent < 1 || done == 0 || total == 0 ||
        now - p->shown < (terminal ? 0.1 : 10))
        return;
    p->shown = now;
    const double rate = (double)done / spent;
    format_seconds(left, (double)(total - done) / rate);
    if (!terminal) {
        fprintf(stderr, "%s: %zu of %zu %s, %.0f %s/s, %s left\n", p->what, done, total, p->unit, rate,
                p->unit, left);
        return;
    }
    snprintf(text, sizeof text, "%zu/%zu %s, %.0f/s, %s left", done, total, p->unit, rate, left);
    progress_draw(p->what, text, (double)done / (double)total);
    p->drawn = true;
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        progress_wipe();
    p->drawn = false;
    p->what = NULL;
}

/* How far a long piece of work has come. */
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum {
    BAR_CELLS = 24
};

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
    char left[32], bar[BAR_CELLS + 1];

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
    const size_t full = (size_t)((double)BAR_CELLS * (double)done / (double)total);
    memset(bar, '.', BAR_CELLS);
    memset(bar, '#', full < BAR_CELLS ? full : BAR_CELLS);
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "\r%s [%s] %zu/%zu %s, %.0f/s, %s left \033[K", p->what, bar, done, total, p->unit, rate,
            left);
    fflush(stderr);
    p->drawn = true;
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
    p->what = NULL;
}

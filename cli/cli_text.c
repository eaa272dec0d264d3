/* Messages, growing text, files, units. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static void say(const char *fmt, va_list ap)
{
    fflush(stdout);
    fputs("longspan: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int cli_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return EXIT_ERROR;
}

int cli_usage(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return EXIT_USAGE;
}

void cli_note(bool quiet, const char *fmt, ...)
{
    va_list ap;

    if (quiet)
        return;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void *cli_realloc(void *ptr, size_t n, size_t size)
{
    void *p = reallocarray(ptr, n ? n : 1, size);

    if (!p) {
        cli_fail("out of memory (%zu times %zu bytes)", n, size);
        exit(EXIT_ERROR);
    }
    return p;
}

static void text_room(struct text *t, size_t n)
{
    const size_t need = t->len + n + 1;

    if (need <= t->cap)
        return;
    t->cap = need > 2 * t->cap ? need : 2 * t->cap;
    t->data = cli_realloc(t->data, t->cap, 1);
}

void text_add(struct text *t, const void *data, size_t n)
{
    text_room(t, n);
    if (n)
        memcpy(t->data + t->len, data, n);
    t->len += n;
    t->data[t->len] = '\0';
}

void text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    text_room(t, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(t->data + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

void text_clear(struct text *t)
{
    t->len = 0;
    if (t->data)
        t->data[0] = '\0';
}

void text_free(struct text *t)
{
    free(t->data);
    *t = (struct text){ 0 };
}

bool text_read_file(struct text *t, const char *path)
{
    const bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    bool failed;

    if (!f) {
        cli_fail("cannot read '%s': %s", path, strerror(errno));
        return false;
    }
    text_room(t, 0);
    t->data[t->len] = '\0';
    for (;;) {
        text_room(t, 1 << 16);
        const size_t n = fread(t->data + t->len, 1, 1 << 16, f);
        t->len += n;
        t->data[t->len] = '\0';
        if (n == 0)
            break;
    }
    failed = ferror(f) != 0;
    if (failed)
        cli_fail("cannot read '%s': %s", path, strerror(errno));
    if (!is_stdin)
        fclose(f);
    return !failed;
}

const char *format_bytes(char *out, double bytes)
{
    static const char *const units[] = { "bytes", "KB", "MB", "GB", "TB" };
    size_t u = 0;

    while (bytes >= 999.5 && u + 1 < CLI_LEN(units)) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, 32, u == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return out;
}

const char *format_binary(char *out, double bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    size_t u = 0;

    while (bytes >= 1023.5 && u + 1 < CLI_LEN(units)) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 32,
             u == 0 || bytes >= 99.95 ? "%.0f %s"
             : bytes >= 9.995         ? "%.1f %s"
                                      : "%.2f %s",
             bytes, units[u]);
    return out;
}

const char *format_seconds(char *out, double seconds)
{
    if (seconds < 9.95)
        snprintf(out, 32, "%.1f s", seconds);
    else if (seconds < 119.5)
        snprintf(out, 32, "%.0f s", seconds);
    else if (seconds < 7170)
        snprintf(out, 32, "%d min %02d s", (int)(seconds + 0.5) / 60, (int)(seconds + 0.5) % 60);
    else
        snprintf(out, 32, "%.0f h %02d min", (double)((long long)(seconds / 3600)),
                 (int)((long long)seconds % 3600 / 60));
    return out;
}

double now_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

size_t terminal_columns(void)
{
    static const int files[] = { STDERR_FILENO, STDOUT_FILENO };
    struct winsize w;

    for (size_t i = 0; i < CLI_LEN(files); i++)
        if (ioctl(files[i], TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
            return w.ws_col;
    return 0;
}

int finish_output(int status)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && status != EXIT_ERROR) /* one message is enough */
        return cli_fail("cannot write the result: %s", strerror(errno));
    return status;
}

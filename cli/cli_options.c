/* Reading the command line and writing the help pages, both from options.def. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli_options.h"

enum option_type {
    FLAG,
    OFF,
    COUNT,
    SIZE,
    REAL,
    REALS,
    TEXT,
    TEXTS,
    COUNTS
};

struct option_row {
    enum option_type type;
    size_t field; /* offset in struct cli_options */
    const char *names;
    char letter;
    const char *argument;
    double lowest, highest;
    const char *choices;
    const char *normal; /* the default, as it would be written */
    unsigned commands;
    const char *group;
    const char *help;
};

static const struct option_row rows[] = {
#define OPTION(type, field, names, letter, argument, lowest, highest, choices, normal, commands, group, \
               help)                                                                                    \
    { type,                                                                                             \
      offsetof(struct cli_options, field),                                                              \
      names,                                                                                            \
      letter,                                                                                           \
      argument,                                                                                         \
      (double)(lowest),                                                                                 \
      (double)(highest),                                                                                \
      choices,                                                                                          \
      normal,                                                                                           \
      commands,                                                                                         \
      group,                                                                                            \
      help },
#include "options.def"
#undef OPTION
};

static const char *const groups[] = {
    "Input",    "What to do",       "Conversation", "Answer",  "Choosing tokens",
    "Windows",  "What to look at",  "Tests",        "Plan",    "Data",
    "Learning", "Adapters",         "Position",     "Numbers", "How a step is computed",
    "The run",  "Speed and memory", "Output"
};

/* ---- names ------------------------------------------------------------------ */

/* Whether word[0..n-1] is one of the names between '|'. */
static bool is_one_of(const char *names, const char *word, size_t n)
{
    while (names) {
        const size_t len = strcspn(names, "|");
        if (len == n && memcmp(names, word, n) == 0)
            return true;
        names = names[len] ? names + len + 1 : NULL;
    }
    return false;
}

/* Changes (insert, delete, replace, swap neighbours) from a to b; words longer than the table are far. */
static size_t edit_distance(const char *a, const char *b)
{
    enum {
        MAX = 32
    };
    const size_t n = strlen(a), m = strlen(b);
    size_t d[MAX + 1][MAX + 1];

    if (n > MAX || m > MAX)
        return MAX;
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *nearest_name(const char *word, const char *const *names, size_t n)
{
    const size_t len = strlen(word), most = len < 4 ? 1 : len < 8 ? 2 : 3;
    const char *best = NULL;
    size_t best_distance = most + 1;

    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (len >= 2 && distance > 1 && strncmp(names[i], word, len) == 0)
            distance = 1; /* an abbreviation */
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

/* The nearest of the texts between '|' in each of n lists; copied to out[64]. */
static bool suggest(const char *word, const char *const *lists, size_t n_lists, char out[64])
{
    char pool[128][64];
    const char *names[128];
    const char *best;
    size_t n = 0;

    for (size_t i = 0; i < n_lists; i++) {
        for (const char *p = lists[i]; p && n < CLI_LEN(names);) {
            const size_t len = strcspn(p, "|");
            snprintf(pool[n], sizeof pool[n], "%.*s", (int)len, p);
            names[n] = pool[n];
            n++;
            p = p[len] ? p + len + 1 : NULL;
        }
    }
    best = nearest_name(word, names, n);
    if (best)
        snprintf(out, 64, "%s", best);
    return best != NULL;
}

/* ---- values ----------------------------------------------------------------- */

static bool parse_count(const char *s, size_t n, long long *v)
{
    char digits[32], *end;

    if (n == 0 || n >= sizeof digits)
        return false;
    memcpy(digits, s, n);
    digits[n] = '\0';
    if (!isdigit((unsigned char)digits[0]) && digits[0] != '-')
        return false;
    errno = 0;
    *v = strtoll(digits, &end, 10);
    return *end == '\0' && errno == 0;
}

/* v: the number of the value that is out of range. */
static int complain_range(const struct option_row *r, const char *shown, const char *value, double v)
{
    if (v < r->lowest && r->highest >= (double)(1LL << 24))
        return cli_usage("%s is '%s'; it must be %.0f or greater", shown, value, r->lowest);
    return cli_usage("%s is '%s'; it must lie between %.15g and %.15g", shown, value, r->lowest, r->highest);
}

static int set_count(const struct option_row *r, void *field, const char *shown, const char *value)
{
    long long v;

    if (!parse_count(value, strlen(value), &v))
        return cli_usage("%s is '%s'; it must be a whole number", shown, value);
    if ((double)v < r->lowest || (double)v > r->highest)
        return complain_range(r, shown, value, (double)v);
    *(long long *)field = v;
    return EXIT_OK;
}

static int set_real(const struct option_row *r, void *field, const char *shown, const char *value)
{
    char *end;
    const double v = strtod(value, &end);

    if (end == value || *end != '\0' || isnan(v))
        return cli_usage("%s is '%s'; it must be a number", shown, value);
    if (v < r->lowest || v > r->highest)
        return complain_range(r, shown, value, v);
    *(double *)field = v;
    return EXIT_OK;
}

/* Bytes: "16GiB" and "16G" are powers of 1024, "16GB" of 1000, a bare number bytes. */
static bool parse_size(const char *s, unsigned long long *bytes)
{
    static const char prefixes[] = "KMGT";
    char *end;
    const double v = strtod(s, &end);
    double unit = 1;

    if (end == s || !isdigit((unsigned char)s[0]))
        return false;
    end += *end == ' ';
    const char *prefix = *end ? strchr(prefixes, toupper((unsigned char)*end)) : NULL;
    if (prefix) {
        const bool decimal = strcasecmp(end + 1, "B") == 0;
        unit = pow(decimal ? 1000 : 1024, (double)(prefix - prefixes + 1));
        if (!decimal && end[1] && strcasecmp(end + 1, "iB") != 0)
            return false;
    } else if (*end && strcasecmp(end, "B") != 0) {
        return false;
    }
    if (!(v * unit < 0x1p63))
        return false;
    *bytes = (unsigned long long)(v * unit);
    return true;
}

static int set_size(const struct option_row *r, void *field, const char *shown, const char *value)
{
    unsigned long long v;

    if (!parse_size(value, &v))
        return cli_usage("%s is '%s'; it must be a size such as 16GiB, 800MB or 4000000000", shown, value);
    if ((double)v < r->lowest)
        return cli_usage("%s is '%s'; it must be at least %.0f bytes", shown, value, r->lowest);
    *(unsigned long long *)field = v;
    return EXIT_OK;
}

/* As many numbers as the argument's form has. */
static int set_reals(const struct option_row *r, void *field, const char *shown, const char *value)
{
    struct real_list *list = field;
    size_t want = 1;

    for (const char *p = r->argument; *p; p++)
        want += *p == ',';
    list->n = 0;
    for (const char *p = value;;) {
        char *end;
        const double v = strtod(p, &end);
        if (end == p || (*end && *end != ',') || isnan(v))
            return cli_usage("%s is '%s'; it must be numbers with a comma between them: %s", shown, value,
                             r->argument);
        if (v < r->lowest || v > r->highest)
            return complain_range(r, shown, value, v);
        list->items = cli_realloc(list->items, list->n + 1, sizeof *list->items);
        list->items[list->n++] = v;
        if (!*end)
            break;
        p = end + 1;
    }
    if (list->n != want)
        return cli_usage("%s is '%s'; it must be %zu numbers: %s", shown, value, want, r->argument);
    return EXIT_OK;
}

static int set_text(const struct option_row *r, void *field, const char *shown, const char *value)
{
    char near[64];

    if (r->choices && !is_one_of(r->choices, value, strlen(value))) {
        struct text list = { 0 };
        for (const char *p = r->choices; *p; p++)
            text_add(&list, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
        const bool found = suggest(value, &r->choices, 1, near);
        cli_usage("%s is '%s'; it must be one of %s%s%s%s", shown, value, list.data,
                  found ? " (did you mean '" : "", found ? near : "", found ? "'?)" : "");
        text_free(&list);
        return EXIT_USAGE;
    }
    /* Policies and keys are the library's; eval and inspect take several. */
    if (strcmp(r->names, "kv") == 0 && !(r->commands & (CMD_EVAL | CMD_INSPECT))) {
        ls_error err = { 0 };
        if (ls_kv_check(value, &err) != LS_OK)
            return cli_usage("%s", err.text);
    }
    *(const char **)field = value;
    return EXIT_OK;
}

static int add_text(void *field, const char *value)
{
    struct text_list *list = field;

    list->items = cli_realloc(list->items, list->n + 1, sizeof *list->items);
    list->items[list->n++] = value;
    return EXIT_OK;
}

static int set_counts(const struct option_row *r, void *field, const char *shown, const char *value)
{
    struct count_list *list = field;

    list->n = 0;
    for (const char *p = value;; p++) {
        const size_t len = strcspn(p, ",");
        long long v;
        if (!parse_count(p, len, &v))
            return cli_usage("%s is '%s'; it must be whole numbers with commas between them, such as 0,4096",
                             shown, value);
        if ((double)v < r->lowest || (double)v > r->highest)
            return complain_range(r, shown, value, (double)v);
        list->items = cli_realloc(list->items, list->n + 1, sizeof *list->items);
        list->items[list->n++] = v;
        p += len;
        if (!*p)
            return EXIT_OK;
    }
}

static int set_value(struct cli_options *o, const struct option_row *r, const char *shown, const char *value)
{
    void *field = (char *)o + r->field;

    if (value && !*value && r->argument && is_one_of("FILE|DIR|PATH", r->argument, strlen(r->argument)))
        return cli_usage("%s is empty; it must name a file or a folder", shown);
    switch (r->type) {
    case FLAG:
    case OFF:
        *(bool *)field = r->type == FLAG;
        return EXIT_OK;
    case COUNT:
        return set_count(r, field, shown, value);
    case SIZE:
        return set_size(r, field, shown, value);
    case REAL:
        return set_real(r, field, shown, value);
    case REALS:
        return set_reals(r, field, shown, value);
    case TEXT:
        return set_text(r, field, shown, value);
    case TEXTS:
        return add_text(field, value);
    case COUNTS:
        return set_counts(r, field, shown, value);
    }
    return EXIT_OK;
}

/* ---- the command line --------------------------------------------------------- */

static const struct option_row *find_long(unsigned command, const char *name, size_t n)
{
    for (size_t i = 0; i < CLI_LEN(rows); i++)
        if ((rows[i].commands & command) && is_one_of(rows[i].names, name, n))
            return &rows[i];
    return NULL;
}

static const struct option_row *find_short(unsigned command, char letter)
{
    for (size_t i = 0; i < CLI_LEN(rows); i++)
        if ((rows[i].commands & command) && rows[i].letter == letter)
            return &rows[i];
    return NULL;
}

/* The row that a word names; *value is set to what follows '='. */
static const struct option_row *find_option(unsigned command, const char *word, const char **value)
{
    *value = NULL;
    if (word[1] != '-') {
        if (word[2] == '=')
            *value = word + 3;
        return word[2] == '=' || !word[2] ? find_short(command, word[1]) : NULL;
    }
    const size_t n = strcspn(word + 2, "=");
    if (word[2 + n] == '=')
        *value = word + 2 + n + 1;
    return find_long(command, word + 2, n);
}

static int complain_unknown(const struct command *cmd, const char *word)
{
    const char *lists[CLI_LEN(rows)];
    const size_t dashes = strspn(word, "-");
    char near[64], name[64];
    size_t n = 0;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + dashes, "="), word + dashes);
    for (size_t i = 0; i < CLI_LEN(rows); i++)
        if (rows[i].commands & cmd->bit)
            lists[n++] = rows[i].names;
    if (dashes == 1 && find_short(cmd->bit, name[0]) && isdigit((unsigned char)name[1]))
        return cli_usage("unknown option '%s' for %s; write '-%c %s'", word, cmd->name, name[0], word + 2);
    if (suggest(name, lists, n, near))
        return cli_usage(
            "unknown option '%.*s' for %s; did you mean '--%s'? ('longspan %s --help' lists all)",
            (int)strcspn(word, "="), word, cmd->name, near, cmd->name);
    return cli_usage("unknown option '%.*s' for %s; 'longspan %s --help' lists all", (int)strcspn(word, "="),
                     word, cmd->name, cmd->name);
}

static int parse_option(struct cli_options *o, const struct command *cmd, int argc, char **argv, int *at)
{
    const char *word = argv[*at], *value, *unused;
    const struct option_row *r = find_option(cmd->bit, word, &value);
    char shown[64];

    if (!r)
        return complain_unknown(cmd, word);
    snprintf(shown, sizeof shown, "%.*s", (int)strcspn(word, "="), word);
    if (r->type == FLAG || r->type == OFF) {
        if (value)
            return cli_usage("%s takes no value", shown);
    } else if (!value) {
        if (*at + 1 >= argc)
            return cli_usage("%s needs a value: %s %s", shown, shown, r->argument);
        value = argv[++*at];
        if (value[0] == '-' && value[1] == '-' && find_option(cmd->bit, value, &unused))
            return cli_usage("%s needs a value before '%s' (a text that begins so is given as --%.*s=%s)",
                             shown, value, (int)strcspn(r->names, "|"), r->names, value);
    }
    return set_value(o, r, shown, value);
}

int options_parse(struct cli_options *o, const struct command *cmd, int argc, char **argv)
{
    bool only_arguments = false;

    *o = (struct cli_options){ .command = cmd };
    for (size_t i = 0; i < CLI_LEN(rows); i++)
        if ((rows[i].commands & cmd->bit) && rows[i].normal)
            set_value(o, &rows[i], rows[i].names, rows[i].normal);
    for (int i = 0; i < argc; i++) {
        int status = EXIT_OK;
        if (!only_arguments && strcmp(argv[i], "--") == 0)
            only_arguments = true;
        else if (!only_arguments && argv[i][0] == '-' && argv[i][1])
            status = parse_option(o, cmd, argc, argv, &i);
        else if (cmd->bit & (CMD_CONVERT | CMD_PLAN))
            add_text(&o->rest, argv[i]);
        else
            status = cli_usage("unexpected argument '%s': %s takes options only%s", argv[i], cmd->name,
                               find_short(cmd->bit, 'p') ? "; a text is given with -p"
                                                         : "; a model is given with -m");
        if (status != EXIT_OK)
            return status;
    }
    return EXIT_OK;
}

void options_free(struct cli_options *o)
{
    free(o->rest.items);
    free(o->prompts.items);
    free(o->stop.items);
    free(o->policies.items);
    free(o->data.items);
    free(o->betas.items);
    free(o->n_prompt.items);
    free(o->n_gen.items);
    free(o->n_depth.items);
    free(o->n_threads.items);
    free(o->seeds.items);
}

/* ---- help ----------------------------------------------------------------------- */

enum {
    HELP_WIDTH = 100,        /* at most, and where there is no terminal */
    HELP_NARROW = 70,        /* below it descriptions stand under their options */
    HELP_COLUMN = 28,        /* where descriptions begin */
    HELP_NARROW_COLUMN = 10, /* on a narrow terminal */
    HELP_LEAST = 40
};

static size_t help_width(void)
{
    const size_t columns = terminal_columns();

    if (columns == 0 || columns > HELP_WIDTH)
        return HELP_WIDTH;
    return columns < HELP_LEAST ? HELP_LEAST : columns;
}

void help_wrapped(const char *s, size_t at, size_t from)
{
    const size_t width = help_width();

    while (*s) {
        const size_t word = strcspn(s, " ");
        if (at > from && at + 1 + word > width) {
            printf("\n%*s", (int)from, "");
            at = from;
        } else if (at > from) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)word, s);
        at += word;
        s += word;
        s += strspn(s, " ");
    }
    putchar('\n');
}

static void print_row(const struct option_row *r)
{
    const size_t column = help_width() < HELP_NARROW ? HELP_NARROW_COLUMN : HELP_COLUMN;
    struct text left = { 0 }, right = { 0 };

    if (r->letter)
        text_printf(&left, "  -%c, ", r->letter);
    else
        text_puts(&left, "      ");
    text_printf(&left, "--%.*s", (int)strcspn(r->names, "|"), r->names);
    if (r->argument)
        text_printf(&left, " %s", r->argument);
    fputs(left.data, stdout);
    if (left.len + 2 > column)
        printf("\n%*s", (int)column, "");
    else
        printf("%*s", (int)(column - left.len), "");
    text_puts(&right, r->help);
    if (r->normal)
        text_printf(&right, " (default: %s)", r->normal);
    help_wrapped(right.data, column, column);
    text_free(&left);
    text_free(&right);
}

void options_help(const struct command *cmd)
{
    printf("longspan %s: %s\n\nUsage:\n", cmd->name, cmd->summary);
    for (const char *p = cmd->usage; *p;) {
        const size_t len = strcspn(p, "\n");
        printf("  longspan %s %.*s\n", cmd->name, (int)len, p);
        p += len + (p[len] == '\n');
    }
    putchar('\n');
    for (const char *p = cmd->description; *p;) {
        const size_t len = strcspn(p, "\n");
        char *paragraph = strndup(p, len);
        if (paragraph)
            help_wrapped(paragraph, 0, 0);
        free(paragraph);
        p += len + (p[len] == '\n');
    }
    for (size_t g = 0; g < CLI_LEN(groups); g++) {
        bool titled = false;
        for (size_t i = 0; i < CLI_LEN(rows); i++) {
            if (!(rows[i].commands & cmd->bit) || strcmp(rows[i].group, groups[g]) != 0)
                continue;
            if (!titled)
                printf("\n%s:\n", groups[g]);
            titled = true;
            print_row(&rows[i]);
        }
    }
    printf("\nExamples:\n");
    for (const char *p = cmd->examples; *p;) {
        const size_t len = strcspn(p, "\n");
        printf("  %.*s\n", (int)len, p);
        p += len + (p[len] == '\n');
    }
    putchar('\n');
    help_wrapped(
        "Exit status: 0 done, 1 something failed, 2 the command line is wrong, 130 interrupted by Ctrl-C.", 0,
        0);
}

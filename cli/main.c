/* The commands, and which of them is meant. */
#include <stdlib.h>
#include <string.h>

#include "cli_options.h"

static const struct command commands[] = {
#define COMMAND_AS(name_, run_, bit_, summary_, usage_, description_, examples_) \
    { .name = name_,                                                             \
      .bit = bit_,                                                               \
      .run = cmd_##run_,                                                         \
      .summary = summary_,                                                       \
      .usage = usage_,                                                           \
      .description = description_,                                               \
      .examples = examples_ },
#define COMMAND(name_, ...) COMMAND_AS(#name_, name_, __VA_ARGS__)
#include "commands.def"
#undef COMMAND
#undef COMMAND_AS
};

static int print_overview(void)
{
    puts("Longspan trains and runs language models at long context on ordinary processors.\n\n"
         "Usage:\n"
         "  longspan COMMAND [options]\n\n"
         "Commands:");
    for (size_t i = 0; i < CLI_LEN(commands); i++)
        printf("  %-17s%s\n", commands[i].name, commands[i].summary);
    puts(
        "  help             the page of a command: longspan help chat; of the ways to keep a cache: help kv\n"
        "  version          version, instruction sets in use, libraries\n\n"
        "Examples:\n"
        "  longspan chat -m model.gguf\n"
        "  longspan generate -m model.gguf -p \"Once upon a time\" -n 100\n"
        "  longspan chat -m model.gguf --doc book.txt -p \"Who is the hero?\"\n\n"
        "Environment:\n"
        "  LONGSPAN_MODEL   the model to use when -m is not given\n"
        "  LS_CPU           instruction sets to use at most (ref, avx2, avx512 ...)\n"
        "  XDG_CACHE_HOME, XDG_STATE_HOME   where the demo's model and the chat's history are kept\n\n"
        "'longspan COMMAND --help' explains a command and its options.");
    return finish_output(EXIT_OK);
}

static int print_version(void)
{
    puts(ls_build_info());
    return finish_output(EXIT_OK);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < CLI_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int complain_unknown(const char *name)
{
    const char *names[CLI_LEN(commands) + 2] = { "help", "version" };

    for (size_t i = 0; i < CLI_LEN(commands); i++)
        names[i + 2] = commands[i].name;
    const char *near = nearest_name(name, names, CLI_LEN(names));
    if (near)
        return cli_usage("unknown command '%s'; did you mean '%s'? ('longspan --help' lists all)", name,
                         near);
    return cli_usage("unknown command '%s'; 'longspan --help' lists all", name);
}

static int print_help_of(const char *name)
{
    const struct command *cmd = find_command(name);

    if (!cmd && strcmp(name, "kv") != 0)
        return complain_unknown(name);
    if (cmd)
        options_help(cmd);
    else
        help_kv();
    return finish_output(EXIT_OK);
}

static int run_command(const struct command *cmd, int argc, char **argv)
{
    struct cli_options o;
    int status = options_parse(&o, cmd, argc, argv);

    if (status == EXIT_OK && o.help) {
        options_help(cmd);
        status = finish_output(EXIT_OK);
    } else if (status == EXIT_OK) {
        signals_install();
        status = cmd->run(&o);
    }
    options_free(&o);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        cli_usage("which command? 'longspan --help' lists them");
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return print_overview();
    if (strcmp(word, "help") == 0)
        return argc > 2 ? print_help_of(argv[2]) : print_overview();
    if (strcmp(word, "version") == 0 || strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return print_version();
    const struct command *cmd = find_command(word);
    return cmd ? run_command(cmd, argc - 2, argv + 2) : complain_unknown(word);
}

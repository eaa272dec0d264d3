/* The options of all sub-commands; the rows are in options.def. */
#ifndef LONGSPAN_CLI_OPTIONS_H
#define LONGSPAN_CLI_OPTIONS_H

#include "cli.h"

/* Bits of the sub-commands in options.def. */
enum {
    CMD_GENERATE = 1,
    CMD_CHAT = 2,
    CMD_PERPLEXITY = 4,
    CMD_TOKENIZE = 8,
    CMD_INFO = 16,
    CMD_CONVERT = 32,
    CMD_BENCH = 64,
    CMD_MERGE = 1024,
    CMD_TRAIN = 128,
    CMD_VERIFY = 256,
    CMD_PLAN = 512,
    CMD_EVAL = 2048,
    CMD_INSPECT = 4096,
};

/** Texts of an option that may be given more than once; they point into argv. */
struct text_list {
    const char **items;
    size_t n;
};

/** Numbers of an option that takes "512" or "0,4096,8192". */
struct count_list {
    long long *items;
    size_t n;
};

/** Numbers of an option that takes "0.9,0.999". */
struct real_list {
    double *items;
    size_t n;
};

struct cli_options {
    const struct command *command;
    struct text_list rest; /* arguments that are no options (convert, plan) */

    const char *model;
    struct text_list prompts;
    const char *file;
    const char *doc;
    const char *session;
    const char *system, *chat_template, *answer_prefix;
    struct text_list stop;
    long long n_predict;
    bool ignore_eos;

    long long threads, context, block;
    const char *kv, *compute;

    double temp, top_p, min_p, repeat_penalty;
    long long top_k, repeat_last, seed;

    long long stride, prompt_tokens, pieces;

    struct text_list policies;
    long long rows, top, layer, head;
    const char *svg;

    const char *per_token;

    bool decode, no_bos, special;
    bool tensors;

    const char *out, *dtype, *format;
    bool force;
    const char *adapter;

    struct count_list n_prompt, n_gen, n_depth, n_threads;
    long long repetitions;
    bool no_warmup;
    const char *output;

    const char *init, *tokenizer;
    struct text_list data;
    const char *data_format, *eval_data, *token_cache;
    long long seq, steps, accumulate;
    bool shuffle, pack;
    double lr, warmup, min_lr_ratio, weight_decay, eps, clip;
    struct real_list betas;
    const char *schedule, *weights, *moments, *mode, *spill;
    long long mlp_chunks, head_chunks, checkpoint_layers;
    unsigned long long memory;
    long long lora_rank;
    double lora_alpha, rope_base;
    const char *lora_targets, *rope_scaling;
    long long eval_every, eval_sequences, save_every, keep;
    const char *gguf, *dump;
    bool resume, dry_step;

    const char *plan_seq, *profile;
    const char *tasks, *lengths, *budgets, *protocol, *haystack, *show, *dump_prompts;
    struct count_list seeds;
    long long cases;
    bool csv;

    double rate_gemm, rate_attention, rate_copy, bytes_per_parameter;

    bool quiet, json, help;
};

/**
 * Read argv[0 .. argc-1], the words after the command's name.
 * EXIT_OK, or EXIT_USAGE after a sentence on stderr.
 */
int options_parse(struct cli_options *o, const struct command *cmd, int argc, char **argv);
void options_free(struct cli_options *o);

/** The command's help page on stdout. */
void options_help(const struct command *cmd);
/** Print words from column `from`, broken at the width of a help page; the cursor stands at column `at`. */
void help_wrapped(const char *s, size_t at, size_t from);
/** The page on --kv, on stdout: policies, their keys, examples. */
void help_kv(void);

/** Path of the model to use: -m, $LONGSPAN_MODEL, the demo's. NULL after a message. Release with free. */
char *find_model(const struct cli_options *o);

/** Write the model at `in`, with an adapter added (NULL: none), as the options say (cmd_convert.c). An exit
 * status. */
int cli_convert(const struct cli_options *o, const char *in, const char *adapter, const char *out);

/** The item of names nearest to word, NULL when none is near. */
const char *nearest_name(const char *word, const char *const *names, size_t n);

#endif

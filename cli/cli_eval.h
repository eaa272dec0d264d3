/* What 'longspan eval' is asked for (eval_lists.c) and how it tells results (eval_table.c). */
#ifndef LONGSPAN_CLI_EVAL_H
#define LONGSPAN_CLI_EVAL_H

#include "cli_options.h"

/** Texts of our own, one after the other; zero-initialise. */
struct names {
    char **items;
    size_t n;
};
void names_add(struct names *l, const char *s, size_t n);
void names_free(struct names *l);

/** Items between commas; empty ones are an error. An exit status. */
int list_split(const char *option, const char *text, struct names *out);
/** Policies between commas; a comma before key=value or a precision belongs to the policy before it. */
int list_policies(const char *text, struct names *out);
/** Names of tasks and groups, "all". */
int list_tasks(const char *text, struct names *out);
/** Whether a task has this name; an exit status. */
int check_task(const char *option, const char *name);
/** "4096", "4k" (1,024 each), "1m". */
int list_lengths(const char *text, struct count_list *out);

/**
 * The policy with a budget of tokens, "10%" of n_tokens or a number: its keys are added. *applied: it takes
 * one and has none of its own. An exit status.
 */
int policy_with_budget(struct text *out, const char *policy, const char *budget, size_t n_tokens,
                       bool *applied);

/** What all results of a run have in common. source: what things are hidden in; NULL: nothing is. */
struct eval_facts {
    const char *model, *compute, *source, *chat_template;
    long long threads, cases;
    const struct count_list *seeds;
    bool interrupted;
};

/** What a table is about, in one line without its end; quote: "`" in Markdown. */
void table_facts(struct text *out, const struct eval_facts *facts, const char *quote);
void table_text(struct text *out, const ls_eval_row *rows, size_t n);
void table_csv(struct text *out, const ls_eval_row *rows, size_t n);
/** Accuracy by task: a table for each length and protocol, as Markdown. */
void table_markdown(struct text *out, const ls_eval_row *rows, size_t n);
void table_json(struct json_out *j, const ls_eval_row *rows, size_t n, const struct eval_facts *facts);

#endif

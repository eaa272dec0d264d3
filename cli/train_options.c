/* From the command line to the library's training options. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <longspan/plan.h>

#include "cli_train.h"

/* Number of a word among those between '|', which stand in the order of the enumeration. */
static int number_of(const char *word, const char *names)
{
    const size_t n = strlen(word);
    int number = 0;

    for (const char *p = names; *p; number++) {
        const size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, word, n) == 0)
            return number;
        p += len + (p[len] == '|');
    }
    return 0;
}

static void set_data(const struct cli_options *o, ls_train_options *t)
{
    t->data = o->data.items;
    t->n_data = o->data.n;
    t->format = (ls_train_format)number_of(o->data_format, "auto|text|jsonl|chat");
    t->chat_template = strcmp(o->chat_template, "auto") == 0 ? NULL : o->chat_template;
    t->eval_data = o->eval_data;
    t->seq = (size_t)o->seq;
    t->shuffle = o->shuffle;
    t->pack = o->pack;
    t->token_cache = o->token_cache;
}

static void set_learning(const struct cli_options *o, ls_train_options *t)
{
    t->steps = (uint64_t)o->steps;
    t->lr = o->lr;
    t->schedule = (ls_train_schedule)number_of(o->schedule, "constant|linear|cosine");
    t->warmup = o->warmup;
    t->min_lr_ratio = o->min_lr_ratio;
    t->beta1 = o->betas.items[0];
    t->beta2 = o->betas.items[1];
    t->eps = o->eps;
    t->weight_decay = o->weight_decay;
    t->seed = (uint64_t)o->seed;
    t->lora_alpha = o->lora_alpha > 0 ? o->lora_alpha : 2 * (double)o->lora_rank;
    t->rope_base = o->rope_base;
    t->rope_scaling = o->rope_scaling;
    t->n_ctx = (size_t)o->context;
}

void train_options_how(const struct cli_options *o, ls_train_options *t)
{
    t->dtype = (ls_train_dtype)number_of(o->dtype, "bf16|fp32");
    t->weights = (ls_train_weights)number_of(o->weights, "master|pure");
    t->moments = (ls_train_moments)number_of(o->moments, "fp32|bf16|q8");
    t->mode = (ls_train_mode)number_of(o->mode, "sweep|standard|recompute|mst");
    t->lora_rank = (size_t)o->lora_rank;
    t->lora_targets = o->lora_targets;
    t->clip = o->clip;
    t->accumulate = (size_t)o->accumulate;
    t->block = (size_t)o->block;
    t->mlp_chunks = (size_t)o->mlp_chunks;
    t->head_chunks = (size_t)o->head_chunks;
    t->checkpoint_layers = (size_t)o->checkpoint_layers;
    t->spill = o->spill;
    t->memory = o->memory;
    t->n_threads = (int)o->threads;
}

int train_options(const struct cli_options *o, ls_train_options *t, char **model)
{
    *model = NULL;
    ls_train_options_defaults(t);
    if (o->data.n == 0 && !o->dry_step)
        return cli_usage("no data: name a file with --data FILE");
    if (o->init && o->model)
        return cli_usage("either -m or --init: train a model, or begin with random weights");
    if (o->lora_rank == 0 && (o->lora_alpha > 0 || strcmp(o->lora_targets, "all") != 0))
        return cli_usage("%s is of adapters: say their rank with --lora-rank N",
                         o->lora_alpha > 0 ? "--lora-alpha" : "--lora-targets");
    if (!o->init && !(*model = find_model(o)))
        return EXIT_USAGE;
    t->model = *model;
    t->init = o->init;
    t->tokenizer = o->tokenizer;
    set_data(o, t);
    set_learning(o, t);
    train_options_how(o, t);
    t->out = o->out;
    t->eval_every = (uint64_t)o->eval_every;
    t->eval_sequences = (size_t)o->eval_sequences;
    t->save_every = (uint64_t)o->save_every;
    t->keep = (size_t)o->keep;
    t->resume = o->resume;
    t->gguf = o->gguf;
    t->dry_step = o->dry_step;
    t->cancel = &cli_cancel;
    return EXIT_OK;
}

/* ---- what would fit ------------------------------------------------------------------- */

/* The longest sequence that fits, and the least change with which t's does; false: memory is not the matter.
 */
static bool find_advice(const ls_planner *p, const ls_train_options *t, size_t *longest, const char **option)
{
    ls_train_options o = *t;
    ls_train_plan plan = { .struct_size = sizeof plan };
    ls_plan_advice list[LS_PLAN_MAX_ADVICE] = { { .struct_size = sizeof *list } };
    size_t n;

    if (o.memory == 0)
        o.memory = ls_memory_available();
    if (o.memory == 0 || ls_planner_get(p, &o, &plan, NULL) != LS_OK || plan.total_bytes <= o.memory ||
        ls_planner_longest(p, &o, o.memory, longest, &plan, NULL) != LS_OK ||
        ls_planner_advise(p, &o, o.memory, list, &n, NULL) != LS_OK)
        return false;
    while (n > 0 && !list[n - 1].fits) /* those that lead furthest stand first */
        n--;
    *option = n ? list[n - 1].option : NULL;
    return true;
}

int train_fails(const ls_train_options *t, ls_status st, const ls_error *err)
{
    ls_planner *p = NULL;
    const char *option;
    size_t longest;
    char fits[64] = "no sequence fits as it is";

    if (st != LS_E_NOMEM || ls_planner_open(t->model ? t->model : t->init, NULL, &p, NULL) != LS_OK ||
        !find_advice(p, t, &longest, &option)) {
        ls_planner_close(p);
        return cli_fail("%s", err->text);
    }
    ls_planner_close(p);
    if (longest)
        snprintf(fits, sizeof fits, "%zu tokens fit as it is", longest);
    if (!option)
        return cli_fail("%s; %s", err->text, fits);
    return cli_fail("%s; %s, and %zu with %s", err->text, fits, t->seq, option);
}

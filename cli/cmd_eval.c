/* Questions about long texts, put to a model under one cache policy after the other. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_eval.h"
#include "cli_session.h"

enum {
    BLOCK = 512 /* rows worked on together unless --block says otherwise: asking needs to know */
};

static const char bible_command[] = "bible -l 200 gen1:1-rev22:21 2>/dev/null"; /* Debian's bible-kjv */

struct eval {
    struct session s;
    const struct cli_options *o;
    ls_eval_source *source;
    ls_chat_template *chat;
    ls_eval_log *log;
    struct text hay;
    struct names policies, budgets, tasks;
    struct count_list lengths;
    struct text kv;       /* the policy with all its keys, shares as shares: the context's become tokens */
    ls_eval_file **files; /* [o->data.n] */
    FILE *dump;           /* of --dump-prompts */
    size_t block;
    bool protocols[2];  /* by ls_eval_protocol */
    size_t done, total; /* tokens of prompts */
    struct names told;  /* notes that every policy would repeat */
};

/* ---- texts ------------------------------------------------------------------------------------- */

static bool read_bible(struct text *t)
{
    FILE *f = popen(bible_command, "r");
    char piece[4096];
    size_t n;

    if (!f)
        return false;
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        text_add(t, piece, n);
    return pclose(f) == 0 && t->len > 0;
}

/* What things are hidden in: a file, the Bible where it is installed, sentences that are made up. */
static int open_source(struct eval *e)
{
    const char *asked = e->o->haystack;
    const bool automatic = strcmp(asked, "auto") == 0, bible = automatic || strcmp(asked, "bible") == 0;
    const char *name = bible ? "bible-kjv" : asked;
    bool made_up = strcmp(asked, "made-up") == 0;
    ls_error err = { 0 };

    if (bible && !read_bible(&e->hay)) {
        if (!automatic)
            return cli_fail(
                "the program 'bible' gives no text: install Debian's bible-kjv, or name a file with "
                "--haystack FILE");
        made_up = true;
    } else if (!bible && !made_up && !text_read_file(&e->hay, asked)) {
        return EXIT_ERROR;
    }
    if (strcmp(e->o->chat_template, "none") != 0 &&
        ls_chat_template_open(e->s.tok, e->o->chat_template, &e->chat, &err) != LS_OK)
        return cli_fail("%s", err.text);
    const ls_eval_text text = { name, e->hay.data ? e->hay.data : "", e->hay.len };
    if (ls_eval_source_create(e->s.tok, made_up ? NULL : &text, e->chat, &e->source, &err) != LS_OK)
        return cli_fail("%s: %s", asked, err.text);
    return EXIT_OK;
}

static int open_model(struct eval *e)
{
    char *path = find_model(e->o);
    ls_error err = { 0 };
    int status = EXIT_OK;

    if (!path)
        return EXIT_USAGE;
    e->s.o = e->o;
    e->s.info.struct_size = sizeof e->s.info;
    if (ls_tokenizer_open(path, NULL, &e->s.tok, &err) != LS_OK ||
        (!e->o->show && !e->o->dump_prompts && ls_model_open(path, NULL, &e->s.model, &err) != LS_OK))
        status = cli_fail("%s", err.text);
    else if (e->s.model)
        ls_model_get_info(e->s.model, &e->s.info);
    free(path);
    return status;
}

static bool file_has_set(const ls_eval_file *f, const char *name)
{
    const char *s;

    for (size_t k = 0; (s = ls_eval_file_set(f, k)) != NULL; k++)
        if (strcmp(s, name) == 0)
            return true;
    return false;
}

/* Results are found again by the names of tasks and data sets. */
static int check_name(const struct eval *e, size_t file, const char *name)
{
    const char *path = e->o->data.items[file];

    for (size_t i = 0; i < e->tasks.n; i++)
        if (strcmp(e->tasks.items[i], name) == 0)
            return cli_usage("--data %s is called '%s' as a task is; rename the file", path, name);
    for (size_t i = 0; i < file; i++)
        if (file_has_set(e->files[i], name))
            return cli_usage("--data %s and %s are both called '%s'; rename one, or take them in two runs",
                             e->o->data.items[i], path, name);
    return EXIT_OK;
}

static int open_files(struct eval *e)
{
    ls_error err = { 0 };
    const char *name;
    int status = EXIT_OK;

    e->files = cli_realloc(NULL, e->o->data.n, sizeof(ls_eval_file *));
    for (size_t i = 0; i < e->o->data.n; i++)
        e->files[i] = NULL;
    for (size_t i = 0; i < e->o->data.n && status == EXIT_OK; i++) {
        if (ls_eval_file_open(e->o->data.items[i], &e->files[i], &err) != LS_OK)
            return cli_fail("%s", err.text);
        for (size_t k = 0; (name = ls_eval_file_set(e->files[i], k)) != NULL && status == EXIT_OK; k++)
            status = check_name(e, i, name);
    }
    return status;
}

/* As for every command: what lies beyond the training is told. */
static void note_lengths(const struct eval *e)
{
    const size_t trained = e->s.info.n_ctx_train;
    size_t longest = 0;

    for (size_t i = 0; i < e->lengths.n; i++)
        longest = (size_t)e->lengths.items[i] > longest ? (size_t)e->lengths.items[i] : longest;
    if (trained && longest > trained)
        session_note_trained(&e->s);
}

static int read_lists(struct eval *e)
{
    const struct cli_options *o = e->o;
    /* Files are questions enough unless tasks are asked for besides. */
    const char *tasks = o->tasks ? o->tasks : o->data.n ? NULL : "all";
    int status = list_policies(o->kv, &e->policies);

    if (status == EXIT_OK && o->budgets)
        status = list_split("--budget", o->budgets, &e->budgets);
    if (status == EXIT_OK && tasks)
        status = list_tasks(tasks, &e->tasks);
    if (status == EXIT_OK)
        status = list_lengths(o->lengths, &e->lengths);
    if (status == EXIT_OK && o->show)
        status = check_task("--show", o->show);
    e->block = o->block ? (size_t)o->block : BLOCK;
    e->protocols[LS_EVAL_DENSE] = strcmp(o->protocol, "sparse") != 0;
    e->protocols[LS_EVAL_SPARSE] = strcmp(o->protocol, "dense") != 0;
    return status;
}

/* ---- one case -------------------------------------------------------------------------------------- */

/* What to ask: a task with a length, or a data set of a file. */
struct set {
    const char *name, *budget; /* budget: as --budget has it, "" for none */
    ls_eval_file *file;
    size_t in_file; /* place of the data set */
    size_t n_tokens;
};

static int interrupted_or_failed(ls_status st, const ls_error *err)
{
    return st == LS_E_CANCELED ? EXIT_INTERRUPTED : cli_fail("%s", err->text);
}

static int ask(struct eval *e, const struct set *set, const ls_eval_case *c, ls_eval_protocol protocol,
               size_t *held)
{
    ls_eval_record record = { .kv = e->kv.data,
                              .budget = set->budget,
                              .task = set->name,
                              .n_tokens = set->n_tokens,
                              .seed = c->seed,
                              .index = c->index,
                              .protocol = protocol,
                              .result.struct_size = sizeof record.result };
    ls_error err = { 0 };
    ls_status st;

    if (ls_eval_log_has(e->log, &record)) {
        *held = 0;
        return EXIT_OK;
    }
    progress_span(&e->s.progress, e->done, e->total);
    st = ls_eval_ask(e->s.ctx, e->source, c, protocol, *held, &record.result, &err);
    if (*held > 0) /* the end of a prompt alone, which is slower than all of it: no speed to tell */
        record.result.prompt_tokens = 0, record.result.prompt_seconds = 0;
    *held = 0;
    if (st == LS_OK)
        st = ls_eval_log_add(e->log, &record, &err);
    if (st == LS_OK && protocol == LS_EVAL_SPARSE && e->protocols[LS_EVAL_DENSE])
        st = ls_eval_keep(e->s.ctx, e->source, c, e->block, held, &err);
    ls_eval_result_clear(&record.result);
    return st == LS_OK ? EXIT_OK : interrupted_or_failed(st, &err);
}

/* Sparse first: its document is the beginning of dense's prompt. */
static int ask_both(struct eval *e, const struct set *set, const ls_eval_case *c)
{
    static const ls_eval_protocol order[] = { LS_EVAL_SPARSE, LS_EVAL_DENSE };
    size_t held = 0;
    int status = EXIT_OK;

    for (size_t i = 0; i < CLI_LEN(order) && status == EXIT_OK; i++) {
        if (!e->protocols[order[i]])
            continue;
        status = ask(e, set, c, order[i], &held);
        e->done += set->n_tokens;
    }
    return status;
}

/* ---- all cases of a policy and a length ---------------------------------------------------------------- */

static int open_context(struct eval *e, const char *kv, size_t n_ctx)
{
    ls_context_options c;
    ls_error err = { 0 };

    session_context_options(&e->s, n_ctx, &c);
    c.kv = kv;
    c.block = e->block;
    ls_context_free(e->s.ctx);
    e->s.ctx = NULL;
    if (ls_context_create(e->s.model, &c, &e->s.ctx, &err) != LS_OK)
        return cli_fail("%s", err.text);
    text_clear(&e->kv);
    text_puts(&e->kv, ls_context_kv(e->s.ctx));
    return EXIT_OK;
}

/* For each policy the same is left out: it is told once. */
static void note_once(struct eval *e, const char *sentence)
{
    for (size_t i = 0; i < e->told.n; i++)
        if (strcmp(e->told.items[i], sentence) == 0)
            return;
    names_add(&e->told, sentence, strlen(sentence));
    cli_note(e->o->quiet, "%s; left out", sentence);
}

/* What is done with each case of a set. */
typedef int case_fn(struct eval *e, const struct set *set, const ls_eval_case *c);

/* Seeds and cases of a task; a length that is too short for it is told and passed over. */
static int each_of_task(struct eval *e, const struct set *set, case_fn *fn)
{
    const struct count_list *seeds = &e->o->seeds;
    int status = EXIT_OK;

    for (size_t s = 0; s < seeds->n && status == EXIT_OK; s++)
        for (long long i = 0; i < e->o->cases && status == EXIT_OK; i++) {
            ls_eval_case *c = NULL;
            ls_error err = { 0 };
            const ls_status st = ls_eval_case_create(e->source, set->name, set->n_tokens,
                                                     (uint64_t)seeds->items[s], (uint64_t)i, &c, &err);
            if (st == LS_E_LIMIT) {
                note_once(e, err.text);
                return EXIT_OK;
            }
            if (st != LS_OK)
                return cli_fail("%s", err.text);
            status = fn(e, set, c);
            ls_eval_case_free(c);
        }
    return status;
}

/* Lines of a data set, as many as --cases; those that are too long are passed over. */
static int each_of_file(struct eval *e, const struct set *set, case_fn *fn)
{
    const size_t n = ls_eval_file_count(set->file);
    size_t left_out = 0, asked = 0;
    struct text note = { 0 };
    int status = EXIT_OK;

    for (size_t i = 0; i < n && asked < (size_t)e->o->cases && status == EXIT_OK; i++) {
        ls_eval_case *c = NULL;
        ls_error err = { 0 };
        if (ls_eval_file_set_of(set->file, i) != set->in_file)
            continue;
        asked++;
        const ls_status st = ls_eval_file_case(set->file, i, e->source, set->n_tokens, &c, &err);
        if (st == LS_E_LIMIT) {
            left_out++;
            continue;
        }
        if (st != LS_OK)
            status = cli_fail("%s", err.text);
        else
            status = fn(e, set, c);
        ls_eval_case_free(c);
    }
    if (left_out && status == EXIT_OK) {
        text_printf(&note, "%zu questions of %s are longer than %zu tokens", left_out, set->name,
                    set->n_tokens);
        note_once(e, note.data);
    }
    text_free(&note);
    return status;
}

static int each_case(struct eval *e, const char *budget, size_t n_tokens, case_fn *fn)
{
    int status = EXIT_OK;

    for (size_t i = 0; i < e->tasks.n && status == EXIT_OK; i++) {
        const struct set set = { .name = e->tasks.items[i], .budget = budget, .n_tokens = n_tokens };
        status = each_of_task(e, &set, fn);
    }
    for (size_t i = 0; i < e->o->data.n && status == EXIT_OK; i++) {
        struct set set = { .budget = budget, .file = e->files[i], .n_tokens = n_tokens };
        for (; (set.name = ls_eval_file_set(set.file, set.in_file)) != NULL && status == EXIT_OK;
             set.in_file++)
            status = each_of_file(e, &set, fn);
    }
    return status;
}

static int ask_policy(struct eval *e, const char *kv, const char *budget, size_t n_tokens)
{
    const int status = open_context(e, kv, n_tokens);

    return status == EXIT_OK ? each_case(e, budget, n_tokens, ask_both) : status;
}

/* Calls fn for every policy, with each budget where it takes one. */
typedef int policy_fn(struct eval *e, const char *kv, const char *budget, size_t n_tokens);

static int each_policy(struct eval *e, size_t n_tokens, policy_fn *fn)
{
    struct text kv = { 0 };
    int status = EXIT_OK;

    for (size_t i = 0; i < e->policies.n && status == EXIT_OK; i++) {
        bool applied = false;
        for (size_t b = 0; b < e->budgets.n && status == EXIT_OK; b++) {
            status = policy_with_budget(&kv, e->policies.items[i], e->budgets.items[b], n_tokens, &applied);
            if (status == EXIT_OK && applied)
                status = fn(e, kv.data, e->budgets.items[b], n_tokens);
        }
        if (status == EXIT_OK && !applied)
            status = fn(e, e->policies.items[i], "", n_tokens);
    }
    text_free(&kv);
    return status;
}

/* Lines that are asked about, at most `most` of each data set. */
static size_t questions_of(const ls_eval_file *f, size_t most)
{
    size_t n = 0;

    for (size_t k = 0; ls_eval_file_set(f, k); k++)
        for (size_t i = 0, of_set = 0; i < ls_eval_file_count(f) && of_set < most; i++)
            if (ls_eval_file_set_of(f, i) == k)
                of_set++, n++;
    return n;
}

/* A policy that is refused, with what was asked of it. Of "--kv NAME: " of the sentence one is enough. */
static int refuse_policy(const char *kv, const char *budget, size_t n_tokens, const char *why)
{
    const bool named = strncmp(why, "--kv ", 5) == 0 && strstr(why, ": ");

    if (named)
        why = strstr(why, ": ") + 2;
    if (!*budget)
        return cli_usage("--kv %s: %s", kv, why);
    return cli_usage("--kv %s (--budget %s, --length %zu): %s; a greater budget or length may help", kv,
                     budget, n_tokens, why);
}

/* Before the first case: every policy is one, and how much there is to do. */
static int plan_policy(struct eval *e, const char *kv, const char *budget, size_t n_tokens)
{
    ls_context_options c;
    ls_context_plan_info plan = { .struct_size = sizeof plan };
    ls_error err = { 0 };
    size_t n = e->tasks.n * e->o->seeds.n * (size_t)e->o->cases;

    session_context_options(&e->s, n_tokens, &c);
    c.kv = kv;
    if (ls_context_plan(e->s.model, &c, &plan, &err) != LS_OK)
        return refuse_policy(kv, budget, n_tokens, err.text);
    for (size_t i = 0; i < e->o->data.n; i++)
        n += questions_of(e->files[i], (size_t)e->o->cases);
    e->total += n * n_tokens * (size_t)(e->protocols[0] + e->protocols[1]);
    return EXIT_OK;
}

static int each_length(struct eval *e, policy_fn *fn)
{
    int status = EXIT_OK;

    for (size_t i = 0; i < e->lengths.n && status == EXIT_OK; i++)
        status = each_policy(e, (size_t)e->lengths.items[i], fn);
    return status;
}

/* ---- results ------------------------------------------------------------------------------------------- */

static int write_file(const char *dir, const char *name, const struct text *t)
{
    struct text path = { 0 };
    int status = EXIT_OK;

    text_printf(&path, "%s/%s", dir, name);
    FILE *f = fopen(path.data, "w");
    bool failed = !f;
    if (f) {
        failed = fwrite(t->data ? t->data : "", 1, t->len, f) != t->len;
        failed |= fclose(f) != 0;
    }
    if (failed)
        status = cli_fail("cannot write '%s': %s", path.data, strerror(errno));
    text_free(&path);
    return status;
}

/* Text and Markdown lie about without the command: a line above them says what they are about. */
static int write_folder(const char *dir, const ls_eval_row *rows, size_t n, const struct text forms[4],
                        const struct eval_facts *facts)
{
    static const char *const names[] = { "table.txt", "table.csv", "table.md", "table.json" };
    static const char *const quotes[] = { "", NULL, "`", NULL };
    ls_error err = { 0 };
    int status = EXIT_OK;

    for (size_t i = 0; i < CLI_LEN(names) && status == EXIT_OK; i++) {
        struct text whole = { 0 };
        if (quotes[i]) {
            table_facts(&whole, facts, quotes[i]);
            text_puts(&whole, "\n\n");
        }
        text_add(&whole, forms[i].data ? forms[i].data : "", forms[i].len);
        status = write_file(dir, names[i], &whole);
        text_free(&whole);
    }
    if (status == EXIT_OK && ls_eval_plot(rows, n, dir, &err) != LS_OK)
        status = cli_fail("%s", err.text);
    return status;
}

static struct eval_facts facts_of(const struct eval *e, bool interrupted)
{
    return (struct eval_facts){ .model = e->s.info.path,
                                .compute = e->o->compute,
                                .source = e->tasks.n ? ls_eval_source_name(e->source) : NULL,
                                .chat_template = e->chat ? ls_chat_template_name(e->chat) : NULL,
                                .threads = e->o->threads ? e->o->threads : ls_cpu_count(),
                                .cases = e->o->cases,
                                .seeds = &e->o->seeds,
                                .interrupted = interrupted };
}

static int tell(struct eval *e, bool interrupted)
{
    const struct cli_options *o = e->o;
    const struct eval_facts facts = facts_of(e, interrupted);
    const ls_eval_row *rows = NULL;
    struct text forms[4] = { { 0 } };
    struct json_out j = { 0 };
    ls_error err = { 0 };
    size_t n = 0;
    int status = EXIT_OK;

    if (ls_eval_log_rows(e->log, &rows, &n, &err) != LS_OK)
        return cli_fail("%s", err.text);
    if (n == 0 && !interrupted)
        return cli_fail("no question fits into the tokens of --length: give more");
    table_text(&forms[0], rows, n);
    table_csv(&forms[1], rows, n);
    table_markdown(&forms[2], rows, n);
    table_json(&j, rows, n, &facts);
    text_puts(&j.text, "\n");
    forms[3] = j.text;
    if (o->out)
        status = write_folder(o->out, rows, n, forms, &facts);
    const struct text *shown = &forms[o->json ? 3 : o->csv ? 1 : 0];
    if (shown->len)
        fwrite(shown->data, 1, shown->len, stdout);
    for (size_t i = 0; i < CLI_LEN(forms); i++)
        text_free(&forms[i]);
    return finish_output(status);
}

/* What results depend on besides what their lines say. */
static int open_log(struct eval *e)
{
    struct text settings = { 0 };
    const char *name = strrchr(e->s.info.path, '/');
    ls_error err = { 0 };
    int status = EXIT_OK;

    text_printf(&settings, "model %s:%016llx\ncompute %s\nblock %zu\ntext %s\nchat template %s",
                name ? name + 1 : e->s.info.path, (unsigned long long)ls_eval_model_digest(e->s.model),
                e->o->compute, e->block, ls_eval_source_name(e->source),
                e->chat ? ls_chat_template_name(e->chat) : "none");
    for (size_t i = 0; i < e->o->data.n; i++)
        text_printf(&settings, "\ndata %s:%016llx", ls_eval_file_set(e->files[i], 0),
                    (unsigned long long)ls_eval_file_digest(e->files[i]));
    if (ls_eval_log_open(e->o->out, settings.data, e->o->resume, &e->log, &err) != LS_OK)
        status = cli_fail("%s", err.text);
    text_free(&settings);
    return status;
}

static void note_one_line(const struct eval *e)
{
    for (size_t i = 0; i < e->o->data.n && e->protocols[LS_EVAL_SPARSE]; i++) {
        const size_t n = ls_eval_file_one_line(e->files[i]);
        if (n > 0)
            cli_note(e->o->quiet,
                     "%s: %zu of %zu inputs have no line before the question, so that nothing of them is "
                     "compressed under sparse",
                     e->o->data.items[i], n, ls_eval_file_count(e->files[i]));
    }
}

static int ask_all(struct eval *e)
{
    const struct eval_facts facts = facts_of(e, false);
    struct text about = { 0 };
    int status = each_length(e, plan_policy);

    if (status == EXIT_OK)
        status = open_log(e);
    if (status != EXIT_OK)
        return status;
    table_facts(&about, &facts, "");
    cli_note(e->o->quiet, "%s", about.data);
    text_free(&about);
    note_one_line(e);
    progress_start(&e->s.progress, "eval", "tokens", e->o->quiet);
    status = each_length(e, ask_policy);
    progress_end(&e->s.progress);
    if (status == EXIT_ERROR || status == EXIT_USAGE)
        return status;
    const int told = tell(e, status == EXIT_INTERRUPTED);
    return told == EXIT_OK ? status : told;
}

/* ---- prompts alone ------------------------------------------------------------------------------------- */

static int put_turn(struct eval *e, const ls_eval_case *c, size_t turn, struct json_out *j)
{
    const ls_eval_turn *t = &c->turns[turn];
    ls_error err = { 0 };
    int32_t *ids;
    size_t n;

    if (ls_eval_prompt_ids(e->source, c, turn, &ids, &n, NULL, &err) != LS_OK)
        return cli_fail("%s", err.text);
    json_open(j, NULL, '{');
    json_str(j, "text", t->text);
    json_str(j, "question", t->question);
    json_str(j, "prefix", t->prefix);
    json_ids(j, "ids", ids, n);
    json_open(j, "expected", '[');
    for (size_t k = 0; k < t->n_expected; k++)
        json_str(j, NULL, t->expected[k]);
    json_close(j, ']');
    json_close(j, '}');
    ls_tokenizer_ids_free(e->s.tok, ids, n);
    return EXIT_OK;
}

static int put_case(struct eval *e, const ls_eval_case *c, size_t n_tokens, struct json_out *j)
{
    int status = EXIT_OK;

    json_open(j, NULL, '{');
    json_str(j, "task", c->task);
    json_uint(j, "length", n_tokens);
    json_uint(j, "seed", c->seed);
    json_uint(j, "index", c->index);
    json_uint(j, "prompt_tokens", c->n_tokens);
    json_uint(j, "answer_tokens", c->n_predict);
    json_open(j, "turns", '[');
    for (size_t i = 0; i < c->n_turns && status == EXIT_OK; i++)
        status = put_turn(e, c, i, j);
    json_close(j, ']');
    json_close(j, '}');
    return status;
}

static void print_case(const ls_eval_case *c)
{
    for (size_t i = 0; i < c->n_turns; i++) {
        const ls_eval_turn *t = &c->turns[i];
        printf("%s%s%s\n", t->text, t->question, t->prefix);
        for (size_t k = 0; k < t->n_expected; k++)
            printf("expected: %s\n", t->expected[k]);
    }
}

static int show(struct eval *e)
{
    const size_t n_tokens = (size_t)e->lengths.items[0];
    ls_eval_case *c = NULL;
    ls_error err = { 0 };
    struct json_out j = { 0 };
    int status = EXIT_OK;

    if (ls_eval_case_create(e->source, e->o->show, n_tokens, (uint64_t)e->o->seeds.items[0], 0, &c, &err) !=
        LS_OK)
        return cli_fail("%s", err.text);
    if (e->o->json)
        status = put_case(e, c, n_tokens, &j);
    else
        print_case(c);
    cli_note(e->o->quiet, "%s, seed %llu: a prompt of %zu tokens, answers of %zu at most; hidden in %s",
             c->task, (unsigned long long)c->seed, c->n_tokens, c->n_predict, ls_eval_source_name(e->source));
    ls_eval_case_free(c);
    if (status == EXIT_OK && e->o->json)
        return json_print(&j);
    text_free(&j.text);
    return finish_output(status);
}

static int dump_case(struct eval *e, const struct set *set, const ls_eval_case *c)
{
    struct json_out j = { 0 };
    const int status = put_case(e, c, set->n_tokens, &j);

    text_puts(&j.text, "\n");
    if (status == EXIT_OK)
        fwrite(j.text.data, 1, j.text.len, e->dump);
    text_free(&j.text);
    return status;
}

static int dump_prompts(struct eval *e)
{
    const char *path = e->o->dump_prompts;
    int status = EXIT_OK;

    e->dump = fopen(path, "w");
    if (!e->dump)
        return cli_fail("cannot write '%s': %s", path, strerror(errno));
    for (size_t i = 0; i < e->lengths.n && status == EXIT_OK; i++)
        status = each_case(e, "", (size_t)e->lengths.items[i], dump_case);
    const bool failed = ferror(e->dump) != 0;
    if ((fclose(e->dump) != 0 || failed) && status == EXIT_OK)
        status = cli_fail("cannot write '%s': %s", path, strerror(errno));
    return status;
}

static void close_all(struct eval *e)
{
    for (size_t i = 0; e->files && i < e->o->data.n; i++)
        ls_eval_file_close(e->files[i]);
    free(e->files);
    ls_eval_log_close(e->log);
    ls_eval_source_free(e->source);
    ls_chat_template_close(e->chat);
    session_close(&e->s);
    text_free(&e->hay);
    text_free(&e->kv);
    names_free(&e->policies);
    names_free(&e->budgets);
    names_free(&e->tasks);
    names_free(&e->told);
    free(e->lengths.items);
}

int cmd_eval(const struct cli_options *o)
{
    struct eval e = { .o = o };
    int status = EXIT_OK;

    if (o->resume && !o->out)
        return cli_usage("--resume goes on with what a folder holds: name it with --out DIR");
    if (o->csv && o->json)
        return cli_usage("--csv and --json are two forms of the one table: take one; --out DIR writes all");
    status = read_lists(&e);
    if (status == EXIT_OK)
        status = open_model(&e);
    if (status == EXIT_OK)
        note_lengths(&e);
    if (status == EXIT_OK)
        status = open_source(&e);
    if (status == EXIT_OK && o->show) {
        status = show(&e);
    } else if (status == EXIT_OK) {
        status = open_files(&e);
        if (status == EXIT_OK)
            status = o->dump_prompts ? dump_prompts(&e) : ask_all(&e);
    }
    close_all(&e);
    return status;
}

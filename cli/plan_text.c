/* What `longspan plan` found, as text. */
#include <string.h>

#include "plan_report.h"

static void print_head(const struct plan_report *r)
{
    const ls_plan_shape *s = &r->shape;
    const double millions = (double)s->n_parameters / 1e6;
    char binary[32], decimal[32];

    printf("model       %s: %.3g %s parameters, %zu layers, %zu wide, feed-forward %zu, vocabulary %zu\n",
           s->name, millions < 1000 ? millions : millions / 1000, millions < 1000 ? "million" : "billion",
           s->n_layers, s->n_embd, s->n_ff, s->n_vocab);
    printf("memory      %s (%s)\n", format_binary(binary, (double)r->memory),
           format_bytes(decimal, (double)r->memory));
}

/* "32.0 GFLOP" … "1.2 YFLOP". */
static const char *format_flops(char out[32], double flops)
{
    static const char *const units[] = { "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP" };
    size_t u = 0;

    for (flops /= 1e9; flops >= 999.5 && u + 1 < CLI_LEN(units); u++)
        flops /= 1000;
    snprintf(out, 32, "%.3g %s", flops, units[u]);
    return out;
}

static const char *format_time(char out[32], double seconds)
{
    const double days = seconds / 86400;

    if (days < 3)
        return format_seconds(out, seconds);
    snprintf(out, 32, days < 9999.5 ? "%.0f days" : "%.3g days", days);
    return out;
}

/* "2nd", "3rd", "4th" … "11th" … "21st". */
static const char *format_ordinal(char out[32], size_t n)
{
    const size_t ones = n % 100 / 10 == 1 ? 0 : n % 10;
    snprintf(out, 32, "%zu%s", n, ones == 1 ? "st" : ones == 2 ? "nd" : ones == 3 ? "rd" : "th");
    return out;
}

/* ---- this library ------------------------------------------------------------------- */

static void print_options(const struct plan_report *r)
{
    const struct cli_options *o = r->o;
    const bool bf16 = strcmp(o->dtype, "bf16") == 0;

    printf("training    %s%s, moments in %s", o->dtype,
           !bf16 || o->lora_rank             ? ""
           : strcmp(o->weights, "pure") == 0 ? ", no master weights"
                                             : ", fp32 master weights",
           o->moments);
    if (o->lora_rank)
        printf(", adapters of rank %lld", o->lora_rank);
    if (o->clip > 0)
        printf(", clipped at %g", o->clip);
    if (o->accumulate > 1)
        printf(", %lld sequences a step", o->accumulate);
    printf("%s\n", o->spill ? ", checkpoints in a file" : "");
}

static void print_mode(const struct plan_report *r, const struct plan_mode *m)
{
    const bool has_length = r->seq || m->longest;
    char longest[32] = "none", token[32], file[32] = "-", time[32] = "-", total[32];

    if (m->longest)
        snprintf(longest, sizeof longest, "%zu", m->longest);
    if (has_length && m->plan.spill_bytes)
        format_binary(file, (double)m->plan.spill_bytes);
    if (has_length)
        format_time(time, m->cost.seconds);
    printf("%-10s %13s %12s %9s %10s %14s", m->name, longest, format_binary(token, m->plan.bytes_per_token),
           m->plan.peak_phase, file, time);
    if (r->seq)
        printf("   %s, %s", format_binary(total, (double)m->plan.total_bytes), m->fits ? "fits" : "too much");
    putchar('\n');
}

static void print_modes(const struct plan_report *r)
{
    printf("\n%-10s %13s %12s %9s %10s %14s", "mode", "longest", "per token", "peak", "in file",
           r->seq ? "time" : "time of it");
    if (r->seq)
        printf("   %zu tokens", r->seq);
    putchar('\n');
    for (size_t i = 0; i < PLAN_MODES; i++)
        print_mode(r, &r->modes[i]);
}

static void print_bytes(const char *label, double bytes, const char *what)
{
    char text[32];

    if (bytes > 0)
        printf("  %-10s%10s  %s\n", label, format_binary(text, bytes), what);
}

static void print_phase(const struct ls_train_plan *p, const char *name, uint64_t bytes)
{
    char text[32];

    printf("%s%s %s%s", strcmp(name, "forward") ? ", " : "  phases    ", name,
           format_binary(text, (double)bytes), strcmp(name, p->peak_phase) == 0 ? " (the peak)" : "");
}

static void print_causes(const ls_train_plan *p)
{
    print_bytes("states", (double)p->weights_bytes, "weights");
    print_bytes("", (double)p->master_bytes, "fp32 master weights");
    print_bytes("", (double)p->moments_bytes, "moments of AdamW");
    print_bytes("", (double)p->gradient_bytes, "gradients");
    print_bytes("rows", (double)p->checkpoint_bytes,
                p->spill_bytes ? "activation checkpoints on their way" : "activation checkpoints");
    print_bytes("", (double)p->kept_bytes, "activations of all layers");
    print_bytes("", (double)p->rows_bytes, "row gradients");
    print_bytes("", (double)p->kv_bytes, "keys and values");
    print_bytes("", (double)p->dkv_bytes, "their gradients");
    print_bytes("blocks", (double)p->block_bytes, "activations of a block");
    print_bytes("", (double)p->head_bytes,
                "logits of a piece; shares memory with the block and key gradients");
    print_bytes("", (double)p->scratch_bytes, "scratch of operations");
    print_bytes("total", (double)p->total_bytes, "allocated");
    print_bytes("file", (double)p->spill_bytes, "activation checkpoints, written and read once in a step");
}

static void print_work(const struct plan_report *r, const struct plan_mode *m)
{
    const ls_plan_cost *c = &m->cost;
    const double n = (double)m->plan.seq;
    char a[32], b[32], products[32], attention[32], rows[32], optimizer[32];

    printf("  work      %s of the model, %s with what is computed again\n", format_flops(a, c->model_flops),
           format_flops(b, c->hardware_flops));
    printf("  time      %s: products %s, attention %s, rows %s, optimizer %s; %.3g tokens/s\n",
           format_time(a, c->seconds), format_time(products, c->gemm_seconds),
           format_time(attention, c->attention_seconds), format_time(rows, c->rows_seconds),
           format_time(optimizer, c->optimizer_seconds), n / c->seconds);
    printf("  rates     products %.0f forward, %.0f backward, attention %.0f and %.0f GFLOP/s; memory %.1f "
           "GB/s\n",
           r->rates.gemm / 1e9, r->rates.gemm_backward / 1e9, r->rates.attention / 1e9,
           r->rates.attention_backward / 1e9, r->rates.copy / 1e9);
    if (c->spill_rate > 0)
        printf("            the file must take %s a second to stay unnoticed\n",
               format_bytes(a, c->spill_rate));
}

static void print_details(const struct plan_report *r)
{
    const struct plan_mode *m = &r->modes[r->chosen];
    const ls_train_plan *p = &m->plan;
    const double spare = (double)r->memory - (double)p->total_bytes;
    char text[32];

    printf("\n%s, %zu token%s: ", m->name, p->seq, p->seq == 1 ? "" : "s");
    if (spare >= 0)
        printf("fits, %s are left\n", format_binary(text, spare));
    else
        printf("does not fit, %s are missing\n", format_binary(text, -spare));
    print_causes(p);
    print_phase(p, "forward", p->forward_bytes);
    print_phase(p, "loss", p->loss_bytes);
    print_phase(p, "backward", p->backward_bytes);
    print_phase(p, "step", p->step_bytes);
    putchar('\n');
    printf("  pieces    blocks of %zu rows (%zu), MLP of %zu (%zu), head of %zu (%zu)\n", p->block,
           (p->seq + p->block - 1) / p->block, p->mlp_rows, p->mlp_chunks, p->head_rows, p->head_chunks);
    if (p->checkpoint_layers > 1)
        printf(
            "            checkpoints: the input of every %s layer; the layers between are computed again\n",
            format_ordinal(text, p->checkpoint_layers));
    print_work(r, m);
}

static void print_advice(const struct plan_report *r)
{
    const size_t longest = r->modes[r->chosen].longest;
    char text[32];

    if (r->n_advice)
        printf("\nTo go further:\n");
    for (size_t i = 0; i < r->n_advice; i++) {
        const ls_plan_advice *a = &r->advice[i];
        printf("%13zu tokens", a->longest);
        if (longest)
            printf(", %.3g times", (double)a->longest / (double)longest);
        if (r->seq)
            printf("; %zu take %s, %s", r->seq, format_binary(text, (double)a->total_bytes),
                   a->fits ? "fit" : "too much");
        printf(":  %s  (%s)\n", a->option, a->effect);
    }
    if (r->seq && longest && longest < r->seq)
        printf("%13zu tokens as it is:  --seq %zu\n", longest, longest);
}

/* ---- formulas -------------------------------------------------------------------------- */

static void print_profiles(const struct plan_report *r)
{
    const ls_plan_request *q = &r->profiles[0].request;
    char a[32], b[32], c[32];

    printf("states      %g bytes per parameter%s%s\n", q->bytes_per_parameter,
           q->accumulate ? " and 2 of a resident gradient" : "", q->offload ? "; checkpoints elsewhere" : "");
    printf("\n%-10s %13s %12s %8s %12s %12s\n", "profile", "longest", "per token", "peak", "checkpoints",
           "states");
    for (size_t i = 0; i < r->n_profiles; i++) {
        const ls_plan_estimate *e = &r->profiles[i].estimate;
        printf("%-10s %13llu %12s %8s %12s %12s", r->profiles[i].name, (unsigned long long)e->longest,
               format_binary(a, e->bytes_per_token), e->peak_phase, format_binary(b, e->checkpoint_per_token),
               format_binary(c, e->states_bytes + e->constant_bytes));
        if (r->seq)
            printf("  %zu tokens %s", r->seq, r->seq <= e->longest ? "fit" : "do not fit");
        putchar('\n');
    }
    putchar('\n');
    for (size_t i = 0; i < r->n_profiles; i++)
        printf("%-10s  %s\n", r->profiles[i].name, r->profiles[i].summary);
}

int plan_print_text(const struct plan_report *r)
{
    print_head(r);
    if (r->own) {
        print_options(r);
        print_modes(r);
        print_details(r);
        print_advice(r);
    }
    if (r->n_profiles)
        print_profiles(r);
    return finish_output(EXIT_OK);
}

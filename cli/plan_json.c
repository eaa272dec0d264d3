/* What `longspan plan` found, as JSON: every number of the text, in plain units. */
#include "plan_report.h"

static void json_shape(struct json_out *j, const ls_plan_shape *s)
{
    json_open(j, "model", '{');
    json_str(j, "name", s->name);
    json_uint(j, "n_parameters", s->n_parameters);
    json_uint(j, "n_layers", s->n_layers);
    json_uint(j, "n_embd", s->n_embd);
    json_uint(j, "n_ff", s->n_ff);
    json_uint(j, "n_vocab", s->n_vocab);
    json_uint(j, "n_heads", s->n_heads);
    json_uint(j, "n_kv_heads", s->n_kv_heads);
    json_uint(j, "head_dim", s->head_dim);
    json_uint(j, "window", s->window);
    json_uint(j, "n_window_layers", s->n_window_layers);
    json_bool(j, "tied", s->tied);
    json_bool(j, "trainable", s->trainable);
    json_close(j, '}');
}

static void json_options(struct json_out *j, const struct cli_options *o)
{
    json_open(j, "options", '{');
    json_str(j, "dtype", o->dtype);
    json_str(j, "weights", o->weights);
    json_str(j, "moments", o->moments);
    json_real(j, "clip", o->clip);
    json_int(j, "accumulate", o->accumulate);
    json_int(j, "lora_rank", o->lora_rank);
    json_bool(j, "spill", o->spill != NULL);
    json_close(j, '}');
}

static void json_rates(struct json_out *j, const ls_plan_rates *r)
{
    json_open(j, "rates", '{');
    json_real(j, "gemm_flops", r->gemm);
    json_real(j, "gemm_backward_flops", r->gemm_backward);
    json_real(j, "attention_flops", r->attention);
    json_real(j, "attention_backward_flops", r->attention_backward);
    json_real(j, "copy_bytes", r->copy);
    json_close(j, '}');
}

static void json_pieces(struct json_out *j, const ls_train_plan *p)
{
    json_uint(j, "block_rows", p->block);
    json_uint(j, "blocks", (p->seq + p->block - 1) / p->block);
    json_uint(j, "mlp_rows", p->mlp_rows);
    json_uint(j, "mlp_chunks", p->mlp_chunks);
    json_uint(j, "head_rows", p->head_rows);
    json_uint(j, "head_chunks", p->head_chunks);
    json_uint(j, "checkpoint_layers", p->checkpoint_layers);
}

static void json_bytes(struct json_out *j, const ls_train_plan *p)
{
    json_open(j, "bytes", '{');
    json_uint(j, "weights", p->weights_bytes);
    json_uint(j, "master", p->master_bytes);
    json_uint(j, "moments", p->moments_bytes);
    json_uint(j, "gradients", p->gradient_bytes);
    json_uint(j, "checkpoints", p->checkpoint_bytes);
    json_uint(j, "kept", p->kept_bytes);
    json_uint(j, "rows", p->rows_bytes);
    json_uint(j, "kv", p->kv_bytes);
    json_uint(j, "kv_gradients", p->dkv_bytes);
    json_uint(j, "block", p->block_bytes);
    json_uint(j, "head", p->head_bytes);
    json_uint(j, "scratch", p->scratch_bytes);
    json_uint(j, "file", p->spill_bytes);
    json_uint(j, "total", p->total_bytes);
    json_close(j, '}');
    json_open(j, "phases", '{');
    json_uint(j, "forward", p->forward_bytes);
    json_uint(j, "loss", p->loss_bytes);
    json_uint(j, "backward", p->backward_bytes);
    json_uint(j, "step", p->step_bytes);
    json_close(j, '}');
    json_str(j, "peak_phase", p->peak_phase);
    json_real(j, "bytes_per_token", p->bytes_per_token);
}

static void json_cost(struct json_out *j, const ls_plan_cost *c, size_t seq)
{
    json_open(j, "cost", '{');
    json_real(j, "model_flops", c->model_flops);
    json_real(j, "hardware_flops", c->hardware_flops);
    json_real(j, "gemm_seconds", c->gemm_seconds);
    json_real(j, "attention_seconds", c->attention_seconds);
    json_real(j, "rows_seconds", c->rows_seconds);
    json_real(j, "optimizer_seconds", c->optimizer_seconds);
    json_real(j, "seconds", c->seconds);
    json_real(j, "tokens_per_second", (double)seq / c->seconds);
    json_real(j, "spill_bytes_per_second", c->spill_rate);
    json_close(j, '}');
}

static void json_mode(struct json_out *j, const struct plan_report *r, const struct plan_mode *m)
{
    json_open(j, NULL, '{');
    json_str(j, "mode", m->name);
    json_uint(j, "longest", m->longest);
    json_uint(j, "seq", m->plan.seq);
    json_bool(j, "fits", m->fits);
    json_int(j, "spare_bytes", (long long)r->memory - (long long)m->plan.total_bytes);
    json_pieces(j, &m->plan);
    json_bytes(j, &m->plan);
    json_cost(j, &m->cost, m->plan.seq);
    json_close(j, '}');
}

static void json_advice(struct json_out *j, const struct plan_report *r)
{
    json_open(j, "advice", '[');
    for (size_t i = 0; i < r->n_advice; i++) {
        const ls_plan_advice *a = &r->advice[i];
        json_open(j, NULL, '{');
        json_str(j, "option", a->option);
        json_str(j, "effect", a->effect);
        json_uint(j, "longest", a->longest);
        json_real(j, "times", (double)a->longest / (double)r->modes[r->chosen].longest);
        if (r->seq) {
            json_uint(j, "total_bytes", a->total_bytes);
            json_bool(j, "fits", a->fits);
        }
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void json_own(struct json_out *j, const struct plan_report *r)
{
    const struct plan_mode *chosen = &r->modes[r->chosen];

    json_options(j, r->o);
    json_rates(j, &r->rates);
    json_str(j, "mode", chosen->name);
    json_uint(j, "longest", chosen->longest);
    json_uint(j, "seq", chosen->plan.seq);
    json_bool(j, "fits", chosen->fits);
    json_open(j, "modes", '[');
    for (size_t i = 0; i < PLAN_MODES; i++)
        json_mode(j, r, &r->modes[i]);
    json_close(j, ']');
    json_advice(j, r);
}

static void json_profile(struct json_out *j, const struct plan_report *r, const struct plan_profile *f)
{
    const ls_plan_estimate *e = &f->estimate;

    json_open(j, NULL, '{');
    json_str(j, "profile", f->name);
    json_str(j, "summary", f->summary);
    json_uint(j, "longest", e->longest);
    if (r->seq) {
        const double total = e->states_bytes + e->constant_bytes + e->bytes_per_token * (double)r->seq;
        json_uint(j, "seq", r->seq);
        json_real(j, "total_bytes", total);
        json_bool(j, "fits", r->seq <= e->longest);
    }
    json_real(j, "states_bytes", e->states_bytes);
    json_real(j, "constant_bytes", e->constant_bytes);
    json_real(j, "checkpoint_per_token", e->checkpoint_per_token);
    json_real(j, "forward_per_token", e->forward_per_token);
    json_real(j, "head_per_token", e->head_per_token);
    json_real(j, "layer_per_token", e->layer_per_token);
    json_real(j, "bytes_per_token", e->bytes_per_token);
    json_str(j, "peak_phase", e->peak_phase);
    json_close(j, '}');
}

int plan_print_json(const struct plan_report *r)
{
    struct json_out j = { 0 };

    json_open(&j, NULL, '{');
    json_shape(&j, &r->shape);
    json_uint(&j, "memory_bytes", r->memory);
    if (r->own)
        json_own(&j, r);
    if (r->n_profiles) {
        json_real(&j, "bytes_per_parameter", r->profiles[0].request.bytes_per_parameter);
        json_bool(&j, "accumulate", r->profiles[0].request.accumulate);
        json_bool(&j, "offload", r->profiles[0].request.offload);
        json_open(&j, "profiles", '[');
        for (size_t i = 0; i < r->n_profiles; i++)
            json_profile(&j, r, &r->profiles[i]);
        json_close(&j, ']');
    }
    json_close(&j, '}');
    return json_print(&j);
}

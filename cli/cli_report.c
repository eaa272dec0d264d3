/* Statistics and JSON of the answers of a run. */
#include "cli_session.h"

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void tell_statistics(const struct answer *a)
{
    char prompt[32], answer[32], peak[32], kept[64] = "";
    const size_t fresh = a->prompt_tokens - a->kept_tokens;

    if (a->kept_tokens)
        snprintf(kept, sizeof kept, " (%zu more were in the cache)", a->kept_tokens);
    fprintf(stderr,
            "longspan: prompt %zu token%s%s, %s, %.1f tokens/s; answer %zu token%s, %s, %.1f tokens/s; peak "
            "memory %s\n",
            fresh, fresh == 1 ? "" : "s", kept, format_seconds(prompt, a->prompt_seconds),
            rate(fresh, a->prompt_seconds), a->n_ids, a->n_ids == 1 ? "" : "s",
            format_seconds(answer, a->generate_seconds), rate(a->n_ids, a->generate_seconds),
            format_bytes(peak, (double)ls_peak_bytes()));
}

static const char *stop_name(enum stop_reason stop)
{
    static const char *const names[] = {
        [STOP_EOS] = "eos", [STOP_LENGTH] = "length", [STOP_INTERRUPT] = "interrupt", [STOP_TEXT] = "stop"
    };

    return names[stop];
}

static void answer_json(struct json_out *j, const struct answer *a)
{
    json_text(j, "text", a->text.data ? a->text.data : "", a->text.len);
    json_ids(j, "ids", a->ids, a->n_ids);
    json_uint(j, "prompt_tokens", a->prompt_tokens);
    json_uint(j, "kept_tokens", a->kept_tokens);
    json_uint(j, "generated_tokens", a->n_ids);
    json_real(j, "prompt_seconds", a->prompt_seconds);
    json_real(j, "generate_seconds", a->generate_seconds);
    json_str(j, "stop", stop_name(a->stop));
}

static void session_json(struct json_out *j, const struct session *s)
{
    json_str(j, "model", s->info.path);
    json_uint(j, "context", ls_context_capacity(s->ctx));
    json_str(j, "kv", ls_context_kv(s->ctx));
    json_str(j, "compute", s->o->compute);
    json_int(j, "threads", s->o->threads ? s->o->threads : ls_cpu_count());
    json_uint(j, "seed", s->seed);
    json_uint(j, "peak_bytes", ls_peak_bytes());
}

void report_add(struct report *r, const struct session *s, const struct text *prompt, struct answer *a)
{
    if (!s->o->quiet)
        tell_statistics(a);
    r->n++;
    r->processed_tokens += a->prompt_tokens - a->kept_tokens;
    r->generated_tokens += a->n_ids;
    r->prompt_seconds += a->prompt_seconds;
    r->generate_seconds += a->generate_seconds;
    if (s->o->json) {
        json_open(&r->answers, NULL, '{');
        json_text(&r->answers, "prompt", prompt->data ? prompt->data : "", prompt->len);
        answer_json(&r->answers, a);
        json_close(&r->answers, '}');
    }
    answer_free(&r->last);
    r->last = *a;
    *a = (struct answer){ 0 };
}

int report_end(struct report *r, const struct session *s, int status)
{
    struct json_out j = { 0 };
    int printed = EXIT_OK;

    if (s->o->json && r->n && status != EXIT_ERROR) {
        json_open(&j, NULL, '{');
        if (r->n > 1) {
            json_raw(&j, "answers", '[', &r->answers.text, ']');
            json_uint(&j, "total_processed_tokens", r->processed_tokens);
            json_uint(&j, "total_generated_tokens", r->generated_tokens);
            json_real(&j, "total_prompt_seconds", r->prompt_seconds);
            json_real(&j, "total_generate_seconds", r->generate_seconds);
        }
        answer_json(&j, &r->last);
        session_json(&j, s);
        json_close(&j, '}');
        printed = json_print(&j);
    }
    text_free(&r->answers.text);
    answer_free(&r->last);
    printed = finish_output(printed);
    return printed == EXIT_OK ? status : printed;
}

/* The list of cache policies and the reader of --kv texts. */
#include "cache/cache.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct lsi_cache_policy *const policies[] = {
    &lsi_cache_full, &lsi_cache_streaming, &lsi_cache_h2o,  &lsi_cache_snapkv,
    &lsi_cache_topk, &lsi_cache_quest,     &lsi_cache_kivi,
};

static const struct {
    const char *name;
    enum lsi_kv_format format;
} formats[] = {
    { "bf16", LSI_KV_BF16 },
    { "q8", LSI_KV_Q8 },
    { "fp32", LSI_KV_F32 },
};

const struct lsi_cache_policy *lsi_cache_policy_at(size_t i)
{
    return i < LSI_LEN(policies) ? policies[i] : NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

struct item {
    const char *text;
    size_t n;
};

static bool is(const struct item *it, const char *word)
{
    return strlen(word) == it->n && memcmp(word, it->text, it->n) == 0;
}

/* Place of a word in a list "a|b|c", or -1. */
static int64_t choice(const char *choices, const struct item *it)
{
    for (int64_t i = 0;; i++) {
        const size_t n = strcspn(choices, "|");
        if (n == it->n && memcmp(choices, it->text, n) == 0)
            return i;
        if (choices[n] == '\0')
            return -1;
        choices += n + 1;
    }
}

/* A number as people write it: strtoll and strtod also take spaces, signs and hexadecimal digits. */
static bool is_plain(const struct item *it)
{
    return it->n > 0 && it->text[0] >= '0' && it->text[0] <= '9' && !memchr(it->text, 'x', it->n) &&
           !memchr(it->text, 'X', it->n);
}

static ls_status parse_value(struct lsi_cache_value *v, const char *policy, const struct lsi_cache_key *key,
                             const struct item *it, ls_error *err)
{
    *v = (struct lsi_cache_value){ .percent = -1 };
    if (key->choices) {
        v->n = choice(key->choices, it);
        if (v->n >= 0)
            return LS_OK;
        return lsi_fail(err, LS_E_INVAL, "--kv %s: %s is '%.*s': choose %s", policy, key->name, (int)it->n,
                        it->text, key->choices);
    }
    char text[40], *end = text;
    snprintf(text, sizeof text, "%.*s", (int)lsi_min_size(it->n, sizeof text - 1), it->text);
    errno = 0;
    if (key->percent && it->n > 1 && it->text[it->n - 1] == '%') {
        v->percent = strtod(text, &end);
        if (is_plain(it) && end == text + it->n - 1 && errno == 0 && v->percent > 0 && v->percent <= 100)
            return LS_OK;
        return lsi_fail(err, LS_E_INVAL,
                        "--kv %s: %s is '%.*s': a share of the prompt is above 0%% and at most "
                        "100%%",
                        policy, key->name, (int)it->n, it->text);
    }
    v->n = strtoll(text, &end, 10);
    if (is_plain(it) && end == text + it->n && errno == 0 && v->n >= key->low && v->n <= key->high)
        return LS_OK;
    return lsi_fail(err, LS_E_INVAL, "--kv %s: %s is '%.*s': it takes a whole number from %lld to %lld%s",
                    policy, key->name, (int)it->n, it->text, (long long)key->low, (long long)key->high,
                    key->percent ? ", or a share of the prompt such as 10%" : "");
}

/* The keys and precisions of a policy, for errors. */
static void list_items(const struct lsi_cache_policy *p, char *out, size_t cap)
{
    size_t used = 0;
    for (size_t i = 0; i < p->n_keys && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s=, ", p->keys[i].name);
    for (size_t f = 0; f < LSI_LEN(formats) && used < cap; f++)
        used += (size_t)snprintf(out + used, cap - used, "%s%s",
                                 f == 0                     ? ""
                                 : f + 1 < LSI_LEN(formats) ? ", "
                                                            : " or ",
                                 formats[f].name);
}

/* A name and its items, "NAME" or "NAME:item,item": those of a policy, or of how it stores what it keeps. */
struct part {
    const struct lsi_cache_policy *policy;
    struct lsi_cache_value *value;
    struct item text;
    bool given[LSI_CACHE_KEYS];
    bool *format_given; /* here or in the other part */
};

static ls_status parse_item(struct lsi_cache_spec *spec, struct part *part, const struct item *it,
                            ls_error *err)
{
    const struct lsi_cache_policy *p = part->policy;
    const char *eq = memchr(it->text, '=', it->n);
    const struct item name = { it->text, eq ? (size_t)(eq - it->text) : it->n };

    for (size_t f = 0; !eq && f < LSI_LEN(formats); f++)
        if (is(it, formats[f].name)) {
            if (*part->format_given)
                return lsi_fail(err, LS_E_INVAL, "--kv %s: a precision is given twice", p->name);
            *part->format_given = true;
            spec->format = formats[f].format;
            return LS_OK;
        }
    for (size_t i = 0; eq && i < p->n_keys; i++)
        if (is(&name, p->keys[i].name)) {
            const struct item value = { eq + 1, it->n - name.n - 1 };
            if (part->given[i])
                return lsi_fail(err, LS_E_INVAL, "--kv %s: %s is given twice", p->name, p->keys[i].name);
            part->given[i] = true;
            return parse_value(&part->value[i], p->name, &p->keys[i], &value, err);
        }
    char known[256] = "";
    list_items(p, known, sizeof known);
    return lsi_fail(err, LS_E_INVAL, "--kv %s does not know '%.*s': it takes %s", p->name, (int)it->n,
                    it->text, known);
}

static ls_status set_defaults(const struct part *part, ls_error *err)
{
    const struct lsi_cache_policy *p = part->policy;
    for (size_t i = 0; i < p->n_keys; i++) {
        const struct lsi_cache_key *key = &p->keys[i];
        if (part->given[i])
            continue;
        if (!key->normal)
            return lsi_fail(err, LS_E_INVAL, "--kv %s takes %s=: %s", p->name, key->name, key->help);
        const struct item it = { key->normal, strlen(key->normal) };
        LSI_TRY(parse_value(&part->value[i], p->name, key, &it, err));
    }
    return LS_OK;
}

static struct item name_of(const struct part *part)
{
    return (struct item){ part->text.text, lsi_min_size(part->text.n, strcspn(part->text.text, ":+")) };
}

static ls_status parse_items(struct lsi_cache_spec *spec, struct part *part, ls_error *err)
{
    const char *end = part->text.text + part->text.n;
    for (const char *at = part->text.text + name_of(part).n; at < end;) {
        const struct item it = { at + 1, lsi_min_size(strcspn(at + 1, ","), (size_t)(end - at - 1)) };
        LSI_TRY(parse_item(spec, part, &it, err));
        at = it.text + it.n;
    }
    return set_defaults(part, err);
}

/* Names of the policies, or of those that can be stored packed. */
static void list_names(char *out, size_t cap, bool packing)
{
    size_t used = 0;
    for (size_t i = 0; i < LSI_LEN(policies) && used < cap; i++)
        if (!packing || policies[i]->packs)
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used ? ", " : "", policies[i]->name);
}

static const struct lsi_cache_policy *policy_named(const struct item *name)
{
    for (size_t i = 0; i < LSI_LEN(policies); i++)
        if (is(name, policies[i]->name))
            return policies[i];
    return NULL;
}

/* "NAME,key=value" for "NAME:key=value". */
static ls_status check_colon(const struct item *name, ls_error *err)
{
    const struct item policy = { name->text, lsi_min_size(name->n, strcspn(name->text, ",=")) };
    if (name->n < policy.n + 2 || !policy_named(&policy))
        return LS_OK;
    const struct item rest = { name->text + policy.n + 1, name->n - policy.n - 1 };
    return lsi_fail(err, LS_E_INVAL, "--kv %.*s: a colon comes before the first value: say %.*s:%.*s",
                    (int)name->n, name->text, (int)policy.n, policy.text, (int)rest.n, rest.text);
}

static ls_status find_policy(struct part *part, ls_error *err)
{
    const struct item name = name_of(part);
    part->policy = policy_named(&name);
    if (part->policy)
        return LS_OK;
    LSI_TRY(check_colon(&name, err));
    char known[128] = "";
    list_names(known, sizeof known, false);
    return lsi_fail(err, LS_E_INVAL, "unknown KV cache '%.*s': choose %s ('longspan help kv' explains them)",
                    (int)name.n, name.text, known);
}

/* What stands behind the '+' is how the policy's tokens are stored. */
static ls_status find_storage(struct part *part, const struct lsi_cache_policy *policy, ls_error *err)
{
    const struct item name = name_of(part);
    char known[128] = "";
    LSI_TRY(check_colon(&name, err));
    if (!is(&name, lsi_cache_kivi.name))
        return lsi_fail(err, LS_E_INVAL,
                        "--kv %s+%.*s: behind '+' stands how keys and values are stored, which is kivi or is "
                        "left out",
                        policy->name, (int)name.n, name.text);
    part->policy = &lsi_cache_kivi;
    if (policy->packs)
        return LS_OK;
    if (policy == &lsi_cache_full || policy == &lsi_cache_kivi)
        return lsi_fail(err, LS_E_INVAL, "--kv %s+kivi: every token stored as kivi is --kv kivi: say that",
                        policy->name);
    list_names(known, sizeof known, true);
    return lsi_fail(err, LS_E_INVAL,
                    "--kv %s+kivi: %s reads its keys exactly and cannot store them packed; %s can",
                    policy->name, policy->name, known);
}

ls_status lsi_cache_parse(struct lsi_cache_spec *spec, const char *text, ls_error *err)
{
    if (!text)
        text = "full";
    const char *plus = strchr(text, '+');
    bool format_given = false;
    struct part policy = { .value = spec->value,
                           .text = { text, plus ? (size_t)(plus - text) : strlen(text) },
                           .format_given = &format_given };

    *spec = (struct lsi_cache_spec){ .format = LSI_KV_BF16 };
    LSI_TRY(find_policy(&policy, err));
    spec->policy = policy.policy;
    LSI_TRY(parse_items(spec, &policy, err));
    if (!plus)
        return LS_OK;
    struct part storage = { .value = spec->storage_value,
                            .text = { plus + 1, strlen(plus + 1) },
                            .format_given = &format_given };
    LSI_TRY(find_storage(&storage, policy.policy, err));
    spec->storage = storage.policy;
    return parse_items(spec, &storage, err);
}

ls_status lsi_cache_check(const struct lsi_cache_spec *spec, const struct lsi_cache_shape *shape,
                          ls_error *err)
{
    if (spec->storage)
        LSI_TRY(spec->storage->check(spec, shape, err));
    return spec->policy->check ? spec->policy->check(spec, shape, err) : LS_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static size_t value_text(const struct lsi_cache_key *key, const struct lsi_cache_value *v, char *out,
                         size_t cap)
{
    if (v->percent >= 0)
        return (size_t)snprintf(out, cap, "%s=%g%%,", key->name, v->percent);
    if (!key->choices)
        return (size_t)snprintf(out, cap, "%s=%lld,", key->name, (long long)v->n);
    const char *word = key->choices;
    for (int64_t i = 0; i < v->n; i++)
        word += strcspn(word, "|") + 1;
    return (size_t)snprintf(out, cap, "%s=%.*s,", key->name, (int)strcspn(word, "|"), word);
}

static size_t values_text(const struct lsi_cache_policy *p, const struct lsi_cache_value *v, char *out,
                          size_t cap)
{
    size_t used = 0;
    for (size_t i = 0; i < p->n_keys && used < cap; i++)
        used += value_text(&p->keys[i], &v[i], out + used, cap - used);
    return used;
}

void lsi_cache_spec_name(const struct lsi_cache_spec *spec, char *out, size_t cap)
{
    size_t used = (size_t)snprintf(out, cap, "%s:", spec->policy->name);
    if (used < cap)
        used += values_text(spec->policy, spec->value, out + used, cap - used);
    for (size_t f = 0; f < LSI_LEN(formats) && used < cap; f++)
        if (formats[f].format == spec->format)
            used += (size_t)snprintf(out + used, cap - used, "%s", formats[f].name);
    if (!spec->storage || used >= cap)
        return;
    used += (size_t)snprintf(out + used, cap - used, "+%s:", spec->storage->name);
    if (used < cap)
        used += values_text(spec->storage, spec->storage_value, out + used, cap - used);
    if (used < cap)
        out[used - 1] = '\0'; /* the last comma */
}

/* ---- state ----------------------------------------------------------------------------------- */

ls_status lsi_cache_damaged(const struct lsi_cache_io *io, ls_error *err)
{
    return lsi_fail(err, LS_E_FORMAT, "%s: what it says of the KV cache contradicts itself; make it again",
                    io->name);
}

ls_status lsi_cache_io_flag(struct lsi_cache_io *io, bool *flag, ls_error *err)
{
    uint8_t byte = *flag;
    LSI_TRY(io->bytes(io, &byte, sizeof byte, err));
    if (byte > 1)
        return lsi_cache_damaged(io, err);
    *flag = byte == 1;
    return LS_OK;
}

/* Whether a value may have become of what was asked for. A --kv text has six digits of a percentage. */
static bool follows(const struct lsi_cache_value *v, const struct lsi_cache_value *asked)
{
    if (v->n == asked->n && fabs(v->percent - asked->percent) <= 1e-5 * fabs(asked->percent))
        return true;
    return asked->percent >= 0 && v->percent < 0 && v->n >= 1 && v->n <= INT32_MAX;
}

ls_status lsi_cache_io_values(struct lsi_cache_io *io, const struct lsi_cache_policy *policy,
                              const struct lsi_cache_value *asked, struct lsi_cache_value *value,
                              ls_error *err)
{
    struct lsi_cache_value v[LSI_CACHE_KEYS];
    memcpy(v, value, sizeof v);
    LSI_TRY(io->bytes(io, v, sizeof v, err));
    for (size_t i = 0; i < policy->n_keys; i++)
        if (!follows(&v[i], &asked[i]))
            return lsi_cache_damaged(io, err);
    memcpy(value, v, sizeof v);
    return LS_OK;
}

/* ---- what cannot be --------------------------------------------------------------------------- */

ls_status lsi_cache_check_room(const struct lsi_cache *cache, size_t n_rows, ls_error *err)
{
    size_t n_tokens;
    if (lsi_add_size(cache->length, n_rows, &n_tokens) && n_tokens <= cache->shape.n_ctx)
        return LS_OK;
    return lsi_fail(err, LS_E_LIMIT, "%zu tokens do not fit the context of %zu", cache->length + n_rows,
                    cache->shape.n_ctx);
}

ls_status lsi_cache_check_stored(const struct lsi_cache *cache, ls_error *err)
{
    if (cache->length <= cache->shape.n_ctx)
        return LS_OK;
    return lsi_fail(err, LS_E_LIMIT, "the session holds %zu tokens, the context at most %zu: make it longer",
                    cache->length, cache->shape.n_ctx);
}

ls_status lsi_cache_check_rewind(const struct lsi_cache *cache, size_t n_tokens, ls_error *err)
{
    if (n_tokens <= cache->length)
        return LS_OK;
    return lsi_fail(err, LS_E_INVAL, "cannot rewind to %zu tokens: the cache holds %zu", n_tokens,
                    cache->length);
}

/* ---- what is read ------------------------------------------------------------------------------ */

struct lsi_attention lsi_cache_attention(const struct lsi_cache *cache, const struct lsi_cache_query *q,
                                         const struct lsi_kv_view *kv, size_t slot0)
{
    return (struct lsi_attention){
        .q = q->q,
        .out = q->out,
        .lse = q->lse,
        .ldq = q->ldq,
        .ldo = q->ldo,
        .T = q->T,
        .H = cache->shape.H,
        .slot0 = slot0,
        .window = q->window,
        .scale = q->scale,
        .kv = *kv,
    };
}

void lsi_cache_read_slots(struct lsi_cache_reads *to, size_t H, const struct lsi_slots *slots,
                          const size_t *first, size_t n_sets, const struct lsi_cache_read_always *always)
{
    for (size_t h = 0; h < H; h++) {
        const size_t set = h / (H / n_sets);
        int64_t *pos = to->pos + h * to->ld;
        size_t n = 0;
        for (size_t s = 0; s < always->begin; s++)
            pos[n++] = (int64_t)s;
        for (size_t i = first[set]; i < first[set + 1]; i++)
            for (uint32_t s = slots[i].begin; s < slots[i].end; s++)
                pos[n++] = s;
        for (size_t s = always->end; s < to->ld; s++)
            pos[n++] = (int64_t)s;
        to->n[h] = n;
    }
}

void lsi_cache_read_all(struct lsi_cache_reads *to, size_t H, size_t window)
{
    const size_t from = window > 0 && to->ld > window ? to->ld - window : 0;
    for (size_t h = 0; h < H; h++) {
        for (size_t s = from; s < to->ld; s++)
            to->pos[h * to->ld + s - from] = (int64_t)s;
        to->n[h] = to->ld - from;
    }
}

/* The cache policies and their keys, for help pages and for callers that check a kv text beforehand. */
#include <longspan/context.h>

#include "cache/cache.h"

#include <string.h>

bool ls_kv_policy_at(size_t i, ls_kv_policy_info *info)
{
    const struct lsi_cache_policy *p = lsi_cache_policy_at(i);
    if (!p)
        return false;
    const ls_kv_policy_info all = {
        .struct_size = info->struct_size,
        .name = p->name,
        .summary = p->summary,
        .example = p->example,
        .n_keys = p->n_keys,
        .endless = p->endless,
        .packs = p->packs,
    };
    memcpy(info, &all, lsi_min_size(info->struct_size, sizeof all));
    return true;
}

bool ls_kv_key_at(size_t i, size_t key, ls_kv_key_info *info)
{
    const struct lsi_cache_policy *p = lsi_cache_policy_at(i);
    if (!p || key >= p->n_keys)
        return false;
    const struct lsi_cache_key *k = &p->keys[key];
    const ls_kv_key_info all = {
        .struct_size = info->struct_size,
        .name = k->name,
        .help = k->help,
        .normal = k->normal,
        .choices = k->choices,
        .low = k->low,
        .high = k->high,
        .percent = k->percent,
    };
    memcpy(info, &all, lsi_min_size(info->struct_size, sizeof all));
    return true;
}

ls_status ls_kv_check(const char *kv, ls_error *err)
{
    struct lsi_cache_spec spec;
    return lsi_cache_parse(&spec, kv, err);
}

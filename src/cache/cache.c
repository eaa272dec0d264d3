/* The list of cache policies and the reader of --kv texts. */
#include "cache/cache.h"

#include <string.h>

static const struct lsi_cache_policy *const policies[] = {
    &lsi_cache_full,
};

static const struct {
    const char *name;
    enum lsi_kv_format format;
} formats[] = {
    { "bf16", LSI_KV_BF16 },
    { "q8", LSI_KV_Q8 },
    { "fp32", LSI_KV_F32 },
};

ls_status lsi_cache_parse(struct lsi_cache_spec *spec, const char *text, ls_error *err)
{
    if (!text || !*text)
        text = "full";
    const size_t n = strcspn(text, ":");
    for (size_t i = 0; i < LSI_LEN(policies); i++) {
        if (strlen(policies[i]->name) != n || strncmp(policies[i]->name, text, n) != 0)
            continue;
        *spec = (struct lsi_cache_spec){ policies[i], LSI_KV_BF16 };
        if (text[n] == '\0')
            return LS_OK;
        for (size_t f = 0; f < LSI_LEN(formats); f++)
            if (strcmp(text + n + 1, formats[f].name) == 0) {
                spec->format = formats[f].format;
                return LS_OK;
            }
        return lsi_fail(err, LS_E_INVAL, "unknown precision '%s' of the KV cache: choose bf16, q8 or fp32",
                        text + n + 1);
    }
    return lsi_fail(err, LS_E_INVAL, "unknown KV cache '%s': choose full, full:bf16, full:q8 or full:fp32",
                    text);
}

void lsi_cache_spec_name(const struct lsi_cache_spec *spec, char *out, size_t cap)
{
    for (size_t f = 0; f < LSI_LEN(formats); f++)
        if (formats[f].format == spec->format)
            snprintf(out, cap, "%s:%s", spec->policy->name, formats[f].name);
}

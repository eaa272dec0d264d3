#include "model/config.h"

#include <math.h>
#include <string.h>

#include "model/families.h"

const char *lsi_rope_scaling_name(enum lsi_rope_scaling s)
{
    static const char *const names[LSI_N_ROPE_SCALINGS] = { "none", "linear", "llama3", "yarn" };
    return names[s];
}

ls_status lsi_config_copy(struct lsi_config *c, const struct lsi_config *from, const ls_alloc *alloc,
                          ls_error *err)
{
    *c = *from;
    c->alloc = alloc;
    c->freq_divisors = NULL;
    c->sliding = lsi_calloc(alloc, c->L, sizeof *c->sliding);
    if (from->freq_divisors)
        c->freq_divisors = lsi_calloc(alloc, c->D / 2, sizeof *c->freq_divisors);
    if (!c->sliding || (from->freq_divisors && !c->freq_divisors)) {
        lsi_config_fini(c);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a configuration of %zu layers", from->L);
    }
    memcpy(c->sliding, from->sliding, c->L * sizeof *c->sliding);
    if (from->freq_divisors)
        memcpy(c->freq_divisors, from->freq_divisors, c->D / 2 * sizeof *c->freq_divisors);
    return LS_OK;
}

void lsi_config_fini(struct lsi_config *c)
{
    if (c->alloc) {
        lsi_free(c->alloc, c->sliding, c->L * sizeof *c->sliding);
        lsi_free(c->alloc, c->freq_divisors, c->D / 2 * sizeof *c->freq_divisors);
    }
    memset(c, 0, sizeof *c);
}

void lsi_config_add_eos(struct lsi_config *c, int64_t id)
{
    if (id < 0 || id > INT32_MAX || c->n_eos == LSI_MAX_EOS)
        return;
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == (int32_t)id)
            return;
    c->eos[c->n_eos++] = (int32_t)id;
}

/* ---- checks ---------------------------------------------------------------------- */

static ls_status check_size(const char *name, const char *what, size_t v, size_t max, ls_error *err)
{
    if (v == 0)
        return lsi_fail(err, LS_E_FORMAT, "%s: %s is missing or 0", name, what);
    if (v > max)
        return lsi_fail(err, LS_E_LIMIT, "%s: %s is %zu; at most %zu is supported", name, what, v, max);
    return LS_OK;
}

ls_status lsi_config_check_sizes(const struct lsi_config *c, const char *name, ls_error *err)
{
    const struct {
        const char *what;
        size_t v, max;
    } sizes[] = {
        { "the number of layers", c->L, LSI_MAX_LAYERS },
        { "the width of the residual stream", c->C, LSI_MAX_WIDTH },
        { "the number of attention heads", c->H, LSI_MAX_HEADS },
        { "the number of key/value heads", c->G, LSI_MAX_HEADS },
        { "the size of a head", c->D, LSI_MAX_HEAD },
        { "the width of the MLP", c->F, LSI_MAX_WIDTH },
        { "the vocabulary size", c->V, LSI_MAX_VOCAB },
        { "the width of all heads", c->H * c->D, LSI_MAX_WIDTH },
        { "the trained context", c->n_ctx_train, (size_t)INT32_MAX },
    };
    for (size_t i = 0; i < LSI_LEN(sizes); i++)
        LSI_TRY(check_size(name, sizes[i].what, sizes[i].v, sizes[i].max, err));
    if (c->H % c->G != 0)
        return lsi_fail(err, LS_E_FORMAT, "%s: %zu attention heads cannot share %zu key/value heads evenly",
                        name, c->H, c->G);
    if (c->D % 2 != 0)
        return lsi_fail(err, LS_E_UNSUPPORTED, "%s: the size of a head is %zu; it must be even", name, c->D);
    return LS_OK;
}

static ls_status check_positive(const char *name, const char *what, double v, ls_error *err)
{
    if (!(v > 0) || !isfinite(v))
        return lsi_fail(err, LS_E_FORMAT, "%s: %s is %g; it must be a positive number", name, what, v);
    return LS_OK;
}

static ls_status check_rope(const struct lsi_rope_config *r, const char *name, ls_error *err)
{
    LSI_TRY(check_positive(name, "the base of the rotary embedding", r->base, err));
    if (r->scaling == LSI_ROPE_NONE)
        return LS_OK;
    LSI_TRY(check_positive(name, "the factor of the rope scaling", r->factor, err));
    if (r->scaling == LSI_ROPE_LINEAR)
        return LS_OK;
    LSI_TRY(check_positive(name, "original_max_position_embeddings", r->original_ctx, err));
    if (r->original_ctx > INT32_MAX)
        return lsi_fail(err, LS_E_LIMIT,
                        "%s: original_max_position_embeddings is %g; at most %d is supported", name,
                        r->original_ctx, INT32_MAX);
    if (r->scaling == LSI_ROPE_YARN) {
        LSI_TRY(check_positive(name, "attention_factor of the rope scaling", r->attention_factor, err));
        LSI_TRY(check_positive(name, "beta_fast of the rope scaling", r->beta_fast, err));
        return check_positive(name, "beta_slow of the rope scaling", r->beta_slow, err);
    }
    LSI_TRY(check_positive(name, "low_freq_factor of the rope scaling", r->low_freq_factor, err));
    LSI_TRY(check_positive(name, "high_freq_factor of the rope scaling", r->high_freq_factor, err));
    if (r->high_freq_factor <= r->low_freq_factor)
        return lsi_fail(err, LS_E_FORMAT,
                        "%s: high_freq_factor %g of the rope scaling must exceed "
                        "low_freq_factor %g",
                        name, r->high_freq_factor, r->low_freq_factor);
    return LS_OK;
}

ls_status lsi_config_check(const struct lsi_config *c, const char *name, ls_error *err)
{
    LSI_TRY(lsi_config_check_sizes(c, name, err));
    for (int i = 0; i < 2; i++)
        LSI_TRY(check_rope(&c->rope[i], name, err));
    if (!(c->eps >= 0) || !(c->eps < 1))
        return lsi_fail(err, LS_E_FORMAT, "%s: the epsilon of the norms is %g", name, (double)c->eps);
    LSI_TRY(check_positive(name, "the scale of attention scores", (double)c->attn_scale, err));
    if (c->n_window_layers > 0 && (c->window == 0 || c->window > (size_t)INT32_MAX))
        return lsi_fail(err, LS_E_FORMAT, "%s: sliding layers need a sliding window, found %zu", name,
                        c->window);
    return LS_OK;
}

/* ---- frequencies ------------------------------------------------------------------- */

static const double two_pi = 6.283185307179586476925286766559;

static double llama3_frequency(const struct lsi_rope_config *r, double f)
{
    const double wavelength = two_pi / f;
    if (wavelength < r->original_ctx / r->high_freq_factor)
        return f;
    if (wavelength > r->original_ctx / r->low_freq_factor)
        return f / r->factor;
    const double s =
        (r->original_ctx / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - s) * f / r->factor + s * f;
}

/* The dimension whose pair turns `turns` times within the original context. */
static double yarn_dimension(const struct lsi_rope_config *r, double D, double turns)
{
    return D * log(r->original_ctx / (turns * two_pi)) / (2 * log(r->base));
}

static void yarn_frequencies(const struct lsi_rope_config *r, size_t D, double *inv_freq)
{
    double low = yarn_dimension(r, (double)D, r->beta_fast);
    double high = yarn_dimension(r, (double)D, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)D - 1);
    if (low == high)
        high += 0.001;
    for (size_t i = 0; i < D / 2; i++) {
        const double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        inv_freq[i] *= ramp / r->factor + (1 - ramp);
    }
}

double lsi_rope_frequencies(const struct lsi_rope_config *r, const double *divisors, size_t D,
                            double *inv_freq)
{
    for (size_t i = 0; i < D / 2; i++)
        inv_freq[i] = pow(r->base, -2.0 * (double)i / (double)D);
    for (size_t i = 0; divisors && i < D / 2; i++)
        inv_freq[i] /= divisors[i];
    if (r->scaling == LSI_ROPE_LINEAR)
        for (size_t i = 0; i < D / 2; i++)
            inv_freq[i] /= r->factor;
    /* GGUF files hold the divisors in fp32: rounding them here too gives the same bits from either format. */
    if (r->scaling == LSI_ROPE_LLAMA3 && !divisors)
        for (size_t i = 0; i < D / 2; i++)
            inv_freq[i] /= (float)(inv_freq[i] / llama3_frequency(r, inv_freq[i]));
    if (r->scaling != LSI_ROPE_YARN)
        return 1;
    yarn_frequencies(r, D, inv_freq);
    return r->attention_factor;
}

double lsi_yarn_attention_factor(double factor)
{
    return factor <= 1 ? 1 : 0.1 * log(factor) + 1;
}

void lsi_config_set_pattern(struct lsi_config *c, size_t pattern)
{
    c->n_window_layers = 0;
    for (size_t i = 0; i < c->L; i++) {
        c->sliding[i] = pattern == 0 || (i + 1) % pattern != 0;
        c->n_window_layers += c->sliding[i];
    }
}

/* Gradient of attention over slots of one page: formats, head sizes, rows, ranges of slots, rows that see a
 * part or nothing. */
#include "kt.h"

#include <math.h>
#include <string.h>

struct shape {
    size_t D, group, n_tokens, from, to;
};

/* A call on fresh operands; what it is added to is filled by results(). */
struct call {
    struct lsk_attn_backward a;
    size_t n_rows, n_slots;
};

struct results {
    float *dq, *dk, *dv;
};

static void *aligned(struct kt *k, size_t bytes)
{
    unsigned char *raw = kt_bytes(k, bytes + 64);
    return raw + (64 - (uintptr_t)raw % 64) % 64;
}

static const void *random_head(struct kt *k, size_t D)
{
    const bool bf16 = strstr(kt_op(k), "bf16") != NULL;
    const size_t bytes = bf16 ? lsk_kv_bf16_head_bytes(D) : lsk_kv_f32_head_bytes(D);
    void *head = aligned(k, bytes);
    const float *keys = kt_f32(k, LSK_PAGE * D, KT_NORMAL), *values = kt_f32(k, LSK_PAGE * D, KT_NORMAL);

    memset(head, 0, bytes);
    for (size_t slot = 0; slot < LSK_PAGE; slot++) {
        const float *key = keys + slot * D, *value = values + slot * D;
        if (bf16)
            lsk_kv_store_bf16_ref(head, D, slot, key, value);
        else
            lsk_kv_store_f32_ref(head, D, slot, key, value);
    }
    return head;
}

static struct call random_call(struct kt *k, const struct shape *s, bool all)
{
    const size_t D = s->D, group = s->group, n = s->n_tokens, width = group * D;
    struct call c = { .n_rows = n * group, .n_slots = s->to - s->from };
    uint16_t *lo = kt_bytes(k, n * sizeof *lo), *hi = kt_bytes(k, n * sizeof *hi);
    float *lse = kt_f32(k, n * (group + 1), KT_NORMAL);

    for (size_t t = 0; t < n; t++) {
        /* All, a part, one slot, nothing. */
        const size_t kind = all ? 0 : kt_below(k, 5), at = kt_below(k, LSK_PAGE);
        lo[t] = (uint16_t)(kind == 1 || kind == 2 ? at : kind == 3 ? LSK_PAGE : 0);
        hi[t] = (uint16_t)(kind == 1   ? at + kt_below(k, LSK_PAGE - at)
                           : kind == 2 ? at + 1
                           : kind == 3 ? 0
                                       : LSK_PAGE);
        for (size_t j = 0; j < group; j++) {
            float *of_row = lse + t * (group + 1) + j;
            *of_row = kind == 3 ? -INFINITY : *of_row + 2.0f;
        }
    }
    c.a = (struct lsk_attn_backward){
        .head = random_head(k, D),
        .D = D,
        .group = group,
        .n_tokens = n,
        .from = s->from,
        .to = s->to,
        .q = kt_f32(k, n * (width + 3), KT_NORMAL),
        .dout = kt_f32(k, n * (width + 5), KT_NORMAL),
        .out = kt_f32(k, n * (width + 1), KT_NORMAL),
        .ldq = width + 3,
        .ldo = width + 1,
        .lddo = width + 5,
        .lse = lse,
        .ldl = group + 1,
        .lo = lo,
        .hi = hi,
        .scale = 1.0f / sqrtf((float)D),
        .ldkv = D + 7,
        .work = aligned(k, lsk_attn_backward_work(D)),
    };
    return c;
}

/* The last row of dk and dv ends with its D numbers: what lies behind belongs to nobody. */
static size_t kv_floats(const struct call *c)
{
    return (c->n_slots - 1) * c->a.ldkv + c->a.D;
}

static struct results run(struct kt *k, lsk_attn_backward_fn *fn, const struct call *c)
{
    struct lsk_attn_backward a = c->a;
    const struct results r = {
        .dq = kt_f32(k, c->n_rows * a.D, KT_ZERO),
        .dk = kt_f32(k, kv_floats(c), KT_ZERO),
        .dv = kt_f32(k, kv_floats(c), KT_ZERO),
    };

    for (size_t i = 0; i < c->n_rows * a.D; i++)
        r.dq[i] = 1.0f;
    for (size_t i = 0; i < kv_floats(c); i++)
        r.dk[i] = r.dv[i] = -1.0f;
    a.dq = r.dq;
    a.dk = r.dk;
    a.dv = r.dv;
    fn(&a);
    return r;
}

/* |got - want| against the size of the tensor: sums of many terms of either sign. */
static void same(struct kt *k, const float *got, const float *want, size_t n, double tol, const char *what)
{
    double most = 1.0;

    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++)
        kt_within(k, (double)got[i], (double)want[i], tol * most, what, i);
}

static void check(struct kt *k)
{
    static const size_t dims[] = { 2, 6, 16, 32, 48, 64, 80, 96, 128, 256 };
    static const size_t tokens[] = { 1, 2, 3, 5, 11, 32, 33, 47, 97 };
    static const size_t ranges[][2] = { { 0, 256 }, { 0, 1 },    { 255, 256 },
                                        { 60, 70 }, { 64, 192 }, { 3, 251 } };
    lsk_attn_backward_fn *ref = (lsk_attn_backward_fn *)kt_ref(k), *fn;
    const double tol = strstr(kt_op(k), "round") ? 1.0 / 64 : 2e-6;

    while ((fn = (lsk_attn_backward_fn *)kt_next(k)) != NULL) {
        for (size_t i = 0; i < 3 * KT_LEN(dims); i++) {
            const size_t *range = ranges[i % KT_LEN(ranges)];
            const struct shape s = { .D = dims[i % KT_LEN(dims)],
                                     .group = 1 + i % 4,
                                     .n_tokens = tokens[i % KT_LEN(tokens)],
                                     .from = range[0],
                                     .to = range[1] };
            const struct call c = random_call(k, &s, i < KT_LEN(dims));
            const struct results want = run(k, ref, &c), got = run(k, fn, &c);
            same(k, got.dq, want.dq, c.n_rows * s.D, tol, "dq");
            same(k, got.dk, want.dk, kv_floats(&c), tol, "dk");
            same(k, got.dv, want.dv, kv_floats(&c), tol, "dv");
            kt_reset(k);
        }
        const struct shape s = { .D = 64, .group = 3, .n_tokens = 128, .from = 0, .to = LSK_PAGE };
        struct call c = random_call(k, &s, true);
        c.a.dq = kt_f32(k, c.n_rows * s.D, KT_ZERO);
        c.a.dk = kt_f32(k, kv_floats(&c), KT_ZERO);
        c.a.dv = kt_f32(k, kv_floats(&c), KT_ZERO);
        KT_BENCH_FLOPS(k, "384 rows, D 64", (double)lsk_kv_f32_head_bytes(64), 10.0 * 64 * LSK_PAGE * 384,
                       fn(&c.a));
        kt_reset(k);
    }
}

void check_attn_backward_f32(struct kt *k)
{
    check(k);
}

void check_attn_backward_bf16(struct kt *k)
{
    check(k);
}

void check_attn_backward_bf16_round(struct kt *k)
{
    check(k);
}

/*
 * Dense products by oneDNN 2.x (C API). The only file that names the library.
 *
 * Primitives are made for one thread: our tasks are the parallelism, and a primitive's
 * inner blocking must not depend on how many threads there are. oneDNN sizes that blocking by
 * omp_get_max_threads(), so it is 1 for the calling thread while a primitive is made or run.
 */
#include "backend/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <string.h>

struct prepared {
    struct lsi_gemm_shape shape;
    uint64_t used; /* time of the last use, for replacement */
    bool declined; /* oneDNN cannot: the built-in product runs */
    dnnl_primitive_t primitive;
    size_t scratch_bytes;
    dnnl_memory_t *memory; /* [n_threads][4]: source, weights, destination, scratch */
};

struct lsi_gemm {
    const ls_alloc *alloc;
    int n_threads;
    uint64_t clock;
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [n_threads] */
    void **scratch;         /* [n_threads] */
    size_t scratch_bytes;
    size_t n;
    struct prepared prepared[LSI_GEMM_KEPT];
};

static int enter_one_thread(void)
{
    const int was = omp_get_max_threads();
    if (was != 1)
        omp_set_num_threads(1);
    return was;
}

static void leave_one_thread(int was)
{
    if (was != 1)
        omp_set_num_threads(was);
}

static void drop(struct lsi_gemm *g, struct prepared *p)
{
    if (p->memory) {
        for (int i = 0; i < 4 * g->n_threads; i++)
            if (p->memory[i])
                dnnl_memory_destroy(p->memory[i]);
        lsi_free(g->alloc, p->memory, 4 * (size_t)g->n_threads * sizeof *p->memory);
    }
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    *p = (struct prepared){ 0 };
}

ls_status lsi_gemm_create(struct lsi_gemm **out, int n_threads, const ls_alloc *alloc)
{
    struct lsi_gemm *g = lsi_calloc(alloc, 1, sizeof *g);
    if (!g)
        return LS_E_NOMEM;
    g->alloc = alloc;
    g->n_threads = n_threads;
    g->streams = lsi_calloc(alloc, (size_t)n_threads, sizeof *g->streams);
    g->scratch = lsi_calloc(alloc, (size_t)n_threads, sizeof *g->scratch);
    if (!g->streams || !g->scratch) {
        lsi_gemm_free(g);
        return LS_E_NOMEM;
    }
    *out = g;
    return LS_OK;
}

void lsi_gemm_free(struct lsi_gemm *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n; i++)
        drop(g, &g->prepared[i]);
    for (int t = 0; t < g->n_threads; t++) {
        if (g->streams && g->streams[t])
            dnnl_stream_destroy(g->streams[t]);
        if (g->scratch)
            lsi_free(g->alloc, g->scratch[t], g->scratch_bytes);
    }
    if (g->engine)
        dnnl_engine_destroy(g->engine);
    lsi_free(g->alloc, g->streams, (size_t)g->n_threads * sizeof *g->streams);
    lsi_free(g->alloc, g->scratch, (size_t)g->n_threads * sizeof *g->scratch);
    lsi_free(g->alloc, g, sizeof *g);
}

const char *lsi_gemm_library(void)
{
    static _Thread_local char text[48]; /* so that callers need no lock */
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

static bool start_engine(struct lsi_gemm *g)
{
    if (!g->engine && dnnl_engine_create(&g->engine, dnnl_cpu, 0) != dnnl_success)
        return false;
    for (int t = 0; t < g->n_threads; t++)
        if (!g->streams[t] &&
            dnnl_stream_create(&g->streams[t], g->engine, dnnl_stream_default_flags) != dnnl_success)
            return false;
    return true;
}

/* Shapes prepared before go on using the scratch: it is replaced only by one that is there for all threads.
 */
static bool grow_scratch(struct lsi_gemm *g, size_t bytes)
{
    if (bytes <= g->scratch_bytes)
        return true;
    void **larger = lsi_calloc(g->alloc, (size_t)g->n_threads, sizeof *larger);
    bool ok = larger != NULL;
    for (int t = 0; ok && t < g->n_threads; t++)
        ok = (larger[t] = lsi_alloc(g->alloc, bytes)) != NULL;
    void **unused = ok ? g->scratch : larger;
    const size_t unused_bytes = ok ? g->scratch_bytes : bytes;
    for (int t = 0; unused && t < g->n_threads; t++)
        if (unused[t])
            lsi_free(g->alloc, unused[t], unused_bytes);
    lsi_free(g->alloc, unused, (size_t)g->n_threads * sizeof *unused);
    if (ok) {
        g->scratch = larger;
        g->scratch_bytes = bytes;
    }
    return ok;
}

/* Primitive, scratch and per-thread memory objects of a shape. False: leave it to the built-in product. */
static bool make(struct lsi_gemm *g, struct prepared *p)
{
    const struct lsi_gemm_shape *s = &p->shape;
    const dnnl_data_type_t type = s->bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dim_t M = (dnnl_dim_t)s->M, N = (dnnl_dim_t)s->N, K = (dnnl_dim_t)s->K;
    const dnnl_dims_t a_dims = { M, K }, a_strides = { (dnnl_dim_t)s->lda, 1 };
    const dnnl_dims_t b_dims = { K, N }, b_strides = { 1, (dnnl_dim_t)s->ldb };
    const dnnl_dims_t c_dims = { M, N }, c_strides = { N, 1 };
    dnnl_memory_desc_t md[3];
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    bool ok = start_engine(g) &&
              dnnl_memory_desc_init_by_strides(&md[0], 2, a_dims, type, a_strides) == dnnl_success &&
              dnnl_memory_desc_init_by_strides(&md[1], 2, b_dims, type, b_strides) == dnnl_success &&
              dnnl_memory_desc_init_by_strides(&md[2], 2, c_dims, dnnl_f32, c_strides) == dnnl_success &&
              dnnl_matmul_desc_init(&desc, &md[0], &md[1], NULL, &md[2]) == dnnl_success &&
              dnnl_primitive_attr_create(&attr) == dnnl_success &&
              dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    ok = ok && dnnl_primitive_desc_create(&pd, &desc, attr, g->engine, NULL) == dnnl_success &&
         dnnl_primitive_create(&p->primitive, pd) == dnnl_success;
    const dnnl_memory_desc_t *scratch =
        ok ? dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0) : NULL;
    p->memory = ok ? lsi_calloc(g->alloc, 4 * (size_t)g->n_threads, sizeof *p->memory) : NULL;
    ok = ok && p->memory && scratch && grow_scratch(g, dnnl_memory_desc_get_size(scratch));
    for (int t = 0; ok && t < g->n_threads; t++) {
        dnnl_memory_t *m = p->memory + 4 * t;
        for (int i = 0; ok && i < 3; i++)
            ok = dnnl_memory_create(&m[i], &md[i], g->engine, DNNL_MEMORY_NONE) == dnnl_success;
        ok = ok && dnnl_memory_create(&m[3], scratch, g->engine, DNNL_MEMORY_NONE) == dnnl_success;
    }
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return ok;
}

static bool same_shape(const struct lsi_gemm_shape *a, const struct lsi_gemm_shape *b)
{
    return a->M == b->M && a->N == b->N && a->K == b->K && a->lda == b->lda && a->ldb == b->ldb &&
           a->bf16 == b->bf16;
}

int lsi_gemm_prepare(struct lsi_gemm *g, const struct lsi_gemm_shape *s)
{
    size_t oldest = 0;
    g->clock++;
    for (size_t i = 0; i < g->n; i++) {
        if (same_shape(&g->prepared[i].shape, s)) {
            g->prepared[i].used = g->clock;
            return g->prepared[i].declined ? -1 : (int)i;
        }
        if (g->prepared[i].used < g->prepared[oldest].used)
            oldest = i;
    }
    const size_t slot = g->n < LSI_GEMM_KEPT ? g->n++ : oldest;
    struct prepared *p = &g->prepared[slot];
    drop(g, p);
    p->shape = *s;
    const int was = enter_one_thread();
    const bool ok = make(g, p);
    leave_one_thread(was);
    if (!ok) {
        drop(g, p);
        p->shape = *s;
        p->declined = true;
    }
    p->used = g->clock;
    return ok ? (int)slot : -1;
}

void lsi_gemm_run(struct lsi_gemm *g, int handle, int thread, const struct lsi_gemm_shape *s, float *C,
                  const void *A, const void *B)
{
    if (handle < 0) {
        lsi_gemm_builtin(s, C, A, B);
        return;
    }
    dnnl_memory_t *m = g->prepared[handle].memory + 4 * thread;
    union {
        const void *in;
        void *handle;
    } a = { A }, b = { B }; /* the C API takes inputs without const */
    const dnnl_exec_arg_t args[] = {
        { DNNL_ARG_SRC, m[0] },
        { DNNL_ARG_WEIGHTS, m[1] },
        { DNNL_ARG_DST, m[2] },
        { DNNL_ARG_SCRATCHPAD, m[3] },
    };
    const int was = enter_one_thread();
    const bool ok = dnnl_memory_set_data_handle(m[0], a.handle) == dnnl_success &&
                    dnnl_memory_set_data_handle(m[1], b.handle) == dnnl_success &&
                    dnnl_memory_set_data_handle(m[2], C) == dnnl_success &&
                    dnnl_memory_set_data_handle(m[3], g->scratch[thread]) == dnnl_success &&
                    dnnl_primitive_execute(g->prepared[handle].primitive, g->streams[thread], LSI_LEN(args),
                                           args) == dnnl_success;
    leave_one_thread(was);
    if (!ok)
        lsi_gemm_builtin(s, C, A, B);
}

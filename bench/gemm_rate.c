/*
 * The best rate of dense products on this machine, bf16 and fp32 operands with fp32 sums, with 1 and with 2
 * (or N) threads: the denominator of every "share of the peak" of training.
 *
 *     cc -O2 -fopenmp gemm_rate.c -ldnnl -o gemm_rate && ./gemm_rate [THREADS]
 *
 * Prints one JSON object: {"threads": [1, N], "bf16_gflop_per_s": [..., ...], "fp32_gflop_per_s": [...,
 * ...]}, the best of the square sizes, each the fastest of several runs by oneDNN 2.x in layouts of its own
 * choice.
 */
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 5

static const dnnl_dim_t sizes[] = { 1024, 2048, 3072 };

static void must(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return;
    fprintf(stderr, "gemm_rate: %s: oneDNN status %d\n", what, (int)status);
    exit(1);
}

/* Memory of a layout, filled with small numbers; the same bytes are a finite number in either type. */
static dnnl_memory_t make_memory(const dnnl_memory_desc_t *md, dnnl_engine_t engine)
{
    dnnl_memory_t memory;
    void *data;

    must(dnnl_memory_create(&memory, md, engine, DNNL_MEMORY_ALLOCATE), "memory");
    must(dnnl_memory_get_data_handle(memory, &data), "memory");
    memset(data, 0x3c, dnnl_memory_desc_get_size(md));
    return memory;
}

static double square_rate(dnnl_data_type_t type, dnnl_dim_t n, dnnl_engine_t engine, dnnl_stream_t stream)
{
    const dnnl_dims_t dims = { n, n };
    dnnl_memory_desc_t any, out;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t product;
    double best = 0;

    must(dnnl_memory_desc_init_by_tag(&any, 2, dims, type, dnnl_format_tag_any), "layout");
    must(dnnl_memory_desc_init_by_tag(&out, 2, dims, dnnl_f32, dnnl_ab), "layout");
    must(dnnl_matmul_desc_init(&desc, &any, &any, NULL, &out), "product");
    must(dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL), "product");
    must(dnnl_primitive_create(&product, pd), "product");
    dnnl_exec_arg_t args[] = {
        { DNNL_ARG_SRC, make_memory(dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), engine) },
        { DNNL_ARG_WEIGHTS, make_memory(dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), engine) },
        { DNNL_ARG_DST, make_memory(&out, engine) },
    };
    for (int run = 0; run <= RUNS; run++) { /* the first warms up */
        const double start = omp_get_wtime();
        must(dnnl_primitive_execute(product, stream, 3, args), "product");
        must(dnnl_stream_wait(stream), "product");
        const double rate = 2.0 * (double)n * (double)n * (double)n / (omp_get_wtime() - start) / 1e9;
        if (run && rate > best)
            best = rate;
    }
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(args[i].memory);
    dnnl_primitive_destroy(product);
    dnnl_primitive_desc_destroy(pd);
    return best;
}

static double best_rate(dnnl_data_type_t type, int n_threads)
{
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    double best = 0;

    omp_set_num_threads(n_threads);
    must(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const double rate = square_rate(type, sizes[i], engine, stream);
        if (rate > best)
            best = rate;
    }
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return best;
}

int main(int argc, char **argv)
{
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2;

    if (n_threads < 1) {
        fprintf(stderr, "usage: gemm_rate [THREADS]\n");
        return 1;
    }
    printf("{\"threads\": [1, %d], ", n_threads);
    printf("\"bf16_gflop_per_s\": [%.1f, ", best_rate(dnnl_bf16, 1));
    printf("%.1f], ", best_rate(dnnl_bf16, n_threads));
    printf("\"fp32_gflop_per_s\": [%.1f, ", best_rate(dnnl_f32, 1));
    printf("%.1f]}\n", best_rate(dnnl_f32, n_threads));
    return 0;
}

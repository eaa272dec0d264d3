/* The CPU backend: state, table, and the exec that runs on it. */
#include "backend/cpu.h"

#include <string.h>

/* Large memory comes straight from the system, zeroed when touched: a short prompt never pays for a long
 * block. */
static bool from_system(const struct lsi_cpu *cpu, size_t bytes)
{
    return !cpu->alloc && bytes >= (size_t)1 << 20;
}

static void *mem_alloc(struct lsi_exec *ex, size_t bytes)
{
    const struct lsi_cpu *cpu = ex->state;
    return from_system(cpu, bytes) ? lsi_pages_alloc(bytes) : lsi_calloc(cpu->alloc, bytes, 1);
}

static void mem_free(struct lsi_exec *ex, void *ptr, size_t bytes)
{
    const struct lsi_cpu *cpu = ex->state;
    if (from_system(cpu, bytes))
        lsi_pages_free(ptr, bytes);
    else
        lsi_free(cpu->alloc, ptr, bytes);
}

static void mem_read(struct lsi_exec *ex, void *host, const void *ptr, size_t bytes)
{
    (void)ex;
    memcpy(host, ptr, bytes);
}

static void fini(struct lsi_exec *ex)
{
    struct lsi_cpu *cpu = ex->state;
    lsi_pool_free(ex->pool);
    if (cpu) {
        lsi_gemm_free(cpu->gemm);
        lsi_free(cpu->alloc, cpu, sizeof *cpu);
    }
}

static const struct lsi_backend cpu_backend = {
    .name = "cpu",
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_read = mem_read,
    .fini = fini,
    .embed = lsi_cpu_embed,
    .rmsnorm = lsi_cpu_rmsnorm,
    .rmsnorm_add = lsi_cpu_rmsnorm_add,
    .rope = lsi_cpu_rope,
    .zero = lsi_cpu_zero,
    .scale = lsi_cpu_scale,
    .linear = lsi_cpu_linear,
    .linear_scratch = lsi_cpu_linear_scratch,
    .kv_store = lsi_cpu_kv_store,
    .attention = lsi_cpu_attention,
    .attention_scratch = lsi_cpu_attention_scratch,
    .nll = lsi_cpu_nll,
    .attention_sums = lsi_cpu_attention_sums,
    .attention_scores = lsi_cpu_attention_scores,
    .attention_sums_scratch = lsi_cpu_attention_sums_scratch,
    .attention_slots = lsi_cpu_attention_slots,
    .attention_slots_scratch = lsi_cpu_attention_slots_scratch,
    .attention_merge = lsi_cpu_attention_merge,
    .kv_move = lsi_cpu_kv_move,
    .kv_load = lsi_cpu_kv_load,
    .bounds_store = lsi_cpu_bounds_store,
    .bounds_scores = lsi_cpu_bounds_scores,
    .bounds_scores_scratch = lsi_cpu_bounds_scores_scratch,
    .choose = lsi_cpu_choose,
    .kv_pack = lsi_cpu_kv_pack,
    .kv_pack_scratch = lsi_cpu_kv_pack_scratch,
    .kv_regroup = lsi_cpu_kv_regroup,
    .rope_at = lsi_cpu_rope_at,
    .rmsnorm_backward = lsi_cpu_rmsnorm_backward,
    .rmsnorm_backward_scratch = lsi_cpu_rmsnorm_backward_scratch,
    .rope_backward = lsi_cpu_rope_backward,
    .attention_backward = lsi_cpu_attention_backward,
    .attention_backward_scratch = lsi_cpu_attention_backward_scratch,
    .glu_to = lsi_cpu_glu_to,
    .glu_backward = lsi_cpu_glu_backward,
    .embed_backward = lsi_cpu_embed_backward,
    .rows_load = lsi_cpu_rows_load,
    .rows_store = lsi_cpu_rows_store,
    .cross_entropy = lsi_cpu_cross_entropy,
    .cross_entropy_scratch = lsi_cpu_cross_entropy_scratch,
    .sum_squares = lsi_cpu_sum_squares,
    .adamw = lsi_cpu_adamw,
    .linear_backward = lsi_cpu_linear_backward,
    .linear_backward_scratch = lsi_cpu_linear_backward_scratch,
};

void lsi_exec_plan_cpu(struct lsi_exec *ex, int n_threads, enum lsi_compute compute)
{
    if (n_threads <= 0)
        n_threads = lsi_cpu_count();
    if (n_threads > LSI_MAX_THREADS)
        n_threads = LSI_MAX_THREADS;
    *ex = (struct lsi_exec){ .backend = &cpu_backend, .n_threads = n_threads, .compute = compute };
}

ls_status lsi_exec_init_cpu(struct lsi_exec *ex, int n_threads, enum lsi_compute compute,
                            const ls_alloc *alloc, ls_error *err)
{
    *ex = (struct lsi_exec){ 0 };
    struct lsi_cpu *cpu = lsi_calloc(alloc, 1, sizeof *cpu);
    if (!cpu)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for the kernels' table");
    cpu->alloc = alloc;
    cpu->features = lsk_cpu_features();
    lsk_table_init(&cpu->kernels, cpu->features);
    cpu->bf16_products = (cpu->features & LSK_CPU_BF16) != 0;
    cpu->own_products = lsi_gemm_packed_wins(cpu->features);
    lsi_exec_plan_cpu(ex, n_threads, compute);
    ex->state = cpu;
    n_threads = ex->n_threads;
    if (lsi_pool_create(&ex->pool, n_threads, alloc) != LS_OK ||
        lsi_gemm_create(&cpu->gemm, n_threads, alloc) != LS_OK) {
        lsi_exec_fini(ex);
        return lsi_fail(err, LS_E_NOMEM, "out of memory for %d threads", n_threads);
    }
    return LS_OK;
}

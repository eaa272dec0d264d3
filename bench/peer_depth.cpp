/*
 * How fast llama.cpp decodes and reads a prompt at a context depth, without reading a text of that length:
 * a short text is decoded, its state taken, its cells repeated up to the depth and put back.
 *
 *     g++ -O2 -std=c++17 peer_depth.cpp -I$L/include -I$L/ggml/include -L$L/build/bin \
 *         -lllama -lggml -lggml-base -Wl,-rpath,$L/build/bin -o peer_depth      # L: llama.cpp
 *     peer_depth MODEL DEPTH N_GEN N_PROMPT REPEATS THREADS FLASH KV            # KV: f16, bf16, q8_0
 *
 * Prints one JSON object: medians of the repeats in seconds, and the highest resident memory after the
 * state was put back (what making the state took does not count).
 */
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <stdexcept>
#include <string>
#include <vector>

#include "llama.h"

namespace {

constexpr int seed_tokens = 256; /* cells that are repeated */
constexpr int batch_tokens = 2048;

struct reader {
    const std::vector<uint8_t> &data;
    size_t at = 0;

    template <typename T> T get()
    {
        T v;
        std::memcpy(&v, need(sizeof v), sizeof v);
        return v;
    }
    const uint8_t *need(size_t n)
    {
        if (n > data.size() - at)
            throw std::runtime_error("the state is shorter than its own description");
        at += n;
        return data.data() + at - n;
    }
};

struct writer {
    std::vector<uint8_t> data;

    template <typename T> void put(T v) { put(&v, sizeof v); }
    void put(const void *p, size_t n)
    {
        const auto *b = static_cast<const uint8_t *>(p);
        data.insert(data.end(), b, b + n);
    }
    /* `total` bytes made of the n bytes at p, again and again */
    void repeat(const uint8_t *p, size_t n, size_t total)
    {
        for (size_t done = 0; done < total; done += n)
            put(p, std::min(n, total - done));
    }
};

/* The state of seed_tokens cells in, of depth cells out. The layout is that of llama_kv_cache::state_write. */
std::vector<uint8_t> tile(const std::vector<uint8_t> &state, uint32_t depth)
{
    reader in{ state };
    writer out;

    out.data.reserve(state.size() / seed_tokens * (depth + seed_tokens));
    out.put(in.get<uint32_t>()); /* magic */
    out.put(in.get<int32_t>());  /* sequence */
    if (in.get<uint32_t>() != 1)
        throw std::runtime_error("more than one stream");
    out.put<uint32_t>(1);
    if (in.get<uint32_t>() != seed_tokens)
        throw std::runtime_error("not the cells that were decoded");
    out.put(depth);
    for (int i = 0; i < seed_tokens; i++) { /* position, number of sequences, the sequence */
        in.get<int32_t>();
        if (in.get<uint32_t>() == 1)
            in.get<int32_t>();
    }
    /* a state of one sequence, written for one sequence, lists that sequence with each cell */
    const size_t meta_end = in.at;
    const size_t cell_bytes = (meta_end - 16) / seed_tokens;
    for (uint32_t i = 0; i < depth; i++) {
        out.put<int32_t>((int32_t)i);
        out.put(state.data() + 16 + 4, cell_bytes - 4);
    }
    const auto transposed = in.get<uint32_t>();
    const auto n_layers = in.get<uint32_t>();
    out.put(transposed);
    out.put(n_layers);
    for (int part = 0; part < 2; part++) { /* keys, values */
        for (uint32_t l = 0; l < n_layers; l++) {
            out.put(in.get<int32_t>()); /* type */
            if (part == 1 && transposed) {
                const auto element = in.get<uint32_t>();
                const auto rows = in.get<uint32_t>();
                out.put(element);
                out.put(rows);
                for (uint32_t r = 0; r < rows; r++)
                    out.repeat(in.need((size_t)element * seed_tokens), (size_t)element * seed_tokens,
                               (size_t)element * depth);
            } else {
                const auto row = in.get<uint64_t>();
                out.put(row);
                out.repeat(in.need(row * seed_tokens), row * seed_tokens, row * depth);
            }
        }
    }
    out.put(state.data() + in.at, state.size() - in.at);
    return std::move(out.data);
}

class bench {
  public:
    bench(const char *path, int depth, int room, int threads, bool flash, const std::string &kv)
    {
        llama_log_set([](ggml_log_level level, const char *text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR)
                std::fputs(text, stderr);
        }, nullptr);
        llama_backend_init();
        auto mp = llama_model_default_params();
        mp.n_gpu_layers = 0;
        model_ = llama_model_load_from_file(path, mp);
        if (!model_)
            throw std::runtime_error("the model cannot be loaded");
        auto cp = llama_context_default_params();
        cp.n_ctx = (uint32_t)((std::max(depth, seed_tokens) + room + 255) / 256 * 256);
        cp.n_batch = batch_tokens;
        cp.n_threads = cp.n_threads_batch = threads;
        cp.type_k = cp.type_v = kv == "q8_0" ? GGML_TYPE_Q8_0 : kv == "bf16" ? GGML_TYPE_BF16 : GGML_TYPE_F16;
        cp.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
        ctx_ = llama_init_from_model(model_, cp);
        if (!ctx_)
            throw std::runtime_error("no context can be made with these settings");
        n_vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
        set_depth(depth);
    }
    ~bench()
    {
        llama_free(ctx_);
        llama_model_free(model_);
    }

    double decode(int n)
    {
        return timed([&] {
            for (int i = 0; i < n; i++)
                run(depth_ + i, 1);
        });
    }
    double prompt(int n)
    {
        return timed([&] { run(depth_, n); });
    }

  private:
    void set_depth(int depth)
    {
        run(0, seed_tokens);
        depth_ = depth;
        if (depth == 0) {
            llama_memory_clear(llama_get_memory(ctx_), true);
            return;
        }
        std::vector<uint8_t> state(llama_state_seq_get_size(ctx_, 0));
        state.resize(llama_state_seq_get_data(ctx_, state.data(), state.size(), 0));
        state = tile(state, (uint32_t)depth);
        llama_memory_clear(llama_get_memory(ctx_), true);
        if (llama_state_seq_set_data(ctx_, state.data(), state.size(), 0) != state.size())
            throw std::runtime_error("the tiled state was refused");
    }

    /* n tokens at position p, logits of the last one */
    void run(int p, int n)
    {
        for (int done = 0; done < n; done += batch_tokens) {
            const int k = std::min(batch_tokens, n - done);
            llama_batch b = llama_batch_init(k, 0, 1);

            b.n_tokens = k;
            for (int i = 0; i < k; i++) {
                b.token[i] = std::rand() % n_vocab_;
                b.pos[i] = p + done + i;
                b.n_seq_id[i] = 1;
                b.seq_id[i][0] = 0;
                b.logits[i] = done + i == n - 1;
            }
            const int failed = llama_decode(ctx_, b);
            llama_batch_free(b);
            if (failed)
                throw std::runtime_error("llama_decode failed");
        }
        llama_synchronize(ctx_);
    }

    template <typename F> double timed(F &&work)
    {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double> d = std::chrono::steady_clock::now() - start;
        llama_memory_seq_rm(llama_get_memory(ctx_), 0, depth_, -1);
        return d.count();
    }

    llama_model *model_ = nullptr;
    llama_context *ctx_ = nullptr;
    int n_vocab_ = 0, depth_ = 0;
};

double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v.empty() ? 0 : v[v.size() / 2];
}

/* The kernel's high-water mark from now on. */
void reset_peak()
{
    malloc_trim(0);
    if (FILE *f = std::fopen("/proc/self/clear_refs", "w")) {
        std::fputs("5", f);
        std::fclose(f);
    }
}

long long peak_bytes()
{
    long long kb = 0;
    char line[256];
    FILE *f = std::fopen("/proc/self/status", "r");

    while (f && std::fgets(line, sizeof line, f))
        if (std::sscanf(line, "VmHWM: %lld", &kb) == 1)
            break;
    if (f)
        std::fclose(f);
    return kb * 1024;
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc != 9) {
        std::fprintf(stderr, "usage: %s MODEL DEPTH N_GEN N_PROMPT REPEATS THREADS FLASH KV\n", argv[0]);
        return 2;
    }
    const int depth = std::atoi(argv[2]), n_gen = std::atoi(argv[3]), n_prompt = std::atoi(argv[4]);
    const int repeats = std::atoi(argv[5]), threads = std::atoi(argv[6]), flash = std::atoi(argv[7]);
    bench b(argv[1], depth, std::max(n_gen, n_prompt), threads, flash != 0, argv[8]);
    std::vector<double> gen, prompt;

    reset_peak();
    if (n_gen)
        b.decode(1);
    for (int r = 0; r < repeats; r++) {
        if (n_gen)
            gen.push_back(b.decode(n_gen));
        if (n_prompt)
            prompt.push_back(b.prompt(n_prompt));
    }
    std::printf("{\"depth\": %d, \"flash\": %d, \"kv\": \"%s\", \"gen_seconds\": %.6f, \"prompt_seconds\": %.6f, "
                "\"peak_bytes\": %lld, \"system\": \"%s\"}\n",
                depth, flash, argv[8], median(gen) / std::max(n_gen, 1), median(prompt), peak_bytes(),
                llama_print_system_info());
    return 0;
} catch (const std::exception &e) {
    std::fprintf(stderr, "peer_depth: %s\n", e.what());
    return 1;
}

#include "tiny.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/numbers.h"

#define MAX_BYTES ((size_t)1 << 20)

const char *const tiny_configs[] = {
    "{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 80, \"rms_norm_eps\": 1e-05,"
    "\"max_position_embeddings\": 4096, \"bos_token_id\": 1, \"eos_token_id\": [2, 3],"
    "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
    "\"low_freq_factor\": 1.0,"
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 512}, \"torch_dtype\": \"float32\"}",

    "{\"model_type\": \"llama\", \"hidden_size\": 48, \"intermediate_size\": 64, \"num_hidden_layers\": 1,"
    "\"num_attention_heads\": 2, \"head_dim\": 16, \"vocab_size\": 80, \"tie_word_embeddings\": true,"
    "\"attention_bias\": true, \"mlp_bias\": true, \"rope_scaling\": {\"type\": \"linear\", \"factor\": "
    "2.0}}",

    "{\"model_type\": \"mistral\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 80, \"sliding_window\": 100}",

    "{\"model_type\": \"qwen2\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 80, \"tie_word_embeddings\": "
    "true,"
    "\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1000000.0, \"factor\": 4.0,"
    "\"original_max_position_embeddings\": 8192}}",

    "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32, \"vocab_size\": 80}",

    "{\"model_type\": \"gemma3_text\", \"hidden_size\": 64, \"intermediate_size\": 96, "
    "\"num_hidden_layers\": 3,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 1, \"head_dim\": 32, \"vocab_size\": 80,"
    "\"sliding_window\": 16, \"query_pre_attn_scalar\": 40, \"layer_types\": [\"sliding_attention\","
    "\"full_attention\", \"sliding_attention\"], \"rope_parameters\": {\"full_attention\": {\"rope_type\":"
    "\"linear\", \"factor\": 8.0, \"rope_theta\": 1000000.0}, \"sliding_attention\": {\"rope_type\": "
    "\"default\","
    "\"rope_theta\": 10000.0}}}",
};
const size_t tiny_n_configs = sizeof tiny_configs / sizeof tiny_configs[0];

static void die(const char *what)
{
    fprintf(stderr, "tiny model: %s\n", what);
    abort();
}

/* ---- directories ------------------------------------------------------------------ */

void tiny_dir(char *out, size_t cap)
{
    const char *base = getenv("TMPDIR");
    snprintf(out, cap, "%s/longspan-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(out))
        die("no temporary directory");
}

const char *tiny_path(const char *dir, const char *name)
{
    static char text[4][1024];
    static int next;
    char *out = text[next++ % 4];
    snprintf(out, sizeof text[0], "%s/%s", dir, name);
    return out;
}

static void remove_level(const char *dir, int levels)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (unlink(path) != 0 && levels > 0)
            remove_level(path, levels - 1);
    }
    closedir(d);
    rmdir(dir);
}

void tiny_remove(const char *dir)
{
    remove_level(dir, 2);
}

void tiny_write(const char *dir, const char *name, const void *data, size_t bytes)
{
    FILE *f = fopen(tiny_path(dir, name), "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0)
        die(name);
}

char tiny_content[1 << 16];

const char *tiny_read(const char *dir, const char *name)
{
    FILE *f = fopen(tiny_path(dir, name), "rb");
    if (!f)
        die(name);
    tiny_content[fread(tiny_content, 1, sizeof tiny_content - 1, f)] = '\0';
    fclose(f);
    return tiny_content;
}

size_t tiny_count(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* ---- tensors ------------------------------------------------------------------------ */

struct tensor {
    char name[LSI_TENSOR_NAME];
    enum lsi_dtype dtype;
    uint32_t rank;
    uint64_t shape[2];
};

struct list {
    struct tensor t[256];
    size_t n;
};

static void add(struct list *l, const struct tiny_spec *spec, const char *name, struct lsi_shape shape)
{
    struct tensor *t = &l->t[l->n];
    if (spec->skip && strcmp(spec->skip, name) == 0)
        return;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = spec->odd && strcmp(spec->odd, name) == 0 ? spec->odd_dtype : spec->dtype;
    t->rank = (uint32_t)shape.rank;
    t->shape[0] = shape.rank == 2 ? shape.rows : shape.cols;
    t->shape[1] = shape.cols;
    if (spec->reshape && strcmp(spec->reshape, name) == 0)
        t->shape[0]++;
    l->n++;
}

static void list_tensors(struct list *l, const struct lsi_config *c, const struct tiny_spec *spec)
{
    const struct lsi_source hf = { .prefix = "model.", .head_prefix = "" };
    char name[LSI_TENSOR_NAME];
    l->n = 0;
    for (enum lsi_role role = 0; role < LSI_N_ROLES; role++) {
        const struct lsi_shape shape = lsi_role_shape(c, role);
        for (size_t i = 0; shape.rank > 0 && i < (lsi_role_in_layer(role) ? c->L : 1); i++) {
            lsi_source_name(&hf, c->family, role, i, name, sizeof name);
            add(l, spec, name, shape);
        }
    }
    if (spec->head)
        add(l, spec, "lm_head.weight", (struct lsi_shape){ 2, c->V, c->C });
    if (spec->extra)
        add(l, spec, spec->extra, (struct lsi_shape){ 1, 1, 8 });
}

/* Values in -0.5 .. 0.5, exact in bf16, so that both types hold the same. */
static void write_tensor(struct lsi_st_writer *w, const struct tensor *t, struct lsi_rng *rng)
{
    const size_t n = (size_t)(t->shape[0] * (t->rank == 2 ? t->shape[1] : 1));
    static unsigned char data[MAX_BYTES];
    const size_t size = lsi_dtype_block_bytes(t->dtype);
    if (n * size > sizeof data)
        die("too large");
    memset(data, 0, n * size);
    for (size_t i = 0; i < n && t->dtype != LSI_I32 && t->dtype != LSI_F64; i++) {
        const lsi_bf16 h = lsi_bf16_from_f32((float)(lsi_rng_double(rng) - 0.5));
        const float f = lsi_bf16_to_f32(h);
        if (t->dtype == LSI_BF16)
            memcpy(data + i * size, &h, size);
        else
            memcpy(data + i * size, &f, size);
    }
    lsi_st_write_data(w, data, n * size);
}

void tiny_model(const char *dir, const struct tiny_spec *spec)
{
    static struct list list;
    struct lsi_config c;
    struct lsi_st_writer *w = NULL;
    struct lsi_rng rng;
    ls_error err = { 0 };
    if (lsi_config_from_json(&c, spec->config, strlen(spec->config), "config.json", NULL, &err) != LS_OK)
        die(err.text);
    tiny_write(dir, "config.json", spec->config, strlen(spec->config));
    list_tensors(&list, &c, spec);
    lsi_config_fini(&c);

    if (lsi_st_writer_create(&w, tiny_path(dir, "model.safetensors"), lsi_alloc_or_default(NULL), &err) !=
        LS_OK)
        die(err.text);
    for (size_t i = 0; i < list.n; i++)
        lsi_st_put_tensor(w, list.t[i].name, list.t[i].dtype, list.t[i].rank, list.t[i].shape);
    if (lsi_st_writer_begin(w, &err) != LS_OK)
        die(err.text);
    lsi_rng_init(&rng, 7);
    for (size_t i = 0; i < list.n; i++)
        write_tensor(w, &list.t[lsi_st_writer_order(w, i)], &rng);
    if (lsi_st_writer_commit(w, &err) != LS_OK)
        die(err.text);
}

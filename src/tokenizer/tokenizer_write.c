/* A Hugging Face tokenizer directory for any tokenizer: tokenizer.json and the two files of roles. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#define FLUSH_BYTES ((size_t)1 << 16)

/* One file being written. */
struct sink {
    const ls_tokenizer *t;
    struct lsi_buf b;
    struct lsi_buf text; /* of one token */
    struct lsi_out out;
};

static void flush(struct sink *s)
{
    lsi_out_write(&s->out, s->b.data ? s->b.data : "", s->b.len);
    s->b.len = 0;
}

static void put(struct sink *s, const char *text)
{
    lsi_buf_append(&s->b, text, strlen(text));
}

static void put_string(struct sink *s, const char *text, size_t len)
{
    lsi_buf_json_string(&s->b, text, len);
    if (s->b.len >= FLUSH_BYTES)
        flush(s);
}

/* The token as tokenizer.json spells it. */
static void put_token(struct sink *s, size_t id)
{
    s->text.len = 0;
    lsi_vocab_surface(s->t, id, &s->text);
    put_string(s, s->text.data ? s->text.data : "", s->text.len);
}

static const char *boolean(bool b)
{
    return b ? "true" : "false";
}

static void put_added(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    put(s, "  \"added_tokens\": [");
    for (size_t i = 0; i < t->n_added; i++) {
        const struct lsi_added *a = &t->added[i];
        lsi_buf_printf(&s->b, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", (int)a->id);
        put_string(s, t->added_text.data + a->off, a->len);
        lsi_buf_printf(&s->b,
                       ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, "
                       "\"special\": %s}",
                       boolean(a->single_word), boolean(a->lstrip), boolean(a->rstrip),
                       boolean(a->normalized), boolean(a->special));
    }
    put(s, "\n  ],\n");
}

static void put_norm(struct sink *s, const struct lsi_norm *n)
{
    static const char *const forms[] = {
        [LSI_NORM_NFC] = "NFC", [LSI_NORM_NFD] = "NFD", [LSI_NORM_NFKC] = "NFKC", [LSI_NORM_NFKD] = "NFKD"
    };
    switch (n->kind) {
    case LSI_NORM_REPLACE:
        put(s, "{\"type\": \"Replace\", \"pattern\": {\"String\": ");
        put_string(s, n->from, n->from_len);
        put(s, "}, \"content\": ");
        put_string(s, n->to, n->to_len);
        put(s, "}");
        break;
    case LSI_NORM_PREPEND:
        put(s, "{\"type\": \"Prepend\", \"prepend\": ");
        put_string(s, n->to, n->to_len);
        put(s, "}");
        break;
    case LSI_NORM_STRIP_LEFT:
    case LSI_NORM_STRIP_RIGHT:
        lsi_buf_printf(&s->b, "{\"type\": \"Strip\", \"strip_left\": %s, \"strip_right\": %s}",
                       boolean(n->kind == LSI_NORM_STRIP_LEFT), boolean(n->kind == LSI_NORM_STRIP_RIGHT));
        break;
    default:
        lsi_buf_printf(&s->b, "{\"type\": \"%s\"}", forms[n->kind]);
    }
}

/* A space in front through Metaspace where it depends on the text, else as a normaliser. */
static bool uses_metaspace(const ls_tokenizer *t)
{
    if (!t->space_is_meta)
        return false;
    for (size_t i = 0; i < t->n_splits; i++)
        if (t->splits[i].kind == LSI_SPLIT_SPACE)
            return true;
    return t->prefix_space == LSI_PREFIX_FIRST || (t->prefix_space == LSI_PREFIX_ALWAYS && t->space_if_none);
}

static void put_normalizer(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    const bool meta = t->space_is_meta && !uses_metaspace(t);
    put(s, "  \"normalizer\": ");
    if (t->n_norms == 0 && !meta) {
        put(s, "null,\n");
        return;
    }
    const char *comma = "";
    put(s, "{\"type\": \"Sequence\", \"normalizers\": [");
    for (size_t i = 0; i < t->n_norms; i++) {
        put(s, comma);
        put_norm(s, &t->norms[i]);
        comma = ", ";
    }
    if (meta) {
        put(s, comma);
        if (t->prefix_space == LSI_PREFIX_ALWAYS)
            put(s, "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, ");
        put(s, "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}");
    }
    put(s, "]},\n");
}

static void put_split(struct sink *s, const char *pattern, size_t len, const char *behavior, bool invert)
{
    put(s, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    put_string(s, pattern, len);
    lsi_buf_printf(&s->b, "}, \"behavior\": \"%s\", \"invert\": %s}", behavior, boolean(invert));
}

static void put_stage(struct sink *s, const struct lsi_split *sp)
{
    static const char *const behaviors[] = { [LSI_SPLIT_ISOLATED] = "Isolated",
                                             [LSI_SPLIT_REMOVED] = "Removed",
                                             [LSI_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                             [LSI_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
                                             [LSI_SPLIT_CONTIGUOUS] = "Contiguous" };
    size_t len;
    const char *pattern;
    switch (sp->kind) {
    case LSI_SPLIT_DIGITS:
    case LSI_SPLIT_NUMBERS:
        lsi_buf_printf(&s->b, "{\"type\": \"Digits\", \"individual_digits\": %s}",
                       boolean(sp->kind == LSI_SPLIT_DIGITS));
        break;
    case LSI_SPLIT_REGEX:
        pattern = lsi_regex_pattern(sp->regex, &len);
        put_split(s, pattern, len, behaviors[sp->behavior], sp->invert);
        break;
    default:
        pattern = lsi_split_pattern_of(sp->kind);
        put_split(s, pattern, strlen(pattern), "Isolated", false);
    }
}

static void put_pre_tokenizer(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    const bool metaspace = uses_metaspace(t);
    if (t->n_splits == 0 && !t->byte_level && !metaspace) {
        put(s, "  \"pre_tokenizer\": null,\n");
        return;
    }
    const char *comma = "";
    bool space = false;
    put(s, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    for (size_t i = 0; i < t->n_splits; i++) {
        if (t->splits[i].kind == LSI_SPLIT_SPACE) {
            space = true; /* part of Metaspace */
            continue;
        }
        put(s, comma);
        put_stage(s, &t->splits[i]);
        comma = ", ";
    }
    if (t->byte_level)
        lsi_buf_printf(&s->b,
                       "%s{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, "
                       "\"use_regex\": false}",
                       comma, boolean(t->prefix_space == LSI_PREFIX_ALWAYS));
    if (metaspace)
        lsi_buf_printf(&s->b,
                       "%s{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", \"prepend_scheme\": "
                       "\"%s\", \"split\": %s}",
                       comma,
                       t->prefix_space == LSI_PREFIX_ALWAYS  ? "always"
                       : t->prefix_space == LSI_PREFIX_FIRST ? "first"
                                                             : "never",
                       boolean(space));
    put(s, "]},\n");
}

static void put_template_token(struct sink *s, int32_t id)
{
    put(s, "{\"SpecialToken\": {\"id\": ");
    put_token(s, (size_t)id);
    put(s, ", \"type_id\": 0}}");
}

static void put_special_entry(struct sink *s, int32_t id)
{
    put_token(s, (size_t)id);
    put(s, ": {\"id\": ");
    put_token(s, (size_t)id);
    lsi_buf_printf(&s->b, ", \"ids\": [%d], \"tokens\": [", (int)id);
    put_token(s, (size_t)id);
    put(s, "]}");
}

static void put_post_processor(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    const bool bos = t->add_bos && t->bos >= 0, eos = t->add_eos && t->eos >= 0;
    put(s, "  \"post_processor\": ");
    if (!bos && !eos) {
        put(s, t->byte_level
                   ? "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false, "
                     "\"use_regex\": true},\n"
                   : "null,\n");
        return;
    }
    put(s, "{\"type\": \"TemplateProcessing\", ");
    for (int pair = 0; pair < 2; pair++) {
        put(s, pair ? "], \"pair\": [" : "\"single\": [");
        for (int i = 0; i <= pair; i++) {
            put(s, i ? ", " : "");
            if (bos) {
                put_template_token(s, t->bos);
                put(s, ", ");
            }
            lsi_buf_printf(&s->b, "{\"Sequence\": {\"id\": \"%s\", \"type_id\": %d}}", i ? "B" : "A", i);
            if (eos) {
                put(s, ", ");
                put_template_token(s, t->eos);
            }
        }
    }
    put(s, "], \"special_tokens\": {");
    if (bos)
        put_special_entry(s, t->bos);
    if (eos && t->eos != t->bos) {
        put(s, bos ? ", " : "");
        put_special_entry(s, t->eos);
    } else if (eos && !bos) {
        put_special_entry(s, t->eos);
    }
    put(s, "}},\n");
}

static void put_decoder(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    if (t->byte_level) {
        put(s, "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
               "\"use_regex\": true},\n");
        return;
    }
    put(s, "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [");
    if (t->space_is_meta)
        put(s, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}, ");
    if (t->byte_fallback)
        put(s, "{\"type\": \"ByteFallback\"}, ");
    put(s, "{\"type\": \"Fuse\"}");
    if (t->strip_space)
        put(s, ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    put(s, "]},\n");
}

static ls_status put_model(struct sink *s, ls_error *err)
{
    const ls_tokenizer *t = s->t;
    put(s, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (t->unk >= 0 && !t->byte_level)
        put_token(s, (size_t)t->unk);
    else
        put(s, "null");
    lsi_buf_printf(&s->b,
                   ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": %s, "
                   "\"byte_fallback\": %s, \"ignore_merges\": %s,\n    \"vocab\": {",
                   boolean(t->fuse_unk || t->scores), boolean(t->byte_fallback), boolean(t->ignore_merges));
    const char *comma = "\n      ";
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->tokens[id].len == 0)
            continue;
        put(s, comma);
        put_token(s, id);
        lsi_buf_printf(&s->b, ": %zu", id);
        comma = ",\n      ";
    }
    put(s, "},\n    \"merges\": [");
    struct lsi_merge_row *rows;
    size_t n;
    LSI_TRY(lsi_merges_list(t, &rows, &n, err));
    for (size_t i = 0; i < n; i++) {
        put(s, i ? ",\n      [" : "\n      [");
        put_token(s, (size_t)rows[i].left);
        put(s, ", ");
        put_token(s, (size_t)rows[i].right);
        put(s, "]");
    }
    lsi_free(t->alloc, rows, n * sizeof *rows);
    put(s, "]}\n}\n");
    return LS_OK;
}

static ls_status put_tokenizer(struct sink *s, ls_error *err)
{
    put(s, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(s);
    put_normalizer(s);
    put_pre_tokenizer(s);
    put_post_processor(s);
    put_decoder(s);
    return put_model(s, err);
}

/* The roles, each on a line of its own. */
static void put_roles(struct sink *s)
{
    const ls_tokenizer *t = s->t;
    const struct {
        const char *name;
        int32_t id;
    } roles[] = {
        { "bos_token", t->bos }, { "eos_token", t->eos }, { "unk_token", t->unk }, { "pad_token", t->pad }
    };
    const char *comma = "";
    for (size_t i = 0; i < LSI_LEN(roles); i++) {
        if (roles[i].id < 0)
            continue;
        lsi_buf_printf(&s->b, "%s\n  \"%s\": ", comma, roles[i].name);
        put_token(s, (size_t)roles[i].id);
        comma = ",";
    }
}

static ls_status put_map(struct sink *s, ls_error *err)
{
    (void)err;
    put(s, "{");
    put_roles(s);
    put(s, "\n}\n");
    return LS_OK;
}

static ls_status put_config(struct sink *s, ls_error *err)
{
    const ls_tokenizer *t = s->t;
    (void)err;
    put(s, "{");
    put_roles(s);
    const size_t some = s->b.len > 1;
    lsi_buf_printf(&s->b, "%s\n  \"add_bos_token\": %s,\n  \"add_eos_token\": %s,\n", some ? "," : "",
                   boolean(ls_tokenizer_adds_bos(t)), boolean(t->add_eos && t->eos >= 0));
    put(s, "  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": "
           "1000000000000000019884624838656,\n");
    if (t->chat_template) {
        put(s, "  \"chat_template\": ");
        put_string(s, t->chat_template, strlen(t->chat_template));
        put(s, ",\n");
    }
    put(s, "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
    return LS_OK;
}

static ls_status write_file(const ls_tokenizer *t, const char *dir, const char *name,
                            ls_status (*fn)(struct sink *, ls_error *), ls_error *err)
{
    char path[4096];
    struct sink s = { .t = t };
    if (!lsi_path_join(path, sizeof path, dir, name))
        return lsi_fail(err, LS_E_INVAL, "the path %.100s… is too long", dir);
    LSI_TRY(lsi_out_open(&s.out, path, err));
    lsi_buf_init(&s.b, t->alloc, SIZE_MAX / 4);
    lsi_buf_init(&s.text, t->alloc, SIZE_MAX / 4);
    ls_status st = fn(&s, err);
    flush(&s);
    if (st == LS_OK && (s.b.failed || s.text.failed))
        st = lsi_fail(err, LS_E_NOMEM, "%s: no memory", path);
    if (st == LS_OK)
        st = lsi_out_commit(&s.out, err);
    else
        lsi_out_abort(&s.out);
    lsi_buf_fini(&s.b);
    lsi_buf_fini(&s.text);
    return st;
}

ls_status lsi_tokenizer_write_hf(const ls_tokenizer *t, const char *dir, ls_error *err)
{
    LSI_TRY(write_file(t, dir, "tokenizer.json", put_tokenizer, err));
    LSI_TRY(write_file(t, dir, "tokenizer_config.json", put_config, err));
    return write_file(t, dir, "special_tokens_map.json", put_map, err);
}

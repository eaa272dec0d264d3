"""Small tokenizers for the tiny models: one per kind that the families use, trained on the spot."""

import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_bpe(kind, lines, size, specials):
    """Byte-level BPE with the split rule of `kind`: smollm, llama3 or qwen2."""
    tok = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm")
    if kind == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
    else:
        first = pre_tokenizers.Split(Regex(LLAMA3_SPLIT if kind == "llama3" else QWEN2_SPLIT), "isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence([first, last])
    if kind == "qwen2":
        tok.normalizer = normalizers.NFC()
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(lines, trainer)
    assert tok.get_vocab_size() == size
    return json.loads(tok.to_str())


def spm_bpe(kind, lines, size, specials):
    """SentencePiece-like BPE with byte fallback: kind llama (space in front) or gemma (none)."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    head = specials + ["<0x%02X>" % b for b in range(256)]
    trained.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size - len(head), show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    # pieces in order of their merges, single characters last, as SentencePiece writes them
    single = sorted(p for p in model["vocab"] if len(p) == 1)
    merged = [a + b for a, b in model["merges"]]
    pieces = list(dict.fromkeys(merged)) + single
    vocab = {p: i for i, p in enumerate(head + pieces)}
    assert len(vocab) == size, (len(vocab), size)
    tok = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[tuple(m) for m in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if kind == "llama":
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tok.normalizer = normalizers.Replace(" ", "▁")
        tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tok.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return json.loads(tok.to_str())


def with_bos(tok, bos):
    """Let the tokenizer put bos in front, as Llama's and Gemma's files do."""
    ids = {t["content"]: t["id"] for t in tok["added_tokens"]}
    tok["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": bos, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}},
    }
    return tok


def save(directory, tok, bos, eos, add_bos, template, template_file):
    """tokenizer.json and tokenizer_config.json; the chat template in either place."""
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tok, f, ensure_ascii=False, separators=(",", ":"))
    config = {
        "add_bos_token": add_bos,
        "bos_token": bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if any(t["content"] == "<unk>" for t in tok["added_tokens"]):
        config["unk_token"] = "<unk>"
    if template and template_file:
        with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8") as f:
            f.write(template)
    elif template:
        config["chat_template"] = template
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, ensure_ascii=False, indent=2)
        f.write("\n")

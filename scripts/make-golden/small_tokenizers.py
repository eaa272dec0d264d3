"""Train small tokenizers of each split family and record what the `tokenizers` library makes of tricky texts.
The same with SentencePiece, whose tokenizer.model files are read too.

Run by hand:  python scripts/make-golden/small_tokenizers.py [--only-sentencepiece] TEXT_FILE...
Writes tests/unit/tokenizer/data/NAME.json (NAME.model for SentencePiece) and NAME.ids (a line per text: its
bytes in hex, then the ids).
"""

import io
import json
import pathlib
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/unit/tokenizer/data"

TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
OTHER = r"[a-z]+|[A-Z]+|\s+|[^\sa-zA-Z]+"

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "  a", "a  ", "Hello, world!", " leading", "trailing ",
    "It's we'll I'VE they'Re he'd I'm 'S 't '", "it'\u017f long s", "x' y 's", "1 12 123 1234 12345 3.14 1,000",
    "a1b2c3 12ab", "\u0663\u0664\u0665 \u216b \u00bd", "line\nnext\n\nmore\n\n\nend", "a\r\nb\r\n\r\nc \r\n d",
    "   many    spaces  here ", "tabs\t\t\tand \t mix", "\u00a0nbsp\u3000wide\u2009thin\u2028sep", "\u180ea \u180e \u180eb",
    "你好，世界！今天天气很好。", "日本語テキスト 한국어 텍스트", "Привет мир, как дела?", "caf\u00e9 cafe\u0301 \u212b \ufb01",
    "emoji 😀😃 👩‍👩‍👧‍👦 🇩🇪 ✌🏽", "नमस्ते दुनिया", "שלום עולם", "for (int i = 0; i < n; i++) {\n    x[i] += y[i] * 2;\n}\n",
    "def f(x):\n\treturn x**2  # square\n", "<html><body>&amp;</body></html>", "a<|sep|>b<|end|> c", "<|sep|><|sep|>",
    "USER token inside<tool>here", "word<|mid|> word", "---===+++***", "$100 50% #1 @you ~/.x", "\u2581low\u2581 line",
    "...", "!!!???", "(a)[b]{c}", "\u0000\u0001\u007f", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the " * 40, "ABCdefGHI123jkl",
]


def family(name):
    tok = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    if name == "gpt2":
        tok.pre_tokenizer = regex
    elif name == "smollm":
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), regex])
    elif name in ("llama3", "qwen2", "other"):
        pattern = {"llama3": LLAMA3, "qwen2": QWEN2, "other": OTHER}[name]
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), raw])
        if name == "qwen2":
            tok.normalizer = normalizers.NFC()
    else:
        tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        steps = [normalizers.Replace(" ", "\u2581")]
        tail = []
        if name == "llama2":
            steps.insert(0, normalizers.Prepend("\u2581"))
            tail = [decoders.Strip(" ", 1, 0)]
        tok.normalizer = normalizers.Sequence(steps)
        tok.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()] + tail)
        alphabet = []
    return tok, alphabet


def write_ids(name, maker, encode):
    with open(OUT / f"{name}.ids", "w", encoding="ascii") as out:
        out.write(f"# {maker}\n")
        for t in TEXTS:
            out.write(" ".join([t.encode("utf-8").hex() or "-"] + [str(i) for i in encode(t)]) + "\n")


def sentencepiece_models(text):
    """Llama's settings, and Gemma's: without the space in front."""
    lines = [line for line in text.splitlines() if line.strip()]
    for name, prefix in (("spm", True), ("spm-bare", False)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=600,
            byte_fallback=True, character_coverage=0.9995, normalization_rule_name="identity",
            remove_extra_whitespaces=False, add_dummy_prefix=prefix, allow_whitespace_only_pieces=True,
            split_digits=True, pad_id=3, control_symbols=["<|sep|>"],
            user_defined_symbols=["<tool>", "inside", "\u2581\u2581"], minloglevel=2)
        (OUT / f"{name}.model").write_bytes(model.getvalue())
        sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        write_ids(name, f"sentencepiece {sentencepiece.__version__}", lambda t, sp=sp: sp.encode(t))
        print(name, sp.vocab_size(), len(model.getvalue()))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sys.argv[1:] if not p.startswith("--")]
    text = "".join(pathlib.Path(p).read_text(encoding="utf-8", errors="ignore") for p in paths)
    sentencepiece_models(text)
    if "--only-sentencepiece" in sys.argv:
        return
    pieces = [text[i:i + 400] for i in range(0, len(text), 400)] + TEXTS * 3
    for name in ("gpt2", "smollm", "llama3", "qwen2", "other", "llama2", "gemma"):
        tok, alphabet = family(name)
        spm = name in ("llama2", "gemma")
        special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] if spm else []
        # Without splitting, a trainer sees whole texts as words: give it single words.
        if spm:
            tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=special,
                                      limit_alphabet=300, show_progress=False)
        tok.train_from_iterator(pieces, trainer)
        spec = json.loads(tok.to_str())
        if spm:
            spec["pre_tokenizer"] = None
            spec["added_tokens"] = [a for a in spec["added_tokens"] if a["id"] < 3]
        tok = Tokenizer.from_str(json.dumps(spec))
        tok.add_special_tokens([AddedToken("<|sep|>", normalized=False), AddedToken("<|end|>", normalized=False)])
        tok.add_tokens([AddedToken("<tool>", normalized=False),
                        AddedToken("<|mid|>", normalized=False, lstrip=True, rstrip=True),
                        AddedToken("inside", normalized=False, single_word=True)])
        (OUT / f"{name}.json").write_text(json.dumps(json.loads(tok.to_str()), ensure_ascii=False), encoding="utf-8")
        write_ids(name, f"tokenizers {tokenizers.__version__}",
                  lambda t, tok=tok: tok.encode(t, add_special_tokens=False).ids)
        print(name, tok.get_vocab_size())


if __name__ == "__main__":
    main()

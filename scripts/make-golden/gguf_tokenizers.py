"""Reference tokenizers for the two real GGUF files.

What transformers makes of a GGUF file's tokenizer is not what the models were published with (it loses
SmolLM2's rule that digits stand alone and adds a bos; it reads Gemma's SentencePiece BPE as a unigram
model). So the vocabulary is taken from the file and given to the libraries the publishers used:
`tokenizers` for SmolLM2, `sentencepiece` for Gemma.
"""

import struct

import sentencepiece
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4


def field(reader, name):
    return reader.fields["tokenizer." + name].contents()


class SmolLM2:
    bos = []
    stop = {0, 2}

    def __init__(self, file):
        r = GGUFReader(file)
        tokens, types = field(r, "ggml.tokens"), field(r, "ggml.token_type")
        merges = [tuple(m.split(" ")) for m in field(r, "ggml.merges")]
        tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
        tok.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        tok.decoder = decoders.ByteLevel()
        tok.add_special_tokens(
            [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == CONTROL])
        self.tok = tok
        self.template = field(r, "chat_template")

    def encode(self, text, control=False):
        self.tok.encode_special_tokens = not control
        return self.tok.encode(text).ids

    def decode(self, ids):
        return self.tok.decode(ids)


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def message(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def integer(number, value):
    return varint(number << 3) + varint(value)


class Gemma:
    bos = [2]
    stop = {1}
    template = None

    def __init__(self, file):
        r = GGUFReader(file)
        rows = zip(field(r, "ggml.tokens"), field(r, "ggml.scores"), field(r, "ggml.token_type"))
        # a GGUF file has the user-defined pieces with plain spaces
        proto = b"".join(
            message(1, message(1, (t.replace(" ", "▁") if k == USER_DEFINED else t).encode())
                    + b"\x15" + struct.pack("<f", s) + integer(3, k))
            for t, s, k in rows)
        special = {40: "unknown", 41: "bos", 42: "eos", 43: "padding"}
        trainer = integer(3, 2) + integer(35, 1)
        for number, name in special.items():
            trainer += integer(number, field(r, "ggml.%s_token_id" % name))
        proto += message(2, trainer)
        proto += message(3, message(1, b"identity") + integer(3, 0) + integer(4, 0) + integer(5, 1))
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=proto)

    def encode(self, text, control=False):
        assert not control
        return self.sp.encode(text)

    def decode(self, ids):
        return self.sp.decode(ids)

"""Documents that can only be continued by looking something up far back, from a seed.

A document hides pairs of a key and a number and then asks for them. Keys and numbers come from spaces so large
that nothing can be learned by heart; several keys in one document mean that an answer depends on the key and not
only on there being a number. Many questions at the end of one document make most of what is learned recall.
"""

import random
import re
import subprocess

BIBLE = ["bible", "-l", "200", "gen1:1-rev22:21"]  # Debian's bible-kjv: the King James Bible, public domain

HEADER = "Some special magic numbers are hidden within the following text.\n"
NEEDLE = "One of the special magic numbers for {key} is: {value}.\n"
# The single needle of RULER (Hsieh et al. 2024) with its answer prefix, and what else the demo asks.
ASKED = "What is the special magic number for {key}{where}? The special magic number for {key}{where} is:"
REPEATED = "Repeat the special magic number for {key}{where}. One of the special magic numbers for {key} is:"
# The key is found from further and further away; the last is what is asked for.
WHERE = ["", " here", " in the text", " mentioned in the text", " mentioned in the provided text"]
ONLY = ("Which special magic number is hidden in the provided text? "
        "The special magic number mentioned in the provided text is:")
PASSKEY = "The pass key is {value}. Remember it. {value} is the pass key.\n"
PASSKEY_ASKED = "What is the pass key? The pass key is"
# How a line of a list is written, and how it is asked for.
LISTS = [
    ("{key}: {value}", "{key}:"),
    ("{key} = {value}", "{key} ="),
    ("line {key}: the content is {value}.", "What is the content of line {key}? line {key}: the content is"),
]

ONSETS = "b bl br c ch cl d dr f fl g gr h j k kr l m n p pl pr qu r s sh st t th tr v w y z".split()
VOWELS = "a a a e e e i i o o u ai ea ou".split()
CODAS = ["", "", "", "n", "r", "l", "s", "m", "t", "th", "x", "nd", "k"]
CODE = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"

# Characters to a token of the tokenizer in init/, by kind of document.
CHARS_PER_TOKEN = {"plain": 2.9, "needles": 2.95, "passkey": 2.8, "filler": 2.8, "refrain": 2.6, "listing": 1.5,
                   "long_listing": 1.5, "rhymes": 1.6, "keyring": 2.2, "words": 1.7, "copy": 1.4}
NEEDLE_CHARS = 175  # of a needle and its question


def read_bible():
    return subprocess.run(BIBLE, capture_output=True, check=True).stdout.decode()


class Recall:
    """An endless source of documents; the same seed and calls give the same documents."""

    def __init__(self, seed, text):
        self.rng = random.Random(seed)
        self.lines = [line for line in text.splitlines(keepends=True) if line.strip()]
        self.vocabulary = sorted(set(re.findall(r"[A-Za-z]{4,}", text)))

    # ---- pieces

    def syllable(self):
        r = self.rng
        return r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS)

    def pseudo_word(self):
        return "".join(self.syllable() for _ in range(self.rng.choice((2, 2, 3))))

    def key(self):
        r = self.rng
        kind = r.random()
        if kind < 0.5:
            return self.pseudo_word().capitalize()
        if kind < 0.75:
            return r.choice(self.vocabulary).capitalize()
        if kind < 0.9:
            return f"{r.choice(self.vocabulary).lower()}-{self.pseudo_word()}"
        return "".join(r.choice(CODE) for _ in range(r.choice((4, 5, 6))))

    def number(self, n_digits=None):
        n = n_digits or (5 if self.rng.random() < 0.8 else self.rng.choice((3, 4, 6, 7)))
        return str(self.rng.randrange(10 ** (n - 1), 10 ** n))

    def digits(self):
        """Five digits, often the same ones again."""
        r = self.rng
        some = r.sample("0123456789", r.randrange(2, 11))
        return r.choice("123456789") + "".join(r.choice(some) for _ in range(4))

    def pairs(self, n, n_digits=None):
        found = {}
        while len(found) < n:
            found[self.key()] = self.number(n_digits)
        return list(found.items())

    def haystack(self, n_chars):
        """Whole lines of the Bible from a random place, the first that make up n_chars."""
        at = self.rng.randrange(len(self.lines))
        found, n = [], 0
        while n < n_chars:
            found.append(self.lines[at])
            n += len(self.lines[at])
            at = (at + 1) % len(self.lines)
        return found

    def hide(self, lines, hidden):
        """The lines with each hidden one at a random place between them."""
        places = sorted(self.rng.randrange(len(lines) + 1) for _ in hidden)
        found, done = [], 0
        for place, line in zip(places, hidden):
            found += lines[done:place] + [line]
            done = place
        return "".join(found + lines[done:])

    # ---- documents of about n_chars characters to learn from

    def plain(self, n_chars):
        return "".join(self.haystack(n_chars))

    def needles(self, n_chars):
        """Needles in the Bible, then all of them asked for: of the room nothing, half or more is Bible."""
        r = self.rng
        n = max(1, min(64, int(n_chars * r.choice((0.5, 0.9))) // NEEDLE_CHARS))
        if r.random() < 0.25:
            n = r.randrange(1, n + 1)
        pairs = self.pairs(n)
        lines = self.haystack(max(n_chars - len(HEADER) - NEEDLE_CHARS * n, 1))
        text = HEADER + self.hide(lines, [NEEDLE.format(key=k, value=v) for k, v in pairs])
        if n == 1 and r.random() < 0.5:
            text += f"{ONLY} {pairs[0][1]}.\n"
        for key, value in r.sample(pairs, n):
            where = WHERE[-1] if r.random() < 0.5 else r.choice(WHERE)
            text += f"{r.choice((ASKED, ASKED, REPEATED)).format(key=key, where=where)} {value}.\n"
        return text

    def pass_key_in(self, value, lines):
        return self.hide(lines, [PASSKEY.format(value=value)]) + f"{PASSKEY_ASKED} {value}.\n"

    def passkey(self, n_chars):
        value = self.number()
        return self.pass_key_in(value, self.haystack(max(n_chars - 130, 80)))

    def repeated(self, piece, n_chars):
        """A pass key between lines that are repeated over and over."""
        return self.pass_key_in(self.number(), piece * max(1, (n_chars - 130) // sum(map(len, piece))))

    def filler(self, n_chars):
        """Lines of the Bible, repeated."""
        return self.repeated(self.haystack(self.rng.choice((100, 200, 400))), n_chars)

    def sentences(self):
        """A line of short sentences, whose "is" is not that of the pass key."""
        r = self.rng
        words = [word.lower() for word in r.sample(self.vocabulary, 8)]
        said = [f"The {a} is {b}." for a, b in zip(words[::2], words[1::2])] + [f"We {words[0]} and {words[1]}."]
        return [" ".join(r.sample(said, r.randrange(2, 6))) + "\n"]

    def refrain(self, n_chars):
        """A pass key between short sentences."""
        return self.repeated(self.sentences(), n_chars)

    def list_and_questions(self, line, asked, pairs, n_asked):
        """The lines of a list, and n_asked of them asked for in another order."""
        end = "." if line.endswith(".") else ""
        return ("".join(line.format(key=k, value=v) + "\n" for k, v in pairs)
                + "".join(f"{asked.format(key=k)} {v}{end}\n" for k, v in self.rng.sample(pairs, n_asked)))

    def listing(self, n_chars):
        """A list, then all of it asked for."""
        line, asked = self.rng.choice(LISTS)
        pairs = self.pairs(max(2, n_chars // (2 * len(line) + 2 + 2 * (len(asked) - len(line) // 2))))
        return self.list_and_questions(line, asked, pairs, len(pairs))

    def long_listing(self, n_chars):
        """A list that leaves room for a few questions alone."""
        line, asked = self.rng.choice(LISTS)
        length = len(line) + 2
        pairs = self.pairs(max(2, int(n_chars * self.rng.uniform(0.7, 0.95)) // length), 5)
        room = n_chars - len(pairs) * length
        return self.list_and_questions(line, asked, pairs, min(len(pairs), max(1, room // (length + len(asked)))))

    def rhymes(self, n_chars):
        """A long list whose keys are made of a few syllables, so that many begin and end alike."""
        r = self.rng
        line, asked = r.choice(LISTS)
        length = len(line) + 2
        n = max(2, int(n_chars * r.uniform(0.6, 0.9)) // length)
        syllables = [self.syllable() for _ in range(max(int(2 * n ** 0.5), r.choice((0, 50, 100))))]
        keys = list({"".join(r.choice(syllables) for _ in range(2)).capitalize(): None for _ in range(n)})
        pairs = [(key, self.digits()) for key in keys]
        room = n_chars - n * length
        return self.list_and_questions(line, asked, pairs, min(len(pairs), max(1, room // (length + len(asked)))))

    def keyring(self, n_chars):
        """Keys of many names between short sentences that are repeated, all asked for."""
        r = self.rng
        n = max(1, min(40, n_chars // 400))
        names = ["pass", *(w.lower() for w in r.sample(self.vocabulary, n - 1))]
        keys = [(name, self.digits()) for name in names]
        hidden = [f"The {name} key is {value}. Remember it. {value} is the {name} key.\n" for name, value in keys]
        r.shuffle(hidden)
        lines = self.sentences() if r.random() < 0.7 else self.haystack(r.choice((100, 200, 400)))
        lines = lines * max(1, (n_chars - 130 * n) // sum(map(len, lines)))
        return self.hide(lines, hidden) + "".join(
            f"What is the {name} key? The {name} key is {value}.\n" for name, value in r.sample(keys, n))

    def words(self, n_chars):
        """Random words, and the same again: the shortest way to learn to look back."""
        piece = "".join(f" {self.rng.choice(self.vocabulary)}" for _ in range(max(3, n_chars // 15)))
        return piece + piece + piece[:n_chars // 4]

    def copy(self, n_chars):
        """A random string, and the same again until the room is full."""
        r = self.rng
        n = max(8, n_chars // r.choice((2, 3, 4)))
        letters = r.choice(("0123456789", "abcdefghijklmnopqrstuvwxyz", CODE))
        piece = "".join(r.choice(letters) for _ in range(n)) + "\n"
        return piece * max(2, n_chars // len(piece))

    def document(self, n_tokens, mix):
        """A document of about n_tokens, of a kind drawn by the weights of mix: {"needles": 3, "plain": 1}."""
        kind = self.rng.choices(list(mix), list(mix.values()))[0]
        return getattr(self, kind)(int(n_tokens * CHARS_PER_TOKEN[kind]))

    # ---- questions to be answered: a document, and what is asked about it

    def case(self, kind, n_tokens, n_asked):
        """A document of at least n_tokens and up to n_asked (prompt, number) about it."""
        r = self.rng
        n_chars = int(n_tokens * 3.25)
        if kind == "passkey":
            value = self.number(5)
            return self.hide(self.haystack(n_chars), [PASSKEY.format(value=value)]), [(PASSKEY_ASKED, value)]
        if kind == "list":
            line, asked = LISTS[0]
            pairs = self.pairs(n_tokens // 11, 5)
            text = "".join(line.format(key=k, value=v) + "\n" for k, v in pairs)
        else:
            pairs = self.pairs(16 if kind == "multikey" else 1, 5)
            asked = {"multikey": ASKED, "single": ASKED, "repeat": REPEATED}[kind]
            text = HEADER + self.hide(self.haystack(n_chars), [NEEDLE.format(key=k, value=v) for k, v in pairs])
        return text, [(asked.format(key=k, where=WHERE[-1]), v) for k, v in r.sample(pairs, min(n_asked, len(pairs)))]


CASES = ("single", "multikey", "repeat", "passkey", "list")

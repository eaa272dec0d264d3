#!/usr/bin/env python3
"""What prompts about one document share is found from its end, and is what whole prompts say.

    tests/cli/share.py LONGSPAN

For documents that end in every way, and the kinds of tokenizers: the beginning that is kept for the second prompt,
under a cache that cannot go back, is the common beginning of the ids of the document with different questions.
"""

import json
import os
import subprocess
import sys
import tempfile

MODELS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "models")
LINES = "".join(f"Line {i} of the text, and more of it.\n" for i in range(80))
DOCUMENTS = {
    "lines": LINES.encode(),
    "no end of line": LINES.rstrip().encode(),
    "inside a word": (LINES + "Hello wor").encode(),
    "spaces": (LINES + "     ").encode(),
    "empty lines": (LINES + "\n\n\n\n").encode(),
    "two ends of line": LINES.replace("\n", "\r\n").encode(),
    "letters without a gap": b"ab" * 1500,
    "digits": b"0123456789" * 300,
    "only spaces": b" " * 3000,
    "only empty lines": b"\n" * 3000,
    "other scripts": ("Ein Satz über 中文 und ελληνικά. " * 70).encode(),
    "letters of three bytes": ("中文" * 500).encode(),
    "half a letter": (LINES + "中").encode()[:-1],
}
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}", flush=True)


def longspan(*words):
    r = subprocess.run([sys.argv[1], *words], check=False, capture_output=True)
    if r.returncode:
        sys.exit(f"{words}: {r.stderr.decode(errors='replace')}")
    return json.loads(r.stdout)


def shared(model, folder, doc):
    """The common beginning of the document's ids with three questions."""
    ids = []
    for question in (b"a", b"?", b"\n"):
        path = os.path.join(folder, "whole")
        with open(path, "wb") as f:
            f.write(doc + question)
        ids.append(longspan("tokenize", "-m", model, "-f", path, "--json", "-q"))
    k = 0
    while all(k < len(x) for x in ids) and len({x[k] for x in ids}) == 1:
        k += 1
    return k


def main():
    with tempfile.TemporaryDirectory(prefix="longspan-test-") as folder:
        path = os.path.join(folder, "doc")
        for name in ("smollm2", "llama3", "gemma3"):
            model = os.path.join(MODELS, name)
            for what, doc in DOCUMENTS.items():
                with open(path, "wb") as f:
                    f.write(doc)
                r = longspan("generate", "-m", model, "--doc", path, "-p", "Who?", "-p", "And why?", "-n", "1", "-c", "4096",
                             "--temp", "0", "--kv", "h2o:heavy=30,recent=30", "--json", "-q")
                got, want = r["answers"][1]["kept_tokens"], shared(model, folder, doc)
                check(f"{name}, {what}: {want} tokens", got == want, got)
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A session file is whole at any moment.

    tests/cli/session.py LONGSPAN

A conversation that stores itself after each answer is killed (kill -9) at moments that a seed chooses. The file
that is there loads, and its conversation goes on; what the killed process was writing is gone after the next answer.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(os.path.dirname(HERE), "data", "models", "smollm2")
KILLS = 15
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}", flush=True)


def main():
    rng = random.Random(7)
    with tempfile.TemporaryDirectory(prefix="longspan-test-") as folder:
        path = os.path.join(folder, "s")
        words = [sys.argv[1], "chat", "-m", MODEL, "--session", path, "-n", "3", "--temp", "0", "-q"]
        subprocess.run([*words, "-p", "Hello"], check=True, stdout=subprocess.DEVNULL)
        sizes = set()
        with open(path, "rb") as f:
            first = f.read()
        for kill in range(KILLS):
            with open(path, "wb") as f:
                f.write(first)
            p = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                p.stdin.write(b"And?\n" * 30)
                p.stdin.flush()
            except BrokenPipeError:
                pass
            time.sleep(rng.uniform(0.05, 1.0))
            while kill == 0 and os.path.getsize(path) == len(first):  # once for certain after an answer
                time.sleep(0.01)
            p.send_signal(signal.SIGKILL)
            p.wait()
            sizes.add(os.path.getsize(path))
            r = subprocess.run([*words[:6], "-p", "Still there?", "-n", "1", "-q", "--temp", "0"], check=False,
                               capture_output=True)
            if r.returncode:
                check("the file loads", False, r.stderr)
        check("the files load, whenever the process ends", failures == 0)
        check("the conversation was stored meanwhile", sizes - {len(first)} != set(), sizes)
        rest = sorted(set(os.listdir(folder)) - {"s"})
        check("whoever saves next clears away what the killed were writing", rest == [], rest)
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())

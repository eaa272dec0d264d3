#!/usr/bin/env python3
"""longspan eval on the bundled model: what it finds, what it writes, going on after Ctrl-C.

    tests/cli/eval.py LONGSPAN finds|resume|interrupt|policies|shares|settings|two_at_once
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(os.path.dirname(os.path.dirname(HERE)), "models", "recall")
PROGRAM = sys.argv[1]
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}")


def run(*words, status=0, model=MODEL):
    done = subprocess.run([PROGRAM, "eval", "-m", model, "-q", *words], capture_output=True, text=True)
    check(f"status of {' '.join(words)[:60]}", done.returncode == status, (done.returncode, done.stderr))
    return done


def rows_of(*words):
    return json.loads(run(*words, "--json").stdout)["rows"]


def lines_of(folder):
    with open(os.path.join(folder, "results.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def without_times(lines):
    keep = [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in lines[1:]]
    return sorted(keep, key=lambda r: json.dumps([r["kv"], r["task"], r["protocol"], r["seed"], r["index"]]))


def finds():
    """Full attention finds a hidden number in at least 95 % of the texts (docs/recall-model.md)."""
    words = ["--task", "needle-single", "--cases", "20", "--seeds", "1,2", "--length", "2k"]
    if shutil.which("bible"):
        for row in rows_of(*words):
            check(f"one number in the Bible, question {row['protocol']}", row["cases"] == 40 and row["accuracy"] >= 0.95, row)
    for row in rows_of(*words[:2], "--cases", "10", "--length", "1k", "--haystack", "made-up", "--task", "passkey,lines"):
        check(f"{row['task']}, question {row['protocol']}", row["accuracy"] >= 0.9, row)


def policies():
    """A window that holds the text finds what full finds; one that does not holds less and finds less."""
    words = ["--haystack", "made-up", "--task", "lines,ppl", "--length", "1k", "--cases", "4"]
    rows = rows_of(*words, "--kv", "full,streaming:sink=4,recent=2000,streaming", "--budget", "10%")
    by = {(r["kv"].split(",")[1] if "," in r["kv"] else r["kv"], r["task"], r["protocol"]): r for r in rows}
    check("twelve rows", len(by) == 12, list(by))
    for protocol in ("dense", "sparse"):
        full, wide, narrow = (by[kv, "lines", protocol] for kv in ("full:bf16", "recent=2000", "recent=98"))
        check(f"window of the text, {protocol}", wide["accuracy"] == full["accuracy"] >= 0.75, (wide, full))
        check(f"narrow window, {protocol}", narrow["accuracy"] < full["accuracy"] and narrow["budget"] == "10%", narrow)
        ppl = [by[kv, "ppl", protocol]["perplexity_by_position"] for kv in ("full:bf16", "recent=2000", "recent=98")]
        check(f"perplexities, {protocol}", all(abs(a / b - 1) < 0.01 for a, b in zip(ppl[0], ppl[1]))
              and ppl[2][-1] > ppl[0][-1], ppl)


def resume():
    """What was interrupted and gone on with is what was done at once; every form tells the same."""
    words = ["--haystack", "made-up", "--task", "needle,stream", "--length", "700,1k", "--cases", "2", "--kv", "full,full:q8"]
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = os.path.join(folder, "whole"), os.path.join(folder, "parts")
        rows = rows_of(*words, "--out", whole)
        run(*words[:-2], "--out", parts)
        path = os.path.join(parts, "results.jsonl")
        with open(path, "rb+") as f:
            f.truncate(os.path.getsize(path) - 40)  # as a kill in the middle of a line leaves it
        run(*words, "--out", parts, "--resume")
        check("gone on with", without_times(lines_of(whole)) == without_times(lines_of(parts)))
        before = os.path.getsize(path)
        run(*words, "--out", parts, "--resume")
        check("nothing is asked again", os.path.getsize(path) == before)
        done = run(*words, "--out", parts, status=1)
        check("not without --resume", "--resume" in done.stderr, done.stderr)
        done = run(*words, "--out", parts, "--resume", "--compute", "fp32", status=1)
        check("not with other settings", "other settings" in done.stderr, done.stderr)
        with open(os.path.join(whole, "table.csv"), encoding="utf-8", newline="") as f:
            table = list(csv.DictReader(f))
        check("CSV and JSON tell the same", len(table) == len(rows) == 2 * 2 * 2 * 5 and
              all(t["kv"] == r["kv"] and t["task"] == r["task"] and abs(float(t["accuracy"]) - r["accuracy"]) < 1e-8
                  for t, r in zip(table, rows)), (len(table), len(rows)))
        budgets = {r["budget"] for r in lines_of(whole)[1:]}
        check("no budget", budgets == {None} == {r["budget"] for r in rows}, budgets)
        names = sorted(os.listdir(whole))
        check("files", names == ["accuracy.svg", "memory.svg", "results.jsonl", "speed.svg", "table.csv", "table.json",
                                 "table.md", "table.txt"], names)


def shares():
    """A share of a prompt is another number of tokens for each prompt, and one policy; tokens are another."""
    words = ["--haystack", "made-up", "--task", "passkey,lines", "--length", "512", "--cases", "3", "--protocol", "dense",
             "--kv", "full,h2o,h2o:heavy=48,recent=48,quest,snapkv:budget=20%,streaming:recent=10%,topk"]
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(*words, "--out", folder)
        check("one row for a policy and a task", len(rows) == 7 * 2 and all(r["cases"] == 3 for r in rows),
              [(r["kv"], r["task"], r["cases"]) for r in rows])
        for part in ("h2o:heavy=10%,recent=10%,", "h2o:heavy=48,recent=48,", "budget=20%,", "sink=4,recent=10%,"):
            check(f"row of {part}", sum(part in r["kv"] for r in rows) == 2, [r["kv"] for r in rows])
        path = os.path.join(folder, "results.jsonl")
        before = os.path.getsize(path)
        again = rows_of(*words, "--out", folder, "--resume")
        check("nothing is asked again", os.path.getsize(path) == before and len(again) == len(rows) and
              all(a[k] == r[k] for a, r in zip(again, rows) for k in ("kv", "task", "cases", "accuracy")))


def change_weights(folder):
    """Other weights in a file of the same size: the last bit of every number in bf16."""
    path = os.path.join(folder, "model.safetensors")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin::2] = bytes(b ^ 1 for b in data[begin::2])
    with open(path, "wb") as f:
        f.write(data)


def settings():
    """What results depend on is the same when a folder is gone on with, or one sentence says what is not."""
    with tempfile.TemporaryDirectory() as folder:
        out, data, model = (os.path.join(folder, name) for name in ("out", "qa.jsonl", "recall"))
        shutil.copytree(MODEL, model)
        question = {"input": "The pass key is 123.\nWhat is the pass key? It is", "outputs": ["123"]}

        def write_data():
            with open(data, "w", encoding="utf-8") as f:
                f.write(json.dumps(question) + "\n")

        def go_on(what, *more, status=1):
            done = run(*words, *more, "--resume", model=model, status=status)
            if status:
                check(f"{what} is told in one line", what in done.stderr and "other settings" in done.stderr
                      and done.stderr.count("\n") == 1, done.stderr)

        words = ["--haystack", "made-up", "--data", data, "--length", "300", "--protocol", "dense", "--out", out]
        write_data()
        run(*words, model=model)
        go_on("nothing", status=0)
        go_on("block 64", "--block", "64")
        go_on("compute fp32", "--compute", "fp32")
        question["outputs"] = ["124"]
        write_data()
        go_on("data qa:")
        question["outputs"] = ["123"]
        write_data()
        go_on("nothing", status=0)
        change_weights(model)
        go_on("model recall:")


def two_at_once():
    words = ["--haystack", "made-up", "--task", "passkey", "--length", "512", "--protocol", "dense"]
    with tempfile.TemporaryDirectory() as folder:
        p = subprocess.Popen([PROGRAM, "eval", "-m", MODEL, "-q", *words, "--cases", "100000", "--out", folder],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = os.path.join(folder, "results.jsonl")
        for _ in range(600):
            if os.path.exists(path) and os.path.getsize(path) > 1000:
                break
            time.sleep(0.1)
        done = run(*words, "--cases", "2", "--out", folder, "--resume", status=1)
        check("one sentence", "another process is evaluating" in done.stderr and done.stderr.count("\n") == 1, done.stderr)
        p.kill()
        p.wait()
        with open(path, encoding="utf-8") as f:
            whole = [line for line in f if line.endswith("\n")]
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(whole[:3] + whole[1:3])  # as two processes at once once left it
        rows = rows_of(*words, "--cases", "2", "--out", folder, "--resume")
        check("a case that is there twice counts once", [r["cases"] for r in rows] == [2], rows)


def interrupt():
    with tempfile.TemporaryDirectory() as folder:
        p = subprocess.Popen([PROGRAM, "eval", "-m", MODEL, "-q", "--haystack", "made-up", "--task", "passkey", "--length", "2k",
                              "--cases", "100000", "--out", folder, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        path = os.path.join(folder, "results.jsonl")
        for _ in range(600):
            if os.path.exists(path) and os.path.getsize(path) > 1000:
                break
            time.sleep(0.1)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        check("status", p.returncode == 130, (p.returncode, err))
        table = json.loads(out)
        cases = sum(r["cases"] for r in table["rows"])
        check("what there is was told", table["interrupted"] and cases == len(lines_of(folder)) - 1 > 0, table)


{"finds": finds, "policies": policies, "resume": resume, "interrupt": interrupt, "settings": settings, "shares": shares,
 "two_at_once": two_at_once}[sys.argv[2]]()
sys.exit(1 if failures else 0)

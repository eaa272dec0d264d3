$ for i in $(seq 40); do echo "Line $i of a text that is measured."; done > t; longspan perplexity -m "$MODEL" -f t -q
tokens      951, 950 of them predicted, in 1 window
mean nll    9.5????? +- 0.10???? (glob)
perplexity  14???.???? +- 14??.???? (glob)
$ longspan perplexity -m "$MODEL" -f t -q --json > j; field windows context stride < j
1
2048
2048
# One line per token; the mean of what they say is the result.
$ longspan perplexity -m "$MODEL" -f t -c 100 -q --json --per-token p > j; python3 -c "import json, math; r = [json.loads(x) for x in open('p')]; j = json.load(open('j')); v = [x['nll'] for x in r if x['nll'] is not None]; print(len(r) == j['tokens'], len(v) == j['predicted'], len(r) - len(v) == j['windows'], abs(sum(v) / len(v) - j['mean_nll']) < 1e-6, abs(math.exp(j['mean_nll']) / j['perplexity'] - 1) < 1e-6)"
True True True True True
$ longspan tokenize -m "$MODEL" -f t --json > ids; python3 -c "import json; print([json.loads(x)['id'] for x in open('p')] == json.load(open('ids')))"
True
# Windows that overlap: only the first token has no prediction, and the result is another.
$ longspan perplexity -m "$MODEL" -f t -c 100 --stride 30 -q --json --per-token p > k; python3 -c "import json; r = [json.loads(x)['nll'] for x in open('p')]; k = json.load(open('k')); print(len(r) == k['tokens'], r.count(None), r[0], k['mean_nll'] != json.load(open('j'))['mean_nll'])"
True 1 None True
# A stride window's first line equals the plain windows'.
$ longspan perplexity -m "$MODEL" -f t -c 100 --stride 100 -q --json | field mean_nll > a; field mean_nll < j | cmp - a && echo same
same
$ longspan perplexity -m "$MODEL" -f t -c 100 --stride 101 -q
2> longspan: --stride is 101; it must not exceed the window of 100 tokens (-c)
[2]
$ printf '' > e; longspan perplexity -m "$MODEL" -f e -q
2> longspan: the text has 0 tokens; it takes two to predict one from the other
[1]
# --prompt-tokens: the first are a prompt, the others steps of decoding; with a full cache in full precision that changes nothing but who counts.
$ longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv full:fp32 --per-token p > /dev/null; longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv full:fp32 --prompt-tokens 300 --per-token o --json > j; python3 -c "import json; p, o = ([json.loads(x)['nll'] for x in open(f)] for f in 'po'); j = json.load(open('j')); print(j['prompt_tokens'], j['predicted'] == j['tokens'] - 300, len(o) == len(p), max(abs(a - b) for a, b in zip(p[1:], o[1:])) < 1e-3, abs(sum(o[300:]) / len(o[300:]) - j['mean_nll']) < 1e-6)"
300 True True True True
$ longspan perplexity -m "$MODEL" -f t -q -c 100 --prompt-tokens 100
2> longspan: --prompt-tokens is 100 and a window has 100 tokens: none is left to predict
[2]
# A cache without end reads one stream, however short -c is; with --stride, windows.
$ longspan perplexity -m "$MODEL" -f t -q -c 100 --kv streaming:sink=4,recent=60 --json > j; field windows context kv < j; longspan perplexity -m "$MODEL" -f t -q -c 100 --stride 100 --kv streaming:sink=4,recent=60 --json | field windows context
1
951
"streaming:sink=4,recent=60,prompt=windowed,self=no,bf16"
10
100
# Blocks and steps see the same tokens.
$ longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv streaming:recent=60,fp32 --per-token p > /dev/null; longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv streaming:recent=60,fp32 --prompt-tokens 2 --per-token o > /dev/null; longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv streaming:recent=2000,fp32 --per-token w > /dev/null; longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv full:fp32 --per-token f > /dev/null; python3 -c "import json; p, o, w, f = ([json.loads(x)['nll'] for x in open(n)][1:] for n in 'powf'); far = lambda a, b: max(abs(x - y) for x, y in zip(a, b)); print(far(p, o) < 1e-3, far(w, f) == 0, far(p, f) > 0.1)"
True True True
# A prompt of one token is one: shares are of it, and what follows is decoded.
$ for kv in h2o: quest:skip=0,; do for n in 1 2; do longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv ${kv}fp32 --prompt-tokens $n --json; done > $kv; done; longspan perplexity -m "$MODEL" -f t -q --compute fp32 --kv full:fp32 --prompt-tokens 1 --json > j; python3 -c "import json; f = json.load(open('j'))['mean_nll']; print(*[abs(a - b) < 0.02 < abs(a - f) for a, b in ([json.loads(x)['mean_nll'] for x in open(n)] for n in ('h2o:', 'quest:skip=0,'))])"
True True
$ longspan perplexity -m "$MODEL" -f t -q --pieces 4 --per-token p | tail -n 4 | sed 's/nll  / nll /;s/+-.*//' > a; python3 -c "import json, math; v = [json.loads(x)['nll'] for x in open('p')]; rows = [x.replace('mean  nll', '').split() for x in open('a')]; print(len(rows), all(abs(sum(x for x in v[int(r[0]):int(r[2]) + 1] if x is not None) / len([x for x in v[int(r[0]):int(r[2]) + 1] if x is not None]) - float(r[3])) < 1e-5 for r in rows), int(rows[3][2]))"
4 True 950
# A last window that is no longer than a prompt is not read; what is told of the cache is that of a whole window.
$ longspan perplexity -m "$MODEL" -f t -c 500 --prompt-tokens 460 --json --per-token p > j; field tokens predicted windows < j; wc -l < p
500
40
1
951
2> longspan: * up to 500 tokens, * (glob)
2> longspan: the last 451 tokens are not read: too few for a window that predicts one
2> longspan: * (glob)
$ longspan perplexity -m "$MODEL" -f t -c 475 -q --json | field tokens predicted windows
950
948
2
$ longspan perplexity -m "$MODEL" -f t -c 900 --prompt-tokens 40 --kv h2o --json -q > j; field tokens predicted windows kv < j; longspan perplexity -m "$MODEL" -f t -c 900 --json -q > j; longspan perplexity -m "$MODEL" -f t -c 951 --json -q > k; field cache_bytes < j > a; field cache_bytes < k | cmp - a && echo same
951
871
2
"h2o:heavy=4,recent=4,sinks=0,chunk=0,normalise=none,values=plain,bf16"
same
# A piece with a single prediction has no error.
$ longspan perplexity -m "$MODEL" -f t -q --pieces 2000 | tail -n 950 > a; wc -l < a; grep -c -- '+-' a
950
0
[1]

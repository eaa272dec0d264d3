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

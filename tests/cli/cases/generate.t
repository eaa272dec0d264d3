$ longspan generate -m "$MODEL" -p "Hello" -n 5 --temp 0 --quiet > text; wc -l < text
1
$ longspan generate -m "$MODEL" -p "Hello" -n 5 --temp 0 --json --quiet > j; field generated_tokens stop ids.# prompt_tokens kept_tokens context kv compute < j
5
"length"
5
4
0
2048
"full:bf16"
"auto"
$ python3 -c "import json; j = json.load(open('j')); print(all(j[k] >= 0 for k in ('prompt_seconds', 'generate_seconds')), j['peak_bytes'] > 1000000, j['model'].endswith('smollm2'), j['threads'] >= 1)"
True True True True
# The streamed text is the JSON's text.
$ python3 -c "import json; t = json.load(open('j'))['text']; s = open('text').read(); print(s == t or s == t + '\n')"
True
$ longspan generate -m "$MODEL" -p "Hello" -n 5 --temp 0 2>&1 >/dev/null
longspan: llama: BF16 weights, 345 KB; up to 2048 tokens, 524 KB of cache (full:bf16)
longspan: prompt 4 tokens, * tokens/s; answer 5 tokens, * tokens/s; peak memory * MB (glob)
# Ids decode to the text; the same seed gives the same answer, for any number of threads.
$ for t in 1 2 3; do longspan generate -m "$MODEL" -p "Once upon a time" -n 12 --seed 3 -t $t --json --quiet | field ids; done | uniq | wc -l
1
$ longspan generate -m "$MODEL" -p "Once" -n 12 --seed 3 --json --quiet | field seed
3
$ longspan generate -m "$MODEL" -p "Once" -n 12 --temp 0 --json --quiet > a; longspan generate -m "$MODEL" -p "Once" -n 12 --top-k 1 --json --quiet > b; field ids < a > ia; field ids < b > ib; cmp ia ib && echo same
same
# -p, -f, standard input
$ printf Hello > p; for i in "-p Hello" "-f p" "-f -" ""; do longspan generate -m "$MODEL" $i -n 5 --temp 0 --quiet < p; done | uniq | wc -l
1
$ longspan generate --model="$MODEL" --prompt=Hello --predict=5 --temp=0 -q | cmp - text && echo same
same
# Names that users of other programs have in their fingers.
$ longspan generate -m "$MODEL" -p Hello --max-new-tokens 5 --temperature 0 --repetition-penalty 1 --ctx-size 100 -q | cmp - text && echo same
same
$ LONGSPAN_MODEL="$MODEL" longspan generate -p Hello -n 5 --temp 0 -q | cmp - text && echo same
same
# --doc: several questions on one processed text equal separate runs
$ for i in $(seq 80); do printf 'Line %s of the text. ' $i; done > doc; longspan generate -m "$MODEL" --doc doc -p "First?" -p "Second one?" -n 8 --temp 0 --compute fp32 --kv full:fp32 --json -q > both; for q in "First?" "Second one?"; do longspan generate -m "$MODEL" --doc doc -p "$q" -n 8 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done > apart; field answers.0.ids answers.1.ids < both | cmp - apart && echo same
same
$ field answers.# answers.1.prompt ids.# < both
2
"Second one?"
8
$ python3 -c "import json; j = json.load(open('both')); a = j['answers']; print(a[0]['kept_tokens'], a[1]['prompt_tokens'] - a[1]['kept_tokens'] < 20, j['ids'] == a[1]['ids'], j['total_generated_tokens'])"
0 True True 16
# The prompt must fit; the context may fill up.
$ longspan generate -m "$MODEL" --doc doc -p x -c 64 -q
2> longspan: the prompt has 1113 tokens but the context holds 64; give -c 1369 or more, or a shorter text
[1]
$ longspan generate -m "$MODEL" -p "Hello world, this is" -n -1 --temp 0 --ignore-eos -c 32 --json -q | python3 -c "import json, sys; j = json.load(sys.stdin); print(j['stop'], j['prompt_tokens'] + j['generated_tokens'])"
length 33
$ longspan generate -m "$MODEL" -p "Hello" -n 0 --json -q | field text ids stop
""
[]
"length"
# --stop ends before its text
$ python3 -c "import json; print(json.load(open('j'))['text'][1:3], end='')" > s; longspan generate -m "$MODEL" -p "Hello" -n 5 --temp 0 --stop "$(cat s)" --json -q > k; field stop < k; python3 -c "import json; t = json.load(open('j'))['text']; print(t[:t.index(open('s').read())] == json.load(open('k'))['text'])"
"stop"
True
# A reader that goes away ends it quietly.
$ longspan generate -m "$MODEL" -p "Hello" -n 200 --ignore-eos -q | head -c 1 | wc -c
1
# the table of this model has 336 rows, its tokenizer 320 ids
$ longspan generate -m "$DATA/models/qwen3" -p x -n 400 --temp 5 --seed 1 --ignore-eos --json -q | python3 -c "import json, sys; ids = json.load(sys.stdin)['ids']; print(len(ids), max(ids) < 320)"
400 True
# A prompt of one token is one, also for shares of it.
$ longspan generate -m "$MODEL" -p "a" -n 2 --temp 0 --kv h2o --json -q > j; field prompt_tokens kv < j
1
"h2o:heavy=1,recent=1,sinks=0,chunk=0,normalise=none,values=plain,bf16"

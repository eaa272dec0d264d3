# Generation goes on beyond what the model was trained for (2,048 tokens) in a cache of fixed size.
$ longspan generate -m "$MODEL" -p "Hello there" -n 2500 --temp 0 --ignore-eos --kv streaming:sink=4,recent=100 --block 64 --json -q > j; field generated_tokens stop context < j
2500
"length"
2147483648
# The cache was cut to its window long before: no step was slower or other than in a run that ends there.
$ longspan generate -m "$MODEL" -p "Hello there" -n 900 --temp 0 --ignore-eos --kv streaming:sink=4,recent=100 --block 64 --json -q > k; python3 -c "import json; j, k = (json.load(open(f)) for f in 'jk'); print(j['ids'][:900] == k['ids'])"
True
$ longspan generate -m "$MODEL" -p "Hello there" --kv streaming:sink=4,recent=2044 -q
2> longspan: --kv streaming: a token would see 2049 (sink + recent + itself) and the model was trained for 2048: take recent=2043 or less
[2]
$ longspan generate -m "$MODEL" -p "Hello there" --kv streaming:sink=4,recent=10% -n 3 --temp 0 --json -q | field kv generated_tokens
"streaming:sink=4,recent=1,prompt=windowed,self=no,bf16"
0
$ longspan generate -m "$MODEL" -p "Hello there" --kv streaming:sinks=4 -q
2> longspan: --kv streaming does not know 'sinks=4': it takes sink=, recent=, prompt=, self=, bf16, q8 or fp32
[2]
$ longspan generate -m "$MODEL" -p "Hello there" --kv streaming:recent=120% -q
2> longspan: --kv streaming: recent is '120%': a share of the prompt is above 0% and at most 100%
[2]
$ longspan bench -m "$MODEL" -p 32 -n 8 -d 1000000 -r 2 -t 2 --kv streaming:sink=4,recent=500 --json -q | field '#' 0.n_depth 1.n_gen
2
1000000
8
# A second question to a document that has left the window: it is read again.
$ for i in $(seq 100); do echo "Line $i of the text."; done > doc; longspan generate -m "$MODEL" --doc doc -p "First?" -p "Second one?" -n 8 --temp 0 --compute fp32 --kv streaming:recent=60,fp32 --block 32 --json -q > both; for q in "First?" "Second one?"; do longspan generate -m "$MODEL" --doc doc -p "$q" -n 8 --temp 0 --compute fp32 --kv streaming:recent=60,fp32 --block 32 --json -q | field ids; done > apart; field answers.0.ids answers.1.ids < both | cmp - apart && echo same
same
# Questions do not depend on those before them, though they begin alike; and prompts have budgets of their own.
$ for kv in streaming:recent=60,prompt=dense kivi:residual=32 quest:budget=20%,skip=0 snapkv:budget=60; do F="--temp 0 --ignore-eos --compute fp32 -n 8 --json -q --kv $kv,fp32"; for a in "--doc doc" ""; do P="$(cat doc)"; [ "$a" ] && P=""; longspan generate -m "$MODEL" $a -p "${P}Who is it?" -p "${P}Who?" -p "${P}What of all the lines is the last one?" $F > all; for q in "Who is it?" "Who?" "What of all the lines is the last one?"; do longspan generate -m "$MODEL" $a -p "$P$q" $F | field ids; done > apart; field answers.0.ids answers.1.ids answers.2.ids < all | cmp - apart && echo same; done; done
same
same
same
same
same
same
same
same

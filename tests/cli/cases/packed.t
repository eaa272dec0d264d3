# Policies over packed storage: what composes, and what does not.
$ longspan help kv | sed -n '/compose/,$p'
streaming, h2o, snapkv, quest compose with kivi: * (glob)
* (glob)
    e.g. --kv quest:budget=10%+kivi:bits=4
$ longspan generate --kv full+kivi
2> longspan: --kv full+kivi: every token stored as kivi is --kv kivi: say that
[2]
$ longspan generate --kv topk+kivi
2> longspan: --kv topk+kivi: topk reads its keys exactly and cannot store them packed; streaming, h2o, snapkv, quest can
[2]
$ longspan generate --kv quest+q8
2> longspan: --kv quest+q8: behind '+' stands how keys and values are stored, which is kivi or is left out
[2]
$ longspan generate -m "$MODEL" -p "Hello there" --kv h2o:recent=64+kivi -q
2> longspan: --kv h2o+kivi: recent=64 is less than residual=128, the tokens that stay exact: take recent=128 or more, or a smaller residual
[2]
# Texts without end, in groups that expire.
$ longspan generate -m "$MODEL" -p "Hello there" -n 2500 --temp 0 --ignore-eos --kv streaming:sink=4,recent=100+kivi:bits=4,residual=32 --block 64 --json -q > j; field generated_tokens stop context kv < j
2500
"length"
2147483648
"streaming:sink=4,recent=100,prompt=windowed,self=no,bf16+kivi:bits=4,bits_v=same,group=32,residual=32,sinks=0"
$ longspan generate -m "$MODEL" -p "Hello there" -n 900 --temp 0 --ignore-eos --kv streaming:sink=4,recent=100+kivi:bits=4,residual=32 --block 64 --json -q > k; python3 -c "import json; j, k = (json.load(open(f)) for f in 'jk'); print(j['ids'][:900] == k['ids'])"
True
# A session goes on as if it had not been stored; questions to a document do not see each other.
$ for kv in quest:budget=80+kivi:residual=32 streaming:recent=100+kivi:residual=32 h2o:heavy=40,recent=40+kivi:residual=32 snapkv:budget=80,window=16+kivi:residual=32; do F="--temp 0 --ignore-eos --json -q --kv $kv"; rm -f s; for i in $(seq 50); do printf 'Line %s of the text. ' $i; done > doc; longspan generate -m "$MODEL" -p "$(cat doc)" -n 60 $F | field ids > want; longspan generate -m "$MODEL" --session s -p "$(cat doc)" -n 40 $F | field ids > a; longspan generate -m "$MODEL" --session s -n 20 $F | field ids > b; python3 -c "import json; print(json.load(open('a')) + json.load(open('b')) == json.load(open('want')))"; longspan generate -m "$MODEL" --doc doc -p "First?" -p "Second one?" -n 8 $F > both; for q in "First?" "Second one?"; do longspan generate -m "$MODEL" --doc doc -p "$q" -n 8 $F | field ids; done > apart; field answers.0.ids answers.1.ids < both | cmp - apart && echo same; done
True
same
True
same
True
same
True
same
# A budget goes to the policy, in front of how it stores.
$ longspan eval -m "$RECALL" --haystack made-up --task needle-single --length 600 --cases 1 --protocol dense --kv quest+kivi:bits=4,h2o:fp32+kivi --budget 50% -q --csv | cut -d'"' -f2
kv,budget,task,length,protocol,cases,accuracy,accuracy_stderr,prompt_tokens_per_second,* (glob)
quest:page=16,budget=300,skip=2,sets=group,combine=pseudo,bf16+kivi:bits=4,bits_v=same,group=32,residual=128,sinks=0
h2o:heavy=150,recent=150,sinks=0,chunk=0,normalise=none,values=plain,fp32+kivi:bits=2,bits_v=same,group=32,residual=128,sinks=0
# Speed at a depth, and what of attention they keep.
$ for kv in quest:budget=10%+kivi streaming:recent=500+kivi:residual=32 h2o+kivi snapkv:budget=20%+kivi; do longspan bench -m "$MODEL" -p 0 -n 4 -d 2000 -r 1 -t 2 --kv $kv --json -q | field 0.n_depth; done
2000
2000
2000
2000
$ for i in $(seq 40); do echo "Line $i of a text that is looked at."; done > t; longspan inspect -m "$MODEL" -f t -c 400 --rows 3 --top 2 --kv h2o:heavy=30,recent=40+kivi:residual=32 --kv quest:budget=64+kivi:residual=32 --kv full --json -q > j; python3 -c "import json; p = json.load(open('j'))['policies']; print(all(0 < x['mass'] <= x['oracle'] + 1e-9 for x in p), len(p))"
True 3

# One prompt and what is expected; the same on every machine.
$ longspan eval -m "$RECALL" --show needle-single --length 200 --haystack made-up -q
Some special magic numbers are hidden within the following text.
At that hour, said the thoughtful clerk, the printer drew a sack of flour. The tailor and the painter sold a loaf of bread in the upper village, because the roof leaked.
One of the special magic numbers for Kealgeakith is: 56176.
What is the special magic number for Kealgeakith mentioned in the provided text? The special magic number for Kealgeakith mentioned in the provided text is:
expected: 56176
$ longspan eval -m "$RECALL" --show stream --length 800 --haystack made-up -q --json > s; python3 -c "import json; s = json.load(open('s')); print(s['task'], len(s['turns']), s['prompt_tokens'] <= 800, [len(t['expected']) for t in s['turns']])"
stream 1 True [1]
$ longspan eval -m "$RECALL" --haystack made-up --task needle-single --length 300 --cases 1 --protocol dense -q | head -1
kv    budget  task            length  question  cases     accuracy %  perplexity  prompt t/s  decode t/s      cache
# Policies that differ in a key have it in their names.
$ longspan eval -m "$RECALL" --haystack made-up --task lines --length 300 --cases 1 --protocol dense --kv full:q8,snapkv:kernel=3,snapkv:kernel=7,pool=max --budget 20% -q | grep lines | cut -c1-32
full:q8                   -     
snapkv:kernel=3           20%   
snapkv:kernel=7,pool=max  20%   
# Prompts alone, for other programs: the ids are those of the text.
$ longspan eval -m "$RECALL" --haystack made-up --task lines,stream --length 300,800 --cases 2 --seeds 1,2 --dump-prompts p.jsonl -q 2> e; grep -c . p.jsonl; cat e
12
$ python3 -c "import json; c = json.loads(open('p.jsonl').readline()); t = c['turns'][0]; print(c['task'], c['length'], c['seed'], c['index'], len(t['ids']) == c['prompt_tokens'], t['expected'][0] in t['text']); open('t', 'w').write(t['text'] + t['question'] + t['prefix']); json.dump(t['ids'], open('i', 'w'))"
lines 300 1 0 True True
$ longspan tokenize -m "$RECALL" -f t --json -q > j; python3 -c "import json; print(json.load(open('i')) == json.load(open('j')))"
True
$ longspan eval -m "$RECALL" --haystack made-up --dump-prompts none/p.jsonl -q
2> longspan: cannot write 'none/p.jsonl': No such file or directory
[1]
# A length that is too short is told, the others are asked.
$ longspan eval -m "$RECALL" --haystack made-up --task lines,common-words --length 300 --cases 1 --protocol dense --csv 2> e | cut -d, -f1-5; grep left e
kv,budget,task,length,protocol
"full:bf16","","lines",300,dense
longspan: common-words takes at least 968 tokens and 300 are given: take a greater length; left out
# Questions of RULER's and LongBench's files.
$ printf '{"input":"The pass key is 123.\\nWhat is the pass key? The pass key is","outputs":["123"]}\n' > ruler.jsonl; longspan eval -m "$RECALL" --data ruler.jsonl --protocol dense -q --json > j; python3 -c "import json; r = json.load(open('j'))['rows'][0]; print(r['task'], r['cases'], r['kv'])"
ruler 1 full:bf16
$ printf '{"input":"Who?","context":"A text.","answers":["He"],"dataset":"hotpotqa"}\n' > l.jsonl; longspan eval -m "$RECALL" --data l.jsonl -q --csv | cut -d, -f3-6
task,length,protocol,cases
"hotpotqa",4096,sparse,1
"hotpotqa",4096,dense,1
# Data sets of one file have rows of their own, each with its metric, and --cases lines each.
$ printf '{"input":"Q:","context":"c","answers":["B"],"dataset":"trec","all_classes":["A","B"]}\n{"input":"Who is he?","context":"c","answers":["He"],"dataset":"qasper"}\n' > m.jsonl; cat l.jsonl m.jsonl l.jsonl l.jsonl > mixed.jsonl; longspan eval -m "$RECALL" --data mixed.jsonl --protocol dense --cases 2 -q --csv | cut -d, -f3-6
task,length,protocol,cases
"hotpotqa",4096,dense,2
"trec",4096,dense,1
"qasper",4096,dense,1
$ longspan eval -m "$RECALL" --data l.jsonl --data mixed.jsonl -q
2> longspan: --data l.jsonl and mixed.jsonl are both called 'hotpotqa'; rename one, or take them in two runs
[2]
$ sed 's/qasper/dureader/' mixed.jsonl > zh.jsonl; longspan eval -m "$RECALL" --data zh.jsonl -q
2> longspan: zh.jsonl, line 3: dureader is one of LongBench's Chinese data sets, for which there are no metrics here: leave it out
[1]
# Inputs without a line before the question, and empty ones.
$ printf '{"input":"Who?","outputs":["123"]}\n{"input":"Who?\\n","outputs":["123"]}\n' > flat.jsonl; cat ruler.jsonl >> flat.jsonl; longspan eval -m "$RECALL" --data flat.jsonl --cases 1 --kv full,h2o 2>&1 | grep -F flat.jsonl
longspan: flat.jsonl: 2 of 3 inputs have no line before the question, so that nothing of them is compressed under sparse
$ longspan eval -m "$RECALL" --data flat.jsonl --cases 1 --protocol dense 2>&1 | grep -F flat.jsonl
[1]
$ echo '{"input":"","outputs":["123"]}' >> flat.jsonl; longspan eval -m "$RECALL" --data flat.jsonl -q
2> longspan: flat.jsonl, line 4 has an empty input: there is nothing to ask; remove the line
[1]
$ longspan eval -m "$RECALL" --data none.jsonl -q
2> longspan: cannot open none.jsonl: No such file or directory
[1]
$ echo '{"input":1}' > bad.jsonl; longspan eval -m "$RECALL" --data bad.jsonl -q
2> longspan: bad.jsonl, line 1:1:10: * (glob)
[1]
# A byte order mark is no part of the first line; lines none of which fits are no result.
$ printf '\357\273\277' > marked.jsonl; cat ruler.jsonl >> marked.jsonl; longspan eval -m "$RECALL" --data marked.jsonl --protocol dense -q --csv | cut -d, -f3-6
task,length,protocol,cases
"marked",4096,dense,1
$ longspan eval -m "$RECALL" --data ruler.jsonl --length 16 -q
2> longspan: no question fits into the tokens of --length: give more
[1]
# Files are told apart by their names.
$ mkdir -p one two; cp ruler.jsonl one/; cp ruler.jsonl two/; longspan eval -m "$RECALL" --data one/ruler.jsonl --data two/ruler.jsonl -q
2> longspan: --data one/ruler.jsonl and two/ruler.jsonl are both called 'ruler'; rename one, or take them in two runs
[2]
$ cp ruler.jsonl lines.jsonl; longspan eval -m "$RECALL" --task lines --data lines.jsonl -q
2> longspan: --data lines.jsonl is called 'lines' as a task is; rename the file
[2]
# What every policy leaves out is told once; of files alone nothing is hidden in a text.
$ longspan eval -m "$RECALL" --haystack made-up --task lines,variable-tracking --data l.jsonl --data ruler.jsonl --length 300 --cases 1 --kv full,topk,full:q8 2>&1 >/dev/null | grep -c 'left out'
1
$ longspan eval -m "$RECALL" --data l.jsonl --data ruler.jsonl --protocol dense --kv full,full:q8 --length 70 2>&1 >/dev/null
longspan: model */models/recall, compute auto (glob)
longspan: 1 questions of hotpotqa are longer than 70 tokens; left out
$ longspan eval -m "$RECALL" --data l.jsonl --protocol dense -q --json | field haystack
null
# A line above the table says what it is about; a name cannot end a cell.
$ sed 's/hotpotqa/a|b/' l.jsonl > pipe.jsonl; longspan eval -m "$RECALL" --haystack made-up --task ppl --data pipe.jsonl --length 300 --cases 1 --seeds 1,2 --protocol dense --out out -q > /dev/null; head -n 5 out/table.md; head -n 1 out/table.txt
model `*/models/recall`, compute auto; things are hidden in `made-up:*`; seeds 1,2 (glob)

300 tokens, question dense: accuracy in per cent

| kv | budget | ppl | a\|b | mean | decode tokens/s | cache |
model */models/recall, compute auto; things are hidden in made-up:*; seeds 1,2 (glob)
# Mistakes of the command line.
$ longspan eval -m "$RECALL" --task needles
2> longspan: --task has 'needles'; it must be one of all, needle, needle-single, needle-multikey, needle-multivalue, needle-multiquery, passkey, variable-tracking, common-words, frequent-words, lines, stream, copy, induction, ppl (did you mean 'needle'?)
[2]
$ longspan eval -m "$RECALL" --show needle
2> longspan: --show has 'needle'; it must be one of needle-single, needle-multikey, needle-multivalue, needle-multiquery, passkey, variable-tracking, common-words, frequent-words, lines, stream, copy, induction, ppl (did you mean 'needle-single'?)
[2]
$ longspan eval -m "$RECALL" --length 4x
2> longspan: --length has '4x'; it must be tokens, 16 or more, such as 4096 or 4k (1k is 1,024)
[2]
$ longspan eval -m "$RECALL" --kv recent=4,full
2> longspan: --kv begins with 'recent=4'; it must begin with the name of a policy
[2]
$ longspan eval -m "$RECALL" --kv full,nonsense -q
2> longspan: unknown KV cache 'nonsense': * (glob)
[2]
$ longspan eval -m "$RECALL" --kv h2o --budget 0% -q
2> longspan: --budget has '0%'; it must be tokens or a share of the length, such as 512 or 10%
[2]
$ longspan eval -m "$RECALL" --kv h2o --budget 10% --length 64 -q
2> longspan: a budget of 10% comes to 6 tokens of 64; it takes at least 8
[2]
$ longspan eval -m "$RECALL" --kv full,snapkv --budget 5%,20% --length 512,1k -q
2> longspan: --kv snapkv:budget=25 (--budget 5%, --length 512): budget is 25 and window 32: the budget holds the window and more; a greater budget or length may help
[2]
$ longspan eval -m "$RECALL" --kv h2o+kivi --budget 8 --length 512 -q
2> longspan: --kv h2o:heavy=4,recent=4+kivi (--budget 8, --length 512): recent=4 is less than residual=128, the tokens that stay exact: take recent=128 or more, or a smaller residual; a greater budget or length may help
[2]
$ longspan eval -m "$RECALL" --kv full,snapkv:budget=20 -q
2> longspan: --kv snapkv:budget=20: budget is 20 and window 32: the budget holds the window and more
[2]
$ longspan eval -m "$RECALL" --resume
2> longspan: --resume goes on with what a folder holds: name it with --out DIR
[2]
$ longspan eval -m "$RECALL" --task passkey --length 512 --csv --json
2> longspan: --csv and --json are two forms of the one table: take one; --out DIR writes all
[2]
$ longspan eval -m "$RECALL" --task passkey --length 17k --cases 1 --protocol dense --haystack made-up --csv 2>&1 > c | grep trained
longspan: the model was trained for 16384 tokens; beyond them its answers may get worse

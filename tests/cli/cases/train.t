# What is missing or does not go together
$ longspan train
2> longspan: no data: name a file with --data FILE
[2]
$ longspan train -m "$MODEL" --data t.txt
2> longspan: no folder for the run: name one with --out DIR
[2]
$ longspan train -m "$MODEL" --init config.json --data t.txt --out run
2> longspan: either -m or --init: train a model, or begin with random weights
[2]
$ mkdir run && : > run/run.json; longspan train -m "$MODEL" --data t.txt --out run
2> longspan: 'run' holds a run already; --resume goes on with it, another --out begins a new one
[1]
$ longspan train -m "$MODEL" --data t.txt --out other --resume
2> longspan: 'other' holds no run to go on with; without --resume one begins there
[1]
$ longspan verify-training
2> longspan: no data: name a file with --data FILE
[2]
# Values
$ longspan train --mode swep
2> longspan: --mode is 'swep'; it must be one of sweep, standard, recompute, mst (did you mean 'sweep'?)
[2]
$ longspan train --betas 0.9
2> longspan: --betas is '0.9'; it must be 2 numbers: A,B
[2]
$ longspan train --betas 0.9,x
2> longspan: --betas is '0.9,x'; it must be numbers with a comma between them: A,B
[2]
$ longspan train --betas 0.9,1.5
2> longspan: --betas is '0.9,1.5'; it must lie between 0 and 1
[2]
$ for s in 16GiB 16G 16gib 800MB 4000000000 1.5TB 5120kB '2 GiB'; do longspan train --memory "$s"; done 2>&1 | sort | uniq -c | sed 's/^ *//'
8 longspan: no data: name a file with --data FILE
$ longspan train --memory 16Gx
2> longspan: --memory is '16Gx'; it must be a size such as 16GiB, 800MB or 4000000000
[2]
$ longspan train --memory GiB
2> longspan: --memory is 'GiB'; it must be a size such as 16GiB, 800MB or 4000000000
[2]
$ longspan train --memory 0
2> longspan: --memory is '0'; it must be at least 1048576 bytes
[2]
$ longspan train --memory -1G
2> longspan: --memory is '-1G'; it must be a size such as 16GiB, 800MB or 4000000000
[2]
$ longspan train --seq 1
2> longspan: --seq is '1'; it must be 2 or greater
[2]
$ longspan train --seq 3000000000
2> longspan: --seq is '3000000000'; it must lie between 2 and 2147483648
[2]
$ longspan train --accumulate 0
2> longspan: --accumulate is '0'; it must lie between 1 and 1048576
[2]
$ longspan train --no-shuffle=1
2> longspan: --no-shuffle takes no value
[2]
$ longspan train --no-shufle
2> longspan: unknown option '--no-shufle' for train; did you mean '--no-shuffle'? ('longspan train --help' lists all)
[2]
$ longspan verify-trainig
2> longspan: unknown command 'verify-trainig'; did you mean 'verify-training'? ('longspan --help' lists all)
[2]
# Data that cannot be used
$ longspan verify-training -m "$MODEL" --data nowhere.txt
2> longspan: cannot open nowhere.txt: No such file or directory
[1]
$ echo short > short.txt; longspan verify-training -m "$MODEL" --data short.txt
2> longspan: the data hold 5 tokens and a sequence takes --seq 1024: take a smaller --seq or more text
[1]
$ printf '{"text": "one"}\n{"text": "tw' > cut.jsonl; longspan verify-training -m "$MODEL" --data cut.jsonl
2> longspan: cut.jsonl:2:13: the string does not end
[1]
$ printf '{"messages": [{"role": "robot", "content": ""}]}' > chat.jsonl; longspan verify-training -m "$MODEL" --data chat.jsonl
2> longspan: chat.jsonl:1:31: role "robot" is none of system, user, assistant
[1]
# A mode is the standard computation up to rounding, from the first gradients on.
$ seq 1 200 > t.txt; for m in sweep recompute mst standard; do longspan verify-training -m "$MODEL" --data t.txt --seq 60 --block 16 --mode $m --dtype fp32 --lr 1e-3 --json > $m; field passed mode steps.# step_tolerance < $m; done
true
"sweep"
4
0.001
true
"recompute"
4
0.001
true
"mst"
4
0.001
true
"standard"
4
0.001
$ field loss_difference norm_difference gradient_difference weight_difference < standard
0
0
0
0
# Where layer inputs wait, and how many of them, changes no bit.
$ mkdir tier; n=0; for where in '' '--spill tier' '--checkpoint-layers 2' '--spill tier --checkpoint-layers 2'; do n=$((n + 1)); longspan verify-training -m "$MODEL" --data t.txt --seq 60 --block 16 --lr 1e-3 $where --json > way$n; field passed steps.0.loss steps.0.grad_norm steps.1.loss steps.3.loss gradient_difference weight_difference < way$n > numbers$n; cmp numbers1 numbers$n; done; head -n 1 numbers4; ls tier
true
$ longspan verify-training -m "$MODEL" --data t.txt --seq 60 --spill nowhere
2> longspan: cannot make a file for activations in nowhere: No such file or directory
[1]
$ longspan verify-training -m "$MODEL" --data t.txt --seq 60 --block 16 --steps 1 --dump grads.safetensors
              sweep       standard    difference    sweep       standard    difference
first batch   loss * gradient norm * (glob)
step 1        loss * gradient norm * (glob)
loss          * relative, may be 1.0e-03 (glob)
norm          * may be 1.0e-03 (glob)
gradient      * may be 1.6e-02 (glob)
of a tensor   * may be 6.2e-02: model.* (glob)
after steps   loss * may be 1.0e-02; weights * (glob)
the same up to rounding
$ python3 -c "import json, struct; f = open('grads.safetensors', 'rb'); h = json.loads(f.read(struct.unpack('<Q', f.read(8))[0])); print(h['loss']['shape'], h['model.embed_tokens.weight']['dtype'], len(h) > 20)"
[] F32 True
# A run: metrics, a result that every command reads, and going on as if nothing had been.
$ longspan train -m "$MODEL" --data t.txt --seq 60 --steps 6 --lr 1e-3 --out whole --quiet --json | field step steps stopped eval_loss mode
6
6
false
null
"sweep"
$ ls whole; wc -l < whole/metrics.jsonl; longspan generate -m whole/model -p 1 -n 4 --temp 0 -q --json | field generated_tokens
checkpoints
loss.svg
metrics.jsonl
model
run.json
tokens
6
4
$ longspan train -m "$MODEL" --data t.txt --seq 60 --steps 6 --lr 1e-3 --schedule constant --warmup 0 --out a -q && longspan train -m "$MODEL" --data t.txt --seq 60 --steps 3 --lr 1e-3 --schedule constant --warmup 0 --out b -q && longspan train -m "$MODEL" --data t.txt --seq 60 --steps 6 --lr 1e-3 --schedule constant --warmup 0 --out b --resume -q && cmp a/model/model.safetensors b/model/model.safetensors && wc -l < b/metrics.jsonl
6
$ longspan train -m "$MODEL" --data cut.jsonl --seq 60 --out c
2> longspan: cut.jsonl:2:13: the string does not end
[1]
$ longspan train -m "$MODEL" --seq 3000 --dry-step --json -q > dry; field seq mode < dry; python3 -c "import json; j = json.load(open('dry')); print(j['planned_bytes'] == j['allocated_bytes'] < j['peak_bytes'], j['file_bytes'])"
3000
"sweep"
True 0
$ longspan train -m "$MODEL" --seq 3000 --dry-step --spill . -q | sed 's/[0-9.]* [KMG]B ([0-9]* bytes)/N/; s/phase .*/phase P/'
planned      N, greatest in phase P
allocated    N
in the file  N
peak memory  N, the process as a whole
$ for clip in 0 1; do longspan train -m "$MODEL" --seq 3000 --block 100 --head-chunks 9 --clip $clip --dry-step --json -q | field seq; done
3000
3000

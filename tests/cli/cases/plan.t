# Models that this machine could not hold are planned by name; with rates nothing is measured. How blocks are cut
# depends on the machine's caches, so figures are left out.
$ longspan plan llama3-8b --memory 80GiB --weights pure --moments q8 --clip 0 --rate-gemm 300000 --rate-attention 200000 --rate-copy 2000 | sed 's/llama3-8b/llama/; s/fp32/fp/; s/  */ /g; s/[0-9][0-9.]*\( [KMGT]iB\| [GTPE]FLOP\)*/N/g; s/N min N s/N s/g'
model llama: N billion parameters, N layers, N wide, feed-forward N, vocabulary N
memory N (N GB)
training bfN, no master weights, moments in qN

mode longest per token peak in file time of it
standard N N loss - N s
recompute N N loss - N s
mst N N backward - N s
sweep N N backward - N s

sweep, N tokens: fits, N are left
 states N weights
 N moments of AdamW
 N gradients
 rows N activation checkpoints
 N row gradients
 N keys and values
 N their gradients
 blocks N activations of a block
 N logits of a piece; shares memory with the block and key gradients
 N scratch of operations
 total N allocated
 phases forward N, loss N, backward N (the peak), step N
 pieces blocks of N rows (N), MLP of N (N), head of N (N)
 checkpoints: the input of every Nth layer; the layers between are computed again
 work N of the model, N with what is computed again
 time N s: products N s, attention N s, rows N s, optimizer N s; N tokens/s
 rates products N forward, N backward, attention N and N/s; memory N GB/s

To go further:
 N tokens, N times: --spill DIR (activation checkpoints go to a file)
 N tokens, N times: --lora-rank N (adapters are trained, the weights stay)
$ longspan plan gemma2-9b --memory 79.2GiB
model       gemma2-9b: 9.24 billion parameters, 42 layers, 3584 wide, feed-forward 14336, vocabulary 256000
memory      79.2 GiB (85.0 GB)
states      6 bytes per parameter

profile          longest    per token     peak  checkpoints       states
vanilla             2001     13.6 MiB     head      0 bytes     52.6 GiB
recompute           5808     4.68 MiB     head      294 KiB     52.6 GiB
mst                42581      654 KiB    layer      294 KiB     52.6 GiB
tiled-mlp          59504      468 KiB    layer      294 KiB     52.6 GiB

vanilla     a framework that keeps every activation
recompute   layers recomputed whole, logits of all rows
mst         mini-sequence MLP and head over recomputation (arXiv 2407.15892)
tiled-mlp   the MLP recomputed in tiles as well (arXiv 2506.13996)
2> longspan: gemma2-9b is of a family that this program does not train; what follows are formulas of other systems
$ longspan plan llama3-8b --memory 79.2GiB --profile spec --seq 100000
model       llama3-8b: 8.03 billion parameters, 32 layers, 4096 wide, feed-forward 14336, vocabulary 128256
memory      79.2 GiB (85.0 GB)
states      6 bytes per parameter

profile          longest    per token     peak  checkpoints       states
spec              114815      284 KiB    layer      256 KiB     48.1 GiB  100000 tokens fit

spec        the formula this library's sweep is held to
$ longspan plan llama3-8b --memory 79.2GiB --profile framework --accumulate 2 --json | field profiles.0.longest profiles.1.longest profiles.2.longest accumulate
2400
7672
33912
true
$ longspan plan "$MODEL" --memory 100MB --seq 3000 --rate-gemm 1 --rate-attention 1 --rate-copy 1 --json > p; field model.n_layers memory_bytes mode seq fits modes.# modes.3.mode modes.3.seq < p
2
100000000
"sweep"
3000
true
4
"sweep"
3000
# A length that does not fit is an answer, not a failure.
$ longspan plan "$MODEL/config.json" --memory 20MiB --seq 100000 --mode standard --rate-gemm 1 --rate-attention 1 --rate-copy 1 --json | field fits mode
false
"standard"
$ longspan plan smollm2-135m --memory 4GiB --seq 200000 --rate-gemm 1 --rate-attention 1 --rate-copy 1 | grep -c -e missing -e 'as it is' -e 'too much$'
6
# Every number of the text is in the JSON.
$ longspan plan smollm2-135m --memory 8GiB --rate-gemm 300 --rate-attention 200 --rate-copy 30 --json > p; python3 -c "import json; j = json.load(open('p')); m = j['modes'][3]; b = m['bytes']; print(j['longest'] == m['longest'] == m['seq'], b['total'] + m['spare_bytes'] == j['memory_bytes'], m['phases'][m['peak_phase']] <= b['total'], [a['option'] for a in j['advice']][:2], m['cost']['hardware_flops'] > m['cost']['model_flops'])"
True True True ['--mode sweep --spill DIR --weights pure --moments q8 --clip 0 --accumulate 1', '--spill DIR'] True
# GB are not GiB.
$ for m in 1GB 1GiB "1.5 MB" 12345; do longspan plan smollm2-135m --memory "$m" --profile spec --json | field memory_bytes; done
1000000000
1073741824
1500000
12345
$ longspan plan smollm2-135m --memory 80X
2> longspan: --memory is '80X'; it must be a size such as 16GiB, 800MB or 4000000000
[2]
$ longspan plan smollm2-135m --memory 0
2> longspan: --memory is '0'; it must be at least 1 bytes
[2]
$ longspan plan smollm2-135m --memory 1GiB --seq 0
2> longspan: --seq is '0'; it must be max or a number of tokens from 1 to 2147483648
[2]
$ longspan plan smollm2-135m --memory 1GiB --seq long
2> longspan: --seq is 'long'; it must be max or a number of tokens from 1 to 2147483648
[2]
$ longspan plan a b
2> longspan: unexpected argument 'b': plan takes one model
[2]
$ longspan plan llama4
2> longspan: 'llama4' is neither a file nor a known shape (known: smollm2-135m, smollm2-360m, smollm2-1.7b, qwen2.5-0.5b, llama3.2-1b, llama2-7b, mistral-7b, qwen2-7b, llama3-8b, qwen3-8b, gemma2-9b, llama3-70b)
[1]
$ longspan plan /nowhere/config.json
2> longspan: cannot open /nowhere/config.json: No such file or directory
[1]
$ longspan plan smollm2-135m --memory 1GiB --mode standard --spill . --rate-gemm 1 --rate-attention 1 --rate-copy 1
2> longspan: the standard mode keeps every activation in memory: there is nothing to spill; take another mode
[1]
$ longspan plan smollm2-135m --memory 1GiB --mode sweeps
2> longspan: --mode is 'sweeps'; it must be one of sweep, standard, recompute, mst (did you mean 'sweep'?)
[2]

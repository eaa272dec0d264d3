$ longspan info -m "$MODEL" | sed "s|$DATA|DATA|; s|, [0-9.]* MB with weights and scratch|, N MB with weights and scratch|"
file        DATA/models/smollm2 (safetensors)
family      llama
parameters  0.2 million, BF16, 345 KB in memory
layers      2, 96 wide, feed-forward 160
attention   6 heads on 2 key/value heads of 16
rope        base 100000, scaling none
vocabulary  320, output matrix is the embedding
context     2048 tokens
tokenizer   bpe, split smollm, 320 tokens, bos 1 <|im_start|>, eos 2 <|im_end|>, adds no bos
chat        smollm2
cache       full:bf16, 256 bytes per token
memory           2048 tokens: 524 KB of cache, N MB with weights and scratch  (as trained)
                 4096 tokens: 1.0 MB of cache, N MB with weights and scratch
                32768 tokens: 8.4 MB of cache, N MB with weights and scratch
               131072 tokens: 33.6 MB of cache, N MB with weights and scratch
tensors     20 (--tensors lists them)
$ longspan info -m "$MODEL" --json | field format architecture.family architecture.n_layers tokenizer.kind tokenizer.chat_template kv_bytes_per_token
"safetensors"
"llama"
2
"bpe"
"smollm2"
256
$ longspan info -m "$MODEL" --kv full:q8 -c 5000 --json | python3 -c "import json, sys; j = json.load(sys.stdin); print(j['kv'], [c['n_ctx'] for c in j['contexts']], len(j['tensors']) > 5)"
full:q8 [2048, 4096, 5000, 32768, 131072] True
$ longspan info -m "$MODEL" --tensors | grep -c '^  model'
20
$ longspan info -m "$DATA/models/mistral" --json | field architecture.family tokenizer.kind tokenizer.adds_bos tokenizer.chat_template
"mistral"
"spm"
true
null
$ longspan info -m "$DATA/models/qwen2" | grep rope
rope        base 1000000, scaling none

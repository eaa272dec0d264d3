# An adapter that PEFT wrote, added to its model: the answer is that of transformers with PEFT (greedy, fp32).
$ longspan merge -m "$MODEL" --adapter $DATA/adapters/smollm2 -o hf -q && longspan generate -m hf -p "Hello there" -n 8 --temp 0 --ignore-eos --compute fp32 --kv full:fp32 --json -q | field ids
[316, 174, 174, 174, 290, 177, 177, 177]
$ longspan merge -m "$MODEL" --adapter $DATA/adapters/smollm2 -o m.gguf 2>&1 | sed 's/written in .*/written/'
longspan: 'm.gguf' written
$ longspan convert "$MODEL" in.gguf -q && longspan merge -m in.gguf --adapter $DATA/adapters/smollm2 -o both.gguf -q && longspan merge -m in.gguf --adapter $DATA/adapters/smollm2 -o hf2 -q
$ for m in hf m.gguf both.gguf hf2; do longspan generate -m $m -p "Hello there" -n 8 --temp 0 --ignore-eos --compute fp32 --kv full:fp32 --json -q | field ids; done | uniq
[316, 174, 174, 174, 290, 177, 177, 177]
$ longspan generate -m "$MODEL" -p "Hello there" -n 8 --temp 0 --ignore-eos --compute fp32 --kv full:fp32 --json -q | field ids | grep -c 316,174
0
[1]
$ longspan merge -m "$MODEL" --adapter $DATA/adapters/smollm2 -o hf
2> longspan: 'hf' is there already; --force replaces it
[1]
$ longspan merge -m "$MODEL" --adapter $DATA/adapters/smollm2 -o q.gguf --dtype q8_0 -q && longspan info -m q.gguf --json | field architecture.weights
"Q8_0"
# What is missing or does not fit is named.
$ longspan merge --adapter $DATA/adapters/smollm2 -o x
2> longspan: which model? longspan merge -m MODEL --adapter DIR -o OUT
[2]
$ longspan merge -m "$MODEL" -o x
2> longspan: which adapter? longspan merge -m MODEL --adapter DIR -o OUT
[2]
$ longspan merge -m "$MODEL" --adapter $DATA/adapters/smollm2
2> longspan: no name for the result: longspan merge -m MODEL --adapter DIR -o OUT
[2]
$ longspan merge -m $DATA/models/qwen3 --adapter $DATA/adapters/smollm2 -o x 2>&1 | sed 's/.*adapters/adapters/'; ls x 2>/dev/null | wc -l
adapters/smollm2/adapter_model.safetensors: tensor base_model.model.model.layers.0.mlp.down_proj.lora_A.weight: expected [2][96], found [2][160]
0
$ cp -r $DATA/adapters/smollm2 dora && sed -i 's/"use_dora": false/"use_dora": true/' dora/adapter_config.json && longspan merge -m "$MODEL" --adapter dora -o x
2> longspan: dora/adapter_config.json: use_dora is not supported; plain LoRA is
[1]

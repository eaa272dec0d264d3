$ longspan convert "$MODEL" a.gguf -q && longspan convert a.gguf back -q && ls back
config.json
generation_config.json
model.safetensors
special_tokens_map.json
tokenizer.json
tokenizer_config.json
$ for m in "$MODEL" a.gguf back; do longspan generate -m $m -p "Hello there" -n 8 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done | uniq | wc -l
1
$ longspan convert "$MODEL" a.gguf
2> longspan: 'a.gguf' is there already; --force replaces it
[1]
$ longspan convert "$MODEL" back
2> longspan: 'back' is there already; --force replaces it
[1]
$ longspan convert "$MODEL" a.gguf --force -q; echo $?
0
$ longspan convert -m "$MODEL" -o q8.gguf --dtype q8_0 2>&1 | sed 's/written in .*/written/'
longspan: 'q8.gguf' written
$ longspan info -m q8.gguf --json | field format architecture.weights
"gguf"
"Q8_0"
$ longspan convert "$MODEL" out --format hf --dtype q4_0 -q; ls out 2>/dev/null | wc -l
0
2> longspan: a Hugging Face directory holds f32, f16 or bf16, not q4_0; write a .gguf file for that
# A directory with one .gguf file is a model, and so is the name of a file of weights.
$ mkdir one && cp a.gguf one; for m in a.gguf one one/ back/model.safetensors; do longspan generate -m $m -p "Hello there" -n 8 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done | uniq | wc -l
1
$ longspan tokenize -m one -p He --json
[42,71]
$ cp a.gguf one/b.gguf; longspan tokenize -m one -p He --json
2> longspan: one: 2 .gguf files are there; name the one to open
[1]
# transformers refuses a fraction where its class says int.
$ longspan convert $DATA/models/gemma3 whole.gguf -q && longspan convert whole.gguf whole -q && grep -o '"query_pre_attn_scalar": [0-9.]*' whole/config.json
"query_pre_attn_scalar": 32

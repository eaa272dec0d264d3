$ longspan info -m "$MODEL" | sed "s|$DATA|DATA|"
$ longspan info -m "$MODEL" --json | field format architecture.family architecture.n_layers tokenizer.kind tokenizer.chat_template kv_bytes_per_token
$ longspan info -m "$MODEL" --kv full:q8 -c 5000 --json | python3 -c "import json, sys; j = json.load(sys.stdin); print(j['kv'], [c['n_ctx'] for c in j['contexts']], len(j['tensors']) > 5)"
$ longspan info -m "$MODEL" --tensors | grep -c '^  model'
$ longspan info -m "$DATA/models/mistral" --json | field architecture.family tokenizer.kind tokenizer.adds_bos tokenizer.chat_template

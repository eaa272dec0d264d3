# Mistakes of the command line: one sentence, status 2.
$ longspan
2> longspan: which command? 'longspan --help' lists them
[2]
$ longspan chta
2> longspan: unknown command 'chta'; did you mean 'chat'? ('longspan --help' lists all)
[2]
$ longspan nonsense
2> longspan: unknown command 'nonsense'; 'longspan --help' lists all
[2]
$ longspan help chta
2> longspan: unknown command 'chta'; did you mean 'chat'? ('longspan --help' lists all)
[2]
$ longspan generate --tmep 1
2> longspan: unknown option '--tmep' for generate; did you mean '--temp'? ('longspan generate --help' lists all)
[2]
$ longspan generate --foobarbaz
2> longspan: unknown option '--foobarbaz' for generate; 'longspan generate --help' lists all
[2]
$ longspan generate -ngl 5
2> longspan: unknown option '-ngl' for generate; 'longspan generate --help' lists all
[2]
$ longspan generate -n5
2> longspan: unknown option '-n5' for generate; write '-n 5'
[2]
$ longspan info --js
2> longspan: unknown option '--js' for info; did you mean '--json'? ('longspan info --help' lists all)
[2]
$ longspan chat --quite
2> longspan: unknown option '--quite' for chat; did you mean '--quiet'? ('longspan chat --help' lists all)
[2]
$ longspan chat hello
2> longspan: unexpected argument 'hello': chat takes options only; a text is given with -p
[2]
$ longspan info model.gguf
2> longspan: unexpected argument 'model.gguf': info takes options only; a model is given with -m
[2]
$ longspan generate --json=1
2> longspan: --json takes no value
[2]
$ longspan generate --temp
2> longspan: --temp needs a value: --temp T
[2]
$ longspan generate -p --json
2> longspan: -p needs a value before '--json' (a text that begins so is given as --prompt=--json)
[2]
# Values
$ longspan generate --temp abc
2> longspan: --temp is 'abc'; it must be a number
[2]
$ longspan generate --temp -1
2> longspan: --temp is '-1'; it must lie between 0 and 1000
[2]
$ longspan generate --temp nan
2> longspan: --temp is 'nan'; it must be a number
[2]
$ longspan generate --top-p 2
2> longspan: --top-p is '2'; it must lie between 0 and 1
[2]
$ longspan generate -n 5.5
2> longspan: -n is '5.5'; it must be a whole number
[2]
$ longspan generate -n ''
2> longspan: -n is ''; it must be a whole number
[2]
$ longspan generate -n 99999999999999999999
2> longspan: -n is '99999999999999999999'; it must be a whole number
[2]
$ longspan generate -t -1
2> longspan: -t is '-1'; it must lie between 0 and 4096
[2]
$ longspan perplexity -c 0
2> longspan: -c is '0'; it must be 2 or greater
[2]
$ longspan generate --kv fll
2> longspan: unknown KV cache 'fll': choose full, *('longspan help kv' explains them) (glob)
[2]
$ longspan generate --kv streaming,recent=60,sink=2+kivi
2> longspan: --kv streaming,recent=60,sink=2: a colon comes before the first value: say streaming:recent=60,sink=2
[2]
$ longspan generate --kv quest+kivi,bits=4
2> longspan: --kv kivi,bits=4: a colon comes before the first value: say kivi:bits=4
[2]
$ longspan generate --kv full=q8
2> longspan: --kv full=q8: a colon comes before the first value: say full:q8
[2]
$ longspan generate --kv full,
2> longspan: unknown KV cache 'full,': choose full, *('longspan help kv' explains them) (glob)
[2]
$ longspan generate --compute=fp23
2> longspan: --compute is 'fp23'; it must be one of auto, bf16, fp32 (did you mean 'fp32'?)
[2]
$ longspan generate -p x --session ''
2> longspan: --session is empty; it must name a file or a folder
[2]
$ longspan eval --out=
2> longspan: --out is empty; it must name a file or a folder
[2]
$ longspan eval --data ''
2> longspan: --data is empty; it must name a file or a folder
[2]
$ longspan convert a b --dtype q3_k
2> longspan: --dtype is 'q3_k'; it must be one of keep, f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0 (did you mean 'q6_k'?)
[2]
$ longspan bench -p 1,a
2> longspan: -p is '1,a'; it must be whole numbers with commas between them, such as 0,4096
[2]
$ longspan bench -p ,
2> longspan: -p is ','; it must be whole numbers with commas between them, such as 0,4096
[2]
$ longspan bench -r 0
2> longspan: -r is '0'; it must lie between 1 and 100000
[2]
# What is missing or too much
$ longspan perplexity
2> longspan: no text: name a file with -f FILE
[2]
$ longspan convert
2> longspan: nothing to convert: longspan convert IN OUT
[2]
$ longspan convert a
2> longspan: no name for the result: longspan convert IN OUT
[2]
$ longspan convert a b c
2> longspan: unexpected argument 'c': convert takes one input and one output
[2]
$ longspan tokenize -p a -f b
2> longspan: one text at a time: either -p TEXT or -f FILE
[2]
$ longspan bench -p 0 -n 0
2> longspan: nothing to time: -p and -n are both 0
[2]
$ longspan generate -p hello 2>&1 | sed "s|$HOME|HOME|"
longspan: no model: name a GGUF file or a Hugging Face directory with -m PATH, or run ./demo once, which fetches SmolLM2 to 'HOME/.cache/longspan/SmolLM2-135M-Instruct.Q4_1.gguf'
$ XDG_CACHE_HOME=/nowhere longspan generate -p hello
2> longspan: no model: name a GGUF file or a Hugging Face directory with -m PATH, or run ./demo once, which fetches SmolLM2 to '/nowhere/longspan/SmolLM2-135M-Instruct.Q4_1.gguf'
[2]
# Values of --kv that cannot be, alone or together, whatever the text and for every command.
$ for kv in kivi:residual=33 kivi:q8 snapkv:kernel=2 snapkv:budget=32 h2o:heavy=0,recent=0 h2o:sinks=100,heavy=10 topk:sinks=500,k=100 streaming:sink=33+kivi snapkv:budget=200+kivi:sinks=4; do for c in "generate -p a" "chat -p a" "perplexity -f t" "inspect -q -f t" "bench -p 1" info; do printf 'A text of some words.\n' > t; longspan $c -m "$MODEL" --kv $kv > out 2> err; echo "$? $(wc -l < err) $(wc -c < out) $(grep -c -e '--kv' err)"; done; done | sort | uniq -c | sed 's/ *//'
54 2 1 0 1

$ longspan convert "$MODEL" a.gguf -q && longspan convert a.gguf back -q && ls back
$ for m in "$MODEL" a.gguf back; do longspan generate -m $m -p "Hello there" -n 8 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done | uniq | wc -l
$ longspan convert "$MODEL" a.gguf
$ longspan convert "$MODEL" back
$ longspan convert "$MODEL" a.gguf --force -q; echo $?
$ longspan convert -m "$MODEL" -o q8.gguf --dtype q8_0 2>&1 | sed 's/written in .*/written/'
$ longspan info -m q8.gguf --json | field format architecture.weights
$ longspan convert "$MODEL" out --format hf --dtype q4_0 -q; ls out 2>/dev/null | wc -l

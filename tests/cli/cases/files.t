# What cannot be read or written is named; status 1.
$ longspan generate -m "$MODEL" -f nowhere.txt
$ longspan generate -m "$MODEL" -f /
$ longspan generate -m "$MODEL" --doc nowhere.txt -p x
$ longspan generate -m nowhere.gguf -p x
$ : > empty.gguf; longspan generate -m empty.gguf -p x
$ printf 'GGUF\003\000\000\000' > cut.gguf; longspan info -m cut.gguf
$ mkdir empty; longspan info -m empty
$ longspan tokenize -m nowhere.gguf -p x
$ longspan perplexity -m "$MODEL" -f nowhere.txt
$ echo some text to measure > t.txt; longspan perplexity -m "$MODEL" -f t.txt --per-token nowhere/x --quiet
$ longspan convert nowhere.gguf out.gguf; ls
$ longspan convert "$MODEL" t.txt
$ longspan generate -m "$MODEL" -p '' --quiet
$ longspan generate -m "$MODEL" -p hello -n 1 --temp 0 --quiet --json > /dev/full

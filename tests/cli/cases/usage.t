# Mistakes of the command line: one sentence, status 2.
$ longspan
$ longspan chta
$ longspan nonsense
$ longspan help chta
$ longspan generate --tmep 1
$ longspan generate --foobarbaz
$ longspan generate -ngl 5
$ longspan generate -n5
$ longspan info --js
$ longspan chat --quite
$ longspan chat hello
$ longspan info model.gguf
$ longspan generate --json=1
$ longspan generate --temp
$ longspan generate -p --json
# Values
$ longspan generate --temp abc
$ longspan generate --temp -1
$ longspan generate --temp nan
$ longspan generate --top-p 2
$ longspan generate -n 5.5
$ longspan generate -n ''
$ longspan generate -n 99999999999999999999
$ longspan generate -t -1
$ longspan perplexity -c 0
$ longspan generate --kv fll
$ longspan generate --compute=fp23
$ longspan convert a b --dtype q5_0
$ longspan bench -p 1,a
$ longspan bench -p ,
$ longspan bench -r 0
# What is missing or too much
$ longspan perplexity
$ longspan convert
$ longspan convert a
$ longspan convert a b c
$ longspan tokenize -p a -f b
$ longspan bench -p 0 -n 0
$ longspan generate -p hello 2>&1 | sed "s|$HOME|HOME|"
$ XDG_CACHE_HOME=/nowhere longspan generate -p hello

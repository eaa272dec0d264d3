$ longspan tokenize -m "$MODEL" -p "Hello world" --quiet
$ longspan tokenize -m "$MODEL" -p "Hello world" --json
$ printf 'Hello world' | longspan tokenize -m "$MODEL" --json
$ printf 'Hello world' > t; longspan tokenize -m "$MODEL" -f t --json > a; longspan tokenize -m "$MODEL" -f - --json < t > b; cmp a b && echo same
# Exact bytes come back, broken UTF-8 included.
$ printf 'caf\303\251 \377\376 \342\202 \360\237\230\200\000end\n\n  two' > bytes; longspan tokenize -m "$MODEL" -f bytes --json > ids; longspan tokenize -m "$MODEL" --decode -f ids > back; cmp bytes back && echo same
$ head -c 3000 /dev/urandom > noise; longspan tokenize -m "$MODEL" -f noise --json | longspan tokenize -m "$MODEL" --decode > back; cmp noise back && echo same
# Control tokens are text unless --special.
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --json | field '#'
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json | longspan tokenize -m "$MODEL" --decode --special; echo
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json | longspan tokenize -m "$MODEL" --decode | wc -c
$ longspan tokenize -m "$MODEL" -p '' --json
# A model that adds bos, and its leading space
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --quiet
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --no-bos --quiet
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --json | longspan tokenize -m "$DATA/models/llama2" --decode; echo
# Bad ids
$ echo '[1, 2, x]' | longspan tokenize -m "$MODEL" --decode
$ echo '[1, -2]' | longspan tokenize -m "$MODEL" --decode
$ echo '[99999999]' | longspan tokenize -m "$MODEL" --decode
$ echo '[99999999999999999999999]' | longspan tokenize -m "$MODEL" --decode
$ echo '[]' | longspan tokenize -m "$MODEL" --decode

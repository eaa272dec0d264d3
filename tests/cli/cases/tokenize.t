$ longspan tokenize -m "$MODEL" -p "Hello world" --quiet
     42  "H"
     71  "e"
    285  "ll"
     81  "o"
    267  " w"
    295  "or"
     78  "l"
     70  "d"
$ longspan tokenize -m "$MODEL" -p "Hello world" --json
[42,71,285,81,267,295,78,70]
$ printf 'Hello world' | longspan tokenize -m "$MODEL" --json
[42,71,285,81,267,295,78,70]
$ printf 'Hello world' > t; longspan tokenize -m "$MODEL" -f t --json > a; longspan tokenize -m "$MODEL" -f - --json < t > b; cmp a b && echo same
same
# Exact bytes come back, broken UTF-8 included.
$ printf 'caf\303\251 \377\376 \342\202 \360\237\230\200\000end\n\n  two' > bytes; longspan tokenize -m "$MODEL" -f bytes --json > ids; longspan tokenize -m "$MODEL" --decode -f ids > back; cmp bytes back && echo same
same
$ head -c 3000 /dev/urandom > noise; longspan tokenize -m "$MODEL" -f noise --json | longspan tokenize -m "$MODEL" --decode > back; cmp noise back && echo same
same
# Control tokens are text unless --special.
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --json | field '#'
8
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json
[2]
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json | longspan tokenize -m "$MODEL" --decode --special; echo
<|im_end|>
$ longspan tokenize -m "$MODEL" -p '<|im_end|>' --special --json | longspan tokenize -m "$MODEL" --decode | wc -c
0
$ longspan tokenize -m "$MODEL" -p '' --json
[]
# A model that adds bos, and its leading space
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --quiet
      1  "<s>"
    265  " h"
    365  "i"
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --no-bos --quiet
    265  " h"
    365  "i"
$ longspan tokenize -m "$DATA/models/llama2" -p "hi" --json | longspan tokenize -m "$DATA/models/llama2" --decode; echo
hi
# Bad ids
$ echo '[1, 2, x]' | longspan tokenize -m "$MODEL" --decode
2> longspan: the ids to decode have 'x' at byte 7 where a number should stand
[1]
$ echo '[1, -2]' | longspan tokenize -m "$MODEL" --decode
2> longspan: the ids to decode have '-2' at byte 4 where a number should stand
[1]
$ echo '[99999999]' | longspan tokenize -m "$MODEL" --decode
2> longspan: id 99999999 is not in the vocabulary, which has 320 tokens
[1]
$ echo '[99999999999999999999999]' | longspan tokenize -m "$MODEL" --decode
2> longspan: the ids to decode have '99999999999999999999' at byte 1 where a number should stand
[1]
$ echo '[1, 2' | longspan tokenize -m "$MODEL" --decode
2> longspan: the array of ids to decode has no ']' at its end; it may be truncated
[1]
$ echo '[1]]' | longspan tokenize -m "$MODEL" --decode
2> longspan: the ids to decode have ']' at byte 2 where a number should stand
[1]
$ echo '[]' | longspan tokenize -m "$MODEL" --decode
$ printf ' [ 42,\n 71 ]\n' | longspan tokenize -m "$MODEL" --decode; echo
He
$ echo 42 71 | longspan tokenize -m "$MODEL" --decode; echo
He

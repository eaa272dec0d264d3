# A document is processed once; questions are put to it in later runs, each for itself.
$ for i in $(seq 100); do echo "Line $i of the text."; done > doc; F="--temp 0 --compute fp32 --kv full:fp32 --json -q"; longspan generate -m "$MODEL" --doc doc -p "What?" -n 4 $F | field ids > want; longspan generate -m "$MODEL" --doc doc --session s -p "Why?" -n 4 $F > a; for i in 1 2; do longspan generate -m "$MODEL" --session s -p "What?" -n 4 $F > b; field ids < b | cmp - want && echo same; done; python3 -c "import json; b = json.load(open('b')); print(b['prompt_tokens'] - b['kept_tokens'] < 10)"
same
same
True
$ longspan chat -m "$MODEL" --doc doc -p "What?" -n 4 --temp 0 --json -q | field ids > want; longspan chat -m "$MODEL" --doc doc --session c -p "Why?" -n 4 --temp 0 -q > a; longspan chat -m "$MODEL" --session c -p "What?" -n 4 --temp 0 --json -q > b; field ids < b | cmp - want && echo same; python3 -c "import json; b = json.load(open('b')); print(b['prompt_tokens'] - b['kept_tokens'] < 30)"
same
True
# Without a document the text goes on.
$ longspan generate -m "$MODEL" -p "Once upon" -n 10 --temp 0 --ignore-eos --json -q | field ids > want; longspan generate -m "$MODEL" --session t -p "Once upon" -n 4 --temp 0 --ignore-eos --json -q | field ids > a; longspan generate -m "$MODEL" --session t -n 6 --temp 0 --ignore-eos --json -q | field ids > b; python3 -c "import json; print(json.load(open('a')) + json.load(open('b')) == json.load(open('want')))"
True
# The size of blocks and of the context may be another one.
$ longspan generate -m "$MODEL" -c 400 --session small -p "Once upon" -n 4 --temp 0 --ignore-eos --json -q | field ids > small.1; longspan generate -m "$MODEL" -c 2000 --session small -n 3 --temp 0 --ignore-eos --json -q | field ids > small.2; longspan generate -m "$MODEL" -c 100 --session small -n 3 --temp 0 --ignore-eos --json -q | field ids > small.3; python3 -c "import json; print(json.load(open('small.1')) + json.load(open('small.2')) + json.load(open('small.3')) == json.load(open('want')))"
True
# A conversation goes on, from a pipe or with -p.
$ printf 'Hello\nAnd you?\n' | longspan chat -m "$MODEL" -n 5 --temp 0 --json -q > j; longspan chat -m "$MODEL" --session d -p "Hello" -n 5 --temp 0 --json -q > a; echo 'And you?' | longspan chat -m "$MODEL" --session d -n 5 --temp 0 --json -q | field ids > b; field answers.1.ids < j | cmp - b && echo same
same
# What does not fit is told.
$ longspan generate -m "$MODEL" --session s --kv full:q8 -p "What?" -q
2> longspan: s was made with --kv full:fp32, not full:q8
[1]
$ longspan generate -m "$MODEL" --session s --kv full:fp32 -p "What?" -q
2> longspan: s was made with --compute fp32, not auto
[1]
$ longspan generate -m "$MODEL" --compute fp32 --kv full:fp32 --session s --doc "$MODEL/config.json" -p "What?" -q
2> longspan: s is about another document than * (glob)
[1]
$ longspan generate -m "$DATA/models/mistral" --kv full:fp32 --session s -p "What?" -q
2> longspan: s was made with another model
[1]
$ longspan chat -m "$MODEL" --session d --system "Be brief." -p "What?" -q
2> longspan: d has no system message; leave --system out, or name another file with --session
[1]
$ longspan chat -m "$MODEL" --session d --doc doc -p "What?" -q
2> longspan: d goes on without a document; leave --doc out, or name another file with --session
[1]
$ head -c 1000 s > cut; longspan generate -m "$MODEL" --session cut -p "What?" -q
2> longspan: cut: the session is cut off or damaged; make it again
[1]
$ mkfifo pipe; timeout 20 longspan generate -m "$MODEL" --session pipe -p "What?" -n 1 -q
2> longspan: pipe is no session
[1]
# A text of generate is no conversation, nor the reverse; each is refused and stays as it was. So is a document that the other has read.
$ cp t before; echo "What?" | longspan chat -m "$MODEL" --session t -n 2; echo $?; cmp t before && echo same
1
same
2> longspan: *: * weights, * (glob)
2> longspan: t holds a text of generate and no conversation; go on with generate, or name another file with --session
$ cp d before; longspan generate -m "$MODEL" --session d -p "What?" -n 2 -q; echo $?; cmp d before && echo same
1
same
2> longspan: d holds a conversation; go on with chat, or name another file with --session
$ longspan generate -m "$MODEL" --session c -p "What?" -n 2 -q
2> longspan: c holds its document as another command or another --chat-template reads it; ask with that one, or name another file with --session
[1]
$ cp s before; echo "What?" | longspan chat -m "$MODEL" --compute fp32 --kv full:fp32 --session s -n 2 -q; echo $?; cmp s before && echo same
1
same
2> longspan: s holds its document as another command or another --chat-template reads it; ask with that one, or name another file with --session
# A limit of the size of files is an error of writing: what was there stays, and nothing is left over.
$ cp t before; (ulimit -f 8; longspan generate -m "$MODEL" --session t -n 1 --temp 0 -q > out); cmp t before && ls t.*
2> longspan: cannot write t: File too large
2> ls: * (glob)
[2]
$ longspan generate -m "$MODEL" --session no/where -p "What?" -n 1 -q > out
2> longspan: cannot write no/where: No such file or directory
[1]

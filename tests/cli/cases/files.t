# What cannot be read or written is named; status 1.
$ longspan generate -m "$MODEL" -f nowhere.txt
2> longspan: cannot read 'nowhere.txt': No such file or directory
[1]
$ longspan generate -m "$MODEL" -f /
2> longspan: cannot read '/': Is a directory
[1]
$ longspan generate -m "$MODEL" --doc nowhere.txt -p x
2> longspan: cannot read 'nowhere.txt': No such file or directory
[1]
$ longspan generate -m nowhere.gguf -p x
2> longspan: nowhere.gguf: no such file or directory (a model is a .gguf file, or a directory with config.json and model.safetensors)
[1]
$ : > empty.gguf; longspan generate -m empty.gguf -p x
2> longspan: empty.gguf is not a GGUF file: it does not begin with "GGUF"
[1]
$ printf 'GGUF\003\000\000\000' > cut.gguf; longspan info -m cut.gguf
2> longspan: cut.gguf: the file ends inside its header; it may be truncated
[1]
$ mkdir empty; longspan info -m empty
2> longspan: empty: a model directory has config.json or a .gguf file; neither is there
[1]
$ longspan tokenize -m nowhere.gguf -p x
2> longspan: nowhere.gguf: no such file or directory (a model is a .gguf file, or a directory with config.json and model.safetensors)
[1]
$ longspan perplexity -m "$MODEL" -f nowhere.txt
2> longspan: cannot read 'nowhere.txt': No such file or directory
[1]
$ echo some text to measure > t.txt; longspan perplexity -m "$MODEL" -f t.txt --per-token nowhere/x --quiet
2> longspan: cannot write 'nowhere/x': No such file or directory
[1]
$ longspan convert nowhere.gguf out.gguf; ls
cut.gguf
empty
empty.gguf
t.txt
2> longspan: nowhere.gguf: no such file or directory (a model is a .gguf file, or a directory with config.json and model.safetensors)
$ longspan convert "$MODEL" t.txt
2> longspan: 't.txt' is there already; --force replaces it
[1]
$ longspan generate -m "$MODEL" -p '' --quiet
2> longspan: the prompt is empty; give some text with -p or -f
[1]
$ longspan generate -m "$MODEL" -p hello -n 1 --temp 0 --quiet --json > /dev/full
2> longspan: cannot write the result: No space left on device
[1]
# A type of weights that is not read is named.
$ longspan convert "$MODEL" q.gguf --dtype q4_0 -q; python3 -c "import struct; b = bytearray(open('q.gguf', 'rb').read()); i = b.index(b'blk.0.attn_q.weight') + 19; n, = struct.unpack_from('<I', b, i); struct.pack_into('<I', b, i + 4 + 8 * n, 20); open('q.gguf', 'wb').write(b)"; longspan generate -m q.gguf -p x
2> longspan: q.gguf: tensor blk.0.attn_q.weight: weights of type IQ4_NL are not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are
[1]

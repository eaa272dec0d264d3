# Every command has a page: usage, options in groups, examples, exit status.
$ longspan --help
$ longspan help > a; longspan --help > b; longspan -h > c; cmp a b && cmp b c && echo same
$ for c in generate chat perplexity tokenize info convert bench; do longspan $c --help > a && longspan help $c > b && cmp a b && for w in Usage: Options Input: --help Examples: 'Exit status'; do grep -q -- "$w" a || echo "$c: no $w"; done; done
$ longspan perplexity --help
$ for c in generate chat perplexity tokenize info convert bench; do longspan $c --help | awk -v c=$c 'length > 110 { print c ": " $0 }'; done
$ longspan version | head -n 1
$ longspan generate --help >/dev/full

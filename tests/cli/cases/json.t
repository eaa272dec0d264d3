# Every field that --json prints is in docs/json.md.
$ echo some text to measure > t; longspan generate -m "$MODEL" -p Hello -p you -n 2 -q --json > 1; longspan perplexity -m "$MODEL" -f t -q --json > 2; longspan info -m "$MODEL" --json > 3; longspan bench -m "$MODEL" -p 8 -n 0 -r 1 -q --json > 4
$ python3 -c "import json; walk = lambda v: set(v).union(*map(walk, v.values())) if isinstance(v, dict) else set().union(*map(walk, v)) if isinstance(v, list) else set(); fields = walk([json.load(open(str(i))) for i in range(1, 5)]); page = open('$DATA/../../docs/json.md').read(); print(len(fields) > 60, [f for f in sorted(fields) if chr(96) + f + chr(96) not in page])"
True []

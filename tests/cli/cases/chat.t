$ longspan chat -m "$MODEL" -p "Hello" -n 5 --temp 0 --json -q > j; field generated_tokens stop < j
# Lines from a pipe are a conversation: the second keeps what the first left in the cache.
$ printf 'Hello\n\nAnd you?\n' | longspan chat -m "$MODEL" -n 5 --temp 0 --json -q > j; field answers.# answers.0.prompt answers.1.prompt < j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[1]['kept_tokens'] >= a[0]['prompt_tokens'])"
$ printf 'Hello\n/reset\nHello\n/quit\nmore\n' | longspan chat -m "$MODEL" -n 5 --temp 0 --compute fp32 --kv full:fp32 --json -q > j; field answers.# < j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[0]['ids'] == a[1]['ids'])"
# Several -p are conversations of their own.
$ longspan chat -m "$MODEL" -p "Hello" -p "Hello" -n 5 --temp 0 --compute fp32 --kv full:fp32 --json -q > j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[0]['prompt_tokens'] == a[1]['prompt_tokens'], a[0]['ids'] == a[1]['ids'])"
$ longspan chat -m "$MODEL" -p "Hello" -n 3 --temp 0 --answer-prefix "The answer is" -q | cut -c 1-13
$ longspan chat -m "$MODEL" --system "Be brief." -p "Hello" -n 1 -q --json > a; longspan chat -m "$MODEL" -p "Hello" -n 1 -q --json > b; python3 -c "import json; print(json.load(open('a'))['prompt_tokens'] != json.load(open('b'))['prompt_tokens'])"
# A document stands before the first question and is processed once.
$ for i in $(seq 100); do echo "Line $i of the text."; done > doc; longspan chat -m "$MODEL" --doc doc -p "What?" -p "Why?" -n 4 --temp 0 --compute fp32 --kv full:fp32 --json -q > both; for q in "What?" "Why?"; do longspan chat -m "$MODEL" --doc doc -p "$q" -n 4 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done > apart; field answers.0.ids answers.1.ids < both | cmp - apart && echo same
$ python3 -c "import json; a = json.load(open('both'))['answers']; print(a[0]['prompt_tokens'] > 300, a[1]['prompt_tokens'] - a[1]['kept_tokens'] < 30)"
$ longspan chat -m "$MODEL" --doc doc -p "What?" -c 50 -q
# Templates are recognised or named, never guessed.
$ longspan chat -m "$MODEL" -p x --chat-template nonsense -q
$ longspan chat -m "$DATA/models/mistral" -p x -q
$ longspan chat -m "$MODEL" --chat-template llama2 -p x -n 1 -q --json | field generated_tokens

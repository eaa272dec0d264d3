$ longspan chat -m "$MODEL" -p "Hello" -n 5 --temp 0 --json -q > j; field generated_tokens stop < j
5
"length"
# Lines from a pipe are a conversation: the second keeps what the first left in the cache.
$ printf 'Hello\n\nAnd you?\n' | longspan chat -m "$MODEL" -n 5 --temp 0 --json -q > j; field answers.# answers.0.prompt answers.1.prompt < j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[1]['kept_tokens'] >= a[0]['prompt_tokens'])"
2
"Hello"
"And you?"
True
$ printf 'Hello\n/reset\nHello\n/quit\nmore\n' | longspan chat -m "$MODEL" -n 5 --temp 0 --compute fp32 --kv full:fp32 --json -q > j; field answers.# < j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[0]['ids'] == a[1]['ids'])"
2
True
2> The conversation begins anew.
# Several -p are conversations of their own.
$ longspan chat -m "$MODEL" -p "Hello" -p "Hello" -n 5 --temp 0 --compute fp32 --kv full:fp32 --json -q > j; python3 -c "import json; a = json.load(open('j'))['answers']; print(a[0]['prompt_tokens'] == a[1]['prompt_tokens'], a[0]['ids'] == a[1]['ids'])"
True True
$ longspan chat -m "$MODEL" -p "Hello" -n 3 --temp 0 --answer-prefix "The answer is" -q | cut -c 1-13
The answer is
$ longspan chat -m "$MODEL" --system "Be brief." -p "Hello" -n 1 -q --json > a; longspan chat -m "$MODEL" -p "Hello" -n 1 -q --json > b; python3 -c "import json; print(json.load(open('a'))['prompt_tokens'] != json.load(open('b'))['prompt_tokens'])"
True
# A document stands before the first question and is processed once.
$ for i in $(seq 100); do echo "Line $i of the text."; done > doc; longspan chat -m "$MODEL" --doc doc -p "What?" -p "Why?" -n 4 --temp 0 --compute fp32 --kv full:fp32 --json -q > both; for q in "What?" "Why?"; do longspan chat -m "$MODEL" --doc doc -p "$q" -n 4 --temp 0 --compute fp32 --kv full:fp32 --json -q | field ids; done > apart; field answers.0.ids answers.1.ids < both | cmp - apart && echo same
same
$ python3 -c "import json; a = json.load(open('both'))['answers']; print(a[0]['prompt_tokens'] > 300, a[1]['prompt_tokens'] - a[1]['kept_tokens'] < 30)"
True True
$ longspan chat -m "$MODEL" --doc doc -p "What?" -c 50 -q
2> longspan: the prompt has 1572 tokens but the context holds 50; give -c 1828 or more, or a shorter text
[1]
# Templates are recognised or named, never guessed.
$ longspan chat -m "$MODEL" -p x --chat-template nonsense -q
2> longspan: no chat template is named "nonsense"; --chat-template takes one of: chatml, smollm2, qwen2, qwen3, llama2, llama3, llama3.1, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, gemma
[1]
$ longspan chat -m "$DATA/models/mistral" -p x -q
2> longspan: the model has no chat template (it may be a base model, made to continue text); choose one with --chat-template NAME: chatml, smollm2, qwen2, qwen3, llama2, llama3, llama3.1, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, gemma
[1]
$ longspan chat -m "$MODEL" --chat-template llama2 -p x -n 1 -q --json | field generated_tokens
1

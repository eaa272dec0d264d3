# Every command has a page: usage, options in groups, examples, exit status.
$ longspan --help
Longspan trains and runs language models at long context on ordinary processors.

Usage:
  longspan COMMAND [options]

Commands:
  generate         continue a text
  chat             talk with the model, also about a long text
  perplexity       measure how well a model predicts a text
  inspect          show what a model attends to in a text
  tokenize         turn text into token ids and back
  info             show what a model is and what memory it takes
  convert          convert between GGUF and Hugging Face files, and quantise
  train            train a model, or fine-tune one, at long context
  verify-training  compare a way of training with the plain one
  plan             say what training a model takes, before it starts
  bench            measure speed
  eval             measure what cache policies lose on long texts
  merge            add a trained adapter to its model
  help             the page of a command: longspan help chat; of the ways to keep a cache: help kv
  version          version, instruction sets in use, libraries

Examples:
  longspan chat -m model.gguf
  longspan generate -m model.gguf -p "Once upon a time" -n 100
  longspan chat -m model.gguf --doc book.txt -p "Who is the hero?"

Environment:
  LONGSPAN_MODEL   the model to use when -m is not given
  LS_CPU           instruction sets to use at most (ref, avx2, avx512 ...)
  XDG_CACHE_HOME, XDG_STATE_HOME   where the demo's model and the chat's history are kept

'longspan COMMAND --help' explains a command and its options.
$ longspan help > a; longspan --help > b; longspan -h > c; cmp a b && cmp b c && echo same
same
$ for c in generate chat perplexity inspect tokenize info convert train verify-training plan bench eval merge; do longspan $c --help > a && longspan help $c > b && cmp a b && for w in Usage: Input: --help Examples: 'Exit status'; do grep -q -- "$w" a || echo "$c: no $w"; done; done
$ longspan perplexity --help
longspan perplexity: measure how well a model predicts a text

Usage:
  longspan perplexity -f FILE [options]

Reads the text in windows and prints the mean negative log likelihood of its tokens and the
perplexity, with standard errors. Fewer tokens of --stride than of -c let windows overlap: each
token is then predicted from at least the difference, and the result is better and takes longer.
With --prompt-tokens the result is that of generating: what a way to keep the cache (--kv) loses
shows there, since some treat prompts otherwise.

Input:
  -m, --model PATH          GGUF file or Hugging Face directory; without it $LONGSPAN_MODEL, then
                            the model that ./demo keeps
  -f, --file FILE           text to measure, - for standard input

Windows:
  -c, --context N           tokens of a window (default: the context the model was trained for); a
                            cache that goes on without end, such as streaming, reads the text as one
                            stream unless --stride is given
      --stride N            tokens from one window to the next; fewer than -c gives each token more
                            context (default: -c, windows side by side)
      --prompt-tokens N     read the first N tokens of a window as a prompt and every later one by a
                            step of decoding; those later ones count, so that the result shows what
                            --kv does while generating

Speed and memory:
  -t, --threads N           threads to compute with (default: all processors); the answer does not
                            depend on it
      --kv NAME             how keys and values of past tokens are kept: full:q8 takes about half
                            the memory, streaming:sink=4,recent=1020 a fixed one; 'longspan help kv'
                            lists all ways and their keys (default: full:bf16)
      --compute NAME        auto: fast, as fits the weights; bf16: products in bf16; fp32: reference
                            accuracy (default: auto)
      --block N             prompt tokens worked on together (default: 512)

Output:
      --pieces N            print the loss of each of N equal pieces of the text as well
      --per-token FILE      write a line {"id":...,"nll":...} for each token; null where no
                            prediction was made
      --json                one JSON object on standard output at the end, instead of text
  -q, --quiet               no progress, notes and statistics on standard error
  -h, --help                this page

Examples:
  longspan perplexity -m model.gguf -f book.txt
  longspan perplexity -m model.gguf -f book.txt -c 2048 --stride 512 --json
  longspan perplexity -m model.gguf -f book.txt --kv streaming --prompt-tokens 1000
  longspan perplexity -m model.gguf -f book.txt --per-token tokens.jsonl

Exit status: 0 done, 1 something failed, 2 the command line is wrong, 130 interrupted by Ctrl-C.
$ for c in generate chat perplexity inspect tokenize info convert train verify-training plan bench eval merge; do longspan $c --help | awk -v c=$c 'length > 110 { print c ": " $0 }'; done
# Policies, keys and defaults come from the library.
$ longspan help kv | sed -n '1p;/^  streaming/,/^$/p'
longspan help kv: how keys and values of past tokens are kept
  streaming   the first and the most recent tokens, for texts without end (StreamingLLM)
    sink=N                  tokens kept from the beginning (default: 4)
    recent=N or P%          tokens kept before the newest (default: 1020)
    prompt=windowed|dense   how a prompt is read: every token through the window, or all of it at
                            once and cut afterwards (default: windowed)
    self=no|yes             the newest token is one of the recent ones, as in some other programs
                            (default: no)
    e.g. --kv streaming:sink=4,recent=1020  generate for as long as you like from 1,024 tokens

$ longspan help kv | awk 'length > 120'
# It fits a narrow terminal.
$ python3 -c "import fcntl, os, pty, struct, termios; m, s = pty.openpty(); fcntl.ioctl(s, termios.TIOCSWINSZ, struct.pack('4H', 24, 60, 0, 0)); os.dup2(s, 2); os.set_inheritable(m, True); os.execlp('longspan', 'longspan', 'info', '--help')" > a; grep -A 2 -e "--kv NAME" a; sed '/^Examples/,/^$/d' a | awk 'length > 60'
      --kv NAME
          how keys and values of past tokens are kept:
          full:q8 takes about half the memory,
$ longspan version
longspan * (glob)
$ longspan generate --help >/dev/full
2> longspan: cannot write the result: No space left on device
[1]

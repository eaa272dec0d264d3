$ longspan bench -m "$MODEL" -p 16 -n 4 -d 0,64 -r 2 -t 1,2 --json -q > j; python3 -c "import json; r = json.load(open('j')); print(len(r), [(x['n_prompt'], x['n_gen'], x['n_depth'], x['n_threads']) for x in r]); print(all(x['avg_ts'] > 0 and x['stddev_ts'] >= 0 and x['peak_bytes'] > 0 and len(x['samples_ns']) == 2 for x in r), r[0]['kv'], r[0]['compute'], r[3]['test'])"
8 [(16, 0, 0, 1), (0, 4, 0, 1), (16, 0, 0, 2), (0, 4, 0, 2), (16, 0, 64, 1), (0, 4, 64, 1), (16, 0, 64, 2), (0, 4, 64, 2)]
True full:bf16 auto tg4
$ longspan bench -m "$MODEL" -p 16 -n 0 -r 1 -t 1 -q | cut -d '|' -f 2,6,7,8
 model                            | compute | threads |             test 
 -------------------------------- | ------- | ------: | ---------------: 
 llama BF16                       | auto    |       1 |             pp16 
$ longspan bench -m "$MODEL" -p 0 -n 2 -d 32 -r 1 -t 1 -o json --kv full:q8 -q | field '#' 0.n_gen 0.kv
1
2
"full:q8"

$ for i in $(seq 40); do echo "Line $i of a text that is looked at."; done > t; longspan inspect -m "$MODEL" -f t -c 300 --rows 3 --top 2 --kv streaming:sink=4,recent=60 --kv full -q | sed -n '1,2p;/most/,/position/p;/policy$/p'
tokens      300, of which the last 3 are looked at
model       2 layers, 6 heads on 2 key/value heads
most attended tokens
  position    share  token
     kept     read     mass   oracle  of oracle  policy
# Shares are those of a row; a policy that keeps everything misses nothing, and none beats the best choice of its size.
$ longspan inspect -m "$MODEL" -f t -c 300 --rows 3 --top 300 --kv streaming:sink=4,recent=60 --kv h2o:heavy=30,recent=30 --kv full --json -q > j; python3 -c "import json; j = json.load(open('j')); p = j['policies']; print(j['tokens'], j['rows'], abs(sum(x['share'] for x in j['most_attended']) - 1) < 1e-5, all(0 <= h['first'] <= 1 and 0 < h['latest'] <= 1 + 1e-6 and h['entropy'] > 0 for h in j['heads']), len({(h['layer'], h['head']) for h in j['heads']}) == len(j['heads'])); print([round(x['kept'], 1) for x in p], all(x['mass'] <= x['oracle'] + 1e-9 for x in p), abs(p[2]['mass'] - 1) < 1e-5, all(abs(sum(x['mass_by_layer']) / len(x['mass_by_layer']) - x['mass']) < 1e-9 for x in p))"
300 3 True True True
[64, 60, 298] True True True
# A policy that keeps everything and chooses is judged by what it reads: the choice of each head by exact scores is the best of its size.
$ longspan inspect -m "$MODEL" -f t -c 300 --rows 3 --kv topk:k=30 --kv topk:k=30,sets=per_group --kv quest:budget=64,skip=0 --kv quest:budget=64,skip=1 --kv h2o:heavy=30,recent=30 --json -q > j; python3 -c "import json; p = json.load(open('j'))['policies']; print([round(x['kept'], 1) for x in p], [round(x['read'], 1) for x in p]); print(p[0]['mass'] > 0.95 * p[0]['oracle'], all(0.1 < x['mass'] <= x['oracle'] + 1e-9 for x in p), all(x['mass'] < 0.999 for x in p[:3]), abs(p[3]['mass_by_layer'][0] - 1) < 1e-5)"
[298, 298, 298, 298, 60] [30, 30, 59, 179, 61]
True True True True
$ longspan inspect -m "$MODEL" -f t -c 200 --layer 1 --head 2 --svg map.svg --json -q | field heads.0.layer heads.0.head heads.#; python3 -c "import xml.dom.minidom as m; d = m.parse('map.svg'); print(len(d.getElementsByTagName('rect')) > 200, [t.firstChild.data for t in d.getElementsByTagName('text')][0])"
1
2
1
True attention of 200 tokens, layer 1, head 2
$ longspan inspect -m "$MODEL" -f t --layer 99 -q
2> longspan: --layer is 99; the model has layers 0 to 1
[2]
$ longspan inspect -m "$MODEL" -f t --kv streaming:sinks=4 -q
2> longspan: --kv streaming does not know 'sinks=4': it takes sink=, recent=, prompt=, self=, bf16, q8 or fp32
[2]
$ longspan inspect -m "$MODEL" -q
2> longspan: no text: name a file with -f FILE
[2]
$ longspan inspect -m "$MODEL" -f t -c 100 --svg /nowhere/map.svg -q
2> longspan: cannot write '/nowhere/map.svg': No such file or directory
[1]

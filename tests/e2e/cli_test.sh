#!/bin/bash
# The program as a person uses it: trains, plans, draws; and every wrong thing they may type gets an error that helps.
source tests/e2e/common.sh "$1"

# expect_error WORDS COMMAND...: fails within a minute, with code 1, without a crash, and all WORDS (separated by |) in its output.
expect_error() {
  local words=$1 code output word
  shift
  output=$(timeout 60 "$@" 2>&1)
  code=$?
  ((code == 1)) || fail "code $code, not 1: $*: $output"
  while IFS= read -r word; do
    grep -qF -- "$word" <<<"$output" || fail "no \"$word\" in the error of $*: $output"
  done < <(tr '|' '\n' <<<"$words")
}

make_texts jobs/text
cat >jobs/small.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 12 batch: 8 micro_batches: 4 sequence: 32 evaluate_every: 5 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false }
schedule { name: "1f1b" }
sample { prompt: "the " length: 20 }
output { metrics: "m.jsonl" trace: "t.json" }
JOB
job=jobs/small.textproto

# --- training, from another folder than the job's ---
"$sluice" train $job >out 2>err </dev/null || fail "train: $(cat err)"
expect '^step 12/12  loss [0-9.]+  lr .*norm .*tok/s  bubble .*left' out
expect 'held-out loss after step 5: ' out
expect 'Held-out text: ' out
expect 'compute +waiting +transfer +optimizer' out
expect 'Bubble: measured .*predicted' out
expect '^the ' out
expect 'Trace: .*t.json' out
[[ $(grep -c '"loss"' m.jsonl) == 12 ]] || fail "12 steps in the metrics: $(cat m.jsonl)"
first=$(grep -oE 'step 1/12  loss [0-9.]+' out | cut -d' ' -f5)
last=$(grep -oE 'step 12/12  loss [0-9.]+' out | cut -d' ' -f5)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a - 0.5) }' || fail "the loss went from $first to $last"

# --- the same numbers again, and on one rank ---
"$sluice" train $job --set layout.pp=1 --set schedule.name=gpipe >one 2>err || fail "one rank: $(cat err)"
cmp -s <(grep -oE 'step [0-9]+/12  loss [0-9.]+' out) <(grep -oE 'step [0-9]+/12  loss [0-9.]+' one) ||
  fail "other losses on one rank"
[[ $(grep -A1 '^Sample' out) == $(grep -A1 '^Sample' one) ]] || fail "another sample on one rank"

# --- paths are relative to where the user stands, also under bazel run ---
mkdir here && (cd / && BUILD_WORKING_DIRECTORY=$work/here "$sluice" train ../$job --quiet) >quiet 2>&1 || fail "quiet: $(cat quiet)"
[[ ! -s quiet ]] || fail "--quiet printed $(cat quiet)"
[[ -s here/t.json && -s here/m.jsonl ]] || fail "outputs are not where the user stands"

# --- plan, graph, pictures ---
"$sluice" plan $job >plan 2>&1 || fail "plan: $(cat plan)"
expect 'stage +rank +nodes' plan
expect 'bubble' plan
"$sluice" plan $job --print-graph >jobs/graph.textproto || fail "print-graph"
sed -e 's/^model .*/model { graph: "graph.textproto" }/' $job >jobs/from_graph.textproto
"$sluice" train jobs/from_graph.textproto >graph 2>err || fail "from a graph file: $(cat err)"
cmp -s <(grep -oE 'step [0-9]+/12  loss [0-9.]+' out) <(grep -oE 'step [0-9]+/12  loss [0-9.]+' graph) ||
  fail "other losses from the printed graph"
"$sluice" visualize t.json -o t.svg >drawn 2>err || fail "visualize: $(cat err)"
grep -q '<svg' t.svg || fail "no picture"

# --- other families, token files ---
for family in 'family: "llama" layers: 2 channels: 32 heads: 4 kv_heads: 2 vocabulary: 256' 'family: "mlp" layers: 2 channels: 32 vocabulary: 256'; do
  sed -e "s/^model .*/model { $family }/" -e 's/steps: 12/steps: 3/' $job >jobs/family.textproto
  "$sluice" train jobs/family.textproto --quiet 2>err || fail "$family: $(cat err)"
done
head -c 2000 jobs/text/a.txt >tokens.bin
"$sluice" train $job --quiet --set data.text= --set 'data.hold_out.files=[]' --set data.tokens.0="$work/tokens.bin" \
  --set model.vocabulary=65536 --set training.steps=2 2>err || fail "token file: $(cat err)"

# --- benchmarks and profiles ---
"$sluice" bench $job --steps 3 --shapes -o result.json >bench 2>err || fail "bench: $(cat err)"
expect '^share of floor +[0-9.]+ %' bench
expect '^overhead +-?[0-9.]+ %' bench
expect '^peak memory +[0-9.]+ MiB' bench
expect 'linear weight gradient .*%$' bench
expect 'Busy time: matrix products' bench
expect '^ +attention forward +32 +32 +16 f32' bench
"$sluice" bench $job --steps 3 --no-floor --compare result.json >bench 2>err || fail "compare: $(cat err)"
expect '^  step +[0-9.]+' bench
"$sluice" bench $job --steps 2 --rounds 1 --against "$sluice" >bench 2>err || fail "against: $(cat err)"
expect '^  step +[0-9.]+' bench
"$sluice" profile $job --steps 2 -o jobs/profile.textproto >profile 2>err || fail "profile: $(cat err)"
expect 'all attention' profile
expect 'measured, cut anew +layers' profile
"$sluice" plan $job --set layout.profile="$work/jobs/profile.textproto" >plan 2>err || fail "plan with a profile: $(cat err)"
expect 'measured on ' plan
sed -e 's/^layout .*/layout { pp: 2 threads_per_rank: 1 profile: "profile.textproto" }/' $job >jobs/profiled.textproto
"$sluice" train jobs/profiled.textproto --quiet 2>err || fail "train with a profile: $(cat err)"

# --- wrong things about them ---
expect_error 'none.json' "$sluice" bench $job --compare none.json
echo '{"format": "sluice' >broken.json
expect_error 'broken.json|parse error|-o FILE' "$sluice" bench $job --compare broken.json
sed 's/"processor": ".*"/"processor": "a DEC Alpha"/' result.json >alpha.json
expect_error 'alpha.json|a DEC Alpha there' "$sluice" bench $job --compare alpha.json
expect_error 'result.json|sequence is 32 there and 16 here' "$sluice" bench $job --compare result.json --set training.sequence=16
sed 's/"format_version": 1/"format_version": 9/' result.json >newer.json
expect_error 'newer.json|version 9' "$sluice" bench $job --compare newer.json
expect_error 'no-such-folder' "$sluice" bench $job -o no-such-folder/result.json
expect_error 'cannot run|no-program' "$sluice" bench $job --steps 1 --against ./no-program
expect_error 'failed with code' "$sluice" bench $job --steps 1 --against /bin/false
expect_error '/bin/true wrote no result' "$sluice" bench $job --steps 1 --against /bin/true
expect_error 'fail-on-slower|--compare' "$sluice" bench $job --steps 1 --fail-on-slower
expect_error 'the job itself' "$sluice" bench $job --steps 1 -o $job
expect_error 'the job itself' "$sluice" profile $job --steps 1 -o $job
expect_error 'profiled.textproto:5:|sequence 32 (the job has 16)|sluice profile' "$sluice" plan jobs/profiled.textproto \
  --set training.sequence=16
rm jobs/profile.textproto
expect_error 'profiled.textproto:5:|profile.textproto|sluice profile' "$sluice" plan jobs/profiled.textproto
"$sluice" profile jobs/profiled.textproto --steps 1 --no-floor >profile 2>err || fail "profile makes what its job names: $(cat err)"
[[ -s jobs/profile.textproto ]] || fail "no profile where the job names it"

# What --against runs ends with it.
"$sluice" bench $job --steps 100000 --rounds 1 --against "$sluice" >bench 2>err &
parent=$!
for _ in $(seq 100); do
  read -r child _ </proc/$parent/task/$parent/children && break
  read -rt 0.1 <> <(:) || true
done
[[ -n ${child:-} ]] || fail "--against started nothing: $(cat err)"
kill -9 $parent
wait $parent 2>/dev/null || true
for _ in $(seq 100); do
  kill -0 "$child" 2>/dev/null || break
  read -rt 0.1 <> <(:) || true
done
kill -0 "$child" 2>/dev/null && fail "a benchmark outlives the one that started it"

# --- wrong things ---
expect_error 'none.textproto' "$sluice" train none.textproto
expect_error 'none.txt' "$sluice" train $job --set data.text="$work/none.txt"
: >empty.txt
expect_error 'empty.txt|empty' "$sluice" train $job --set data.text="$work/empty.txt" --set 'data.hold_out.files=[]'
echo tiny >tiny.txt
expect_error '5 tokens|needs 33' "$sluice" train $job --set data.text="$work/tiny.txt" --set 'data.hold_out.files=[]'
expect_error 'token number|vocabulary' "$sluice" train $job --set data.text= --set 'data.hold_out.files=[]' \
  --set data.tokens.0="$work/tokens.bin"
sed 's/channels: 32/chanels: 32/' $job >jobs/typo.textproto
expect_error 'typo.textproto:1:|chanels|channels' "$sluice" train jobs/typo.textproto
expect_error 'heads' "$sluice" plan $job --set model.heads=3
expect_error 'layers|stages' "$sluice" plan $job --set layout.pp=40
expect_error 'micro_batches|batch' "$sluice" plan $job --set training.micro_batches=3
expect_error 'positions' "$sluice" plan $job --set training.sequence=64
expect_error 'training.precision is 7' "$sluice" plan $job --set training.precision=7
expect_error '1f1c|1f1b' "$sluice" plan $job --set schedule.name=1f1c
expect_error 'training.stepps|steps' "$sluice" plan $job --set training.stepps=3
expect_error 'memory|bytes' "$sluice" train $job --set 'layout.memory_limit=["100KB"]'
expect_error 'not finite' "$sluice" train $job --set optimizer.learning_rate=1e30 --set training.stop_after_nonfinite=2 \
  --set optimizer.warm_up=0 --set training.steps=50
"$sluice" train >err 2>&1 && fail "train without a job"
"$sluice" trian $job >err 2>&1 && fail "an unknown verb"

# --- nothing that a job reads is written over ---
cp jobs/text/a.txt own.txt
expect_error 'own.txt|reads' "$sluice" train $job --set data.text="$work/own.txt" --set 'data.hold_out.files=[]' --set output.metrics=own.txt
expect_error 'small.textproto|reads' "$sluice" train $job --set output.trace=$job
expect_error 'reads' "$sluice" train $job --set output.metrics=jobs/text/m.jsonl
expect_error 'both' "$sluice" train $job --set output.metrics=same --set output.trace=same
cmp -s jobs/text/a.txt own.txt || fail "the text was changed"
"$sluice" train $job >&- 2>err || true
head -c 1 m.jsonl | grep -q '{' || fail "a closed standard output became the metrics: $(head -n 2 m.jsonl)"
"$sluice" plan $job >/dev/full 2>err && fail "plan on a full disk ends well"
"$sluice" train $job --quiet --set watchdog.seconds=1e300 2>err || fail "a watchdog of forever: $(cat err)"
"$sluice" train $job --set training.steps=2 >short 2>err || fail "two steps: $(cat err)"
expect 'no trace' err

# --- files that cannot be written are no reason to stop ---
"$sluice" train $job --set output.metrics=/dev/full --set output.trace=/dev/full >out2 2>err || fail "full disk: $(cat err)"
expect 'No space left' err
expect '^step 12/12' out2

# --- tokens: bytes as tokens train as the text does, and no input is written over ---
"$sluice" tokenize --tokenizer bytes --each -o jobs/tokens jobs/text >tokens 2>err || fail "tokenize: $(cat err)"
expect 'tokens of 2 documents' tokens
sed -e 's#text: "text"#tokens: ["tokens/a.bin", "tokens/b.bin"]#' -e 's/"b.txt"/"b.bin"/' $job >jobs/tokens.textproto
"$sluice" train jobs/tokens.textproto >of_tokens 2>err || fail "train on tokens: $(cat err)"
cmp -s <(grep -oE 'step [0-9]+/12  loss [0-9.]+' out) <(grep -oE 'step [0-9]+/12  loss [0-9.]+' of_tokens) ||
  fail "other losses on tokens of the same bytes"
expect_error 'own.txt|is what is read' "$sluice" tokenize --tokenizer bytes -o own.txt own.txt
expect_error 'nope.json|No such file' "$sluice" tokenize --tokenizer nope.json -o t.bin own.txt
expect_error 'none: give --end none' "$sluice" tokenize --tokenizer bytes --end END -o t.bin own.txt
cmp -s jobs/text/a.txt own.txt || fail "tokenize changed its text"

# --- interrupts ---
"$sluice" train $job --set training.steps=1000000 >stopped 2>err &
pid=$!
for _ in $(seq 1 600); do
  grep -q '^step 3/' stopped && break
  read -rt 0.1 <> <(:)
done
kill -INT $pid
wait $pid || fail "an interrupted run ends cleanly: $(cat err)"
expect '^Trained [0-9]+ steps' stopped

finish

#!/bin/bash
# A model that was trained here answers prompts: the same answers through one stage and through two, one by one and as a file of them.
source tests/e2e/common.sh "$1"

make_texts text
cat >job.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 48 heads: 3 positions: 64 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 150 batch: 8 micro_batches: 2 sequence: 32 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false device: cpu }
sample { prompt: "the quick " length: 20 temperature: 0 }
checkpoint { folder: "saved" }
JOB
"$sluice" train job.textproto >out 2>err || fail "train: $(cat out err)"

generate=("$sluice" generate saved --threads 1)
greedy=("${generate[@]}" --temperature 0 --max-tokens 20)

# --- one prompt: the words of the training's own sample, which runs a whole forward pass for each token ---
"${greedy[@]}" --prompt "the quick " >one 2>err || fail "generate: $(cat err)"
sample=$(sed -n '/^Sample/{n;p}' out)
[[ "the quick $(cat one)" == "$sample" ]] || fail "'the quick $(cat one)' is not the sample '$sample'"
"${greedy[@]}" --prompt "the quick " --pp 2 >two 2>err || fail "two stages: $(cat err)"
cmp -s one two || fail "another answer through two stages: $(cat one two)"
expect 'answers: .* tokens a second' err

# --- a file of prompts, JSON and plain: lines of JSON, whose order is that of their ends ---
printf '%s\n' '{"prompt": "the quick "}' 'line 7: the' '{"prompt": "l"}' >prompts
"${greedy[@]}" --prompts prompts --pp 2 --batch 1 --stop lazy >answers 2>err || fail "file: $(cat err)"
[[ $(wc -l <answers) == 3 ]] || fail "not three answers: $(cat answers)"
expect '"index":0.*"prompt_tokens":10' answers
expect '"finish":"(stop|length)".*"index":2' answers
grep -q lazy answers && fail "a stop string in an answer: $(cat answers)"

# --- draws are the seed's ---
"${generate[@]}" --prompt "the " --temperature 1.5 --max-tokens 20 --seed 7 >a 2>err || fail "draw: $(cat err)"
"${generate[@]}" --prompt "the " --temperature 1.5 --max-tokens 20 --seed 7 --pp 2 >b 2>err
"${generate[@]}" --prompt "the " --temperature 1.5 --max-tokens 20 --seed 8 >c 2>err
cmp -s a b || fail "another draw through two stages"
cmp -s a c && fail "the same draw with another seed"

# --- typed, one line after another; an empty one begins anew ---
printf 'the quick \n\nthe quick \n' | "${greedy[@]}" >typed 2>err || fail "typed: $(cat err)"
[[ $(cat typed) == "$(cat one one)" ]] || fail "typed: $(cat typed)"

# --- what goes wrong ---
expect_error() {
  local words=$1 output
  shift
  output=$(timeout 60 "$@" 2>&1)
  (($? == 1)) || fail "no error of $*: $output"
  grep -qF -- "$words" <<<"$output" || fail "no \"$words\" in the error of $*: $output"
}
expect_error 'nowhere' "$sluice" generate nowhere --prompt x
expect_error "the model's context 64" "${generate[@]}" --prompt "$(head -c 70 text/a.txt)"
printf 'a\n{"prompt": 3}\n' >bad
expect_error 'bad:2' "${generate[@]}" --prompts bad
expect_error 'layers' "${generate[@]}" --prompt x --pp 40
finish

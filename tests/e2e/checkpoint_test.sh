#!/bin/bash
# Checkpoints as a person looks at them: of two short runs in different layouts, whole and damaged.
source tests/e2e/common.sh "$1"
readonly models=$OLDPWD/tests/golden/models

make_texts text
cat >job.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 4 batch: 8 micro_batches: 4 sequence: 32 gradient_groups: 2 }
optimizer { decay_steps: 10 }
layout { pp: 2 threads_per_rank: 1 pin: false device: cpu }
checkpoint { folder: "a" every_steps: 2 keep_last: 5 }
JOB
# ends_with CODE WORDS COMMAND...: with both, and the words in its output.
ends_with() {
  local wanted=$1 words=$2 code
  shift 2
  "$@" >out 2>&1
  code=$?
  ((code == wanted)) || fail "code $code, not $wanted: $*: $(cat out)"
  expect "$words" out
}

"$sluice" train job.textproto --quiet >out 2>&1 || fail "train: $(cat out)"
"$sluice" train job.textproto --quiet --set checkpoint.folder=b --set layout.pp=1 --set layout.dp=2 \
  --set layout.zero1=true >out 2>&1 || fail "train with replicas: $(cat out)"

ends_with 0 '^ +4 +[0-9.]+ .*pp 2, dp 1, tp 1 +complete' "$sluice" checkpoint list a
ends_with 0 '"complete": true' "$sluice" checkpoint list b --format json
ends_with 0 'h.1.attn.c_attn.weight +\[96, 32\] +3,072 +[0-9]+ +parameter, m, v' "$sluice" checkpoint show b
ends_with 0 'b/step-00000002: as it was written' "$sluice" checkpoint verify --all b

# --- the same numbers, whatever the layout ---
ends_with 0 'tensors are equal, bit for bit' "$sluice" checkpoint diff a b
ends_with 0 'tensors are equal, bit for bit' "$sluice" checkpoint diff a/step-00000002 b/step-00000002
ends_with 2 'tensors differ .step 2 and step 4' "$sluice" checkpoint diff a/step-00000002 a

# --- written anew ---
ends_with 0 'model.safetensors' "$sluice" checkpoint convert b -o model.safetensors
ends_with 1 'is there already' "$sluice" checkpoint convert b -o model.safetensors
head -c 100 model.safetensors | grep -aq '"wte.weight":{"dtype":"F32","shape":\[256,32\]' || fail "$(head -c 200 model.safetensors)"
ends_with 0 'one/step-00000004' "$sluice" checkpoint convert b --to checkpoint -o one
ends_with 0 'tensors are equal, bit for bit' "$sluice" checkpoint diff a one
"$sluice" train job.textproto --quiet --set checkpoint.folder=c --set training.steps=6 --resume one >out 2>&1 || fail "resume from one file: $(cat out)"

# --- as a folder of Hugging Face's, with the tokenizer of another model ---
ends_with 0 '^.*/hf$' "$sluice" checkpoint convert b --to hf -o hf
ends_with 0 'loss [0-9.]+ nats a token, perplexity [0-9.]+,' "$sluice" evaluate hf text/b.txt
ends_with 0 '^.*/other$' "$sluice" checkpoint convert "$models/llama.gguf" --to hf \
  --tokenizer "$models/llama.gguf" -o other
[[ -s other/tokenizer.json ]] || fail "no tokenizer in $(ls other)"
ends_with 1 'gpt2.gguf has no tokenizer' "$sluice" checkpoint convert b --to hf --tokenizer "$models/gpt2.gguf" -o none
ends_with 1 'there is no checkpoint here' "$sluice" checkpoint convert b --to hf --tokenizer text -o none
[[ ! -e none ]] || fail "none has been written"

# --- damaged ---
shard=$(ls a/step-00000004/*.safetensors | head -n 1)
printf 'x' | dd of="$shard" bs=1 seek=$(($(stat -c %s "$shard") - 40)) conv=notrunc 2>/dev/null
ends_with 1 "$shard: .*its checksum differs.*an older complete checkpoint: .*a/step-00000002" "$sluice" checkpoint verify a
ends_with 1 'its checksum differs' "$sluice" train job.textproto --resume a --set checkpoint.folder=d --set training.steps=6
rm "$shard"
ends_with 0 "not complete: .*$(basename "$shard") is missing" "$sluice" checkpoint list a
ends_with 1 'an older complete checkpoint: .*a/step-00000002' "$sluice" checkpoint show a
ends_with 1 'there is no checkpoint here' "$sluice" checkpoint show text

finish

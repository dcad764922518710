#!/bin/bash
# A run that was interrupted, by a signal or by kill -9 at random instants, goes on from its last checkpoint and ends with the
# bytes of one that never was. Ten kills here; a hundred:
#   bazel run //tests/e2e:resume_test -- --all
source tests/e2e/common.sh "$1"

kills=10
[[ ${2:-} == --all ]] && kills=100
make_texts text
cat >job.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 dropout: 0.1 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 60 batch: 8 micro_batches: 4 sequence: 32 gradient_groups: 2 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false device: cpu }
output { metrics: "metrics.jsonl" }
checkpoint { folder: "saved" every_steps: 2 keep_last: 2 keep_every: 20 }
JOB
losses() { grep -oE '"step":[0-9]+,"loss":[0-9.]+' "$1"; }
# What a checkpoint holds, in its files.
state() { (cd "$1" && sha256sum ./*.safetensors); }
train=("$sluice" train job.textproto --quiet)

# --- the run that nobody interrupts ---
began=${EPOCHREALTIME/./}
"${train[@]}" --set checkpoint.folder=whole >out 2>err || fail "train: $(cat out err)"
whole_ms=$(((${EPOCHREALTIME/./} - began) / 1000))
losses metrics.jsonl >whole.losses
[[ $(wc -l <whole.losses) == 60 ]] || fail "not 60 steps: $(cat whole.losses)"
[[ -d whole/step-00000060 ]] || fail "the end is not saved: $(ls whole)"
same_as_whole() {
  cmp -s <(state whole/step-00000060) <(state "$1/step-00000060") || fail "$2: another end"
  cmp -s whole.losses <(losses metrics.jsonl) || fail "$2: other losses: $(diff whole.losses <(losses metrics.jsonl))"
}

# --- a folder that has checkpoints is nobody else's ---
expect_error() {
  local words=$1
  shift
  "$@" >out 2>err && fail "no error: $*"
  expect "$words" err
}
expect_error 'whole/step-00000060 is there already.*--resume auto' "${train[@]}" --set checkpoint.folder=whole
expect_error 'optimizer.learning_rate was 0.01, is 0.02.*--resume-changed' "${train[@]}" --resume whole --set optimizer.learning_rate=0.02
expect_error 'parameter "wte.weight" is \[256, 32\] and not \[256, 64\]' "${train[@]}" --resume whole --set model.channels=64
expect_error 'nothing.*no checkpoint here|there is no checkpoint here|cannot read' "${train[@]}" --resume nowhere
grep -v '^checkpoint' job.textproto >nowhere.textproto
expect_error 'give it a folder' "$sluice" train nowhere.textproto --set checkpoint.every_steps=2
printf 'Another text, of which nobody has heard.\n%.0s' {1..200} >other.txt
expect_error 'training data was' "${train[@]}" --resume whole --set data.text=other.txt --set 'data.hold_out.files=[]'

# --- interrupted, and gone on in other layouts ---
stop_at() { # STEP ARGUMENTS...: sends SIGTERM when the step is done
  local step=$1 child
  shift
  : >metrics.jsonl
  "${train[@]}" "$@" >out 2>err &
  child=$!
  until grep -q "\"step\":$step," metrics.jsonl 2>/dev/null || ! kill -0 $child 2>/dev/null; do read -rt 0.01 <> <(:); done
  kill -TERM $child 2>/dev/null
  wait $child || fail "stopped at $step: $(cat out err)"
}
rm -rf saved metrics.jsonl
stop_at 7
grep -q '"step":60,' metrics.jsonl && fail "too fast to be stopped"
"${train[@]}" --resume auto --set layout.pp=1 --set layout.dp=2 --set layout.zero1=true --set training.steps=40 --set optimizer.decay_steps=60 >out 2>err || fail "resume: $(cat out err)"
"$sluice" launch --processes 2 job.textproto --quiet --resume auto >out 2>err || fail "launch --resume: $(cat out err)"
same_as_whole saved "stopped, then replicas, then two processes"

# --- kill -9 at any instant ---
rm -rf saved metrics.jsonl
resumed=0 whole=0
for ((kill = 0; kill < kills; ++kill)); do
  ls -d saved/step-???????? >/dev/null 2>&1 && ((++resumed))
  "${train[@]}" --resume auto >out 2>err &
  child=$!
  ms=$((RANDOM % (whole_ms + 1)))
  read -rt $((ms / 1000)).$(printf %03d $((ms % 1000))) <> <(:)
  kill -9 $child 2>/dev/null
  wait $child 2>/dev/null
  code=$?
  ((code == 137)) && continue
  ((code == 0)) || fail "kill $kill: code $code: $(cat err)"
  same_as_whole saved "before kill $kill"
  rm -rf saved metrics.jsonl
  ((++whole))
done
"${train[@]}" --resume auto >out 2>err || fail "after the kills: $(cat out err)"
same_as_whole saved "killed $kills times"
ls -A saved | grep -qE 'partial|removed' && fail "leftovers: $(ls -A saved)"
((resumed > 0)) || fail "nothing was gone on from in $kills kills"
echo "$kills kills, gone on from a checkpoint $resumed times, $whole runs came to their end in between"

# --- nothing can be written any more ---
rm -rf saved metrics.jsonl
(
  trap '' XFSZ
  ulimit -f 100
  "${train[@]}" >out 2>err
)
code=$?
((code == 1)) || fail "code $code where nothing can be saved: $(cat out err)"
expect 'warning: no checkpoint of step 2: .*' err
expect 'sluice: the end of the run is not saved' err
[[ $(losses metrics.jsonl | wc -l) == 60 ]] || fail "training did not go on"
cmp -s whole.losses <(losses metrics.jsonl) || fail "other losses where nothing can be saved"
ls -A saved | grep -q step && fail "half a checkpoint: $(ls -A saved)"

# --- a process that dies is no end ---
rm -rf saved metrics.jsonl
expect_error 'give the job a checkpoint.folder' "$sluice" launch --processes 2 job.textproto --max-restarts 1 --set checkpoint.folder=
: >metrics.jsonl
"$sluice" launch --processes 2 job.textproto --quiet --max-restarts 3 >out 2>err &
launcher=$!
until ls -d saved/step-???????? >/dev/null 2>&1 || ! kill -0 $launcher 2>/dev/null; do read -rt 0.01 <> <(:); done
pkill -9 -P $launcher -n
wait $launcher || fail "launch --max-restarts: $(cat out err)"
expect 'restart 1 of 3 in 1 s, after step [0-9]+: process [01] was ended by signal 9' err
expect '  [0-9-]+ [0-9:]+, after step [0-9]+: process [01] was ended by signal 9' err
same_as_whole saved "started again"

finish

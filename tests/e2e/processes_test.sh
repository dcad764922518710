#!/bin/bash
# A job of several processes as a person runs it: the numbers of one process, and an end for all when one of them dies,
# stands still or is not what it should be. Nothing hangs and nothing stays.
source tests/e2e/common.sh "$1"
export SLUICE_TOKEN=a-token-for-this-test

make_texts text
cat >job.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 8 batch: 8 micro_batches: 4 sequence: 32 gradient_groups: 2 evaluate_every: 3 check_replicas_every: 2 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false }
sample { prompt: "the " length: 12 }
JOB
sed 's/steps: 8/steps: 1000000/' job.textproto >endless.textproto

port=0
# start_workers N FILE...: process i runs the i-th file (the last one again); its number in pids[i], its output in out.i.
start_workers() {
  local count=$1 i
  shift
  local files=("$@")
  port=$((20000 + RANDOM % 20000))
  pids=()
  for ((i = 0; i < count; i++)); do
    : >out.$i  # what an earlier job wrote must not be taken for this one's
    local file=${files[$((i < ${#files[@]} ? i : ${#files[@]} - 1))]}
    "$sluice" worker "$file" --process $i --processes "$count" --join 127.0.0.1:$port --heartbeat 2 --join-timeout 15 \
      >out.$i 2>&1 </dev/null &
    pids[i]=$!
  done
}
# ends_within SECONDS PID...: all end by themselves.
ends_within() {
  local limit=$((SECONDS + $1)) pid
  shift
  for pid in "$@"; do
    while kill -0 "$pid" 2>/dev/null; do
      if ((SECONDS > limit)); then
        kill -9 "$pid"
        wait "$pid" 2>/dev/null
        fail "process $pid hung: $(tail -n 5 out.*)"
        break
      fi
      sleep 0.05
    done
  done
}

# fails_with WORDS I: process I ended with an error that has the words.
fails_with() {
  wait "${pids[$2]}"
  local code=$?
  ((code == 1)) || fail "process $2 ended with $code, not 1: $(cat out.$2)"
  grep -qE -- "$1" out.$2 || fail "no \"$1\" from process $2: $(tail -n 5 out.$2)"
}

wait_for() {
  local limit=$((SECONDS + 20))
  until grep -qE -- "$1" "$2" 2>/dev/null; do
    ((SECONDS > limit)) && { fail "no \"$1\" in $2 in 20 s: $(tail -n 5 out.*)"; return; }
    sleep 0.05
  done
}

numbers() { grep -oE 'step [0-9]+/8  loss [0-9.]+|norm [0-9.e+-]+|held-out loss .*|^the .*' "$1"; }

# --- the numbers of one process, over processes, threads, replicas and shards ---
"$sluice" train job.textproto >one 2>&1 </dev/null || fail "train: $(cat one)"
for layout in "pp=2" "pp=2 dp=2 zero1=true" "pp=1 dp=2"; do
  sets=()
  for field in $layout; do sets+=(--set "layout.$field"); done
  timeout 60 "$sluice" launch --processes 2 job.textproto "${sets[@]}" >several 2>&1 </dev/null ||
    fail "launch $layout: $(tail -n 5 several)"
  diff <(numbers one) <(sed 's/^\[0\] //' several | numbers /dev/stdin) >difference || fail "$layout: $(cat difference)"
done
timeout 60 "$sluice" launch --processes 2 job.textproto --set layout.pp=1 --set layout.tp=2 >several 2>&1 </dev/null ||
  fail "launch tp=2: $(tail -n 5 several)"
grep -q 'held-out loss after step 8' several || fail "tp=2 gives no loss: $(tail -n 5 several)"

# --- kill -9 and SIGSTOP of a process while it trains ---
for victim in 0 1; do
  start_workers 2 endless.textproto
  wait_for '^step 3/' out.0
  kill -9 "${pids[$victim]}"
  ends_within 15 "${pids[$((1 - victim))]}"
  fails_with "process $victim" $((1 - victim))
done
start_workers 2 endless.textproto
wait_for '^step 3/' out.0
kill -STOP "${pids[1]}"
ends_within 15 "${pids[0]}"
fails_with 'process 1' 0
kill -CONT "${pids[1]}"
ends_within 15 "${pids[1]}"
fails_with '' 1

# --- ... while it evaluates and while it writes the sample at the end ---
for i in $(seq 1 4000); do
  echo "held out, line $i: the quick brown fox jumps over the lazy dog $((i * i)) times and rests."
done >long.txt
cp text/a.txt long_a.txt
sed -e 's/text: "text"/text: "long"/' -e 's/"b.txt"/"long.txt"/' -e 's/steps: 8/steps: 2 evaluate_batches: 100000/' job.textproto >evaluates.textproto
mkdir long && mv long.txt long_a.txt long
sed -e 's/steps: 8/steps: 2/' -e 's/length: 12/length: 100000/' job.textproto >samples.textproto
for phase in 'evaluates ^step 2/' 'samples held-out loss after step 2'; do
  for signal in KILL STOP; do
    for victim in 0 1; do
      start_workers 2 ${phase%% *}.textproto
      wait_for "${phase#* }" out.0
      sleep 0.2
      kill -$signal "${pids[$victim]}"
      ends_within 15 "${pids[$((1 - victim))]}"
      fails_with "process $victim" $((1 - victim))
      grep -q 'Trained' out.0 && fail "${phase%% *}: it was over before it was hit"
      kill -CONT "${pids[$victim]}" 2>/dev/null
      ends_within 15 "${pids[$victim]}"
      wait "${pids[$victim]}" 2>/dev/null
    done
  done
done

# --- ... and at any moment, up to the end: all is well if it had left already ---
start_workers 2 job.textproto
began=${EPOCHREALTIME/./}
ends_within 30 "${pids[@]}"
lasts=$((${EPOCHREALTIME/./} - began))
for eighth in 1 2 3 4 5 6 7 8; do
  signal=$((eighth % 2 == 0 ? 9 : 19))
  start_workers 2 job.textproto
  sleep $((lasts * eighth / 8 / 1000000)).$(printf %06d $((lasts * eighth / 8 % 1000000)))
  kill -$signal "${pids[1]}" 2>/dev/null
  ends_within 25 "${pids[0]}"
  wait "${pids[0]}"
  code=$?
  if ((code == 0)); then
    grep -q '^Trained 8 steps' out.0 || fail "code 0 without a report: $(cat out.0)"
  else
    ((code == 1)) || fail "process 0 ended with $code, not 1: $(cat out.0)"
    grep -q 'process 1' out.0 || fail "process 0 doesn't say who was hit: $(cat out.0)"
  fi
  kill -9 "${pids[1]}" 2>/dev/null
  wait "${pids[1]}" 2>/dev/null
done

# --- a rank that is much slower goes on, and is named ---
sed -e 's/steps: 8/steps: 20/' -e 's/channels: 32/channels: 256/' job.textproto >slow.textproto
start_workers 2 slow.textproto
wait_for '^step 1/' out.0
# It shares a processor with a program that is ten times as important.
slow_processor=$(taskset -cp $$ | sed 's/.*[^0-9]//')
taskset -c "$slow_processor" bash -c 'while :; do :; done' &
important=$!
taskset -acp "$slow_processor" "${pids[1]}" >/dev/null
renice -n 10 -p $(ls "/proc/${pids[1]}/task") >/dev/null
ends_within 60 "${pids[@]}"
wait "${pids[0]}" || fail "a slow rank ended the job: $(tail -n 3 out.0)"
kill "$important"
grep -q 'Rank 1 is a straggler' out.0 || fail "the slow rank is not named: $(tail -n 12 out.0)"

# --- a stop asked of one process is one of all, after the step ---
start_workers 2 endless.textproto
wait_for '^step 3/' out.0
kill -TERM "${pids[1]}"
ends_within 20 "${pids[@]}"
wait "${pids[0]}" || fail "a stop is no failure: $(tail -n 5 out.0)"
grep -q 'Trained [0-9]* steps' out.0 || fail "no report after a stop: $(tail -n 5 out.0)"

# --- processes that don't fit together ---
start_workers 2 job.textproto endless.textproto
ends_within 25 "${pids[@]}"
fails_with 'job' 0
fails_with 'job' 1
start_workers 2 job.textproto
SLUICE_TOKEN=zq7-of-nobody timeout 30 "$sluice" worker job.textproto --process 1 --processes 2 --join 127.0.0.1:$port \
  --join-timeout 5 >wrong 2>&1 && fail "a wrong token joined"
grep -qF zq7 wrong && fail "the token is printed: $(cat wrong)"
ends_within 30 "${pids[@]}"
wait "${pids[0]}" || fail "who doesn't know the token stopped a job: $(tail -n 3 out.0)"
"$sluice" worker job.textproto --process 0 --processes 2 --join 127.0.0.1:$((port + 1)) --join-timeout 2 >missing 2>&1 &&
  fail "a job of two ran with one"
grep -q 'process 1' missing || fail "who is missing isn't said: $(cat missing)"

# --- garbage and silent connections at the control port, while a job runs ---
start_workers 2 endless.textproto
wait_for '^step 2/' out.0
head -c 100000 /dev/urandom >/dev/tcp/127.0.0.1/$port
printf '\xff\xff\xff\x7f' >/dev/tcp/127.0.0.1/$port
exec 7<>/dev/tcp/127.0.0.1/$port
steps=$(grep -c '^step' out.0)
wait_for "^step $((steps + 5))/" out.0
exec 7>&-
kill -TERM "${pids[0]}"
ends_within 20 "${pids[@]}"
wait "${pids[0]}" || fail "strangers at the port stopped the job: $(tail -n 3 out.0)"

# --- kill -9 of the launcher leaves nobody ---
"$sluice" launch --processes 2 endless.textproto >launched 2>&1 </dev/null &
launcher=$!
wait_for 'step 2/' launched
children=$(pgrep -P $launcher)
kill -9 $launcher
wait $launcher 2>/dev/null
# shellcheck disable=SC2086
ends_within 10 $children

finish

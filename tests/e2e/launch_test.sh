#!/bin/bash
# A job in several processes as a person starts it: by `sluice launch` on one host, over ssh (here a script that stays on
# this host), or by another launcher (here only its variables). The numbers are those of one process, and whatever is
# killed, nobody is left.
source tests/e2e/common.sh "$1"

losses() { grep -oE '^step [0-9]+/12  loss [0-9.]+' "$1"; }
# until CONDITION...: waits until it holds, at most 60 s.
until_holds() {
  local i
  for ((i = 0; i < 600; ++i)); do
    "$@" && return 0
    read -rt 0.1 <> <(:)
  done
  fail "never came: $*"
  return 1
}
# Processes of this test's job that run, whoever their parent is now; "worker" or "supervise".
running() {
  local file words
  for file in /proc/[0-9]*/cmdline; do
    mapfile -d '' -t words 2>/dev/null <"$file" || continue
    [[ ${words[0]:-} == "$real" && ${words[3]:-} == "$1" && $(readlink "${file%cmdline}cwd") == "$work"* ]] || continue
    file=${file%/cmdline}
    echo "${file#/proc/}"
  done
}
nobody_left() { [[ -z $(running worker)$(running supervise) ]]; }
trains() { grep -q "^step 3/" "$1"; }

real=$(readlink -f "$sluice")
make_texts jobs/text
cat >jobs/small.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 12 batch: 8 micro_batches: 4 sequence: 32 evaluate_every: 5 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false }
schedule { name: "1f1b" }
sample { prompt: "the " length: 20 }
JOB
job=jobs/small.textproto
endless=(--set training.steps=1000000)
cat >ssh <<'SSH'
#!/bin/bash
# As ssh: a host, and a command for its shell.
[[ $1 == dead ]] && { echo "no route to $1" >&2; exit 255; }
shift
exec /bin/sh -c "$*"
SSH
chmod +x ssh
printf 'a  # process 0\nb processes=1\n' >hosts
by_ssh=(--hosts hosts --ssh ./ssh --interface lo)

# --- the same numbers ---
"$sluice" train $job >one 2>err || fail "train: $(cat err)"
"$sluice" launch --processes 2 $job >two 2>err || fail "launch: $(cat err)"
cmp -s <(losses one) <(losses two) || fail "other losses in two processes: $(cat two err)"
[[ $(losses two | wc -l) == 12 ]] || fail "not 12 steps: $(cat two)"
[[ $(grep -A1 '^Sample' one) == $(grep -A1 '^Sample' two) ]] || fail "another sample in two processes"
"$sluice" launch "${by_ssh[@]}" $job >ssh_out 2>err || fail "over ssh: $(cat err)"
cmp -s <(losses one) <(losses ssh_out) || fail "other losses over ssh"
expect 'process 0 on a is reached at 127.0.0.1 port [0-9]+' err
"$sluice" launch --processes 2 $job --quiet >quiet 2>&1 || fail "quiet: $(cat quiet)"
[[ ! -s quiet ]] || fail "--quiet printed $(cat quiet)"

# --- by other launchers: their variables ---
port=$((20000 + RANDOM % 10000))
by_variables() {
  local name=$1 process
  shift
  for process in 1 0; do
    env SLUICE_TOKEN=secret "${@//%/$process}" "$sluice" worker $job >"$name.$process" 2>"$name.err.$process" &
  done
  wait $! || fail "$name, process 0: $(cat "$name.err.0")"
  wait
  cmp -s <(losses one) <(losses "$name.0") || fail "other losses by the variables of $name"
  [[ ! -s $name.1 ]] || fail "process 1 printed $(cat "$name.1")"
}
by_variables torchrun RANK=% WORLD_SIZE=2 LOCAL_RANK=% LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
  TORCHELASTIC_RUN_ID=none TORCHELASTIC_USE_AGENT_STORE=True
by_variables slurm SLURM_PROCID=% SLURM_NTASKS=2 SLURM_LOCALID=% SLURM_NODEID=0 SLURM_JOB_ID=$port SLURM_STEP_ID=0 \
  SLURM_STEP_NODELIST=localhost 'SLURM_STEP_TASKS_PER_NODE=2'
by_variables openmpi OMPI_COMM_WORLD_RANK=% OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=% \
  OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=$port

# --- wrong things: one error, and the cause is the last line ---
expect_error() {
  local words=$1 code=$2 got
  shift 2
  timeout 60 "$@" >out 2>err
  got=$?
  ((got == code)) || fail "code $got, not $code: $*: $(cat err)"
  tail -n 1 err >last
  expect "$words" last
}
expect_error "sluice: process 0 failed with code 1: 3 processes can't share" 1 "$sluice" launch --processes 3 $job
expect_error 'sluice: process 0 failed with code 1: .*none.textproto' 1 "$sluice" launch --processes 2 none.textproto
expect_error 'host a failed with code 1: .*none.textproto.*same path' 1 "$sluice" launch "${by_ssh[@]}" none.textproto
expect_error 'host a: cannot run /no/ssh' 127 "$sluice" launch --hosts hosts --ssh /no/ssh $job
echo 'a process=2' >wrong_hosts
expect_error 'wrong_hosts:1: "process=2"' 1 "$sluice" launch --hosts wrong_hosts $job
printf 'a\ndead\n' >dead_hosts
expect_error 'host dead failed with code 255: no route to dead' 255 "$sluice" launch --hosts dead_hosts --ssh ./ssh --interface lo $job
nobody_left || fail "left after errors: $(running worker) $(running supervise)"

# --- whatever is killed, stopped or interrupted ---
for how in "--processes 2" "${by_ssh[*]}"; do
  # A worker: all end, and the launcher with its code.
  : >out
  "$sluice" launch $how $job "${endless[@]}" >out 2>err &
  launcher=$!
  until_holds trains out
  kill -9 "$(running worker | tail -n 1)"
  wait $launcher 2>/dev/null
  code=$?
  ((code == 137 || code == 1)) || fail "$how: code $code after a worker was killed"
  tail -n 1 err >last
  expect 'was ended by signal 9|has died' last
  nobody_left || fail "$how: left after a worker was killed"

  # The launcher: nobody is left, not even who is stopped.
  : >out
  "$sluice" launch $how $job "${endless[@]}" >out 2>err &
  launcher=$!
  until_holds trains out
  kill -STOP "$(running worker | head -n 1)"
  kill -9 $launcher
  wait $launcher 2>/dev/null
  until_holds nobody_left

  # A person who has seen enough: the report comes, and all is well.
  : >out
  "$sluice" launch $how $job "${endless[@]}" >out 2>err &
  launcher=$!
  until_holds trains out
  kill -INT $launcher
  wait $launcher || fail "$how: an interrupted run ends with $?: $(cat err)"
  expect '^Trained [0-9]+ steps' out
  nobody_left || fail "$how: left after an interrupt"
done

# A worker that is stopped counts as dead.
: >out
"$sluice" launch --processes 2 $job "${endless[@]}" --heartbeat 1 >out 2>err &
launcher=$!
until_holds trains out
kill -STOP "$(running worker | tail -n 1)"
wait $launcher 2>/dev/null && fail "a stopped worker is no failure"
tail -n 1 err >last
expect 'not heard of for 1 s|has been stopped' last
nobody_left || fail "a stopped worker is left"

finish

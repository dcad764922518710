#!/bin/bash
# Runs the GPU tests beside it, and prints a short table and `N passed, N failed, N skipped`:
#   ./run [FILTER]                 the cases whose names match (GoogleTest's pattern; default: all)
#   ./run --sanitizer TOOL         all under compute-sanitizer (memcheck, racecheck, initcheck, synccheck)
#   ./run --benchmarks             GPT-2 and Llama in bf16 on one GPU, as one stage and as several
#   ./run --program ARGUMENTS...   the program itself: ./run --program train jobs/kjv.textproto --device cuda
# Ends with 0; with 1: something failed; with 2: nothing could run, and it says why. A test program has TEST_SECONDS (600).
# CUDA's libraries are looked for where the loader looks, in CUDA_HOME, in /usr/local/cuda and in Python's packages.
set -uo pipefail

here=$(dirname -- "$(readlink -f -- "$0")")
readonly here

# Sets `content` to the folder with what the payload holds: here, or, where that can't be written, one for this run only.
unpack() {
  content=$here/content
  [[ -e $content/complete ]] && return
  if ! mkdir -p "$content" 2>/dev/null; then
    content=$(mktemp -d)
    trap 'rm -rf "$content"' EXIT
  fi
  tar -xzf "$here/payload.tar.gz" -C "$content" --strip-components=1 && touch "$content/complete" || exit 2
}

# Folders that may hold CUDA's libraries, the likeliest first.
library_folders() {
  local python packages
  tr : '\n' <<<"${LD_LIBRARY_PATH:-}"
  [[ -n ${CUDA_HOME:-} ]] && printf '%s\n' "$CUDA_HOME/lib64" "$CUDA_HOME/lib"
  printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib
  for python in python3 python /opt/*/bin/python3 /usr/bin/python3; do
    command -v "$python" >/dev/null || continue
    "$python" -c 'import sys; print("\n".join(sys.path))' 2>/dev/null | while read -r packages; do
      compgen -G "$packages/nvidia/*/lib"
    done
  done
}

# Sets `cuda` to the folders of the libraries that are needed, and says which are nowhere.
find_cuda() {
  local name folder folders
  folders=$(library_folders | awk 'NF && !seen[$0]++')
  cuda=''
  while read -r name; do
    folder=$(while read -r folder; do [[ -e $folder/$name ]] && echo "$folder" && break; done <<<"$folders")
    if [[ -n $folder ]]; then
      [[ :$cuda: == *:$folder:* ]] || cuda+=${cuda:+:}$folder
    elif ! ldconfig -p 2>/dev/null | grep -q "$name "; then
      printf '%s is not in:\n%s\n' "$name" "$(sed 's/^/  /' <<<"$folders")"
    fi
  done <"$content/cuda_libraries"
}

# Starts a program of the content, by the command `under`, with its libraries and, where this system's own C library is
# older than the one it was built with, with that too.
start() {
  local program=$1 own
  shift
  own=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
  if [[ $(printf '%s\n' "$own" "$(<"$content/glibc_version")" | sort -V | tail -n 1) == "$own" ]]; then
    LD_LIBRARY_PATH=$content/lib:$cuda "${under[@]}" "$program" "$@"
  else
    "${under[@]}" "$content/glibc/ld-linux-x86-64.so.2" --library-path "$content/glibc:$content/lib:$cuda" "$program" "$@"
  fi
}

# Runs one test program, prints its line and adds to the sums.
run_test() {
  local name=$1 log=$logs/$1.log xml=$logs/$1.xml status all skips fails began=$SECONDS
  rm -f "$xml"
  start "$content/tests/$name" "--gtest_filter=$filter" "--gtest_output=xml:$xml" --gtest_brief=1 >"$log" 2>&1 </dev/null
  status=$?
  all=$(grep -c '<testcase ' "$xml" 2>/dev/null)
  skips=$(grep -c 'result="skipped"' "$xml" 2>/dev/null)
  fails=$(grep '<testcase ' -A1 "$xml" 2>/dev/null | grep -c '<failure ')
  # A program that skips all it has reports no case.
  if [[ $status -eq 0 && $all -eq 0 ]] && reason=$(grep -m 1 '^SKIPPED: ' "$log"); then
    reason=${reason#SKIPPED: }
    ((all = 1, skips = 1))
  fi
  # One that dies, or that a sanitizer finds fault with, has no failed case.
  if [[ $status -ne 0 && $fails -eq 0 ]]; then
    echo "$name ended with status $status" >>"$log"
    ((fails = 1, all = all > skips ? all : skips + 1))
  fi
  printf '%-32s %8d %8d %8d %8d s\n' "$name" $((all - skips - fails)) "$fails" "$skips" $((SECONDS - began))
  ((passed += all - skips - fails, skipped += skips, failed += fails))
  if ((fails > 0)); then failed_logs+=("$log"); fi
  if [[ -f $xml && $skips -gt 0 ]]; then reason=$(sed -n '/<skipped/{s/.*&#x0A;\([^"]*\)".*/\1/p;q}' "$xml"); fi
}

# The jobs of docs/gpu.md: model, rows of a step, stages on the one GPU.
benchmarks() {
  local job preset batch stages model
  while read -r job preset batch stages; do
    printf '\n=== %s %s, steps of %s x 1024 tokens, stages: %s\n' "$job" "$preset" "$batch" "$stages"
    model=()
    [[ $preset == - ]] || model=(--set "model.preset=$preset")
    start "$content/sluice" bench "jobs/$job.textproto" --device cuda "${model[@]}" --set training.precision=bf16 \
      --set training.sequence=1024 --set "training.batch=$batch" --set training.micro_batches=8 --set "layout.pp=$stages" \
      </dev/null || ((failed += 1))
  done <<'JOBS'
gpt2-124m 124M 128 1
gpt2-124m 124M 128 2
gpt2-124m 124M 128 4
gpt2-124m 355M 64 1
gpt2-124m 1558M 32 1
llama-1b - 32 1
JOBS
}

unpack
find_cuda
filter='*' under=(timeout --kill-after=10 "${TEST_SECONDS:-600}")
case ${1:-} in
  --program)
    shift
    cd "$content" || exit 2
    under=(env)
    start "$content/sluice" "$@"
    exit
    ;;
  --benchmarks)
    cd "$content" || exit 2
    failed=0
    benchmarks
    ((failed == 0))
    exit
    ;;
  --sanitizer)
    command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not in PATH"; exit 2; }
    under+=(compute-sanitizer --tool "${2:-memcheck}" --error-exitcode 1)
    ;;
  -*) sed -n '2,/^# CUDA/s/^# \?//p' "$0"; exit 2 ;;
  ?*) filter=$1 ;;
esac

readonly logs=$content/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 reason='' failed_logs=()
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
printf '%-32s %8s %8s %8s %10s\n' tests passed failed skipped time
for path in "$content"/tests/*; do
  run_test "$(basename "$path")"
done
for log in "${failed_logs[@]}"; do
  printf '\n--- the end of %s\n' "$log"
  tail -n 30 "$log"
done
[[ -n $reason ]] && echo "skipped: $reason"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0)) || exit 1
((passed > 0)) || exit 2

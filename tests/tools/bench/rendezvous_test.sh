#!/bin/bash
# A thousand processes meet and end within the aims of docs/benchmarks/rendezvous.md; $1 is the bench.
set -euo pipefail
if [[ $(ulimit -Hn) != unlimited && $(ulimit -Hn) -lt 1500 ]]; then
  echo "skipped: a process may have $(ulimit -Hn) open files here, and each connection is one"
  exit 0
fi
output=$("$1" 1024)
echo "$output"
awk '
  $1 == "join" { join = $2; seen++ }
  $1 == "abort" { abort = $2; seen++ }
  $1 == "memory" { memory = $2; seen++ }
  END {
    if (seen != 3) { print "the bench has not run to its end"; exit 1 }
    if (join > 3) { print "join: " join " s; the aim is 3 s"; exit 1 }
    if (abort > 1) { print "abort: " abort " s; the aim is 1 s"; exit 1 }
    if (memory > 100) { print "memory: " memory " MiB; the aim is 100 MiB"; exit 1 }
  }' <<<"$output"

#!/bin/bash
# Makes the pictures of docs/schedules.md and its table: 4 ranks, 8 micro-batches, one rank's share of the model takes 1 ms each
# for forward, input gradient and weight gradient, whatever its number of chunks.
#   docs/pictures/make.sh [PROGRAM]    PROGRAM: the sluice to use, else it is built
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."

sluice=${1:-}
if [[ -z $sluice ]]; then
  ./bazelw build //:sluice
  sluice=$(./bazelw info bazel-bin)/tools/sluice
fi

readonly setting=(--ranks 4 --micro-batches 8)
readonly chunks=(--chunks 2 --forward 0.5 --input-gradient 0.5 --weight-gradient 0.5)

# A row of the table from the caption "..., bubble A % of the makespan of B[, C % of the span of D], peak memory E on rank 0".
row() {
  sed -nE '1{
    s/, which is the span too//
    s/bubble ([0-9.]+ %) of the makespan of ([0-9.]+ ms)(, peak|$)/bubble \1 of the makespan of \2, \1 of the span of \2\3/
    s/, peak memory (.*) on rank.*/, peak \1/
    s/^([^,]*), .*bubble ([0-9.]+ %) of the makespan of ([0-9.]+ ms), ([0-9.]+ %) of the span of ([0-9.]+ ms)(, peak )?(.*)/| \1 | \3 | \2 | \5 | \4 | \7 |/p
  }'
}

mkdir -p docs/pictures/schedules
table=$'| schedule | makespan | bubble of it | span | bubble of it | peak memory |\n|---|---|---|---|---|---|'
for name in $(sed -n 's/^## \([a-z0-9_]*\)$/\1/p' docs/schedules.md); do
  own=()
  case $name in interleaved_1f1b | looped_bfs | interleaved_zb) own=("${chunks[@]}") ;; esac
  "$sluice" visualize "$name" "${setting[@]}" "${own[@]}" -o "docs/pictures/schedules/$name.svg"
  table+=$'\n'$("$sluice" visualize "$name" "${setting[@]}" "${own[@]}" --width 100 | row)
done

# The table between its marks on the page.
awk -v table="$table" '
  /^<!-- end of table -->$/ { skip = 0 }
  !skip { print }
  /^<!-- table -->$/ { print table; skip = 1 }
' docs/schedules.md >docs/schedules.md.new
mv docs/schedules.md.new docs/schedules.md

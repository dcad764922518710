#!/bin/bash
# Compiles one source by nvcc, and keeps what the table of kernels is made from:
#   nvcc.sh NVCC OBJECT FOLDER REPORT ARCHITECTURES ARGUMENTS...
# OBJECT.ARCHITECTURE.cubin is each architecture's machine code, REPORT what ptxas said of registers and spills.
# nvcc's temporary files lie in FOLDER, one of its own per source: parallel compiles would collide in a shared /tmp.
set -euo pipefail

readonly nvcc=$1 object=$2 folder=$3 report=$4 architectures=$5
shift 5

mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
if ! "$nvcc" "$@" -Xptxas -v --keep --keep-dir "$folder" -c -o "$object" 2>"$report"; then
  grep -v '^ptxas info' "$report" >&2
  exit 1
fi
for architecture in ${architectures//,/ }; do
  mv "$folder"/*_"$architecture".cubin "${object%.o}.$architecture.cubin"
done

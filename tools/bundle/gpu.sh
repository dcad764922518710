#!/bin/bash
# Packs the tests of GPU code into one folder for a machine that has only a driver and CUDA's libraries:
#   bazel run //tools/bundle:gpu [-- WHERE]
# WHERE (default: sluice-gpu in the folder you stand in) becomes the folder, or, named *.tar.gz, an archive of it. Copy it
# over and start `run` in it; gpu_run.sh says what that prints. Everything but the driver's and CUDA's libraries is inside,
# the C library too, for machines whose own is older.
#
# Called by its BUILD rule as: gpu.sh LICENSE RUN PROGRAM TESTS... -- [WHERE]
set -euo pipefail

readonly license=$1 run=$2 program=$3
shift 3
tests=()
while [[ $1 != -- ]]; do
  tests+=("$1")
  shift
done
where=${2:-sluice-gpu}
readonly workspace=${BUILD_WORKSPACE_DIRECTORY:-} bytes_max=$((60 << 20))
source tools/bundle/packing.sh
where=$(absolute "$where")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
readonly root=$scratch/$(basename "${where%.tar.gz}") payload=$scratch/payload
mkdir -p "$root" "$payload"/{tests,jobs}

for path in "${tests[@]}"; do
  strip -o "$payload/tests/$(basename "$path")" "$path"
done
strip -o "$payload/sluice" "$program"
libraries=$(libraries_of "$program" "${tests[@]}")
pack_libraries "$payload/lib" "$root/licenses" <<<"$libraries"
# For systems whose C library is older than the one that this was built with.
libraries=$(glibc_of "$program" "${tests[@]}")
pack_libraries "$payload/glibc" "$root/licenses" <<<"$libraries"
if compgen -G "$workspace/examples/*.textproto" >/dev/null; then
  cp "$workspace"/examples/*.textproto "$payload/jobs/"
  [[ ! -d $workspace/examples/data/kjv ]] || install -D -m 644 -t "$payload/jobs/data/kjv" "$workspace"/examples/data/kjv/*
fi
# The libraries of CUDA that `run` must find.
for path in "$program" "${tests[@]}"; do objdump -p "$path"; done | awk '$1 == "NEEDED" {print $2}' | sort -u |
  grep -E "$cuda" >"$payload/cuda_libraries" || true
getconf GNU_LIBC_VERSION | awk '{print $2}' >"$payload/glibc_version"

cp -L "$license" "$root/LICENSE"
install -m 755 "$run" "$root/run"
archive "$payload" "$root/payload.tar.gz" 0
cat >"$root/README" <<README
Sluice $("$program" --version | awk '{print $NF}'): its GPU tests and benchmarks. They need a driver and the libraries of CUDA, nothing else:

$(sed -n 's/^#   /  /p' "$run")

Licence: Apache-2.0 (LICENSE). licenses/ holds the notices of the libraries inside.
README

bytes=$(du -sb "$root" | cut -f1)
if ((bytes > bytes_max)); then
  echo "bundle: $bytes bytes, more than the $bytes_max that such a folder may have" >&2
  exit 1
fi
if [[ $where == *.tar.gz ]]; then
  archive "$root" "$where" 0
else
  rm -rf "$where"
  mkdir -p "$(dirname "$where")"
  cp -r "$root" "$where"
fi
echo "$where ($((bytes >> 20)) MiB)"

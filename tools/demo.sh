#!/usr/bin/env bash
# The main job on this machine: real model, real text, real processes; ten minutes or less on two cores.
# Everything it makes lies under demo/ and the cache folder, so a second call sets nothing up again.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
eyas="$venv/bin/eyas"
run=${DEMO_DIR:-demo}
assets=$(tools/fetch_assets.sh)

"$eyas" demo --assets "$assets" --cache "$cache" --output "$run"
rm -rf "$run/run" "$run/draft" "$run/plot.png"
"$eyas" local run examples/quickstart.yaml --workdir "$run/run" \
  --volume models="$run/models" --volume data="$run/data"
"$eyas" local plot "$run/run" --output "$run/plot.png"
"$eyas" export "$run/run" "$run/draft"
"$eyas" eval --draft "$run/draft" --target "$run/models/smollm2" --prompts "$run/data/eval.jsonl" --limit 5 --tokens 48
"$eyas" audit "$run/run"

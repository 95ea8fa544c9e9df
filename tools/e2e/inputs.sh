#!/usr/bin/env bash
# The quickstart's model and prompts as plain files that every user may read: nodes mount them read-only.
. "$(dirname "$0")/env.sh"
inputs=$STATE/inputs
[ -e "$inputs/complete" ] && exit
venv=${VENV:-.venv}
"$venv/bin/eyas" demo --assets "$(tools/fetch_assets.sh)" --cache "$CACHE" --output "$STATE/demo" > /dev/null
rm -rf "$inputs"; mkdir -p "$inputs/models"
cp -rL "$STATE/demo/models/smollm2" "$inputs/models/"
cp -r "$STATE/demo/data" "$inputs/data"
chmod -R a+rX "$inputs"
rm -rf "$STATE/demo"
touch "$inputs/complete"

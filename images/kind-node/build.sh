#!/usr/bin/env bash
# Makes the node image of a test cluster without an image registry and prints its name; at once when it is there already.
# Needs root (debootstrap), docker, Go, and the packages in the first message. About two minutes with the cluster's
# programs at hand (tools/kube_tools.sh). With a registry, kind's published node image serves as well.
. "$(dirname "$0")/env.sh"
say() { printf 'node image: %s\n' "$*" >&2; }
if docker image inspect "$NODE_IMAGE" > /dev/null 2>&1; then echo "$NODE_IMAGE"; exit; fi
exec 9> "$WORK/lock"; flock 9
if docker image inspect "$NODE_IMAGE" > /dev/null 2>&1; then echo "$NODE_IMAGE"; exit; fi
for program in debootstrap jq go; do
  command -v $program > /dev/null || { say "$program is needed: apt-get install debootstrap jq; Go from https://go.dev/dl"; exit 78; }
done
for stage in base parts node; do
  began=$SECONDS
  "$HERE/$stage.sh" > "$WORK/$stage.log" 2>&1 || { tail -n 20 "$WORK/$stage.log" >&2; say "$stage.sh failed, see $WORK/$stage.log"; exit 70; }
  say "$stage: $((SECONDS - began)) s"
done
rm -rf "$ROOT" "$ROOT.complete" "$WORK/context" "$WORK/images.tar"
echo "$NODE_IMAGE"
